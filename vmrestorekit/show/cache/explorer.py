"""The cache explorer: what the size of the read cache, and what it throws out, do to a restore."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy.typing as npt
import polars as pl
import traitlets

from vmrestorekit.plan import EVICTION_POLICIES, RestorePlan
from vmrestorekit.restore.hardware import Hardware, resolve_hardware
from vmrestorekit.show.cache.charts import (
    FIGURES,
    MISS_RATIO,
    POLICIES,
    VegaLite,
    curves,
    heat_map,
    map_width,
)
from vmrestorekit.show.cache.checks import (
    CacheExplorerError,
    expect_cases,
    expect_one_of,
    expect_sizes,
    first_size,
)
from vmrestorekit.show.cache.sweep import Sweep
from vmrestorekit.show.cache.words import sentence_of, table_at
from vmrestorekit.show.clickable_map import ClickableMap
from vmrestorekit.show.controls import button, dropdown, row
from vmrestorekit.show.export import Export
from vmrestorekit.show.live_chart import LiveChart
from vmrestorekit.show.look import Look
from vmrestorekit.show.theme import styled
from vmrestorekit.show.units import size as size_text
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["CacheExplorer", "CacheExplorerError"]

_MIB = 1 << 20
_GAP = "4px 12px"
_SIZES_MIB = (1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 512, 1024)


class CacheExplorer(widgets.VBox):  # type: ignore[misc]
    """Choose a size and an eviction policy of the read cache, and see what becomes of a restore.

    All sizes and policies are replayed and simulated in the background; moving a control only looks up. Or,
    with `one_by_one`, only the sizes that are chosen: the map fills as one goes.

    Parameters
    ----------
    boot_or_accesses : Boot, ReadTrace or array-like of int
        A recorded boot, which is restored and mounted; or accesses alone, of which only the miss ratios are
        known: a trace, whose reads are cut into blocks, or block numbers.
    plan : RestorePlan, optional
        What to stage and how to relocate, for a boot; default: nothing is staged.
    clones : sequence of Boot
        Machines that share contents with that of the boot, to be mounted after it.
    hardware : Hardware or str
    sizes_mib : sequence of numbers
        Sizes of the read cache to choose from, rising.
    case : str, optional
        What is asked of the cache at first: ``"live_mount"``, ``"bare_mount"``, ``"instant_restore"``,
        ``"never_purged"`` or ``"clones"``.
    policy : str
    size_mib : number, optional
        The first to be shown; default: 64, or one in the middle.
    one_by_one : bool
        Simulate only the sizes that are chosen, until *All sizes* is pressed.
    width : int or str
        Pixels, or a CSS length.

    Attributes
    ----------
    case, policy : str
    cache_bytes : int
        What is shown; set them to show something else.

    Raises
    ------
    ValueError
        If an argument is none of these.
    """

    case = traitlets.Unicode()
    policy = traitlets.Unicode()
    cache_bytes = traitlets.Int()

    def __init__(
        self,
        boot_or_accesses: Boot | ReadTrace | npt.ArrayLike,
        plan: RestorePlan | None = None,
        *,
        clones: Sequence[Boot] = (),
        hardware: Hardware | str = "object_storage",
        sizes_mib: Sequence[float] = _SIZES_MIB,
        case: str | None = None,
        policy: str = "lru",
        size_mib: float | None = None,
        one_by_one: bool = False,
        width: int | str = "100%",
    ) -> None:
        self.cases = expect_cases(boot_or_accesses, plan, tuple(clones), resolve_hardware(hardware))
        self.sizes = expect_sizes(sizes_mib, max(each.block_bytes for each in self.cases.values()))
        self.policies = tuple(name for name in POLICIES if name in EVICTION_POLICIES)
        case = next(iter(self.cases)) if case is None else case
        expect_one_of("case", case, self.cases)
        expect_one_of("policy", policy, self.policies)
        size = first_size(self.sizes) if size_mib is None else size_mib * _MIB
        expect_one_of("size_mib", size, self.sizes)
        self._one_by_one = one_by_one
        self._tasks: tuple[Hashable, ...] = ()
        self._lock = threading.RLock()
        self._sweep = Sweep(self._show)
        super().__init__(
            case=case,
            policy=policy,
            cache_bytes=int(size),
            layout={"width": f"{width}px" if isinstance(width, int) else width},
        )
        self._make_controls()
        self.observe(self._begin, "case")
        self.observe(self._show, "policy")
        self.observe(self._begin if one_by_one else self._show, "cache_bytes")
        self._begin()

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def table(self) -> pl.DataFrame:
        """All figures of the case that are known so far, a row for each size and policy."""
        figures = list(self._figures_of_case)
        schema = {"cache_bytes": pl.Int64, "policy": pl.String} | dict.fromkeys(figures, pl.Float64)
        rows = []
        for column, size in enumerate(self.sizes):
            for policy in POLICIES:
                ratios = self._sweep.results.get((self.case, policy))
                known = self._sweep.results.get((self.case, size, policy), {})
                known = known | {MISS_RATIO: None if ratios is None else ratios[column]}
                rows.append(
                    {"cache_bytes": size, "policy": policy} | {name: known.get(name) for name in figures}
                )
        return pl.DataFrame(rows, schema=schema)

    @property
    def running(self) -> bool:
        """Whether replays and simulations are under way."""
        return self._sweep.running

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until everything is replayed and simulated; return whether it is."""
        return self._sweep.wait(seconds)

    def stop(self) -> None:
        """Stop simulating; what is known stays."""
        self._sweep.stop()
        self._show()

    def go_on(self, *, all_sizes: bool = True) -> None:
        """Simulate what is not known yet, the chosen size first, or only that."""
        case, name = self.cases[self.case], self.case
        tasks: dict[Hashable, Callable[[], Any]] = {
            (name, policy): functools.partial(case.miss_ratios, self.sizes, policy) for policy in POLICIES
        }
        if case.run:
            for size in sorted(self.sizes, key=lambda size: size != self.cache_bytes):
                for policy in self.policies:
                    tasks[name, size, policy] = functools.partial(case.figures, size, policy)
        self._tasks = tuple(tasks)
        others = {(name, size, policy) for size in self.sizes for policy in self.policies}
        others -= {(name, self.cache_bytes, policy) for policy in self.policies}
        self._sweep.start({task: act for task, act in tasks.items() if all_sizes or task not in others})

    # --- controls ---------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        self._make_choices()
        self.progress = widgets.IntProgress(
            description="Simulated",
            tooltip="How much is replayed and simulated",
            style={"description_width": "75px"},
        )
        self.stop_button = button(
            "Stop", "", lambda: self.stop() if self.running else self._do_all(), width="90px"
        )
        self._about, self._status, self._of_map, self._at_this_size = (
            widgets.HTML(layout={"min_width": "0"}) for _ in range(4)
        )
        self.chart = LiveChart(height=390)
        self.map = ClickableMap(columns=len(self.sizes), cells=len(self.sizes) * len(self.policies))
        self.map.observe(self._choose_cell, "cell")
        self.figure_choice.observe(self._show, "value")
        of_map = widgets.VBox(
            [self._of_map, self.map], layout={"flex": f"0 1 {map_width(len(self.sizes))}px", "min_width": "0"}
        )
        self.export = Export("read_cache", lambda: self._curves().to_altair(), lambda: self.table)
        self.children = [
            Look(),
            row([self.case_choice, self.policy_choice, self.size_choice], gap=_GAP),
            row([self.figure_choice, self.progress, self.stop_button], gap=_GAP),
            *(self._about, self._status),
            row([of_map, self._at_this_size], gap=_GAP),
            *(self.chart, self.export),
        ]

    def _make_choices(self) -> None:
        figures = [(FIGURES[name][0], name) for name in self._figures_of_case]
        names = [(case.name, key) for key, case in self.cases.items()]
        self.case_choice = dropdown(
            "Case", names, "What is asked of the read cache", width="390px", label_width="50px"
        )
        self.policy_choice = dropdown(
            "Policy",
            [(POLICIES[name].name, name) for name in self.policies],
            "Which block leaves a full cache",
            width="170px",
            label_width="50px",
        )
        self.size_choice = widgets.SelectionSlider(
            options=[(size_text(size), size) for size in self.sizes],
            description="Cache size",
            tooltip="How much the read cache holds",
            continuous_update=True,
            layout={"flex": "1 1 320px", "max_width": "620px"},
            style={"description_width": "75px"},
        )
        self.figure_choice = dropdown(
            "Show",
            figures,
            "Which figure the map and the chart at the right show",
            width="390px",
            label_width="50px",
        )
        widgets.link((self, "case"), (self.case_choice, "value"))
        widgets.link((self, "policy"), (self.policy_choice, "value"))
        widgets.link((self, "cache_bytes"), (self.size_choice, "value"))

    def _choose_cell(self, change: Any) -> None:
        if change["new"] >= 0:
            row, column = divmod(change["new"], len(self.sizes))
            self.policy, self.cache_bytes = self.policies[row], self.sizes[column]

    def _begin(self, change: Any = None) -> None:
        """Work out what is missing, and show it as it comes."""
        self.go_on(all_sizes=not self._one_by_one)
        self._show()

    def _do_all(self) -> None:
        self.go_on()
        self._show()

    @property
    def _figures_of_case(self) -> tuple[str, ...]:
        return tuple(FIGURES) if self.cases[self.case].run else (MISS_RATIO,)

    # --- showing ----------------------------------------------------------------------------------------

    def _curves(self) -> VegaLite:
        case, figure = self.cases[self.case], self.figure_choice.value
        return curves(self.table, figure, self.cache_bytes, self.policy, case.name)

    def _show(self, change: Any = None) -> None:
        with self._lock:  # the sweep's thread shows what it has found
            case, table, figure = self.cases[self.case], self.table, self.figure_choice.value
            self.progress.max = len(self._tasks)
            self.progress.value = sum(name in self._sweep.results for name in self._tasks)
            self.stop_button.description = (
                "Stop" if self.running else "All sizes" if self._one_by_one else "Go on"
            )
            self.stop_button.tooltip = "Stop simulating" if self.running else "Simulate what is missing"
            self.stop_button.disabled = self.progress.value == self.progress.max
            self._about.value = styled(f'<span class="soft">{escape(case.about)}</span>')
            sentence = sentence_of(table, self.cache_bytes, self.policy)
            if self._sweep.error:
                sentence = f"Not all could be simulated: {self._sweep.error}. {sentence}"
            self._status.value = styled(f'<p role="status" aria-live="polite">{escape(sentence)}</p>')
            self.chart.draw(self._curves())
            self._at_this_size.value = styled(table_at(table, self.cache_bytes, self.policy))
            of_policy = [table.filter(policy=policy)[figure].to_list() for policy in self.policies]
            self.map.svg = heat_map(of_policy, figure, self.sizes, self.policies)
            what = "simulated restore" if case.run else "replay"
            self._of_map.value = styled(
                f"<b>{escape(FIGURES[figure][0])}</b> <span class='soft'>· each cell is a {what}: "
                "green near the best, red near the worst; click one</span>"
            )
            self.map.label = f"Map of policies and sizes: {FIGURES[figure][0]}"
            self.map.text = sentence
            row, column = self.policies.index(self.policy), self.sizes.index(self.cache_bytes)
            self.map.cell = row * len(self.sizes) + column

    @property
    def sentence(self) -> str:
        """What is seen, in words."""
        return sentence_of(self.table, self.cache_bytes, self.policy)
