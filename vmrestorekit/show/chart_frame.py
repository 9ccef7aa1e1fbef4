"""What charts of recordings share: a heading with a sentence below, and one that only says why."""

from __future__ import annotations

from typing import Any, TypeAlias

import altair as alt
import polars as pl

__all__ = ["ONLY_LABELS", "WIDTH", "Chart", "finished", "heading", "only_says"]

# Altair's charts return themselves from most methods, which its types say as Any or as a union
Chart: TypeAlias = Any
WIDTH = 760  # pixels, without the names of machines
ONLY_LABELS: dict[str, Any] = {
    "labelLimit": 260,
    "labelOverlap": False,
    "ticks": False,
    "domain": False,
    "grid": False,
    "title": None,
}


def heading(title: str, said: str) -> alt.TitleParams:
    """Return a title, and what is to be said below it."""
    return alt.TitleParams(title, subtitle=said, anchor="start", fontSize=15, offset=10)


def finished(chart: Chart, title: alt.TitleParams) -> Chart:
    """Return a chart with its heading, which screen readers are told, too."""
    return chart.properties(title=title, description=title.text).configure_view(stroke=None)


def only_says(title: str, sentence: str) -> Chart:
    """Return a chart without anything but a sentence that says why."""
    nothing = alt.Chart(pl.DataFrame({"x": [0]})).mark_point(opacity=0).properties(width=WIDTH, height=1)
    return finished(nothing, heading(title, sentence))
