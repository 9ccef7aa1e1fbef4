"""Two restores on one clock: where reads are served, how far the relocation is, what the cache holds."""

from __future__ import annotations

from typing import Any, TypeAlias

import altair as alt
import polars as pl

from vmrestorekit.show import renderer
from vmrestorekit.show.course import BINS, SOURCE_NAMES
from vmrestorekit.show.theme import BLUE, BLUISH_GREEN, ORANGE, SOURCES

__all__ = ["CURVES", "courses", "relocation_chart"]

renderer.enable()

# Altair's charts return themselves from most methods, which its types say as Any or as a union
Chart: TypeAlias = Any

# name of the curve -> (colour, letter, in words); each is a share in percent
CURVES = {
    "relocated": (BLUISH_GREEN, "R", "relocated, of what is stored"),
    "purged": (ORANGE, "P", "purged so far, of what is stored"),
    "held": (BLUE, "C", "in the read cache, of its capacity"),
}
RUNS = ("reference", "this")


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
