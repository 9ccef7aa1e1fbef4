"""Which file systems of a machine's disks its system mounts where, by its /etc/fstab."""

from __future__ import annotations

import re
import string
import uuid
from collections.abc import Iterator, Mapping, Sequence

from vmrestorekit.backup.files import FoundFile
from vmrestorekit.backup.images import DiskImage

__all__ = ["Mark", "find_mounts"]

Mark = tuple[int, str]  # number of the disk, and what paths of the file system start with there

# where a superblock begins in the block that holds it, what stands where in it, and where the identifier is
_SUPERBLOCKS = (
    (1024, 0x38, b"\x53\xef", 0x68),  # ext in blocks of 2 KiB and more
    (0, 0x38, b"\x53\xef", 0x68),
    (0, 0, b"XFSB", 0x20),
    (0, 0x40, b"_BHRfS_M", 0x20),
)
_SUPERBLOCK_BYTES = 2048
# the letter tells the disk, the number the partition; without a number the whole disk is meant
_LETTERED = re.compile(r"/dev/(?:[shv]d|xvd)([a-z])(\d*)")
_NUMBERED = re.compile(r"/dev/(?:nvme(\d+)n\d+|mmcblk(\d+))(?:p(\d+))?")
_LOGICAL_VOLUME = re.compile(r"/dev/(?:mapper/(?:[^-/]|--)+-|(?!mapper/)[^/]+/)([^/]+)")


def find_mounts(
    disks: Sequence[DiskImage],
    fstab: bytes,
    roots: Mapping[Mark, FoundFile],
    superblocks: Mapping[Mark, FoundFile],
) -> dict[str, Mark]:
    """Return the file system that is mounted on each folder, outer folders first.

    Parameters
    ----------
    disks : sequence of DiskImage
        All disks of the machine, in the order of their letters; a single one may be any of them.
    fstab : bytes
        Contents of /etc/fstab. Understood are lines that begin with ``UUID=``, a device or a logical volume.
    roots, superblocks : mapping of Mark to FoundFile
        Topmost folder, and ``$superblock`` where there is one, of each file system.
    """
    mark_of = {
        name: mark
        for mark, root in roots.items()
        for name in _names(disks[root.disk], root, superblocks.get(mark))
    }
    mounts = {}
    for line in fstab.decode("utf-8", "replace").splitlines():
        fields = line.split("#")[0].split()
        if len(fields) < 2 or not fields[1].startswith("/"):
            continue
        mark = mark_of.get(_device(fields[0], only=len(disks) == 1))
        folder = fields[1].rstrip("/")
        if mark is not None and folder:
            mounts[folder] = mark
    return dict(sorted(mounts.items(), key=lambda mount: mount[0].count("/")))


def _device(field: str, *, only: bool) -> str:
    """Return what a line calls a device in the words of `_names`."""
    name, sign, value = field.partition("=")
    if sign:
        return f"{name} {value.strip(chr(34)).lower()}"
    if lettered := _LETTERED.fullmatch(field):
        disk, partition = string.ascii_lowercase.index(lettered[1]), lettered[2]
    elif numbered := _NUMBERED.fullmatch(field):
        disk, partition = int(numbered[1] or numbered[2]), numbered[3]
    else:
        volume = _LOGICAL_VOLUME.fullmatch(field)
        return f"volume {volume[1].replace('--', '-')}" if volume else ""
    return f"disk {0 if only else disk} partition {partition or 0}"


def _names(disk: DiskImage, root: FoundFile, superblock: FoundFile | None) -> Iterator[str]:
    volume = root.logical_volume
    yield f"volume {volume}" if volume else f"disk {root.disk} partition {root.partition}"
    if superblock is not None and superblock.extents:
        data = bytes(disk.read(superblock.extents[0][0], _SUPERBLOCK_BYTES))
        for start, at, magic, identifier in _SUPERBLOCKS:
            found = data[start + identifier : start + identifier + 16]
            if data[start + at :].startswith(magic) and len(found) == 16:
                yield f"UUID {uuid.UUID(bytes=found)}"
                return
