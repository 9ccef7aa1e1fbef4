"""The list of what is picked for a first set, with the buttons that change it."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets

from vmrestorekit.show.controls import button, row
from vmrestorekit.show.first_set.picks import BlockArray, Picks

__all__ = ["PickList"]


class PickList:
    """Picks as a list in which one can be chosen, to be moved or removed.

    Parameters
    ----------
    picks : Picks
    block_bytes : int
    changed : callable
        Called without arguments when the list has changed.
    announce : callable
        Called with a sentence when it has not, with the reason.

    Attributes
    ----------
    choice : Select
    remove_button, earlier_button, clear_button : Button
    row : HBox
        All of them, to be shown.
    """

    def __init__(
        self,
        picks: Picks,
        block_bytes: int,
        changed: Callable[[], object],
        announce: Callable[[str], object],
    ) -> None:
        self._picks, self._mb = picks, block_bytes / 1e6
        self._changed, self._announce = changed, announce
        self.choice = widgets.Select(
            options=[], rows=5, description="Picked", tooltip="Staged in this order; choose one to move it",
            layout={"width": "560px"}, style={"description_width": "60px"},
        )  # fmt: skip
        self.remove_button = button("Remove", "Take the chosen one off the list", self.remove)
        self.earlier_button = button("Earlier", "Stage the chosen one before the one above it", self.earlier)
        self.clear_button = button("Clear", "Take everything off the list", self.clear)
        buttons = widgets.VBox([self.remove_button, self.earlier_button, self.clear_button])
        self.row = row([self.choice, buttons], align="stretch")

    def add(self, name: str, blocks: BlockArray) -> None:
        """Pick blocks, behind what is picked."""
        if self._picks.add(name, blocks):
            self._show(len(self._picks) - 1)
        else:
            self._announce(f"{name} is picked already.")

    def remove(self) -> None:
        """Take the chosen one off the list."""
        if (at := self.choice.index) is None:
            self._announce("Choose one of the list first, then press Remove.")
        else:
            self._picks.remove(at)
            self._show(min(at, len(self._picks) - 1))

    def earlier(self) -> None:
        """Put the chosen one before the one above it."""
        if not (at := self.choice.index):
            self._announce("Choose one of the list that has another above it, then press Earlier.")
        else:
            self._picks.earlier(at)
            self._show(at - 1)

    def clear(self) -> None:
        """Take everything off the list."""
        self._picks.clear()
        self._show(-1)

    def _show(self, chosen: int) -> None:
        sizes = self._picks.sizes.items()
        self.choice.options = [f"{name} · {blocks * self._mb:.1f} MB" for name, blocks in sizes]
        self.choice.index = chosen if chosen >= 0 else None
        self._changed()
