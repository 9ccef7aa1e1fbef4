"""The policy explorer: who is evicted and why, access by access, under several policies side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import polars as pl
import traitlets

from vmrestorekit.restore.eviction import EVICTION_POLICIES
from vmrestorekit.show.clickable_map import ClickableMap
from vmrestorekit.show.controls import button, checkbox, row
from vmrestorekit.show.export import Export
from vmrestorekit.show.look import Look
from vmrestorekit.show.policy.column import PolicyColumn
from vmrestorekit.show.policy.pictures import legend, strip
from vmrestorekit.show.policy.reasons import POLICY_NAMES
from vmrestorekit.show.policy.results import hits_chart, steps_table, totals
from vmrestorekit.show.policy.steps import MOST_SLOTS, PolicyStep, accesses_of, capacity_of, policy_steps
from vmrestorekit.show.theme import styled

__all__ = ["PolicyExplorer"]

_SPEEDS = {
    "1 step in 2 seconds": 2000,
    "1 step a second": 1000,
    "2 steps a second": 500,
    "4 steps a second": 250,
}
_PAGE = 40  # accesses that are drawn at a time


class PolicyExplorer(widgets.VBox):  # type: ignore[misc]
    """Step through block accesses, and see what eviction policies keep, and whom they evict, and why.

    The states are those of the compiled policies that the simulation uses, read out of their own arrays.

    Parameters
    ----------
    accesses : sequence of int
        1 to 240 block numbers: given, drawn by `vmrestorekit.show.policy.steps.draw_accesses`, or some of a
        recorded boot by `vmrestorekit.restore.replay.block_accesses`.
    capacity : int
        Slots of the cache, 1 to 16.
    policies : sequence of str
        Names of `vmrestorekit.restore.eviction.EVICTION_POLICIES`, at least one, none twice.
    guess : bool
        Begin with guessing who goes before it is shown.
    start : int
        The access to begin with, -1 for before the first.
    width : int or str
        Pixels, or a CSS length.

    Attributes
    ----------
    index : int
        The current access, from 0.
    columns : tuple of PolicyColumn
        One a policy.

    Raises
    ------
    ValueError
        If an argument is none of these.
    """

    index = traitlets.Int(-1)

    def __init__(
        self,
        accesses: Sequence[int],
        capacity: int = 4,
        policies: Sequence[str] = ("fifo", "lru"),
        *,
        guess: bool = False,
        start: int = -1,
        width: int | str = "100%",
    ) -> None:
        self.accesses = accesses_of(accesses)
        self._expect_access("start", start)
        names = _policies_of(policies)
        self.capacity = capacity_of(capacity)
        self.columns: tuple[PolicyColumn, ...] = ()
        super().__init__(layout={"width": f"{width}px" if isinstance(width, int) else width})
        self._columns, self._totals = row([], gap="8px 20px", align="stretch"), widgets.HTML()
        self.map = ClickableMap(label="Accesses, and hits and misses of each policy")
        playing, choosing = self._make_playing(), self._make_choosing(names, guess)
        self.export = Export("eviction", self.chart, self.table)
        self.children = [
            Look(),
            *(playing, choosing, self.map, widgets.HTML(styled(legend()))),
            *(self._columns, self._totals, self.export),
        ]
        self.index = start
        self._rebuild()
        self.observe(self._show, "index")
        self.map.observe(self._clicked, "cell")

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that are shown, by name."""
        return tuple(column.policy for column in self.columns)

    @property
    def sentence(self) -> str:
        """What happens now, a line for each policy."""
        return "\n".join(f"{column.name}: {column.sentence}" for column in self.columns)

    @property
    def playing(self) -> bool:
        """Whether it steps by itself."""
        return bool(self._ticker.playing)

    def step(self) -> bool:
        """Go to the next access, or show who goes if that is hidden; return whether there was anything."""
        if hidden := self._hidden():
            for column in hidden:
                column.revealed.add(self.index)
            self._show()
            return True
        return self._go(self.index + 1, "This was the last access.")

    def back(self) -> bool:
        """Go to the access before; return whether there was one."""
        return self._go(self.index - 1, "This is before the first access.")

    def play(self) -> None:
        """Begin to step by itself, at the chosen speed."""
        self._ticker.playing = True

    def pause(self) -> None:
        """Stop stepping by itself."""
        self._ticker.playing = False

    def table(self) -> pl.DataFrame:
        """Return what each policy did at each access."""
        return steps_table({column.policy: column.steps for column in self.columns})

    def chart(self) -> Any:
        """Return a chart of the hits so far of each policy, over all accesses."""
        return hits_chart(self._runs(), f"Hits with {self.capacity} slots")

    # --- controls ---------------------------------------------------------------------------------------

    def _make_playing(self) -> widgets.HBox:
        """Make what steps: by hand, or by itself."""
        self.back_button = button("Back", "Go to the access before", self.back)
        self.step_button = button("Step", "Go to the next access, or show who goes", self.step)
        self.play_button = widgets.ToggleButton(tooltip="Step by itself, or pause", layout={"width": "90px"})
        self.speed = widgets.Dropdown(
            options=list(_SPEEDS.items()), value=1000, description="Speed", tooltip="How fast Play steps",
            layout={"width": "auto"}, style={"description_width": "50px"},
        )  # fmt: skip
        # the browser's clock: its value counts ticks; its own buttons bear no text and stay hidden
        self._ticker = widgets.Play(max=2**31 - 1, layout={"display": "none"})
        self._ticker.observe(self._tick, "value")
        widgets.link((self.play_button, "value"), (self._ticker, "playing"))
        widgets.dlink((self.speed, "value"), (self._ticker, "interval"))
        widgets.dlink(
            (self._ticker, "playing"), (self.play_button, "description"), lambda on: "Pause" if on else "Play"
        )
        self.slider = widgets.IntSlider(
            value=-1, min=-1, max=len(self.accesses) - 1, description="Access", readout=False,
            tooltip="Go to an access by its place", layout={"flex": "1 1 260px"},
            style={"description_width": "55px"},
        )  # fmt: skip
        widgets.link((self, "index"), (self.slider, "value"))
        self._place = widgets.HTML()
        buttons = [self.play_button, self._ticker, self.back_button, self.step_button, self.speed]
        return row([*buttons, self.slider, self._place])

    def _make_choosing(self, names: Sequence[str], guess: bool) -> widgets.HBox:
        """Make what chooses the policies and the slots."""
        self.slots = widgets.IntSlider(
            value=self.capacity, min=1, max=MOST_SLOTS, description="Slots", tooltip="How many blocks fit",
            layout={"width": "260px"}, style={"description_width": "55px"},
        )  # fmt: skip
        self.slots.observe(lambda change: self._rebuild(), "value")
        self.shown = {
            name: checkbox(POLICY_NAMES[name], meaning, name in names)
            for name, meaning in EVICTION_POLICIES.items()
        }
        self._order = list(names)
        for name, box in self.shown.items():
            box.observe(lambda change, name=name: self._chosen(name, change["new"]), "value")
        self.guess_first = checkbox("Guess first", "Hide who goes until you have guessed", guess)
        self.guess_first.observe(self._show, "value")
        return row([self.slots, *self.shown.values(), self.guess_first], gap="2px 14px")

    def _chosen(self, name: str, on: bool) -> None:
        """Show a policy, or no longer; one always stays."""
        if on and name not in self._order:
            self._order.append(name)
        elif not on and self._order == [name]:
            self.shown[name].value = True
            self._tell_place("One policy has to stay.")
            return
        elif not on and name in self._order:
            self._order.remove(name)
        self._rebuild()

    def _tick(self, change: Any) -> None:
        if self.playing and (self._hidden() or not self.step()):
            self.pause()  # at a guess, and at the end

    def _clicked(self, change: Any) -> None:
        """Go to the access whose cell was chosen, in whatever row."""
        columns, old, new = self.map.columns, change["old"], change["new"]
        first = max(self.index, 0) // _PAGE * _PAGE
        if new < 0:
            return
        # an arrow key at the end of a row goes on with the next page, not with the next row
        if new == old + 1 and new % columns == 0 and first + columns < len(self.accesses):
            self.index = first + columns
        elif new == old - 1 and old % columns == 0 and first:
            self.index = first - 1
        else:
            self.index = first + new % columns
        self._mark(row=new // columns)

    # --- showing ----------------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        """Run the policies anew: others, or with another number of slots."""
        self.capacity = self.slots.value
        old = {column.policy: column for column in self.columns if column.capacity == self.capacity}
        self.columns = tuple(
            old.get(name) or PolicyColumn(name, self.accesses, self.capacity, self._tell_place)
            for name in self._order
        )
        self._optimum = policy_steps("belady", self.accesses, self.capacity)
        self._columns.children = self.columns
        self._show()

    def _runs(self) -> dict[str, tuple[PolicyStep, ...]]:
        """Return the steps of what is compared: the policies that are shown, and the optimum."""
        return {column.name: column.steps for column in self.columns} | {
            POLICY_NAMES["belady"]: self._optimum
        }

    def _hidden(self) -> list[PolicyColumn]:
        if not self.guess_first.value:
            return []
        return [column for column in self.columns if column.hidden_at(self.index)]

    def _go(self, target: int, otherwise: str) -> bool:
        if not -1 <= target < len(self.accesses):
            self._tell_place(otherwise)
            return False
        self.index = target
        return True

    def _show(self, change: Any = None) -> None:
        self._tell_place()
        for column in self.columns:
            column.show(self.index, hide=self.guess_first.value)
        outcomes = {name: [step.hit for step in steps] for name, steps in self._runs().items()}
        first = max(self.index, 0) // _PAGE * _PAGE
        count = min(_PAGE, len(self.accesses) - first)
        self.map.columns, self.map.cells = count, count * (1 + len(outcomes))
        self.map.svg = strip(self.accesses, outcomes, first, count, self.index)
        self._mark(row=max(self.map.cell, 0) // count)
        self._totals.value = styled(totals(self._runs(), self.index))

    def _mark(self, row: int) -> None:
        """Frame the current access in the map, in the row where the last click was."""
        columns = self.map.columns
        row = min(row, self.map.cells // columns - 1)
        with self.map.hold_trait_notifications():
            self.map.unobserve(self._clicked, "cell")
            self.map.cell = row * columns + self.index % _PAGE if self.index >= 0 else -1
            self.map.text = self.sentence
        self.map.observe(self._clicked, "cell")

    def _tell_place(self, remark: str = "") -> None:
        place = f"access {self.index + 1:,} of {len(self.accesses):,}"
        self._place.value = styled(f'<span class="soft">{place}</span> {remark}')

    def _expect_access(self, name: str, index: object) -> None:
        last = len(self.accesses) - 1
        if isinstance(index, bool) or not isinstance(index, int) or not -1 <= index <= last:
            raise ValueError(f"{name}: expected an access from -1 to {last}, got {index!r}")


def _policies_of(policies: Sequence[str]) -> tuple[str, ...]:
    names = (policies,) if isinstance(policies, str) else tuple(policies)
    known = ", ".join(EVICTION_POLICIES)
    for name in names:
        if name not in EVICTION_POLICIES:
            raise ValueError(f"policies: expected some of {known}, got {name!r}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"policies: expected at least one of {known}, none twice, got {names!r}")
    return names
