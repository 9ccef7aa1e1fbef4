"""Charts of timelines: where reads were served, how the read cache fills and empties.

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
from vmrestorekit.show.theme import BLOCK_STATES, GREY, ORANGE, SOURCES, VERMILLION, mode_name

__all__ = ["cache_over_time", "compare_summaries", "reads_by_source"]

renderer.enable()

# Altair's charts return themselves from most methods, which its types say as Any or as a union
Chart: TypeAlias = Any

_WIDTH = 760
_MIB = 1024 * 1024
_FLIP_FROM = 0.85  # names of rules further to the right stand left of them
# a last label that is moved inwards would touch the one before
_SECONDS = alt.Axis(title="seconds since the restore was asked for", labelFlush=False, labelSeparation=6)
_BARE = alt.Axis(labels=False, ticks=False, title=None)
_SOURCES = {f"{sign.letter}  {sign.name}": sign for sign in SOURCES.values()}
_IN_CACHE = {"V  served at least once": "served", "S  staged, not served yet": "waiting"}


def reads_by_source(timeline: Timeline, *, width: int = _WIDTH) -> Chart:
    """Chart the VM's reads over time by where they were served, and below it how long they waited.

    Parameters
    ----------
    timeline : Timeline
    width : int
        Of the drawing area in pixels.
    """
    expect_timeline("timeline", timeline)
    bins = reads_by_bin(timeline)
    span = bins["end"][0] - bins["start"][0] if bins.height else 1.0
    tallest = pl.col("bytes") == pl.col("bytes").max().over("rank")
    has_room = pl.col("bytes") > 0.07 * pl.col("bytes").sum().over("start").max()
    source = pl.col("rank").replace_strict(dict(enumerate(_SOURCES)), return_dtype=pl.String)
    bins = bins.with_columns(
        source=source,
        letter=pl.when(tallest & has_room).then(source.str.slice(0, 1)).otherwise(pl.lit("")),
        mib=pl.col("bytes") / _MIB,
        middle=(pl.col("start") + pl.col("end")) / 2,
    )
    base = alt.Chart(bins).encode(
        alt.Order("rank:Q"),
        tooltip=[
            "source:N",
            alt.Tooltip("middle:Q", title="at (s)", format=".1f"),
            "reads:Q",
            alt.Tooltip("bytes:Q", format=","),
            alt.Tooltip("longest_wait_ms:Q", title="longest wait (ms)", format=".2f"),
        ],
    )
    x = _x(timeline, "middle", _BARE)
    bars = base.mark_bar(width=width * span * 1e9 / max(timeline.end_ns, 1), clip=True).encode(
        x, alt.Y("mib:Q", stack="zero", title=f"MiB read in {span:.3g} s"), _source(alt.Color, "colour")
    )
    ink = alt.condition(
        f"datum.letter == '{SOURCES['cache_hit'].letter}'", alt.value("white"), alt.value("black")
    )
    letters = base.mark_text(fontSize=11, fontWeight="bold").encode(
        x, alt.Y("mib:Q", stack="zero", bandPosition=0.5), detail="source:N", text="letter:N", color=ink
    )
    return _stacked(
        "Where the VM's reads were served",
        timeline,
        _under_named_rules(timeline, width, bars, letters).properties(height=180),
        (_rules(timeline) + _waits(timeline, base)).properties(width=width, height=130),
        scales="shared",
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
    levels = cache_levels(timeline).with_columns(pl.exclude("second") * timeline.plan.block_bytes / _MIB)
    capacity = timeline.plan.cache_bytes / _MIB
    peak = (levels["waiting"] + levels["served"]).to_numpy().max()
    has_left = bool(levels.select("purged", "evicted").to_numpy().any())
    # a live mount never purges: an empty panel below would only ask what it is for
    held = [_held(timeline, levels, _BARE if has_left else _SECONDS)]
    said = f"capacity {capacity:,.0f} MiB, at most {100 * peak / capacity:.0f} % of it used"
    if peak > capacity / 3:  # else the line would press everything flat
        line = alt.Chart(pl.DataFrame({"mib": [capacity]})).mark_rule(color=VERMILLION, strokeWidth=1.5)
        held.append(line.encode(alt.Y("mib:Q")))
        said = f"line: {said}"
    if not has_left:
        only = _under_named_rules(timeline, width, *held).properties(height=180)
        return _stacked("What the read cache holds", timeline, only, said=f"; {said}; nothing has left it")
    return _stacked(
        "What the read cache holds",
        timeline,
        _under_named_rules(timeline, width, *held).properties(height=180),
        (_rules(timeline) + _left(timeline, levels)).properties(width=width, height=110),
        said=f"; {said}",
    )


def _x(timeline: Timeline, field: str, axis: alt.Axis = _SECONDS) -> alt.X:
    scale = alt.Scale(domain=[0, max(timeline.end_ns / 1e9, 1e-6)], nice=False, padding=0)
    return alt.X(f"{field}:Q", scale=scale, axis=axis)


def _rules(timeline: Timeline, axis: alt.Axis = _SECONDS) -> Chart:
    """Return a rule for each marked event."""
    rules = alt.Chart(marks(timeline)).mark_rule(color=GREY, strokeDash=[4, 3])
    return rules.encode(
        _x(timeline, "second", axis), tooltip=["label:N", alt.Tooltip("second:Q", format=".3f")]
    )


def _under_named_rules(timeline: Timeline, width: int, below: Chart, *above: Chart) -> Chart:
    """Return charts in layers, the first below the rules; the names of the rules are an axis above."""
    rules = _rules(timeline, _names_of_rules(timeline, width))
    return alt.layer(below, rules, *above).resolve_axis(x="independent").properties(width=width)


def _names_of_rules(timeline: Timeline, width: int) -> alt.Axis:
    """Return an axis whose labels name the rules, on as many lines as they need not to overlap."""
    seconds, names = marks(timeline).get_columns()
    end = max(timeline.end_ns / 1e9, 1e-6)
    free_from: list[float] = []  # on each line
    texts: list[list[str]] = []
    for second, name in zip(seconds, names, strict=True):
        place, long = second / end * width, 6.2 * len(name) + 10
        start = place - long if place > _FLIP_FROM * width else place
        line = next((at for at, free in enumerate(free_from) if free <= start), len(free_from))
        free_from[line : line + 1] = [start + long]
        texts.append(["\u00a0"] * line + [name])
    values = seconds.to_list()
    return alt.Axis(
        orient="top",
        values=values,
        labelExpr=f"{json.dumps(texts)}[indexof({json.dumps(values)}, datum.value)]",
        labelAlign=alt.condition(f"datum.value > {_FLIP_FROM * end}", alt.value("right"), alt.value("left")),
        labelOverlap=False,
        labelFontSize=11,
        labelPadding=3 + 13 * (len(free_from) - 1),
        ticks=False,
        domain=False,
        grid=False,
        title=None,
    )


def _source(channel: Any, sign: str) -> Any:
    """Return the source of a read as a colour or as a shape, with the same legend for both."""
    scale = alt.Scale(domain=list(_SOURCES), range=[getattr(each, sign) for each in _SOURCES.values()])
    legend = alt.Legend(orient="bottom", columns=3, labelLimit=300)
    return channel("source:N", title="served from", scale=scale, legend=legend)


def _waits(timeline: Timeline, reads: Chart) -> Chart:
    """Return the longest wait in each bin as a point of each source."""
    ticks = alt.Axis(values=[10**power for power in range(-2, 6)], format="~g")
    y = alt.Y("longest_wait_ms:Q", scale=alt.Scale(type="log"), title="longest wait (ms, log)", axis=ticks)
    points = reads.transform_filter("datum.longest_wait_ms > 0").mark_point(
        filled=True, size=42, opacity=0.85
    )
    return points.encode(_x(timeline, "middle"), y, _source(alt.Color, "colour"), _source(alt.Shape, "shape"))


def _held(timeline: Timeline, levels: pl.DataFrame, axis: alt.Axis) -> Chart:
    """Return the content of the cache as two areas, one on the other."""
    columns = ["second", *(pl.col(column).alias(name) for name, column in _IN_CACHE.items())]
    tall = levels.select(columns).unpivot(index="second", variable_name="state", value_name="mib")
    colours = [BLOCK_STATES[name].colour for name in ("served", "staged")]
    return (
        alt.Chart(tall)
        .mark_area(interpolate="step-after", line=False)
        .encode(
            _x(timeline, "second", axis),
            alt.Y("mib:Q", title="in the read cache (MiB)", stack=True),
            alt.Color(
                "state:N",
                title="in the cache",
                scale=alt.Scale(domain=list(_IN_CACHE), range=colours),
                legend=alt.Legend(orient="top", titleOrient="left", offset=2),
            ),
            alt.Order("state:N", sort="descending"),
            tooltip=["state:N", alt.Tooltip("second:Q", format=".1f"), alt.Tooltip("mib:Q", format=",.1f")],
        )
    )


def _left(timeline: Timeline, levels: pl.DataFrame) -> Chart:
    """Return how much had been purged and evicted."""
    kinds = ["purged", "evicted"]
    tall = levels.unpivot(kinds, index="second", variable_name="how", value_name="mib")
    most = float(tall["mib"].to_numpy().max())
    legend: dict[str, Any] = {
        "title": "left it",
        "legend": alt.Legend(orient="bottom", symbolSize=300, symbolStrokeWidth=2.2),
    }
    return (
        alt.Chart(tall)
        .mark_line(interpolate="step-after", strokeWidth=2.2)
        .encode(
            _x(timeline, "second"),
            alt.Y("mib:Q", title="left it so far (MiB)", scale=alt.Scale(domain=[0, most or 1])),
            alt.Color("how:N", scale=alt.Scale(domain=kinds, range=[ORANGE, GREY]), **legend),
            alt.StrokeDash("how:N", scale=alt.Scale(domain=kinds, range=[[1, 0], [5, 3]]), **legend),
            tooltip=["how:N", alt.Tooltip("second:Q", format=".1f"), alt.Tooltip("mib:Q", format=",.1f")],
        )
    )


def _stacked(
    title: str,
    timeline: Timeline,
    *charts: Chart,
    said: str = "",
    scales: Literal["independent", "shared"] = "independent",
) -> Chart:
    whose = f"{mode_name(timeline.plan.mode)} of {timeline.vm}, {timeline.boot}"
    heading = alt.TitleParams(title, subtitle=whose + said, anchor="start", fontSize=15, offset=10)
    return (
        alt.vconcat(*charts, spacing=6)
        .resolve_scale(color=scales, shape=scales, strokeDash=scales)
        .properties(title=heading, description=f"{title}: {whose}")
        .configure_view(stroke=None)
    )
