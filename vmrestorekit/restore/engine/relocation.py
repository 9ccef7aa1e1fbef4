"""The relocation: rule 7 of the clockwork."""

from __future__ import annotations

from vmrestorekit.restore.engine.clock import announce, make_due, make_mode_due, note
from vmrestorekit.restore.engine.ending import finish_relocation
from vmrestorekit.restore.engine.media_agent import ask, end_gathering
from vmrestorekit.restore.engine.state import (
    DUE_ISSUE,
    INDICATE_RELOCATION_IN_PROGRESS,
    MODE_PURGE_PERIOD,
    NONE,
    ONE,
    RELOCATED,
    RELOCATION_READ,
    START_RELOCATION,
    TRIGGER_INDICATION,
    ZERO,
    block_at,
    relocation_at,
)
from vmrestorekit.restore.engine.tracking import block_in_sequence, mark
from vmrestorekit.restore.records import compiled


@compiled
def make_relocation_due(w, v, slot, cause):
    """Let the next request of the relocation be issued in this instant."""
    relocation_at(w, v.first_relocation + slot).cause = cause
    make_due(w, w.now, DUE_ISSUE, v.number, v.next_relocation, NONE, ZERO, slot)
    v.next_relocation += 1


@compiled
def start_relocation(w, v):
    """Start the relocation, and tell the media agent of it."""
    if v.relocation_started:
        return
    v.relocation_started = 1
    v.started_ns = w.now
    announce(w, v, START_RELOCATION, ZERO)
    announce(w, v, INDICATE_RELOCATION_IN_PROGRESS, ZERO)
    v.relocation_event = v.event
    if v.sequence == 0:
        finish_relocation(w, v)
        return
    v.relocating = 1
    for slot in range(v.relocation_depth):
        make_relocation_due(w, v, slot, v.relocation_event)
    if v.purge_by_period:
        make_mode_due(w, v, w.now + v.purge_period_ns, MODE_PURGE_PERIOD)


@compiled
def issue_relocation(w, v, number, slot):
    """Issue the relocation's read of its next positions."""
    count = min(v.relocation_positions, v.sequence - v.relocation_position)
    if count == 0:
        return
    first = v.relocation_position
    v.relocation_position += count
    v.relocations_outstanding += 1
    q = relocation_at(w, v.first_relocation + slot)
    q.number = number
    q.position = first
    q.count = count
    q.outstanding = count
    size = count << w.block_shift
    block = block_in_sequence(w, v, first)
    q.event = note(w, v, RELOCATION_READ, block, count, number, size, q.cause)
    for position in range(first, first + count):
        block = block_in_sequence(w, v, position)
        ask(w, v, number, slot, block, ONE << w.block_shift, q.event)
    end_gathering(w, v)


@compiled
def complete_relocation_request(w, v, slot):
    """A relocation request is on the destination: route reads there from now on, and go on."""
    q = relocation_at(w, v.first_relocation + slot)
    position, end = q.position, q.position + q.count
    event = NONE
    while position < end:
        first = block_in_sequence(w, v, position)
        count = ONE
        while position + count < end and block_in_sequence(w, v, position + count) == first + count:
            count += 1
        event = note(w, v, RELOCATED, first, count, q.number, count << w.block_shift, q.event)
        for block in range(first, first + count):
            block_at(w, v.first_block + block).relocated = 1
            if v.purge_by_indication:
                mark(w, v, block, TRIGGER_INDICATION, event)
        position += count
    v.relocated += q.count
    v.relocations_outstanding -= 1
    if v.relocation_position < v.sequence:
        make_relocation_due(w, v, slot, event)
    elif v.relocations_outstanding == 0:
        v.event = event
        finish_relocation(w, v)
