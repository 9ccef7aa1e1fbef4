"""What was chosen on a map: each cell some blocks of the read cache, with a colour and a letter."""

from __future__ import annotations

import dataclasses
import math
from html import escape

import altair as alt
import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.layout import first_block_of_disk
from vmrestorekit.show import renderer
from vmrestorekit.show.backups.backed_up_disk import Blocks
from vmrestorekit.show.backups.file_selection import FileSelection, by_cache_block
from vmrestorekit.show.block_map import MAX_COLUMNS, MAX_ROWS
from vmrestorekit.show.chart_frame import Chart, finished, heading
from vmrestorekit.show.theme import BLUISH_GREEN, ORANGE, SKY_BLUE, Sign
from vmrestorekit.show.units import size

__all__ = ["ROLES", "SelectionMap", "map_of_disk", "map_of_needed"]

renderer.enable()

_CELL = 12
# from the least to the most telling: a cell shows the last that any of its blocks has
ROLES = {
    "stored": Sign("stored, not needed", "var(--jp-layout-color3, #bdbdbd)", ""),
    "boot": Sign("the recorded boot reads it", SKY_BLUE, "B"),
    "leads": Sign("leads to what is chosen", ORANGE, "L"),
    "chosen": Sign("chosen", BLUISH_GREEN, "C"),
}
_NAMES = tuple(ROLES)
_CHART_COLOURS = {"stored": "#BDBDBD"}  # on paper there is no theme


@dataclasses.dataclass(frozen=True, eq=False)
class SelectionMap:
    """Cells in rows.

    Attributes
    ----------
    blocks : ndarray of int64
        Cache blocks over all disks, in the order of the cells.
    per_cell, columns : int
        Blocks in a cell, cells in a row.
    role : ndarray of int64
        Of each cell, its place in `ROLES`.
    share : ndarray of float
        Which part of what is stored there has that role.
    title : str
    """

    blocks: Blocks
    per_cell: int
    columns: int
    role: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]
    title: str

    def __len__(self) -> int:
        return len(self.role)

    def blocks_of(self, cell: int) -> Blocks:
        """Return the cache blocks of a cell."""
        return self.blocks[cell * self.per_cell : (cell + 1) * self.per_cell]

    def cells_of(self, blocks: Blocks) -> Blocks:
        """Return the cells that these cache blocks are in, ascending."""
        wanted = np.zeros(max(self.blocks.max(initial=-1), blocks.max(initial=-1)) + 1, np.bool_)
        wanted[blocks] = True
        return np.unique(np.flatnonzero(wanted[self.blocks]) // self.per_cell)

    def svg(self, framed: Blocks) -> str:
        """Return the picture, with a frame around some cells."""
        width, height = self.columns * _CELL, -(-max(len(self), 1) // self.columns) * _CELL
        y, x = (_CELL * place for place in np.divmod(np.arange(len(self)), self.columns))
        parts = []
        for number, (name, sign) in enumerate(ROLES.items()):
            # what else is stored there shows around the square
            at = np.flatnonzero(self.role >= number if name == "stored" else self.role == number)
            if len(at):
                shrunk = 5 * (1 - self.share[at]) if number else np.zeros(len(at))
                parts.append(_squares(x[at], y[at], 11 - shrunk, sign.colour) + _letters(x[at], y[at], sign))
        if len(framed):
            parts.append(_frames(x[framed], y[framed]))
        return (
            f'<svg role="img" aria-label="{escape(self.title)}" viewBox="-1 -1 {width + 2} {height + 2}" '
            f'style="max-width:{2 * width + 4}px">{"".join(parts)}</svg>'
        )

    def legend(self) -> str:
        """Return what the signs mean, with the number of cells."""
        items = "".join(
            f"<li>{_swatch(sign)} <span>{sign.name} <b>{int((self.role == number).sum()):,}</b></span></li>"
            for number, sign in enumerate(ROLES.values())
        )
        cell = f"One cell is {self.per_cell:,} blocks" if self.per_cell > 1 else "One cell is one block"
        note = f"<li class='soft'>{cell} of the read cache; the larger the square, the more of it.</li>"
        return f'<ul class="legend" aria-label="Legend of the map">{items}{note}</ul>'

    def chart(self) -> Chart:
        """Return the same as a chart, to be saved."""
        y, x = np.divmod(np.arange(len(self)), self.columns)
        names = [ROLES[_NAMES[role]].name for role in self.role.tolist()]
        letters = [ROLES[_NAMES[role]].letter for role in self.role.tolist()]
        frame = pl.DataFrame({"x": x, "y": y, "role": names, "letter": letters})
        colours = [_CHART_COLOURS.get(name, sign.colour) for name, sign in ROLES.items()]
        scale = alt.Scale(domain=[sign.name for sign in ROLES.values()], range=colours)
        across, down = alt.X("x:O", axis=None), alt.Y("y:O", axis=None)
        legend = alt.Legend(title=None, orient="bottom", columns=3, labelLimit=220)
        colour = alt.Color("role:N", scale=scale, legend=legend)
        cells = alt.Chart(frame).mark_rect(stroke="#FFFFFF").encode(across, down, colour)
        texts = alt.Chart(frame).mark_text(fontSize=9).encode(across, down, text="letter:N")
        rows = -(-max(len(self), 1) // self.columns)
        sized = (cells + texts).properties(width=14 * self.columns, height=14 * rows)
        return finished(sized, heading("Blocks that the selection needs", self.title))


def map_of_disk(selection: FileSelection, disk: int, block_bytes: int) -> SelectionMap:
    """Return the map of all that the copy stores of a disk, in the order of the disk."""
    stored = by_cache_block(selection.copy.disks[disk].stored, block_bytes).any(axis=1)
    blocks = first_block_of_disk(selection.copy.disk_bytes, block_bytes)[disk] + np.flatnonzero(stored)
    title = f"disk {disk}: {len(blocks):,} stored blocks of {size(block_bytes)}"
    return _map(selection, blocks, block_bytes, title)


def map_of_needed(selection: FileSelection, block_bytes: int) -> SelectionMap:
    """Return the map of the needed cache blocks alone, in the order in which they are staged."""
    blocks = selection.cache_blocks(block_bytes)
    title = f"the {len(blocks):,} needed blocks of {size(block_bytes)}, in the order of staging"
    return _map(selection, blocks, block_bytes, title)


def _map(selection: FileSelection, blocks: Blocks, block_bytes: int, title: str) -> SelectionMap:
    per_cell = max(1, -(-len(blocks) // (MAX_COLUMNS * MAX_ROWS)))
    firsts = np.arange(0, len(blocks), per_cell)
    role, share = np.zeros(len(firsts), np.int64), np.ones(len(firsts))
    stored = np.zeros(len(firsts), np.int64)
    for number, name in enumerate(_NAMES):
        counts = _counts(selection, name, block_bytes)
        cells = np.add.reduceat(counts[blocks], firsts) if len(blocks) else stored
        if name == "stored":
            stored = cells
        role = np.where(cells > 0, number, role)
        share = np.where(cells > 0, cells / np.maximum(stored, 1), share)
    columns = max(1, math.ceil(math.sqrt(len(cells) * MAX_COLUMNS / MAX_ROWS)))
    return SelectionMap(blocks, per_cell, columns, role, share, title)


def _counts(selection: FileSelection, role: str, block_bytes: int) -> Blocks:
    """Return for each cache block over all disks how many stored 4 KiB blocks of it have a role."""
    counts = []
    for disk, here in enumerate(selection.copy.disks):
        mask = {
            "stored": here.stored,
            "boot": here.stored & here.read if here.read is not None else np.zeros_like(here.stored),
        }.get(role)
        if mask is None:
            mask = np.zeros_like(here.stored)
            mask[selection.blocks(disk)[0 if role == "chosen" else 1]] = True
        counts.append(by_cache_block(mask, block_bytes).sum(axis=1, dtype=np.int32))
    return np.concatenate(counts)


def _squares(x: Blocks, y: Blocks, side: npt.NDArray[np.float64], colour: str) -> str:
    inset = (_CELL - side) / 2
    path = "".join(
        f"M{left:.4g} {top:.4g}h{edge:.3g}v{edge:.3g}h-{edge:.3g}z"
        for left, top, edge in zip((x + inset).tolist(), (y + inset).tolist(), side.tolist(), strict=True)
    )
    return f'<path d="{path}" style="fill:{colour}"/>'


def _letters(x: Blocks, y: Blocks, sign: Sign) -> str:
    if not sign.letter:
        return ""
    across, down = (" ".join(map(str, places.tolist())) for places in (x + _CELL // 2, y + 9))
    return (
        f'<text x="{across}" y="{down}" class="letter" style="fill:{sign.ink}">{sign.letter * len(x)}</text>'
    )


def _frames(x: Blocks, y: Blocks) -> str:
    path = "".join(f"M{left} {top}h12v12h-12z" for left, top in zip(x.tolist(), y.tolist(), strict=True))
    return (
        f'<path d="{path}" style="fill:none;stroke:var(--vmrk-ink);stroke-width:1.1;stroke-dasharray:2 1.4"/>'
    )


def _swatch(sign: Sign) -> str:
    letter = (
        f'<text x="6" y="9" class="letter" style="fill:{sign.ink}">{sign.letter}</text>'
        if sign.letter
        else ""
    )
    return (
        '<svg viewBox="0 0 12 12" aria-hidden="true"><rect x="0.5" y="0.5" width="11" height="11" '
        f'style="fill:{sign.colour};stroke:var(--vmrk-line);stroke-width:.5"/>{letter}</svg>'
    )
