"""Restores with first sets that somebody picked: what came of each, and what others would have picked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vmrestorekit.plan import LaunchRule, RestorePlan
from vmrestorekit.predict.oracles import OracleOrder
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.replay import LastBootReplay
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.traces.boots import Boot

__all__ = ["LEFT", "OUTCOMES", "Bench", "Rules", "Try"]

BlockArray = npt.NDArray[np.int32]
Codes = npt.NDArray[np.uint8]

# what came of a block, from the least to the most telling
LEFT, UNREAD, HIT, WAITED, MISSED = range(5)
OUTCOMES = {
    LEFT: "neither staged nor read",
    UNREAD: "staged, not read by the boot",
    HIT: "read: hit",
    WAITED: "read: waited, on its way",
    MISSED: "read: missed",
}
_SECOND = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a try may use: how much is staged at most, and how long before the launch it begins."""

    budget_mb: int
    head_start_s: int


@dataclasses.dataclass(frozen=True, eq=False)
class Try:
    """A restore with a first set.

    Attributes
    ----------
    picked : str
        What was picked, in words.
    rules : Rules
    first_set : ndarray of int32
        In the order of staging, as far as the budget goes.
    left_out : int
        How many blocks were picked beyond the budget.
    outcome : ndarray of uint8, shape (blocks,)
        What came of each block until the boot was done, a number of `OUTCOMES`.
    stall_s : float
        How much later than from a local disk the boot was done.
    """

    picked: str
    rules: Rules
    first_set: BlockArray
    outcome: Codes
    stall_s: float
    left_out: int = 0

    def count(self, outcome: int) -> int:
        """Return how many blocks came to that."""
        return int(np.count_nonzero(self.outcome == outcome))


class Bench:
    """Restores of one boot as a live mount (nothing is relocated, so that nothing else is in the way).

    Parameters
    ----------
    boot : Boot
    last_boot : Boot
        The one before, of the same machine.
    hardware : Hardware
    """

    def __init__(self, boot: Boot, last_boot: Boot, hardware: Hardware) -> None:
        self.boot, self.hardware = boot, hardware
        self._empty = RestorePlan(boot.disk_bytes, mode="live_mount")
        self.block_bytes, self.blocks = self._empty.block_bytes, self._empty.blocks
        # the most that fits in the read cache: what would be staged beyond would drive out what was before
        self.most_mb = int(self._empty.cache_bytes / 1e6)
        self.others: dict[str, BlockArray] = {
            "nothing pre-staged": np.empty(0, np.int32),
            "what the last boot read": make_plan(LastBootReplay().fit(last_boot), boot).first_set,
            "oracle: what this boot will read": make_plan(OracleOrder().fit(boot), boot).first_set,
        }
        self._stalls: dict[tuple[str, int, int], float] = {}

    def restore(self, first_set: BlockArray, rules: Rules, picked: str = "") -> Try:
        """Restore with as much of a first set as the budget allows."""
        left_out = max(0, first_set.size - self.most_blocks(rules))
        first_set = first_set[: self.most_blocks(rules)]
        timeline = simulate(self.boot, self._plan(first_set, rules), self.hardware)
        stall_s = (timeline.metrics["stall_ns"] or 0) / _SECOND
        return Try(picked, rules, first_set, _outcome(timeline), stall_s, left_out)

    def stalls_of_others(self, rules: Rules) -> Mapping[str, float]:
        """Return the stall with each of `others` by the same rules, in seconds."""
        return {name: self._stall(name, rules) for name in self.others}

    def most_blocks(self, rules: Rules) -> int:
        """Return how many blocks the budget allows."""
        return int(rules.budget_mb * 1e6) // self.block_bytes

    def _stall(self, name: str, rules: Rules) -> float:
        first_set = self.others[name][: self.most_blocks(rules)]
        key = name, first_set.size, rules.head_start_s  # a larger budget changes nothing for a smaller set
        if key not in self._stalls:
            restored = simulate(self.boot, self._plan(first_set, rules), self.hardware, detail="summary")
            self._stalls[key] = (restored.metrics["stall_ns"] or 0) / _SECOND
        return self._stalls[key]

    def _plan(self, first_set: BlockArray, rules: Rules) -> RestorePlan:
        launch = LaunchRule("head_start", head_start_ns=rules.head_start_s * _SECOND)
        return self._empty.replace(first_set=first_set, launch=launch)


def _outcome(timeline: Timeline) -> Codes:
    outcome = np.zeros(timeline.plan.blocks, np.uint8)
    outcome[timeline.plan.first_set] = UNREAD
    # the mark is an event of its own, and what comes later is no part of the boot
    done = timeline.next_of_kind("boot_done", -1)
    for kind, code in (("cache_hit", HIT), ("cache_wait", WAITED), ("cache_miss", MISSED)):
        rows = np.flatnonzero(timeline.are_of_kind(kind)[:done])
        first, count, reader = (
            timeline.events[name].to_numpy()[rows] for name in ("block", "count", "detail")
        )
        first, count = first[reader == 0], count[reader == 0]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        outcome[np.repeat(first, count) + within] = code
    return outcome
