"""Two restores on one clock: where reads are served, how far the relocation is, what the cache holds."""

from __future__ import annotations

from typing import Any, TypeAlias

import altair as alt
import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import renderer
from vmrestorekit.show.chart_data import classify_reads
from vmrestorekit.show.theme import BLUE, BLUISH_GREEN, ORANGE, SOURCES

__all__ = ["BINS", "course", "courses", "relocation_chart"]

renderer.enable()

# Altair's charts return themselves from most methods, which its types say as Any or as a union
Chart: TypeAlias = Any

BINS = 72
SOURCE_NAMES = tuple(SOURCES)
# name of the curve -> (colour, letter, in words); each is a share in percent
CURVES = {
    "relocated": (BLUISH_GREEN, "R", "relocated, of what is stored"),
    "purged": (ORANGE, "P", "purged so far, of what is stored"),
    "held": (BLUE, "C", "in the read cache, of its capacity"),
}
RUNS = ("reference", "this")


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


def courses(reference: pl.DataFrame, this: pl.DataFrame) -> pl.DataFrame:
    """Return two courses as one table; column `run` says whose a row is."""
    return pl.concat(
        frame.select(pl.lit(run).alias("run"), pl.all())
        for run, frame in zip(RUNS, (reference, this), strict=True)
    )


def relocation_chart(table: pl.DataFrame, title: str, *, width: int = 760) -> Chart:
    """Chart two courses, one below the other, on one clock.

    Parameters
    ----------
    table : polars.DataFrame
        As `courses` returns it.
    title : str
    width : int
        Of the drawing area in pixels.
    """
    x = alt.X("second:Q", title="seconds since the restore was asked for", scale=alt.Scale(nice=False))
    sources = {f"{sign.letter}  {sign.name}": sign for sign in SOURCES.values()}
    reads = (
        table.select("run", "second", *SOURCE_NAMES)
        .rename(dict(zip(SOURCE_NAMES, sources, strict=True)))
        .unpivot(index=["run", "second"], variable_name="source", value_name="bytes")
        .filter(pl.col("bytes") > 0)
        .with_columns(mib=pl.col("bytes") / 2**20)
    )
    order = alt.Scale(domain=list(sources), range=[sign.colour for sign in sources.values()])
    bars = (
        alt.Chart(reads)
        .mark_bar(width=0.9 * width / BINS)
        .encode(
            x,
            alt.Y("mib:Q", title="MiB read", stack="zero"),
            alt.Color(
                "source:N",
                title="served from",
                scale=order,
                legend=alt.Legend(orient="bottom", columns=3, labelLimit=300),
            ),
            tooltip=[
                "run:N",
                "source:N",
                alt.Tooltip("second:Q", format=".1f"),
                alt.Tooltip("mib:Q", format=".2f"),
            ],
        )
    )
    panels = [
        bars.transform_filter(alt.datum.run == run).properties(
            title=alt.TitleParams(f"Where the VM's reads are served: {run}", anchor="start"),
            width=width,
            height=110,
        )
        for run in RUNS
    ]
    panels.append(_curves(table, x).properties(width=width, height=130))
    heading = alt.TitleParams(title, anchor="start", fontSize=15, offset=10)
    return (
        alt.vconcat(*panels, spacing=8)
        .resolve_scale(color="independent")
        .properties(title=heading, description=title)
        .configure_view(stroke=None)
    )


def _curves(table: pl.DataFrame, x: alt.X) -> Chart:
    """Return how far relocation, purge and cache are, the reference with dashes."""
    names = {name: f"{letter}  {words}" for name, (_, letter, words) in CURVES.items()}
    levels = (
        table.select("run", "second", *names)
        .rename(names)
        .unpivot(index=["run", "second"], variable_name="what", value_name="percent")
    )
    colours = alt.Scale(domain=list(names.values()), range=[colour for colour, _, _ in CURVES.values()])
    bottom: dict[str, Any] = {"legend": alt.Legend(orient="bottom", labelLimit=300, symbolType="stroke")}
    return (
        alt.Chart(levels)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x,
            alt.Y("percent:Q", title="percent"),
            alt.Color("what:N", title="so far", scale=colours, **bottom),
            alt.StrokeDash(
                "run:N",
                title="run",
                scale=alt.Scale(domain=["this", "reference"], range=[[1, 0], [5, 4]]),
                **bottom,
            ),
            tooltip=[
                "run:N",
                "what:N",
                alt.Tooltip("second:Q", format=".1f"),
                alt.Tooltip("percent:Q", format=".1f"),
            ],
        )
    )
