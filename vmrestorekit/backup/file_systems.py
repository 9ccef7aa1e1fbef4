"""What every reader of a file system gives: the files of a volume, in one shape."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator, Sequence
from typing import Protocol

from vmrestorekit.backup.images import DiskImage
from vmrestorekit.backup.volume import Volume
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["LONGEST_PATH", "FileSystem", "FoundFile", "kind_of", "pseudo_file", "read_extents"]

LONGEST_PATH = 4096  # Linux opens no longer one, and only damage makes folders as deep as that

_READ_BYTES = 1 << 20
_KINDS = {stat.S_IFREG: "regular", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


@dataclasses.dataclass
class FoundFile:
    """A file, a folder, or a structure of a file system.

    Attributes
    ----------
    path : str
        Absolute; of several hard links the first in sorted order; starts with ``$`` for metadata.
    size : int
        In bytes.
    kind : str
        One of `FILE_KINDS`.
    extents : list of (int, int, int)
        First byte on the disk, number of bytes, first byte within the file; none of a file that has no blocks
        of its own. A compressed extent is shorter on the disk than in the file.
    reached_by : list of (int, int)
        First byte on the disk and number of bytes of what describes the file: its inode or record, and blocks
        that list its blocks.
    partition, inode : int
        Where it is found; the partition's number as in `DiskFiles`. In a further subvolume of btrfs the inode
        has the subvolume's number above its lower 64 bits.
    other_paths : list of str
        Its further hard links.
    target : str
        What a symbolic link points to, as it is stored; empty for others.
    logical_volume : str
        Name of the logical volume of the partition that it lies on; empty where there is none.
    disk : int
        Number of the disk among those of its machine, where several are looked at together.
    inline : bytes
        The first bytes of a regular file that has them in what describes it, not in blocks of its own.
    """

    path: str
    size: int
    kind: str
    extents: list[tuple[int, int, int]]
    reached_by: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    partition: int = 0
    inode: int = 0
    other_paths: list[str] = dataclasses.field(default_factory=list)
    target: str = ""
    logical_volume: str = ""
    disk: int = 0
    inline: bytes = b""


class FileSystem(Protocol):
    """A file system that can be read.

    Attributes
    ----------
    name : str
        Such as ``"ext4"``.
    size : int
        Its bytes.
    volume : Volume
        What it lies on.
    """

    name: str
    size: int
    volume: Volume

    def files(self) -> list[FoundFile]:
        """Return all that has a name, and the structures; places are bytes of the volume.

        A folder or file that is damaged itself is left out, or has no extents.

        Raises
        ------
        UnreadableError
            If the file system cannot be read at all.
        """

    def read(self, file: FoundFile) -> Iterator[bytes]:
        """Give the contents of a regular file, whose places are bytes of the disk, piece by piece.

        Raises
        ------
        ManifestError
            If they cannot be had.
        """


def kind_of(mode: int) -> str:
    """Return which of `FILE_KINDS` a file is by its mode as of stat(2)."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


def pseudo_file(name: str, extents: Sequence[tuple[int, int]]) -> FoundFile:
    """Return a structure of a file system as a file: these extents one after the other."""
    placed, position = [], 0
    for offset, length in extents:
        placed.append((offset, length, position))
        position += length
    return FoundFile(name, position, "metadata", placed)


def read_extents(disk: DiskImage, file: FoundFile) -> Iterator[bytes]:
    """Give the contents of a file as they lie on the disk; what has no extent is zeros."""
    position = 0
    for start, length, first in [*sorted(file.extents, key=lambda each: each[2]), (0, 0, file.size)]:
        end = min(first, file.size)
        while position < end:
            count = min(_READ_BYTES, end - position)
            yield bytes(count)
            position += count
        end = min(first + length, file.size)
        while position < end:
            count = min(_READ_BYTES, end - position)
            data = bytes(disk.read(start + position - first, count))
            if len(data) != count:
                raise ManifestError(
                    f"{file.path}: expected {file.size} bytes, the disk ended after {position}"
                )
            yield data
            position += count
