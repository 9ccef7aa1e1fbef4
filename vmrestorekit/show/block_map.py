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
from vmrestorekit.show.theme import BLOCK_STATES
from vmrestorekit.show.units import blocks as block_range

__all__ = ["MAX_COLUMNS", "MAX_ROWS", "block_map", "block_states", "count_states", "legend"]

MAX_COLUMNS, MAX_ROWS = 40, 24
_CELL = 12  # user units of the picture
_NAMES = tuple(BLOCK_STATES)
_RESTING = ("hole", "in_backup")
_LETTER = "font-size:8px;font-weight:600"


def block_states(state: State) -> npt.NDArray[np.uint8]:
    """Return the one state in which each block is shown, as a number in `BLOCK_STATES`.

    What was written comes first, then relocated, then the read cache. A live mount that expired has lost what
    was written, so that its blocks are shown as the backup copy holds them.
    """
    flags = state.flags
    shown = np.full(flags.shape, _NAMES.index("hole"), np.uint8)
    shown[flags & STORED > 0] = _NAMES.index("in_backup")
    shown[flags & IN_FLIGHT > 0] = _NAMES.index("on_its_way")
    in_cache = flags & IN_CACHE > 0
    shown[in_cache] = _NAMES.index("staged")
    shown[in_cache & (flags & SERVED > 0)] = _NAMES.index("served")
    relocated = flags & RELOCATED > 0
    shown[relocated] = _NAMES.index("relocated")
    shown[relocated & (flags & PURGED > 0)] = _NAMES.index("purged")
    shown[flags & WRITTEN > 0] = _NAMES.index("written")
    return shown


def count_states(state: State) -> dict[str, int]:
    """Return how many blocks are in each state of `BLOCK_STATES`."""
    counts = np.bincount(block_states(state), minlength=len(_NAMES))
    return dict(zip(_NAMES, counts.tolist(), strict=True))


def blocks_per_cell(blocks: int) -> int:
    """Return how many blocks a cell of the map stands for."""
    return max(1, -(-blocks // (MAX_COLUMNS * MAX_ROWS)))


def cells_of(shown: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return for each cell its state and which share of its blocks is in that state.

    Most blocks of a large disk only rest in the backup; a cell shows the most frequent of the others, if
    there is any, and its share says how much of the cell that is.
    """
    per_cell = blocks_per_cell(shown.size)
    cells = -(-shown.size // per_cell)
    counts = np.zeros((cells, len(_NAMES)), np.int64)
    np.add.at(counts, (np.arange(shown.size) // per_cell, shown), 1)
    resting = len(_RESTING)
    active = counts[:, resting:]
    most_frequent = (
        resting + active.shape[1] - 1 - active[:, ::-1].argmax(axis=1)
    )  # of equals the most advanced
    state = np.where(active.any(axis=1), most_frequent, (counts[:, 1] > 0).astype(np.int64))
    return state, counts[np.arange(cells), state] / counts.sum(axis=1)


def block_map(state: State, touched: tuple[int, int] | None = None) -> str:
    """Return the map as SVG.

    Parameters
    ----------
    state : State
    touched : (int, int), optional
        First block and number of blocks of the current event; a frame is drawn around their cells.
    """
    shown = block_states(state)
    cells, shares = cells_of(shown)
    columns = min(MAX_COLUMNS, max(1, math.ceil(math.sqrt(cells.size * MAX_COLUMNS / MAX_ROWS))))
    rows = -(-cells.size // columns)
    width, height = columns * _CELL, rows * _CELL
    parts = _squares(cells, shares, columns) + _letters(cells, columns)
    if touched is not None and touched[1] > 0:
        parts += _frames(touched, blocks_per_cell(shown.size), columns, cells.size)
    # few blocks are not blown up to the whole width: at most twice the size
    return (
        f'<svg role="img" aria-label="{_description(state, shown.size)}" '
        f'viewBox="-1 -1 {width + 2} {height + 2}" style="max-width:{2 * width + 4}px">{"".join(parts)}</svg>'
    )


def _description(state: State, blocks: int) -> str:
    counts = ", ".join(
        f"{count:,} {BLOCK_STATES[name].name}" for name, count in count_states(state).items() if count
    )
    return f"Map of the disk's {blocks:,} blocks: {counts}."


def _squares(cells: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], columns: int) -> list[str]:
    """Return the plain squares row by row, a grid over them, then coloured squares, one path a state."""
    rows = -(-cells.size // columns)
    plain = ""
    for first, end in _stretches(cells > 0, columns):
        left, width = first % columns * _CELL, (end - first) * _CELL
        plain += f"M{left} {first // columns * _CELL}h{width}v{_CELL}h-{width}z"
    grid = "".join(f"M{column * _CELL} 0v{rows * _CELL}" for column in range(columns + 1))
    grid += "".join(f"M0 {row * _CELL}h{columns * _CELL}" for row in range(rows + 1))
    paths: dict[int, list[str]] = {}
    for at in np.flatnonzero(cells > 1).tolist():
        side = 7.5 + 3.5 * float(shares[at])
        inset = (_CELL - side) / 2
        x, y = at % columns * _CELL + inset, at // columns * _CELL + inset
        paths.setdefault(int(cells[at]), []).append(f"M{x:.4g} {y:.4g}h{side:.3g}v{side:.3g}h-{side:.3g}z")
    return [
        f'<path d="{plain}" style="fill:{BLOCK_STATES["in_backup"].colour}"/>',
        f'<path d="{grid}" style="fill:none;stroke:var(--vmrk-paper)"/>',
        *(
            f'<path d="{"".join(path)}" fill="{BLOCK_STATES[_NAMES[cell]].colour}"/>'
            for cell, path in paths.items()
        ),
    ]


def _stretches(wanted: npt.NDArray[np.bool_], columns: int) -> list[tuple[int, int]]:
    """Return first and end of each unbroken stretch of wanted cells within a row."""
    padded = np.zeros((-(-wanted.size // columns), columns + 2), np.int8)
    padded[:, 1:-1].flat[: wanted.size] = wanted
    changes = np.diff(padded, axis=1)
    starts, ends = (np.nonzero(changes == sign) for sign in (1, -1))
    return list(
        zip((starts[0] * columns + starts[1]).tolist(), (ends[0] * columns + ends[1]).tolist(), strict=True)
    )


def _letters(cells: npt.NDArray[np.int64], columns: int) -> list[str]:
    """One text a row and ink, with the place of each letter."""
    lines: list[str] = []
    for top in range(0, cells.size, columns):
        line = cells[top : top + columns].tolist()
        by_ink: dict[str, list[tuple[int, str]]] = {}
        for column, cell in enumerate(line):
            sign = BLOCK_STATES[_NAMES[cell]]
            if sign.letter:
                by_ink.setdefault(sign.ink, []).append((column, sign.letter))
        y = top // columns * _CELL + 8.9
        for ink, letters in by_ink.items():
            places = " ".join(str(column * _CELL + _CELL // 2) for column, _ in letters)
            text = "".join(letter for _, letter in letters)
            fill = "var(--vmrk-soft)" if ink == "currentColor" else ink
            lines.append(
                f'<text x="{places}" y="{y:g}" text-anchor="middle" '
                f'style="{_LETTER};fill:{fill}">{text}</text>'
            )
    return lines


def _frames(touched: tuple[int, int], per_cell: int, columns: int, cells: int) -> list[str]:
    first = touched[0] // per_cell
    last = min(cells - 1, (touched[0] + touched[1] - 1) // per_cell)
    if last - first > 200:
        return []
    path = "".join(
        f"M{at % columns * _CELL} {at // columns * _CELL}h12v12h-12z" for at in range(first, last + 1)
    )
    return [
        f'<path d="{path}" fill="none" style="stroke:var(--vmrk-paper)" stroke-width="3.4"/>',
        f'<path d="{path}" fill="none" style="stroke:var(--vmrk-ink)" stroke-width="1.8"/>',
    ]


def legend(state: State) -> str:
    """Return what the signs of the map mean, with the number of blocks in each state."""
    items = "".join(
        f"<li>{_swatch(name)} <span>{BLOCK_STATES[name].name} <b>{count:,}</b></span></li>"
        for name, count in count_states(state).items()
    )
    per_cell = blocks_per_cell(state.flags.size)
    note = ""
    if per_cell > 1:
        note = (
            f"<li class='soft'>One cell is {per_cell:,} blocks ({block_range(0, per_cell)}, …) and shows "
            "their most frequent state beyond resting in the backup: the larger the square, the more of "
            "them.</li>"
        )
    return f'<ul class="legend" aria-label="Legend of the map">{items}{note}</ul>'


def _swatch(name: str) -> str:
    sign = BLOCK_STATES[name]
    ink = "var(--vmrk-soft)" if sign.ink == "currentColor" else sign.ink
    return (
        '<svg viewBox="0 0 12 12" aria-hidden="true">'
        '<rect x="0.5" y="0.5" width="11" height="11" '
        f'style="fill:{sign.colour};stroke:var(--vmrk-line);stroke-width:.5"/>'
        f'<text x="6" y="8.9" text-anchor="middle" style="{_LETTER};fill:{ink}">{sign.letter}</text></svg>'
    )
