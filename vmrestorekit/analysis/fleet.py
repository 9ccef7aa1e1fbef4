"""A fleet of virtual machines made of recorded ones: drawn again and again, each a little different.

A drawn machine is a SYNTHETIC clone: it boots as the recorded one did, only faster or slower, and a part of
its blocks holds contents that no other machine has. Its disk is shortened by holes that nothing touches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.analysis.rows import SweepError
from vmrestorekit.backup.layout import first_block_of_disk
from vmrestorekit.plan import RestorePlan
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["Fleet", "Member", "draw_fleet"]

# a clone's speed relative to the recording; a few, so that clones can share their traces
SPEEDS = (0.85, 0.95, 1.0, 1.05, 1.15)

IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One machine of a fleet.

    Attributes
    ----------
    boot : Boot
        The recorded boot that it repeats.
    trace : ReadTrace
    plan : RestorePlan
        Of its shortened disk.
    address : ndarray of int64, shape (plan.blocks,)
        Where its blocks lie in the fleet's deduplicated backup store, -1 for a hole.
    content : ndarray of int64, shape (plan.blocks,)
        Equal numbers are equal contents, over the whole fleet; -1 for a hole.
    """

    boot: Boot
    trace: ReadTrace
    plan: RestorePlan
    address: IntArray
    content: IntArray


@dataclasses.dataclass(frozen=True, eq=False)
class Fleet:
    """Machines and how much their backup copies store together.

    Attributes
    ----------
    members : tuple of Member
    stored_bytes, unique_bytes : int
        Of all copies, before and after deduplication.
    """

    members: tuple[Member, ...]
    stored_bytes: int
    unique_bytes: int


def draw_fleet(
    boots: Sequence[Boot],
    size: int,
    make_plan: Callable[[Boot], RestorePlan],
    *,
    drift: float = 0.05,
    seed: int = 0,
) -> Fleet:
    """Draw machines from recorded boots, each boot as likely.

    Parameters
    ----------
    boots : sequence of Boot
    size : int
        How many machines.
    make_plan : callable
        Makes the plan of a boot. All plans have to have blocks of one size.
    drift : float
        Share of a machine's stored blocks that hold what no other machine has.
    seed : int

    Raises
    ------
    SweepError
        If there are no boots or no machines, or the share is none.
    """
    if not boots or size < 1:
        raise SweepError(f"fleet: expected boots and at least 1 machine, got {len(boots)} and {size}")
    if not 0 <= drift <= 1:
        raise SweepError(f"drift: expected a share from 0 to 1, got {drift}")
    rng = np.random.default_rng(seed)
    patterns: dict[int, _Pattern] = {}
    store = _Store()
    members = []
    for which in rng.integers(len(boots), size=size).tolist():
        if which not in patterns:
            patterns[which] = _Pattern.of(boots[which], make_plan(boots[which]))
        pattern = patterns[which]
        content = store.numbered(pattern.content, rng.random(len(pattern.content)) < drift)
        address = np.where(content >= 0, content * pattern.plan.block_bytes, -1)
        trace = pattern.trace_at(float(rng.choice(SPEEDS)))
        members.append(Member(boots[which], trace, pattern.plan, address, content))
    size_of_block = members[0].plan.block_bytes
    stored = sum(int((member.content >= 0).sum()) for member in members)
    return Fleet(tuple(members), stored * size_of_block, store.contents * size_of_block)


class _Store:
    """A deduplicated store: contents are numbered, and lie, in the order in which they first came."""

    def __init__(self) -> None:
        self.contents = 0
        self._number: dict[int, int] = {}

    def numbered(self, signatures: npt.NDArray[np.uint64], own: npt.NDArray[np.bool_]) -> IntArray:
        """Return the number of each content; 0 is a hole, and what is `own` is like nothing else."""
        numbers = np.full(len(signatures), -1, np.int64)
        for place, (signature, is_own) in enumerate(zip(signatures.tolist(), own.tolist(), strict=True)):
            if not signature:
                continue
            known = None if is_own else self._number.get(signature)
            if known is None:
                known = self.contents
                self.contents += 1
                if not is_own:
                    self._number[signature] = known
            numbers[place] = known
        return numbers


@dataclasses.dataclass(frozen=True, eq=False)
class _Pattern:
    """A recorded boot on a disk without the holes that nothing touches."""

    trace: ReadTrace
    plan: RestorePlan
    content: npt.NDArray[np.uint64]
    _traces: dict[float, ReadTrace] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, boot: Boot, plan: RestorePlan) -> _Pattern:
        size = plan.block_bytes
        content = _signatures(boot, size)
        kept = _kept(content != 0, _touched(boot.trace, size))
        number = np.cumsum(kept) - 1
        short = plan.replace(
            disk_bytes=(int(kept.sum()) * size,),
            first_set=number[plan.first_set[kept[plan.first_set]]],
            relocation_sequence=None
            if plan.relocation_sequence is None
            else number[plan.sequence[kept[plan.sequence]]],
        )
        return cls(_moved(boot.trace, short, number, size), short, content[kept])

    def trace_at(self, speed: float) -> ReadTrace:
        """Return the trace with all times longer by a factor."""
        if speed not in self._traces:
            frame = self.trace.frame.with_columns(
                (pl.col("issued_ns", "completed_ns") * speed).round().cast(pl.Int64)
            )
            marks = {name: round(at * speed) for name, at in self.trace.metadata.marks.items()}
            self._traces[speed] = ReadTrace(frame, dataclasses.replace(self.trace.metadata, marks=marks))
        return self._traces[speed]


def _signatures(boot: Boot, block_bytes: int) -> npt.NDArray[np.uint64]:
    """Return a number for the content of each cache block, 0 for zeros."""
    each = block_bytes // MANIFEST_BLOCK_BYTES
    found = []
    for manifest, disk in zip(boot.manifests, boot.disk_bytes, strict=True):
        padded = np.zeros(-(-disk // block_bytes) * each, np.uint64)
        padded[: manifest.blocks.height] = manifest.blocks["content"].to_numpy()
        rows = pl.from_numpy(padded.reshape(-1, each), orient="row")
        hashed = rows.hash_rows(seed=0).to_numpy()
        found.append(np.where(padded.reshape(-1, each).any(axis=1), hashed | np.uint64(1), np.uint64(0)))
    boot.drop_manifests()
    return np.concatenate(found)


def _touched(trace: ReadTrace, block_bytes: int) -> npt.NDArray[np.bool_]:
    """Tell which blocks any request touches."""
    first = np.array(first_block_of_disk(trace.metadata.disk_bytes, block_bytes))
    touched = np.zeros(first[-1] + -(-trace.metadata.disk_bytes[-1] // block_bytes), np.bool_)
    frame = trace.frame.filter(pl.col("length") > 0)
    base = first[frame["disk"].to_numpy()]
    start = base + frame["offset"].to_numpy() // block_bytes
    end = base + (frame["offset"] + frame["length"] - 1).to_numpy() // block_bytes
    for low, high in zip(start.tolist(), end.tolist(), strict=True):
        touched[low : high + 1] = True
    return touched


def _kept(stored: npt.NDArray[np.bool_], touched: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Keep what counts, and one hole in front of each run of it, so that no blocks become neighbours."""
    counts = stored | touched
    return np.asarray(counts | np.append(counts[1:], False))


def _moved(trace: ReadTrace, plan: RestorePlan, number: IntArray, block_bytes: int) -> ReadTrace:
    """Return the trace on the shortened disk."""
    first = np.array(first_block_of_disk(trace.metadata.disk_bytes, block_bytes))
    offset = trace.frame["offset"].to_numpy()
    block = number[first[trace.frame["disk"].to_numpy()] + offset // block_bytes]
    moved = np.where(trace.frame["length"].to_numpy() > 0, block * block_bytes + offset % block_bytes, 0)
    columns = {"disk": pl.zeros(len(moved), pl.UInt8, eager=True), "offset": pl.Series(moved)}
    schema = {name: trace.frame.schema[name] for name in columns}
    frame = trace.frame.with_columns(**{name: columns[name].cast(schema[name]) for name in columns})
    return ReadTrace(frame, dataclasses.replace(trace.metadata, disk_bytes=plan.disk_bytes))
