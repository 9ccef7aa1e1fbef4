"""The clock of the slow model (`simpy_model`): rule 1's order of an instant, and devices as SimPy processes.

A device is a process that waits for its turn and for time to pass. What it finishes it puts on the `Agenda`,
which takes what is due at one instant in the order of rule 1 of `docs/clockwork.md`. A `Schedule` is what one
virtual machine has on the agenda.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Callable, Generator

import simpy

from vmrestorekit.restore import hardware as hw

LAST_NUMBER = 2**31 - 1  # rule 1: of staging, and of applying writes

# rule 1: classes of what is due
FETCHED, ARRIVED, DESTINATION, WRITE_CACHE, PURGE, MODE, ISSUE = range(7)

NO_MACHINE = -1  # rule 12: a media agent goes away before the modes of machine 0 change

Event = tuple[int, str, int, int, int, int, int]  # the last one is the virtual machine
Key = tuple[int, int, int, int]  # rule 1, within an instant: class, virtual machine, number, block
Action = Callable[[], None]
Process = Generator[simpy.Event, None, None]


def do_nothing() -> None:
    """Stand for an action that nobody has asked for."""


def transfer_ns(size: int, bandwidth: int) -> int:
    """Return the nanoseconds that `size` bytes take, rounded up."""
    return -(-size * 1_000_000_000 // bandwidth)


class Agenda:
    """Rule 1: what is due at this instant, taken smallest key first; and the notes of what happened."""

    def __init__(self) -> None:
        self.env = simpy.Environment()
        self.events: list[Event] = []
        self._due: list[tuple[Key, Action]] = []

    @property
    def now(self) -> int:
        return int(self.env.now)

    def note(
        self, machine: int, kind: str, block: int = -1, count: int = 0, request: int = -1, detail: int = 0
    ) -> None:
        self.events.append((self.now, kind, block, count, request, detail, machine))

    def add(self, key: Key, action: Action) -> None:
        """Make an action due at this instant."""
        assert not self.is_due(key), f"two things are due at {self.now} with the same key {key}"
        heapq.heappush(self._due, (key, action))

    def is_due(self, key: Key) -> bool:
        return any(key == other for other, _ in self._due)

    def add_later(self, delay: int, key: Key, action: Action, unless_due: bool = False) -> None:
        """Make an action due after `delay`, which may be 0; or leave it at one that is due by then."""

        def timer() -> Process:
            yield self.env.timeout(delay)
            if not (unless_due and self.is_due(key)):
                self.add(key, action)

        self.env.process(timer())

    def run(self, dispatch: Action) -> None:
        """Live through one instant after the other until nothing is left to happen."""
        self._settle()
        while True:
            something_was_due = bool(self._due)
            while self._due:
                _, action = heapq.heappop(self._due)
                action()
                self._settle()
            if something_was_due:
                dispatch()
                self._settle()
            elif self.env.peek() == math.inf:
                return
            else:
                self.env.step()
                self._settle()

    def _settle(self) -> None:
        """Let SimPy do all it has to do at this very instant, so that the agenda knows all that is due."""
        while self.env.peek() <= self.env.now:
            self.env.step()


class Schedule:
    """What one virtual machine has on the agenda; and rule 10: what is left of it after its expiry."""

    def __init__(self, agenda: Agenda, machine: int) -> None:
        self.agenda, self.machine = agenda, machine
        self.expired = False
        self.under_way = 0  # operations handed to a device that have not ended
        self._when_all_have_ended: Action = do_nothing

    @property
    def now(self) -> int:
        return self.agenda.now

    def note(self, kind: str, block: int = -1, count: int = 0, request: int = -1, detail: int = 0) -> None:
        self.agenda.note(self.machine, kind, block, count, request, detail)

    def add(self, what: int, number: int, action: Action) -> None:
        """Make an action due at this instant; it comes to nothing if the machine has expired by then."""
        self.agenda.add((what, self.machine, number, -1), lambda: self._unless_expired(action))

    def add_later(self, delay: int, what: int, number: int, action: Action, unless_due: bool = False) -> None:
        key = (what, self.machine, number, -1)
        self.agenda.add_later(delay, key, lambda: self._unless_expired(action), unless_due)

    def _unless_expired(self, action: Action) -> None:
        if not self.expired:
            action()

    def begin_operation(self) -> None:
        """An operation is handed to a device."""
        self.under_way += 1

    def end_operation(self) -> None:
        self.under_way -= 1
        if self.expired and self.under_way == 0:
            self._when_all_have_ended()

    def expire(self, when_all_have_ended: Action) -> None:
        """Rule 10: what was handed to a device ends, without effect."""
        self.expired = True
        self._when_all_have_ended = when_all_have_ended
        if self.under_way == 0:
            when_all_have_ended()


class Volume:
    """Rule 1: destination or write cache, one operation at a time, first come first served."""

    def __init__(self, schedule: Schedule, what: int, spec: hw.PrimaryStorage) -> None:
        self.schedule, self.what, self.spec = schedule, what, spec
        self.env = schedule.agenda.env
        self.turns = simpy.Resource(self.env, 1)

    def hand_over(self, number: int, size: int, action: Action) -> None:
        self.schedule.begin_operation()
        self.env.process(self._operate(number, size, action))

    def _operate(self, number: int, size: int, action: Action) -> Process:
        with self.turns.request() as turn:
            yield turn
            yield self.env.timeout(self.spec.latency_ns + transfer_ns(size, self.spec.bandwidth))

        def complete() -> None:
            if not self.schedule.expired:
                action()
            self.schedule.end_operation()

        self.schedule.agenda.add((self.what, self.schedule.machine, number, -1), complete)


class Link:
    """Rule 1: busy for the transfer alone; the arrival comes a latency later."""

    def __init__(self, agenda: Agenda, spec: hw.Link) -> None:
        self.agenda, self.spec = agenda, spec
        self.turns = simpy.Resource(agenda.env, 1)
        self.carried: list[Schedule] = []  # of each transmission that was handed over and has not arrived
        self.is_lost = False

    def hand_over(self, schedule: Schedule, number: int, block: int, size: int, action: Action) -> None:
        schedule.begin_operation()
        self.carried.append(schedule)
        self.agenda.env.process(self._transmit(schedule, number, block, size, action))

    def _transmit(self, schedule: Schedule, number: int, block: int, size: int, action: Action) -> Process:
        with self.turns.request() as turn:
            yield turn
            yield self.agenda.env.timeout(transfer_ns(size, self.spec.bandwidth))
        yield self.agenda.env.timeout(self.spec.latency_ns)

        def arrive() -> None:
            self.carried.remove(schedule)
            action()
            schedule.end_operation()

        if not self.is_lost:
            self.agenda.add((ARRIVED, schedule.machine, number, block), arrive)

    def lose(self) -> None:
        """Rule 12: the media agent goes away, and what its link carries with it."""
        self.is_lost = True
        for schedule in self.carried:
            schedule.end_operation()


@dataclasses.dataclass
class Channel:
    """Rule 6: a channel of the backup device; `position` is None before its first fetch."""

    number: int
    position: int | None = None
    idle: bool = True


class BackupDevice:
    """Rule 6: channels, and what a fetch costs on each."""

    def __init__(self, agenda: Agenda, number: int, spec: hw.BackupDevice) -> None:
        self.agenda, self.number, self.spec = agenda, number, spec
        self.channels = [Channel(number) for number in range(spec.channels)]
        self._joined = itertools.count()

    @property
    def has_idle_channel(self) -> bool:
        return any(channel.idle for channel in self.channels)

    @property
    def is_idle(self) -> bool:
        return all(channel.idle for channel in self.channels)

    def next_to_join(self) -> int:
        """Number the fetches that join a queue for this device."""
        return next(self._joined)

    def start(self, key: Callable[[], Key | None], address: int, size: int, action: Action) -> None:
        """Take the lowest idle channel that stands at the address, else the lowest idle one.

        Parameters
        ----------
        key
            Of the completion, asked for when it comes; None if it has no effect but on the channel.
        """
        idle = [channel for channel in self.channels if channel.idle]
        standing_there = [channel for channel in idle if channel.position == address]
        channel = (standing_there or idle)[0]
        channel.idle = False
        self.agenda.env.process(self._fetch(channel, key, address, size, action))

    def _fetch(
        self, channel: Channel, key: Callable[[], Key | None], address: int, size: int, action: Action
    ) -> Process:
        yield self.agenda.env.timeout(self._cost_ns(channel.position, address, size))
        channel.position = address + size
        channel.idle = True
        without_effect = (FETCHED, LAST_NUMBER, self.number, channel.number)
        self.agenda.add(key() or without_effect, action)

    def _cost_ns(self, position: int | None, address: int, size: int) -> int:
        cost = transfer_ns(size, self.spec.bandwidth)
        if position == address:
            return cost
        distance = abs(address - (position or 0))
        cost += self.spec.positioning_ns + distance * self.spec.distance_ns_per_gib // 2**30
        return cost + self.spec.mount_ns if position is None else cost
