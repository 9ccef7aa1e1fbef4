"""What the user asks of a restore that is under way: a Unix socket in its folder, one JSON object a line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from vmrestorekit.lab.media.sockets import unix_listener
from vmrestorekit.lab.programs import LabError

__all__ = ["Request", "ask_restore", "take_requests"]

Request = Callable[[dict[str, Any]], Awaitable[str]]
_NAME = "requests"
_ANSWER_S = 60.0


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """Give a folder a path that is short enough for the name of a socket, however deep the folder lies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def take_requests(folder: Path, requests: dict[str, Request]) -> AsyncIterator[None]:
    """Take requests; each is answered with the sentence that its function returns, or raises as `LabError`.

    The folder must be ours alone (`RestoreFolder.in_use`): a socket that a killed process left is replaced.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, EOFError):
            reply = await _answer(await reader.readuntil(b"\n"), requests)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    with _short(folder) as path:
        (path / _NAME).unlink(missing_ok=True)
        with unix_listener(path / _NAME) as listener:
            server = await asyncio.start_unix_server(answer, sock=listener)
            try:
                yield
            finally:
                server.close()


async def _answer(line: bytes, requests: dict[str, Request]) -> dict[str, str]:
    try:
        message = json.loads(line)
        what = message["do"]
        if what not in requests:
            raise LabError(f"this restore takes no request {what!r}, only {', '.join(requests)}")
        return {"said": await requests[what](message)}
    except (ValueError, KeyError, TypeError, OSError) as error:
        return {"refused": str(error)}


async def ask_restore(folder: Path, do: str, **more: Any) -> str:
    """Ask something of the process that carries out a restore; return what it said.

    Raises
    ------
    LabError
        If nobody carries it out, or it refuses.
    """
    if not folder.is_dir():
        raise LabError(f"{folder}: expected the folder of a restore, found no folder")
    with _short(folder) as path:
        try:
            reader, writer = await asyncio.open_unix_connection(str(path / _NAME))
        except OSError as error:
            raise LabError(f"{folder}: nobody is carrying out this restore at the moment") from error
        try:
            writer.write(json.dumps({"do": do} | more).encode() + b"\n")
            async with asyncio.timeout(_ANSWER_S):
                answer = json.loads(await reader.readuntil(b"\n"))
        except (EOFError, ConnectionError, TimeoutError) as error:
            raise LabError(f"{folder}: no answer from the process that carries out this restore") from error
        finally:
            writer.close()
    if "refused" in answer:
        raise LabError(answer["refused"])
    return str(answer["said"])
