"""The files of a Linux system by the paths under which it knows them: links followed, contents read.

Contents are read where `find_files` says that they lie, which costs a read of the disk and no further look at
the file system.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from vmrestorekit.backup.files import DiskFiles, FoundFile
from vmrestorekit.backup.images import DiskImage
from vmrestorekit.backup.mounts import Mark, find_mounts

__all__ = ["FileTree", "Reference"]

Reference = tuple[str, str, str]  # source, kind and target as in `REFERENCES_SCHEMA`

_NOT_OF_LINUX = ("ntfs", "fat", "exfat")
_PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_SUPERBLOCK = "$superblock"
_MARK = re.compile(r"(@[^/]*)?(/.*)", re.DOTALL)
_MOST_LINKS = 40  # as Linux
_MOST_BYTES = 64 << 20  # no list of files, unit or table is larger; a damaged size may be anything


class FileTree:
    """What one installed system sees as its files: its root, and what /etc/fstab mounts from its disks.

    Parameters
    ----------
    disks : sequence of (DiskImage, DiskFiles)
        The machine's disks, and what is on each. With several file systems the root is the first one that has
        /etc; what it does not mount is left out, and so is all that Linux is not installed on (NTFS, FAT).
        Each file is told the number of its disk.

    Attributes
    ----------
    files : dict of str to FoundFile
        Files, folders and links by their path in the system; one with hard links under each name.
    """

    def __init__(self, disks: Sequence[tuple[DiskImage, DiskFiles]]) -> None:
        self._disks = [disk for disk, _ in disks]
        self._folders: dict[str, str | None] = {}
        by_mark: dict[Mark, dict[str, FoundFile]] = defaultdict(dict)
        superblocks: dict[Mark, FoundFile] = {}
        for number, (_, found) in enumerate(disks):
            kinds = {row["partition"]: row["file_system"] for row in found.partitions}
            for file in found.files:
                file.disk = number
                if file.path.startswith(_SUPERBLOCK):
                    superblocks[number, file.path.removeprefix(_SUPERBLOCK)] = file
                if file.kind == "metadata" or kinds.get(file.partition, "").startswith(_NOT_OF_LINUX):
                    continue
                for name in (file.path, *file.other_paths):
                    if parts := _split_mark(name):
                        by_mark[number, parts[0]][parts[1]] = file
        root = next((mark for mark in sorted(by_mark) if "/etc" in by_mark[mark]), (0, ""))
        self._fill(by_mark[root])
        others = {mark: files["/"] for mark, files in by_mark.items() if "/" in files and mark != root}
        if others:
            fstab = self.read("/etc/fstab")
            for folder, mark in find_mounts(self._disks, fstab, others, superblocks).items():
                self._mount(folder, by_mark[mark])
        # of several hard links the first in sorted order
        self._path_of = {id(file): path for path, file in sorted(self.files.items(), reverse=True)}

    def _fill(self, files: dict[str, FoundFile]) -> None:
        self.files = files
        self._children: dict[str, list[str]] = defaultdict(list)
        for path in sorted(files):
            if path != "/":
                folder, _, name = path.rpartition("/")
                self._children[folder or "/"].append(name)

    def _mount(self, folder: str, files: dict[str, FoundFile]) -> None:
        # what the root has below a folder that something is mounted on cannot be seen
        seen = {path: file for path, file in self.files.items() if not f"{path}/".startswith(folder + "/")}
        self._fill(seen | {folder + path.rstrip("/"): file for path, file in files.items()})
        self._folders.clear()

    def name(self, path: str) -> str:
        """Return the path that a manifest has for a path of the system, which need not be there."""
        file = self.files.get(path)
        return path if file is None else self._path_of[id(file)]

    def path_in_manifest(self, file: FoundFile) -> str:
        """Return the path of a file as the system knows it; one that it does not see keeps a mark.

        The mark, ``@`` and the number of the partition, also tells what lies below a folder that something
        else is mounted on.
        """
        if id(file) in self._path_of:
            return self._path_of[id(file)]
        is_taken = file.path in self.files and file.kind != "metadata"
        return f"@{file.partition}{file.path}" if is_taken else file.path

    def names_in(self, folder: str) -> list[str]:
        """Return what is in a folder, sorted; nothing if there is no such folder. Links are not followed."""
        return list(self._children.get(folder, ()))

    def place(self, path: str) -> str | None:
        """Return a path without links among its folders; its last part may be one, or not be there."""
        folder, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            return self.resolve(path)
        if folder not in self._folders:
            self._folders[folder] = self.resolve(folder)
        resolved = self._folders[folder]
        return None if resolved is None else f"{resolved.rstrip('/')}/{name}"

    def resolve(self, path: str, folder: str = "/") -> str | None:
        """Return where a path leads, seen from a folder; None if nothing is there, or links go in circles."""
        at = "" if path.startswith("/") else folder.rstrip("/")
        pending, links = path.split("/")[::-1], 0
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                at = at.rpartition("/")[0]
                continue
            file = self.files.get(f"{at}/{name}")
            if file is None:
                return None
            if file.kind != "symlink":
                at = f"{at}/{name}"
                continue
            links += 1
            if not file.target or links > _MOST_LINKS:
                return None
            at = "" if file.target.startswith("/") else at
            pending += file.target.split("/")[::-1]
        return at or "/"

    def program(self, name: str) -> str | None:
        """Return the file of a program, given by its path or as a name that a shell would look for."""
        paths = [name] if "/" in name else [f"{folder}/{name}" for folder in _PROGRAMS]
        found = (self.resolve(path) for path in paths if name)
        path = next(filter(None, found), None)
        file = self.files.get(path) if path else None
        return path if file and file.kind == "regular" else None

    def read(self, path: str) -> bytes:
        """Return the contents of a small file; nothing if there is none, or it is not small."""
        resolved = self.resolve(path)
        file = None if resolved is None else self.files.get(resolved)
        if file is None or file.kind != "regular" or file.size > _MOST_BYTES:
            return b""
        return self.read_range(file, 0, file.size)

    def lines(self, path: str) -> list[str]:
        """Return the lines of a small file of text, whatever its bytes are."""
        return self.read(path).decode("utf-8", "backslashreplace").split("\n")

    def read_range(self, file: FoundFile, offset: int, length: int) -> bytes:
        """Return bytes of a file, fewer at its end; what has no place on the disk reads as zeros."""
        end = min(offset + length, file.size)
        if end <= offset:
            return b""
        data = bytearray(file.inline[offset:end].ljust(end - offset, b"\0"))
        for start, count, position in file.extents:
            first, last = max(position, offset), min(position + count, end)
            if first < last:
                piece = self._disks[file.disk].read(start + first - position, last - first)
                data[first - offset : first - offset + len(piece)] = piece
        return bytes(data)


def _split_mark(path: str) -> tuple[str, str] | None:
    """Split ``@2/a`` into the mark of a file system and the path in it; None for a name of metadata."""
    match = _MARK.fullmatch(path)
    return (match[1] or "", match[2]) if match else None
