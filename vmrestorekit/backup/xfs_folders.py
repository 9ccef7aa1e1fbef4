"""Folders of XFS: small ones within their inode, others as a file of blocks with names."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vmrestorekit.backup.volume import DamagedError, StructureReader
from vmrestorekit.backup.xfs_inodes import INLINE, Extent, XfsInode
from vmrestorekit.backup.xfs_layout import XfsGeometry

__all__ = ["folder_names"]

_NAMES_END = 1 << 35  # from here on a folder's file holds what finds names fast
_WITH_TAIL = (b"XD2B", b"XDB3")  # the only block of a folder: hashes of the names come after them
_WITHOUT = (b"XD2D", b"XDD3")
_UNUSED = 0xFFFF


def folder_names(
    read: StructureReader, geometry: XfsGeometry, inode: XfsInode, extents: list[Extent]
) -> Iterator[tuple[bytes, int]]:
    """Give the names in a folder and the numbers of their inodes, without ``.`` and ``..``.

    Raises
    ------
    DamagedError
        Where it does not hold together; what comes before has been given.
    """
    if inode.data.form == INLINE:
        names = _names_within(inode.data.content[: inode.size], geometry.file_types)
    else:
        names = (
            each
            for block in _blocks(read, geometry, extents)
            for each in _names_of_block(block, geometry, inode.number)
        )
    for name, number in names:
        if name in (b".", b".."):
            continue
        if not name or b"/" in name or b"\0" in name:
            raise DamagedError(f"{read.volume.name}: expected a name of a file, got {name!r}")
        yield name, number


def _names_within(content: bytes, file_types: bool) -> Iterator[tuple[bytes, int]]:
    if len(content) < 6:
        raise DamagedError(f"expected a folder within an inode, got {len(content)} bytes")
    count, wide = content[0], content[1] > 0
    number_bytes = 8 if wide else 4
    at = 2 + number_bytes  # after the folder above
    for _ in range(count):
        end = at + 3 + content[at] + file_types + number_bytes if at < len(content) else at + 1
        if end > len(content):
            raise DamagedError(f"expected {count} names within {len(content)} bytes, got more")
        name = content[at + 3 : at + 3 + content[at]]
        yield name, int.from_bytes(content[end - number_bytes : end], "big")
        at = end


def _blocks(read: StructureReader, geometry: XfsGeometry, extents: list[Extent]) -> Iterator[bytes]:
    """Give the blocks that hold names; one may be put together from several of the file system."""
    block = b""
    for start, length, position in extents:
        if position >= _NAMES_END:
            return
        for offset in range(0, length, geometry.block_bytes):
            if (position + offset) % geometry.folder_bytes == 0:
                block = b""
            block += read(start + offset, geometry.block_bytes)
            if len(block) == geometry.folder_bytes:
                yield block


def _names_of_block(block: bytes, geometry: XfsGeometry, folder: int) -> Iterator[tuple[bytes, int]]:
    magic, at, end = block[:4], 64 if geometry.version5 else 16, len(block)
    if magic == _WITH_TAIL[geometry.version5]:
        end -= 8 + 8 * int.from_bytes(block[-8:-4], "big")
    elif magic != _WITHOUT[geometry.version5]:
        raise DamagedError(f"expected a block of names, got one that begins with {magic!r}")
    if geometry.version5 and int.from_bytes(block[40:48], "big") != folder:
        raise DamagedError(f"expected a block of folder {folder}, got one of another")
    while at < end:
        number, length = struct.unpack_from(">QB", block, at) if at + 9 <= end else (0, 0)
        if number >> 48 == _UNUSED:
            step = number >> 32 & 0xFFFF
        else:
            step = -(-(9 + length + geometry.file_types + 2) // 8) * 8
        if step < 8 or step % 8 or at + step > end:
            raise DamagedError(f"expected names up to byte {end}, got {step} bytes at {at}")
        if number >> 48 != _UNUSED:
            yield block[at + 9 : at + 9 + length], number
        at += step
