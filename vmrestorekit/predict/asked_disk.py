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

from vmrestorekit.predict.description import DescribedDisk, DescribedFiles, describe_blocks, describe_files
from vmrestorekit.predict.file_reads import FileReads, spread_to_blocks
from vmrestorekit.predict.relatives import Past, closest, still_there
from vmrestorekit.traces.large_manifest import LargeManifest

__all__ = ["AskedDisk"]

# files less likely to be read than this are not looked at: no block of them is worth staging even at the end
UNLIKELY = 0.003

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
        seen = _Seen.of(manifest, disk, pasts)
        relative = closest(zip(seen.alike, seen.pasts, strict=True))
        without = frozenset[str]()
        if relative is not None:
            without = frozenset(past.vm for past in pasts if past.lineage == relative[0].lineage)
        stored = np.flatnonzero(seen.stored[:-1]).astype(np.int32)
        asked = files.first_blocks(stored)
        of_files = np.full((files.count + 1, 2), np.nan, np.float32)
        of_files[stored] = spread_to_blocks(asked, file_reads.predict(asked, without))
        wanted = (of_files[:, 0] >= UNLIKELY) | everything
        if relative is not None:
            wanted |= seen.read_before[seen.pasts.index(relative[0])]
        return cls(files, of_files, wanted, met, relative, without, manifest.block_count)

    def described(self, first: int, blocks: pl.DataFrame) -> DescribedDisk:
        """Describe what is worth a look among consecutive blocks, of which the first has this number."""
        owner = blocks["file"].fill_null(-1).to_numpy()
        wanted = self.wanted[owner]
        if not self.wanted[-1]:  # else the machine has read some of them before
            nobodys = np.flatnonzero(owner < 0)
            content = blocks["content"].gather(nobodys).to_numpy()
            place = np.minimum(np.searchsorted(self.met, content), max(self.met.size - 1, 0))
            wanted[nobodys] = self.met[place] == content if self.met.size else False
            wanted[nobodys] &= ~self.files.is_free(nobodys + first, owner[nobodys])
        return describe_blocks(self.files, blocks, first, self.block_count, wanted)


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen:
    """What a first look at all blocks shows: which files have some, and how alike they are with each past."""

    stored: npt.NDArray[np.bool_]
    pasts: list[Past]
    alike: list[float]
    read_before: list[npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, manifest: LargeManifest, disk: int, pasts: Sequence[Past]) -> Self:
        files = manifest.files.height
        having = [past for past in pasts if disk < len(past.disks)]
        stored = np.zeros(files + 1, bool)
        same = [0] * len(having)
        read_before = [np.zeros(files + 1, bool) for _ in having]
        for first, blocks in manifest.pieces():
            content = blocks["content"].to_numpy()
            owner = blocks["file"].fill_null(-1).to_numpy()
            stored[owner[content != 0]] = True
            for number, past in enumerate(having):
                own = past.disks[disk]
                same[number] += still_there(own, content, first)
                block = own.block[own.rate > 0] - first
                read_before[number][owner[block[slice(*np.searchsorted(block, (0, content.size)))]]] = True
        alike = [
            count / max(int(np.count_nonzero(past.disks[disk].rate)), 1)
            for count, past in zip(same, having, strict=True)
        ]
        return cls(stored, having, alike, read_before)
