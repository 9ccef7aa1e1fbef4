"""Checks of notebook 05: when to start a relocation, what a run purges, an order without a second fetch."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import polars as pl

import vmrestorekit as vr
from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart, RestorePlan
from vmrestorekit.restore.hardware import resolve_hardware
from vmrestorekit.restore.runs import RunDetector
from vmrestorekit.restore.sequences import allocated
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.show.relocation.choices import boot_last
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

from . import Verdict, hint, right, your_turn

SECOND, MS = 1_000_000_000, 1_000_000
MACHINES = ("bookworm-db", "bookworm-files", "bookworm-python", "bookworm-web", "trixie-db")
EARLIEST = range(8, 24)  # seconds after the launch: until then a start is not allowed
SPAN = 13  # so many starts are looked at from there


# --- when to start (O10) ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Scenario:
    """A machine that is relocated with what its boot needs last, and what its owner asks for.

    Attributes
    ----------
    boot : Boot
    plan : RestorePlan
        Starts the relocation as early as is allowed.
    earliest_s : int
        Before, the destination is busy with another restore.
    stall_s : float
        The boot has to wait less for the backup.
    released_s : int
        The backup copy has to be released before.
    """

    boot: Boot
    plan: RestorePlan
    earliest_s: int
    stall_s: float
    released_s: int

    def __repr__(self) -> str:
        return (
            f"{self.boot.vm}, {self.boot.boot}: no start before {self.earliest_s} s, "
            f"stall below {self.stall_s} s, backup copy free before {self.released_s} s"
        )


@functools.lru_cache(maxsize=1)
def _corpus() -> vr.Corpus:
    return vr.load_corpus()


@functools.lru_cache(maxsize=16)
def scenario(seed: int) -> Scenario:
    """Return the machine of a seed, and limits that some starts keep and the others do not."""
    draw = random.Random(seed)
    name = draw.choice(MACHINES)
    *_, before, boot = _corpus()[name].boots
    start = RelocationStart("delay", delay_ns=0)
    plan = vr.make_plan(vr.LastBootReplay().fit([before]), boot, relocation_start=start)
    stored = allocated(BackupLayout.full(boot.manifests, plan.block_bytes))
    plan = plan.replace(relocation_sequence=boot_last(plan.first_set, stored))
    outcomes = {delay: _outcome(boot, plan, delay) for delay in range(EARLIEST[0], EARLIEST[-1] + SPAN)}
    limit = {  # of the stall, in tenths of a second; the earliest start must not be good by itself
        first: math.ceil(10 * (min(outcomes[first + late][0] for late in range(SPAN)) + 0.4)) / 10
        for first in EARLIEST
    }
    earliest_s = draw.choice([first for first in EARLIEST if outcomes[first][0] > limit[first] + 0.4])
    stall_s = limit[earliest_s]
    good = sorted(
        released for delay, (stall, released) in outcomes.items() if delay >= earliest_s and stall < stall_s
    )
    start = RelocationStart("delay", delay_ns=earliest_s * SECOND)
    released_s = math.ceil(good[min(2, len(good) - 1)] + 0.5)
    return Scenario(boot, plan.replace(relocation_start=start), earliest_s, stall_s, released_s)


def _outcome(boot: Boot, plan: RestorePlan, delay: float) -> tuple[float, float]:
    """Return the stall and the release in seconds, with a relocation that starts so long after the launch."""
    start = RelocationStart("delay", delay_ns=round(delay * SECOND))
    figures = vr.simulate(boot, plan.replace(relocation_start=start), detail="summary").summary()
    stall, released = figures["stall_ns"], figures["released_ns"]
    assert stall is not None
    assert released is not None
    return stall / 1e9, released / 1e9


def start(answer: object, seed: int) -> Verdict:
    """Check a number of seconds after which the relocation of `scenario` starts."""
    wanted = scenario(seed)
    if answer is None or answer is ...:
        return your_turn(f"After how many seconds does the relocation start? {wanted!r}.")
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not 0 <= answer <= 3600:
        return hint(f"A number of seconds from 0 to 3600 is asked for; this is {answer!r}.")
    if answer < wanted.earliest_s:
        return hint(f"Before {wanted.earliest_s} s the destination is busy: a later start is asked for.")
    stall, released = _outcome(wanted.boot, wanted.plan, answer)
    told = (
        f"With {answer:g} s the stall is {stall:.2f} s, and the backup copy is free after {released:.1f} s."
    )
    if stall >= wanted.stall_s:
        return hint(
            f"{told} The boot waits too long. When does this machine read much, and what is the relocation "
            "copying then? Look at both in the time chart."
        )
    if released >= wanted.released_s:
        return hint(f"{told} The boot is fine, but the backup copy is tied for too long: start earlier.")
    return right(
        f"{told} Of the starts that are allowed, this is one with which relocation and boot get little in "
        "each other's way."
    )


# --- what a run purges (O15, O16) -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Reads:
    """A relocation sequence, the reads that the media agent sees, and how many make a run."""

    sequence: tuple[int, ...]
    reads: tuple[int, ...]
    run_length: int


@functools.lru_cache(maxsize=16)
def reads(seed: int) -> Reads:
    """Return the reads of a seed: a run of the relocation, with reads of the virtual machine in between."""
    draw = random.Random(seed)
    sequence = draw.sample(range(10, 100), 12)
    run_length = draw.choice((3, 4))
    begin = draw.randint(0, 3)
    run = sequence[begin : begin + run_length + draw.randint(0, 2)]
    rest = [block for block in sequence if block not in run]
    at = draw.randint(0, len(rest) - 3)
    others = [rest[at + 2], rest[at], draw.randint(100, 199)]  # never a run: backwards, or no block of it
    seen = list(run)
    for other in others:
        seen.insert(draw.randint(1, len(seen)), other)
    return Reads(tuple(sequence), tuple(seen), run_length)


def _purged(shown: Reads) -> list[int]:
    detector = RunDetector(shown.sequence, shown.run_length)
    return [block for read in shown.reads for block in detector.read(read)]


def purge(answer: object, seed: int) -> Verdict:
    """Check which blocks of `reads` are purged."""
    shown = reads(seed)
    if answer is None or answer is ...:
        return your_turn("List the blocks that the media agent may purge, such as [12, 34].")
    if isinstance(answer, str) or not isinstance(answer, Sequence | set | frozenset):
        return hint(f"A list of block numbers is asked for, such as [12, 34]; this is {answer!r}.")
    if not all(isinstance(block, int) and not isinstance(block, bool) for block in answer):
        return hint("Each entry has to be a block number, such as 12.")
    named, purged = set(answer), _purged(shown)
    if never := sorted(named - set(shown.reads)):
        return hint(f"Nobody has read {never}: only what was served is purged.")
    if strangers := sorted(named - set(shown.sequence)):
        return hint(f"{strangers} is not in the relocation sequence: such reads are ignored.")
    if wrong := sorted(named - set(purged)):
        return hint(
            f"{len(wrong)} of yours stay{'s' if len(wrong) == 1 else ''}. A run takes {shown.run_length} "
            "reads at places of the sequence that follow each other; follow the sequence, not the numbers."
        )
    if len(named) < len(purged):
        return hint(
            f"{len(named)} of {len(purged)}. Other reads in between do not break a run; once it is long "
            "enough, all of it goes, also its beginning, and so does what extends it."
        )
    return right(
        f"{purged}: a run of {shown.run_length} or more along the sequence. The relocation has "
        "them; nobody else is expected to ask the media agent for them again."
    )


# --- an order that fetches nothing twice ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TinyDisk:
    """A SYNTHETIC disk of 128 blocks; twice in a row its machine reads some neighbours, ascending."""

    first: int
    count: int
    blocks: int = 128
    run_length: int = 4

    @property
    def wanted(self) -> range:
        """The blocks that are read."""
        return range(self.first, self.first + self.count)

    def relocate(self, sequence: Sequence[int]) -> dict[str, int | float | None]:
        """Return the figures of a restore that relocates in this order, from the launch on."""
        size = 64 * 1024
        rows, at = [], 60 * MS
        for _ in range(2):
            for block in self.wanted:
                rows.append((at, at + MS, 0, "read", block * size, size))
                at += 2 * MS
            at += 30 * MS
        disk = (self.blocks * size,)
        trace = ReadTrace(
            pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row"),
            TraceMetadata("SYNTHETIC", "tiny", disk, {"boot_done_ns": at}, "SYNTHETIC", "none", {}),
        )
        plan = RestorePlan(
            disk,
            block_bytes=size,
            first_set=np.array(self.wanted, np.int32),
            relocation_sequence=np.array(sequence, np.int32),
            launch=LaunchRule("head_start", head_start_ns=SECOND),
            relocation_start=RelocationStart("at_once"),
            purge=PurgeRule(run_length=self.run_length),
            stage_ahead_bytes=0,
        )
        address = np.arange(self.blocks, dtype=np.int64) * size
        return simulate_trace(trace, plan, resolve_hardware("object_storage"), address).summary()


@functools.lru_cache(maxsize=16)
def tiny_disk(seed: int) -> TinyDisk:
    """Return the disk of a seed."""
    draw = random.Random(seed)
    count = draw.randint(4, 7)
    return TinyDisk(draw.randint(90, 120 - count), count)


def order(answer: object, seed: int) -> Verdict:
    """Check a relocation sequence for `tiny_disk`: nothing is fetched twice, and it jumps twice at most."""
    disk = tiny_disk(seed)
    if answer is None or answer is ...:
        return your_turn(
            f"List the {disk.blocks} blocks, 0 to {disk.blocks - 1}, in the order of their relocation."
        )
    if isinstance(answer, str) or not isinstance(answer, Sequence | np.ndarray):
        return hint(
            f"A list of block numbers is asked for, such as [*range(128)]; this is {type(answer).__name__}."
        )
    blocks = list(answer)
    if not all(isinstance(block, int | np.integer) and not isinstance(block, bool) for block in blocks):
        return hint(
            "Each entry has to be a block number; did you write [range(128)] instead of [*range(128)]?"
        )
    if missing := sorted(set(range(disk.blocks)) - set(blocks)):
        return hint(f"Never relocated: {len(missing)} of the blocks, the first of them block {missing[0]}.")
    if len(blocks) != disk.blocks:
        return hint(f"Each block is relocated once: expected {disk.blocks} entries, yours has {len(blocks)}.")
    again = disk.relocate(blocks)["refetches_after_purge"]
    jumps = sum(int(block != before + 1) for before, block in itertools.pairwise(blocks))
    if jumps > 2:
        return hint(
            f"There are {jumps} jumps in your list, places where the next number is not one more. "
            "Two are enough: which blocks should simply come sooner?"
        )
    if again:
        return hint(
            f"Blocks fetched again: {again}. When the machine reads them, the relocation has not come to "
            "them, and its reads follow your order: to the media agent they look like the relocation's."
        )
    if max(blocks.index(block) for block in disk.wanted) < 2 * disk.count:
        why = "what the machine needs is on the destination before it asks, and is read there."
    else:
        why = f"along it the machine never reads {disk.run_length} in a row: nothing is taken for a run."
    return right(f"Nothing is fetched again, with {'one jump' if jumps == 1 else f'{jumps} jumps'}: {why}")
