"""One clock for one or two timelines: their events in the order of time, and how to step through them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import PHASES, Timeline

__all__ = ["STEP_OVER", "Clock"]

_COORDINATION = KINDS[: KINDS.index("vm_read")]

# what a step goes to -> the kinds of event, all if None
STEP_OVER: dict[str, Collection[str] | None] = {
    "every event": None,
    "coordination messages": (*_COORDINATION, "boot_done"),
    "VM requests": ("vm_read", "vm_write", "vm_discard", "vm_flush"),
    "relocation": ("relocation_read", "relocated", "infer_run", "purge", "applied"),
    "phase changes": (*PHASES, "boot_done"),
}


def _rank(timeline: Timeline) -> np.ndarray:
    """Return how many events of its timeline each one follows at the same instant."""
    return np.arange(len(timeline)) - np.searchsorted(timeline.times, timeline.times, side="left")


class Clock:
    """The events of all timelines, merged by time; at equal times they take turns, the first timeline first.

    Parameters
    ----------
    timelines : sequence of Timeline

    Attributes
    ----------
    times : ndarray of int64, shape (events,)
    kinds : ndarray of uint8, shape (events,)
        Numbers in `KINDS`.
    """

    def __init__(self, timelines: Sequence[Timeline]) -> None:
        times = np.concatenate([timeline.times for timeline in timelines])
        owner = np.repeat(np.arange(len(timelines)), [len(timeline) for timeline in timelines])
        order = np.lexsort((owner, np.concatenate([_rank(timeline) for timeline in timelines]), times))
        owner = owner[order]
        self.times = times[order]
        self.kinds = np.concatenate([timeline.kinds for timeline in timelines])[order]
        self._rows = [np.cumsum(owner == each) - 1 for each in range(len(timelines))]

    def __len__(self) -> int:
        return len(self.times)

    def row(self, timeline: int, index: int) -> int:
        """Return the row of a timeline's last event up to an index of the clock, -1 before its first."""
        return int(self._rows[timeline][index]) if index >= 0 else -1

    def index_at(self, time_ns: int) -> int:
        """Return the index of the last event not after a time, -1 before the first."""
        return int(np.searchsorted(self.times, time_ns, side="right")) - 1

    def instant(self, index: int) -> tuple[int, int]:
        """Return the first and the last index with the same time."""
        time_ns = self.times[index]
        first, end = (np.searchsorted(self.times, time_ns, side=side) for side in ("left", "right"))
        return int(first), int(end) - 1

    def next(self, after: int, kinds: Collection[str] | None = None) -> int | None:
        """Return the index of the next event of one of these kinds behind an index, None if there is none."""
        later = np.flatnonzero(self._wanted(kinds, slice(after + 1, None)))
        return after + 1 + int(later[0]) if later.size else None

    def previous(self, before: int, kinds: Collection[str] | None = None) -> int | None:
        """Return the index of the last event of one of these kinds before an index, None if there is none."""
        earlier = np.flatnonzero(self._wanted(kinds, slice(0, max(0, before))))
        return int(earlier[-1]) if earlier.size else None

    def counts(self) -> dict[str, int]:
        """Return how often each kind that occurs does, in the order of `KINDS`."""
        counts = np.bincount(self.kinds, minlength=len(KINDS))
        return {kind: int(count) for kind, count in zip(KINDS, counts, strict=True) if count}

    def _wanted(self, kinds: Collection[str] | None, part: slice) -> np.ndarray:
        if kinds is None:
            return np.ones(len(self.kinds[part]), np.bool_)
        return np.isin(self.kinds[part], [KINDS.index(kind) for kind in kinds])
