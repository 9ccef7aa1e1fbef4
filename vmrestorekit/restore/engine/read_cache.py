"""The slots of a media agent's read cache: rule 5 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import note
from vmrestorekit.restore.engine.state import ABSENT, EVICT, NONE, ONE, PRESENT, block_at, copy_at, machine_at
from vmrestorekit.restore.policies import (
    FOR_ALL,
    FOR_DEMAND,
    FOR_NOTHING,
    evict,
    evictable,
    on_insert,
    set_hold,
)
from vmrestorekit.restore.records import compiled


@compiled
def content_of(w, v, block):
    """Return the content of a machine's block."""
    return np.int64(block_at(w, v.first_block + block).content)


@compiled
def copy_of(w, a, content):
    """Return what an agent knows of a content."""
    return copy_at(w, a.first_copy + content)


@compiled
def update_hold(c, k, content):
    """Tell the policy what a content may be evicted for now."""
    if k.pins > 0:
        set_hold(c, content, FOR_NOTHING)
    elif k.served:
        set_hold(c, content, FOR_ALL)
    else:
        set_hold(c, content, FOR_DEMAND)


@compiled
def enter_cache(w, c, k, content):
    """A content's fetch completed: its slot now holds it."""
    k.place = PRESENT
    k.served = 0
    k.purged = 0
    update_hold(c, k, content)
    on_insert(c, content)


@compiled
def is_no_longer_ahead(w, k):
    """Let the relocation cursor go on by a block: this one was sent to somebody, or is gone."""
    v = machine_at(w, k.vm)
    b = block_at(w, v.first_block + k.block)
    v.staged_ahead -= b.ahead
    b.ahead = 0


@compiled
def free_slot(w, a, k):
    """Forget a content that a slot was for."""
    k.place = ABSENT
    k.wasted = 0
    is_no_longer_ahead(w, k)
    a.used -= 1


@compiled
def evict_first(w, v, a, c, incoming, level, reason):
    """Evict what the policy chooses; the caller knows that there is something."""
    content = evict(c, incoming, level)
    k = copy_of(w, a, content)
    owner = machine_at(w, k.vm)
    owner.evicted += 1
    note(w, owner, EVICT, np.int64(k.block), ONE, NONE, np.int64(1 - k.served), reason)
    free_slot(w, a, k)


@compiled
def free_slots(a):
    """Return how many slots are free."""
    return a.slots - a.used


@compiled
def stager_slots(a, c):
    """Return how many slots a stager could have now."""
    return free_slots(a) + evictable(c, FOR_ALL)


@compiled
def take_slots(w, v, a, c, count, incoming, level, reason):
    """Take slots, evicting at that level as many as are missing; the caller knows that they can be had."""
    while free_slots(a) < count:
        evict_first(w, v, a, c, incoming, level, reason)
    a.used += count
    a.peak = max(a.peak, a.used)
