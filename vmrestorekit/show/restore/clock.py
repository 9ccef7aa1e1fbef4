"""One clock for one or two timelines: their events in the order of time, and how to step through them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import PHASES, Timeline

__all__ = ["STEP_OVER", "Clock"]

_COORDINATION = KINDS[: KINDS.index("vm_read")]

# what a step goes to -> the kinds of event
STEP_OVER: dict[str, Collection[str]] = {
    "every event": KINDS,
    "coordination messages": (*_COORDINATION, "boot_done"),
    "VM requests": ("vm_read", "vm_write", "vm_discard", "vm_flush"),
    "relocation": ("relocation_read", "relocated", "infer_run", "purge", "applied"),
    "phase changes": (*PHASES, "boot_done"),
}


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
    owner : ndarray of int64, shape (events,)
        Which timeline each event is of.
    """

    def __init__(self, timelines: Sequence[Timeline]) -> None:
        times = np.concatenate([timeline.times for timeline in timelines])
        owner = np.repeat(np.arange(len(timelines)), [len(timeline) for timeline in timelines])
        # how many events of its own timeline each one follows at the same instant
        turns = [np.arange(len(each)) - np.searchsorted(each.times, each.times) for each in timelines]
        order = np.lexsort((owner, np.concatenate(turns), times))
        self.times, self.owner = times[order], owner[order]
        self.kinds = np.concatenate([timeline.kinds for timeline in timelines])[order]
        self._rows = [np.cumsum(self.owner == each) - 1 for each in range(len(timelines))]

    def __len__(self) -> int:
        return len(self.times)

    def row(self, timeline: int, index: int) -> int:
        """Return the row of a timeline's last event up to an index of the clock, -1 before its first."""
        return int(self._rows[timeline][index]) if index >= 0 else -1

    def index_at(self, time_ns: int) -> int:
        """Return the index of the last event not after a time, -1 before the first."""
        return int(np.searchsorted(self.times, time_ns, side="right")) - 1

    def next(self, after: int, kinds: Collection[str] = KINDS) -> int | None:
        """Return the index of the next event of one of these kinds behind an index, None if there is none."""
        later = np.flatnonzero(np.isin(self.kinds[after + 1 :], _numbers(kinds)))
        return after + 1 + int(later[0]) if later.size else None

    def previous(self, before: int, kinds: Collection[str] = KINDS) -> int | None:
        """Return the index of the last event of one of these kinds before an index, None if there is none."""
        earlier = np.flatnonzero(np.isin(self.kinds[: max(0, before)], _numbers(kinds)))
        return int(earlier[-1]) if earlier.size else None

    def of_kinds(self, kinds: Collection[str]) -> npt.NDArray[np.int64]:
        """Return the indices of all events of some kinds."""
        return np.flatnonzero(np.isin(self.kinds, _numbers(kinds)))

    def counts(self) -> dict[str, int]:
        """Return how often each kind that occurs does, in the order of `KINDS`."""
        counts = np.bincount(self.kinds, minlength=len(KINDS)).tolist()
        return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}


def _numbers(kinds: Collection[str]) -> list[int]:
    return [KINDS.index(kind) for kind in kinds]
