"""How XFS lays out a volume: its geometry, where a block or an inode lies, and its B+ trees.

As of Linux's ``fs/xfs/libxfs/xfs_format.h``; all numbers are big-endian.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Sequence

from vmrestorekit.backup.volume import DamagedError, StructureReader

__all__ = ["XfsGeometry", "XfsTree", "read_geometry", "tree_blocks"]

_MAGIC = b"XFSB"
_INCOMPAT_FILE_TYPE, _INCOMPAT_SPARSE_INODES = 0x1, 0x2
_INCOMPAT_KNOWN = 0x1FF  # up to the folder of metadata of Linux 6.13
_FEATURES2_FILE_TYPE = 0x200
_DEEPEST = 12


@dataclasses.dataclass(frozen=True)
class XfsGeometry:
    """What the superblock says.

    Attributes
    ----------
    version5 : bool
        Whether blocks describe themselves (version 5); else version 4.
    block_bytes, sector_bytes, inode_bytes, folder_bytes : int
        Sizes of a block, a header of a group, an inode, a block of a folder.
    blocks, groups, group_blocks : int
        Number of blocks, number of allocation groups, blocks of each of these.
    block_bits, inode_bits : int
        Of the number of a block within a group, and of an inode within a block.
    file_types, sparse_inodes : bool
        Whether names have the type of the file, whether a chunk of inodes may have holes.
    root, quotas : int, tuple of int
        Numbers of inodes.
    log : (int, int)
        First block of the journal and number of blocks; 0 blocks if it lies elsewhere.
    """

    version5: bool
    block_bytes: int
    sector_bytes: int
    inode_bytes: int
    folder_bytes: int
    blocks: int
    groups: int
    group_blocks: int
    block_bits: int
    inode_bits: int
    file_types: bool
    sparse_inodes: bool
    root: int
    quotas: tuple[int, ...]
    log: tuple[int, int]

    def blocks_at(self, number: int, count: int = 1) -> int:
        """Return the first byte of so many blocks, by a number in which the group stands before the block."""
        group, block = number >> self.block_bits, number & ((1 << self.block_bits) - 1)
        return self.group_blocks_at(group, block, count)

    def group_blocks_at(self, group: int, block: int, count: int = 1) -> int:
        """Return the first byte of so many blocks of a group; `DamagedError` if they are not all in it."""
        first = group * self.group_blocks + block
        if block + count > self.group_blocks or first + count > self.blocks:
            raise DamagedError(
                f"xfs: expected blocks within {self.groups} groups of {self.group_blocks}, "
                f"got {count} from block {block} of group {group}"
            )
        return first * self.block_bytes

    def inode_at(self, number: int) -> int:
        """Return the first byte of an inode; `DamagedError` if there is no such block."""
        block, position = number >> self.inode_bits, number & ((1 << self.inode_bits) - 1)
        return self.blocks_at(block) + position * self.inode_bytes


def read_geometry(read: StructureReader) -> XfsGeometry | None:
    """Return what the superblock says; None if there is none, or one of features that are not known here."""
    if read.volume.size < 512:
        return None
    sector = read(0, 512)
    if sector[:4] != _MAGIC:
        return None
    block_bytes, blocks = struct.unpack_from(">IQ", sector, 4)
    log, root = struct.unpack_from(">QQ", sector, 48)
    group_blocks, groups, _, log_blocks, version, sector_bytes, inode_bytes, per_block = struct.unpack_from(
        ">IIIIHHHH", sector, 84
    )
    inode_bits, block_bits, folder_bits = sector[123], sector[124], sector[192]
    features2, _, _, _, incompat = struct.unpack_from(">IIIII", sector, 200)
    version5 = version & 0xF == 5
    sound = (
        version & 0xF in (4, 5)
        and (block_bytes in (1 << bits for bits in range(9, 17)))
        and 512 <= sector_bytes <= block_bytes
        and inode_bytes in (256, 512, 1024, 2048)
        and per_block == block_bytes // inode_bytes == 1 << inode_bits
        and 0 < blocks * block_bytes <= read.volume.size
        and 4 * sector_bytes <= group_blocks * block_bytes
        and groups == -(-blocks // max(group_blocks, 1))
        and block_bits <= 32
        and group_blocks <= 1 << block_bits
        and block_bytes << folder_bits <= 1 << 16
        and not (version5 and incompat & ~_INCOMPAT_KNOWN)
    )
    if not sound:
        return None
    quotas = (*struct.unpack_from(">QQ", sector, 160), *struct.unpack_from(">Q", sector, 232))
    return XfsGeometry(
        version5=version5,
        block_bytes=block_bytes,
        sector_bytes=sector_bytes,
        inode_bytes=inode_bytes,
        folder_bytes=block_bytes << folder_bits,
        blocks=blocks,
        groups=groups,
        group_blocks=group_blocks,
        block_bits=block_bits,
        inode_bits=inode_bits,
        file_types=bool(incompat & _INCOMPAT_FILE_TYPE if version5 else features2 & _FEATURES2_FILE_TYPE),
        sparse_inodes=version5 and bool(incompat & _INCOMPAT_SPARSE_INODES),
        root=root,
        quotas=tuple(sorted({number for number in quotas if 0 < number < 2**64 - 1})),
        log=(log, log_blocks if log else 0),
    )


@dataclasses.dataclass(frozen=True)
class XfsTree:
    """A kind of B+ tree.

    Attributes
    ----------
    magic : (bytes, bytes)
        What its blocks begin with in versions 4 and 5.
    key_bytes, record_bytes : int
    wide : bool
        Whether its blocks are numbered in the file system, and not in a group.
    """

    magic: tuple[bytes, bytes]
    key_bytes: int
    record_bytes: int
    wide: bool = False

    def header_bytes(self, version5: bool) -> int:
        """Return how much of a block comes before keys or records."""
        return (72 if version5 else 24) if self.wide else (56 if version5 else 16)


def tree_blocks(
    read: StructureReader,
    geometry: XfsGeometry,
    tree: XfsTree,
    roots: Sequence[int],
    level: int,
    group: int = 0,
) -> Iterator[tuple[int, list[bytes]]]:
    """Give the first byte of each block of a tree, and its records, none of a block that leads to others.

    Parameters
    ----------
    roots : sequence of int
        Numbers of the blocks to begin with.
    level : int
        Theirs; 0 for blocks with records.
    group : int
        Which allocation group the numbers are of, unless the tree is wide.

    Raises
    ------
    DamagedError
        If a block is no part of such a tree, or comes again.
    """
    magic = tree.magic[geometry.version5]
    header = tree.header_bytes(geometry.version5)
    pointer = "Q" if tree.wide else "I"
    room = geometry.block_bytes - header
    most = (room // tree.record_bytes, room // (tree.key_bytes + struct.calcsize(pointer)))
    seen: set[int] = set()
    pending = [(number, level) for number in reversed(roots)]
    while pending:
        number, level = pending.pop()
        place = geometry.blocks_at(number) if tree.wide else geometry.group_blocks_at(group, number)
        block = read(place, geometry.block_bytes)
        its_level, count = struct.unpack_from(">HH", block, 4)
        if block[:4] != magic or its_level != level or level > _DEEPEST or place in seen:
            raise DamagedError(
                f"{read.volume.name}: expected a new block {magic!r} of level {level} at byte {place}, "
                f"got {block[:4]!r} of level {its_level}"
            )
        seen.add(place)
        if count > most[level > 0]:
            raise DamagedError(f"{read.volume.name}: expected at most {most[level > 0]} records, got {count}")
        if level:
            children = struct.unpack_from(f">{count}{pointer}", block, header + most[1] * tree.key_bytes)
            pending += [(child, level - 1) for child in reversed(children)]
            yield place, []
        else:
            size = tree.record_bytes
            yield place, [block[header + at * size : header + (at + 1) * size] for at in range(count)]
