"""What can be chosen about a relocation: its order, its start, its priority, and what is purged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import PRIORITIES, PlanError, PurgeRule, RestorePlan
from vmrestorekit.restore import sequences
from vmrestorekit.traces.corpus import Boot

__all__ = ["PURGES", "SEQUENCES", "STARTS", "Choice", "boot_last", "expect_together", "sequences_of"]

BlockArray = npt.NDArray[np.int32]

SECOND = 1_000_000_000
MOST_DELAY_S, MOST_RUN = 120, 64

SEQUENCES = {
    "ascending": "ascending",
    "as_stored": "as they lie on the backup medium",
    "by_file": "file by file",
    "boot_first": "what the boot needs first",
    "boot_last": "what the boot needs last",
    "backwards": "backwards",
    "planned": "as the plan lists them",
}
STARTS = {
    "at_once": "with the launch",
    "delay": "some time after the launch",
    "load": "when the VM asks for little",
    "time_of_day": "at the plan's time of day",
}
PRIORITY_NAMES = {
    "as_claimed": "low, then equal",
    "strict": "always low (what-if)",
    "equal": "always equal (what-if)",
    "weighted": "by weights (what-if)",
}
PURGES = {
    "run": "inferred from runs",
    "indication": "indicated",
    "period": "inferred, once a period",
    "off": "never (what-if)",
    "planned": "as the plan says",
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One combination of what can be chosen; `applied` makes a plan of it.

    Attributes
    ----------
    sequence : str
        A name in `SEQUENCES` (O13).
    start : str
        A name in `STARTS` (O10).
    delay_s : int
        For ``start="delay"``: seconds after the launch.
    load_percent : int
        For ``start="load"``: below how much of what the backup device can give the VM's demand has to be.
    priorities : str
        As in `RestorePlan` (O11, O12, and what-ifs).
    purge : str
        A name in `PURGES` (O16).
    run_length : int
        For ``purge="run"``: how many reads in a row make a run.
    ahead_percent : int
        How much of the read cache may be staged ahead for the relocation (O11).
    """

    sequence: str = "ascending"
    start: str = "delay"
    delay_s: int = 30
    load_percent: int = 10
    priorities: str = "as_claimed"
    purge: str = "run"
    run_length: int = 16
    ahead_percent: int = 25

    def __post_init__(self) -> None:
        for name, allowed in {
            "sequence": tuple(SEQUENCES),
            "start": tuple(STARTS),
            "priorities": PRIORITIES,
            "purge": tuple(PURGES),
        }.items():
            if getattr(self, name) not in allowed:
                raise PlanError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name, least, most in (
            ("delay_s", 0, None),
            ("load_percent", 1, 100),
            ("run_length", 2, None),
            ("ahead_percent", 0, None),
        ):
            value = getattr(self, name)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if not is_whole or value < least or (most is not None and value > most):
                upto = f"from {least} to {most}" if most is not None else f"of at least {least}"
                raise PlanError(f"{name}: expected a whole number {upto}, got {value!r}")

    @classmethod
    def of(cls, plan: RestorePlan) -> Choice:
        """Return what a plan has chosen, rounded to what can be chosen here."""
        purge, start = plan.purge, plan.relocation_start
        triggers = [name for name in ("run", "indication", "period") if getattr(purge, f"by_{name}")]
        return cls(
            sequence="ascending" if plan.relocation_sequence is None else "planned",
            start=start.rule,
            delay_s=round(start.delay_ns / SECOND),
            load_percent=max(1, round(100 * start.load_share)),
            priorities=plan.priorities,
            purge="off" if not triggers else triggers[0] if len(triggers) == 1 else "planned",
            run_length=purge.run_length,
            ahead_percent=round(100 * plan.stage_ahead_limit / plan.cache_bytes),
        )

    def applied(self, plan: RestorePlan, orders: Mapping[str, BlockArray]) -> RestorePlan:
        """Return the plan with this choice; what is chosen as the plan has it stays to the nanosecond.

        Parameters
        ----------
        plan : RestorePlan
        orders : mapping of str to ndarray
            As `sequences_of` returns them.
        """
        own = Choice.of(plan)
        changes: dict[str, Any] = {}
        if self.sequence != own.sequence:
            changes["relocation_sequence"] = orders[self.sequence]
        start = plan.relocation_start
        if self.start != own.start:
            start = dataclasses.replace(start, rule=self.start)
        if self.start == "delay" and self.delay_s != own.delay_s:
            start = dataclasses.replace(start, delay_ns=self.delay_s * SECOND)
        if self.start == "load" and self.load_percent != own.load_percent:
            start = dataclasses.replace(start, load_share=self.load_percent / 100)
        if self.priorities != own.priorities:
            changes["priorities"] = self.priorities
        if self.ahead_percent != own.ahead_percent:
            changes["stage_ahead_bytes"] = plan.cache_bytes * self.ahead_percent // 100
        return plan.replace(relocation_start=start, purge=self._purge(plan.purge, own), **changes)

    def _purge(self, purge: PurgeRule, own: Choice) -> PurgeRule:
        if self.purge != own.purge and self.purge != "planned":
            triggers = {f"by_{name}": name == self.purge for name in ("run", "indication", "period")}
            purge = dataclasses.replace(purge, **triggers)
        if self.purge == "run" and self.run_length != own.run_length:
            purge = dataclasses.replace(purge, run_length=self.run_length)
        return purge


def sequences_of(boot: Boot, plan: RestorePlan, layout: BackupLayout) -> dict[str, BlockArray]:
    """Return the relocation sequences that can be chosen, by their names in `SEQUENCES`.

    What the boot needs is what the plan expects it to need: its first set.
    """
    ascending = sequences.allocated(layout)
    orders = {
        "ascending": ascending,
        "as_stored": sequences.as_stored(layout),
        "by_file": sequences.by_file(boot.manifests, layout),
        "boot_first": sequences.first(plan.first_set, ascending),
        "boot_last": boot_last(plan.first_set, ascending),
        "backwards": ascending[::-1].copy(),
    }
    if plan.relocation_sequence is not None:
        orders["planned"] = plan.relocation_sequence
    return orders


def boot_last(blocks: npt.ArrayLike, rest: BlockArray) -> BlockArray:
    """Return a sequence with some blocks moved to its end, in the order in which they are given."""
    wanted = np.asarray(blocks, np.int32)
    moved = wanted[np.isin(wanted, rest)]
    return np.concatenate([rest[~np.isin(rest, moved)], moved])


def expect_together(boot: object, plan: object, layout: object = None, choice: object = None) -> None:
    """Complain unless a boot, a plan, and what else is given belong together.

    Raises
    ------
    PlanError
    """
    for name, value, kind in (
        ("boot", boot, Boot),
        ("plan", plan, RestorePlan),
        ("layout", layout, BackupLayout),
        ("choice", choice, Choice),
    ):
        if not isinstance(value, kind) and not (value is None and kind in (BackupLayout, Choice)):
            raise PlanError(f"{name}: expected a {kind.__name__}, got {type(value).__name__}")
    assert isinstance(boot, Boot)
    assert isinstance(plan, RestorePlan)
    if plan.mode != "instant_restore":
        raise PlanError(
            f"plan: expected an instant restore: only it relocates while the VM runs, got {plan.mode}"
        )
    if plan.disk_bytes != boot.disk_bytes:
        raise PlanError(
            f"plan: expected one for disks of {boot.disk_bytes} bytes as {boot.vm} has them, "
            f"got one for {plan.disk_bytes}"
        )
    if isinstance(layout, BackupLayout) and (
        (layout.block_bytes, layout.disk_bytes) != (plan.block_bytes, plan.disk_bytes)
    ):
        raise PlanError(
            f"layout: expected disks of {plan.disk_bytes} bytes in blocks of {plan.block_bytes}, "
            f"got {layout.disk_bytes} in blocks of {layout.block_bytes}"
        )
