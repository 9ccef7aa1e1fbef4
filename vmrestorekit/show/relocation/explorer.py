"""Relocate in another order, at another time, with another priority: and see what differs, and why."""

from __future__ import annotations

import threading
from html import escape
from typing import Any

import ipywidgets as widgets
import polars as pl
import traitlets

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import Hardware, resolve_hardware
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.controls import row
from vmrestorekit.show.export import Export
from vmrestorekit.show.look import Look
from vmrestorekit.show.relocation.charts import relocation_chart
from vmrestorekit.show.relocation.choices import Choice, expect_together, sequences_of
from vmrestorekit.show.relocation.clock import ClockControls, next_event
from vmrestorekit.show.relocation.controls import Controls
from vmrestorekit.show.relocation.moment import Moment, TimeChart
from vmrestorekit.show.relocation.reasons import figures_table
from vmrestorekit.show.relocation.runs import Comparison, Job, Run, Runs, run_of
from vmrestorekit.show.sentences import KIND_NAMES
from vmrestorekit.show.theme import styled
from vmrestorekit.show.units import clock as clock_text
from vmrestorekit.traces.corpus import Boot

__all__ = ["RelocationExplorer"]

PATIENCE_S = 0.1  # what takes longer shows its progress, and can be stopped
_SLIDER_NS = 50_000_000  # a slider that moves by less only follows the clock


class RelocationExplorer(widgets.VBox):  # type: ignore[misc]
    """Choose how a machine is relocated, and compare it with another choice, moment by moment.

    Each choice is simulated once; after that the widget only looks at timelines.

    Parameters
    ----------
    boot : Boot
    plan : RestorePlan
        An instant restore of this boot's machine; the first reference.
    hardware : Hardware or str
        Or the name of a preset in `vmrestorekit.restore.hardware.MEDIA`.
    layout : BackupLayout, optional
        Where the blocks lie on the backup medium; default: a full backup in the order of the disks.
    choice : Choice, optional
        What is chosen at first; default: what the plan says.
    width : int or str
        Pixels, or a CSS length.

    Attributes
    ----------
    time_ns : int
        Where the clock stands.
    block : int
        Whose history is shown.

    Raises
    ------
    ValueError
        If what is given does not belong together.
    """

    time_ns = traitlets.Int(0)
    block = traitlets.Int(0)

    def __init__(
        self,
        boot: Boot,
        plan: RestorePlan,
        hardware: Hardware | str = "object_storage",
        *,
        layout: BackupLayout | None = None,
        choice: Choice | None = None,
        width: int | str = "100%",
    ) -> None:
        expect_together(boot, plan, layout, choice)
        self.boot, self.plan, self.hardware = boot, plan, resolve_hardware(hardware)
        self._layout = layout or BackupLayout.full(boot.manifests, plan.block_bytes)
        self._orders = sequences_of(boot, plan, self._layout)
        self._runs = Runs()
        self._lock, self._job = threading.RLock(), None
        own = Choice.of(plan)
        self._given = self._this = self._before = self._pinned = self._run(own)
        self.controls = Controls(own, self._orders, changed=self._ask, pin=self.pin, stop=self.stop)
        self._moment, self._time_chart = Moment(plan.blocks), TimeChart()
        self._status, self._why, self._figures = (widgets.HTML() for _ in range(3))
        self._status.layout.flex = "1 1 400px"
        self.export = Export(
            f"relocation-{boot.vm}-{boot.boot}", self._chart, lambda: self._comparison.courses
        )
        super().__init__(layout={"width": f"{width}px" if isinstance(width, int) else width})
        self.children = [
            Look(),
            self.controls,
            row([self._status, self.controls.waiting]),
            self._why,
            self._time_chart,
            *self._make_clock(),
            self._moment,
            self._figures,
            self.export,
        ]
        self._begin(choice or own)
        self.observe(self._show_moment, "time_ns")
        self.observe(self._show_block, "block")
        self._go(self._start_ns())
        self.block = self._moment.most_interesting()

    _job: Job | None

    def _begin(self, choice: Choice) -> None:
        """Show the first choice."""
        self.controls.show(choice)
        run = self._runs.get(choice) or self._run(choice)
        self._take(run, self._comparison_of(run))

    def _start_ns(self) -> int:
        started = self.timeline.next_of_kind("start_relocation", -1)
        return int(self.timeline.times[started]) if started is not None else 0

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def timeline(self) -> Timeline:
        """The restore that was chosen."""
        return self._this.timeline

    @property
    def reference(self) -> Timeline:
        """What it is compared with."""
        return self._reference.timeline

    @property
    def sentence(self) -> str:
        """What differs."""
        return self._comparison.sentence

    @property
    def reasons(self) -> list[str]:
        """Why it does, a sentence each."""
        return self._comparison.reasons

    @property
    def figures(self) -> pl.DataFrame:
        """The figures of both, in words: `figure`, `reference`, `this`, `difference`."""
        return self._comparison.figures

    @property
    def choice(self) -> Choice:
        """What the controls say."""
        return self.controls.choice

    @property
    def is_working(self) -> bool:
        """Whether a simulation is waited for."""
        return self._job is not None

    def choose(self, **changes: Any) -> None:
        """Change some of what is chosen, by the names of `Choice`.

        Raises
        ------
        ValueError
            If there is no such choice.
        """
        self.controls.show(self.controls.changed_by(changes))
        self._ask()

    def pin(self) -> None:
        """Keep this restore as the reference of those to come."""
        self._pinned = self._this
        if self.controls.compare_with.value == "pinned":
            self._ask()
        else:
            self.controls.compare_with.value = "pinned"

    def stop(self) -> None:
        """Give up the simulation that is waited for; what was shown stays."""
        if self._give_up():
            self.controls.show(self._this.choice)
            self._announce("Stopped. What you see is the restore before.")

    def next(self, kind: str | None = None) -> bool:
        """Go to the next event of a kind in this restore, after the last to the first, and to its block.

        Returns
        -------
        bool
            Whether there is one.

        Raises
        ------
        ValueError
            If there is no such kind of event.
        """
        kind = self.kind.value if kind is None else kind
        found = next_event(self.timeline, kind, self.time_ns)
        if found is None:
            self._tell_where(f"No such event in this restore: {KIND_NAMES[kind]}.")
            return False
        block = int(self.timeline.events["block"][found])
        self.time_ns = int(self.timeline.times[found])
        self.block = block if block >= 0 else self.block
        return True

    # --- the clock --------------------------------------------------------------------------------------

    def _make_clock(self) -> list[widgets.Widget]:
        """Make what moves the clock, and link it with what shows it."""
        self._clock = ClockControls(self._slid, self.next)
        self.slider, self.kind = self._clock.slider, self._clock.kind
        self.next_button = self._clock.next_button
        self._where = widgets.HTML()
        widgets.link((self, "block"), (self._moment, "block"))
        self._moment.on_time(self._go)
        self._time_chart.on_share(lambda share: self._go(int(share * self._comparison.picture.end_ns)))
        return [self._clock.row, self._where]

    def _go(self, time_ns: int) -> None:
        self.time_ns = time_ns

    def _slid(self, time_ns: int) -> None:
        if abs(time_ns - self.time_ns) > _SLIDER_NS:
            self.time_ns = time_ns

    # --- working ----------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Show what is chosen: at once if it takes no longer than a moment, else when it is simulated."""
        self._give_up()
        choice = self.choice
        job = Job(
            [
                lambda _: self._runs.get(choice) or self._simulate(choice),
                lambda found: found if isinstance(found, Run) else self._runs.keep(run_of(choice, found)),
                lambda run: (run, self._comparison_of(run)),
            ],
            lambda steps: self._stepped(job, steps),
        )
        job.start()
        if not job.finished.wait(PATIENCE_S):
            with self._lock:
                if not job.finished.is_set():
                    self._job = job
                    self.controls.show_steps(0)
                    self._announce("Simulating …")
                    return
        self._finish(job)

    def _stepped(self, job: Job, steps: int) -> None:
        """Be told by a job's thread how far it is; unless it is waited for, nobody cares."""
        with self._lock:
            if job is not self._job:
                return
            self.controls.show_steps(steps)
            if job.finished.is_set():
                self._give_up()
                self._finish(job)

    def _give_up(self) -> bool:
        """Wait for nothing any more; return whether something was waited for."""
        with self._lock:
            job, self._job = self._job, None
            if job is not None:
                job.stop()
                self.controls.show_steps(None)
            return job is not None

    def _finish(self, job: Job) -> None:
        if job.error is not None:
            self._announce(f"Not simulated: {job.error}")
        else:
            self._take(*job.result)

    def _simulate(self, choice: Choice) -> Timeline:
        plan = choice.applied(self.plan, self._orders)
        return simulate(self.boot, plan, self.hardware, layout=self._layout)

    def _run(self, choice: Choice) -> Run:
        return self._runs.keep(run_of(choice, self._simulate(choice)))

    @property
    def _reference(self) -> Run:
        runs = {"given": self._given, "pinned": self._pinned, "before": self._before}
        return runs[self.controls.compare_with.value]

    def _comparison_of(self, run: Run) -> Comparison:
        """Compare a run, which may be about to be shown, with its reference."""
        takes_over = run is not self._this and self.controls.compare_with.value == "before"
        reference = self._this if takes_over else self._reference
        return self._runs.compare(reference, run)

    # --- showing ----------------------------------------------------------------------------------------

    def _take(self, run: Run, comparison: Comparison) -> None:
        """Show a run, and what it was compared with."""
        if run is not self._this:
            self._before, self._this = self._this, run
        self._comparison = comparison
        self._announce(comparison.sentence)
        self._why.value = _details(comparison.reasons)
        self._figures.value = figures_table(comparison.figures)
        self._moment.take(self.reference, self.timeline, self.time_ns)
        self._clock.take(self.timeline, comparison.picture.end_ns)
        if self.time_ns > comparison.picture.end_ns:
            self.time_ns = comparison.picture.end_ns
        else:
            self._show_moment()

    def _show_moment(self, _: Any = None) -> None:
        self._clock.show(self.time_ns)
        self._time_chart.show(self._comparison.picture, self.time_ns)
        self._moment.show(self.time_ns)
        self._tell_where()

    def _show_block(self, _: Any = None) -> None:
        self._moment.show_block(self.time_ns)

    def _tell_where(self, remark: str = "") -> None:
        text = remark or f"At {clock_text(self.time_ns)}. {self._moment.sentence}"
        self._where.value = styled(f'<span role="status" aria-live="polite">{escape(text)}</span>')

    def _announce(self, text: str) -> None:
        self._status.value = styled(f'<p role="status" aria-live="polite">{escape(text)}</p>')

    def _chart(self) -> Any:
        title = f"Relocating {self.boot.vm}, {self.boot.boot}: this restore and the reference"
        return relocation_chart(self._comparison.courses, title)


def _details(reasons: list[str]) -> str:
    """Return reasons as HTML, hidden until somebody asks for them."""
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return styled(f"<details><summary>Why?</summary><ul>{items}</ul></details>") if reasons else ""
