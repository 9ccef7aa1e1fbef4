"""The list of a file manager with all that moves it: search, order, pages, the way up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np
import traitlets

from vmrestorekit.show.backups.browsing import Browsing
from vmrestorekit.show.backups.file_list import FileList
from vmrestorekit.show.backups.listing import SORTED_BY, Entry, Listing, tick_of
from vmrestorekit.show.backups.selection_tables import many
from vmrestorekit.show.controls import button, row
from vmrestorekit.show.theme import styled

__all__ = ["FilePane"]


class FilePane(widgets.VBox):  # type: ignore[misc]
    """Lists the place where a `Browsing` is, page by page, and moves it.

    Parameters
    ----------
    browsing : Browsing
    rows : int
        Of a page.
    announce : callable
        Called with a sentence when something happened.

    Attributes
    ----------
    place : str
        What is listed, in words.
    opened : int
        Counts how often a copy was opened or left; observe it.
    pointed : Entry or None
        What the keyboard stands on; observe it.
    changes : int
        Counts how often something was chosen, or no longer; observe it. What it was is in `remark`.
    """

    place = traitlets.Unicode()
    opened = traitlets.Int()
    pointed = traitlets.Any()
    changes = traitlets.Int()

    def __init__(self, browsing: Browsing, rows: int, announce: Callable[[str], None]) -> None:
        self._at, self._rows, self._announce = browsing, rows, announce
        self._start, self.remark = 0, ""
        self._listing: Listing = browsing.listing()
        self._page: list[Entry] = []
        super().__init__(layout={"flex": "1 1 520px", "min_width": "0"})
        self.children = [row(self._make_search()), *self._make_list()]
        self.show()

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def entries(self) -> list[Entry]:
        """What the page shows."""
        return list(self._page)

    def __len__(self) -> int:
        return len(self._listing)

    def enter(self, row: int) -> None:
        """Open what is in a row of the page; a file that was found shows its folder."""
        if 0 <= row < len(self._page) and self._page[row].opens:
            entry = self._page[row]
            if entry.kind == "copy":
                self._announce(f"Reading the table of contents of {entry.name} …")
            self.move(lambda: self._at.enter(entry))

    def tick(self, row: int) -> None:
        """Choose what is in a row of the page, or no longer."""
        selection = self._at.selection
        if selection is None or not 0 <= row < len(self._page):
            return
        entry = self._page[row]
        chosen = tick_of(entry, selection) < 2
        if entry.partition >= 0:
            selection.choose_partition(entry.disk, entry.partition, chosen)
        else:
            selection.choose(entry.disk, self._at.files_at(entry), chosen)
        self.selected(f"{'Chosen' if chosen else 'No longer chosen'}: {entry.name}")

    def turn(self, pages: int) -> None:
        """Turn some pages on, or back."""
        start = self._start + pages * self._rows
        if not 0 <= start < max(len(self._listing), 1):
            self._announce("This is the last page." if pages > 0 else "This is the first page.")
            return
        self._start = start
        self._show_page(0 if pages > 0 else self._rows - 1)
        self._announce(f"Page {self._page_number} of {self._pages}.")

    def up(self) -> None:
        """List what is one step up."""
        self.move(self._at.up)

    def choose_all(self) -> None:
        """Choose everything that is listed, on all pages."""
        selection = self._at.selection
        if selection is None:
            return self._announce("Open a copy first: then its files can be chosen.")
        for entry in self._listing.page(0, len(self)):
            if entry.partition < 0:
                selection.choose(entry.disk, self._at.files_at(entry))
        return self.selected(f"Chosen: all of {many(len(self), 'entry', 'entries')}")

    def selected(self, remark: str) -> None:
        """Show the ticks again, and have others told, after something was chosen."""
        self.remark = remark
        self._tick_rows()
        self.changes += 1

    # --- controls ---------------------------------------------------------------------------------------

    def _make_search(self) -> list[widgets.Widget]:
        told = "List what is one step up (Backspace in the list)"
        self.up_button = button("Up", told, self.up, width="60px")
        self.pattern = widgets.Text(
            description="Find",
            continuous_update=False,  # once Enter is pressed
            placeholder="such as *.conf or /etc/*",
            tooltip="A pattern for names, or with a slash for paths; * stands for anything. Enter searches",
            layout={"width": "200px"},
            style={"description_width": "35px"},
        )
        self.pattern.observe(lambda _: self._search(), "value")
        self.find_button = button("Find", "Search below this folder", self._search, width="60px")
        self.sorting = widgets.Dropdown(
            options=[(text, name) for name, text in SORTED_BY.items()],
            description="Sort by",
            tooltip="By name, folders first; or the largest first",
            layout={"width": "205px"},
            style={"description_width": "50px"},
        )
        self.sorting.observe(self._sort, "value")
        return [self.up_button, self.pattern, self.find_button, self.sorting]

    def _make_list(self) -> list[widgets.Widget]:
        self.list = FileList(layout={"min_width": "0"})
        self.list.listen(
            tick=self.tick,
            open=self.enter,
            up=lambda _: self.up(),
            page=self.turn,
            trail=lambda place: self.move(lambda: self._at.follow(place)),
        )
        self.list.observe(lambda _: self._point(), "current")
        self.back_button = button("Page back", "List the page before (Page Up)", lambda: self.turn(-1))
        self.on_button = button("Page on", "List the next page (Page Down)", lambda: self.turn(1))
        self._place = widgets.HTML()
        pages = row([self.back_button, self.on_button, self._place])
        return [self.list, pages]

    def _search(self) -> None:
        if self._at.copy is None:
            self._announce("Open a copy first: then its files can be searched.")
        elif self.pattern.value:
            self.move(lambda: self._at.find(self.pattern.value))
        elif self._at.pattern:  # an empty one ends the search
            self.up()

    def _sort(self, change: Any) -> None:
        self._at.sorted_by = change["new"]
        self.show()
        self._announce(f"Sorted by {SORTED_BY[change['new']].lower()}.")

    # --- showing ----------------------------------------------------------------------------------------

    def move(self, act: Callable[[], int | None]) -> None:
        """Go somewhere, and list what is there; the keyboard stands on the node that the act returns."""
        before = self._at.copy
        try:
            node = act()
        finally:
            if self._at.copy is not before:
                self.opened += 1
        self.show(-1 if node is None else node)
        self._announce(f"{self.place}: {self.list.label.partition(': ')[2]}.")

    def show(self, node: int = -1) -> None:
        """List what is here, from the page on that a node is on."""
        self._listing = self._at.listing()
        nodes = getattr(self._listing, "nodes", np.empty(0, np.int64))
        at = int(np.flatnonzero(nodes == node)[0]) if node >= 0 and node in nodes else 0
        self._start = at - at % self._rows
        trail = self._at.trail()
        self.place = " › ".join(trail)
        self.list.trail = trail
        self._show_page(at - self._start)

    def _show_page(self, row: int) -> None:
        self._page = self._listing.page(self._start, self._start + self._rows)
        entries = many(len(self._listing), "entry", "entries")
        with self.list.hold_sync():
            self.list.heads = self._listing.heads
            self.list.label = f"{self.place}: {entries}"
            self.list.empty = "Nothing fits." if self._at.pattern else "Nothing here."
            self.list.current = min(row, len(self._page) - 1)
            self._tick_rows()
        self._place.value = styled(
            f'<span class="soft">{entries}, page {self._page_number} of {self._pages}</span>'
        )
        self._point()

    @property
    def _page_number(self) -> int:
        return self._start // self._rows + 1

    @property
    def _pages(self) -> int:
        return max(1, -(-len(self._listing) // self._rows))

    def _tick_rows(self) -> None:
        self.list.rows = [entry.row(tick_of(entry, self._at.selection)) for entry in self._page]

    def _point(self) -> None:
        at = self.list.current
        self.pointed = self._page[at] if 0 <= at < len(self._page) else None
