"""The file manager: what is in a backed-up virtual machine, and which blocks a selection needs."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmrestorekit.backup.files import DiskFiles, FoundFile, find_files, read_file
from vmrestorekit.backup.layout import first_block_of_disk
from vmrestorekit.backup.reader import CopyImage, open_copy
from vmrestorekit.backup.records import StoreError
from vmrestorekit.backup.store import BackupCopy, BackupStore

__all__ = ["CopyContents", "Selection"]

_KINDS_FIRST = ("$boot", "$superblock", "$group_descriptors")  # what a file system is entered through
_NTFS_FIRST = ("$Boot", "$MFT", "$MFTMirr", "$UpCase")  # without the last two no driver opens it
_FAT_FIRST = ("$MBR", "$FAT1")
_WHOLE = ("$btrfs_trees", "$inode_index")  # every piece of these is needed, none is a copy
_GROUP_HEADER_BYTES = 1 << 20  # LVM: label and metadata of a physical volume, in front of its data


@dataclasses.dataclass(frozen=True)
class Selection:
    """Files or whole partitions that a user chose in the file manager.

    Attributes
    ----------
    disk_bytes : tuple of int
        Size of the machine's disks.
    files : tuple of FoundFile
        The chosen files and folders with everything in them, by disk and path.
    extents : tuple of (int, int, int)
        Disk, first byte, number of bytes: first the metadata that leads to the files, then the files in the
        order of their bytes.
    """

    disk_bytes: tuple[int, ...]
    files: tuple[FoundFile, ...]
    extents: tuple[tuple[int, int, int], ...]

    def blocks(self, block_bytes: int) -> npt.NDArray[np.int32]:
        """Return the numbers of the blocks over all disks in this order, each once; holes are among them."""
        starts = first_block_of_disk(self.disk_bytes, block_bytes)
        ranges = [
            np.arange(offset // block_bytes, -(-min(offset + length, self.disk_bytes[disk]) // block_bytes))
            + starts[disk]
            for disk, offset, length in self.extents
            if length
        ]
        numbers = np.concatenate(ranges) if ranges else np.empty(0, np.int64)
        _, first = np.unique(numbers, return_index=True)
        return numbers[np.sort(first)].astype(np.int32)


class CopyContents:
    """What is in a copy, read from the store alone; a context manager.

    Parameters
    ----------
    store : BackupStore
    number : int
        Which copy.

    Raises
    ------
    StoreError
        If there is no such copy, or it cannot be read.
    """

    def __init__(self, store: BackupStore, number: int) -> None:
        self.copy: BackupCopy = store.copy(number)
        self._images = open_copy(store, self.copy)
        self._found: dict[int, DiskFiles] = {}

    def __enter__(self) -> CopyContents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        self._images[0].close()

    @property
    def disks(self) -> list[CopyImage]:
        """The disks as images."""
        return self._images[: len(self.copy.disks)]

    def files(self, disk: int = 0) -> DiskFiles:
        """Return the partitions of a disk and everything that has a name on it.

        Raises
        ------
        ManifestError
            If pytsk3 is not installed.
        """
        if not 0 <= disk < len(self.disks):
            raise StoreError(f"expected the number of a disk, 0 to {len(self.disks) - 1}, got {disk}")
        if disk not in self._found:
            self._found[disk] = find_files(self._images[disk])
        return self._found[disk]

    def folder(self, path: str, disk: int = 0) -> list[FoundFile]:
        """Return what is directly in a folder, by name; `StoreError` if there is no such folder."""
        path = _folder_name(path)
        files = self._named(disk)
        if not any(_folder_name(file.path) == path and file.kind == "directory" for file in files):
            raise StoreError(f"{self._images[disk].name}: expected a folder, found no {path!r}")
        inside = (
            file
            for file in files
            if file.kind != "metadata" and _folder_name(file.path) != path and _way(file.path)[-1] == path
        )
        return sorted(inside, key=lambda file: file.path)

    def select(self, *patterns: str, partitions: Iterable[int] = (), disk: int | None = None) -> Selection:
        """Choose files by patterns, and whole partitions by their numbers.

        Parameters
        ----------
        *patterns : str
            Such as ``/var/lib/postgresql/**``: ``*`` stands for anything, slashes too. A folder that fits
            brings everything in it.
        partitions : iterable of int
        disk : int, optional
            Default: files of all disks, partitions of the first.

        Raises
        ------
        StoreError
            If a pattern fits no file, or there is no such partition.
        """
        disks = range(len(self.disks)) if disk is None else [disk]
        chosen: list[tuple[int, FoundFile]] = []
        for pattern in patterns:
            fitting = [(number, file) for number in disks for file in self._fitting(pattern, number)]
            if not fitting:
                raise StoreError(f"copy {self.copy.number}: no file or folder fits {pattern!r}")
            chosen += fitting
        # a file with several names once
        chosen = list(
            {
                (number, file.partition, file.logical_volume, file.inode or file.path): (number, file)
                for number, file in reversed(chosen)
            }.values()
        )[::-1]
        extents = [
            (number, *extent)
            for number in disks
            for extent in self._metadata(number, [file for at, file in chosen if at == number])
        ]
        for number, file in chosen:
            by_position = sorted(file.extents, key=lambda extent: extent[2])
            extents += [(number, offset, length) for offset, length, _ in by_position]
        extents += [self._partition(number, disk or 0) for number in partitions]
        sizes = tuple(file.bytes for file in self.copy.disks)
        return Selection(sizes, tuple(file for _, file in chosen), tuple(extents))

    def read(self, path: str, disk: int = 0) -> Iterator[bytes]:
        """Give the contents of one file, piece by piece, without restoring anything else.

        Raises
        ------
        StoreError
            If there is no such file, or the store is damaged where it lies.
        ManifestError
            If it is no regular file.
        """
        for number, file in enumerate(self.copy.files):
            if file.role == "configuration" and file.name == path:
                return iter([bytes(self._images[number].read(0, file.bytes))])
        for found in self._named(disk):
            if found.path == path:
                return read_file(self._images[disk], found)
        raise StoreError(f"{self._images[disk].name}: expected a file {path!r}, found none")

    def extract(self, path: str, out: str | os.PathLike[str], disk: int = 0) -> int:
        """Write one file of the copy to `out`, which must not exist; return its size in bytes."""
        out = Path(out)
        if out.exists():
            raise StoreError(f"{out}: expected no such file, or it would be lost")
        pieces, size = self.read(path, disk), 0
        partial = out.with_name(f".{out.name}.partial")
        try:
            with open(partial, "wb") as file:
                for piece in pieces:
                    size += file.write(piece)
            os.replace(partial, out)
        finally:
            partial.unlink(missing_ok=True)
        return size

    def _named(self, disk: int) -> list[FoundFile]:
        """Return all files, one with several hard links once for each."""
        return [
            dataclasses.replace(file, path=path)
            for file in self.files(disk).files
            for path in (file.path, *file.other_paths)
        ]

    def _fitting(self, pattern: str, disk: int) -> list[FoundFile]:
        match = re.compile(fnmatch.translate(_folder_name(pattern))).match
        fits: Callable[[str], object] = lambda path: match(_folder_name(path))  # noqa: E731
        files = sorted(self._named(disk), key=lambda file: file.path)
        within = tuple(
            file.path.rstrip("/") + "/" for file in files if file.kind == "directory" and fits(file.path)
        )
        return [
            file
            for file in files
            if fits(file.path) or (within and file.kind != "metadata" and file.path.startswith(within))
        ]

    def _metadata(self, disk: int, chosen: Sequence[FoundFile]) -> list[tuple[int, int]]:
        """Return what has to be read to reach files: where the file system begins, then folder by folder."""
        if not chosen:
            return []
        found = self.files(disk)
        known = {_folder_name(file.path): file for file in found.files}
        structures = {
            (file.partition, file.logical_volume, file.path.split("@")[0]): file
            for file in found.files
            if file.kind == "metadata"
        }
        places = sorted({(file.partition, file.logical_volume) for file in chosen})
        reached: dict[tuple[int, int], None] = {}
        for partition, logical_volume in places:
            if logical_volume:
                _, start, length = self._partition(partition, disk)
                reached[start, min(_GROUP_HEADER_BYTES, length)] = None
        for name in (*_KINDS_FIRST, *_NTFS_FIRST, *_FAT_FIRST, *_WHOLE):
            for place in places:
                entry = structures.get((*place, name)) or structures.get((0, "", name))
                if entry is not None:
                    extents = entry.extents if name in _WHOLE else entry.extents[:1]  # others are copies
                    reached |= {(start, length): None for start, length, _ in extents}
        for file in chosen:
            if file.kind == "metadata":
                continue
            for folder in _way(file.path):
                entry = known.get(folder)
                if entry is not None:
                    reached |= dict.fromkeys(entry.reached_by)
                    reached |= {(start, length): None for start, length, _ in entry.extents}
            reached |= dict.fromkeys(file.reached_by)
        return list(reached)

    def _partition(self, number: int, disk: int) -> tuple[int, int, int]:
        for partition in self.files(disk).partitions:
            if partition["partition"] == number:
                return disk, partition["start"], partition["length"]
        there = ", ".join(str(each["partition"]) for each in self.files(disk).partitions) or "none"
        raise StoreError(f"expected the number of a partition ({there}), got {number}")


def _folder_name(path: str) -> str:
    """Return a path without slashes at its end, but for the top of a file system: ``/`` or ``@1/``."""
    name = path.rstrip("/")
    return name + "/" if path and re.fullmatch(r"(@\d+(-[\w.+-]+)?)?", name) else name


def _way(path: str) -> list[str]:
    """Return the folders on the way to a path: ``/srv/www/a`` → ``/``, ``/srv``, ``/srv/www``."""
    top, *names = path.split("/")
    return [_folder_name("/".join([top, *names[:end]])) or "/" for end in range(len(names))]
