"""Pick a first set by hand, restore with it, and see what came of it."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import numpy.typing as npt

from vmrestorekit.restore.hardware import Hardware, resolve_hardware
from vmrestorekit.show.clickable_map import ClickableMap
from vmrestorekit.show.controls import button, dropdown, row, slider
from vmrestorekit.show.export import Export
from vmrestorekit.show.first_set import report
from vmrestorekit.show.first_set.checks import PickError, expect_boots, expect_whole
from vmrestorekit.show.first_set.disk_contents import WAYS_TO_PICK, DiskContents
from vmrestorekit.show.first_set.pick_list import PickList
from vmrestorekit.show.first_set.pick_map import (
    COLUMNS,
    OUTCOME_SIGNS,
    PICK_SIGNS,
    cells_of,
    first_set_map,
    legend,
)
from vmrestorekit.show.first_set.picks import ORDERS, BlockArray, Picks
from vmrestorekit.show.first_set.tries import Bench, Rules, Try
from vmrestorekit.show.live_chart import LiveChart
from vmrestorekit.show.look import Look
from vmrestorekit.show.theme import styled
from vmrestorekit.traces.boots import Boot

__all__ = ["FirstSetPicker", "PickError"]

_MOST_NAMES = 300  # in a list, the largest first; `add` takes any
_SPANS = {"this cell": 1, "5 cells from here": 5, "20 cells from here": 20}
_PICKED = "what is picked"


class FirstSetPicker(widgets.VBox):  # type: ignore[misc]
    """Choose which blocks of a disk are pre-staged within a budget, restore, and compare.

    Parameters
    ----------
    boot : Boot
        The recorded boot that is restored; its manifests say what lies where.
    last_boot : Boot
        The one before, of the same machine, for comparison.
    hardware : Hardware or str
        Or the name of a preset in `vmrestorekit.restore.hardware.MEDIA`.
    budget_mb : int
        At most so much is pre-staged, in MB of 10⁶ bytes, until the slider says otherwise.
    head_start_s : int
        So many seconds before the launch, 0 to 20.

    Attributes
    ----------
    tries : tuple of Try
        What was tried so far.

    Raises
    ------
    ValueError
        If an argument is none of these.
    """

    def __init__(
        self,
        boot: Boot,
        last_boot: Boot,
        hardware: Hardware | str = "object_storage",
        *,
        budget_mb: int = 120,
        head_start_s: int = 4,
    ) -> None:
        expect_boots(boot, last_boot)
        self.bench = Bench(boot, last_boot, resolve_hardware(hardware))
        expect_whole("budget_mb", budget_mb, 1, self.bench.most_mb)
        expect_whole("head_start_s", head_start_s, 0, 20)
        self.contents = DiskContents(boot, self.bench.block_bytes)
        self._picks = Picks()
        self._tries: list[Try] = []
        title = f"First set for {boot.vm}, {boot.boot} · {self.bench.hardware.name.replace('_', ' ')}"
        super().__init__(layout={"grid_gap": "4px"})
        self.children = [
            Look(),
            widgets.HTML(styled(f"<h4>{escape(title)}</h4>")),
            row(self._make_adding()),
            self._make_list(),
            row(self._make_rules(budget_mb, head_start_s)),
            self._make_status(),
            row([self._make_map(), self._make_results()], align="flex-start", gap="4px 24px"),
            self._history,
            self._make_export(),
        ]
        self._list_names()
        self._show_picks()
        self.bench.stalls_of_others(self.rules)  # now, so that nobody waits for it later
        self._announce("Add what you expect the boot to read, then press Restore.")

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def tries(self) -> tuple[Try, ...]:
        """What was tried so far."""
        return tuple(self._tries)

    @property
    def rules(self) -> Rules:
        """What the next try may use."""
        return Rules(self.budget.value, self.head_start.value)

    @property
    def first_set(self) -> BlockArray:
        """Block numbers of what is picked, in the order of staging, as far as the budget goes."""
        return self._picks.blocks(self.order.value)[: self.bench.most_blocks(self.rules)]

    def add(self, way: str, name: str) -> None:
        """Pick all blocks of a kind of file, a folder or a file, behind what was picked before.

        Raises
        ------
        ValueError
            If there is no such way to pick (`WAYS_TO_PICK`), or nothing of that name.
        """
        if way not in WAYS_TO_PICK:
            raise PickError(f"add: expected one of {', '.join(WAYS_TO_PICK)}, got {way!r}")
        if name not in self.contents.names(way):
            few = ", ".join(list(self.contents.names(way))[:5])
            raise PickError(f"add: expected a {way} on this disk, such as {few}, got {name!r}")
        self._list.add(name, self.contents.blocks(way, name))

    def add_cells(self, first: int, count: int = 1) -> None:
        """Pick a region of the disk: some cells of the map.

        Raises
        ------
        ValueError
            If there is no such cell.
        """
        if not 0 <= first < self.map.cells or count < 1:
            raise PickError(f"add_cells: expected a cell from 0 to {self.map.cells - 1}, got {first!r}")
        self._list.add(
            f"region: cell {first + 1:,}" + f" and {count - 1} more" * (count > 1), self._region(first, count)
        )

    def restore(self) -> Try:
        """Restore with what is picked, and show what came of it."""
        names = ", ".join(self._picks.names) or "nothing"
        tried = self.bench.restore(self._picks.blocks(self.order.value), self.rules, names)
        self._tries.append(tried)
        number = len(self._tries)
        with self.look_at.hold_sync():
            self.look_at.options = [_PICKED, *(f"what came of try {each + 1}" for each in range(number))]
            self.look_at.value = self.look_at.options[-1]
        return tried

    # --- controls ---------------------------------------------------------------------------------------

    def _make_adding(self) -> list[widgets.Widget]:
        self.way = dropdown("Pick by", list(WAYS_TO_PICK), "How to choose blocks", width="230px")
        self.name = dropdown(
            "What", [], "Largest first; a block that holds a part of it counts whole", width="430px"
        )
        self.way.observe(lambda _: self._list_names(), "value")
        self.add_button = button("Add", "Pick this, behind what is picked", self._add_named)
        return [self.way, self.name, self.add_button]

    def _make_list(self) -> widgets.Widget:
        made = PickList(self._picks, self.bench.block_bytes, self._changed, self._announce)
        self._list, self.picks = made, made.choice
        self.remove_button, self.earlier_button = made.remove_button, made.earlier_button
        self.clear_button = made.clear_button
        return made.row

    def _make_rules(self, budget_mb: int, head_start_s: int) -> list[widgets.Widget]:
        most = self.bench.most_mb
        self.budget = slider("Budget, MB", budget_mb, 1, most, "At most so much is pre-staged")
        self.head_start = slider(
            "Head start, s", head_start_s, 0, 20, "Staging begins so long before the launch"
        )
        self.order = dropdown("Order", list(ORDERS), "In which order it is staged", width="260px")
        self.restore_button = button("Restore", "Restore with this first set", self.restore)
        self.restore_button.button_style = "primary"
        for control in (self.budget, self.head_start, self.order):
            control.observe(lambda _: self._changed(), "value")
        return [self.budget, self.head_start, self.order, self.restore_button]

    def _make_status(self) -> widgets.Widget:
        self._status = widgets.HTML()
        return self._status

    def _make_map(self) -> widgets.Widget:
        per_cell, cells = cells_of(self.contents.stored.size)
        self.map = ClickableMap(
            columns=COLUMNS, cells=cells, label="Map of what is stored, in the order of the disk"
        )
        self.look_at = dropdown("Map", [_PICKED], "What is picked, or what came of a try", width="290px")
        self.look_at.observe(lambda _: self._look(), "value")
        self.span = dropdown("Region", list(_SPANS), "How much of the disk to pick from the chosen cell on")
        self.region_button = button("Add region", "Pick what lies there", self._add_region)
        self._legend, self._cell = widgets.HTML(), widgets.HTML()
        self.map.observe(lambda _: self._show_cell(), "cell")
        self.map.layout.width = "100%"
        self._cell.value = styled(
            f'<span class="soft">A cell is {per_cell * self.bench.block_bytes / 1e6:.1f} MB of what is '
            "stored. Click one, or walk with the arrow keys.</span>"
        )
        rows = [self.look_at, self.map, self._legend, self._cell, row([self.span, self.region_button])]
        return widgets.VBox(rows, layout={"flex": "1 1 440px", "min_width": "0", "max_width": "640px"})

    def _make_results(self) -> widgets.Widget:
        self._chart, self._kinds, self._history = LiveChart(), widgets.HTML(), widgets.HTML()
        return widgets.VBox([self._chart, self._kinds], layout={"flex": "1 1 440px", "min_width": "0"})

    def _make_export(self) -> widgets.Widget:
        self.export = Export(
            "first-sets",
            lambda: self._chart.chart,
            lambda: report.history_frame(self._tries, self.bench.block_bytes),
        )
        self.export.layout.display = "none"  # until there is something to save
        return self.export

    # --- changing the list ------------------------------------------------------------------------------

    def _list_names(self) -> None:
        names = list(self.contents.names(self.way.value).items())[:_MOST_NAMES]
        mb = self.bench.block_bytes / 1e6
        self.name.options = [(f"{name} · {blocks * mb:.1f} MB", name) for name, blocks in names]
        self.name.index = 0  # a list that was empty chooses none by itself

    def _add_named(self) -> None:
        self.add(self.way.value, self.name.value)

    def _add_region(self) -> None:
        if self.map.cell < 0:
            self._announce("Choose a cell of the map first: click it, or walk there with the arrow keys.")
        else:
            self.add_cells(self.map.cell, _SPANS[self.span.value])

    def _changed(self) -> None:
        """Show what is picked now, by the rules of now."""
        mb = self.bench.block_bytes / 1e6
        if self.look_at.value == _PICKED:
            self._show_picks()
        else:
            self.look_at.value = _PICKED
        picked, left = self._picks.blocks().size, self.first_set.size
        over = ""
        if picked > left:
            over = f" Too much: the last {(picked - left) * mb:.0f} MB of it are left out."
        told = f"Picked: {picked * mb:.0f} MB; the budget is {self.budget.value} MB.{over}"
        self._announce(f"{told} Press Restore to try it.")

    # --- showing ----------------------------------------------------------------------------------------

    def _region(self, first: int, count: int = 1) -> BlockArray:
        per_cell = cells_of(self.contents.stored.size)[0]
        return self.contents.stored[first * per_cell : (first + count) * per_cell]

    def _look(self) -> None:
        at = list(self.look_at.options).index(self.look_at.value) - 1
        if at < 0:
            self._show_picks()
            return
        tried, others = self._tries[at], self.bench.stalls_of_others(self._tries[at].rules)
        self._draw(tried.outcome[self.contents.stored], OUTCOME_SIGNS)
        self._chart.draw(report.stall_chart(self._tries, others, at))
        self._kinds.value = styled(report.kinds_table(tried, self.contents, f"What came of try {at + 1}"))
        self._history.value = styled(report.history_table(self._tries, self.bench.block_bytes, at))
        self.export.layout.display = "flex"
        self._announce(report.sentence(at + 1, tried, others, self.bench.block_bytes))

    def _show_picks(self) -> None:
        picked = np.zeros(self.bench.blocks, np.uint8)
        picked[self.first_set] = 1
        self._draw(picked[self.contents.stored], PICK_SIGNS)

    def _draw(self, codes: npt.NDArray[np.uint8], signs: Any) -> None:
        self.map.svg = first_set_map(codes, signs)
        self._legend.value = styled(legend(codes, signs, self.bench.block_bytes))

    def _show_cell(self) -> None:
        if self.map.cell >= 0:
            said = f"Cell {self.map.cell + 1:,}: {self.contents.tell(self._region(self.map.cell))}."
            self.map.text = said
            self._cell.value = styled(escape(said))

    def _announce(self, text: str) -> None:
        self._status.value = styled(f'<p role="status" aria-live="polite">{escape(text)}</p>')
