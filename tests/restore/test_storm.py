"""Several restores at once, and how much is kept of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from scenarios import Scenario, StormScenario, scenarios, storms

from vmrestorekit.plan import LaunchRule, PlanError, PurgeRule, RelocationStart, RestorePlan
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.restore.storm import MediaAgents, Restore, Storm, simulate_storm
from vmrestorekit.restore.summary import summarise
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.schema import ReadTrace, TraceError

SECOND = 1_000_000_000


def restore_of(boot: Boot, start_ns: int = 0, **changes: Any) -> Restore:
    """A restore that stages all of its disk, which lies on the medium in order."""
    settings: dict[str, Any] = {
        "launch": LaunchRule("share", 1.0),
        "relocation_start": RelocationStart("delay", delay_ns=5 * SECOND),
        "purge": PurgeRule(by_run=False),
    }
    plan = RestorePlan(boot.disk_bytes, **settings)
    plan = plan.replace(first_set=np.arange(plan.blocks), **changes)
    return Restore(boot.trace, plan, np.arange(plan.blocks) * plan.block_bytes, start_ns=start_ns)


def drawn_storm(storm: StormScenario, detail: str = "events") -> Storm | None:
    restores = [
        Restore(
            *(machine.trace, machine.plan, machine.address, machine.chunk),
            *(content, start_ns, agent, machine.chunk_extents),
        )
        for machine, content, start_ns, agent in zip(
            storm.machines, storm.content, storm.start_ns, storm.named_agent, strict=True
        )
    ]
    try:
        return simulate_storm(restores, MediaAgents(**storm.agents), storm.hardware, detail=detail)
    except PlanError:
        return None


@settings(max_examples=60, deadline=None)
@given(scenario=scenarios())
def test_a_storm_of_one_is_a_simulated_restore(scenario: Scenario) -> None:
    parts = (scenario.trace, scenario.plan)
    try:
        chunks = scenario.chunk, scenario.chunk_extents
        alone = simulate_trace(*parts, scenario.hardware, scenario.address, *chunks)
    except PlanError:
        return
    restore = Restore(*parts, scenario.address, scenario.chunk, chunk_extents=scenario.chunk_extents)
    storm = simulate_storm([restore], None, scenario.hardware)
    assert storm.events.drop("vm").equals(alone.events)
    assert storm.machines.select(list(alone.summary())).row(0, named=True) == alone.summary()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(storm=storms())
def test_figures_do_not_depend_on_how_much_is_kept(storm: StormScenario) -> None:
    kept = {detail: drawn_storm(storm, detail) for detail in ("events", "runs", "summary")}
    if kept["events"] is None:
        return
    machines = [run.machines for run in kept.values() if run is not None]
    assert all(frame.equals(machines[0]) for frame in machines)
    assert kept["summary"] is not None
    assert kept["summary"].events.is_empty()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(storm=storms())
def test_runs_are_about_the_same_blocks_as_the_events(storm: StormScenario) -> None:
    events, runs = drawn_storm(storm), drawn_storm(storm, "runs")
    if events is None or runs is None:
        return
    assert runs.events["time_ns"].is_sorted()
    assert (runs.events["cause"] == -1).all()
    assert len(runs.events) <= len(events.events)
    for frame in (events.events, runs.events):
        assert (frame["count"] >= 0).all()
    assert blocks_by_kind(runs.events).equals(blocks_by_kind(events.events))


def blocks_by_kind(events: pl.DataFrame) -> pl.DataFrame:
    """How often each block is in an event of each kind and machine."""
    blocks = pl.int_ranges("block", pl.col("block") + pl.col("count"))
    each = events.select("vm", "kind", block=blocks).explode("block")
    return each.group_by("vm", "kind", "block").len().sort("vm", "kind", "block")


@settings(max_examples=80, deadline=None)
@given(scenario=scenarios())
def test_what_the_engine_counts_is_what_its_events_say(scenario: Scenario) -> None:
    """Where an event says which slots are taken: not for misses past the cache, nor after an expiry."""
    plan = scenario.plan.replace(misses="through_cache")
    plan = plan.replace(expiry_ns=None, extend_at_ns=None, extend_by_ns=0)
    try:
        run = simulate_trace(scenario.trace, plan, scenario.hardware, scenario.address)
    except PlanError:
        return
    local = run.summary()["local_boot_ns"]
    assert local is None or isinstance(local, int)
    assert summarise(run.events, plan, local) == run.summary()


def test_machines_with_the_same_contents_share_what_was_fetched(tiny_boot: Boot) -> None:
    first, second = restore_of(tiny_boot), restore_of(tiny_boot, start_ns=60 * SECOND)
    address = second.address + second.plan.blocks * second.plan.block_bytes
    content = np.arange(first.plan.blocks)
    kept = first.plan.replace(mode="live_mount")  # nothing is relocated, so nothing leaves the cache
    pair = [dataclasses.replace(first, plan=kept), dataclasses.replace(second, plan=kept, address=address)]
    apart = simulate_storm(pair, hardware="disk_library")
    shared = simulate_storm(
        [dataclasses.replace(restore, content=content) for restore in pair], hardware="disk_library"
    )
    stored = kept.blocks * kept.block_bytes
    assert apart.agents["media_bytes"].sum() == 2 * stored
    assert shared.agents["media_bytes"].sum() == stored
    assert (
        shared.machines["launch_ns"].to_list()[1] == 0
    )  # all of its first set is there when it is asked for


@pytest.mark.parametrize(("balancing", "expected"), [("fewest", [0, 1, 0, 1]), ("round_robin", [0, 1, 0, 1])])
def test_machines_are_spread_over_the_agents(tiny_boot: Boot, balancing: str, expected: list[int]) -> None:
    restores = [restore_of(tiny_boot, start_ns=number) for number in range(4)]
    storm = simulate_storm(restores, MediaAgents(2, balancing), "flash", detail="summary")
    assert storm.machines["agent"].to_list() == expected
    assert storm.agents["machines"].to_list() == [2, 2]


def test_fewest_and_round_robin_differ_when_a_user_names_an_agent(tiny_boot: Boot) -> None:
    named = dataclasses.replace(restore_of(tiny_boot), agent=0)
    restores = [named, restore_of(tiny_boot, start_ns=1), restore_of(tiny_boot, start_ns=2)]
    agents = {
        balancing: simulate_storm(restores, MediaAgents(2, balancing), "flash").machines["agent"].to_list()
        for balancing in ("fewest", "round_robin")
    }
    assert agents == {"fewest": [0, 1, 0], "round_robin": [0, 0, 1]}


def test_when_an_agent_goes_away_its_machines_are_taken_over_and_complete(tiny_boot: Boot) -> None:
    restores = [restore_of(tiny_boot, start_ns=number) for number in range(4)]
    agents = MediaAgents(2, failures=((1, SECOND // 10),), takeover_ns=SECOND)
    storm = simulate_storm(restores, agents, "disk_library")
    assert storm.machines["agent"].to_list() == [0, 0, 0, 0]
    assert storm.machines["released_ns"].null_count() == 0
    assert not storm.machines["stranded"].any()
    assert storm.events.filter(kind="take_over")["vm"].to_list() == [1, 3]
    assert storm.agents["lost_ns"].to_list() == [None, SECOND // 10]


def test_without_any_agent_left_machines_are_stranded(tiny_boot: Boot) -> None:
    restores = [restore_of(tiny_boot), restore_of(tiny_boot, start_ns=30 * SECOND)]
    agents = MediaAgents(failures=((0, SECOND // 100),), takeover_ns=SECOND)
    storm = simulate_storm(restores, agents, "disk_library")
    assert storm.machines["stranded"].all()
    assert storm.machines["released_ns"].null_count() == 2
    assert storm.events.filter(kind="strand")["time_ns"].to_list() == [SECOND + SECOND // 100, 30 * SECOND]


def shorter(restore: Restore) -> dict[str, Any]:
    return {"address": restore.address[:-1]}


def with_a_sequence_that_forgets(restore: Restore) -> dict[str, Any]:
    return {"plan": restore.plan.replace(relocation_sequence=np.arange(3))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"start_ns": -1}, "restore 1: expected start_ns of at least 0, got -1"),
        (lambda _: {"agent": 2}, "restore 1: expected an agent from 0 to 1, got 2"),
        (lambda _: {"content": np.zeros(3, np.int64)}, r"restore 1: expected contents of \d+ blocks, got 3"),
        (shorter, "restore 1: expected a backup layout of"),
        (
            with_a_sequence_that_forgets,
            "restore 1: relocation sequence: expected every block that the backup",
        ),
        (
            lambda restore: {"chunk": np.full(restore.plan.blocks, -1, np.int32)},
            "restore 1: chunk: expected one for each stored block and -1 for holes, not so block 0",
        ),
        (
            lambda restore: {"plan": restore.plan.replace(eviction="arc")},
            r"restore 1: expected eviction as in restore 0 \(lru\), since they share a media agent, got arc",
        ),
    ],
)
def test_restores_that_cannot_be_together_are_refused(
    tiny_boot: Boot, change: Callable[[Restore], dict[str, Any]], message: str
) -> None:
    good = restore_of(tiny_boot)
    with pytest.raises(PlanError, match=message):
        simulate_storm([good, dataclasses.replace(good, **change(good))], MediaAgents(2), "flash")


def test_nothing_to_restore_and_no_such_detail_are_refused(tiny_boot: Boot) -> None:
    with pytest.raises(PlanError, match="restores: expected at least one, got none"):
        simulate_storm([])
    with pytest.raises(PlanError, match="detail: expected one of events, runs, summary, got 'all'"):
        simulate_storm([restore_of(tiny_boot)], detail="all")


@pytest.mark.parametrize(
    ("settings_of_agents", "message"),
    [
        ({"count": 0}, "expected a count of at least 1, got 0"),
        ({"balancing": "random"}, "expected balancing as one of fewest, round_robin, got 'random'"),
        ({"staging": "random"}, "expected staging as one of round_robin, in_turn, got 'random'"),
        ({"takeover_ns": -1}, "expected takeover_ns of at least 0, got -1"),
        ({"failures": ((1, 5),)}, r"expected failures as \(agent from 0 to 0, nanoseconds\), got \(1, 5\)"),
        ({"failures": ((0, -5),)}, "expected failures as"),
        ({"failures": ((0, 5), (0, 6))}, "expected each agent to fail once"),
    ],
)
def test_media_agents_that_cannot_be_are_refused(settings_of_agents: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        MediaAgents(**settings_of_agents)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.col("issued_ns", "completed_ns").reverse(), "'issued_ns' is before that of the row above"),
        ((pl.col("issued_ns") - 1).alias("completed_ns"), "'completed_ns' is before 'issued_ns'"),
        ((pl.col("offset") + (1 << 40)).alias("offset"), "the request ends beyond the disk"),
    ],
)
def test_a_trace_whose_requests_overlap_impossibly_is_refused(
    tiny_boot: Boot, change: pl.Expr, message: str
) -> None:
    restore = restore_of(tiny_boot)
    trace = ReadTrace(tiny_boot.trace.frame.with_columns(change), tiny_boot.trace.metadata)
    with pytest.raises(TraceError, match=f"row [0-9]+: {message}"):
        simulate_storm([dataclasses.replace(restore, trace=trace)], hardware="flash")
