"""One or two runs over time, with a line where the clock stands: a click or an arrow key chooses a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.course import course
from vmrestorekit.show.theme import SOURCES, mode_name
from vmrestorekit.show.time_picture import (
    LEFT,
    MOMENTS,
    WIDTH,
    axis,
    key,
    moments,
    most_read,
    reads,
    scale,
    text,
)
from vmrestorekit.show.units import clock as clock_text

__all__ = ["RunChart"]

_NAME, _READS, _GAP, _BELOW, _RIGHT = 14, 46, 8, 20, 12  # heights, and room at the right


class RunChart(anywidget.AnyWidget):
    """Where the VM's reads are served, of each run a lane; sent once, then only where the clock stands.

    What comes later than that is hidden until it is asked for: it gives away how the run ends.

    Parameters
    ----------
    timelines : sequence of Timeline
    chosen : callable
        Called with a time in nanoseconds that a person chose.

    Attributes
    ----------
    svg : str
        The whole picture; what stands in a group of class ``vmrk-course`` is shown up to the clock.
    lanes : list of tuple
        Where each lane begins and ends, downwards.
    end_s, second : float
        Where the clock ends, and where it stands, in seconds.
    whole : bool
        Whether what comes later is shown, too.
    text : str
        Where the clock stands, for screen readers.
    """

    _esm = Path(__file__).with_suffix(".js")

    svg = traitlets.Unicode().tag(sync=True)
    lanes: Any = traitlets.List().tag(sync=True)
    width = traitlets.Int(WIDTH).tag(sync=True)
    end_s = traitlets.Float(1.0).tag(sync=True)
    second = traitlets.Float(0.0).tag(sync=True)
    whole = traitlets.Bool(False).tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)

    def __init__(self, timelines: Sequence[Timeline], chosen: Callable[[int], object]) -> None:
        end_ns = max(1, *(timeline.end_ns for timeline in timelines))
        svg, lanes = _picture(timelines, end_ns)
        super().__init__(svg=svg, lanes=lanes, end_s=end_ns / 1e9)

        def told(_: Any, content: Any, __: Any) -> None:
            second = content.get("second") if isinstance(content, dict) else None
            if isinstance(second, int | float) and second >= 0:
                chosen(round(second * 1e9))

        self.on_msg(told)

    def show(self, time_ns: int) -> None:
        """Show where the clock stands."""
        with self.hold_sync():
            self.second = time_ns / 1e9
            self.text = clock_text(time_ns)


def _picture(timelines: Sequence[Timeline], end_ns: int) -> tuple[str, list[tuple[int, int]]]:
    """Return the picture of all runs, and where their lanes are."""
    courses = [course(timeline, end_ns) for timeline in timelines]
    most = most_read(*courses)
    bars, others, lanes, y = [], [], [], 0
    for timeline, its in zip(timelines, courses, strict=True):
        name = f"{mode_name(timeline.plan.mode)}: where the VM's reads are served"
        others.append(text(2 - LEFT, y + 10, name, "title"))
        bottom = y + _NAME + MOMENTS + _READS
        others.append(moments(timeline, y + _NAME, bottom, end_ns))
        others.append(scale(bottom, _READS, f"{most / 2**20:.3g} MiB", "0"))
        bars.append(reads(its, bottom, _READS, most))
        lanes.append((bottom - _READS, bottom))
        y = bottom + _GAP
    others.append(axis(lanes[-1][1], end_ns))
    box = f"{-LEFT} 0 {LEFT + WIDTH + _RIGHT} {lanes[-1][1] + _BELOW}"
    svg = f'<svg viewBox="{box}"><g class="vmrk-course">{"".join(bars)}</g>{"".join(others)}</svg>'
    return svg + key((0, list(SOURCES.values()))), lanes
