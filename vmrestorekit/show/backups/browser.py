"""The file manager: from backed-up machines to files, from files to blocks, to a plan that stages them."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import polars as pl
import traitlets

from vmrestorekit.backup.browse import Selection
from vmrestorekit.plan import DEFAULT_BLOCK_BYTES, MODES, RestorePlan
from vmrestorekit.show.backups.backed_up_disk import BackedUpCopy
from vmrestorekit.show.backups.blocks_view import BLOCK_SIZES, BlocksView
from vmrestorekit.show.backups.browsing import Browsing
from vmrestorekit.show.backups.extraction import Extraction
from vmrestorekit.show.backups.file_pane import FilePane
from vmrestorekit.show.backups.file_selection import SELECTION_SCHEMA, Cost, FileSelection
from vmrestorekit.show.backups.listing import Entry
from vmrestorekit.show.backups.selection_tables import many
from vmrestorekit.show.chart_frame import Chart, only_says
from vmrestorekit.show.controls import button, dropdown, row
from vmrestorekit.show.export import Export
from vmrestorekit.show.look import Look
from vmrestorekit.show.theme import mode_name, styled
from vmrestorekit.show.units import size

__all__ = ["BackupBrowser"]

_REQUESTS = ("fetch_bytes", "stage_fetch_bytes", "relocation_request_bytes")


class BackupBrowser(widgets.VBox):  # type: ignore[misc]
    """Browse backup copies (operation O22), choose files, see which blocks they need, and plan with these.

    Parameters
    ----------
    source : Corpus, RecordedVM, Boot, BackupStore or CopyContents
        Recorded machines have manifests only: what lies where, and no contents. From a store files can be
        extracted, too.
    block_bytes : int
        Size of a block of the read cache, a power of two from 4 KiB to 4 MiB.
    rows : int
        Rows of a page of the list.
    width : int or str
        Pixels, or a CSS length.

    Attributes
    ----------
    place : str
        What is listed, such as ``"bookworm-db › before boot-2 › disk 0 › /etc"``; observe it.
    chosen : int
        How many files, folders and partitions are chosen; observe it.

    Raises
    ------
    ValueError
        If an argument is none of these.
    """

    place = traitlets.Unicode()
    chosen = traitlets.Int()

    def __init__(
        self,
        source: Any,
        *,
        block_bytes: int = DEFAULT_BLOCK_BYTES,
        rows: int = 15,
        width: int | str = "100%",
    ) -> None:
        if block_bytes not in BLOCK_SIZES:
            raise ValueError(
                f"block_bytes: expected a power of two from {BLOCK_SIZES[0]} to {BLOCK_SIZES[-1]}, "
                f"got {block_bytes!r}"
            )
        if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= 200:
            raise ValueError(f"rows: expected a whole number from 1 to 200, got {rows!r}")
        if isinstance(width, bool) or not isinstance(width, int | str):
            raise ValueError(f"width: expected pixels or a CSS length, got {width!r}")
        self._at = Browsing(source)
        self._sentence = ""
        self._status = widgets.HTML(layout={"min_width": "0"})
        super().__init__(layout={"width": f"{width}px" if isinstance(width, int) else width})
        self.files = FilePane(self._at, rows, self._announce)
        self.blocks = BlocksView(block_bytes, self._announce, self._show_file)
        self.extraction = Extraction(self._announce)
        self.children = [
            Look(),
            row([self.files, self.blocks], gap="8px 28px", align="flex-start"),
            self._status,
            row(self._make_choosing()),
            self.blocks.cost,
            self.extraction,
            Export("selection", self._chart, self.table),
        ]
        self.files.observe(lambda _: self._opened_another(), "opened")
        self.files.observe(lambda _: self._point(), "pointed")
        self.files.observe(lambda _: self._selected(), "changes")
        traitlets.dlink((self.files, "place"), (self, "place"))
        self._opened_another()
        self._announce(
            "Choose a row with the arrow keys, open it with Enter, choose what is in it with Space."
        )

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def sentence(self) -> str:
        """What was announced last."""
        return self._sentence

    @property
    def entries(self) -> list[Entry]:
        """What the page of the list shows."""
        return self.files.entries

    @property
    def open_copy(self) -> BackedUpCopy | None:
        """The copy that is open, None above the copies."""
        return self._at.copy

    @property
    def selection(self) -> Selection:
        """The chosen files and what leads to them; `ValueError` if nothing is chosen."""
        return self._chosen().as_selection()

    @property
    def cost(self) -> Cost:
        """What the backup copy has to give for the selection; `ValueError` if nothing is chosen."""
        return self._chosen().cost(self.blocks.block_bytes)

    @property
    def plan(self) -> RestorePlan:
        """A plan whose first set is what the selection needs; `ValueError` if nothing is chosen."""
        return self.make_plan()

    def make_plan(self, **settings: Any) -> RestorePlan:
        """Return a plan whose first set is what the selection needs.

        Parameters
        ----------
        **settings
            Further attributes of the `RestorePlan`, such as ``expiry_ns``; default: mode and size of blocks
            as chosen in the widget.

        Raises
        ------
        ValueError
            If nothing is chosen, or a setting makes no sense.
        """
        blocks = self.cost.cache_blocks
        given = {"mode": self.mode.value, "block_bytes": self.blocks.block_bytes} | settings
        for request in _REQUESTS:  # none may be smaller than a block
            given.setdefault(request, max(getattr(RestorePlan, request), given["block_bytes"]))
        if given["block_bytes"] != self.blocks.block_bytes:
            blocks = self._chosen().cache_blocks(given["block_bytes"])
        return RestorePlan(self._chosen().copy.disk_bytes, first_set=blocks.astype(np.int32), **given)

    def table(self) -> pl.DataFrame:
        """Return the blocks that the selection needs, a frame of `file_selection.SELECTION_SCHEMA`."""
        if not self._at.selection:
            return pl.DataFrame(schema=SELECTION_SCHEMA)
        return self._at.selection.table(self.blocks.block_bytes)

    def go_to(
        self, machine: str | None = None, copy: str | None = None, disk: int | None = None, path: str = "/"
    ) -> None:
        """List a machine, one of its copies, or a folder there; without anything all machines.

        Raises
        ------
        ValueError
            If there is no such thing.
        """
        self.files.move(lambda: self._at.go_to(machine, copy, disk, path))

    def select(self, *patterns: str, disk: int | None = None, chosen: bool = True) -> int:
        """Choose files by paths or patterns (``*`` stands for anything), or no longer; return how many fit.

        A folder brings everything in it.

        Raises
        ------
        ValueError
            If no copy is open, or a pattern fits no file.
        """
        found = self._at.select(patterns, disk, chosen)
        self.files.selected(many(found, "path fits", "paths fit"))
        return found

    def clear(self) -> None:
        """Choose nothing."""
        if self._at.selection is not None:
            self._at.selection.clear()
            self.files.selected("Cleared")

    def find(self, pattern: str) -> int:
        """List what fits a pattern below the folder that is listed; return how many that are.

        Raises
        ------
        ValueError
            If no copy is open.
        """
        self.files.move(lambda: self._at.find(pattern))
        return len(self.files)

    def up(self) -> None:
        """List what is one step up."""
        self.files.move(self._at.up)

    # --- controls ---------------------------------------------------------------------------------------

    def _make_choosing(self) -> list[widgets.Widget]:
        self.all_button = button(
            "Choose all listed", "Choose everything in this list", self.files.choose_all, width="140px"
        )
        self.none_button = button("Choose nothing", "Clear the selection", self.clear, width="130px")
        modes = {mode_name(mode): mode for mode in MODES}
        self.mode = dropdown(
            "Plan for", modes, "What the plan is for", width="210px", label_width="60px", value="live_mount"
        )
        self.plan_button = button(
            "Make a plan",
            "A plan whose first set is what the selection needs",
            self._tell_plan,
            width="110px",
        )
        return [self.all_button, self.none_button, self.mode, self.plan_button]

    # --- what the controls do -----------------------------------------------------------------------------

    def _tell_plan(self) -> None:
        if not self._at.selection:
            return self._announce("Nothing is chosen: choose files first, then make a plan.")
        try:
            plan = self.plan
        except ValueError as error:
            return self._announce(f"No plan: {error}")
        first = many(len(plan.first_set), "block")
        return self._announce(
            f"The plan is in .plan of this browser: a {mode_name(plan.mode).lower()} that stages {first} of "
            f"{size(plan.block_bytes)} first, {size(len(plan.first_set) * plan.block_bytes)} in all."
        )

    def _show_file(self, disk: int, file: int) -> None:
        assert self._at.copy is not None
        node = int(self._at.copy.disks[disk].tree.node_of_file[file])
        self.files.move(lambda: self._at.show_node(disk, node))

    # --- showing ------------------------------------------------------------------------------------------

    def _opened_another(self) -> None:
        self.blocks.show_copy(self._at.selection)
        self.chosen = 0
        self._point()

    def _point(self) -> None:
        """Show on the map where the entry under the keyboard lies, and offer a file to be extracted."""
        copy, entry = self._at.copy, self.files.pointed
        if copy is None or entry is None:
            return self.extraction.offer(None)
        files = self._at.files_at(entry)
        self.blocks.point(entry.disk, files)
        if entry.kind != "regular":
            return self.extraction.offer(copy.contents)
        file = int(files[0])
        disk = copy.disks[entry.disk]
        return self.extraction.offer(copy.contents, entry.disk, disk.paths[file], int(disk.sizes[file]))

    def _selected(self) -> None:
        self.blocks.changed()
        selection, remark = self._at.selection, self.files.remark
        if not selection:
            self.chosen = 0
            return self._announce(f"{remark}. Nothing is chosen.")
        self.chosen = sum(int(each.sum()) for each in selection.files) + len(selection.partitions)
        cost = self.cost
        return self._announce(
            f"{remark}. The selection needs {many(cost.blocks + cost.blocks_leading, 'block')} of 4 KiB; "
            f"in blocks of {size(cost.block_bytes)}, {size(cost.media_bytes)} are read from the backup."
        )

    def _chart(self) -> Chart:
        if self.blocks.drawn is None:
            return only_says("Blocks that the selection needs", "No copy is open.")
        return self.blocks.drawn.chart()

    def _chosen(self) -> FileSelection:
        if not self._at.selection:
            raise ValueError("expected a selection: choose at least one file, folder or partition first")
        return self._at.selection

    def _announce(self, text: str) -> None:
        self._sentence = text
        self._status.value = styled(f'<p role="status" aria-live="polite">{escape(text)}</p>')
