"""The predictor explorer: what a budget buys, block by block and file by file, and why."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from html import escape
from typing import Any

import ipywidgets as widgets
import polars as pl
import traitlets

from vmrestorekit.plan import DEFAULT_BLOCK_BYTES, MODES
from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.oracles import OracleOrder
from vmrestorekit.restore.hardware import Hardware, resolve_hardware
from vmrestorekit.show.chart_frame import Chart
from vmrestorekit.show.controls import button, row
from vmrestorekit.show.export import Export
from vmrestorekit.show.live_chart import LiveChart
from vmrestorekit.show.look import Look
from vmrestorekit.show.prediction import tables
from vmrestorekit.show.prediction.block import BlockPanel
from vmrestorekit.show.prediction.charts import NO_PREDICTION, ORACLE, Prepared, by_budget, changing_values
from vmrestorekit.show.prediction.checks import PredictorExplorerError, expect_predictors
from vmrestorekit.show.prediction.data import CURVE_SCHEMA, Needs, Prediction, budget_curve, known_of_files
from vmrestorekit.show.prediction.stalls import Stalls
from vmrestorekit.show.theme import styled
from vmrestorekit.traces.boots import Boot

__all__ = ["PredictorExplorer", "PredictorExplorerError"]

_SECONDS_BETWEEN_LOOKS = 0.5
_GAP = "4px 20px"
_DESCRIBED = {"description_width": "70px"}


class PredictorExplorer(widgets.VBox):  # type: ignore[misc]
    """Choose how much may be staged, and see what a predictor finds, misses and wastes of a boot.

    Predictors are asked once, when the widget is made; moving the slider only looks up. How long the boot is
    held up is simulated in the background, for each budget that the slider offers.

    Parameters
    ----------
    predictor : BlockPredictor or mapping of str to BlockPredictor
        Fitted, and not on this boot; several are compared, by their names.
    boot : Boot
        A recorded boot; predictors are shown the disks before it only.
    hardware : Hardware or str
        Or the name of a preset.
    mode : {"live_mount", "instant_restore"}
        Of the simulated restores. A live mount stages nothing but what was predicted.
    block_bytes : int
        Size of a block of the read cache.
    simulate : bool
        Whether to begin with the simulations at once; else `simulate` or its button does.
    width : int or str
        Pixels, or a CSS length.

    Attributes
    ----------
    predictor : str
        The name of the chosen one.
    step : int
        Which budget of `budgets` is chosen.
    block : int
        The chosen block of the read cache, -1 for none.
    budgets : tuple of int
        In blocks.

    Raises
    ------
    ValueError
        If an argument is none of these, the predictor is not fitted or cannot say anything of these disks, or
        the boot never ended.
    """

    predictor = traitlets.Unicode()
    step = traitlets.Int(0, min=0)
    block = traitlets.Int(-1, min=-1)

    def __init__(
        self,
        predictor: BlockPredictor | Mapping[str, BlockPredictor],
        boot: Boot,
        hardware: Hardware | str = "object_storage",
        *,
        mode: str = "live_mount",
        block_bytes: int = DEFAULT_BLOCK_BYTES,
        simulate: bool = True,
        width: int | str = "100%",
    ) -> None:
        named = expect_predictors(predictor)
        if not isinstance(boot, Boot):
            raise PredictorExplorerError(f"boot: expected a recorded Boot, got {type(boot).__name__}")
        if mode not in MODES[1:]:
            raise PredictorExplorerError(f"mode: expected one of {', '.join(MODES[1:])}, got {mode!r}")
        if isinstance(width, bool) or not isinstance(width, int | str):
            raise PredictorExplorerError(f"width: expected pixels or a CSS length, got {width!r}")
        self.hardware = resolve_hardware(hardware)
        self.needs = Needs.of(boot, block_bytes)
        asked = named | {ORACLE: OracleOrder().fit(boot)}
        self.predictions = {name: Prediction.of(name, each, self.needs) for name, each in asked.items()}
        self.names = tuple(named)
        self.budgets = self.needs.grid
        self._curves = pl.concat([budget_curve(each) for each in self.predictions.values()])
        self._known: dict[str, dict[Any, str]] = {}
        self._lock, self._looked = threading.Lock(), 0.0
        self._stalls = Stalls(self.needs, self.predictions, self.hardware, mode, self._tell_of_work)
        step = self.budgets.index(self.needs.usual)
        layout = {"width": f"{width}px" if isinstance(width, int) else width}
        super().__init__(predictor=self.names[0], step=step, layout=layout)
        self._make()
        self._prepared = Prepared(self._whole_chart())
        self._show()
        self.observe(self._show, ["predictor", "step"])
        if simulate:
            self.simulate()

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def prediction(self) -> Prediction:
        """What the chosen predictor says."""
        return self.predictions[self.predictor]

    @property
    def budget(self) -> int:
        """The chosen budget in blocks."""
        return self.budgets[self.step]

    @property
    def running(self) -> bool:
        """Whether restores are being simulated."""
        return self._stalls.running

    @property
    def curves(self) -> pl.DataFrame:
        """Recall, precision, waste and, as far as it is known, stall of all predictors and both bounds."""
        grid = {self.needs.megabytes(budget): budget for budget in self.budgets}
        known = dict(self._stalls.seconds)
        nothing = pl.DataFrame(
            [(NO_PREDICTION, mb, 0.0, 0.0, None, 0.0) for mb in grid], CURVE_SCHEMA, orient="row"
        )
        frame = pl.concat([self._curves, nothing])
        stalls = [
            known.get((name, 0 if name == NO_PREDICTION else grid[mb]))
            for name, mb in frame.select("predictor", "budget_mb").iter_rows()
        ]
        return frame.with_columns(stall_s=pl.Series(stalls, dtype=pl.Float64))

    @property
    def files(self) -> pl.DataFrame:
        """What the chosen predictor misses, wastes and finds of each file with the chosen budget."""
        return self.files_at(self.predictor, self.step)

    def files_at(self, predictor: str, step: int) -> pl.DataFrame:
        """Return the same for another predictor and budget, by its place in `budgets`, without showing it."""
        if predictor not in self._known:
            self._known[predictor] = known_of_files(self.predictions[predictor])
        known = self._known[predictor]
        return tables.with_reasons(self.predictions[predictor], self.budgets[step], known)

    def simulate(self) -> None:
        """Begin to simulate, or go on; in the background."""
        self._stalls.start()
        self._show_work()

    def stop(self) -> None:
        """Stop simulating; what is known stays."""
        self._stalls.stop()

    def wait(self) -> None:
        """Wait until everything is simulated, or the work was stopped."""
        self._stalls.wait()

    def explain(self) -> str:
        """Return why the chosen predictor expects the chosen block or not, as HTML, and show it.

        Raises
        ------
        ValueError
            If no block is chosen.
        """
        return self.panel.explain()

    # --- controls ---------------------------------------------------------------------------------------

    def _make(self) -> None:
        self._make_controls()
        self._figures, self._missed, self._wasted, self._status = (
            widgets.HTML(layout={"margin": "0", "min_width": "0"}) for _ in range(4)
        )
        self.chart = LiveChart(height=330)
        self.export = Export("prediction", self._whole_chart, lambda: self.curves)
        self.panel = BlockPanel(self.needs, self.predictions, self._announce)
        widgets.link((self.panel, "block"), (self, "block"))
        self.children = [
            Look(),
            row([self.predictor_choice, self.slider], gap=_GAP),
            row([self.simulate_button, self.stop_button, self.progress], gap=_GAP),
            self._status,
            row([self._figures, self.chart], align="flex-start", gap=_GAP),
            self.panel,
            row([self._missed, self._wasted], align="flex-start", gap=_GAP),
            self.export,
        ]

    def _make_controls(self) -> None:
        self.predictor_choice = widgets.Dropdown(
            options=[*self.names, ORACLE],
            value=self.predictor,
            description="Predictor",
            tooltip="Whose choice is shown on the map and in the tables",
            layout={"width": "300px"},
            style=_DESCRIBED,
        )
        budgets = [f"{self.needs.megabytes(budget):.1f} MB" for budget in self.budgets]
        self.slider = widgets.SelectionSlider(
            options=[(text, step) for step, text in enumerate(budgets)],
            value=self.step,
            description="Budget",
            tooltip="How much may be staged",
            layout={"flex": "1 1 380px", "width": "auto"},
            style=_DESCRIBED,
        )
        self.simulate_button = button("Simulate", "Simulate restores with each budget", self.simulate)
        self.stop_button = button("Stop", "Stop simulating; what is known stays", self.stop)
        self.progress = widgets.IntProgress(
            max=len(self._stalls.tasks),
            description="Restores",
            tooltip="How many of the restores are simulated",
        )
        widgets.link((self, "predictor"), (self.predictor_choice, "value"))
        widgets.link((self, "step"), (self.slider, "value"))

    @traitlets.validate("predictor")
    def _expect_name(self, proposal: Any) -> str:
        name = str(proposal["value"])
        if name not in self.predictions:
            raise PredictorExplorerError(
                f"predictor: expected one of {', '.join(self.predictions)}, got {name!r}"
            )
        return name

    @traitlets.validate("step")
    def _expect_step(self, proposal: Any) -> int:
        step = int(proposal["value"])
        if not 0 <= step < len(self.budgets):
            raise PredictorExplorerError(
                f"step: expected a budget from 0 to {len(self.budgets) - 1}, got {step}"
            )
        return step

    # --- showing ----------------------------------------------------------------------------------------

    def _show(self, change: Any = None) -> None:
        self.panel.show(self.prediction, self.budget)
        files = self.files
        self._missed.value = styled(tables.files_table(files, "missed_kib", "Missed files"))
        self._wasted.value = styled(tables.files_table(files, "wasted_kib", "Wasted files"))
        self._show_figures(self.curves, aloud=True)

    def _show_figures(self, curves: pl.DataFrame, *, aloud: bool) -> None:
        budget_mb = self.needs.megabytes(self.budget)
        figures = curves.filter(pl.col("budget_mb") == budget_mb)
        with self._lock:  # both the slider and the thread that simulates draw
            self.chart.draw(self._prepared.with_values(changing_values(curves, budget_mb)))
            self._figures.value = styled(tables.figures_table(figures, self.predictor, self.needs))
        if aloud:
            self._announce(tables.sentence(figures, self.predictor, self.needs))

    def _whole_chart(self) -> Chart:
        about = f"{self.needs.boot.vm}, {self.needs.boot.boot}: what a budget buys"
        return by_budget(self.curves, self.names, self.needs.megabytes(self.budget), about)

    def _tell_of_work(self) -> None:
        """Show how far the simulations are; called by their thread, which must not redraw all the time."""
        now = time.monotonic()
        if self._stalls.running and now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        # what somebody is just being told of a block is not to be overwritten while the work goes on
        self._show_figures(self.curves, aloud=not self._stalls.running)
        self._show_work()

    def _show_work(self) -> None:
        self.progress.value = len(self._stalls.seconds)
        running, complete = self._stalls.running, self._stalls.complete
        self.simulate_button.disabled, self.stop_button.disabled = running or complete, not running
        self.progress.bar_style = "success" if complete else "info" if running else ""
        if self._stalls.error:
            self._announce(f"A restore could not be simulated: {self._stalls.error}")

    def _announce(self, text: str) -> None:
        self._status.value = styled(f'<p role="status" aria-live="polite">{escape(text)}</p>')
