"""The media agent serves the parts of a read: rule 4 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import note, transmit
from vmrestorekit.restore.engine.fetches import enqueue, lies_behind
from vmrestorekit.restore.engine.read_cache import copy_of, update_hold
from vmrestorekit.restore.engine.state import (
    ABSENT,
    CACHE_HIT,
    CACHE_MISS,
    CACHE_WAIT,
    CAUSE_RELOCATION_READ,
    CAUSE_VM_READ,
    CHECKS_IN_WINDOW,
    NONE,
    ONE,
    PARKED,
    PRESENT,
    QUEUED,
    READER_RELOCATION,
    READER_VM,
    REFETCH_AFTER_PURGE,
    WAITING,
    agent_at,
    block_at,
    cache_at,
    part_at,
)
from vmrestorekit.restore.engine.tracking import track
from vmrestorekit.restore.policies import on_hit, on_miss
from vmrestorekit.restore.records import compiled


@compiled
def is_of_vm(v, number):
    """Tell whether a request is one of the virtual machine, or of its relocation."""
    return number <= v.rows


@compiled
def reader_of(v, number):
    """Return who asks, as the events have it."""
    return READER_VM if is_of_vm(v, number) else READER_RELOCATION


@compiled
def new_part(w, v, number, slot, block, size, event):
    """Take a part's record."""
    part = w.free_part
    p = part_at(w, part)
    w.free_part = p.next
    p.bytes = size
    p.number = number
    p.slot = slot
    p.vm = v.number
    p.block = block
    p.agent = NONE
    p.state = PARKED
    p.order = w.arrivals
    p.asked = event
    p.event = event
    p.next = NONE
    w.arrivals += 1
    return part


@compiled
def release_part(w, part):
    """Give a part's record back."""
    p = part_at(w, part)
    p.agent = NONE
    p.next = w.free_part
    w.free_part = part


@compiled
def park(w, v, part):
    """Let a part wait for a media agent, in the order of arrival."""
    p = part_at(w, part)
    p.agent = NONE
    p.state = PARKED
    before = NONE
    following = v.first_parked
    while following != NONE and part_at(w, following).order < p.order:
        before = following
        following = part_at(w, following).next
    p.next = following
    if before == NONE:
        v.first_parked = part
    else:
        part_at(w, before).next = part


@compiled
def ask(w, v, number, slot, block, size, event):
    """Let a reader's need of a block arrive at the media agent."""
    part = new_part(w, v, number, slot, block, size, event)
    if is_of_vm(v, number):
        v.parts += 1
        if v.load_check_ns > 0:
            v.demand[((w.now - v.launched_ns) // v.load_check_ns) % CHECKS_IN_WINDOW] += size
    if v.agent == NONE:
        park(w, v, part)
    else:
        arrive(w, v, part)


@compiled
def arrive(w, v, part):
    """Look for a part's block: in the cache, on its way, or on the backup device."""
    p = part_at(w, part)
    a = agent_at(w, v.agent)
    c = cache_at(w, v.agent)
    b = block_at(w, v.first_block + p.block)
    content = np.int64(b.content)
    k = copy_of(w, a, content)
    p.agent = v.agent
    k.pins += 1
    is_missing = k.place == ABSENT
    if k.place == PRESENT:
        p.event = note_access(w, v, CACHE_HIT, p.block, p.number, p.asked)
        update_hold(c, k, content)
        on_hit(c, content)
        transmit(w, a, part, p.event)
    else:
        kind = CACHE_MISS if is_missing else CACHE_WAIT
        p.event = note_access(w, v, kind, p.block, p.number, p.asked)
        wait_for(w, k, part)
        if is_missing:
            miss(w, v, c, k, content, part)
    if v.relocating and (v.purge_by_run or v.purge_by_period):
        track(w, v, np.int64(b.position), p.event)


@compiled
def note_access(w, v, kind, block, number, cause):
    """Note how a block was found, and count it for the virtual machine."""
    if is_of_vm(v, number):
        v.hits += kind == CACHE_HIT
        v.waits += kind == CACHE_WAIT
        v.misses += kind == CACHE_MISS
    return note(w, v, kind, block, ONE, number, reader_of(v, number), cause)


@compiled
def wait_for(w, k, part):
    """Let a part wait until a content has come."""
    p = part_at(w, part)
    p.state = WAITING
    p.next = NONE
    if k.first_waiter == NONE:
        k.first_waiter = part
    else:
        part_at(w, k.last_waiter).next = part
    k.last_waiter = part


@compiled
def miss(w, v, c, k, content, part):
    """A content has to be fetched: in one fetch with the missing neighbours of the same request."""
    p = part_at(w, part)
    if k.purged and is_of_vm(v, p.number):
        v.refetches += 1
        note(w, v, REFETCH_AFTER_PURGE, p.block, ONE, p.number, READER_VM, p.event)
    if not v.straight:
        on_miss(c, content)
    k.place = QUEUED
    joins = (
        v.gathered > 0
        and v.gathered < v.fetch_blocks
        and p.number == v.gathered_number
        and p.order == v.gathered_order + 1
        and p.block == v.gathered_first + v.gathered
        and lies_behind(w, v, p.block)
    )
    if not joins:
        end_gathering(w, v)
        v.gathered_first = p.block
        v.gathered_number = p.number
        v.gathered_event = p.event
    v.gathered += 1
    v.gathered_order = p.order


@compiled
def end_gathering(w, v):
    """Let the missing blocks that were gathered join the queue as one fetch."""
    if v.gathered > 0:
        cause = CAUSE_VM_READ if is_of_vm(v, v.gathered_number) else CAUSE_RELOCATION_READ
        enqueue(w, v, v.gathered_first, v.gathered, v.gathered_number, cause, v.gathered_event)
        v.gathered = 0
