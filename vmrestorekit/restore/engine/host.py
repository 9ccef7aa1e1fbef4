"""The virtual machine's requests, and how its host routes them: rules 2 and 3 of the clockwork."""

from __future__ import annotations

from vmrestorekit.restore.engine.clock import make_issue_due, note, use_destination_volume, use_write_cache
from vmrestorekit.restore.engine.ending import apply_next
from vmrestorekit.restore.engine.media_agent import ask, end_gathering
from vmrestorekit.restore.engine.state import (
    BOOT_DONE,
    DO_VM_READ,
    DO_VM_WRITE,
    NONE,
    OP_DISCARD,
    OP_MARK,
    OP_READ,
    OP_WRITE,
    UNIT_APPLIED,
    UNIT_BYTES,
    UNIT_SHIFT,
    UNIT_WRITTEN,
    UNIT_ZEROED,
    VM_DONE,
    VM_READ,
    WRITTEN,
    ZERO,
    block_at,
    request_at,
)
from vmrestorekit.restore.engine.units import is_in_write_cache, set_unit, source_bytes, tally
from vmrestorekit.restore.records import compiled


@compiled
def request_of(w, v, number):
    """Return a request's record."""
    return request_at(w, v.first_request + number)


@compiled
def note_request(w, v, number, kind, detail, cause):
    """Note something about the range of a request."""
    r = request_of(w, v, number)
    if r.length == 0:
        return note(w, v, kind, NONE, ZERO, number, detail, cause)
    first = r.start >> w.block_shift
    count = ((r.start + r.length - 1) >> w.block_shift) - first + 1
    return note(w, v, kind, first, count, number, detail, cause)


@compiled
def make_children_due(w, v, first_child, event):
    """Let those requests be issued, each its think time from now, that waited for this event."""
    child = first_child
    while child != NONE:
        r = request_of(w, v, child)
        r.cause = event
        make_issue_due(w, v, w.now + r.think, child)
        child = r.next_child


@compiled
def issue_request(w, v, number):
    """Issue a row of the trace, or its mark."""
    r = request_of(w, v, number)
    r.issued = w.now
    r.order = v.issue_order
    v.issue_order += 1
    if r.op == OP_MARK:
        v.boot_done_ns = w.now
        note(w, v, BOOT_DONE, NONE, ZERO, NONE, ZERO, r.cause)
        return
    v.unfinished += 1
    r.event = note_request(w, v, number, VM_READ + r.op, r.length, r.cause)
    r.waited_for = r.event
    if r.op == OP_READ:
        for block in range(r.start >> w.block_shift, ((r.start + r.length - 1) >> w.block_shift) + 1):
            block_at(w, v.first_block + block).read = 1
        route(w, v, number, r.start, r.start + r.length, ZERO, ZERO)
    elif r.op == OP_WRITE:
        issue_write(w, v, number)
    elif r.op == OP_DISCARD:
        discard(w, v, number)
    else:
        begin_flush(w, v, number)
    if r.outstanding == 0:
        complete_request(w, v, number, r.event)


@compiled
def route(w, v, number, start, end, start2, end2):
    """Cut a read of one or two ranges (the second behind the first, or empty) into operations and parts."""
    r = request_of(w, v, number)
    from_write_cache, from_destination = tally(w, v, start, end)
    if end2 > start2:
        more_write_cache, more_destination = tally(w, v, start2, end2)
        from_write_cache += more_write_cache
        from_destination += more_destination
    if from_write_cache > 0:
        r.outstanding += 1
        use_write_cache(w, v, from_write_cache, number, DO_VM_READ, from_write_cache)
    if from_destination > 0:
        r.outstanding += 1
        use_destination_volume(w, v, from_destination, number, DO_VM_READ, from_destination)
    if v.pivoted:
        return
    for block in range(start >> w.block_shift, ((max(end, end2) - 1) >> w.block_shift) + 1):
        size = source_bytes(w, v, block, start, end)
        if end2 > start2:
            size += source_bytes(w, v, block, start2, end2)
        if size > 0:
            r.outstanding += 1
            ask(w, v, number, NONE, block, size, r.event)
    end_gathering(w, v)


@compiled
def issue_write(w, v, number):
    """Read the units that the write covers in part, then write."""
    r = request_of(w, v, number)
    v.writes_under_way += 1
    end = r.start + r.length
    first, last = r.start >> UNIT_SHIFT, (end - 1) >> UNIT_SHIFT
    ends_inside = end & (UNIT_BYTES - 1) != 0
    first_partial = r.start & (UNIT_BYTES - 1) != 0 or (first == last and ends_inside)
    read_first = not v.pivoted and first_partial and not is_in_write_cache(w, v, first)
    read_last = not v.pivoted and first != last and ends_inside and not is_in_write_cache(w, v, last)
    after_first, after_last = (first + 1) << UNIT_SHIFT, (last + 1) << UNIT_SHIFT
    if read_first and read_last:
        route(w, v, number, first << UNIT_SHIFT, after_first, last << UNIT_SHIFT, after_last)
    elif read_first:
        route(w, v, number, first << UNIT_SHIFT, after_first, ZERO, ZERO)
    elif read_last:
        route(w, v, number, last << UNIT_SHIFT, after_last, ZERO, ZERO)
    if r.outstanding == 0:
        begin_writing(w, v, number)


@compiled
def begin_writing(w, v, number):
    """Hand a write's bytes to the volume that takes writes now."""
    r = request_of(w, v, number)
    r.writing = 1
    r.outstanding = 1
    if v.pivoted:
        use_destination_volume(w, v, r.length, number, DO_VM_WRITE, ZERO)
    else:
        use_write_cache(w, v, r.length, number, DO_VM_WRITE, ZERO)


@compiled
def discard(w, v, number):
    """Zero the units that a discard covers as a whole, at no cost."""
    r = request_of(w, v, number)
    if v.pivoted:
        return
    first = (r.start + UNIT_BYTES - 1) >> UNIT_SHIFT
    for unit in range(first, (r.start + r.length) >> UNIT_SHIFT):
        set_unit(w, v, unit, UNIT_ZEROED)


@compiled
def begin_flush(w, v, number):
    """Let a flush wait for the writes under way."""
    r = request_of(w, v, number)
    r.outstanding = v.writes_under_way
    r.next_flush = NONE
    if v.writes_under_way == 0:
        return
    if v.first_flush == NONE:
        v.first_flush = number
    else:
        request_of(w, v, v.last_flush).next_flush = number
    v.last_flush = number


@compiled
def complete_operation(w, v, number, event):
    """One operation or part of a request is over; the last one lets it go on."""
    r = request_of(w, v, number)
    r.outstanding -= 1
    if r.outstanding > 0:
        return
    if r.op == OP_WRITE and not r.writing:
        r.waited_for = event
        begin_writing(w, v, number)
    else:
        complete_request(w, v, number, event)


@compiled
def complete_request(w, v, number, event):
    """A request is over: its children are due after their think time."""
    r = request_of(w, v, number)
    r.done = w.now
    v.unfinished -= 1
    done = note_request(w, v, number, VM_DONE, w.now - r.issued, event)
    make_children_due(w, v, r.first_child, done)


@compiled
def complete_read(w, v, number, kind, size):
    """The write cache or the destination has served its part of a read."""
    event = note_request(w, v, number, kind, size, request_of(w, v, number).event)
    complete_operation(w, v, number, event)


@compiled
def complete_write(w, v, number):
    """What was written counts from now on; flushes and the application of writes go on."""
    r = request_of(w, v, number)
    state = UNIT_APPLIED if v.pivoted else UNIT_WRITTEN
    for unit in range(r.start >> UNIT_SHIFT, ((r.start + r.length - 1) >> UNIT_SHIFT) + 1):
        set_unit(w, v, unit, state)
    event = note_request(w, v, number, WRITTEN, v.pivoted, r.waited_for)
    v.writes_under_way -= 1
    complete_operation(w, v, number, event)
    release_flushes(w, v, r.order, event)
    if v.relocation_finished and not v.applying and not v.pivoted:
        v.event = event
        apply_next(w, v)


@compiled
def release_flushes(w, v, write_order, event):
    """Complete the flushes for which a write was the last one to wait for."""
    before = NONE
    flush = v.first_flush
    while flush != NONE:
        f = request_of(w, v, flush)
        following = f.next_flush
        if f.order > write_order:
            f.outstanding -= 1
        if f.outstanding == 0:
            if before == NONE:
                v.first_flush = following
            else:
                request_of(w, v, before).next_flush = following
            if following == NONE:
                v.last_flush = before
            complete_request(w, v, flush, event)
        else:
            before = flush
        flush = following
