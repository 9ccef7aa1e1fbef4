"""Dispatching the backup devices: rule 6 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import make_launch_due
from vmrestorekit.restore.engine.fetches import new_fetch, pop_queue, start_fetch
from vmrestorekit.restore.engine.read_cache import content_of, copy_of, free_slots, stager_slots, take_slots
from vmrestorekit.restore.engine.staging import (
    next_of_first_set,
    next_of_low_relocation,
    reason_of,
    refill,
    relocation_cause,
    take_back,
    take_neighbours,
)
from vmrestorekit.restore.engine.state import (
    CAUSE_FIRST_SET,
    CAUSE_RELOCATION_READ,
    CLASS_STAGING,
    LAUNCH_BY_SHARE,
    NONE,
    PRIORITIES_EQUAL,
    PRIORITIES_WEIGHTED,
    ZERO,
    agent_at,
    cache_at,
    device_at,
    fetch_at,
    machine_at,
)
from vmrestorekit.restore.policies import FOR_ALL, FOR_DEMAND, evictable
from vmrestorekit.restore.records import compiled


@compiled
def is_demanded(w, a, fetch):
    """Tell whether a reader waits for a fetch."""
    f = fetch_at(w, fetch)
    if f.cause <= CAUSE_RELOCATION_READ:
        return True
    v = machine_at(w, f.vm)
    for block in range(f.block, f.block + f.count):
        if copy_of(w, a, content_of(w, v, block)).first_waiter != NONE:
            return True
    return False


@compiled
def can_be_dealt_with(w, agent, fetch):
    """Tell whether the head of a queue can start or has to be taken back."""
    a = agent_at(w, agent)
    f = fetch_at(w, fetch)
    if f.straight or not is_demanded(w, a, fetch):
        return True
    return free_slots(a) + evictable(cache_at(w, agent), FOR_DEMAND) >= f.count


@compiled
def deal_with_head(w, agent, queue):
    """Start the head of a queue, or take it back; the caller knows that it can be dealt with."""
    a = agent_at(w, agent)
    c = cache_at(w, agent)
    fetch = a.queue_head[queue]
    f = fetch_at(w, fetch)
    v = machine_at(w, f.vm)
    level = FOR_DEMAND
    if not is_demanded(w, a, fetch):
        level = FOR_ALL
        if stager_slots(a, c) < f.count:
            take_back(w, a, queue)
            return
    pop_queue(w, a, queue)
    if not f.straight:
        take_slots(w, v, a, c, f.count, content_of(w, v, f.block), level, f.reason)
    start_fetch(w, v, fetch)


@compiled
def start_staging(w, v, block, cause):
    """Start the fetch of a block that a low-priority cursor gave; return its bytes."""
    count = take_neighbours(w, v, block, cause)
    fetch = new_fetch(w, v, block, count, NONE, cause, reason_of(v, cause))
    f = fetch_at(w, fetch)
    a = agent_at(w, v.agent)
    take_slots(w, v, a, cache_at(w, v.agent), count, content_of(w, v, block), FOR_ALL, f.reason)
    start_fetch(w, v, fetch)
    return f.bytes


@compiled
def may_stage_low(w, v, device, agent):
    """Tell whether a machine's low-priority cursors are asked."""
    if v.agent == NONE or v.relocation_finished or v.expired:
        return False
    a = agent_at(w, v.agent)
    if stager_slots(a, cache_at(w, v.agent)) == 0:
        return False
    if agent != NONE:
        return v.agent == agent
    return a.device == device and a.priorities != PRIORITIES_EQUAL and a.queue_head[ZERO] == NONE


@compiled
def start_low_priority(w, d, device, agent):
    """Start a fetch of the low-priority cursors, first sets first; return its bytes, 0 if there is none.

    With an agent, its machines alone are asked (weighted priorities); else all of the device.
    """
    machines = w.machines_n
    first = ZERO if w.in_turn else d.last_machine + 1
    for of_relocation in range(2):
        for i in range(machines):
            v = machine_at(w, (first + i) % machines)
            if not may_stage_low(w, v, device, agent):
                continue
            if of_relocation:
                block = next_of_low_relocation(w, v, agent_at(w, v.agent))
                cause = relocation_cause(v)
            else:
                block = next_of_first_set(w, v)
                cause = CAUSE_FIRST_SET
            if block != NONE:
                d.last_machine = v.number
                return start_staging(w, v, block, cause)
    return ZERO


@compiled
def pass_turn(a):
    """Let the next class have the turn, and its quantum."""
    a.turn = (a.turn + 1) % 3
    a.balance[a.turn] += a.quantum[a.turn]


@compiled
def start_by_weights(w, d, device, agent):
    """Start the next fetch of an agent by its weights; False if there is none that can start."""
    a = agent_at(w, agent)
    nothing = 0
    while nothing < 3:
        turn = a.turn
        if a.balance[turn] <= 0:
            nothing = 0
            pass_turn(a)
            continue
        size = ZERO
        if turn == CLASS_STAGING:
            size = start_low_priority(w, d, device, agent)
        elif a.queue_head[turn] != NONE:
            fetch = a.queue_head[turn]
            if not can_be_dealt_with(w, agent, fetch):
                return False
            deal_with_head(w, agent, turn)
            size = fetch_at(w, fetch).bytes
        if size > 0:
            a.balance[turn] -= size
            return True
        a.balance[turn] = 0
        nothing += 1
        pass_turn(a)
    return False


@compiled
def first_queue(w, device):
    """Return the agent whose queue's head joined first, of those that can be dealt with; NONE if none can."""
    best = NONE
    for agent in range(w.agents_n):
        a = agent_at(w, agent)
        if a.device != device or a.priorities == PRIORITIES_WEIGHTED or a.queue_head[ZERO] == NONE:
            continue
        fetch = a.queue_head[ZERO]
        is_earlier = (
            best == NONE or fetch_at(w, fetch).order < fetch_at(w, agent_at(w, best).queue_head[ZERO]).order
        )
        if is_earlier and can_be_dealt_with(w, agent, fetch):
            best = np.int64(agent)
    return best


@compiled
def start_something(w, d, device):
    """Give an idle channel what comes next; False if nothing does."""
    agent = first_queue(w, device)
    if agent != NONE:
        deal_with_head(w, agent, ZERO)
        return True
    if agent_at(w, ZERO).priorities != PRIORITIES_WEIGHTED:
        return start_low_priority(w, d, device, NONE) > 0
    for i in range(w.agents_n):
        agent = np.int64((d.last_agent + 1 + i) % w.agents_n)
        a = agent_at(w, agent)
        if a.device == device and a.in_service and start_by_weights(w, d, device, agent):
            d.last_agent = agent
            return True
    return False


@compiled
def launch_by_share(w, v):
    """Let the launch come if enough is staged, or staging can go no further."""
    d = device_at(w, agent_at(w, v.agent).device)
    is_stuck = v.in_flight == 0 and v.staging_fetches == 0 and d.idle_channels > 0
    if is_stuck or v.first_set_staged >= v.staged_to_launch:
        make_launch_due(w, v, v.first_set_event)


@compiled
def dispatch(w):
    """Give the idle channels work; then launch what staging has brought to its end."""
    for device in range(w.devices_n):
        d = device_at(w, device)
        going_on = True
        while going_on:
            refill(w, device)
            going_on = d.idle_channels > 0 and start_something(w, d, device)
    if w.to_launch > 0:
        for vm in range(w.machines_n):
            v = machine_at(w, vm)
            if v.launch_rule == LAUNCH_BY_SHARE and v.agent != NONE and not v.launch_due:
                launch_by_share(w, v)
