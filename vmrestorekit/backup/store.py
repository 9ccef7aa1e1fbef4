"""The backup store: a directory with the copies of virtual machines, as chunks with shared contents.

    store.json            the size of its blocks
    copies/000001.json    a copy that is complete; 000002.attempt.json: one that is being made
    associations/         copies that a virtual machine runs from, which must not be pruned
    chunks/000001-000000/ header, container-000000, container-000001, …
    index.sqlite          made again from the headers if it is lost

A copy exists from the moment its record does. Whatever else an interruption leaves behind is put right by
the next process that writes; see ``docs/backup-format.md``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vmrestorekit.backup.block_map import BlockMap, block_maps
from vmrestorekit.backup.chunk import SIGNATURE_BYTES, ChunkHeader, ChunkId
from vmrestorekit.backup.index import StoreIndex
from vmrestorekit.backup.layout import DEFAULT_BLOCK_BYTES, expect_block_bytes
from vmrestorekit.backup.records import StoreError, flush_folder, locked, read_record, write_record

__all__ = ["COPY_KINDS", "BackupCopy", "BackupStore", "CopyFile"]

COPY_KINDS = ("full", "incremental", "differential", "synthetic_full")
_FORMAT = 1
_COPY_NAME = re.compile(r"(\d{6,})(\.attempt)?\.json")


@dataclasses.dataclass(frozen=True)
class CopyFile:
    """A file of the virtual machine in a copy: a disk, or the machine's configuration.

    Attributes
    ----------
    name : str
    role : {"disk", "configuration"}
    bytes : int
    """

    name: str
    role: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class BackupCopy:
    """What a store says about one copy.

    Attributes
    ----------
    number : int
        Names the copy within its store; later ones have higher numbers.
    vm : str
    kind : {"full", "incremental", "differential", "synthetic_full"}
    parent : int or None
        The copy that this one lists the changes against.
    created : str
        When it was begun, ISO 8601; of a synthetic full copy, when the copy it equals was.
    files : tuple of CopyFile
        Disks first.
    chunks : tuple of int
        Sequence numbers of the chunks that the copy wrote.
    counts : dict of str to int
        Of the blocks when it was made: ``new_blocks`` stored, ``linked_blocks`` found in the store,
        ``zero_blocks`` that became zeros, ``new_bytes`` before and ``stored_bytes`` after compression.
    complete : bool
        False of an attempt that was interrupted.
    """

    number: int
    vm: str
    kind: str
    parent: int | None
    created: str
    files: tuple[CopyFile, ...]
    chunks: tuple[int, ...]
    counts: dict[str, int]
    settings: dict[str, Any]
    complete: bool = True

    @property
    def disks(self) -> tuple[CopyFile, ...]:
        """The virtual machine's disks."""
        return tuple(file for file in self.files if file.role == "disk")

    @property
    def chunk_ids(self) -> list[ChunkId]:
        """The chunks that the copy wrote."""
        return [ChunkId(self.number, sequence) for sequence in self.chunks]

    def to_record(self) -> dict[str, Any]:
        """Return the copy as plain data."""
        record = dataclasses.asdict(self)
        del record["complete"]
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any], complete: bool) -> BackupCopy:
        """Return the copy of such plain data."""
        files = tuple(CopyFile(**file) for file in record["files"])
        return cls(**{**record, "files": files, "chunks": tuple(record["chunks"])}, complete=complete)


class BackupStore:
    """A directory with backup copies; a context manager.

    Parameters
    ----------
    path : path-like
        An existing store; `create` makes one.

    Raises
    ------
    StoreError
        If there is no backup store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "store.json").exists():
            raise StoreError(f"{self.path}: expected a backup store, found no store.json in it")
        settings = read_record(self.path / "store.json")
        if settings.get("format") != _FORMAT:
            raise StoreError(
                f"{self.path}: expected a backup store of format {_FORMAT}, got {settings.get('format')}"
            )
        self.block_bytes: int = settings["block_bytes"]
        self._index: StoreIndex | None = None
        self._headers: dict[ChunkId, ChunkHeader] = {}

    @classmethod
    def create(cls, path: str | os.PathLike[str], block_bytes: int = DEFAULT_BLOCK_BYTES) -> BackupStore:
        """Make a new, empty store; its blocks are a power of two from 4 KiB to 4 MiB.

        Raises
        ------
        StoreError
            If there is something at that path already.
        LayoutError
            If `block_bytes` is no such power of two.
        """
        expect_block_bytes(block_bytes)
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StoreError(f"{path}: expected no such path or an empty folder for a new backup store")
        for folder in (path, path / "copies", path / "chunks", path / "associations"):
            folder.mkdir(parents=True, exist_ok=True)
        # the record goes last: with it, the store exists
        write_record(path / "store.json", {"format": _FORMAT, "block_bytes": block_bytes})
        flush_folder(path.parent)
        return cls(path)

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str], block_bytes: int | None = None) -> BackupStore:
        """Open a store, or make one where there is none; `StoreError` if it has blocks of another size."""
        path = Path(path)
        if not (path / "store.json").exists():
            begun = path.is_dir() and {entry.name for entry in path.iterdir()} <= {
                *("copies", "chunks", "associations", ".store.json.partial")
            }
            if begun:  # a creation that was interrupted
                shutil.rmtree(path)
            return cls.create(path, block_bytes or DEFAULT_BLOCK_BYTES)
        store = cls(path)
        if block_bytes not in (None, store.block_bytes):
            raise StoreError(
                f"{path}: the blocks of this store have {store.block_bytes} bytes, not {block_bytes}"
            )
        return store

    def __enter__(self) -> BackupStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index."""
        if self._index is not None:
            self._index.close()
            self._index = None
        self._headers.clear()

    # --- copies ---------------------------------------------------------------------------------------

    def copies(self) -> list[BackupCopy]:
        """Return the complete copies, the oldest first."""
        return [copy for copy in self._all_copies() if copy.complete]

    def attempts(self) -> list[BackupCopy]:
        """Return the copies that were begun and not completed."""
        return [copy for copy in self._all_copies() if not copy.complete]

    def copy(self, number: int) -> BackupCopy:
        """Return a copy by its number; `StoreError` if there is none or its record is damaged."""
        path = self.copy_path(number)
        if not path.exists():
            there = ", ".join(str(int(each.stem)) for each in sorted(path.parent.glob("[0-9]*[0-9].json")))
            raise StoreError(
                f"{self.path}: expected the number of a copy ({there or 'none yet'}), got {number}"
            )
        return self._read_copy(path)

    def latest(self, vm: str) -> BackupCopy | None:
        """Return the last complete copy of a virtual machine, or None."""
        return next((copy for copy in reversed(self.copies()) if copy.vm == vm), None)

    def chain(self, copy: BackupCopy) -> list[BackupCopy]:
        """Return the copies that a restore of this one needs: a full one first, itself last."""
        chain = [copy]
        while chain[0].parent is not None:
            if not self.copy_path(chain[0].parent).exists():
                raise StoreError(
                    f"{self.path}: copy {chain[0].number} lists changes against copy {chain[0].parent}, "
                    "which is missing"
                )
            chain.insert(0, self.copy(chain[0].parent))
        return chain

    def maps(self, copy: BackupCopy, more: Sequence[ChunkHeader] = ()) -> list[BlockMap]:
        """Return which content each block of the copy has, for each of its files."""
        headers = (self.header(chunk) for each in self.chain(copy) for chunk in each.chunk_ids)
        return block_maps([*headers, *more], [file.bytes for file in copy.files], self.block_bytes)

    def copy_path(self, number: int, complete: bool = True) -> Path:
        """Return where the record of a copy is."""
        ending = ".json" if complete else ".attempt.json"
        return self.path / "copies" / f"{number:06d}{ending}"

    def _all_copies(self) -> list[BackupCopy]:
        paths = sorted((self.path / "copies").iterdir())
        copies = []
        for path in paths:
            if _COPY_NAME.fullmatch(path.name):
                try:
                    copies.append(self._read_copy(path))
                except StoreError:
                    if path.exists():  # else another process has completed or expired it since
                        raise
        return copies

    def _read_copy(self, path: Path) -> BackupCopy:
        named = _COPY_NAME.fullmatch(path.name)
        assert named is not None
        copy = BackupCopy.from_record(read_record(path), complete=not named[2])
        if copy.number != int(named[1]):
            raise StoreError(
                f"{path}: expected the record of copy {int(named[1])}, got that of {copy.number}"
            )
        return copy

    # --- associations ---------------------------------------------------------------------------------

    def associate(self, number: int, user: str) -> None:
        """Note that a virtual machine runs from a copy, which is then not pruned; `user` says which."""
        path = self._association(number, user)
        write_record(path, {"copy": self.copy(number).number, "user": user})
        # without the lock, since a backup may hold it for hours: whoever expires the copy looks at the
        # associations once more after the copy has lost its name
        try:
            self.copy(number)
        except StoreError:
            path.unlink(missing_ok=True)
            raise

    def dissociate(self, number: int, user: str) -> None:
        """Take an association back; `StoreError` if there is none."""
        path = self._association(number, user)
        if not path.exists():
            raise StoreError(f"{self.path}: copy {number} is not associated with {user!r}")
        path.unlink()
        flush_folder(path.parent)

    def associations(self, number: int) -> list[str]:
        """Return the virtual machines that run from a copy."""
        return [
            str(read_record(path)["user"])
            for path in sorted((self.path / "associations").glob(f"{number:06d}-*.json"))
        ]

    def _association(self, number: int, user: str) -> Path:
        if not re.fullmatch(r"[\w.-]{1,100}", user):
            raise StoreError(f"expected a name of letters, digits, '.', '_' and '-', got {user!r}")
        return self.path / "associations" / f"{number:06d}-{user}.json"

    # --- chunks ---------------------------------------------------------------------------------------

    def chunk_folder(self, chunk: ChunkId) -> Path:
        """Return where a chunk is."""
        return self.path / "chunks" / chunk.folder

    def chunks_there(self) -> list[ChunkId]:
        """Return the chunks that are on disk, in their order."""
        names = (path.name for path in (self.path / "chunks").iterdir())
        return sorted(ChunkId.of_folder(name) for name in names if re.fullmatch(r"\d{6,}-\d{6,}", name))

    def header(self, chunk: ChunkId) -> ChunkHeader:
        """Return the header of a chunk, from the index or else from the chunk itself."""
        if chunk not in self._headers:
            self._headers[chunk] = self._read_header(chunk)
        return self._headers[chunk]

    def keep_header(self, chunk: ChunkId, header: ChunkHeader) -> None:
        """Go by this header from now on, whatever the index says."""
        self._headers[chunk] = header

    def _read_header(self, chunk: ChunkId) -> ChunkHeader:
        with contextlib.suppress(StoreError):
            if (self.path / "index.sqlite").exists():
                return self.index.header(chunk)
        return self.header_on_disk(chunk)

    def header_on_disk(self, chunk: ChunkId) -> ChunkHeader:
        """Return the header that is stored with a chunk; `StoreError` if it is missing or damaged."""
        path = self.chunk_folder(chunk) / "header"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"{path}: expected the header of a chunk, found no such file") from None
        header = ChunkHeader.from_bytes(data, str(path))
        header.expect(chunk, str(path))
        return header

    def intact_header(self, chunk: ChunkId) -> ChunkHeader:
        """Return the header that is stored with a chunk, or that of the index if it is damaged there."""
        try:
            return self.header_on_disk(chunk)
        except StoreError:
            with contextlib.suppress(StoreError):
                return self.index.header(chunk)
            raise

    @property
    def index(self) -> StoreIndex:
        """The embedded index."""
        if self._index is None:
            self._index = StoreIndex(self.path / "index.sqlite")
        return self._index

    # --- writing --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, with what an interruption left behind put right first.

        Raises
        ------
        StoreError
            If another process writes to the store, or a header of a live chunk is damaged.
        """
        with locked(self.path / "lock"):
            self.close()
            self._recover()
            yield

    def _recover(self) -> None:
        for path in [*(self.path / "chunks").glob(".*"), *(self.path / "copies").glob(".*")]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for attempt in self.attempts():
            if self.copy_path(attempt.number).exists():  # it was completed
                self.copy_path(attempt.number, complete=False).unlink()
        alive = {copy.number for copy in self._all_copies()}
        there = self.chunks_there()
        try:
            known = self.index.chunks()
        except StoreError:
            known = None
        if known != {chunk: chunk.copy in alive for chunk in there} or not self._index_has_headers(there):
            lost = {chunk.copy for chunk, live in (known or {}).items() if live} - alive - self.expiring()
            if lost:
                raise StoreError(
                    f"{self.copy_path(min(lost))}: missing, though nobody expired copy {min(lost)}; "
                    "put it back, or delete index.sqlite and the copy will be pruned"
                )
            self._rebuild(alive, there)
        for path in (self.path / "copies").glob("*.expiring"):
            path.unlink()

    def _index_has_headers(self, there: Iterable[ChunkId]) -> bool:
        """Tell whether the headers in the index are those on disk, by their checksums."""
        kept = self.index.checksums()
        for chunk in there:
            path = self.chunk_folder(chunk) / "header"
            with contextlib.suppress(OSError), open(path, "rb") as file:
                file.seek(-min(SIGNATURE_BYTES, path.stat().st_size), os.SEEK_END)
                if file.read() != kept.get(chunk):
                    # one that is damaged on disk can only be had from the index
                    with contextlib.suppress(StoreError):
                        self.header_on_disk(chunk)
                        return False
        return True

    def retire_number(self, number: int) -> None:
        """Note that a copy goes: its number is not given again, or a reader would take one for the other."""
        if number > self.highest_retired():
            settings = read_record(self.path / "store.json")
            write_record(self.path / "store.json", settings | {"highest_retired": number})

    def highest_retired(self) -> int:
        """Return the highest number of a copy that expired, 0 if none did."""
        return int(read_record(self.path / "store.json").get("highest_retired", 0))

    def expiring(self) -> set[int]:
        """Return the copies whose expiry has begun."""
        return {int(path.stem.split(".")[0]) for path in (self.path / "copies").glob("*.expiring")}

    def _rebuild(self, alive: set[int], there: Iterable[ChunkId]) -> None:
        """Make the index from the headers; let go of chunks that link to others an interruption took."""
        from vmrestorekit.backup.retention import release

        self.close()
        headers = {chunk: self.header_on_disk(chunk) for chunk in there}
        attempted = {copy.number for copy in self.attempts()}
        for chunk in _without_support(headers, attempted):
            del headers[chunk]
            self.remove_chunk(chunk)
        self._index = StoreIndex.rebuild(
            self.path / "index.sqlite", ((header, chunk.copy in alive) for chunk, header in headers.items())
        )
        release(self, headers)

    def remove_chunk(self, chunk: ChunkId) -> None:
        """Delete a chunk's folder, so that it is there whole or not at all."""
        folder = self.chunk_folder(chunk)
        trash = folder.with_name(f".{folder.name}.trash")
        os.replace(folder, trash)
        flush_folder(folder.parent)
        shutil.rmtree(trash)
        self._headers.pop(chunk, None)


def _without_support(headers: dict[ChunkId, ChunkHeader], attempted: set[int]) -> list[ChunkId]:
    """Return the chunks of attempts with links to chunks of the same attempt that are not there."""
    missing: list[ChunkId] = []
    there = set(headers)
    while True:
        lost = [
            chunk
            for chunk in there
            if chunk.copy in attempted
            and any(target.copy == chunk.copy and target not in there for target in headers[chunk].targets())
        ]
        if not lost:
            return sorted(missing)
        missing += lost
        there -= set(lost)
