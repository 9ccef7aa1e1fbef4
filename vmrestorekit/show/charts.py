"""Charts of timelines: where reads were served, how the read cache fills and empties, modes side by side.

Every text (but a letter on its colour) is a title or a label of an axis or a legend: those take their colour
from JupyterLab's light or dark theme, free text would not.
"""

from __future__ import annotations

import json
from typing import Any, Literal, TypeAlias

import altair as alt
import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import renderer
from vmrestorekit.show.chart_data import cache_levels, marks, reads_by_bin
from vmrestorekit.show.checks import expect_timeline
from vmrestorekit.show.summary_chart import compare_summaries
from vmrestorekit.show.theme import BLOCK_STATES, GREY, ORANGE, SOURCES, SYMBOLS, VERMILLION, mode_name

__all__ = ["cache_over_time", "compare_summaries", "reads_by_source"]

renderer.enable()

# Altair's charts return themselves from most methods, which its types say as Any or as a union
Chart: TypeAlias = Any

_WIDTH = 760
_MIB = 1024 * 1024


def reads_by_source(timeline: Timeline, *, width: int = _WIDTH) -> Chart:
    """Chart the VM's reads over time by where they were served, and below it how long they waited.

    Parameters
    ----------
    timeline : Timeline
    width : int
        Of the drawing area in pixels.
    """
    expect_timeline("timeline", timeline)
    named = {name: f"{sign.letter}  {sign.name}" for name, sign in SOURCES.items()}
    bins = reads_by_bin(timeline).with_columns(
        pl.col("source").replace_strict(named),
        letter=pl.col("source").replace_strict({name: sign.letter for name, sign in SOURCES.items()}),
        middle=(pl.col("start") + pl.col("end")) / 2,
        below=pl.col("below") / _MIB,
        above=pl.col("above") / _MIB,
    )
    present = [name for name in SOURCES if named[name] in set(bins["source"])]
    x = _seconds_axis(timeline)
    colour = alt.Color(
        "source:N",
        title="served from",
        scale=alt.Scale(domain=[named[n] for n in present], range=[SOURCES[n].colour for n in present]),
        legend=_BELOW,
    )
    tooltip = ["source:N", alt.Tooltip("middle:Q", title="at (s)", format=".1f"), alt.Tooltip("reads:Q")]
    bars = (
        alt.Chart(bins)
        .mark_bar(stroke=None, binSpacing=0, clip=True)
        .encode(
            alt.X("start:Q", scale=x, axis=_NO_X_AXIS),
            alt.X2("end:Q"),
            alt.Y("below:Q", title=f"MiB read in {_per_bin(bins)}"),
            alt.Y2("above:Q"),
            colour,
            tooltip=[*tooltip, alt.Tooltip("bytes:Q", format=",")],
        )
    )
    letters = (
        alt.Chart(_largest_of_each(bins))
        .mark_text(fontSize=11, fontWeight="bold")
        .encode(
            alt.X("middle:Q", scale=x, axis=None),
            alt.Y("centre:Q"),
            text="letter:N",
            color=alt.condition(
                f"datum.letter == '{SOURCES['hit'].letter}'", alt.value("white"), alt.value("black")
            ),
        )
    )
    waits = (
        alt.Chart(bins.filter(pl.col("longest_wait_ms") > 0))
        .mark_point(filled=True, size=42, opacity=0.85)
        .encode(
            alt.X("middle:Q", scale=x, title=_SECONDS),
            alt.Y(
                "longest_wait_ms:Q",
                scale=alt.Scale(type="log"),
                title="longest wait (ms, log)",
                axis=_LOG_AXIS,
            ),
            colour,
            alt.Shape(
                "source:N",
                title="served from",
                scale=alt.Scale(domain=[named[n] for n in present], range=[SYMBOLS[n] for n in present]),
                legend=_BELOW,
            ),
            tooltip=[*tooltip, alt.Tooltip("longest_wait_ms:Q", title="longest wait (ms)", format=".2f")],
        )
    )
    named_rules = _rules(timeline, x, _mark_names(timeline, width))
    return _stacked(
        [
            alt.layer(bars, named_rules, letters)
            .resolve_axis(x="independent")
            .properties(width=width, height=180),
            (_rules(timeline, x) + waits).properties(width=width, height=130),
        ],
        "Where the VM's reads were served",
        timeline,
        colours="shared",
    )


def cache_over_time(timeline: Timeline, *, width: int = _WIDTH) -> Chart:
    """Chart what the read cache holds over time, and below it what has left it.

    Parameters
    ----------
    timeline : Timeline
    width : int
        Of the drawing area in pixels.
    """
    expect_timeline("timeline", timeline)
    to_mib = timeline.plan.block_bytes / _MIB
    levels = cache_levels(timeline).with_columns(pl.exclude("second") * to_mib)
    x = _seconds_axis(timeline)
    capacity = timeline.plan.cache_bytes / _MIB
    peak = float((levels["waiting"] + levels["served"]).to_numpy().max(initial=0))
    held = _held(levels, x)
    said = f"capacity {capacity:,.0f} MiB, at most {100 * peak / capacity:.0f} % of it used"
    if peak > capacity / 3:  # else the line would press everything flat
        held = held + _capacity_line(capacity)
        said = f"line: {said}"
    return _stacked(
        [
            alt.layer(held, _rules(timeline, x, _mark_names(timeline, width)))
            .resolve_axis(x="independent")
            .properties(width=width, height=180),
            (_rules(timeline, x) + _left(levels, x)).properties(width=width, height=110),
        ],
        "What the read cache holds",
        timeline,
        said,
    )


_NO_X_AXIS = alt.Axis(labels=False, ticks=False, title=None)
_BELOW = alt.Legend(orient="bottom", columns=3, labelLimit=300)
_SECONDS = "seconds since the restore was asked for"
_FLIP_FROM = 0.85  # names of rules further to the right stand left of them
_LOG_AXIS = alt.Axis(values=[0.01, 0.1, 1, 10, 100, 1000, 10_000, 100_000], format="~g")


def _seconds_axis(timeline: Timeline) -> alt.Scale:
    return alt.Scale(domain=[0, max(timeline.end_ns / 1e9, 1e-6)], nice=False)


def _rules(timeline: Timeline, x: alt.Scale, axis: alt.Axis | None = None) -> Chart:
    """Return a rule for each marked event; an axis that names them has to be resolved independently."""
    return (
        alt.Chart(marks(timeline))
        .mark_rule(color=GREY, strokeDash=[4, 3])
        .encode(
            alt.X("second:Q", scale=x, axis=axis or alt.Axis(), title=None if axis else _SECONDS),
            tooltip=["label:N", alt.Tooltip("second:Q", format=".3f")],
        )
    )


def _mark_names(timeline: Timeline, width: int) -> alt.Axis:
    """Return an axis whose labels name the rules, on as many lines as they need not to overlap."""
    named = marks(timeline)
    end = max(timeline.end_ns / 1e9, 1e-6)
    free_from: list[float] = []
    texts: list[list[str]] = []
    for second, label in named.iter_rows():
        place, long = second / end * width, 6.2 * len(label) + 10
        start = place - long if place > _FLIP_FROM * width else place
        line = next((at for at, free in enumerate(free_from) if free <= start), len(free_from))
        free_from[line : line + 1] = [start + long]
        texts.append(["\u00a0"] * line + [label])
    seconds = json.dumps(named["second"].to_list())
    return alt.Axis(
        orient="top",
        values=named["second"].to_list(),
        labelExpr=f"{json.dumps(texts)}[indexof({seconds}, datum.value)]",
        labelAlign=alt.condition(f"datum.value > {_FLIP_FROM * end}", alt.value("right"), alt.value("left")),
        labelOverlap=False,
        labelBound=False,
        labelFlush=False,
        labelFontSize=11,
        labelPadding=3 + 13 * (len(free_from) - 1),
        ticks=False,
        domain=False,
        grid=False,
    )


def _largest_of_each(bins: pl.DataFrame) -> pl.DataFrame:
    """Return the tallest bar of each source, where there is room for its letter."""
    tallest = bins.sort("bytes", descending=True).group_by("source", maintain_order=True).first()
    full = float(bins["above"].to_numpy().max(initial=0))
    return tallest.with_columns(centre=(pl.col("below") + pl.col("above")) / 2).filter(
        (pl.col("above") - pl.col("below")) > 0.07 * full
    )


def _held(levels: pl.DataFrame, x: alt.Scale) -> Chart:
    """Return the content of the cache as two areas, one on the other."""
    signs = {name: BLOCK_STATES[name] for name in ("served", "staged")}
    names = {"served": "V  served at least once", "waiting": "S  staged, not served yet"}
    tall = levels.unpivot(["served", "waiting"], index="second", variable_name="state", value_name="mib")
    tall = tall.with_columns(pl.col("state").replace_strict(names))
    colour = alt.Color(
        "state:N",
        title="in the cache",
        scale=alt.Scale(domain=list(names.values()), range=[sign.colour for sign in signs.values()]),
        legend=alt.Legend(orient="top", titleOrient="left", offset=2),
    )
    area = (
        alt.Chart(tall)
        .mark_area(interpolate="step-after", line=False)
        .encode(
            alt.X("second:Q", scale=x, axis=_NO_X_AXIS),
            alt.Y("mib:Q", title="in the read cache (MiB)", stack=True),
            colour,
            alt.Order("state:N", sort="descending"),
            tooltip=["state:N", alt.Tooltip("second:Q", format=".1f"), alt.Tooltip("mib:Q", format=",.1f")],
        )
    )
    return alt.layer(area)


def _capacity_line(capacity: float) -> Chart:
    data = pl.DataFrame({"mib": [capacity], "label": ["capacity"]})
    return (
        alt.Chart(data).mark_rule(color=VERMILLION, strokeWidth=1.5).encode(alt.Y("mib:Q"), tooltip="label:N")
    )


def _left(levels: pl.DataFrame, x: alt.Scale) -> Chart:
    """Return how much had been purged and evicted."""
    tall = levels.unpivot(["purged", "evicted"], index="second", variable_name="how", value_name="mib")
    legend = alt.Legend(orient="bottom", symbolSize=300, symbolStrokeWidth=2.2)
    kinds = ["purged", "evicted"]
    most = float(tall["mib"].to_numpy().max(initial=0))
    return (
        alt.Chart(tall)
        .mark_line(interpolate="step-after", strokeWidth=2.2)
        .encode(
            alt.X("second:Q", scale=x, title=_SECONDS),
            alt.Y("mib:Q", title="left it so far (MiB)", scale=alt.Scale(domain=[0, most or 1])),
            alt.Color(
                "how:N", title="left it", scale=alt.Scale(domain=kinds, range=[ORANGE, GREY]), legend=legend
            ),
            alt.StrokeDash(
                "how:N", title="left it", scale=alt.Scale(domain=kinds, range=[[1, 0], [5, 3]]), legend=legend
            ),
            tooltip=["how:N", alt.Tooltip("second:Q", format=".1f"), alt.Tooltip("mib:Q", format=",.1f")],
        )
    )


def _per_bin(bins: pl.DataFrame) -> str:
    return f"{bins['end'][0] - bins['start'][0]:.3g} s" if bins.height else "a bar"


def _stacked(
    charts: list[Chart],
    title: str,
    timeline: Timeline,
    said: str = "",
    colours: Literal["independent", "shared"] = "independent",
) -> Chart:
    whose = f"{mode_name(timeline.plan.mode)} of {timeline.vm}, {timeline.boot}"
    return (
        alt.vconcat(*charts, spacing=6)
        .resolve_scale(color=colours, shape=colours, strokeDash=colours)
        .properties(
            title=alt.TitleParams(
                title, subtitle=f"{whose}; {said}" if said else whose, anchor="start", fontSize=15, offset=10
            ),
            description=f"{title}: {whose}",
        )
        .configure_view(stroke=None)
    )
