"""The stepper: a restore, event by event, alone or with a live mount on the same clock."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import polars as pl
import traitlets

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.checks import expect_timeline
from vmrestorekit.show.controls import button, checkbox, dropdown, row
from vmrestorekit.show.export import Export
from vmrestorekit.show.look import Look
from vmrestorekit.show.restore import figures
from vmrestorekit.show.restore.clock import STEP_OVER, Clock
from vmrestorekit.show.restore.column import Column
from vmrestorekit.show.restore.event_list import EventList
from vmrestorekit.show.restore.jump_choices import jump_choices
from vmrestorekit.show.restore.run_chart import RunChart
from vmrestorekit.show.sentences import KIND_NAMES
from vmrestorekit.show.theme import styled
from vmrestorekit.show.units import clock as clock_text

__all__ = ["Stepper"]

# label -> milliseconds between two steps
_SPEEDS = {"1 step a second": 1000, "2 steps a second": 500, "4 steps a second": 250, "8 steps a second": 125}
_MANY_TICKS = 2**31 - 1
_NARROW = "90px"


class Stepper(widgets.VBox):  # type: ignore[misc]
    """Step through a timeline, or through two on one clock.

    The widget holds an index into the clock and nothing else; it never simulates. The tooltip of the place
    tells the `start` with which a cell comes back to it. The chart shows what was so far, the table the
    events around; a click or an arrow key in either chooses an event. The whole run, which gives away how it
    ends, is shown when asked for.

    Parameters
    ----------
    restore : Timeline
    mount : Timeline, optional
        Shown beside it, on the same clock, with the difference below.
    start : int
        Index of the event to begin with, -1 for before the first.
    width : int or str
        Pixels, or a CSS length.

    Attributes
    ----------
    index : int
        Of the current event in the order of time; with two timelines over the events of both.

    Raises
    ------
    ValueError
        If what is given is no timeline, or `start` no event.
    """

    index = traitlets.Int()

    def __init__(
        self, restore: Timeline, mount: Timeline | None = None, *, start: int = 0, width: int | str = "100%"
    ) -> None:
        timelines = [expect_timeline("restore", restore)]
        if mount is not None:
            timelines.append(expect_timeline("mount", mount))
        self.clock = Clock(timelines)
        self._expect_event("start", start)
        self.timelines = tuple(timelines)
        self.columns = tuple(Column(timeline) for timeline in timelines)
        self._figures = widgets.HTML()
        self._whole_run = widgets.HTML(figures.of_the_whole_run(timelines))
        self._remark = ""
        self.chart = RunChart(timelines, self._choose_time)
        self.events = EventList(self.clock, timelines, self._choose_event)
        self.export = Export("restore", self._chart, self._events)
        super().__init__(index=start, layout={"width": f"{width}px" if isinstance(width, int) else width})
        self.children = [
            Look(),
            row(self._make_playing()),
            row(self._make_going()),
            row(self.columns, gap="8px 20px", align="stretch"),
            self.chart,
            row([self._figures, self.events, self._whole_run], gap="8px 28px", align="stretch"),
            self.export,
        ]
        self.observe(self._show, "index")
        self.step_over.observe(lambda _: self._list_events(), "value")
        self._show()

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def sentence(self) -> str:
        """What happens now; with two timelines a line for each."""
        return "\n".join(column.sentence for column in self.columns)

    @property
    def time_ns(self) -> int:
        """What the clock says."""
        return int(self.clock.times[self.index]) if self.index >= 0 else 0

    @property
    def playing(self) -> bool:
        """Whether the stepper steps by itself."""
        return bool(self._ticker.playing)

    def step(self) -> bool:
        """Go to the next event that `step_over` allows; return whether there was one."""
        return self._go(self.clock.next(self.index, self.step_over.value), "This was the last one.")

    def back(self) -> bool:
        """Go to the event before; return whether there was one."""
        return self._go(self.clock.previous(self.index, self.step_over.value), "This was the first one.")

    def jump(self, kind: str) -> bool:
        """Go to the next event of a kind; return whether there was one.

        After the last one the first one is next, and the sentence says so.

        Raises
        ------
        ValueError
            If there is no such kind of event.
        """
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        later = self.clock.next(self.index, [kind])
        if later is not None:
            return self._go(later, "")
        first = self.clock.next(-1, [kind])
        if first is None:
            self._remark = f"There is no such event: {KIND_NAMES[kind]}."
            self._show()
            return False
        self._remark = f"None later, so this is the first: {KIND_NAMES[kind]}."
        if first == self.index:
            self._show()
        self.index = first
        return True

    def go_to(self, *, index: int | None = None, time_ns: int | None = None) -> None:
        """Go to an event, or to the last one not after a time.

        Raises
        ------
        ValueError
            If neither or both are given, or there is no such event.
        """
        if time_ns is not None and index is None:
            index = self.clock.index_at(time_ns)
        elif index is None or time_ns is not None:
            raise ValueError("go_to: expected either index or time_ns")
        self._expect_event("go_to", index)
        self.index = index

    def play(self) -> None:
        """Begin to step by itself, at the chosen speed."""
        self._ticker.playing = True

    def pause(self) -> None:
        """Stop stepping by itself."""
        self._ticker.playing = False

    # --- controls ---------------------------------------------------------------------------------------

    def _make_playing(self) -> list[widgets.Widget]:
        """Make what steps: by hand, or by itself."""
        self.back_button = button("Back", "Go to the event before", self.back, width=_NARROW)
        self.step_button = button("Step", "Go to the next event", self.step, width=_NARROW)
        self.step_over = dropdown(
            "Step to", STEP_OVER, "Which events Step, Back and Play go to, and the table lists", width="auto"
        )
        self.speed = dropdown("Speed", _SPEEDS, "How fast Play steps", width="auto", value=500)
        self.play_button = widgets.ToggleButton(tooltip="Step by itself, or pause", layout={"width": _NARROW})
        # the browser's clock: its value counts ticks; its own buttons bear no text and stay hidden
        self._ticker = widgets.Play(max=_MANY_TICKS, layout={"display": "none"})
        self._ticker.observe(self._tick, "value")
        widgets.link((self.play_button, "value"), (self._ticker, "playing"))
        widgets.dlink((self.speed, "value"), (self._ticker, "interval"))
        widgets.dlink(
            (self._ticker, "playing"),
            (self.play_button, "description"),
            lambda playing: "Pause" if playing else "Play",
        )
        stepping = [self.back_button, self.step_button, self.step_over, self.speed]
        return [self.play_button, self._ticker, *stepping, self._make_ending()]

    def _make_going(self) -> list[widgets.Widget]:
        """Make what goes further: to a kind of event, or anywhere."""
        kinds = jump_choices(self.clock.counts())
        first = "boot_done" if "boot_done" in kinds.values() else next(iter(kinds.values()))
        told = "A kind of event with its operation, and how often it happens"
        self.kind = dropdown("Jump to", kinds, told, width="330px", value=first)
        self.jump_button = button(
            "Jump", "Go to the next event of this kind", lambda: self.jump(self.kind.value), width=_NARROW
        )
        self.every_kind = checkbox("all kinds", "Offer every kind of event to jump to, not only a few")
        self.every_kind.observe(self._offer_kinds, "value")
        self.slider = widgets.IntSlider(
            min=-1,
            max=len(self.clock) - 1,
            description="Event",
            tooltip="Go to an event by its place in the order of time",
            readout=False,  # the place beside it says more
            layout={"flex": "1 1 300px"},
            style={"description_width": "70px"},
        )
        widgets.link((self, "index"), (self.slider, "value"))
        self._place = widgets.HTML()
        return [self.kind, self.jump_button, self.every_kind, self.slider, self._place]

    def _offer_kinds(self, _: Any = None) -> None:
        kinds = jump_choices(self.clock.counts(), every_kind=self.every_kind.value)
        chosen = self.kind.value
        self.kind.options = list(kinds.items())
        self.kind.value = chosen if chosen in kinds.values() else next(iter(kinds.values()))

    def _make_ending(self) -> widgets.ToggleButton:
        """Make what shows the whole run in chart and figures, and hides it."""
        self.whole_run_button = widgets.ToggleButton(
            tooltip="Chart and figures of the whole run: they give away how it ends",
            layout={"width": "190px"},
        )
        widgets.dlink(
            (self.whole_run_button, "value"),
            (self.whole_run_button, "description"),
            lambda shown: f"{'Hide' if shown else 'Show'} the whole run",
        )
        widgets.dlink(
            (self.whole_run_button, "value"),
            (self._whole_run.layout, "display"),
            lambda shown: "" if shown else "none",
        )
        widgets.dlink((self.whole_run_button, "value"), (self.chart, "whole"))
        return self.whole_run_button

    def _chart(self) -> Any:
        """Return what is saved as a picture: where reads were served, or two runs side by side."""
        # drawing charts takes a second to import: only who saves one pays
        from vmrestorekit.show import charts

        if len(self.timelines) == 1:
            return charts.reads_by_source(self.timelines[0])
        return charts.compare_summaries(self.timelines)

    def _events(self) -> pl.DataFrame:
        """Return what is saved as a table: all events, those of two runs in the order of time."""
        return pl.concat(
            timeline.events.select(pl.lit(timeline.plan.mode).alias("mode"), pl.all())
            for timeline in self.timelines
        ).sort("time_ns", maintain_order=True)

    def _tick(self, change: Any) -> None:
        if self.playing and not self.step():
            self.pause()

    # --- what a person chooses in the chart or in the table ----------------------------------------------

    def _choose_time(self, time_ns: int) -> None:
        """Go to the last event not after a time, but always on or back if there is an event there."""
        target = self.clock.index_at(time_ns)
        if target == self.index and time_ns > self.time_ns and target + 1 < len(self.clock):
            target += 1  # nothing happens up to there
        self.index = target
        self.chart.show(self.time_ns)

    def _choose_event(self, index: int) -> None:
        self.index = index

    # --- showing ----------------------------------------------------------------------------------------

    def _expect_event(self, name: str, index: object) -> None:
        if isinstance(index, bool) or not isinstance(index, int) or not -1 <= index < len(self.clock):
            raise ValueError(f"{name}: expected an event from -1 to {len(self.clock) - 1}, got {index!r}")

    def _go(self, target: int | None, otherwise: str) -> bool:
        if target is None:
            self._tell_place(otherwise)
            return False
        self.index = target
        return True

    def _show(self, change: Any = None) -> None:
        self._tell_place()
        of = int(self.clock.owner[self.index]) if self.index >= 0 else 0
        now = of if self.index >= 0 and len(self.columns) > 1 else None
        remark, self._remark = self._remark, ""
        states = [
            column.show(
                self.clock.row(number, self.index),
                self.time_ns,
                current=number == now,
                remark=remark if number == of else "",
            )
            for number, column in enumerate(self.columns)
        ]
        self._figures.value = figures.at_this_instant(self.timelines, states)
        self.chart.show(self.time_ns)
        self._list_events()

    def _list_events(self) -> None:
        self.events.show(self.index, self.step_over.value)

    def _tell_place(self, remark: str = "") -> None:
        place = (
            f"<span title='Stepper(…, start={self.index}) begins here'>"
            f"event {self.index + 1:,} of {len(self.clock):,} · {clock_text(self.time_ns)}</span>"
        )
        self._place.value = styled(f'<span class="soft">{place}</span> {remark}')
