"""What eviction policies made of the same accesses: a table in the page, a table to keep, a chart."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import polars as pl

from vmrestorekit.show.chart_frame import Chart
from vmrestorekit.show.policy.reasons import tell_step
from vmrestorekit.show.policy.steps import PolicyStep
from vmrestorekit.show.theme import (
    BLUE,
    BLUISH_GREEN,
    GREY,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILLION,
)

__all__ = ["hits_chart", "steps_table", "totals"]

Runs = Mapping[str, tuple[PolicyStep, ...]]

_LINES = [BLUE, VERMILLION, BLUISH_GREEN, REDDISH_PURPLE, ORANGE, SKY_BLUE, GREY]


def totals(runs: Runs, index: int) -> str:
    """Return the hits up to an access as a table of the page, nothing before the first."""
    if index < 0:
        return ""
    rows = "".join(
        f"<tr><th>{name}</th><td>{steps[index].hits}</td><td>{index + 1 - steps[index].hits}</td>"
        f"<td>{100 * steps[index].hits / (index + 1):.0f} %</td></tr>"
        for name, steps in runs.items()
    )
    return (
        "<table><caption>So far</caption><thead><tr><th>policy</th><th>hits</th><th>misses</th>"
        f"<th>hit rate</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def steps_table(runs: Runs) -> pl.DataFrame:
    """Return a row for each access under each policy; the keys are names as the package has them."""
    return pl.DataFrame(
        [
            {
                "policy": policy,
                "access": step.access + 1,
                "block": step.block,
                "hit": step.hit,
                "evicted": step.evicted,
                "hits": step.hits,
                "told": tell_step(policy, step),
            }
            for policy, steps in runs.items()
            for step in steps
        ],
        schema_overrides={"evicted": pl.Int64},
    )


def hits_chart(runs: Runs, title: str) -> Chart:
    """Return the hits so far over the accesses, a line for each policy."""
    rows = [
        {"policy": name, "access": step.access + 1, "hits": step.hits}
        for name, steps in runs.items()
        for step in steps
    ]
    return (
        alt.Chart(pl.DataFrame(rows), title=title, width=640, height=260, description=title)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            alt.X("access:Q", title="access"),
            alt.Y("hits:Q", title="hits so far"),
            alt.Color("policy:N", title="policy", scale=alt.Scale(range=_LINES)),
            alt.StrokeDash("policy:N", title="policy"),
        )
    )
