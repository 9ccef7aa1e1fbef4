"""Charts of predictions by budget: how much they find, how much they waste, how long the machine waits."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt
import polars as pl

from vmrestorekit.show import renderer
from vmrestorekit.show.chart_frame import Chart, finished, heading
from vmrestorekit.show.theme import (
    BLUE,
    BLUISH_GREEN,
    GREY,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILLION,
    YELLOW,
)

__all__ = ["NO_PREDICTION", "ORACLE", "Prepared", "by_budget", "changing_values", "marks_of"]

renderer.enable()

ORACLE, NO_PREDICTION = "oracle", "no prediction"

# colour, shape and dashes say the same
_MARKS = (
    (BLUE, "circle", [1, 0]),
    (VERMILLION, "square", [7, 3]),
    (BLUISH_GREEN, "triangle-up", [2, 2]),
    (REDDISH_PURPLE, "diamond", [9, 3, 2, 3]),
    (SKY_BLUE, "triangle-down", [4, 2]),
    (YELLOW, "cross", [12, 3]),
)
_MARKS_OF_BOUNDS = {ORACLE: (ORANGE, "triangle-right", [5, 2]), NO_PREDICTION: (GREY, "stroke", [2, 4])}
_A_MARK_EVERY = 5  # budgets: with one at each of them lines could not be told apart

Values: TypeAlias = list[dict[str, Any]]


def marks_of(names: Sequence[str]) -> dict[str, tuple[str, str, list[int]]]:
    """Return colour, shape and dashes of each predictor, and of the bounds."""
    return {name: _MARKS[at % len(_MARKS)] for at, name in enumerate(names)} | _MARKS_OF_BOUNDS


class Prepared:
    """A chart whose specification is worked out once, and then only given what has changed: quick.

    Parameters
    ----------
    chart : altair chart
        As `by_budget` makes it.
    """

    def __init__(self, chart: Chart) -> None:
        self._specification: dict[str, Any] = chart.to_dict()

    def with_values(self, changed: Mapping[str, Values]) -> Prepared:
        """Return the chart with other values for the data of these names, see `changing_values`."""
        other = copy.copy(self)
        other._specification = _with_values(self._specification, changed)
        return other

    def to_dict(self) -> dict[str, Any]:
        """Return its specification, as charts do."""
        return self._specification


def _with_values(part: Any, changed: Mapping[str, Values]) -> Any:
    """Return a part of a specification with other values under these names; all else is shared."""
    if isinstance(part, dict):
        if "values" in part and part.get("name") in changed:
            return {**part, "values": changed[part["name"]]}
        return {key: each if key == "datasets" else _with_values(each, changed) for key, each in part.items()}
    if isinstance(part, list) and part and isinstance(part[0], dict):
        return [_with_values(each, changed) for each in part]
    return part


def changing_values(curves: pl.DataFrame, budget_mb: float) -> dict[str, Values]:
    """Return the data of a chart that change, by name: where the slider stands, and what is simulated."""
    known = curves.filter(pl.col("stall_s").is_not_null()).select(
        "predictor", pl.col("budget_mb", "stall_s").round(3)
    )
    return {
        "now": [{"budget_mb": budget_mb}],
        "stall_s": known.to_dicts(),
        "stall_s_marks": known.filter(_some()).to_dicts(),
    }


def _some() -> pl.Expr:
    return pl.int_range(pl.len()).over("predictor") % _A_MARK_EVERY == 0


def by_budget(
    curves: pl.DataFrame, names: Sequence[str], budget_mb: float, title: str, *, width: int = 235
) -> Chart:
    """Chart recall, waste and stall by the budget, a line for each predictor and the bounds.

    Parameters
    ----------
    curves : polars.DataFrame
        ``predictor``, ``budget_mb``, ``recall``, ``waste_mb`` and ``stall_s`` (null: not known yet).
    names : sequence of str
        The predictors, in the order of the legend.
    budget_mb : float
        Where a rule stands.
    title : str
    width : int
        Of each drawing area in pixels.
    """
    marks = marks_of(names)
    shown = [name for name in marks if name in curves["predictor"].unique()]
    changing = changing_values(curves, budget_mb)
    figures = {
        "recall": ("recall (% of what the boot reads)", alt.Scale(domain=[0, 100])),
        "waste_mb": ("waste (MB)", alt.Scale(domainMin=0)),
        "stall_s": ("stall of the boot (s)", alt.Scale(domainMin=0)),
    }
    end = float(curves["budget_mb"].to_numpy().max())
    x = alt.X("budget_mb:Q", title="budget (MB)", scale=alt.Scale(domain=[0, end], nice=False))
    signs = [
        kind(
            "predictor:N",
            title=None,
            sort=None,
            scale=alt.Scale(domain=shown, range=[marks[name][at] for name in shown]),
        )
        for at, kind in enumerate((alt.Color, alt.Shape, alt.StrokeDash))
    ]
    now = alt.Chart(_named("now", changing)).mark_rule(color=GREY, strokeWidth=2).encode(x)
    charts = []
    for figure, (said, scale) in figures.items():
        data: tuple[Any, Any] = _named("stall_s", changing), _named("stall_s_marks", changing)
        if figure != "stall_s":
            known = curves.filter(pl.col("predictor") != NO_PREDICTION).select(
                "predictor", pl.col("budget_mb").round(3), _shown(figure).round(3)
            )
            data = known, known.filter(_some())
        y = alt.Y(f"{figure}:Q", title=said, scale=scale)
        charts.append((now + _lines(data, x, y, signs)).properties(width=width, height=210))
    told = "by the budget: how much may be staged; the vertical line is where the slider stands"
    chart = alt.hconcat(*charts, spacing=22).configure_legend(
        orient="bottom", symbolSize=80, symbolStrokeWidth=2
    )
    return finished(chart, heading(title, told))


def _named(name: str, changing: Mapping[str, Values]) -> alt.InlineData:
    return alt.InlineData(values=changing[name], name=name)


def _shown(figure: str) -> pl.Expr:
    return pl.col(figure) * 100 if figure == "recall" else pl.col(figure)


def _lines(data: tuple[Any, Any], x: alt.X, y: alt.Y, signs: Sequence[Any]) -> Chart:
    """Return a line for each predictor, with a mark here and there that says which one without its colour."""
    colour, shape, dash = signs
    tooltip = ["predictor:N", alt.Tooltip("budget_mb:Q", format=".1f"), y.shorthand]
    lines = alt.Chart(data[0]).mark_line(strokeWidth=2).encode(x, y, colour, dash)
    points = alt.Chart(data[1]).mark_point(filled=True, size=55, opacity=1)
    return lines + points.encode(x, y, colour, shape, tooltip=tooltip)
