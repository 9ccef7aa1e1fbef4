"""The media agent: serves a backup copy through a read cache, by the same rules as the simulated one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vmrestorekit.lab.media.device import Faults
from vmrestorekit.lab.media.event_log import EventLog
from vmrestorekit.lab.media.read_server import ReadServer
from vmrestorekit.lab.media.source import Source
from vmrestorekit.lab.media.status import measured_figures, status_of
from vmrestorekit.lab.programs import LabError
from vmrestorekit.plan import PlanError, RestorePlan
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.restore.timeline import Timeline

__all__ = ["MediaAgent"]

_PURGE_BY_PERIOD = (5, 8)  # class and number of rule 1 of the clockwork


class MediaAgent(ReadServer):
    """Serves the reads of one virtual machine and of its relocation; an asynchronous context manager.

    The device and the link of the hardware are emulated; destination and write cache are the host's. Messages
    of the data agent are carried out when they come, and noted as events; what the host does is for others to
    `note`.

    Parameters
    ----------
    source : Source
        Closed with the agent.
    hardware : Hardware
    plan : RestorePlan, optional
        Indicated as soon as the agent runs; default: blocks are fetched as they are asked for, through a read
        cache of the default size, until a profile is indicated.
    clock : callable
        Returns nanoseconds that never go back.
    log : EventLog, optional

    Attributes
    ----------
    phase : str
        ``preparing``, ``running from the backup``, ``pre-relocation``, ``relocating``, ``completed`` or
        ``expired``.
    plan : RestorePlan
    """

    def __init__(
        self,
        source: Source,
        hardware: Hardware,
        *,
        plan: RestorePlan | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        log: EventLog | None = None,
    ) -> None:
        self.plan = RestorePlan(source.disk_bytes, mode="live_mount", block_bytes=source.block_bytes)
        super().__init__(source, hardware, self.plan, clock, EventLog() if log is None else log)
        if plan is not None:
            self._check_plan(plan)
        self._plan_to_indicate = plan
        self.phase = "preparing"
        self._relocation = 0  # how often it was begun
        self._is_let_go = False

    async def __aenter__(self) -> MediaAgent:
        self._begin()
        if self._plan_to_indicate is not None:
            self.indicate_vm_profile(self._plan_to_indicate)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop. A copy that a virtual machine may still run from stays associated with it."""
        try:
            self._before()
            self._cut_off()
            await self._let_go(release=self.phase == "preparing")
        finally:
            self._end()

    # --- messages of the data agent -------------------------------------------------------------------

    def indicate_vm_profile(self, plan: RestorePlan) -> None:
        """Begin to stage a plan's first set (O3 to O5); a later profile replaces an earlier one.

        Raises
        ------
        PlanError
            If the plan is for other disks or blocks, leaves a stored block out of its relocation, or has
            weighted priorities.
        """
        self._expect_not_over()
        self._check_plan(plan)
        now = self._before()
        self.rules.indicate_vm_profile(now, plan)  # it may refuse
        self.plan = plan
        message = self.log.append(now, "indicate_vm_profile")
        count = len(self.rules.stager.first_set)
        self.rules.explain_first_set(self.log.append(now, "determine_first_set", count=count, cause=message))
        self._after()

    def launched(self) -> None:
        """The virtual machine was launched (O6)."""
        self._expect_not_over()
        now = self._before()
        self.log.append(now, "launch_vm", detail=len(self.rules.staged_first_set))
        if self.phase == "preparing":
            self.phase = "running from the backup"

    def pre_relocation(self) -> None:
        """Stage along the relocation sequence, at low priority (O11); too late while the relocation runs."""
        self._expect_relocation()
        if self.phase == "relocating":
            return
        now = self._before()
        self.rules.indicate_pre_relocation(now, self.log.append(now, "indicate_pre_relocation"))
        self.phase = "pre-relocation"
        self._after()

    def relocation_in_progress(self) -> None:
        """Stage for the relocation, at its turn among the reads, and look for its reads (O12, O15, O16)."""
        self._expect_relocation()
        now = self._before()
        self.rules.indicate_relocation(now, self.log.append(now, "indicate_relocation_in_progress"))
        self.phase = "relocating"
        self._relocation += 1
        if self.plan.purge.by_period:
            self._look_later(self._relocation)
        self._after()

    def _look_later(self, relocation: int) -> None:
        def look() -> None:
            if self.rules.stager.relocating and relocation == self._relocation:
                self.rules.look_at_runs(self._agenda.now)
                self._look_later(relocation)

        self._agenda.add(self._agenda.now + self.plan.purge.period_ns, _PURGE_BY_PERIOD, look)

    def relocated(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Blocks are on the destination: ranges of (first block, number), numbered over all disks.

        Raises
        ------
        LabError
            If a range is not on the disks.
        """
        self._expect_relocation()
        ranges = list(ranges)
        for first, count in ranges:
            if first < 0 or count < 1 or first + count > self.plan.blocks:
                raise LabError(
                    f"relocated: expected ranges of {self.plan.blocks} blocks, got {count} from {first} on"
                )
        now = self._before()
        for first, count in ranges:
            event = self.log.append(now, "relocated", first, count, detail=count * self.block_bytes)
            self.rules.relocated(now, range(first, first + count), event)
        self._after()

    def relocation_cancelled(self) -> None:
        """The virtual machine goes on from the backup; what is on the destination stays there."""
        self._expect_relocation()
        self.rules.cancel_relocation(self._before())
        self._relocation += 1
        self.phase = "running from the backup"
        self._after()

    async def relocation_completed(self) -> None:
        """Let go, after the reads that are under way (O17 to O20); later reads are refused."""
        self._expect_not_over()
        self.log.append(self._before(), "indicate_relocation_completed")
        self.phase = "completed"
        self.refuses_reads = True
        self.rules.finish_relocation()
        await self._until(lambda: not self.open)
        self._before()
        self._cut_off()
        await self._let_go(release=True)

    async def expire(self) -> None:
        """Cut off what is under way and let go (O26); later reads are refused."""
        self._expect_not_over()
        self.log.append(self._before(), "expire", detail=len(self.open))
        self.phase = "expired"
        self._cut_off()
        await self._let_go(release=True)

    async def _let_go(self, *, release: bool) -> None:
        """Empty the cache; once nothing reads from the medium any more, de-associate and close it."""
        if self._is_let_go:
            return
        self._is_let_go = True
        dropped = self.rules.cache.empty()
        if release:
            self.log.append(self._agenda.now, "empty_read_cache", count=dropped)
        await self._until(lambda: not self._reading)
        try:
            if release:
                self.source.release()
                self.log.append(self._before(), "de_associate")
        finally:
            self.source.close()

    def _check_plan(self, plan: RestorePlan) -> None:
        if (plan.disk_bytes, plan.block_bytes) != (self.disk_bytes, self.block_bytes):
            raise PlanError(
                f"expected a plan for disks of {self.disk_bytes} bytes in blocks of {self.block_bytes}, got "
                f"one for {plan.disk_bytes} in blocks of {plan.block_bytes}"
            )
        if plan.relocation_sequence is not None and plan.mode != "live_mount":
            left_out = self._stored.copy()
            left_out[plan.sequence] = False
            if left_out.any():
                raise PlanError(
                    f"relocation sequence: expected every block that the backup stores, but "
                    f"{np.count_nonzero(left_out)} are missing, first block {np.flatnonzero(left_out)[0]}"
                )

    def _expect_not_over(self) -> None:
        if self._is_let_go or self.refuses_reads:
            raise LabError(f"expected a message before the end, but this restore or mount is {self.phase}")

    def _expect_relocation(self) -> None:
        self._expect_not_over()
        if self.plan.mode == "live_mount":
            raise LabError("a live mount is never relocated: expected the profile of a restore before")

    # --- others ---------------------------------------------------------------------------------------

    def fault(self, **faults: Any) -> None:
        """Change what is wrong with the device: `slow` (a factor), `error` and `corrupt` (lists of blocks).

        Raises
        ------
        LabError
            If there is no such fault, or it cannot be emulated.
        """
        known = {field.name for field in dataclasses.fields(Faults)}
        if not set(faults) <= known:
            raise LabError(f"fault: expected some of {', '.join(sorted(known))}, got {', '.join(faults)}")
        values = {
            name: float(value) if name == "slow" else frozenset(map(int, value))
            for name, value in faults.items()
        }
        self.device.set_faults(dataclasses.replace(self.device.faults, **values))  # type: ignore[arg-type]

    def note(
        self,
        kind: str,
        *,
        block: int = -1,
        count: int = 0,
        request: int = -1,
        detail: int = 0,
        at_ns: int | None = None,
    ) -> None:
        """Note an event of another actor, as of now or of a time of the agent's clock.

        Raises
        ------
        LabError
            If there is no such kind of event.
        """
        self.log.append(self.clock() if at_ns is None else at_ns, kind, block, count, request, detail)

    def status(self) -> dict[str, Any]:
        """Return what there is to know at the moment, as plain data."""
        return {"phase": self.phase} | status_of(self)

    def timeline(self, *, vm: str = "", boot: str = "", local_boot_ns: int | None = None) -> Timeline:
        """Return what has happened so far; time 0 is the first event.

        `vm_read` and `vm_done` are those reads of the virtual machine that came to the media agent. The
        hardware is left out, as only a part of it is emulated.
        """
        return self.log.timeline(
            *(self.plan, self._stored),
            vm=vm,
            boot=boot,
            local_boot_ns=local_boot_ns,
            measured=measured_figures(self),
        )
