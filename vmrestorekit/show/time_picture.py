"""Parts of pictures over time: a lane of reads, rules for moments, scales and an axis, as SVG.

A span of time is a column of `CELL` user units; the first one begins at the origin, a lane ends at its `y`.
"""

from __future__ import annotations

from html import escape

import numpy as np
import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.chart_data import marks
from vmrestorekit.show.course import BINS, SOURCE_NAMES
from vmrestorekit.show.theme import SOURCES, Sign

__all__ = [
    "CELL",
    "LEFT",
    "MOMENTS",
    "WIDTH",
    "axis",
    "key",
    "moments",
    "most_read",
    "reads",
    "scale",
    "text",
]

CELL = 12
WIDTH = BINS * CELL
LEFT = 62  # for what stands beside the lanes
MOMENTS = 25  # height of the names of moments, on two lines
_HAS_ROOM = 9  # for a letter


def most_read(*courses: pl.DataFrame) -> float:
    """Return the most bytes that were read in a span of any of these courses, at least 1."""
    most = max(float(course.select(pl.sum_horizontal(SOURCE_NAMES).max()).item()) for course in courses)
    return most or 1.0


def reads(course: pl.DataFrame, y: int, tall: int, most: float) -> str:
    """Return stacked bars upwards from `y`, with a letter in the tallest part of each."""
    amounts = course.select(SOURCE_NAMES).to_numpy() * (tall / most)
    tops = np.cumsum(amounts, axis=1)
    parts = []
    for number, name in enumerate(SOURCE_NAMES):
        sign = SOURCES[name]
        at = np.flatnonzero(amounts[:, number] >= 0.05)
        path = "".join(
            f"M{column * CELL + 1} {y - tops[column, number]:.1f}h10v{amounts[column, number]:.1f}h-10z"
            for column in at.tolist()
        )
        parts.append(f'<path d="{path}" style="fill:{sign.colour}"/>')
        roomy = at[(amounts[at, number] >= _HAS_ROOM) & (amounts[at].argmax(axis=1) == number)]
        middles = y - tops[roomy, number] + amounts[roomy, number] / 2 + 3
        parts += [
            f'<text x="{column * CELL + 6}" y="{middle:.1f}" class="letter" style="fill:{sign.ink}">'
            f"{sign.letter}</text>"
            for column, middle in zip(roomy.tolist(), middles.tolist(), strict=True)
        ]
    return "".join(parts)


def moments(timeline: Timeline, y: int, bottom: int, end_ns: int) -> str:
    """Return a rule for each moment that is marked, and its name, on a second line if it must be.

    Each is a group that says in `data-second` when it comes.
    """
    parts, free = [], [-LEFT, -LEFT]
    for second, name in marks(timeline).iter_rows():
        x = WIDTH * second * 1e9 / end_ns
        long = 5.4 * len(name) + 8
        start = min(x + 3, WIDTH - long)
        line = next((line for line, end in enumerate(free) if start >= end), None)
        # not across the name above, nor its own if that had to move to the left
        top = y + MOMENTS if line is None or start <= x else y + 2 + 11 * line
        rule = (
            f'<path d="M{x:.1f} {top}V{bottom}" '
            'style="fill:none;stroke:var(--vmrk-soft);stroke-dasharray:3 3"/>'
        )
        if line is not None:
            rule += text(start, y + 9 + 11 * line, name, "soft")
            free[line] = int(start + long)
        parts.append(f'<g data-second="{second}">{rule}</g>')
    return "".join(parts)


def axis(y: int, end_ns: int) -> str:
    """Return an axis of seconds below `y`."""
    end_s = end_ns / 1e9
    step = next(
        digit * 10**power for power in range(-3, 9) for digit in (1, 2, 5) if 12 * digit * 10**power >= end_s
    )
    parts = [f'<path d="M0 {y}H{WIDTH}" style="stroke:var(--vmrk-soft)"/>']
    for number in range(int(end_s / step) + 1):
        x = WIDTH * number * step / end_s
        parts.append(f'<path d="M{x:.1f} {y}v4" style="stroke:var(--vmrk-soft)"/>')
        parts.append(text(x, y + 15, f"{number * step:g}{' s' if number == 0 else ''}", "soft", "middle"))
    return "".join(parts)


def scale(y: int, tall: int, top: str, bottom: str) -> str:
    """Return the scale beside a lane that ends at `y`."""
    line = f'<path d="M0 {y - tall}V{y}H{WIDTH}" style="fill:none;stroke:var(--vmrk-line)"/>'
    return line + text(-5, y - tall + 8, top, "soft", "end") + text(-5, y, bottom, "soft", "end")


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    """Return a text."""
    return f'<text x="{x:.1f}" y="{y}" class="{kind}" style="text-anchor:{anchor}">{escape(words)}</text>'


def key(*groups: tuple[int, list[Sign]]) -> str:
    """Return what colours and letters mean, as HTML; with each group how round its squares are."""
    items = "".join(
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><rect x=".5" y=".5" width="11" height="11" '
        f'rx="{radius}" style="fill:{sign.colour}"/><text x="6" y="9" class="letter" style="fill:{sign.ink}">'
        f"{sign.letter}</text></svg> <span>{escape(sign.name)}</span></li>"
        for radius, signs in groups
        for sign in signs
    )
    return f'<ul class="legend" aria-label="Legend of the time chart">{items}</ul>'
