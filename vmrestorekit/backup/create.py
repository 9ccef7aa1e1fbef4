"""Making a backup copy of a virtual machine's files: full, incremental, differential, or synthetic full."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vmrestorekit.backup.block_map import BlockMap, block_maps
from vmrestorekit.backup.chunk import ChunkHeader, ChunkId, signature_of
from vmrestorekit.backup.copy_writer import CopyWriter
from vmrestorekit.backup.images import DiskImage, open_image
from vmrestorekit.backup.index import Slot
from vmrestorekit.backup.layout import CopySettings
from vmrestorekit.backup.progress import Progress, silent
from vmrestorekit.backup.reader import open_copy
from vmrestorekit.backup.records import StoreError, flush_folder, write_record
from vmrestorekit.backup.retention import drop_copies
from vmrestorekit.backup.store import BackupCopy, BackupStore, CopyFile

__all__ = ["create_copy", "synthesise_full"]

_BATCH_BYTES = 4 << 20
_BATCHES_AHEAD = 4


def create_copy(
    store: BackupStore,
    vm: str,
    disks: Sequence[str | os.PathLike[str]],
    *,
    kind: str = "full",
    configuration: Sequence[str | os.PathLike[str]] = (),
    settings: CopySettings | None = None,
    streams: int = 1,
    progress: Progress = silent,
) -> BackupCopy:
    """Back up a virtual machine; interrupted at any moment, the same call goes on where it was.

    Parameters
    ----------
    store : BackupStore
    vm : str
        The virtual machine's name.
    disks : sequence of path-like
        Its disk images: raw, QCOW2 or VMDK. Holes are not read.
    kind : {"full", "incremental", "differential"}
        An incremental copy lists the blocks that changed since the latest copy of the machine, a
        differential one those that changed since its latest full copy.
    configuration : sequence of path-like
        Files that describe the machine; they are part of its backup.
    settings : CopySettings, optional
    streams : int
        How many chunks are written at the same time.
    progress : Progress, optional
        Is told how many bytes of the disks were read.

    Returns
    -------
    BackupCopy

    Raises
    ------
    StoreError
        If there is no copy to list changes against, the name or the kind is not possible, or another process
        writes to the store.
    ImageError
        If an image cannot be read.
    """
    if kind not in ("full", "incremental", "differential"):
        raise StoreError(f"kind: expected full, incremental or differential, got {kind!r}")
    if not vm or vm != vm.strip() or not vm.isprintable():
        raise StoreError(f"expected a name for the virtual machine, got {vm!r}")
    if not disks:
        raise StoreError(f"{vm}: expected at least one disk image, got none")
    if streams < 1:
        raise StoreError(f"expected at least one data stream, got {streams}")
    with contextlib.ExitStack() as stack:
        images = [stack.enter_context(open_image(disk)) for disk in disks]
        images += [_FileImage(Path(file)) for file in configuration]
        roles = ["disk"] * len(disks) + ["configuration"] * len(configuration)
        names = _distinct_names([Path(file).name for file in [*disks, *configuration]])
        files = tuple(
            CopyFile(name, role, image.size) for name, role, image in zip(names, roles, images, strict=True)
        )
        stack.enter_context(store.writing())
        wanted = BackupCopy(
            *(0, vm, kind, _parent(store, vm, kind), _now(), files, (), {}),
            dataclasses.asdict(settings or CopySettings()),
            complete=False,
        )
        copy, done = _take_up(store, wanted)
        base = _base(store, copy, done)
        return _write_copy(store, copy, images, base, done, streams, progress)


def synthesise_full(
    store: BackupStore,
    number: int,
    *,
    rewrite: bool = False,
    settings: CopySettings | None = None,
    streams: int = 1,
    progress: Progress = silent,
) -> BackupCopy:
    """Make a full copy that equals an existing one, from the store alone: the source is not read.

    Parameters
    ----------
    store : BackupStore
    number : int
        The copy to equal, mostly the last of a chain of incremental copies.
    rewrite : bool
        Write all contents anew, one after the other in the order of the disk. Without it the new copy has
        nothing but links to contents where they are: no new space, and as many containers to visit as before.
    settings, streams, progress
        As of `create_copy`, for rewriting.

    Raises
    ------
    StoreError
        If there is no such copy, or a content of it is damaged.
    """
    with store.writing():
        origin = store.copy(number)
        wanted = dataclasses.replace(
            origin,
            number=0,
            kind="synthetic_full",
            parent=None,
            chunks=(),
            counts={},
            settings=dataclasses.asdict(settings or CopySettings())
            | {"origin": number, "rewritten": rewrite},
            complete=False,
        )
        copy, done = _take_up(store, wanted)
        images = open_copy(store, origin)
        try:
            base = _base(store, copy, done)
            if rewrite:
                return _write_copy(store, copy, images, base, done, streams, progress, rewrite=True)
            maps = [image.blocks for image in images]
            return _write_links(store, copy, maps, base, done)
        finally:
            images[0].close()


# --- beginning and ending -----------------------------------------------------------------------------


def _parent(store: BackupStore, vm: str, kind: str) -> int | None:
    if kind == "full":
        return None
    copies = [copy for copy in store.copies() if copy.vm == vm]
    if kind == "differential":
        copies = [copy for copy in copies if copy.parent is None]
    if not copies:
        raise StoreError(
            f"{store.path}: expected a full copy of {vm!r} for the {kind} one to build on, found none"
        )
    return copies[-1].number


def _take_up(store: BackupStore, wanted: BackupCopy) -> tuple[BackupCopy, list[ChunkHeader]]:
    """Return the attempt to go on with and its sealed chunks: one that was interrupted, or a new one."""
    others = []
    for attempt in store.attempts():
        if attempt.vm == wanted.vm:
            same = dataclasses.replace(attempt, number=0, created=wanted.created) == wanted
            if same:
                chunks = [chunk for chunk in store.chunks_there() if chunk.copy == attempt.number]
                return attempt, [store.header(chunk) for chunk in chunks]
            others.append(attempt)
    drop_copies(store, others)
    numbers = [copy.number for copy in [*store.copies(), *store.attempts()]]
    numbers += [store.highest_retired(), *(chunk.copy for chunk in store.chunks_there())]
    copy = dataclasses.replace(wanted, number=max(numbers, default=0) + 1)
    write_record(store.copy_path(copy.number, complete=False), copy.to_record())
    return copy, []


def _base(store: BackupStore, copy: BackupCopy, done: list[ChunkHeader]) -> list[BlockMap]:
    """Return what the copy would be with the chunks that there are: the parent, changed by what was done."""
    if copy.parent is None:
        return block_maps(done, [file.bytes for file in copy.files], store.block_bytes)
    parent = dataclasses.replace(store.copy(copy.parent), files=copy.files)
    return store.maps(parent, done)


def _complete(store: BackupStore, copy: BackupCopy, counts: dict[str, int]) -> BackupCopy:
    chunks = tuple(chunk.sequence for chunk in store.chunks_there() if chunk.copy == copy.number)
    copy = dataclasses.replace(copy, chunks=chunks, counts=counts, complete=True)
    write_record(store.copy_path(copy.number), copy.to_record())
    # from here on the copy exists; an attempt beside it is one that was completed
    store.copy_path(copy.number, complete=False).unlink()
    flush_folder(store.path / "copies")
    return copy


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _distinct_names(names: list[str]) -> list[str]:
    distinct: list[str] = []
    for name in names:
        tries = (name if number == 1 else f"{number}-{name}" for number in itertools.count(1))
        distinct.append(next(each for each in tries if each not in distinct))
    return distinct


class _FileImage(DiskImage):
    """A file of any size as an image, read at once."""

    def __init__(self, path: Path) -> None:
        self.name = os.fspath(path)
        self._data = path.read_bytes()
        self.size = len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """As `DiskImage.read`."""
        return self._data[offset : offset + length]


# --- writing ------------------------------------------------------------------------------------------


def _write_copy(
    store: BackupStore,
    copy: BackupCopy,
    images: Sequence[DiskImage],
    base: list[BlockMap],
    done: list[ChunkHeader],
    streams: int,
    progress: Progress,
    rewrite: bool = False,
) -> BackupCopy:
    """Write what the images have and the base has not; complete the copy."""
    ranges = [list(_ranges(image, store.block_bytes)) for image in images]
    total = sum(end - first for each in ranges for first, end in each) * store.block_bytes
    read = 0
    progress(0, total)
    with _writer(store, copy, done, streams) as writer:
        copying = _Copying(store, copy, writer, rewrite)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for file, image in enumerate(images):
                position = 0
                for batch in _described(image, ranges[file], store.block_bytes, pool):
                    copying.zeros(file, base[file].block[base[file].between(position, batch.first)].tolist())
                    copying.changes(file, batch, base[file])
                    position = batch.first + len(batch.signatures)
                    read += len(batch.signatures) * store.block_bytes
                    progress(read, total)
                copying.zeros(file, base[file].block[base[file].between(position, 2**62)].tolist())
        copying.register(writer.finish())
    return _complete(store, copy, copying.counts)


def _write_links(
    store: BackupStore, copy: BackupCopy, maps: list[BlockMap], base: list[BlockMap], done: list[ChunkHeader]
) -> BackupCopy:
    """Write a copy that has nothing but links; what is in the base is there already."""
    with _writer(store, copy, done, 1) as writer:
        copying = _Copying(store, copy, writer, False)
        for file, (wanted, there) in enumerate(zip(maps, base, strict=True)):
            fresh = ~np.isin(wanted.block, there.block)
            columns = (wanted.block, wanted.signature, wanted.copy, wanted.sequence, wanted.slot)
            for block, signature, *slot in zip(*(column[fresh].tolist() for column in columns), strict=True):
                writer.link(file, block, signature, (slot[0], slot[1], slot[2]))
            copying.counts["linked_blocks"] += len(wanted.block)
        copying.register(writer.finish())
    return _complete(store, copy, copying.counts)


def _writer(store: BackupStore, copy: BackupCopy, done: list[ChunkHeader], streams: int) -> CopyWriter:
    names = {field.name for field in dataclasses.fields(CopySettings)}
    settings = CopySettings(**{key: value for key, value in copy.settings.items() if key in names})
    sequence = max((header.id.sequence for header in done), default=-1) + 1
    return CopyWriter(
        *(store.path / "chunks", copy.number, sequence, copy.vm, [file.name for file in copy.files]),
        *(store.block_bytes, settings, streams),
    )


class _Batch(NamedTuple):
    """Neighbouring blocks as read: the number of the first, signatures (None: zeros), their bytes."""

    first: int
    signatures: list[bytes | None]
    data: memoryview


class _Copying:
    """Writes blocks that differ from a base, or links to where the store has their contents already."""

    def __init__(self, store: BackupStore, copy: BackupCopy, writer: CopyWriter, rewrite: bool) -> None:
        self._store, self._copy, self._writer, self._rewrite = store, copy, writer, rewrite
        self._unsealed: dict[bytes, Slot] = {}  # contents whose chunk is not in the index yet
        self._waiting: dict[ChunkId, ChunkHeader] = {}
        self._registered = set(store.index.chunks())
        names = ("new_blocks", "linked_blocks", "zero_blocks", "new_bytes", "stored_bytes")
        self.counts = dict.fromkeys(names, 0)

    def changes(self, file: int, batch: _Batch, base: BlockMap) -> None:
        """Write the blocks of a batch that are not as in the base."""
        block_bytes = self._store.block_bytes
        there = base.between(batch.first, batch.first + len(batch.signatures))
        before = dict(zip(base.block[there].tolist(), base.signature[there].tolist(), strict=True))
        changed = [
            (block, signature)
            for block, signature in enumerate(batch.signatures, batch.first)
            if before.get(block) != signature
        ]
        wanted = {signature for _, signature in changed if signature is not None}
        asked = [] if self._rewrite else [each for each in wanted if each not in self._unsealed]
        known = self._known(asked)
        for block, signature in changed:
            if signature is None:
                self.zeros(file, [block])
                continue
            place = self._unsealed.get(signature) or known.get(signature)
            if place is not None:
                self._writer.link(file, block, signature, place)
                self.counts["linked_blocks"] += 1
                continue
            start = (block - batch.first) * block_bytes
            # bytes of its own, so that the batch need not be kept until they are written
            data = bytes(batch.data[start : start + block_bytes])
            self._unsealed[signature] = self._writer.add(file, block, signature, data)
            self.counts["new_blocks"] += 1
            self.counts["new_bytes"] += len(data)
        self.register(self._writer.sealed())

    def _known(self, signatures: list[bytes]) -> dict[bytes, Slot]:
        """Return where the store has contents; what the index says is checked against the chunk's header."""
        known = {}
        for signature, slot in self._store.index.find(signatures).items():
            chunk = ChunkId(*slot[:2])
            if chunk in self._registered:
                stored = self._store.header(chunk).stored["signature"]
                if slot[2] < len(stored) and stored[slot[2]].tobytes() == signature:
                    known[signature] = slot
        return known

    def zeros(self, file: int, blocks: Sequence[int]) -> None:
        """Note blocks that became zeros."""
        for block in blocks:
            self._writer.zero(file, block)
        self.counts["zero_blocks"] += len(blocks)

    def register(self, headers: list[ChunkHeader]) -> None:
        """Take durable chunks into the index, once the chunks of this copy that they link to are durable."""
        self._waiting |= {header.id: header for header in headers}
        durable = self._registered | set(self._waiting)
        for chunk, header in sorted(self._waiting.items()):
            if any(target not in durable for target in header.targets()):
                continue
            with self._store.index.transaction():
                self._store.index.add(header)
            self._registered.add(chunk)
            del self._waiting[chunk]
            self.counts["stored_bytes"] += sum(header.container_bytes)
            if not self._rewrite:
                for signature in header.stored["signature"].tolist():
                    self._unsealed.pop(signature, None)


def _ranges(image: DiskImage, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Give the ranges of blocks (first, end) that may hold data, none twice."""
    end = 0
    for start, stop in image.extents():
        first = max(end, start // block_bytes)
        end = max(end, -(-stop // block_bytes))
        if first < end:
            yield first, end


def _described(
    image: DiskImage, ranges: list[tuple[int, int]], block_bytes: int, pool: concurrent.futures.Executor
) -> Iterator[_Batch]:
    """Read and hash the ranges in batches, some ahead, in their order."""
    count = max(1, _BATCH_BYTES // block_bytes)
    pending: collections.deque[concurrent.futures.Future[_Batch]] = collections.deque()
    for first, end in ranges:
        for start in range(first, end, count):
            pending.append(pool.submit(_describe, image, start, min(count, end - start), block_bytes))
            if len(pending) > _BATCHES_AHEAD:
                yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _describe(image: DiskImage, first: int, count: int, block_bytes: int) -> _Batch:
    data = memoryview(image.read(first * block_bytes, count * block_bytes))
    whole = len(data) // block_bytes * block_bytes
    words = np.frombuffer(data[:whole], np.uint64).reshape(-1, block_bytes // 8)
    filled: list[bool] = np.asarray(words.any(axis=1)).tolist()
    if whole < len(data):
        filled.append(any(data[whole:]))
    signatures = [
        signature_of(data[start : start + block_bytes]) if is_filled else None
        for is_filled, start in zip(filled, range(0, len(data), block_bytes), strict=True)
    ]
    return _Batch(first, signatures, data)
