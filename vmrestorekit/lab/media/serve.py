"""A media agent and all ways to reach it: NBD exports, the control socket, files through FUSE."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from vmrestorekit.lab.media.control import serve_control
from vmrestorekit.lab.media.exports import exports_of
from vmrestorekit.lab.media.media_agent import MediaAgent
from vmrestorekit.lab.media.shared_files import shared_files
from vmrestorekit.lab.media.source import Source
from vmrestorekit.lab.nbd.server import Limits, NbdServer, serve
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import Hardware

__all__ = ["Places", "Serving", "serve_copy", "serve_until_stopped"]

_log = logging.getLogger(__name__)
_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a media agent is to be reached.

    Attributes
    ----------
    socket, control : Path
        Unix sockets, for NBD and for the control messages.
    mount : Path, optional
        An empty folder, to show the logical source in as files.
    vm : str
        Name of the folder below `mount`.
    """

    socket: Path
    control: Path
    mount: Path | None = None
    vm: str = "vm"

    def absolute(self) -> Places:
        """Return the same places, whatever the working folder is."""
        mount = None if self.mount is None else self.mount.absolute()
        return Places(self.socket.absolute(), self.control.absolute(), mount, self.vm)


@dataclasses.dataclass(frozen=True)
class Serving:
    """A media agent that can be reached, its NBD server, and the names and sizes of the exports."""

    agent: MediaAgent
    nbd: NbdServer
    exports: dict[str, int]


@contextlib.asynccontextmanager
async def serve_copy(
    source: Source,
    hardware: Hardware,
    places: Places,
    *,
    plan: RestorePlan | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Serving]:
    """Serve a copy through a media agent, with which the source is closed, whatever happens.

    The copy is released, unless a virtual machine may still run from it.
    The control socket is there last, and goes first: who can connect to it can use everything else.

    Raises
    ------
    LabError, PlanError
        If a place is taken or impossible, or the plan is for other disks.
    """
    places = places.absolute()  # FUSE changes the working folder for a moment
    async with contextlib.AsyncExitStack() as stack:
        agent = await stack.enter_async_context(_agent(source, hardware, plan))
        if places.mount is not None:
            await stack.enter_async_context(shared_files(agent, places.vm, places.mount))
        exports = exports_of(agent)
        nbd = await stack.enter_async_context(serve(places.socket, exports, limits))
        await stack.enter_async_context(serve_control(places.control, agent))
        sizes = {name: export.size for name, export in exports.items()}
        about = {"source": source.name, "exports": sizes, "socket": str(places.socket)}
        _log.info("serving %s", source.name, extra=about | {"hardware": dataclasses.asdict(hardware)})
        yield Serving(agent, nbd, sizes)
        _log.info("the media agent ends", extra={"status": agent.status()})


def _agent(source: Source, hardware: Hardware, plan: RestorePlan | None) -> MediaAgent:
    try:
        return MediaAgent(source, hardware, plan=plan)
    except BaseException:  # an agent would have done this
        source.release()
        source.close()
        raise


async def serve_until_stopped(
    open_source: Callable[[], Source],
    hardware: Hardware,
    places: Places,
    *,
    plan: RestorePlan | None = None,
    limits: Limits | None = None,
    ready: Callable[[Serving], None] = lambda serving: None,
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; errors as of `serve_copy` and of ``open_source``.

    A signal that comes while the source is opened (which may take a while) ends it cleanly, too.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP:
        loop.add_signal_handler(number, stop.set)
    try:
        source = await asyncio.to_thread(open_source)
        async with serve_copy(source, hardware, places, plan=plan, limits=limits) as serving:
            ready(serving)
            await stop.wait()
    finally:
        for number in _STOP:
            loop.remove_signal_handler(number)
