"""The connections through which single blocks are relocated; they outlive a media agent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from vmrestorekit.lab.restore.nbd_client import NbdClient, connect_nbd
from vmrestorekit.lab.restore.troubles import Troubles

__all__ = ["Routes"]

_ZERO_BYTES = 512 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class Routes:
    """From the logical source to the destinations of a host.

    Parameters
    ----------
    agent, destination : Path
        NBD sockets of the media agent and of `vmrestorekit.lab.restore.host.Host.relocation_exports`.
    copy : bool
        Whether the destinations copy what is read from them, or have to be written.
    troubles : Troubles
    """

    def __init__(self, agent: Path, destination: Path, copy: bool, troubles: Troubles) -> None:
        self._agent, self._destination = agent, destination
        self._through_filter, self._troubles = copy, troubles
        self._clients: dict[str, NbdClient] = {}
        self._stack = contextlib.AsyncExitStack()
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Routes:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def copy(self, disk: int, offset: int, length: int) -> None:
        """Relocate a range, however often something is missing in between."""

        async def once() -> None:
            destination = await self._client(self._destination, f"dest{disk}")
            if self._through_filter:
                await destination.copy(offset, length)
            else:
                source = await self._client(self._agent, f"disk{disk}-relocation")
                await destination.write(offset, await source.read(offset, length))

        await self._until_done(disk, once)

    async def zero(self, disk: int, offset: int, length: int) -> None:
        """Make a range of a destination read as zeros."""
        for at in range(offset, offset + length, _ZERO_BYTES):

            async def once(at: int = at) -> None:
                destination = await self._client(self._destination, f"dest{disk}")
                await destination.zero(at, min(_ZERO_BYTES, offset + length - at))

            await self._until_done(disk, once)

    async def _until_done(self, disk: int, once: Callable[[], Awaitable[None]]) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                await once()
                return
            except OSError:  # the source may be another one after it
                self._clients.pop(f"disk{disk}-relocation", None)
            await self._troubles.missing_is_there()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _client(self, path: Path, export: str) -> NbdClient:
        async with self._connecting:
            if export not in self._clients:
                self._clients[export] = await self._stack.enter_async_context(connect_nbd(path, export))
            return self._clients[export]
