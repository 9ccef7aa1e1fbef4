"""Inferring the relocation from its reads, and purging what it has read: rule 8 of the clockwork."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.lab.media.cache import ABSENT, PRESENT, Copy, Notes, ReadCache
from vmrestorekit.lab.media.staging import Stager
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import PURGE_TRIGGERS
from vmrestorekit.restore.runs import RunDetector

__all__ = ["BY_INDICATION", "BY_PERIOD", "BY_RUN", "Purger"]

BY_RUN, BY_INDICATION, BY_PERIOD = range(len(PURGE_TRIGGERS))
_NEVER = 2**31 - 1  # no run is that long


class _OpenRuns(RunDetector):
    """A detector that can also be asked for the runs that are open."""

    def _rows(self) -> npt.NDArray[Any]:
        return self._tables["runs"]

    def last_extended(self) -> int:
        """Return the number of the run that the last read extended or began."""
        return int(self._rows()["extended"].argmax())

    def of_period(self) -> list[int]:
        """Return the runs of at least two reads, in the order of their last extension."""
        rows = self._rows()
        numbers = np.flatnonzero(rows["length"] >= 2)
        ordered: list[int] = numbers[np.argsort(rows["extended"][numbers])].tolist()
        return ordered

    def start_and_length(self, run: int) -> tuple[int, int]:
        """Return the position at which a run starts, and its length."""
        row = self._rows()[run]
        return int(row["start"]), int(row["length"])

    def noted(self, run: int) -> int | None:
        """Return the trigger by which a run was noted, None if it was not."""
        noted = int(self._rows()[run]["noted"])
        return None if noted == 0 else noted - 1

    def set_noted(self, run: int, trigger: int) -> None:
        """Say that a run was noted."""
        self._rows()[run]["noted"] = trigger + 1


class Purger:
    """Follows the reads while a relocation runs, marks what it has read, and purges what was marked.

    Attributes
    ----------
    due : dict of int to None
        Blocks that are due for purging at this instant.
    ever_purged : bytearray
        Of each block, whether it was ever purged.
    """

    def __init__(self, notes: Notes, cache: ReadCache, stager: Stager) -> None:
        self.notes, self.cache, self.stager = notes, cache, stager
        self.due: dict[int, None] = {}
        self.purged = self.inferred = 0
        self.ever_purged = bytearray(cache.blocks)
        self.indication = -1  # the event of the message that the relocation runs
        self._marked_by: dict[int, int] = {}
        self._run_events: dict[int, int] = {}

    def follow(self, plan: RestorePlan) -> None:
        """Go by a plan."""
        self.rule = plan.purge
        self._detector: _OpenRuns | None = None

    def begin(self, event: int) -> None:
        """The relocation runs: from now on reads are looked at."""
        self.indication = event
        self._run_events.clear()
        self._detector = None
        if self.rule.by_run or self.rule.by_period:
            length = self.rule.run_length if self.rule.by_run else _NEVER
            self._detector = _OpenRuns(self.stager.sequence, length)

    def end(self) -> None:
        """No more tracking."""
        self._detector = None

    def track(self, block: int, event: int) -> None:
        """Look at a read, whoever sent it."""
        detector = self._detector
        if detector is None or not self.stager.relocating:
            return
        shown = detector.read(block)
        if not shown:
            return
        run = detector.last_extended()
        if len(shown) > 1:
            self._infer(run, BY_RUN, event)
        trigger = detector.noted(run)
        assert trigger is not None
        self._mark_all(shown, trigger, self._run_events.get(run, -1))

    def look_at_runs(self) -> None:
        """Purging by period: mark what the open runs have read."""
        if self._detector is None or not self.stager.relocating:
            return
        for run in self._detector.of_period():
            if self._detector.noted(run) is None:
                self._infer(run, BY_PERIOD, self.indication)
            start, length = self._detector.start_and_length(run)
            blocks = self.stager.sequence[start : start + length].tolist()
            self._mark_all(blocks, BY_PERIOD, self._run_events.get(run, -1))

    def _infer(self, run: int, trigger: int, event: int) -> None:
        assert self._detector is not None
        start, length = self._detector.start_and_length(run)
        self._detector.set_noted(run, trigger)
        self.inferred += 1
        first = int(self.stager.sequence[start])
        self._run_events[run] = self.notes.note("infer_run", first, length, -1, 0, event)

    def _mark_all(self, blocks: Iterable[int], trigger: int, event: int) -> None:
        for block in blocks:
            self.mark(block, trigger, event)

    def mark(self, block: int, trigger: int, event: int) -> None:
        """Mark a block for purging if it is there or coming; the first mark stays."""
        copy = self.cache.copies.get(block)
        if copy is None or copy.place == ABSENT or self.stager.marked[block]:
            return
        self.stager.marked[block] = trigger + 1
        self._marked_by[block] = event
        self.make_due(copy)

    def make_due(self, copy: Copy) -> None:
        """Let a block go in this instant, if it may be purged."""
        if self._may_go(copy):
            self.due[copy.block] = None

    def purge(self, block: int) -> None:
        """Drop a block that was due, unless somebody has asked for it since."""
        self.due.pop(block, None)
        copy = self.cache.copies.get(block)
        if copy is None or not self._may_go(copy):
            return
        self.purged += 1
        self.ever_purged[block] = 1
        trigger = self.stager.marked[block] - 1
        self.notes.note("purge", block, 1, -1, trigger, self._marked_by.get(block, -1))
        self.cache.purge(copy)

    def purge_due(self) -> None:
        """Drop all that is due, in the order of the blocks."""
        for block in sorted(self.due):
            self.purge(block)

    def _may_go(self, copy: Copy) -> bool:
        return (
            copy.place == PRESENT and copy.served and copy.pins == 0 and self.stager.marked[copy.block] != 0
        )
