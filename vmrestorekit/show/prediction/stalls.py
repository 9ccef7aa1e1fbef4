"""How long a boot is held up if so much of a prediction is staged: simulated in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.restore.simulate import simulate, warmup
from vmrestorekit.show.prediction.charts import NO_PREDICTION
from vmrestorekit.show.prediction.data import Needs, Prediction

__all__ = ["Stalls"]


class Stalls:
    """Simulates a restore for each prediction and budget in a thread of its own, from coarse to fine.

    Parameters
    ----------
    needs : Needs
    predictions : mapping of str to Prediction
    hardware : Hardware
    mode : str
        Of the restore.
    tell : callable
        Called without arguments after each simulation, and when the work ends; from the thread.

    Attributes
    ----------
    seconds : dict of (str, int) to float
        By prediction and budget in blocks; without a prediction the budget is 0.
    error : str
        What went wrong, empty if nothing did.
    """

    def __init__(
        self,
        needs: Needs,
        predictions: Mapping[str, Prediction],
        hardware: Hardware,
        mode: str,
        tell: Callable[[], object],
    ) -> None:
        self._needs, self._predictions, self._hardware, self._tell = needs, predictions, hardware, tell
        self._plan = RestorePlan(needs.boot.disk_bytes, mode=mode, block_bytes=needs.block_bytes)
        self.tasks = tuple(_coarse_to_fine(needs, predictions))
        self.seconds: dict[tuple[str, int], float] = {}
        self.error = ""
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None and self._thread.is_alive() and not self._stopped.is_set()

    @property
    def complete(self) -> bool:
        """Whether all is known."""
        return len(self.seconds) == len(self.tasks)

    def start(self) -> None:
        """Begin, or go on where it was stopped."""
        if self.running:
            return
        self.wait()
        self._stopped.clear()
        self.error = ""
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the simulation that is under way; what is known stays."""
        self._stopped.set()

    def wait(self) -> None:
        """Wait until all is known, or the work has been stopped."""
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        warmup()
        for name, budget in self.tasks:
            if self._stopped.is_set():
                break
            if (name, budget) not in self.seconds:
                try:
                    self.seconds[name, budget] = self._stall(name, budget)
                except Exception as error:  # in a thread nobody else would hear of it
                    self.error = f"{type(error).__name__}: {error}"
                    break
                self._tell()
        self._stopped.set()
        self._tell()

    def _stall(self, name: str, budget: int) -> float:
        first_set = np.empty(0, np.int32)
        if name != NO_PREDICTION:
            first_set = self._predictions[name].first_set(budget)
        plan = self._plan.replace(first_set=first_set)
        timeline = simulate(self._needs.boot, plan, self._hardware, detail="summary")
        stall_ns = timeline.summary()["stall_ns"]
        return float("nan") if stall_ns is None else stall_ns / 1e9


def _coarse_to_fine(needs: Needs, names: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield what is to be simulated: what is looked at first, a rough picture, then what is between."""
    done = set()
    yield NO_PREDICTION, 0
    for budgets in ((needs.usual,), *(needs.grid[::step] for step in (8, 4, 2, 1))):
        for budget in budgets:
            if budget not in done:
                done.add(budget)
                yield from ((name, budget) for name in names)
