"""A timeline's events gathered into the few hundred rows that a chart draws."""

from __future__ import annotations

import numpy as np
import polars as pl

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import IN_CACHE, SERVED, Timeline
from vmrestorekit.show.theme import SOURCES

__all__ = ["MAX_BINS", "cache_levels", "classify_reads", "marks", "reads_by_bin"]

MAX_BINS = 80

# events that a chart names with a rule
_MARKS = {
    "launch_vm": "launch",
    "boot_done": "boot done",
    "start_relocation": "relocation starts",
    "finish_relocation": "relocation ends",
    "warn_of_expiry": "warning",
    "expire": "expiry",
}


def marks(timeline: Timeline) -> pl.DataFrame:
    """Return the first event of each kind that is named in a chart: `second` and `label`, in order."""
    return (
        timeline.events.filter(pl.col("kind").is_in(list(_MARKS)))
        .unique("kind", keep="first", maintain_order=True)
        .select(second=pl.col("time_ns") / 1e9, label=pl.col("kind").cast(pl.String).replace(_MARKS))
    )


def classify_reads(timeline: Timeline) -> pl.DataFrame:
    """Return one row a read of the VM that completed.

    Columns are `issued_ns`, `bytes`, `wait_ns` and `rank`. A read in several parts has the rank of the part
    whose source comes last in `SOURCES`: the slowest, as a rule.
    """
    reads = timeline.events.filter(kind="vm_read").select("request", issued_ns="time_ns", bytes="detail")
    done = timeline.events.filter(kind="vm_done").select("request", wait_ns="detail")
    of_relocation = pl.col("kind").cast(pl.String).str.starts_with("cache_") & (pl.col("detail") > 0)
    ranks = {kind: rank for rank, kind in enumerate(SOURCES) if kind in KINDS}
    parts = (
        timeline.events.filter(pl.col("kind").is_in(list(ranks)) & ~of_relocation)
        .with_columns(rank=pl.col("kind").cast(pl.String).replace_strict(ranks))
        .group_by("request")
        .agg(pl.col("rank").max())
    )
    joined = reads.join(done, on="request").join(parts, on="request", how="left", maintain_order="left")
    return joined.select("issued_ns", "bytes", "wait_ns", pl.col("rank").fill_null(0))


def reads_by_bin(timeline: Timeline) -> pl.DataFrame:
    """Return the reads of the VM by span of time and source, at most `MAX_BINS` spans.

    Columns are `start`, `end` (seconds), `rank` (place in `SOURCES`), `bytes`, `reads`, `longest_wait_ms`.
    """
    round_widths = (digit * 10**power for power in range(3, 16) for digit in (1, 2, 5))
    width = next(width for width in round_widths if timeline.end_ns < width * MAX_BINS)
    return (
        classify_reads(timeline)
        .group_by("rank", bin=pl.col("issued_ns") // width)
        .agg(pl.col("bytes").sum(), reads=pl.len(), longest_wait_ms=pl.col("wait_ns").max() / 1e6)
        .with_columns(start=pl.col("bin") * width / 1e9, end=(pl.col("bin") + 1) * width / 1e9)
        .drop("bin")
        .sort("start", "rank")
    )


def cache_levels(timeline: Timeline, samples: int = 300) -> pl.DataFrame:
    """Return what the read cache holds, sampled at equal spans of time.

    Columns are `second`; `waiting` and `served`: blocks in the cache that were not and that were sent to
    anyone since the start of the run; `purged`, `evicted`: blocks that had left it so far.
    """
    counts = timeline.events["count"].to_numpy()
    purged, evicted = (
        np.cumsum(counts * (timeline.kinds == KINDS.index(kind))) for kind in ("purge", "evict")
    )
    rows = []
    for time_ns in np.linspace(0, timeline.end_ns, samples).astype(np.int64).tolist():
        state = timeline.state_at(time_ns=time_ns)
        served = int(np.count_nonzero((state.flags & (IN_CACHE | SERVED)) == IN_CACHE | SERVED))
        left = (int(purged[state.index]), int(evicted[state.index])) if state.index >= 0 else (0, 0)
        rows.append((time_ns / 1e9, state.count(IN_CACHE) - served, served, *left))
    return pl.DataFrame(rows, schema=["second", "waiting", "served", "purged", "evicted"], orient="row")
