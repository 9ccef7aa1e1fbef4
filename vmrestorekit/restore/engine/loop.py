"""The loop: whatever is due is taken one at a time, and then the devices are dispatched (rule 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vmrestorekit.restore import policies, records
from vmrestorekit.restore.engine.clock import (
    end_merging,
    make_due,
    make_launch_due,
    make_mode_due,
    note,
    take_due,
    use_destination_volume,
)
from vmrestorekit.restore.engine.coordination import ask_for, check_load, indicate_pre_relocation, launch
from vmrestorekit.restore.engine.dispatch import dispatch
from vmrestorekit.restore.engine.ending import complete_apply, unmount_if_quiet, write_what_was_read
from vmrestorekit.restore.engine.expiry import end_one, expire, expiry_of, extend, warn
from vmrestorekit.restore.engine.failover import lose_agent, take_over
from vmrestorekit.restore.engine.fetches import complete_fetch
from vmrestorekit.restore.engine.host import complete_operation, complete_read, complete_write, issue_request
from vmrestorekit.restore.engine.media_agent import is_of_vm, reader_of, release_part
from vmrestorekit.restore.engine.read_cache import content_of, copy_of, is_no_longer_ahead, update_hold
from vmrestorekit.restore.engine.relocation import (
    complete_relocation_request,
    issue_relocation,
    start_relocation,
)
from vmrestorekit.restore.engine.state import (
    DO_RELOCATION,
    DO_VM_READ,
    DO_VM_WRITE,
    DONE,
    DUE_DESTINATION,
    DUE_FETCH,
    DUE_MODE,
    DUE_PURGE,
    DUE_TRANSMISSION,
    DUE_WRITE_CACHE,
    EVENTS_FULL,
    EXPIRED_BEFORE_LAUNCH,
    LOST,
    MODE_ASK,
    MODE_CHECK_LOAD,
    MODE_EXPIRY,
    MODE_EXTENSION,
    MODE_LAUNCH,
    MODE_LOCAL,
    MODE_PRE_RELOCATION,
    MODE_PURGE_PERIOD,
    MODE_START_RELOCATION,
    MODE_TAKE_OVER,
    MODE_WARNING,
    NONE,
    ONE,
    PAUSED,
    READ_DESTINATION,
    READ_WRITE_CACHE,
    SERVE,
    ZERO,
    agent_at,
    block_at,
    cache_at,
    copy_at,
    due_at,
    fetch_at,
    in_first_set,
    machine_at,
    part_at,
    relocation_at,
)
from vmrestorekit.restore.engine.tracking import (
    block_in_sequence,
    count_inferred,
    make_purge_due,
    mark_runs_of_period,
    purge,
)
from vmrestorekit.restore.records import compiled, entry, fingerprint


@compiled
def complete_transmission(w, v, part):
    """A part's bytes arrived: take off its pin, and let its reader go on."""
    p = part_at(w, part)
    if p.state == LOST:
        release_part(w, part)
        return
    number, slot, event = p.number, p.slot, p.event
    content = content_of(w, v, p.block)
    k = copy_of(w, agent_at(w, p.agent), content)
    k.pins -= 1
    if not v.expired:
        event = note(w, v, SERVE, p.block, ONE, number, reader_of(v, number), event)
        count_as_served(w, k)
    update_hold(cache_at(w, p.agent), k, content)
    make_purge_due(w, p.agent, k, content)
    release_part(w, part)
    if v.expired:
        end_one(w, v)
    elif is_of_vm(v, number):
        v.parts -= 1
        complete_operation(w, v, number, event)
        if v.pivoted:
            v.event = event
            unmount_if_quiet(w, v)
    else:
        receive_for_relocation(w, v, slot, number, event)


@compiled
def count_as_served(w, k):
    """A content was sent to somebody."""
    k.served = 1
    machine_at(w, k.vm).wasted -= k.wasted
    k.wasted = 0
    is_no_longer_ahead(w, k)


@compiled
def receive_for_relocation(w, v, slot, number, event):
    """A block came for the relocation; once all of a request are there, they are written."""
    q = relocation_at(w, v.first_relocation + slot)
    q.outstanding -= 1
    if q.outstanding == 0:
        q.event = event
        use_destination_volume(w, v, q.count << w.block_shift, number, DO_RELOCATION, slot)


@compiled
def complete_on_volume(w, v, due_class, number, what, ref):
    """Carry out the completion of an operation on the destination or the write cache."""
    if v.expired:
        end_one(w, v)
    elif what == DO_VM_READ:
        kind = READ_DESTINATION if due_class == DUE_DESTINATION else READ_WRITE_CACHE
        complete_read(w, v, number, kind, ref)
    elif what == DO_VM_WRITE:
        complete_write(w, v, number)
    elif what == DO_RELOCATION:
        complete_relocation_request(w, v, ref)
    elif due_class == DUE_WRITE_CACHE:
        write_what_was_read(w, v)
    else:
        complete_apply(w, v)


@compiled
def complete(w, v, due_class, number, what, ref):
    """Carry out a completion on device, link, destination or write cache."""
    if due_class == DUE_FETCH:
        complete_fetch(w, v, ref)
        if v.expired and not fetch_at(w, ref).goes_on:
            end_one(w, v)
    elif due_class == DUE_TRANSMISSION:
        complete_transmission(w, v, ref)
    else:
        complete_on_volume(w, v, due_class, number, what, ref)


@compiled
def change_mode(w, v, number, ref):
    """Carry out a change of mode."""
    if number == MODE_ASK:
        ask_for(w, v)
    elif number == MODE_LAUNCH:
        launch(w, v)
    elif number == MODE_PRE_RELOCATION:
        indicate_pre_relocation(w, v)
    elif number == MODE_START_RELOCATION:
        start_relocation(w, v)
    elif number == MODE_CHECK_LOAD:
        check_load(w, v)
    elif number == MODE_WARNING:
        warn(w, v)
    elif number == MODE_EXTENSION:
        extend(w, v)
    elif number == MODE_PURGE_PERIOD:
        mark_runs_of_period(w, v)
    elif number == MODE_TAKE_OVER:
        take_over(w, v, ref)
    elif w.now == expiry_of(v):
        expire(w, v)


@compiled
def fill_in_blocks(w, v):
    """Fill in what follows from a block's address, the sequence and the first set."""
    for number in range(v.first_block, v.first_block + v.blocks):
        b = block_at(w, number)
        b.stored = b.address >= 0
        if v.mode == MODE_LOCAL:
            b.relocated = b.stored
        if not w.contents_given:
            b.content = number
    for position in range(v.sequence):
        block_at(w, v.first_block + block_in_sequence(w, v, np.int64(position))).position = position
    for at in range(v.first_of_first_set, v.first_of_first_set + v.first_set):
        block_at(w, v.first_block + in_first_set(w, at).block).in_first_set = 1


@compiled
def fill_in_copies(w):
    """No content is anywhere yet."""
    for number in range(w.copies_n):
        k = copy_at(w, number)
        k.fetch = NONE
        k.first_waiter = NONE
        k.last_waiter = NONE
        k.marked_by = NONE
        k.trigger = NONE


@compiled
def begin(w):
    """Fill in the tables, and make due what comes at fixed times."""
    fill_in_copies(w)
    for agent in range(w.agents_n):
        fails_ns = agent_at(w, agent).fails_ns
        if fails_ns >= 0:
            make_due(w, fails_ns, DUE_MODE, NONE, np.int64(agent), NONE, ZERO, ZERO)
    for vm in range(w.machines_n):
        v = machine_at(w, vm)
        fill_in_blocks(w, v)
        if v.mode == MODE_LOCAL:
            make_launch_due(w, v, NONE)
        else:
            make_mode_due(w, v, v.asked_ns, MODE_ASK)


@compiled
def take_one(w):
    """Carry out what is due first; False if that is an expiry before the launch."""
    due = take_due(w)
    due_class = due.key >> 56
    vm = ((due.key >> 32) & ((1 << 24) - 1)) - 1
    number = due.key & ((1 << 32) - 1)
    what, ref = due.what, due.ref
    w.now = due.time
    w.dispatch_due = 1
    if due_class == DUE_PURGE:
        purge(w, what, ref)
        return True
    if vm == NONE:
        lose_agent(w, number)
        return True
    v = machine_at(w, vm)
    if due_class <= DUE_WRITE_CACHE:
        complete(w, v, due_class, number, what, ref)
    elif v.expired:
        return True
    elif due_class == DUE_MODE:
        if number == MODE_EXPIRY and not v.launched and w.now == expiry_of(v):
            w.culprit = vm
            return False
        change_mode(w, v, number, ref)
    elif is_of_vm(v, number):
        issue_request(w, v, number)
    else:
        issue_relocation(w, v, number, ref)
    return True


def _make_entries(code):
    """Return what Python calls; numba caches it under the fingerprint of all that is called from there."""

    @entry
    def run(worlds, spare_events, steps):
        """Go on until everything is over, and say why it stopped.

        `EVENTS_FULL` if fewer than `spare_events` rows are left for events, `PAUSED` after so many steps.
        """
        w = worlds[0]
        w.code = code
        if not w.begun:
            w.begun = 1
            begin(w)
        while True:
            if w.events_n - w.events < spare_events:
                return EVENTS_FULL
            if w.due == 0 or due_at(w, ZERO).time > w.now:
                if w.dispatch_due:
                    w.dispatch_due = 0
                    dispatch(w)
                    continue
                if w.due == 0:
                    return DONE if end_merging(w) else EVENTS_FULL
            if steps == 0:
                return PAUSED
            steps -= 1
            if not take_one(w):
                return EXPIRED_BEFORE_LAUNCH

    @entry
    def see_read(worlds, position):
        """Tell a world of one machine of a read along its sequence; see `count_inferred`."""
        w = worlds[0]
        w.code = code
        return count_inferred(w, machine_at(w, ZERO), position)

    return run, see_read


_FILES = (*Path(__file__).parent.glob("*.py"), Path(policies.__file__), Path(records.__file__))
run, see_read = _make_entries(int(fingerprint(*map(str, sorted(_FILES)))[:15], 16))
