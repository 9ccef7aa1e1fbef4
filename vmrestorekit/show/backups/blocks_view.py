"""The blocks of a selection: on a map to be clicked, counted, and whose they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np

from vmrestorekit.plan import first_block_of_disk
from vmrestorekit.show.backups.backed_up_disk import Blocks
from vmrestorekit.show.backups.file_selection import FileSelection
from vmrestorekit.show.backups.selection_map import SelectionMap, map_of_disk, map_of_needed
from vmrestorekit.show.backups.selection_tables import cost_table, many, owners_of, owners_table
from vmrestorekit.show.clickable_map import ClickableMap
from vmrestorekit.show.controls import button, row
from vmrestorekit.show.theme import styled
from vmrestorekit.show.units import blocks as block_range
from vmrestorekit.show.units import size
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = ["BLOCK_SIZES", "BlocksView"]

BLOCK_SIZES = tuple(4096 << step for step in range(11))  # 4 KiB to 4 MiB, as a plan allows
_NEEDED = -1
_DESCRIBED = {"description_width": "initial"}


class BlocksView(widgets.VBox):  # type: ignore[misc]
    """Shows what a selection needs; is told the selection, and tells which block was clicked.

    Parameters
    ----------
    block_bytes : int
        Size of a block of the read cache, to begin with.
    announce : callable
        Called with a sentence when something was chosen here.
    show_file : callable
        Called with a disk and a file when a person wants to see it in the list.
    """

    def __init__(
        self, block_bytes: int, announce: Callable[[str], None], show_file: Callable[[int, int], None]
    ) -> None:
        self._announce, self._show_file = announce, show_file
        self.selection: FileSelection | None = None
        self.drawn: SelectionMap | None = None
        self._current: Blocks = np.empty(0, np.int64)
        self._file_here: tuple[int, int] | None = None
        self._draws = True
        self.block_size = widgets.Dropdown(
            options=[(size(each), each) for each in BLOCK_SIZES],
            value=block_bytes,
            description="Block of the read cache",
            tooltip="The backup copy is read in blocks of this size",
            layout={"width": "250px"},
            style=_DESCRIBED,
        )
        self.map_of = widgets.Dropdown(
            options=[("needed blocks only", _NEEDED)],
            description="Map of",
            tooltip="All that is stored of a disk, or the needed blocks alone in the order of their staging",
            layout={"width": "270px"},
            style=_DESCRIBED,
        )
        self.map = ClickableMap(label="Map of the blocks")
        self._legend, self._here, self._cost = (widgets.HTML(layout={"min_width": "0"}) for _ in range(3))
        told = "Go to the folder of the file that has most of what is chosen on the map"
        self.show_button = button(
            "Show the file in the list", told, self.show_file_here, width="190px", disabled=True
        )
        self.block_size.observe(self._resized, "value")
        self.map_of.observe(lambda _: self._draw(), "value")
        self.map.observe(lambda _: self._tell_cell(), "cell")
        controls = row([self.block_size, self.map_of], gap="4px 12px")
        super().__init__([controls, self.map, self._legend, self._here, self.show_button])
        self.layout = widgets.Layout(flex="1 1 420px", min_width="0")

    @property
    def block_bytes(self) -> int:
        """Size of a block of the read cache."""
        return int(self.block_size.value)

    @property
    def cost(self) -> widgets.HTML:
        """What the selection takes, in numbers: a table to be put somewhere."""
        return self._cost

    def show_copy(self, selection: FileSelection | None) -> None:
        """Show another copy, or none."""
        self.selection, self._current = selection, np.empty(0, np.int64)
        disks = len(selection.copy.disks) if selection is not None else 0
        self.map.cell = -1
        self._draws = False  # until options and value fit each other
        whole = [(f"what is stored of disk {disk}", disk) for disk in range(disks)]
        self.map_of.options = [*whole, ("needed blocks only", _NEEDED)]
        self.map_of.value = 0 if disks else _NEEDED
        self._draws = True
        self._draw()

    def point(self, disk: int, files: Blocks) -> None:
        """Frame the cells of these files, and show the disk that they are on."""
        if self.selection is None or disk < 0:
            return
        blocks = self.selection.copy.disks[disk].blocks_of(files)
        starts = first_block_of_disk(self.selection.copy.disk_bytes, self.block_bytes)
        self._current = starts[disk] + blocks * MANIFEST_BLOCK_BYTES // self.block_bytes
        if self.map_of.value not in (_NEEDED, disk):
            self.map_of.value = disk  # draws
        elif self.drawn is not None:
            self._put_svg()

    def show_file_here(self) -> None:
        """Show the file that has most of what is chosen on the map."""
        if self._file_here is not None:
            self._show_file(*self._file_here)

    def changed(self) -> None:
        """Show the selection again, after it changed."""
        self._draw()

    def _resized(self, change: Any) -> None:
        self._current = np.unique(self._current * change["old"] // change["new"])
        self._draw()
        if self.selection:
            cost = self.selection.cost(self.block_bytes)
            self._announce(
                f"With blocks of {size(self.block_bytes)}, {size(cost.media_bytes)} are read from the backup "
                f"for the selection: {many(len(cost.cache_blocks), 'block')}."
            )

    def _draw(self) -> None:
        if not self._draws:
            return
        if self.selection is None:
            self.drawn = None
            self.map.svg, self.map.cells = "", 0
            self._legend.value = styled('<p class="soft">Open a copy to see the blocks of its disks.</p>')
            self._here.value = self._cost.value = ""
            return
        if self.map_of.value == _NEEDED:
            self.drawn = map_of_needed(self.selection, self.block_bytes)
        else:
            self.drawn = map_of_disk(self.selection, self.map_of.value, self.block_bytes)
        with self.map.hold_sync():
            self.map.label = f"Map of {self.drawn.title}"
            self.map.columns, self.map.cells = self.drawn.columns, len(self.drawn)
            if self.map.cell >= len(self.drawn):
                self.map.cell = -1
            self._put_svg()
        empty = "" if len(self.drawn) else '<p class="soft">Nothing is chosen yet: no block is needed.</p>'
        self._legend.value = styled(self.drawn.legend() + empty)
        # what a boot takes is for comparison, and not to be seen before anything was chosen
        self._cost.value = cost_table(self.selection, self.block_bytes) if self.selection else ""
        self._show_here()

    def _put_svg(self) -> None:
        assert self.drawn is not None
        self.map.svg = self.drawn.svg(self.drawn.cells_of(self._current))

    def _tell_cell(self) -> None:
        said = self._show_here()
        if said:
            self._announce(said)

    def _show_here(self) -> str:
        """Show whose the chosen cell is; return it in a sentence."""
        self._file_here, self.show_button.disabled = None, True
        if self.drawn is None or self.selection is None or self.map.cell < 0:
            self._here.value = styled(
                '<p class="soft">Choose a cell of the map to see whose its blocks are.</p>'
            )
            return ""
        blocks = self.drawn.blocks_of(self.map.cell)
        owners = owners_of(self.selection, blocks, self.block_bytes)
        name = block_range(int(blocks[0]), len(blocks)).capitalize()
        if len(blocks) != int(blocks.max()) - int(blocks[0]) + 1:
            name = f"{len(blocks):,} blocks, the first of them {int(blocks[0]):,}"
        files = [row for row in owners if row["file"] >= 0]
        if files:
            self._file_here, self.show_button.disabled = (files[0]["disk"], files[0]["file"]), False
        first = f", most of it of {files[0]['path']}" if files else ""
        said = f"{name}: {many(len(files), 'file')}{first}."
        self.map.text = said
        self._here.value = styled(owners_table(name, owners))
        return said
