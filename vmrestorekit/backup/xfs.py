"""The files of an XFS file system (versions 4 and 5), read from its folders and inodes.

The journal is not replayed: of a machine that was copied while it ran, the last few changes may be missing.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from vmrestorekit.backup.file_systems import LONGEST_PATH, FoundFile, kind_of, pseudo_file, read_extents
from vmrestorekit.backup.volume import DamagedError, StructureReader, Volume
from vmrestorekit.backup.xfs_folders import folder_names
from vmrestorekit.backup.xfs_groups import xfs_structures
from vmrestorekit.backup.xfs_inodes import INLINE, Extent, ExtentReader, Fork, XfsInode, read_inode
from vmrestorekit.backup.xfs_layout import XfsGeometry, read_geometry
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["open_xfs"]

_TARGET_BYTES = 1024
_TARGET_HEADER_BYTES = 56
_TARGET_MAGIC = b"XSLM"


def open_xfs(volume: Volume) -> XfsFileSystem | None:
    """Return the XFS file system on a volume; None if there is none, or one that is not known here."""
    geometry = read_geometry(StructureReader(volume))
    return XfsFileSystem(volume, geometry) if geometry is not None else None


class XfsFileSystem:
    """An XFS file system."""

    name = "xfs"

    def __init__(self, volume: Volume, geometry: XfsGeometry) -> None:
        self.volume, self._geometry = volume, geometry
        self.size = geometry.blocks * geometry.block_bytes

    def files(self) -> list[FoundFile]:
        """Return all that has a name, and the structures; places are bytes of the volume."""
        read = StructureReader(self.volume)
        walk = _Walk(read, self._geometry)
        files = walk.files()
        structures = xfs_structures(read, self._geometry)
        structures |= {
            "$extents": sorted(walk.lists),
            "$attributes": sorted(walk.attributes),
            "$quota": walk.quotas(),
        }
        return files + [pseudo_file(name, extents) for name, extents in structures.items() if extents]

    def read(self, file: FoundFile) -> Iterator[bytes]:
        """Give the contents of a regular file, whose places are bytes of the disk, piece by piece."""
        if read_inode(StructureReader(self.volume), self._geometry, file.inode).elsewhere:
            raise ManifestError(f"{file.path}: expected a file on this disk, its contents are on another")
        return read_extents(self.volume.disk, file)


class _Walk:
    """Goes through the folders, each once.

    Attributes
    ----------
    lists, attributes : list of (int, int)
        Where the blocks lie that list extents, and those with extended attributes.
    """

    def __init__(self, read: StructureReader, geometry: XfsGeometry) -> None:
        self._read, self._geometry = read, geometry
        self._extents = ExtentReader(read, geometry)
        self._files: dict[int, FoundFile] = {}
        self.lists: list[tuple[int, int]] = []
        self.attributes: list[tuple[int, int]] = []

    def files(self) -> list[FoundFile]:
        """Return all that has a name, a folder before what is in it; `DamagedError` if the top is damaged."""
        top = read_inode(self._read, self._geometry, self._geometry.root)
        pending = [("/", top, self._add("/", top))]
        while pending:
            path, folder, extents = pending.pop()
            try:
                for name, number in folder_names(self._read, self._geometry, folder, extents):
                    child = path + name.decode("utf-8", "backslashreplace")
                    known = self._files.get(number)
                    if known is not None:
                        if known.kind != "directory" and child not in (known.path, *known.other_paths):
                            known.path, *known.other_paths = sorted([known.path, *known.other_paths, child])
                    elif len(child) <= LONGEST_PATH:
                        pending += self._found(child, number)
            except DamagedError:
                continue  # the rest of its files stays without a name
        return list(self._files.values())

    def _found(self, path: str, number: int) -> list[tuple[str, XfsInode, list[Extent]]]:
        """Note a new file; return it if it is a folder to go into."""
        try:
            inode = read_inode(self._read, self._geometry, number)
        except DamagedError:
            return []
        extents = self._add(path, inode)
        return [(path + "/", inode, extents)] if stat.S_ISDIR(inode.mode) else []

    def _add(self, path: str, inode: XfsInode) -> list[Extent]:
        file = FoundFile(path, inode.size, kind_of(inode.mode), [], inode=inode.number)
        file.reached_by = [(inode.place, self._geometry.inode_bytes)]
        self._files[inode.number] = file
        try:
            if not inode.elsewhere:
                file.extents, lists = self._extents.extents(inode.data)
                file.reached_by += lists
                self.lists += lists
            if file.kind == "symlink":
                file.target = self._target(inode, file.extents)
            self._add_attributes(inode.attributes)
        except DamagedError:
            pass  # what was found of it so far stays
        return file.extents

    def _add_attributes(self, fork: Fork) -> None:
        extents, lists = self._extents.extents(fork)
        self.attributes += [(start, length) for start, length, _ in extents] + lists

    def _target(self, inode: XfsInode, extents: list[Extent]) -> str:
        if inode.data.form == INLINE:
            raw = inode.data.content[: inode.size]
        else:
            raw = b""
            header = _TARGET_HEADER_BYTES if self._geometry.version5 else 0
            for start, length, _ in extents:
                for offset in range(0, min(length, 4 * _TARGET_BYTES), self._geometry.block_bytes):
                    block = self._read(start + offset, self._geometry.block_bytes)
                    if header and not block.startswith(_TARGET_MAGIC):
                        raise DamagedError(f"expected {_TARGET_MAGIC!r} before a target, got {block[:4]!r}")
                    raw += block[header:]
        return raw[: min(inode.size, _TARGET_BYTES)].decode("utf-8", "backslashreplace")

    def quotas(self) -> list[tuple[int, int]]:
        """Return where the files lie in which quotas are counted."""
        found = []
        for number in self._geometry.quotas:
            try:
                inode = read_inode(self._read, self._geometry, number)
                extents, lists = self._extents.extents(inode.data)
            except DamagedError:
                continue
            found += [(start, length) for start, length, _ in extents] + lists
        return found
