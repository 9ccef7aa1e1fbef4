"""The NBD handshake (fixed newstyle): haggling over options until the client has chosen an export."""

from __future__ import annotations

from vmrestorekit.lab.nbd import wire
from vmrestorekit.lab.nbd.backend import Backend
from vmrestorekit.lab.nbd.connection import Broken, Closed, Connection
from vmrestorekit.lab.nbd.wire import CONTEXT, ExportFlag, Info, Option, OptionReply

__all__ = ["Handshake"]

_MAX_OPTIONS = 1024


class Handshake:
    """Agrees with one client on an export and how to talk about it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.exports = connection.exports
        self.zeroes = True
        self.status_of: str | None = None  # the export whose block status was negotiated

    async def run(self) -> str:
        """Return the name of the export that the client opened."""
        await self.connection.send(
            wire.GREETING.pack(wire.GREETING_MAGIC, wire.OPTION_MAGIC, wire.HANDSHAKE_FLAGS)
        )
        flags = wire.U32.unpack(await self.connection.take(4))[0]
        if not flags & wire.CLIENT_FIXED_NEWSTYLE or flags & ~wire.HANDSHAKE_FLAGS:
            raise Broken(f"expected a fixed newstyle client, got flags {flags:#x}")
        self.zeroes = not flags & wire.CLIENT_NO_ZEROES
        for _ in range(_MAX_OPTIONS):
            magic, option, length = wire.OPTION.unpack(await self.connection.take(wire.OPTION.size))
            if magic != wire.OPTION_MAGIC:
                raise Broken(f"expected an option, got magic {magic:#x}")
            if length > wire.MAX_OPTION_BYTES:
                raise Broken(f"expected an option of at most {wire.MAX_OPTION_BYTES} bytes, got {length}")
            data = await self.connection.take(length)
            try:
                chosen = await self._option(option, data)
            except ValueError as error:  # includes UnicodeDecodeError
                await self._reply(option, OptionReply.ERR_INVALID, str(error).encode())
                continue
            if chosen is not None:
                self.connection.block_status = self.status_of == chosen
                return chosen
        raise Broken(f"expected at most {_MAX_OPTIONS} options")

    async def _option(self, option: int, data: bytes) -> str | None:
        """Answer one option; return the export's name once it is chosen."""
        match option:
            case Option.EXPORT_NAME:
                return await self._export_name(data.decode())
            case Option.ABORT:
                await self._reply(option, OptionReply.ACK)
                raise Closed
            case Option.LIST if not data:
                for name in self.exports:
                    packed = name.encode()
                    await self._reply(option, OptionReply.SERVER, wire.U32.pack(len(packed)) + packed)
                await self._reply(option, OptionReply.ACK)
            case Option.INFO | Option.GO:
                return await self._info(option, wire.parse_info_request(data))
            case Option.STRUCTURED_REPLY if not data:
                self.connection.structured = True
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
            raise Broken(f"no export {name[:80]!r}")
        flags = self._export_flags(self.exports[name])
        answer = wire.U64.pack(self.exports[name].size) + wire.U16.pack(flags)
        await self.connection.send(answer + bytes(124 if self.zeroes else 0))
        return name

    async def _info(self, option: int, name: str) -> str | None:
        backend = self.exports.get(name)
        if backend is None:
            await self._reply(option, OptionReply.ERR_UNKNOWN, b"no such export")
            return None
        export = wire.INFO_EXPORT.pack(Info.EXPORT, backend.size, self._export_flags(backend))
        sizes = (1, wire.PREFERRED_BLOCK_BYTES, self.connection.limits.request_bytes)
        block_size = wire.INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, *sizes)
        await self._reply(option, OptionReply.INFO, export)
        await self._reply(option, OptionReply.INFO, block_size)
        await self._reply(option, OptionReply.ACK)
        return name if option == Option.GO else None

    async def _contexts(self, option: int, name: str, queries: list[str]) -> None:
        if option == Option.SET_META_CONTEXT:
            self.status_of = None
            if not self.connection.structured:
                raise ValueError("structured replies have to be agreed on first")
        if name not in self.exports:
            await self._reply(option, OptionReply.ERR_UNKNOWN, b"no such export")
            return
        listing = option == Option.LIST_META_CONTEXT
        asked = wire.BASE_ALLOCATION in queries or (listing and (not queries or "base:" in queries))
        if asked and self.exports[name].tells_holes:
            # the id means something only once it is set
            number = wire.U32.pack(0 if listing else CONTEXT)
            await self._reply(option, OptionReply.META_CONTEXT, number + wire.BASE_ALLOCATION.encode())
            if not listing:
                self.status_of = name
        await self._reply(option, OptionReply.ACK)

    def _export_flags(self, backend: Backend) -> int:
        flags = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.CAN_MULTI_CONN
        flags |= ExportFlag.SEND_DF if self.connection.structured else ExportFlag(0)
        if backend.read_only:
            return flags | ExportFlag.READ_ONLY
        return flags | ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES

    async def _reply(self, option: int, kind: OptionReply, data: bytes = b"") -> None:
        header = wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(data))
        await self.connection.send(header + data)
