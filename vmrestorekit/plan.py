"""A restore plan: plain data that says what to pre-stage, how to relocate, and when.

The same plan is simulated (`vmrestorekit.simulate`) or carried out for real. It knows nothing of predictors,
hardware or traces. Blocks are numbered densely over all disks: those of disk 0 first, then those of disk 1.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.layout import DEFAULT_BLOCK_BYTES, block_count, first_block_of_disk
from vmrestorekit.traces.schema import write_parquet_atomically

__all__ = [
    "DEFAULT_BLOCK_BYTES",
    "EVICTION_POLICIES",
    "MISSES",
    "MODES",
    "PRIORITIES",
    "LaunchRule",
    "PlanError",
    "PurgeRule",
    "RelocationStart",
    "RestorePlan",
    "Weights",
    "block_count",
    "first_block_of_disk",
]

MODES = ("full_restore", "instant_restore", "live_mount")
EVICTION_POLICIES = ("lru", "fifo", "clock", "sieve", "s3fifo", "arc")
PRIORITIES = ("as_claimed", "strict", "equal", "weighted")
MISSES = ("through_cache", "straight")
SECOND = 1_000_000_000
DAY = 24 * 3600 * SECOND
MIB = 1024 * 1024

BlockArray = npt.NDArray[np.int32]


class PlanError(ValueError):
    """A plan that cannot be carried out; the message says what was expected and what came."""


def _expect_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise PlanError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def _expect_at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise PlanError(f"{name}: expected a whole number, got {value!r}")
    if value < least:
        raise PlanError(f"{name}: expected at least {least}, got {value}")


def _expect_share(name: str, value: float, *, above_zero: bool = False) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1 or (above_zero and value == 0):
        raise PlanError(
            f"{name}: expected a number {'above' if above_zero else 'from'} 0 to 1, got {value!r}"
        )


def _minutes(name: str, clock: str) -> int:
    """Return the minutes since midnight of a time such as ``"18:00"``."""
    hours, _, minutes = clock.partition(":")
    if not (hours.isdigit() and minutes.isdigit() and int(hours) < 24 and int(minutes) < 60):
        raise PlanError(f'{name}: expected a time of day as "HH:MM", got {clock!r}')
    return 60 * int(hours) + int(minutes)


@dataclasses.dataclass(frozen=True)
class LaunchRule:
    """When the virtual machine is launched (operation O6).

    Attributes
    ----------
    rule : {"share", "head_start", "immediately"}
        ``share``: once `share` of the first set is in the read cache, or staging can go no further.
        ``head_start``: `head_start_ns` after the restore was asked for, however much is staged.
        ``immediately``: with nothing staged, a what-if.
    share : float
        Between 0 and 1.
    head_start_ns : int
    """

    rule: str = "head_start"
    share: float = 1.0
    head_start_ns: int = 4 * SECOND

    def __post_init__(self) -> None:
        _expect_one_of("launch rule", self.rule, ("share", "head_start", "immediately"))
        _expect_share("launch share", self.share)
        _expect_at_least("launch head_start_ns", self.head_start_ns, 0)


@dataclasses.dataclass(frozen=True)
class RelocationStart:
    """When the relocation starts (operation O10).

    Attributes
    ----------
    rule : {"at_once", "delay", "time_of_day", "load"}
        ``at_once``: with the launch. ``delay``: `delay_ns` after it. ``time_of_day``: when the clock on the
        wall first shows `time_of_day` at or after the launch, such as after close of business. ``load``: when
        the virtual machine's demand over the last 60 checks is below `load_share` of what the backup device
        can give, looked at every `check_ns`, or `deadline_ns` after the launch.
    delay_ns : int
    time_of_day, wall_clock : str
        ``"HH:MM"``; `wall_clock` is what the clock shows when the restore is asked for.
    load_share : float
        Above 0, at most 1.
    check_ns, deadline_ns : int
    """

    rule: str = "delay"
    delay_ns: int = 30 * SECOND
    time_of_day: str = "18:00"
    wall_clock: str = "12:00"
    load_share: float = 0.1
    check_ns: int = SECOND
    deadline_ns: int = 8 * 3600 * SECOND

    def __post_init__(self) -> None:
        _expect_one_of("relocation start rule", self.rule, ("at_once", "delay", "time_of_day", "load"))
        _expect_at_least("relocation start delay_ns", self.delay_ns, 0)
        _expect_at_least("relocation start check_ns", self.check_ns, 1)
        _expect_at_least("relocation start deadline_ns", self.deadline_ns, 0)
        _expect_share("relocation start load_share", self.load_share, above_zero=True)
        _minutes("relocation start time_of_day", self.time_of_day)
        _minutes("relocation start wall_clock", self.wall_clock)

    def at_ns(self, launch_ns: int) -> int:
        """Return the latest start for a launch at that time: the deadline, if a load condition decides."""
        if self.rule == "time_of_day":
            wanted = _minutes("time_of_day", self.time_of_day) - _minutes("wall_clock", self.wall_clock)
            first = wanted % (24 * 60) * 60 * SECOND
            return first + max(0, -(-(launch_ns - first) // DAY)) * DAY
        return launch_ns + {"at_once": 0, "delay": self.delay_ns, "load": self.deadline_ns}[self.rule]


@dataclasses.dataclass(frozen=True)
class PurgeRule:
    """What makes the media agent drop blocks from the read cache that the relocation has read (O16).

    Attributes
    ----------
    by_run : bool
        The media agent infers the relocation's reads from runs of reads along the relocation sequence.
    run_length : int
        How many reads at consecutive positions make a run.
    by_indication : bool
        The data agent names the blocks of each relocation request once they are on the destination.
    by_period : bool
        The media agent looks every `period_ns` at the runs of at least two reads that are open.
    period_ns : int

    Several triggers work side by side; a block goes by the first that names it.
    """

    by_run: bool = True
    run_length: int = 16
    by_indication: bool = False
    by_period: bool = False
    period_ns: int = 10 * SECOND

    def __post_init__(self) -> None:
        _expect_at_least("purge run_length", self.run_length, 2)
        _expect_at_least("purge period_ns", self.period_ns, 1)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Shares of the backup device in percent, for ``priorities="weighted"``."""

    vm_reads: int = 50
    relocation_reads: int = 30
    staging: int = 20

    def __post_init__(self) -> None:
        for name in ("vm_reads", "relocation_reads", "staging"):
            _expect_at_least(f"weights {name}", getattr(self, name), 1)
        total = self.vm_reads + self.relocation_reads + self.staging
        if total != 100:
            raise PlanError(f"weights: expected percents that sum to 100, got {total}")


@dataclasses.dataclass(frozen=True, eq=False)
class RestorePlan:
    """What to pre-stage in which order, how to relocate, and when; compared with `equals`.

    Attributes
    ----------
    disk_bytes : tuple of int
        Sizes of the virtual machine's disks.
    mode : {"instant_restore", "live_mount", "full_restore"}
    block_bytes : int
        Size of a block of the read cache, a power of two from 4 KiB to 4 MiB.
    first_set : ndarray of int32, shape (n,)
        Blocks to stage before and after launch, in this order, none twice.
    relocation_sequence : ndarray of int32, shape (m,), optional
        Blocks in the order of their relocation, none twice; default: all blocks, ascending. It may leave out
        only blocks that the backup copy does not store (holes).
    launch, relocation_start, purge
        Rules.
    pre_relocation_delay_ns : int
        From launch until the data agent indicates pre-relocation mode.
    stage_ahead_bytes : int, optional
        How much may be staged for the relocation, before it starts and while it runs, that nobody was sent
        yet; default: a quarter of the read cache. More drives out what the virtual machine is to read, and
        in the end what the relocation itself is to read next.
    cache_bytes : int
        Capacity of the read cache, at least one block.
    eviction : {"lru", "fifo", "clock", "sieve", "s3fifo", "arc"}
        As `vmrestorekit.restore.eviction` has them.
    misses : {"through_cache", "straight"}
        Whether a block that a read misses goes through the read cache, or straight from the backup device to
        its reader (operation O8).
    priorities : {"as_claimed", "strict", "equal", "weighted"}
        Of staging against reads. As claimed in the patent: lower until the relocation runs, then its staging
        waits its turn among the reads. What-ifs: ``strict``, always lower; ``equal``, always its turn;
        ``weighted``, by `weights`.
    weights : Weights
        Shares of the backup device, for weighted priorities only.
    relocation_depth : int
        Relocation requests outstanding at a time.
    relocation_request_bytes : int
    stage_depth : int, optional
        Fetches that pre-staging for a running relocation may have waiting or in flight; default: as many as
        the backup device has channels.
    stage_fetch_bytes : int
        The most that one fetch of a stager brings: neighbours that it would bring next anyhow.
    fetch_bytes : int
        The most that one fetch brings for one request.
    expiry_ns, warning_ns : int, optional
        Live mount only: when it expires, counted from the request for the mount, and how long before that its
        user is warned.
    extend_at_ns, extend_by_ns : int, optional
        Live mount only: when its user has the mount extended, counted like the expiry, and by how much.
    """

    disk_bytes: tuple[int, ...]
    mode: str = "instant_restore"
    block_bytes: int = DEFAULT_BLOCK_BYTES
    first_set: BlockArray = dataclasses.field(default_factory=lambda: np.empty(0, np.int32))
    relocation_sequence: BlockArray | None = None
    launch: LaunchRule = LaunchRule()
    relocation_start: RelocationStart = RelocationStart()
    purge: PurgeRule = PurgeRule()
    pre_relocation_delay_ns: int = 0
    stage_ahead_bytes: int | None = None
    cache_bytes: int = 256 * MIB
    eviction: str = "lru"
    misses: str = "through_cache"
    priorities: str = "as_claimed"
    weights: Weights = Weights()
    relocation_depth: int = 1
    relocation_request_bytes: int = 512 * 1024
    stage_depth: int | None = None
    stage_fetch_bytes: int = 512 * 1024
    fetch_bytes: int = 512 * 1024
    expiry_ns: int | None = None
    warning_ns: int = 60 * SECOND
    extend_at_ns: int | None = None
    extend_by_ns: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "disk_bytes", tuple(int(size) for size in self.disk_bytes))
        _check_sizes(self)
        object.__setattr__(self, "first_set", self._checked_blocks("first set", self.first_set))
        if self.relocation_sequence is not None:
            sequence = self._checked_blocks("relocation sequence", self.relocation_sequence)
            object.__setattr__(self, "relocation_sequence", sequence)
        _expect_one_of("mode", self.mode, MODES)
        if self.eviction == "belady":
            raise PlanError(
                "eviction: belady has to know the future, which a restore does not; expected one of "
                f"{', '.join(EVICTION_POLICIES)} (vmrestorekit.restore.replay can replay belady)"
            )
        _expect_one_of("eviction", self.eviction, EVICTION_POLICIES)
        _expect_one_of("misses", self.misses, MISSES)
        _expect_one_of("priorities", self.priorities, PRIORITIES)
        if self.priorities != "weighted" and self.weights != Weights():
            raise PlanError(f"weights: only weighted priorities have weights, but they are {self.priorities}")
        _expect_at_least("pre_relocation_delay_ns", self.pre_relocation_delay_ns, 0)
        _expect_at_least("relocation_depth", self.relocation_depth, 1)
        if self.stage_depth is not None:
            _expect_at_least("stage_depth", self.stage_depth, 1)
        _check_purge(self)
        _check_expiry(self)

    def _checked_blocks(self, name: str, blocks: npt.ArrayLike) -> BlockArray:
        """Return the list as a read-only array of block numbers, each on a disk and none twice."""
        array = np.asarray(blocks)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise PlanError(
                f"{name}: expected a list of block numbers, got {array.dtype} of shape {array.shape}"
            )
        outside = np.flatnonzero((array < 0) | (array >= self.blocks))
        if outside.size:
            at = int(outside[0])
            raise PlanError(
                f"{name}: entry {at} is block {int(array[at])}, but the disks have {self.blocks} blocks of "
                f"{self.block_bytes} bytes (0 to {self.blocks - 1})"
            )
        values, first_seen = np.unique(array, return_index=True)
        if values.size != array.size:
            repeated = int(np.setdiff1d(np.arange(array.size), first_seen)[0])
            raise PlanError(f"{name}: entry {repeated} names block {int(array[repeated])} a second time")
        array = array.astype(np.int32)
        array.setflags(write=False)
        return array

    @property
    def blocks(self) -> int:
        """Number of blocks on all disks."""
        return block_count(self.disk_bytes, self.block_bytes)

    @property
    def cache_slots(self) -> int:
        """How many blocks the read cache holds."""
        return self.cache_bytes // self.block_bytes

    @property
    def stage_ahead_limit(self) -> int:
        """`stage_ahead_bytes`, with the default filled in."""
        return self.cache_bytes // 4 if self.stage_ahead_bytes is None else self.stage_ahead_bytes

    @property
    def sequence(self) -> BlockArray:
        """The relocation sequence, with the default filled in."""
        if self.relocation_sequence is None:
            return np.arange(self.blocks, dtype=np.int32)
        return self.relocation_sequence

    def with_mode(self, mode: str, **changes: Any) -> RestorePlan:
        """Return the same plan in another mode, without what that mode cannot have.

        The expiry and its extension are kept only by a live mount; purging by indication and by period, which
        need a relocation, only by the others.
        """
        if mode != "live_mount":
            changes = {"expiry_ns": None, "extend_at_ns": None, "extend_by_ns": 0} | changes
        elif self.purge.by_indication or self.purge.by_period:
            purge = dataclasses.replace(self.purge, by_indication=False, by_period=False)
            changes = {"purge": purge} | changes
        return self.replace(mode=mode, **changes)

    def replace(self, **changes: Any) -> RestorePlan:
        """Return the plan with some attributes changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def equals(self, other: RestorePlan) -> bool:
        """Tell whether both plans say the same."""
        return (
            _settings(self) == _settings(other)
            and np.array_equal(self.first_set, other.first_set)
            and np.array_equal(self.sequence, other.sequence)
        )

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write ``plan.toml`` and the block lists as Parquet, each file whole or not at all."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("first_set", "relocation_sequence"):
            blocks = getattr(self, name)
            if blocks is not None:
                write_parquet_atomically(pl.DataFrame({"block": blocks}), directory / f"{name}.parquet")
        partial = directory / "plan.toml.partial"
        partial.write_text(_to_toml(_settings(self)), encoding="utf-8")
        os.replace(partial, directory / "plan.toml")

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> RestorePlan:
        """Read what `save` wrote.

        Raises
        ------
        PlanError
            If a file is missing or damaged, or says something that is no plan.
        """
        directory = Path(directory)
        try:
            settings = tomllib.loads((directory / "plan.toml").read_text(encoding="utf-8"))
            first_set = pl.read_parquet(directory / "first_set.parquet")["block"].to_numpy()
            sequence = None
            if settings.pop("has_relocation_sequence"):
                sequence = pl.read_parquet(directory / "relocation_sequence.parquet")["block"].to_numpy()
            settings |= {name: rule(**settings.get(name, {})) for name, rule in _RULES.items()}
            return cls(first_set=first_set, relocation_sequence=sequence, **settings)
        except PlanError:
            raise
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            reason = str(error).splitlines()[0]
            raise PlanError(
                f"{directory}: expected a saved plan (plan.toml, first_set.parquet): {reason}"
            ) from error


def _check_sizes(plan: RestorePlan) -> None:
    if not plan.disk_bytes or min(plan.disk_bytes) <= 0:
        raise PlanError(f"disk_bytes: expected at least one disk of positive size, got {plan.disk_bytes}")
    size = plan.block_bytes
    _expect_at_least("block_bytes", size, 1)
    _expect_at_least("cache_bytes", plan.cache_bytes, 1)
    if size < 4096 or size > 4 * MIB or size & (size - 1):
        raise PlanError(f"block_bytes: expected a power of two from 4096 to {4 * MIB}, got {size}")
    if plan.cache_bytes < size:
        raise PlanError(f"cache_bytes: expected at least one block ({size} bytes), got {plan.cache_bytes}")
    _expect_at_least("fetch_bytes", plan.fetch_bytes, size)
    _expect_at_least("stage_fetch_bytes", plan.stage_fetch_bytes, size)
    _expect_at_least("stage_ahead_bytes", plan.stage_ahead_limit, 0)
    _expect_at_least("relocation_request_bytes", plan.relocation_request_bytes, size)


_RULES = {"launch": LaunchRule, "relocation_start": RelocationStart, "purge": PurgeRule, "weights": Weights}


def _check_purge(plan: RestorePlan) -> None:
    if plan.mode == "live_mount" and (plan.purge.by_indication or plan.purge.by_period):
        trigger = "by_indication" if plan.purge.by_indication else "by_period"
        raise PlanError(f"purge {trigger}: expected a mode that relocates, but a live mount never does")


def _check_expiry(plan: RestorePlan) -> None:
    if plan.expiry_ns is None:
        if plan.extend_at_ns is not None or plan.extend_by_ns != 0:
            raise PlanError("extend_at_ns, extend_by_ns: only a live mount with an expiry can be extended")
        return
    if plan.mode != "live_mount":
        raise PlanError(f"expiry_ns: only a live mount expires, but the mode is {plan.mode}")
    _expect_at_least("expiry_ns", plan.expiry_ns, 1)
    _expect_at_least("warning_ns", plan.warning_ns, 0)
    if plan.extend_at_ns is not None:
        _expect_at_least("extend_at_ns", plan.extend_at_ns, 0)
        _expect_at_least("extend_by_ns", plan.extend_by_ns, 1)
        if plan.extend_at_ns >= plan.expiry_ns:
            raise PlanError(
                f"extend_at_ns: expected a time before the expiry at {plan.expiry_ns} ns, "
                f"got {plan.extend_at_ns} ns"
            )
    elif plan.extend_by_ns != 0:
        raise PlanError(f"extend_by_ns: expected extend_at_ns too, got {plan.extend_by_ns} ns alone")
    expiry_ns = plan.expiry_ns + plan.extend_by_ns
    if plan.launch.rule == "head_start" and expiry_ns <= plan.launch.head_start_ns:
        raise PlanError(
            f"expiry_ns: expected a time after the launch at {plan.launch.head_start_ns} ns, "
            f"got {expiry_ns} ns"
        )


def _settings(plan: RestorePlan) -> dict[str, Any]:
    """Everything in a plan but its block lists, as TOML can hold it (no null)."""
    arrays = ("first_set", "relocation_sequence")
    settings = {
        field.name: getattr(plan, field.name)
        for field in dataclasses.fields(plan)
        if field.name not in arrays
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= {name: dataclasses.asdict(settings[name]) for name in _RULES}
    settings["disk_bytes"] = list(plan.disk_bytes)
    settings["has_relocation_sequence"] = plan.relocation_sequence is not None
    return settings


def _to_toml(settings: dict[str, Any]) -> str:
    """Write flat settings and one level of tables; the standard library only reads TOML."""

    def value(item: Any) -> str:
        if isinstance(item, bool):
            return str(item).lower()
        return f'"{item}"' if isinstance(item, str) else str(item)

    tables = {name: item for name, item in settings.items() if isinstance(item, dict)}
    lines = [f"{name} = {value(item)}" for name, item in settings.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {value(item)}" for key, item in table.items())]
    return "\n".join(lines) + "\n"
