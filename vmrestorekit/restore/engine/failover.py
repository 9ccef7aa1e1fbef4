"""A media agent goes away, and others take over: rule 12 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import append_event, make_due, note
from vmrestorekit.restore.engine.coordination import associate, choose_agent
from vmrestorekit.restore.engine.expiry import clean_up
from vmrestorekit.restore.engine.fetches import forget_fetch
from vmrestorekit.restore.engine.media_agent import arrive, end_gathering, new_part, park
from vmrestorekit.restore.engine.state import (
    DETAIL_SUMMARY,
    DUE_MODE,
    LOSE_MEDIA_AGENT,
    LOST,
    MODE_TAKE_OVER,
    NONE,
    OPEN_RUNS,
    SENT,
    STRAND,
    TAKE_OVER,
    ZERO,
    agent_at,
    block_at,
    fetch_at,
    in_first_set,
    machine_at,
    part_at,
    run_at,
)
from vmrestorekit.restore.records import compiled


@compiled
def lose_agent(w, agent):
    """A media agent goes away with its cache, its queue, and what its link carries."""
    a = agent_at(w, agent)
    a.in_service = 0
    a.event = NONE
    if w.detail != DETAIL_SUMMARY:
        a.event = append_event(w, w.now, LOSE_MEDIA_AGENT, NONE, NONE, ZERO, NONE, agent, NONE)
    lose_fetches(w, agent)
    lose_parts(w, agent)
    for vm in range(w.machines_n):
        v = machine_at(w, vm)
        if v.agent == agent:
            lose_machine(w, v)


@compiled
def lose_fetches(w, agent):
    """Drop what waits in the queues; what is in flight occupies its channel to the end."""
    a = agent_at(w, agent)
    for queue in range(2):
        while a.queue_head[queue] != NONE:
            fetch = a.queue_head[queue]
            a.queue_head[queue] = fetch_at(w, fetch).next
            forget_fetch(w, fetch)
    for fetch in range(w.fetches_n):
        f = fetch_at(w, fetch)
        if f.in_flight and f.agent == agent:
            f.lost = 1


@compiled
def lose_parts(w, agent):
    """Park the parts that had not arrived; the transmissions of those on the link come to nothing."""
    for i in range(w.parts_n):
        p = part_at(w, i)
        if p.agent != agent:
            continue
        part = np.int64(i)
        v = machine_at(w, p.vm)
        if p.state == SENT:
            p.state = LOST
            p.agent = NONE
            if v.expired:
                v.under_way -= 1
                continue
            part = again(w, v, p)
        park(w, v, part)


@compiled
def again(w, v, p):
    """Return another part in place of one whose transmission was lost."""
    part = new_part(w, v, p.number, p.slot, p.block, p.bytes, p.asked)
    part_at(w, part).order = p.order
    return part


@compiled
def lose_machine(w, v):
    """A machine has no agent: nothing is staged for it, no block is marked or ahead, no run is open."""
    agent = v.agent
    v.agent = NONE
    for block in range(v.first_block, v.first_block + v.blocks):
        b = block_at(w, block)
        b.marked = 0
        b.ahead = 0
    for at in range(v.first_of_first_set, v.first_of_first_set + v.first_set):
        block_at(w, v.first_block + in_first_set(w, at).block).in_first_set = 1
    for i in range(v.first_run, v.first_run + OPEN_RUNS):
        run_at(w, i).length = 0
    v.in_flight = 0
    v.staging_fetches = 0
    v.staged_ahead = 0
    v.first_set_cursor = 0
    v.first_set_staged = 0
    v.relocation_cursor = 0
    if not v.expired:
        make_due(w, w.now + w.takeover_ns, DUE_MODE, v.number, MODE_TAKE_OVER, NONE, ZERO, agent)
    elif v.under_way == 0:
        clean_up(w, v)


@compiled
def take_over(w, v, lost_agent):
    """Another agent takes a machine over; what was not served yet arrives there."""
    if v.expired or v.unmounted:
        return
    event = agent_at(w, lost_agent).event
    agent = choose_agent(w, v)
    if agent == NONE:
        v.stranded = 1
        v.event = note(w, v, STRAND, NONE, ZERO, NONE, ZERO, event)
        return
    v.event = note(w, v, TAKE_OVER, NONE, ZERO, NONE, agent, event)
    associate(w, v, agent)
    while v.first_parked != NONE:
        part = v.first_parked
        v.first_parked = part_at(w, part).next
        arrive(w, v, part)
    end_gathering(w, v)
