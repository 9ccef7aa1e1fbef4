"""Where the volumes of a guest lie on its disks: partitions, logical volumes, and their device names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vmrestorekit.lab.guests.spec import GuestSpec, SpecError, Volume

__all__ = [
    "EXTENT_BYTES",
    "PARTITION_START",
    "PlacedGroup",
    "PlacedVolume",
    "partitions",
    "place_groups",
    "place_volumes",
]

PARTITION_START = 1 << 20  # room for the boot loader in front of the first partition
EXTENT_BYTES = 4 << 20  # of LVM; its first one begins 1 MiB behind the start of the partition
_GROUP_HEADER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class PlacedVolume:
    """A volume and where it lies.

    Attributes
    ----------
    volume : Volume
    start_bytes, length_bytes : int
        On its disk.
    device : str
        What the guest calls it, such as ``"/dev/vda1"``.
    """

    volume: Volume
    start_bytes: int
    length_bytes: int
    device: str


@dataclasses.dataclass(frozen=True)
class PlacedGroup:
    """An LVM volume group on a disk.

    Attributes
    ----------
    name : str
    disk : int
    start_bytes, length_bytes : int
        Of its partition, or of the whole disk.
    device : str
    volumes : tuple of (str, int, int)
        Name, first extent and number of extents of each logical volume.
    """

    name: str
    disk: int
    start_bytes: int
    length_bytes: int
    device: str
    volumes: tuple[tuple[str, int, int], ...]


@dataclasses.dataclass(frozen=True)
class _Part:
    """A partition, or a whole disk, with one volume or a group of them."""

    volumes: tuple[Volume, ...]
    group: str
    start_bytes: int
    length_bytes: int
    device: str


def place_volumes(spec: GuestSpec) -> tuple[PlacedVolume, ...]:
    """Return where each volume lies, in the order of the description.

    Raises
    ------
    SpecError
        If they do not fit, or two of them want the rest of the same place.
    """
    placed = {}
    for disk in range(len(spec.disk_bytes)):
        for part in _parts(spec, disk):
            if not part.group:
                (volume,) = part.volumes
                placed[volume] = PlacedVolume(volume, part.start_bytes, part.length_bytes, part.device)
                continue
            first = part.start_bytes + _GROUP_HEADER_BYTES
            for volume, (name, begin, count) in zip(part.volumes, _logical(spec, part), strict=True):
                start, device = first + begin * EXTENT_BYTES, f"/dev/mapper/{part.group}-{name}"
                placed[volume] = PlacedVolume(volume, start, count * EXTENT_BYTES, device)
    return tuple(placed[volume] for volume in spec.volumes)


def place_groups(spec: GuestSpec) -> tuple[PlacedGroup, ...]:
    """Return the volume groups, each on one disk; errors as of `place_volumes`."""
    return tuple(
        PlacedGroup(
            part.group, disk, part.start_bytes, part.length_bytes, part.device, tuple(_logical(spec, part))
        )
        for disk in range(len(spec.disk_bytes))
        for part in _parts(spec, disk)
        if part.group
    )


def partitions(spec: GuestSpec, disk: int) -> list[tuple[int, int, str]]:
    """Return start and length in bytes, and what it is for, of each partition; none of a disk used whole."""
    return [
        (part.start_bytes, part.length_bytes, "lvm" if part.group else part.volumes[0].file_system)
        for part in _parts(spec, disk)
        if part.start_bytes
    ]


def _parts(spec: GuestSpec, disk: int) -> list[_Part]:
    here: dict[str, list[Volume]] = {}
    for volume in spec.volumes:
        if volume.disk == disk:
            here.setdefault(volume.group or f" {volume.mount}", []).append(volume)
    size, letter = spec.disk_bytes[disk], "abcdefgh"[disk]
    if disk and len(here) == 1:  # no partition table
        ((key, volumes),) = here.items()
        return [_Part(tuple(volumes), key if key[0] != " " else "", 0, size, f"/dev/vd{letter}")]
    wanted = [_part_bytes(volumes) for volumes in here.values()]
    sizes = _shared_out(wanted, size - PARTITION_START, f"{spec.name}: disk {disk}")
    parts, start = [], PARTITION_START
    for number, ((key, volumes), length) in enumerate(zip(here.items(), sizes, strict=True), 1):
        group = key if key[0] != " " else ""
        parts.append(_Part(tuple(volumes), group, start, length, f"/dev/vd{letter}{number}"))
        start += length
    return parts


def _part_bytes(volumes: Sequence[Volume]) -> int:
    """Return the size of a partition, 0 for the rest."""
    if any(volume.size_bytes == 0 for volume in volumes):
        return 0
    if not volumes[0].group:
        return volumes[0].size_bytes
    extents = sum(-(-volume.size_bytes // EXTENT_BYTES) for volume in volumes)
    return _GROUP_HEADER_BYTES + extents * EXTENT_BYTES


def _logical(spec: GuestSpec, part: _Part) -> list[tuple[str, int, int]]:
    extents = (part.length_bytes - _GROUP_HEADER_BYTES) // EXTENT_BYTES
    wanted = [-(-volume.size_bytes // EXTENT_BYTES) for volume in part.volumes]
    counts = _shared_out(wanted, extents, f"{spec.name}: volume group {part.group}")
    logical, begin = [], 0
    for volume, count in zip(part.volumes, counts, strict=True):
        # device mapper doubles a hyphen within a name
        name = volume.mount.strip("/").replace("/", "_").replace("-", "_") or "root"
        logical.append((name, begin, count))
        begin += count
    return logical


def _shared_out(wanted: Sequence[int], there: int, where: str) -> list[int]:
    rest = there - sum(wanted)
    if list(wanted).count(0) > 1 or rest < 0 or (rest == 0 and 0 in wanted):
        raise SpecError(f"{where}: expected volumes that fit, one of them without a size, got {wanted}")
    return [each or rest for each in wanted]
