"""Two restores at one moment: where each block is, and what became of one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np
import traitlets

from vmrestorekit.restore.timeline import IN_CACHE, IN_FLIGHT, RELOCATED, STORED, State, Timeline
from vmrestorekit.show.block_map import MAX_COLUMNS, MAX_ROWS, block_map, blocks_per_cell, legend
from vmrestorekit.show.clickable_map import ClickableMap
from vmrestorekit.show.controls import row
from vmrestorekit.show.course import BINS
from vmrestorekit.show.relocation.block import block_history, interest
from vmrestorekit.show.relocation.picture import ROWS, Picture, legend_of_picture
from vmrestorekit.show.theme import styled
from vmrestorekit.show.units import clock as clock_text
from vmrestorekit.show.units import share, size

__all__ = ["Moment", "TimeChart"]

_NAMES = ("Reference", "This")


class TimeChart(widgets.VBox):  # type: ignore[misc]
    """The picture of two courses; a click, or an arrow key, chooses a time."""

    def __init__(self) -> None:
        self.map = ClickableMap(columns=BINS, cells=BINS * ROWS, label="Time chart: choose a time")
        # the chosen cell is a time: the line shows it, a frame would not help
        style = "<style>.vmrk-hides-cell .vmrk-chosen { display: none; }</style>"
        self.map.add_class("vmrk-hides-cell")
        super().__init__(
            [
                widgets.HTML(style, layout={"display": "none"}),
                self.map,
                widgets.HTML(styled(legend_of_picture())),
            ]
        )

    def on_share(self, act: Callable[[float], None]) -> None:
        """Call with where on the clock, from 0 to 1, was chosen."""

        def chosen(change: Any) -> None:
            if change.new >= 0 and change.new != self._shown:
                act((change.new % BINS + 0.5) / BINS)

        self.map.observe(chosen, "cell")

    def show(self, picture: Picture, time_ns: int) -> None:
        """Show where the clock stands."""
        column = min(BINS - 1, int(BINS * time_ns / picture.end_ns))
        self._shown = column if self.map.cell < 0 else self.map.cell // BINS * BINS + column
        with self.map.hold_sync():
            self.map.svg = f'<div class="vmrk">{picture.at(time_ns)}</div>'
            self.map.text = clock_text(time_ns)
            self.map.cell = self._shown

    _shown = -1


class Moment(widgets.VBox):  # type: ignore[misc]
    """Maps of both restores and the history of a block in each; the widget holds no time.

    Attributes
    ----------
    block : int
        Whose history is shown; a click on a map chooses the one of the cell that most happened to.
    """

    block = traitlets.Int(0)

    def __init__(self, blocks: int) -> None:
        self.blocks, self.sentence = blocks, ""
        self.per_cell = blocks_per_cell(blocks)
        cells = -(-blocks // self.per_cell)
        columns = math.ceil(math.sqrt(cells * MAX_COLUMNS / MAX_ROWS))
        self.maps = [
            ClickableMap(columns=columns, cells=cells, label=f"{name}: map of the disk") for name in _NAMES
        ]
        self.histories = [
            widgets.Select(
                description=name, tooltip=f"{name}: what happened to the block; choose an event to go there",
                rows=5, layout={"width": "auto", "min_width": "0"}, style={"description_width": "70px"},
            )
            for name in _NAMES
        ]  # fmt: skip
        self.number = widgets.BoundedIntText(
            min=0, max=blocks - 1, description="Block", tooltip="Whose history is shown below",
            layout={"width": "180px"}, style={"description_width": "70px"},
        )  # fmt: skip
        self._headings = [widgets.HTML() for _ in _NAMES]
        self._legend, self._about = widgets.HTML(), widgets.HTML()
        sides = [
            widgets.VBox([heading, each], layout={"flex": "1 1 280px", "min_width": "0"})
            for heading, each in zip(self._headings, self.maps, strict=True)
        ]
        of_block = widgets.VBox(
            [self.number, self._about, *self.histories], layout={"flex": "1.3 1 380px", "min_width": "0"}
        )
        super().__init__([row([*sides, of_block], align="flex-start", gap="4px 20px"), self._legend])
        widgets.link((self, "block"), (self.number, "value"))
        for each in self.maps:
            each.observe(self._clicked, "cell")

    def take(self, reference: Timeline, this: Timeline, time_ns: int) -> None:
        """Look at two timelines from now on."""
        self.timelines = (reference, this)
        self._interest = interest(reference) + interest(this)
        self.show_block(time_ns)

    def most_interesting(self, first: int = 0, end: int | None = None) -> int:
        """Return the block of a range that most happened to."""
        return first + int(self._interest[first:end].argmax())

    def on_time(self, act: Callable[[int], None]) -> None:
        """Call with the time of an event that is chosen in a history."""
        for number, history in enumerate(self.histories):
            history.observe(lambda change, number=number: self._chosen(change, number, act), "value")

    def _chosen(self, change: Any, number: int, act: Callable[[int], None]) -> None:
        if not self._quiet and change.new is not None:
            act(int(self.timelines[number].times[change.new]))

    _quiet = False

    def _clicked(self, change: Any) -> None:
        if change.new >= 0 and change.new != self.block // self.per_cell:
            first = change.new * self.per_cell
            self.block = self.most_interesting(first, first + self.per_cell)

    def show(self, time_ns: int) -> None:
        """Show both maps at a time."""
        told, states = [], [timeline.state_at(time_ns=time_ns) for timeline in self.timelines]
        for name, timeline, state, each, heading in zip(
            _NAMES, self.timelines, states, self.maps, self._headings, strict=True
        ):
            with each.hold_sync():
                each.svg = block_map(state)
            heading.value = styled(f'<h4>{name}<span class="soft">{state.phase}</span></h4>')
            told.append(f"{name}: {state.phase}, {_figures(timeline, state)}.")
        self._legend.value = styled(legend(*states))
        self.sentence = " ".join(told)
        self._mark_event(time_ns)

    def show_block(self, time_ns: int) -> None:
        """Show the history of the block."""
        self._quiet = True
        for timeline, history in zip(self.timelines, self.histories, strict=True):
            told = block_history(timeline, self.block)
            history.options = [
                (f"{clock_text(int(timeline.times[row])):>11}  {text}", row) for row, text in told
            ] or [("nothing happens to it", None)]
        self._quiet = False
        cell = self.block // self.per_cell
        for each in self.maps:
            each.cell = cell
            each.text = f"cell {cell}, block {self.block}"
        self._about.value = styled(f'<span class="soft">{self._where()}</span>')
        self._mark_event(time_ns)

    def _where(self) -> str:
        """Return where in the orders the block stands."""
        places = []
        for name, timeline in zip(_NAMES, self.timelines, strict=True):
            sequence = timeline.plan.sequence
            sequence = sequence[timeline.stored[sequence]]
            at = np.flatnonzero(sequence == self.block)
            places.append(
                f"{name.lower()}: {at[0] + 1:,}" if at.size else f"{name.lower()}: not in it, a hole"
            )
        first = np.flatnonzero(self.timelines[1].plan.first_set == self.block)
        expected = f"number {first[0] + 1:,} of the first set" if first.size else "not in the first set"
        return f"Block {self.block:,}: {expected}; its place in the relocation sequence: {'; '.join(places)}."

    def _mark_event(self, time_ns: int) -> None:
        """Choose in each history the last event up to the time."""
        self._quiet = True
        for timeline, history in zip(self.timelines, self.histories, strict=True):
            rows = [row for _, row in history.options if row is not None]
            past = [row for row in rows if timeline.times[row] <= time_ns]
            if not past or history.value is None or timeline.times[history.value] != timeline.times[past[-1]]:
                history.value = past[-1] if past else None
        self._quiet = False


def _figures(timeline: Timeline, state: State) -> str:
    plan = timeline.plan
    held = state.count(IN_CACHE | IN_FLIGHT)
    relocated = share(state.count(RELOCATED), state.count(STORED))
    of_cache = f"{size(held * plan.block_bytes)} of {size(plan.cache_bytes)}"
    return f"{relocated} relocated, {of_cache} of the read cache taken"
