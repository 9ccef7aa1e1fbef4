"""The tables that the engine works on, laid out from plans, traces and hardware, and run to their end."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.plan import DAY, MODES, PRIORITIES, PlanError, RelocationStart, RestorePlan
from vmrestorekit.restore.closed_loop import ClosedLoop
from vmrestorekit.restore.hardware import BackupDevice, Hardware

__all__ = ["DETAILS", "MediaAgents", "Setup", "World"]

DETAILS = ("events", "runs", "summary")
BALANCING = ("fewest", "round_robin")
STAGING = ("round_robin", "in_turn")

_LAUNCH_RULES = {"share": 0, "head_start": 1, "immediately": 2}
_MODES = {mode: code for code, mode in enumerate(MODES)} | {"local": 3}
_MOST_EVENTS_AT_A_TIME = 1 << 20
_STEPS_AT_A_TIME = 1 << 21  # so that an interrupt from the keyboard is heard
# neighbours become one event in detail `runs` if they are not more, and follow each other as quickly
_MERGED_BLOCKS = 1024
_MERGED_NS = 100_000_000

Array = npt.NDArray[Any]
Addresses = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class MediaAgents:
    """The media agents of a storm, and how its machines are spread over them.

    Attributes
    ----------
    count : int
    balancing : {"fewest", "round_robin"}
        Which agent a machine is associated with whose user named none: the one with the fewest machines, or
        the next one.
    staging : {"round_robin", "in_turn"}
        Whose first set an idle channel of the backup device is given to: the next machine's, or the first
        one's until it is complete.
    shared_device : bool
        One backup device for all agents, or one for each.
    failures : tuple of (int, int)
        Agent, and nanoseconds until it goes away for good.
    takeover_ns : int
        From the loss of an agent until others take its machines over.
    """

    count: int = 1
    balancing: str = "fewest"
    staging: str = "round_robin"
    shared_device: bool = True
    failures: tuple[tuple[int, int], ...] = ()
    takeover_ns: int = 30_000_000_000

    def __post_init__(self) -> None:
        if self.count < 1:
            raise PlanError(f"media agents: expected a count of at least 1, got {self.count}")
        for name, value, known in (
            ("balancing", self.balancing, BALANCING),
            ("staging", self.staging, STAGING),
        ):
            if value not in known:
                raise PlanError(f"media agents: expected {name} as one of {', '.join(known)}, got {value!r}")
        if self.takeover_ns < 0:
            raise PlanError(f"media agents: expected takeover_ns of at least 0, got {self.takeover_ns}")
        for agent, at_ns in self.failures:
            if not 0 <= agent < self.count or at_ns < 0:
                raise PlanError(
                    f"media agents: expected failures as (agent from 0 to {self.count - 1}, nanoseconds), "
                    f"got {(agent, at_ns)}"
                )
        if len({agent for agent, _ in self.failures}) < len(self.failures):
            raise PlanError(f"media agents: expected each agent to fail once, got {self.failures}")


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What the engine is told of one virtual machine.

    Attributes
    ----------
    loop : ClosedLoop
    plan : RestorePlan
    mode : str
        The plan's, or ``"local"`` for a boot with every stored block on the destination.
    address : ndarray of int64, shape (blocks,)
        Bytes on the backup medium, -1 for a hole.
    chunk : ndarray of int32, shape (blocks,), optional
        The chunk that each block has to be read with, -1 for a hole.
    content : ndarray of int64, shape (blocks,), optional
        Equal numbers are equal contents, over all machines.
    start_ns : int
        When the restore is asked for.
    agent : int, optional
        The media agent that its user named.
    chunk_extents : ndarray of int64, shape (chunks, 2), optional
        Where each chunk starts and ends on the medium; default: what its blocks take.
    """

    loop: ClosedLoop
    plan: RestorePlan
    mode: str
    address: Addresses
    chunk: npt.NDArray[np.int32] | None = None
    content: npt.NDArray[np.int64] | None = None
    start_ns: int = 0
    agent: int | None = None
    chunk_extents: npt.NDArray[np.int64] | None = None

    @functools.cached_property
    def stored(self) -> npt.NDArray[np.bool_]:
        """Which blocks the backup copy stores."""
        return self.address >= 0


def as_local(setup: Setup) -> Setup:
    """Return the same boot with every stored block on the destination (rule 11).

    Blocks that no request touches take no part in it, so the others are numbered anew.
    """
    size, loop = setup.plan.block_bytes, setup.loop
    first, behind = loop.start // size, -(-(loop.start + loop.length) // size)
    counts = behind - first
    each = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    used = np.unique(np.append(each, 0))
    moved = dataclasses.replace(loop, start=np.searchsorted(used, first) * size + loop.start % size)
    plan = setup.plan.replace(
        disk_bytes=(len(used) * size,), first_set=[], relocation_sequence=None, cache_bytes=size
    )
    return Setup(moved, plan, "local", setup.address[used])


class World:
    """The engine's tables for some restores, and their run.

    Parameters
    ----------
    setups : sequence of Setup
        One a machine. What their plans say of the media agent has to be the same in all.
    agents : MediaAgents
    hardware : Hardware
    detail : {"events", "runs", "summary"}
    """

    def __init__(
        self, setups: Sequence[Setup], agents: MediaAgents, hardware: Hardware, detail: str = "events"
    ) -> None:
        from vmrestorekit.restore import engine, records  # numba takes a second to import

        self.setups, self.agents, self.hardware, self.detail = setups, agents, hardware, detail
        self.tables: dict[str, Array] = {}
        self.world = np.zeros(1, engine.WORLD)
        self._lay_out_machines()
        self._lay_out_contents()
        self._lay_out_agents()
        self._lay_out_work()
        self._set_up()
        for cache, entries in zip(self.tables["caches"], self._entries, strict=True):
            records.lay_out(cache, entries=entries)
        records.lay_out(self.world[0], **self.tables)

    # --- tables ---------------------------------------------------------------------------------------

    def _lay_out_machines(self) -> None:
        """Blocks, requests, sequences and settings of each machine, one behind the other."""
        from vmrestorekit.restore import engine

        machines = np.zeros(len(self.setups), engine.MACHINE)
        pieces: dict[str, list[Array]] = {name: [] for name in ("blocks", "requests", "sequence", "chunks")}
        first_sets: list[Array] = []
        relocations = units = 0
        for number, setup in enumerate(self.setups):
            machine, plan = machines[number], setup.plan
            sequence, first_set = _sequence(setup), _first_set(setup)
            machine["number"] = number
            machine["blocks"], machine["rows"] = plan.blocks, setup.loop.rows
            machine["sequence"], machine["first_set"] = len(sequence), len(first_set)
            machine["first_block"] = _length(pieces["blocks"])
            machine["first_request"] = _length(pieces["requests"])
            machine["first_of_sequence"] = _length(pieces["sequence"])
            machine["first_of_first_set"] = _length(first_sets)
            machine["first_relocation"], machine["first_unit"] = relocations, units
            machine["first_run"] = number * engine.OPEN_RUNS
            machine["units"] = plan.blocks * (plan.block_bytes // engine.UNIT_BYTES)
            relocations += plan.relocation_depth
            units += int(machine["units"])
            requests, machine["first_child"] = _requests(setup.loop, self.hardware.cpu_factor)
            blocks, chunks = _blocks(setup, _length(pieces["chunks"]))
            pieces["blocks"].append(blocks)
            pieces["requests"].append(requests)
            pieces["sequence"].append(sequence.astype(np.int32).view(engine.NUMBER))
            pieces["chunks"].append(chunks)
            wanted = np.zeros(len(first_set), engine.IN_FIRST_SET)
            wanted["block"], wanted["vm"] = first_set, number
            first_sets.append(wanted)
            for name, value in _settings(setup, len(first_set), self.hardware).items():
                machine[name] = value
        self.tables |= {name: _join(arrays) for name, arrays in pieces.items()}
        self.tables |= {
            "machines": machines,
            "first_set": _join(first_sets),
            "relocations": np.zeros(relocations, engine.RELOCATION),
            "units": np.zeros(units, engine.UNIT),
            "runs": np.zeros(len(machines) * engine.OPEN_RUNS, engine.RUN),
        }

    def _lay_out_contents(self) -> None:
        """Number the contents; link those of each in all first sets."""
        from vmrestorekit.restore import engine

        blocks, first_set = self.tables["blocks"], self.tables["first_set"]
        self.contents = len(blocks)
        if all(setup.mode == "local" for setup in self.setups):
            self.contents = 1  # no media agent takes part
        elif any(setup.content is not None for setup in self.setups):
            number = np.concatenate([_content(setup) for setup in self.setups])
            unique, content = np.unique(number, return_inverse=True)
            # blocks without a number have a content of their own
            own = np.flatnonzero(number < 0)
            content[own] = len(unique) + np.arange(len(own))
            self.contents = len(unique) + len(own)
            blocks["content"] = content
            self.world["contents_given"] = 1
        wanted = np.full(self.contents if len(first_set) else 0, -1, np.int32)
        if len(first_set):
            first_block = self.tables["machines"]["first_block"][first_set["vm"]]
            of_block = first_block + first_set["block"]
            content = blocks["content"][of_block] if self.world["contents_given"][0] else of_block
            order = np.argsort(content, kind="stable")
            is_last = np.append(content[order[1:]] != content[order[:-1]], True)
            first_set["next"][order] = np.where(is_last, -1, np.append(order[1:], -1))
            is_first = np.append(True, is_last[:-1])
            wanted[content[order[is_first]]] = order[is_first]
        self.tables["wanted"] = wanted.view(engine.WANTED)

    def _lay_out_agents(self) -> None:
        """Media agents with their caches and copies, backup devices with their channels."""
        from vmrestorekit.restore import engine, policies
        from vmrestorekit.restore.eviction import set_up_cache

        count, plan, hardware = self.agents.count, self.setups[0].plan, self.hardware
        devices = 1 if self.agents.shared_device else count
        agents = np.zeros(count, engine.AGENT)
        agents["device"] = np.arange(count) % devices
        agents["first_copy"] = np.arange(count) * self.contents
        agents["slots"] = plan.cache_slots
        agents["priorities"] = PRIORITIES.index(plan.priorities)
        agents["link_latency_ns"] = hardware.link.latency_ns
        agents["link_bandwidth"] = hardware.link.bandwidth
        agents["quantum"] = _quanta(plan)
        agents["in_service"] = 1
        agents["fails_ns"] = agents["queue_head"] = agents["queue_tail"] = -1
        for agent, at_ns in self.agents.failures:
            agents["fails_ns"][agent] = at_ns
        caches = np.zeros(count, policies.CACHE)
        set_up_cache(caches, plan.eviction, plan.cache_slots)
        self._entries = [_zeros(self.contents, policies.ENTRY) for _ in range(count)]
        self.tables |= {
            "agents": agents,
            "caches": caches,
            "copies": _zeros(count * self.contents, engine.COPY),
            "devices": np.zeros(devices, engine.DEVICE),
            "channels": np.zeros(devices * hardware.backup_device.channels, engine.CHANNEL),
        }
        for device, record in enumerate(self.tables["devices"]):
            record["first_channel"] = device * hardware.backup_device.channels
            record["idle_channels"] = hardware.backup_device.channels
            record["last_machine"] = record["last_agent"] = -1
            for field in dataclasses.fields(BackupDevice):
                record[field.name] = getattr(hardware.backup_device, field.name)

    def _lay_out_work(self) -> None:
        """What is under way: parts, fetches, what is due, and the events' buffer."""
        from vmrestorekit.restore import engine

        rows = len(self.tables["requests"])
        parts = sum(_most_parts(setup) for setup in self.setups) * (2 if self.agents.failures else 1)
        staging = sum(int(depth) for depth in self.tables["machines"]["stage_depth"])
        fetches = parts + staging + len(self.tables["channels"]) + 4
        purges = self.agents.count * min(self.setups[0].plan.cache_slots, self.contents)
        modes = len(self.setups) * 32 + self.agents.count
        due = 2 * parts + rows + fetches + len(self.tables["relocations"]) + purges + modes + 64
        self.spare_events = self._most_events_of_a_step()
        machines = len(self.setups) if self.detail == "runs" else 0
        kept = 2 * self.spare_events + 24 * (len(self.tables["blocks"]) + rows)
        self.tables |= {
            "parts": _free_list(parts, engine.PART),
            "fetches": _free_list(fetches, engine.FETCHING),
            "due": np.zeros(due, engine.DUE),
            "events": np.empty(max(min(kept, _MOST_EVENTS_AT_A_TIME), 2 * self.spare_events), engine.EVENT),
            "merged": np.zeros(machines * int(engine.KIND_COUNT * engine.MERGED_DETAILS), engine.MERGED),
        }
        self.tables["parts"]["agent"] = -1

    def _most_events_of_a_step(self) -> int:
        """Return more than what one step, and the dispatch behind it, can note."""
        plans = [setup.plan for setup in self.setups]
        fetch = max(max(plan.fetch_bytes, plan.stage_fetch_bytes) // plan.block_bytes for plan in plans)
        fetch = min(fetch, plans[0].cache_slots)
        if len(self.tables["chunks"]):  # each block may bring a whole chunk
            most = max(plan.blocks for plan in plans)
            fetch = min(fetch * max(_most_of_a_chunk(setup) for setup in self.setups), most)
        flushes = max(int((setup.loop.op == 3).sum()) for setup in self.setups)
        most = 4 * max(_most_blocks(setup) for setup in self.setups)
        if self.agents.failures:
            most = 4 * max(_most_parts(setup) for setup in self.setups)
        return most + 2 * len(self.tables["channels"]) * (2 * fetch + 2) + flushes + 64

    def _set_up(self) -> None:
        world = self.world
        world["contents"] = self.contents
        world["block_shift"] = self.setups[0].plan.block_bytes.bit_length() - 1
        world["detail"] = DETAILS.index(self.detail)
        world["merge_blocks"], world["merge_ns"] = _MERGED_BLOCKS, _MERGED_NS
        world["in_turn"] = self.agents.staging == "in_turn"
        world["balancing"] = BALANCING.index(self.agents.balancing)
        world["last_chosen"] = world["culprit"] = -1
        world["takeover_ns"] = self.agents.takeover_ns
        # machines whose launch waits for a share of their first set
        by_share = self.tables["machines"]["launch_rule"] == _LAUNCH_RULES["share"]
        world["to_launch"] = int(by_share.sum())

    # --- the run --------------------------------------------------------------------------------------

    def run(self) -> Array:
        """Go on until everything is over; return the events, as records of the engine.

        Raises
        ------
        PlanError
            If a mount expires before its virtual machine is launched.
        """
        from vmrestorekit.restore import engine

        buffer, filled = self.tables["events"], []
        while True:
            status = engine.run(self.world, self.spare_events, _STEPS_AT_A_TIME)
            kept = int(self.world["events"][0])
            if status == engine.EVENTS_FULL or status == engine.DONE:
                filled.append(buffer[:kept].copy())
                self.world["events_before"] += kept
                self.world["events"] = 0
            if status == engine.DONE:
                break
            if status == engine.EXPIRED_BEFORE_LAUNCH:
                plan = self.setups[int(self.world["culprit"][0])].plan
                raise PlanError(
                    f"expiry_ns: the mount expires after {plan.expiry_ns} ns, before the virtual machine is "
                    f"launched; expected a later expiry or an earlier launch"
                )
        if self.world["events_lost"][0]:
            lost = self.world["events_lost"][0]
            raise RuntimeError(f"the engine had no room for {lost} events: a defect, please report")
        return np.concatenate(filled)

    def machine(self, number: int) -> Array:
        """Return the record of a machine."""
        record: Array = self.tables["machines"][number]
        return record

    def requests(self, number: int) -> Array:
        """Return the requests of a machine, without its mark."""
        machine = self.machine(number)
        first = int(machine["first_request"])
        return self.tables["requests"][first : first + int(machine["rows"])]

    def blocks(self, number: int) -> Array:
        """Return the blocks of a machine."""
        machine = self.machine(number)
        first = int(machine["first_block"])
        return self.tables["blocks"][first : first + int(machine["blocks"])]


def _length(arrays: list[Array]) -> int:
    return sum(map(len, arrays))


def _join(arrays: list[Array]) -> Array:
    """Return the arrays one behind the other, in memory of their own; a single one as it is."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """Return zeros in memory that is touched at once: numpy asks for large pages here, but not in `zeros`."""
    records = np.empty(size, dtype)
    records.view(np.uint8).fill(0)
    return records


def _free_list(size: int, dtype: np.dtype[Any]) -> Array:
    records = np.zeros(size, dtype)
    records["next"] = np.arange(1, size + 1)
    records["next"][-1] = -1
    return records


def _sequence(setup: Setup) -> npt.NDArray[np.int32]:
    """Return what is relocated, in order."""
    if setup.mode not in ("full_restore", "instant_restore"):
        return np.empty(0, np.int32)
    sequence = setup.plan.relocation_sequence
    if sequence is None:
        return np.arange(setup.plan.blocks, dtype=np.int32)[setup.stored]
    return sequence[setup.stored[sequence]]


def _first_set(setup: Setup) -> npt.NDArray[np.int32]:
    """Return what is staged before and after the launch, in order."""
    wanted = setup.plan.first_set
    return wanted[setup.stored[wanted]] if setup.mode in ("instant_restore", "live_mount") else wanted[:0]


def _content(setup: Setup) -> npt.NDArray[np.int64]:
    """Return the number of each block's content, -1 for one of its own."""
    if setup.content is None:
        return np.full(setup.plan.blocks, -1, np.int64)
    return np.where(setup.stored, setup.content, -1)


def _blocks(setup: Setup, chunks_before: int) -> tuple[Array, Array]:
    """Return the records of a machine's blocks and chunks, as far as the engine does not fill them in."""
    from vmrestorekit.restore import engine

    blocks = _zeros(setup.plan.blocks, engine.BLOCK)
    blocks["address"] = setup.address
    if setup.chunk is None:
        return blocks, np.empty(0, engine.CHUNK)
    stored = np.flatnonzero(setup.stored)
    number, chunk = np.unique(setup.chunk[stored], return_inverse=True)
    blocks["chunk"][stored] = chunks_before + chunk
    chunks = np.zeros(len(number), engine.CHUNK)
    chunks["last"][chunk] = stored
    chunks["first"][chunk[::-1]] = stored[::-1]
    if setup.chunk_extents is None:
        address = setup.address[stored]
        chunks["address"] = np.iinfo(np.int64).max
        np.minimum.at(chunks["address"], chunk, address)
        np.maximum.at(chunks["end"], chunk, address + setup.plan.block_bytes)
    else:
        chunks["address"], chunks["end"] = setup.chunk_extents[number].T
    return blocks, chunks


def _most_of_a_chunk(setup: Setup) -> int:
    """Return the most blocks that come along with one."""
    if setup.chunk is None:
        return 1
    stored = np.flatnonzero(setup.stored)
    by_address = setup.chunk[stored[np.argsort(setup.address[stored], kind="stable")]]
    pieces = 1 + np.count_nonzero(np.diff(by_address))
    if pieces > len(np.unique(by_address)) or (
        setup.chunk_extents is not None and _overlap(setup.chunk_extents)
    ):
        return len(stored)  # blocks of other chunks lie within a chunk, and come along
    return int(np.bincount(by_address).max(initial=1))


def _overlap(extents: npt.NDArray[np.int64]) -> bool:
    start, end = extents[np.argsort(extents[:, 0], kind="stable")].T
    return bool(np.any(start[1:] < end[:-1]))


def _requests(loop: ClosedLoop, cpu_factor: float) -> tuple[Array, int]:
    """Return the requests, each one's children linked in ascending order, and the launch's first."""
    from vmrestorekit.restore import engine

    requests = np.zeros(loop.rows + 1, engine.REQUEST)
    requests["op"][:-1], requests["start"][:-1], requests["length"][:-1] = loop.op, loop.start, loop.length
    requests["op"][-1] = engine.OP_MARK
    gap = np.append(loop.gap, loop.boot_done[1] if loop.boot_done else 0)
    # numpy rounds half to even, as the clockwork wants it
    requests["think"] = gap if cpu_factor == 1.0 else np.rint(gap * cpu_factor).astype(np.int64)
    requests["first_child"][:-1], requests["next_child"] = loop.first_child, loop.next_child
    requests["issued"] = requests["done"] = requests["next_flush"] = requests["first_child"][-1] = -1
    return requests, loop.first_of_launch


def _most_blocks(setup: Setup) -> int:
    """Return the most blocks that one request, of the virtual machine or the relocation, touches."""
    of_vm = int(setup.loop.length.max(initial=0)) // setup.plan.block_bytes + 2
    return max(of_vm, setup.plan.relocation_request_bytes // setup.plan.block_bytes)


def _most_parts(setup: Setup) -> int:
    """Return the most parts that can be outstanding at a time."""
    of_vm = int((setup.loop.length // setup.plan.block_bytes + 2).sum())
    return of_vm + setup.plan.relocation_depth * _most_blocks(setup)


def _quanta(plan: RestorePlan) -> list[int]:
    """Return what each class gets when its turn comes, in bytes (section 6)."""
    blocks = max(plan.fetch_bytes // plan.block_bytes, plan.stage_fetch_bytes // plan.block_bytes)
    quantum = min(blocks, plan.cache_slots) * plan.block_bytes
    weights = plan.weights
    return [weight * quantum // 100 for weight in dataclasses.astuple(weights)]


def _settings(setup: Setup, first_set: int, hardware: Hardware) -> dict[str, int]:
    """Return the engine's settings for one machine."""
    plan, device, block_bytes = setup.plan, hardware.backup_device, setup.plan.block_bytes
    begins_with_first_set = setup.mode in ("instant_restore", "live_mount")
    return {
        "mode": _MODES[setup.mode],
        "asked_ns": setup.start_ns,
        "wanted_agent": -1 if setup.agent is None else setup.agent,
        "agent": -1,
        "last_agent": -1,
        "next_relocation": setup.loop.rows + 1,
        "launch_rule": _LAUNCH_RULES[plan.launch.rule if begins_with_first_set else "immediately"],
        "staged_to_launch": int(np.ceil(plan.launch.share * first_set)),
        "head_start_ns": plan.launch.head_start_ns,
        **_relocation_start(plan.relocation_start, device),
        "pre_relocation_delay_ns": plan.pre_relocation_delay_ns,
        "stage_ahead_blocks": plan.stage_ahead_limit // block_bytes,
        "purge_by_run": plan.purge.by_run,
        "run_length": plan.purge.run_length,
        "purge_by_period": plan.purge.by_period,
        "purge_period_ns": plan.purge.period_ns,
        "purge_by_indication": plan.purge.by_indication,
        "straight": plan.misses == "straight",
        "whole_chunks": setup.chunk is not None,
        "relocation_depth": plan.relocation_depth,
        "relocation_positions": plan.relocation_request_bytes // block_bytes,
        "apply_units": plan.relocation_request_bytes // 4096,
        "stage_depth": plan.stage_depth or device.channels,
        "stage_fetch_blocks": min(plan.stage_fetch_bytes // block_bytes, plan.cache_slots),
        "fetch_blocks": min(plan.fetch_bytes // block_bytes, plan.cache_slots),
        "expiry_ns": -1 if plan.expiry_ns is None else plan.expiry_ns,
        "warning_ns": plan.warning_ns,
        "extend_at_ns": -1 if plan.extend_at_ns is None else plan.extend_at_ns,
        "extend_by_ns": plan.extend_by_ns,
        "destination_latency_ns": hardware.destination.latency_ns,
        "destination_bandwidth": hardware.destination.bandwidth,
        "write_cache_latency_ns": hardware.write_cache.latency_ns,
        "write_cache_bandwidth": hardware.write_cache.bandwidth,
        "pivoted": setup.mode == "local",
        **dict.fromkeys(_NONE_AT_FIRST, -1),
    }


_NONE_AT_FIRST = (
    "first_flush",
    "last_flush",
    "first_parked",
    "event",
    "launch_cause",
    "first_set_event",
    "pre_relocation_event",
    "relocation_event",
    "warning_at",
    "launched_ns",
    "boot_done_ns",
    "started_ns",
    "finished_ns",
    "released_ns",
)


def _relocation_start(start: RelocationStart, device: BackupDevice) -> dict[str, int]:
    """Return the engine's settings for the start of the relocation."""
    settings = {"relocation_delay_ns": start.at_ns(0)}
    if start.rule == "time_of_day":
        settings |= {"relocation_first_ns": start.at_ns(0), "relocation_period_ns": DAY}
    elif start.rule == "load":
        window_ns = 60 * start.check_ns
        given = device.channels * device.bandwidth * window_ns // 1_000_000_000
        settings |= {"load_check_ns": start.check_ns, "load_limit_bytes": int(start.load_share * given)}
    return settings
