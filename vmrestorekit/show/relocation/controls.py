"""The controls by which a relocation is chosen, each with a label and a tooltip."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import ipywidgets as widgets

from vmrestorekit.plan import PRIORITIES, PlanError
from vmrestorekit.show.controls import button, dropdown, row
from vmrestorekit.show.relocation.choices import (
    MOST_DELAY_S,
    PRIORITY_NAMES,
    PURGES,
    SEQUENCES,
    STARTS,
    Choice,
)

__all__ = ["Controls"]

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
    """Controls for a `Choice`, and for what it is compared with.

    Parameters
    ----------
    own : Choice
        What the plan has; it is chosen at first, and can always be chosen.
    orders : collection of str
        Names of the sequences that can be chosen.
    changed, pin, stop : callable
        Called without arguments when somebody changes something, or presses one of the buttons.

    Attributes
    ----------
    waiting : HBox
        To be shown elsewhere: how far a simulation is that is waited for, with the button that stops it.
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
            "sequence": _list("Order", sequences, own.sequence),
            "start": _list("Starts", starts, own.start),
            "delay_s": _slider("Delay, s", 0, max(MOST_DELAY_S, own.delay_s), own.delay_s),
            "load_percent": _slider("Load, %", 1, 100, own.load_percent),
            "priorities": _list("Priority", priorities, own.priorities),
            "ahead_percent": _slider("Ahead, %", 0, max(100, own.ahead_percent), own.ahead_percent),
            "purge": _list("Purge", purges, own.purge),
            "run_length": _list("Run", lengths, own.run_length),
        }
        for name, control in self.of.items():
            control.tooltip = _TOOLTIPS[name]
        self.compare_with = dropdown(
            "Compare with", _COMPARED, "The reference, which is shown beside this restore",
            width="auto", label_width="95px", value="given",
        )  # fmt: skip
        self.pin_button = button("Pin this one", "Keep this restore as the reference", pin)
        self.bar = widgets.IntProgress(
            max=3, description="Simulating", tooltip="Steps done of this simulation"
        )
        self.stop_button = button("Stop", "Give up this simulation, and keep what is shown", stop)
        self.waiting = widgets.HBox([self.bar, self.stop_button], layout={"display": "none"})
        super().__init__([row([*self.of.values(), self.compare_with, self.pin_button], gap="2px 10px")])
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


def _list(text: str, options: dict[str, Any], value: Any) -> widgets.Dropdown:
    return dropdown(text, options, "", width="auto", label_width="60px", value=value)


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
