"""A timeline's events gathered into the few hundred rows that a chart draws."""

from __future__ import annotations

import numpy as np
import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.theme import SOURCES

__all__ = ["CHART_MARKS", "MAX_BINS", "cache_levels", "classify_reads", "marks", "reads_by_bin"]

MAX_BINS = 80

# events that a chart names with a rule
CHART_MARKS = {
    "launch_vm": "launch",
    "boot_done": "boot done",
    "start_relocation": "relocation starts",
    "finish_relocation": "relocation ends",
    "warn_of_expiry": "warning",
    "expire": "expiry",
}

# kind of event -> where the part of a read that it is about was served
_SOURCE_OF = {
    "read_destination": "destination",
    "read_write_cache": "write_cache",
    "cache_hit": "hit",
    "cache_wait": "wait",
    "cache_miss": "miss",
}
_LEVEL_KINDS = ("staged", "serve", "evict", "purge")


def marks(timeline: Timeline) -> pl.DataFrame:
    """Return the first event of each kind in `CHART_MARKS`: `second` and `label`."""
    first = timeline.events.group_by("kind", maintain_order=True).first()
    found = {kind: time for kind, time in first.select("kind", "time_ns").iter_rows() if kind in CHART_MARKS}
    rows = sorted((time / 1e9, CHART_MARKS[kind]) for kind, time in found.items())
    return pl.DataFrame(rows, schema={"second": pl.Float64, "label": pl.String}, orient="row")


def classify_reads(timeline: Timeline) -> pl.DataFrame:
    """Return one row a read of the VM that completed.

    Columns are `issued_ns`, `bytes`, `wait_ns` and `source`. A read in several parts has the source that
    comes last in `SOURCES`: its slowest part's, as a rule.
    """
    names = list(SOURCES)
    reads = timeline.events.filter(kind="vm_read").select("request", issued_ns="time_ns", bytes="detail")
    done = timeline.events.filter(kind="vm_done").select("request", wait_ns="detail")
    of_cache = pl.col("kind").is_in(["cache_hit", "cache_wait", "cache_miss"])
    parts = (
        timeline.events.filter(pl.col("kind").is_in(list(_SOURCE_OF)), ~of_cache | (pl.col("detail") == 0))
        .with_columns(
            rank=pl.col("kind")
            .cast(pl.String)
            .replace_strict({k: names.index(s) for k, s in _SOURCE_OF.items()})
        )
        .group_by("request")
        .agg(pl.col("rank").max())
    )
    joined = reads.join(done, on="request").join(parts, on="request", how="left", maintain_order="left")
    source = pl.col("rank").fill_null(names.index("nothing")).replace_strict(dict(enumerate(names)))
    return joined.select("issued_ns", "bytes", "wait_ns", source=source)


def reads_by_bin(timeline: Timeline) -> pl.DataFrame:
    """Return the reads of the VM by source and span of time, at most `MAX_BINS` spans.

    Columns are `source`, `start`, `end` (seconds), `bytes`, `reads`, `longest_wait_ms`, and `below`, `above`:
    the span of the bar in bytes when sources are stacked in the order of `SOURCES`.
    """
    width = _bin_ns(timeline)
    binned = (
        classify_reads(timeline)
        .group_by("source", at=pl.col("issued_ns") // width)
        .agg(pl.col("bytes").sum(), reads=pl.len(), longest_wait_ms=pl.col("wait_ns").max() / 1e6)
        .with_columns(rank=pl.col("source").replace_strict({name: at for at, name in enumerate(SOURCES)}))
        .sort("at", "rank")
        .with_columns(above=pl.col("bytes").cum_sum().over("at"))
    )
    return binned.select(
        "source",
        "bytes",
        "reads",
        "longest_wait_ms",
        "above",
        below=pl.col("above") - pl.col("bytes"),
        start=pl.col("at") * width / 1e9,
        end=(pl.col("at") + 1) * width / 1e9,
    )


def cache_levels(timeline: Timeline, samples: int = 300) -> pl.DataFrame:
    """Return what the read cache holds, sampled at equal spans of time.

    Columns are `second`; `waiting` and `served`: blocks in the cache that were not and that were sent to
    anyone since the start of the run; `purged`, `evicted`: blocks that had left it so far.
    """
    cached = (
        pl.when(pl.col("kind") == "staged")
        .then(1)
        .when(pl.col("kind") != "serve")
        .then(0)
        .forward_fill()
        .over("block")
        .fill_null(0)
    )
    was_served = (pl.col("kind") == "serve").cast(pl.Int64).cum_max().over("block")
    states = _stays(timeline).with_columns(
        waiting=cached * (1 - was_served),
        served=cached * was_served,
        purged=pl.col("kind") == "purge",
        evicted=pl.col("kind") == "evict",
    )
    changes = states.select(
        "row",
        *(pl.col(name) - pl.col(name).shift(1).over("block").fill_null(0) for name in ("waiting", "served")),
        *(pl.col(name).cast(pl.Int64) for name in ("purged", "evicted")),
    )
    return _sampled(timeline, changes.group_by("row").sum().sort("row"), samples)


def _stays(timeline: Timeline) -> pl.DataFrame:
    """Return the events about blocks in the read cache, one row a block: `row`, `kind`, `block`."""
    events = timeline.events.with_row_index("row").with_columns(pl.col("kind").cast(pl.String))
    stays = (
        events.filter(pl.col("kind").is_in(_LEVEL_KINDS))
        .select(
            "row", "kind", block=pl.int_ranges("block", pl.col("block") + pl.col("count"), dtype=pl.Int64)
        )
        .explode("block")
    )
    frames = [stays]
    for row in events.filter(kind="empty_read_cache")["row"]:  # whatever is still there leaves with it
        left = stays.select("block").unique()
        frames.append(
            left.select(pl.lit(row, dtype=pl.UInt32).alias("row"), pl.lit("emptied").alias("kind"), "block")
        )
    return pl.concat(frames).sort("row", maintain_order=True)


def _sampled(timeline: Timeline, changes: pl.DataFrame, samples: int) -> pl.DataFrame:
    at_ns = np.unique(np.linspace(0, timeline.end_ns, samples).astype(np.int64))
    rows = np.searchsorted(timeline.times, at_ns, side="right") - 1
    upto = np.searchsorted(changes["row"].to_numpy(), rows, side="right")
    columns = {
        name: np.concatenate([[0], np.cumsum(changes[name].to_numpy())])[upto]
        for name in ("waiting", "served", "purged", "evicted")
    }
    return pl.DataFrame({"second": at_ns / 1e9} | columns)


def _bin_ns(timeline: Timeline) -> int:
    """Return the shortest of some round widths that needs at most `MAX_BINS` bins."""
    rounds = [digit * 10**power for power in range(3, 16) for digit in (1, 2, 5)]
    widths = (width for width in rounds if timeline.end_ns < width * MAX_BINS)
    return int(next(widths))
