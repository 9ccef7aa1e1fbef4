"""How long a widget waits for the state at an instant of a long timeline. The events are SYNTHETIC."""

from __future__ import annotations

import statistics
import time

import numpy as np
import polars as pl
from runner import Row, compare

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import ACTORS, EVENTS_SCHEMA, KINDS
from vmrestorekit.restore.timeline import Timeline

EVENTS = 1_000_000
BLOCKS = 32_768
MOST_BLOCKS = 8  # of one event
QUESTIONS = 200
LIMIT_MS = 16  # a picture at 60 a second
FIRST_LIMIT_S = 1


def long_timeline() -> Timeline:
    """Events of all kinds that move blocks, as many of each, anywhere on the disk."""
    random = np.random.default_rng(1)
    names = ["cache_hit", "serve", "fetch", "staged", "vm_done", "written", "relocated", "evict"]
    columns = {
        "time_ns": np.sort(random.integers(0, 10**11, EVENTS)),
        "kind": pl.Series(names, dtype=pl.Enum(KINDS)).gather(random.integers(0, len(names), EVENTS)),
        "actor": pl.repeat(ACTORS[0], EVENTS, dtype=pl.Enum(ACTORS), eager=True),
        "block": random.integers(0, BLOCKS - MOST_BLOCKS, EVENTS),
        "count": random.integers(1, MOST_BLOCKS + 1, EVENTS),
    }
    nothing = {name: np.full(EVENTS, -1) for name in EVENTS_SCHEMA if name not in columns}
    events = pl.DataFrame(columns | nothing).select(
        pl.col(name).cast(dtype) for name, dtype in EVENTS_SCHEMA.items()
    )
    plan = RestorePlan((BLOCKS * 65_536,))
    return Timeline(events, {}, plan, None, "SYNTHETIC", "SYNTHETIC", np.ones(BLOCKS, np.bool_))


def seconds(timeline: Timeline, row: int) -> float:
    """Return how long one question took."""
    begin = time.perf_counter()
    timeline.state_at(row)
    return time.perf_counter() - begin


def bench_timeline() -> list[Row]:
    """The median question, and the first one to a new timeline, against limits of the project."""
    timeline = long_timeline()
    first = seconds(timeline, EVENTS // 2)
    rows = np.random.default_rng(2).integers(0, EVENTS, QUESTIONS)
    median = statistics.median(seconds(timeline, int(row)) for row in rows)
    return [
        compare("state_at, ms at a million events", 1000 * median, LIMIT_MS, "<= 1"),
        compare("state_at, first question, s at a million events", first, FIRST_LIMIT_S, "<= 1"),
    ]
