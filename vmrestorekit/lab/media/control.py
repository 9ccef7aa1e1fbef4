"""The control socket of a media agent: how the data agent tells it what is going on.

A Unix socket that only this user may open. One JSON object a line, one answer a line, in order; a bad message
gets one sentence and harms nobody, its sender included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmrestorekit.lab.media.control_messages import LINE_BYTES, AgentControl, Answer, ControlError
from vmrestorekit.lab.media.media_agent import MediaAgent
from vmrestorekit.lab.media.sockets import unix_listener

__all__ = ["ControlClient", "ControlError", "serve_control"]

_log = logging.getLogger(__name__)
_CLIENTS = 16
# a client that splits what it says into lines of a few ten KB leaves the agent time for reads
_RANGES_A_LINE = 1000


@contextlib.asynccontextmanager
async def serve_control(path: str | os.PathLike[str], agent: MediaAgent) -> AsyncIterator[None]:
    """Take messages for the agent on a new Unix socket of mode 0600; it is gone afterwards.

    Raises
    ------
    LabError
        If the socket cannot be created.
    """
    with unix_listener(Path(path)) as listener:
        server = _Server(AgentControl(agent))
        accepting = await asyncio.start_unix_server(server.handle, sock=listener, limit=LINE_BYTES)
        try:
            yield
        finally:
            accepting.close()
            await server.close()
            await accepting.wait_closed()


class _Server:
    def __init__(self, control: AgentControl) -> None:
        self.control = control
        self.clients: set[asyncio.Task[None]] = set()
        self.ends = False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.ends:  # accepted in the last moment
            writer.transport.abort()
            return
        if len(self.clients) >= _CLIENTS:
            _log.warning(
                "refused a client of the control socket: %d are connected, no more are allowed", _CLIENTS
            )
            writer.transport.abort()
            return
        self.clients.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.CancelledError):
            pass  # gone without waiting for its answer, or the server ends
        finally:
            self.clients.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one message; return False after the last."""
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as rest:
            if not rest.partial:
                return False
            line = rest.partial  # the last line may end with the connection
        except asyncio.LimitOverrunError:
            answer: Answer = {
                "ok": False,
                "error": f"message: expected a line of at most {LINE_BYTES} bytes, got a longer one",
            }
            await _send(writer, answer)
            return False
        await _send(writer, await self.control.answer(line))
        return True

    async def close(self) -> None:
        """Drop the clients that are still connected, and whoever comes after."""
        self.ends = True
        clients = list(self.clients)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, message: Mapping[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()


class ControlClient:
    """Talks to the control socket of a media agent; messages of several tasks are sent one after the other.

    Every method raises `ControlError` with the agent's sentence if it refuses, and `ConnectionError` if the
    agent is gone.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()
        self._owed = 0  # answers that are still to come, those included that nobody waits for any more

    @classmethod
    async def connect(cls, path: str | os.PathLike[str], *, wait_s: float = 0.0) -> ControlClient:
        """Connect to the socket; ``wait_s`` is how long it may take to appear.

        Raises
        ------
        ControlError
            If nobody listens there.
        """
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                return cls(*await asyncio.open_unix_connection(os.fspath(path), limit=LINE_BYTES))
            except OSError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    reason = error.strerror or str(error)
                    raise ControlError(
                        f"expected a media agent's control socket at {path}: {reason}"
                    ) from error
            await asyncio.sleep(0.05)

    async def __aenter__(self) -> ControlClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Send any message and return the answer, without its ``ok``."""
        async with self._turn:
            self._owed += 1
            await _send(self._writer, {"do": do} | more)
            try:
                while self._owed:
                    line = await self._reader.readuntil(b"\n")
                    self._owed -= 1
            except asyncio.IncompleteReadError as error:
                raise ConnectionResetError("the media agent hung up without an answer") from error
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise ControlError(answer["error"])
        return answer

    async def vm_profile(self, plan: str | os.PathLike[str]) -> None:
        """O3: give the folder of a saved plan; the agent determines the first set and begins to stage it."""
        await self.ask("vm_profile", plan=os.fspath(Path(plan).absolute()))

    async def launched(self) -> None:
        """O6: the virtual machine was launched."""
        await self.ask("launched")

    async def pre_relocation(self) -> None:
        """O11: indicate pre-relocation mode."""
        await self.ask("pre_relocation")

    async def relocation_in_progress(self) -> None:
        """O12: indicate that the relocation is in progress."""
        await self.ask("relocation_in_progress")

    async def relocated(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Say which blocks are on the destination now: first block and count of each range."""
        for at in range(0, len(ranges), _RANGES_A_LINE):
            some = [[int(first), int(count)] for first, count in ranges[at : at + _RANGES_A_LINE]]
            await self.ask("relocated", ranges=some)

    async def relocation_cancelled(self) -> None:
        """The relocation was cancelled; the virtual machine goes on from the logical source."""
        await self.ask("relocation_cancelled")

    async def relocation_completed(self) -> None:
        """O17 to O20: the relocation completed; returns when the agent has let go of the copy."""
        await self.ask("relocation_completed")

    async def expire(self) -> None:
        """O26: the live mount expired; returns when the agent has let go of the copy."""
        await self.ask("expire")

    async def note(
        self,
        kind: str,
        *,
        block: int = -1,
        count: int = 0,
        request: int = -1,
        detail: int = 0,
        at_ns: int | None = None,
    ) -> None:
        """Put an event of another actor into the recording; ``at_ns`` is CLOCK_MONOTONIC, default: now."""
        more = {} if at_ns is None else {"at_ns": at_ns}
        await self.ask("note", kind=kind, block=block, count=count, request=request, detail=detail, **more)

    async def status(self) -> dict[str, Any]:
        """Return what the agent knows about itself."""
        status: dict[str, Any] = (await self.ask("status"))["status"]
        return status

    async def timeline(self, folder: str | os.PathLike[str]) -> Path:
        """Have the recording so far saved in a folder; returns it."""
        return Path((await self.ask("timeline", path=os.fspath(Path(folder).absolute())))["path"])

    async def fault(
        self,
        *,
        slow: float | None = None,
        error: Sequence[int] | None = None,
        corrupt: Sequence[int] | None = None,
    ) -> None:
        """Make the emulated device misbehave: so many times slower, errors on blocks, damaged contents.

        Each replaces what was said of it before: ``slow=1`` and ``error=[]`` mend it.
        """
        faults: dict[str, Any] = {"slow": slow, "error": error, "corrupt": corrupt}
        await self.ask("fault", **{name: fault for name, fault in faults.items() if fault is not None})
