"""Partitions, and ext, NTFS, FAT and more file systems as The Sleuth Kit reads them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from vmrestorekit.backup.ext import ext_inodes, ext_metadata
from vmrestorekit.backup.file_systems import FoundFile, pseudo_file
from vmrestorekit.backup.images import SECTOR_BYTES, DiskImage
from vmrestorekit.backup.volume import Volume
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["Damages", "open_sleuth_kit", "partition_ranges"]

# numbers of The Sleuth Kit's interface
_ALLOCATED = 1
_REGULAR, _DIRECTORY, _SYMLINK, _VIRTUAL, _VIRTUAL_DIRECTORY = 1, 2, 6, 10, 11
_KINDS = {_REGULAR: "regular", _DIRECTORY: "directory", _SYMLINK: "symlink", _VIRTUAL: "metadata"}
_FILLER_OR_SPARSE = 3
_VOLUME_LABEL = b" (Volume Label Entry)"
_NTFS_FIRST_OF_USERS = 24
_READ_BYTES = 1 << 20
_TARGET_BYTES = 4096  # Linux follows no longer one
_ATTRIBUTES_OF_CONTENTS = (0x1, 0x80)
_ATTRIBUTES_OF_MAPPING = (0x1001, 0x1002)  # blocks that list an ext file's blocks

# first byte on the disk and end of what could not be read, and why
Damages = list[tuple[int, int, ValueError]]


def partition_ranges(disk: DiskImage, damages: Damages | None = None) -> list[tuple[int, int, int]]:
    """Return number, first byte and number of bytes of each partition; number 0 if there is no table.

    Raises
    ------
    ManifestError
        If pytsk3 is not installed.
    """
    tsk = _sleuth_kit()
    try:
        volume = tsk.Volume_Info(_sleuth_kit_image(tsk, Volume(disk, [(0, disk.size)]), damages))
    except OSError:  # perhaps one file system all over the disk
        return [(0, 0, disk.size)]
    sector = volume.info.block_size
    allocated = [part for part in volume if int(part.flags) == _ALLOCATED]
    return [(number, part.start * sector, part.len * sector) for number, part in enumerate(allocated, 1)]


def open_sleuth_kit(volume: Volume, damages: Damages | None = None) -> SleuthKitFileSystem | None:
    """Return the file system on a volume; None if The Sleuth Kit knows none there.

    Parameters
    ----------
    volume : Volume
    damages : list, optional
        If given, what cannot be read is filled with zeros and noted there. After a short read The Sleuth Kit
        may give anything.
    """
    tsk = _sleuth_kit()
    image = _sleuth_kit_image(tsk, volume, damages)
    try:
        return SleuthKitFileSystem(tsk, image, volume, tsk.FS_Info(image))
    except OSError:
        return None


class SleuthKitFileSystem:
    """A file system that The Sleuth Kit reads."""

    def __init__(self, tsk: Any, image: Any, volume: Volume, file_system: Any) -> None:
        self.volume, self._image, self._file_system = volume, image, file_system
        self._block_bytes = int(file_system.info.block_size)
        self.name = _file_system_name(tsk, int(file_system.info.ftype))
        self.size = int(file_system.info.block_count) * self._block_bytes

    def files(self) -> list[FoundFile]:
        """Return all that has a name, and the structures; places are bytes of the volume."""
        inode_place = _inode_places(self._file_system, self._bytes)
        files: dict[int, FoundFile] = {}
        mapping: list[tuple[int, int]] = []
        is_ntfs = self._bytes(3, 4) == b"NTFS"
        for path, entry, inode in _walk(self._file_system, self._image):
            known = files.get(inode)
            if known is not None:
                if known.kind != "metadata" and path not in (known.path, *known.other_paths):
                    known.path, *known.other_paths = sorted([known.path, *known.other_paths, path])
                continue
            kind = _KINDS.get(int(entry.info.meta.type), "other")
            if is_ntfs and path != "/" and (inode < _NTFS_FIRST_OF_USERS or path.startswith("/$Extend/")):
                kind = "metadata"  # what NTFS keeps for itself
            name = path.removeprefix("/") if kind == "metadata" else path
            file = files[inode] = FoundFile(name, int(entry.info.meta.size), kind, [], inode=inode)
            if kind == "symlink":
                file.target = _target(entry)
            if inode_place is not None:
                file.reached_by = inode_place(inode)
            lists, file.extents = self._places(entry)
            mapping += lists
            file.reached_by += lists
        return list(files.values()) + self._structures(mapping)

    def _structures(self, mapping: list[tuple[int, int]]) -> list[FoundFile]:
        structures = ext_metadata(self._bytes)
        if structures:
            journal = self._file_system.info.journ_inum
            if journal:
                _, extents = self._places(self._file_system.open_meta(journal))
                structures["$journal"] = [(start, length) for start, length, _ in extents]
            structures["$extents"] = sorted(mapping)
        return [pseudo_file(name, extents) for name, extents in structures.items() if extents]

    def _bytes(self, offset: int, length: int) -> bytes:
        return bytes(self.volume.read(offset, length))

    def _places(self, entry: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]]]:
        """Return where the blocks lie that list a file's blocks, and where its extents do."""
        block_bytes, lists, extents = self._block_bytes, [], []
        for is_mapping, position, address, length in _runs(entry):
            if is_mapping:
                lists.append((address * block_bytes, length * block_bytes))
            else:
                extents.append((address * block_bytes, length * block_bytes, position * block_bytes))
        return lists, extents

    def read(self, file: FoundFile) -> Iterator[bytes]:
        """Give the contents of a regular file, whose places are bytes of the disk, piece by piece."""
        damages: Damages = self._image.damages
        entry = self._file_system.open_meta(file.inode)
        if damages and self.volume.on_disk(self._places(entry)[1]) != file.extents:
            raise damages[0][2]  # in what leads to the contents
        own = [*file.reached_by, *((start, length) for start, length, _ in file.extents)]
        position = 0
        while position < file.size:
            try:
                data = bytes(entry.read_random(position, min(_READ_BYTES, file.size - position)))
            except OSError as error:
                raise ManifestError(f"{file.path}: cannot be read at byte {position}: {error}") from error
            for start, end, damage in damages:  # read ahead, it may be in another file
                if any(start < first + length and first < end for first, length in own):
                    raise damage
            if not data:
                raise ManifestError(
                    f"{file.path}: expected {file.size} bytes, the file ended after {position}"
                )
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


def _sleuth_kit_image(tsk: Any, volume: Volume, damages: Damages | None) -> Any:
    class Image(tsk.Img_Info):  # type: ignore[misc,name-defined,unused-ignore]
        """The volume as The Sleuth Kit wants it."""

        def __init__(self) -> None:
            super().__init__(url="", type=tsk.TSK_IMG_TYPE_EXTERNAL)
            self.error: ValueError | None = None
            self.damages: Damages = [] if damages is None else damages

        def close(self) -> None:
            """Nothing: the disk is not ours."""

        def read(self, offset: int, length: int) -> bytes:
            # an exception would not come through; after a short read The Sleuth Kit reports an error, if it
            # wants more than that: it reads ahead
            try:
                return bytes(volume.read(offset, length))
            except ValueError as error:
                self.error = error
            if damages is None:
                return _readable_part(volume, offset, length)
            return self.filled(offset, length)

        def filled(self, offset: int, length: int) -> bytes:
            data = b""
            while len(data) < length:
                wanted, at = min(SECTOR_BYTES, length - len(data)), offset + len(data)
                try:
                    data += bytes(volume.read(at, wanted)) or bytes(wanted)
                except ValueError as error:
                    self.damages += [
                        (start, start + count, error) for start, count in volume.places(at, wanted)
                    ]
                    data += bytes(wanted)
            return data

        def get_size(self) -> int:
            return volume.size

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


def _file_system_name(tsk: Any, number: int) -> str:
    prefix = "TSK_FS_TYPE_"
    names = [name for name in dir(tsk) if name.startswith(prefix) and not name.endswith(("_DETECT", "_ENUM"))]
    matching = (name for name in names if int(getattr(tsk, name)) == number)
    return next(matching, "unknown").removeprefix(prefix).lower()


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


def _target(entry: Any) -> str:
    """Return what a symbolic link points to; empty if that is damaged."""
    target = entry.info.meta.link  # of long ones none
    if not target and 0 < entry.info.meta.size <= _TARGET_BYTES:
        try:
            target = entry.read_random(0, int(entry.info.meta.size))
        except OSError:
            target = None
    return bytes(target or b"").decode("utf-8", "backslashreplace")


def _is_contents(attribute: Any) -> bool:
    return int(attribute.info.type) in _ATTRIBUTES_OF_CONTENTS
