"""Runs inferred from reads, and purging: rule 8 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import make_due, make_mode_due, note
from vmrestorekit.restore.engine.read_cache import copy_of, free_slot
from vmrestorekit.restore.engine.state import (
    ABSENT,
    DUE_PURGE,
    INFER_RUN,
    MODE_PURGE_PERIOD,
    NONE,
    ONE,
    OPEN_RUNS,
    PRESENT,
    PURGE,
    TRIGGER_PERIOD,
    TRIGGER_RUN,
    ZERO,
    agent_at,
    block_at,
    cache_at,
    in_sequence,
    machine_at,
    run_at,
)
from vmrestorekit.restore.policies import on_remove
from vmrestorekit.restore.records import compiled


@compiled
def see(w, v, position):
    """Look at a read at a position of the sequence; return the open run that it extends or begins."""
    v.run_order += 1
    found = NONE
    least_recent = v.first_run
    for i in range(v.first_run, v.first_run + OPEN_RUNS):
        run = run_at(w, i)
        if run.length > 0 and run.expected == position:
            if found == NONE or run.extended > run_at(w, found).extended:
                found = np.int64(i)
        if run.extended < run_at(w, least_recent).extended:
            least_recent = np.int64(i)
    if found == NONE:
        found = least_recent
        run = run_at(w, found)
        run.start = position
        run.length = 0
        run.noted = 0
    run = run_at(w, found)
    run.length += 1
    run.expected = position + 1
    run.extended = v.run_order
    return found


@compiled
def completes_run(v, run):
    """Tell whether the last read made an open run long enough to be the relocation's."""
    return run.length == v.run_length


@compiled
def track(w, v, position, event):
    """Look at a read at a position of the relocation sequence, and mark what belongs to a run."""
    run = run_at(w, see(w, v, position))
    if v.purge_by_run and completes_run(v, run):
        infer(w, v, run, TRIGGER_RUN, event)
        mark_run(w, v, run, TRIGGER_RUN)
    elif run.noted > 0:
        mark(w, v, block_in_sequence(w, v, position), run.noted - 1, run.event)


@compiled
def count_inferred(w, v, position):
    """Look at a read, without a simulation around it; return how many blocks it shows to be of a run."""
    run = run_at(w, see(w, v, position))
    if completes_run(v, run):
        run.noted = TRIGGER_RUN + 1
        return run.length
    return ONE if run.noted > 0 else ZERO


@compiled
def block_in_sequence(w, v, position):
    """Return the block at a position of the relocation sequence."""
    return np.int64(in_sequence(w, v.first_of_sequence + position).block)


@compiled
def infer(w, v, run, trigger, event):
    """Note that a run was inferred."""
    run.noted = trigger + 1
    run.event = note(w, v, INFER_RUN, block_in_sequence(w, v, run.start), run.length, NONE, ZERO, event)


@compiled
def mark_run(w, v, run, trigger):
    """Mark all blocks of a run."""
    for position in range(run.start, run.expected):
        mark(w, v, block_in_sequence(w, v, position), trigger, run.event)


@compiled
def mark_runs_of_period(w, v):
    """Look at the open runs of at least two reads, in the order of their last extension; then again later."""
    if not v.relocating or v.stranded:
        return
    looked_at = ZERO
    while True:
        found = NONE
        for i in range(v.first_run, v.first_run + OPEN_RUNS):
            run = run_at(w, i)
            is_open = run.length >= 2 and run.extended > looked_at
            if is_open and (found == NONE or run.extended < run_at(w, found).extended):
                found = np.int64(i)
        if found == NONE:
            break
        run = run_at(w, found)
        looked_at = run.extended
        if run.noted == 0:
            infer(w, v, run, TRIGGER_PERIOD, v.relocation_event)
        mark_run(w, v, run, TRIGGER_PERIOD)
    make_mode_due(w, v, w.now + v.purge_period_ns, MODE_PURGE_PERIOD)


@compiled
def mark(w, v, block, trigger, event):
    """Mark a block for purging if the media agent has its content or is about to."""
    if v.agent == NONE:
        return
    b = block_at(w, v.first_block + block)
    k = copy_of(w, agent_at(w, v.agent), np.int64(b.content))
    if k.place == ABSENT or b.marked:
        return
    b.marked = 1
    k.users -= 1
    k.trigger = trigger
    k.marked_by = event
    make_purge_due(w, v.agent, k, np.int64(b.content))


@compiled
def may_be_purged(k):
    """Tell whether a content is marked by all who have it, was served, and is awaited by nobody."""
    return k.place == PRESENT and k.users == 0 and k.trigger != NONE and k.pins == 0 and k.served


@compiled
def make_purge_due(w, agent, k, content):
    """Let a content go in this instant if it may be purged."""
    if may_be_purged(k) and not k.purge_due:
        k.purge_due = 1
        make_due(w, w.now, DUE_PURGE, np.int64(k.vm), ZERO, np.int64(k.block), agent, content)


@compiled
def purge(w, agent, content):
    """Drop a marked content from the read cache."""
    a = agent_at(w, agent)
    k = copy_of(w, a, content)
    k.purge_due = 0
    if may_be_purged(k):
        owner = machine_at(w, k.vm)
        owner.purged += 1
        event = np.int64(k.marked_by)
        note(w, owner, PURGE, np.int64(k.block), ONE, NONE, np.int64(k.trigger), event)
        on_remove(cache_at(w, agent), content)
        free_slot(w, a, k)
        k.purged = 1
