"""Letting copies go: space comes back where no block of another copy is a link to it, and only there."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from vmrestorekit.backup.chunk import ZEROS, ChunkHeader, ChunkId, container_path
from vmrestorekit.backup.records import StoreError, flush_folder
from vmrestorekit.backup.store import BackupCopy, BackupStore

__all__ = ["drop_copies", "expire_copies", "free_ranges", "release"]

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_ZEROS = bytes(1 << 20)


def expire_copies(store: BackupStore, numbers: Sequence[int]) -> int:
    """Delete copies, and give back the space of contents that no other copy links to.

    Returns
    -------
    int
        Bytes of the contents that were given back, as stored.

    Raises
    ------
    StoreError
        If there is no such copy, another copy lists its changes against it, or a virtual machine runs from
        it or from one that needs it. Then none is deleted.
    """
    with store.writing():
        leaving = [store.copy(number) for number in dict.fromkeys(numbers)]
        gone = {copy.number for copy in leaving}
        for copy in store.copies():
            if copy.number not in gone and copy.parent in gone:
                raise StoreError(
                    f"{store.path}: copy {copy.parent} is the parent of copy {copy.number}; synthesise a "
                    f"full copy of {copy.number} and expire it first, or expire both"
                )
        for copy in leaving:
            for user in store.associations(copy.number):
                raise StoreError(
                    f"{store.path}: copy {copy.number} is associated with {user!r}, which runs from it"
                )
        leaving += [attempt for attempt in store.attempts() if attempt.parent in gone]
        return drop_copies(store, leaving)


def drop_copies(store: BackupStore, copies: Sequence[BackupCopy]) -> int:
    """Delete copies or attempts without asking; the store's lock is held. Return the bytes given back."""
    if not copies:
        return 0
    numbers = {copy.number for copy in copies}
    chunks = [chunk for chunk in store.chunks_there() if chunk.copy in numbers]
    headers = {chunk: store.intact_header(chunk) for chunk in chunks}
    for header in list(headers.values()):
        headers |= {target: store.intact_header(target) for target in header.targets() - set(headers)}
    # children go before parents, so that no copy is there without what it needs
    for copy in sorted(copies, key=lambda copy: -copy.number):
        # with the name of its record the copy is gone; the next writer would finish the rest
        path = store.copy_path(copy.number, copy.complete)
        if copy.complete:
            store.retire_number(copy.number)
        os.replace(path, path.with_suffix(".expiring"))
        flush_folder(path.parent)
        # somebody may have associated it since that was looked at; see `BackupStore.associate`
        if copy.complete and store.associations(copy.number):
            os.replace(path.with_suffix(".expiring"), path)
            flush_folder(path.parent)
            raise StoreError(f"{store.path}: copy {copy.number} has just been associated and stays")
    with store.index.transaction():
        store.index.unlink(chunks)
        freed = release(store, headers)
    for copy in copies:
        store.copy_path(copy.number, copy.complete).with_suffix(".expiring").unlink()
    return freed


def release(store: BackupStore, headers: dict[ChunkId, ChunkHeader]) -> int:
    """Punch holes where these chunks hold contents without links; delete chunks without any; return bytes.

    The links are counted from the headers of the copies that are left: what is given back is lost for good,
    so the index is not trusted with it.
    """
    live = {copy.number for copy in [*store.copies(), *store.attempts()]}
    slots = _linked_slots(store, headers, live)
    freed = 0
    for chunk, header in headers.items():
        linked = slots[chunk]
        if not linked and chunk.copy not in live:
            freed += sum(length for _, _, length in free_ranges(header, linked))
            store.remove_chunk(chunk)
            store.index.forget(chunk)
            continue
        for container, ranges in _by_container(free_ranges(header, linked)):
            path = container_path(store.chunk_folder(chunk), container)
            with open(path, "r+b", buffering=0) as file:
                for start, length in ranges:
                    freed += _punch(file.fileno(), start, length)
                os.fsync(file.fileno())
    return freed


def _linked_slots(store: BackupStore, chunks: Iterable[ChunkId], live: set[int]) -> dict[ChunkId, set[int]]:
    """Return for each of these chunks the slots that blocks of live copies link to."""
    slots: dict[ChunkId, set[int]] = {chunk: set() for chunk in chunks}
    if not slots:
        return slots
    for chunk in store.chunks_there():
        if chunk.copy in live:
            header = store.intact_header(chunk)
            for target in header.targets() & set(slots):
                rows = header.blocks[(header.blocks["copy"] == target.copy)]
                rows = rows[(rows["sequence"] == target.sequence) & (rows["slot"] != ZEROS)]
                slots[target].update(rows["slot"].tolist())
    return slots


def free_ranges(header: ChunkHeader, linked: set[int]) -> Iterator[tuple[int, int, int]]:
    """Give the parts of a chunk (container, first byte, number of bytes) without any of these slots."""
    columns = (header.stored[name].tolist() for name in ("container", "offset", "frame_bytes"))
    frames: dict[tuple[int, int, int], bool] = {}
    for slot, frame in enumerate(zip(*columns, strict=True)):
        frames[frame] = frames.get(frame, False) or slot in linked
    current: tuple[int, int, int] | None = None
    for (container, start, length), used in frames.items():
        if used:
            continue
        if current is not None and current[0] == container and current[1] + current[2] == start:
            current = container, current[1], current[2] + length
            continue
        if current is not None:
            yield current
        current = container, start, length
    if current is not None:
        yield current


def _by_container(
    ranges: Iterable[tuple[int, int, int]],
) -> list[tuple[int, list[tuple[int, int]]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for container, start, length in ranges:
        found.setdefault(container, []).append((start, length))
    return list(found.items())


def _punch(descriptor: int, start: int, length: int) -> int:
    """Make a hole; where a system has none, zeros, so that what was there is gone in any case."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.fallocate(
            descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(length)
        )
        if result == 0:
            return length
    for position in range(start, start + length, len(_ZEROS)):
        os.pwrite(descriptor, _ZEROS[: start + length - position], position)
    return length
