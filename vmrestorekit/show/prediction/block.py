"""The map of a prediction, and the block that is chosen there: what it is, and why it is expected."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import traitlets

from vmrestorekit.show.clickable_map import ClickableMap
from vmrestorekit.show.controls import button, row
from vmrestorekit.show.prediction.block_map import COLUMNS, SIGNS, StoredCells, block_states
from vmrestorekit.show.prediction.data import Needs, Prediction
from vmrestorekit.show.prediction.reasons import reasons, what_it_is, what_predictors_say
from vmrestorekit.show.theme import styled

__all__ = ["BlockPanel"]

_LISTED = 60  # blocks of a cell that can be chosen
_BESIDE = {"flex": "1 1 420px", "min_width": "0"}


class BlockPanel(widgets.HBox):  # type: ignore[misc]
    """A map, of which a cell can be chosen, and what is known of a block of that cell.

    Parameters
    ----------
    needs : Needs
    predictions : mapping of str to Prediction
        What the table of the chosen block compares.
    announce : callable
        Told, in a sentence, what has changed.

    Attributes
    ----------
    block : int
        The chosen block of the read cache, -1 for none.
    map : ClickableMap
    """

    block = traitlets.Int(-1, min=-1)

    def __init__(
        self, needs: Needs, predictions: dict[str, Prediction], announce: Callable[[str], None]
    ) -> None:
        self._needs, self._predictions, self._announce = needs, predictions, announce
        self._cells = StoredCells(needs)
        self._why: dict[tuple[str, int], str] = {}
        super().__init__(
            layout={"flex_flow": "row wrap", "grid_gap": "4px 20px", "align_items": "flex-start"}
        )
        self.map = ClickableMap(columns=COLUMNS, cells=self._cells.count, label="Map of what is stored")
        self.block_choice = widgets.Dropdown(
            options=[("choose a cell of the map", -1)],
            description="Block",
            tooltip="A block of the chosen cell of the map",
            layout={"width": "330px"},
            style={"description_width": "70px"},
        )
        told = "Ask the predictor why it expects this block or not; takes a second or two"
        self.why_button = button("Why?", told, self._ask_why)
        self._legend, self._about, self._because = (
            widgets.HTML(layout={"margin": "0", "min_width": "0"}) for _ in range(3)
        )
        asking = row([self.block_choice, self.why_button])
        self.children = [
            widgets.VBox([self.map, self._legend], layout=_BESIDE),
            widgets.VBox([asking, self._about, self._because], layout=_BESIDE),
        ]
        self.map.observe(self._choose_cell, "cell")
        self.block_choice.observe(self._choose_block, "value")
        self.observe(lambda _: self._show_block(aloud=True), "block")

    def show(self, prediction: Prediction, budget: int) -> None:
        """Show what a prediction stages with a budget; quick."""
        self._prediction, self._budget = prediction, budget
        self._states = block_states(prediction, budget)
        self.map.svg = self._cells.picture(self._states)
        self._legend.value = styled(self._cells.legend(self._states, self._needs.block_bytes))
        self._show_block()

    def choose(self, block: int) -> None:
        """Choose a stored block, as a click on its cell does; -1 for none.

        Raises
        ------
        ValueError
            If the backup copy stores no such block.
        """
        if block != -1 and not (0 <= block < self._needs.stored.size and self._needs.stored[block]):
            raise ValueError(f"block: expected a block that the backup copy stores, got {block}")
        if block >= 0 and self.map.cell != self._cells.cell_of(block):
            self.map.cell = self._cells.cell_of(block)
        if block >= 0:
            self.block_choice.value = block
        self.block = block

    def explain(self) -> str:
        """Return why the predictor expects the chosen block or not, as HTML, and show it.

        Raises
        ------
        ValueError
            If no block is chosen.
        """
        if self.block < 0:
            raise ValueError("explain: expected a chosen block, choose one on the map first")
        name = self._prediction.name
        if (name, self.block) not in self._why:
            self._because.value = styled('<p class="soft">Asking the predictor …</p>')
            self._why[name, self.block] = reasons(self._prediction, self.block)
        self._because.value = styled(self._why[name, self.block])
        self._announce(f"Why {name} says so of block {self.block:,} stands beside the map.")
        return self._why[name, self.block]

    def _ask_why(self) -> None:
        if self.block < 0:
            self._announce(
                "Choose a block first: click a cell of the map, or walk to it with the arrow keys."
            )
        else:
            self.explain()

    def _choose_cell(self, change: Any) -> None:
        cell = change["new"]
        if not 0 <= cell < self._cells.count:
            return
        blocks = self._cells.blocks_of(cell)
        states, shown = self._states[blocks], int(self._cells.shown(self._states)[0][cell])
        order = np.lexsort((blocks, states != shown))[:_LISTED]
        options = [(f"{blocks[at]:,} · {_named(int(states[at]))}", int(blocks[at])) for at in order.tolist()]
        self.block_choice.options = options  # chooses the first one
        self.block = options[0][1]

    def _choose_block(self, change: Any) -> None:
        if change["new"] is not None and change["new"] >= 0:
            self.block = change["new"]

    def _show_block(self, *, aloud: bool = False) -> None:
        if self.block < 0:
            text = "Choose a cell of the map: click it, or focus the map and use the arrow keys."
            self._about.value = styled(f'<p class="soft">{text}</p>')
            self._because.value = ""
            return
        told = f"{what_it_is(self._needs, self.block)} {_named(int(self._states[self.block])).capitalize()}."
        said = what_predictors_say(self._predictions.values(), self.block, self._budget)
        self._about.value = styled(f'<p style="margin:4px 0">{escape(told)}</p>{said}')
        self._because.value = styled(self._why.get((self._prediction.name, self.block), ""))
        self.map.text = told
        if aloud:
            self._announce(told)


def _named(state: int) -> str:
    return f"{SIGNS[state].letter} {SIGNS[state].name}".strip()
