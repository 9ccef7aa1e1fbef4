"""Where XFS keeps its own structures: the headers of the allocation groups and the trees that begin there."""

from __future__ import annotations

import struct

from vmrestorekit.backup.volume import DamagedError, StructureReader
from vmrestorekit.backup.xfs_layout import XfsGeometry, XfsTree, tree_blocks

__all__ = ["xfs_structures"]

Extents = list[tuple[int, int]]  # first byte within the file system, number of bytes

_FREE_BY_BLOCK = XfsTree((b"ABTB", b"AB3B"), 8, 8)
_FREE_BY_SIZE = XfsTree((b"ABTC", b"AB3C"), 8, 8)
_OWNERS = XfsTree((b"RMB3", b"RMB3"), 40, 24)
_SHARED = XfsTree((b"R3FC", b"R3FC"), 4, 12)
_INODES = XfsTree((b"IABT", b"IAB3"), 4, 16)
_FREE_INODES = XfsTree((b"FIBT", b"FIB3"), 4, 16)
# in the headers for free space and for inodes: where number and levels of a tree's root stand
_TREES_OF_SPACE = (
    (_FREE_BY_BLOCK, 16, 28),
    (_FREE_BY_SIZE, 20, 32),
    (_OWNERS, 24, 36),
    (_SHARED, 88, 92),
)
_TREES_OF_INODES = ((_INODES, 20, 24), (_FREE_INODES, 328, 332))
_INODES_OF_CHUNK = 64
_INODES_OF_HOLE = 4
_LIST_HEADER_BYTES = 36


def xfs_structures(read: StructureReader, geometry: XfsGeometry) -> dict[str, Extents]:
    """Return the extents of each kind of structure, group by group.

    Returns
    -------
    dict of str to list of (int, int)
        ``$superblock`` (first that of group 0), ``$free_space`` (its headers and trees, those of the blocks'
        owners and of shared blocks, and the blocks kept for the trees), ``$inode_index`` (header and trees),
        ``$inode_table``, ``$journal``; what is damaged is left out.
    """
    found: dict[str, Extents] = {
        name: [] for name in ("$superblock", "$free_space", "$inode_index", "$inode_table", "$journal")
    }
    for group in range(geometry.groups):
        sector = geometry.sector_bytes
        begin = geometry.group_blocks_at(group, 0)
        found["$superblock"].append((begin, sector))
        found["$free_space"] += [(begin + sector, sector), (begin + 3 * sector, sector)]
        found["$inode_index"].append((begin + 2 * sector, sector))
        space, inodes = read(begin + sector, sector), read(begin + 2 * sector, sector)
        if space[:4] == b"XAGF":
            for tree, root, levels in _TREES_OF_SPACE:
                places, _ = _tree(read, geometry, group, tree, space, root, levels)
                found["$free_space"] += places
            kept = read(begin + 3 * sector, sector)
            found["$free_space"] += _kept_blocks(space, kept, geometry, group)
        if inodes[:4] == b"XAGI":
            for tree, root, levels in _TREES_OF_INODES:
                places, records = _tree(read, geometry, group, tree, inodes, root, levels)
                found["$inode_index"] += places
                if tree is _INODES:
                    found["$inode_table"] += _chunks(records, geometry, group)
    start, blocks = geometry.log
    if blocks and (start & ((1 << geometry.block_bits) - 1)) + blocks <= geometry.group_blocks:
        found["$journal"].append((geometry.blocks_at(start, blocks), blocks * geometry.block_bytes))
    return found


def _tree(
    read: StructureReader,
    geometry: XfsGeometry,
    group: int,
    tree: XfsTree,
    header: bytes,
    root: int,
    levels: int,
) -> tuple[Extents, list[bytes]]:
    """Return where the blocks of a tree lie, and its records, up to what is damaged."""
    (number,), (height,) = struct.unpack_from(">I", header, root), struct.unpack_from(">I", header, levels)
    places: Extents = []
    records: list[bytes] = []
    if not number or not height:  # a feature that this file system does not have
        return places, records
    try:
        for place, some in tree_blocks(read, geometry, tree, [number], height - 1, group):
            places.append((place, geometry.block_bytes))
            records += some
    except DamagedError:
        pass
    return places, records


def _kept_blocks(space: bytes, kept: bytes, geometry: XfsGeometry, group: int) -> Extents:
    """Return the blocks kept for the trees: a ring, of which the header says what part is in use."""
    first, _, count = struct.unpack_from(">III", space, 40)
    begin = _LIST_HEADER_BYTES if geometry.version5 else 0
    ring = struct.unpack_from(f">{(len(kept) - begin) // 4}I", kept, begin)
    found = []
    for at in range(min(count, len(ring))):
        block = ring[(first + at) % len(ring)]
        if block < geometry.group_blocks and group * geometry.group_blocks + block < geometry.blocks:
            found.append((geometry.group_blocks_at(group, block), geometry.block_bytes))
    return found


def _chunks(records: list[bytes], geometry: XfsGeometry, group: int) -> Extents:
    """Return where inodes lie: chunks of 64, of which any four may be missing."""
    found: Extents = []
    for record in records:
        first, holes = struct.unpack_from(">IH", record)
        if not geometry.sparse_inodes:
            holes = 0
        at = group * geometry.group_blocks * geometry.block_bytes + first * geometry.inode_bytes
        length = _INODES_OF_HOLE * geometry.inode_bytes
        for part in range(_INODES_OF_CHUNK // _INODES_OF_HOLE):
            start = at + part * length
            if holes >> part & 1 or start + length > geometry.blocks * geometry.block_bytes:
                continue
            if found and sum(found[-1]) == start:
                found[-1] = found[-1][0], found[-1][1] + length
            else:
                found.append((start, length))
    return found
