"""The same as `relocation_charts` draws, as SVG that is drawn anew in a few milliseconds and can be clicked.

Cells of 12 by 12 user units from the origin, as `ClickableMap` expects them: a column is a span of time.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import time_picture
from vmrestorekit.show.relocation.charts import CURVES
from vmrestorekit.show.theme import SOURCES, Sign
from vmrestorekit.show.time_picture import CELL, LEFT, MOMENTS, WIDTH, axis, key, moments, most_read, scale

__all__ = ["ROWS", "Picture", "legend_of_picture"]

_RIGHT, _TOP, _BOTTOM = 12, 4, 22
_NAMES = 14  # height of the name above a lane
_ROOM = 7  # below a name, for the letter of a curve that runs along the top
_READS, _LEVELS = 40, 48  # heights of the lanes
_GAP = 8
_WHERE = "where the VM's reads are served"
_SO_FAR = "So far, in percent: this with a line, the reference with dots"
_TALL = 2 * (_NAMES + MOMENTS + _READS + _GAP) + _NAMES + _ROOM + _LEVELS
ROWS = -(-_TALL // CELL)


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
        most = most_read(*courses)
        parts, y = [], 0
        lanes = []
        for name, timeline, course in zip(("Reference", "This"), timelines, courses, strict=True):
            parts.append(time_picture.text(2 - LEFT, y + 10, f"{name}: {_WHERE}", "title"))
            top, y = y + _NAMES, y + _NAMES + MOMENTS + _READS
            lanes.append((y - _READS, y))
            parts.append(moments(timeline, top, y, self.end_ns))
            parts.append(time_picture.reads(course, y, _READS, most))
            parts.append(scale(y, _READS, f"{most / 2**20:.3g} MiB", "0"))
            y += _GAP
        parts.append(time_picture.text(2 - LEFT, y + 10, _SO_FAR, "title"))
        y += _NAMES + _ROOM + _LEVELS
        lanes.append((y - _LEVELS, y))
        parts.append(_levels(courses[0], y, dashed=True) + _levels(courses[1], y, dashed=False))
        parts.append(scale(y, _LEVELS, "100 %", "0") + axis(y, self.end_ns))
        self._tall, self._lanes = y, lanes
        self._body = "".join(parts)

    def at(self, time_ns: int) -> str:
        """Return the picture with a line where the clock stands."""
        x = f"{WIDTH * time_ns / self.end_ns:.1f}"
        style = "fill:none;stroke:var(--vmrk-{});stroke-width:{}"
        # not across the names of lanes and moments
        path = "".join(f"M{x} {top}V{bottom}" for top, bottom in self._lanes)
        line = f'<path d="{path}" style="{style}"/>'
        box = f"{-LEFT} {-_TOP} {LEFT + WIDTH + _RIGHT} {_TOP + self._tall + _BOTTOM}"
        return (
            f'<svg role="img" viewBox="{box}" style="max-width:1250px">{self._body}'
            f"{line.format('paper', 4)}{line.format('ink', 1.6)}</svg>"
        )


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
            # what is purged follows what is relocated closely: its letter comes later
            high = 0.85 if name == "purged" else 0.5
            column = int(np.argmax(percent >= high * percent.max()))
            ink = "#FFFFFF" if letter == "C" else "#000000"
            x, middle = column * CELL + 6, heights[column]
            parts.append(f'<circle cx="{x}" cy="{middle}" r="6" style="fill:{colour}"/>')
            parts.append(
                f'<text x="{x}" y="{middle + 3:.1f}" class="letter" style="fill:{ink}">{letter}</text>'
            )
    return "".join(parts)


def legend_of_picture() -> str:
    """Return what the colours and letters mean, as HTML."""
    curves = (
        Sign(words, colour, letter, "#FFFFFF" if letter == "C" else "#000000")
        for colour, letter, words in CURVES.values()
    )
    return key((0, list(SOURCES.values())), (6, list(curves)))
