"""The 4 KiB units of a disk, and from where their bytes are read: rule 3 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.state import (
    UNIT_APPLIED,
    UNIT_BEING_APPLIED,
    UNIT_BYTES,
    UNIT_SHIFT,
    UNIT_UNTOUCHED,
    UNIT_WRITTEN,
    UNIT_ZEROED,
    ZERO,
    block_at,
    unit_at,
)
from vmrestorekit.restore.records import compiled


@compiled
def set_unit(w, v, unit, state):
    """Change a unit, keeping count of those that wait to be applied."""
    u = unit_at(w, v.first_unit + unit)
    was_pending = u.state == UNIT_WRITTEN or u.state == UNIT_ZEROED
    is_pending = state == UNIT_WRITTEN or state == UNIT_ZEROED
    v.pending_units += np.int64(is_pending) - np.int64(was_pending)
    u.state = state
    block_at(w, v.first_block + (unit >> (w.block_shift - UNIT_SHIFT))).touched = 1


@compiled
def state_of(w, v, unit):
    """Return what the write cache and the destination hold of a unit."""
    return np.int64(unit_at(w, v.first_unit + unit).state)


@compiled
def is_in_write_cache(w, v, unit):
    """Tell whether the write cache serves a unit."""
    state = state_of(w, v, unit)
    return state == UNIT_WRITTEN or state == UNIT_BEING_APPLIED


@compiled
def tally(w, v, start, end):
    """Return how many bytes of a range are served by the write cache and by the destination."""
    from_write_cache = ZERO
    from_destination = ZERO
    for unit in range(start >> UNIT_SHIFT, (end + UNIT_BYTES - 1) >> UNIT_SHIFT):
        size = min(end, (unit + 1) << UNIT_SHIFT) - max(start, unit << UNIT_SHIFT)
        state = state_of(w, v, unit)
        if state == UNIT_WRITTEN or state == UNIT_BEING_APPLIED:
            from_write_cache += size
        elif state == UNIT_APPLIED:
            from_destination += size
        elif state == UNIT_UNTOUCHED:
            if block_at(w, v.first_block + (unit >> (w.block_shift - UNIT_SHIFT))).relocated:
                from_destination += size
    return from_write_cache, from_destination


@compiled
def source_bytes(w, v, block, start, end):
    """Return how many bytes of a range the logical source serves from one block."""
    b = block_at(w, v.first_block + block)
    if b.relocated or not b.stored:
        return ZERO
    start = max(start, block << w.block_shift)
    end = min(end, (block + 1) << w.block_shift)
    if start >= end:
        return ZERO
    if not b.touched:
        return end - start
    total = ZERO
    for unit in range(start >> UNIT_SHIFT, (end + UNIT_BYTES - 1) >> UNIT_SHIFT):
        if state_of(w, v, unit) == UNIT_UNTOUCHED:
            total += min(end, (unit + 1) << UNIT_SHIFT) - max(start, unit << UNIT_SHIFT)
    return total
