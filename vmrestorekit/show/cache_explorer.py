"""The cache explorer: what the size of the read cache, and what it throws out, do to a restore."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import numpy.typing as npt
import polars as pl
import traitlets

from vmrestorekit.plan import EVICTION_POLICIES, RestorePlan
from vmrestorekit.restore.hardware import Hardware, resolve_hardware
from vmrestorekit.restore.replay import block_accesses, replay_cache
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.cache_charts import (
    FIGURES,
    MISS_RATIO,
    POLICIES,
    Case,
    VegaLite,
    cases_of,
    curves,
    heat_map,
    sentence_of,
    table_at,
)
from vmrestorekit.show.clickable_map import ClickableMap
from vmrestorekit.show.export import Export
from vmrestorekit.show.live_chart import LiveChart
from vmrestorekit.show.theme import STYLE, styled
from vmrestorekit.show.units import size as size_text
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["CacheExplorer", "CacheExplorerError"]

_MIB = 1 << 20
_SIZES_MIB = (1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 512, 1024)
_SECONDS_BETWEEN_LOOKS = 0.3


class CacheExplorerError(ValueError):
    """What the explorer was given is not as expected."""


class Sweep:
    """Works through tasks in a thread of its own, one after the other; can be stopped, and goes on.

    Parameters
    ----------
    tell : callable
        Called after tasks, not too often, and once when all are done or the work is stopped.

    Attributes
    ----------
    results : dict
        By the tasks' names.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self.results: dict[Hashable, Any] = {}
        self.error = ""
        self._tell, self._stopped = tell, threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None and self._thread.is_alive() and not self._stopped.is_set()

    def start(self, tasks: Mapping[Hashable, Callable[[], Any]]) -> None:
        """Do these tasks, but those that are done; leave others that are under way."""
        self.stop()
        self._stopped, self.error = threading.Event(), ""
        self._thread = threading.Thread(target=self._work, args=(dict(tasks), self._stopped), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the task that is under way."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all is done; return whether it is."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.running

    def _work(self, tasks: dict[Hashable, Callable[[], Any]], stopped: threading.Event) -> None:
        looked = time.monotonic()
        for name, task in tasks.items():
            if stopped.is_set():
                return
            if name not in self.results:
                try:
                    self.results[name] = task()
                except Exception as error:  # in a thread nobody else would hear of it
                    self.error = f"{type(error).__name__}: {error}"
                    break
            if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
                self._tell()
                looked = time.monotonic()
        stopped.set()
        self._tell()


class CacheExplorer(widgets.VBox):  # type: ignore[misc]
    """Choose a size and an eviction policy of the read cache, and see what becomes of a restore.

    All sizes and policies are replayed and simulated in the background; moving a control only looks up.

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
        width: int | str = "100%",
    ) -> None:
        self.cases = _cases(boot_or_accesses, plan, tuple(clones), resolve_hardware(hardware))
        self.sizes = _expect_sizes(sizes_mib, max(each.block_bytes for each in self.cases.values()))
        self.policies = tuple(name for name in POLICIES if name in EVICTION_POLICIES)
        case = next(iter(self.cases)) if case is None else case
        _expect_one_of("case", case, self.cases)
        _expect_one_of("policy", policy, self.policies)
        size = _first_size(self.sizes) if size_mib is None else size_mib * _MIB
        _expect_one_of("size_mib", size, self.sizes)
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
        self.observe(self._show, ["policy", "cache_bytes"])
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

    def go_on(self) -> None:
        """Simulate what is not known yet, the chosen size first."""
        case, name = self.cases[self.case], self.case
        tasks: dict[Hashable, Callable[[], Any]] = {
            (name, policy): functools.partial(_miss_ratios, case, self.sizes, policy) for policy in POLICIES
        }
        if case.run:
            for size in sorted(self.sizes, key=lambda size: size != self.cache_bytes):
                for policy in self.policies:
                    tasks[name, size, policy] = functools.partial(case.figures, size, policy)
        self._tasks = tuple(tasks)
        self._sweep.start(tasks)

    # --- controls ---------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        figures = [(FIGURES[name][0], name) for name in self._figures_of_case]
        names = [(case.name, key) for key, case in self.cases.items()]
        self.case_choice = _dropdown("Case", names, "What is asked of the read cache", "390px")
        self.policy_choice = _dropdown(
            "Policy",
            [(POLICIES[name].name, name) for name in self.policies],
            "Which block leaves a full cache",
            "170px",
        )
        self.size_choice = widgets.SelectionSlider(
            options=[(size_text(size), size) for size in self.sizes],
            description="Cache size",
            tooltip="How much the read cache holds",
            continuous_update=True,
            layout={"flex": "1 1 320px", "max_width": "620px"},
            style={"description_width": "75px"},
        )
        self.figure_choice = _dropdown(
            "Show", figures, "Which figure the map and the chart at the right show", "390px"
        )
        widgets.link((self, "case"), (self.case_choice, "value"))
        widgets.link((self, "policy"), (self.policy_choice, "value"))
        widgets.link((self, "cache_bytes"), (self.size_choice, "value"))
        self.progress = widgets.IntProgress(
            description="Simulated",
            tooltip="How much is replayed and simulated",
            style={"description_width": "75px"},
        )
        self.stop_button = widgets.Button(description="Stop", layout={"width": "90px"})
        self.stop_button.on_click(lambda _: self.stop() if self.running else self._begin())
        self._about, self._status, self._of_map, self._at_this_size = (
            widgets.HTML(layout={"min_width": "0"}) for _ in range(4)
        )
        self.chart = LiveChart(height=390)
        self.map = ClickableMap(columns=len(self.sizes), cells=len(self.sizes) * len(self.policies))
        self.map.observe(self._choose_cell, "cell")
        self.figure_choice.observe(self._show, "value")
        of_map = widgets.VBox([self._of_map, self.map], layout={"flex": "0 1 740px", "min_width": "0"})
        self.export = Export("read_cache", lambda: self._curves().to_altair(), lambda: self.table)
        self.children = [
            widgets.HTML(STYLE, layout={"display": "none"}),
            _row(self.case_choice, self.policy_choice, self.size_choice),
            _row(self.figure_choice, self.progress, self.stop_button),
            *(self._about, self._status, _row(of_map, self._at_this_size), self.chart, self.export),
        ]

    def _choose_cell(self, change: Any) -> None:
        if change["new"] >= 0:
            row, column = divmod(change["new"], len(self.sizes))
            self.policy, self.cache_bytes = self.policies[row], self.sizes[column]

    def _begin(self, change: Any = None) -> None:
        """Work out what is missing, and show it as it comes."""
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
            self.stop_button.description = "Stop" if self.running else "Go on"
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
                f"<b>{escape(FIGURES[figure][0])}</b> <span class='soft'>· each cell is a {what}, "
                "from green, near the best, to red, near the worst; click, or use the arrow keys</span>"
            )
            self.map.label = f"Map of policies and sizes: {FIGURES[figure][0]}"
            self.map.text = sentence
            row, column = self.policies.index(self.policy), self.sizes.index(self.cache_bytes)
            self.map.cell = row * len(self.sizes) + column

    @property
    def sentence(self) -> str:
        """What is seen, in words."""
        return sentence_of(self.table, self.cache_bytes, self.policy)


def _cases(
    given: Boot | ReadTrace | npt.ArrayLike,
    plan: RestorePlan | None,
    clones: tuple[Boot, ...],
    hardware: Hardware,
) -> dict[str, Case]:
    """Return what there is to be asked of the cache, by its key."""
    if isinstance(given, Boot):
        plan = RestorePlan(given.disk_bytes) if plan is None else plan
        if not isinstance(plan, RestorePlan):
            raise CacheExplorerError(f"plan: expected a RestorePlan, got {type(plan).__name__}")
        if plan.disk_bytes != given.disk_bytes:
            raise CacheExplorerError(
                f"plan: expected one for the disks of {given.vm} {given.disk_bytes}, got {plan.disk_bytes}"
            )
        for number, clone in enumerate(clones):
            if not isinstance(clone, Boot):
                raise CacheExplorerError(f"clones[{number}]: expected a Boot, got {type(clone).__name__}")
        warmup()
        return cases_of(given, plan, clones, hardware)
    if plan is not None or clones:
        raise CacheExplorerError("plan, clones: expected a Boot to restore, got accesses alone")
    if isinstance(given, ReadTrace):
        return {"accesses": _counted(block_accesses(given), f"Reads of {given.metadata.vm}")}
    accesses = np.asarray(given)
    if accesses.ndim != 1 or not accesses.size or accesses.dtype.kind not in "iu":
        raise CacheExplorerError(
            "boot_or_accesses: expected a Boot, a ReadTrace or a list of block numbers, got "
            f"{type(given).__name__} (as an array {accesses.dtype} of shape {accesses.shape})"
        )
    return {"accesses": _counted(accesses, "Accesses")}


def _counted(accesses: npt.NDArray[Any], name: str) -> Case:
    about = (
        f"{len(accesses):,} accesses to {len(np.unique(accesses)):,} blocks of 64 KiB, replayed without time."
    )
    return Case(name, about, lambda: accesses, 64 << 10)


def _miss_ratios(case: Case, sizes: Sequence[int], policy: str) -> list[float]:
    """Return the miss ratio in percent for each size."""
    accesses = case.accesses
    return [100 * replay_cache(accesses, size // case.block_bytes, policy).miss_ratio for size in sizes]


def _expect_sizes(sizes_mib: Sequence[float], block_bytes: int) -> tuple[int, ...]:
    try:
        sizes = tuple(int(each * _MIB) for each in sizes_mib)
    except (TypeError, ValueError) as error:
        raise CacheExplorerError(f"sizes_mib: expected numbers, got {sizes_mib!r}") from error
    if len(sizes) < 2 or sizes[0] < block_bytes or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise CacheExplorerError(
            f"sizes_mib: expected at least two, rising, from a block of {size_text(block_bytes)} on, "
            f"got {tuple(sizes_mib)}"
        )
    return sizes


def _first_size(sizes: Sequence[int]) -> int:
    return 64 * _MIB if 64 * _MIB in sizes else sizes[len(sizes) // 2]


def _expect_one_of(name: str, value: Any, known: Iterable[Any]) -> None:
    if value not in known:
        shown = [f"{each / _MIB:g}" for each in known] if name == "size_mib" else list(known)
        got = f"{value / _MIB:g}" if name == "size_mib" else repr(value)
        raise CacheExplorerError(f"{name}: expected one of {', '.join(shown)}, got {got}")


def _row(*children: widgets.Widget) -> widgets.HBox:
    layout = {"flex_flow": "row wrap", "grid_gap": "4px 12px", "align_items": "center"}
    return widgets.HBox(children, layout=layout)


def _dropdown(text: str, options: list[tuple[str, str]], tooltip: str, width: str) -> widgets.Dropdown:
    return widgets.Dropdown(
        options=options,
        description=text,
        tooltip=tooltip,
        layout={"width": width},
        style={"description_width": "50px"},
    )
