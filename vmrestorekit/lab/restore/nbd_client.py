"""A small NBD client: how the data agent has blocks relocated in an order of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

from vmrestorekit.lab.nbd import wire
from vmrestorekit.lab.nbd.wire import Command, Option

__all__ = ["COPY", "NbdClient", "connect_nbd"]

COPY = 5  # NBD_CMD_CACHE: read, and keep what was read to yourself


@contextlib.asynccontextmanager
async def connect_nbd(path: Path, export: str) -> AsyncIterator[NbdClient]:
    """Open an export on a Unix socket.

    Raises
    ------
    ConnectionError
        If nobody listens there, or they hang up: because there is no such export.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except FileNotFoundError as error:
        raise ConnectionRefusedError(f"nobody listens at {path}") from error
    receiving = None
    try:
        try:
            await reader.readexactly(wire.GREETING.size)
            name = export.encode()
            writer.write(wire.U32.pack(wire.CLIENT_FIXED_NEWSTYLE | wire.CLIENT_NO_ZEROES))
            writer.write(wire.OPTION.pack(wire.OPTION_MAGIC, Option.EXPORT_NAME, len(name)) + name)
            await reader.readexactly(wire.U64.size + wire.U16.size)
        except EOFError as error:
            raise ConnectionResetError(f"{path}: expected an NBD export {export!r}") from error
        client = NbdClient(reader, writer)
        receiving = asyncio.create_task(client._receive())
        yield client
        writer.write(wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, Command.DISC, 0, 0, 0))
    finally:
        if receiving is not None:
            receiving.cancel()
            await asyncio.wait({receiving})
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class NbdClient:
    """Sends requests, several at a time; each raises `OSError` if it fails, `ConnectionError` at the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._cookies = itertools.count(1)
        self._waiting: dict[int, tuple[int, asyncio.Future[bytes]]] = {}
        self._gone = False

    async def read(self, offset: int, length: int) -> bytes:
        """Return a range."""
        return await self._ask(Command.READ, offset, length)

    async def write(self, offset: int, data: bytes) -> None:
        """Write a range."""
        await self._ask(Command.WRITE, offset, len(data), data)

    async def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        await self._ask(Command.WRITE_ZEROES, offset, length)

    async def flush(self) -> None:
        """Have everything that was answered so far made durable."""
        await self._ask(Command.FLUSH, 0, 0)

    async def copy(self, offset: int, length: int) -> None:
        """Have the server read a range without sending it; with copy-on-read it keeps what it read."""
        await self._ask(COPY, offset, length)

    async def _ask(self, command: int, offset: int, length: int, data: bytes = b"") -> bytes:
        if self._gone:
            raise ConnectionResetError("the NBD server hung up")
        cookie = next(self._cookies)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[cookie] = (length if command == Command.READ else 0, answer)
        header = wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, command, cookie, offset, length)
        self._writer.writelines([header, data])
        await self._writer.drain()
        return await answer

    async def _receive(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(wire.SIMPLE_REPLY.size)
                magic, error, cookie = wire.SIMPLE_REPLY.unpack(head)
                if magic != wire.SIMPLE_REPLY_MAGIC or cookie not in self._waiting:
                    raise ConnectionResetError(f"expected an answer to a request, got magic {magic:#x}")
                length, answer = self._waiting.pop(cookie)
                data = b"" if error else await self._reader.readexactly(length)
                if answer.done():
                    continue  # whoever asked was cancelled
                if error:
                    answer.set_exception(OSError(error, os.strerror(error)))
                else:
                    answer.set_result(data)
        except (EOFError, ConnectionError) as end:
            problem = (
                end if isinstance(end, ConnectionError) else ConnectionResetError("the NBD server hung up")
            )
            for _, answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(problem)
        finally:
            self._gone = True
            for _, answer in self._waiting.values():
                answer.cancel()
            self._waiting.clear()
