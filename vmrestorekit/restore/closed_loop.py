"""From a recorded trace to the closed loop that the engine replays (section 2 of the clockwork)."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import first_block_of_disk
from vmrestorekit.traces.schema import OPS, ReadTrace

__all__ = ["ClosedLoop", "closed_loop", "find_parents"]

IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ClosedLoop:
    """The requests of a trace with what each waits for; arrays of shape (rows,), the mark separate.

    Attributes
    ----------
    op : ndarray
        Index into `vmrestorekit.traces.schema.OPS`.
    start, length : ndarray
        Bytes; `start` counts over all disks, each beginning at a block.
    parent : ndarray
        Row of the parent, -1 for the launch.
    gap : ndarray
        Recorded nanoseconds between the parent's completion and the issue.
    boot_done : tuple of int, optional
        Parent and gap of the mark.
    """

    op: IntArray
    start: IntArray
    length: IntArray
    parent: IntArray
    gap: IntArray
    boot_done: tuple[int, int] | None

    @property
    def rows(self) -> int:
        """Number of requests."""
        return len(self.op)


def find_parents(issued: IntArray, completed: IntArray) -> IntArray:
    """Return each row's parent: the latest completion among the rows above it, not after its issue; else -1.

    Rows are ordered by `issued`. Of several rows that completed at the same time the last one is taken.
    """
    rows = np.arange(len(issued))
    by_completion = np.lexsort((rows, completed))
    last = np.searchsorted(completed[by_completion], issued, side="right") - 1
    parents = np.full(len(issued), -1, np.int64)
    for row in rows:
        at = last[row]
        # a row below can only be meant if it took no time and began at this row's issue
        while at >= 0 and by_completion[at] >= row:
            at -= 1
        if at >= 0:
            parents[row] = by_completion[at]
    return parents


def closed_loop(trace: ReadTrace, block_bytes: int) -> ClosedLoop:
    """Return the closed loop of a trace on disks that are numbered in blocks of that size."""
    frame = trace.frame
    issued = frame["issued_ns"].to_numpy()
    completed = frame["completed_ns"].to_numpy()
    parent = find_parents(issued, completed)
    disk_start = np.array(first_block_of_disk(trace.metadata.disk_bytes, block_bytes)) * block_bytes
    return ClosedLoop(
        op=frame["op"].to_physical().cast(pl.Int64).to_numpy(),
        start=disk_start[frame["disk"].to_numpy()] + frame["offset"].to_numpy(),
        length=frame["length"].to_numpy(),
        parent=parent,
        gap=issued - np.where(parent >= 0, completed[parent], 0),
        boot_done=_mark(trace, completed),
    )


def _mark(trace: ReadTrace, completed: IntArray) -> tuple[int, int] | None:
    at = trace.metadata.marks.get("boot_done_ns")
    if at is None:
        return None
    before = np.flatnonzero(completed <= at)
    if not before.size:
        return -1, at
    parent = int(before[np.lexsort((before, completed[before]))[-1]])
    return parent, int(at - completed[parent])


assert OPS == ("read", "write", "discard", "flush"), "the engine numbers operations in this order"
