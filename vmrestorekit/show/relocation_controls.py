"""The controls by which a relocation is chosen, each with a label and a tooltip."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import ipywidgets as widgets

from vmrestorekit.plan import PRIORITIES, PlanError
from vmrestorekit.show.relocation_choices import (
    MOST_DELAY_S,
    PRIORITY_NAMES,
    PURGES,
    SEQUENCES,
    STARTS,
    Choice,
)

__all__ = ["Controls", "button", "dropdown", "row"]

_RUN_LENGTHS = (2, 4, 8, 16, 32, 64)
_COMPARED = {
    "the plan as it was given": "given",
    "the choice before this one": "before",
    "the one that was pinned": "pinned",
}
_TOOLTIPS = {
    "sequence": "In which order the relocation copies the blocks (O13)",
    "start": "When the relocation starts (O10)",
    "delay_s": "Seconds from the launch to the start of the relocation",
    "load_percent": "Start once the VM asks for less than this share of what the backup device can give",
    "priorities": "Of pre-staging for the relocation, against reads (O11, O12)",
    "purge": "When the media agent drops blocks that the relocation has read (O16)",
    "run_length": "So many reads in a row along the sequence are taken for the relocation's (O15)",
    "ahead_percent": "How much of the read cache may be staged ahead for the relocation (O11)",
}


class Controls(widgets.VBox):  # type: ignore[misc]
    """Rows of controls for a `Choice`, for what it is compared with, and for what is being simulated.

    Parameters
    ----------
    own : Choice
        What the plan has; it is chosen at first, and can always be chosen.
    orders : collection of str
        Names of the sequences that can be chosen.
    changed, pin, stop : callable
        Called without arguments when somebody changes something, or presses one of the buttons.
    """

    def __init__(
        self,
        own: Choice,
        orders: Collection[str],
        *,
        changed: Callable[[], object],
        pin: Callable[[], object],
        stop: Callable[[], object],
    ) -> None:
        self._changed, self._quiet = changed, False
        sequences = {words: name for name, words in SEQUENCES.items() if name in orders}
        starts = {
            words: name for name, words in STARTS.items() if name in ("at_once", "delay", "load", own.start)
        }
        purges = {
            words: name
            for name, words in PURGES.items()
            if name in ("run", "indication", "period", "off", own.purge)
        }
        priorities = {PRIORITY_NAMES[name]: name for name in PRIORITIES}
        lengths = {f"{length} reads": length for length in sorted({*_RUN_LENGTHS, own.run_length})}
        self.of: dict[str, Any] = {
            "sequence": dropdown("Order", sequences, own.sequence),
            "start": dropdown("Starts", starts, own.start),
            "delay_s": _slider("Delay, s", 0, max(MOST_DELAY_S, own.delay_s), own.delay_s),
            "load_percent": _slider("Load, %", 1, 100, own.load_percent),
            "priorities": dropdown("Priority", priorities, own.priorities),
            "ahead_percent": _slider("Ahead, %", 0, max(100, own.ahead_percent), own.ahead_percent),
            "purge": dropdown("Purge", purges, own.purge),
            "run_length": dropdown("Run", lengths, own.run_length),
        }
        for name, control in self.of.items():
            control.tooltip = _TOOLTIPS[name]
        self.compare_with = dropdown("Compare with", _COMPARED, "given", wide="95px")
        self.compare_with.tooltip = "The reference, which is shown beside this restore"
        self.pin_button = button("Pin this one", "Keep this restore as the reference", pin)
        self.bar = widgets.IntProgress(
            max=3, description="Simulating", tooltip="Steps done of this simulation"
        )
        self.stop_button = button("Stop", "Give up this simulation, and keep what is shown", stop)
        self.waiting = widgets.HBox([self.bar, self.stop_button], layout={"display": "none"})
        names = list(self.of)
        super().__init__(
            [
                row([self.of[name] for name in names[:4]]),
                row([self.of[name] for name in names[4:]]),
                row([self.compare_with, self.pin_button, self.waiting]),
            ]
        )
        self._enable()
        for control in (*self.of.values(), self.compare_with):
            control.observe(self._tell, "value")

    @property
    def choice(self) -> Choice:
        """What is chosen."""
        return Choice(**{name: control.value for name, control in self.of.items()})

    def changed_by(self, changes: dict[str, Any]) -> Choice:
        """Return what is chosen with some changes.

        Raises
        ------
        ValueError
            If one of them is not offered.
        """
        for name, value in changes.items():
            if name not in self.of:
                raise PlanError(f"expected one of {', '.join(self.of)} to be changed, got {name!r}")
            offered = [each for _, each in getattr(self.of[name], "options", ())]
            if offered and value not in offered:
                raise PlanError(f"{name}: expected one of {', '.join(map(str, offered))}, got {value!r}")
        return dataclasses.replace(self.choice, **changes)

    def show(self, choice: Choice) -> None:
        """Show a choice, and tell nobody."""
        self._quiet = True
        for name, control in self.of.items():
            if name in ("delay_s", "load_percent", "ahead_percent"):
                control.max = max(control.max, getattr(choice, name))
            control.value = getattr(choice, name)
        self._quiet = False
        self._enable()

    def show_steps(self, done: int | None) -> None:
        """Show how many steps of a simulation are done, None for none that is waited for."""
        self.bar.value = min(done or 0, self.bar.max)
        self.waiting.layout.display = "none" if done is None else "flex"

    def _tell(self, _: Any) -> None:
        if not self._quiet:
            self._enable()
            self._changed()

    def _enable(self) -> None:
        """Only what would change something can be changed; of two sliders in one place one is seen."""
        choice = self.choice
        for name, start in (("delay_s", "delay"), ("load_percent", "load")):
            self.of[name].disabled = choice.start != start
            self.of[name].layout.display = "" if choice.start == start else "none"
        self.of["run_length"].disabled = choice.purge not in ("run", "planned")


def row(children: Any, align: str = "center") -> widgets.HBox:
    """Return widgets beside each other, on as many lines as they need."""
    return widgets.HBox(
        children, layout={"flex_flow": "row wrap", "grid_gap": "4px 10px", "align_items": align}
    )


def button(text: str, tooltip: str, act: Callable[[], object]) -> widgets.Button:
    """Return a button that calls a function."""
    made = widgets.Button(description=text, tooltip=tooltip, layout={"width": "100px"})
    made.on_click(lambda _: act())
    return made


def dropdown(text: str, options: dict[str, Any], value: Any, wide: str = "60px") -> widgets.Dropdown:
    """Return a list to choose from."""
    return widgets.Dropdown(
        options=list(options.items()),
        value=value,
        description=text,
        layout={"width": "auto"},
        style={"description_width": wide},
    )


def _slider(text: str, least: int, most: int, value: int) -> widgets.IntSlider:
    """Return a slider that tells its value when it is let go: each one is a simulation."""
    return widgets.IntSlider(
        value,
        least,
        most,
        description=text,
        continuous_update=False,
        layout={"width": "235px"},
        style={"description_width": "66px"},
    )
