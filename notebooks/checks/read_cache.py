"""Checks of notebook 03: how large a read cache, which policy, and what a purge saves."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import numbers
import random
from collections.abc import Mapping, Sequence
from typing import Any

import vmrestorekit as vr
from checks import Verdict, hint, right, your_turn
from vmrestorekit.plan import PurgeRule, RelocationStart

__all__ = [
    "POLICIES",
    "SIZES",
    "Machine",
    "Puzzle",
    "check_misses",
    "check_purge",
    "check_size",
    "draw_accesses",
    "draw_machine",
    "draw_restore",
]

POLICIES = ("fifo", "lru", "belady")
SIZES = (64, 80, 96, 112, 128, 160, 192, 256, 384, 512, 768, 1024, 1536)  # MiB
_MIB = 1 << 20
_BLOCK = 64 << 10
_SECOND = 1_000_000_000


def _whole(number: Any) -> int | None:
    """Return a whole number as such, also from NumPy or polars; None if it is none."""
    if isinstance(number, bool) or not isinstance(number, numbers.Real) or not math.isfinite(number):
        return None
    return int(number) if int(number) == number else None


# --- 1: how large? --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Machine:
    """A recorded boot, and the miss ratio (in percent) that its read cache is to keep."""

    boot: vr.Boot
    percent: float

    def __repr__(self) -> str:
        return f"{self.boot.boot} of {self.boot.vm}: a miss ratio of at most {self.percent} %"


def draw_machine(corpus: vr.Corpus, seed: int) -> Machine:
    """Draw a machine, and a miss ratio between what its largest and a small cache have."""
    drawn = random.Random(f"machine {seed}")
    boot = corpus[drawn.choice(sorted(corpus))].boot("boot-2")
    curve = vr.miss_ratio_curve(boot.trace)["miss_ratio"]
    least, small = 100 * curve[-1], 100 * curve[63]
    return Machine(boot, round(least + drawn.uniform(0.15, 0.85) * (small - least), 1))


def check_size(answer: Any, machine: Machine) -> Verdict:
    """Check the smallest number of blocks of 64 KiB with which LRU keeps the miss ratio."""
    if answer is None or answer is ...:
        return your_turn(f"How many blocks of 64 KiB does LRU need? {machine!r}.")
    blocks = _whole(answer)
    if blocks is None or blocks < 1:
        return hint(f"Expected a whole number of blocks, at least 1, got {answer!r}.")
    ratios = 100 * vr.miss_ratio_curve(machine.boot.trace)["miss_ratio"].to_numpy()
    least = int((ratios <= machine.percent).argmax()) + 1
    if blocks == least:
        return right(
            f"{blocks:,} blocks, {blocks * _BLOCK / _MIB:.1f} MiB: with one block less, LRU misses more than "
            f"{machine.percent} %. The recorded disk has {machine.boot.disk_bytes[0] / _MIB:,.0f} MiB."
        )
    if blocks * _BLOCK == least * _MIB or blocks == least * _BLOCK:
        return hint("That looks like bytes or MiB; the cache is asked for in blocks of 64 KiB.")
    if blocks > len(ratios):
        return hint("That is more than the boot reads at all; the curve ends before.")
    if blocks < least:
        return hint(
            f"With so few blocks LRU misses {ratios[blocks - 1]:.4f} %: more than {machine.percent} %."
        )
    return hint("That is enough, but a smaller cache is enough, too. Which row of the curve is the first?")


# --- 2: which policy? -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Puzzle:
    """Blocks that are asked for, and how many the cache holds."""

    accesses: tuple[int, ...]
    slots: int

    def __repr__(self) -> str:
        return f"{self.slots} slots; asked for: {' '.join(map(str, self.accesses))}"

    def misses(self, policy: str) -> int:
        """How many accesses miss."""
        return vr.replay_cache(self.accesses, self.slots, policy).misses


def draw_accesses(seed: int) -> Puzzle:
    """Draw twelve accesses to five blocks for which FIFO and LRU, and the optimum, differ."""
    drawn = random.Random(f"accesses {seed}")
    while True:
        puzzle = Puzzle(tuple(drawn.choices(range(1, 6), k=12)), 3)
        fifo, lru, least = (puzzle.misses(policy) for policy in POLICIES)
        repeats = any(a == b for a, b in itertools.pairwise(puzzle.accesses))
        if fifo != lru and min(fifo, lru) > least and not repeats:
            return puzzle


def check_misses(answer: Any, puzzle: Puzzle) -> Verdict:
    """Check the misses of FIFO, LRU and the optimum: a dict from policy to number."""
    if answer is None or answer is ...:
        return your_turn(f"Count the misses by hand. {puzzle!r}.")
    if not isinstance(answer, Mapping) or set(answer) != set(POLICIES):
        names = ", ".join(f'"{name}": …' for name in POLICIES)
        return hint(f"Expected a dict with the misses of all three, {{{names}}}, got {answer!r}.")
    counted = {name: _whole(answer[name]) for name in POLICIES}
    if all(number in (None, ...) or answer[name] is ... for name, number in counted.items()):
        return your_turn(f"Count the misses by hand. {puzzle!r}.")
    distinct = len(set(puzzle.accesses))
    for name, number in counted.items():
        if number is None:
            got = "none yet" if answer[name] is ... else f"got {answer[name]!r}"
            return hint(f"{name}: expected a whole number, {got}.")
        if number == puzzle.misses(name):
            continue
        if number == len(puzzle.accesses) - puzzle.misses(name):
            return hint(f"{name}: are those the hits? The misses are asked for.")
        if number < distinct:
            return hint(
                f"{name}: the first access to each of the {distinct} blocks misses, whatever the policy."
            )
        return hint(f"{name}: {_RULES[name]} Go through it once more, and write down what is in the slots.")
    better = "FIFO" if counted["fifo"] < counted["lru"] else "LRU"
    return right(
        f"On these accesses {better} is the better one; on those of another seed it may be the other. The "
        "optimum looks ahead, which no media agent can."
    )


_RULES = {
    "fifo": "the block that came first goes, and a hit does not change that.",
    "lru": "the block goes that was not used for longest, and a hit counts as a use.",
    "belady": "the block goes whose next access is farthest ahead, or never comes.",
}


# --- 3: what a purge saves ------------------------------------------------------------------------------


def draw_restore(corpus: vr.Corpus, seed: int) -> tuple[vr.Boot, vr.RestorePlan]:
    """Draw a machine whose restore stages what its boot before read, and relocates after 5 to 14 seconds."""
    drawn = random.Random(f"restore {seed}")
    # small disks, and not the machine of the lesson
    name = drawn.choice(
        [name for name in sorted(corpus) if name.startswith("bullseye") and name != "bullseye-web"]
    )
    boot = corpus[name].boot("boot-2")
    predictor = vr.LastBootReplay().fit([corpus[name].boot("boot-1")])
    start = RelocationStart("delay", delay_ns=drawn.randint(5, 14) * _SECOND)
    return boot, vr.make_plan(predictor, boot, relocation_start=start)


def smallest_without_eviction(
    boot: vr.Boot, plan: vr.RestorePlan, sizes: Sequence[int] = SIZES
) -> int | None:
    """Return the first of these sizes (MiB) with which nothing is evicted."""
    for size in sizes:
        run = vr.simulate(boot, plan.replace(cache_bytes=size * _MIB), detail="summary")
        if run.summary()["evicted_bytes"] == 0:
            return size
    return None


def check_purge(answer: Any, boot: vr.Boot, plan: vr.RestorePlan) -> Verdict:
    """Check the smallest cache without evictions, with the purge and without: a pair of sizes in MiB."""
    asked = (
        f"The smallest of {', '.join(map(str, SIZES))} MiB without evictions, with the purge and without it?"
    )
    if answer is None or answer is ...:
        return your_turn(asked)
    if isinstance(answer, str | Mapping) or not hasattr(answer, "__len__") or len(answer) != 2:
        return hint(f"Expected a pair of sizes (with the purge, without it), got {answer!r}.")
    if all(each is ... or each is None for each in answer):
        return your_turn(asked)
    sizes = [_whole(each) for each in answer]
    if any(size not in SIZES for size in sizes):
        return hint(f"Expected two of {', '.join(map(str, SIZES))} (MiB), got {answer!r}.")
    purged, kept = _both(boot, plan)
    if sizes == [kept, purged]:
        return hint("The other way round: the first is with the purge.")
    if sizes[0] != purged:
        return hint(f"With the purge: {_off(sizes[0], purged)}")
    if sizes[1] != kept:
        why = " Did you switch it off, by PurgeRule(by_run=False)?" if sizes[1] == purged else ""
        return hint(f"Without the purge: {_off(sizes[1], kept)}{why}")
    return right(
        f"{purged} MiB against {kept} MiB. Without the purge all that the relocation reads stays: the cache "
        "has to hold the whole disk. Eviction has to guess what nobody wants any more; the purge knows: what "
        "was relocated is read from the destination from then on."
    )


@functools.lru_cache(maxsize=8)
def _both(boot: vr.Boot, plan: vr.RestorePlan) -> tuple[int | None, int | None]:
    unpurged = plan.replace(purge=PurgeRule(by_run=False))
    return smallest_without_eviction(boot, plan), smallest_without_eviction(boot, unpurged)


def _off(size: int | None, wanted: int | None) -> str:
    if size is not None and wanted is not None and size < wanted:
        return "at this size blocks are evicted."
    return "a smaller one is enough."
