"""Checking every byte of a store, and naming what a damage affects."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import xxhash

from vmrestorekit.backup.chunk import (
    CODECS,
    CONTAINER_HEADER_BYTES,
    ZEROS,
    ChunkHeader,
    ChunkId,
    container_header,
    container_path,
    signature_of,
)
from vmrestorekit.backup.files import find_files
from vmrestorekit.backup.index import Slot, count_links
from vmrestorekit.backup.progress import Progress, silent
from vmrestorekit.backup.reader import ContentReader, CopyImage, decompress
from vmrestorekit.backup.records import StoreError, read_record
from vmrestorekit.backup.store import BackupCopy, BackupStore
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["Damage", "verify_store"]

_MOST_TRIES = 3


@dataclasses.dataclass(frozen=True)
class Damage:
    """Something in a store that is not as it was written.

    Attributes
    ----------
    what : str
        One sentence: where, and what is wrong.
    copy : int or None
        A copy that it affects; None if none is.
    vm : str
        The virtual machine of that copy.
    files : tuple of str
        What it affects of that machine: paths of files, or ``"<disk>: bytes a to b"`` where no file is known;
        empty if the whole copy is.
    """

    what: str
    copy: int | None = None
    vm: str = ""
    files: tuple[str, ...] = ()


def verify_store(store: BackupStore, progress: Progress = silent) -> list[Damage]:
    """Check records, chunk headers, every content and the index; return what is wrong.

    What an interruption leaves behind is no damage: the next command that writes puts it right.

    Parameters
    ----------
    store : BackupStore
    progress : Progress, optional
        Is told how many bytes of the containers were checked.
    """
    for _ in range(_MOST_TRIES):
        store.close()  # what is kept in memory may be of before
        before = _names(store)
        found = _Verification(store, progress).run()
        if not found or _names(store) == before:
            break  # else another process wrote to the store meanwhile, and it may be that what was found
    return found


def _names(store: BackupStore) -> list[str]:
    return sorted(str(path) for folder in ("copies", "chunks") for path in (store.path / folder).iterdir())


class _Verification:
    def __init__(self, store: BackupStore, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._found: list[Damage] = []
        self._copies: dict[int, BackupCopy] = {}
        self._headers: dict[ChunkId, ChunkHeader] = {}
        self._bad_slots: dict[Slot, str] = {}
        self._bad_chunks: dict[ChunkId, str] = {}

    def run(self) -> list[Damage]:
        self._read_copies()
        self._read_headers()
        self._check_links()
        self._check_containers()
        self._check_index()
        self._tell_what_is_affected()
        return self._found

    def _read_copies(self) -> None:
        for folder in ("copies", "associations"):
            for path in sorted((self._store.path / folder).glob("[0-9]*.json")):
                try:
                    record = read_record(path)
                    if folder == "copies":
                        copy = BackupCopy.from_record(record, complete=".attempt" not in path.name)
                        if copy.number != int(path.name.split(".")[0]):
                            raise StoreError(f"{path}: the record of another copy, {copy.number}")
                        if copy.complete or copy.number not in self._copies:
                            self._copies[copy.number] = copy
                except StoreError as error:
                    number = int(re.split(r"[.-]", path.name)[0])
                    self._found.append(Damage(str(error), number if folder == "copies" else None))

    def _read_headers(self) -> None:
        there = self._store.chunks_there()
        expected = {chunk for copy in self._copies.values() if copy.complete for chunk in copy.chunk_ids}
        for chunk in sorted(expected | set(there)):
            try:
                self._headers[chunk] = self._store.header_on_disk(chunk)
            except StoreError as error:
                self._bad_chunks[chunk] = str(error)
        live = {chunk for chunk in there if chunk.copy in self._copies}
        for chunk in sorted(live - expected):
            if self._copies[chunk.copy].complete:
                self._found.append(Damage(f"chunk {chunk.folder}: copy {chunk.copy} does not know it"))

    def _check_links(self) -> None:
        """Every block of a copy that exists is a link to a content with the signature it names."""
        for chunk, header in self._headers.items():
            if chunk.copy not in self._copies:
                continue
            rows = header.blocks[header.blocks["slot"] != ZEROS]
            for target in header.targets():
                there = self._headers.get(target)
                if there is None and target.copy == chunk.copy and not self._copies[chunk.copy].complete:
                    continue  # interrupted before that one was sealed
                if there is None:
                    self._bad_chunks.setdefault(target, f"chunk {target.folder}: missing")
                    continue
                mine = rows[(rows["copy"] == target.copy) & (rows["sequence"] == target.sequence)]
                inside = mine["slot"] < len(there.stored)
                same = there.stored["signature"][mine["slot"][inside]] == mine["signature"][inside]
                if not inside.all() or not same.all():
                    self._bad_chunks[chunk] = (
                        f"chunk {chunk.folder}: links to contents that chunk {target.folder} does not have"
                    )

    def _check_containers(self) -> None:
        linked = set(count_links(header for id, header in self._headers.items() if id.copy in self._copies))
        work = [
            (header, container)
            for header in self._headers.values()
            for container in range(len(header.container_bytes))
        ]
        total, done = sum(header.container_bytes[container] for header, container in work), 0
        self._progress(done, total)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            checks = [pool.submit(_check_container, self._store, *each, linked) for each in work]
            try:
                for (header, container), check in zip(work, checks, strict=True):
                    text, slots = check.result()
                    for slot in slots:
                        self._bad_slots[*header.id, slot] = text
                    if text and not slots:
                        self._found.append(Damage(text))
                    done += header.container_bytes[container]
                    self._progress(done, total)
            finally:
                for check in checks:
                    check.cancel()

    def _check_index(self) -> None:
        path = self._store.path / "index.sqlite"
        advice = "it can be deleted, the next command that writes makes it again from the chunk headers"
        if not path.exists():
            if self._headers:
                self._found.append(Damage(f"{path}: missing; the next command that writes makes it again"))
            return
        try:
            index = self._store.index
            known = index.chunks()
            there = {chunk: chunk.copy in self._copies for chunk in self._store.chunks_there()}
            if known != there:
                self._missing_copies(known)
                return  # an interruption: the next writer will see it as well
            for chunk, header in self._headers.items():
                if index.header(chunk).to_bytes() != header.to_bytes():
                    raise StoreError(f"{path}: chunk {chunk.folder} has another header in it than on disk")
            if self._bad_chunks:
                return  # the links cannot be counted
            counted = count_links(header for id, header in self._headers.items() if id.copy in self._copies)
            if {slot: (signature, links) for slot, signature, links in index.stored()} != dict(counted):
                raise StoreError(f"{path}: its links are not those of the chunk headers")
        except StoreError as error:
            self._found.append(Damage(f"{error}; {advice}"))

    def _missing_copies(self, known: Mapping[ChunkId, bool]) -> None:
        """Tell of copies that the index knows and nobody expired, whose record is gone."""
        told = {damage.copy for damage in self._found} | self._store.expiring()
        for number in sorted({chunk.copy for chunk, live in known.items() if live} - set(self._copies)):
            if number not in told:
                vm = next((header.vm for id, header in self._headers.items() if id.copy == number), "")
                self._found.append(Damage(f"{self._store.copy_path(number)}: missing", number, vm))

    # --- what is affected -----------------------------------------------------------------------------

    def _tell_what_is_affected(self) -> None:
        for copy in self._copies.values():
            if copy.complete:
                self._found += self._affected(copy)
        affected = {damage.what for damage in self._found}
        texts = [*self._bad_chunks.values(), *self._bad_slots.values()]
        self._found += [Damage(text) for text in dict.fromkeys(texts) if text not in affected]

    def _affected(self, copy: BackupCopy) -> Iterator[Damage]:
        """Give the damages that affect a copy, with what they affect of it."""
        try:
            chain = self._chain(copy)
        except KeyError as error:
            record = self._store.copy_path(error.args[0])
            yield Damage(f"{record}: cannot be read, copy {copy.number} builds on it", copy.number, copy.vm)
            return
        whole = [
            self._bad_chunks[chunk] for each in chain for chunk in each.chunk_ids if chunk in self._bad_chunks
        ]
        for text in dict.fromkeys(whole):
            yield Damage(text, copy.number, copy.vm)
        if whole:
            return
        for chunk, header in self._headers.items():
            self._store.keep_header(chunk, header)
        maps = self._store.maps(copy)
        bad: dict[str, list[tuple[int, int]]] = {}
        for file, blocks in enumerate(maps):
            slots = list(
                zip(blocks.copy.tolist(), blocks.sequence.tolist(), blocks.slot.tolist(), strict=True)
            )
            for place, slot in enumerate(slots):
                why = self._bad_slots.get(slot) or self._bad_chunks.get(ChunkId(*slot[:2]))
                if why is not None:
                    bad.setdefault(why, []).append((file, int(blocks.block[place])))
        if not bad:
            return
        reader = ContentReader(self._store)
        images = [
            _Patched(file.name, file.bytes, blocks, reader)
            for file, blocks in zip(copy.files, maps, strict=True)
        ]
        owners = [_Owners(copy, number, image) for number, image in enumerate(images)]
        for text, places in bad.items():
            files = dict.fromkeys(name for file, block in places for name in owners[file].of(block))
            yield Damage(text, copy.number, copy.vm, tuple(files))
        reader.close()

    def _chain(self, copy: BackupCopy) -> list[BackupCopy]:
        chain = [copy]
        while chain[0].parent is not None:
            chain.insert(0, self._copies[chain[0].parent])
        return chain


class _Patched(CopyImage):
    """A damaged copy, with zeros where it cannot be read, so that its files can still be found."""

    def contents(self, first: int, end: int) -> list[tuple[int, bytes | memoryview]]:
        found = []
        for block in range(first, end):
            try:
                found += super().contents(block, block + 1)
            except StoreError:
                continue
        return found


class _Owners:
    """Which files blocks of a disk belong to."""

    def __init__(self, copy: BackupCopy, number: int, image: CopyImage) -> None:
        self._name, self._block_bytes = copy.files[number].name, image.block_bytes
        self._size = image.size
        self._configuration = copy.files[number].role == "configuration"
        self._extents: list[tuple[int, int, str]] = []
        if not self._configuration:
            try:
                files = find_files(image).files
            except (ManifestError, OSError):  # no pytsk3, or nothing left to read
                files = []
            self._extents = sorted(
                (start, start + length, file.path) for file in files for start, length, _ in file.extents
            )

    def of(self, block: int) -> Iterable[str]:
        """Return the paths of the files that have a part of the block."""
        if self._configuration:
            return [self._name]
        first = block * self._block_bytes
        end = min(first + self._block_bytes, self._size)
        paths = [path for start, stop, path in self._extents if start < end and stop > first]
        return paths or [f"{self._name}: bytes {first} to {end - 1}"]


def _check_container(
    store: BackupStore, header: ChunkHeader, container: int, linked: set[Slot]
) -> tuple[str, Iterable[int]]:
    """Return what is wrong with a container, if anything, and which linked contents cannot be read."""
    path = container_path(store.chunk_folder(header.id), container)
    slots = np.flatnonzero(header.stored["container"] == container).tolist()
    needed = {slot for slot in slots if (*header.id, slot) in linked}
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        return f"{path}: {'missing' if isinstance(error, FileNotFoundError) else error}", needed
    bad, frames = [], {}
    for slot in slots:
        row = header.stored[slot].item()
        frame = row[2], row[3]
        if frame not in frames:
            frames[frame] = _frame(data, row)
        raw = frames[frame]
        intact = raw is not None and signature_of(raw[row[5] : row[5] + row[6]]) == row[0]
        # what nobody links to is a hole, or is going to be one
        if not intact and (slot in needed or any(data[row[2] : row[2] + row[3]])):
            bad.append(slot)
    expected = header.container_bytes[container]
    if len(data) != expected:
        text = f"{path}: expected {expected} bytes, got {len(data)}"
    elif bad:
        where = f"content {bad[0]}" if len(bad) == 1 else f"{len(bad)} contents from {bad[0]} on"
        text = f"{path}: damaged, {where} of the chunk not as its signature says"
    elif data[:CONTAINER_HEADER_BYTES] != container_header(header.id, container):
        text = f"{path}: damaged in its first {CONTAINER_HEADER_BYTES} bytes"
    else:
        text = ""
    return text, [slot for slot in bad if slot in needed]


def _frame(data: memoryview, row: tuple[bytes, int, int, int, int, int, int, int, int]) -> memoryview | None:
    """Return a frame as it was before compression, or None if it is damaged."""
    _, _, offset, length, raw_bytes, _, _, codec, checksum = row
    stored = data[offset : offset + length]
    if len(stored) != length or xxhash.xxh3_64_intdigest(stored) != checksum:
        return None
    if CODECS[codec] == "none":
        return stored
    try:
        return memoryview(decompress(stored, raw_bytes))
    except StoreError:
        return None
