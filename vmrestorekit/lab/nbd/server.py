"""An NBD server on a Unix socket (asyncio, fixed newstyle), the disk being whatever implements `Backend`.

Several requests are in flight on each connection, several connections on each export. A client that talks
nonsense, or asks for more than `Limits` allow, loses its connection; the others do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from vmrestorekit.lab.media.sockets import unix_listener
from vmrestorekit.lab.nbd.backend import Backend
from vmrestorekit.lab.nbd.connection import Broken, ClientReader, Closed, Connection
from vmrestorekit.lab.nbd.handshake import Handshake
from vmrestorekit.lab.nbd.limits import Limits, MemoryBudget
from vmrestorekit.lab.nbd.transmission import Transmission

__all__ = ["Backend", "Limits", "NbdServer", "serve"]

_log = logging.getLogger(__name__)
_HANDSHAKE_SECONDS = 30.0  # whatever the limits say, nobody haggles longer


class NbdServer:
    """Answers connections; `serve` gives it a socket.

    Attributes
    ----------
    memory : MemoryBudget
        What all connections have in memory now, and had at most.
    """

    def __init__(self, exports: Mapping[str, Backend], limits: Limits | None = None) -> None:
        self.exports = dict(exports)
        self.limits = limits or Limits()
        self.memory = MemoryBudget(self.limits, self._drop_stalled)
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._ends = False

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def protocol(self) -> asyncio.StreamReaderProtocol:
        """Return what serves one client."""
        reader = ClientReader()
        return asyncio.StreamReaderProtocol(
            reader, lambda _, writer: self.handle(reader, writer), loop=asyncio.get_running_loop()
        )

    async def handle(self, reader: ClientReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves or breaks the protocol."""
        if self._ends:  # accepted in the last moment
            writer.transport.abort()
            return
        if self.connections >= self.limits.connections:
            _log.warning("refused an NBD connection: %d are open, no more are allowed", self.connections)
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(self.exports, self.limits, reader, writer)
        self._connections[task] = connection
        try:
            with contextlib.suppress(Closed, EOFError, ConnectionError):
                await self._serve(connection)
            writer.close()
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(self.limits.farewell_seconds):
                    await writer.wait_closed()
        except (Broken, TimeoutError) as error:
            _log.warning("closed an NBD connection: %s", error or "it did not take its last replies")
        except asyncio.CancelledError:
            pass  # the server ends, and asyncio would complain about a client's task that says so
        finally:
            del self._connections[task]
            connection.abort()

    async def _serve(self, connection: Connection) -> None:
        seconds = min(self.limits.handshake_seconds, _HANDSHAKE_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                export = await Handshake(connection).run()
        except TimeoutError:
            raise Broken(f"no handshake within {seconds:g} s") from None
        _log.info(
            "an NBD client opened %s", export, extra={"export": export, "connections": self.connections}
        )
        transmission = Transmission(connection, self.exports[export], self.memory)
        try:
            await transmission.run()
        finally:
            about = {"export": export, "requests": transmission.requests, "bytes": transmission.bytes_read}
            _log.info("an NBD client left %s", export, extra=about)

    def _drop_stalled(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._connections.values():
            held = self.memory.held_by(connection)
            if connection.is_stalled(now) and held:
                _log.warning(
                    "closed an NBD connection: it took no replies for %.1f s, and others need its %d bytes",
                    self.limits.stall_seconds,
                    held,
                )
                connection.abort()

    async def close(self) -> None:
        """Drop the clients that are still connected, and whoever comes after."""
        self._ends = True
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serve(
    path: str | os.PathLike[str], exports: Mapping[str, Backend], limits: Limits | None = None
) -> AsyncIterator[NbdServer]:
    """Serve the exports on a new Unix socket that only this user may open; it is gone afterwards.

    Raises
    ------
    LabError
        If something is at ``path`` already, or no socket can be there.
    """
    server = NbdServer(exports, limits)
    with unix_listener(Path(path)) as listener:
        accepting = await asyncio.get_running_loop().create_unix_server(server.protocol, sock=listener)
        try:
            yield server
        finally:
            accepting.close()
            await server.close()
            await accepting.wait_closed()
