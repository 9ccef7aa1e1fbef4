"""Why an event came when it did, what requests waited for, and what made the difference."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
from hand_made import Event, timeline_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import Scenario, scenarios
from small_restores import MS, SLOW_LINK, UNIT, layout, reads_at, small_plan

from vmrestorekit.plan import LaunchRule, PlanError
from vmrestorekit.restore.closed_loop import closed_loop
from vmrestorekit.restore.difference import difference
from vmrestorekit.restore.explain import WAITED_FOR, critical_path, waits, why
from vmrestorekit.restore.hardware import Hardware, Link
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.restore.timeline import Timeline, TimelineError

BLOCKS = 10
NS_OF_PART = [f"{name}_ns" for name in WAITED_FOR]

# a boot of two reads, think time 5 before each and 5 before its end; the second read finds block 1 missing
BOOT: list[Event] = [
    (0, "launch_vm"),
    (5, "vm_read", 0, 1, 0, UNIT, 0),
    (5, "cache_hit", 0, 1, 0, 0, 1),
    (15, "serve", 0, 1, 0, 0, 2),
    (15, "vm_done", 0, 1, 0, 10, 3),
    (20, "vm_read", 1, 2, 1, 2 * UNIT, 4),
    (20, "cache_miss", 1, 1, 1, 0, 5),
    (20, "cache_miss", 2, 1, 1, 0, 5),
    (27, "fetch", 1, 2, 1, 0, 6),
    (60, "staged", 1, 2, 1, 0, 8),
    (70, "serve", 1, 1, 1, 0, 9),
    (80, "serve", 2, 1, 1, 0, 9),
    (80, "vm_done", 1, 2, 1, 60, 11),
    (85, "boot_done", -1, 0, -1, 0, 12),
]
# the same with everything staged before
STAGED: list[Event] = [
    *BOOT[:6],
    (20, "cache_hit", 1, 1, 1, 0, 5),
    (20, "cache_hit", 2, 1, 1, 0, 5),
    (30, "serve", 1, 1, 1, 0, 6),
    (40, "serve", 2, 1, 1, 0, 7),
    (40, "vm_done", 1, 2, 1, 20, 9),
    (45, "boot_done", -1, 0, -1, 0, 10),
]


def parts_of(timeline: Timeline, request: int) -> dict[str, int]:
    """The parts of one request's wait that are not 0."""
    row = waits(timeline).filter(pl.col("request") == request).row(0, named=True)
    return {name: row[f"{name}_ns"] for name in WAITED_FOR if row[f"{name}_ns"]}


def test_a_timeline_without_causes_cannot_explain() -> None:
    timeline = timeline_of([(0, "launch_vm"), (5, "vm_read", 0, 1, 0)], BLOCKS)
    for question in (waits, critical_path, lambda t: why(t, 1), lambda t: difference(t, t)):
        with pytest.raises(TimelineError, match="expected a timeline whose events name their causes"):
            question(timeline)


# --- one chain, by hand -----------------------------------------------------------------------------------


def test_the_steps_of_a_miss_from_its_issue_to_its_completion() -> None:
    steps = why(timeline_of(BOOT, BLOCKS), request=1)
    assert steps.select("step", "row", "time_ns", "kind", "waited_for", "waited_ns").rows() == [
        (0, 5, 20, "vm_read", None, 0),
        (1, 7, 20, "cache_miss", None, 0),
        (2, 8, 27, "fetch", "queue", 7),
        (3, 9, 60, "staged", "device", 33),
        # block 2 was sent behind block 1
        (4, 11, 70, "serve", "link_queue", 10),
        (5, 11, 80, "serve", "link", 10),
        (6, 12, 80, "vm_done", None, 0),
    ]


def test_the_latency_of_the_link_is_no_queue() -> None:
    # 4 KiB take 4 ns; the transmission that arrived at 70 left the link at 64
    link = Link(latency_ns=6, bandwidth=1024 * 10**9)
    hardware = Hardware("SYNTHETIC", SLOW_LINK.backup_device, link=link)
    events = [*BOOT[:11], (74, "serve", 2, 1, 1, 0, 9), (74, "vm_done", 1, 2, 1, 54, 11)]
    timeline = timeline_of(events, BLOCKS, hardware=hardware)
    assert parts_of(timeline, 1) == {"queue": 7, "device": 33, "link_queue": 4, "link": 10}


def test_what_another_machine_sends_over_a_shared_link_is_waited_for() -> None:
    link = Link(latency_ns=6, bandwidth=1024 * 10**9)
    hardware = Hardware("SYNTHETIC", SLOW_LINK.backup_device, link=link)
    # between 60 and 80 the link carries 4 KiB for this machine, 4 ns, and arrives 6 ns later
    events = [*BOOT[:10], (80, "serve", 2, 1, 1, 0, 9), (80, "vm_done", 1, 2, 1, 60, 10)]
    timeline = timeline_of(events, BLOCKS, hardware=hardware)
    assert parts_of(timeline, 1) == {"queue": 7, "device": 33, "link_queue": 10, "link": 10}


def test_of_a_fetch_that_was_under_way_the_rest_counts() -> None:
    events: list[Event] = [
        (0, "determine_first_set"),
        (0, "fetch", 3, 1, -1, 2, 0),
        (10, "launch_vm"),
        (30, "vm_read", 3, 1, 0, UNIT, 2),
        (30, "cache_wait", 3, 1, 0, 0, 3),
        (50, "staged", 3, 1, -1, 2, 1),
        (58, "serve", 3, 1, 0, 0, 5),
        (58, "vm_done", 3, 1, 0, 28, 6),
    ]
    timeline = timeline_of(events, BLOCKS)
    assert parts_of(timeline, 0) == {"device": 20, "link": 8}
    assert why(timeline, request=0)["kind"].to_list() == [
        "vm_read",
        "cache_wait",
        "staged",
        "serve",
        "vm_done",
    ]
    assert waits(timeline).select("hits", "waits", "misses").row(0) == (0, 1, 0)


def test_writes_flushes_and_reads_of_primary_storage() -> None:
    events: list[Event] = [
        (0, "launch_vm"),
        (0, "vm_write", 0, 1, 0, 100, 0),
        (0, "vm_write", 1, 1, 1, UNIT, 0),
        (0, "cache_hit", 0, 1, 0, 0, 1),
        (3, "vm_flush", -1, 0, 2, 0, 0),
        (5, "written", 1, 1, 1, 0, 2),
        (5, "vm_done", 1, 1, 1, 5, 5),
        (8, "serve", 0, 1, 0, 0, 3),
        (20, "written", 0, 1, 0, 0, 7),
        (20, "vm_done", 0, 1, 0, 20, 8),
        (20, "vm_done", -1, 0, 2, 17, 9),
        (25, "vm_write", 0, 1, 3, UNIT, 9),
        (25, "vm_read", 2, 2, 4, UNIT, 9),
        (25, "vm_discard", 5, 1, 5, UNIT, 9),
        (25, "vm_done", 5, 1, 5, 0, 13),
        (29, "written", 0, 1, 3, 1, 11),
        (29, "vm_done", 0, 1, 3, 4, 15),
        (31, "read_write_cache", 2, 1, 4, 512, 12),
        (36, "read_destination", 3, 1, 4, 512, 12),
        (36, "vm_done", 2, 2, 4, 11, 18),
        (40, "vm_read", 9, 1, 6, UNIT, 19),
    ]
    timeline = timeline_of(events, BLOCKS)
    # the first write read the rest of its unit before
    assert [parts_of(timeline, request) for request in range(6)] == [
        {"link": 8, "write_cache": 12},
        {"write_cache": 5},
        # the flush waited for the first write, of whose read 5 ns were left
        {"link": 5, "write_cache": 12},
        {"destination": 4},
        {"destination": 11},
        {},
    ]
    # the last read was cut off
    last = waits(timeline).row(6, named=True)
    assert last["issued_ns"] == 40
    assert [last[name] for name in ("wait_ns", *NS_OF_PART)] == [None] * (1 + len(NS_OF_PART))
    with pytest.raises(TimelineError, match="expected a request that was issued and completed, got 6"):
        why(timeline, request=6)


def test_the_time_until_another_media_agent_takes_over() -> None:
    events: list[Event] = [
        (0, "launch_vm"),
        (10, "vm_read", 0, 1, 0, UNIT, 0),
        (10, "cache_hit", 0, 1, 0, 0, 1),
        (12, "lose_media_agent"),
        (30, "take_over", -1, 0, -1, 1, 3),
        (30, "cache_miss", 0, 1, 0, 0, 4),
        (30, "fetch", 0, 1, 0, 0, 5),
        (40, "read_from_media", 0, 1, 0, 0, 6),
        (43, "serve", 0, 1, 0, 0, 7),
        (43, "vm_done", 0, 1, 0, 33, 8),
    ]
    assert parts_of(timeline_of(events, BLOCKS), 0) == {"media_agent": 20, "device": 10, "link": 3}


def test_an_event_goes_back_to_a_request_or_a_message() -> None:
    events: list[Event] = [
        (0, "indicate_vm_profile"),
        (0, "determine_first_set", -1, 2, -1, 0, 0),
        (4, "fetch", 0, 1, -1, 2, 1),
        (9, "staged", 0, 1, -1, 2, 2),
        (90, "launch_vm", -1, 0, -1, 1, 3),
        (95, "vm_read", 0, 1, 0, UNIT, 4),
        (95, "vm_done", 0, 1, 0, 0, 5),
    ]
    timeline = timeline_of(events, BLOCKS)
    columns = ["kind", "waited_for", "waited_ns"]
    assert why(timeline, 4).select(columns).rows() == [
        ("indicate_vm_profile", None, 0),
        ("determine_first_set", None, 0),
        ("fetch", "queue", 4),
        ("staged", "device", 5),
        ("launch_vm", "plan", 81),
    ]
    assert why(timeline, 6).select(columns).rows() == [("vm_read", None, 0), ("vm_done", None, 0)]
    assert why(timeline, 5)["waited_for"].to_list()[-1] == "think"


def test_questions_that_cannot_be_answered() -> None:
    timeline = timeline_of(BOOT, BLOCKS)
    with pytest.raises(TimelineError, match="expected either an event's row or a request"):
        why(timeline)
    with pytest.raises(TimelineError, match="expected either an event's row or a request"):
        why(timeline, 3, request=1)
    with pytest.raises(TimelineError, match="expected an event from 0 to 13, got 14"):
        why(timeline, 14)
    with pytest.raises(TimelineError, match="issued and completed, got 2"):
        why(timeline, request=2)
    with pytest.raises(TimelineError, match="event 1: expected a cause before it, got 1"):
        waits(timeline_of([BOOT[0], (5, "vm_read", 0, 1, 0, UNIT, 1)], BLOCKS))
    with pytest.raises(
        TimelineError, match="event 2: expected vm_done or launch_vm as its cause, got vm_read"
    ):
        critical_path(timeline_of([*BOOT[:2], (9, "boot_done", -1, 0, -1, 0, 1)], BLOCKS))


# --- two restores, by hand --------------------------------------------------------------------------------


def test_the_difference_of_two_boots() -> None:
    found = difference(timeline_of(STAGED, BLOCKS), timeline_of(BOOT, BLOCKS))
    assert (found.booted, found.a_ns, found.b_ns, found.difference_ns) == (True, 45, 85, 40)
    changed = found.totals.filter(pl.col("difference_ns") != 0)
    assert changed.rows() == [("queue", 0, 7, 7), ("device", 0, 33, 33)]
    assert found.totals.filter(waited_for="think").row(0) == ("think", 15, 15, 0)
    assert found.largest()["request"].to_list() == [1]
    row = found.requests.row(1, named=True)
    assert (row["block"], row["count"], row["compared"]) == (1, 2, True)
    assert (row["a_wait_ns"], row["a_waited_for"], row["a_hits"], row["a_misses"]) == (20, "link_queue", 2, 0)
    assert (row["b_wait_ns"], row["b_waited_for"], row["b_hits"], row["b_misses"]) == (60, "device", 0, 2)
    assert (
        str(found)
        == found.sentence()
        == (
            "b boots 40 ns later than a (85 ns instead of 45 ns): "
            "33 ns more waiting for the backup device to deliver, all of it in 1 read of blocks 1–2; "
            "7 ns more waiting for a free channel of the backup device or a slot of the read cache, "
            "all of it in 1 read of blocks 1–2. "
            "Of the blocks that these requests asked for, 3 of 3 in a and 1 of 3 in b were in the read cache."
        )
    )


def boot_of_reads(waits_ns: list[int]) -> Timeline:
    """A boot of reads of one block each, 7, 8, … of which each waits for the backup device."""
    events: list[Event] = [(0, "launch_vm")]
    now = 0
    for number, wait in enumerate(waits_ns):
        block, row = 7 + number, len(events)
        events += [
            (now, "vm_read", block, 1, number, UNIT, row - 1),
            (now, "cache_miss", block, 1, number, 0, row),
            (now, "fetch", block, 1, number, 0, row + 1),
            (now + wait, "staged", block, 1, number, 0, row + 2),
            (now + wait, "serve", block, 1, number, 0, row + 3),
            (now + wait, "vm_done", block, 1, number, wait, row + 4),
        ]
        now += wait
    return timeline_of([*events, (now, "boot_done", -1, 0, -1, 0, len(events) - 1)], 30)


@pytest.mark.parametrize(
    ("of_a", "of_b", "change", "reads"),
    [
        (
            [4_000_000_000, 3_000_000_000, 2_000_000_000, 1_000_000_000],
            [1, 1, 1, 1],
            "10.0 s sooner than a (4 ns instead of 10.0 s)",
            "half of it in 2 reads of blocks 7, 8.",
        ),
        (
            [1, 1, 1, 1, 1, 1, 1],
            [1_501_001, 1_501_001, 1, 1_501_001, 1_501_001, 1_501_001, 1_501_001],
            "9.01 ms later than a (9.01 ms instead of 7 ns)",
            "half of it in 3 reads of blocks 7, 8, 10.",
        ),
        (
            [0] * 8,
            [12_340] * 8,
            "98.7 µs later than a (98.7 µs instead of 0 ns)",
            "half of it in 4 reads, such as of blocks 7, 8, 9.",
        ),
        (
            [200_000_000, 1],
            [1, 1],
            "200 ms sooner than a (2 ns instead of 200 ms)",
            "all of it in 1 read of block 7.",
        ),
        (
            [9, 2_000_000_000_000],
            [9, 1_000_400_000_000],
            "1000 s sooner than a (1000 s instead of 2000 s)",
            "all of it in 1 read of block 8.",
        ),
    ],
)
def test_the_sentence_names_the_reads_that_made_half_of_it(
    of_a: list[int], of_b: list[int], change: str, reads: str
) -> None:
    sentence = difference(boot_of_reads(of_a), boot_of_reads(of_b)).sentence()
    assert sentence.startswith(f"b boots {change}: ")
    assert f"waiting for the backup device to deliver, {reads} Of the blocks" in sentence


def test_no_difference() -> None:
    timeline = timeline_of(BOOT, BLOCKS)
    found = difference(timeline, timeline)
    assert found.sentence().startswith("a and b take the same time to boot, 85 ns. Of the blocks")
    assert found.largest().height == 0


def test_without_the_end_of_the_boot_common_requests_are_compared() -> None:
    found = difference(timeline_of(BOOT, BLOCKS), timeline_of(STAGED[:-1], BLOCKS))
    assert (found.booted, found.a_ns, found.b_ns) == (False, 70, 30)
    assert found.requests["compared"].all()
    assert found.sentence().startswith(
        "The boot did not end in both; their 2 common requests waited 40 ns less in b than in a "
        "(30 ns instead of 70 ns, added up): 33 ns less waiting for the backup device"
    )
    # cut off before the second read was done
    found = difference(timeline_of(BOOT[:9], BLOCKS), timeline_of(STAGED, BLOCKS))
    assert found.requests["request"].to_list() == [0]
    assert found.sentence().startswith(
        "The boot did not end in both; their 1 common requests waited 10 ns in all"
    )


def test_restores_that_cannot_be_compared() -> None:
    boot = timeline_of(BOOT, BLOCKS)
    with pytest.raises(TimelineError, match="expected two restores of the same trace, got <Timeline"):
        difference(boot, dataclasses.replace(boot, boot="another"))
    with pytest.raises(
        TimelineError, match="request 1 is vm_read of 8192 bytes in a, vm_write of 4096 bytes in b"
    ):
        difference(boot, timeline_of([*BOOT[:5], (20, "vm_write", 1, 1, 1, UNIT, 4)], BLOCKS))
    with pytest.raises(TimelineError, match="expected requests that completed in both restores, got none"):
        difference(boot, timeline_of(BOOT[:3], BLOCKS))
    other_parent = [*BOOT[:5], (20, "boot_done", -1, 0, -1, 0, 4)]
    with pytest.raises(TimelineError, match="wait for the same requests, got 2 in a and 1 others in b"):
        difference(boot, timeline_of(other_parent, BLOCKS))


# --- simulated restores -----------------------------------------------------------------------------------


def simulated(scenario: Scenario, **changes: Any) -> Timeline | None:
    plan = scenario.plan.replace(**changes) if changes else scenario.plan
    try:
        return simulate_trace(
            *(scenario.trace, plan, scenario.hardware, scenario.address),
            *(scenario.chunk, scenario.chunk_extents),
        )
    except PlanError:
        return None


# kind -> kinds that may lead to it; of the same request, of a range that covers its blocks
CAUSES_OF_A_REQUEST = {
    "cache_hit": {"vm_read", "vm_write", "relocation_read"},
    "cache_wait": {"vm_read", "vm_write", "relocation_read"},
    "cache_miss": {"vm_read", "vm_write", "relocation_read"},
    "read_destination": {"vm_read", "vm_write"},
    "read_write_cache": {"vm_read"},
}
CAUSES_OF_A_BLOCK = {
    "staged": {"fetch"},
    "read_from_media": {"fetch"},
    "serve": {"cache_hit", "staged", "read_from_media"},
    "refetch_after_purge": {"cache_miss"},
}


@settings(max_examples=100, deadline=None)
@given(scenario=scenarios())
def test_causes_are_about_the_same_request_or_block(scenario: Scenario) -> None:
    timeline = simulated(scenario)
    if timeline is None:
        return
    events = list(timeline.events.iter_rows(named=True))
    for row, event in enumerate(events):
        assert -1 <= event["cause"] < row
        cause = events[event["cause"]]
        if event["kind"] in CAUSES_OF_A_REQUEST:
            assert cause["kind"] in CAUSES_OF_A_REQUEST[event["kind"]]
            assert cause["request"] == event["request"]
        elif event["kind"] in CAUSES_OF_A_BLOCK:
            assert cause["kind"] in CAUSES_OF_A_BLOCK[event["kind"]]
            assert cause["block"] <= event["block"]
            assert event["block"] + event["count"] <= cause["block"] + cause["count"]
        elif event["kind"] == "vm_done":
            # a flush is done when a write is, everything else with a step of its own
            assert cause["request"] == event["request"] or cause["kind"] in ("written", "vm_done")
            assert cause["time_ns"] == event["time_ns"]


@settings(max_examples=100, deadline=None)
@given(scenario=scenarios())
def test_the_parts_of_every_wait_add_up_to_it(scenario: Scenario) -> None:
    timeline = simulated(scenario)
    if timeline is None or not (timeline.causes >= 0).any():
        return
    told = waits(timeline)
    done = timeline.events.filter(pl.col("kind") == "vm_done").sort("request")
    completed = told.drop_nulls("wait_ns")
    assert completed["request"].to_list() == done["request"].to_list()
    assert completed["wait_ns"].to_list() == done["detail"].to_list()
    assert completed.select(pl.sum_horizontal(NS_OF_PART)).to_series().to_list() == done["detail"].to_list()
    assert completed.select(pl.min_horizontal(NS_OF_PART) >= 0).to_series().all()
    for row in completed.iter_rows(named=True):
        steps = why(timeline, request=row["request"]).group_by("waited_for").agg(pl.col("waited_ns").sum())
        assert dict(steps.drop_nulls().rows()) == {n: row[f"{n}_ns"] for n in WAITED_FOR if row[f"{n}_ns"]}


@settings(max_examples=60, deadline=None)
@given(scenario=scenarios())
def test_think_times_and_waits_on_the_critical_path_are_the_time_to_boot(scenario: Scenario) -> None:
    timeline = simulated(scenario)
    if timeline is None or timeline.summary()["time_to_boot_ns"] is None:
        return
    path = critical_path(timeline)
    assert path is not None
    loop = closed_loop(scenario.trace, scenario.plan.block_bytes)
    assert loop.boot_done is not None
    last, gap = loop.boot_done
    assert path.tolist()[-1:] == ([last] if last >= 0 else [])
    gaps = [*loop.gap[path].tolist(), gap]
    think = sum(int(np.rint(ns * scenario.hardware.cpu_factor)) for ns in gaps)
    waited = waits(timeline).filter(pl.col("request").is_in(path))["wait_ns"].sum()
    assert think + waited == timeline.summary()["time_to_boot_ns"]


@settings(max_examples=60, deadline=None)
@given(
    scenario=scenarios(modes=("instant_restore", "live_mount")), cpu_factor=st.sampled_from([1.0, 0.5, 3.0])
)
def test_the_totals_add_up_to_the_difference(scenario: Scenario, cpu_factor: float) -> None:
    a = simulated(scenario)
    hardware = scenario.hardware.replace(cpu_factor=cpu_factor)
    b = simulated(dataclasses.replace(scenario, hardware=hardware), first_set=scenario.plan.first_set[:0])
    if a is None or b is None or not (waits(a)["wait_ns"] >= 0).any() or not (waits(b)["wait_ns"] >= 0).any():
        return
    found = difference(a, b)
    booted = [timeline.summary()["time_to_boot_ns"] for timeline in (a, b)]
    assert found.booted == (None not in booted)
    if found.booted:
        assert [found.a_ns, found.b_ns] == booted
    else:
        assert found.a_ns == found.requests["a_wait_ns"].sum()
    for name in ("a_ns", "b_ns", "difference_ns"):
        assert found.totals[name].sum() == getattr(found, name)
    compared = found.requests.filter("compared")
    of_requests = compared.select(pl.col(NS_OF_PART).sum()).row(0)
    assert list(of_requests) == found.totals["difference_ns"].to_list()[:-1]
    assert (
        found.requests.select(pl.sum_horizontal(NS_OF_PART)).to_series() == found.requests["difference_ns"]
    ).all()
    assert found.sentence().endswith(".")


def test_what_reads_of_one_block_wait_for_is_known() -> None:
    # one after the other, 20 ms apart; nothing staged: every first read of a block is a fetch of its own
    blocks = [5, 100, 7, 5, 100, 9]
    plan = small_plan(first_set=[], launch=LaunchRule("immediately"), mode="live_mount")
    timeline = simulate_trace(reads_at(blocks, 20 * MS), plan, SLOW_LINK, layout())
    told = waits(timeline)
    transmission = 5 * MS + UNIT * 8
    fetched = 200_000 + UNIT * 10
    assert told["link_ns"].to_list() == [transmission] * 6
    assert told["device_ns"].to_list() == [fetched, fetched, fetched, 0, 0, fetched]
    assert told["misses"].to_list() == [1, 1, 1, 0, 0, 1]
    assert (
        told.select(pl.sum_horizontal("link_ns", "device_ns")).to_series().to_list()
        == told["wait_ns"].to_list()
    )
