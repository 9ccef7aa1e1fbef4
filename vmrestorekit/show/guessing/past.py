"""What had happened in a restore before one of its events."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmrestorekit.restore.timeline import RELOCATED, Timeline
from vmrestorekit.show import units

__all__ = ["Past", "Rows"]

Rows = npt.NDArray[np.int64]


class Past:
    """What had happened before an event of a timeline; arrays have the shape (blocks,)."""

    def __init__(self, timeline: Timeline, row: int) -> None:
        self.timeline, self.row = timeline, row
        event = timeline.events.row(row, named=True)
        self.kind, self.block, self.detail = event["kind"], event["block"], event["detail"]
        self.flags = timeline.state_at(row - 1).flags

    def time(self, row: int | np.integer) -> str:
        """Return the time of an event in words."""
        return units.clock(int(self.timeline.times[row]))

    def rows(self, *kinds: str) -> Rows:
        """Return the rows of the events of some kinds."""
        return np.flatnonzero(self.timeline.are_of_kind(*kinds)[: self.row])

    def named(self, *kinds: str) -> tuple[Rows, Rows]:
        """Return the blocks that events of some kinds were about, and the row of each, in order."""
        rows = self.rows(*kinds)
        first, count = (self.timeline.events[name].to_numpy()[rows] for name in ("block", "count"))
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.repeat(first, count) + within, np.repeat(rows, count)

    def last(self, *kinds: str) -> Rows:
        """Return the row of the last event of some kinds about each block, -1 if there was none."""
        last = np.full(len(self.flags), -1)
        blocks, rows = self.named(*kinds)
        last[blocks] = rows  # of several about one block the last one stays
        return last

    def count(self, *kinds: str, since: Rows | int = -1) -> Rows:
        """Return how many events of some kinds were about each block, behind a row."""
        blocks, rows = self.named(*kinds)
        after = np.broadcast_to(since, self.flags.shape)[blocks]
        return np.bincount(blocks[rows > after], minlength=len(self.flags))

    def relocation(self) -> tuple[int, int, int]:
        """Return how much of the sequence is on the destination, its length, and the block's place in it."""
        sequence = self.timeline.plan.sequence
        sequence = sequence[self.timeline.stored[sequence]]
        place = np.flatnonzero(sequence == self.block)
        there = int(np.count_nonzero(self.flags[sequence] & RELOCATED))
        return there, len(sequence), int(place[0]) + 1 if place.size else 0

    def in_cache(self, block: int) -> str:
        """Return when a block of the read cache came, and was hit, in a sentence."""
        came = self.last("staged")
        hits, last = self.count("cache_hit", since=came)[block], self.last("cache_hit")[block]
        since = f"hits since then: {hits:,}, the last at {self.time(last)}" if hits else "no hit since then"
        return f"{units.blocks(block, 1).capitalize()} came at {self.time(came[block])}; {since}."
