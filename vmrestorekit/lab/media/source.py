"""Where contents come from: what the media agent reads on secondary storage."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vmrestorekit.backup.chunk import signature_of
from vmrestorekit.backup.copy_layout import stored_layout
from vmrestorekit.backup.images import DiskImage, open_image
from vmrestorekit.backup.layout import DEFAULT_BLOCK_BYTES, BackupLayout, block_count, first_block_of_disk
from vmrestorekit.backup.reader import CopyImage, open_copy
from vmrestorekit.backup.records import StoreError
from vmrestorekit.backup.store import BackupStore

__all__ = ["CopySource", "ImageSource", "Source", "SourceFile"]

_SCAN_BYTES = 4 << 20


class SourceFile(Protocol):
    """A file to read from, by several threads at once."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        """Return ``length`` bytes from ``offset`` on, fewer at the end of the file."""


class Source(Protocol):
    """A virtual machine's files as they were backed up.

    Attributes
    ----------
    name : str
        For messages.
    disk_bytes : tuple of int
    block_bytes : int
    layout : BackupLayout
        Where each block lies on the medium.
    is_signed : bool
        Whether contents have signatures against which they are checked.
    files : mapping of str to SourceFile
        The machine's configuration files.
    """

    name: str
    disk_bytes: tuple[int, ...]
    block_bytes: int
    layout: BackupLayout
    is_signed: bool
    files: Mapping[str, SourceFile]

    def read(self, blocks: Sequence[int]) -> list[bytes]:
        """Return the contents of blocks; a disk's last one may be short.

        It blocks, and may be called by several threads at once. Each content is checked by its signature,
        where there is one.

        Raises
        ------
        OSError, StoreError
            If one of them cannot be read, or is damaged.
        """

    def check(self, block: int, content: bytes) -> None:
        """Raise `StoreError` if a content is not what the block's signature says; nothing without one."""

    def release(self) -> None:
        """De-associate the copy: from now on it may be pruned."""

    def close(self) -> None:
        """Let go of the files; an association that was not released stays."""


class CopySource:
    """A copy in a backup store, which is not pruned until it is released.

    Parameters
    ----------
    store_path : path-like
    copy_number : int
    user : str, optional
        Who runs from the copy, as the store notes it; default: the virtual machine's name. Who is started
        again after a crash takes the association over.

    Raises
    ------
    StoreError
        If there is no such store or copy, or a chunk that it needs is missing.
    """

    is_signed = True

    def __init__(self, store_path: str | os.PathLike[str], copy_number: int, user: str | None = None) -> None:
        self._store = BackupStore(store_path)
        self.block_bytes = self._store.block_bytes
        self.copy = self._store.copy(copy_number)
        self.user = re.sub(r"[^\w.-]", "_", user or self.copy.vm)[:100]
        self.name = f"{self._store.path}, copy {copy_number}"
        self._store.associate(copy_number, self.user)
        try:
            # it looks at all headers, which are then known to every thread
            self.layout = stored_layout(self._store, copy_number)
            images = open_copy(self._store, self.copy)
        except BaseException:
            self.release()
            self._store.close()
            raise
        disks = len(self.copy.disks)
        self._disks: list[CopyImage] = images[:disks]
        self.files: Mapping[str, SourceFile] = {
            file.name: image for file, image in zip(self.copy.files[disks:], images[disks:], strict=True)
        }
        self.disk_bytes = tuple(file.bytes for file in self.copy.disks)
        self._first = first_block_of_disk(self.disk_bytes, self.block_bytes)

    def read(self, blocks: Sequence[int]) -> list[bytes]:
        """As `Source.read`; the store's reader checks each signature."""
        found: dict[int, bytes] = {}
        for disk, first, count in _runs(blocks, self._first):
            base = self._first[disk]
            for block, data in self._disks[disk].contents(first, first + count):
                # a view would keep everything alive that was read with it
                found[base + block] = bytes(data)
        missing = [block for block in blocks if block not in found]
        if missing:
            raise StoreError(f"{self.name}: expected block {missing[0]} to be stored, it is a hole")
        return [found[block] for block in blocks]

    def check(self, block: int, content: bytes) -> None:
        """As `Source.check`."""
        disk, first, _ = next(_runs([block], self._first))
        blocks = self._disks[disk].blocks
        where = blocks.between(first, first + 1)
        if [signature_of(content)] != blocks.signature[where].tolist():
            raise StoreError(f"{self.name}: damaged content of block {block}: not as its signature says")

    def release(self) -> None:
        """As `Source.release`."""
        if self.user in self._store.associations(self.copy.number):
            self._store.dissociate(self.copy.number, self.user)

    def close(self) -> None:
        """As `Source.close`."""
        for disk in self._disks:
            disk.close()
        self._store.close()


class ImageSource:
    """Disk images in place of a backup copy, laid out like a full one; blocks of zeros are holes.

    There are no signatures: damage goes unnoticed.

    Parameters
    ----------
    paths : sequence of path-like
        An image for each disk.
    block_bytes : int
    files : mapping of str to path-like, optional
        The virtual machine's configuration files.

    Raises
    ------
    FileNotFoundError, ImageError
        If there is no such image, or it cannot be read.
    """

    is_signed = False

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        block_bytes: int = DEFAULT_BLOCK_BYTES,
        files: Mapping[str, str | os.PathLike[str]] | None = None,
    ) -> None:
        self.block_bytes = block_bytes
        self.name = ", ".join(os.fspath(path) for path in paths)
        self._disks: list[DiskImage] = []
        try:
            for path in paths:
                self._disks.append(open_image(path))
            self.disk_bytes = tuple(disk.size for disk in self._disks)
            self.layout = _layout(self._disks, block_bytes)
            self.files: Mapping[str, SourceFile] = {
                name: _SmallFile(Path(path).read_bytes()) for name, path in (files or {}).items()
            }
        except BaseException:
            self.close()
            raise
        self._first = first_block_of_disk(self.disk_bytes, block_bytes)

    def read(self, blocks: Sequence[int]) -> list[bytes]:
        """As `Source.read`."""
        contents: list[bytes] = []
        for disk, first, count in _runs(blocks, self._first):
            size = self.block_bytes
            data = bytes(self._disks[disk].read(first * size, count * size))
            contents += [data[at * size : (at + 1) * size] for at in range(count)]
        return contents

    def check(self, block: int, content: bytes) -> None:
        """As `Source.check`: there is nothing to check against."""

    def release(self) -> None:
        """As `Source.release`: an image is not associated with anyone."""

    def close(self) -> None:
        """As `Source.close`."""
        for disk in self._disks:
            disk.close()


class _SmallFile:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def _runs(blocks: Sequence[int], first_blocks: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Give (disk, first block there, number) for each run of neighbours on one disk."""
    disk_of = [int(np.searchsorted(first_blocks, block, side="right")) - 1 for block in blocks]
    numbered = enumerate(zip(disk_of, blocks, strict=True))
    for _, group in itertools.groupby(numbered, key=lambda entry: (entry[1][0], entry[1][1] - entry[0])):
        members = [block for _, (_, block) in group]
        disk = int(np.searchsorted(first_blocks, members[0], side="right")) - 1
        yield disk, members[0] - first_blocks[disk], len(members)


def _layout(disks: Sequence[DiskImage], block_bytes: int) -> BackupLayout:
    """Lay the blocks that are not zeros one behind the other."""
    disk_bytes = tuple(disk.size for disk in disks)
    stored = np.concatenate([_is_stored(disk, block_bytes) for disk in disks])
    length = np.full(len(stored), block_bytes, np.int64)
    for disk, first in enumerate(first_block_of_disk(disk_bytes, block_bytes)):
        last = block_count(disk_bytes[disk : disk + 1], block_bytes) - 1
        length[first + last] = disk_bytes[disk] - last * block_bytes
    length[~stored] = 0
    address = np.where(stored, np.cumsum(length) - length, -1)
    nowhere = np.where(stored, 0, -1).astype(np.int32)
    return BackupLayout(block_bytes, disk_bytes, address, nowhere, nowhere)


def _is_stored(disk: DiskImage, block_bytes: int) -> npt.NDArray[np.bool_]:
    """Tell for each block of a disk whether it is anything but zeros."""
    stored = np.zeros(block_count([disk.size], block_bytes), np.bool_)
    for start, end in disk.extents():
        at = start - start % block_bytes
        while at < end:
            data = np.frombuffer(disk.read(at, min(_SCAN_BYTES, disk.size - at)), np.uint8)
            whole = len(data) // block_bytes
            first = at // block_bytes
            rows = data[: whole * block_bytes].reshape(whole, block_bytes)
            stored[first : first + whole] = rows.view(np.uint64).any(axis=1)
            if whole * block_bytes < len(data):
                stored[first + whole] = data[whole * block_bytes :].any()
            at += _SCAN_BYTES
    return stored
