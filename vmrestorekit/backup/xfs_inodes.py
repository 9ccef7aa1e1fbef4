"""Inodes of XFS: what they say of a file, and where its contents lie."""

from __future__ import annotations

import dataclasses
import struct

from vmrestorekit.backup.volume import DamagedError, StructureReader, UnreadableError
from vmrestorekit.backup.xfs_layout import XfsGeometry, XfsTree, tree_blocks

__all__ = ["INLINE", "ExtentReader", "Fork", "XfsInode", "read_inode"]

Extent = tuple[
    int, int, int
]  # first byte within the file system, number of bytes, first byte within the file

INLINE, _LISTED, _TREE = 1, 2, 3  # how a fork holds its contents
_EXTENTS = XfsTree((b"BMAP", b"BMA3"), 8, 16, wide=True)
_REALTIME = 0x1
_WIDE_COUNTS = 0x10
_COPIES = 16  # extents of a file system with shared blocks come to no more times its size


@dataclasses.dataclass(frozen=True)
class Fork:
    """The part of an inode that leads to contents, or to extended attributes.

    Attributes
    ----------
    form : int
        1: the contents themselves, 2: a list of extents, 3: the root of a tree; others have no contents.
    content : bytes
    count : int
        Number of extents.
    """

    form: int
    content: bytes
    count: int


@dataclasses.dataclass(frozen=True)
class XfsInode:
    """An inode.

    Attributes
    ----------
    number, place : int
        Its number, and its first byte in the file system.
    mode, size : int
        Type and rights as of stat(2); size in bytes.
    data, attributes : Fork
    elsewhere : bool
        Whether its contents lie on a realtime device.
    """

    number: int
    place: int
    mode: int
    size: int
    data: Fork
    attributes: Fork
    elsewhere: bool


def read_inode(read: StructureReader, geometry: XfsGeometry, number: int) -> XfsInode:
    """Return an inode; `DamagedError` if there is none of this number."""
    place = geometry.inode_at(number)
    raw = read(place, geometry.inode_bytes)
    magic, mode, version, form = struct.unpack_from(">2sHBB", raw)
    core = 176 if version >= 3 else 100
    named = struct.unpack_from(">Q", raw, 152)[0] if version >= 3 else number
    if magic != b"IN" or not mode or (version >= 3) != geometry.version5 or named != number:
        raise DamagedError(f"{read.volume.name}: expected inode {number} at byte {place}, got no such one")
    size = struct.unpack_from(">Q", raw, 56)[0]
    count, attribute_count, begin, attribute_form = struct.unpack_from(">IHBB", raw, 76)
    (flags,) = struct.unpack_from(">H", raw, 90)
    if version >= 3 and struct.unpack_from(">Q", raw, 120)[0] & _WIDE_COUNTS:
        (count,) = struct.unpack_from(">Q", raw, 24)
        (attribute_count,) = struct.unpack_from(">I", raw, 76)
    end = core + 8 * begin if begin else geometry.inode_bytes
    if end > geometry.inode_bytes or size >= 1 << 63:
        raise DamagedError(f"{read.volume.name}: expected parts of inode {number} within it, got byte {end}")
    return XfsInode(
        number,
        place,
        mode,
        size,
        Fork(form, raw[core:end], count),
        Fork(attribute_form, raw[end:], attribute_count),
        bool(flags & _REALTIME),
    )


class ExtentReader:
    """Finds the extents of forks, and no more than a file system can have."""

    def __init__(self, read: StructureReader, geometry: XfsGeometry) -> None:
        self._read, self._geometry = read, geometry
        self._left = _COPIES * read.volume.size

    def extents(self, fork: Fork) -> tuple[list[Extent], list[tuple[int, int]]]:
        """Return the extents of a fork, and where the blocks lie that list them.

        What was allocated and never written is no extent: it reads as zeros.

        Raises
        ------
        DamagedError
            If they are no extents, overlap, or lie outside the file system.
        """
        if fork.form == _LISTED:
            if 16 * fork.count > len(fork.content):
                raise DamagedError(f"expected extents within {len(fork.content)} bytes, got {fork.count}")
            records = [fork.content[16 * at : 16 * at + 16] for at in range(fork.count)]
            return self._decoded(records), []
        if fork.form != _TREE:
            return [], []
        level, count = struct.unpack_from(">HH", fork.content.ljust(4, b"\0"))
        most = (len(fork.content) - 4) // 16
        if not level or count > most:
            raise DamagedError(f"expected a root with at most {most} blocks, got {count} of level {level}")
        roots = struct.unpack_from(f">{count}Q", fork.content, 4 + 8 * most)
        records, lists = [], []
        for place, some in tree_blocks(self._read, self._geometry, _EXTENTS, roots, level - 1):
            lists.append((place, self._geometry.block_bytes))
            records += some
        return self._decoded(records), lists

    def _decoded(self, records: list[bytes]) -> list[Extent]:
        block_bytes, found, end = self._geometry.block_bytes, [], 0
        for record in records:
            high, low = struct.unpack(">QQ", record)
            position, count = high >> 9 & ((1 << 54) - 1), low & ((1 << 21) - 1)
            start = self._geometry.blocks_at((high & 0x1FF) << 43 | low >> 21, count)
            if position < end or not count:
                raise DamagedError(f"expected extents in order, got {count} blocks at {position} after {end}")
            end = position + count
            if high >> 63:  # unwritten
                continue
            found.append((start, count * block_bytes, position * block_bytes))
            self._left -= count * block_bytes
        if self._left < 0:
            raise UnreadableError(
                f"{self._read.volume.name}: expected extents of at most {_COPIES} times its size, got more"
            )
        return found
