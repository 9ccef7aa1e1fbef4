"""The data agent: carries out a restore plan on a real host and a real media agent, operation by operation.

It exports the logical source (O1), sets up the data flow (O2), indicates the virtual machine's profile (O3),
launches the machine (O6), schedules and runs the relocation (O10 to O13), applies the writes (O17), and lets
go of the backup copy (O18 to O20), while the machine runs on (O21). A live mount ends as
`vmrestorekit.lab.restore.live_mount` says.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

from vmrestorekit.lab.guests.units import BOOT_DONE_LINE
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.restore.agent_link import AgentLink
from vmrestorekit.lab.restore.folder import RestoreFolder
from vmrestorekit.lab.restore.host import Host
from vmrestorekit.lab.restore.images import relocate_configuration, written_ranges
from vmrestorekit.lab.restore.live_mount import LiveMount
from vmrestorekit.lab.restore.mover import Mover, mover_of, stored_blocks
from vmrestorekit.lab.restore.requests import Request
from vmrestorekit.lab.restore.start import sleep_until, wait_for_launch, wait_for_relocation
from vmrestorekit.lab.restore.troubles import Troubles
from vmrestorekit.plan import first_block_of_disk
from vmrestorekit.restore.hardware import BackupDevice

__all__ = ["DataAgent", "RestoreOptions"]


@dataclasses.dataclass(frozen=True)
class RestoreOptions:
    """How a plan is carried out, where the plan leaves it open.

    Attributes
    ----------
    device : BackupDevice
        What a load condition is measured against.
    mover : str, optional
        See `vmrestorekit.lab.restore.mover.mover_of`.
    speed : int
        Limit of the relocation in bytes a second; 0: none.
    boot_done_line : str
        What the virtual machine prints on its console when it has booted.
    """

    device: BackupDevice
    mover: str | None = None
    speed: int = 0
    boot_done_line: str = BOOT_DONE_LINE


class DataAgent:
    """Carries out one restore; `vmrestorekit.lab.restore.carry_out.carry_out` gives it what it needs.

    Attributes
    ----------
    launched, booted, released, powered_off : asyncio.Event
        What has happened. A live mount is released when it has expired.
    times : dict of str to int
        When, by CLOCK_MONOTONIC: ``asked``, ``launched``, ``booted``, ``released`` …
    """

    def __init__(
        self,
        folder: RestoreFolder,
        link: AgentLink,
        host: Host,
        options: RestoreOptions,
        sockets: Path,
        report: Report,
    ) -> None:
        self.folder, self.plan, self.link, self.host = folder, folder.plan, link, host
        self.options, self.report = options, report
        self.troubles = Troubles(host, link, folder.path, report)
        self.mover = mover_of(self.plan, options.mover, options.speed)
        self.launched, self.booted, self.released, self.powered_off = (asyncio.Event() for _ in range(4))
        self.times: dict[str, int] = {}
        self.relocation: Mover | None = None
        self.mount: LiveMount | None = None
        self.is_quitting = False
        self._sockets = sockets
        self._start_wanted = asyncio.Event()
        self._relocating: asyncio.Task[None] | None = None

    async def carry_out(self) -> None:
        """Carry the plan out, from where the folder says."""
        self.times["asked"] = time.monotonic_ns()
        if self.folder.state.phase == "released":
            await self._launch()
            self.released.set()
            return
        await self._prepare()
        if self.plan.mode == "live_mount":
            self.mount = LiveMount(self)
            await asyncio.gather(self._launch(), self.mount.run())
        elif self.plan.mode == "full_restore":
            await self._relocate_until_done()
            await self._launch()
        else:
            await self._launch()
            await self._relocate_until_done()

    async def quit(self) -> None:
        """End the host and the virtual machine at this instant."""
        self.is_quitting = True
        await self.host.quit()

    # --- O1 to O6 -------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        mounted = self.plan.mode == "live_mount"
        asked = self.times["asked"]
        await self.link.note("select_vm", at_ns=asked) if mounted else None
        await self.link.note("export_file_system", at_ns=asked)
        await self.link.note("mount_file_system", at_ns=asked)
        if not mounted:
            await self.link.note("set_up_data_flow", at_ns=asked)
        await self.link.indicate("vm_profile")

    async def _launch(self) -> None:
        if self.plan.mode == "instant_restore" or self.plan.mode == "live_mount":
            self.report.now("staging the first set")
            await wait_for_launch(self.plan.launch, self.times["asked"], self.link.status)
        state = self.folder.state
        phase = "running" if state.phase == "prepared" else state.phase
        self.folder.update(phase=phase, launches=state.launches + 1)
        self.times["launched"] = time.monotonic_ns()
        if not self.released.is_set() and state.phase != "released":
            await self.link.indicate("launched")
        await self.host.launch()
        self.report.say(f"Launched, {self.since('asked')} after the restore was asked for.")
        self.launched.set()

    # --- O10 to O13 -----------------------------------------------------------------------------------

    async def _relocate_until_done(self) -> None:
        looking = asyncio.create_task(stored_blocks(self.link, self.plan))
        try:
            await self._wait_for_start()
            while not await self._relocate_once(await looking):
                self._start_wanted.clear()
                await self._start_wanted.wait()
        finally:
            looking.cancel()
        await self._apply_writes()
        await self._release()

    async def _wait_for_start(self) -> None:
        """Return when the relocation is due, or the user wants it; indicate pre-relocation mode before."""
        if self.plan.mode == "full_restore" or self.folder.state.phase != "running":
            return  # at once, or it had started before the host was killed
        waiting: list[asyncio.Task[Any]] = [
            asyncio.create_task(
                wait_for_relocation(
                    *(self.plan.relocation_start, self.times["asked"], self.times["launched"]),
                    *(self.link.status, self.options.device),
                )
            ),
            asyncio.create_task(self._start_wanted.wait()),
        ]
        indicating = asyncio.create_task(self._indicate_pre_relocation())
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*waiting, indicating):
                task.cancel()
            await asyncio.gather(*waiting, indicating, return_exceptions=True)
        for task in (*waiting, indicating):
            if not task.cancelled():
                task.result()  # raises what went wrong

    async def _indicate_pre_relocation(self) -> None:
        await sleep_until(self.times["launched"] + self.plan.pre_relocation_delay_ns)
        await self.link.indicate("pre_relocation")

    async def _relocate_once(self, stored: Any) -> bool:
        """Relocate all disks; return False if the user had that cancelled."""
        self._relocating = asyncio.create_task(self._relocate(stored))
        try:
            await asyncio.wait({self._relocating})
        finally:
            self._relocating.cancel()
            await asyncio.wait({self._relocating})
        if self._relocating.cancelled():
            self.folder.update(phase="running")
            await self.link.indicate("relocation_cancelled")
            self.report.say(
                "The relocation was cancelled; the virtual machine runs on from the logical source."
            )
            return False
        self._relocating.result()
        return True

    async def _relocate(self, stored: Any) -> None:
        if self.folder.state.phase == "applying":
            return
        self.folder.update(phase="relocating")
        await self.note("start_relocation", "relocation")
        self.report.say(f"The relocation has started ({self.mover}).")
        await self.link.indicate("relocation_in_progress")
        self.relocation = Mover(
            *(self.plan, self.mover, stored, self.host, self.link, self.troubles),
            *(self._sockets, self.options.speed),
        )
        missing = [disk for disk, each in enumerate(self.folder.state.disks) if not each.relocated]
        await self.relocation.relocate_in_order(missing)
        for disk in missing:
            await self.relocation.relocate_rest(disk)
            self.folder.update_disk(disk, relocated=True)
        await asyncio.to_thread(relocate_configuration, self.folder)
        await self.note("finish_relocation", "relocated")
        self.report.say(f"Relocated in {self.since('relocation')}.")

    # --- O17 to O21 -----------------------------------------------------------------------------------

    async def _apply_writes(self) -> None:
        self.folder.update(phase="applying")
        began = time.monotonic_ns()
        applied = 0
        first = first_block_of_disk(self.plan.disk_bytes, self.plan.block_bytes)
        for disk, each in enumerate(self.folder.state.disks):
            if each.applied:
                continue
            await self.host.apply_writes(disk, functools.partial(self.folder.update_disk, disk, applied=True))
            now = time.monotonic_ns()
            for block, count, size in await written_ranges(
                self.folder.write_cache(disk), self.plan.block_bytes
            ):
                await self.link.note(
                    "applied", block=first[disk] + block, count=count, detail=size, at_ns=now
                )
                applied += size
        await self.link.note("apply_writes", detail=applied, at_ns=began)
        await self.note("use_destination")
        self.report.say(
            f"Applied {applied / 1e6:.1f} MB of writes; the virtual machine uses its destination."
        )

    async def _release(self) -> None:
        for disk, each in enumerate(self.folder.state.disks):
            assert each.relocated
            await self.host.unmount(disk)
        await self.note("unmount_file_system")
        await self.link.indicate("relocation_completed")
        self.folder.discard_write_caches()
        self.folder.update(phase="released")
        self.times["released"] = time.monotonic_ns()
        self.report.say(
            f"The backup copy is free again, {self.since('asked')} after the restore was asked for."
        )
        self.released.set()

    # --- what the user may ask for --------------------------------------------------------------------

    def requests(self) -> dict[str, Request]:
        """Return what can be asked of this restore while it is under way."""
        return {
            "cancel_relocation": self._cancel_relocation,
            "start_relocation": self._start_relocation,
            "extend": self._extend,
        }

    async def _cancel_relocation(self, message: dict[str, Any]) -> str:
        if self.folder.state.phase == "applying" or self._relocating is None or self._relocating.done():
            raise LabError(f"no relocation is running: the restore is {self.folder.state.phase}")
        self._relocating.cancel()
        await asyncio.wait({self._relocating})
        return "the relocation is cancelled; the virtual machine runs on from the logical source"

    async def _start_relocation(self, message: dict[str, Any]) -> str:
        if self.plan.mode == "live_mount":
            raise LabError("a live mount never relocates")
        if self.folder.state.phase != "running":
            raise LabError(f"the relocation cannot be started: the restore is {self.folder.state.phase}")
        self._start_wanted.set()
        return "the relocation starts"

    async def _extend(self, message: dict[str, Any]) -> str:
        if self.mount is None:
            raise LabError("only a live mount can be extended")
        return await self.mount.extend(int(message["by_ns"]))

    # --- telling --------------------------------------------------------------------------------------

    async def note(self, kind: str, name: str = "", *, detail: int = 0) -> None:
        """Put an event into the recording that happens now; remember when under a name."""
        now = time.monotonic_ns()
        if name:
            self.times[name] = now
        await self.link.note(kind, detail=detail, at_ns=now)

    def since(self, name: str) -> str:
        """Return how long ago something happened, for people."""
        return f"{(time.monotonic_ns() - self.times[name]) / 1e9:.1f} s"
