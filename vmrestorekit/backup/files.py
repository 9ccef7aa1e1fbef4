"""Which bytes of a disk image belong to which file, as The Sleuth Kit finds them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmrestorekit.backup.ext import ext_metadata
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["DiskFiles", "FoundFile", "find_files"]

# numbers of The Sleuth Kit's interface
_ALLOCATED = 1
_REGULAR, _DIRECTORY, _SYMLINK, _VIRTUAL, _VIRTUAL_DIRECTORY = 1, 2, 6, 10, 11
_KINDS = {_REGULAR: "regular", _DIRECTORY: "directory", _SYMLINK: "symlink", _VIRTUAL: "metadata"}
_FILLER_OR_SPARSE = 3
_ATTRIBUTES_OF_MAPPING = (0x1001, 0x1002)  # blocks that list an ext file's blocks


@dataclasses.dataclass
class FoundFile:
    """A file with blocks of its own.

    Attributes
    ----------
    path : str
        Absolute; of several hard links the first in sorted order; starts with ``$`` for metadata.
    size : int
        In bytes.
    kind : str
        One of `FILE_KINDS`.
    extents : list of (int, int, int)
        First byte on the disk, number of bytes, first byte within the file.
    """

    path: str
    size: int
    kind: str
    extents: list[tuple[int, int, int]]


@dataclasses.dataclass(frozen=True)
class DiskFiles:
    """The partitions of a disk as rows of `PARTITIONS_SCHEMA`, and the files in them."""

    partitions: list[dict[str, Any]]
    files: list[FoundFile]


def find_files(path: Path, disk_bytes: int) -> DiskFiles:
    """Find partitions, and files in those whose file system The Sleuth Kit can read.

    With several such file systems the largest keeps plain paths; those of another start with ``@`` and the
    number of its partition, and its metadata ends so. A partition nobody can read has the file system
    ``"unknown"`` and no files.

    Raises
    ------
    ManifestError
        If pytsk3 is not installed.
    """
    tsk = _sleuth_kit()
    image = tsk.Img_Info(os.fspath(path))
    try:
        partitions, readable = _partitions(tsk, image, disk_bytes)
        files = []
        if partitions and partitions[0]["start"] > 0:
            first = min(partition["start"] for partition in partitions)
            files.append(FoundFile("$boot", first, "metadata", [(0, first, 0)]))
        largest = max(readable, key=lambda number: readable[number].info.block_count, default=None)
        for partition in partitions:
            number = partition["partition"]
            if number in readable:
                mark = "" if number == largest else f"@{number}"
                files += _files_of(readable[number], image, partition["start"], mark)
        return DiskFiles(partitions, files)
    finally:
        image.close()


def _sleuth_kit() -> Any:
    try:
        import pytsk3
    except ImportError as error:
        raise ManifestError(
            "finding the files in a disk image needs pytsk3: pip install 'vmrestorekit[images]'"
        ) from error
    return pytsk3


def _partitions(tsk: Any, image: Any, disk_bytes: int) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    try:
        volume = tsk.Volume_Info(image)
    except OSError:  # no partition table: perhaps one file system all over the disk
        ranges = [(0, 0, disk_bytes)]
    else:
        sector = volume.info.block_size
        allocated = [part for part in volume if int(part.flags) == _ALLOCATED]
        ranges = [
            (number, part.start * sector, part.len * sector) for number, part in enumerate(allocated, 1)
        ]
    partitions, readable = [], {}
    for number, start, length in ranges:
        name = "unknown"
        try:
            file_system = tsk.FS_Info(image, offset=start)
        except OSError:
            if number == 0:
                continue
        else:
            readable[number] = file_system
            name = _file_system_name(tsk, int(file_system.info.ftype))
        partitions.append({"partition": number, "start": start, "length": length, "file_system": name})
    return partitions, readable


def _file_system_name(tsk: Any, number: int) -> str:
    prefix = "TSK_FS_TYPE_"
    names = [name for name in dir(tsk) if name.startswith(prefix) and not name.endswith(("_DETECT", "_ENUM"))]
    matching = (name for name in names if int(getattr(tsk, name)) == number)
    return next(matching, "unknown").removeprefix(prefix).lower()


def _files_of(file_system: Any, image: Any, start: int, mark: str) -> list[FoundFile]:
    block_bytes = file_system.info.block_size
    files: dict[int, FoundFile] = {}
    mapping: list[tuple[int, int]] = []
    for path, entry, inode in _walk(file_system):
        known = files.get(inode)
        if known is not None:
            if known.kind != "metadata":
                known.path = min(known.path, mark + path)
            continue
        kind = _KINDS.get(int(entry.info.meta.type), "other")
        if path.startswith("/$"):  # what NTFS and FAT keep for themselves has names like this
            kind = "metadata"
        name = path.removeprefix("/") + mark if kind == "metadata" else mark + path
        files[inode] = FoundFile(name, int(entry.info.meta.size), kind, [])
        for is_mapping, position, address, length in _runs(entry):
            if is_mapping:
                mapping.append((address * block_bytes, length * block_bytes))
            else:
                extent = (start + address * block_bytes, length * block_bytes, position * block_bytes)
                files[inode].extents.append(extent)
    structures = ext_metadata(lambda offset, length: bytes(image.read(start + offset, length)))
    if structures:
        journal = file_system.info.journ_inum
        if journal:
            entry = file_system.open_meta(journal)
            runs = [(address, length) for is_mapping, _, address, length in _runs(entry) if not is_mapping]
            structures["$journal"] = [
                (address * block_bytes, length * block_bytes) for address, length in runs
            ]
        structures["$extents"] = sorted(mapping)
    found = [file for file in files.values() if file.extents]
    return found + [
        _pseudo_file(name + mark, extents, start) for name, extents in structures.items() if extents
    ]


def _pseudo_file(name: str, extents: list[tuple[int, int]], start: int) -> FoundFile:
    placed, position = [], 0
    for offset, length in extents:
        placed.append((start + offset, length, position))
        position += length
    return FoundFile(name, position, "metadata", placed)


def _walk(file_system: Any) -> Iterator[tuple[str, Any, int]]:
    """Give path, entry and inode of everything that has a name, a directory before what is in it."""
    root = file_system.open_meta(file_system.info.root_inum)
    yield "/", root, int(file_system.info.root_inum)
    seen = {int(file_system.info.root_inum)}
    pending = [("/", root)]
    while pending:
        path, directory = pending.pop()
        try:
            entries = list(directory.as_directory())
        except OSError:  # damaged: its files stay without a name
            continue
        for entry in entries:
            name, meta = entry.info.name, entry.info.meta
            if meta is None or name.name in (b".", b"..") or int(name.flags) != _ALLOCATED:
                continue
            if int(meta.type) == _VIRTUAL_DIRECTORY:
                continue
            inode = int(meta.addr)
            child = path + name.name.decode("utf-8", "backslashreplace")
            yield child, entry, inode
            if int(meta.type) == _DIRECTORY and inode not in seen:
                seen.add(inode)
                pending.append((child + "/", entry))


def _runs(entry: Any) -> Iterator[tuple[bool, int, int, int]]:
    """Give (whether it lists other blocks, position in the file, address, length), in file system blocks."""
    for attribute in entry:
        is_mapping = int(attribute.info.type) in _ATTRIBUTES_OF_MAPPING
        for run in attribute:
            if not int(run.flags) & _FILLER_OR_SPARSE and run.len:
                yield is_mapping, run.offset, run.addr, run.len
