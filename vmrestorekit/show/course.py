"""What happened in each span of a run: from where the VM read, and how far the relocation was."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.chart_data import classify_reads
from vmrestorekit.show.theme import SOURCES

__all__ = ["BINS", "SOURCE_NAMES", "course"]

BINS = 72
SOURCE_NAMES = tuple(SOURCES)


def course(timeline: Timeline, end_ns: int, reads: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return what happened in each of `BINS` equal spans of time.

    Parameters
    ----------
    timeline : Timeline
    end_ns : int
        Where the last span ends.
    reads : polars.DataFrame, optional
        `classify_reads` of the timeline, if it is known already.

    Returns
    -------
    polars.DataFrame
        `second`, where the span starts; for each source in `vmrestorekit.show.theme.SOURCES` the bytes that
        the VM read from there in it; at its end, in percent, `relocated` and `purged` of what is stored, and
        `held`, in the read cache, of its capacity.
    """
    reads = classify_reads(timeline) if reads is None else reads
    edges = np.linspace(0, max(end_ns, 1), BINS + 1)
    issued, size, rank = (reads[name].to_numpy() for name in ("issued_ns", "bytes", "rank"))
    columns: dict[str, npt.NDArray[Any]] = {"second": edges[:-1] / 1e9}
    for number, source in enumerate(SOURCE_NAMES):
        own = rank == number
        columns[source] = np.histogram(issued[own], edges, weights=size[own])[0].astype(np.int64)
    stored, slots = max(1, int(timeline.stored.sum())), timeline.plan.cache_slots
    level = {
        kind: _sum_at(timeline, edges[1:], kind)
        for kind in ("relocated", "purge", "staged", "evict", "empty_read_cache")
    }
    held = level["staged"] - level["evict"] - level["purge"] - level["empty_read_cache"]
    columns["relocated"] = 100 * level["relocated"] / stored
    columns["purged"] = 100 * level["purge"] / stored
    columns["held"] = 100 * held / slots
    return pl.DataFrame(columns)


def _sum_at(timeline: Timeline, ends_ns: npt.NDArray[np.float64], kind: str) -> npt.NDArray[np.int64]:
    """Return how many blocks the events of a kind were about, up to each of some times."""
    of_kind = timeline.are_of_kind(kind)
    counts = timeline.events["count"].to_numpy()[of_kind].astype(np.int64)
    sums = np.append(0, np.cumsum(counts))
    return sums[np.searchsorted(timeline.times[of_kind], ends_ns, side="right")]
