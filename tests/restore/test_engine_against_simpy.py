"""The engine and the SimPy model of the same rules agree, event for event and to the nanosecond."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
import pytest
import simpy_model
from hypothesis import HealthCheck, given, settings
from scenarios import Scenario, StormScenario, scenarios, storms
from simpy_model import simulate_slowly, simulate_storm_slowly

from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.restore.storm import MediaAgents, Restore, simulate_storm

Event = tuple[int | str, ...]


def rows(events: pl.DataFrame) -> list[Event]:
    """Events of an engine's timeline in the oracle's form."""
    return list(
        events.select(pl.all().exclude("actor", "cause"))
        .with_columns(pl.col("kind").cast(pl.String))
        .iter_rows()
    )


def by_instant(events: Iterable[Event]) -> list[Event]:
    """Events ordered by their values: within an instant the order of notes is free."""
    return sorted(tuple(int(v) if not isinstance(v, str) else v for v in event) for event in events)


def run_both(scenario: Scenario) -> tuple[list[Event] | None, list[Event] | None]:
    """Events of engine and oracle; None where they refuse."""
    parts = (scenario.trace, scenario.plan, scenario.hardware)
    try:
        timeline = simulate_trace(*parts, scenario.address, scenario.chunk, scenario.chunk_extents)
        ours = by_instant(rows(timeline.events))
    except ValueError:
        ours = None
    try:
        theirs = by_instant(
            simulate_slowly(
                *(*parts, scenario.stored, scenario.address),
                chunk=scenario.chunk,
                chunk_extents=scenario.chunk_extents,
            )
        )
    except ValueError:
        theirs = None
    return ours, theirs


def first_difference(ours: list[Event], theirs: list[Event]) -> str:
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            return f"engine {mine}, oracle {other}"
    return f"{len(ours)} and {len(theirs)} events, equal as far as both go"


@pytest.mark.parametrize("mode", ["instant_restore", "live_mount", "full_restore"])
def test_engine_and_oracle_agree(mode: str) -> None:
    @settings(
        max_examples=300,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scenario=scenarios(modes=(mode,)))
    def agree(scenario: Scenario) -> None:
        ours, theirs = run_both(scenario)
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours == theirs, first_difference(ours, theirs)

    agree()


def run_both_storms(storm: StormScenario) -> tuple[list[Event] | None, list[Event] | None]:
    """Events of engine and oracle, with the machine's number; None where they refuse."""
    machines = [
        (
            *(machine.trace, machine.plan, machine.address, machine.chunk),
            *(content, start_ns, agent, machine.chunk_extents),
        )
        for machine, content, start_ns, agent in zip(
            storm.machines, storm.content, storm.start_ns, storm.named_agent, strict=True
        )
    ]
    try:
        ours = simulate_storm(
            [Restore(*machine) for machine in machines], MediaAgents(**storm.agents), storm.hardware
        )
        events = by_instant(rows(ours.events))
    except ValueError:
        events = None
    try:
        theirs = by_instant(
            simulate_storm_slowly(
                [simpy_model.Restore(*machine) for machine in machines],
                simpy_model.MediaAgents(**storm.agents),
                storm.hardware,
            )
        )
    except ValueError:
        theirs = None
    return events, theirs


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(storm=storms())
def test_engine_and_oracle_agree_on_several_machines(storm: StormScenario) -> None:
    ours, theirs = run_both_storms(storm)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert ours == theirs, first_difference(ours, theirs)
