"""NBD transmission: requests of one client, each checked, admitted, carried out and answered."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import logging
from collections.abc import Coroutine
from typing import Any

from vmrestorekit.lab.nbd import wire
from vmrestorekit.lab.nbd.backend import Backend
from vmrestorekit.lab.nbd.connection import Broken, Closed, Connection
from vmrestorekit.lab.nbd.limits import MemoryBudget
from vmrestorekit.lab.nbd.wire import CONTEXT, Chunk, Command, CommandFlag

__all__ = ["Transmission"]

_log = logging.getLogger(__name__)
_SKIP_BYTES = 64 << 10
_ALLOWED_FLAGS = {
    Command.READ: CommandFlag.DF,
    Command.WRITE: CommandFlag.FUA,
    Command.FLUSH: CommandFlag(0),
    Command.TRIM: CommandFlag.FUA,
    Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE,
    Command.BLOCK_STATUS: CommandFlag.REQ_ONE,
}


@dataclasses.dataclass(frozen=True)
class _Request:
    kind: int
    flags: int
    cookie: int
    offset: int
    length: int

    @property
    def cost(self) -> int:
        """Bytes in memory while it is carried out."""
        if self.kind == Command.BLOCK_STATUS:
            return wire.MAX_EXTENTS_BYTES
        return self.length if self.kind in (Command.READ, Command.WRITE) else 0


class Transmission:
    """Answers a client's requests, several at a time."""

    def __init__(self, connection: Connection, backend: Backend, memory: MemoryBudget) -> None:
        self.connection = connection
        self.backend = backend
        self.memory = memory
        self.requests = 0
        self.bytes_read = 0

    async def run(self) -> None:
        """Answer requests, each in a task of its own, until the client leaves; finish those under way."""
        slots = asyncio.Semaphore(self.connection.limits.in_flight)
        seeing_off = asyncio.create_task(self.connection.see_off())
        try:
            async with asyncio.TaskGroup() as under_way:
                try:
                    while True:
                        await slots.acquire()
                        request = await self._next()
                        answering, reserved = await self._admitted(request)
                        task = under_way.create_task(answering)
                        self.connection.answering.add(task)
                        # not in the task itself, which may be cancelled before it begins
                        task.add_done_callback(functools.partial(self._done, slots, reserved))
                except Broken as problem:
                    _log.warning("closed an NBD connection: %s", problem)
                except (Closed, EOFError, ConnectionError):
                    pass
                self.connection.owed = False
                self.connection.reader.ended.set()
        finally:
            seeing_off.cancel()

    def _done(self, slots: asyncio.Semaphore, reserved: int, task: asyncio.Task[None]) -> None:
        self.connection.answering.discard(task)
        self.memory.release(self.connection, reserved)
        slots.release()

    async def _next(self) -> _Request:
        self.connection.owed = False
        header = await self.connection.take(wire.REQUEST.size)
        magic, flags, kind, cookie, offset, length = wire.REQUEST.unpack(header)
        if magic != wire.REQUEST_MAGIC:
            raise Broken(f"expected a request, got magic {magic:#x}")
        if kind == Command.DISC:
            raise Closed
        if kind == Command.WRITE and length > self.connection.limits.request_bytes:
            raise Broken(f"a write of {length} bytes")
        self.requests += 1
        return _Request(kind, flags, cookie, offset, length)

    async def _admitted(self, request: _Request) -> tuple[Coroutine[Any, Any, None], int]:
        """Return what answers the request, and the memory reserved, once that and its data are there."""
        try:
            self._check(request)
        except OSError as problem:
            if request.kind == Command.WRITE:
                await self._skip(request.length)
            return self._send_reply(request, Chunk.NONE, b"", wire.error_number(problem.errno)), 0
        await self.memory.reserve(self.connection, request.cost)
        try:
            self.connection.expect_open()
            self.connection.owed = request.kind == Command.WRITE
            data = await self.connection.take(request.length) if self.connection.owed else b""
        except BaseException:
            self.memory.release(self.connection, request.cost)
            raise
        return self._answer(request, data), request.cost

    async def _skip(self, count: int) -> None:
        while count:
            count -= len(await self.connection.take(min(count, _SKIP_BYTES)))

    async def _answer(self, request: _Request, data: bytes) -> None:
        try:
            chunk, payload = await self._carry_out(request, data)
            error = 0
        except OSError as problem:
            chunk, payload, error = Chunk.NONE, b"", wire.error_number(problem.errno)
        except Exception:
            _log.exception("a backend failed on request %d at %d", request.kind, request.offset)
            chunk, payload, error = Chunk.NONE, b"", wire.error_number(errno.EIO)
        await self._send_reply(request, chunk, payload, error)

    def _check(self, request: _Request) -> None:
        # a client that asks for FUA everywhere is common and harmless
        # inverting an IntFlag keeps to the flags it knows; inverting an int does not
        kind, offset, length = request.kind, request.offset, request.length
        known = kind in _ALLOWED_FLAGS
        if not known or request.flags & ~int(_ALLOWED_FLAGS[Command(kind)] | CommandFlag.FUA):
            raise OSError(errno.EINVAL, "unknown request or flag")
        changes = kind in (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)
        if changes and self.backend.read_only:
            raise OSError(errno.EPERM, "the export is read-only")
        if kind == Command.FLUSH:
            return
        if length == 0:
            raise OSError(errno.EINVAL, "empty request")
        if length > self.backend.size or offset > self.backend.size - length:
            grows = kind in (Command.WRITE, Command.WRITE_ZEROES)
            raise OSError(errno.ENOSPC if grows else errno.EINVAL, "beyond the disk")
        if kind == Command.READ and length > self.connection.limits.request_bytes:
            raise OSError(errno.EOVERFLOW, "request too large")
        if kind == Command.BLOCK_STATUS and not self.connection.block_status:
            raise OSError(errno.EINVAL, "block status was not agreed on")

    async def _carry_out(self, request: _Request, data: bytes) -> tuple[Chunk, bytes]:
        offset, length = request.offset, request.length
        match request.kind:
            case Command.READ:
                content = await self.backend.read(offset, length)
                if len(content) != length:
                    raise OSError(errno.EIO, f"expected {length} bytes from the backend, got {len(content)}")
                self.bytes_read += length
                return Chunk.OFFSET_DATA, content
            case Command.WRITE:
                await self.backend.write(offset, data)
            case Command.TRIM:
                await self.backend.zero(offset, length, discard=True)
            case Command.WRITE_ZEROES:
                await self.backend.zero(offset, length, discard=not request.flags & CommandFlag.NO_HOLE)
            case Command.BLOCK_STATUS:
                extents = await self.backend.extents(offset, length)
                one = bool(request.flags & CommandFlag.REQ_ONE)
                return Chunk.BLOCK_STATUS, wire.pack_extents(CONTEXT, extents, one=one)
        if request.kind == Command.FLUSH or request.flags & CommandFlag.FUA:
            await self.backend.flush()
        return Chunk.NONE, b""

    async def _send_reply(self, request: _Request, chunk: Chunk, payload: bytes, error: int) -> None:
        if not self.connection.structured or request.kind not in (Command.READ, Command.BLOCK_STATUS):
            header = wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, request.cookie)
        else:
            if error:
                chunk, payload = Chunk.ERROR, wire.U32.pack(error) + wire.U16.pack(0)
            where = wire.U64.pack(request.offset) if chunk == Chunk.OFFSET_DATA else b""
            length = len(where) + len(payload)
            header = wire.CHUNK.pack(
                wire.STRUCTURED_REPLY_MAGIC, wire.CHUNK_DONE, chunk, request.cookie, length
            )
            header += where
        with contextlib.suppress(ConnectionError):  # the client may have gone without waiting
            await self.connection.send(header, payload)
