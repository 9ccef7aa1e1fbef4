"""From a recorded trace to the closed loop that the engine replays (section 2 of the clockwork)."""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import first_block_of_disk
from vmrestorekit.traces.schema import OPS, ReadTrace, validate_trace

__all__ = ["ClosedLoop", "closed_loop", "find_parents"]

IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
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
    first_of_launch : int
        The lowest row that waits for the launch, -1 if none does. The mark counts as a row behind the last.
    first_child : ndarray
        The lowest row that waits for each row, -1 if none does.
    next_child : ndarray, shape (rows + 1,)
        The next row that waits for the same parent, -1 if there is none.
    """

    op: IntArray
    start: IntArray
    length: IntArray
    parent: IntArray
    gap: IntArray
    boot_done: tuple[int, int] | None
    first_of_launch: int
    first_child: IntArray
    next_child: IntArray

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
    """Return the closed loop of a trace on disks that are numbered in blocks of that size.

    It is kept as long as the trace's frame is, since the same boot is simulated again and again.
    """
    key = id(trace.frame)
    kept, loops = _LOOPS.get(key, (None, {}))
    if kept is None or kept() is not trace.frame:
        loops = {}
        _LOOPS[key] = weakref.ref(trace.frame, lambda _: _LOOPS.pop(key, None)), loops
    # numbers over all disks depend on the block size, since each disk begins at a block
    starts = tuple(
        block * block_bytes for block in first_block_of_disk(trace.metadata.disk_bytes, block_bytes)
    )
    at = trace.metadata.marks.get("boot_done_ns"), starts
    if at not in loops:
        loops[at] = _closed_loop(trace, np.array(starts))
    return loops[at]


_Loops = dict[tuple[int | None, tuple[int, ...]], ClosedLoop]
_LOOPS: dict[int, tuple[weakref.ref[pl.DataFrame], _Loops]] = {}


def _closed_loop(trace: ReadTrace, disk_start: IntArray) -> ClosedLoop:
    validate_trace(trace.frame, trace.metadata, source=f"trace of {trace.metadata.vm}")
    frame = trace.frame
    issued = frame["issued_ns"].to_numpy()
    completed = frame["completed_ns"].to_numpy()
    parent = find_parents(issued, completed)
    mark = _mark(trace, completed)
    first_child, next_child = _link_children(np.append(parent, mark[0] if mark else -2))
    return ClosedLoop(
        op=frame["op"].to_physical().cast(pl.Int64).to_numpy(),
        start=disk_start[frame["disk"].to_numpy()] + frame["offset"].to_numpy(),
        length=frame["length"].to_numpy(),
        parent=parent,
        gap=issued - np.where(parent >= 0, completed[parent], 0) if len(parent) else issued,
        boot_done=mark,
        first_of_launch=int(first_child[0]),
        first_child=first_child[1:],
        next_child=next_child,
    )


def _link_children(parents: IntArray) -> tuple[IntArray, IntArray]:
    """Return each parent's lowest row, first that of -1 (the launch), and each row's next one; -2: nobody."""
    rows = np.argsort(parents, kind="stable")
    sorted_parents = parents[rows]
    goes_on = sorted_parents[1:] == sorted_parents[:-1]
    next_child = np.full(len(parents), -1, np.int64)
    next_child[rows[:-1][goes_on]] = rows[1:][goes_on]
    first_child = np.full(len(parents), -1, np.int64)
    first = np.append(True, ~goes_on) & (sorted_parents >= -1)
    first_child[sorted_parents[first] + 1] = rows[first]
    return first_child, next_child


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
