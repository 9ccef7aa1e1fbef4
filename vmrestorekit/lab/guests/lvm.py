"""The first megabyte of an LVM physical volume, written without the kernel's device mapper.

As of ``lib/format_text/layout.h`` and ``lib/label/label.h`` of LVM2: a label in the second sector points to a
ring buffer of text, which starts at 4096 and has one copy of the metadata.
"""

from __future__ import annotations

import itertools
import struct
import uuid
import zlib

from vmrestorekit.lab.guests.placement import EXTENT_BYTES, PlacedGroup

__all__ = ["volume_group_header"]

_SECTOR = 512
_DATA_START = 1 << 20
_RING_START = 4096
_RING_BYTES = _DATA_START - _RING_START
_INITIAL_CRC = 0xF597A6CF
_RING_MAGIC = b" LVM2 x[5A%r0N*>"


def volume_group_header(group: PlacedGroup, identity: uuid.UUID) -> bytes:
    """Return the first MiB of the group's one physical volume.

    Parameters
    ----------
    group : PlacedGroup
    identity : UUID
        From which the UUIDs of the group and its parts are derived.
    """
    text = _metadata(group, identity).encode() + b"\0"
    # the header of the ring, then the text from its second sector on
    location = struct.pack("<QQII", _SECTOR, len(text), _crc(text), 0)
    ring = _RING_MAGIC + struct.pack("<IQQ", 1, _RING_START, _RING_BYTES) + location
    ring = ring.ljust(_SECTOR - 4, b"\0")
    ring = struct.pack("<I", _crc(ring)) + ring

    physical = _identifier(identity, "pv").replace("-", "").encode()
    # areas of data and of metadata, each list with a terminator
    areas = struct.pack("<QQQQ", _DATA_START, 0, 0, 0) + struct.pack("<QQQQ", _RING_START, _RING_BYTES, 0, 0)
    # the extension of the header: version 2, in use by a group, no areas for a boot loader
    extension = struct.pack("<IIQQ", 2, 1, 0, 0)
    body = physical + struct.pack("<Q", group.length_bytes) + areas + extension
    label = struct.pack("<I8s", 32, b"LVM2 001") + body
    label = label.ljust(_SECTOR - 20, b"\0")
    label = struct.pack("<8sQI", b"LABELONE", 1, _crc(label)) + label

    header = bytearray(_DATA_START)
    header[_SECTOR : 2 * _SECTOR] = label
    header[_RING_START : _RING_START + _SECTOR] = ring
    header[_RING_START + _SECTOR : _RING_START + _SECTOR + len(text)] = text
    return bytes(header)


def _metadata(group: PlacedGroup, identity: uuid.UUID) -> str:
    extents = (group.length_bytes - _DATA_START) // EXTENT_BYTES
    volumes = "".join(
        f"""{name} {{
id = "{_identifier(identity, name)}"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
creation_time = 0
creation_host = "builder"
segment_count = 1
segment1 {{
start_extent = 0
extent_count = {count}
type = "striped"
stripe_count = 1
stripes = [
"pv0", {first}
]
}}
}}
"""
        for name, first, count in group.volumes
    )
    return f"""{group.name} {{
id = "{_identifier(identity, "vg")}"
seqno = 1
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = {EXTENT_BYTES // _SECTOR}
max_lv = 0
max_pv = 0
metadata_copies = 0
physical_volumes {{
pv0 {{
id = "{_identifier(identity, "pv")}"
device = "{group.device}"
status = ["ALLOCATABLE"]
flags = []
dev_size = {group.length_bytes // _SECTOR}
pe_start = {_DATA_START // _SECTOR}
pe_count = {extents}
}}
}}
logical_volumes {{
{volumes}}}
}}
contents = "Text Format Volume Group"
version = 1
description = ""
creation_host = "builder"
creation_time = 0
"""


def _identifier(identity: uuid.UUID, part: str) -> str:
    """Return 32 letters in the groups that LVM prints."""
    letters = uuid.uuid5(identity, part).hex
    at = [0, 6, 10, 14, 18, 22, 26, 32]
    return "-".join(letters[begin:end] for begin, end in itertools.pairwise(at))


def _crc(data: bytes) -> int:
    """Return CRC-32 without the usual inversions, begun at LVM's own value."""
    return zlib.crc32(data, _INITIAL_CRC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
