"""The files of a btrfs file system on one device, of its top subvolume and those that have a place below it.

Snapshots are subvolumes, too: the same extents then belong to several files. What fsync(2) wrote
and is only in the tree of the log is not looked at.
"""

from __future__ import annotations

import dataclasses
import itertools
import stat
import struct
from collections.abc import Iterable, Iterator

from vmrestorekit.backup.btrfs_trees import BtrfsTrees, Item, Root, open_trees, superblock_places
from vmrestorekit.backup.file_systems import LONGEST_PATH, FoundFile, kind_of, pseudo_file, read_extents
from vmrestorekit.backup.volume import DamagedError, StructureReader, UnreadableError, Volume
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["open_btrfs"]

# kinds of items
_INODE, _NAME, _EXTENT, _ROOT, _ROOT_REFERENCE = 1, 96, 108, 132, 156
_TOP_TREE, _TOP_FOLDER = 5, 256
_INLINE, _WRITTEN = 0, 1  # kinds of extents; what is neither was allocated and reads as zeros
_INLINE_HEADER_BYTES = 21
_TREE_BITS = 64  # in the number of a file, below that of its subvolume
_COPIES = 16  # extents of a file system with shared blocks come to no more times its size
_READINGS = 8  # what snapshots share is read for each


def open_btrfs(volume: Volume) -> BtrfsFileSystem | None:
    """Return the btrfs file system on a volume; None if there is none, or one that is not read here."""
    trees = open_trees(StructureReader(volume, _READINGS))
    return BtrfsFileSystem(volume, trees) if trees is not None else None


@dataclasses.dataclass
class _Object:
    """What items of a subvolume say of one file or folder."""

    mode: int = 0
    size: int = 0
    extents: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    inline: bytes = b""
    compressed: bool = False
    ways: set[int] = dataclasses.field(default_factory=set)
    names: list[tuple[bytes, int, int]] = dataclasses.field(default_factory=list)  # of a folder: object, kind


class BtrfsFileSystem:
    """A btrfs file system."""

    name = "btrfs"

    def __init__(self, volume: Volume, trees: BtrfsTrees) -> None:
        self.volume, self._trees, self.size = volume, trees, trees.size

    def files(self) -> list[FoundFile]:
        """Return all that has a name, and the structures; places are bytes of the volume."""
        roots, references, free_space = _roots(self._trees)
        if _TOP_TREE not in roots:
            raise UnreadableError(f"{self.volume.name}: expected a top subvolume of btrfs, found none")
        found: list[FoundFile] = []
        pending, seen, left = [(_TOP_TREE, "/")], set(), _COPIES * self.volume.size
        while pending:
            tree, path = pending.pop()
            if tree in seen or tree not in roots:
                continue
            seen.add(tree)
            subvolume = _Subvolume(self._trees, tree, roots[tree], references)
            found += subvolume.files(path)
            pending += subvolume.below
            left -= subvolume.extent_bytes
            if left < 0:
                raise UnreadableError(
                    f"{self.volume.name}: expected extents of at most {_COPIES} times its size, got more"
                )
        return found + self._structures(roots, free_space)

    def _structures(self, roots: dict[int, Root], free_space: list[tuple[int, int]]) -> list[FoundFile]:
        addresses: dict[int, None] = {}
        for root in (self._trees.chunk_root, self._trees.root, *roots.values()):
            try:
                for address in self._trees.addresses(root):
                    addresses[address] = None
            except DamagedError:
                continue
        structures = {
            "$superblock": superblock_places(self.size),
            "$btrfs_trees": self._all_places((address, self._trees.node_bytes) for address in addresses),
            "$free_space": self._all_places(free_space),
        }
        return [pseudo_file(name, extents) for name, extents in structures.items() if extents]

    def _all_places(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return where ranges of addresses lie, copies too."""
        found = []
        for address, length in ranges:
            try:
                found += [place for copies in self._trees.places(address, length) for place in copies]
            except DamagedError:
                continue
        return found

    def read(self, file: FoundFile) -> Iterator[bytes]:
        """Give the contents of a regular file, whose places are bytes of the disk, piece by piece."""
        tree, number = file.inode >> _TREE_BITS or _TOP_TREE, file.inode & ((1 << _TREE_BITS) - 1)
        roots = _roots(self._trees, tree)[0]
        if tree not in roots:
            raise ManifestError(f"{file.path}: expected subvolume {tree} of btrfs, found none")
        items = self._trees.items(roots[tree], number)
        there = _objects(self._trees, items).get(number, _Object())
        if there.compressed:
            raise ManifestError(f"{file.path}: expected contents as they are, got compressed ones of btrfs")
        pieces = read_extents(self.volume.disk, file)
        inline = there.inline[: file.size]
        return itertools.chain([inline], _without_first(len(inline), pieces)) if inline else pieces


def _without_first(count: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) > count:
            yield piece[count:]
        count = max(count - len(piece), 0)


def _roots(
    trees: BtrfsTrees, wanted: int | None = None
) -> tuple[dict[int, Root], set[tuple[int, int, bytes, int]], list[tuple[int, int]]]:
    """Return the roots of trees by their number, where subvolumes have their places, and free space caches.

    A place is the number of the tree above, the folder in it, the name, and the number of the subvolume.
    """
    roots: dict[int, Root] = {}
    references: set[tuple[int, int, bytes, int]] = set()
    free_space: list[tuple[int, int]] = []
    for (number, kind, offset), content, _ in trees.items(trees.root, wanted):
        if kind == _ROOT and len(content) >= 239:
            (address,), (users,) = (
                struct.unpack_from("<Q", content, 176),
                struct.unpack_from("<I", content, 216),
            )
            if users and address:  # else it is being deleted
                roots[number] = Root(address, content[238])
        elif kind == _ROOT_REFERENCE and len(content) >= 18:
            folder, _, length = struct.unpack_from("<QQH", content)
            references.add((number, folder, content[18 : 18 + length], offset))
        elif kind == _EXTENT and len(content) >= 53 and content[20] == _WRITTEN:
            address, length = struct.unpack_from("<QQ", content, 21)
            if address:
                free_space.append((address, length))
    return roots, references, free_space


def _objects(trees: BtrfsTrees, items: Iterable[Item]) -> dict[int, _Object]:
    """Put together what items say; an extent that is damaged is left out."""
    found: dict[int, _Object] = {}
    for (number, kind, offset), content, way in items:
        if kind not in (_INODE, _NAME, _EXTENT):
            continue
        there = found.setdefault(number, _Object())
        there.ways.update(way)
        if kind == _INODE and len(content) >= 56:
            (there.size,), (there.mode,) = (
                struct.unpack_from("<Q", content, 16),
                struct.unpack_from("<I", content, 52),
            )
        elif kind == _NAME and len(content) >= 30:
            child, child_kind = struct.unpack_from("<QB", content)
            (length,) = struct.unpack_from("<H", content, 27)
            there.names.append((content[30 : 30 + length], child, child_kind))
        elif kind == _EXTENT and len(content) >= _INLINE_HEADER_BYTES:
            there.compressed |= content[16] != 0
            if content[20] == _INLINE and offset == 0:
                there.inline = content[_INLINE_HEADER_BYTES:]
            elif content[20] == _WRITTEN and len(content) >= 53:
                there.extents += _extents(trees, content, offset)
    return found


def _extents(trees: BtrfsTrees, content: bytes, position: int) -> list[tuple[int, int, int]]:
    """Return the extents that an item describes: of a compressed one all that has to be read for it."""
    address, whole, begin, length = struct.unpack_from("<QQQQ", content, 21)
    if not address:  # a hole
        return []
    if content[16]:
        begin, length = 0, whole
    found = []
    try:
        for (place, count), *_ in trees.places(address + begin, length):
            found.append((place, count, position))
            position += count
    except DamagedError:
        return []
    return found


class _Subvolume:
    """A subvolume, read as a whole.

    Attributes
    ----------
    below : list of (int, str)
        Numbers of the subvolumes that have their places in it, and their paths with a slash at the end.
    extent_bytes : int
        Of all its files.
    """

    def __init__(
        self, trees: BtrfsTrees, tree: int, root: Root, references: set[tuple[int, int, bytes, int]]
    ) -> None:
        self._trees, self._tree, self._references = trees, tree, references
        self._places: dict[int, tuple[int, int]] = {}
        self._objects: dict[int, _Object] = {}
        self.below: list[tuple[int, str]] = []
        try:
            self._objects = _objects(trees, trees.items(root))
        except DamagedError:
            if tree == _TOP_TREE:
                raise
        self.extent_bytes = sum(length for each in self._objects.values() for _, length, _ in each.extents)

    def files(self, path: str) -> list[FoundFile]:
        """Return all that has a name in it, a folder before what is in it."""
        if _TOP_FOLDER not in self._objects:
            return []
        found = {_TOP_FOLDER: self._file(path if path == "/" else path[:-1], _TOP_FOLDER)}
        others: list[FoundFile] = []
        pending = [(path, _TOP_FOLDER)]
        while pending:
            folder_path, folder = pending.pop()
            for name, number, kind in self._objects[folder].names:
                child = folder_path + name.decode("utf-8", "backslashreplace")
                if not name or b"/" in name or name in (b".", b"..") or len(child) > LONGEST_PATH:
                    continue
                if kind == _ROOT and (self._tree, folder, name, number) in self._references:
                    self.below.append((number, child + "/"))
                elif kind == _ROOT:  # in a snapshot: where a subvolume was, an empty folder without an inode
                    others.append(FoundFile(child, 0, "directory", []))
                elif number in found:
                    known = found[number]
                    if known.kind != "directory" and child not in (known.path, *known.other_paths):
                        known.path, *known.other_paths = sorted([known.path, *known.other_paths, child])
                elif kind == _INODE and self._objects.get(number, _Object()).mode:
                    found[number] = self._file(child, number)
                    if stat.S_ISDIR(self._objects[number].mode):
                        pending.append((child + "/", number))
        return [*found.values(), *others]

    def _file(self, path: str, number: int) -> FoundFile:
        there = self._objects[number]
        kind = kind_of(there.mode)
        inline = b"" if there.compressed else there.inline[: there.size]
        target = inline.partition(b"\0")[0]  # mkfs.btrfs keeps the end of a C string, too
        return FoundFile(
            path,
            there.size,
            kind,
            there.extents,
            [self._place(address) for address in sorted(there.ways)],
            inode=number if self._tree == _TOP_TREE else self._tree << _TREE_BITS | number,
            target=target.decode("utf-8", "backslashreplace") if kind == "symlink" else "",
            inline=inline if kind == "regular" else b"",
        )

    def _place(self, address: int) -> tuple[int, int]:
        """Return where a block of the tree lies, which was read before."""
        if address not in self._places:
            self._places[address] = self._trees.places(address, self._trees.node_bytes)[0][0]
        return self._places[address]
