"""The disk as a map of blocks, each with the colour and the letter of its state."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vmrestorekit.restore.timeline import (
    IN_CACHE,
    IN_FLIGHT,
    PURGED,
    RELOCATED,
    SERVED,
    STORED,
    WRITTEN,
    State,
)
from vmrestorekit.show.theme import BLOCK_STATES, Sign
from vmrestorekit.show.units import blocks as block_range

__all__ = ["MAX_COLUMNS", "MAX_ROWS", "block_map", "block_states", "count_states", "legend"]

MAX_COLUMNS, MAX_ROWS = 40, 24
_CELL = 12  # user units of the picture
_LETTER = '<text x="{x}" y="{y}" class="letter" style="fill:{ink}">{text}</text>'
_NAMES = tuple(BLOCK_STATES)
_RESTING = _NAMES.index("in_backup")

Places = npt.NDArray[np.int64]


def block_states(state: State) -> npt.NDArray[np.uint8]:
    """Return the one state in which each block is shown, as a number in `BLOCK_STATES`.

    What was written comes first, then relocated, then the read cache.
    """
    flags = state.flags
    shown = np.full(flags.shape, _NAMES.index("hole"), np.uint8)
    for name, needed in {  # a later one hides an earlier one
        "in_backup": STORED,
        "on_its_way": IN_FLIGHT,
        "staged": IN_CACHE,
        "served": IN_CACHE | SERVED,
        "relocated": RELOCATED,
        "purged": RELOCATED | PURGED,
        "written": WRITTEN,
    }.items():
        shown[flags & needed == needed] = _NAMES.index(name)
    return shown


def count_states(state: State) -> dict[str, int]:
    """Return how many blocks are in each state of `BLOCK_STATES`."""
    counts = np.bincount(block_states(state), minlength=len(_NAMES))
    return dict(zip(_NAMES, counts.tolist(), strict=True))


def blocks_per_cell(blocks: int) -> int:
    """Return how many blocks a cell of the map stands for."""
    return -(-blocks // (MAX_COLUMNS * MAX_ROWS))


def cells_of(shown: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return for each cell its state and which share of its blocks is in that state.

    Most blocks of a large disk only rest in the backup; a cell shows the most frequent of the others, if
    there is any, and its share says how much of the cell that is.
    """
    cell = np.arange(shown.size) // blocks_per_cell(shown.size)
    counts = np.zeros((cell[-1] + 1, len(_NAMES)), np.int64)
    np.add.at(counts, (cell, shown), 1)
    beyond_resting = counts[:, :_RESTING:-1]  # backwards: of equals the most advanced is found first
    most_frequent = len(_NAMES) - 1 - beyond_resting.argmax(axis=1)
    state = np.where(beyond_resting.any(axis=1), most_frequent, counts[:, _RESTING] > 0)
    return state, counts[np.arange(len(counts)), state] / counts.sum(axis=1)


def block_map(state: State, first: int = -1, count: int = 0) -> str:
    """Return the map as SVG.

    Parameters
    ----------
    state : State
    first, count : int
        The blocks of the current event, if it is about blocks; a frame is drawn around their cells.
    """
    shown = block_states(state)
    cells, shares = cells_of(shown)
    columns = math.ceil(math.sqrt(cells.size * MAX_COLUMNS / MAX_ROWS))
    width, height = columns * _CELL, -(-cells.size // columns) * _CELL
    y, x = (_CELL * place for place in np.divmod(np.arange(cells.size), columns))
    parts = []
    for number, sign in enumerate(BLOCK_STATES.values()):
        # most blocks of a cell may rest in the backup: that shows around its square
        at = np.flatnonzero(cells >= number if number == _RESTING else cells == number)
        if at.size:
            sides = 11 - 3.5 * (1 - shares[at]) * (number > _RESTING)
            parts.append(_squares(x[at], y[at], sides, sign.colour) + _letters(x[at], y[at], sign))
    if first >= 0 and count > 0:
        per_cell = blocks_per_cell(shown.size)
        touched = slice(first // per_cell, (first + count - 1) // per_cell + 1)
        parts.append(_frames(x[touched], y[touched]))
    counts = (f"{count:,} {BLOCK_STATES[name].name}" for name, count in count_states(state).items() if count)
    description = f"Map of the disk's {shown.size:,} blocks: {', '.join(counts)}."
    # few blocks are not blown up to the whole width: at most twice the size
    return (
        f'<svg role="img" aria-label="{description}" viewBox="-1 -1 {width + 2} {height + 2}" '
        f'style="max-width:{2 * width + 4}px">{"".join(parts)}</svg>'
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
    if not sign.letter:
        return ""
    across, down = (" ".join(map(str, places.tolist())) for places in (x + _CELL // 2, y + 9))
    return _LETTER.format(x=across, y=down, ink=sign.ink, text=sign.letter * x.size)


def _frames(x: Places, y: Places) -> str:
    path = "".join(f"M{left} {top}h12v12h-12z" for left, top in zip(x.tolist(), y.tolist(), strict=True))
    return (
        f'<path d="{path}" style="fill:none;stroke:var(--vmrk-paper);stroke-width:3.4"/>'
        f'<path d="{path}" style="fill:none;stroke:var(--vmrk-ink);stroke-width:1.8"/>'
    )


def legend(*states: State) -> str:
    """Return what the signs of the map mean, with the number of blocks in each state, of each map."""
    counts = [count_states(state) for state in states]
    items = "".join(
        f"<li>{_swatch(sign)} <span>{sign.name} <b>{' | '.join(f'{each[name]:,}' for each in counts)}</b>"
        "</span></li>"
        for name, sign in BLOCK_STATES.items()
    )
    per_cell = blocks_per_cell(states[0].flags.size)
    note = "<li class='soft'>blocks in the left map | in the right one</li>" if len(states) > 1 else ""
    if per_cell > 1:
        note += (
            f"<li class='soft'>One cell is {per_cell:,} blocks ({block_range(0, per_cell)}, …) and shows "
            "their most frequent state beyond resting in the backup: the larger the square, the more of "
            "them.</li>"
        )
    return f'<ul class="legend" aria-label="Legend of the map">{items}{note}</ul>'


def _swatch(sign: Sign) -> str:
    return (
        '<svg viewBox="0 0 12 12" aria-hidden="true"><rect x="0.5" y="0.5" width="11" height="11" '
        f'style="fill:{sign.colour};stroke:var(--vmrk-line);stroke-width:.5"/>'
        f"{_LETTER.format(x=6, y=9, ink=sign.ink, text=sign.letter)}</svg>"
    )
