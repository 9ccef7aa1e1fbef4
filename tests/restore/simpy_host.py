"""The host of the slow model (`simpy_model`): the virtual machine and its relocation.

Rules 2, 3 and 7 of `docs/clockwork.md`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter

from simpy_client import Client
from simpy_devices import DESTINATION, ISSUE, WRITE_CACHE, Action, Volume, do_nothing
from simpy_media_agent import BY_INDICATION, OF_RELOCATION, OF_VM, ascending_neighbours

from vmrestorekit.plan import first_block_of_disk
from vmrestorekit.restore import hardware as hw
from vmrestorekit.traces.schema import ReadTrace

UNIT = 4096

# rule 3: states of a unit
UNTOUCHED, WRITTEN, ZEROED, BEING_APPLIED, APPLIED = range(5)


@dataclasses.dataclass(eq=False)
class Request:
    """One row of the trace, as issued."""

    number: int
    op: str
    disk: int
    offset: int
    length: int
    block: int = -1
    count: int = 0
    issued: int = -1
    completed: bool = False


class VirtualMachine:
    """Rules 2 and 3: the closed loop, and the host's routing of its requests."""

    def __init__(self, trace: ReadTrace, hardware: hw.Hardware, client: Client) -> None:
        self.client, self.schedule = client, client.schedule
        plan = client.plan
        self.block_bytes = plan.block_bytes
        self.destination = Volume(self.schedule, DESTINATION, hardware.destination)
        self.write_cache = Volume(self.schedule, WRITE_CACHE, hardware.write_cache)
        self.first_block = first_block_of_disk(plan.disk_bytes, plan.block_bytes)
        self.units = [UNTOUCHED] * (plan.blocks * plan.block_bytes // UNIT)
        self.pivoted = False
        self.open_writes: list[Request] = []
        self.open_flushes: list[tuple[Request, list[Request]]] = []
        self.after_write: Action = do_nothing
        self.requests = [self._request(number, row) for number, row in enumerate(trace.frame.rows())]
        self.children = self._children(trace, hardware.cpu_factor)

    def _request(self, number: int, row: tuple[int, int, int, str, int, int]) -> Request:
        _, _, disk, op, offset, length = row
        request = Request(number, op, disk, offset, length)
        if op != "flush":
            first, last = (byte // self.block_bytes for byte in (offset, offset + length - 1))
            request.block, request.count = self.first_block[disk] + first, last - first + 1
        return request

    def _children(self, trace: ReadTrace, cpu_factor: float) -> dict[int, list[tuple[int, int]]]:
        """Rule 2: number of the parent (-1 for the launch) -> number and think time of each child."""
        issued, completed = (trace.frame[name].to_list() for name in ("issued_ns", "completed_ns"))
        instants = list(enumerate(issued))
        if "boot_done_ns" in trace.metadata.marks:
            instants.append((len(issued), trace.metadata.marks["boot_done_ns"]))
        children: dict[int, list[tuple[int, int]]] = {}
        for number, instant in instants:
            candidates = [(completed[row], row) for row in range(number) if completed[row] <= instant]
            ended, parent = max(candidates, default=(0, -1))
            children.setdefault(parent, []).append((number, round((instant - ended) * cpu_factor)))
        return children

    def make_children_due(self, parent: int) -> None:
        for number, think in self.children.get(parent, []):
            self.schedule.add_later(think, ISSUE, number, functools.partial(self._issue, number))

    def _issue(self, number: int) -> None:
        """Rule 2."""
        if number == len(self.requests):
            self.schedule.note("boot_done")
            return
        request = self.requests[number]
        request.issued = self.schedule.now
        self._note(f"vm_{request.op}", request, request.length)
        getattr(self, f"_{request.op}")(request)

    def _note(self, kind: str, request: Request, detail: int) -> None:
        self.schedule.note(kind, request.block, request.count, request.number, detail)

    def _complete(self, request: Request) -> None:
        request.completed = True
        self._note("vm_done", request, self.schedule.now - request.issued)
        self.make_children_due(request.number)

    # rule 3

    def _touched(self, request: Request) -> list[tuple[int, int]]:
        """Return each unit that the request touches and how many of its bytes it covers."""
        base = self.first_block[request.disk] * self.block_bytes // UNIT
        end = request.offset + request.length
        return [
            (base + unit, min(end, (unit + 1) * UNIT) - max(request.offset, unit * UNIT))
            for unit in range(request.offset // UNIT, (end - 1) // UNIT + 1)
        ]

    def _read(self, request: Request) -> None:
        self._cut_up(request, self._touched(request), lambda: self._complete(request))

    def _cut_up(self, request: Request, spans: list[tuple[int, int]], when_read: Action) -> None:
        """Rule 3: send the bytes to where they come from; `when_read` comes with the last of them."""
        routed: Counter[str] = Counter()
        from_source: Counter[int] = Counter()
        for unit, size in spans:
            place = self._route(unit)
            if place == "logical source":
                from_source[unit * UNIT // self.block_bytes] += size
            else:
                routed[place] += size
        outstanding = len(from_source) + ("write cache" in routed) + ("destination" in routed)

        def received() -> None:
            nonlocal outstanding
            outstanding -= 1
            if outstanding == 0:
                when_read()

        def read_from(volume: Volume, kind: str, size: int) -> None:
            def completed() -> None:
                self._note(kind, request, size)
                received()

            volume.hand_over(request.number, size, completed)

        if outstanding == 0:
            when_read()
        if "write cache" in routed:
            read_from(self.write_cache, "read_write_cache", routed["write cache"])
        if "destination" in routed:
            read_from(self.destination, "read_destination", routed["destination"])
        parts = [(block, size, received) for block, size in sorted(from_source.items())]
        self.client.ask(request.number, OF_VM, parts)

    def _route(self, unit: int) -> str:
        """Rule 3: the six cases."""
        state, block = self.units[unit], unit * UNIT // self.block_bytes
        if state in (WRITTEN, BEING_APPLIED):
            return "write cache"
        if state == ZEROED:
            return "nothing"
        if state == APPLIED or block in self.client.relocated:
            return "destination"
        return "logical source" if self.client.copy.stored[block] else "nothing"

    def _write(self, request: Request) -> None:
        """Rule 3: before the pivot, units at the ends that are covered in part are read first."""
        self.open_writes.append(request)
        touched = self._touched(request)
        volume = self.destination if self.pivoted else self.write_cache
        to_read = [
            (unit, UNIT)
            for unit, size in touched
            if size < UNIT and not self.pivoted and self.units[unit] not in (WRITTEN, BEING_APPLIED)
        ]

        def write() -> None:
            volume.hand_over(request.number, request.length, written)

        def written() -> None:
            for unit, _ in touched:
                self.units[unit] = APPLIED if self.pivoted else WRITTEN
            self._note("written", request, int(volume is self.destination))
            self.open_writes.remove(request)
            self._complete(request)
            self._complete_flushes()
            self.after_write()

        self._cut_up(request, to_read, write)

    def _discard(self, request: Request) -> None:
        for unit, size in self._touched(request):
            if size == UNIT and not self.pivoted:
                self.units[unit] = ZEROED
        self._complete(request)

    def _flush(self, request: Request) -> None:
        self.open_flushes.append((request, list(self.open_writes)))
        self._complete_flushes()

    def _complete_flushes(self) -> None:
        """Rule 3: in the order of their issue, those that no open write holds up."""
        waiting = self.open_flushes
        self.open_flushes = []
        for flush, writes in waiting:
            if all(write.completed for write in writes):
                self._complete(flush)
            else:
                self.open_flushes.append((flush, writes))


class Relocation:
    """Rule 7: requests along the sequence, `relocation_depth` of them outstanding."""

    def __init__(self, machine: VirtualMachine) -> None:
        self.client, self.schedule, self.plan = machine.client, machine.schedule, machine.client.plan
        self.destination = machine.destination
        size = self.plan.relocation_request_bytes // self.plan.block_bytes
        sequence = self.client.sequence
        first_number = len(machine.requests) + 1
        self.to_issue = [
            (first_number + k, sequence[at : at + size]) for k, at in enumerate(range(0, len(sequence), size))
        ]
        self.unfinished = len(self.to_issue)
        self.when_finished: Action = do_nothing

    def start(self) -> None:
        for _ in range(self.plan.relocation_depth):
            self._make_next_due()
        if not self.unfinished:
            self.when_finished()

    def _make_next_due(self) -> None:
        if self.to_issue:
            number, blocks = self.to_issue.pop(0)
            self.schedule.add(ISSUE, number, lambda: self._issue(number, blocks))

    def _issue(self, number: int, blocks: list[int]) -> None:
        size = self.plan.block_bytes
        self.schedule.note("relocation_read", blocks[0], len(blocks), number, len(blocks) * size)
        outstanding = len(blocks)

        def received() -> None:
            nonlocal outstanding
            outstanding -= 1
            if outstanding == 0:
                self.destination.hand_over(
                    number, len(blocks) * size, lambda: self._relocated(number, blocks)
                )

        self.client.ask(number, OF_RELOCATION, [(block, size, received) for block in blocks])

    def _relocated(self, number: int, blocks: list[int]) -> None:
        self.client.relocated.update(blocks)
        for first, count in ascending_neighbours(blocks):
            self.schedule.note("relocated", first, count, number, count * self.plan.block_bytes)
        if self.plan.purge.by_indication and self.client.agent is not None:
            for block in blocks:
                self.client.agent.mark(self.client, block, BY_INDICATION)
        self.unfinished -= 1
        self._make_next_due()
        if not self.unfinished:
            self.when_finished()
