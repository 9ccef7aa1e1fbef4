"""Ways to boot the same virtual machine from the same backup device: ours, and those of other programs.

Each way prepares what the machine's disk lies on, and says how. The backup device is emulated: nbdkit's
filters `delay` and `rate` in front of the image for other programs, our media agent's own emulation for ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmrestorekit.lab.programs import LabError, find_program, require_programs, run
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.qemu import block_node
from vmrestorekit.lab.restore.agent_link import AgentLink, AgentSockets, agent_process, connect_agent
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link

__all__ = ["LOCAL", "DeviceSpec", "Prepared", "Way", "ways"]

SECOND = 1_000_000_000
LOCAL = "local disk"
_START_S = 30.0
_QUICK_MB = 4000.0


@dataclasses.dataclass(frozen=True)
class DeviceSpec:
    """The backup device that is emulated for everybody.

    Attributes
    ----------
    read_ms : float
        What each read takes besides its transfer.
    parallel : int
        Reads served at the same time.
    bandwidth_mb : float, optional
        MB/s of all reads together; default: as quick as the machine.
    """

    read_ms: float = 0.0
    parallel: int = 8
    bandwidth_mb: float | None = None

    @property
    def name(self) -> str:
        """Such as ``"20 ms"`` or ``"25 MB/s"``."""
        rate = "" if self.bandwidth_mb is None else f"{self.bandwidth_mb:g} MB/s"
        return ", ".join(filter(None, [f"{self.read_ms:g} ms" if self.read_ms or not rate else "", rate]))

    def nbdkit_filters(self) -> tuple[list[str], list[str]]:
        """Return the filters, and their parameters."""
        filters, parameters = [], []
        if self.read_ms:
            filters.append("--filter=delay")
            parameters.append(f"rdelay={round(self.read_ms)}ms")
        if self.bandwidth_mb is not None:
            filters.append("--filter=rate")
            parameters.append(f"rate={round(self.bandwidth_mb * 8)}M")
        return filters, parameters

    def hardware(self) -> Hardware:
        """Return the same for the model and for our media agent; the link costs nothing."""
        # what all reads share is one channel's; else each channel is as quick as the machine
        channels = self.parallel if self.bandwidth_mb is None else 1
        bandwidth = _QUICK_MB if self.bandwidth_mb is None else self.bandwidth_mb
        device = BackupDevice(channels, round(self.read_ms * 1e6), round(bandwidth * 1e6))
        return Hardware(self.name, device, Link(0, round(_QUICK_MB * 1e6)))

    def serve_options(self) -> list[str]:
        """Return the options of ``vmrestorekit lab serve``."""
        device, link = self.hardware().backup_device, self.hardware().link
        options = {
            "latency-ms": device.positioning_ns / 1e6,
            "bandwidth-mb": device.bandwidth / 1e6,
            "channels": device.channels,
            "link-latency-ms": link.latency_ns / 1e6,
            "link-bandwidth-mb": link.bandwidth / 1e6,
        }
        return [word for name, value in options.items() for word in (f"--{name}", f"{value:g}")]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a machine's disk lies on, once a way has prepared it.

    Attributes
    ----------
    nodes : tuple of str
        QEMU's command line for the nodes; the node named ``base`` is what the machine's own writes lie on.
    launched : coroutine function
        To be called when the machine is launched.
    figures : coroutine function
        Returns what is measured besides the boot: `media_bytes`, `media_fetches`, `hits`, `waits`, `misses`;
        nothing is read afterwards.
    """

    nodes: tuple[str, ...]
    launched: Callable[[], Awaitable[object]]
    figures: Callable[[], Awaitable[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to boot.

    Attributes
    ----------
    name : str
    prepare : callable
        Given the image, the device, a folder for its files and a report; an asynchronous context manager
        of `Prepared`. What it takes counts as the time to launch.
    """

    name: str
    prepare: Callable[[Path, DeviceSpec, Path, Report], contextlib.AbstractAsyncContextManager[Prepared]]


def ways(plans: Mapping[str, RestorePlan]) -> list[Way]:
    """Return all ways; ours with each plan."""
    own = [Way(f"ours: {name}", _ours(plan)) for name, plan in plans.items()]
    return [
        Way(LOCAL, _local),
        Way("full restore, then boot", _full_restore),
        Way("plain NBD", _plain),
        Way("nbdkit: read-ahead, cache", _nbdkit_cached),
        Way("QEMU: copy-on-read", _copy_on_read),
        *own,
    ]


# --- without us ---------------------------------------------------------------------------------------


async def _nothing() -> Mapping[str, Any]:
    return {}


@contextlib.asynccontextmanager
async def _local(image: Path, device: DeviceSpec, folder: Path, report: Report) -> AsyncIterator[Prepared]:
    yield Prepared(tuple(_raw_node(image)), _nothing, _nothing)


@contextlib.asynccontextmanager
async def _full_restore(
    image: Path, device: DeviceSpec, folder: Path, report: Report
) -> AsyncIterator[Prepared]:
    require_programs(["nbdcopy"], "copying a disk")
    async with _nbdkit(image, device, folder) as (socket, figures):
        target = folder / "restored.raw"
        copying = ["nbdcopy", f"nbd+unix:///?socket={socket}", str(target)]
        await asyncio.to_thread(run, copying)
        measured = await figures()

        async def of_the_copy() -> Mapping[str, Any]:
            return measured

        yield Prepared(tuple(_raw_node(target)), _nothing, of_the_copy)


@contextlib.asynccontextmanager
async def _plain(image: Path, device: DeviceSpec, folder: Path, report: Report) -> AsyncIterator[Prepared]:
    async with _nbdkit(image, device, folder) as (socket, figures):
        yield Prepared(tuple(_nbd_node("base", socket)), _nothing, figures)


@contextlib.asynccontextmanager
async def _nbdkit_cached(
    image: Path, device: DeviceSpec, folder: Path, report: Report
) -> AsyncIterator[Prepared]:
    more = ["--filter=readahead", "--filter=cache"]
    async with _nbdkit(image, device, folder, more, ["cache-on-read=true"]) as (socket, figures):
        yield Prepared(tuple(_nbd_node("base", socket)), _nothing, figures)


@contextlib.asynccontextmanager
async def _copy_on_read(
    image: Path, device: DeviceSpec, folder: Path, report: Report
) -> AsyncIterator[Prepared]:
    async with _nbdkit(image, device, folder) as (socket, figures):
        copy = folder / "copied.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", copy, str(image.stat().st_size)])
        nodes = _nbd_node("source", socket)
        file = {"driver": "file", "filename": str(copy)}
        nodes += block_node(driver="qcow2", node_name="copy", file=file, backing="source")
        nodes += block_node(driver="copy-on-read", node_name="base", file="copy")
        yield Prepared(tuple(nodes), _nothing, figures)


@contextlib.asynccontextmanager
async def _nbdkit(
    image: Path,
    device: DeviceSpec,
    folder: Path,
    filters: Sequence[str] = (),
    parameters: Sequence[str] = (),
) -> AsyncIterator[tuple[Path, Callable[[], Awaitable[Mapping[str, Any]]]]]:
    """Serve an image with nbdkit as if it lay on the device; yield its socket, and what was read so far."""
    require_programs(["nbdkit"], "serving an image with other programs")
    of_device, settings = device.nbdkit_filters()
    socket, statistics = folder / "nbdkit.sock", folder / "nbdkit.stats"
    command = [find_program("nbdkit") or "nbdkit", "--foreground", "--exit-with-parent", "--readonly"]
    command += ["--unix", str(socket), f"--threads={device.parallel}"]
    # filters are listed from the client to the image: what is counted is what the device is asked for
    command += [*filters, "--filter=stats", *of_device, "file", str(image)]
    command += [*parameters, *settings, f"statsfile={statistics}"]
    with open(folder / "nbdkit.log", "wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stderr=log)
    try:
        await _appears(socket, process, folder / "nbdkit.log")

        async def figures() -> Mapping[str, Any]:
            if process.returncode is None:
                process.terminate()  # it writes its statistics then
                await process.wait()
            return _read_statistics(statistics)

        yield socket, figures
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await process.wait()


async def _appears(socket: Path, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not socket.exists():
        if process.returncode is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").splitlines() or ["it said nothing"]
            raise LabError(f"nbdkit did not serve the image: {lines[-1]}")
        await asyncio.sleep(0.02)


def _read_statistics(path: Path) -> dict[str, Any]:
    """Read the totals of nbdkit's filter `stats`: ``read: 123 ops, 4.5 s, 67890 bytes, …``."""
    text = path.read_text() if path.exists() else ""
    for line in text.splitlines():
        if line.startswith("read:"):
            words = line.replace(",", "").split()
            return {"media_fetches": int(words[1]), "media_bytes": _bytes_of(words[5], words[6])}
    return {}


def _bytes_of(number: str, unit: str) -> int:
    factor = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
    return round(float(number) * factor)


# --- ours ---------------------------------------------------------------------------------------------


def _ours(plan: RestorePlan) -> Any:
    @contextlib.asynccontextmanager
    async def prepare(
        image: Path, device: DeviceSpec, folder: Path, report: Report
    ) -> AsyncIterator[Prepared]:
        saved, sockets = folder / "plan", AgentSockets(folder / "nbd.sock", folder / "control.sock")
        plan.save(saved)
        arguments = ["--socket", str(sockets.nbd), "--control", str(sockets.control)]
        arguments += ["--image", str(image), "--block-kib", str(plan.block_bytes // 1024)]
        arguments += device.serve_options()
        async with (
            agent_process(arguments, folder / "media-agent.log") as process,
            connect_agent(sockets, saved, report, process) as link,
        ):
            await link.indicate("vm_profile")
            await asyncio.sleep(plan.launch.head_start_ns / SECOND)
            nodes = _nbd_node("base", sockets.nbd, "disk0")
            yield Prepared(
                tuple(nodes),
                functools.partial(link.indicate, "launched"),
                functools.partial(_agent_figures, link),
            )

    return prepare


async def _agent_figures(link: AgentLink) -> Mapping[str, Any]:
    status = await link.status()
    return {name: status.get(name) for name in ("media_bytes", "media_fetches", "hits", "waits", "misses")}


# --- nodes --------------------------------------------------------------------------------------------


def _raw_node(image: Path) -> list[str]:
    file = {"driver": "file", "filename": str(image)}
    return block_node(driver="raw", node_name="base", file=file, read_only=True)


def _nbd_node(name: str, socket: Path, export: str = "") -> list[str]:
    server = {"type": "unix", "path": str(socket)}
    return block_node(driver="nbd", node_name=name, server=server, export=export, read_only=True)
