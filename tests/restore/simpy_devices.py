"""The clock of the slow model (`simpy_model`): rule 1's order of an instant, and devices as SimPy processes.

A device is a process that waits for its turn and for time to pass. What it finishes it puts on the `Agenda`,
which takes what is due at one instant in the order of rule 1 of `docs/clockwork.md`.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable, Generator

import simpy

from vmrestorekit.restore import hardware as hw

LAST_NUMBER = 2**31 - 1  # rule 1: of staging, and of applying writes

# rule 1: classes of what is due; the set-up at 0 comes before all of them
SET_UP, FETCHED, ARRIVED, DESTINATION, WRITE_CACHE, PURGE, MODE, ISSUE = range(-1, 7)

Event = tuple[int, str, int, int, int, int]
Action = Callable[[], None]
Process = Generator[simpy.Event, None, None]


def transfer_ns(size: int, bandwidth: int) -> int:
    """Return the nanoseconds that `size` bytes take, rounded up."""
    return -(-size * 1_000_000_000 // bandwidth)


class Agenda:
    """Rule 1: what is due at this instant, taken smallest key first; and the notes of what happened."""

    def __init__(self) -> None:
        self.env = simpy.Environment()
        self.events: list[Event] = []
        self.closed = False
        self._due: list[tuple[tuple[int, int, int], Action]] = []
        self._started: list[tuple[int, simpy.Process]] = []

    @property
    def now(self) -> int:
        return int(self.env.now)

    def note(self, kind: str, block: int = -1, count: int = 0, request: int = -1, detail: int = 0) -> None:
        self.events.append((self.now, kind, block, count, request, detail))

    def add(self, what: int, number: int, block: int, action: Action) -> None:
        """Make an action due at this instant."""
        if self.closed:
            return
        key = (what, number, block)
        assert not self.is_due(key), f"two things are due at {self.now} with the same key {key}"
        heapq.heappush(self._due, (key, action))

    def is_due(self, key: tuple[int, int, int]) -> bool:
        return any(key == other for other, _ in self._due)

    def add_later(self, delay: int, what: int, number: int, action: Action) -> None:
        """Make an action due after `delay`, which may be 0."""

        def timer() -> Process:
            yield self.env.timeout(delay)
            self.add(what, number, -1, action)

        self.env.process(timer())

    def begin_operation(self) -> bool:
        """Called by a device's process when its operation starts; False: too late, rule 10."""
        process = self.env.active_process
        assert process is not None
        if not self.closed:
            self._started.append((self.now, process))
        return not self.closed

    def close(self) -> list[simpy.Process]:
        """Rule 10: nothing starts any more; return the operations that had started before this instant."""
        self.closed = True
        self._due.clear()
        return [process for start, process in self._started if start < self.now and process.is_alive]

    def run(self, dispatch: Action) -> None:
        """Live through one instant after the other until nothing is left to happen."""
        self._settle()
        while True:
            something_was_due = bool(self._due)
            while self._due:
                _, action = heapq.heappop(self._due)
                action()
                self._settle()
            if something_was_due and not self.closed:
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


class Volume:
    """Rule 1: destination or write cache, one operation at a time, first come first served."""

    def __init__(self, agenda: Agenda, what: int, spec: hw.PrimaryStorage) -> None:
        self.agenda, self.what, self.spec = agenda, what, spec
        self.turns = simpy.Resource(agenda.env, 1)

    def hand_over(self, number: int, size: int, action: Action) -> None:
        self.agenda.env.process(self._operate(number, size, action))

    def _operate(self, number: int, size: int, action: Action) -> Process:
        with self.turns.request() as turn:
            yield turn
            if not self.agenda.begin_operation():
                return
            duration = self.spec.latency_ns + transfer_ns(size, self.spec.bandwidth)
            yield self.agenda.env.timeout(duration)
        self.agenda.add(self.what, number, -1, action)


@dataclasses.dataclass(eq=False)
class Part:
    """Rule 4: a reader's need of one block of the logical source."""

    number: int
    reader: int
    block: int
    size: int
    received: Action


class Link:
    """Rule 1: busy for the transfer alone; the arrival comes a latency later."""

    def __init__(self, agenda: Agenda, spec: hw.Link) -> None:
        self.agenda, self.spec = agenda, spec
        self.turns = simpy.Resource(agenda.env, 1)

    def hand_over(self, part: Part, action: Action) -> None:
        self.agenda.env.process(self._transmit(part, action))

    def _transmit(self, part: Part, action: Action) -> Process:
        with self.turns.request() as turn:
            yield turn
            if not self.agenda.begin_operation():
                return
            yield self.agenda.env.timeout(transfer_ns(part.size, self.spec.bandwidth))
        yield self.agenda.env.timeout(self.spec.latency_ns)
        self.agenda.add(ARRIVED, part.number, part.block, action)


@dataclasses.dataclass(eq=False)
class Fetch:
    """One fetch from the backup device: neighbouring blocks for a reader, or one block for staging."""

    blocks: list[int]
    cause: int
    number: int  # of the reader's request; LAST_NUMBER for staging
    position: int = -1  # of the block in the relocation sequence, if the relocation cursor gave it

    @property
    def request(self) -> int:
        """The number as events show it."""
        return -1 if self.number == LAST_NUMBER else self.number


class BackupDevice:
    """Rule 6: channels, and what a fetch costs on each."""

    def __init__(self, agenda: Agenda, spec: hw.BackupDevice, address: list[int], block_bytes: int) -> None:
        self.agenda, self.spec, self.address, self.block_bytes = agenda, spec, address, block_bytes
        self.position: list[int | None] = [None] * spec.channels
        self.idle = set(range(spec.channels))

    def start(self, fetch: Fetch, action: Action) -> None:
        """Take the lowest idle channel that stands at the address, else the lowest idle one."""
        address = self.address[fetch.blocks[0]]
        standing_there = {channel for channel in self.idle if self.position[channel] == address}
        channel = min(standing_there or self.idle)
        self.idle.remove(channel)
        self.agenda.env.process(self._fetch(fetch, channel, address, action))

    def _fetch(self, fetch: Fetch, channel: int, address: int, action: Action) -> Process:
        self.agenda.begin_operation()
        size = len(fetch.blocks) * self.block_bytes
        yield self.agenda.env.timeout(self._cost_ns(self.position[channel], address, size))
        self.position[channel] = address + size
        self.idle.add(channel)
        self.agenda.add(FETCHED, fetch.number, fetch.blocks[0], action)

    def _cost_ns(self, position: int | None, address: int, size: int) -> int:
        cost = transfer_ns(size, self.spec.bandwidth)
        if position == address:
            return cost
        distance = abs(address - (position or 0))
        cost += self.spec.positioning_ns + distance * self.spec.distance_ns_per_gib // 2**30
        return cost + self.spec.mount_ns if position is None else cost
