"""A second, slow, readable model of `docs/clockwork.md`, in SimPy: an oracle for the engine.

It is written from that page alone and shares no code with the engine. Docstrings name the rules. Here are
the modes of a restore (rules 7, 9 and 10), and which media agent serves whom (rule 12). The order of an
instant and the devices are in `simpy_devices`, the host is in `simpy_host`, the media agent in
`simpy_media_agent`, `simpy_client`, `simpy_dispatcher` and `simpy_cache`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from simpy_client import Client, Copy
from simpy_devices import LAST_NUMBER, MODE, NO_MACHINE, Action, Agenda, BackupDevice, Event, Schedule
from simpy_dispatcher import Dispatcher
from simpy_host import APPLIED, BEING_APPLIED, UNIT, WRITTEN, ZEROED, Relocation, VirtualMachine
from simpy_media_agent import OF_VM, MediaAgent

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore import hardware as hw
from vmrestorekit.traces.schema import ReadTrace

# rule 1: numbers of changes of mode
(
    ASK_FOR_RESTORE,
    LAUNCH,
    PRE_RELOCATION,
    START_RELOCATION,
    EXTENSION,
    WARNING,
    EXPIRY,
    CHECK_LOAD,
    PURGE_BY_PERIOD,
    TAKE_OVER,
) = range(10)


@dataclasses.dataclass(frozen=True, eq=False)
class Restore:
    """What is restored, when, and which media agent the user named (rule 12).

    `address`, `chunk` and `content` are of shape (blocks,), `chunk_extents` (chunks, 2); `content` None: no
    content is shared.
    """

    trace: ReadTrace
    plan: RestorePlan
    address: npt.NDArray[np.int64]
    chunk: npt.NDArray[np.int32] | None = None
    content: npt.NDArray[np.int64] | None = None
    start_ns: int = 0
    agent: int | None = None
    chunk_extents: npt.NDArray[np.int64] | None = None


@dataclasses.dataclass(frozen=True)
class MediaAgents:
    """Rule 12: how many media agents there are, and how they share the work; `failures` are (agent, when)."""

    count: int = 1
    balancing: str = "fewest"
    staging: str = "round_robin"
    shared_device: bool = True
    failures: tuple[tuple[int, int], ...] = ()
    takeover_ns: int = 0


class Coordinator:
    """Rules 7, 9 and 10: set-up, changes of mode, and the two ends."""

    def __init__(self, machine: VirtualMachine, hardware: hw.Hardware) -> None:
        self.machine, self.client, self.schedule = machine, machine.client, machine.schedule
        self.plan, self.device_spec = self.client.plan, hardware.backup_device
        self.relocation = Relocation(machine)
        self.relocation.when_finished = self.finish_relocation
        self.launch_is_due = self.launched = self.relocation_started = False
        self.applying = self.unmounted = self.is_stranded = False
        self.apply_cursor = 0
        self.start_ns = 0  # when the restore was asked for
        self.expiry_ns = self.plan.expiry_ns
        self.warning_at: int | None = None
        self.client.after_fetch = self.launch_if_enough_is_staged
        self.client.after_serving = self.unmount_when_quiet
        machine.after_write = self.apply_on

    @property
    def since_start(self) -> int:
        return self.schedule.now - self.start_ns

    # rule 7

    def set_up(self, agent: MediaAgent) -> None:
        """Rule 7: what happens at 0."""
        note, mode, plan = self.schedule.note, self.plan.mode, self.plan
        self.start_ns = self.schedule.now
        if mode == "live_mount":
            note("select_vm")
        note("export_file_system", detail=agent.number)
        note("mount_file_system")
        if mode != "live_mount":
            note("set_up_data_flow")
        if mode == "full_restore":
            self.schedule.add(MODE, START_RELOCATION, self.start_relocation)
            return
        note("indicate_vm_profile")
        note("determine_first_set", count=len(self.client.first_set))
        if self.expiry_ns is not None:
            self._schedule_expiry(self.expiry_ns)
            if plan.extend_at_ns is not None:
                self.schedule.add_later(plan.extend_at_ns, MODE, EXTENSION, self.extend)
        if plan.launch.rule == "share":
            self.launch_if_enough_is_staged()
        else:
            head_start = plan.launch.head_start_ns if plan.launch.rule == "head_start" else 0
            self.schedule.add_later(head_start, MODE, LAUNCH, self.launch)
            self.launch_is_due = True

    def make_launch_due(self) -> None:
        self.launch_is_due = True
        self.schedule.add(MODE, LAUNCH, self.launch)

    def launch_if_enough_is_staged(self) -> None:
        """Rule 7, launch by share: when a fetch completes."""
        if self.launch_is_due or self.plan.mode == "full_restore":
            return
        needed = math.ceil(self.plan.launch.share * len(self.client.first_set))
        if len(self.client.staged_of_first_set) >= needed:
            self.make_launch_due()

    def launch_if_staging_can_go_no_further(self) -> None:
        """Rule 7, launch by share: after a dispatch. Without an agent, staging has not begun."""
        agent = self.client.agent
        waits = not (self.launch_is_due or self.plan.mode == "full_restore")
        if not waits or agent is None or not agent.device.has_idle_channel:
            return
        if not any(fetch.client is self.client for fetch in agent.queue + agent.in_flight):
            self.make_launch_due()

    def launch(self) -> None:
        """Rule 7: launch, and what comes at fixed times after it."""
        self.launched = True
        self.schedule.note("launch_vm", detail=len(self.client.staged_of_first_set))
        self.machine.make_children_due(-1)
        plan, later = self.plan, self.schedule.add_later
        if plan.mode == "instant_restore":
            later(plan.pre_relocation_delay_ns, MODE, PRE_RELOCATION, self.indicate_pre_relocation)
            start = plan.relocation_start
            until_start = start.at_ns(self.since_start) - self.since_start
            later(until_start, MODE, START_RELOCATION, self.start_relocation)
            if start.rule == "load":
                later(60 * start.check_ns, MODE, CHECK_LOAD, self.check_load)
        if self.expiry_ns is not None:
            self._schedule_warning(self.expiry_ns)

    def indicate_pre_relocation(self) -> None:
        if not self.relocation_started:
            self.schedule.note("indicate_pre_relocation")
            self.client.pre_relocation_mode = True

    def check_load(self) -> None:
        """Rule 7: a load condition."""
        if self.relocation_started:
            return
        start, spec = self.plan.relocation_start, self.device_spec
        window = 60 * start.check_ns
        asked = sum(size for at, size in self.client.demand_of_vm if at >= self.schedule.now - window)
        limit = math.floor(start.load_share * (spec.channels * spec.bandwidth * window // 1_000_000_000))
        if asked < limit:
            self.start_relocation()
        else:
            self.schedule.add_later(start.check_ns, MODE, CHECK_LOAD, self.check_load)

    def start_relocation(self) -> None:
        if self.relocation_started:
            return
        self.relocation_started = True
        self.schedule.note("start_relocation")
        self.schedule.note("indicate_relocation_in_progress")
        self.client.relocating = True
        if self.plan.purge.by_period:
            self._look_at_runs_later()
        self.relocation.start()

    # rule 8

    def _look_at_runs_later(self) -> None:
        self.schedule.add_later(self.plan.purge.period_ns, MODE, PURGE_BY_PERIOD, self.purge_by_period)

    def purge_by_period(self) -> None:
        if self.client.relocating and not self.is_stranded:
            if self.client.agent is not None:
                self.client.agent.look_at_runs(self.client)
            self._look_at_runs_later()

    # rule 9

    def finish_relocation(self) -> None:
        """Rule 9: no more staging or tracking; pending units are those written and those zeroed."""
        self.client.relocating, self.client.relocation_finished = False, True
        self.schedule.note("finish_relocation")
        self.schedule.note("apply_writes", detail=UNIT * self._pending())
        self.apply_on()

    def _pending(self) -> int:
        return sum(state in (WRITTEN, ZEROED) for state in self.machine.units)

    def apply_on(self) -> None:
        """Rule 9: the next operation of applying; or the pivot; or a wait for the writes under way."""
        if not self.client.relocation_finished or self.applying or self.machine.pivoted:
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
            self.schedule.note("applied", first, last - first + 1, detail=size)
            self.apply_cursor = run[-1] + 1
            self.applying = False
            self.apply_on()

        self.machine.write_cache.hand_over(LAST_NUMBER, size, have_been_read)

    def pivot(self) -> None:
        self.schedule.note("use_destination")
        self.machine.pivoted = True
        self.unmount_when_quiet()
        if self.plan.mode == "full_restore":
            self.make_launch_due()

    def unmount_when_quiet(self) -> None:
        """Rule 9: once no part of the virtual machine is outstanding any more."""
        outstanding = any(part.reader == OF_VM for part in self.client.outstanding)
        if self.machine.pivoted and not outstanding and not self.unmounted:
            self.unmounted = True
            self.schedule.note("unmount_file_system")
            self.schedule.note("indicate_relocation_completed")
            self._empty_read_cache()
            self._de_associate()

    def _empty_read_cache(self) -> None:
        agent = self.client.agent
        dropped = 0 if agent is None else agent.empty_cache(self.client)
        self.schedule.note("empty_read_cache", count=dropped)

    def _de_associate(self) -> None:
        self.schedule.note("de_associate")
        if self.client.agent is not None:
            self.client.agent.de_associate(self.client)

    # rule 10

    def _schedule_expiry(self, expiry_ns: int) -> None:
        """Make the expiry due, unless there is another one by then."""

        def expire() -> None:
            if expiry_ns == self.expiry_ns:
                self.expire()

        self.schedule.add_later(expiry_ns - self.since_start, MODE, EXPIRY, expire)

    def _schedule_warning(self, expiry_ns: int) -> None:
        """Make the warning due, unless there is another expiry by then.

        A void warning may be due at the very instant of the new one.
        """
        until_warning = max(0, expiry_ns - self.plan.warning_ns - self.since_start)
        self.warning_at = self.schedule.now + until_warning

        def warn() -> None:
            if self.schedule.now == self.warning_at and self.expiry_ns is not None:
                self.warning_at = None
                self.schedule.note("warn_of_expiry", detail=self.expiry_ns - self.since_start)

        self.schedule.add_later(until_warning, MODE, WARNING, warn, unless_due=True)

    def extend(self) -> None:
        """Rule 10: a new expiry, and a new warning; before the launch, `launch` sees to the warning."""
        assert self.expiry_ns is not None
        self.expiry_ns += self.plan.extend_by_ns
        self.schedule.note("extend_expiry", detail=self.expiry_ns)
        self._schedule_expiry(self.expiry_ns)
        if self.launched:
            self._schedule_warning(self.expiry_ns)

    def expire(self) -> None:
        """Rule 10: cut off; what was handed to a device ends without effect."""
        if not self.launched:
            raise ValueError(f"expected an expiry after the launch, got {self.expiry_ns} ns")
        cut_off = sum(request.issued >= 0 and not request.completed for request in self.machine.requests)
        self.schedule.note("expire", detail=cut_off)
        self.schedule.note("power_down")
        if self.client.agent is not None:
            self.client.agent.cut_off(self.client)
        self.client.outstanding.clear()
        self.schedule.expire(self._clean_up)

    def _clean_up(self) -> None:
        self._empty_read_cache()
        self.schedule.note("unmount_file_system")
        self._de_associate()


class Storm:
    """Rule 12: several restores, media agents and backup devices."""

    def __init__(
        self, agenda: Agenda, plan: RestorePlan, setting: MediaAgents, hardware: hw.Hardware
    ) -> None:
        self.agenda, self.setting = agenda, setting
        self.coordinators: list[Coordinator] = []
        devices = 1 if setting.shared_device else setting.count
        self.devices = [BackupDevice(agenda, number, hardware.backup_device) for number in range(devices)]
        self.agents = [
            MediaAgent(agenda, number, plan, hardware, self.devices[number % devices])
            for number in range(setting.count)
        ]
        self.dispatchers = [
            Dispatcher(
                plan,
                device,
                [agent for agent in self.agents if agent.device is device],
                setting.staging == "round_robin",
            )
            for device in self.devices
        ]
        self.last_chosen = -1  # by round robin
        for number, at_ns in setting.failures:
            self._schedule_failure(self.agents[number], at_ns)

    def add(self, coordinator: Coordinator, start_ns: int, named: int | None) -> None:
        self.coordinators.append(coordinator)

        def ask_for_restore() -> None:
            agent = self._associate(coordinator, named)
            if agent is not None:
                coordinator.set_up(agent)

        coordinator.schedule.add_later(start_ns, MODE, ASK_FOR_RESTORE, ask_for_restore)

    def dispatch(self) -> None:
        """Rule 6, and the rule 7 launch when staging can go no further."""
        for dispatcher in self.dispatchers:
            dispatcher.dispatch()
        for coordinator in self.coordinators:
            coordinator.launch_if_staging_can_go_no_further()

    def _associate(self, coordinator: Coordinator, named: int | None) -> MediaAgent | None:
        """Choose an agent, and associate the machine with it; or note that it is stranded."""
        in_service = [agent for agent in self.agents if agent.in_service]
        if not in_service:
            coordinator.schedule.note("strand")
            coordinator.is_stranded = True
            return None
        if named is not None and self.agents[named].in_service:
            chosen = self.agents[named]
        elif self.setting.balancing == "fewest":
            chosen = min(in_service, key=lambda agent: (len(agent.clients), agent.number))
        else:
            chosen = min(in_service, key=lambda agent: (agent.number <= self.last_chosen, agent.number))
            self.last_chosen = chosen.number
        chosen.associate(coordinator.client)
        return chosen

    # fail-over

    def _schedule_failure(self, agent: MediaAgent, at_ns: int) -> None:
        key = (MODE, NO_MACHINE, agent.number, -1)
        self.agenda.add_later(at_ns, key, lambda: self._lose(agent))

    def _lose(self, agent: MediaAgent) -> None:
        self.agenda.note(NO_MACHINE, "lose_media_agent", detail=agent.number)
        for client in agent.lose():
            later = self._take_over_later(self.coordinators[client.number])
            client.schedule.add_later(self.setting.takeover_ns, MODE, TAKE_OVER, later)

    def _take_over_later(self, coordinator: Coordinator) -> Action:
        return lambda: self._take_over(coordinator)

    def _take_over(self, coordinator: Coordinator) -> None:
        """Rule 12: unless the restore has ended meanwhile."""
        client = coordinator.client
        if coordinator.unmounted:
            return
        agent = self._associate(coordinator, None)
        if agent is None:
            return
        client.schedule.note("take_over", detail=agent.number)
        for _, parts in itertools.groupby(list(client.outstanding), key=lambda part: part.number):
            agent.receive(list(parts))
        coordinator.launch_if_enough_is_staged()


def _number_contents(restores: Sequence[Restore]) -> list[list[int]]:
    """Rule 12: number the contents of all blocks of all machines, equal ones alike."""
    numbers: dict[tuple[str, int, int], int] = {}

    def number_of(key: tuple[str, int, int]) -> int:
        return numbers.setdefault(key, len(numbers))

    return [
        [number_of(("block", machine, block)) for block in range(restore.plan.blocks)]
        if restore.content is None
        else [number_of(("content", -1, int(content))) for content in restore.content]
        for machine, restore in enumerate(restores)
    ]


def simulate_storm_slowly(
    restores: Sequence[Restore],
    agents: MediaAgents,
    hardware: hw.Hardware,
    stored: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> list[Event]:
    """Carry out the rules of `docs/clockwork.md` for several virtual machines.

    Parameters
    ----------
    stored : sequence of ndarray, shape (blocks,), optional
        Of each restore, whether the backup copy stores a block; default: where it has an address.

    Returns
    -------
    list of (time_ns, kind, block, count, request, detail, vm)

    Raises
    ------
    ValueError
        If a mount expires before its launch, or a sequence leaves out a stored block.
    """
    agenda = Agenda()
    storm = Storm(agenda, restores[0].plan, agents, hardware)
    for number, (restore, content) in enumerate(zip(restores, _number_contents(restores), strict=True)):
        is_stored = restore.address >= 0 if stored is None else stored[number]
        client = _client(agenda, number, restore, is_stored, content)
        machine = VirtualMachine(restore.trace, hardware, client)
        storm.add(Coordinator(machine, hardware), restore.start_ns, restore.agent)
    agenda.run(storm.dispatch)
    return agenda.events


def _client(
    agenda: Agenda, number: int, restore: Restore, stored: npt.NDArray[np.bool_], content: list[int]
) -> Client:
    address, chunk, extents = restore.address.tolist(), restore.chunk, restore.chunk_extents
    copy = Copy(
        *(stored.tolist(), address, None if chunk is None else chunk.tolist(), content),
        chunk_extents=None if extents is None else [(start, end) for start, end in extents.tolist()],
    )
    return Client(Schedule(agenda, number), restore.plan, copy)


def simulate_slowly(
    trace: ReadTrace,
    plan: RestorePlan,
    hardware: hw.Hardware,
    stored: npt.NDArray[np.bool_],
    address: npt.NDArray[np.int64],
    local: bool = False,
    chunk: npt.NDArray[np.int32] | None = None,
    chunk_extents: npt.NDArray[np.int64] | None = None,
) -> list[tuple[int, str, int, int, int, int]]:
    """Carry out the rules of `docs/clockwork.md` for one virtual machine and one media agent.

    Parameters
    ----------
    stored, address : ndarray, shape (blocks,)
        Whether the backup copy stores a block, and where (bytes; -1 for holes).
    local : bool
        Rule 11: every stored block is relocated and the pivot done before a launch at 0.
    chunk : ndarray, shape (blocks,), optional
        The chunk of each block, -1 for holes; given if whole chunks have to be read.
    chunk_extents : ndarray, shape (chunks, 2), optional
        Where each chunk starts and ends on the medium.

    Returns
    -------
    list of (time_ns, kind, block, count, request, detail)

    Raises
    ------
    ValueError
        If the mount expires before the launch, or the sequence leaves out a stored block.
    """
    restore = Restore(trace, plan, address, chunk, chunk_extents=chunk_extents)
    if local:
        events = _simulate_locally(restore, hardware, stored)
    else:
        events = simulate_storm_slowly([restore], MediaAgents(), hardware, [stored])
    return [event[:-1] for event in events]


def _simulate_locally(restore: Restore, hardware: hw.Hardware, stored: npt.NDArray[np.bool_]) -> list[Event]:
    agenda = Agenda()
    client = _client(agenda, 0, restore, stored, list(range(restore.plan.blocks)))
    machine = VirtualMachine(restore.trace, hardware, client)
    client.relocated.update(client.sequence)
    machine.pivoted = True
    client.schedule.note("launch_vm")
    machine.make_children_due(-1)
    agenda.run(lambda: None)  # no backup device takes part
    return agenda.events
