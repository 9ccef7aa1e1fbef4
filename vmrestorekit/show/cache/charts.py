"""Charts of the cache explorer: what each size of the read cache, and each policy, make of a restore."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from vmrestorekit.show.theme import (
    BLUE,
    BLUISH_GREEN,
    GREY,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILLION,
    YELLOW,
    Sign,
)

__all__ = ["FIGURES", "MISS_RATIO", "POLICIES", "VegaLite", "curves", "heat_map", "map_width", "policy_label"]

_MIB = 1 << 20
_WIDTH = 400  # pixels, of each of two charts

POLICIES = {
    "fifo": Sign("FIFO", SKY_BLUE, "F", shape="circle"),
    "lru": Sign("LRU", BLUE, "L", "#FFFFFF", shape="square"),
    "clock": Sign("CLOCK", BLUISH_GREEN, "C", shape="cross"),
    "sieve": Sign("SIEVE", REDDISH_PURPLE, "V", shape="diamond"),
    "s3fifo": Sign("S3-FIFO", VERMILLION, "3", shape="triangle-up"),
    "arc": Sign("ARC", ORANGE, "A", shape="triangle-down"),
    "belady": Sign("Belady's optimum", GREY, "O", shape="stroke"),
}

MISS_RATIO = "miss_ratio"
# name -> title, number format; all are better when small but the hit rate
FIGURES = {
    "stall_s": ("stall (s)", ".1f"),
    "hit_rate": ("found in the cache (% of what the VM asked)", ".0f"),
    "misses": ("misses of the VM (blocks)", ",.0f"),
    "evicted_mib": ("evicted (MiB)", ",.0f"),
    "refetches": ("fetched again after a purge (blocks)", ",.0f"),
    "media_mib": ("read from the backup (MiB)", ",.0f"),
    "peak_mib": ("most that the cache held (MiB)", ",.0f"),
    MISS_RATIO: ("miss ratio, without time (%)", ".1f"),
}


def policy_label(policy: str) -> str:
    """Return a policy's name."""
    return POLICIES[policy].name


class VegaLite(dict[str, Any]):
    """A chart as plain data: made in a millisecond, where Altair's checks would take a third second."""

    def to_dict(self) -> dict[str, Any]:
        """Return the specification, as Altair's charts do."""
        return dict(self)

    def to_altair(self) -> alt.TopLevelMixin:
        """Return the same chart as Altair's, which can be saved."""
        return alt.Chart.from_dict(dict(self))


def curves(table: pl.DataFrame, figure: str, size: int, policy: str, title: str) -> VegaLite:
    """Chart miss ratios without time against the size of the cache, beside them a figure of restores.

    Parameters
    ----------
    table : polars.DataFrame
        Columns `cache_bytes`, `policy`, and those of `FIGURES`.
    figure : str
        Which figure is beside them.
    size, policy
        The chosen ones, which are marked.
    title : str
    """
    charts = [_lines(table, MISS_RATIO, size, policy, _WIDTH)]
    if figure == MISS_RATIO:
        said, charts = (
            "chosen: the line and the thick curve",
            [_lines(table, figure, size, policy, 2 * _WIDTH)],
        )
    else:
        said = "left: blocks alone, no time passes · right: simulated restores"
        charts.append(_lines(table, figure, size, policy, _WIDTH))
    return VegaLite(
        title={"text": title, "subtitle": said, "anchor": "start", "fontSize": 15, "offset": 10},
        description=f"{title}: {FIGURES[figure][0]} against the size of the read cache",
        config={"view": {"stroke": None}},
        hconcat=charts,
        spacing=26,
        resolve={"scale": {"color": "shared", "shape": "shared"}},
    )


def _lines(table: pl.DataFrame, figure: str, size: int, policy: str, width: int) -> dict[str, Any]:
    title, form = FIGURES[figure]
    known = table.filter(pl.col(figure).is_not_null()).select("cache_bytes", "policy", figure)
    values = [
        {"size": each / _MIB, "policy": name, "name": policy_label(name), "value": value}
        for each, name, value in known.iter_rows()
    ]
    x = _by_size(sorted(each / _MIB for each in table["cache_bytes"].unique()))
    chosen = f"datum.policy == '{policy}'"
    encoding = {
        "x": x,
        "y": {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": True}},
        "color": _by_policy("colour"),
        "tooltip": [
            {"field": "name", "title": "policy"},
            {"field": "size", "type": "quantitative", "title": "MiB", "format": "~g"},
            {"field": "value", "type": "quantitative", "title": title, "format": form},
        ],
    }
    lines = {
        "mark": "line",
        "encoding": {
            "strokeWidth": {"condition": {"test": chosen, "value": 4}, "value": 1.6},
            "strokeDash": {
                "condition": {"test": "datum.policy == 'belady'", "value": [5, 4]},
                "value": [1, 0],
            },
        },
    }
    at_size = f"{chosen} && datum.size == {size / _MIB}"
    points = {
        "mark": {"type": "point", "filled": True, "opacity": 1},
        "encoding": {
            "shape": _by_policy("shape"),
            "size": {"condition": {"test": at_size, "value": 260}, "value": 34},
        },
    }
    rule = {
        "data": {"values": [{"size": size / _MIB}]},
        "mark": {"type": "rule", "color": GREY, "strokeWidth": 3},
        "encoding": {"x": x},
    }
    drawn = {"data": {"values": values}, "encoding": encoding, "layer": [lines, points]}
    return {"width": width, "height": 250, "layer": [rule, drawn]}


def _by_size(sizes: Sequence[float]) -> dict[str, Any]:
    """Return the size as the place from left to right."""
    axis = {
        "title": "size of the read cache (MiB, log)",
        "values": [each for each in sizes if math.log2(each) % 1 == 0],
        "format": "~g",
    }
    scale = {"type": "log", "base": 2, "domain": [sizes[0], sizes[-1]], "nice": False}
    return {"field": "size", "type": "quantitative", "axis": axis, "scale": scale}


def _by_policy(sign: str) -> dict[str, Any]:
    """Return the policy as a colour or as a shape, with one legend for both."""
    return {
        "field": "name",
        "type": "nominal",
        "title": "policy",
        "scale": {
            "domain": [policy_label(name) for name in POLICIES],
            "range": [getattr(each, sign) for each in POLICIES.values()],
        },
        "legend": {"orient": "bottom", "columns": 7, "labelLimit": 220, "symbolSize": 70},
    }


# --- the map of sizes and policies --------------------------------------------------------------------------

_CELL = 12  # user units, as ClickableMap has it
# from the best to the worst; the root tells apart what is near the best
_GRADES = (BLUISH_GREEN, SKY_BLUE, YELLOW, ORANGE, VERMILLION)


def heat_map(
    values: Sequence[Sequence[float | None]], figure: str, sizes: Sequence[int], rows: Sequence[str]
) -> str:
    """Return a map as SVG: a row for each policy, a column for each size, in each cell the number itself."""
    known = [value for row in values for value in row if value is not None]
    best, worst = (min(known), max(known)) if known else (0.0, 0.0)
    if figure == "hit_rate":
        best, worst = worst, best
    parts = [
        _cell(column, row, value, figure, best, worst)
        for row, line in enumerate(values)
        for column, value in enumerate(line)
    ]
    small = 'style="font-size:3.9px"'
    for row, policy in enumerate(rows):
        parts.append(
            f'<text x="-2" y="{_CELL * row + 7.4}" text-anchor="end" {small}>{policy_label(policy)}</text>'
        )
    bottom = _CELL * len(rows) + 5
    for column, size in enumerate(sizes):
        x = _CELL * column + _CELL / 2
        parts.append(f'<text x="{x}" y="{bottom}" text-anchor="middle" {small}>{size / _MIB:g}</text>')
    width = _CELL * len(sizes)
    parts.append(f'<text x="-2" y="{bottom}" text-anchor="end" {small}>MiB</text>')
    # else the frame of the chosen cell would grow with the picture, over its neighbours' numbers
    style = "<style>.vmrk-chosen { vector-effect: non-scaling-stroke; }</style>"
    view = f'viewBox="-26 -1 {width + 27} {bottom + 3}" style="max-width:{map_width(len(sizes))}px"'
    return f'<svg role="img" {view}>{style}{"".join(parts)}</svg>'


def map_width(sizes: int) -> int:
    """Return the most pixels that a map of so many sizes takes."""
    return round(3.2 * (_CELL * sizes + 27))


def _cell(column: int, row: int, value: float | None, figure: str, best: float, worst: float) -> str:
    x, y = _CELL * column, _CELL * row
    if value is None:
        fill, text, ink = "var(--vmrk-panel)", "…", "var(--vmrk-soft)"
    else:
        far = math.sqrt((value - best) / (worst - best)) if worst != best else 0.0
        fill, ink = _GRADES[min(int(far * len(_GRADES)), len(_GRADES) - 1)], "#000000"
        text = format(value, FIGURES[figure][1])
        text = text if len(text) < 5 else format(value, ".0f")
    style = f'text-anchor="middle" style="font-size:4.3px;fill:{ink}"'
    return (
        f'<rect x="{x + 0.3}" y="{y + 0.3}" width="11.4" height="11.4" style="fill:{fill}"/>'
        f'<text x="{x + 6}" y="{y + 7.5}" {style}>{text}</text>'
    )
