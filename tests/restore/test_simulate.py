"""From a boot, a plan and hardware to a timeline: the parts around the engine, and its closed-form limits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scenarios import Scenario, make_trace, scenarios

from vmrestorekit.plan import LaunchRule, PlanError, RelocationStart, RestorePlan
from vmrestorekit.restore import timeline as tl
from vmrestorekit.restore import world
from vmrestorekit.restore.closed_loop import find_parents
from vmrestorekit.restore.events import CAUSES, KINDS, PURGE_TRIGGERS, READERS
from vmrestorekit.restore.hardware import (
    MEDIA,
    BackupDevice,
    Hardware,
    HardwareError,
    Link,
    PrimaryStorage,
    resolve_hardware,
)
from vmrestorekit.restore.simulate import compare, simulate, simulate_trace
from vmrestorekit.restore.summary import SUMMARY_MEANING, tabulate
from vmrestorekit.restore.timeline import Timeline, TimelineError
from vmrestorekit.traces.corpus import Boot


@given(
    gaps=hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, 3)),
    data=st.data(),
)
def test_parents_are_those_that_a_search_of_all_rows_finds(
    gaps: npt.NDArray[np.int64], data: st.DataObject
) -> None:
    issued = np.cumsum(gaps)
    took = data.draw(hnp.arrays(np.int64, len(gaps), elements=st.integers(0, 6)))
    completed = issued + took
    expected = []
    for row in range(len(issued)):
        candidates = [(completed[above], above) for above in range(row) if completed[above] <= issued[row]]
        expected.append(max(candidates)[1] if candidates else -1)
    assert find_parents(issued, completed).tolist() == expected


def drawn_timeline(scenario: Scenario) -> Timeline | None:
    try:
        return simulate_trace(scenario.trace, scenario.plan, scenario.hardware, scenario.address)
    except PlanError:
        return None


@settings(max_examples=60, deadline=None)
@given(scenario=scenarios(), data=st.data())
def test_state_at_is_what_replaying_every_event_gives(scenario: Scenario, data: st.DataObject) -> None:
    timeline = drawn_timeline(scenario)
    if timeline is None:
        return
    at = data.draw(st.integers(-1, len(timeline) - 1))
    flags = [tl.STORED if stored else 0 for stored in timeline.stored]
    for event in timeline.events[: at + 1].iter_rows(named=True):
        if event["kind"] == "empty_read_cache":
            flags = [value & ~(tl.IN_CACHE | tl.IN_FLIGHT) for value in flags]
        if event["kind"] == "power_down":
            flags = [value & ~tl.WRITTEN for value in flags]
        effect = {
            "fetch": (tl.IN_FLIGHT, 0),
            "staged": (tl.IN_CACHE, tl.IN_FLIGHT | tl.PURGED),
            "read_from_media": (0, tl.IN_FLIGHT),
            "serve": (tl.SERVED, 0),
            "evict": (0, tl.IN_CACHE),
            "purge": (tl.PURGED, tl.IN_CACHE),
            "written": (tl.WRITTEN, 0),
            "relocated": (tl.RELOCATED, 0),
            "applied": (tl.RELOCATED, tl.WRITTEN),
        }.get(event["kind"])
        if effect is not None:
            for block in range(event["block"], event["block"] + event["count"]):
                flags[block] = flags[block] & ~effect[1] | effect[0]
    assert timeline.state_at(at).flags.tolist() == flags


def test_state_at_long_after_a_snapshot(monkeypatch: pytest.MonkeyPatch, tiny_boot: Boot) -> None:
    plan = RestorePlan(tiny_boot.disk_bytes, first_set=np.arange(20), launch=LaunchRule(head_start_ns=0))
    whole = simulate(tiny_boot, plan, "flash")
    states = [whole.state_at(row).flags for row in range(len(whole))]
    monkeypatch.setattr(tl, "_SNAPSHOT_EVERY", 7)
    again = simulate(tiny_boot, plan, "flash")
    for row, flags in enumerate(states):
        assert np.array_equal(again.state_at(row).flags, flags)


def test_questions_that_a_timeline_cannot_answer(tiny_boot: Boot) -> None:
    timeline = simulate(tiny_boot, RestorePlan(tiny_boot.disk_bytes), "flash")
    with pytest.raises(TimelineError, match="expected either an event's index or time_ns"):
        timeline.state_at()
    with pytest.raises(TimelineError, match=f"expected an event from -1 to {len(timeline) - 1}"):
        timeline.state_at(len(timeline))
    with pytest.raises(TimelineError, match="kind: expected one of"):
        timeline.next_of_kind("explode", 0)


def wasted_by_hand(timeline: Timeline) -> int:
    """Blocks that a stager brought and nobody was sent before they left, event by event."""
    wasted, idle = 0, set()
    for event in timeline.events.iter_rows(named=True):
        blocks = range(event["block"], event["block"] + event["count"])
        if event["kind"] == "staged" and event["detail"] >= 2:
            idle |= set(blocks)
        elif event["kind"] == "serve":
            idle -= set(blocks)
        elif event["kind"] in ("evict", "purge") and event["block"] in idle:
            wasted += 1
            idle.remove(event["block"])
    return wasted + len(idle)


@settings(max_examples=60, deadline=None)
@given(scenario=scenarios())
def test_wasted_bytes_are_those_counted_event_by_event(scenario: Scenario) -> None:
    timeline = drawn_timeline(scenario)
    if timeline is not None:
        assert timeline.summary()["wasted_bytes"] == wasted_by_hand(timeline) * scenario.plan.block_bytes


@settings(max_examples=60, deadline=None)
@given(scenario=scenarios())
def test_figures_are_those_counted_event_by_event(scenario: Scenario) -> None:
    timeline = drawn_timeline(scenario)
    if timeline is None:
        return
    asked: dict[int, int] = {}
    waits, slots, peak, fetched, staged_first = [], 0, 0, 0, []
    read: set[int] = set()
    counts = dict.fromkeys(("cache_hit", "cache_wait", "cache_miss", "evict", "purge"), 0)
    for event in timeline.events.iter_rows(named=True):
        kind, blocks = event["kind"], range(event["block"], event["block"] + event["count"])
        if kind == "vm_read":
            asked[event["request"]] = event["time_ns"]
            read |= set(blocks)
        elif kind == "vm_done" and event["request"] in asked:
            waits.append(event["time_ns"] - asked[event["request"]])
        elif kind == "fetch":
            fetched += len(blocks)
            is_straight = scenario.plan.misses == "straight" and event["detail"] < 2
            slots += 0 if is_straight else len(blocks)
        elif kind == "staged" and event["detail"] == 2:
            staged_first += blocks
        if kind in counts and (kind in ("evict", "purge") or event["detail"] == 0):
            counts[kind] += 1
        slots -= kind in ("evict", "purge")
        peak = max(peak, slots)
    size, figures = scenario.plan.block_bytes, timeline.summary()
    waits.sort()
    for name, share in (("wait_p50_ns", 0.5), ("wait_p99_ns", 0.99), ("wait_max_ns", 1.0)):
        assert figures[name] == (waits[math.ceil(share * (len(waits) - 1))] if waits else None)
    assert (figures["hits"], figures["waits"], figures["misses"]) == tuple(counts.values())[:3]
    assert figures["evicted_bytes"] == counts["evict"] * size
    assert figures["purged_bytes"] == counts["purge"] * size
    assert figures["media_bytes"] == fetched * size
    assert figures["peak_cache_bytes"] == peak * size
    assert figures["unread_first_set_bytes"] == len(set(staged_first) - read) * size


INSTANT = Hardware(
    "no time at all",
    BackupDevice(channels=8, positioning_ns=0, bandwidth=10**18),
    Link(0, 10**18),
    PrimaryStorage(0, 10**18),
    PrimaryStorage(0, 10**18),
)


def test_nothing_staged_and_nothing_takes_time_is_a_local_boot(tiny_boot: Boot) -> None:
    """Closed form: if every device answers at once, the boot takes the think time of its longest chain."""
    plan = RestorePlan(tiny_boot.disk_bytes, launch=LaunchRule("immediately"))
    summary = simulate(tiny_boot, plan, INSTANT).summary()
    # each operation still takes the nanosecond that rounding up leaves
    assert 0 <= summary["stall_ns"] < 1000  # type: ignore[operator]
    assert summary["misses"] > 0  # type: ignore[operator]


def test_full_restore_boots_like_a_local_disk(tiny_boot: Boot) -> None:
    plan = RestorePlan(tiny_boot.disk_bytes, mode="full_restore")
    assert simulate(tiny_boot, plan, "tape").summary()["stall_ns"] == 0


def test_everything_staged_before_launch_hits_always(tiny_boot: Boot) -> None:
    plan = RestorePlan(
        tiny_boot.disk_bytes,
        mode="live_mount",
        first_set=np.arange(RestorePlan(tiny_boot.disk_bytes).blocks),
        launch=LaunchRule("share", 1.0),
    )
    summary = simulate(tiny_boot, plan, "object_storage").summary()
    assert summary["hit_rate"] == 1.0


def test_everything_staged_and_an_instant_link_is_a_local_boot(tiny_boot: Boot) -> None:
    """Closed form: a slow backup device costs nothing once all is staged, but for a nanosecond a block."""
    plan = RestorePlan(tiny_boot.disk_bytes, mode="live_mount", launch=LaunchRule("share", 1.0))
    plan = plan.replace(first_set=np.arange(plan.blocks))
    slow = INSTANT.replace(backup_device=MEDIA["tape"].backup_device)
    summary = simulate(tiny_boot, plan, slow).summary()
    assert summary["misses"] == summary["waits"] == 0
    assert 0 <= summary["stall_ns"] < 1000  # type: ignore[operator]
    assert summary["launch_ns"] > 60_000_000_000  # type: ignore[operator]


def test_blocks_of_all_sizes_boot_alike_from_a_local_disk(tiny_boot: Boot) -> None:
    def local_boot_ns(block_bytes: int) -> int | float | None:
        sizes = dict.fromkeys(("fetch_bytes", "stage_fetch_bytes", "relocation_request_bytes"), 1 << 20)
        plan = RestorePlan(tiny_boot.disk_bytes, block_bytes=block_bytes, **sizes)  # type: ignore[arg-type]
        no_holes = np.arange(plan.blocks) * block_bytes
        run = simulate_trace(tiny_boot.trace, plan, MEDIA["flash"], no_holes)
        return run.summary()["local_boot_ns"]

    assert local_boot_ns(4096) == local_boot_ns(65536) == local_boot_ns(1 << 20)


def test_modes_side_by_side(tiny_boot: Boot) -> None:
    plan = RestorePlan(tiny_boot.disk_bytes, relocation_start=RelocationStart("at_once"))
    runs = compare(tiny_boot, plan, "flash")
    assert list(runs) == ["full_restore", "instant_restore", "live_mount"]
    table = tabulate({mode: run.summary() for mode, run in runs.items()})
    assert [row["figure"] for row in table][:3] == ["launch", "time to boot", "time to ready"]
    assert all(set(run.summary()) == set(SUMMARY_MEANING) for run in runs.values())


def test_a_small_event_buffer_changes_nothing(tiny_boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmrestorekit.restore import world

    plan = RestorePlan(tiny_boot.disk_bytes, first_set=np.arange(20))
    expected = simulate(tiny_boot, plan, "flash").events
    monkeypatch.setattr(world, "_MOST_EVENTS_AT_A_TIME", 1)
    monkeypatch.setattr(world, "_STEPS_AT_A_TIME", 7)
    assert simulate(tiny_boot, plan, "flash").events.equals(expected)


def test_plans_that_do_not_fit_are_refused(tiny_boot: Boot) -> None:
    with pytest.raises(PlanError, match="expected a plan for the disks of"):
        simulate(tiny_boot, RestorePlan((1 << 30,)))
    some = RestorePlan(tiny_boot.disk_bytes, relocation_sequence=np.array([0, 1]))
    with pytest.raises(PlanError, match=r"expected every block that the backup stores, but .* are missing"):
        simulate(tiny_boot, some)
    late = RestorePlan(
        tiny_boot.disk_bytes,
        mode="live_mount",
        first_set=np.arange(9),
        launch=LaunchRule("share"),
        expiry_ns=1000,
    )
    with pytest.raises(PlanError, match="expires after 1000 ns, before the virtual machine is launched"):
        simulate(tiny_boot, late, "tape")
    with pytest.raises(HardwareError, match="expected a Hardware or one of disk_library"):
        simulate(tiny_boot, RestorePlan(tiny_boot.disk_bytes), "papyrus")


def test_hardware_that_cannot_exist_is_refused() -> None:
    with pytest.raises(HardwareError, match="backup device: expected channels of at least 1, got 0"):
        BackupDevice(channels=0, positioning_ns=0, bandwidth=1)
    with pytest.raises(HardwareError, match="link: expected bandwidth of at least 1, got 0"):
        Link(0, 0)
    with pytest.raises(HardwareError, match="cpu_factor: expected a positive number, got 0"):
        dataclasses.replace(MEDIA["tape"], cpu_factor=0)


def test_every_preset_says_where_its_numbers_come_from() -> None:
    assert all(len(hardware.source) > 40 for hardware in MEDIA.values())


def test_the_engine_numbers_kinds_and_causes_as_the_vocabulary_does() -> None:
    from vmrestorekit.restore.engine import state

    for names, prefix in (
        (KINDS, ""),
        (CAUSES, "CAUSE_"),
        (READERS, "READER_"),
        (PURGE_TRIGGERS, "TRIGGER_"),
    ):
        for code, name in enumerate(names):
            assert getattr(state, prefix + name.upper()) == code
    assert len(KINDS) == state.KIND_COUNT


def test_times_never_run_backwards_and_waits_are_what_passed(tiny_boot: Boot) -> None:
    events = simulate(tiny_boot, RestorePlan(tiny_boot.disk_bytes), "disk_library").events
    assert events["time_ns"].is_sorted()
    asked = events.filter(pl.col("kind") == "vm_read").select("request", asked="time_ns")
    done = events.filter(pl.col("kind") == "vm_done").join(asked, on="request")
    assert len(done) == len(asked) > 0
    assert (done["time_ns"] - done["asked"]).equals(done["detail"].alias("time_ns"))


def test_a_chunk_between_whose_blocks_others_lie_finds_room_for_its_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(world, "_MOST_EVENTS_AT_A_TIME", 1)
    blocks = 8001
    # every other block is a hole, so that each stored one has an event of its own; the n-th from the front
    # and the n-th from behind are a chunk: the first chunk spans all others
    number = np.arange(blocks)
    stored = number % 2 == 0
    address = np.where(stored, number // 2 * 4096, -1)
    chunk = np.where(stored, np.minimum(number, number[::-1]) // 2, -1).astype(np.int32)
    trace = make_trace([(0, 1, 0, "read", 0, 4096)], (blocks * 4096,))
    plan = RestorePlan(
        (blocks * 4096,),
        block_bytes=4096,
        cache_bytes=blocks * 4096,
        mode="live_mount",
        fetch_bytes=4096,
        stage_fetch_bytes=4096,
    )
    hardware = resolve_hardware("flash").replace(backup_device=BackupDevice(1, 0, 10**9))
    timeline = simulate_trace(trace, plan, hardware, address, chunk)
    assert timeline.events.filter(kind="staged").height == np.count_nonzero(stored)


def test_extents_of_chunks_that_are_impossible() -> None:
    trace = make_trace([], (8192,))
    plan = RestorePlan((8192,), block_bytes=4096)
    address, chunk = np.array([0, 4096]), np.array([0, 1], np.int32)
    for extents, said in (
        (np.array([[0, 4096]]), r"expected start and end of each of 2 chunks, got shape \(1, 2\)"),
        (np.array([[0, 4096], [4097, 9000]]), "block 1 lies outside of its chunk 1"),
    ):
        with pytest.raises(PlanError, match=said):
            simulate_trace(trace, plan, resolve_hardware("flash"), address, chunk, extents)


def test_a_block_right_behind_what_is_read_does_not_come_along() -> None:
    # blocks 0 and 2 are a chunk; block 1, between them in number, begins where that chunk ends on the medium
    address, chunk = np.array([0, 2, 1]) * 4096, np.array([0, 1, 0], np.int32)
    trace = make_trace([(0, 1, 0, "read", 0, 4096)], (3 * 4096,))
    plan = RestorePlan((3 * 4096,), block_bytes=4096, cache_bytes=3 * 4096, mode="live_mount")
    timeline = simulate_trace(trace, plan, resolve_hardware("flash"), address, chunk)
    staged = timeline.events.filter(kind="staged").select("block", "count").rows()
    assert staged == [(0, 1), (2, 1)]
