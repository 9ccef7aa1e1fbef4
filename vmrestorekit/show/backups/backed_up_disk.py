"""A disk of a backup copy as a file manager sees it: files, their 4 KiB blocks, and what leads to them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.browse import CopyContents
from vmrestorekit.show.backups.folder_tree import FolderTree
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES
from vmrestorekit.traces.working_set import blocks_touched, until_boot_done

__all__ = ["BackedUpCopy", "BackedUpDisk", "Blocks", "copy_in_store", "copy_of_boot"]

Blocks = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# what a file system is entered through, as `CopyContents.select` has it; of the first only the first run of
# blocks is needed (others are copies of it), of the second all
_OF_LINUX = ("$boot", "$superblock", "$group_descriptors")
_ENTRANCE = (*_OF_LINUX, "$Boot", "$MFT", "$MFTMirr", "$UpCase", "$MBR", "$FAT1")
_WHOLE = ("$btrfs_trees", "$inode_index")
_GROUP_HEADER_BYTES = 1 << 20  # LVM: label and metadata of a physical volume, in front of its data


@dataclasses.dataclass(frozen=True, eq=False)
class BackedUpDisk:
    """One disk of a backup copy; blocks are those of 4 KiB.

    Attributes
    ----------
    disk_bytes : int
    paths, kinds : list of str
        Of each file, folder and structure of a file system.
    sizes : ndarray of int64, shape (files,)
    starts : ndarray of int64, shape (files + 1,)
        Where each file's blocks begin in `blocks`.
    blocks : ndarray of int64
        Numbers on the disk, file after file, each in the order of its bytes.
    stored : ndarray of bool, shape (blocks of the disk,)
        Which blocks the copy stores; the others are zeros.
    read : ndarray of bool, or None
        Which of them the recorded boot reads until it is done; None where no boot was recorded.
    partitions : list of dict
        Rows of `vmrestorekit.traces.manifest.PARTITIONS_SCHEMA`.
    reached_by : mapping of int to ndarray
        For some files the blocks that describe them (inodes); only a backup store knows these.
    """

    disk_bytes: int
    paths: list[str]
    kinds: list[str]
    sizes: Blocks
    starts: Blocks
    blocks: Blocks
    stored: Mask
    read: Mask | None
    partitions: list[dict[str, Any]]
    reached_by: Mapping[int, Blocks] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def tree(self) -> FolderTree:
        """The folders."""
        return FolderTree.of(self.paths, self.kinds)

    @functools.cached_property
    def owner(self) -> npt.NDArray[np.int32]:
        """Which file each block of the disk is of, -1 for none."""
        owner = np.full(len(self.stored), -1, np.int32)
        owner[self.blocks] = np.repeat(np.arange(len(self.paths), dtype=np.int32), np.diff(self.starts))
        return owner

    @functools.cached_property
    def stored_of_files(self) -> Blocks:
        """How many stored blocks each file has."""
        return self._count(self.stored)

    @functools.cached_property
    def read_of_files(self) -> Blocks:
        """How many of these the recorded boot reads."""
        return self._count(self.stored & self.read) if self.read is not None else 0 * self.sizes

    def _count(self, mask: Mask) -> Blocks:
        until = np.concatenate([[0], np.cumsum(mask[self.blocks])])
        counts: Blocks = until[self.starts[1:]] - until[self.starts[:-1]]
        return counts

    def blocks_of(self, files: npt.ArrayLike) -> Blocks:
        """Return the blocks of these files, one file after the other."""
        chosen = np.asarray(files, np.int64)
        first, count = self.starts[chosen], np.diff(self.starts)[chosen]
        before = np.cumsum(count) - count
        return self.blocks[np.repeat(first - before, count) + np.arange(int(count.sum()))]

    def blocks_of_partition(self, number: int) -> Blocks:
        """Return all blocks of a partition; none if there is no such partition."""
        ranges = [_range(each) for each in self.partitions if each["partition"] == number]
        return np.arange(ranges[0][0], min(ranges[0][1], len(self.stored))) if ranges else _NONE

    def leads_to(self, files: npt.ArrayLike) -> Blocks:
        """Return what has to be read to reach files: where file systems begin, then the folders on the way.

        Where each file is described (its inode) only a backup store knows: a manifest knows the table of all
        inodes, but not who is where in it, so that this is left out.
        """
        chosen = np.asarray(files, np.int64)
        # what is a structure itself is reached from nowhere
        chosen = chosen[~self._is_structure[chosen]]
        if not len(chosen):
            return _NONE
        ways = self._folders_to(chosen)
        described = [self.reached_by[file] for file in (*ways, *chosen.tolist()) if file in self.reached_by]
        return np.concatenate([self._entrances(chosen), *described, self.blocks_of(ways)])

    @functools.cached_property
    def _is_structure(self) -> Mask:
        return np.array([kind == "metadata" for kind in self.kinds], np.bool_)

    def _folders_to(self, files: Blocks) -> list[int]:
        """Return the folders on the way to files that are listed themselves, each before what is in it."""
        chosen = np.zeros(len(self.paths), np.int64)
        chosen[files] = 1
        tree = self.tree
        own = np.where(tree.file >= 0, chosen[tree.file], 0)
        on_the_way = (tree.sums(chosen) > own) & (tree.file >= 0)
        found: list[int] = tree.file[on_the_way].tolist()
        return found

    def _entrances(self, files: Blocks) -> Blocks:
        """Return what the file systems in the partitions of these files are entered through."""
        having = files[np.diff(self.starts)[files] > 0]
        used = set(self._partition_of_block(self.blocks[self.starts[having]]).tolist())
        pieces = []
        for number, partition in enumerate(self.partitions):
            if number in used and partition["file_system"] == "lvm2":
                first, end = _range(partition)
                pieces.append(np.arange(first, min(end, first + _GROUP_HEADER_BYTES // MANIFEST_BLOCK_BYTES)))
        for file in np.flatnonzero(self._is_structure).tolist():
            name, of_it = self.paths[file].partition("@")[0], self.blocks_of([file])
            if not len(of_it) or name not in (*_ENTRANCE, *_WHOLE):
                continue
            # what lies in front of all partitions (-1) leads to each of them
            if int(self._partition_of_block(of_it[:1])[0]) in (used | {-1}):
                pieces.append(of_it if name in _WHOLE else _first_run(of_it))
        return np.concatenate(pieces) if pieces else _NONE

    def _partition_of_block(self, blocks: Blocks) -> Blocks:
        """Return for each block the place of its partition among the partitions, -1 for none."""
        found = np.full(len(blocks), -1, np.int64)
        for number, partition in enumerate(self.partitions):
            first, end = _range(partition)
            found[(blocks >= first) & (blocks < end)] = number
        return found


def _range(partition: Mapping[str, Any]) -> tuple[int, int]:
    end = partition["start"] + partition["length"]
    return partition["start"] // MANIFEST_BLOCK_BYTES, -(-end // MANIFEST_BLOCK_BYTES)


_NONE = np.empty(0, np.int64)


def _first_run(blocks: Blocks) -> Blocks:
    """Return the blocks up to the first that does not follow the one before."""
    breaks = np.flatnonzero(np.diff(blocks) != 1)
    return blocks[: breaks[0] + 1] if len(breaks) else blocks


@dataclasses.dataclass(frozen=True, eq=False)
class BackedUpCopy:
    """A copy of a machine.

    Attributes
    ----------
    machine, name : str
    disks : tuple of BackedUpDisk
    contents : CopyContents, optional
        The copy in its store, from which files can be extracted; None for a manifest, which has no contents.
    """

    machine: str
    name: str
    disks: tuple[BackedUpDisk, ...]
    contents: CopyContents | None = None

    @property
    def disk_bytes(self) -> tuple[int, ...]:
        """Size of each disk."""
        return tuple(disk.disk_bytes for disk in self.disks)


def copy_of_boot(boot: Boot) -> BackedUpCopy:
    """Return the copy that a recorded boot starts from, by its manifests."""
    touched = blocks_touched(until_boot_done(boot).filter(pl.col("op") == "read"))
    disks = []
    for number, manifest in enumerate(boot.manifests):
        read = np.zeros(manifest.blocks.height, np.bool_)
        read[touched.filter(pl.col("disk") == number)["block"].to_numpy()] = True
        file = manifest.blocks["file"].fill_null(-1).to_numpy()
        within = manifest.blocks["file_block"].fill_null(0).to_numpy()
        blocks = np.flatnonzero(file >= 0)
        blocks = blocks[np.lexsort((within[blocks], file[blocks]))]
        counts = np.bincount(file[blocks], minlength=manifest.files.height)
        disks.append(
            BackedUpDisk(
                manifest.disk_bytes,
                manifest.files["path"].to_list(),
                manifest.files["kind"].to_list(),
                manifest.files["size"].to_numpy(),
                np.concatenate([[0], np.cumsum(counts)]),
                blocks,
                (manifest.blocks["content"] != 0).to_numpy(),
                read,
                manifest.partitions.to_dicts(),
            )
        )
    return BackedUpCopy(boot.vm, f"before {boot.boot}", tuple(disks))


def copy_in_store(contents: CopyContents) -> BackedUpCopy:
    """Return a copy in a backup store."""
    disks = []
    for number, image in enumerate(contents.disks):
        found = contents.files(number)
        # one with several hard links once for each
        files = [(path, file) for file in found.files for path in (file.path, *file.other_paths)]
        pieces = [[_covered(extent[0], extent[1]) for extent in _in_order(file)] for _, file in files]
        counts = [sum(map(len, each)) for each in pieces]
        whole = [block for each in pieces for block in each]
        stored = np.zeros(-(-image.size // MANIFEST_BLOCK_BYTES), np.bool_)
        for start, end in image.extents():
            stored[start // MANIFEST_BLOCK_BYTES : -(-end // MANIFEST_BLOCK_BYTES)] = True
        disks.append(
            BackedUpDisk(
                image.size,
                [path for path, _ in files],
                [file.kind for _, file in files],
                np.array([file.size for _, file in files], np.int64),
                np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
                np.concatenate(whole) if whole else _NONE,
                stored,
                None,
                found.partitions,
                {
                    at: np.concatenate([_covered(*place) for place in file.reached_by])
                    for at, (_, file) in enumerate(files)
                    if file.reached_by
                },
            )
        )
    copy = contents.copy
    return BackedUpCopy(copy.vm, f"copy {copy.number}", tuple(disks), contents)


def _in_order(file: Any) -> list[tuple[int, int, int]]:
    return sorted(file.extents, key=lambda extent: extent[2])


def _covered(start: int, length: int) -> Blocks:
    end = -(-(start + length) // MANIFEST_BLOCK_BYTES)
    return np.arange(start // MANIFEST_BLOCK_BYTES, end if length else 0)
