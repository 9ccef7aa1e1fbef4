"""The order of an instant, and what takes time: rule 1 of the clockwork, and the events."""

from __future__ import annotations

from vmrestorekit.restore.engine.state import (
    CACHE_HIT,
    DETAIL_RUNS,
    DETAIL_SUMMARY,
    DUE_DESTINATION,
    DUE_ISSUE,
    DUE_MODE,
    DUE_TRANSMISSION,
    DUE_WRITE_CACHE,
    INFER_RUN,
    KIND_COUNT,
    LAUNCH_BY_SHARE,
    MERGED_DETAILS,
    MODE_LAUNCH,
    NONE,
    PURGE,
    REFETCH_AFTER_PURGE,
    RELOCATED,
    RELOCATION_READ,
    SENT,
    ZERO,
    due_at,
    event_at,
    merged_at,
    part_at,
)
from vmrestorekit.restore.records import compiled


@compiled
def transfer_ns(size, bandwidth):
    """Return ceil(size * 10^9 / bandwidth)."""
    return (size * 1_000_000_000 + bandwidth - 1) // bandwidth


@compiled
def append_event(w, time, kind, vm, block, count, request, detail, cause):
    """Append an event; return its row."""
    if w.events == w.events_n:
        w.events_lost += 1
        return NONE
    event = event_at(w, w.events)
    event.time = time
    event.kind = kind
    event.vm = vm
    event.block = block
    event.count = count
    event.request = request
    event.detail = detail
    event.cause = cause
    w.events += 1
    return w.events_before + w.events - 1


@compiled
def note(w, v, kind, block, count, request, detail, cause):
    """Append an event of a machine at the current instant; return its row, or NONE if none is kept."""
    if w.detail == DETAIL_SUMMARY:
        return NONE
    if w.detail == DETAIL_RUNS:
        sums = kind == RELOCATION_READ or kind == RELOCATED
        if sums or (
            kind >= CACHE_HIT and kind <= PURGE and kind != REFETCH_AFTER_PURGE and kind != INFER_RUN
        ):
            which = (v.number * KIND_COUNT + kind) * MERGED_DETAILS + (ZERO if sums else detail)
            merge(w, v, which, kind, block, count, request, detail)
            return NONE
        append_event(w, w.now, kind, v.number, block, count, request, detail, NONE)
        return NONE
    return append_event(w, w.now, kind, v.number, block, count, request, detail, cause)


@compiled
def merge(w, v, which, kind, block, count, request, detail):
    """Let the last event of this sort grow, if the blocks are its neighbours; else begin another one."""
    m = merged_at(w, which)
    is_next = m.count > 0 and m.block + m.count == block and w.now - m.time <= w.merge_ns
    if is_next and m.count < w.merge_blocks:
        m.count += count
        if kind == RELOCATION_READ or kind == RELOCATED:
            m.detail += detail
        if m.request != request:
            m.request = NONE
    else:
        if m.count > 0:
            append_event(w, m.time, kind, v.number, m.block, m.count, m.request, m.detail, NONE)
        m.block = block
        m.count = count
        m.request = request
        m.detail = detail
    m.time = w.now


@compiled
def end_merging(w):
    """Append the events that could still have grown, as far as there is room."""
    for which in range(w.merged_n):
        m = merged_at(w, which)
        if m.count > 0 and w.events < w.events_n:
            kind = (which // MERGED_DETAILS) % KIND_COUNT
            vm = which // (MERGED_DETAILS * KIND_COUNT)
            append_event(w, m.time, kind, vm, m.block, m.count, m.request, m.detail, NONE)
            m.count = 0
    return w.events < w.events_n


@compiled
def announce(w, v, kind, detail):
    """Note a message or step of coordination, which the one before led to."""
    v.event = note(w, v, kind, NONE, ZERO, NONE, detail, v.event)


@compiled
def announce_count(w, v, kind, count):
    """Note a step that is about so many blocks, whichever they are."""
    v.event = note(w, v, kind, NONE, count, NONE, ZERO, v.event)


@compiled
def is_before(first, second):
    """Tell which of two things due comes first."""
    if first.time != second.time:
        return first.time < second.time
    return first.key < second.key or (first.key == second.key and first.block < second.block)


@compiled
def copy_due(target, source):
    """Copy one record of the heap over another."""
    target.time = source.time
    target.key = source.key
    target.block = source.block
    target.what = source.what
    target.ref = source.ref


@compiled
def make_due(w, time, due_class, vm, number, block, what, ref):
    """Put something on the heap of what is due; the table's last row is scratch."""
    new = due_at(w, w.due_n - 1)
    new.time = time
    new.key = (due_class << 56) | ((vm + 1) << 32) | number
    new.block = block
    new.what = what
    new.ref = ref
    at = w.due
    w.due += 1
    while at > 0:
        parent = (at - 1) >> 1
        if not is_before(new, due_at(w, parent)):
            break
        copy_due(due_at(w, at), due_at(w, parent))
        at = parent
    copy_due(due_at(w, at), new)


@compiled
def make_mode_due(w, v, time, mode):
    """Let a mode change at that time."""
    make_due(w, time, DUE_MODE, v.number, mode, NONE, ZERO, ZERO)


@compiled
def make_issue_due(w, v, time, number):
    """Let a request of the virtual machine be issued at that time."""
    make_due(w, time, DUE_ISSUE, v.number, number, NONE, ZERO, ZERO)


@compiled
def take_due(w):
    """Move what is due first from the heap to the scratch row before the last, and return that."""
    taken = due_at(w, w.due_n - 2)
    copy_due(taken, due_at(w, ZERO))
    w.due -= 1
    size = w.due
    last = due_at(w, size)
    at = ZERO
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and is_before(due_at(w, child + 1), due_at(w, child)):
            child += 1
        if not is_before(due_at(w, child), last):
            break
        copy_due(due_at(w, at), due_at(w, child))
        at = child
    copy_due(due_at(w, at), last)
    return taken


@compiled
def make_launch_due(w, v, cause):
    """Let the launch come in this instant, once."""
    if not v.launch_due:
        v.launch_due = 1
        v.launch_cause = cause
        w.to_launch -= v.launch_rule == LAUNCH_BY_SHARE
        make_mode_due(w, v, w.now, MODE_LAUNCH)


@compiled
def use_destination_volume(w, v, size, number, what, ref):
    """Hand an operation to the destination, first come first served."""
    start = max(w.now, v.destination_free_at)
    v.destination_free_at = start + v.destination_latency_ns + transfer_ns(size, v.destination_bandwidth)
    make_due(w, v.destination_free_at, DUE_DESTINATION, v.number, number, NONE, what, ref)


@compiled
def use_write_cache(w, v, size, number, what, ref):
    """Hand an operation to the write cache, first come first served."""
    start = max(w.now, v.write_cache_free_at)
    v.write_cache_free_at = start + v.write_cache_latency_ns + transfer_ns(size, v.write_cache_bandwidth)
    make_due(w, v.write_cache_free_at, DUE_WRITE_CACHE, v.number, number, NONE, what, ref)


@compiled
def transmit(w, a, part, event):
    """Hand a part's bytes to the agent's link; latency delays, it does not occupy."""
    p = part_at(w, part)
    p.state = SENT
    p.event = event
    start = max(w.now, a.link_free_at)
    a.link_free_at = start + transfer_ns(p.bytes, a.link_bandwidth)
    make_due(w, a.link_free_at + a.link_latency_ns, DUE_TRANSMISSION, p.vm, p.number, p.block, ZERO, part)
