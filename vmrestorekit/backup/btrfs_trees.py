"""How btrfs lays out a volume: its superblock, the chunks that map its addresses, and its trees.

As of Linux's ``include/uapi/linux/btrfs_tree.h``; all numbers are little-endian. Read are file systems on one
device whose chunks are ``single`` or ``dup``.
"""

from __future__ import annotations

import bisect
import dataclasses
import struct
from collections.abc import Iterator
from typing import NamedTuple

from vmrestorekit.backup.volume import DamagedError, StructureReader, UnreadableError

__all__ = ["BtrfsTrees", "Item", "Key", "Root", "open_trees", "superblock_places"]

SUPERBLOCKS = (1 << 16, 1 << 26, 1 << 38)
SUPERBLOCK_BYTES = 4096
_MAGIC = b"_BHRfS_M"
_ARRAY, _ARRAY_BYTES = 811, 2048
_KEY = struct.Struct("<QBQ")
_ITEM = struct.Struct("<QBQII")
_POINTER = struct.Struct("<QBQQQ")
_HEADER_BYTES = 101
_CHUNK_ITEM = 228
_DUP = 0x20
_SEVERAL_DEVICES = 0x7D8  # the RAID profiles
_OTHER_LAYOUTS = 0x7000  # zoned, and the second layout of extents
_DEEPEST = 8


class Key(NamedTuple):
    """What items are in order of: the object, the kind of the item, and a number of its own."""

    object: int
    kind: int
    offset: int


class Item(NamedTuple):
    """An item, its contents, and where the blocks lie that lead to it, the top first."""

    key: Key
    content: bytes
    way: tuple[int, ...]


class Root(NamedTuple):
    """The top of a tree: address of the block, and its level."""

    address: int
    level: int


@dataclasses.dataclass(frozen=True)
class _Chunk:
    start: int
    length: int
    places: tuple[int, ...]


class BtrfsTrees:
    """Reads trees of a file system.

    Attributes
    ----------
    size, node_bytes, sector_bytes : int
        Of the file system, of a block of a tree, of a unit of contents.
    root : Root
        The tree of the other trees' roots.
    """

    def __init__(self, read: StructureReader, superblock: bytes) -> None:
        self._read = read
        (root, chunks) = struct.unpack_from("<QQ", superblock, 80)
        (self.size,) = struct.unpack_from("<Q", superblock, 112)
        self.sector_bytes, self.node_bytes = struct.unpack_from("<II", superblock, 144)
        self.root = Root(root, superblock[198])
        self.chunk_root = Root(chunks, superblock[199])
        self._chunks: dict[int, _Chunk] = {}
        self._starts: list[int] = []
        self._add_first_chunks(superblock)
        for item in self.items(self.chunk_root):
            if item.key.kind == _CHUNK_ITEM:
                self._add_chunk(item.key.offset, item.content)

    def _add_first_chunks(self, superblock: bytes) -> None:
        """Add what the superblock says: enough to read the tree of all chunks."""
        (length,) = struct.unpack_from("<I", superblock, 160)
        array, at = superblock[_ARRAY : _ARRAY + min(length, _ARRAY_BYTES)], 0
        while at + _KEY.size + 48 <= len(array):
            start = int(_KEY.unpack_from(array, at)[2])
            at += _KEY.size
            at += self._add_chunk(start, array[at:])

    def _add_chunk(self, start: int, content: bytes) -> int:
        """Add a chunk; return how many bytes describe it."""
        if len(content) < 48:
            raise DamagedError(f"expected a chunk of 48 bytes and more, got {len(content)}")
        length, _, _, profile = struct.unpack_from("<QQQQ", content)
        (stripes,) = struct.unpack_from("<H", content, 44)
        end = 48 + 32 * int(stripes)
        if profile & _SEVERAL_DEVICES or stripes != 1 + bool(profile & _DUP) or end > len(content):
            raise UnreadableError(
                f"{self._read.volume.name}: expected btrfs of the profiles single and dup, "
                f"got {profile:#x} with {stripes} stripes"
            )
        places = struct.unpack_from("<" + "8xQ16x" * stripes, content, 48)
        if start not in self._chunks:
            bisect.insort(self._starts, start)
        self._chunks[start] = _Chunk(start, length, places)
        return end

    def places(self, address: int, length: int) -> list[list[tuple[int, int]]]:
        """Return where a range of addresses lies on the volume, piece by piece, with its copy if it has one.

        Raises
        ------
        DamagedError
            If it is not in chunks as a whole.
        """
        found = []
        while length > 0:
            at = bisect.bisect_right(self._starts, address) - 1
            chunk = self._chunks[self._starts[at]] if at >= 0 else None
            if chunk is None or address >= chunk.start + chunk.length:
                raise DamagedError(f"{self._read.volume.name}: expected a chunk at {address}, found none")
            count = min(length, chunk.start + chunk.length - address)
            found.append([(place + address - chunk.start, count) for place in chunk.places])
            address, length = address + count, length - count
        return found

    def node(self, address: int, level: int) -> bytes:
        """Return a block of a tree; `DamagedError` if there is none of this level."""
        ((place, *_), *more) = self.places(address, self.node_bytes)
        block = self._read(*place) if not more else b""
        if (
            len(block) != self.node_bytes
            or struct.unpack_from("<Q", block, 48)[0] != address
            or block[100] != level
        ):
            raise DamagedError(
                f"{self._read.volume.name}: expected a block of a tree at {address}, got another"
            )
        return block

    def items(self, root: Root, wanted: int | None = None) -> Iterator[Item]:
        """Give the items of a tree in their order: all, or those of one object.

        Raises
        ------
        DamagedError
            Where it does not hold together, or leads to a block for the second time.
        """
        for address, level, way, block in self._nodes(root, 0, wanted):
            if level:
                continue
            (count,) = struct.unpack_from("<I", block, 96)
            if _HEADER_BYTES + _ITEM.size * count > len(block):
                raise DamagedError(f"expected items within a block, got {count} at {address}")
            for at in range(count):
                *key, start, size = _ITEM.unpack_from(block, _HEADER_BYTES + _ITEM.size * at)
                if wanted not in (None, key[0]):
                    continue
                start += _HEADER_BYTES
                if start + size > len(block):
                    raise DamagedError(f"expected items within a block, got one up to byte {start + size}")
                yield Item(Key(*key), block[start : start + size], way)

    def addresses(self, root: Root) -> Iterator[int]:
        """Give the address of every block of a tree, without reading those of the lowest level."""
        for address, _, _, _ in self._nodes(root, 1):
            yield address

    def _nodes(
        self, root: Root, lowest: int, wanted: int | None = None
    ) -> Iterator[tuple[int, int, tuple[int, ...], bytes]]:
        """Give address, level, way from the top, and contents (none below the lowest level to be read)."""
        if root.level > _DEEPEST:
            raise DamagedError(f"expected a tree of at most {_DEEPEST} levels, got {root.level}")
        seen: set[int] = set()
        pending: list[tuple[int, int, tuple[int, ...]]] = [(root.address, root.level, ())]
        while pending:
            address, level, way = pending.pop()
            if address in seen:
                raise DamagedError(f"expected a new block, got the one at {address} for the second time")
            seen.add(address)
            way = (*way, address)
            block = self.node(address, level) if level >= lowest else b""
            yield address, level, way, block
            if level:
                (count,) = struct.unpack_from("<I", block, 96)
                if _HEADER_BYTES + _POINTER.size * count > len(block):
                    raise DamagedError(f"expected pointers within a block, got {count} at {address}")
                pointers = [
                    _POINTER.unpack_from(block, _HEADER_BYTES + _POINTER.size * at) for at in range(count)
                ]
                if wanted is not None:  # each block goes on to where the next one begins
                    ends = [each[0] for each in pointers[1:]] + [wanted]
                    pointers = [
                        each for each, end in zip(pointers, ends, strict=False) if each[0] <= wanted <= end
                    ]
                pending += [(each[3], level - 1, way) for each in reversed(pointers)]


def superblock_places(size: int) -> list[tuple[int, int]]:
    """Return where the superblock and its copies lie in a file system of so many bytes."""
    return [(at, SUPERBLOCK_BYTES) for at in SUPERBLOCKS if at + SUPERBLOCK_BYTES <= size]


def open_trees(read: StructureReader) -> BtrfsTrees | None:
    """Return the trees of the file system on a volume; None if it has none, or one that is not read here."""
    if read.volume.size < SUPERBLOCKS[0] + SUPERBLOCK_BYTES:
        return None
    superblock = read(SUPERBLOCKS[0], SUPERBLOCK_BYTES)
    (size,) = struct.unpack_from("<Q", superblock, 112)
    (devices,) = struct.unpack_from("<Q", superblock, 136)
    sector, node = struct.unpack_from("<II", superblock, 144)
    (incompatible,) = struct.unpack_from("<Q", superblock, 188)
    sound = (
        superblock[64:72] == _MAGIC
        and devices == 1
        and 0 < size <= read.volume.size
        and sector in (1 << bits for bits in range(9, 17))
        and node in (1 << bits for bits in range(9, 17))
        and not incompatible & _OTHER_LAYOUTS
    )
    if not sound:
        return None
    try:
        return BtrfsTrees(read, superblock)
    except UnreadableError:
        return None
