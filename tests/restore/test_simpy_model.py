"""The slow model alone: against examples worked out by hand from `docs/clockwork.md`, and against invariants.

In the examples a block is 4 KiB, and 4 KiB take 1000 ns on every device; latencies and positioning are 0
unless an example says otherwise. Numbers in brackets are those of the rules.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scenarios import Row, Scenario, make_trace, scenarios
from simpy_devices import Agenda
from simpy_model import simulate_slowly

from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart, RestorePlan, Weights
from vmrestorekit.restore.events import CAUSES, KINDS
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link, PrimaryStorage

Event = tuple[int, str, int, int, int, int]

BLOCK = 4096
SPEED = 4_096_000_000
READS = (CAUSES.index("vm_read"), CAUSES.index("relocation_read"))
NO_PURGE = PurgeRule(by_run=False)
IMMEDIATELY = LaunchRule("immediately")
LATE = 10**9  # a recorded completion after which nothing is issued: such a row is nobody's parent

CACHE_KINDS = ("cache_hit", "cache_wait", "cache_miss", "fetch", "staged", "read_from_media")

LAZY: dict[str, Any] = {"mode": "live_mount", "launch": IMMEDIATELY}
AT_ONCE: dict[str, Any] = {
    "mode": "instant_restore",
    "launch": IMMEDIATELY,
    "relocation_start": RelocationStart("at_once"),
    "relocation_request_bytes": BLOCK,
    "fetch_bytes": BLOCK,
    "purge": NO_PURGE,
}


def run(
    rows: list[Row],
    blocks: int = 4,
    holes: tuple[int, ...] = (),
    spacing: int = BLOCK,
    device: BackupDevice | None = None,
    cpu_factor: float = 1.0,
    boot_done_ns: int | None = None,
    local: bool = False,
    chunk: list[int] | None = None,
    address: npt.NDArray[np.int64] | None = None,
    **settings: Any,
) -> list[Event]:
    """Simulate one disk whose stored blocks lie in order on the medium, `spacing` bytes apart."""
    disk_bytes = (blocks * BLOCK,)
    plan = RestorePlan(
        disk_bytes=disk_bytes,
        block_bytes=BLOCK,
        **(
            {"cache_bytes": 64 * BLOCK, "stage_fetch_bytes": BLOCK, "stage_ahead_bytes": 64 * BLOCK}
            | settings
        ),
    )
    hardware = Hardware(
        "example",
        device or BackupDevice(channels=1, positioning_ns=0, bandwidth=SPEED),
        link=Link(0, SPEED),
        destination=PrimaryStorage(0, SPEED),
        write_cache=PrimaryStorage(0, SPEED),
        cpu_factor=cpu_factor,
    )
    stored = np.ones(blocks, dtype=bool)
    stored[list(holes)] = False
    if address is None:
        address = np.where(stored, np.arange(blocks) * spacing, -1)
    trace = make_trace(rows, disk_bytes, boot_done_ns)
    chunks = None if chunk is None else np.array(chunk, dtype=np.int32)
    return simulate_slowly(trace, plan, hardware, stored, address, local, chunks)


def read(issued: int, block: int, completed: int = LATE, count: int = 1) -> Row:
    return (issued, completed, 0, "read", block * BLOCK, count * BLOCK)


def write(issued: int, offset: int, length: int, completed: int = LATE) -> Row:
    return (issued, completed, 0, "write", offset, length)


def flush(issued: int, completed: int = LATE) -> Row:
    return (issued, completed, 0, "flush", 0, 0)


def only(events: list[Event], *kinds: str) -> list[Event]:
    return [event for event in events if event[1] in kinds]


def when(events: list[Event], kind: str) -> list[tuple[int, int]]:
    """Return time and first block of all events of a kind."""
    return [(time, block) for time, what, block, *_ in events if what == kind]


# the closed loop [2]


def test_think_times_are_scaled_rounded_half_to_even_and_counted_from_the_latest_parent() -> None:
    # All blocks are holes, so that every read completes when issued. CPU factor 0.5:
    #   row 0: launch + round(3 / 2 = 1.5) = 2
    #   row 1: parent row 0 (completed 4, issued 9): 2 + round(2.5) = 2 + 2 = 4
    #   row 2: both rows above completed at or before 11; row 1 is the latest (11): 4 + 0 = 4
    #   row 3: rows 1 and 2 completed at 11, the later row is the parent: 4 + round(3.5) = 4 + 4 = 8
    #   boot_done at 13: parent row 2 (row 3 completed at 20): 4 + round(1.0) = 5
    rows = [read(3, 0, 4), read(9, 1, 11), read(11, 2, 11), read(18, 3, 20)]
    events = run(rows, holes=(0, 1, 2, 3), cpu_factor=0.5, boot_done_ns=13, **LAZY)
    assert when(events, "vm_read") == [(2, 0), (4, 1), (4, 2), (8, 3)]
    assert only(events, "boot_done") == [(5, "boot_done", -1, 0, -1, 0)]
    assert [event[5] for event in only(events, "vm_done")] == [0, 0, 0, 0]


def test_a_stall_moves_what_follows_but_not_what_overlapped() -> None:
    # Row 0 was recorded from 0 to 100 and takes 2000 now (fetch 1000, link 1000). Row 1 was issued at 50,
    # while row 0 was open: launch + 50. Row 2 was issued 10 after row 0 completed: 2000 + 10. Blocks 1 and 2
    # are holes.
    events = run([read(0, 0, 100), read(50, 1), read(110, 2)], holes=(1, 2), **LAZY)
    assert when(events, "vm_read") == [(0, 0), (50, 1), (2010, 2)]


# reads that miss, hit and wait [4, 6]

ARRIVALS = st.lists(st.integers(0, 4000), min_size=1, max_size=12).map(sorted)


@given(ARRIVALS)
@example([0, 0, 1000, 10_000])
def test_misses_on_one_channel_and_the_link_follow_lindleys_recursion(arrivals: list[int]) -> None:
    # The blocks lie apart: each fetch takes 500 + 1000, first come first served; then 1000 on the link.
    # For arrivals 0, 0, 1000, 10000: fetched at 1500, 3000, 4500, 11500; done at 2500, 4000, 5500, 12500.
    device = BackupDevice(channels=1, positioning_ns=500, bandwidth=SPEED)
    rows = [read(issued, block) for block, issued in enumerate(arrivals)]
    events = run(rows, blocks=len(rows), spacing=3 * BLOCK, device=device, **LAZY)
    fetched = done = 0
    expected = []
    for issued in arrivals:
        fetched = max(issued, fetched) + 1500
        done = max(fetched, done) + 1000
        expected.append(done - issued)
    assert [event[5] for event in only(events, "vm_done")] == expected


def test_everything_staged_before_the_launch_is_a_hit() -> None:
    # First set 2, 0, 1: staged at 1000, 2000, 3000. Head start 10000. The read of three blocks hits
    # three times; the link carries them one after the other: 11000, 12000, 13000.
    events = run(
        [read(0, 0, count=3)],
        mode="live_mount",
        first_set=np.array([2, 0, 1]),
        launch=LaunchRule("head_start", head_start_ns=10_000),
    )
    assert when(events, "staged") == [(1000, 2), (2000, 0), (3000, 1)]
    assert only(events, "launch_vm") == [(10_000, "launch_vm", -1, 0, -1, 3)]
    assert only(events, "cache_hit", "cache_miss", "serve", "vm_done") == [
        (10_000, "cache_hit", 0, 1, 0, 0),
        (10_000, "cache_hit", 1, 1, 0, 0),
        (10_000, "cache_hit", 2, 1, 0, 0),
        (11_000, "serve", 0, 1, 0, 0),
        (12_000, "serve", 1, 1, 0, 0),
        (13_000, "serve", 2, 1, 0, 0),
        (13_000, "vm_done", 0, 3, 0, 3000),
    ]


def test_a_block_in_flight_is_waited_for_and_never_fetched_twice() -> None:
    # Row 0 misses at 0, fetch until 1000. Row 1 wants the same block at 500. Both are transmitted from 1000
    # on.
    events = run([read(0, 0), read(500, 0)], **LAZY)
    assert only(events, "cache_miss", "cache_wait", "fetch", "staged", "serve") == [
        (0, "cache_miss", 0, 1, 0, 0),
        (0, "fetch", 0, 1, 0, 0),
        (500, "cache_wait", 0, 1, 1, 0),
        (1000, "staged", 0, 1, 0, 0),
        (2000, "serve", 0, 1, 0, 0),
        (3000, "serve", 0, 1, 1, 0),
    ]


def test_missing_neighbours_are_one_fetch_as_far_as_number_medium_and_size_allow() -> None:
    # Blocks 0 to 5 are wanted, 3 is a hole: a gap in number. At most two blocks a fetch: 0-1, 2, 4-5.
    # On a medium with gaps between the blocks each is a fetch of its own. One slot: likewise.
    rows = [read(0, 0, count=6)]
    together = run(rows, blocks=6, holes=(3,), fetch_bytes=2 * BLOCK, **LAZY)
    assert [event[2:4] for event in only(together, "fetch")] == [(0, 2), (2, 1), (4, 2)]
    for apart in ({"spacing": 2 * BLOCK}, {"cache_bytes": BLOCK}):
        events = run(rows, blocks=6, holes=(3,), **apart, **LAZY)
        assert [event[2:4] for event in only(events, "fetch")] == [(0, 1), (1, 1), (2, 1), (4, 1), (5, 1)]


def test_tape_pays_for_the_mount_once_and_for_positioning_by_distance() -> None:
    # 1000 ns a block's distance. Block 2: mount 1500 + 500 + distance 2 + transfer = 5000. Block 3 goes on
    # where it stands: 1000. Block 0 from the end of block 3: 500 + distance 4 + 1000 = 5500. Fetches follow
    # each other.
    device = BackupDevice(1, 500, SPEED, mount_ns=1500, distance_ns_per_gib=2**30 // BLOCK * 1000)
    events = run([read(0, 2), read(0, 3), read(0, 0)], device=device, **LAZY)
    assert when(events, "staged") == [(5000, 2), (6000, 3), (11_500, 0)]


def test_a_channel_that_stands_there_is_taken_before_a_lower_one() -> None:
    # Channel 0 fetches block 0, channel 1 block 2, both from 0 to 1500. At 5000 block 3: channel 1 stands
    # there (1000).
    device = BackupDevice(channels=2, positioning_ns=500, bandwidth=SPEED)
    events = run([read(0, 0), read(0, 2), read(5000, 3)], device=device, **LAZY)
    assert when(events, "staged") == [(1500, 0), (1500, 2), (6000, 3)]


# the read cache [5]


def test_demand_evicts_what_was_served_and_waits_for_what_is_pinned() -> None:
    # One slot, two channels, blocks 0 and 1 wanted at 0. Block 0: fetched at 1000, its pin goes on arrival at
    # 2000. Only then block 1 has a slot: 2000 to 3000, done at 4000. Block 0 again at 5000: 1 goes, done at
    # 7000.
    device = BackupDevice(channels=2, positioning_ns=0, bandwidth=SPEED)
    events = run([read(0, 0), read(0, 1), read(5000, 0)], device=device, cache_bytes=BLOCK, **LAZY)
    assert only(events, "fetch", "evict") == [
        (0, "fetch", 0, 1, 0, 0),
        (2000, "evict", 0, 1, -1, 0),
        (2000, "fetch", 1, 1, 1, 0),
        (5000, "evict", 1, 1, -1, 0),
        (5000, "fetch", 0, 1, 2, 0),
    ]
    assert when(events, "vm_done") == [(2000, 0), (4000, 1), (7000, 0)]


@pytest.mark.parametrize(("policy", "victim"), [("fifo", 0), ("lru", 1)])
def test_fifo_orders_by_entry_and_lru_by_the_last_hit(policy: str, victim: int) -> None:
    rows = [read(0, 0), read(5000, 1), read(10_000, 0), read(15_000, 2)]
    events = run(rows, cache_bytes=2 * BLOCK, eviction=policy, **LAZY)
    assert when(events, "evict") == [(15_000, victim)]


# The hit of block 0 spares it in all policies but FIFO and S3-FIFO, whose small queue holds one of two blocks
# and evicts what was hit only once. Else block 1 has gone and comes back; ARC finds it in its history, takes
# it again for block 3, and keeps block 2, which it has seen once.
@pytest.mark.parametrize(
    ("policy", "victims"),
    [
        ("fifo", [0, 1]),
        ("s3fifo", [0, 2]),
        ("lru", [1, 0, 2]),
        ("clock", [1, 0, 2]),
        ("sieve", [1, 0, 2]),
        ("arc", [1, 0, 1]),
    ],
)
def test_every_policy_chooses_as_its_paper_says(policy: str, victims: list[int]) -> None:
    rows = [read(5000 * number, block) for number, block in enumerate([0, 1, 0, 2, 1, 3])]
    events = run(rows, cache_bytes=2 * BLOCK, eviction=policy, **LAZY)
    assert [event[2] for event in only(events, "evict")] == victims


def test_what_misses_straight_passes_the_cache_by() -> None:
    # One slot, which block 1 has, staged from 0 to 1000. Row 0 misses block 0 at 2000, row 1 waits for it at
    # 2500: fetched at 3000, sent twice by 5000. Row 2 misses it again at 6000. Row 3 hits block 1.
    events = run(
        [read(1000, 0), read(1500, 0), read(5000, 0), read(9000, 1)],
        mode="live_mount",
        first_set=np.array([1]),
        launch=LaunchRule("share", 1.0),
        cache_bytes=BLOCK,
        misses="straight",
    )
    assert [event for event in only(events, *CACHE_KINDS, "serve") if event[0] >= 2000] == [
        (2000, "cache_miss", 0, 1, 0, 0),
        (2000, "fetch", 0, 1, 0, 0),
        (2500, "cache_wait", 0, 1, 1, 0),
        (3000, "read_from_media", 0, 1, 0, 0),
        (4000, "serve", 0, 1, 0, 0),
        (5000, "serve", 0, 1, 1, 0),
        (6000, "cache_miss", 0, 1, 2, 0),
        (6000, "fetch", 0, 1, 2, 0),
        (7000, "read_from_media", 0, 1, 2, 0),
        (8000, "serve", 0, 1, 2, 0),
        (10_000, "cache_hit", 1, 1, 3, 0),
        (11_000, "serve", 1, 1, 3, 0),
    ]


# whole chunks [6]


@pytest.mark.parametrize(
    ("slots", "staged"),
    # block 0 and block 3 come along with block 1 if there are slots, block 2 is a hole
    [(64, [(0, 2), (3, 1)]), (2, [(0, 2)]), (1, [(1, 1)])],
)
def test_a_whole_chunk_is_read_and_what_finds_a_slot_is_kept(
    slots: int, staged: list[tuple[int, int]]
) -> None:
    # The gap of the hole is read, too: four times 1000.
    events = run(
        [read(0, 1)], blocks=8, holes=(2,), chunk=[0, 0, -1, 0, 1, 1, 1, 1], cache_bytes=slots * BLOCK, **LAZY
    )
    assert only(events, "fetch") == [(0, "fetch", 0, 4, 0, 0)]
    assert [event[2:4] for event in only(events, "staged")] == staged
    assert when(events, "serve") == [(5000, 1)]


def test_a_fetch_over_two_chunks_reads_both_and_the_channel_stands_behind_the_second() -> None:
    # Positioning 500. Blocks 1 and 2 are in two chunks of two: 4 blocks are read until 4500. Block 4 follows
    # on the medium: 6000 to 8000, and 5 comes along. Straight, only 1 and 2, and then 4, are brought.
    device = BackupDevice(channels=1, positioning_ns=500, bandwidth=SPEED)
    rows = [read(0, 1, count=2), read(6000, 4)]
    for misses, kind, brought in (
        ("through_cache", "staged", [(4500, 0, 4), (8000, 4, 2)]),
        ("straight", "read_from_media", [(4500, 1, 2), (8000, 4, 1)]),
    ):
        events = run(rows, blocks=6, chunk=[0, 0, 1, 1, 2, 2], device=device, misses=misses, **LAZY)
        assert [event[2:4] for event in only(events, "fetch")] == [(0, 4), (4, 2)]
        assert [(event[0], *event[2:4]) for event in only(events, kind)] == brought


def test_what_lies_between_in_number_but_in_another_chunk_does_not_come_along() -> None:
    # The copy is incremental: blocks 0 and 2 are its chunk 1, blocks 1 and 3 are in the older chunk 0.
    address = np.array([2, 0, 3, 1]) * BLOCK
    events = run([read(0, 0)], address=address, chunk=[1, 0, 1, 0], **LAZY)
    assert only(events, "fetch", "staged") == [
        (0, "fetch", 0, 3, 0, 0),
        (2000, "staged", 0, 1, 0, 0),
        (2000, "staged", 2, 1, 0, 0),
    ]


def test_staging_evicts_only_what_was_served() -> None:
    # One slot, first set 0, 1, 2. Launched at 1000, when staging can go no further. Block 0 is read at 1000 +
    # 3000, served at 5000: now staging may have its slot. Nobody reads block 1: block 2 is never staged.
    events = run(
        [read(3000, 0)],
        mode="live_mount",
        first_set=np.array([0, 1, 2]),
        launch=LaunchRule("share", 1.0),
        cache_bytes=BLOCK,
    )
    assert only(events, "launch_vm") == [(1000, "launch_vm", -1, 0, -1, 1)]
    assert when(events, "fetch") == [(0, 0), (5000, 1)]
    assert only(events, "evict") == [(5000, "evict", 0, 1, -1, 0)]


@pytest.mark.parametrize(("share", "launched", "staged"), [(0.0, 0, 0), (0.5, 2000, 2), (1.0, 3000, 3)])
def test_launch_by_share_of_the_stored_first_set(share: float, launched: int, staged: int) -> None:
    # Three of the four blocks are stored; half of them, rounded up, are two.
    events = run(
        [], mode="live_mount", holes=(1,), first_set=np.array([3, 2, 1, 0]), launch=LaunchRule("share", share)
    )
    assert only(events, "determine_first_set") == [(0, "determine_first_set", -1, 3, -1, 0)]
    assert only(events, "launch_vm") == [(launched, "launch_vm", -1, 0, -1, staged)]


# writes, flushes, discards [3]


def test_a_write_of_a_part_of_a_unit_reads_it_first_and_is_read_from_the_write_cache() -> None:
    # Row 0 writes 200 bytes into block 0: the unit is fetched (500 + 1000) and transmitted (1000): 2500. Then
    # 200 bytes on the write cache take ceil(48.8) = 49: 2549. Row 1 follows at once and reads blocks 0 and 1:
    # block 0 from the write cache until 3549; block 1 from the medium, where the channel stands: 3549, on the
    # link until 4549. At 3549 the fetch [class 0] comes before the write cache [class 3].
    device = BackupDevice(channels=1, positioning_ns=500, bandwidth=SPEED)
    events = run([write(0, 100, 200, completed=0), read(0, 0, count=2)], device=device, **LAZY)
    assert [event for event in events if event[0] > 0] == [
        (1500, "staged", 0, 1, 0, 0),
        (2500, "serve", 0, 1, 0, 0),
        (2549, "written", 0, 1, 0, 0),
        (2549, "vm_done", 0, 1, 0, 2549),
        (2549, "vm_read", 0, 2, 1, 8192),
        (2549, "cache_miss", 1, 1, 1, 0),
        (2549, "fetch", 1, 1, 1, 0),
        (3549, "staged", 1, 1, 1, 0),
        (3549, "read_write_cache", 0, 2, 1, 4096),
        (4549, "serve", 1, 1, 1, 0),
        (4549, "vm_done", 0, 2, 1, 2000),
    ]


def test_only_the_ends_of_a_write_are_read_and_holes_cost_nothing() -> None:
    # From the middle of block 0 to the middle of block 2, 8192 bytes: blocks 0 and 2 are wanted, 1 is
    # covered.
    events = run([write(0, 2048, 8192)], **LAZY)
    assert when(events, "cache_miss") == [(0, 0), (0, 2)]
    # Fetched at 1000 and 2000, transmitted until 3000; then 8192 bytes are written until 5000.
    assert when(events, "written") == [(5000, 0)]
    events = run([write(0, 2048, 8192)], holes=(0, 2), **LAZY)
    assert when(events, "written") == [(2000, 0)]


def test_flushes_complete_with_the_last_write_issued_before_them() -> None:
    # Writes of one block at 0 and 500: written at 1000 and 2000. Flush 1 (at 100) waits for the first;
    # flushes 3 and 4 for the second, complete in the order of their issue and after the write. Flush 5 waits
    # for nothing.
    rows = [write(0, 0, BLOCK), flush(100), write(500, BLOCK, BLOCK), flush(600), flush(700), flush(9000)]
    events = run(rows, **LAZY)
    assert [(event[0], event[4]) for event in only(events, "vm_done")] == [
        (1000, 0),
        (1000, 1),
        (2000, 2),
        (2000, 3),
        (2000, 4),
        (9000, 5),
    ]


def test_a_discard_zeroes_whole_units_at_no_cost() -> None:
    # Blocks 0 to 2 are touched, only block 1 as a whole. A read of it has nothing to do; the others are
    # missing.
    rows: list[Row] = [(0, LATE, 0, "discard", 100, 2 * BLOCK), read(10, 0, count=3)]
    events = run(rows, **LAZY)
    assert only(events, "vm_done")[0] == (0, "vm_done", 0, 3, 0, 0)
    assert when(events, "cache_miss") == [(10, 0), (10, 2)]


# relocation, purge, pivot [7, 8, 9]


def test_a_relocation_whose_run_is_purged_event_by_event() -> None:
    # No requests, so that the mark is number 0 and relocation requests are 1, 2, 3. One staging fetch at a
    # time. 0: block 0 is missing; block 1 joins the queue behind it; 0 is fetched until 1000, 1 until 2000, 2
    # until 3000. 2000: block 0 arrives, is written until 3000. 3000: request 2 hits block 1, the second read
    # of a run, which marks 0 and 1; 0 goes at once, 1 when it has arrived at 4000. Block 2 extends the run
    # and goes on arrival at 6000.
    settings = AT_ONCE | {"purge": PurgeRule(True, 2), "stage_depth": 1}
    assert run([], blocks=3, **settings) == [
        (0, "export_file_system", -1, 0, -1, 0),
        (0, "mount_file_system", -1, 0, -1, 0),
        (0, "set_up_data_flow", -1, 0, -1, 0),
        (0, "indicate_vm_profile", -1, 0, -1, 0),
        (0, "determine_first_set", -1, 0, -1, 0),
        (0, "launch_vm", -1, 0, -1, 0),
        (0, "indicate_pre_relocation", -1, 0, -1, 0),
        (0, "start_relocation", -1, 0, -1, 0),
        (0, "indicate_relocation_in_progress", -1, 0, -1, 0),
        (0, "relocation_read", 0, 1, 1, 4096),
        (0, "cache_miss", 0, 1, 1, 1),
        (0, "fetch", 0, 1, 1, 1),
        (1000, "staged", 0, 1, 1, 1),
        (1000, "fetch", 1, 1, -1, 4),
        (2000, "staged", 1, 1, -1, 4),
        (2000, "serve", 0, 1, 1, 1),
        (2000, "fetch", 2, 1, -1, 4),
        (3000, "staged", 2, 1, -1, 4),
        (3000, "relocated", 0, 1, 1, 4096),
        (3000, "relocation_read", 1, 1, 2, 4096),
        (3000, "cache_hit", 1, 1, 2, 1),
        (3000, "infer_run", 0, 2, -1, 0),
        (3000, "purge", 0, 1, -1, 0),
        (4000, "serve", 1, 1, 2, 1),
        (4000, "purge", 1, 1, -1, 0),
        (5000, "relocated", 1, 1, 2, 4096),
        (5000, "relocation_read", 2, 1, 3, 4096),
        (5000, "cache_hit", 2, 1, 3, 1),
        (6000, "serve", 2, 1, 3, 1),
        (6000, "purge", 2, 1, -1, 0),
        (7000, "relocated", 2, 1, 3, 4096),
        (7000, "finish_relocation", -1, 0, -1, 0),
        (7000, "apply_writes", -1, 0, -1, 0),
        (7000, "use_destination", -1, 0, -1, 0),
        (7000, "unmount_file_system", -1, 0, -1, 0),
        (7000, "indicate_relocation_completed", -1, 0, -1, 0),
        (7000, "empty_read_cache", -1, 0, -1, 0),
        (7000, "de_associate", -1, 0, -1, 0),
    ]


def test_purge_by_indication_and_a_read_that_comes_too_late_for_the_cache() -> None:
    # Requests of two blocks, 0-1 and 2-3, fetched as one each. The first: fetched at 2000, arrives at 3000
    # and 4000, is written until 6000: relocated and purged. A read of block 0 then comes from the
    # destination.
    settings = AT_ONCE | {
        "purge": PurgeRule(by_run=False, by_indication=True),
        "relocation_request_bytes": 2 * BLOCK,
        "fetch_bytes": 2 * BLOCK,
    }
    events = run([read(6500, 0)], **settings)
    assert only(events, "relocated")[0] == (6000, "relocated", 0, 2, 2, 8192)
    assert only(events, "purge")[:2] == [(6000, "purge", 0, 1, -1, 1), (6000, "purge", 1, 1, -1, 1)]
    assert only(events, "read_destination") == [(7500, "read_destination", 0, 1, 0, 4096)]


def test_a_purged_block_that_is_not_relocated_yet_is_fetched_again() -> None:
    # Two blocks, one request for both, runs of two. Fetched at 2000, marked since 0, served and purged at
    # 3000 and 4000; written to the destination until 6000. A read of block 1 at 5000 misses: 5000 to 6000,
    # done at 7000. The relocation finishes at 6000, the pivot follows at once, but the unmount waits for that
    # read.
    settings = AT_ONCE | {"purge": PurgeRule(True, 2), "relocation_request_bytes": 2 * BLOCK}
    events = run([read(5000, 1)], blocks=2, **(settings | {"fetch_bytes": 2 * BLOCK}))
    assert when(events, "purge") == [(3000, 0), (4000, 1)]
    assert [event for event in events if event[0] >= 5000] == [
        (5000, "vm_read", 1, 1, 0, 4096),
        (5000, "cache_miss", 1, 1, 0, 0),
        (5000, "refetch_after_purge", 1, 1, 0, 0),
        (5000, "fetch", 1, 1, 0, 0),
        (6000, "staged", 1, 1, 0, 0),
        (6000, "relocated", 0, 2, 2, 8192),
        (6000, "finish_relocation", -1, 0, -1, 0),
        (6000, "apply_writes", -1, 0, -1, 0),
        (6000, "use_destination", -1, 0, -1, 0),
        (7000, "serve", 1, 1, 0, 0),
        (7000, "vm_done", 1, 1, 0, 2000),
        (7000, "unmount_file_system", -1, 0, -1, 0),
        (7000, "indicate_relocation_completed", -1, 0, -1, 0),
        (7000, "empty_read_cache", -1, 1, -1, 0),
        (7000, "de_associate", -1, 0, -1, 0),
    ]


def test_a_block_that_is_due_for_purging_but_read_again_in_the_same_instant_stays() -> None:
    # Relocated in the order 3, 2, 1, 0. Block 3 is served at 2000; 2 is staged at 2000. Row 0 reads 2 and 3
    # at 2500: 2 is the second of a run and marks 3, which is due at once; but row 0 hits 3, too, and pins it
    # until 4500. Block 2 arrives at 3500 for row 0 and, hit by the relocation at 3000, at 5500 behind block
    # 3.
    settings = AT_ONCE | {"purge": PurgeRule(True, 2), "relocation_sequence": np.array([3, 2, 1, 0])}
    events = run([read(2500, 2, count=2)], **(settings | {"stage_depth": 1}))
    assert only(events, "serve", "purge", "infer_run")[:8] == [
        (2000, "serve", 3, 1, 2, 1),
        (2500, "infer_run", 3, 2, -1, 0),
        (3000, "infer_run", 3, 2, -1, 0),
        (3500, "serve", 2, 1, 0, 0),
        (4500, "serve", 3, 1, 0, 0),
        (4500, "purge", 3, 1, -1, 0),
        (5500, "serve", 2, 1, 3, 1),
        (5500, "purge", 2, 1, -1, 0),
    ]


def test_a_hit_separates_the_missing_blocks_of_a_relocation_request() -> None:
    # The request is 0, 2, 1, and 2 is in the cache: 1 follows 0 in number and on the medium, not in the
    # request.
    settings = AT_ONCE | {
        "first_set": np.array([2]),
        "launch": LaunchRule("head_start", head_start_ns=1000),
        "relocation_sequence": np.array([0, 2, 1, 3]),
        "relocation_request_bytes": 3 * BLOCK,
        "fetch_bytes": 4 * BLOCK,
    }
    events = run([], **settings)
    assert only(events, "fetch") == [
        (0, "fetch", 2, 1, -1, 2),
        (1000, "fetch", 0, 1, 1, 1),
        (2000, "fetch", 1, 1, 1, 1),
        (3000, "fetch", 3, 1, -1, 4),
    ]


def test_staging_that_cannot_have_its_slot_is_taken_back() -> None:
    # Two slots, two staging fetches, requests of one block, FIFO. The queue at 0 is 0 (demand), 1, 2. 2000: 0
    # is served, so that 3 joins; 2 takes the slot of 0. 3000: 1 is hit and pinned, 2 unserved: 3 is taken
    # back. 3500: the read of 3 therefore misses (it would wait, if 3 were queued) and evicts 2, which nobody
    # was served. 4000: 3 is in flight, the cursor passes over it; it is past 2, too. 5000: the relocation
    # misses 2 and evicts 1. 5500: 3 arrives. 6000 to 8000: 2 comes, arrives, is written. 3 is hit at 8000,
    # arrives at 9000, is written at 10000.
    settings = AT_ONCE | {"cache_bytes": 2 * BLOCK, "stage_depth": 2, "eviction": "fifo"}
    events = run([read(3500, 3)], **settings)
    assert only(events, "fetch", "evict", "cache_miss", "cache_wait", "cache_hit") == [
        (0, "cache_miss", 0, 1, 2, 1),
        (0, "fetch", 0, 1, 2, 1),
        (1000, "fetch", 1, 1, -1, 4),
        (2000, "evict", 0, 1, -1, 0),
        (2000, "fetch", 2, 1, -1, 4),
        (3000, "cache_hit", 1, 1, 3, 1),
        (3500, "cache_miss", 3, 1, 0, 0),
        (3500, "evict", 2, 1, -1, 1),
        (3500, "fetch", 3, 1, 0, 0),
        (5000, "cache_miss", 2, 1, 4, 1),
        (5000, "evict", 1, 1, -1, 0),
        (5000, "fetch", 2, 1, 4, 1),
        (8000, "cache_hit", 3, 1, 5, 1),
    ]
    assert only(events, "vm_done") == [(5500, "vm_done", 3, 1, 0, 2000)]
    assert when(events, "use_destination") == [(10_000, -1)]


def test_the_cursor_goes_back_for_what_was_taken_back() -> None:
    # As before, but nobody reads 3: it is taken back at 3000 and staged at 4000, when 1 has been served.
    settings = AT_ONCE | {"cache_bytes": 2 * BLOCK, "stage_depth": 2, "eviction": "fifo"}
    events = run([], **settings)
    assert [(event[0], event[2], event[5]) for event in only(events, "fetch")] == [
        (0, 0, 1),
        (1000, 1, 4),
        (2000, 2, 4),
        (4000, 3, 4),
    ]
    assert when(events, "cache_miss") == [(0, 0)]


@pytest.mark.parametrize(("depth", "expected"), [(1, [0, 0, 1000, 2000]), (2, [0, 0, 0, 1000])])
def test_staging_for_the_relocation_counts_what_is_in_flight(depth: int, expected: list[int]) -> None:
    # Four channels: block 0 is fetched for the relocation at 0, and as many as the depth allows beside it.
    device = BackupDevice(channels=4, positioning_ns=0, bandwidth=SPEED)
    events = run([], device=device, **(AT_ONCE | {"stage_depth": depth}))
    assert when(events, "fetch") == list(zip(expected, range(4), strict=True))


def test_a_purged_block_is_not_staged_again() -> None:
    # Requests 0-1 and 2-3. Blocks 0 and 1 are purged at 3000 and 4000 and relocated at 6000. At 4000 the
    # channel is idle and the queue empty: the first set offers 2 and 3, which are in the cache, and 0.
    settings = AT_ONCE | {
        "purge": PurgeRule(True, 2),
        "relocation_request_bytes": 2 * BLOCK,
        "fetch_bytes": 2 * BLOCK,
        "first_set": np.array([2, 3, 0]),
    }
    events = run([], **settings)
    assert when(events, "purge")[:2] == [(3000, 0), (4000, 1)]
    assert when(events, "fetch") == [(0, 0), (2000, 2), (3000, 3)]


def test_a_mark_stays_and_the_block_goes_again_once_it_was_served_again() -> None:
    # As in the last example, without the first set. At 4100 row 0 misses block 0, which was purged at 3000:
    # fetched until 5100, behind nothing on the link, served at 6100 and purged again.
    settings = AT_ONCE | {
        "purge": PurgeRule(True, 2),
        "relocation_request_bytes": 2 * BLOCK,
        "fetch_bytes": 2 * BLOCK,
    }
    events = run([read(4100, 0)], **settings)
    assert only(events, "refetch_after_purge") == [(4100, "refetch_after_purge", 0, 1, 0, 0)]
    assert when(events, "purge")[:3] == [(3000, 0), (4000, 1), (6100, 0)]


def test_purging_by_period_looks_at_runs_of_two_and_marks_them_as_they_grow() -> None:
    # Blocks 0, 1, 2 are read at 0, 3000, 5000 as in the first example. The look at 2500 finds a run of one,
    # the look at 5000, before block 2 is read, a run of two, both served: they go. Block 2 goes once served.
    rule = PurgeRule(by_run=False, by_period=True, period_ns=2500)
    events = run([], blocks=3, **(AT_ONCE | {"purge": rule, "stage_depth": 1}))
    assert only(events, "relocation_read", "infer_run", "purge") == [
        (0, "relocation_read", 0, 1, 1, 4096),
        (3000, "relocation_read", 1, 1, 2, 4096),
        (5000, "infer_run", 0, 2, -1, 0),
        (5000, "purge", 0, 1, -1, 2),
        (5000, "purge", 1, 1, -1, 2),
        (5000, "relocation_read", 2, 1, 3, 4096),
        (6000, "purge", 2, 1, -1, 2),
    ]


def test_weighted_shares_the_channel_by_bytes() -> None:
    # Quantum: one block of 4096; 50, 30 and 20 % are 2048, 1228 and 819. All have more than enough to fetch.
    # Balances of machine, relocation and staging when a class starts, turn by turn:
    #      0   machine 0: passed on;  relocation 1228 starts: -2868
    #   1000   staging 819 starts: -3277
    #   2000   machine 2048 starts: -2048
    #   3000   -1640, -2458; 0, -412, -1639;  machine 2048 starts: -2048
    #   4000   relocation 816 starts: -3280
    #   5000   -820; 0, -2052, -1;  machine 2048 starts: -2048
    #   6000   -824;  staging 818 starts
    settings = AT_ONCE | {
        "first_set": np.array([20, 22]),
        "relocation_depth": 4,
        "priorities": "weighted",
        "weights": Weights(50, 30, 20),
    }
    rows = [read(0, block) for block in (10, 12, 14, 16, 18)]
    events = run(rows, blocks=24, **settings)
    assert [(event[0], event[2], event[5]) for event in only(events, "fetch")][:7] == [
        (0, 0, 1),
        (1000, 20, 2),
        (2000, 10, 0),
        (3000, 12, 0),
        (4000, 1, 1),
        (5000, 14, 0),
        (6000, 22, 2),
    ]


def test_weighted_takes_the_balance_of_a_class_that_has_nothing() -> None:
    # A live mount: the relocation never has anything. Of the quantum of 4096 the machine gets 2048, staging
    # 2007. Up to 3000 the machine has nothing, and saves nothing. Balances of staging and machine:
    #      0   staging 2007 starts: -2089
    #   1000   -82; 1925 starts: -2171
    #   2000   -164; 1843 starts: -2253
    #   3000   machine 2048 starts: -2048 (had it saved, it would start twice)
    #   4000   staging -246; machine 0; staging 1761 starts: -2335
    #   5000   machine 2048 starts: -2048
    #   6000   staging -328; machine 0; staging 1679 starts: -2417
    #   7000   machine 2048 starts
    events = run(
        [read(3000, 20), read(3000, 22), read(3000, 24)],
        blocks=26,
        first_set=np.arange(0, 12, 2),
        priorities="weighted",
        weights=Weights(50, 1, 49),
        fetch_bytes=BLOCK,
        **LAZY,
    )
    blocks = [0, 2, 4, 20, 6, 22, 8, 24]
    assert when(events, "fetch")[:8] == [(1000 * turn, block) for turn, block in enumerate(blocks)]


def test_writes_are_applied_again_until_none_is_pending_and_then_go_to_the_destination() -> None:
    # Row 0 writes both blocks: 0 to 2000. Both are relocated in one request: fetched at 2000, arrive at 4000,
    # on the destination at 6000. Applied in one operation: read until 8000, written until 10000. Row 1 writes
    # block 0 at 7000; it waits for the write cache and is written at 9000: pending again. Row 2 reads block
    # 1, which is being applied, from the write cache: 10000. Applied from the start of the disk: 11000,
    # 12000, then the pivot. Rows 3 and 4 come after it: destination, one after the other.
    rows = [
        write(0, 0, 2 * BLOCK),
        write(7000, 0, BLOCK),
        read(7000, 1),
        read(13_000, 0),
        write(13_000, 100, 4096),
    ]
    settings = AT_ONCE | {"relocation_request_bytes": 2 * BLOCK, "fetch_bytes": 2 * BLOCK}
    events = run(rows, blocks=2, **settings)
    assert only(events, "written", "relocated", "apply_writes", "applied", "use_destination") == [
        (2000, "written", 0, 2, 0, 0),
        (6000, "relocated", 0, 2, 6, 8192),
        (6000, "apply_writes", -1, 0, -1, 8192),
        (9000, "written", 0, 1, 1, 0),
        (10_000, "applied", 0, 2, -1, 8192),
        (12_000, "applied", 0, 1, -1, 4096),
        (12_000, "use_destination", -1, 0, -1, 0),
        (15_000, "written", 0, 2, 4, 1),
    ]
    assert only(events, "read_write_cache", "read_destination") == [
        (10_000, "read_write_cache", 1, 1, 2, 4096),
        (14_000, "read_destination", 0, 1, 3, 4096),
    ]


def test_the_pivot_waits_for_a_write_under_way() -> None:
    # One block, a hole: the relocation finishes where it starts, at 0. But row 0 was issued before (rows come
    # before relocation requests, yet the finish needs none and comes with the mode change): start at 500, row
    # 0 is under way until 1000. Then it is pending and applied: 2000, 3000, pivot.
    settings = AT_ONCE | {"relocation_start": RelocationStart("delay", 500)}
    events = run([write(0, 0, BLOCK)], blocks=1, holes=(0,), **settings)
    assert [
        event[:2] for event in only(events, "finish_relocation", "written", "applied", "use_destination")
    ] == [
        (500, "finish_relocation"),
        (1000, "written"),
        (3000, "applied"),
        (3000, "use_destination"),
    ]


def test_first_set_before_pre_relocation_before_relocation() -> None:
    # The first set (3) is staged first, then the relocation's order, one after the other, demand first of
    # all. Row 0 misses block 2 at 1500: 1 has started at 1000, 2 is next. The relocation starts at 3500,
    # while 0 is fetched.
    settings = AT_ONCE | {
        "relocation_start": RelocationStart("delay", 3500),
        "first_set": np.array([3]),
        "relocation_sequence": np.array([1, 0, 2, 3, 4]),
    }
    events = run([read(1500, 2)], blocks=5, **settings)
    assert [(event[0], event[2], event[5]) for event in only(events, "fetch")] == [
        (0, 3, 2),
        (1000, 1, 3),
        (2000, 2, 0),
        (3000, 0, 3),
        (4000, 4, 4),
    ]


def test_a_full_restore_launches_on_the_destination() -> None:
    # Two blocks of one request each, staged ahead: 0 is fetched, sent, written by 3000; 1 (fetched at 2000)
    # by 5000.
    settings = AT_ONCE | {"mode": "full_restore", "first_set": np.array([1])}
    events = run([read(10, 1)], blocks=2, **settings)
    assert not only(events, "indicate_vm_profile", "determine_first_set", "indicate_pre_relocation")
    assert [event[:2] for event in events if event[0] >= 5000] == [
        (5000, "relocated"),
        (5000, "finish_relocation"),
        (5000, "apply_writes"),
        (5000, "use_destination"),
        (5000, "unmount_file_system"),
        (5000, "indicate_relocation_completed"),
        (5000, "empty_read_cache"),
        (5000, "de_associate"),
        (5000, "launch_vm"),
        (5010, "vm_read"),
        (6010, "read_destination"),
        (6010, "vm_done"),
    ]


def test_local_runs_on_the_destination_alone() -> None:
    events = run([read(0, 0, count=2, completed=0), write(0, 10, 20)], holes=(1,), local=True, boot_done_ns=5)
    # Block 1 is a hole; row 1 follows row 0 at 1000, and its 20 bytes take ceil(4.88) = 5. The mark follows
    # row 0 by 5.
    assert events == [
        (0, "launch_vm", -1, 0, -1, 0),
        (0, "vm_read", 0, 2, 0, 8192),
        (1000, "read_destination", 0, 2, 0, 4096),
        (1000, "vm_done", 0, 2, 0, 1000),
        (1000, "vm_write", 0, 1, 1, 20),
        (1005, "written", 0, 1, 1, 1),
        (1005, "vm_done", 0, 1, 1, 5),
        (1005, "boot_done", -1, 0, -1, 0),
    ]


# the order of an instant [1]


def test_the_virtual_machine_comes_before_the_relocation_at_equal_times() -> None:
    # Both ask at 0; requests are issued in the order of their numbers.
    events = run([read(0, 3)], **AT_ONCE)
    assert [(event[0], event[2], event[5]) for event in only(events, "fetch")][:2] == [
        (0, 3, 0),
        (1000, 0, 1),
    ]


def test_the_agenda_takes_the_smallest_key_also_of_what_has_just_become_due() -> None:
    agenda, taken = Agenda(), []

    def first() -> None:
        taken.append("first")
        agenda.add((4, 0, 0, 7), lambda: taken.append("purge"))
        agenda.add((6, 0, 1, -1), lambda: taken.append("row 1"))

    agenda.add((6, 1, 0, -1), lambda: taken.append("another machine's row 0"))
    agenda.add((6, 0, 2, -1), lambda: taken.append("row 2"))
    agenda.add((3, 0, 0, -1), first)
    agenda.add((5, 0, 1, -1), lambda: taken.append("mode"))
    agenda.run(lambda: taken.append("dispatch"))
    assert taken == ["first", "purge", "mode", "row 1", "row 2", "another machine's row 0", "dispatch"]


# expiry [10]


def test_an_expiry_cuts_off_and_waits_for_what_runs() -> None:
    # Rows 0 and 1 miss at 0. At 1500 block 0 is on the link (1000 to 2000) and block 1 on the channel (1000
    # to 2000); row 2 waits in the queue, row 3 is not issued. Both end at 2000, without events; block 0 is in
    # the cache.
    rows = [read(0, 0), read(0, 1), read(1200, 2), read(1500, 3)]
    events = run(rows, expiry_ns=1500, warning_ns=1000, **LAZY)
    assert [event for event in events if event[0] >= 500] == [
        (500, "warn_of_expiry", -1, 0, -1, 1000),
        (1000, "staged", 0, 1, 0, 0),
        (1000, "fetch", 1, 1, 1, 0),
        (1200, "vm_read", 2, 1, 2, 4096),
        (1200, "cache_miss", 2, 1, 2, 0),
        (1500, "expire", -1, 0, -1, 3),
        (1500, "power_down", -1, 0, -1, 0),
        (2000, "empty_read_cache", -1, 1, -1, 0),
        (2000, "unmount_file_system", -1, 0, -1, 0),
        (2000, "de_associate", -1, 0, -1, 0),
    ]


def test_what_was_handed_over_before_the_expiry_ends_without_effect_and_no_fetch_starts() -> None:
    # At 1000 block 0 has been fetched and handed to the link; block 1 waits in the queue and is dropped. Two
    # writes: the first ends at 1000, with its event, the second, handed over at 0, at 2000 without one.
    rows = [read(0, 0), read(0, 1), write(0, 0, BLOCK), write(0, 0, BLOCK)]
    events = run(rows, expiry_ns=1000, warning_ns=5000, **LAZY)
    assert [event[:3] + event[4:] for event in events if event[0] > 0] == [
        (1000, "staged", 0, 0, 0),
        (1000, "written", 0, 2, 0),
        (1000, "vm_done", 0, 2, 1000),
        (1000, "expire", -1, -1, 3),
        (1000, "power_down", -1, -1, 0),
        (2000, "empty_read_cache", -1, -1, 0),
        (2000, "unmount_file_system", -1, -1, 0),
        (2000, "de_associate", -1, -1, 0),
    ]
    # the warning that would have been due before the launch is given at the launch
    assert only(events, "warn_of_expiry") == [(0, "warn_of_expiry", -1, 0, -1, 1000)]


@pytest.mark.parametrize(
    ("warning_ns", "extend_at_ns", "extend_by_ns", "expected"),
    [
        # the old warning, which would come at 700, is void
        (300, 500, 2000, [(500, "extend_expiry", 3000), (2700, "warn_of_expiry", 300), (3000, "expire", 0)]),
        # at 700 the extension comes before the warning
        (300, 700, 2000, [(700, "extend_expiry", 3000), (2700, "warn_of_expiry", 300), (3000, "expire", 0)]),
        # a warning that was given before is given again
        (
            300,
            800,
            1000,
            [
                (700, "warn_of_expiry", 300),
                (800, "extend_expiry", 2000),
                (1700, "warn_of_expiry", 300),
                (2000, "expire", 0),
            ],
        ),
        # the new warning would have been due before the extension
        (
            5000,
            500,
            100,
            [
                (0, "warn_of_expiry", 1000),
                (500, "extend_expiry", 1100),
                (500, "warn_of_expiry", 600),
                (1100, "expire", 0),
            ],
        ),
    ],
)
def test_an_extension_voids_the_expiry_and_its_warning(
    warning_ns: int, extend_at_ns: int, extend_by_ns: int, expected: list[tuple[int, str, int]]
) -> None:
    events = run(
        [],
        expiry_ns=1000,
        warning_ns=warning_ns,
        extend_at_ns=extend_at_ns,
        extend_by_ns=extend_by_ns,
        **LAZY,
    )
    seen = only(events, "extend_expiry", "warn_of_expiry", "expire")
    assert [(event[0], event[1], event[5]) for event in seen] == expected


def test_an_extension_before_the_launch_saves_the_mount() -> None:
    # Launched at 2000, when both blocks are staged. The expiry at 1500 is moved to 2200 at 1000; the warning
    # would be due at 1900.
    events = run(
        [],
        mode="live_mount",
        first_set=np.array([0, 1]),
        launch=LaunchRule("share", 1.0),
        expiry_ns=1500,
        warning_ns=300,
        extend_at_ns=1000,
        extend_by_ns=700,
    )
    seen = only(events, "extend_expiry", "launch_vm", "warn_of_expiry", "expire")
    assert [(event[0], event[1], event[5]) for event in seen] == [
        (1000, "extend_expiry", 2200),
        (2000, "launch_vm", 2),
        (2000, "warn_of_expiry", 200),
        (2200, "expire", 0),
    ]


def test_an_expiry_before_the_launch_is_an_error() -> None:
    by_share: dict[str, Any] = {
        "mode": "live_mount",
        "first_set": np.array([0, 1]),
        "launch": LaunchRule("share", 1.0),
    }
    with pytest.raises(ValueError, match="expected an expiry after the launch, got 1999 ns"):
        run([], expiry_ns=1999, **by_share)
    # at equal times the launch comes first
    assert when(run([], expiry_ns=2000, **by_share), "launch_vm") == [(2000, -1)]


# invariants


def _simulate(scenario: Scenario, local: bool = False) -> list[Event]:
    try:
        return simulate_slowly(
            scenario.trace,
            scenario.plan,
            scenario.hardware,
            scenario.stored,
            scenario.address,
            local,
            scenario.chunk,
            scenario.chunk_extents,
        )
    except ValueError as error:
        if "expiry after the launch" not in str(error):
            raise
        return []


def _check_cache(scenario: Scenario, events: list[Event]) -> None:
    """Replay the cache: never too full, never a block twice, never a hit of what is not there."""
    plan = scenario.plan
    cached: set[int] = set()
    in_flight: Counter[int] = Counter()  # of a whole chunk, also what is dropped
    straight: set[int] = set()
    for _, kind, block, count, _, detail in events:
        is_range = kind in ("fetch", "staged", "read_from_media")
        blocks = set(np.flatnonzero(scenario.stored[block : block + count]) + block) if is_range else set()
        passes_by = plan.misses == "straight" and detail in READS
        if kind == "fetch":
            if scenario.chunk is None:
                assert len(blocks) == count
                assert not blocks & (cached | set(+in_flight) | straight)
                straight |= blocks if passes_by else set()
            if not passes_by:
                in_flight.update(blocks)
        elif kind == "staged":
            assert not passes_by
            assert blocks <= set(+in_flight)
            assert not blocks & cached
            cached |= blocks
            if scenario.chunk is None:
                in_flight.subtract(blocks)
        elif kind == "read_from_media":
            assert passes_by
            assert not blocks & cached
            straight -= blocks
        elif kind in ("evict", "purge"):
            assert block in cached
            cached.remove(block)
        elif kind == "empty_read_cache":
            assert count == len(cached)
            cached.clear()
        elif kind in ("cache_hit", "cache_wait", "cache_miss"):
            assert (block in cached) == (kind == "cache_hit")
            if scenario.chunk is None:
                assert (block in straight or in_flight[block] == 0) or kind == "cache_wait"
        elif kind == "serve" and plan.misses == "through_cache":
            assert block in cached
        taken = len(cached) + (sum(in_flight.values()) if scenario.chunk is None else 0)
        assert taken <= plan.cache_slots


def _check_requests(scenario: Scenario, events: list[Event], cut_off: int) -> None:
    """Every request that was issued completes once, and its wait is what it says."""
    issued = {
        event[4]: event for event in events if event[1] in ("vm_read", "vm_write", "vm_discard", "vm_flush")
    }
    done = {event[4]: event for event in only(events, "vm_done")}
    assert len(done) == len(only(events, "vm_done"))
    assert set(done) <= set(issued)
    assert len(issued) - len(done) == cut_off
    for number, event in done.items():
        assert event[5] == event[0] - issued[number][0]
        assert event[2:4] == issued[number][2:4]
    if not only(events, "expire"):
        assert set(done) == set(range(scenario.trace.frame.height))


def _check_relocation(scenario: Scenario, events: list[Event]) -> None:
    """Every stored block is relocated once, in the order of the sequence, and nothing before it was read."""
    stored = [int(block) for block in scenario.plan.sequence if scenario.stored[block]]
    relocated = [
        block for event in only(events, "relocated") for block in range(event[2], event[2] + event[3])
    ]
    relocates = scenario.plan.mode != "live_mount"
    assert Counter(relocated) == Counter(stored if relocates else [])
    for kind in ("finish_relocation", "use_destination"):
        assert len(only(events, kind)) == relocates
    for kind in ("unmount_file_system", "empty_read_cache", "de_associate"):
        assert len(only(events, kind)) == relocates + len(only(events, "expire"))
    if scenario.plan.relocation_depth == 1:
        assert relocated == (stored if relocates else [])


def test_invariants_hold_in_drawn_scenarios_and_every_kind_of_event_is_seen() -> None:
    seen: set[str] = set()

    @settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(scenarios())
    def check(scenario: Scenario) -> None:
        events = _simulate(scenario)
        if not events:
            return
        seen.update(event[1] for event in events)
        times = [event[0] for event in events]
        assert times == sorted(times)
        assert times[0] == 0
        _check_cache(scenario, events)
        _check_requests(scenario, events, sum(event[5] for event in only(events, "expire")))
        _check_relocation(scenario, events)

    check()
    assert seen == set(KINDS) - {"lose_media_agent", "take_over", "strand"}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_locally_nothing_comes_from_the_backup_copy(scenario: Scenario) -> None:
    events = _simulate(scenario, local=True)
    local = {"launch_vm", "vm_read", "vm_write", "vm_discard", "vm_flush", "vm_done", "boot_done"}
    assert {event[1] for event in events} <= local | {"read_destination", "written"}
    _check_requests(scenario, events, 0)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios(modes=("live_mount",)))
def test_demand_is_fetched_first_come_first_served(scenario: Scenario) -> None:
    # Rule 6: nothing overtakes in the queue. Fetches of one request have one number, so requests start in
    # order of their first miss.
    events = _simulate(scenario)
    asked = list(dict.fromkeys(event[4] for event in only(events, "cache_miss")))
    started = list(dict.fromkeys(event[4] for event in only(events, "fetch") if event[4] >= 0))
    assert started == asked[: len(started)]
