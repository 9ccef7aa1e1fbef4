"""What the recorded boots of machines read, laid against the description of their disks."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.description import DescribedDisk, describe_disk
from vmrestorekit.predict.mapped import states_let_go
from vmrestorekit.predict.observed import blocks_read

if TYPE_CHECKING:
    from vmrestorekit.traces.boots import Boot

__all__ = [
    "CLOCK_POINTS",
    "Observation",
    "Reads",
    "boots_by_machine",
    "observe",
    "reads_of",
    "usual_boots",
    "usual_clock",
]

CLOCK_POINTS = 101

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Observation:
    """What the boots of a machine read of one of its disks.

    Attributes
    ----------
    vm, lineage, release : str
    roles : frozenset of str
    disk : int
    described : DescribedDisk
        Before the last boot; n stored blocks.
    rate : ndarray of float32, shape (n,)
        Share of the boots that read a block.
    when : ndarray of float32, shape (n,)
        Place of its first read among all first reads of a boot, from 0 to 1, mean of the boots that read it;
        NaN where none did.
    boots : int
        How many these are means of.
    """

    vm: str
    lineage: str
    release: str
    roles: frozenset[str]
    disk: int
    described: DescribedDisk
    rate: Floats
    when: Floats
    boots: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Reads:
    """What a boot read: a row a block, with the place of its first read among all, from 0 to 1."""

    disk: npt.NDArray[np.uint8]
    block: npt.NDArray[np.int64]
    when: Floats
    first_read_ns: npt.NDArray[np.int64]

    def of_disk(self, disk: int, blocks: int) -> Floats:
        """Return ``when`` of each block of a disk, NaN where it was not read."""
        when = np.full(blocks, np.nan, np.float32)
        own = (self.disk == disk) & (self.block < blocks)
        when[self.block[own]] = self.when[own]
        return when


def reads_of(boot: Boot) -> Reads:
    """Return what a boot read until it was done."""
    found = blocks_read(boot).sort("first_read_ns", "disk", "block")
    first = found["first_read_ns"].to_numpy()
    # blocks of one request are read at the same time
    place = np.searchsorted(first, first, side="left") / max(first.size, 1)
    return Reads(found["disk"].to_numpy(), found["block"].to_numpy(), place.astype(np.float32), first)


def boots_by_machine(boots: Iterable[Boot]) -> list[tuple[Boot, ...]]:
    """Return the boots of each machine, by the machines' names."""
    in_order = sorted(boots, key=lambda boot: boot.vm)
    return [tuple(own) for _, own in itertools.groupby(in_order, key=lambda boot: boot.vm)]


def usual_boots(boots: Sequence[Boot]) -> tuple[Boot, ...]:
    """Return the boots since a machine was last changed that are no first boot after it, if there are any.

    A machine that was just built or changed boots in its own way: it makes keys, indexes and caches.
    """
    changes = [number for number, boot in enumerate(boots) if boot.follows in ("build", "change")]
    since = boots[changes[-1] :] if changes else boots
    return tuple(boot for boot in since if boot.follows not in ("build", "change")) or tuple(since[-1:])


def observe(boots: Sequence[Boot]) -> list[Observation]:
    """Return what the boots of one machine read, one observation a disk.

    Parameters
    ----------
    boots : sequence of Boot
        In the order in which they happened.

    Raises
    ------
    PredictError
        If a boot never ended.
    """
    reads = [reads_of(boot) for boot in usual_boots(boots)]
    last = boots[-1]
    found = []
    with states_let_go(boots):
        for disk, manifest in enumerate(last.manifests):
            described = describe_disk(manifest)
            seen = np.array([each.of_disk(disk, manifest.blocks.height)[described.block] for each in reads])
            read = ~np.isnan(seen)
            times = np.maximum(read.sum(axis=0), 1)
            when = np.where(read.any(axis=0), np.where(read, seen, 0).sum(axis=0) / times, np.nan)
            found.append(
                Observation(
                    *(last.vm, last.lineage, last.release, frozenset(last.roles), disk, described),
                    rate=read.mean(axis=0, dtype=np.float32),
                    when=when.astype(np.float32),
                    boots=len(reads),
                )
            )
    return found


def usual_clock(reads: Sequence[Reads]) -> npt.NDArray[np.float64]:
    """Return when boots usually make each hundredth of their first reads, nanoseconds: the medians.

    Returns
    -------
    ndarray of float64, shape (CLOCK_POINTS,)
        Zeros if no boot read anything.
    """
    places = np.linspace(0, 1, CLOCK_POINTS)
    times = [
        np.interp(places, np.arange(each.first_read_ns.size) / each.first_read_ns.size, each.first_read_ns)
        for each in reads
        if each.first_read_ns.size
    ]
    return np.median(times, axis=0) if times else np.zeros(CLOCK_POINTS)
