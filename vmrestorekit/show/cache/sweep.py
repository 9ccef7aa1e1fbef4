"""Work that goes on in the background, and can be stopped: what the cache explorer replays and simulates."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

__all__ = ["Sweep"]

_SECONDS_BETWEEN_LOOKS = 0.3


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
