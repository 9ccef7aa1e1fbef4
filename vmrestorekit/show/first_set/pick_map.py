"""A map of what is stored: what is picked for the first set, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vmrestorekit.show.first_set.tries import HIT, LEFT, MISSED, OUTCOMES, UNREAD, WAITED
from vmrestorekit.show.theme import BLUE, ORANGE, SKY_BLUE, VERMILLION, WHITE, YELLOW, Sign

__all__ = ["COLUMNS", "OUTCOME_SIGNS", "PICK_SIGNS", "cells_of", "first_set_map", "legend"]

COLUMNS, _MOST_ROWS = 40, 16
_CELL = 12
_PLAIN = "var(--jp-layout-color3, #bdbdbd)"

PICK_SIGNS = {0: Sign("not picked", _PLAIN, ""), 1: Sign("picked", SKY_BLUE, "S")}
OUTCOME_SIGNS = {
    LEFT: Sign(OUTCOMES[LEFT], _PLAIN, ""),
    UNREAD: Sign(OUTCOMES[UNREAD], ORANGE, "U"),
    HIT: Sign(OUTCOMES[HIT], BLUE, "H", WHITE),
    WAITED: Sign(OUTCOMES[WAITED], YELLOW, "O"),
    MISSED: Sign(OUTCOMES[MISSED], VERMILLION, "M"),
}

Codes = npt.NDArray[np.uint8]


def cells_of(stored: int) -> tuple[int, int]:
    """Return how many blocks a cell stands for, and how many cells there are."""
    per_cell = max(1, -(-stored // (COLUMNS * _MOST_ROWS)))
    return per_cell, -(-stored // per_cell)


def first_set_map(codes: Codes, signs: Mapping[int, Sign]) -> str:
    """Return the map as SVG.

    A cell shows the most frequent state but the first; the larger its square, the more of the cell it is.

    Parameters
    ----------
    codes : ndarray of uint8, shape (stored blocks,)
        A state for each stored block, in the order of the disk.
    signs : mapping of int to Sign
    """
    per_cell, cells = cells_of(codes.size)
    counts = np.zeros((cells, len(signs)), np.int64)
    np.add.at(counts, (np.arange(codes.size) // per_cell, codes), 1)
    most = 1 + counts[:, 1:].argmax(axis=1)
    shares = counts[np.arange(cells), most] / counts.sum(axis=1)
    y, x = (_CELL * place for place in np.divmod(np.arange(cells), COLUMNS))
    parts = [_squares(x, y, np.full(cells, 11.0), signs[0].colour)]
    for number, sign in signs.items():
        at = np.flatnonzero((most == number) & (shares > 0))
        if number and at.size:
            parts.append(_squares(x[at], y[at], 6.5 + 4.5 * shares[at], sign.colour))
            across, down = (" ".join(map(str, places.tolist())) for places in (x[at] + 6, y[at] + 9))
            letters = sign.letter * at.size
            parts.append(
                f'<text x="{across}" y="{down}" class="letter" style="fill:{sign.ink}">{letters}</text>'
            )
    width, height = COLUMNS * _CELL, math.ceil(cells / COLUMNS) * _CELL
    box = f'viewBox="-1 -1 {width + 2} {height + 2}" style="max-width:{2 * width}px"'
    return f"<svg {box}>{''.join(parts)}</svg>"


def legend(codes: Codes, signs: Mapping[int, Sign], block_bytes: int) -> str:
    """Return what the signs mean, and how much is in each state."""
    counts = np.bincount(codes, minlength=len(signs))
    items = "".join(
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><rect x=".5" y=".5" width="11" height="11" '
        f'style="fill:{sign.colour};stroke:var(--vmrk-line);stroke-width:.5"/>'
        f'<text x="6" y="9" class="letter" style="fill:{sign.ink}">{sign.letter}</text></svg> '
        f"<span>{sign.name} <b>{counts[number] * block_bytes / 1e6:.0f} MB</b></span></li>"
        for number, sign in signs.items()
    )
    return f'<ul class="legend" aria-label="Legend of the map">{items}</ul>'


def _squares(
    x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], sides: npt.NDArray[np.float64], colour: str
) -> str:
    inset = (_CELL - sides) / 2
    path = "".join(
        f"M{left:.4g} {top:.4g}h{side:.3g}v{side:.3g}h-{side:.3g}z"
        for left, top, side in zip((x + inset).tolist(), (y + inset).tolist(), sides.tolist(), strict=True)
    )
    return f'<path d="{path}" style="fill:{colour}"/>'
