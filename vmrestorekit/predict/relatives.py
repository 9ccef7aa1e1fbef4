"""A machine's own past: what it, or the image that it was cloned from, read in earlier boots.

A disk is known again by what lies where: most blocks that a relative read are still at their addresses. Then
its past says more than any other machine. What it says is learned, too: from machines whose last boot is
foretold from the boots before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.description import FILE_FEATURES, DescribedDisk, describe_disk
from vmrestorekit.predict.evidence import EvidenceTable
from vmrestorekit.predict.mapped import states_let_go
from vmrestorekit.predict.observations import (
    goes_on_after,
    reads_after,
    reads_of,
    seen_of_disk,
    share_and_mean,
    usual_clock,
)
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

if TYPE_CHECKING:
    from vmrestorekit.traces.boots import Boot

__all__ = [
    "PAST_FEATURES",
    "PAST_KEYS",
    "Past",
    "PastOfDisk",
    "alike_with",
    "closest",
    "past_features",
    "past_of",
    "relative_of",
    "still_there",
]

Floats = npt.NDArray[np.float32]

# at least this share of what a relative read must be where it was
ALIKE = 0.5
MANY = 8  # boots: more say no more
PAST_KEYS = ("content", "place", "file")
PAST_FEATURES = (
    *("stranger", "stranger_when", "file_read"),
    *("boots", "alike", "unchanged"),
    *("address_rate", "address_last", "address_when"),
    *(f"{key}_{what}" for key in PAST_KEYS for what in ("rate", "when")),
    *("around_2", "around_8"),
    "path_class",
)


@dataclasses.dataclass(frozen=True, eq=False)
class PastOfDisk:
    """What earlier boots read of a disk; rows are its stored blocks, by number.

    Attributes
    ----------
    block : ndarray of int64, shape (n,)
    content : ndarray of uint64, shape (n,)
    rate, last, when : ndarray of float32, shape (n,)
        Share of the boots that read it, whether the last one did, and place in the order of first reads.
    after : ndarray of float32, shape (n,)
        Share of the boots that did not read it, but the machine did in the minute after; NaN: not recorded.
    tables : mapping of str to EvidenceTable
        The same under `PAST_KEYS`, of one source.
    """

    block: npt.NDArray[np.int64]
    content: npt.NDArray[np.uint64]
    rate: Floats
    last: Floats
    when: Floats
    after: Floats
    tables: Mapping[str, EvidenceTable]

    def at(self, described: DescribedDisk) -> npt.NDArray[np.int64]:
        """Return for each block of a disk the row that it has here; one past the last where there is none."""
        row = np.searchsorted(self.block, described.block)
        there = np.append(self.block, -1)[row] == described.block
        return np.where(there, row, self.block.size)

    def unchanged(self, described: DescribedDisk) -> npt.NDArray[np.bool_]:
        """Tell which blocks of a disk are what they were."""
        same: npt.NDArray[np.bool_] = (
            np.append(self.content, np.uint64(0))[self.at(described)] == described.content
        )
        return same

    def read_before(self, described: DescribedDisk) -> npt.NDArray[np.bool_]:
        """Tell which blocks of a disk lie where something was read."""
        read: npt.NDArray[np.bool_] = np.append(self.rate, 0)[self.at(described)] > 0
        return read


@dataclasses.dataclass(frozen=True, eq=False)
class Past:
    """The earlier boots of a machine.

    Attributes
    ----------
    vm, lineage : str
    boots : int
    disks : tuple of PastOfDisk
    clock : ndarray of float64
        When these boots make each hundredth of their first reads, nanoseconds.
    """

    vm: str
    lineage: str
    boots: int
    disks: tuple[PastOfDisk, ...]
    clock: npt.NDArray[np.float64]


def past_of(boots: Sequence[Boot], described: Sequence[DescribedDisk] | None = None) -> Past:
    """Return what boots of one machine, in their order, tell of its next one.

    Parameters
    ----------
    boots : sequence of Boot
    described : sequence of DescribedDisk, optional
        The disks before the last of these boots, if that is known.
    """
    last = boots[-1]
    if described is None:
        with states_let_go(boots):
            described = [describe_disk(manifest) for manifest in last.manifests]
    reads = [reads_of(boot) for boot in boots]
    later = [reads_after(boot) for boot in boots if goes_on_after(boot)]
    disks = []
    for number, (disk, size) in enumerate(zip(described, last.disk_bytes, strict=True)):
        blocks = -(-size // MANIFEST_BLOCK_BYTES)
        seen, seen_after = (seen_of_disk(those, number, blocks, disk) for those in (reads, later))
        disks.append(_past_of_disk(disk, seen, seen_after))
    return Past(last.vm, last.lineage, len(boots), tuple(disks), usual_clock(reads))


def _past_of_disk(described: DescribedDisk, seen: Floats, seen_after: Floats) -> PastOfDisk:
    rate, when = share_and_mean(seen)
    after, _ = share_and_mean(seen_after)
    tables = {key: EvidenceTable.of([("past", described.keys[key], rate, when)]) for key in PAST_KEYS}
    order = np.argsort(described.block)
    return PastOfDisk(
        described.block[order],
        described.content[order],
        rate[order],
        (~np.isnan(seen[-1])).astype(np.float32)[order],
        when[order],
        after[order],
        tables,
    )


def relative_of(described: DescribedDisk, disk: int, pasts: Sequence[Past]) -> tuple[Past, float] | None:
    """Return the past of the machine that a disk was, and how much of what it read is where it was.

    Parameters
    ----------
    described : DescribedDisk
    disk : int
        Which disk of its machine this is.
    pasts : sequence of Past
    """
    return closest(
        (alike_with(described, past.disks[disk]), past) for past in pasts if disk < len(past.disks)
    )


def closest(found: Iterable[tuple[float, Past]]) -> tuple[Past, float] | None:
    """Return the past that a disk is most alike with, and how much, if that is enough to be a relative."""
    alike, past = max(found, key=lambda pair: pair[0], default=(0.0, None))
    return (past, alike) if past is not None and alike >= ALIKE else None


def still_there(past: PastOfDisk, content: npt.NDArray[np.uint64], first: int) -> int:
    """Count what a relative read and what is where it was, among consecutive blocks of a disk.

    Parameters
    ----------
    past : PastOfDisk
    content : ndarray of uint64
        Of the blocks, 0 for zeros.
    first : int
        Number of the first of them.
    """
    read = past.rate > 0
    block, was = past.block[read] - first, past.content[read]
    here = slice(*np.searchsorted(block, (0, content.size)))
    return int(np.count_nonzero(content[block[here]] == was[here]))


def alike_with(described: DescribedDisk, past: PastOfDisk) -> float:
    """Return how much of what a relative read lies where it did, 0 to 1."""
    read = past.rate > 0
    return float(past.unchanged(described)[past.read_before(described)].sum() / max(read.sum(), 1))


def past_features(
    described: DescribedDisk,
    past: PastOfDisk,
    boots: int,
    alike: float,
    told: Sequence[Floats],
    rows: npt.NDArray[np.int64] | slice,
) -> Floats:
    """Return `PAST_FEATURES` of stored blocks of a disk.

    Parameters
    ----------
    described : DescribedDisk
    past : PastOfDisk
    boots : int
        How many there were.
    alike : float
        See `relative_of`.
    told : sequence of ndarray of float32, shape (n,)
        What is said of these rows without a relative: probability, place in the order, and the probability
        of the file.
    rows : ndarray of int64, or slice
    """
    at = past.at(described)
    rate, last, when = (
        np.append(column, unknown)[at]
        for column, unknown in ((past.rate, 0), (past.last, 0), (past.when, np.nan))
    )
    around = [described.mean_within(rate, width)[rows] for width in (2, 8)]
    here = at[rows]
    columns = [*told, np.full(here.size, min(boots, MANY)), np.full(here.size, alike)]
    columns += [past.unchanged(described)[rows], rate[rows], last[rows], when[rows]]
    for key in PAST_KEYS:
        table = past.tables[key]
        found = table.without()[table.rows(described.keys[key][rows])]
        columns += [found[:, 1], found[:, 2]]
    path_class = described.features[rows, FILE_FEATURES.index("path_class")]
    return np.column_stack([*columns, *around, path_class]).astype(np.float32)
