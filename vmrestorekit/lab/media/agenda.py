"""What is due when, for real: actions at instants of a clock, in the order of rule 1 of the clockwork."""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import sys
from collections.abc import Callable

__all__ = ["Agenda", "Alarm"]

Key = tuple[int, ...]
_MONOTONIC, _NONBLOCK_CLOEXEC = 1, 0o2004000


class Agenda:
    """Actions that are due at times to come; whoever is late still finds them in their order.

    Parameters
    ----------
    settle : callable
        What is done, told the time, once nothing more is due at an instant.
    """

    def __init__(self, settle: Callable[[int], None]) -> None:
        self.now = 0
        self._settle = settle
        self._due: list[tuple[int, Key, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def add(self, at_ns: int, key: Key, action: Callable[[], None]) -> None:
        """Make an action due; of those due at the same instant, the smallest key comes first."""
        heapq.heappush(self._due, (at_ns, key, next(self._numbers), action))

    @property
    def next_ns(self) -> int | None:
        """When something is due next."""
        return self._due[0][0] if self._due else None

    def advance(self, to_ns: int) -> None:
        """Live through what is due until then, each instant with its own time; time never goes back."""
        while self._due and self._due[0][0] <= to_ns:
            self.now = max(self.now, self._due[0][0])
            while self._due and self._due[0][0] <= self.now:
                heapq.heappop(self._due)[3]()
            self._settle(self.now)
        self.now = max(self.now, to_ns)


class _Moment(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Moment), ("value", _Moment))


class Alarm:
    """Calls back at a time to the microsecond, where the system has timers as files; else to the millisecond.

    The event loop's own timers are rounded up to whole milliseconds, more than what fast devices take.

    Parameters
    ----------
    ring : callable
    clock : callable
        Returns nanoseconds that never go back.
    """

    def __init__(self, ring: Callable[[], None], clock: Callable[[], int]) -> None:
        self._ring, self._clock = ring, clock
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._set_for: int | None = None
        self._descriptor = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._on_timer)

    def set(self, at_ns: int | None) -> None:
        """Ring at that time, and at no other; None: never."""
        if at_ns == self._set_for:
            return
        self._set_for = at_ns
        delay = 0 if at_ns is None else max(1, at_ns - self._clock())  # 0 would disarm the timer
        if self._descriptor >= 0:
            setting = _Setting(_Moment(0, 0), _Moment(*divmod(delay, 1_000_000_000)))
            self._libc.timerfd_settime(self._descriptor, 0, ctypes.byref(setting), None)
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None if at_ns is None else self._loop.call_later(delay / 1e9, self._on_time)

    def close(self) -> None:
        """Never ring again."""
        self.set(None)
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _on_timer(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # it was set anew in the meantime
        self._on_time()

    def _on_time(self) -> None:
        self._set_for = None
        self._ring()
