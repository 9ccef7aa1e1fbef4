"""Which file systems of a disk a system mounts where, by its /etc/fstab."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping

from vmrestorekit.backup.files import FoundFile
from vmrestorekit.backup.images import DiskImage

__all__ = ["find_mounts"]

# where a superblock begins in the block that holds it, what stands where in it, and where the identifier is
_SUPERBLOCKS = (
    (1024, 0x38, b"\x53\xef", 0x68),  # ext in blocks of 2 KiB and more
    (0, 0x38, b"\x53\xef", 0x68),
    (0, 0, b"XFSB", 0x20),
    (0, 0x40, b"_BHRfS_M", 0x20),
)
_SUPERBLOCK_BYTES = 2048
_NUMBERED = re.compile(r"/dev/(?:[a-z]+|nvme\d+n\d+p|mmcblk\d+p)(\d+)")
_LOGICAL_VOLUME = re.compile(r"/dev/(?:mapper/(?:[^-/]|--)+-|(?!mapper/)[^/]+/)([^/]+)")


def find_mounts(
    disk: DiskImage, fstab: bytes, roots: Mapping[str, FoundFile], superblocks: Mapping[str, FoundFile]
) -> dict[str, str]:
    """Return the mark of the file system that is mounted on each folder, outer folders first.

    Parameters
    ----------
    disk : DiskImage
    fstab : bytes
        Contents of /etc/fstab. Understood are lines that begin with ``UUID=``, a numbered device or a logical
        volume.
    roots, superblocks : mapping of str to FoundFile
        Topmost folder, and ``$superblock`` where there is one, of each file system by its mark.
    """
    mark_of = {
        name: mark for mark, root in roots.items() for name in _names(disk, root, superblocks.get(mark))
    }
    mounts = {}
    for line in fstab.decode("utf-8", "replace").splitlines():
        fields = line.split("#")[0].split()
        if len(fields) < 2 or not fields[1].startswith("/"):
            continue
        mark = mark_of.get(_device(fields[0]))
        folder = fields[1].rstrip("/")
        if mark is not None and folder:
            mounts[folder] = mark
    return dict(sorted(mounts.items(), key=lambda mount: mount[0].count("/")))


def _device(field: str) -> str:
    """Return what a line calls a device in the words of `_names`."""
    name, sign, value = field.partition("=")
    if sign:
        return f"{name} {value.strip(chr(34)).lower()}"
    if numbered := _NUMBERED.fullmatch(field):
        return f"partition {numbered[1]}"
    volume = _LOGICAL_VOLUME.fullmatch(field)
    return f"volume {volume[1].replace('--', '-')}" if volume else ""


def _names(disk: DiskImage, root: FoundFile, superblock: FoundFile | None) -> Iterator[str]:
    volume = root.logical_volume
    yield f"volume {volume}" if volume else f"partition {root.partition}"
    if superblock is not None and superblock.extents:
        data = bytes(disk.read(superblock.extents[0][0], _SUPERBLOCK_BYTES))
        for start, at, magic, identifier in _SUPERBLOCKS:
            found = data[start + identifier : start + identifier + 16]
            if data[start + at :].startswith(magic) and len(found) == 16:
                yield f"UUID {uuid.UUID(bytes=found)}"
                return
