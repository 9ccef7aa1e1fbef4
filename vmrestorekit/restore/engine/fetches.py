"""Fetches from the backup device, from joining a queue to what they bring: rules 5 and 6 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import make_due, make_launch_due, note, transfer_ns, transmit
from vmrestorekit.restore.engine.read_cache import (
    content_of,
    copy_of,
    enter_cache,
    free_slot,
    stager_slots,
    take_slots,
    update_hold,
)
from vmrestorekit.restore.engine.state import (
    ABSENT,
    CAUSE_FIRST_SET,
    CAUSE_RELOCATION_READ,
    CAUSE_RELOCATION_STAGING,
    DUE_FETCH,
    FETCH,
    IN_FLIGHT,
    LAUNCH_BY_SHARE,
    NONE,
    ONE,
    PRIORITIES_AS_CLAIMED,
    PRIORITIES_EQUAL,
    PRIORITIES_WEIGHTED,
    QUEUED,
    READ_FROM_MEDIA,
    STAGED,
    STAGING_NUMBER,
    ZERO,
    agent_at,
    block_at,
    cache_at,
    channel_at,
    chunk_at,
    device_at,
    fetch_at,
    in_first_set,
    machine_at,
    part_at,
    wanted_at,
)
from vmrestorekit.restore.policies import FOR_ALL
from vmrestorekit.restore.records import compiled


@compiled
def counts_as_queued(a, cause):
    """Tell whether a fetch is staging that goes through the queue of demand."""
    if a.priorities == PRIORITIES_EQUAL:
        return cause >= CAUSE_FIRST_SET
    return a.priorities == PRIORITIES_AS_CLAIMED and cause == CAUSE_RELOCATION_STAGING


@compiled
def hold_for(w, v, a, fetch, block, place):
    """Tie a block's content to a fetch."""
    k = copy_of(w, a, content_of(w, v, block))
    k.place = place
    k.fetch = fetch
    k.vm = v.number
    k.block = block


@compiled
def new_fetch(w, v, block, count, number, cause, reason):
    """Take a fetch record and tie the blocks to it."""
    a = agent_at(w, v.agent)
    fetch = w.free_fetch
    f = fetch_at(w, fetch)
    w.free_fetch = f.next
    f.vm = v.number
    f.agent = v.agent
    f.block = block
    f.count = count
    f.first = block
    f.last = block + count - 1
    f.number = number
    f.cause = cause
    f.reason = reason
    f.next = NONE
    f.channel = NONE
    f.lost = 0
    f.in_flight = 0
    f.goes_on = 0
    f.straight = np.int64(v.straight and cause <= CAUSE_RELOCATION_READ)
    f.position = v.first_set_cursor - count
    for i in range(block, block + count):
        hold_for(w, v, a, fetch, i, QUEUED)
    v.staging_fetches += counts_as_queued(a, cause)
    return fetch


@compiled
def release_fetch(w, fetch):
    """Give a fetch record back."""
    f = fetch_at(w, fetch)
    machine_at(w, f.vm).staging_fetches -= counts_as_queued(agent_at(w, f.agent), f.cause)
    forget_fetch(w, fetch)


@compiled
def forget_fetch(w, fetch):
    """Give back the record of a fetch that is not counted any more."""
    f = fetch_at(w, fetch)
    f.in_flight = 0
    f.next = w.free_fetch
    w.free_fetch = fetch


@compiled
def queue_of(a, cause):
    """Return the number of the agent's queue for a fetch."""
    return ONE if a.priorities == PRIORITIES_WEIGHTED and cause == CAUSE_RELOCATION_READ else ZERO


@compiled
def enqueue(w, v, block, count, number, cause, reason):
    """Append a fetch to its queue."""
    a = agent_at(w, v.agent)
    fetch = new_fetch(w, v, block, count, number, cause, reason)
    queue = queue_of(a, cause)
    fetch_at(w, fetch).order = w.joined
    w.joined += 1
    if a.queue_head[queue] == NONE:
        a.queue_head[queue] = fetch
    else:
        fetch_at(w, a.queue_tail[queue]).next = fetch
    a.queue_tail[queue] = fetch


@compiled
def pop_queue(w, a, queue):
    """Take the head off a queue."""
    a.queue_head[queue] = fetch_at(w, a.queue_head[queue]).next
    if a.queue_head[queue] == NONE:
        a.queue_tail[queue] = NONE


@compiled
def choose_channel(w, d, address):
    """Return the lowest idle channel that stands at the address, else the lowest idle one."""
    lowest_idle = NONE
    for i in range(d.first_channel, d.first_channel + d.channels):
        channel = channel_at(w, i)
        if not channel.busy:
            if channel.used and channel.end == address:
                return i
            if lowest_idle == NONE:
                lowest_idle = i
    return lowest_idle


@compiled
def positioning(d, channel, address):
    """Return what it takes until a channel can read at an address."""
    if channel.used and channel.end == address:
        return ZERO
    # in two parts: the product with the whole distance would overflow beyond a terabyte
    distance = abs(address - channel.end)
    cost = d.positioning_ns + (distance >> 30) * d.distance_ns_per_gib
    cost += ((distance & ((1 << 30) - 1)) * d.distance_ns_per_gib) >> 30
    return cost if channel.used else cost + d.mount_ns


@compiled
def lies_behind(w, v, block):
    """Tell whether a block follows the one before it on the medium."""
    before = block_at(w, v.first_block + block - 1)
    return block_at(w, v.first_block + block).address == before.address + (ONE << w.block_shift)


@compiled
def may_be_staged(w, v, a, block):
    """Tell whether a stager would fetch the block."""
    b = block_at(w, v.first_block + block)
    return (
        b.stored and not b.relocated and not b.marked and copy_of(w, a, np.int64(b.content)).place == ABSENT
    )


@compiled
def widen(w, v, fetch):
    """Let a fetch bring whole chunks; what a stager could bring comes along, as far as there are slots."""
    f = fetch_at(w, fetch)
    a = agent_at(w, f.agent)
    c = cache_at(w, f.agent)
    first_chunk = chunk_at(w, block_at(w, v.first_block + f.block).chunk)
    last_chunk = chunk_at(w, block_at(w, v.first_block + f.block + f.count - 1).chunk)
    f.first = np.int64(min(first_chunk.first, last_chunk.first))
    f.last = np.int64(max(first_chunk.last, last_chunk.last))
    if f.straight:
        return
    for block in range(f.first, f.last + 1):
        if stager_slots(a, c) == 0:
            return
        address = block_at(w, v.first_block + block).address
        if address >= first_chunk.address and address < last_chunk.end and may_be_staged(w, v, a, block):
            take_slots(w, v, a, c, ONE, content_of(w, v, f.block), FOR_ALL, f.reason)
            hold_for(w, v, a, fetch, block, IN_FLIGHT)


@compiled
def start_fetch(w, v, fetch):
    """Start a fetch that has its slots on an idle channel."""
    f = fetch_at(w, fetch)
    a = agent_at(w, f.agent)
    d = device_at(w, a.device)
    for block in range(f.block, f.block + f.count):
        copy_of(w, a, content_of(w, v, block)).place = IN_FLIGHT
    first = block_at(w, v.first_block + f.block)
    last = block_at(w, v.first_block + f.block + f.count - 1)
    address = first.address
    end = last.address + (ONE << w.block_shift)
    if v.whole_chunks:
        widen(w, v, fetch)
        address = chunk_at(w, first.chunk).address
        end = chunk_at(w, last.chunk).end
    f.channel = choose_channel(w, d, address)
    channel = channel_at(w, f.channel)
    cost = positioning(d, channel, address) + transfer_ns(end - address, d.bandwidth)
    channel.used = 1
    channel.busy = 1
    channel.end = end
    d.idle_channels -= 1
    f.in_flight = 1
    v.in_flight += 1
    f.bytes = end - address
    v.fetches += 1
    v.fetched_bytes += f.bytes
    f.event = note(w, v, FETCH, f.first, f.last - f.first + 1, f.number, f.cause, f.reason)
    number = STAGING_NUMBER if f.number == NONE else f.number
    make_due(w, w.now + cost, DUE_FETCH, f.vm, number, f.block, ZERO, fetch)


@compiled
def serve_waiters(w, a, k, event):
    """Hand the parts that wait for a content to the link."""
    part = np.int64(k.first_waiter)
    k.first_waiter = NONE
    k.last_waiter = NONE
    while part != NONE:
        following = part_at(w, part).next
        transmit(w, a, part, event)
        part = following


@compiled
def comes_with(w, v, a, fetch, block):
    """Tell whether a fetch brings a block to those who want it."""
    k = copy_of(w, a, content_of(w, v, block))
    if k.fetch != fetch or k.place != IN_FLIGHT or k.vm != v.number or k.block != block:
        return False
    return not v.expired or k.first_waiter != NONE


@compiled
def count_as_staged(w, v, b, event):
    """Count a block of the first set, once; the launch may have waited for it."""
    if b.in_first_set:
        b.in_first_set = 0
        v.first_set_staged += 1
        if v.launch_rule == LAUNCH_BY_SHARE and v.first_set_staged >= v.staged_to_launch:
            make_launch_due(w, v, event)


@compiled
def count_for_first_sets(w, agent, content, event):
    """Count a content that has come in the first sets of all machines of the agent."""
    at = NONE
    if w.first_set_n > 0:
        at = np.int64(wanted_at(w, content).first)
    while at != NONE:
        wanted = in_first_set(w, at)
        v = machine_at(w, wanted.vm)
        if v.agent == agent:
            count_as_staged(w, v, block_at(w, v.first_block + wanted.block), event)
        at = np.int64(wanted.next)


@compiled
def bring(w, v, fetch, block):
    """A block has come: into the cache, or past it, and to those who wait for it."""
    f = fetch_at(w, fetch)
    a = agent_at(w, f.agent)
    c = cache_at(w, f.agent)
    content = content_of(w, v, block)
    k = copy_of(w, a, content)
    if f.straight:
        k.place = ABSENT
    else:
        enter_cache(w, c, k, content)
        count_for_first_sets(w, f.agent, content, f.event)
        if f.cause >= CAUSE_FIRST_SET:
            k.wasted = 1
            v.staged += 1
            v.wasted += 1
            block_at(w, v.first_block + block).staged_first |= f.cause == CAUSE_FIRST_SET
    serve_waiters(w, a, k, f.event)
    update_hold(c, k, content)


@compiled
def drop(w, v, fetch, block):
    """A block has come, and nobody wants it any more."""
    f = fetch_at(w, fetch)
    a = agent_at(w, f.agent)
    k = copy_of(w, a, content_of(w, v, block))
    if k.fetch == fetch and k.place == IN_FLIGHT and k.vm == v.number and k.block == block:
        if f.straight:
            k.place = ABSENT
        else:
            free_slot(w, a, k)


@compiled
def complete_fetch(w, v, fetch):
    """Put what came into the cache, and send it to those who wait for it."""
    f = fetch_at(w, fetch)
    a = agent_at(w, f.agent)
    d = device_at(w, a.device)
    channel_at(w, f.channel).busy = 0
    d.idle_channels += 1
    if f.lost:
        forget_fetch(w, fetch)
        return
    v.in_flight -= 1
    started = f.event
    block = f.first
    while block <= f.last:
        end = block
        while end <= f.last and comes_with(w, v, a, fetch, end):
            end += 1
        if end == block:
            drop(w, v, fetch, block)
            block += 1
            continue
        kind = READ_FROM_MEDIA if f.straight else STAGED
        f.event = note(w, v, kind, block, end - block, f.number, f.cause, started)
        while block < end:
            bring(w, v, fetch, block)
            block += 1
    release_fetch(w, fetch)
