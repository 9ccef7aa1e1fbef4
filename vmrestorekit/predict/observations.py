"""What the recorded boots of machines read, laid against the description of their disks."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.description import DescribedDisk, describe_disk
from vmrestorekit.predict.mapped import states_let_go
from vmrestorekit.predict.observed import blocks_read, boot_done_ns

if TYPE_CHECKING:
    from vmrestorekit.traces.boots import Boot

__all__ = [
    "CLOCK_POINTS",
    "Observation",
    "Reads",
    "boots_by_machine",
    "goes_on_after",
    "observe",
    "reads_after",
    "reads_of",
    "seen_of_disk",
    "share_and_mean",
    "usual_boots",
    "usual_clock",
]

CLOCK_POINTS = 101
MINUTE_NS = 60_000_000_000

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
        Place of its first read among all first reads of a boot, from 0 to 1, mean of the boots that read it.
        What none read but in the minute after it: 1, and the part of the minute that had gone by, up to 2.
        NaN where none did.
    after : ndarray of float32, shape (n,)
        Share of the boots that did not read it, but the machine did in the minute after; NaN if no recording
        goes on after the boot.
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
    after: Floats
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
    """Return what a boot read until it was done.

    Raises
    ------
    PredictError
        If the boot never ended.
    """
    return _reads(boot)[0]


def reads_after(boot: Boot) -> Reads:
    """Return what was first read in the minute after a boot, as far as that was recorded.

    ``when`` is 1, and the part of the minute that had gone by.
    """
    return _reads(boot)[1]


def _reads(boot: Boot) -> tuple[Reads, Reads]:
    """Return `reads_of` and `reads_after`; they are asked for several times, and are kept with the boot."""
    kept: dict[str, Any] = vars(boot)  # where functools.cached_property keeps things, too
    if "_first_reads" not in kept:
        kept["_first_reads"] = _find_reads(boot)
    found: tuple[Reads, Reads] = kept["_first_reads"]
    return found


def _find_reads(boot: Boot) -> tuple[Reads, Reads]:
    done = boot_done_ns(boot)
    in_order = blocks_read(boot, until="end").sort("first_read_ns", "disk", "block")
    first = in_order["first_read_ns"].to_numpy()
    count, end = np.searchsorted(first, (done, done + MINUTE_NS), side="right")
    # blocks of one request are read at the same time
    place = np.searchsorted(first[:count], first[:count], side="left") / max(count, 1)
    gone_by = (first[count:end] - done) / MINUTE_NS
    return _as_reads(in_order[:count], place), _as_reads(in_order[count:end], 1 + gone_by)


def _as_reads(found: pl.DataFrame, when: npt.NDArray[np.float64]) -> Reads:
    disk, block, first = (found[name].to_numpy() for name in ("disk", "block", "first_read_ns"))
    return Reads(disk, block, when.astype(np.float32), first)


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
    usual = usual_boots(boots)
    reads = [reads_of(boot) for boot in usual]
    later = [reads_after(boot) for boot in usual if goes_on_after(boot)]
    last = boots[-1]
    found = []
    with states_let_go(boots):
        for disk, manifest in enumerate(last.manifests):
            described = describe_disk(manifest)
            blocks = manifest.blocks.height
            (rate, when), (after, when_after) = (
                share_and_mean(seen_of_disk(those, disk, blocks, described)) for those in (reads, later)
            )
            found.append(
                Observation(
                    *(last.vm, last.lineage, last.release, frozenset(last.roles), disk, described),
                    rate=rate,
                    when=np.where(rate > 0, when, when_after),
                    after=after,
                    boots=len(reads),
                )
            )
    return found


def goes_on_after(boot: Boot) -> bool:
    """Tell whether a recording goes on when the boot is done."""
    end = boot.trace.frame["issued_ns"].to_numpy()
    return bool((end > boot.trace.metadata.marks["boot_done_ns"]).any())


def seen_of_disk(reads: Sequence[Reads], disk: int, blocks: int, described: DescribedDisk) -> Floats:
    """Return of each boot, a row, `Reads.of_disk` of the blocks that are described."""
    seen = [each.of_disk(disk, blocks)[described.block] for each in reads]
    return np.array(seen, np.float32).reshape(len(reads), described.block.size)


def share_and_mean(seen: Floats) -> tuple[Floats, Floats]:
    """Return in what share of boots each block was read, and the mean of its places.

    NaN is the share if there are no boots, and the mean of what none has read.
    """
    read = ~np.isnan(seen)
    with np.errstate(invalid="ignore"):
        share = read.sum(axis=0) / np.float64(seen.shape[0])
        mean = np.where(read, seen, 0).sum(axis=0) / read.sum(axis=0)
    return share.astype(np.float32), mean.astype(np.float32)


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
