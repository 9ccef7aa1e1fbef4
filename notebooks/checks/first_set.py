"""Notebook 04: a first set within a budget, and the order of five blocks."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

import vmrestorekit as vr
from checks import Verdict, hint, right, your_turn
from vmrestorekit.plan import LaunchRule, RestorePlan
from vmrestorekit.restore.hardware import BackupDevice, resolve_hardware
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.show.first_set.disk_contents import DiskContents
from vmrestorekit.show.first_set.picks import Picks
from vmrestorekit.show.first_set.tries import Bench, Rules
from vmrestorekit.traces.schema import TRACE_SCHEMA, TraceMetadata

_MACHINES = ("bookworm-web", "bullseye-dns", "bullseye-web", "bullseye-web-b", "trixie-cache", "trixie-web")
_MEDIA = ("object_storage", "disk_library")
_HEAD_START_S = 4
# what somebody picks by kinds of files alone, and who has also looked at the folders in which most was missed
_BITS = ("configuration", "file system's own", "libraries")
_BY_KIND = (_BITS, (*_BITS, "programs and their files", "kernel, initial RAM disk"))
_FOLDERS = ("/usr/lib/systemd", "/usr/bin", "/usr/sbin", "/bin", "/sbin", "/var/log/journal")
_WITH_FOLDERS = (
    (*_BITS, *_FOLDERS),
    ("file system's own", "/usr/lib/systemd", "/etc", "/var/log/journal", "libraries", *_FOLDERS[1:5]),
    ("/etc", "/var/log/journal", "/usr/lib", "/usr/lib/systemd", "file system's own", "libraries"),
)
_WORTH = 0.025  # so much of what knowing all would save has to lie between both


@dataclasses.dataclass(frozen=True)
class Exercise:
    """A machine, and what its first set has to achieve."""

    boot: vr.Boot
    last_boot: vr.Boot
    medium: str
    budget_mb: int
    head_start_s: int
    stall_below_s: float


@functools.lru_cache(maxsize=2)
def exercise(seed: int = 1) -> Exercise:
    """Return the machine of a seed, and what is asked for."""
    drawn = np.random.default_rng(seed)
    corpus = vr.load_corpus()
    while True:  # until kinds alone are not enough, and it can be done
        machine = corpus[str(drawn.choice(_MACHINES))]
        medium, budget_mb = str(drawn.choice(_MEDIA)), int(drawn.choice([120, 130, 140]))
        boot, last_boot = machine.boots[-1], machine.boots[-2]
        bench, rules = _bench(boot, last_boot, medium), Rules(budget_mb, _HEAD_START_S)
        nothing, _, oracle = bench.stalls_of_others(rules).values()
        contents = DiskContents(boot, bench.block_bytes)
        by_kind, with_folders = (
            min(bench.restore(_picked(contents, names), rules).stall_s for names in picks)
            for picks in (_BY_KIND, _WITH_FOLDERS)
        )
        if by_kind - with_folders > _WORTH * (nothing - oracle):
            below = round((2 * by_kind + with_folders) / 3, 2)
            return Exercise(boot, last_boot, medium, budget_mb, _HEAD_START_S, below)


def _picked(contents: DiskContents, names: Sequence[str]) -> npt.NDArray[np.int32]:
    """Return the blocks of kinds of files and folders, in this order; what is not on the disk is nothing."""
    picks = Picks()
    for name in names:
        way = "folder" if name.startswith("/") else "kind of file"
        if name in contents.names(way):
            picks.add(name, contents.blocks(way, name))
    return picks.blocks()


@functools.lru_cache(maxsize=2)
def _bench(boot: vr.Boot, last_boot: vr.Boot, medium: str) -> Bench:
    return Bench(boot, last_boot, resolve_hardware(medium))


def check_first_set(first_set: Any, seed: int = 1) -> Verdict:
    """Check whether a first set is within the budget, and the stall below what is asked for."""
    if first_set is None or first_set is ...:
        return your_turn("Pick a first set above, then put my_picker.first_set in place of the dots.")
    blocks = _as_blocks(first_set)
    if isinstance(blocks, Verdict):
        return blocks
    asked = exercise(seed)
    bench = _bench(asked.boot, asked.last_boot, asked.medium)
    rules = Rules(asked.budget_mb, asked.head_start_s)
    if blocks.size == 0:
        return hint("This first set is empty. Add something above, and run this cell again.")
    if blocks.min() < 0 or blocks.max() >= bench.blocks or np.unique(blocks).size < blocks.size:
        return hint(f"Each block is to be a number from 0 to {bench.blocks - 1}, none twice.")
    mb = blocks.size * bench.block_bytes / 1e6
    if blocks.size > bench.most_blocks(rules):
        return hint(f"These are {mb:.0f} MB, and the budget is {asked.budget_mb} MB.")
    recorded = bench.others["what the last boot read"][: blocks.size]
    if set(blocks.tolist()) == set(recorded.tolist()):
        return hint("That is what the boot before read, as recorded. Here nobody recorded one: pick by hand.")
    tried = bench.restore(blocks.astype(np.int32), rules)
    told = f"{mb:.0f} MB, and the boot stalls {tried.stall_s:.2f} s"
    nothing, last, oracle = bench.stalls_of_others(rules).values()
    if tried.stall_s < asked.stall_below_s:
        return right(
            f"{told}: below {asked.stall_below_s:.2f} s. With nothing pre-staged it is {nothing:.1f} s, with "
            f"what the last boot read {last:.1f} s, and who knows all needs {oracle:.1f} s."
        )
    return hint(
        f"{told}; below {asked.stall_below_s:.2f} s is asked for. Restore above: the table of kinds says "
        "what was picked in vain, and the line under it in which folders most was missed. A folder may be "
        "worth more than the rest of its kind. Large files read in one go cost less than many small ones."
    )


def _as_blocks(first_set: Any) -> npt.NDArray[np.int64] | Verdict:
    try:
        blocks = np.asarray(list(first_set))
    except TypeError:
        return hint(f"Block numbers are asked for, such as my_picker.first_set; this is {first_set!r:.60}.")
    if blocks.size and not np.issubdtype(blocks.dtype, np.integer):
        return hint(f"Whole block numbers are asked for; the first one here is {first_set[0]!r:.40}.")
    return blocks.astype(np.int64)


# --- five blocks: a MADE-UP boot, so small that all orders can be tried -----------------------------------

_SECOND = 1_000_000_000
_BLOCK = 65536
# one reader that takes two seconds to go anywhere else, such as a tape that is already threaded
_READER = resolve_hardware("tape").replace(
    name="one slow reader",
    backup_device=BackupDevice(channels=1, positioning_ns=2 * _SECOND, bandwidth=100_000_000),
)
_HEAD_START = LaunchRule("head_start", head_start_ns=2 * _SECOND)
_PATTERNS = ("abAcB", "abcAB", "cabAB", "abABc")  # orders of first reads; a and A, b and B are neighbours


@functools.lru_cache(maxsize=8)
def five_blocks(seed: int = 1) -> pl.DataFrame:
    """Return five blocks as a MADE-UP boot reads them, and when it would from a local disk."""
    drawn = np.random.default_rng(seed)
    while True:  # until neither the order of the first reads nor that of the disk is best
        one, other, alone = (10 * drawn.permutation(np.arange(1, 10))[:3]).tolist()
        names = {"a": one, "A": one + 1, "b": other, "B": other + 1, "c": alone}
        blocks = [names[letter] for letter in str(drawn.choice(_PATTERNS))]
        frame = pl.DataFrame({"block": blocks, "read_at_s": np.cumsum(drawn.integers(2, 6, 5)) / 4})
        first_of_pair = {block // 10: place for place, block in reversed(list(enumerate(blocks)))}
        together = sorted(blocks, key=lambda block: (first_of_pair[block // 10], block))
        if _stall(frame, together) < min(_stall(frame, blocks), _stall(frame, sorted(blocks))) - 0.4:
            return frame


def stall_of(order: Any, seed: int = 1) -> float:
    """Return how many seconds the made-up boot waits if its blocks are staged in this order."""
    frame = five_blocks(seed)
    if (problem := _why_no_order(order, frame)) is not None:
        raise ValueError(problem)
    return _stall(frame, [int(block) for block in order])


def check_order(order: Any, seed: int = 1) -> Verdict:
    """Check whether no other order of the five blocks makes the boot wait less."""
    if order is None or order is ...:
        return your_turn(
            "Put a list of the five block numbers in place of the dots, in the order of staging."
        )
    frame = five_blocks(seed)
    if (problem := _why_no_order(order, frame)) is not None:
        return hint(problem)
    order = [int(block) for block in order]
    stalls = {each: _stall(frame, each) for each in itertools.permutations(frame["block"].to_list())}
    own, best = stalls[tuple(order)], min(stalls.values())
    if own <= best + 1e-9:
        return right(
            f"{own:.1f} s, and no other of the 120 orders is better. What is needed first goes first, but "
            "neighbours on the medium come together: the second of them costs no way of its own."
        )
    better = sum(stall < own - 1e-9 for stall in stalls.values())
    told = f"The boot waits {own:.1f} s. Better ones among the 120 orders: {better}."
    if order == frame["block"].to_list():
        return hint(f"{told} This is the order of the first reads. How many ways does the reader go?")
    if order == sorted(order):
        return hint(f"{told} This is the order of the disk: the fewest ways, but who waits meanwhile?")
    return hint(f"{told} Which blocks are neighbours? Which is needed first? Try some with `stall_of`.")


def _why_no_order(order: Any, frame: pl.DataFrame) -> str | None:
    blocks = frame["block"].to_list()
    try:
        given = sorted(order)
    except TypeError:
        return f"A list of the five block numbers is asked for; this is {order!r:.60}."
    if given != sorted(blocks):
        return f"Each of {blocks} is asked for once; these are {list(order)!r:.80}."
    return None


def _stall(frame: pl.DataFrame, order: Any) -> float:
    trace = _trace_of_five(tuple(frame["block"].to_list()), tuple(frame["read_at_s"].to_list()))
    plan = RestorePlan(
        trace.metadata.disk_bytes, "live_mount", first_set=np.array(order, np.int32), launch=_HEAD_START
    )
    address = np.arange(plan.blocks, dtype=np.int64) * _BLOCK
    timeline = simulate_trace(trace, plan, _READER, address, detail="summary")
    return float(timeline.metrics["stall_ns"] or 0) / _SECOND


@functools.lru_cache(maxsize=64)
def _trace_of_five(blocks: tuple[int, ...], times: tuple[float, ...]) -> vr.ReadTrace:
    issued = np.array([int(time * _SECOND) for time in times])
    requests = pl.DataFrame(
        {
            "issued_ns": issued,
            "completed_ns": issued + 1_000_000,
            "disk": 0,
            "op": "read",
            "offset": np.array(blocks) * _BLOCK,
            "length": _BLOCK,
        },
        schema=TRACE_SCHEMA,
    )
    done = {"boot_done_ns": int(issued[-1]) + _SECOND}
    about = TraceMetadata("made up", "five blocks", (100 * _BLOCK,), done, "made up", "none", {})
    return vr.ReadTrace(requests, about)
