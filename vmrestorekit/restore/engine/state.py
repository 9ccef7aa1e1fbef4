"""What the engine knows: its numbering, and one record for the world from which all tables are reached.

Letters stand for the same record everywhere: `w` the world, `v` a virtual machine, `a` a media agent, `c`
its cache as the eviction policy sees it, `k` a content there, `b` a block of a machine, `r` a request, `p` a
part, `f` a fetch, `d` a device. Numbers in parentheses are the sections of `docs/clockwork.md`.
"""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.policies import CACHE
from vmrestorekit.restore.records import accessor, record, table

# --- numbering ------------------------------------------------------------------------------------------
# numpy integers: numba would compile each function anew for every Python integer constant it is given

# the order of `KINDS`
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
    EXTEND_EXPIRY,
    EXPIRE,
    POWER_DOWN,
    LOSE_MEDIA_AGENT,
    TAKE_OVER,
    STRAND,
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
    READ_FROM_MEDIA,
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
) = np.arange(len(KINDS))
KIND_COUNT = np.int64(len(KINDS))

OP_READ, OP_WRITE, OP_DISCARD, OP_FLUSH, OP_MARK = np.arange(5)
MODE_FULL_RESTORE, MODE_INSTANT_RESTORE, MODE_LIVE_MOUNT, MODE_LOCAL = np.arange(4)
LAUNCH_BY_SHARE, LAUNCH_BY_HEAD_START, LAUNCH_IMMEDIATELY = np.arange(3)
DETAIL_EVENTS, DETAIL_RUNS, DETAIL_SUMMARY = np.arange(3)
FEWEST, ROUND_ROBIN = np.arange(2)

# why a block was fetched, who read it, what purged it: the order of `CAUSES`, `READERS`, `PURGE_TRIGGERS`
CAUSE_VM_READ, CAUSE_RELOCATION_READ, CAUSE_FIRST_SET, CAUSE_PRE_RELOCATION, CAUSE_RELOCATION_STAGING = (
    np.arange(5)
)
READER_VM, READER_RELOCATION = np.arange(2)
TRIGGER_RUN, TRIGGER_INDICATION, TRIGGER_PERIOD = np.arange(3)

# where a content is, as a media agent sees it
ABSENT, QUEUED, IN_FLIGHT, PRESENT = np.arange(4)

# what becomes of a part: it waits for a fetch, is on the link, has no agent, or was lost with one
WAITING, SENT, PARKED, LOST = np.arange(4)

# what the write cache and the destination hold of a 4 KiB unit
UNIT_UNTOUCHED, UNIT_WRITTEN, UNIT_ZEROED, UNIT_BEING_APPLIED, UNIT_APPLIED = np.arange(5)
UNIT_SHIFT = 12
UNIT_BYTES = 1 << UNIT_SHIFT

# what is due (section 1)
DUE_FETCH, DUE_TRANSMISSION, DUE_DESTINATION, DUE_WRITE_CACHE, DUE_PURGE, DUE_MODE, DUE_ISSUE = np.arange(7)
(
    MODE_ASK,
    MODE_LAUNCH,
    MODE_PRE_RELOCATION,
    MODE_START_RELOCATION,
    MODE_EXTENSION,
    MODE_WARNING,
    MODE_EXPIRY,
    MODE_CHECK_LOAD,
    MODE_PURGE_PERIOD,
    MODE_TAKE_OVER,
) = np.arange(10)
CHECKS_IN_WINDOW = np.int64(60)
DO_VM_READ, DO_VM_WRITE, DO_RELOCATION, DO_APPLY = np.arange(4)
STAGING_NUMBER = np.int64(2**31 - 1)

# what `run` says when it returns
DONE, EVENTS_FULL, PAUSED, EXPIRED_BEFORE_LAUNCH = np.arange(4)

PRIORITIES_AS_CLAIMED, PRIORITIES_STRICT, PRIORITIES_EQUAL, PRIORITIES_WEIGHTED = np.arange(4)
CLASS_VM, CLASS_RELOCATION, CLASS_STAGING = np.arange(3)
OPEN_RUNS = np.int64(8)
MERGED_DETAILS = np.int64(8)  # more than an event that is merged in detail `runs` has values of its detail
NONE = np.int64(-1)
ZERO = np.int64(0)
ONE = np.int64(1)

# --- state ----------------------------------------------------------------------------------------------
# Whatever is handed from function to function is int64, so that each function is compiled for one signature;
# only what there may be millions of is kept small.

EVENT = record(time="i8", detail="i8", block="i4", count="i4", request="i4", cause="i4", vm="i4", kind="i4")
# `key` packs (class, machine + 1, number), so that (time, key, block) orders what is due
DUE = record(time="i8", key="i8", block="i8", what="i8", ref="i8")
BLOCK = record(
    address="i8",
    position="i4",  # in the relocation sequence without its holes
    content="i4",
    chunk="i4",
    stored="i1",
    in_first_set="i1",  # and not counted as staged yet
    staged_first="i1",  # came for the first set
    marked="i1",
    ahead="i1",  # counted in `staged_ahead`
    relocated="i1",
    touched="i1",  # some unit of the block is not untouched
    read="i1",  # by the virtual machine
)
COPY = record(  # what an agent knows of a content
    fetch="i4",
    first_waiter="i4",  # parts that wait for the content, in order of arrival
    last_waiter="i4",
    pins="i4",
    users="i4",  # blocks of associated machines that have this content and are not marked
    vm="i4",  # the machine and the block for which it came
    block="i4",
    marked_by="i4",  # the event
    place="i1",
    served="i1",
    purged="i1",
    trigger="i1",
    purge_due="i1",
    wasted="i1",  # staged, and not sent to anyone yet
)
UNIT = record(state="i1")
REQUEST = record(
    start="i8",  # first byte, over all disks
    length="i8",
    think="i8",
    issued="i8",
    done="i8",
    order="i8",  # of issue
    op="i8",
    outstanding="i8",
    first_child="i8",
    next_child="i8",
    next_flush="i8",
    writing="i8",
    cause="i8",  # the event that made it due
    event="i8",  # its issue
    waited_for="i8",  # the read that came last of those that a write needs first
)
RELOCATION = record(number="i8", position="i8", count="i8", outstanding="i8", cause="i8", event="i8")
PART = record(
    bytes="i8",
    number="i8",
    slot="i8",
    vm="i8",
    block="i8",
    agent="i8",  # NONE: nobody's
    state="i8",
    order="i8",  # of its first arrival
    asked="i8",  # the event of its request
    event="i8",  # how it was found, or what put it on the link
    next="i8",
)
FETCHING = record(
    vm="i8",
    agent="i8",
    block="i8",
    count="i8",
    first="i8",  # of the range that is read from the medium: the same, or whole chunks
    last="i8",
    number="i8",
    cause="i8",
    next="i8",
    channel="i8",
    position="i8",
    order="i8",  # of joining the queue
    bytes="i8",
    straight="i8",
    lost="i8",
    in_flight="i8",
    goes_on="i8",  # for others, after the mount of its machine expired
    reason="i8",  # the event that led to it
    event="i8",  # its start
)
CHANNEL = record(end="i8", busy="i8", used="i8")
RUN = record(
    start="i8",
    expected="i8",
    length="i8",
    extended="i8",
    noted="i8",  # 1 + the trigger for which it was inferred last
    event="i8",
)
NUMBER = record(block="i4")
WANTED = record(first="i4")  # of a content: where it is in first sets
IN_FIRST_SET = record(block="i4", vm="i4", next="i4")
CHUNK = record(first="i4", last="i4", address="i8", end="i8")
MERGED = record(
    time="i8", block="i8", count="i8", request="i8", detail="i8"
)  # an event of detail `runs` that may still grow

MACHINE = record(
    # where its rows lie in the tables
    number="i8",
    first_block="i8",
    first_unit="i8",
    units="i8",
    first_request="i8",
    rows="i8",  # of the trace; the mark is request `rows`
    first_relocation="i8",
    first_run="i8",
    first_of_sequence="i8",
    sequence="i8",
    first_of_first_set="i8",
    first_set="i8",
    blocks="i8",
    # settings
    mode="i8",
    asked_ns="i8",
    wanted_agent="i8",
    launch_rule="i8",
    staged_to_launch="i8",
    head_start_ns="i8",
    relocation_first_ns="i8",  # the start counts from when the restore is asked for and comes again ...
    relocation_period_ns="i8",  # ... each period, or
    relocation_delay_ns="i8",  # if there is no period, from the launch
    load_check_ns="i8",  # 0: no load condition
    load_limit_bytes="i8",  # in a window
    pre_relocation_delay_ns="i8",
    purge_by_run="i8",
    run_length="i8",
    purge_by_period="i8",
    purge_period_ns="i8",
    purge_by_indication="i8",
    straight="i8",
    whole_chunks="i8",
    relocation_depth="i8",
    relocation_positions="i8",  # of one request
    apply_units="i8",
    stage_depth="i8",
    stage_fetch_blocks="i8",
    fetch_blocks="i8",
    stage_ahead_blocks="i8",
    expiry_ns="i8",
    warning_ns="i8",
    extend_at_ns="i8",
    extend_by_ns="i8",
    destination_latency_ns="i8",
    destination_bandwidth="i8",
    write_cache_latency_ns="i8",
    write_cache_bandwidth="i8",
    # its host
    destination_free_at="i8",
    write_cache_free_at="i8",
    first_child="i8",  # of the launch
    issue_order="i8",
    unfinished="i8",
    writes_under_way="i8",
    first_flush="i8",
    last_flush="i8",
    first_parked="i8",  # parts that wait for a media agent
    parts="i8",  # of the virtual machine, not of its relocation
    demand="60i8",  # bytes asked for by the virtual machine, by the time between two checks
    # coordination; `event` is the last message or step, `..._event` that of a name
    agent="i8",
    last_agent="i8",
    launched="i8",
    launch_due="i8",
    launched_ns="i8",
    event="i8",
    launch_cause="i8",
    first_set_event="i8",
    pre_relocation_event="i8",
    relocation_event="i8",
    warning_at="i8",
    expired="i8",
    under_way="i8",  # of an expired mount: operations that have not ended
    # staging
    in_flight="i8",
    gathered="i8",  # missing neighbours of one request that are to be one fetch
    gathered_first="i8",
    gathered_number="i8",
    gathered_order="i8",  # of the last one's arrival
    gathered_event="i8",
    first_set_cursor="i8",
    first_set_staged="i8",
    relocation_cursor="i8",
    staging_fetches="i8",
    pre_relocation="i8",
    staged_ahead="i8",  # blocks that the relocation cursor gave and nobody was sent yet
    # relocation
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
    # figures; times are -1 if it did not happen
    boot_done_ns="i8",
    started_ns="i8",
    finished_ns="i8",
    released_ns="i8",
    hits="i8",
    waits="i8",
    misses="i8",
    refetches="i8",
    staged="i8",  # blocks
    wasted="i8",
    fetches="i8",
    fetched_bytes="i8",
    purged="i8",
    evicted="i8",
    relocated="i8",
    applied_bytes="i8",
    cut_off="i8",
    stranded="i8",
)
AGENT = record(
    device="i8",
    first_copy="i8",
    slots="i8",
    priorities="i8",
    link_latency_ns="i8",
    link_bandwidth="i8",
    quantum="3i8",  # of the classes, for weighted priorities
    fails_ns="i8",  # -1: never
    in_service="i8",
    event="i8",  # its loss
    machines="i8",  # associated
    link_free_at="i8",
    used="i8",  # slots
    peak="i8",
    queue_head="2i8",  # the second is for the relocation's reads, with weighted priorities
    queue_tail="2i8",
    turn="i8",
    balance="3i8",
)
DEVICE = record(
    first_channel="i8",
    channels="i8",
    positioning_ns="i8",
    bandwidth="i8",
    mount_ns="i8",
    distance_ns_per_gib="i8",
    idle_channels="i8",
    last_machine="i8",
    last_agent="i8",
)
WORLD = record(
    **table("machines"),
    **table("agents"),
    **table("caches"),
    **table("devices"),
    **table("channels"),
    **table("blocks"),
    **table("copies"),
    **table("units"),
    **table("requests"),
    **table("relocations"),
    **table("parts"),
    **table("fetches"),
    **table("due"),
    **table("events"),
    **table("runs"),
    **table("sequence"),
    **table("first_set"),
    **table("wanted"),
    **table("chunks"),
    **table("merged"),
    contents="i8",
    contents_given="i8",  # else each block has a content of its own
    block_shift="i8",
    detail="i8",
    merge_blocks="i8",
    merge_ns="i8",
    in_turn="i8",
    balancing="i8",
    last_chosen="i8",
    takeover_ns="i8",
    begun="i8",
    code="i8",  # fingerprint of the functions that worked on it
    culprit="i8",  # the machine whose mount expires before its launch
    now="i8",
    due="i8",
    dispatch_due="i8",
    to_launch="i8",  # machines that are to be launched by a share of their first set
    events="i8",
    events_before="i8",  # those that were taken out of the buffer
    events_lost="i8",
    arrivals="i8",
    joined="i8",
    free_part="i8",
    free_fetch="i8",
)

machine_at = accessor("machines", MACHINE)
agent_at = accessor("agents", AGENT)
cache_at = accessor("caches", CACHE)
device_at = accessor("devices", DEVICE)
channel_at = accessor("channels", CHANNEL)
block_at = accessor("blocks", BLOCK)
copy_at = accessor("copies", COPY)
unit_at = accessor("units", UNIT)
request_at = accessor("requests", REQUEST)
relocation_at = accessor("relocations", RELOCATION)
part_at = accessor("parts", PART)
fetch_at = accessor("fetches", FETCHING)
due_at = accessor("due", DUE)
event_at = accessor("events", EVENT)
run_at = accessor("runs", RUN)
in_sequence = accessor("sequence", NUMBER)
in_first_set = accessor("first_set", IN_FIRST_SET)
wanted_at = accessor("wanted", WANTED)
chunk_at = accessor("chunks", CHUNK)
merged_at = accessor("merged", MERGED)
