"""SYNTHETIC restores of a small, busy machine, and questions to the events of any timeline.

Blocks are units of 4 KiB here, so that events say exactly what was written and applied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scenarios import Row, make_trace

from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart, RestorePlan
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link, PrimaryStorage
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.traces.schema import ReadTrace

MICROSECOND, MS = 1_000, 1_000_000
UNIT = 4096
BLOCKS = 256
HOLES = range(200, 220)
SLOW_DESTINATION_NS = 300 * MICROSECOND

# transmissions that are long on their way, a write cache that answers at once, a destination that does not
SLOW_LINK = Hardware(
    "SYNTHETIC",
    BackupDevice(channels=2, positioning_ns=200 * MICROSECOND, bandwidth=100_000_000),
    link=Link(5 * MS, 125_000_000),
    destination=PrimaryStorage(SLOW_DESTINATION_NS, 500_000_000),
    write_cache=PrimaryStorage(10 * MICROSECOND, 500_000_000),
)


def busy_trace() -> ReadTrace:
    """A request a millisecond, some reads twice at once; reads of sectors, writes and discards of units."""
    random = np.random.default_rng(20)
    rows: list[Row] = []
    for number in range(1000):
        now = number * MS
        op = random.choice(["read", "write", "flush", "discard"], p=[0.7, 0.15, 0.05, 0.1])
        first, count = int(random.integers(0, BLOCKS - 4)), int(random.integers(1, 4))
        if op == "write" and number % 2:  # some units again and again, also while they are applied
            first = int(random.integers(0, 8))
        if op == "discard" and number > 150:  # not while writes are applied: no event says when that is
            op = "read"
        if op == "flush":
            offset, length = 0, 0
        elif op == "read":
            offset, length = first * UNIT + 512 * int(random.integers(0, 8)), count * UNIT - 1024
        else:
            offset, length = first * UNIT, count * UNIT
        row = (now, now + 4 * MS, 0, str(op), offset, length)
        rows += [row, row] if op == "read" and number % 4 == 0 else [row]
    return make_trace(rows, (BLOCKS * UNIT,), boot_done_ns=300 * MS)


def reads_at(blocks: list[int], every_ns: int) -> ReadTrace:
    """Reads of one block each at fixed times, none of which waits for another."""
    forever = every_ns * len(blocks) + MS
    rows: list[Row] = [
        (number * every_ns, forever + number, 0, "read", block * UNIT, UNIT)
        for number, block in enumerate(blocks)
    ]
    return make_trace(rows, (BLOCKS * UNIT,))


def small_plan(**changes: Any) -> RestorePlan:
    """A plan that stages some of the disk, relocates after 0.1 s and purges runs of four reads."""
    settings: dict[str, Any] = {
        "block_bytes": UNIT,
        "first_set": np.arange(BLOCKS - 1, 96, -1),
        "stage_ahead_bytes": 16 * UNIT,
        "launch": LaunchRule("share", 0.25),
        "relocation_start": RelocationStart("delay", 100 * MS),
        "purge": PurgeRule(by_run=True, run_length=4),
        "relocation_request_bytes": 16 * UNIT,
        "stage_fetch_bytes": UNIT,
        "cache_bytes": BLOCKS * UNIT,
    }
    return RestorePlan((BLOCKS * UNIT,), **settings | changes)


def layout() -> npt.NDArray[np.int64]:
    """Where the blocks lie on the backup medium: in order, without the holes."""
    stored = np.ones(BLOCKS, bool)
    stored[HOLES] = False
    return np.where(stored, (np.cumsum(stored) - 1) * UNIT, -1)


def small_restore(trace: ReadTrace | None = None, hardware: Hardware = SLOW_LINK, **changes: Any) -> Timeline:
    """Restore the busy machine, or another of its size, by `small_plan` with some changes."""
    return simulate_trace(trace or busy_trace(), small_plan(**changes), hardware, layout())


def rows_of(timeline: Timeline, *kinds: str) -> pl.DataFrame:
    """The events of some kinds, with their rows."""
    return timeline.events.with_row_index("row").filter(pl.col("kind").is_in(list(kinds)))


def row_of(timeline: Timeline, kind: str) -> int:
    """The row of an event that there is once."""
    (row,) = rows_of(timeline, kind)["row"]
    return int(row)


def by_block(events: pl.DataFrame) -> pl.DataFrame:
    """One row for each block of the events' ranges."""
    blocks = pl.int_ranges("block", pl.col("block") + pl.col("count"))
    return events.with_columns(blocks.alias("block")).explode("block")


def messages(timeline: Timeline) -> list[str]:
    """Everything that the components tell each other, as ``actor: kind``, in order."""
    told = timeline.events.filter(
        pl.col("request") < 0,
        ~pl.col("actor").is_in(["vm"]),
        ~pl.col("kind").is_in(["fetch", "staged", "evict", "infer_run", "purge", "applied"]),
    )
    return [f"{actor}: {kind}" for actor, kind in told.select("actor", "kind").iter_rows()]


def cached_before(timeline: Timeline, row: int) -> set[int]:
    """The blocks in the read cache before an event."""
    cached: set[int] = set()
    changes = by_block(rows_of(timeline, "staged", "evict", "purge"))
    for kind, block in changes.filter(pl.col("row") < row).select("kind", "block").iter_rows():
        cached.add(block) if kind == "staged" else cached.remove(block)
    return cached


def fetched_though_there(timeline: Timeline) -> list[int]:
    """Blocks whose fetch started while they were in the read cache or already on their way to it."""
    there: set[int] = set()
    twice = []
    changes = by_block(rows_of(timeline, "fetch", "evict", "purge"))
    for kind, block in changes.select("kind", "block").iter_rows():
        if kind != "fetch":
            there.remove(block)
        elif block in there:
            twice.append(block)
        else:
            there.add(block)
    return twice


def purged_outside_runs(timeline: Timeline) -> list[int]:
    """Blocks purged for a run though none had that length.

    A run is a series of reads that the media agent saw since it was told of the relocation, each of the
    position after the one before.
    """
    plan = timeline.plan
    sequence = plan.sequence[timeline.stored[plan.sequence]]
    position = {int(block): at for at, block in enumerate(sequence)}
    told = row_of(timeline, "indicate_relocation_in_progress")
    longest: dict[int, int] = {}  # that ends at a position
    in_run: set[int] = set()
    outside = []
    events = rows_of(timeline, "cache_hit", "cache_wait", "cache_miss", "purge").filter(pl.col("row") > told)
    for kind, block in events.select("kind", "block").iter_rows():
        at = position[block]
        if kind == "purge":
            outside += [] if at in in_run else [block]
            continue
        longest[at] = max(longest.get(at, 0), 1 + longest.get(at - 1, 0))
        if longest[at] >= plan.purge.run_length:
            in_run.update(range(at - plan.purge.run_length + 1, at + 1))
    return outside
