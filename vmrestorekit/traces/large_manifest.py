"""The manifest of a disk whose blocks are not to be held in memory at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from vmrestorekit.traces.manifest import (
    MANIFEST_BLOCK_BYTES,
    REFERENCES_SCHEMA,
    Manifest,
    ManifestError,
    check_blocks,
    check_tables,
    read_tables,
)
from vmrestorekit.traces.schema import read_parquet_rows

__all__ = ["PIECE_BLOCKS", "LargeManifest"]

# of 4 KiB: 16 GiB of a disk
PIECE_BLOCKS = 1 << 22


@dataclasses.dataclass(frozen=True, eq=False)
class LargeManifest:
    """What lies where on one disk, read piece by piece.

    Attributes
    ----------
    disk_bytes : int
    files, partitions, references : polars.DataFrame
        As of a `Manifest`.
    read_pieces : callable
        Returns an iterator over consecutive frames of `BLOCKS_SCHEMA`, as often as it is called; each of the
        frames but the last has a multiple of 1024 rows, so that it ends where a cache block does.

    Raises
    ------
    ManifestError
        If a table does not fit its schema, the disk or the other tables.
    """

    disk_bytes: int
    files: pl.DataFrame
    partitions: pl.DataFrame
    read_pieces: Callable[[], Iterator[pl.DataFrame]]
    references: pl.DataFrame = dataclasses.field(default_factory=REFERENCES_SCHEMA.to_frame)

    def __post_init__(self) -> None:
        check_tables(self, "manifest")

    @property
    def block_count(self) -> int:
        """How many 4 KiB blocks the disk has."""
        return -(-self.disk_bytes // MANIFEST_BLOCK_BYTES)

    @classmethod
    def of(cls, manifest: Manifest) -> LargeManifest:
        """Take a manifest that is in memory for one in a single piece."""
        return cls(
            manifest.disk_bytes,
            manifest.files,
            manifest.partitions,
            lambda: iter([manifest.blocks]),
            manifest.references,
        )

    @classmethod
    def scan(cls, path: str | os.PathLike[str], piece_blocks: int = PIECE_BLOCKS) -> LargeManifest:
        """Open what `Manifest.save` wrote, to read so many blocks at a time.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ManifestError
            If it is truncated, or no manifest.
        """
        path = Path(path)
        if piece_blocks <= 0 or piece_blocks % 1024:
            raise ManifestError(f"piece_blocks: expected a multiple of 1024, got {piece_blocks}")
        disk_bytes, files, partitions, references = read_tables(path)
        blocks = -(-disk_bytes // MANIFEST_BLOCK_BYTES)

        def read_pieces() -> Iterator[pl.DataFrame]:
            for first in range(0, blocks, piece_blocks):
                yield read_parquet_rows(path, "a saved manifest", ManifestError, first, piece_blocks)

        return cls(disk_bytes, files, partitions, read_pieces, references)

    def pieces(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield the number of the first block of each piece, and the piece.

        Raises
        ------
        ManifestError
            If the blocks do not fit their schema, the files or the size of the disk.
        """
        first = 0
        for blocks in self.read_pieces():
            check_blocks(blocks, self.files.height, "manifest")
            if blocks.height % 1024 and first + blocks.height != self.block_count:
                raise ManifestError(
                    f"manifest: expected pieces of a multiple of 1024 blocks, got {blocks.height} "
                    f"from block {first}"
                )
            yield first, blocks
            first += blocks.height
        if first != self.block_count:
            raise ManifestError(
                f"manifest: expected {self.block_count} blocks for a disk of {self.disk_bytes} bytes, "
                f"got {first}"
            )

    def whole(self) -> Manifest:
        """Return the same with all blocks in memory."""
        blocks = pl.concat(blocks for _, blocks in self.pieces())
        return Manifest(self.disk_bytes, blocks, self.files, self.partitions, self.references)
