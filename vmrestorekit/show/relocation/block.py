"""What became of one block in a restore: staged, served, relocated, purged, written, fetched again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmrestorekit.restore.events import CAUSES, KINDS, PURGE_TRIGGERS, READERS
from vmrestorekit.restore.timeline import Timeline

__all__ = ["block_history", "interest"]

IntArray = npt.NDArray[np.int64]

# kind -> what is said of it; {} is what its detail means
_TOLD = {
    "vm_read": "the VM reads it",
    "cache_miss": "not in the read cache: {} has to wait",
    "cache_wait": "on its way already: {} waits for it",
    "refetch_after_purge": "was purged, and is fetched again",
    "staged": "arrives in the read cache: {}",
    "read_from_media": "arrives, past the read cache",
    "serve": "served to {}",
    "evict": "evicted from the read cache{}",
    "purge": "purged: {}",
    "relocated": "is on the destination now",
    "read_destination": "read from the destination",
    "read_write_cache": "read from the write cache",
    "written": "written: in the {}",
    "applied": "what was written is applied",
}
_CAUSES = (
    "the VM asked",
    "the relocation asked",
    "first set",
    "ahead for the relocation",
    "for the relocation",
)
_READERS = ("the VM", "the relocation")
_TRIGGERS = ("run of reads", "indicated as relocated", "run found by period")
_DETAIL = {
    "cache_miss": _READERS,
    "cache_wait": _READERS,
    "serve": _READERS,
    "staged": _CAUSES,
    "purge": _TRIGGERS,
    "evict": ("", ", never served"),
    "written": ("write cache", "destination"),
}
assert len(_CAUSES) == len(CAUSES)
assert len(_READERS) == len(READERS)
assert len(_TRIGGERS) == len(PURGE_TRIGGERS)


def block_history(timeline: Timeline, block: int) -> list[tuple[int, str]]:
    """Return what happened to a block: row of the event, and what it says, in the order of time."""
    first = timeline.events["block"].to_numpy()
    touched = (first <= block) & (block < first + timeline.events["count"].to_numpy())
    rows = np.flatnonzero(touched & timeline.are_of_kind(*_TOLD))
    details = timeline.events["detail"].to_numpy()
    told = []
    for row in rows.tolist():
        kind = KINDS[timeline.kinds[row]]
        meaning = _DETAIL[kind][int(details[row])] if kind in _DETAIL else ""
        told.append((row, _TOLD[kind].format(meaning)))
    return told


def interest(timeline: Timeline) -> IntArray:
    """Return how much there is to see about each block: the VM's reads, and above all fetches after a purge.

    Returns
    -------
    ndarray of int64, shape (blocks,)
    """
    weights = {"vm_read": 1, "written": 1, "evict": 20, "refetch_after_purge": 1000}
    changes = np.zeros(timeline.plan.blocks + 1, np.int64)
    first, count = (timeline.events[name].to_numpy() for name in ("block", "count"))
    for kind, weight in weights.items():
        rows = timeline.are_of_kind(kind)
        np.add.at(changes, first[rows], weight)
        np.add.at(changes, first[rows] + count[rows], -weight)
    total: IntArray = np.cumsum(changes[:-1]) + timeline.stored
    return total
