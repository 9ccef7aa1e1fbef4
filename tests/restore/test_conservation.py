"""What holds in every run, checked on the events alone: nothing is lost, nothing is served from nowhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import Scenario, make_trace, scenarios

from vmrestorekit.plan import LaunchRule, PlanError, RestorePlan
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link, PrimaryStorage
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.restore.timeline import Timeline

Event = dict[str, Any]
RESTORES = ("instant_restore", "full_restore")


def run_of(scenario: Scenario) -> Timeline | None:
    try:
        return simulate_trace(
            scenario.trace,
            scenario.plan,
            scenario.hardware,
            scenario.address,
            *(scenario.chunk, scenario.chunk_extents),
        )
    except PlanError:
        return None


def rows_of(run: Timeline) -> list[Event]:
    return list(run.events.iter_rows(named=True))


def blocks_of(event: Event) -> range:
    return range(event["block"], event["block"] + event["count"])


def check_cache(events: list[Event], slots: int) -> None:
    """A hit is a block that is there; what comes was not there; never are there more than there are slots."""
    cached: set[int] = set()
    for event in events:
        kind, blocks = event["kind"], blocks_of(event)
        if kind == "cache_hit":
            assert cached.issuperset(blocks)
        elif kind in ("cache_miss", "cache_wait"):
            assert cached.isdisjoint(blocks)
        elif kind == "staged":
            assert cached.isdisjoint(blocks)
            cached |= set(blocks)
            assert len(cached) <= slots
        elif kind in ("evict", "purge"):
            assert cached.issuperset(blocks)
            cached -= set(blocks)
        elif kind == "empty_read_cache":
            assert event["count"] == len(cached)
            cached.clear()


def check_serving(events: list[Event]) -> None:
    """What is sent was found in the cache or came from the medium, and that names the block."""
    for event in events:
        if event["kind"] == "serve":
            source = events[event["cause"]]
            assert source["kind"] in ("cache_hit", "staged", "read_from_media")
            assert event["block"] in blocks_of(source)


def fetches_of(events: list[Event]) -> list[tuple[Event, int]]:
    """Each fetch that brought something, and when it ended."""
    ends = {
        event["cause"]: event["time_ns"] for event in events if event["kind"] in ("staged", "read_from_media")
    }
    return [(events[row], end) for row, end in ends.items()]


def check_fetches(events: list[Event], scenario: Scenario) -> None:
    """No more fetches at a time than channels, no block twice at a time, and each takes what it must."""
    device, size = scenario.hardware.backup_device, scenario.plan.block_bytes
    fetches = fetches_of(events)
    for fetch, end in fetches:
        at_a_time = [other for other, until in fetches if other["time_ns"] <= fetch["time_ns"] < until]
        assert len(at_a_time) <= device.channels
        if scenario.chunk is None:
            blocks = [block for other in at_a_time for block in blocks_of(other)]
            assert len(set(blocks)) == len(blocks)
        farthest = int(scenario.address.max() + 4 * size) * device.distance_ns_per_gib >> 30
        positioning = device.positioning_ns + device.mount_ns + farthest
        took = end - fetch["time_ns"]
        transfers = [-(-read * 10**9 // device.bandwidth) for read in bytes_read(fetch, scenario)]
        assert any(transfer <= took <= transfer + positioning for transfer in transfers)


def bytes_read(fetch: Event, scenario: Scenario) -> list[int]:
    """How much a fetch may have read: one number, of chunks that of each two that span its blocks."""
    size, address, chunk = scenario.plan.block_bytes, scenario.address, scenario.chunk
    first, last = fetch["block"], fetch["block"] + fetch["count"] - 1
    if chunk is None:
        return [int(address[last] + size - address[first])]
    chunks = {}
    for number in range(chunk.max() + 1):
        blocks = np.flatnonzero(chunk == number)
        extent = address[blocks].min(), address[blocks].max() + size
        if scenario.chunk_extents is not None:
            extent = scenario.chunk_extents[number]
        chunks[number] = (blocks[0], blocks[-1], *extent)
    return [
        int(b[3] - a[2])
        for a, b in itertools.product(chunks.values(), repeat=2)
        if min(a[0], b[0]) == first and max(a[1], b[1]) == last and b[3] > a[2]
    ]


def check_relocation(events: list[Event], stored: set[int]) -> None:
    """Every stored block is sent to the relocation once, and is on the destination once."""
    sent = [event["block"] for event in events if event["kind"] == "serve" and event["detail"] == 1]
    assert sorted(sent) == sorted(stored)
    relocated = [block for event in events if event["kind"] == "relocated" for block in blocks_of(event)]
    assert sorted(relocated) == sorted(stored)


def check_writes(events: list[Event]) -> None:
    """What is written before the pivot and not discarded later is applied afterwards."""
    written: dict[int, int] = {}
    for row, event in enumerate(events):
        kind = event["kind"]
        if kind == "written" and event["detail"] == 0:
            written |= dict.fromkeys(blocks_of(event), row)
        elif kind in ("vm_discard", "applied"):
            for block in blocks_of(event):
                written.pop(block, None)
    assert not written


def check_order(events: list[Event]) -> None:
    """Time never runs backwards, and nothing comes before what caused it."""
    for row, event in enumerate(events):
        assert row == 0 or events[row - 1]["time_ns"] <= event["time_ns"]
        assert -1 <= event["cause"] < row
        assert event["cause"] < 0 or events[event["cause"]]["time_ns"] <= event["time_ns"]


@settings(max_examples=120, deadline=None)
@given(scenario=scenarios())
def test_whatever_happens(scenario: Scenario) -> None:
    run = run_of(scenario)
    if run is None:
        return
    events = rows_of(run)
    check_order(events)
    check_serving(events)
    check_fetches(events, scenario)
    if not any(event["kind"] == "expire" for event in events):
        check_cache(events, scenario.plan.cache_slots)


@settings(max_examples=100, deadline=None)
@given(scenario=scenarios(modes=RESTORES))
def test_a_restore_loses_no_block_and_no_write(scenario: Scenario) -> None:
    run = run_of(scenario)
    assert run is not None
    events = rows_of(run)
    check_relocation(events, set(np.flatnonzero(scenario.stored).tolist()))
    check_writes(events)
    assert events[-1]["kind"] != "use_destination"
    assert sum(event["kind"] == "de_associate" for event in events) == 1


@settings(max_examples=80, deadline=None)
@given(scenario=scenarios(modes=("live_mount",)))
def test_a_live_mount_never_changes_the_backup(scenario: Scenario) -> None:
    before = [scenario.address.copy(), scenario.plan.first_set.copy()]
    run = run_of(scenario)
    if run is None:
        return
    kinds = set(run.events["kind"].cast(pl.String))
    assert kinds.isdisjoint(
        {"relocation_read", "relocated", "applied", "use_destination", "read_destination"}
    )
    assert (run.events.filter(kind="written")["detail"] == 0).all()
    assert np.array_equal(before[0], scenario.address)
    assert np.array_equal(before[1], scenario.plan.first_set)


# --- each check notices what it is there for ------------------------------------------------------------


@pytest.fixture
def events_and_scenario() -> tuple[list[Event], Scenario]:
    """A restore of eight blocks through a cache of three, with a write."""
    rows = [
        (time, time + 9000, 0, "read", block * 4096, 4096) for time, block in ((0, 0), (100, 5), (9100, 0))
    ]
    rows.append((9200, 9300, 0, "write", 3 * 4096, 4096))
    plan = RestorePlan(
        (8 * 4096,),
        block_bytes=4096,
        cache_bytes=3 * 4096,
        launch=LaunchRule("immediately"),
        fetch_bytes=4096,
    )
    volume = PrimaryStorage(100, 4_096_000_000)
    device = BackupDevice(channels=2, positioning_ns=500, bandwidth=4_096_000_000)
    hardware = Hardware("small", device, Link(100, 4_096_000_000), volume, volume)
    address = np.arange(8) * 4096
    scenario = Scenario(make_trace(rows, (8 * 4096,)), plan, hardware, address >= 0, address)
    run = run_of(scenario)
    assert run is not None
    return rows_of(run), scenario


def row_of(events: list[Event], kind: str) -> int:
    return next(row for row, event in enumerate(events) if event["kind"] == kind)


def notices(check: Callable[[], None]) -> bool:
    try:
        check()
    except AssertionError:
        return True
    return False


def test_the_checks_notice_what_is_wrong(events_and_scenario: tuple[list[Event], Scenario]) -> None:
    events, scenario = events_and_scenario
    slots, stored = scenario.plan.cache_slots, set(range(8))
    check_cache(events, slots)
    check_fetches(events, scenario)
    check_serving(events)
    check_relocation(events, stored)
    check_writes(events)
    check_order(events)

    def changed(kind: str, **changes: Any) -> list[Event]:
        row = row_of(events, kind)
        return [*events[:row], events[row] | changes, *events[row + 1 :]]

    def without(kind: str) -> list[Event]:
        row = row_of(events, kind)
        return events[:row] + events[row + 1 :]

    last_staged = max(row for row, event in enumerate(events) if event["kind"] == "staged")
    for check, wrong in (
        (lambda: check_cache(without("evict"), slots), "an eviction is missing"),
        (lambda: check_cache(changed("staged", block=7), slots), "another block came"),
        (lambda: check_cache(events, slots - 1), "a slot too many"),
        (lambda: check_serving(changed("serve", block=7)), "another block was sent"),
        (lambda: check_serving(changed("serve", cause=0)), "it came from nowhere"),
        (lambda: check_fetches(changed("staged", time_ns=10**9), scenario), "a fetch that takes too long"),
        (lambda: check_fetches(changed("fetch", count=4), scenario), "a fetch of too much"),
        (lambda: check_relocation(without("relocated"), stored), "blocks were lost"),
        (lambda: check_relocation([*events, events[row_of(events, "relocated")]], stored), "relocated twice"),
        (lambda: check_writes(without("applied")), "a write was lost"),
        (lambda: check_order(changed("fetch", time_ns=10**15)), "time ran backwards"),
        (lambda: check_order(changed("fetch", cause=last_staged)), "the cause came later"),
    ):
        assert notices(check), wrong


# --- limits in closed form ------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from([0, 1, 500, 1000, 2500, 9000]), st.integers(0, 199)),
        min_size=1,
        max_size=30,
        unique_by=lambda arrival: arrival[1],
    )
)
def test_one_fifo_device_keeps_to_lindleys_recursion(arrivals: list[tuple[int, int]]) -> None:
    """W[n + 1] = max(0, W[n] + S[n] - A[n + 1]) (D. V. Lindley, 1952): waits in a queue with one server."""
    issued = np.cumsum([gap for gap, _ in arrivals]).tolist()
    blocks = [block for _, block in arrivals]
    end_of_all = issued[-1] + 1  # nobody waits for anybody: each is issued at its time
    rows = [
        (time, end_of_all, 0, "read", block * 4096, 4096) for time, block in zip(issued, blocks, strict=True)
    ]
    device = BackupDevice(1, positioning_ns=700, bandwidth=4_096_000_000, distance_ns_per_gib=1 << 30)
    at_once = PrimaryStorage(0, 10**18)
    hardware = Hardware("one server", device, Link(0, 10**18), at_once, at_once)
    plan = RestorePlan(
        (200 * 4096,),
        mode="live_mount",
        block_bytes=4096,
        launch=LaunchRule("immediately"),
        misses="straight",
        fetch_bytes=4096,
    )
    # every other place on the medium, so that none lies behind another
    address = np.arange(200) * 8192
    run = simulate_trace(make_trace(rows, (200 * 4096,)), plan, hardware, address)
    done = run.events.filter(kind="vm_done").sort("request")["detail"].to_list()

    wait, service, stands_at, expected = 0, 0, 0, []
    for number, block in enumerate(blocks):
        if number:
            wait = max(0, wait + service - (issued[number] - issued[number - 1]))
        service = 700 + abs(block * 8192 - stands_at) + 1000
        stands_at = block * 8192 + 4096
        expected.append(wait + service + 1)  # the nanosecond that the link is rounded up to
    assert done == expected


def test_a_full_restore_takes_what_its_requests_take_one_after_the_other() -> None:
    """With one request at a time and no machine running: fetch, send, write, again."""
    blocks, size = 12, 65536
    device = BackupDevice(1, positioning_ns=1_000_000, bandwidth=100_000_000)
    volume = PrimaryStorage(50_000, 200_000_000)
    hardware = Hardware("one by one", device, Link(200_000, 125_000_000), volume, volume)
    plan = RestorePlan((blocks * size,), mode="full_restore", relocation_request_bytes=4 * size)
    trace = make_trace([(0, 1, 0, "read", 0, 4096)], (blocks * size,))
    run = simulate_trace(trace, plan.replace(stage_ahead_bytes=0), hardware, np.arange(blocks) * size)

    def transfer(count: int, bandwidth: int) -> int:
        return -(-count * size * 10**9 // bandwidth)

    once = transfer(4, 100_000_000) + 4 * transfer(1, 125_000_000) + 200_000 + 50_000
    once += transfer(4, 200_000_000)
    # the medium goes on where it stopped, so it is positioned for once
    assert run.summary()["launch_ns"] == 3 * once + 1_000_000
