"""Restores that were asked for: each is simulated once, aside, so that one can wait for it or give it up."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.chart_data import classify_reads
from vmrestorekit.show.course import course
from vmrestorekit.show.relocation.charts import courses
from vmrestorekit.show.relocation.choices import Choice
from vmrestorekit.show.relocation.picture import Picture
from vmrestorekit.show.relocation.reasons import compare_figures, reasons, what_differs

__all__ = ["Comparison", "Job", "Run", "Runs", "compare", "run_of"]

_KEPT_RUNS, _KEPT_COMPARISONS = 16, 32


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A choice, what came of it, and the reads of its virtual machine by where they were served."""

    choice: Choice
    timeline: Timeline
    reads: pl.DataFrame


def run_of(choice: Choice, timeline: Timeline) -> Run:
    """Return a run whose every state is found quickly from now on."""
    timeline.state_at(-1)  # keeps where everything is after every few thousand events
    return Run(choice, timeline, classify_reads(timeline))


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What differs between two runs: in a sentence, why, in figures, over time, and as a picture."""

    sentence: str
    reasons: list[str]
    figures: pl.DataFrame
    courses: pl.DataFrame
    picture: Picture


def compare(reference: Run, this: Run) -> Comparison:
    """Return what differs between two runs."""
    timelines = reference.timeline, this.timeline
    end_ns = max(timeline.end_ns for timeline in timelines)
    one, other = (course(run.timeline, end_ns, run.reads) for run in (reference, this))
    return Comparison(
        sentence=what_differs(*timelines),
        reasons=reasons(*timelines),
        figures=compare_figures(*timelines),
        courses=courses(one, other),
        picture=Picture(timelines, (one, other), end_ns),
    )


class Runs:
    """The latest runs, and what differs between them; each is worked out once."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Choice, Run] = OrderedDict()
        self._compared: OrderedDict[tuple[Choice, Choice], Comparison] = OrderedDict()

    def get(self, choice: Choice) -> Run | None:
        """Return the run of a choice, if it is kept."""
        return self._runs.get(choice)

    def keep(self, run: Run) -> Run:
        """Keep a run, and return it."""
        self._runs[run.choice] = run
        while len(self._runs) > _KEPT_RUNS:
            self._runs.popitem(last=False)
        return run

    def compare(self, reference: Run, this: Run) -> Comparison:
        """Return what differs between two runs."""
        key = reference.choice, this.choice
        if key not in self._compared:
            self._compared[key] = compare(reference, this)
            while len(self._compared) > _KEPT_COMPARISONS:
                self._compared.popitem(last=False)
        return self._compared[key]


class Job:
    """Steps that are done one after the other in a thread of their own.

    Parameters
    ----------
    steps : sequence of callable
        Each is given what the one before returned, the first None.
    on_step : callable
        Called in that thread with the number of steps done.
    """

    def __init__(self, steps: Sequence[Callable[[Any], Any]], on_step: Callable[[int], None]) -> None:
        self._steps, self._on_step = steps, on_step
        self._stopped = False
        self.result: Any = None
        self.error: Exception | None = None
        self.finished = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up: a step that is under way ends, none follows, and nobody is told."""
        self._stopped = True

    def _work(self) -> None:
        try:
            for number, step in enumerate(self._steps):
                if self._stopped:
                    return
                self.result = step(self.result)
                if not self._stopped:
                    self._on_step(number + 1)
        except Exception as error:  # whoever waits is to be told in its own thread
            self.error = error
        finally:
            self.finished.set()
        if not self._stopped:
            self._on_step(len(self._steps) + 1)
