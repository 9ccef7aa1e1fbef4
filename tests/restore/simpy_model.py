"""A second, slow, readable model of `docs/clockwork.md`, in SimPy: an oracle for the engine.

It is written from that page alone and shares no code with the engine. Docstrings name the rules. The order of
an instant and the devices are in `simpy_devices`, the media agent is in `simpy_media_agent`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import simpy
from simpy_devices import (
    DESTINATION,
    ISSUE,
    LAST_NUMBER,
    MODE,
    SET_UP,
    WRITE_CACHE,
    Action,
    Agenda,
    Event,
    Part,
    Process,
    Volume,
)
from simpy_media_agent import BY_INDICATION, OF_RELOCATION, OF_VM, Media, MediaAgent

from vmrestorekit.plan import RestorePlan, first_block_of_disk
from vmrestorekit.restore import hardware as hw
from vmrestorekit.traces.schema import ReadTrace

UNIT = 4096

# rule 1: numbers of changes of mode
LAUNCH, PRE_RELOCATION, START_RELOCATION, WARNING, EXPIRY, CHECK_LOAD = range(6)

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

    def __init__(
        self, agenda: Agenda, trace: ReadTrace, plan: RestorePlan, hardware: hw.Hardware, agent: MediaAgent
    ) -> None:
        self.agenda, self.agent, self.media, self.block_bytes = agenda, agent, agent.media, plan.block_bytes
        self.destination = Volume(agenda, DESTINATION, hardware.destination)
        self.write_cache = Volume(agenda, WRITE_CACHE, hardware.write_cache)
        self.first_block = first_block_of_disk(plan.disk_bytes, plan.block_bytes)
        self.units = [UNTOUCHED] * (plan.blocks * plan.block_bytes // UNIT)
        self.pivoted = False
        self.open_writes: list[Request] = []
        self.open_flushes: list[tuple[Request, list[Request]]] = []
        self.after_write: Action = lambda: None
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
            self.agenda.add_later(think, ISSUE, number, functools.partial(self._issue, number))

    def _issue(self, number: int) -> None:
        """Rule 2."""
        if number == len(self.requests):
            self.agenda.note("boot_done")
            return
        request = self.requests[number]
        request.issued = self.agenda.now
        self._note(f"vm_{request.op}", request, request.length)
        getattr(self, f"_{request.op}")(request)

    def _note(self, kind: str, request: Request, detail: int) -> None:
        self.agenda.note(kind, request.block, request.count, request.number, detail)

    def _complete(self, request: Request) -> None:
        request.completed = True
        self._note("vm_done", request, self.agenda.now - request.issued)
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
        parts = sorted(from_source.items())
        self.agent.ask([Part(request.number, OF_VM, block, size, received) for block, size in parts])

    def _route(self, unit: int) -> str:
        """Rule 3: the six cases."""
        state, block = self.units[unit], unit * UNIT // self.block_bytes
        if state in (WRITTEN, BEING_APPLIED):
            return "write cache"
        if state == ZEROED:
            return "nothing"
        if state == APPLIED or block in self.media.relocated:
            return "destination"
        return "logical source" if self.media.stored[block] else "nothing"

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

    def __init__(self, agenda: Agenda, plan: RestorePlan, machine: VirtualMachine, agent: MediaAgent) -> None:
        self.agenda, self.plan, self.agent = agenda, plan, agent
        self.destination = machine.destination
        size = plan.relocation_request_bytes // plan.block_bytes
        sequence = agent.media.sequence
        first_number = len(machine.requests) + 1
        self.to_issue = [
            (first_number + k, sequence[at : at + size]) for k, at in enumerate(range(0, len(sequence), size))
        ]
        self.unfinished = len(self.to_issue)
        self.when_finished: Action = lambda: None

    def start(self) -> None:
        for _ in range(self.plan.relocation_depth):
            self._make_next_due()
        if not self.unfinished:
            self.when_finished()

    def _make_next_due(self) -> None:
        if self.to_issue:
            number, blocks = self.to_issue.pop(0)
            self.agenda.add(ISSUE, number, -1, lambda: self._issue(number, blocks))

    def _issue(self, number: int, blocks: list[int]) -> None:
        size = self.plan.block_bytes
        self.agenda.note("relocation_read", blocks[0], len(blocks), number, len(blocks) * size)
        outstanding = len(blocks)

        def received() -> None:
            nonlocal outstanding
            outstanding -= 1
            if outstanding == 0:
                self.destination.hand_over(
                    number, len(blocks) * size, lambda: self._relocated(number, blocks)
                )

        self.agent.ask([Part(number, OF_RELOCATION, block, size, received) for block in blocks])

    def _relocated(self, number: int, blocks: list[int]) -> None:
        self.agent.media.relocated.update(blocks)
        for first, count in ascending_neighbours(blocks):
            self.agenda.note("relocated", first, count, number, count * self.plan.block_bytes)
        if self.plan.purge.by_indication:
            for block in blocks:
                self.agent.mark(block, BY_INDICATION)
        self.unfinished -= 1
        self._make_next_due()
        if not self.unfinished:
            self.when_finished()


def ascending_neighbours(blocks: list[int]) -> list[tuple[int, int]]:
    """Return first block and length of each run in which every block is one more than the last."""
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and block == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return runs


class Coordinator:
    """Rules 7, 9 and 10: set-up, changes of mode, and the two ends."""

    def __init__(self, agenda: Agenda, plan: RestorePlan, machine: VirtualMachine, agent: MediaAgent) -> None:
        self.agenda, self.plan, self.machine, self.agent = agenda, plan, machine, agent
        self.relocation = Relocation(agenda, plan, machine, agent)
        self.relocation.when_finished = self.finish_relocation
        self.launch_is_due = self.launched = False
        self.applying = self.unmounted = self.relocation_started = False
        self.apply_cursor = 0
        agent.after_fetch = self.launch_if_enough_is_staged
        agent.after_serving = self.unmount_when_quiet
        machine.after_write = self.apply_on

    def set_up(self) -> None:
        """Rule 7: what happens at 0."""
        note, mode = self.agenda.note, self.plan.mode
        if mode == "live_mount":
            note("select_vm")
        note("export_file_system")
        note("mount_file_system")
        if mode != "live_mount":
            note("set_up_data_flow")
        if mode == "full_restore":
            self.agenda.add(MODE, START_RELOCATION, -1, self.start_relocation)
            return
        note("indicate_vm_profile")
        note("determine_first_set", count=len(self.agent.media.first_set))
        if self.plan.expiry_ns is not None:
            self.agenda.add_later(self.plan.expiry_ns, MODE, EXPIRY, self.expire)
        rule = self.plan.launch
        if rule.rule == "share":
            self.launch_if_enough_is_staged()
        else:
            head_start = rule.head_start_ns if rule.rule == "head_start" else 0
            self.agenda.add_later(head_start, MODE, LAUNCH, self.launch)
            self.launch_is_due = True

    def make_launch_due(self) -> None:
        self.launch_is_due = True
        self.agenda.add(MODE, LAUNCH, -1, self.launch)

    def launch_if_enough_is_staged(self) -> None:
        """Rule 7, launch by share: when a fetch completes."""
        if self.launch_is_due or self.plan.mode == "full_restore":
            return
        needed = math.ceil(self.plan.launch.share * len(self.agent.media.first_set))
        if len(self.agent.fetched_of_first_set) >= needed:
            self.make_launch_due()

    def dispatch(self) -> None:
        """Rule 6, and the rule 7 launch when staging can go no further."""
        self.agent.dispatch()
        if not (self.launch_is_due or self.agent.in_flight or self.plan.mode == "full_restore"):
            self.make_launch_due()

    def launch(self) -> None:
        """Rule 7: launch, and what comes at fixed times after it."""
        self.launched = True
        self.agenda.note("launch_vm", detail=len(self.agent.fetched_of_first_set))
        self.machine.make_children_due(-1)
        plan, later = self.plan, self.agenda.add_later
        if plan.mode == "instant_restore":
            later(plan.pre_relocation_delay_ns, MODE, PRE_RELOCATION, self.indicate_pre_relocation)
            start = plan.relocation_start
            until_start = start.at_ns(self.agenda.now) - self.agenda.now
            later(until_start, MODE, START_RELOCATION, self.start_relocation)
            if start.rule == "load":
                later(60 * start.check_ns, MODE, CHECK_LOAD, self.check_load)
        if plan.expiry_ns is not None:
            until_warning = plan.expiry_ns - plan.warning_ns - self.agenda.now
            later(max(0, until_warning), MODE, WARNING, self.warn)

    def indicate_pre_relocation(self) -> None:
        if not self.relocation_started:
            self.agenda.note("indicate_pre_relocation")
            self.agent.pre_relocation_mode = True

    def check_load(self) -> None:
        """Rule 7: a load condition."""
        if self.relocation_started:
            return
        start = self.plan.relocation_start
        window = 60 * start.check_ns
        asked = sum(size for at, size in self.agent.vm_demand if at >= self.agenda.now - window)
        device = self.agent.device.spec
        limit = math.floor(start.load_share * (device.channels * device.bandwidth * window // 1_000_000_000))
        if asked < limit:
            self.start_relocation()
        else:
            self.agenda.add_later(start.check_ns, MODE, CHECK_LOAD, self.check_load)

    def start_relocation(self) -> None:
        if self.relocation_started:
            return
        self.relocation_started = True
        self.agenda.note("start_relocation")
        self.agenda.note("indicate_relocation_in_progress")
        self.agent.relocating = True
        self.relocation.start()

    # rule 9

    def finish_relocation(self) -> None:
        """Rule 9: no more staging or tracking; pending units are those written and those zeroed."""
        self.agent.relocating, self.agent.relocation_finished = False, True
        self.agenda.note("finish_relocation")
        self.agenda.note("apply_writes", detail=UNIT * self._pending())
        self.apply_on()

    def _pending(self) -> int:
        return sum(state in (WRITTEN, ZEROED) for state in self.machine.units)

    def apply_on(self) -> None:
        """Rule 9: the next operation of applying; or the pivot; or a wait for the writes under way."""
        if not self.agent.relocation_finished or self.applying or self.machine.pivoted:
            return
        run = self._next_run_to_apply()
        if run:
            self._apply(run)
        elif not self.machine.open_writes:
            self.pivot()

    def _next_run_to_apply(self) -> list[int]:
        """Walk upwards, and again from 0 as long as a unit is pending."""
        units = self.machine.units
        most = self.plan.relocation_request_bytes // UNIT
        while self._pending():
            if self.apply_cursor == len(units):
                self.apply_cursor = 0
            unit = self.apply_cursor
            if units[unit] == WRITTEN:
                end = unit
                while end < len(units) and units[end] == WRITTEN and end - unit < most:
                    end += 1
                return list(range(unit, end))
            if units[unit] == ZEROED:
                units[unit] = APPLIED
                if not self._pending():
                    # nothing stops the walk any more, so that it reaches the end of the disk
                    self.apply_cursor = len(units)
                    return []
            self.apply_cursor += 1
        return []

    def _apply(self, run: list[int]) -> None:
        units, size = self.machine.units, UNIT * len(run)
        self.applying = True
        for unit in run:
            units[unit] = BEING_APPLIED

        def have_been_read() -> None:
            self.machine.destination.hand_over(LAST_NUMBER, size, have_been_written)

        def have_been_written() -> None:
            for unit in run:
                if units[unit] == BEING_APPLIED:
                    units[unit] = APPLIED
            first, last = (unit * UNIT // self.plan.block_bytes for unit in (run[0], run[-1]))
            self.agenda.note("applied", first, last - first + 1, detail=size)
            self.apply_cursor = run[-1] + 1
            self.applying = False
            self.apply_on()

        self.machine.write_cache.hand_over(LAST_NUMBER, size, have_been_read)

    def pivot(self) -> None:
        self.agenda.note("use_destination")
        self.machine.pivoted = True
        self.unmount_when_quiet()
        if self.plan.mode == "full_restore":
            self.make_launch_due()

    def unmount_when_quiet(self) -> None:
        """Rule 9: once no part of the virtual machine is outstanding any more."""
        if self.machine.pivoted and not self.agent.vm_parts and not self.unmounted:
            self.unmounted = True
            self.agenda.note("unmount_file_system")
            self.agenda.note("indicate_relocation_completed")
            self.agent.empty_cache()
            self.agenda.note("de_associate")

    # rule 10

    def warn(self) -> None:
        self.agenda.note("warn_of_expiry", detail=(self.plan.expiry_ns or 0) - self.agenda.now)

    def expire(self) -> None:
        """Rule 10: cut off; what runs ends without effect."""
        if not self.launched:
            raise ValueError(f"expected an expiry after the launch, got {self.plan.expiry_ns} ns")
        cut_off = sum(request.issued >= 0 and not request.completed for request in self.machine.requests)
        self.agenda.note("expire", detail=cut_off)
        self.agenda.note("power_down")
        self.agenda.env.process(self._clean_up(self.agenda.close()))

    def _clean_up(self, running: list[simpy.Process]) -> Process:
        yield self.agenda.env.all_of(running)
        self.agent.empty_cache()
        self.agenda.note("unmount_file_system")
        self.agenda.note("de_associate")


def simulate_slowly(
    trace: ReadTrace,
    plan: RestorePlan,
    hardware: hw.Hardware,
    stored: npt.NDArray[np.bool_],
    address: npt.NDArray[np.int64],
    local: bool = False,
) -> list[Event]:
    """Carry out the rules of `docs/clockwork.md`.

    Parameters
    ----------
    stored, address : ndarray, shape (blocks,)
        Whether the backup copy stores a block, and where (bytes; -1 for holes).
    local : bool
        Rule 11: every stored block is relocated and the pivot done before a launch at 0.

    Returns
    -------
    list of (time_ns, kind, block, count, request, detail)

    Raises
    ------
    ValueError
        If the mount expires before the launch, or the sequence leaves out a stored block.
    """
    is_stored = [bool(value) for value in stored]
    first_set, sequence = (
        [int(block) for block in blocks if is_stored[block]] for blocks in (plan.first_set, plan.sequence)
    )
    if len(sequence) != sum(is_stored):
        raise ValueError(f"expected a sequence of all {sum(is_stored)} stored blocks, got {len(sequence)}")
    agenda = Agenda()
    media = Media(is_stored, [int(value) for value in address], first_set, sequence)
    agent = MediaAgent(agenda, plan, hardware, media)
    machine = VirtualMachine(agenda, trace, plan, hardware, agent)
    if local:
        media.relocated.update(sequence)
        machine.pivoted = True
        agenda.note("launch_vm")
        machine.make_children_due(-1)
        agenda.run(lambda: None)  # no backup device takes part
    else:
        coordinator = Coordinator(agenda, plan, machine, agent)
        agenda.add(SET_UP, 0, -1, coordinator.set_up)
        agenda.run(coordinator.dispatch)
    return agenda.events
