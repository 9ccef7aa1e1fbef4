"""Coordination: from the request for a restore to the start of its relocation (rules 7 and 12)."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import announce, announce_count, make_launch_due, make_mode_due, note
from vmrestorekit.restore.engine.expiry import make_warning_due
from vmrestorekit.restore.engine.fetches import count_as_staged
from vmrestorekit.restore.engine.host import make_children_due
from vmrestorekit.restore.engine.read_cache import copy_of
from vmrestorekit.restore.engine.relocation import start_relocation
from vmrestorekit.restore.engine.state import (
    CHECKS_IN_WINDOW,
    DETERMINE_FIRST_SET,
    EXPORT_FILE_SYSTEM,
    INDICATE_PRE_RELOCATION,
    INDICATE_VM_PROFILE,
    LAUNCH_BY_HEAD_START,
    LAUNCH_IMMEDIATELY,
    LAUNCH_VM,
    MODE_CHECK_LOAD,
    MODE_EXPIRY,
    MODE_EXTENSION,
    MODE_FULL_RESTORE,
    MODE_INSTANT_RESTORE,
    MODE_LAUNCH,
    MODE_LIVE_MOUNT,
    MODE_PRE_RELOCATION,
    MODE_START_RELOCATION,
    MOUNT_FILE_SYSTEM,
    NONE,
    PRESENT,
    ROUND_ROBIN,
    SELECT_VM,
    SET_UP_DATA_FLOW,
    STRAND,
    ZERO,
    agent_at,
    block_at,
    in_first_set,
)
from vmrestorekit.restore.records import compiled


@compiled
def next_in_service(w, after):
    """Return the next agent in service behind one, or NONE."""
    for i in range(w.agents_n):
        agent = np.int64((after + 1 + i) % w.agents_n)
        if agent_at(w, agent).in_service:
            return agent
    return NONE


@compiled
def choose_agent(w, v):
    """Return the media agent for a machine: the one that its user named, or else by balancing; or NONE."""
    if v.wanted_agent != NONE and agent_at(w, v.wanted_agent).in_service:
        return v.wanted_agent
    if w.balancing == ROUND_ROBIN:
        agent = next_in_service(w, w.last_chosen)
        if agent != NONE:
            w.last_chosen = agent
        return agent
    best = NONE
    for agent in range(w.agents_n):
        a = agent_at(w, agent)
        if a.in_service and (best == NONE or a.machines < agent_at(w, best).machines):
            best = np.int64(agent)
    return best


@compiled
def associate(w, v, agent):
    """Tie a machine to a media agent; what is in its cache already counts for the first set."""
    v.agent = agent
    v.last_agent = agent
    a = agent_at(w, agent)
    a.machines += 1
    for block in range(v.first_block, v.first_block + v.blocks):
        b = block_at(w, block)
        if b.stored:
            copy_of(w, a, np.int64(b.content)).users += 1
    if a.used > 0:
        for at in range(v.first_of_first_set, v.first_of_first_set + v.first_set):
            b = block_at(w, v.first_block + in_first_set(w, at).block)
            if copy_of(w, a, np.int64(b.content)).place == PRESENT:
                count_as_staged(w, v, b, v.event)


@compiled
def ask_for(w, v):
    """A restore is asked for: set it up, and begin to stage its first set."""
    agent = choose_agent(w, v)
    if agent == NONE:
        v.stranded = 1
        announce(w, v, STRAND, ZERO)
        return
    if v.mode == MODE_LIVE_MOUNT:
        announce(w, v, SELECT_VM, ZERO)
    announce(w, v, EXPORT_FILE_SYSTEM, agent)
    announce(w, v, MOUNT_FILE_SYSTEM, ZERO)
    if v.mode != MODE_LIVE_MOUNT:
        announce(w, v, SET_UP_DATA_FLOW, ZERO)
    if v.mode == MODE_FULL_RESTORE:
        associate(w, v, agent)
        make_mode_due(w, v, w.now, MODE_START_RELOCATION)
        return
    announce(w, v, INDICATE_VM_PROFILE, ZERO)
    announce_count(w, v, DETERMINE_FIRST_SET, v.first_set)
    v.first_set_event = v.event
    associate(w, v, agent)
    if v.launch_rule == LAUNCH_BY_HEAD_START:
        v.launch_due = 1
        v.launch_cause = v.event
        make_mode_due(w, v, w.now + v.head_start_ns, MODE_LAUNCH)
    elif v.launch_rule == LAUNCH_IMMEDIATELY or v.first_set_staged >= v.staged_to_launch:
        make_launch_due(w, v, v.event)
    if v.expiry_ns >= 0:
        make_mode_due(w, v, w.now + v.expiry_ns, MODE_EXPIRY)
        if v.extend_at_ns >= 0:
            make_mode_due(w, v, w.now + v.extend_at_ns, MODE_EXTENSION)


@compiled
def relocation_start(w, v):
    """Return when the relocation starts at the latest, for a launch now."""
    if v.relocation_period_ns == 0:
        return w.now + v.relocation_delay_ns
    at = v.asked_ns + v.relocation_first_ns
    while at < w.now:
        at += v.relocation_period_ns
    return at


@compiled
def launch(w, v):
    """Launch the virtual machine, and set the times that count from the launch."""
    v.launched = 1
    v.launched_ns = w.now
    v.event = note(w, v, LAUNCH_VM, NONE, ZERO, NONE, v.first_set_staged, v.launch_cause)
    make_children_due(w, v, v.first_child, v.event)
    if v.mode == MODE_INSTANT_RESTORE:
        make_mode_due(w, v, w.now + v.pre_relocation_delay_ns, MODE_PRE_RELOCATION)
        make_mode_due(w, v, relocation_start(w, v), MODE_START_RELOCATION)
        if v.load_check_ns > 0:
            make_mode_due(w, v, w.now + CHECKS_IN_WINDOW * v.load_check_ns, MODE_CHECK_LOAD)
    elif v.mode == MODE_LIVE_MOUNT and v.expiry_ns >= 0:
        make_warning_due(w, v)


@compiled
def indicate_pre_relocation(w, v):
    """The media agent may stage along the relocation sequence, unless the relocation runs already."""
    if not v.relocation_started:
        v.pre_relocation = 1
        announce(w, v, INDICATE_PRE_RELOCATION, ZERO)
        v.pre_relocation_event = v.event


@compiled
def check_load(w, v):
    """Start the relocation if the virtual machine asked for little in the last window; else look again."""
    if v.relocation_started:
        return
    asked = ZERO
    for i in range(CHECKS_IN_WINDOW):
        asked += v.demand[i]
    if asked < v.load_limit_bytes:
        start_relocation(w, v)
        return
    # the oldest span of the window becomes the one that begins now
    v.demand[((w.now - v.launched_ns) // v.load_check_ns) % CHECKS_IN_WINDOW] = 0
    make_mode_due(w, v, w.now + v.load_check_ns, MODE_CHECK_LOAD)
