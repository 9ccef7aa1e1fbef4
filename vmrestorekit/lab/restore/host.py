"""QEMU as the VM host of a restore: where the virtual machine's reads and writes go, and how that changes.

    source0 (NBD, read-only)  <-  dest0 (QCOW2)  <-  writecache0 (QCOW2)  <-  the virtual machine

QEMU routes each read: what was written comes from the write cache, what was relocated from the destination,
the rest from the logical source. A live mount has no destination. Whoever reads or writes in vain pauses the
virtual machine (`Host.troubles`); it sees no error.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPError
from qemu.qmp.events import EventListener

from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.qemu import Guest, run_qemu
from vmrestorekit.lab.restore.folder import RestoreFolder
from vmrestorekit.lab.restore.host_chain import HostSettings, chain_options
from vmrestorekit.lab.restore.nbd_client import connect_nbd

__all__ = ["Host", "HostSettings", "JobCancelledError", "run_host"]

_ENDED = ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED")


class JobCancelledError(LabError):
    """A job of the host was cancelled; what it had done stays done."""


@contextlib.asynccontextmanager
async def run_host(folder: RestoreFolder, nbd_socket: Path, settings: HostSettings) -> AsyncIterator[Host]:
    """Set up the virtual machine of a restore, as far as that has come; it stands still until launched."""
    async with run_qemu(
        chain_options(folder, nbd_socket, settings),
        accelerator=settings.accelerator,
        console_log=folder.path / "console.log",
        processors=settings.processors,
        memory_mib=settings.memory_mib,
        graphics=settings.graphics,
        # a virtual machine that switches itself off does not end its restore
        extra=["-action", "reboot=reset,shutdown=pause", *settings.extra],
        ends_with_us=True,
    ) as guest:
        yield Host(guest, [disk for disk, each in enumerate(folder.state.disks) if not each.relocated])


class Host:
    """What the data agent can have a running host do; `run_host` makes one."""

    def __init__(self, guest: Guest, mounted: Sequence[int]) -> None:
        self.guest = guest
        self.qmp = guest.qmp
        self._mounted = set(mounted)  # disks whose logical source is mounted

    async def launch(self) -> None:
        """Let the virtual machine run."""
        await self.guest.start()

    async def relocate(self, disk: int, *, speed: int = 0) -> None:
        """Copy what the destination lacks from the logical source (``block-stream``), ascending.

        Afterwards the destination no longer refers to the logical source.

        Parameters
        ----------
        disk : int
        speed : int
            At most so many bytes a second; 0: no limit.

        Raises
        ------
        JobCancelledError
            If it was cancelled.
        """
        job = _relocation(disk)
        with self._events(job, _ENDED) as events:
            await self.qmp.execute(
                "block-stream",
                {"job-id": job, "device": f"dest{disk}", "speed": speed, "on-error": "stop"},
            )
            _expect_completed(await events.get(), "the relocation")

    async def make_durable(self, disk: int, path: Path) -> None:
        """Have everything that was relocated to a destination written out.

        Parameters
        ----------
        disk : int
        path : Path
            For a socket, for a moment.

        Raises
        ------
        LabError
            If that fails.
        """
        # no command of QMP flushes a node, and 'qemu-io' of the human monitor does not tell us how it went
        async with self.relocation_exports(path, [disk], copy=False), connect_nbd(path, f"dest{disk}") as nbd:
            try:
                await nbd.flush()
            except ConnectionError:
                raise
            except OSError as error:
                raise LabError(
                    f"QEMU could not make the destination of disk {disk} durable: {error.strerror}"
                ) from error

    async def relocated_bytes(self, disk: int) -> int | None:
        """Return how far a running `relocate` has come, None if there is none."""
        return next((job["offset"] for job in await self._jobs() if job["device"] == _relocation(disk)), None)

    async def cancel_relocation(self, disk: int) -> None:
        """End a running `relocate`, if there is one; what was copied stays on the destination."""
        with self._events(_relocation(disk), _ENDED) as events:
            try:
                await self.qmp.execute("block-job-cancel", {"device": _relocation(disk), "force": True})
            except (QMPError, EOFError, ConnectionError):
                return  # it has ended by itself, or the host has
            await events.get()

    async def apply_writes(self, disk: int, before_pivot: Callable[[], None]) -> None:
        """Apply the write cache to the destination, then let the virtual machine use the destination alone.

        Parameters
        ----------
        disk : int
        before_pivot : callable
            Called when both hold the same and the virtual machine's requests are held for an instant. To say
            then that the write cache is done with is right, even if the host is killed before the pivot.
        """
        job = f"apply{disk}"
        with self._events(job, ("BLOCK_JOB_READY", "BLOCK_JOB_PENDING", *_ENDED)) as events:
            await self.qmp.execute(
                "block-commit",
                {
                    "job-id": job,
                    "device": f"writecache{disk}",
                    "base-node": f"dest{disk}",
                    "on-error": "stop",
                    "auto-finalize": False,
                },
            )
            while (event := await events.get())["event"] not in _ENDED:
                if event["event"] == "BLOCK_JOB_READY":
                    await self.qmp.execute("job-complete", {"id": job})
                else:
                    before_pivot()
                    await self.qmp.execute("job-finalize", {"id": job})
            _expect_completed(event, "applying the writes")
        await self.qmp.execute("blockdev-del", {"node-name": f"writecache{disk}"})

    async def unmount(self, disk: int) -> None:
        """Let go of the logical source of a disk that is relocated, if that was not done before."""
        if disk not in self._mounted:
            return
        self._mounted.remove(disk)
        await self.qmp.execute("blockdev-del", {"node-name": f"source{disk}"})

    @contextlib.asynccontextmanager
    async def relocation_exports(
        self, path: Path, disks: Sequence[int], *, copy: bool
    ) -> AsyncIterator[None]:
        """Offer the destinations ``dest0``, … on an NBD socket.

        Parameters
        ----------
        path : Path
        disks : sequence of int
        copy : bool
            Whether a read copies what it reads to the destination (``copy-on-read``), or the client writes.
        """
        await self.qmp.execute("nbd-server-start", {"addr": {"type": "unix", "data": {"path": str(path)}}})
        try:
            async with contextlib.AsyncExitStack() as exports:
                for disk in disks:
                    await exports.enter_async_context(self._relocation_export(disk, copy))
                yield
        finally:
            await self.qmp.execute("nbd-server-stop")

    @contextlib.asynccontextmanager
    async def _relocation_export(self, disk: int, copy: bool) -> AsyncIterator[None]:
        name = node = f"dest{disk}"
        if copy:
            node = f"copy{disk}"
            await self.qmp.execute(
                "blockdev-add", {"driver": "copy-on-read", "node-name": node, "file": name}
            )
        await self.qmp.execute(
            "block-export-add",
            {"type": "nbd", "id": name, "node-name": node, "name": name, "writable": not copy},
        )
        try:
            yield
        finally:
            with self._events(name, ("BLOCK_EXPORT_DELETED",)) as events:
                await self.qmp.execute("block-export-del", {"id": name, "mode": "hard"})
                await events.get()
            if copy:
                await self.qmp.execute("blockdev-del", {"node-name": node})

    @contextlib.contextmanager
    def troubles(self) -> Iterator[EventListener]:
        """Listen for reads and writes in vain that paused the virtual machine or a job."""
        names = ("BLOCK_IO_ERROR", "BLOCK_JOB_ERROR")

        def stops(event: Any) -> bool:
            return bool(event["data"]["action"] == "stop")

        with self.qmp.listener(names, stops) as listener:
            yield listener

    async def is_stuck(self) -> bool:
        """Tell whether the virtual machine or a job waits for `go_on`."""
        status: Any = await self.qmp.execute("query-status")
        return str(status["status"]) == "io-error" or any(
            job["io-status"] != "ok" for job in await self._jobs()
        )

    async def powered_off(self) -> None:
        """Wait until the virtual machine has switched itself off; its host is still there."""

        def is_of_guest(event: Any) -> bool:
            return bool(event["data"]["guest"])

        with self.qmp.listener("SHUTDOWN", is_of_guest) as events:
            await events.get()

    async def go_on(self) -> None:
        """Let everything that was paused by a trouble try once more."""
        for job in await self._jobs():
            if job["io-status"] != "ok" or job["paused"]:
                with contextlib.suppress(ExecuteError):  # it may have been cancelled meanwhile
                    await self.qmp.execute("block-job-resume", {"device": job["device"]})
        status: Any = await self.qmp.execute("query-status")
        if status["status"] == "io-error":
            await self.qmp.execute("cont")

    async def stand_still(self) -> None:
        """Stop the virtual machine's processors; it reads and writes nothing any more."""
        await self.qmp.execute("stop")

    async def quit(self) -> None:
        """End the host, and with it the virtual machine; what its system has not written is lost."""
        with contextlib.suppress(EOFError, ConnectionError, QMPError):  # it may hang up before it answers
            await self.qmp.execute("quit")
        await self.guest.wait_for_end(60)

    async def written_bytes(self, disk: int) -> int:
        """Return how many bytes the virtual machine has written to the disk so far."""
        told: Any = await self.qmp.execute("query-blockstats")
        device = f"/disk{disk}/virtio-backend"
        return next(int(each["stats"]["wr_bytes"]) for each in told if each.get("qdev", "").endswith(device))

    async def _jobs(self) -> list[dict[str, Any]]:
        jobs: Any = await self.qmp.execute("query-block-jobs")
        return list(jobs)

    @contextlib.contextmanager
    def _events(self, name: str, kinds: Sequence[str]) -> Iterator[EventListener]:
        """Listen for events about one job or export."""

        def is_ours(event: Any) -> bool:
            return name in (event["data"].get("device"), event["data"].get("id"))

        with self.qmp.listener(kinds, is_ours) as listener:
            yield listener


def _relocation(disk: int) -> str:
    return f"relocate{disk}"


def _expect_completed(event: Any, what: str) -> None:
    if event["event"] == "BLOCK_JOB_CANCELLED":
        raise JobCancelledError(f"{what} was cancelled")
    if "error" in event["data"]:
        raise LabError(f"QEMU could not finish {what}: {event['data']['error']}")
