"""A map of what is stored: what a prediction stages of it, beside what the boot reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmrestorekit.show.prediction.data import Needs, Prediction
from vmrestorekit.show.theme import BLUE, ORANGE, VERMILLION, WHITE, Sign

__all__ = ["COLUMNS", "FOUND", "MISSED", "NEITHER", "SIGNS", "WASTED", "StoredCells", "block_states"]

COLUMNS, _MOST_ROWS = 40, 20
_CELL = 12  # user units of the picture
_LEAST_SIDE, _MOST_SIDE = 6.5, 11.0

NEITHER, MISSED, WASTED, FOUND = range(4)
SIGNS = {
    FOUND: Sign("predicted and read", BLUE, "H", WHITE),
    WASTED: Sign("predicted, not read: wasted", ORANGE, "U"),
    MISSED: Sign("read, not predicted: missed", VERMILLION, "M"),
    NEITHER: Sign("neither", "var(--jp-layout-color3, #bdbdbd)", ""),
}

Codes = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]


def block_states(prediction: Prediction, budget: int) -> Codes:
    """Return of each block whether it is found, wasted, missed or neither, for a budget of so many blocks."""
    is_staged = prediction.place < prediction.staged(budget)
    is_read = prediction.needs.read
    return np.where(is_staged, np.where(is_read, FOUND, WASTED), np.where(is_read, MISSED, NEITHER))


class StoredCells:
    """Which blocks the cells of a map stand for: the stored ones in the order of the disks, without holes.

    Attributes
    ----------
    blocks : ndarray of int64
        The stored ones.
    per_cell, count : int
        How many blocks a cell stands for, and how many cells there are.
    """

    def __init__(self, needs: Needs) -> None:
        self.blocks = np.flatnonzero(needs.stored)
        self.per_cell = max(1, -(-self.blocks.size // (COLUMNS * _MOST_ROWS)))
        self.count = -(-self.blocks.size // self.per_cell)
        self._cell = np.arange(self.blocks.size) // self.per_cell

    def blocks_of(self, cell: int) -> Places:
        """Return the blocks of a cell."""
        return self.blocks[cell * self.per_cell : (cell + 1) * self.per_cell]

    def cell_of(self, block: int) -> int:
        """Return the cell of a stored block."""
        return int(np.searchsorted(self.blocks, block)) // self.per_cell

    def shown(self, states: Codes) -> tuple[Codes, npt.NDArray[np.float64]]:
        """Return of each cell the most frequent state but `NEITHER`, and which share of the cell it is."""
        counts = np.bincount(self._cell * len(SIGNS) + states[self.blocks], minlength=self.count * len(SIGNS))
        counts = counts.reshape(self.count, len(SIGNS))
        most = 1 + counts[:, 1:].argmax(axis=1)
        share = counts[np.arange(self.count), most] / counts.sum(axis=1)
        return np.where(share > 0, most, NEITHER), share

    def picture(self, states: Codes) -> str:
        """Return the map as SVG: the larger the square in a cell, the more of the cell is in its state."""
        shown, share = self.shown(states)
        y, x = (_CELL * place for place in np.divmod(np.arange(self.count), COLUMNS))
        parts = [_squares(x, y, np.full(self.count, _MOST_SIDE), SIGNS[NEITHER].colour)]
        for state, sign in SIGNS.items():
            at = np.flatnonzero(shown == state)
            if state != NEITHER and at.size:
                sides = _LEAST_SIDE + (_MOST_SIDE - _LEAST_SIDE) * share[at]
                parts.append(_squares(x[at], y[at], sides, sign.colour) + _letters(x[at], y[at], sign))
        width, height = COLUMNS * _CELL, -(-self.count // COLUMNS) * _CELL
        return (
            f'<svg role="img" viewBox="-1 -1 {width + 2} {height + 2}" style="max-width:{2 * width}px">'
            f"{''.join(parts)}</svg>"
        )

    def legend(self, states: Codes, block_bytes: int) -> str:
        """Return what the signs mean, with the number of stored blocks of each."""
        counts = np.bincount(states[self.blocks], minlength=len(SIGNS))
        items = "".join(
            f"<li>{_swatch(sign)} <span>{sign.name} <b>{counts[state]:,}</b></span></li>"
            for state, sign in SIGNS.items()
        )
        note = (
            f"<li class='soft'>What is stored, in the order of the disk, holes left out. "
            f"{self._what_a_cell_is(block_bytes // 1024)}</li>"
        )
        return f'<ul class="legend" aria-label="Legend of the map">{items}{note}</ul>'

    def _what_a_cell_is(self, kib: int) -> str:
        if self.per_cell == 1:
            return f"A cell is a block of {kib} KiB."
        return (
            f"A cell is {self.per_cell:,} blocks of {kib} KiB and shows their most frequent state but "
            "“neither”: the larger the square, the more of them."
        )


def _squares(x: Places, y: Places, sides: npt.NDArray[np.float64], colour: str) -> str:
    """Return a square in each cell, all of them as one path."""
    inset = (_CELL - sides) / 2
    path = "".join(
        f"M{left:.4g} {top:.4g}h{side:.3g}v{side:.3g}h-{side:.3g}z"
        for left, top, side in zip((x + inset).tolist(), (y + inset).tolist(), sides.tolist(), strict=True)
    )
    return f'<path d="{path}" style="fill:{colour}"/>'


def _letters(x: Places, y: Places, sign: Sign) -> str:
    """Return the sign's letter in each cell, all of them as one text with the place of each."""
    across, down = (" ".join(map(str, places.tolist())) for places in (x + _CELL // 2, y + 9))
    letters = sign.letter * x.size
    return f'<text x="{across}" y="{down}" class="letter" style="fill:{sign.ink}">{letters}</text>'


def _swatch(sign: Sign) -> str:
    letter = f'<text x="6" y="9" class="letter" style="fill:{sign.ink}">{sign.letter}</text>'
    return (
        '<svg viewBox="0 0 12 12" aria-hidden="true"><rect x="0.5" y="0.5" width="11" height="11" '
        f'style="fill:{sign.colour};stroke:var(--vmrk-line);stroke-width:.5"/>{letter}</svg>'
    )
