"""Hypothesis strategies for small restores in which much happens at the same time.

Think times, services and delays are of the same order of magnitude (a 4 KiB block takes about 1000 ns) and
drawn from few numbers, so that requests overlap, queues build up, and ties are frequent.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from hypothesis import strategies as st

from vmrestorekit.plan import (
    EVICTION_POLICIES,
    MISSES,
    MODES,
    PRIORITIES,
    LaunchRule,
    PurgeRule,
    RelocationStart,
    RestorePlan,
    Weights,
)
from vmrestorekit.plan import block_count as count_blocks
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link, PrimaryStorage
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata, validate_trace

__all__ = ["Scenario", "StormScenario", "make_trace", "scenarios", "storms"]

Row = tuple[int, int, int, str, int, int]
UNIT = 4096

# one draw each: hypothesis spends most of its time on the number of draws
SHORT_TIMES = st.sampled_from([0, 0, 0, 1, 100, 250, 500, 777, 1000, 1000, 1024, 1333, 2000, 5000])
DELAYS = st.sampled_from([0, 0, 1, 500, 1000, 2000, 2345, 3000, 4321, 8000, 20_000])
LATENCIES = st.sampled_from([0, 0, 1, 100, 333, 500, 1000, 1333])
# mostly small disks, so that the virtual machine is still busy when the relocation has finished
SIZES = st.sampled_from([2, 2, 3, 3, 4, 5, 6, 8, 12, 17, 24])
GRAINS = st.sampled_from([UNIT, UNIT, 512, 1])
# checks of the runs, which would be very many in a long relocation
PERIODS = st.sampled_from([300, 1000, 1000, 2345, 5000])
WHOLE_CHUNKS = st.sampled_from([False, False, True])
BANDWIDTHS = st.sampled_from([1_000_000_000, 4_000_000_000, 4_096_000_000, 8_192_000_000, 3_999_999_999])


@dataclasses.dataclass(frozen=True, eq=False)
class Scenario:
    """Everything a simulation needs; `stored`, `address` and `chunk` are of shape (blocks,).

    `chunk` is None unless whole chunks have to be read.
    """

    trace: ReadTrace
    plan: RestorePlan
    hardware: Hardware
    stored: npt.NDArray[np.bool_]
    address: npt.NDArray[np.int64]
    chunk: npt.NDArray[np.int32] | None = None
    chunk_extents: npt.NDArray[np.int64] | None = None  # (chunks, 2), if chunks are more than their blocks

    def __repr__(self) -> str:
        """Show the rows and lists too, so that a failing example can be read."""
        return "\n".join(
            (
                "Scenario:",
                *(f"  {number}: {row}" for number, row in enumerate(self.trace.frame.rows())),
                f"  marks {dict(self.trace.metadata.marks)}",
                f"  {self.plan}",
                f"  first set {self.plan.first_set.tolist()}, sequence {self.plan.sequence.tolist()}",
                f"  {self.hardware}",
                f"  address {self.address.tolist()}",
                f"  chunk {None if self.chunk is None else self.chunk.tolist()}",
                f"  extents {None if self.chunk_extents is None else self.chunk_extents.tolist()}",
            )
        )


@dataclasses.dataclass(frozen=True, eq=False)
class StormScenario:
    """Several restores of one storm (rule 12 of the clockwork) and their media agents.

    `machines` have the same hardware; `content` holds of each an array of int64, shape (blocks,), or None.
    """

    machines: list[Scenario]
    content: list[npt.NDArray[np.int64] | None]
    start_ns: list[int]
    named_agent: list[int | None]
    agents: dict[str, Any]  # settings of `MediaAgents`

    @property
    def hardware(self) -> Hardware:
        return self.machines[0].hardware

    def __repr__(self) -> str:
        """Show what is drawn of each machine."""
        lines = [f"StormScenario of {self.agents}"]
        for number, machine in enumerate(self.machines):
            content = self.content[number]
            lines.append(f"machine {number} from {self.start_ns[number]}, agent {self.named_agent[number]}")
            lines.append(f"content {None if content is None else content.tolist()}")
            lines.append(repr(machine))
        return "\n".join(lines)


def make_trace(rows: list[Row], disk_bytes: tuple[int, ...], boot_done_ns: int | None = None) -> ReadTrace:
    """Return a valid trace of rows (issued_ns, completed_ns, disk, op, offset, length)."""
    frame = pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row")
    marks = {} if boot_done_ns is None else {"boot_done_ns": boot_done_ns}
    metadata = TraceMetadata("vm", "boot", disk_bytes, marks, "drawn", "none", {})
    validate_trace(frame, metadata)
    return ReadTrace(frame, metadata)


@st.composite
def scenarios(draw: st.DrawFn, modes: tuple[str, ...] = MODES) -> Scenario:
    """Draw a trace, a plan for its disks in one of `modes`, hardware, and a layout of the backup copy.

    A live mount may expire before its launch, which is an error.
    """
    block_bytes = draw(st.sampled_from([4096, 8192]))
    media_agent = draw(_media_agent_settings(block_bytes))
    return draw(_scenarios_for(modes, media_agent, draw(_hardware())))


@st.composite
def _scenarios_for(
    draw: st.DrawFn, modes: tuple[str, ...], media_agent: dict[str, Any], hardware: Hardware
) -> Scenario:
    block_bytes = media_agent["block_bytes"]
    disk_bytes = draw(_disk_sizes(block_bytes))
    blocks = count_blocks(disk_bytes, block_bytes)
    stored = np.array(draw(_mostly_true(blocks)), dtype=bool)
    address = draw(_layouts(stored, block_bytes))
    chunk = draw(_chunks(address)) if draw(WHOLE_CHUNKS) else None
    extents = chunk is not None and draw(st.booleans())
    return Scenario(
        trace=draw(_traces(disk_bytes)),
        plan=draw(_plans(draw(st.sampled_from(modes)), disk_bytes, stored, media_agent)),
        hardware=hardware,
        stored=stored,
        address=address,
        chunk=chunk,
        chunk_extents=draw(_extents(address, chunk, block_bytes)) if extents else None,
    )


@st.composite
def storms(draw: st.DrawFn, modes: tuple[str, ...] = MODES) -> StormScenario:
    """Draw two or three machines and one to three media agents, some of which go away."""
    block_bytes = draw(st.sampled_from([4096, 8192]))
    media_agent, hardware = draw(_media_agent_settings(block_bytes)), draw(_hardware())
    count = draw(st.integers(1, 3))
    machines = [draw(_scenarios_for(modes, media_agent, hardware)) for _ in range(draw(st.integers(2, 3)))]
    share_contents = draw(st.booleans())
    return StormScenario(
        machines=machines,
        content=[draw(_contents(machine)) if share_contents else None for machine in machines],
        start_ns=[draw(DELAYS) for _ in machines],
        named_agent=[draw(st.none() | st.none() | st.integers(0, count - 1)) for _ in machines],
        agents={
            "count": count,
            "balancing": draw(st.sampled_from(["fewest", "round_robin"])),
            "staging": draw(st.sampled_from(["round_robin", "in_turn"])),
            "shared_device": draw(st.booleans()),
            "failures": draw(_failures(count)),
            "takeover_ns": draw(DELAYS),
        },
    )


@st.composite
def _contents(draw: st.DrawFn, machine: Scenario) -> npt.NDArray[np.int64]:
    """Draw contents of which several machines, and one machine several times, have the same ones."""
    blocks = len(machine.stored)
    how = draw(st.sampled_from(["in order", "few", "many"]))
    if how == "in order":
        return np.arange(blocks, dtype=np.int64)
    different = 4 if how == "few" else 2 * blocks
    random_numbers = random.Random(draw(st.integers(0, 10_000)))
    return np.array([random_numbers.randrange(different) for _ in range(blocks)], dtype=np.int64)


@st.composite
def _failures(draw: st.DrawFn, count: int) -> tuple[tuple[int, int], ...]:
    """Draw which agents go away, each once, and when."""
    if draw(st.booleans()):
        return ()
    agents = sorted(draw(st.sets(st.integers(0, count - 1), min_size=1)))
    return tuple((agent, draw(DELAYS) + draw(SHORT_TIMES)) for agent in agents)


def _shuffled(draw: st.DrawFn, blocks: Iterable[int]) -> list[int]:
    """Draw an order by its seed, which is much quicker than `st.permutations`; 0 leaves it as it is."""
    order = list(blocks)
    seed = draw(st.integers(0, 10_000))
    if seed:
        random.Random(seed).shuffle(order)
    return order


@st.composite
def _disk_sizes(draw: st.DrawFn, block_bytes: int) -> tuple[int, ...]:
    """Draw one or two disks of 2 to 24 blocks, the last block of which may be a short one."""

    def size() -> int:
        return draw(SIZES) * block_bytes - draw(st.sampled_from([0, 0, 0, 512, 3584]))

    return tuple(size() for _ in range(draw(st.sampled_from([1, 1, 2]))))


@st.composite
def _mostly_true(draw: st.DrawFn, count: int) -> list[bool]:
    holes = draw(st.sets(st.integers(0, count - 1), max_size=count // 2)) if draw(st.booleans()) else set()
    return [block not in holes for block in range(count)]


@st.composite
def _traces(draw: st.DrawFn, disk_bytes: tuple[int, ...]) -> ReadTrace:
    """Draw 1 to 25 requests, with overlaps, ties and requests that took no time."""
    writes = draw(st.sampled_from(["read", "write", "discard"]))  # traces differ in what they mostly do
    ops = st.sampled_from(["read", "read", "read", "write", "discard", "flush", writes, writes])
    rows: list[Row] = []
    now = 0
    for _ in range(draw(st.integers(1, 25))):
        now += draw(SHORT_TIMES)
        op = draw(ops)
        disk = draw(st.integers(0, 1)) if len(disk_bytes) > 1 else 0
        offset, length = (0, 0) if op == "flush" else draw(_ranges(disk_bytes[disk]))
        rows.append((now, now + draw(SHORT_TIMES), disk, op, offset, length))
    boot_done = draw(st.none() | st.integers(0, now + 3000) | st.just(rows[-1][1]))
    return make_trace(rows, disk_bytes, boot_done)


@st.composite
def _ranges(draw: st.DrawFn, size: int) -> tuple[int, int]:
    """Draw offset and length: whole units, sectors, or any bytes."""
    grain = draw(GRAINS)
    grains = max(1, size // grain)
    offset = draw(st.integers(0, grains - 1)) * grain
    longest = min(size - offset, 4 * UNIT)
    return offset, min(longest, grain * draw(st.integers(1, 4 * UNIT // grain)))


@st.composite
def _media_agent_settings(draw: st.DrawFn, block_bytes: int) -> dict[str, Any]:
    """Draw what has to be the same in the plans of all machines of a media agent; the cache is often tiny."""
    slots = draw(st.integers(1, 4) | st.integers(1, 26))
    priorities = draw(st.sampled_from(PRIORITIES))
    settings: dict[str, Any] = {
        "block_bytes": block_bytes,
        "cache_bytes": slots * block_bytes + draw(st.sampled_from([0, 0, 100])),
        "eviction": draw(st.sampled_from(EVICTION_POLICIES)),
        "priorities": priorities,
        "misses": draw(st.sampled_from([MISSES[0], *MISSES])),
        "stage_fetch_bytes": block_bytes * draw(st.integers(1, 4)),
        "fetch_bytes": block_bytes * draw(st.integers(1, 4)) + draw(st.sampled_from([0, 0, 100])),
    }
    if priorities == "weighted":
        settings["weights"] = Weights(
            *draw(st.sampled_from([(50, 30, 20), (1, 1, 98), (10, 80, 10), (98, 1, 1)]))
        )
    return settings


@st.composite
def _plans(
    draw: st.DrawFn,
    mode: str,
    disk_bytes: tuple[int, ...],
    stored: npt.NDArray[np.bool_],
    media_agent: dict[str, Any],
) -> RestorePlan:
    """Draw every setting of a plan besides those of its media agent."""
    blocks, block_bytes = len(stored), media_agent["block_bytes"]
    first_set = _shuffled(draw, range(blocks))[: draw(st.integers(0, blocks))]
    head_start_ns = draw(DELAYS)
    launch = draw(st.sampled_from(["share", "head_start", "immediately"]))
    settings: dict[str, Any] = {}
    if mode == "live_mount":
        settings |= draw(_expiries(head_start_ns if launch == "head_start" else 0))
    else:
        settings |= {
            "relocation_sequence": draw(_sequences(stored)),
            "relocation_start": draw(_relocation_starts()),
            "purge": draw(_purge_rules()),
        }
    return RestorePlan(
        disk_bytes=disk_bytes,
        mode=mode,
        first_set=np.array(first_set, dtype=np.int32),
        launch=LaunchRule(launch, draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])), head_start_ns),
        pre_relocation_delay_ns=draw(DELAYS),
        stage_ahead_bytes=draw(st.none() | st.integers(0, 6 * block_bytes)),
        relocation_depth=draw(st.integers(1, 3)),
        relocation_request_bytes=block_bytes * draw(st.integers(1, 4)) + draw(st.sampled_from([0, 0, 4096])),
        stage_depth=draw(st.none() | st.integers(1, 3)),
        **media_agent,
        **settings,
    )


@st.composite
def _expiries(draw: st.DrawFn, head_start_ns: int) -> dict[str, Any]:
    """Draw none, or one after the head start, which may be extended."""
    if draw(st.booleans()):
        return {}
    after = draw(st.integers(1, 30_000) | st.sampled_from([1, 1000, 2000, 4000]))
    settings = {"expiry_ns": after + head_start_ns, "warning_ns": draw(DELAYS)}
    if draw(st.booleans()):
        settings["extend_at_ns"] = draw(st.integers(0, settings["expiry_ns"] - 1))
        settings["extend_by_ns"] = draw(st.sampled_from([1, 1000, 2345, 8000, 20_000]))
    return settings


@st.composite
def _purge_rules(draw: st.DrawFn) -> PurgeRule:
    return PurgeRule(
        by_run=draw(st.booleans()),
        run_length=draw(st.integers(2, 4)),
        by_indication=draw(st.booleans()),
        by_period=draw(st.booleans()),
        period_ns=draw(PERIODS),
    )


@st.composite
def _extents(
    draw: st.DrawFn, address: npt.NDArray[np.int64], chunk: npt.NDArray[np.int32], block_bytes: int
) -> npt.NDArray[np.int64]:
    """Draw what is read for each chunk: its blocks, and maybe what others have in front and behind."""
    more = st.sampled_from([0, block_bytes // 2, 3 * block_bytes])
    extents = [
        (
            address[chunk == number].min() - draw(more),
            address[chunk == number].max() + block_bytes + draw(more),
        )
        for number in range(chunk.max(initial=-1) + 1)
    ]
    return np.maximum(np.array(extents, np.int64).reshape(-1, 2), 0)


@st.composite
def _chunks(draw: st.DrawFn, address: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Draw chunks of up to four blocks that lie one behind the other; -1 for holes.

    The blocks of a chunk need not be neighbours, as in an incremental copy, nor ascend, as with links.
    """
    ascending = draw(st.booleans())
    most = draw(st.integers(1, 4))
    in_order = np.argsort(address, kind="stable")
    chunk = np.full(len(address), -1, dtype=np.int32)
    number, length, last = -1, most, -1
    for block in in_order[address[in_order] >= 0].tolist():
        if (ascending and block < last) or length == most:
            number, length = number + 1, 0
        chunk[block] = number
        length, last = length + 1, block
    return chunk


@st.composite
def _relocation_starts(draw: st.DrawFn) -> RelocationStart:
    """Draw a rule; a load condition looks as often as things happen, and a day later is late enough."""
    return RelocationStart(
        draw(st.sampled_from(["at_once", "delay", "delay", "load", "time_of_day"])),
        draw(DELAYS),
        time_of_day=draw(st.sampled_from(["18:00", "18:01", "17:59"])),
        wall_clock="18:00",
        load_share=draw(st.sampled_from([0.001, 0.01, 0.1, 1.0])),
        check_ns=draw(st.integers(1, 400)),
        deadline_ns=draw(st.integers(0, 40_000)),
    )


@st.composite
def _sequences(draw: st.DrawFn, stored: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32] | None:
    """Draw an order of relocation, with all holes or with none."""
    blocks = list(range(len(stored)))
    if draw(st.booleans()):
        blocks = [block for block in blocks if stored[block]]
    order = draw(st.sampled_from(["default", "ascending", "descending", "rotated", "shuffled"]))
    if order == "default":
        return None
    if order == "descending":
        blocks.reverse()
    elif order == "rotated" and blocks:
        start = draw(st.integers(0, len(blocks) - 1))
        blocks = blocks[start:] + blocks[:start]
    elif order == "shuffled":
        blocks = _shuffled(draw, blocks)
    return np.array(blocks, dtype=np.int32)


@st.composite
def _layouts(draw: st.DrawFn, stored: npt.NDArray[np.bool_], block_bytes: int) -> npt.NDArray[np.int64]:
    """Draw addresses: in order, in a few extents, or fully fragmented; -1 for holes."""
    order = [int(block) for block in np.flatnonzero(stored)]
    how = draw(st.sampled_from(["in order", "extents", "fragmented"]))
    if how == "extents" and order:
        start = draw(st.integers(0, len(order) - 1))
        order = order[start:] + order[:start]
    elif how == "fragmented":
        order = _shuffled(draw, order)
    address = np.full(len(stored), -1, dtype=np.int64)
    first = draw(st.sampled_from([0, 0, 1, 10])) * block_bytes
    for place, block in enumerate(order):
        address[block] = first + place * block_bytes
    return address


@st.composite
def _hardware(draw: st.DrawFn) -> Hardware:
    device = BackupDevice(
        channels=draw(st.integers(1, 3)),
        positioning_ns=draw(LATENCIES),
        bandwidth=draw(BANDWIDTHS),
        mount_ns=draw(st.sampled_from([0, 0, 0, 1500])),
        distance_ns_per_gib=draw(st.sampled_from([0, 0, 2_621_440, 100_000_000])),
    )
    return Hardware(
        "drawn",
        device,
        link=Link(draw(LATENCIES), draw(BANDWIDTHS)),
        destination=PrimaryStorage(draw(LATENCIES), draw(BANDWIDTHS)),
        write_cache=PrimaryStorage(draw(LATENCIES), draw(BANDWIDTHS)),
        cpu_factor=draw(st.sampled_from([0.5, 1.0, 1.0, 1.5])),
    )
