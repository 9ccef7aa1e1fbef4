"""Where an ext2, ext3 or ext4 file system keeps its own structures, read from its superblock.

The Sleuth Kit tells where files lie, but not this. The journal is a file (inode 8) and left to it. A file
system with the feature ``meta_bg`` spreads its group descriptors; of such a one only superblocks are named.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

__all__ = ["ext_inodes", "ext_metadata"]

Extent = tuple[int, int]  # first byte within the file system, number of bytes

_MAGIC = 0xEF53
_COMPAT_SPARSE_SUPER2 = 0x200
_INCOMPAT_META_BG = 0x10
_INCOMPAT_64BIT = 0x80
_RO_COMPAT_SPARSE_SUPER = 0x1


def ext_metadata(read: Callable[[int, int], bytes]) -> dict[str, list[Extent]]:
    """Return the extents of each kind of structure, in the order of the block groups.

    Parameters
    ----------
    read : callable
        ``read(offset, length)`` gives bytes of the file system.

    Returns
    -------
    dict of str to list of (int, int)
        ``$superblock``, ``$group_descriptors`` (with the blocks reserved for more), ``$block_bitmap``,
        ``$inode_bitmap``, ``$inode_table``; offset and length in bytes from the start of the file system.
        Empty if there is no ext file system.
    """
    superblock = read(1024, 1024)
    if len(superblock) < 1024 or _u16(superblock, 0x38) != _MAGIC:
        return {}
    block_bytes = 1024 << _u32(superblock, 0x18)
    first_block, blocks_per_group = _u32(superblock, 0x14), _u32(superblock, 0x20)
    incompat = _u32(superblock, 0x60)
    wide = bool(incompat & _INCOMPAT_64BIT)
    blocks = _u32(superblock, 0x4) + (_u32(superblock, 0x150) << 32 if wide else 0)
    groups = -(-(blocks - first_block) // blocks_per_group)
    group_start = [first_block + group * blocks_per_group for group in range(groups)]
    copies = [group_start[group] for group in _groups_with_superblock(superblock, groups)]
    found = {"$superblock": [(block * block_bytes, block_bytes) for block in copies]}
    if incompat & _INCOMPAT_META_BG:
        return found

    descriptor_bytes = _u16(superblock, 0xFE) if wide else 32
    descriptor_blocks = -(-groups * descriptor_bytes // block_bytes) + _u16(superblock, 0xCE)
    descriptors = read((first_block + 1) * block_bytes, groups * descriptor_bytes)
    inode_bytes = _u16(superblock, 0x58) if _u32(superblock, 0x4C) else 128
    table_bytes = -(-_u32(superblock, 0x28) * inode_bytes // block_bytes) * block_bytes
    found["$group_descriptors"] = [
        ((block + 1) * block_bytes, descriptor_blocks * block_bytes) for block in copies
    ]
    structures = {"$block_bitmap": block_bytes, "$inode_bitmap": block_bytes, "$inode_table": table_bytes}
    for place, (name, length) in enumerate(structures.items()):
        found[name] = []
        for group in range(groups):
            descriptor = descriptors[group * descriptor_bytes : (group + 1) * descriptor_bytes]
            block = _u32(descriptor, 4 * place)
            if wide and descriptor_bytes >= 64:
                block |= _u32(descriptor, 0x20 + 4 * place) << 32
            found[name].append((block * block_bytes, length))
    return found


def ext_inodes(read: Callable[[int, int], bytes]) -> Callable[[int], Extent]:
    """Return a function from an inode's number to where it lies; parameters as of `ext_metadata`."""
    superblock = read(1024, 1024)
    per_group = _u32(superblock, 0x28)
    inode_bytes = _u16(superblock, 0x58) if _u32(superblock, 0x4C) else 128
    tables = ext_metadata(read).get("$inode_table", [])

    def place(inode: int) -> Extent:
        group, position = divmod(inode - 1, per_group)
        return tables[group][0] + position * inode_bytes, inode_bytes

    return place


def _groups_with_superblock(superblock: bytes, groups: int) -> list[int]:
    if _u32(superblock, 0x5C) & _COMPAT_SPARSE_SUPER2:
        backups = {_u32(superblock, 0x24C), _u32(superblock, 0x250)} - {0}
        return sorted({0} | {group for group in backups if group < groups})
    if not _u32(superblock, 0x64) & _RO_COMPAT_SPARSE_SUPER:
        return list(range(groups))
    return [
        group for group in range(groups) if group < 2 or any(_is_power(group, base) for base in (3, 5, 7))
    ]


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def _u16(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<H", data, offset)[0])


def _u32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])
