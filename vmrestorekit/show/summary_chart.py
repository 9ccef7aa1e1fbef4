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

# Altair's charts return themselves from most methods, which its types say as Any or as a union
Chart: TypeAlias = Any

_MIB = 1024 * 1024
_LONG_MS = 10_000  # waits for a tape are minutes

# title -> metric, divisor, number format
_FIGURES = {
    "Launch after (s)": ("launch_ns", 1e9, ",.1f"),
    "Time to boot (s)": ("time_to_boot_ns", 1e9, ",.1f"),
    "Stall (s)": ("stall_ns", 1e9, ",.1f"),
    "Longest wait (ms)": ("wait_max_ns", 1e6, ",.1f"),
    "Read cache hit rate (%)": ("hit_rate", 0.01, ",.0f"),
    "Read from the backup (MiB)": ("media_bytes", _MIB, ",.0f"),
    "Staged for boot, never read (MiB)": ("unread_first_set_bytes", _MIB, ",.0f"),
    "Read cache peak (MiB)": ("peak_cache_bytes", _MIB, ",.0f"),
    "Relocation (s)": ("relocation_ns", 1e9, ",.1f"),
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
    for title, (metric, divisor, form) in _FIGURES.items():
        values = {name: timeline.summary().get(metric) for name, timeline in named.items()}
        numbers = {name: None if value is None else value / divisor for name, value in values.items()}
        if metric == "wait_max_ns" and max(number or 0 for number in numbers.values()) >= _LONG_MS:
            title, form = "Longest wait (s)", ",.1f"
            numbers = {name: None if number is None else number / 1000 for name, number in numbers.items()}
        if any(number is not None for number in numbers.values()):
            charts.append(_small_bars(title, numbers, form, width, named=len(charts) % 3 == 0))
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
        name = mode_name(expect_timeline(f"timelines[{number}]", timeline).plan.mode)
        named[name if name not in named else f"{name} ({number + 1})"] = timeline
    return named


def _small_bars(title: str, numbers: dict[str, float | None], form: str, width: int, *, named: bool) -> Chart:
    """Return a bar for each run with its value at the right, as labels of an axis: these suit any theme."""
    values = [number or 0.0 for number in numbers.values()]
    texts = {name: "none" if number is None else format(number, form) for name, number in numbers.items()}
    # the order is given: a run without this figure would else be sorted to the end
    y = alt.Y("run:N", sort=list(numbers), title=None)
    plain: dict[str, Any] = {"ticks": False, "domain": False, "labelLimit": 200, "labelPadding": 6}
    at_the_right = alt.Axis(orient="right", labelExpr=f"{json.dumps(texts)}[datum.value]", **plain)
    x = alt.X("value:Q", axis=None, scale=alt.Scale(domain=[0, max(values) or 1]))
    base = alt.Chart(pl.DataFrame({"run": list(numbers), "value": values}))
    bars = base.mark_bar(height=15, color=BLUE).encode(
        x, y.axis(labels=named, **plain), tooltip=["run:N", "value:Q"]
    )
    return (
        alt.layer(bars, base.mark_tick(opacity=0).encode(x, y.axis(at_the_right)))
        .resolve_axis(y="independent")
        .properties(
            width=width,
            height=24 * len(numbers),
            title=alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal"),
        )
    )
