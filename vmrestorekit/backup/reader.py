"""Reading a copy back: each of its files as an image, every block checked against its signature."""

from __future__ import annotations

import collections
import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import zstandard

from vmrestorekit.backup.block_map import BlockMap
from vmrestorekit.backup.chunk import CODECS, ChunkId, container_path, signature_of
from vmrestorekit.backup.images import DiskImage
from vmrestorekit.backup.index import Slot
from vmrestorekit.backup.records import StoreError
from vmrestorekit.backup.store import BackupCopy, BackupStore

__all__ = ["ContentReader", "CopyImage", "decompress", "open_copy"]

_OPEN_CONTAINERS = 64
_KEPT_FRAME_BYTES = 32 << 20
_ZSTD = CODECS.index("zstd")
_thread = threading.local()


def open_copy(store: BackupStore, copy: BackupCopy) -> list[CopyImage]:
    """Return each file of a copy as an image, its disks first; they share one reader.

    Raises
    ------
    StoreError
        If a chunk of the copy or of its chain is missing or its header damaged.
    """
    reader = ContentReader(store)
    maps = store.maps(copy)
    return [
        CopyImage(f"{store.path}, copy {copy.number}, {file.name}", file.bytes, blocks, reader)
        for file, blocks in zip(copy.files, maps, strict=True)
    ]


class CopyImage(DiskImage):
    """One file of a copy; several threads may read it."""

    def __init__(self, name: str, size: int, blocks: BlockMap, reader: ContentReader) -> None:
        self.name, self.size, self.blocks = name, size, blocks
        self._reader = reader
        self.block_bytes = reader.block_bytes

    def read(self, offset: int, length: int) -> memoryview:
        """As `DiskImage.read`; `StoreError` if what is stored is damaged."""
        length = min(length, self.size - offset)
        if length <= 0:
            return memoryview(b"")
        first, end = offset // self.block_bytes, -(-(offset + length) // self.block_bytes)
        start = first * self.block_bytes
        contents = self.contents(first, end)
        if contents and end - first == 1:  # as most readers ask: nothing to put together
            whole = memoryview(contents[0][1])
        else:
            whole = memoryview(bytearray(min(end * self.block_bytes, self.size) - start))
            for block, data in contents:
                at = block * self.block_bytes - start
                whole[at : at + len(data)] = data
        return whole[offset - start : offset - start + length]

    def contents(self, first: int, end: int) -> list[tuple[int, bytes | memoryview]]:
        """Return the blocks in a range that are not zeros, each with its data."""
        blocks = self.blocks
        where = blocks.between(first, end)
        slots = zip(
            blocks.copy[where].tolist(),
            blocks.sequence[where].tolist(),
            blocks.slot[where].tolist(),
            strict=True,
        )
        numbers = blocks.block[where].tolist()
        try:
            data = self._reader.read(list(slots), blocks.signature[where].tolist())
        except StoreError as error:
            raise StoreError(f"{self.name}: {error}") from error
        found = []
        for number, content in zip(numbers, data, strict=True):
            expected = min(self.block_bytes, self.size - number * self.block_bytes)
            if len(content) != expected:
                raise StoreError(
                    f"{self.name}: expected block {number} to have {expected} bytes, got {len(content)}"
                )
            found.append((number, content))
        return found

    def close(self) -> None:
        """As `DiskImage.close`; of all files of the copy."""
        self._reader.close()

    def extents(self) -> Iterator[tuple[int, int]]:
        """As `DiskImage.extents`."""
        block = self.blocks.block
        ends = np.flatnonzero(np.diff(block) != 1)
        firsts = block[np.concatenate([[0], ends + 1])] if len(block) else block
        lasts = block[np.concatenate([ends, [len(block) - 1]])] if len(block) else block
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            yield first * self.block_bytes, min((last + 1) * self.block_bytes, self.size)


class ContentReader:
    """Reads contents of a store by where they are; keeps containers open and the last frames decompressed."""

    def __init__(self, store: BackupStore) -> None:
        self.block_bytes = store.block_bytes
        self._store = store
        self._lock = threading.Lock()
        self._containers: collections.OrderedDict[tuple[int, int, int], BinaryIO] = collections.OrderedDict()
        self._frames: collections.OrderedDict[tuple[int, int, int, int], bytes | memoryview] = (
            collections.OrderedDict()
        )
        self._kept_bytes = 0

    def read(self, slots: list[Slot], signatures: list[bytes]) -> list[bytes | memoryview]:
        """Return the contents at these places; neighbours in a container are read at once.

        Raises
        ------
        StoreError
            If a container is missing or too short, or a content does not have its signature.
        """
        rows = self._rows(slots)
        contents: list[bytes | memoryview] = []
        while len(contents) < len(slots):
            start = len(contents)
            end = start + 1
            if _shares_frame(rows[start]):
                contents.append(self._from_shared(slots[start], rows[start]))
                continue
            while end < len(slots) and _follows(slots, rows, end):
                end += 1
            contents += self._neighbours(slots[start:end], rows[start:end])
        for slot, content, signature in zip(slots, contents, signatures, strict=True):
            if signature_of(content) != signature:
                folder = ChunkId(*slot[:2]).folder
                raise StoreError(
                    f"damaged content in chunk {folder}, slot {slot[2]}: not as its signature says"
                )
        return contents

    def _rows(self, slots: list[Slot]) -> list[Any]:
        rows: list[Any] = []
        for chunk, group in itertools.groupby(slots, key=lambda slot: slot[:2]):
            stored = self._store.header(ChunkId(*chunk)).stored
            numbers = [slot for _, _, slot in group]
            if max(numbers) >= len(stored):
                raise StoreError(
                    f"chunk {ChunkId(*chunk).folder}: expected a slot {max(numbers)}, it has {len(stored)}"
                )
            rows += stored[numbers].tolist()
        return rows

    def _neighbours(self, slots: list[Slot], rows: list[Any]) -> list[bytes | memoryview]:
        """Read contents that have frames of their own, which follow each other, at once."""
        data = self._bytes(slots[0], rows[0][1], rows[0][2], sum(row[3] for row in rows))
        frames, at = memoryview(data), 0
        contents = []
        for slot, row in zip(slots, rows, strict=True):
            contents.append(_decoded(slot, row, frames[at : at + row[3]]))
            at += row[3]
        return contents

    def _from_shared(self, slot: Slot, row: Any) -> memoryview:
        """Return a content from a frame that others will be wanted from."""
        _, container, offset, frame_bytes, _, position, block_bytes, _, _ = row
        key = (slot[0], slot[1], container, offset)
        with self._lock:
            raw = self._frames.get(key)
            if raw is not None:
                self._frames.move_to_end(key)
        if raw is None:
            raw = _decoded(slot, row, self._bytes(slot, container, offset, frame_bytes))
            self._keep(key, raw)
        return memoryview(raw)[position : position + block_bytes]

    def _keep(self, key: tuple[int, int, int, int], raw: bytes | memoryview) -> None:
        with self._lock:
            if key not in self._frames:
                self._frames[key] = raw
                self._kept_bytes += len(raw)
            while self._kept_bytes > _KEPT_FRAME_BYTES:
                self._kept_bytes -= len(self._frames.popitem(last=False)[1])

    def _bytes(self, slot: Slot, container: int, offset: int, length: int) -> bytes:
        file = self._container((slot[0], slot[1], container))
        data = os.pread(file.fileno(), length, offset)
        if len(data) != length:
            raise StoreError(
                f"{file.name}: expected {length} bytes at {offset}, the file ended after {len(data)}"
            )
        return data

    def close(self) -> None:
        """Close the containers; they are opened again when needed."""
        with self._lock:
            for file in self._containers.values():
                file.close()
            self._containers.clear()
            self._frames.clear()
            self._kept_bytes = 0

    def _container(self, key: tuple[int, int, int]) -> BinaryIO:
        with self._lock:
            file = self._containers.get(key)
            if file is None:
                path = container_path(self._store.chunk_folder(ChunkId(*key[:2])), key[2])
                try:
                    file = open(path, "rb", buffering=0)  # noqa: SIM115 - kept
                except FileNotFoundError:
                    raise StoreError(f"{path}: expected a container file, found no such file") from None
                self._containers[key] = file
            self._containers.move_to_end(key)
            if len(self._containers) > _OPEN_CONTAINERS:
                self._containers.popitem(last=False)  # closed when the last thread that reads it lets go
            return file


def decompress(data: bytes | memoryview, raw_bytes: int) -> bytes:
    """Return a zstd frame of so many bytes as it was before; `StoreError` if that cannot be."""
    if not hasattr(_thread, "zstd"):
        _thread.zstd = zstandard.ZstdDecompressor()
    try:
        # it could tell any size; ours is under a checksum
        if zstandard.frame_content_size(data) != raw_bytes:
            raise zstandard.ZstdError("it tells another size")
        raw: bytes = _thread.zstd.decompress(data)
    except zstandard.ZstdError as error:
        raise StoreError(f"damaged frame: {error}") from error
    return raw


def _decoded(slot: Slot, row: Any, frame: bytes | memoryview) -> bytes | memoryview:
    if row[7] != _ZSTD:
        return frame
    try:
        return decompress(frame, row[4])
    except StoreError as error:
        raise StoreError(f"chunk {ChunkId(*slot[:2]).folder}, slot {slot[2]}: {error}") from error


def _shares_frame(row: Any) -> bool:
    return bool(row[4] > row[6])


def _follows(slots: list[Slot], rows: list[Any], at: int) -> bool:
    """Tell whether a content has a frame of its own that begins where the one before ends."""
    before, row = rows[at - 1], rows[at]
    return (
        slots[at][:2] == slots[at - 1][:2]
        and not _shares_frame(row)
        and row[1] == before[1]
        and row[2] == before[2] + before[3]
    )
