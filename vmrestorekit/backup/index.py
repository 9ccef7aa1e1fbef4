"""The embedded index of a store: one SQLite file, made again from the chunk headers if it is lost.

It answers two questions that the chunk headers answer only together: where a content with this signature
is, and how many blocks are links to it. The headers are kept in it too, so that reading a copy opens no
other files than its containers.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vmrestorekit.backup.chunk import SIGNATURE_BYTES, ZEROS, ChunkHeader, ChunkId
from vmrestorekit.backup.records import StoreError, flush_folder

__all__ = ["Slot", "StoreIndex", "count_links"]

Slot = tuple[int, int, int]  # copy, sequence and slot: which content

_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE chunk (
    copy INTEGER, sequence INTEGER, live INTEGER NOT NULL, header BLOB NOT NULL,
    PRIMARY KEY (copy, sequence)
);
CREATE TABLE stored (
    copy INTEGER, sequence INTEGER, slot INTEGER, signature BLOB NOT NULL, links INTEGER NOT NULL,
    PRIMARY KEY (copy, sequence, slot)
) WITHOUT ROWID;
CREATE INDEX stored_by_signature ON stored (signature);
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_ASKED_AT_ONCE = 500  # SQLite may allow no more than 999 variables


class StoreIndex:
    """The index in one file; `StoreError` if that is no index of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            if not self._db.execute("SELECT * FROM sqlite_schema").fetchone():
                self._db.executescript(_SCHEMA)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StoreError(f"{path}: damaged index: {error}") from error
        if version != _VERSION:
            self._db.close()
            raise StoreError(f"{path}: expected an index of version {_VERSION}, got {version}")

    @classmethod
    def rebuild(cls, path: Path, headers: Iterable[tuple[ChunkHeader, bool]]) -> StoreIndex:
        """Write the index anew from chunk headers, each with whether its copy still exists, and open it."""
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        with contextlib.closing(cls(partial)) as index, index.transaction():
            for header, live in headers:
                index.add(header, live=live)
        os.replace(partial, path)
        flush_folder(path.parent)
        return cls(path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes within, or none."""
        with self._damage_told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, header: ChunkHeader, *, live: bool = True) -> None:
        """Take in a chunk; the blocks of a live one count as links."""
        self._db.execute("INSERT INTO chunk VALUES (?, ?, ?, ?)", (*header.id, int(live), header.to_bytes()))
        if live:
            self._db.executemany(
                "INSERT INTO stored VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET links = links + excluded.links",
                ((*slot, signature, count) for slot, (signature, count) in count_links([header]).items()),
            )

    def unlink(self, chunks: Iterable[ChunkId]) -> None:
        """Take the links of chunks back, whose copy is gone; a content without links is forgotten."""
        for chunk in chunks:
            header = self.header(chunk)
            self._db.executemany(
                "UPDATE stored SET links = links - ? WHERE copy = ? AND sequence = ? AND slot = ?",
                ((count, *slot) for slot, (_, count) in count_links([header]).items()),
            )
            self._db.execute("UPDATE chunk SET live = 0 WHERE copy = ? AND sequence = ?", chunk)
        self._db.execute("DELETE FROM stored WHERE links <= 0")

    def forget(self, chunk: ChunkId) -> None:
        """Take a chunk out."""
        self._db.execute("DELETE FROM chunk WHERE copy = ? AND sequence = ?", chunk)

    def chunks(self) -> dict[ChunkId, bool]:
        """Return the chunks, and of each whether its copy exists."""
        with self._damage_told():
            rows = self._db.execute("SELECT copy, sequence, live FROM chunk ORDER BY copy, sequence")
            return {ChunkId(copy, sequence): bool(live) for copy, sequence, live in rows}

    def checksums(self) -> dict[ChunkId, bytes]:
        """Return the checksum at the end of each header."""
        with self._damage_told():
            rows = self._db.execute(f"SELECT copy, sequence, substr(header, -{SIGNATURE_BYTES}) FROM chunk")
            return {ChunkId(copy, sequence): bytes(checksum) for copy, sequence, checksum in rows}

    def header(self, chunk: ChunkId) -> ChunkHeader:
        """Return the header of a chunk; `StoreError` if the index has none or it is damaged."""
        with self._damage_told():
            row = self._db.execute(
                "SELECT header FROM chunk WHERE copy = ? AND sequence = ?", chunk
            ).fetchone()
        name = f"{self.path}, chunk {chunk.folder}"
        if row is None:
            raise StoreError(f"{name}: missing")
        header = ChunkHeader.from_bytes(row[0], name)
        header.expect(chunk, name)
        return header

    def find(self, signatures: Sequence[bytes]) -> dict[bytes, Slot]:
        """Return where contents with these signatures are; of several places the one written last."""
        found: dict[bytes, Slot] = {}
        with self._damage_told():
            for start in range(0, len(signatures), _ASKED_AT_ONCE):
                asked = signatures[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(asked))
                rows = self._db.execute(
                    f"SELECT signature, copy, sequence, slot FROM stored WHERE signature IN ({marks}) "
                    "ORDER BY copy, sequence, slot",
                    asked,
                )
                found |= {signature: (copy, sequence, slot) for signature, copy, sequence, slot in rows}
        return found

    def links(self, chunk: ChunkId) -> dict[int, int]:
        """Return how many blocks are links to each slot of a chunk that has any."""
        with self._damage_told():
            rows = self._db.execute("SELECT slot, links FROM stored WHERE copy = ? AND sequence = ?", chunk)
            return dict(rows.fetchall())

    def stored(self) -> Iterator[tuple[Slot, bytes, int]]:
        """Give every content that is linked to: where it is, its signature, the number of links."""
        with self._damage_told():
            rows = self._db.execute("SELECT copy, sequence, slot, signature, links FROM stored")
            for copy, sequence, slot, signature, links in rows:
                yield (copy, sequence, slot), signature, links

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path}: damaged index: {error}") from error


def count_links(headers: Iterable[ChunkHeader]) -> Mapping[Slot, tuple[bytes, int]]:
    """Return for each content that blocks of these chunks link to its signature and how many do."""
    counted: dict[Slot, tuple[bytes, int]] = {}
    for header in headers:
        rows = header.blocks[header.blocks["slot"] != ZEROS]
        targets, first, counts = np.unique(
            rows[["copy", "sequence", "slot"]], return_index=True, return_counts=True
        )
        signatures = rows["signature"][first].tolist()
        for target, signature, count in zip(targets.tolist(), signatures, counts.tolist(), strict=True):
            _, before = counted.get(target, (b"", 0))
            counted[target] = (signature, before + count)
    return counted
