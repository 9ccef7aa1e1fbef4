"""The cursors along which blocks are staged, and how far they may go: rule 6 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.fetches import (
    enqueue,
    hold_for,
    lies_behind,
    may_be_staged,
    pop_queue,
    release_fetch,
)
from vmrestorekit.restore.engine.read_cache import content_of, copy_of, is_no_longer_ahead, stager_slots
from vmrestorekit.restore.engine.state import (
    ABSENT,
    CAUSE_FIRST_SET,
    CAUSE_PRE_RELOCATION,
    CAUSE_RELOCATION_STAGING,
    NONE,
    ONE,
    PRIORITIES_AS_CLAIMED,
    PRIORITIES_EQUAL,
    QUEUED,
    agent_at,
    block_at,
    cache_at,
    fetch_at,
    in_first_set,
    in_sequence,
    machine_at,
)
from vmrestorekit.restore.records import compiled


@compiled
def next_of_first_set(w, v):
    """Return the next block of the first set, or NONE; the cursor moves behind it."""
    a = agent_at(w, v.agent)
    while v.first_set_cursor < v.first_set:
        block = np.int64(in_first_set(w, v.first_of_first_set + v.first_set_cursor).block)
        v.first_set_cursor += 1
        if may_be_staged(w, v, a, block):
            return block
    return NONE


@compiled
def next_of_relocation(w, v):
    """Return the next block of the relocation sequence, or NONE; the cursor moves behind it."""
    a = agent_at(w, v.agent)
    if v.staged_ahead >= v.stage_ahead_blocks:
        return NONE
    while v.relocation_cursor < v.sequence:
        block = np.int64(in_sequence(w, v.first_of_sequence + v.relocation_cursor).block)
        v.relocation_cursor += 1
        if may_be_staged(w, v, a, block):
            return block
    return NONE


@compiled
def relocation_cause(v):
    """Return what the relocation's cursor stages for."""
    return CAUSE_RELOCATION_STAGING if v.relocating else CAUSE_PRE_RELOCATION


@compiled
def next_of_low_relocation(w, v, a):
    """Return the next block that the relocation's cursor gives at low priority, or NONE."""
    may_give = v.pre_relocation == 1
    if v.relocating:
        may_give = a.priorities != PRIORITIES_AS_CLAIMED
    return next_of_relocation(w, v) if may_give else NONE


@compiled
def next_of_either(w, v, a):
    """Return the next block that a machine's cursors give, first set first, or NONE, and what it is for."""
    block = next_of_first_set(w, v)
    if block != NONE:
        return block, CAUSE_FIRST_SET
    return next_of_low_relocation(w, v, a), relocation_cause(v)


@compiled
def is_next(w, v, block, cause):
    """Tell whether a cursor stands at a block."""
    if cause == CAUSE_FIRST_SET:
        at = v.first_set_cursor
        return at < v.first_set and in_first_set(w, v.first_of_first_set + at).block == block
    at = v.relocation_cursor
    return at < v.sequence and in_sequence(w, v.first_of_sequence + at).block == block


@compiled
def take_neighbours(w, v, block, cause):
    """Let the cursor that gave a block give its neighbours too; return how many blocks that makes."""
    a = agent_at(w, v.agent)
    of_first_set = cause == CAUSE_FIRST_SET
    most = min(v.stage_fetch_blocks, stager_slots(a, cache_at(w, v.agent)))
    if not of_first_set:
        most = min(most, v.stage_ahead_blocks - v.staged_ahead)
    hold_for(w, v, a, NONE, block, QUEUED)
    count = ONE
    while count < most:
        following = block + count
        if not is_next(w, v, following, cause):
            break
        if not (lies_behind(w, v, following) and may_be_staged(w, v, a, following)):
            break
        hold_for(w, v, a, NONE, following, QUEUED)
        if of_first_set:
            v.first_set_cursor += 1
        else:
            v.relocation_cursor += 1
        count += 1
    if not of_first_set:
        for ahead in range(block, block + count):
            block_at(w, v.first_block + ahead).ahead = 1
        v.staged_ahead += count
    return count


@compiled
def reason_of(v, cause):
    """Return the message that staging follows."""
    if cause == CAUSE_FIRST_SET:
        return v.first_set_event
    return v.relocation_event if cause == CAUSE_RELOCATION_STAGING else v.pre_relocation_event


@compiled
def refill_machine(w, v, a, c):
    """Keep a machine's staging in the queue of demand, as far as the priorities want it there."""
    while v.staging_fetches < v.stage_depth and stager_slots(a, c) > 0:
        if a.priorities == PRIORITIES_EQUAL:
            if v.relocation_finished or v.expired:
                break
            block, cause = next_of_either(w, v, a)
        elif a.priorities == PRIORITIES_AS_CLAIMED and v.relocating:
            block, cause = next_of_relocation(w, v), CAUSE_RELOCATION_STAGING
        else:
            break
        if block == NONE:
            break
        count = take_neighbours(w, v, block, cause)
        enqueue(w, v, block, count, NONE, cause, reason_of(v, cause))


@compiled
def refill(w, device):
    """Let the machines of a device's agents refill their queues, agent after agent."""
    for agent in range(w.agents_n):
        a = agent_at(w, agent)
        if a.device == device and (a.priorities == PRIORITIES_AS_CLAIMED or a.priorities == PRIORITIES_EQUAL):
            for vm in range(w.machines_n):
                v = machine_at(w, vm)
                if v.agent == agent:
                    refill_machine(w, v, a, cache_at(w, agent))


@compiled
def take_back(w, a, queue):
    """A staging fetch found no slots: its blocks are absent again, and the cursor returns to the first."""
    fetch = a.queue_head[queue]
    f = fetch_at(w, fetch)
    v = machine_at(w, f.vm)
    pop_queue(w, a, queue)
    for block in range(f.block, f.block + f.count):
        k = copy_of(w, a, content_of(w, v, block))
        k.place = ABSENT
        is_no_longer_ahead(w, k)
    if f.cause == CAUSE_FIRST_SET:
        v.first_set_cursor = min(v.first_set_cursor, f.position)
    else:
        position = np.int64(block_at(w, v.first_block + f.block).position)
        v.relocation_cursor = min(v.relocation_cursor, position)
    release_fetch(w, fetch)
