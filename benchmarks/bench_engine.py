"""A whole restore against the SimPy model of the same rules, on the same recorded boot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from runner import Row, compare, median_seconds

import vmrestorekit as vr
from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import RelocationStart
from vmrestorekit.restore.hardware import MEDIA
from vmrestorekit.restore.simulate import simulate_trace

# blocks of 1 MiB keep the SimPy model's part below a minute
BLOCK_BYTES = 1 << 20


def bench_engine() -> list[Row]:
    """Seconds for an instant restore; the events have to be the same."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "restore"))
    from simpy_model import simulate_slowly

    boot = vr.load_corpus()["bookworm-web"].boots[-1]
    plan = vr.make_plan(
        vr.LastBootReplay().fit(boot),
        boot,
        block_bytes=BLOCK_BYTES,
        fetch_bytes=BLOCK_BYTES,
        stage_fetch_bytes=BLOCK_BYTES,
        relocation_request_bytes=BLOCK_BYTES,
        relocation_start=RelocationStart("delay", delay_ns=10_000_000_000),
    )
    layout = BackupLayout.full(boot.manifests, BLOCK_BYTES)
    parts = (boot.trace, plan, MEDIA["disk_library"])
    events: dict[str, Any] = {}

    def ours() -> Callable[[], None]:
        def run() -> None:
            events["ours"] = simulate_trace(*parts, layout.address).events

        return run

    def peer() -> Callable[[], None]:
        def run() -> None:
            events["peer"] = simulate_slowly(*parts, ~layout.hole, layout.address)

        return run

    ours()()  # compiled now
    seconds = median_seconds({"ours": ours, "peer": peer}, repetitions=3)
    columns = (
        events["ours"].select(pl.all().exclude("actor", "cause")).with_columns(pl.col("kind").cast(pl.String))
    )
    assert sorted(columns.iter_rows()) == sorted(tuple(event) for event in events["peer"])
    count = events["ours"].height
    per_second = {name: count / taken for name, taken in seconds.items()}
    return [
        compare(
            "whole restore of a recorded boot, events/s: the SimPy model",
            per_second["ours"],
            per_second["peer"],
            ">= 80",
        )
    ]
