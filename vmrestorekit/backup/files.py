"""Which bytes of a disk image belong to which file: partitions, logical volumes and their file systems."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from vmrestorekit.backup.btrfs import open_btrfs
from vmrestorekit.backup.file_systems import FileSystem, FoundFile, pseudo_file
from vmrestorekit.backup.images import DiskImage
from vmrestorekit.backup.lvm import LABELS_OF_LVM, logical_volumes
from vmrestorekit.backup.sleuth_kit import Damages, open_sleuth_kit, partition_ranges
from vmrestorekit.backup.volume import UnreadableError, Volume
from vmrestorekit.backup.xfs import open_xfs
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["DiskFiles", "FoundFile", "find_files", "read_file"]

_UNKNOWN = "unknown"
_MAGIC = (
    ("xfs", 0, b"XFSB"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    *(("lvm2", *label) for label in LABELS_OF_LVM),
    ("luks", 0, b"LUKS\xba\xbe"),
    ("swap", 4086, b"SWAPSPACE2"),
)


@dataclasses.dataclass(frozen=True)
class DiskFiles:
    """What is on a disk.

    Attributes
    ----------
    partitions : list of dict
        Rows of `PARTITIONS_SCHEMA`. A file system that cannot be read has no files.
    files : list of FoundFile
    readable : frozenset of int
        Numbers of the partitions whose files were found, or those of a logical volume there.
    """

    partitions: list[dict[str, Any]]
    files: list[FoundFile]
    readable: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a file system was found: number of the partition, and name of the logical volume if any."""

    partition: int
    logical_volume: str
    file_system: FileSystem


def find_files(disk: DiskImage) -> DiskFiles:
    """Find partitions and logical volumes, and the files in those whose file system can be read.

    Read are XFS, btrfs, and ext, NTFS, FAT and more by The Sleuth Kit. With several file systems the largest
    keeps plain paths; those of another start with ``@`` and the number of its partition, and its metadata
    ends so; where a partition has several as logical volumes, all but the largest add ``-`` and the volume's
    name. The file system of a partition that nobody here can read is named if its first bytes tell it, and
    else ``"unknown"``; one with logical volumes is ``"lvm2"``.

    Raises
    ------
    ManifestError
        If pytsk3 is not installed.
    """
    partitions, places = _file_systems(disk)
    files = []
    if partitions and partitions[0]["start"] > 0:
        first = min(partition["start"] for partition in partitions)
        files.append(pseudo_file("$boot", [(0, first)]))
    found = []
    for place in places:
        try:
            found.append((place, place.file_system.files()))
        except UnreadableError:  # it cannot be read after all
            continue
    marks = _marks([place for place, _ in found])
    for (place, its_files), mark in zip(found, marks, strict=True):
        for file in its_files:
            _put_on_disk(file, place, mark)
        files += its_files
    return DiskFiles(partitions, files, frozenset(place.partition for place, _ in found))


def read_file(disk: DiskImage, file: FoundFile) -> Iterator[bytes]:
    """Give the contents of a file of the disk, piece by piece.

    Raises
    ------
    ManifestError
        If it is no regular file, or the file system cannot give its contents.
    """
    if file.kind != "regular":
        raise ManifestError(f"{file.path}: expected a regular file, got one of the kind {file.kind!r}")
    damages: Damages = []
    _, places = _file_systems(disk, damages, (file.partition, file.logical_volume))
    if places:
        yield from places[0].file_system.read(file)
        return
    raise damages[0][2] if damages else ManifestError(f"{file.path}: cannot be found again")


def _file_systems(
    disk: DiskImage, damages: Damages | None = None, wanted: tuple[int, str] | None = None
) -> tuple[list[dict[str, Any]], list[_Place]]:
    """Return rows of `PARTITIONS_SCHEMA`, and the file systems by partition: all, or the wanted one."""
    partitions, places, physical = [], [], {}
    for number, start, length in partition_ranges(disk, damages):
        # up to the end of the disk: a file system knows its own size, a partition table may be behind
        volume = Volume(disk, [(start, disk.size - start)])
        name = _name_by_magic(volume)
        file_system = _open(volume, name, damages) if wanted in (None, (number, "")) else None
        if file_system is not None:
            name = file_system.name
            places.append(_Place(number, "", file_system))
        elif name == "lvm2" and (wanted is None or wanted[1]):
            physical[number] = volume
        elif number == 0 and name == _UNKNOWN:
            continue
        partitions.append({"partition": number, "start": start, "length": length, "file_system": name})
    for logical in logical_volumes(disk, physical):
        if wanted in (None, (logical.partition, logical.name)):
            file_system = _open(logical.volume, _name_by_magic(logical.volume), damages)
            if file_system is not None:
                places.append(_Place(logical.partition, logical.name, file_system))
    return partitions, sorted(places, key=lambda place: place.partition)


def _open(volume: Volume, name: str, damages: Damages | None) -> FileSystem | None:
    """Return the file system on a volume, by the name that its first bytes tell; None if nobody reads it."""
    if name == "xfs":
        return open_xfs(volume) or open_sleuth_kit(volume, damages)
    found = open_sleuth_kit(volume, damages)
    # what mke2fs does not overwrite may still look like btrfs
    return open_btrfs(volume) if found is None and name == "btrfs" else found


def _name_by_magic(volume: Volume) -> str:
    """Return the name of what lies there by the bytes that blkid(8) goes by, too."""
    return next((name for name, at, magic in _MAGIC if bytes(volume.read(at, len(magic))) == magic), _UNKNOWN)


def _marks(places: list[_Place]) -> list[str]:
    """Return for each file system what its paths start with, and its structures' names end with."""
    by_size = sorted(range(len(places)), key=lambda number: -places[number].file_system.size)
    marks, seen = [""] * len(places), set()
    for order, number in enumerate(by_size):
        place = places[number]
        if order:
            marks[number] = f"@{place.partition}"
            if place.partition in seen:
                marks[number] += f"-{place.logical_volume}"
        seen.add(place.partition)
    return marks


def _put_on_disk(file: FoundFile, place: _Place, mark: str) -> None:
    """Add to a file what the disk adds: the mark, and places as bytes of the disk."""
    volume = place.file_system.volume
    file.path = file.path + mark if file.kind == "metadata" else mark + file.path
    file.other_paths = [mark + path for path in file.other_paths]
    file.extents = volume.on_disk(file.extents)
    file.reached_by = [each for extent in file.reached_by for each in volume.places(*extent)]
    file.partition, file.logical_volume = place.partition, place.logical_volume
