"""The engine: the rules of ``docs/clockwork.md`` as compiled step functions over plain arrays.

Everything that is compiled stands in this one file, since numba's cache notices no edits in other files. A
`World` holds the whole state, so `run` can return when the event buffer is full and be called again. Section
numbers in the headings are those of the clockwork.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

# --- numbering ------------------------------------------------------------------------------------------
# numpy integers: numba would compile each function anew for every Python integer constant it is given

KIND_NAMES = (
    "select_vm",
    "export_file_system",
    "mount_file_system",
    "set_up_data_flow",
    "indicate_vm_profile",
    "determine_first_set",
    "launch_vm",
    "indicate_pre_relocation",
    "start_relocation",
    "indicate_relocation_in_progress",
    "finish_relocation",
    "apply_writes",
    "use_destination",
    "unmount_file_system",
    "indicate_relocation_completed",
    "empty_read_cache",
    "de_associate",
    "warn_of_expiry",
    "expire",
    "power_down",
    "vm_read",
    "vm_write",
    "vm_discard",
    "vm_flush",
    "vm_done",
    "boot_done",
    "cache_hit",
    "cache_wait",
    "cache_miss",
    "refetch_after_purge",
    "fetch",
    "staged",
    "serve",
    "evict",
    "infer_run",
    "purge",
    "read_destination",
    "read_write_cache",
    "written",
    "relocation_read",
    "relocated",
    "applied",
)
(
    SELECT_VM,
    EXPORT_FILE_SYSTEM,
    MOUNT_FILE_SYSTEM,
    SET_UP_DATA_FLOW,
    INDICATE_VM_PROFILE,
    DETERMINE_FIRST_SET,
    LAUNCH_VM,
    INDICATE_PRE_RELOCATION,
    START_RELOCATION,
    INDICATE_RELOCATION_IN_PROGRESS,
    FINISH_RELOCATION,
    APPLY_WRITES,
    USE_DESTINATION,
    UNMOUNT_FILE_SYSTEM,
    INDICATE_RELOCATION_COMPLETED,
    EMPTY_READ_CACHE,
    DE_ASSOCIATE,
    WARN_OF_EXPIRY,
    EXPIRE,
    POWER_DOWN,
    VM_READ,
    VM_WRITE,
    VM_DISCARD,
    VM_FLUSH,
    VM_DONE,
    BOOT_DONE,
    CACHE_HIT,
    CACHE_WAIT,
    CACHE_MISS,
    REFETCH_AFTER_PURGE,
    FETCH,
    STAGED,
    SERVE,
    EVICT,
    INFER_RUN,
    PURGE,
    READ_DESTINATION,
    READ_WRITE_CACHE,
    WRITTEN,
    RELOCATION_READ,
    RELOCATED,
    APPLIED,
) = np.arange(len(KIND_NAMES))

OP_READ, OP_WRITE, OP_DISCARD, OP_FLUSH, OP_MARK = np.arange(5)
MODE_FULL_RESTORE, MODE_INSTANT_RESTORE, MODE_LIVE_MOUNT, MODE_LOCAL = np.arange(4)
LAUNCH_BY_SHARE, LAUNCH_BY_HEAD_START, LAUNCH_IMMEDIATELY = np.arange(3)

# why a block was fetched, who read it, what purged it: the order of `CAUSES`, `READERS`, `PURGE_TRIGGERS`
CAUSE_VM_READ, CAUSE_RELOCATION_READ, CAUSE_FIRST_SET, CAUSE_PRE_RELOCATION, CAUSE_RELOCATION_STAGING = (
    np.arange(5)
)
READER_VM, READER_RELOCATION = np.arange(2)
TRIGGER_RUN, TRIGGER_INDICATION = np.arange(2)

# where a block is, as the media agent sees it
ABSENT, QUEUED, IN_FLIGHT, PRESENT = np.arange(4)

# what the write cache and the destination hold of a 4 KiB unit
UNIT_UNTOUCHED, UNIT_WRITTEN, UNIT_ZEROED, UNIT_BEING_APPLIED, UNIT_APPLIED = np.arange(5)
UNIT_SHIFT = 12
UNIT_BYTES = 1 << UNIT_SHIFT

# what is due (section 1)
DUE_FETCH, DUE_TRANSMISSION, DUE_DESTINATION, DUE_WRITE_CACHE, DUE_PURGE, DUE_MODE, DUE_ISSUE = np.arange(7)
(
    MODE_LAUNCH,
    MODE_PRE_RELOCATION,
    MODE_START_RELOCATION,
    MODE_WARNING,
    MODE_EXPIRY,
    MODE_CHECK_LOAD,
) = np.arange(6)
CHECKS_IN_WINDOW = 60
DO_VM_READ, DO_VM_WRITE, DO_RELOCATION, DO_APPLY = np.arange(4)
STAGING_NUMBER = np.int64(2**31 - 1)

# what `run` says when it returns
DONE, EVENTS_FULL, EXPIRED_BEFORE_LAUNCH = np.arange(3)

LRU, FIFO = np.arange(2)
PRIORITIES_AS_CLAIMED, PRIORITIES_STRICT, PRIORITIES_EQUAL = np.arange(3)
OPEN_RUNS = 8
NONE = np.int64(-1)
ZERO = np.int64(0)
ONE = np.int64(1)

# --- state ----------------------------------------------------------------------------------------------


# Whatever is handed from function to function is int64, so that each function is compiled for one signature;
# only blocks, of which there may be millions, and events are kept small.


def _record(**fields: str) -> np.dtype:
    return np.dtype(list(fields.items()), align=True)


EVENT = _record(time="i8", detail="i8", kind="i4", block="i4", count="i4", request="i4")
# `key` packs (class, number, block + 1), so that (time, key) orders what is due; `start` is when it began
DUE = _record(time="i8", key="i8", start="i8", what="i8", ref="i8")
BLOCK = _record(
    address="i8",
    position="i4",  # in the relocation sequence without its holes
    place="i4",
    pins="i4",
    fetch="i4",
    older="i4",  # neighbours in the order of eviction
    newer="i4",
    first_waiter="i4",  # parts that wait for the block, in order of arrival
    last_waiter="i4",
    stored="i1",
    in_first_set="i1",
    served="i1",
    marked="i1",
    trigger="i1",
    purge_due="i1",
    ahead="i1",  # counted in `staged_ahead`
    purged="i1",
    relocated="i1",
    touched="i1",  # some unit of the block is not untouched
)
REQUEST = _record(
    start="i8",  # first byte, over all disks
    length="i8",
    think="i8",
    issued="i8",
    order="i8",  # of issue
    op="i8",
    outstanding="i8",
    first_child="i8",
    next_child="i8",
    next_flush="i8",
    writing="i8",
    started="i8",
    done="i8",
)
RELOCATION = _record(number="i8", position="i8", count="i8", outstanding="i8")
PART = _record(bytes="i8", number="i8", slot="i8", block="i8", next="i8")
FETCHING = _record(block="i8", count="i8", number="i8", cause="i8", next="i8", channel="i8", position="i8")
CHANNEL = _record(end="i8", busy="i8", used="i8")
RUN = _record(start="i8", expected="i8", length="i8", extended="i8")

SIM = _record(
    # settings
    block_shift="i8",
    rows="i8",  # of the trace; the mark is request `rows`
    blocks="i8",
    mode="i8",
    launch_rule="i8",
    staged_to_launch="i8",
    head_start_ns="i8",
    relocation_first_ns="i8",  # the start counts from time 0 and comes again each period, or ...
    relocation_period_ns="i8",
    relocation_delay_ns="i8",  # ... if there is no period, from the launch
    load_check_ns="i8",  # 0: no load condition
    load_limit_bytes="i8",  # in a window
    pre_relocation_delay_ns="i8",
    purge_by_run="i8",
    run_length="i8",
    purge_by_indication="i8",
    slots="i8",
    policy="i8",
    priorities="i8",
    relocation_depth="i8",
    relocation_positions="i8",  # of one request
    apply_units="i8",
    stage_depth="i8",
    stage_fetch_blocks="i8",
    fetch_blocks="i8",
    expiry_ns="i8",
    stage_ahead_blocks="i8",
    warning_ns="i8",
    positioning_ns="i8",
    bandwidth="i8",
    mount_ns="i8",
    distance_ns_per_gib="i8",
    link_latency_ns="i8",
    link_bandwidth="i8",
    destination_latency_ns="i8",
    destination_bandwidth="i8",
    write_cache_latency_ns="i8",
    write_cache_bandwidth="i8",
    # clock and buffers
    now="i8",
    begun="i8",
    due="i8",
    dispatch_due="i8",
    events="i8",
    events_lost="i8",
    free_part="i8",
    free_fetch="i8",
    queue_head="i8",
    queue_tail="i8",
    # devices
    idle_channels="i8",
    in_flight="i8",
    link_free_at="i8",
    destination_free_at="i8",
    write_cache_free_at="i8",
    # read cache
    used="i8",
    oldest="i8",
    newest="i8",
    evictable="i8",
    evictable_served="i8",
    # virtual machine
    first_child="i8",  # of the launch
    issue_order="i8",
    unfinished="i8",
    writes_under_way="i8",
    first_flush="i8",
    last_flush="i8",
    vm_parts="i8",
    launched="i8",
    launch_due="i8",
    # staging
    first_set_cursor="i8",
    first_set_staged="i8",
    relocation_cursor="i8",
    staging_fetches="i8",
    pre_relocation="i8",
    staged_ahead="i8",  # blocks that the relocation cursor gave and nobody was sent yet
    # relocation
    launched_ns="i8",
    demand="60i8",  # bytes asked for by the virtual machine, by the time between two checks
    relocating="i8",
    relocation_started="i8",
    relocation_finished="i8",
    next_relocation="i8",
    relocation_position="i8",
    relocations_outstanding="i8",
    run_order="i8",
    # the end
    pending_units="i8",
    apply_cursor="i8",
    applying="i8",
    applying_from="i8",
    applying_to="i8",
    pivoted="i8",
    unmounted="i8",
)


class World(NamedTuple):
    """The whole state of a simulation, as arrays of records; `sim` has one row."""

    sim: np.ndarray
    blocks: np.ndarray
    units: np.ndarray
    requests: np.ndarray
    relocations: np.ndarray
    parts: np.ndarray
    fetches: np.ndarray
    channels: np.ndarray
    due: np.ndarray
    events: np.ndarray
    runs: np.ndarray
    sequence: np.ndarray
    first_set: np.ndarray


compiled = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", _nrt=False)
entry = njit(cache=True, nogil=True, error_model="numpy", _nrt=False, no_cfunc_wrapper=True)

# --- time and events (section 1) ------------------------------------------------------------------------


@compiled
def transfer_ns(size, bandwidth):
    """Return ceil(size * 10^9 / bandwidth)."""
    return (size * 1_000_000_000 + bandwidth - 1) // bandwidth


@compiled
def note(s, events, kind, block, count, request, detail):
    """Append an event at the current instant."""
    if s.events == len(events):
        s.events_lost += 1
        return
    event = events[s.events]
    event.time = s.now
    event.kind = kind
    event.block = block
    event.count = count
    event.request = request
    event.detail = detail
    s.events += 1


@compiled
def announce(s, events, kind, detail):
    """Append an event that is about no block and no request."""
    note(s, events, kind, NONE, ZERO, NONE, detail)


@compiled
def announce_count(s, events, kind, count):
    """Append an event that is about so many blocks, whichever they are."""
    note(s, events, kind, NONE, count, NONE, ZERO)


@compiled
def is_before(first, second):
    """Tell which of two things due comes first."""
    return first.time < second.time or (first.time == second.time and first.key < second.key)


@compiled
def copy_due(target, source):
    """Copy one record of the heap over another."""
    target.time = source.time
    target.key = source.key
    target.start = source.start
    target.what = source.what
    target.ref = source.ref


@compiled
def make_due(s, due, time, due_class, number, block, what, ref, start):
    """Put something on the heap of what is due; its last row but one is scratch."""
    new = due[len(due) - 1]
    new.time = time
    new.key = (((due_class << 31) | number) << 29) | (block + 1)
    new.start = start
    new.what = what
    new.ref = ref
    at = s.due
    s.due += 1
    while at > 0:
        parent = (at - 1) >> 1
        if not is_before(new, due[parent]):
            break
        copy_due(due[at], due[parent])
        at = parent
    copy_due(due[at], new)


@compiled
def make_mode_due(s, due, time, mode):
    """Let a mode change at that time."""
    make_due(s, due, time, DUE_MODE, mode, NONE, ZERO, ZERO, time)


@compiled
def make_issue_due(s, due, time, number, slot):
    """Let a request be issued at that time."""
    make_due(s, due, time, DUE_ISSUE, number, NONE, ZERO, slot, time)


@compiled
def take_due(w):
    """Move what is due first from the heap to the scratch record before the last, and return that record."""
    s = w.sim[0]
    taken = w.due[len(w.due) - 2]
    copy_due(taken, w.due[0])
    s.due -= 1
    size = s.due
    last = w.due[size]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and is_before(w.due[child + 1], w.due[child]):
            child += 1
        if not is_before(w.due[child], last):
            break
        copy_due(w.due[at], w.due[child])
        at = child
    copy_due(w.due[at], last)
    return taken


@compiled
def use_destination_volume(s, due, size, number, what, ref):
    """Hand an operation to the destination, first come first served."""
    start = max(s.now, s.destination_free_at)
    s.destination_free_at = start + s.destination_latency_ns + transfer_ns(size, s.destination_bandwidth)
    make_due(s, due, s.destination_free_at, DUE_DESTINATION, number, NONE, what, ref, start)


@compiled
def use_write_cache(s, due, size, number, what, ref):
    """Hand an operation to the write cache, first come first served."""
    start = max(s.now, s.write_cache_free_at)
    s.write_cache_free_at = start + s.write_cache_latency_ns + transfer_ns(size, s.write_cache_bandwidth)
    make_due(s, due, s.write_cache_free_at, DUE_WRITE_CACHE, number, NONE, what, ref, start)


@compiled
def transmit(w, part):
    """Hand a part's bytes to the link; latency delays, it does not occupy."""
    s = w.sim[0]
    p = w.parts[part]
    start = max(s.now, s.link_free_at)
    s.link_free_at = start + transfer_ns(p.bytes, s.link_bandwidth)
    arrival = s.link_free_at + s.link_latency_ns
    make_due(s, w.due, arrival, DUE_TRANSMISSION, p.number, p.block, ZERO, part, start)


# --- the read cache (section 5) -------------------------------------------------------------------------


@compiled
def count_evictable(w, block, change):
    """Keep the counts of evictable blocks when one becomes evictable (+1) or ceases to be (-1)."""
    s = w.sim[0]
    b = w.blocks[block]
    if b.place == PRESENT and b.pins == 0:
        s.evictable += change
        if b.served:
            s.evictable_served += change


@compiled
def append_newest(w, block):
    """Make a block the last that the policy would evict."""
    s = w.sim[0]
    b = w.blocks[block]
    b.older = s.newest
    b.newer = NONE
    if s.newest == NONE:
        s.oldest = block
    else:
        w.blocks[s.newest].newer = block
    s.newest = block


@compiled
def unlink(w, block):
    """Take a block out of the policy's order."""
    s = w.sim[0]
    b = w.blocks[block]
    if b.older == NONE:
        s.oldest = b.newer
    else:
        w.blocks[b.older].newer = b.newer
    if b.newer == NONE:
        s.newest = b.older
    else:
        w.blocks[b.newer].older = b.older


@compiled
def enter_cache(w, block):
    """A block's fetch completed: its slot now holds it."""
    b = w.blocks[block]
    b.place = PRESENT
    b.served = 0
    append_newest(w, block)
    count_evictable(w, block, ONE)


@compiled
def touch(w, block):
    """Tell the policy of a hit."""
    if w.sim[0].policy == LRU:
        unlink(w, block)
        append_newest(w, block)


@compiled
def is_no_longer_ahead(w, block):
    """Let the relocation cursor go on by a block: this one was sent to somebody, or is gone."""
    w.sim[0].staged_ahead -= w.blocks[block].ahead
    w.blocks[block].ahead = 0


@compiled
def leave_cache(w, block):
    """Free the slot of an unpinned block."""
    b = w.blocks[block]
    count_evictable(w, block, -ONE)
    unlink(w, block)
    b.place = ABSENT
    b.marked = 0
    is_no_longer_ahead(w, block)
    w.sim[0].used -= 1


@compiled
def evict_first(w, only_served):
    """Evict the first block in the policy's order that may go; the caller knows that there is one."""
    block = w.sim[0].oldest
    while w.blocks[block].pins > 0 or (only_served and not w.blocks[block].served):
        block = w.blocks[block].newer
    note(w.sim[0], w.events, EVICT, block, ONE, NONE, 1 - w.blocks[block].served)
    leave_cache(w, block)


@compiled
def stager_slots(s):
    """Return how many slots a stager could have now."""
    return s.slots - s.used + s.evictable_served


@compiled
def take_stager_slots(w, count):
    """Take slots by the stagers' rule; the caller knows that they can be had."""
    s = w.sim[0]
    while s.slots - s.used < count:
        evict_first(w, ONE)
    s.used += count


@compiled
def take_demand_slots(w, count):
    """Take slots by the rule of demand: all of them (True) or none (False)."""
    s = w.sim[0]
    if s.slots - s.used + s.evictable < count:
        return False
    while s.slots - s.used < count:
        evict_first(w, ZERO)
    s.used += count
    return True


# --- the backup device and its queue (section 6) --------------------------------------------------------


@compiled
def counts_as_queued(s, cause):
    """Tell whether a fetch is staging that goes through the queue of demand."""
    if s.priorities == PRIORITIES_EQUAL:
        return cause >= CAUSE_FIRST_SET
    return cause == CAUSE_RELOCATION_STAGING


@compiled
def new_fetch(w, block, count, number, cause):
    """Take a fetch record and tie the blocks to it."""
    s = w.sim[0]
    fetch = s.free_fetch
    f = w.fetches[fetch]
    s.free_fetch = f.next
    f.block = block
    f.count = count
    f.number = number
    f.cause = cause
    f.next = NONE
    f.channel = NONE
    for b in range(block, block + count):
        w.blocks[b].place = QUEUED
        w.blocks[b].fetch = fetch
    f.position = s.first_set_cursor - count
    s.staging_fetches += counts_as_queued(s, cause)
    return fetch


@compiled
def release_fetch(w, fetch):
    """Give a fetch record back."""
    s = w.sim[0]
    s.staging_fetches -= counts_as_queued(s, w.fetches[fetch].cause)
    w.fetches[fetch].next = s.free_fetch
    s.free_fetch = fetch


@compiled
def enqueue(w, block, count, number, cause):
    """Append a fetch to the queue of the device."""
    s = w.sim[0]
    fetch = new_fetch(w, block, count, number, cause)
    if s.queue_head == NONE:
        s.queue_head = fetch
    else:
        w.fetches[s.queue_tail].next = fetch
    s.queue_tail = fetch


@compiled
def pop_queue(w):
    """Take the head off the queue."""
    s = w.sim[0]
    s.queue_head = w.fetches[s.queue_head].next
    if s.queue_head == NONE:
        s.queue_tail = NONE


@compiled
def choose_channel(w, address):
    """Return the lowest idle channel that stands at the address, else the lowest idle one."""
    lowest_idle = NONE
    for c in range(len(w.channels)):
        if not w.channels[c].busy:
            if w.channels[c].used and w.channels[c].end == address:
                return c
            if lowest_idle == NONE:
                lowest_idle = c
    return lowest_idle


@compiled
def start_fetch(w, fetch):
    """Start a fetch that has its slots on an idle channel."""
    s = w.sim[0]
    f = w.fetches[fetch]
    address = w.blocks[f.block].address
    size = f.count << s.block_shift
    f.channel = choose_channel(w, address)
    c = w.channels[f.channel]
    cost = transfer_ns(size, s.bandwidth)
    if not (c.used and c.end == address):
        # in two parts: the product with the whole distance would overflow beyond a terabyte
        distance = abs(address - c.end)
        cost += s.positioning_ns + (distance >> 30) * s.distance_ns_per_gib
        cost += ((distance & ((1 << 30) - 1)) * s.distance_ns_per_gib) >> 30
    if not c.used:
        cost += s.mount_ns
    c.used = 1
    c.busy = 1
    c.end = address + size
    s.idle_channels -= 1
    s.in_flight += 1
    for b in range(f.block, f.block + f.count):
        w.blocks[b].place = IN_FLIGHT
    number = STAGING_NUMBER if f.number == NONE else f.number
    note(s, w.events, FETCH, f.block, f.count, f.number, f.cause)
    make_due(s, w.due, s.now + cost, DUE_FETCH, number, f.block, ZERO, fetch, s.now)


@compiled
def complete_fetch(w, fetch):
    """Put what came into the cache, and send it to those who wait for it."""
    s = w.sim[0]
    f = w.fetches[fetch]
    w.channels[f.channel].busy = 0
    s.idle_channels += 1
    s.in_flight -= 1
    note(s, w.events, STAGED, f.block, f.count, f.number, f.cause)
    for block in range(f.block, f.block + f.count):
        enter_cache(w, block)
        b = w.blocks[block]
        s.first_set_staged += b.in_first_set
        part = np.int64(b.first_waiter)
        while part != NONE:
            following = w.parts[part].next
            transmit(w, part)
            part = following
        b.first_waiter = NONE
        b.last_waiter = NONE
    release_fetch(w, fetch)
    if s.launch_rule == LAUNCH_BY_SHARE and s.first_set_staged >= s.staged_to_launch:
        make_launch_due(w)


@compiled
def lies_behind(w, block):
    """Tell whether a block follows the one before it on the medium."""
    return w.blocks[block].address == w.blocks[block - 1].address + (1 << w.sim[0].block_shift)


@compiled
def may_be_staged(w, block):
    """Tell whether a stager would fetch the block."""
    b = w.blocks[block]
    return b.stored and b.place == ABSENT and not b.relocated and not b.purged


@compiled
def next_of_first_set(w):
    """Return the next block of the first set, or NONE; the cursor moves behind it."""
    s = w.sim[0]
    while s.first_set_cursor < len(w.first_set):
        block = w.first_set[s.first_set_cursor]
        s.first_set_cursor += 1
        if may_be_staged(w, block):
            return block
    return NONE


@compiled
def next_of_relocation(w):
    """Return the next block of the relocation sequence, or NONE; the cursor moves behind it."""
    s = w.sim[0]
    if s.staged_ahead >= s.stage_ahead_blocks:
        return NONE
    while s.relocation_cursor < len(w.sequence):
        block = w.sequence[s.relocation_cursor]
        s.relocation_cursor += 1
        if may_be_staged(w, block):
            return block
    return NONE


@compiled
def next_to_stage(w):
    """Return the next block that a low-priority cursor gives, or NONE, and what it is for."""
    s = w.sim[0]
    if s.relocation_finished:
        return NONE, CAUSE_FIRST_SET
    block = next_of_first_set(w)
    if block != NONE:
        return block, CAUSE_FIRST_SET
    cause = CAUSE_PRE_RELOCATION
    may_give = s.pre_relocation == 1
    if s.relocating:
        cause = CAUSE_RELOCATION_STAGING
        may_give = s.priorities != PRIORITIES_AS_CLAIMED
    if may_give:
        block = next_of_relocation(w)
    return block, cause


@compiled
def take_neighbours(w, block, cause):
    """Let the cursor that gave a block give its neighbours too; return how many blocks that makes."""
    s = w.sim[0]
    most = min(s.stage_fetch_blocks, stager_slots(s))
    if cause != CAUSE_FIRST_SET:
        most = min(most, s.stage_ahead_blocks - s.staged_ahead)
    count = 1
    while count < most:
        following = block + count
        if cause == CAUSE_FIRST_SET:
            is_next = s.first_set_cursor < len(w.first_set) and w.first_set[s.first_set_cursor] == following
        else:
            is_next = s.relocation_cursor < len(w.sequence) and w.sequence[s.relocation_cursor] == following
        if not (is_next and lies_behind(w, following) and may_be_staged(w, following)):
            break
        if cause == CAUSE_FIRST_SET:
            s.first_set_cursor += 1
        else:
            s.relocation_cursor += 1
        count += 1
    if cause != CAUSE_FIRST_SET:
        for ahead in range(block, block + count):
            w.blocks[ahead].ahead = 1
        s.staged_ahead += count
    return count


@compiled
def refill(w):
    """Keep staging in the queue of demand, as far as the priorities want it there."""
    s = w.sim[0]
    while s.staging_fetches < s.stage_depth and stager_slots(s) > 0:
        if s.priorities == PRIORITIES_EQUAL:
            block, cause = next_to_stage(w)
        elif s.priorities == PRIORITIES_AS_CLAIMED and s.relocating:
            block, cause = next_of_relocation(w), CAUSE_RELOCATION_STAGING
        else:
            break
        if block == NONE:
            break
        enqueue(w, block, take_neighbours(w, block, cause), NONE, cause)


@compiled
def take_back(w, fetch):
    """A staging fetch found no slots: its blocks are absent again, and the cursor returns to the first."""
    s = w.sim[0]
    f = w.fetches[fetch]
    pop_queue(w)
    for block in range(f.block, f.block + f.count):
        w.blocks[block].place = ABSENT
        is_no_longer_ahead(w, block)
    if f.cause == CAUSE_FIRST_SET:
        s.first_set_cursor = min(s.first_set_cursor, f.position)
    else:
        s.relocation_cursor = min(s.relocation_cursor, np.int64(w.blocks[f.block].position))
    release_fetch(w, fetch)


@compiled
def is_demanded(w, fetch):
    """Tell whether a reader waits for a fetch."""
    f = w.fetches[fetch]
    if f.cause <= CAUSE_RELOCATION_READ:
        return True
    for block in range(f.block, f.block + f.count):
        if w.blocks[block].first_waiter != NONE:
            return True
    return False


@compiled
def start_head_of_queue(w):
    """Deal with the head of the queue; False if it has to wait."""
    fetch = w.sim[0].queue_head
    f = w.fetches[fetch]
    if is_demanded(w, fetch):
        if not take_demand_slots(w, f.count):
            return False
    elif stager_slots(w.sim[0]) >= f.count:
        take_stager_slots(w, f.count)
    else:
        take_back(w, fetch)
        return True
    pop_queue(w)
    start_fetch(w, fetch)
    return True


@compiled
def start_low_priority(w):
    """Give an idle channel one block of a low-priority cursor; False if there is none."""
    if w.sim[0].priorities == PRIORITIES_EQUAL or stager_slots(w.sim[0]) == 0:
        return False
    block, cause = next_to_stage(w)
    if block == NONE:
        return False
    count = take_neighbours(w, block, cause)
    fetch = new_fetch(w, block, count, NONE, cause)
    take_stager_slots(w, count)
    start_fetch(w, fetch)
    return True


@compiled
def dispatch(w):
    """Give the idle channels work; then launch if staging has come to its end."""
    s = w.sim[0]
    going_on = True
    while going_on:
        refill(w)
        if s.idle_channels == 0:
            break
        going_on = start_low_priority(w) if s.queue_head == NONE else start_head_of_queue(w)
    if s.launch_rule == LAUNCH_BY_SHARE and not s.launch_due and s.in_flight == 0:
        make_launch_due(w)


# --- the media agent serves parts (section 4) -----------------------------------------------------------


@compiled
def begin_part(w, number, slot, block, size):
    """A reader's need of a block arrives; True if the block has to be fetched for it."""
    s = w.sim[0]
    b = w.blocks[block]
    reader = READER_VM if number <= s.rows else READER_RELOCATION
    part = s.free_part
    p = w.parts[part]
    s.free_part = p.next
    p.bytes = size
    p.number = number
    p.slot = slot
    p.block = block
    p.next = NONE
    s.vm_parts += reader == READER_VM
    if reader == READER_VM and s.load_check_ns > 0:
        s.demand[((s.now - s.launched_ns) // s.load_check_ns) % CHECKS_IN_WINDOW] += size
    count_evictable(w, block, -ONE)
    b.pins += 1
    missing = False
    if b.place == PRESENT:
        note(s, w.events, CACHE_HIT, block, ONE, number, reader)
        touch(w, block)
        transmit(w, part)
    else:
        if b.last_waiter == NONE:
            b.first_waiter = part
        else:
            w.parts[b.last_waiter].next = part
        b.last_waiter = part
        missing = b.place == ABSENT
        note(s, w.events, CACHE_MISS if missing else CACHE_WAIT, block, ONE, number, reader)
        if missing:
            b.place = QUEUED
            if b.purged and reader == READER_VM:
                note(s, w.events, REFETCH_AFTER_PURGE, block, ONE, number, reader)
    if s.relocating and s.purge_by_run:
        track(w, np.int64(b.position))
    return missing


@compiled
def joins(w, start, count, block):
    """Tell whether a missing block goes into the same fetch as the `count` blocks from `start`."""
    return count < w.sim[0].fetch_blocks and block == start + count and lies_behind(w, block)


@compiled
def complete_transmission(w, part):
    """A part's bytes arrived: take off its pin, and let its reader go on."""
    s = w.sim[0]
    p = w.parts[part]
    number, slot, block = p.number, p.slot, p.block
    is_vm = number <= s.rows
    note(s, w.events, SERVE, block, ONE, number, READER_VM if is_vm else READER_RELOCATION)
    p.next = s.free_part
    s.free_part = part
    b = w.blocks[block]
    b.pins -= 1
    b.served = 1
    is_no_longer_ahead(w, block)
    count_evictable(w, block, ONE)
    make_purge_due(w, block)
    if not is_vm:
        w.relocations[slot].outstanding -= 1
        if w.relocations[slot].outstanding == 0:
            size = w.relocations[slot].count << s.block_shift
            use_destination_volume(s, w.due, size, number, DO_RELOCATION, slot)
        return
    s.vm_parts -= 1
    complete_operation(w, number)
    if s.pivoted:
        unmount_if_quiet(w)


# --- the virtual machine (sections 2 and 3) -------------------------------------------------------------


@compiled
def tally(w, start, end):
    """Return how many bytes of a range are served by the write cache and by the destination."""
    shift = w.sim[0].block_shift
    from_write_cache = 0
    from_destination = 0
    for unit in range(start >> UNIT_SHIFT, (end + UNIT_BYTES - 1) >> UNIT_SHIFT):
        size = min(end, (unit + 1) << UNIT_SHIFT) - max(start, unit << UNIT_SHIFT)
        state = w.units[unit]
        if state == UNIT_WRITTEN or state == UNIT_BEING_APPLIED:
            from_write_cache += size
        elif state == UNIT_APPLIED:
            from_destination += size
        elif state == UNIT_UNTOUCHED and w.blocks[unit >> (shift - UNIT_SHIFT)].relocated:
            from_destination += size
    return from_write_cache, from_destination


@compiled
def source_bytes(w, block, start, end):
    """Return how many bytes of a range the logical source serves from one block."""
    b = w.blocks[block]
    if b.relocated or not b.stored:
        return 0
    shift = w.sim[0].block_shift
    start = max(start, block << shift)
    end = min(end, (block + 1) << shift)
    if start >= end:
        return 0
    if not b.touched:
        return end - start
    total = 0
    for unit in range(start >> UNIT_SHIFT, (end + UNIT_BYTES - 1) >> UNIT_SHIFT):
        if w.units[unit] == UNIT_UNTOUCHED:
            total += min(end, (unit + 1) << UNIT_SHIFT) - max(start, unit << UNIT_SHIFT)
    return total


@compiled
def route(w, number, start, end, start2, end2):
    """Cut a read of one or two ranges (the second behind the first, or empty) into operations and parts."""
    s = w.sim[0]
    r = w.requests[number]
    from_write_cache, from_destination = tally(w, start, end)
    if end2 > start2:
        more_write_cache, more_destination = tally(w, start2, end2)
        from_write_cache += more_write_cache
        from_destination += more_destination
    if from_write_cache > 0:
        r.outstanding += 1
        use_write_cache(s, w.due, from_write_cache, number, DO_VM_READ, from_write_cache)
    if from_destination > 0:
        r.outstanding += 1
        use_destination_volume(s, w.due, from_destination, number, DO_VM_READ, from_destination)
    first_missing, missing = NONE, ZERO
    for block in range(start >> s.block_shift, ((max(end, end2) - 1) >> s.block_shift) + 1):
        size = source_bytes(w, block, start, end)
        if end2 > start2:
            size += source_bytes(w, block, start2, end2)
        if size == 0:
            continue
        r.outstanding += 1
        is_missing = begin_part(w, number, NONE, block, size)
        if missing > 0 and not (is_missing and joins(w, first_missing, missing, block)):
            enqueue(w, first_missing, missing, number, CAUSE_VM_READ)
            missing = ZERO
        if is_missing and missing == 0:
            first_missing = block
        missing += is_missing
    if missing > 0:
        enqueue(w, first_missing, missing, number, CAUSE_VM_READ)


@compiled
def note_request(w, number, kind, detail):
    """Note something about the range of a request."""
    s = w.sim[0]
    r = w.requests[number]
    if r.length == 0:
        note(s, w.events, kind, NONE, ZERO, number, detail)
    else:
        first = r.start >> s.block_shift
        count = ((r.start + r.length - 1) >> s.block_shift) - first + 1
        note(s, w.events, kind, first, count, number, detail)


@compiled
def must_be_read(w, unit):
    """Tell whether a write of part of a unit has to read it first."""
    return w.units[unit] != UNIT_WRITTEN and w.units[unit] != UNIT_BEING_APPLIED


@compiled
def issue_write(w, number):
    """Read the units that the write covers in part, then write."""
    s = w.sim[0]
    r = w.requests[number]
    s.writes_under_way += 1
    end = r.start + r.length
    first, last = r.start >> UNIT_SHIFT, (end - 1) >> UNIT_SHIFT
    first_partial = r.start & (UNIT_BYTES - 1) != 0 or (first == last and end & (UNIT_BYTES - 1) != 0)
    last_partial = first != last and end & (UNIT_BYTES - 1) != 0
    read_first = not s.pivoted and first_partial and must_be_read(w, first)
    read_last = not s.pivoted and last_partial and must_be_read(w, last)
    if read_first and read_last:
        route(w, number, first << 12, (first + 1) << 12, last << 12, (last + 1) << 12)
    elif read_first:
        route(w, number, first << 12, (first + 1) << 12, ZERO, ZERO)
    elif read_last:
        route(w, number, last << 12, (last + 1) << 12, ZERO, ZERO)
    if r.outstanding == 0:
        begin_writing(w, number)


@compiled
def begin_writing(w, number):
    """Hand a write's bytes to the volume that takes writes now."""
    r = w.requests[number]
    r.writing = 1
    r.outstanding = 1
    if w.sim[0].pivoted:
        use_destination_volume(w.sim[0], w.due, r.length, number, DO_VM_WRITE, ZERO)
    else:
        use_write_cache(w.sim[0], w.due, r.length, number, DO_VM_WRITE, ZERO)


@compiled
def set_unit(w, unit, state):
    """Change a unit, keeping count of those that wait to be applied."""
    s = w.sim[0]
    was_pending = w.units[unit] == UNIT_WRITTEN or w.units[unit] == UNIT_ZEROED
    is_pending = state == UNIT_WRITTEN or state == UNIT_ZEROED
    s.pending_units += np.int64(is_pending) - np.int64(was_pending)
    w.units[unit] = state
    w.blocks[unit >> (s.block_shift - UNIT_SHIFT)].touched = 1


@compiled
def discard(w, number):
    """Zero the units that a discard covers as a whole, at no cost."""
    r = w.requests[number]
    if w.sim[0].pivoted:
        return
    first = (r.start + UNIT_BYTES - 1) >> UNIT_SHIFT
    for unit in range(first, (r.start + r.length) >> UNIT_SHIFT):
        set_unit(w, unit, UNIT_ZEROED)


@compiled
def begin_flush(w, number):
    """Let a flush wait for the writes under way."""
    s = w.sim[0]
    r = w.requests[number]
    r.outstanding = s.writes_under_way
    r.next_flush = NONE
    if s.writes_under_way == 0:
        return
    if s.first_flush == NONE:
        s.first_flush = number
    else:
        w.requests[s.last_flush].next_flush = number
    s.last_flush = number


@compiled
def issue_request(w, number):
    """Issue a row of the trace, or its mark."""
    s = w.sim[0]
    r = w.requests[number]
    r.issued = s.now
    r.order = s.issue_order
    r.started = 1
    s.issue_order += 1
    if r.op == OP_MARK:
        announce(s, w.events, BOOT_DONE, ZERO)
        r.done = 1
        return
    s.unfinished += 1
    note_request(w, number, VM_READ + r.op, r.length)
    if r.op == OP_READ:
        route(w, number, r.start, r.start + r.length, ZERO, ZERO)
    elif r.op == OP_WRITE:
        issue_write(w, number)
    elif r.op == OP_DISCARD:
        discard(w, number)
    else:
        begin_flush(w, number)
    if r.outstanding == 0:
        complete_request(w, number)


@compiled
def complete_operation(w, number):
    """One operation or part of a request is over; the last one lets it go on."""
    r = w.requests[number]
    r.outstanding -= 1
    if r.outstanding > 0:
        return
    if r.op == OP_WRITE and not r.writing:
        begin_writing(w, number)
    else:
        complete_request(w, number)


@compiled
def complete_request(w, number):
    """A request is over: its children are due after their think time."""
    s = w.sim[0]
    r = w.requests[number]
    r.done = 1
    s.unfinished -= 1
    note_request(w, number, VM_DONE, s.now - r.issued)
    child = r.first_child
    while child != NONE:
        make_issue_due(s, w.due, s.now + w.requests[child].think, child, ZERO)
        child = w.requests[child].next_child


@compiled
def complete_write(w, number):
    """What was written counts from now on; flushes and the application of writes go on."""
    s = w.sim[0]
    r = w.requests[number]
    state = UNIT_APPLIED if s.pivoted else UNIT_WRITTEN
    for unit in range(r.start >> UNIT_SHIFT, ((r.start + r.length - 1) >> UNIT_SHIFT) + 1):
        set_unit(w, unit, state)
    note_request(w, number, WRITTEN, s.pivoted)
    s.writes_under_way -= 1
    complete_operation(w, number)
    release_flushes(w, r.order)
    if s.relocation_finished and not s.applying and not s.pivoted:
        apply_next(w)


@compiled
def release_flushes(w, write_order):
    """Complete the flushes for which a write was the last one to wait for."""
    s = w.sim[0]
    before = NONE
    flush = s.first_flush
    while flush != NONE:
        f = w.requests[flush]
        following = f.next_flush
        if f.order > write_order:
            f.outstanding -= 1
        if f.outstanding == 0:
            if before == NONE:
                s.first_flush = following
            else:
                w.requests[before].next_flush = following
            if following == NONE:
                s.last_flush = before
            complete_request(w, flush)
        else:
            before = flush
        flush = following


# --- coordination and relocation (section 7) ------------------------------------------------------------


@compiled
def make_launch_due(w):
    """Let the launch come in this instant, once."""
    s = w.sim[0]
    if not s.launch_due:
        s.launch_due = 1
        make_mode_due(s, w.due, s.now, MODE_LAUNCH)


@compiled
def begin(w):
    """Prepare everything at time 0."""
    s = w.sim[0]
    s.dispatch_due = 1
    if s.mode == MODE_LOCAL:
        make_launch_due(w)
        return
    if s.mode == MODE_LIVE_MOUNT:
        announce(s, w.events, SELECT_VM, ZERO)
    announce(s, w.events, EXPORT_FILE_SYSTEM, ZERO)
    announce(s, w.events, MOUNT_FILE_SYSTEM, ZERO)
    if s.mode != MODE_LIVE_MOUNT:
        announce(s, w.events, SET_UP_DATA_FLOW, ZERO)
    if s.mode == MODE_FULL_RESTORE:
        make_mode_due(s, w.due, ZERO, MODE_START_RELOCATION)
        return
    announce(s, w.events, INDICATE_VM_PROFILE, ZERO)
    announce_count(s, w.events, DETERMINE_FIRST_SET, len(w.first_set))
    if s.launch_rule == LAUNCH_BY_HEAD_START:
        s.launch_due = 1
        make_mode_due(s, w.due, s.head_start_ns, MODE_LAUNCH)
    elif s.launch_rule == LAUNCH_IMMEDIATELY or s.staged_to_launch == 0:
        make_launch_due(w)
    if s.mode == MODE_LIVE_MOUNT and s.expiry_ns >= 0:
        make_mode_due(s, w.due, s.expiry_ns, MODE_EXPIRY)


@compiled
def relocation_start(s):
    """Return when the relocation starts at the latest, for a launch now."""
    if s.relocation_period_ns == 0:
        return s.now + s.relocation_delay_ns
    at = s.relocation_first_ns
    while at < s.now:
        at += s.relocation_period_ns
    return at


@compiled
def check_load(w):
    """Start the relocation if the virtual machine asked for little in the last window; else look again."""
    s = w.sim[0]
    if s.relocation_started:
        return
    asked = 0
    for i in range(CHECKS_IN_WINDOW):
        asked += s.demand[i]
    if asked < s.load_limit_bytes:
        start_relocation(w)
        return
    # the oldest span of the window becomes the one that begins now
    s.demand[((s.now - s.launched_ns) // s.load_check_ns) % CHECKS_IN_WINDOW] = 0
    make_mode_due(s, w.due, s.now + s.load_check_ns, MODE_CHECK_LOAD)


@compiled
def launch(w):
    """Launch the virtual machine, and set the times that count from the launch."""
    s = w.sim[0]
    s.launched = 1
    s.launched_ns = s.now
    announce(s, w.events, LAUNCH_VM, s.first_set_staged)
    child = s.first_child
    while child != NONE:
        make_issue_due(s, w.due, s.now + w.requests[child].think, child, ZERO)
        child = w.requests[child].next_child
    if s.mode == MODE_INSTANT_RESTORE:
        make_mode_due(s, w.due, s.now + s.pre_relocation_delay_ns, MODE_PRE_RELOCATION)
        make_mode_due(s, w.due, relocation_start(s), MODE_START_RELOCATION)
        if s.load_check_ns > 0:
            make_mode_due(s, w.due, s.now + CHECKS_IN_WINDOW * s.load_check_ns, MODE_CHECK_LOAD)
    elif s.mode == MODE_LIVE_MOUNT and s.expiry_ns >= 0:
        at = max(s.now, s.expiry_ns - s.warning_ns)
        make_mode_due(s, w.due, at, MODE_WARNING)


@compiled
def start_relocation(w):
    """Start the relocation, and tell the media agent of it."""
    s = w.sim[0]
    if s.relocation_started:
        return
    s.relocation_started = 1
    announce(s, w.events, START_RELOCATION, ZERO)
    announce(s, w.events, INDICATE_RELOCATION_IN_PROGRESS, ZERO)
    if len(w.sequence) == 0:
        finish_relocation(w)
        return
    s.relocating = 1
    for slot in range(s.relocation_depth):
        make_issue_due(s, w.due, s.now, s.next_relocation, slot)
        s.next_relocation += 1


@compiled
def issue_relocation(w, number, slot):
    """Issue the relocation's read of its next positions."""
    s = w.sim[0]
    count = min(s.relocation_positions, len(w.sequence) - s.relocation_position)
    if count == 0:
        return
    first = s.relocation_position
    s.relocation_position += count
    s.relocations_outstanding += 1
    q = w.relocations[slot]
    q.number = number
    q.position = first
    q.count = count
    q.outstanding = count
    note(s, w.events, RELOCATION_READ, w.sequence[first], count, number, count << s.block_shift)
    first_missing, missing = NONE, ZERO
    for position in range(first, first + count):
        block = w.sequence[position]
        is_missing = begin_part(w, number, slot, block, 1 << s.block_shift)
        if missing > 0 and not (is_missing and joins(w, first_missing, missing, block)):
            enqueue(w, first_missing, missing, number, CAUSE_RELOCATION_READ)
            missing = ZERO
        if is_missing and missing == 0:
            first_missing = block
        missing += is_missing
    if missing > 0:
        enqueue(w, first_missing, missing, number, CAUSE_RELOCATION_READ)


@compiled
def complete_relocation_request(w, slot):
    """A relocation request is on the destination: route reads there from now on, and go on."""
    s = w.sim[0]
    q = w.relocations[slot]
    number, first, end = q.number, q.position, q.position + q.count
    run_start = first
    for position in range(first, end):
        block = w.sequence[position]
        w.blocks[block].relocated = 1
        if position + 1 == end or w.sequence[position + 1] != block + 1:
            count = position + 1 - run_start
            note(s, w.events, RELOCATED, w.sequence[run_start], count, number, count << s.block_shift)
            run_start = position + 1
    if s.purge_by_indication:
        for position in range(first, end):
            mark(w, w.sequence[position], TRIGGER_INDICATION)
    s.relocations_outstanding -= 1
    if s.relocation_position < len(w.sequence):
        make_issue_due(s, w.due, s.now, s.next_relocation, slot)
        s.next_relocation += 1
    elif s.relocations_outstanding == 0:
        finish_relocation(w)


# --- tracking and purging (section 8) -------------------------------------------------------------------


@compiled
def track(w, position):
    """Look at a read at a position of the relocation sequence, and mark what belongs to a run."""
    s = w.sim[0]
    s.run_order += 1
    found = NONE
    least_recent = 0
    for i in range(len(w.runs)):
        r = w.runs[i]
        if r.length > 0 and r.expected == position and (found == NONE or r.extended > w.runs[found].extended):
            found = i
        if r.extended < w.runs[least_recent].extended:
            least_recent = i
    if found == NONE:
        r = w.runs[least_recent]
        r.start = position
        r.length = 1
    else:
        r = w.runs[found]
        r.length += 1
    r.expected = position + 1
    r.extended = s.run_order
    if r.length == s.run_length:
        note(s, w.events, INFER_RUN, w.sequence[r.start], r.length, NONE, ZERO)
        for p in range(r.start, position + 1):
            mark(w, w.sequence[p], TRIGGER_RUN)
    elif r.length > s.run_length:
        mark(w, w.sequence[position], TRIGGER_RUN)


@compiled
def mark(w, block, trigger):
    """Mark a block for purging if the media agent has it or is about to."""
    b = w.blocks[block]
    if b.place != ABSENT:
        if not b.marked:
            b.trigger = trigger
        b.marked = 1
        make_purge_due(w, block)


@compiled
def make_purge_due(w, block):
    """Let a marked block go in this instant if it was served and nobody waits for it."""
    b = w.blocks[block]
    if b.marked and b.place == PRESENT and b.pins == 0 and b.served and not b.purge_due:
        b.purge_due = 1
        make_due(w.sim[0], w.due, w.sim[0].now, DUE_PURGE, ZERO, block, ZERO, ZERO, w.sim[0].now)


@compiled
def purge(w, block):
    """Drop a marked block from the read cache."""
    b = w.blocks[block]
    b.purge_due = 0
    if b.marked and b.place == PRESENT and b.pins == 0:
        note(w.sim[0], w.events, PURGE, block, ONE, NONE, np.int64(b.trigger))
        leave_cache(w, block)
        b.purged = 1


# --- the end of a restore (section 9) -------------------------------------------------------------------


@compiled
def finish_relocation(w):
    """Everything is on the destination but the writes."""
    s = w.sim[0]
    s.relocating = 0
    s.relocation_finished = 1
    announce(s, w.events, FINISH_RELOCATION, ZERO)
    announce(s, w.events, APPLY_WRITES, s.pending_units << UNIT_SHIFT)
    apply_next(w)


@compiled
def apply_next(w):
    """Begin to apply the next run of written units, or pivot if there is none."""
    s = w.sim[0]
    s.applying = 0
    while s.pending_units > 0:
        unit = s.apply_cursor
        while unit < len(w.units) and w.units[unit] != UNIT_WRITTEN:
            if w.units[unit] == UNIT_ZEROED:
                set_unit(w, unit, UNIT_APPLIED)
            unit += 1
        if unit == len(w.units):
            s.apply_cursor = 0
            continue
        s.applying_from = unit
        while (
            unit < len(w.units) and w.units[unit] == UNIT_WRITTEN and unit - s.applying_from < s.apply_units
        ):
            set_unit(w, unit, UNIT_BEING_APPLIED)
            unit += 1
        s.applying_to = unit
        s.applying = 1
        use_write_cache(s, w.due, (unit - s.applying_from) << UNIT_SHIFT, STAGING_NUMBER, DO_APPLY, ZERO)
        return
    if s.writes_under_way == 0:
        pivot(w)


@compiled
def complete_apply(w):
    """A run of writes is on the destination, except for what was written again meanwhile."""
    s = w.sim[0]
    shift = s.block_shift - UNIT_SHIFT
    for unit in range(s.applying_from, s.applying_to):
        if w.units[unit] == UNIT_BEING_APPLIED:
            w.units[unit] = UNIT_APPLIED
    first = s.applying_from >> shift
    count = ((s.applying_to - 1) >> shift) - first + 1
    note(s, w.events, APPLIED, first, count, NONE, (s.applying_to - s.applying_from) << UNIT_SHIFT)
    s.apply_cursor = s.applying_to
    apply_next(w)


@compiled
def pivot(w):
    """From now on the virtual machine uses the destination alone."""
    s = w.sim[0]
    s.pivoted = 1
    announce(s, w.events, USE_DESTINATION, ZERO)
    unmount_if_quiet(w)
    if s.mode == MODE_FULL_RESTORE:
        make_launch_due(w)


@compiled
def empty_cache(w):
    """Drop every block from the read cache."""
    s = w.sim[0]
    dropped = 0
    while s.oldest != NONE:
        leave_cache(w, s.oldest)
        dropped += 1
    announce_count(s, w.events, EMPTY_READ_CACHE, dropped)


@compiled
def unmount_if_quiet(w):
    """Once no read of the logical source is outstanding, the backup copy lets go."""
    s = w.sim[0]
    if s.unmounted or s.vm_parts > 0 or s.mode == MODE_LOCAL:
        return
    s.unmounted = 1
    announce(s, w.events, UNMOUNT_FILE_SYSTEM, ZERO)
    announce(s, w.events, INDICATE_RELOCATION_COMPLETED, ZERO)
    empty_cache(w)
    announce(s, w.events, DE_ASSOCIATE, ZERO)


# --- the expiry of a live mount (section 10) ------------------------------------------------------------


@compiled
def expire(w):
    """Power down; what has started ends, and then everything is let go."""
    s = w.sim[0]
    announce(s, w.events, EXPIRE, s.unfinished)
    announce(s, w.events, POWER_DOWN, ZERO)
    ended = s.now
    for i in range(s.due):
        d = w.due[i]
        if (d.key >> 60) <= DUE_WRITE_CACHE and d.start < s.now:
            ended = max(ended, d.time)
    s.due = 0
    s.dispatch_due = 0
    s.queue_head = NONE
    s.now = ended
    empty_cache(w)
    announce(s, w.events, UNMOUNT_FILE_SYSTEM, ZERO)
    announce(s, w.events, DE_ASSOCIATE, ZERO)


# --- the loop -------------------------------------------------------------------------------------------


@compiled
def change_mode(w, number):
    """Carry out a change of mode."""
    s = w.sim[0]
    if number == MODE_LAUNCH:
        launch(w)
    elif number == MODE_PRE_RELOCATION:
        if not s.relocation_started:
            s.pre_relocation = 1
            announce(s, w.events, INDICATE_PRE_RELOCATION, ZERO)
    elif number == MODE_START_RELOCATION:
        start_relocation(w)
    elif number == MODE_CHECK_LOAD:
        check_load(w)
    elif number == MODE_WARNING:
        announce(s, w.events, WARN_OF_EXPIRY, s.expiry_ns - s.now)
    else:
        expire(w)


@compiled
def complete_on_volume(w, due_class, number, what, ref):
    """Carry out the completion of an operation on the destination or the write cache."""
    if what == DO_VM_READ:
        kind = READ_DESTINATION if due_class == DUE_DESTINATION else READ_WRITE_CACHE
        note_request(w, number, kind, ref)
        complete_operation(w, number)
    elif what == DO_VM_WRITE:
        complete_write(w, number)
    elif what == DO_RELOCATION:
        complete_relocation_request(w, ref)
    elif due_class == DUE_WRITE_CACHE:
        size = (w.sim[0].applying_to - w.sim[0].applying_from) << UNIT_SHIFT
        use_destination_volume(w.sim[0], w.due, size, STAGING_NUMBER, DO_APPLY, ZERO)
    else:
        complete_apply(w)


@compiled
def complete(w, due_class, number, what, ref):
    """Carry out a completion on device, link, destination or write cache."""
    if due_class == DUE_FETCH:
        complete_fetch(w, ref)
    elif due_class == DUE_TRANSMISSION:
        complete_transmission(w, ref)
    else:
        complete_on_volume(w, due_class, number, what, ref)


@entry
def run(w, spare_events):
    """Go on until everything is over, or fewer than `spare_events` rows are left for events."""
    s = w.sim[0]
    if not s.begun:
        s.begun = 1
        begin(w)
    while True:
        if len(w.events) - s.events < spare_events:
            return EVENTS_FULL
        if s.due == 0 or w.due[0].time > s.now:
            if s.dispatch_due:
                s.dispatch_due = 0
                dispatch(w)
                continue
            if s.due == 0:
                return DONE
        d = take_due(w)
        due_class = d.key >> 60
        number = (d.key >> 29) & STAGING_NUMBER
        if due_class == DUE_MODE and number == MODE_EXPIRY and not s.launched:
            return EXPIRED_BEFORE_LAUNCH
        s.now = d.time
        s.dispatch_due = 1
        if due_class <= DUE_WRITE_CACHE:
            complete(w, due_class, number, d.what, d.ref)
        elif due_class == DUE_PURGE:
            purge(w, (d.key & ((1 << 29) - 1)) - 1)
        elif due_class == DUE_MODE:
            change_mode(w, number)
        elif number <= s.rows:
            issue_request(w, number)
        else:
            issue_relocation(w, number, d.ref)
