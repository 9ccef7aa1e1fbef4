"""The end of a restore: the writes are applied, and the backup copy lets go (rule 9 of the clockwork)."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import (
    announce,
    announce_count,
    make_launch_due,
    note,
    use_destination_volume,
    use_write_cache,
)
from vmrestorekit.restore.engine.read_cache import copy_of, free_slot
from vmrestorekit.restore.engine.state import (
    APPLIED,
    APPLY_WRITES,
    DE_ASSOCIATE,
    DO_APPLY,
    EMPTY_READ_CACHE,
    FINISH_RELOCATION,
    INDICATE_RELOCATION_COMPLETED,
    MODE_FULL_RESTORE,
    MODE_LOCAL,
    NONE,
    PRESENT,
    STAGING_NUMBER,
    UNIT_APPLIED,
    UNIT_BEING_APPLIED,
    UNIT_SHIFT,
    UNIT_WRITTEN,
    UNIT_ZEROED,
    UNMOUNT_FILE_SYSTEM,
    USE_DESTINATION,
    ZERO,
    agent_at,
    block_at,
    cache_at,
    unit_at,
)
from vmrestorekit.restore.engine.units import set_unit, state_of
from vmrestorekit.restore.policies import on_remove
from vmrestorekit.restore.records import compiled


@compiled
def finish_relocation(w, v):
    """Everything is on the destination but the writes."""
    v.relocating = 0
    v.relocation_finished = 1
    v.finished_ns = w.now
    announce(w, v, FINISH_RELOCATION, ZERO)
    announce(w, v, APPLY_WRITES, v.pending_units << UNIT_SHIFT)
    apply_next(w, v)


@compiled
def next_touched(w, v, unit):
    """Return the first unit from this one on whose block was touched, or the end of the disks."""
    shift = w.block_shift - UNIT_SHIFT
    block = unit >> shift
    if block >= v.blocks or block_at(w, v.first_block + block).touched:
        return unit
    while block < v.blocks and not block_at(w, v.first_block + block).touched:
        block += 1
    return block << shift


@compiled
def next_run_to_apply(w, v):
    """Begin to apply the next run of written units; False if nothing is pending."""
    while v.pending_units > 0:
        unit = v.apply_cursor
        while unit < v.units and state_of(w, v, unit) != UNIT_WRITTEN:
            if state_of(w, v, unit) == UNIT_ZEROED:
                set_unit(w, v, unit, UNIT_APPLIED)
            unit = next_touched(w, v, unit + 1)
        if unit == v.units:
            v.apply_cursor = 0
            continue
        v.applying_from = unit
        while (
            unit < v.units and state_of(w, v, unit) == UNIT_WRITTEN and unit - v.applying_from < v.apply_units
        ):
            set_unit(w, v, unit, UNIT_BEING_APPLIED)
            unit += 1
        v.applying_to = unit
        return True
    return False


@compiled
def apply_next(w, v):
    """Apply the next run of written units, or pivot if there is none."""
    v.applying = np.int64(next_run_to_apply(w, v))
    if v.applying:
        size = (v.applying_to - v.applying_from) << UNIT_SHIFT
        use_write_cache(w, v, size, STAGING_NUMBER, DO_APPLY, ZERO)
    elif v.writes_under_way == 0:
        pivot(w, v)


@compiled
def write_what_was_read(w, v):
    """A run of writes was read from the write cache: hand it to the destination."""
    size = (v.applying_to - v.applying_from) << UNIT_SHIFT
    use_destination_volume(w, v, size, STAGING_NUMBER, DO_APPLY, ZERO)


@compiled
def complete_apply(w, v):
    """A run of writes is on the destination, except for what was written again meanwhile."""
    shift = w.block_shift - UNIT_SHIFT
    for unit in range(v.applying_from, v.applying_to):
        u = unit_at(w, v.first_unit + unit)
        if u.state == UNIT_BEING_APPLIED:
            u.state = UNIT_APPLIED
    first = v.applying_from >> shift
    count = ((v.applying_to - 1) >> shift) - first + 1
    size = (v.applying_to - v.applying_from) << UNIT_SHIFT
    v.applied_bytes += size
    v.event = note(w, v, APPLIED, first, count, NONE, size, v.event)
    v.apply_cursor = v.applying_to
    apply_next(w, v)


@compiled
def pivot(w, v):
    """From now on the virtual machine uses the destination alone."""
    v.pivoted = 1
    announce(w, v, USE_DESTINATION, ZERO)
    event = v.event
    unmount_if_quiet(w, v)
    if v.mode == MODE_FULL_RESTORE:
        make_launch_due(w, v, event)


@compiled
def empty_read_cache(w, v):
    """Drop the contents of a machine that nobody else has a use for."""
    dropped = ZERO
    if v.agent != NONE:
        a = agent_at(w, v.agent)
        c = cache_at(w, v.agent)
        for block in range(v.first_block, v.first_block + v.blocks):
            b = block_at(w, block)
            if b.stored:
                k = copy_of(w, a, np.int64(b.content))
                k.users -= 1 - b.marked
                if k.users == 0 and k.place == PRESENT and k.pins == 0:
                    on_remove(c, np.int64(b.content))
                    free_slot(w, a, k)
                    dropped += 1
    announce_count(w, v, EMPTY_READ_CACHE, dropped)


@compiled
def de_associate(w, v):
    """End the machine's dealings with its media agent."""
    if v.agent != NONE:
        agent_at(w, v.agent).machines -= 1
        v.agent = NONE
    v.released_ns = w.now
    announce(w, v, DE_ASSOCIATE, ZERO)


@compiled
def unmount_if_quiet(w, v):
    """Once no read of the logical source is outstanding, the backup copy lets go."""
    if v.unmounted or v.parts > 0 or v.mode == MODE_LOCAL:
        return
    v.unmounted = 1
    announce(w, v, UNMOUNT_FILE_SYSTEM, ZERO)
    announce(w, v, INDICATE_RELOCATION_COMPLETED, ZERO)
    empty_read_cache(w, v)
    de_associate(w, v)
