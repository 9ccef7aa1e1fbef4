"""The end of a live mount (O25, O26): warned of, put off, and then nothing is left of what was written."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.restore.start import sleep_until

if TYPE_CHECKING:
    from vmrestorekit.lab.restore.data_agent import DataAgent

__all__ = ["LiveMount"]


class LiveMount:
    """Counts down to the expiry of a mount; without one, it lasts until its machine is switched off."""

    def __init__(self, agent: DataAgent) -> None:
        self._agent, self._plan = agent, agent.plan
        self._asked = agent.times["asked"]
        self._expiry_ns = self._plan.expiry_ns  # counted from the request for the mount
        self._changed = asyncio.Event()
        self._warned = False

    async def run(self) -> None:
        """Warn, wait for the expiry or the end of the machine, and let go of everything."""
        counting = [
            asyncio.create_task(each)
            for each in (self._count_down(), self._extend_as_planned(), self._agent.powered_off.wait())
        ]
        down, planned, off = counting
        try:
            await asyncio.wait({down, off}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in counting:
                task.cancel()
            await asyncio.gather(*counting, return_exceptions=True)
        for task in (down, planned):
            if not task.cancelled():
                task.result()  # raises what went wrong
        await self._end()

    async def extend(self, by_ns: int) -> str:
        """Put the expiry off; return the sentence for the user.

        Raises
        ------
        LabError
            If the mount has no expiry, or has expired.
        """
        if self._expiry_ns is None:
            raise LabError("this live mount has no expiry that could be put off")
        if by_ns <= 0:
            raise LabError(f"expected to extend the mount by a positive time, got {by_ns} ns")
        if self._agent.is_quitting:
            raise LabError("the live mount has expired already")
        self._expiry_ns += by_ns
        state = self._agent.folder.state
        self._agent.folder.update(extended_by_ns=state.extended_by_ns + by_ns)
        await self._agent.note("extend_expiry", detail=self._expiry_ns)
        self._warned = False
        self._changed.set()
        return f"the live mount expires in {self._left_s():.0f} s"

    async def _extend_as_planned(self) -> None:
        if self._plan.extend_at_ns is not None:
            await sleep_until(self._asked + self._plan.extend_at_ns)
            self._agent.report.say(f"Extended: {await self.extend(self._plan.extend_by_ns)}.")

    async def _count_down(self) -> None:
        if self._expiry_ns is None:
            await asyncio.Event().wait()
        while (left := self._left_s()) > 0:
            warning_in = left - self._plan.warning_ns / 1e9
            if not self._warned and warning_in <= 0 and self._agent.launched.is_set():
                self._warned = True
                await self._agent.note("warn_of_expiry", detail=round(left * 1e9))
                self._agent.report.say(f"This live mount expires in {left:.0f} s, and with it all it wrote.")
            wait_s = left if self._warned else max(0.05, min(left, warning_in))
            self._changed.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _left_s(self) -> float:
        assert self._expiry_ns is not None
        return (self._asked + self._expiry_ns - time.monotonic_ns()) / 1e9

    async def _end(self) -> None:
        agent = self._agent
        agent.is_quitting = True
        await agent.host.stand_still()
        await agent.link.indicate("expire")
        await agent.note("power_down")
        await agent.quit()
        await agent.note("unmount_file_system")
        agent.folder.discard_write_caches()
        agent.folder.update(phase="expired")
        agent.times["released"] = time.monotonic_ns()
        agent.report.say(
            "The live mount has ended; what it wrote is discarded, the backup copy is as it was."
        )
        agent.released.set()
