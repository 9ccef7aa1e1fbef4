"""The controls that move the clock of the relocation explorer: a slider, and events to go to."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets

from vmrestorekit.plan import PlanError
from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.controls import button, dropdown, row
from vmrestorekit.show.sentences import KIND_NAMES

__all__ = ["ClockControls", "next_event"]

_START = "start_relocation"


class ClockControls:
    """A slider for the time, a list of the kinds of events there are, and a button to the next of a kind.

    Parameters
    ----------
    slid : callable
        Called with the time in nanoseconds when the slider has moved.
    next_one : callable
        Called without arguments when the button is pressed.

    Attributes
    ----------
    slider : FloatSlider
        In seconds.
    kind : Dropdown
    next_button : Button
    row : HBox
        All of them, to be shown.
    """

    def __init__(self, slid: Callable[[int], object], next_one: Callable[[], object]) -> None:
        self.slider = widgets.FloatSlider(
            step=0.1,
            description="Time (s)",
            tooltip="Where the clock of both restores stands",
            readout_format=".1f",
            layout={"flex": "1 1 420px"},
            style={"description_width": "70px"},
        )
        self.kind = dropdown(
            "Go to",
            {"relocation starts": _START},
            "A kind of event of this restore, and how often it happens",
            width="330px",
            label_width="60px",
        )
        self.next_button = button("Next", "Go to the next event of this kind, and to its block", next_one)
        self.row = row([self.slider, self.kind, self.next_button])
        self.slider.observe(lambda change: slid(round(change.new * 1e9)), "value")

    def show(self, time_ns: int) -> None:
        """Show where the clock stands."""
        self.slider.value = time_ns / 1e9

    def take(self, timeline: Timeline, end_ns: int) -> None:
        """Offer the kinds of events that a timeline has, and all times until an end."""
        counts = dict(timeline.events["kind"].value_counts().rows())
        kinds = {f"{KIND_NAMES[kind]} ({counts[kind]:,})": kind for kind in KINDS if kind in counts}
        kept = self.kind.value if self.kind.value in counts else _START
        self.kind.options = list(kinds.items())
        self.kind.value = kept
        self.slider.max = end_ns / 1e9


def next_event(timeline: Timeline, kind: str, time_ns: int) -> int | None:
    """Return the row of the next event of a kind after a time, after the last the first; None if none is.

    Raises
    ------
    ValueError
        If there is no such kind of event.
    """
    if kind not in KINDS:
        raise PlanError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    found = timeline.next_of_kind(kind, timeline.index_at(time_ns))
    return timeline.next_of_kind(kind, -1) if found is None else found
