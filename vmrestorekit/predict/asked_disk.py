"""A disk that a learned model is asked of: which of its blocks are worth a look.

Most files of a disk are read by no boot, and most of a large disk is such files. Whether anything of a file
is read is asked first, of all files at once; then only blocks of the others are described, piece by piece,
and blocks of no file and no file system if somebody has met their contents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.description import (
    DescribedDisk,
    DescribedFiles,
    describe_blocks,
    describe_files,
    used_partitions,
)
from vmrestorekit.predict.file_reads import FileReads, spread_to_blocks
from vmrestorekit.predict.relatives import Past, closest, still_there
from vmrestorekit.traces.large_manifest import LargeManifest

__all__ = ["AskedDisk"]

# files less likely to be read than this are not looked at: hardly a block of them is worth staging at the end
UNLIKELY = 0.003
# of 4 KiB, 8 GiB: of a disk with more in files that may be read, only the likeliest are looked at
MOST_BLOCKS = 1 << 21
# how much of a file is read, if anything is
PART_OF_A_FILE = 0.1

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class AskedDisk:
    """What is known of a disk before its blocks are described.

    Attributes
    ----------
    files : DescribedFiles
    of_files : ndarray of float32, shape (f + 1, 2)
        `vmrestorekit.predict.file_reads.spread_to_blocks`, a row a file, the last one of blocks of no file.
    wanted : ndarray of bool, shape (f + 1,)
        Which of them are worth a look.
    met : ndarray of uint64
        Contents that somebody has, ascending.
    read_before : ndarray of int64
        Blocks that the relative has read, ascending.
    relative : tuple of Past and float, or None
        See `vmrestorekit.predict.relatives.relative_of`.
    without : frozenset of str
        Machines of whose evidence this disk is no stranger.
    block_count : int
    """

    files: DescribedFiles
    of_files: Floats
    wanted: npt.NDArray[np.bool_]
    met: npt.NDArray[np.uint64]
    read_before: npt.NDArray[np.int64]
    relative: tuple[Past, float] | None
    without: frozenset[str]
    block_count: int

    @classmethod
    def of(
        cls,
        manifest: LargeManifest,
        disk: int,
        pasts: Sequence[Past],
        file_reads: FileReads,
        met: npt.NDArray[np.uint64],
        everything: bool = False,
    ) -> Self:
        """Ask of the files of a disk whether anything of them is read.

        Parameters
        ----------
        manifest : LargeManifest
        disk : int
            Which disk of its machine this is.
        pasts : sequence of Past
        file_reads : FileReads
        met : ndarray of uint64
            Contents that somebody has, ascending.
        everything : bool
            Leave nothing out.
        """
        files = describe_files(manifest)
        seen = _Seen.of(manifest, files, disk, pasts)
        files = dataclasses.replace(files, used=seen.used)
        relative = closest(zip(seen.alike, seen.pasts, strict=True))
        without = frozenset[str]()
        if relative is not None:
            without = frozenset(past.vm for past in pasts if past.lineage == relative[0].lineage)
        stored = np.flatnonzero(seen.stored[:-1]).astype(np.int32)
        asked = files.first_blocks(stored)
        of_files = np.full((files.count + 1, 2), np.nan, np.float32)
        of_files[stored] = spread_to_blocks(asked, file_reads.predict(asked, without))
        wanted = _likely(of_files[:, 0], files.blocks) | everything
        read_before = np.zeros(0, np.int64)
        if relative is not None:
            past = relative[0].disks[disk]
            read_before = past.block[past.rate > 0]
            wanted |= seen.read_before[seen.pasts.index(relative[0])]
            # what was read of a file is looked for wherever the file lies by now
            told = past.tables["file"]
            wanted |= told.without()[told.rows(files.keys["file"]), 1] > 0
            met = np.union1d(met, past.content[past.rate > 0])
        return cls(files, of_files, wanted, met, read_before, relative, without, manifest.block_count)

    def described(self, first: int, blocks: pl.DataFrame) -> DescribedDisk:
        """Describe what is worth a look among consecutive blocks, of which the first has this number."""
        wanted = self.worth_a_look(first, blocks)
        return describe_blocks(self.files, blocks, first, self.block_count, wanted)

    def worth_a_look(self, first: int, blocks: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """Tell which of consecutive blocks are worth a look: by their files, the past, what others have."""
        owner = blocks["file"].fill_null(-1).to_numpy()
        wanted: npt.NDArray[np.bool_] = self.wanted[owner]
        if not self.wanted[-1]:  # else everything is
            nobodys = np.flatnonzero(owner < 0)
            content = blocks["content"].gather(nobodys).to_numpy()
            place = np.minimum(np.searchsorted(self.met, content), max(self.met.size - 1, 0))
            wanted[nobodys] = self.met[place] == content if self.met.size else False
            wanted[nobodys] &= ~self.files.is_free(nobodys + first, owner[nobodys])
            wanted[_inside(self.read_before, first, owner.size)] = True
        return wanted

    def hardly(self, blocks: pl.DataFrame) -> npt.NDArray[np.float64]:
        """Return how probable blocks are that are not looked at: next to nothing, but more than nothing.

        Should a boot read their file against expectation, more of it may follow (`predict.online`).
        """
        owner = blocks["file"].fill_null(-1).to_numpy()
        of_file = np.nan_to_num(self.of_files[owner, 0]).astype(np.float64)
        stored = blocks["content"].to_numpy() != 0
        return np.where(stored, PART_OF_A_FILE * np.minimum(of_file, UNLIKELY), 0)


def _likely(read: Floats, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell which files are likely enough to be read, the likeliest first if they have too many blocks."""
    likely = np.flatnonzero(read >= UNLIKELY)
    likely = likely[np.argsort(-read[likely], kind="stable")]
    flags = np.zeros(read.size, bool)
    flags[likely[np.cumsum(blocks[likely]) <= MOST_BLOCKS]] = True
    return flags


def _inside(block: npt.NDArray[np.int64], first: int, count: int) -> npt.NDArray[np.int64]:
    """Return which of ascending blocks are among so many consecutive ones, counted from the first."""
    low, high = np.searchsorted(block, (first, first + count))
    return block[low:high] - first


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen:
    """What a first look at all blocks shows: which files have some, and how alike they are with each past."""

    stored: npt.NDArray[np.bool_]
    used: tuple[tuple[int, int], ...]
    pasts: list[Past]
    alike: list[float]
    read_before: list[npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, manifest: LargeManifest, files: DescribedFiles, disk: int, pasts: Sequence[Past]) -> Self:
        having = [past for past in pasts if disk < len(past.disks)]
        stored = np.zeros(files.count + 1, bool)
        used: set[tuple[int, int]] = set()
        same = [0] * len(having)
        read_before = [np.zeros(files.count + 1, bool) for _ in having]
        reads = [past.disks[disk].block[past.disks[disk].rate > 0] for past in having]
        for first, blocks in manifest.pieces():
            content = blocks["content"].to_numpy()
            owner = blocks["file"].fill_null(-1).to_numpy()
            stored[owner[content != 0]] = True
            used |= set(used_partitions(files.used, owner, first))
            for number, past in enumerate(having):
                same[number] += still_there(past.disks[disk], content, first)
                read_before[number][owner[_inside(reads[number], first, owner.size)]] = True
        alike = [count / max(read.size, 1) for count, read in zip(same, reads, strict=True)]
        for flags in read_before:
            flags[-1] = False  # of no file: not one for all
        return cls(stored, tuple(sorted(used)), having, alike, read_before)
