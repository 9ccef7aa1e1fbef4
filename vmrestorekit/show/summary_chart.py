"""Several runs side by side: a small chart for each figure of their summaries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt
import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.checks import expect_timeline
from vmrestorekit.show.theme import BLUE, mode_name

__all__ = ["compare_summaries"]

_MIB = 1024 * 1024

# Altair's charts return themselves from most methods, which its types say as Any or as a union
Chart: TypeAlias = Any

# title -> metric, unit, divisor, number format
_FIGURES = {
    "Launch after": ("launch_ns", "s", 1e9, ",.1f"),
    "Time to boot": ("time_to_boot_ns", "s", 1e9, ",.1f"),
    "Stall": ("stall_ns", "s", 1e9, ",.1f"),
    "Longest wait": ("wait_max_ns", "ms", 1e6, ",.1f"),
    "Read cache hit rate": ("hit_rate", "%", 0.01, ",.0f"),
    "Read from the backup": ("media_bytes", "MiB", _MIB, ",.0f"),
    "Staged for nothing": ("wasted_bytes", "MiB", _MIB, ",.0f"),
    "Read cache peak": ("peak_cache_bytes", "MiB", _MIB, ",.0f"),
    "Relocation": ("relocation_ns", "s", 1e9, ",.1f"),
}


def compare_summaries(timelines: Mapping[str, Timeline] | Sequence[Timeline], *, width: int = 165) -> Chart:
    """Chart the summaries of several timelines side by side, a small chart for each figure.

    Parameters
    ----------
    timelines : mapping of name to Timeline, or sequence of Timeline
        The names of a sequence are the modes.
    width : int
        Of each small chart's drawing area in pixels.
    """
    if isinstance(timelines, Mapping):
        named = {mode_name(name): timeline for name, timeline in timelines.items()}
    else:
        named = _named_by_mode(timelines)
    if not named:
        raise ValueError("timelines: expected at least one Timeline, got none")
    for name, timeline in named.items():
        expect_timeline(f"timelines[{name!r}]", timeline)
    charts: list[Chart] = []
    for title, (metric, unit, divisor, form) in _FIGURES.items():
        values = {name: timeline.summary().get(metric) for name, timeline in named.items()}
        if any(value is not None for value in values.values()):
            charts.append(
                _small_bars(f"{title} ({unit})", values, divisor, form, width, first=len(charts) % 3 == 0)
            )
    return (
        alt.concat(*charts, columns=3, spacing=18)
        .properties(
            title=alt.TitleParams("The runs side by side", anchor="start", fontSize=15, offset=12),
            description="Figures of " + ", ".join(named),
        )
        .configure_view(stroke=None)
    )


def _named_by_mode(timelines: Sequence[Timeline]) -> dict[str, Timeline]:
    named: dict[str, Timeline] = {}
    for number, timeline in enumerate(timelines):
        expect_timeline(f"timelines[{number}]", timeline)
        name = mode_name(timeline.plan.mode)
        named[name if name not in named else f"{name} ({number + 1})"] = timeline
    return named


def _small_bars(
    title: str, values: dict[str, Any], divisor: float, form: str, width: int, *, first: bool
) -> Chart:
    """Return a bar for each run, its name at the left of the first chart of a row, its value at the right."""
    numbers = {name: None if value is None else value / divisor for name, value in values.items()}
    written = {name: "none" if number is None else format(number, form) for name, number in numbers.items()}
    data = pl.DataFrame(
        {"run": list(numbers), "value": list(numbers.values())},
        schema={"run": pl.String, "value": pl.Float64},
    )
    # the order is given: a run without this figure would else be sorted to the end
    scale = alt.Scale(domain=list(values))
    plain: dict[str, Any] = {"ticks": False, "domain": False, "labelLimit": 200, "labelPadding": 6}
    names = alt.Y("run:N", scale=scale, title=None, axis=alt.Axis(labels=first, **plain))
    texts = alt.Axis(
        orient="right", labelExpr=f"{json.dumps(written)}[datum.value]", labelFontSize=11, **plain
    )
    top = max((number for number in numbers.values() if number is not None), default=0) or 1
    x = alt.X("value:Q", title=None, axis=None, scale=alt.Scale(domain=[0, top], nice=False))
    base = alt.Chart(data.with_columns(pl.col("value").fill_null(0)))
    bars = base.mark_bar(height=15, color=BLUE).encode(x, names, tooltip=["run:N", "value:Q"])
    values_at_right = base.mark_tick(opacity=0).encode(x, alt.Y("run:N", scale=scale, title=None, axis=texts))
    return (
        alt.layer(bars, values_at_right)
        .resolve_axis(y="independent")
        .properties(
            width=width,
            height=24 * len(values),
            title=alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal"),
        )
    )
