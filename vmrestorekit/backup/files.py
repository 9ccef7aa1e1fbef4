"""Which bytes of a disk image belong to which file, as The Sleuth Kit finds them."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator
from typing import Any

from vmrestorekit.backup.ext import ext_inodes, ext_metadata
from vmrestorekit.backup.images import SECTOR_BYTES, DiskImage
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["DiskFiles", "FoundFile", "find_files", "read_file"]

# numbers of The Sleuth Kit's interface
_ALLOCATED = 1
_REGULAR, _DIRECTORY, _SYMLINK, _VIRTUAL, _VIRTUAL_DIRECTORY = 1, 2, 6, 10, 11
_KINDS = {_REGULAR: "regular", _DIRECTORY: "directory", _SYMLINK: "symlink", _VIRTUAL: "metadata"}
_FILLER_OR_SPARSE = 3
_VOLUME_LABEL = b" (Volume Label Entry)"
_NTFS_FIRST_OF_USERS = 24
_READ_BYTES = 1 << 20
_MAGIC = (
    ("xfs", 0, b"XFSB"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("lvm2", 512 + 24, b"LVM2 001"),
    ("luks", 0, b"LUKS\xba\xbe"),
    ("swap", 4086, b"SWAPSPACE2"),
)
_ATTRIBUTES_OF_CONTENTS = (0x1, 0x80)
_ATTRIBUTES_OF_MAPPING = (0x1001, 0x1002)  # blocks that list an ext file's blocks


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
        of its own.
    reached_by : list of (int, int)
        First byte on the disk and number of bytes of what describes the file: its inode or record, and blocks
        that list its blocks.
    partition, inode : int
        Where The Sleuth Kit finds it; the partition's number as in `DiskFiles`.
    other_paths : list of str
        Its further hard links.
    """

    path: str
    size: int
    kind: str
    extents: list[tuple[int, int, int]]
    reached_by: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    partition: int = 0
    inode: int = 0
    other_paths: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class DiskFiles:
    """What is on a disk.

    Attributes
    ----------
    partitions : list of dict
        Rows of `PARTITIONS_SCHEMA`. A file system that cannot be read has no files.
    files : list of FoundFile
    readable : frozenset of int
        Numbers of the partitions whose files were found.
    """

    partitions: list[dict[str, Any]]
    files: list[FoundFile]
    readable: frozenset[int] = frozenset()


def find_files(disk: DiskImage) -> DiskFiles:
    """Find partitions, and files in those whose file system The Sleuth Kit can read (ext, NTFS, FAT, …).

    With several such file systems the largest keeps plain paths; those of another start with ``@`` and the
    number of its partition, and its metadata ends so. The file system of a partition that nobody here can
    read is named if its first bytes tell it, and else ``"unknown"``.

    Raises
    ------
    ManifestError
        If pytsk3 is not installed.
    """
    tsk = _sleuth_kit()
    image = _sleuth_kit_image(tsk, disk)
    partitions, readable = _partitions(tsk, image, disk)
    files = []
    if partitions and partitions[0]["start"] > 0:
        first = min(partition["start"] for partition in partitions)
        files.append(FoundFile("$boot", first, "metadata", [(0, first, 0)]))
    largest = max(readable, key=lambda number: _bytes_of(readable[number]), default=None)
    for partition in partitions:
        number = partition["partition"]
        if number in readable:
            mark = "" if number == largest else f"@{number}"
            found = _files_of(readable[number], disk, image, partition["start"], mark)
            files += [dataclasses.replace(file, partition=number) for file in found]
    return DiskFiles(partitions, files, frozenset(readable))


def read_file(disk: DiskImage, file: FoundFile) -> Iterator[bytes]:
    """Give the contents of a file of the disk, piece by piece.

    Raises
    ------
    ManifestError
        If it is no regular file, or the file system cannot give its contents.
    """
    if file.kind != "regular":
        raise ManifestError(f"{file.path}: expected a regular file, got one of the kind {file.kind!r}")
    tsk = _sleuth_kit()
    # after a short read The Sleuth Kit may give anything: damage is filled with zeros and noted instead
    image = _sleuth_kit_image(tsk, disk, fill=True)
    partitions, readable = _partitions(tsk, image, disk)
    if file.partition not in readable:
        raise image.damages[0][2] if image.damages else ManifestError(f"{file.path}: cannot be found again")
    file_system = readable[file.partition]
    entry = file_system.open_meta(file.inode)
    begin = next(each["start"] for each in partitions if each["partition"] == file.partition)
    block_bytes = int(file_system.info.block_size)
    extents = [
        (begin + address * block_bytes, length * block_bytes, at * block_bytes)
        for is_mapping, at, address, length in _runs(entry)
        if not is_mapping
    ]
    if extents != file.extents and image.damages:  # in what leads to the contents
        raise image.damages[0][2]
    own = [*file.reached_by, *((start, length) for start, length, _ in file.extents)]
    position = 0
    while position < file.size:
        try:
            data = bytes(entry.read_random(position, min(_READ_BYTES, file.size - position)))
        except OSError as error:
            raise ManifestError(f"{file.path}: cannot be read at byte {position}: {error}") from error
        for start, end, damage in image.damages:  # read ahead, it may be in another file
            if any(start < first + length and first < end for first, length in own):
                raise damage
        if not data:
            raise ManifestError(f"{file.path}: expected {file.size} bytes, the file ended after {position}")
        yield data
        position += len(data)


def _sleuth_kit() -> Any:
    try:
        import pytsk3
    except ImportError as error:
        raise ManifestError(
            "finding the files in a disk image needs pytsk3: pip install 'vmrestorekit[images]'"
        ) from error
    return pytsk3


def _sleuth_kit_image(tsk: Any, disk: DiskImage, fill: bool = False) -> Any:
    class Image(tsk.Img_Info):  # type: ignore[misc,name-defined,unused-ignore]
        """The disk as The Sleuth Kit wants it."""

        def __init__(self) -> None:
            super().__init__(url="", type=tsk.TSK_IMG_TYPE_EXTERNAL)
            self.error: ValueError | None = None
            self.damages: list[tuple[int, int, ValueError]] = []

        def close(self) -> None:
            """Nothing: the disk is not ours."""

        def read(self, offset: int, length: int) -> bytes:
            # an exception would not come through; after a short read The Sleuth Kit reports an error, if it
            # wants more than that: it reads ahead
            try:
                return bytes(disk.read(offset, length))
            except ValueError as error:
                self.error = error
            return self.filled(offset, length) if fill else _readable_part(disk, offset, length)

        def filled(self, offset: int, length: int) -> bytes:
            data = b""
            while len(data) < length:
                wanted, at = min(SECTOR_BYTES, length - len(data)), offset + len(data)
                try:
                    data += bytes(disk.read(at, wanted)) or bytes(wanted)
                except ValueError as error:
                    self.damages.append((at, at + wanted, error))
                    data += bytes(wanted)
            return data

        def get_size(self) -> int:
            return disk.size

    return Image()


def _readable_part(disk: DiskImage, offset: int, length: int) -> bytes:
    """Return what comes before the damage, in whole sectors."""
    data = b""
    while len(data) < length:
        try:
            data += bytes(disk.read(offset + len(data), SECTOR_BYTES))
        except ValueError:
            break
    return data[:length]


def _expect_no_damage(image: Any) -> None:
    """Raise what kept the disk from being read since the last call."""
    error, image.error = image.error, None
    if error is not None:
        raise error


def _partitions(tsk: Any, image: Any, disk: DiskImage) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    try:
        volume = tsk.Volume_Info(image)
    except OSError:  # no partition table: perhaps one file system all over the disk
        ranges = [(0, 0, disk.size)]
    else:
        sector = volume.info.block_size
        allocated = [part for part in volume if int(part.flags) == _ALLOCATED]
        ranges = [
            (number, part.start * sector, part.len * sector) for number, part in enumerate(allocated, 1)
        ]
    partitions, readable = [], {}
    for number, start, length in ranges:
        name = _foreign_file_system(disk, start)
        try:
            file_system = tsk.FS_Info(image, offset=start)
        except OSError:
            if number == 0 and name == "unknown":
                continue
        else:
            readable[number] = file_system
            name = _file_system_name(tsk, int(file_system.info.ftype))
        partitions.append({"partition": number, "start": start, "length": length, "file_system": name})
    return partitions, readable


def _foreign_file_system(disk: DiskImage, start: int) -> str:
    """Return the name of what The Sleuth Kit does not read, by the bytes that blkid(8) goes by, too."""
    return next(
        (name for name, at, magic in _MAGIC if bytes(disk.read(start + at, len(magic))) == magic), "unknown"
    )


def _file_system_name(tsk: Any, number: int) -> str:
    prefix = "TSK_FS_TYPE_"
    names = [name for name in dir(tsk) if name.startswith(prefix) and not name.endswith(("_DETECT", "_ENUM"))]
    matching = (name for name in names if int(getattr(tsk, name)) == number)
    return next(matching, "unknown").removeprefix(prefix).lower()


def _bytes_of(file_system: Any) -> int:
    return int(file_system.info.block_count) * int(file_system.info.block_size)


def _files_of(file_system: Any, disk: DiskImage, image: Any, start: int, mark: str) -> list[FoundFile]:
    def read(offset: int, length: int) -> bytes:
        return bytes(disk.read(start + offset, length))

    block_bytes = file_system.info.block_size
    inode_place = _inode_places(file_system, read)
    files: dict[int, FoundFile] = {}
    mapping: list[tuple[int, int]] = []
    is_ntfs = read(3, 4) == b"NTFS"
    for path, entry, inode in _walk(file_system, image):
        known = files.get(inode)
        if known is not None:
            if known.kind != "metadata" and mark + path not in (known.path, *known.other_paths):
                known.path, *known.other_paths = sorted([known.path, *known.other_paths, mark + path])
            continue
        kind = _KINDS.get(int(entry.info.meta.type), "other")
        if is_ntfs and path != "/" and (inode < _NTFS_FIRST_OF_USERS or path.startswith("/$Extend/")):
            kind = "metadata"  # what NTFS keeps for itself
        name = path.removeprefix("/") + mark if kind == "metadata" else mark + path
        file = files[inode] = FoundFile(name, int(entry.info.meta.size), kind, [], inode=inode)
        if inode_place is not None:
            file.reached_by = [(start + at, length) for at, length in inode_place(inode)]
        for is_mapping, position, address, length in _runs(entry):
            if is_mapping:
                mapping.append((address * block_bytes, length * block_bytes))
                file.reached_by.append((start + address * block_bytes, length * block_bytes))
            else:
                extent = (start + address * block_bytes, length * block_bytes, position * block_bytes)
                file.extents.append(extent)
    structures = ext_metadata(read)
    if structures:
        journal = file_system.info.journ_inum
        if journal:
            entry = file_system.open_meta(journal)
            runs = [(address, length) for is_mapping, _, address, length in _runs(entry) if not is_mapping]
            structures["$journal"] = [
                (address * block_bytes, length * block_bytes) for address, length in runs
            ]
        structures["$extents"] = sorted(mapping)
    return list(files.values()) + [
        _pseudo_file(name + mark, extents, start) for name, extents in structures.items() if extents
    ]


def _inode_places(
    file_system: Any, read: Callable[[int, int], bytes]
) -> Callable[[int], list[tuple[int, int]]] | None:
    """Return a function from the number of a file to where its inode or record lies; None where not known."""
    boot_sector = read(0, 512)
    if boot_sector[3:7] == b"NTFS":
        # records of the master file table, which is file 0; their size in clusters, or as a power of two
        (size,) = struct.unpack_from("<b", boot_sector, 0x40)
        record = 1 << -size if size < 0 else size * int(file_system.info.block_size)
        runs = [run[1:] for run in _runs(file_system.open_meta(0)) if not run[0]]
        return lambda inode: _in_runs(runs, inode * record, record, file_system)
    if "$inode_table" in ext_metadata(read):
        place = ext_inodes(read)
        # the virtual folder of orphans has a number beyond all inodes
        last = int(file_system.info.last_inum)
        return lambda inode: [place(inode)] if inode < last else []
    return None


def _in_runs(
    runs: list[tuple[int, int, int]], at: int, length: int, file_system: Any
) -> list[tuple[int, int]]:
    """Return where bytes of a file with these runs (position, address, length in blocks) lie."""
    block_bytes = int(file_system.info.block_size)
    for position, address, count in runs:
        if position * block_bytes <= at < (position + count) * block_bytes:
            return [(address * block_bytes + at - position * block_bytes, length)]
    return []


def _pseudo_file(name: str, extents: list[tuple[int, int]], start: int) -> FoundFile:
    placed, position = [], 0
    for offset, length in extents:
        placed.append((start + offset, length, position))
        position += length
    return FoundFile(name, position, "metadata", placed)


def _walk(file_system: Any, image: Any) -> Iterator[tuple[str, Any, int]]:
    """Give path, entry and inode of everything that has a name, a directory before what is in it."""
    root = file_system.open_meta(file_system.info.root_inum)
    yield "/", root, int(file_system.info.root_inum)
    seen = {int(file_system.info.root_inum)}
    pending = [("/", root)]
    while pending:
        path, directory = pending.pop()
        image.error = None
        try:
            entries = list(directory.as_directory())
        except OSError:
            _expect_no_damage(image)
            continue  # damaged in the file system itself: its files stay without a name
        if any(entry.info.meta is None and int(entry.info.name.flags) == _ALLOCATED for entry in entries):
            _expect_no_damage(image)
        for entry in entries:
            name, meta = entry.info.name, entry.info.meta
            if meta is None or name.name in (b".", b"..") or int(name.flags) != _ALLOCATED:
                continue
            if name.name.endswith(_VOLUME_LABEL) and path == "/":  # an entry of FAT that is no file
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
    """Give (whether it lists other blocks, position in the file, address, length), in file system blocks.

    What NTFS keeps beside the contents, such as further streams, comes after them.
    """
    attributes = sorted(entry, key=lambda attribute: bool(attribute.info.name) or not _is_contents(attribute))
    end = 0
    for attribute in attributes:
        is_mapping = int(attribute.info.type) in _ATTRIBUTES_OF_MAPPING
        start = 0 if is_mapping else end
        for run in attribute:
            if not is_mapping:
                end = max(end, start + run.offset + run.len)
            if not int(run.flags) & _FILLER_OR_SPARSE and run.len:
                yield is_mapping, start + run.offset, run.addr, run.len


def _is_contents(attribute: Any) -> bool:
    return int(attribute.info.type) in _ATTRIBUTES_OF_CONTENTS
