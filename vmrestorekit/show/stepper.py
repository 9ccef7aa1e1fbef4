"""The stepper: a restore, event by event, alone or with a live mount on the same clock."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import traitlets

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import figures
from vmrestorekit.show.checks import expect_timeline
from vmrestorekit.show.clock import STEP_OVER, Clock
from vmrestorekit.show.column import Column
from vmrestorekit.show.sentences import KIND_NAMES
from vmrestorekit.show.theme import STYLE
from vmrestorekit.show.units import clock as clock_text

__all__ = ["Stepper"]

_SPEEDS = {"1 step a second": 1000, "2 steps a second": 500, "4 steps a second": 250, "8 steps a second": 125}
_MANY_TICKS = 2**31 - 1


class Stepper(widgets.VBox):  # type: ignore[misc]
    """Step through a timeline, or through two on one clock.

    The widget holds an index into the clock and nothing else; it never simulates.

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
    time_ns : int
        What the clock says.

    Raises
    ------
    ValueError
        If an argument is none of what is accepted; the sentence lists what is.
    """

    index = traitlets.Int()
    time_ns = traitlets.Int()

    def __init__(
        self, restore: Timeline, mount: Timeline | None = None, *, start: int = 0, width: int | str = "100%"
    ) -> None:
        timelines = [expect_timeline("restore", restore)]
        if mount is not None:
            timelines.append(expect_timeline("mount", mount))
        self.clock = Clock(timelines)
        if isinstance(start, bool) or not isinstance(start, int) or not -1 <= start < len(self.clock):
            raise ValueError(f"start: expected an event from -1 to {len(self.clock) - 1}, got {start!r}")
        self.columns = tuple(Column(timeline) for timeline in timelines)
        self._moving = False
        self._make_controls()
        self._figures = widgets.HTML()
        self._whole_run = widgets.HTML(_div(figures.of_the_whole_run(self._progresses)))
        super().__init__(layout={"width": f"{width}px" if isinstance(width, int) else width})
        self.children = [
            widgets.HTML(STYLE, layout={"display": "none"}),
            self._control_rows(),
            widgets.HBox(self.columns, layout={"flex_flow": "row wrap", "grid_gap": "8px 20px"}),
            widgets.HBox(
                [self._figures, self._whole_run], layout={"flex_flow": "row wrap", "grid_gap": "8px 28px"}
            ),
        ]
        self._show(start, self._time_of(start))

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def sentence(self) -> str:
        """What happens now; with two timelines a line for each."""
        return "\n".join(column.sentence for column in self.columns)

    @property
    def playing(self) -> bool:
        """Whether the stepper steps by itself."""
        return bool(self._ticker.playing)

    def step(self) -> bool:
        """Go to the next event that `step_over` allows; return whether there was one."""
        return self._go(
            self.clock.next(self.index, STEP_OVER[self.step_over.value]), "This was the last one."
        )

    def back(self) -> bool:
        """Go to the event before; return whether there was one."""
        first = self.index
        if self.together.value and first >= 0:
            first = self.clock.instant(first)[0]
        return self._go(
            self.clock.previous(first, STEP_OVER[self.step_over.value]), "This was the first one."
        )

    def jump(self, kind: str) -> bool:
        """Go to the next event of a kind; return whether there was one.

        Raises
        ------
        ValueError
            If there is no such kind of event.
        """
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        return self._go(self.clock.next(self.index, (kind,)), f"No later event: {KIND_NAMES[kind]}.")

    def go_to(self, *, index: int | None = None, time_ns: int | None = None) -> None:
        """Go to an event or to an instant.

        Raises
        ------
        ValueError
            If neither or both are given, or there is no such event.
        """
        if (index is None) == (time_ns is None):
            raise ValueError("go_to: expected either index or time_ns")
        if time_ns is not None:
            self._show(self.clock.index_at(time_ns), time_ns)
            return
        assert index is not None
        if not -1 <= index < len(self.clock):
            raise ValueError(f"go_to: expected an event from -1 to {len(self.clock) - 1}, got {index}")
        self._show(index, self._time_of(index))

    def play(self) -> None:
        """Begin to step by itself, at the chosen speed."""
        self._ticker.playing = True

    def pause(self) -> None:
        """Stop stepping by itself."""
        self._ticker.playing = False

    # --- controls ---------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        self.back_button = _button("Back", "Go to the event before", self.back)
        self.step_button = _button("Step", "Go to the next event", self.step)
        self.play_button = widgets.ToggleButton(
            False,
            description="Play",
            tooltip="Step by itself, or pause",
            layout={"width": "90px"},
        )
        # the browser's clock: its value counts ticks; its own buttons bear no text and stay hidden
        self._ticker = widgets.Play(max=_MANY_TICKS, interval=500, layout={"display": "none"})
        widgets.link((self.play_button, "value"), (self._ticker, "playing"))
        self._ticker.observe(self._tick, "value")
        self._ticker.observe(self._label_play_button, "playing")
        self.speed = _dropdown("Speed", list(_SPEEDS), "How fast Play steps", value="2 steps a second")
        self.speed.observe(lambda change: setattr(self._ticker, "interval", _SPEEDS[change.new]), "value")
        self.step_over = _dropdown("Step to", list(STEP_OVER), "Which events Step, Back and Play go to")
        self.together = widgets.Checkbox(
            False,
            description="whole instants",
            tooltip="Take all events of the same instant together",
            indent=False,
            layout={"width": "auto"},
        )
        self.together.observe(lambda change: self._show(self.index, self.time_ns), "value")
        counts = self.clock.counts()
        kinds = [(f"{KIND_NAMES[kind]} ({count:,})", kind) for kind, count in counts.items()]
        first = "boot_done" if "boot_done" in counts else kinds[0][1]
        self.kind = _dropdown(
            "Jump to", kinds, "A kind of event, and how often it happens", value=first, width="330px"
        )
        self.jump_button = _button(
            "Jump", "Go to the next event of this kind", lambda: self.jump(self.kind.value)
        )
        self.slider = self._make_slider()
        self.slider.observe(self._slide, "value")
        self._place = widgets.HTML()

    def _make_slider(self) -> widgets.Widget:
        """Return a slider over time for a shared clock, over events for a single timeline."""
        layout, style = {"flex": "1 1 300px"}, {"description_width": "70px"}
        if len(self.columns) == 1:
            return widgets.IntSlider(
                -1,
                -1,
                len(self.clock) - 1,
                description="Event",
                tooltip="Go to an event by its number",
                layout=layout,
                style=style,
            )
        end = -(-int(self.clock.times[-1]) // 1_000_000) / 1000
        return widgets.FloatSlider(
            0,
            min=0,
            max=max(end, 0.001),
            step=0.001,
            readout_format=".3f",
            description="Time (s)",
            tooltip="Go to an instant of the shared clock, in seconds",
            layout=layout,
            style=style,
        )

    def _control_rows(self) -> widgets.Widget:
        wrap = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "4px 8px"}
        return widgets.VBox(
            [
                widgets.HBox(
                    [
                        self.play_button,
                        self._ticker,
                        self.back_button,
                        self.step_button,
                        self.step_over,
                        self.together,
                        self.speed,
                    ],
                    layout=wrap,
                ),
                widgets.HBox([self.kind, self.jump_button, self.slider, self._place], layout=wrap),
            ]
        )

    def _tick(self, change: Any) -> None:
        if self.playing and not self.step():
            self.pause()

    def _label_play_button(self, change: Any) -> None:
        self.play_button.description = "Pause" if change.new else "Play"

    def _slide(self, change: Any) -> None:
        if self._moving:
            return
        if len(self.columns) == 1:
            self.go_to(index=change.new)
        elif abs(change.new - self._seconds_shown()) >= 0.0005:
            # else the browser's slider repeats, rounded, what it was told: several events share that value
            self.go_to(time_ns=round(change.new * 1e9))

    # --- showing ----------------------------------------------------------------------------------------

    @property
    def _progresses(self) -> list[Any]:
        return [column.progress for column in self.columns]

    def _time_of(self, index: int) -> int:
        return int(self.clock.times[index]) if index >= 0 else 0

    def _is_now(self, number: int, index: int) -> bool:
        """Tell whether the clock's event is one of this timeline."""
        return index >= 0 and self.clock.row(number, index) > self.clock.row(number, index - 1)

    def _seconds_shown(self) -> float:
        """Return the clock as its slider shows it."""
        return min(round(self.time_ns / 1e9, 3), float(self.slider.max))

    def _go(self, target: int | None, otherwise: str) -> bool:
        if target is None:
            self._tell_place(otherwise)
            return False
        if self.together.value:
            target = self.clock.instant(target)[1]
        self._show(target, self._time_of(target))
        return True

    def _show(self, index: int, time_ns: int) -> None:
        self._moving = True
        try:
            self.index, self.time_ns = index, time_ns
            self.slider.value = index if len(self.columns) == 1 else self._seconds_shown()
        finally:
            self._moving = False
        states = [
            column.show(
                self.clock.row(number, index),
                time_ns,
                whole_instant=self.together.value,
                current=len(self.columns) > 1 and self._is_now(number, index),
            )
            for number, column in enumerate(self.columns)
        ]
        self._figures.value = _div(figures.at_this_instant(self._progresses, states))
        self._tell_place()

    def _tell_place(self, remark: str = "") -> None:
        place = f"event {self.index + 1:,} of {len(self.clock):,} · {clock_text(self.time_ns)}"
        self._place.value = _div(f'<span class="soft">{place}</span> {remark}')


def _button(text: str, tooltip: str, act: Any) -> widgets.Button:
    button = widgets.Button(description=text, tooltip=tooltip, layout={"width": "90px"})
    button.on_click(lambda _: act())
    return button


def _dropdown(
    text: str, options: list[Any], tooltip: str, *, value: Any = None, width: str = "auto"
) -> widgets.Dropdown:
    chosen = {} if value is None else {"value": value}
    return widgets.Dropdown(
        options=options,
        description=text,
        tooltip=tooltip,
        layout={"width": width},
        style={"description_width": "70px"},
        **chosen,
    )


def _div(content: str) -> str:
    return f'<div class="vmrk">{content}</div>'
