"""Logical volumes of LVM2, read from the text that every physical volume holds.

What is read: volumes of linear and striped segments that lie on this disk as a whole. Mirrors, RAID, thin
volumes, caches and snapshots are left out, and so is a volume of which a part lies on another disk.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from vmrestorekit.backup.images import SECTOR_BYTES, DiskImage
from vmrestorekit.backup.volume import DamagedError, StructureReader, Volume

__all__ = ["LABELS_OF_LVM", "LogicalVolume", "logical_volumes"]

_LABEL_SECTORS = 4  # the label is in one of the first
_KIND = b"LVM2 001"
# where it may be found, and what is there
LABELS_OF_LVM = tuple((number * SECTOR_BYTES + 24, _KIND) for number in range(_LABEL_SECTORS))
_CHECKSUM_SEED = 0xF597A6CF
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_AREA_HEADER = struct.Struct("<I16sIQQ")
_AREA_HEADER_BYTES = 512  # the text that follows goes round in the rest
_TEXT_BYTES = 16 << 20
_PIECES = 1 << 20  # of all volumes together: a stripe of a large volume is a piece
_DEPTH = 8
_TOKEN = re.compile(r'\s+|#[^\n]*|("(?:[^"\\]|\\.)*"|[{}\[\]=,]|[^\s{}\[\]=,#"]+)')


@dataclasses.dataclass(frozen=True)
class LogicalVolume:
    """A logical volume.

    Attributes
    ----------
    name : str
    partition : int
        Number of the partition that its first byte lies in.
    volume : Volume
        Its bytes.
    """

    name: str
    partition: int
    volume: Volume


def logical_volumes(disk: DiskImage, partitions: Mapping[int, Volume]) -> list[LogicalVolume]:
    """Return the logical volumes on a disk.

    Parameters
    ----------
    disk : DiskImage
    partitions : mapping of int to Volume
        Those that may be physical volumes, by their number.

    Returns
    -------
    list of LogicalVolume
        By partition and name; none of a volume group whose text is damaged.
    """
    physical: dict[str, int] = {}
    groups: dict[str, dict[str, Any]] = {}
    for number, partition in partitions.items():
        try:
            identifier, texts = _physical_volume(partition)
        except DamagedError:
            continue
        physical.setdefault(identifier, number)
        for text in texts:
            try:
                group = _volume_group(text)
            except DamagedError:
                continue
            known = groups.get(group["id"])
            if known is None or known["seqno"] < group["seqno"]:  # a disk that was away may be behind
                groups[group["id"]] = group
    found, left = [], _PIECES
    for group in groups.values():
        begins = _begins(group, physical)
        for name, description in _sections(group.get("logical_volumes")):
            try:
                pieces = list(_pieces(description, _number(group, "extent_size"), begins, left))
                places = [
                    place
                    for number, start, length in pieces
                    for place in _within(partitions[number], start, length)
                ]
            except DamagedError:  # or of a kind, or on a disk, that is not read
                continue
            left -= len(places)
            volume = Volume(disk, places, f"{disk.name}, logical volume {name}")
            found.append(LogicalVolume(name, pieces[0][0], volume))
    return sorted(found, key=lambda each: (each.partition, each.name))


def _physical_volume(partition: Volume) -> tuple[str, list[str]]:
    """Return the identifier of a physical volume, and the texts about its group, of each area one."""
    read = StructureReader(partition)
    for number in range(_LABEL_SECTORS):
        sector = read(number * SECTOR_BYTES, SECTOR_BYTES)
        magic, at, checksum, header, kind = struct.unpack_from("<8sQII8s", sector)
        if magic == b"LABELONE" and kind == _KIND and at == number:
            break
    else:
        raise DamagedError(f"{partition.name}: expected the label of a physical volume, found none")
    if checksum != _checksum(sector[20:]) or not 32 <= header <= SECTOR_BYTES - 40:
        raise DamagedError(f"{partition.name}: expected a label that fits its checksum, got another")
    places = list(_locations(sector, header + 40))
    areas = list(_locations(sector, header + 40 + 16 * (len(places) + 1)))
    texts = []
    for offset, length in areas:
        try:
            texts.append(_text(read, offset, length))
        except DamagedError:
            continue  # the other one may be in order
    return sector[header : header + 32].decode("ascii", "replace"), texts


def _locations(sector: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Give the pairs (offset, number of bytes) of a list that ends with zeros."""
    while at + 16 <= len(sector):
        offset, length = struct.unpack_from("<QQ", sector, at)
        if not offset:
            return
        yield offset, length
        at += 16


def _text(read: StructureReader, area: int, area_bytes: int) -> str:
    """Return the text that holds now out of a metadata area: it keeps older ones, too."""
    header = read(area, _AREA_HEADER_BYTES)
    checksum, magic, version, _, _ = _AREA_HEADER.unpack_from(header)
    offset, length, text_checksum = struct.unpack_from("<QQI", header, _AREA_HEADER.size)
    room = area_bytes - _AREA_HEADER_BYTES
    sound = magic == _AREA_MAGIC and version == 1 and checksum == _checksum(header[4:])
    if not (sound and _AREA_HEADER_BYTES <= offset < area_bytes and 0 < length <= min(room, _TEXT_BYTES)):
        raise DamagedError(
            f"{read.volume.name}: expected a metadata area of LVM2 at byte {area}, got another"
        )
    first = min(length, area_bytes - offset)
    text = read(area + offset, first) + read(area + _AREA_HEADER_BYTES, length - first)
    if _checksum(text) != text_checksum:
        raise DamagedError(f"{read.volume.name}: expected metadata that fits its checksum, got another")
    return text.rstrip(b"\0").decode("utf-8", "replace")


def _checksum(data: bytes) -> int:
    """Return LVM's CRC-32: the usual polynomial, another start, nothing inverted."""
    return zlib.crc32(data, _CHECKSUM_SEED ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _volume_group(text: str) -> dict[str, Any]:
    """Return the section of the group out of a text, with everything in it that is used checked."""
    tokens = (match[1] for match in _TOKEN.finditer(text) if match[1])
    for _, group in _sections(_section(tokens, _DEPTH)):
        if isinstance(group.get("id"), str) and {"seqno", "extent_size"} <= group.keys():
            _number(group, "seqno")
            return group
    raise DamagedError("expected the description of a volume group, found none")


def _section(tokens: Iterator[str], depth: int) -> dict[str, Any]:
    """Return what stands up to the closing brace: ``name { … }`` and ``name = value``."""
    if not depth:
        raise DamagedError(f"expected at most {_DEPTH} sections in one another, got more")
    found: dict[str, Any] = {}
    for name in tokens:
        if name == "}":
            break
        sign = next(tokens, "")
        if sign == "{":
            found[name] = _section(tokens, depth - 1)
        elif sign == "=":
            found[name] = _value(tokens)
        else:
            raise DamagedError(f"expected a section or a value after {name!r}, got {sign!r}")
    return found


def _value(tokens: Iterator[str]) -> str | int | list[str | int]:
    token = next(tokens, "")
    if token == "[":
        return [_plain(each) for each in iter(lambda: next(tokens, "]"), "]") if each != ","]
    return _plain(token)


def _plain(token: str) -> str | int:
    if token.startswith('"'):
        return token[1:-1]
    return int(token) if token.isdecimal() and len(token) < 20 else token


def _sections(section: object) -> list[tuple[str, dict[str, Any]]]:
    items = section.items() if isinstance(section, dict) else ()
    return [(name, each) for name, each in items if isinstance(each, dict)]


def _number(section: Mapping[str, Any], key: str) -> int:
    value = section.get(key)
    if not isinstance(value, int):
        raise DamagedError(f"expected a number as {key!r}, got {value!r}")
    return value


def _begins(group: dict[str, Any], physical: dict[str, int]) -> dict[object, tuple[int, int]]:
    """Return by the name of a physical volume on this disk: its partition, where its first extent begins."""
    found: dict[object, tuple[int, int]] = {}
    for name, described in _sections(group.get("physical_volumes")):
        number = physical.get(str(described.get("id")).replace("-", ""))
        if number is not None and isinstance(described.get("pe_start"), int):
            found[name] = number, described["pe_start"] * SECTOR_BYTES
    return found


def _pieces(
    description: dict[str, Any], extent_sectors: int, begins: dict[object, tuple[int, int]], most: int
) -> Iterator[tuple[int, int, int]]:
    """Give partition, first byte in it, and number of bytes of each piece of a logical volume."""
    if "VISIBLE" not in (description.get("status") or ()):
        raise DamagedError("expected a volume to be seen, got a part of another one")
    extent = extent_sectors * SECTOR_BYTES
    segments = [each for name, each in _sections(description) if name.startswith("segment")]
    end = count = 0
    for segment in sorted(segments, key=lambda each: _number(each, "start_extent")):
        if segment.get("type") != "striped" or _number(segment, "start_extent") != end:
            raise DamagedError(f"expected linear or striped segments, got {segment.get('type')!r}")
        end += _number(segment, "extent_count")
        stripes = segment.get("stripes")
        if not isinstance(stripes, list) or not stripes or len(stripes) % 2:
            raise DamagedError(f"expected stripes as pairs, got {stripes!r}")
        starts = [
            _start(name, at, extent, begins) for name, at in zip(stripes[::2], stripes[1::2], strict=True)
        ]
        stripe = (
            _number(segment, "stripe_size") * SECTOR_BYTES
            if len(starts) > 1
            else _number(segment, "extent_count") * extent
        )
        rows, rest = divmod(_number(segment, "extent_count") * extent, max(stripe, 1) * len(starts))
        count += rows * len(starts)
        if rest or not rows or count > most:
            raise DamagedError(f"expected whole stripes, at most {most}, got {rows} and {rest} bytes")
        for row in range(rows):
            for number, start in starts:
                yield number, start + row * stripe, stripe
    if not count:
        raise DamagedError("expected a volume with segments, got none")


def _start(name: object, at: object, extent: int, begins: dict[object, tuple[int, int]]) -> tuple[int, int]:
    """Return the partition that a stripe lies in, and its first byte there."""
    begin = begins.get(name)
    if begin is None or not isinstance(at, int):
        raise DamagedError(f"expected a physical volume on this disk, got {name!r}")
    return begin[0], begin[1] + at * extent


def _within(partition: Volume, start: int, length: int) -> list[tuple[int, int]]:
    if start + length > partition.size:
        raise DamagedError(f"{partition.name}: expected {start + length} bytes, got {partition.size}")
    return list(partition.places(start, length))
