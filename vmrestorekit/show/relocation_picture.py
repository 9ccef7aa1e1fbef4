"""The same as `relocation_charts` draws, as SVG that is drawn anew in a few milliseconds and can be clicked.

Cells of 12 by 12 user units from the origin, as `ClickableMap` expects them: a column is a span of time.
"""

from __future__ import annotations

from html import escape

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.chart_data import marks
from vmrestorekit.show.relocation_charts import BINS, CURVES, SOURCE_NAMES
from vmrestorekit.show.theme import SOURCES, Sign

__all__ = ["ROWS", "Picture", "legend_of_picture"]

Floats = npt.NDArray[np.float64]

CELL = 12
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 4, 22
_WIDTH = BINS * CELL
_NAMES, _MOMENTS = 14, 25  # heights of what stands above a lane: its name, and those of moments
_READS, _LEVELS = 74, 78  # heights of the lanes
_GAP = 12
_TALL = 2 * (_NAMES + _MOMENTS + _READS + _GAP) + _NAMES + _LEVELS
ROWS = -(-_TALL // CELL)
_HAS_ROOM = 9  # for a letter


class Picture:
    """The picture of two courses; `at` adds where the clock stands.

    Parameters
    ----------
    timelines, courses : tuple of two
        Of the reference and of this restore.
    end_ns : int
        Where the clock ends.
    """

    def __init__(
        self,
        timelines: tuple[Timeline, Timeline],
        courses: tuple[pl.DataFrame, pl.DataFrame],
        end_ns: int,
    ) -> None:
        self.end_ns = max(end_ns, 1)
        most = max(float(course.select(pl.sum_horizontal(SOURCE_NAMES).max()).item()) for course in courses)
        parts, y = [], 0
        lanes = []
        for name, timeline, course in zip(("Reference", "This"), timelines, courses, strict=True):
            parts.append(_text(-_LEFT + 2, y + 10, f"{name}: where the VM's reads are served", "title"))
            parts.append(self._moments(timeline, y + _NAMES))
            y += _NAMES + _MOMENTS + _READS
            lanes.append((y - _READS, y))
            parts.append(_reads(course, y, most or 1.0) + _scale(y, _READS, f"{most / 2**20:.3g} MiB", "0"))
            y += _GAP
        parts.append(
            _text(
                -_LEFT + 2, y + 10, "So far, in percent: this with a line, the reference with dots", "title"
            )
        )
        y += _NAMES + _LEVELS
        lanes.append((y - _LEVELS, y))
        parts.append(_levels(courses[0], y, dashed=True) + _levels(courses[1], y, dashed=False))
        parts.append(_scale(y, _LEVELS, "100 %", "0") + self._axis(y))
        self._tall, self._lanes = y, lanes
        self._body = "".join(parts)

    def at(self, time_ns: int) -> str:
        """Return the picture with a line where the clock stands."""
        x = f"{_WIDTH * time_ns / self.end_ns:.1f}"
        style = "fill:none;stroke:var(--vmrk-{});stroke-width:{}"
        # not across the names of lanes and moments
        path = "".join(f"M{x} {top}V{bottom}" for top, bottom in self._lanes)
        line = f'<path d="{path}" style="{style}"/>'
        box = f"{-_LEFT} {-_TOP} {_LEFT + _WIDTH + _RIGHT} {_TOP + self._tall + _BOTTOM}"
        return (
            f'<svg role="img" viewBox="{box}" style="max-width:1250px">{self._body}'
            f"{line.format('paper', 4)}{line.format('ink', 1.6)}</svg>"
        )

    def _moments(self, timeline: Timeline, y: int) -> str:
        """Return a rule for each moment that is marked, and its name, on a second line if it must be."""
        parts, free = [], [-_LEFT, -_LEFT]
        for second, name in marks(timeline).iter_rows():
            x = _WIDTH * second * 1e9 / self.end_ns
            long = 5.4 * len(name) + 8
            start = min(x + 3, _WIDTH - long)
            top = y + 2 if start > x else y + _MOMENTS  # not across a name that had to move to the left
            parts.append(
                f'<path d="M{x:.1f} {top}V{y + _MOMENTS + _READS}" '
                'style="fill:none;stroke:var(--vmrk-soft);stroke-dasharray:3 3"/>'
            )
            line = next((line for line, end in enumerate(free) if start >= end), None)
            if line is not None:
                parts.append(_text(start, y + 9 + 11 * line, name, "soft"))
                free[line] = start + long
        return "".join(parts)

    def _axis(self, y: int) -> str:
        end_s = self.end_ns / 1e9
        step = next(
            digit * 10**power
            for power in range(-3, 9)
            for digit in (1, 2, 5)
            if 12 * digit * 10**power >= end_s
        )
        parts = [f'<path d="M0 {y}H{_WIDTH}" style="stroke:var(--vmrk-soft)"/>']
        for number in range(int(end_s / step) + 1):
            x = _WIDTH * number * step / end_s
            parts.append(f'<path d="M{x:.1f} {y}v4" style="stroke:var(--vmrk-soft)"/>')
            parts.append(
                _text(x, y + 15, f"{number * step:g}{' s' if number == 0 else ''}", "soft", "middle")
            )
        return "".join(parts)


def _reads(course: pl.DataFrame, y: int, most: float) -> str:
    """Return stacked bars upwards from `y`, with a letter in the tallest part of each."""
    amounts = course.select(SOURCE_NAMES).to_numpy() * (_READS / most)
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


def _levels(course: pl.DataFrame, y: int, *, dashed: bool) -> str:
    """Return the curves, each with its letter where it ends its rise."""
    parts = []
    for name, (colour, letter, _) in CURVES.items():
        percent = np.minimum(course[name].to_numpy(), 100)
        heights = np.round(y - percent * (_LEVELS / 100), 1)
        path = f"M0 {y}" + "".join(f"V{height}h{CELL}" for height in heights.tolist())
        # what is relocated is often purged at once: both have to be seen
        wide = 4.4 if name == "relocated" and not dashed else 1.8
        dash = ";stroke-dasharray:2 4;opacity:.85" if dashed else ""
        parts.append(f'<path d="{path}" style="fill:none;stroke:{colour};stroke-width:{wide}{dash}"/>')
        if not dashed and percent.max() > 1:
            column = int(np.argmax(percent >= 0.55 * percent.max()))
            ink = "#FFFFFF" if letter == "C" else "#000000"
            x, middle = column * CELL + 6, heights[column]
            parts.append(f'<circle cx="{x}" cy="{middle}" r="6" style="fill:{colour}"/>')
            parts.append(
                f'<text x="{x}" y="{middle + 3:.1f}" class="letter" style="fill:{ink}">{letter}</text>'
            )
    return "".join(parts)


def _scale(y: int, tall: int, top: str, bottom: str) -> str:
    line = f'<path d="M0 {y - tall}V{y}H{_WIDTH}" style="fill:none;stroke:var(--vmrk-line)"/>'
    return line + _text(-5, y - tall + 8, top, "soft", "end") + _text(-5, y, bottom, "soft", "end")


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" class="{kind}" style="text-anchor:{anchor}">{escape(text)}</text>'


def legend_of_picture() -> str:
    """Return what the colours and letters mean, as HTML."""
    curves = (
        Sign(words, colour, letter, "#FFFFFF" if letter == "C" else "#000000")
        for colour, letter, words in CURVES.values()
    )
    items = "".join(
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><rect x=".5" y=".5" width="11" height="11" '
        f'rx="{radius}" style="fill:{sign.colour}"/><text x="6" y="9" class="letter" style="fill:{sign.ink}">'
        f"{sign.letter}</text></svg> <span>{escape(sign.name)}</span></li>"
        for radius, signs in ((0, SOURCES.values()), (6, curves))
        for sign in signs
    )
    return f'<ul class="legend" aria-label="Legend of the time chart">{items}</ul>'
