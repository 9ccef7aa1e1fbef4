"""An NBD server on a Unix socket (asyncio, fixed newstyle), the disk being whatever implements `Backend`.

Several requests are in flight on each connection, several connections on each export. A client that talks
nonsense loses its connection; the others do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from vmrestorekit.lab import nbd_wire as wire
from vmrestorekit.lab.nbd_wire import Chunk, Command, CommandFlag, ExportFlag, Info, Option, OptionReply

__all__ = ["Backend", "NbdServer", "serve"]

_log = logging.getLogger(__name__)
_CONTEXT = 1  # the id we give to base:allocation, the only context there is
_MAX_IN_FLIGHT = 16
_MAX_OPTIONS = 1024
_HANDSHAKE_SECONDS = 30.0


class Backend(Protocol):
    """A disk to serve. The server has checked every range: it lies on the disk and is not empty.

    An OSError is passed on to the client as its errno. A disk that is shared between connections must be
    consistent after each ``await``.
    """

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""

    async def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes."""

    async def write(self, offset: int, data: bytes) -> None:
        """Store ``data``; later reads, through any connection, return it."""

    async def zero(self, offset: int, length: int, *, discard: bool) -> None:
        """Make a range read as zeros; ``discard`` says the client no longer needs the space."""

    async def flush(self) -> None:
        """Make what was written so far as durable as this backend ever makes it."""

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, bool]]:
        """Return ``(length, zero)`` pairs that cover the range exactly; where in doubt, not zero."""


class _Closed(Exception):  # noqa: N818 - not an error: the client said goodbye
    pass


class _Broken(Exception):  # noqa: N818
    """The client does not speak the protocol."""


class NbdServer:
    """Answers connections; `serve` gives it a socket."""

    def __init__(self, exports: Mapping[str, Backend]) -> None:
        self.exports = dict(exports)
        self._connections: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves or breaks the protocol."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            connection = _Connection(self.exports, reader, writer)
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                backend = await connection.handshake()
            await connection.transmission(backend)
        except (_Closed, EOFError, ConnectionError):
            pass
        except (_Broken, TimeoutError) as error:
            _log.warning("closed an NBD connection: %s", error or "no handshake in time")
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def close(self) -> None:
        """Drop the clients that are still connected."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@contextlib.asynccontextmanager
async def serve(path: str | os.PathLike[str], exports: Mapping[str, Backend]) -> AsyncIterator[NbdServer]:
    """Serve the exports on a new Unix socket that only this user may open; it is gone afterwards.

    Raises
    ------
    OSError
        If something is at ``path`` already.
    """
    path = Path(path)
    server = NbdServer(exports)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # on Linux the mode set before bind is the one the socket is born with: never open to others
    os.fchmod(listener.fileno(), 0o600)
    try:
        listener.bind(os.fspath(path))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"expected to create a socket at {path}: {reason}") from error
    try:
        async with await asyncio.start_unix_server(server.handle, sock=listener) as accepting:
            yield server
            accepting.close()
            await server.close()
    finally:
        path.unlink(missing_ok=True)


class _Connection:
    def __init__(
        self, exports: Mapping[str, Backend], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.exports = exports
        self.reader = reader
        self.writer = writer
        self.structured = False
        self.zeroes = True
        self.status_of: str | None = None  # the export whose block status was negotiated
        self.block_status = False
        self.sending = asyncio.Lock()

    # --- handshake --------------------------------------------------------------------------------

    async def handshake(self) -> Backend:
        """Haggle over options until the client has chosen an export."""
        await self._send(wire.GREETING.pack(wire.GREETING_MAGIC, wire.OPTION_MAGIC, wire.HANDSHAKE_FLAGS))
        flags = wire.U32.unpack(await self.reader.readexactly(4))[0]
        if not flags & wire.CLIENT_FIXED_NEWSTYLE or flags & ~wire.HANDSHAKE_FLAGS:
            raise _Broken(f"expected a fixed newstyle client, got flags {flags:#x}")
        self.zeroes = not flags & wire.CLIENT_NO_ZEROES
        for _ in range(_MAX_OPTIONS):
            magic, option, length = wire.OPTION.unpack(await self.reader.readexactly(wire.OPTION.size))
            if magic != wire.OPTION_MAGIC:
                raise _Broken(f"expected an option, got magic {magic:#x}")
            if length > wire.MAX_OPTION_BYTES:
                raise _Broken(f"expected an option of at most {wire.MAX_OPTION_BYTES} bytes, got {length}")
            data = await self.reader.readexactly(length)
            try:
                chosen = await self._option(option, data)
            except ValueError as error:  # includes UnicodeDecodeError
                await self._reply(option, OptionReply.ERR_INVALID, str(error).encode())
                continue
            if chosen is not None:
                self.block_status = self.status_of == chosen
                return self.exports[chosen]
        raise _Broken(f"expected at most {_MAX_OPTIONS} options")

    async def _option(self, option: int, data: bytes) -> str | None:
        """Answer one option; return the export's name once it is chosen."""
        match option:
            case Option.EXPORT_NAME:
                return await self._export_name(data.decode())
            case Option.ABORT:
                await self._reply(option, OptionReply.ACK)
                raise _Closed
            case Option.LIST if not data:
                for name in self.exports:
                    packed = name.encode()
                    await self._reply(option, OptionReply.SERVER, wire.U32.pack(len(packed)) + packed)
                await self._reply(option, OptionReply.ACK)
            case Option.INFO | Option.GO:
                return await self._info(option, wire.parse_info_request(data))
            case Option.STRUCTURED_REPLY if not data:
                self.structured = True
                await self._reply(option, OptionReply.ACK)
            case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                await self._contexts(option, *wire.parse_context_request(data))
            case Option.LIST | Option.STRUCTURED_REPLY:
                raise ValueError("this option takes no data")
            case _:
                await self._reply(option, OptionReply.ERR_UNSUPPORTED)
        return None

    async def _export_name(self, name: str) -> str:
        # the one option that has no way to say no but to hang up
        if name not in self.exports:
            raise _Broken(f"no export {name[:80]!r}")
        flags = self._export_flags(self.exports[name])
        answer = wire.U64.pack(self.exports[name].size) + wire.U16.pack(flags)
        await self._send(answer + bytes(124 if self.zeroes else 0))
        return name

    async def _info(self, option: int, name: str) -> str | None:
        backend = self.exports.get(name)
        if backend is None:
            await self._reply(option, OptionReply.ERR_UNKNOWN, b"no such export")
            return None
        export = wire.INFO_EXPORT.pack(Info.EXPORT, backend.size, self._export_flags(backend))
        sizes = (1, wire.PREFERRED_BLOCK_BYTES, wire.MAX_REQUEST_BYTES)
        block_size = wire.INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, *sizes)
        await self._reply(option, OptionReply.INFO, export)
        await self._reply(option, OptionReply.INFO, block_size)
        await self._reply(option, OptionReply.ACK)
        return name if option == Option.GO else None

    async def _contexts(self, option: int, name: str, queries: list[str]) -> None:
        if option == Option.SET_META_CONTEXT:
            self.status_of = None
            if not self.structured:
                raise ValueError("structured replies have to be agreed on first")
        if name not in self.exports:
            await self._reply(option, OptionReply.ERR_UNKNOWN, b"no such export")
            return
        listing = option == Option.LIST_META_CONTEXT
        if wire.BASE_ALLOCATION in queries or (listing and (not queries or "base:" in queries)):
            # the id means something only once it is set
            number = wire.U32.pack(0 if listing else _CONTEXT)
            await self._reply(option, OptionReply.META_CONTEXT, number + wire.BASE_ALLOCATION.encode())
            if not listing:
                self.status_of = name
        await self._reply(option, OptionReply.ACK)

    def _export_flags(self, backend: Backend) -> int:
        flags = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.CAN_MULTI_CONN
        flags |= ExportFlag.SEND_DF if self.structured else ExportFlag(0)
        if backend.read_only:
            return flags | ExportFlag.READ_ONLY
        return flags | ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES

    async def _reply(self, option: int, kind: OptionReply, data: bytes = b"") -> None:
        await self._send(wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    # --- transmission -----------------------------------------------------------------------------

    async def transmission(self, backend: Backend) -> None:
        """Answer requests, each in a task of its own, until the client leaves; finish those under way."""
        slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
        async with asyncio.TaskGroup() as under_way:
            with contextlib.suppress(_Closed, EOFError, ConnectionError):
                while True:
                    await slots.acquire()
                    header = await self.reader.readexactly(wire.REQUEST.size)
                    magic, flags, kind, cookie, offset, length = wire.REQUEST.unpack(header)
                    if magic != wire.REQUEST_MAGIC:
                        _log.warning("closed an NBD connection: expected a request, got magic %#x", magic)
                        return
                    if kind == Command.DISC:
                        return
                    if kind == Command.WRITE and length > wire.MAX_REQUEST_BYTES:
                        _log.warning("closed an NBD connection: a write of %d bytes", length)
                        return
                    data = await self.reader.readexactly(length) if kind == Command.WRITE else b""
                    answer = self._answer(backend, kind, flags, cookie, offset, length, data)
                    task = under_way.create_task(answer)
                    task.add_done_callback(lambda _: slots.release())

    async def _answer(
        self, backend: Backend, kind: int, flags: int, cookie: int, offset: int, length: int, data: bytes
    ) -> None:
        try:
            self._check(backend, kind, flags, offset, length)
            chunk, payload = await self._carry_out(backend, kind, flags, offset, length, data)
            error = 0
        except OSError as problem:
            chunk, payload, error = Chunk.NONE, b"", wire.error_number(problem.errno)
        except Exception:
            _log.exception("a backend failed on request %d at %d", kind, offset)
            chunk, payload, error = Chunk.NONE, b"", wire.error_number(errno.EIO)
        with contextlib.suppress(ConnectionError):  # the client may have gone without waiting
            await self._send_reply(kind, cookie, chunk, payload, error)

    def _check(self, backend: Backend, kind: int, flags: int, offset: int, length: int) -> None:
        allowed = {
            Command.READ: CommandFlag.DF,
            Command.WRITE: CommandFlag.FUA,
            Command.FLUSH: CommandFlag(0),
            Command.TRIM: CommandFlag.FUA,
            Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE,
            Command.BLOCK_STATUS: CommandFlag.REQ_ONE,
        }
        # a client that asks for FUA everywhere is common and harmless
        # inverting an IntFlag keeps to the flags it knows; inverting an int does not
        if kind not in allowed or flags & ~int(allowed[Command(kind)] | CommandFlag.FUA):
            raise OSError(errno.EINVAL, "unknown request or flag")
        changes = kind in (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)
        if changes and backend.read_only:
            raise OSError(errno.EPERM, "the export is read-only")
        if kind == Command.FLUSH:
            return
        if length == 0:
            raise OSError(errno.EINVAL, "empty request")
        if length > backend.size or offset > backend.size - length:
            grows = kind in (Command.WRITE, Command.WRITE_ZEROES)
            raise OSError(errno.ENOSPC if grows else errno.EINVAL, "beyond the disk")
        if kind == Command.READ and length > wire.MAX_REQUEST_BYTES:
            raise OSError(errno.EOVERFLOW, "request too large")
        if kind == Command.BLOCK_STATUS and not self.block_status:
            raise OSError(errno.EINVAL, "block status was not agreed on")

    async def _carry_out(
        self, backend: Backend, kind: int, flags: int, offset: int, length: int, data: bytes
    ) -> tuple[Chunk, bytes]:
        match kind:
            case Command.READ:
                content = await backend.read(offset, length)
                if len(content) != length:
                    raise OSError(errno.EIO, f"expected {length} bytes from the backend, got {len(content)}")
                return Chunk.OFFSET_DATA, (wire.U64.pack(offset) if self.structured else b"") + content
            case Command.WRITE:
                await backend.write(offset, data)
            case Command.TRIM:
                await backend.zero(offset, length, discard=True)
            case Command.WRITE_ZEROES:
                await backend.zero(offset, length, discard=not flags & CommandFlag.NO_HOLE)
            case Command.BLOCK_STATUS:
                extents = await backend.extents(offset, length)
                one = bool(flags & CommandFlag.REQ_ONE)
                return Chunk.BLOCK_STATUS, wire.pack_extents(_CONTEXT, extents, one=one)
        if kind == Command.FLUSH or flags & CommandFlag.FUA:
            await backend.flush()
        return Chunk.NONE, b""

    async def _send_reply(self, kind: int, cookie: int, chunk: Chunk, payload: bytes, error: int) -> None:
        if not self.structured or kind not in (Command.READ, Command.BLOCK_STATUS):
            await self._send(wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, cookie), payload)
            return
        if error:
            chunk, payload = Chunk.ERROR, wire.U32.pack(error) + wire.U16.pack(0)
        header = wire.CHUNK.pack(wire.STRUCTURED_REPLY_MAGIC, wire.CHUNK_DONE, chunk, cookie, len(payload))
        await self._send(header, payload)

    async def _send(self, *parts: bytes) -> None:
        # a reply must go out in one piece, and a slow client must not pile up replies in memory
        async with self.sending:
            self.writer.writelines(parts)
            await self.writer.drain()
