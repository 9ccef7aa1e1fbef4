"""The logical source as a tree of files: what is where, how large, with which holes; no FUSE here."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from vmrestorekit.lab.media.source import Source, SourceFile
from vmrestorekit.lab.programs import LabError
from vmrestorekit.plan import first_block_of_disk

__all__ = ["Disk", "FileTree"]

_SECTOR = 512  # the unit of st_blocks


@dataclasses.dataclass(frozen=True)
class Disk:
    """A virtual disk; its content comes from the agent."""

    number: int
    size: int
    block_bytes: int
    stored: npt.NDArray[np.bool_]

    @property
    def stored_bytes(self) -> int:
        """Bytes that are not holes."""
        whole = int(np.count_nonzero(self.stored)) * self.block_bytes
        return whole - (len(self.stored) * self.block_bytes - self.size if self.stored[-1] else 0)

    def seek(self, offset: int, whence: int) -> int:
        """Return where data or a hole begins, as of ``os.lseek`` with SEEK_DATA or SEEK_HOLE.

        Raises
        ------
        OSError
            ENXIO where there is none any more, EINVAL for another kind of seeking.
        """
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, "only data and holes are sought")
        if not 0 <= offset < self.size:
            raise OSError(errno.ENXIO, "beyond the disk")
        first = offset // self.block_bytes
        there = self.stored[first:] if whence == os.SEEK_DATA else ~self.stored[first:]
        if not there.any():
            if whence == os.SEEK_DATA:
                raise OSError(errno.ENXIO, "no data from here on")
            return self.size
        return max(offset, (first + int(there.argmax())) * self.block_bytes)


class FileTree:
    """Folder of a virtual machine with ``disk0.raw``, ``disk1.raw``, … and its configuration files.

    Raises
    ------
    LabError
        If names collide or lead out of the folder.
    """

    def __init__(self, source: Source, vm: str) -> None:
        self._folders: dict[str, set[str]] = {"/": set()}
        self._files: dict[str, Disk | SourceFile] = {}
        folder = vm.replace("/", "_").replace("\0", "_")
        if folder in ("", ".", ".."):
            folder = "vm"
        firsts = (*first_block_of_disk(source.disk_bytes, source.block_bytes), len(source.layout.address))
        for number, size in enumerate(source.disk_bytes):
            stored = source.layout.address[firsts[number] : firsts[number + 1]] >= 0
            self._add(folder, f"disk{number}.raw", Disk(number, size, source.block_bytes, stored))
        for name, file in source.files.items():
            self._add(folder, name, file)

    def _add(self, folder: str, name: str, file: Disk | SourceFile) -> None:
        parts = [folder, *(part for part in PurePosixPath(name).parts if part != "/")]
        path = "/" + "/".join(parts)
        if ".." in parts or path in self._files or path in self._folders:
            raise LabError(f"configuration file: expected a name of its own within its folder, got {name!r}")
        self._files[path] = file
        for depth in range(len(parts)):
            parent = "/" + "/".join(parts[:depth])
            if parent in self._files:
                raise LabError(f"configuration file: {name!r} lies in what is itself a file")
            self._folders.setdefault(parent, set()).add(parts[depth])

    def file(self, path: str) -> Disk | SourceFile:
        """Return the file at a path; OSError if there is none."""
        if path in self._folders:
            raise IsADirectoryError(errno.EISDIR, "a folder")
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return self._files[path]

    def names(self, path: str) -> list[str]:
        """Return what is in a folder; OSError if there is none."""
        if path not in self._folders:
            raise NotADirectoryError(errno.ENOTDIR, "no such folder")
        return sorted(self._folders[path])

    def attributes(self, path: str) -> dict[str, int]:
        """Return what ``os.stat`` tells of a path; OSError if nothing is there."""
        common = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        if path in self._folders:
            return common | {"st_mode": stat.S_IFDIR | 0o500, "st_nlink": 2}
        file = self.file(path)
        stored = file.stored_bytes if isinstance(file, Disk) else file.size
        return common | {
            "st_mode": stat.S_IFREG | 0o400,
            "st_nlink": 1,
            "st_size": file.size,
            "st_blocks": -(-stored // _SECTOR),
            "st_blksize": file.block_bytes if isinstance(file, Disk) else 4096,
        }

    def listing(self) -> Mapping[str, int]:
        """Return the path and size of each file."""
        return {path: file.size for path, file in self._files.items()}
