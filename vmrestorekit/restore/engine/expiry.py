"""The expiry of a live mount, its warning and its extension: rule 10 of the clockwork."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.engine.clock import announce, make_mode_due
from vmrestorekit.restore.engine.ending import de_associate, empty_read_cache
from vmrestorekit.restore.engine.fetches import release_fetch
from vmrestorekit.restore.engine.media_agent import release_part
from vmrestorekit.restore.engine.read_cache import content_of, copy_of
from vmrestorekit.restore.engine.state import (
    ABSENT,
    DUE_TRANSMISSION,
    DUE_WRITE_CACHE,
    EXPIRE,
    EXTEND_EXPIRY,
    LOST,
    MODE_EXPIRY,
    MODE_WARNING,
    NONE,
    ONE,
    POWER_DOWN,
    UNMOUNT_FILE_SYSTEM,
    WAITING,
    WARN_OF_EXPIRY,
    ZERO,
    agent_at,
    due_at,
    fetch_at,
    machine_at,
    part_at,
)
from vmrestorekit.restore.records import compiled


@compiled
def expiry_of(v):
    """Return when the mount expires, as things stand."""
    return v.asked_ns + v.expiry_ns


@compiled
def make_warning_due(w, v):
    """Let the user be warned in time; a warning that was due before is void."""
    v.warning_at = max(w.now, expiry_of(v) - v.warning_ns)
    make_mode_due(w, v, v.warning_at, MODE_WARNING)


@compiled
def warn(w, v):
    """Warn of the expiry, unless it was put off meanwhile."""
    if w.now == v.warning_at:
        v.warning_at = NONE
        announce(w, v, WARN_OF_EXPIRY, expiry_of(v) - w.now)


@compiled
def extend(w, v):
    """The user has the mount extended."""
    v.expiry_ns += v.extend_by_ns
    announce(w, v, EXTEND_EXPIRY, v.expiry_ns)
    make_mode_due(w, v, expiry_of(v), MODE_EXPIRY)
    if v.launched:
        make_warning_due(w, v)


@compiled
def drop_waiter(w, part):
    """Take a part of an expired mount away from those that wait for a fetch."""
    p = part_at(w, part)
    k = copy_of(w, agent_at(w, p.agent), content_of(w, machine_at(w, p.vm), p.block))
    before = NONE
    at = np.int64(k.first_waiter)
    while at != part:
        before = at
        at = part_at(w, at).next
    if before == NONE:
        k.first_waiter = p.next
    else:
        part_at(w, before).next = p.next
    if k.last_waiter == part:
        k.last_waiter = before
    k.pins -= 1
    release_part(w, part)


@compiled
def drop_parts(w, v):
    """Let go of the parts that were not handed to the link."""
    while v.first_parked != NONE:
        part = v.first_parked
        v.first_parked = part_at(w, part).next
        release_part(w, part)
    for part in range(w.parts_n):
        p = part_at(w, part)
        if p.agent != NONE and p.vm == v.number and p.state == WAITING:
            drop_waiter(w, np.int64(part))


@compiled
def is_awaited(w, v, a, fetch):
    """Tell whether anybody waits for a block of a fetch in a queue."""
    f = fetch_at(w, fetch)
    for block in range(f.block, f.block + f.count):
        if copy_of(w, a, content_of(w, v, block)).first_waiter != NONE:
            return True
    return False


@compiled
def drop_queued(w, v, a, queue):
    """Drop the fetches of an expired mount from a queue, but for those that others wait for."""
    before = NONE
    fetch = a.queue_head[queue]
    while fetch != NONE:
        f = fetch_at(w, fetch)
        following = f.next
        if f.vm != v.number or is_awaited(w, v, a, fetch):
            f.goes_on |= f.vm == v.number
            before = fetch
        else:
            if before == NONE:
                a.queue_head[queue] = following
            else:
                fetch_at(w, before).next = following
            for block in range(f.block, f.block + f.count):
                copy_of(w, a, content_of(w, v, block)).place = ABSENT
            release_fetch(w, fetch)
        fetch = following
    a.queue_tail[queue] = before


@compiled
def count_under_way(w, v):
    """Return how many operations of a machine have not ended: on a channel, its link, or its volumes."""
    count = ZERO
    for i in range(w.due):
        due = due_at(w, i)
        is_of_machine = ((due.key >> 32) & ((1 << 24) - 1)) == v.number + 1
        due_class = due.key >> 56
        if is_of_machine and due_class <= DUE_WRITE_CACHE:
            if due_class != DUE_TRANSMISSION or part_at(w, due.ref).state != LOST:
                count += 1
    return count


@compiled
def expire(w, v):
    """Power down; what was handed over ends, and then everything is let go."""
    v.expired = 1
    v.cut_off = v.unfinished
    announce(w, v, EXPIRE, v.unfinished)
    announce(w, v, POWER_DOWN, ZERO)
    drop_parts(w, v)
    if v.agent != NONE:
        a = agent_at(w, v.agent)
        drop_queued(w, v, a, ZERO)
        drop_queued(w, v, a, ONE)
    v.under_way = count_under_way(w, v)
    if v.under_way == 0:
        clean_up(w, v)


@compiled
def end_one(w, v):
    """An operation of an expired mount has ended; the last one lets everything go."""
    v.under_way -= 1
    if v.under_way == 0:
        clean_up(w, v)


@compiled
def clean_up(w, v):
    """Let go of a mount that has expired."""
    empty_read_cache(w, v)
    announce(w, v, UNMOUNT_FILE_SYSTEM, ZERO)
    de_associate(w, v)
