"""What lies where on a disk: one row for each 4 KiB block, and the files and partitions it belongs to.

A manifest holds hashes and paths, never contents.
"""

from __future__ import annotations

import dataclasses

import polars as pl

__all__ = ["BLOCKS_SCHEMA", "FILES_SCHEMA", "FILE_KINDS", "MANIFEST_BLOCK_BYTES", "PARTITIONS_SCHEMA", "Manifest"]

MANIFEST_BLOCK_BYTES = 4096

# "metadata" covers what a file system keeps for itself (superblocks, bitmaps, inode tables, the journal) and
# the boot loader in front of the first partition; such entries have a path that starts with "$".
FILE_KINDS = ("regular", "directory", "symlink", "metadata", "other")

# row number = number of the 4 KiB block on the disk
BLOCKS_SCHEMA = pl.Schema(
    {
        "content": pl.UInt64(),  # xxh3_64 of the block's 4096 bytes; 0 = the block is all zeros
        "file": pl.Int32(),  # row number in `files`, null = belongs to none
        "file_block": pl.Int32(),  # 4 KiB position within that file, null where file is null
    }
)
FILES_SCHEMA = pl.Schema({"path": pl.String(), "size": pl.Int64(), "kind": pl.Enum(FILE_KINDS)})
PARTITIONS_SCHEMA = pl.Schema(
    {"partition": pl.Int32(), "start": pl.Int64(), "length": pl.Int64(), "file_system": pl.String()}
)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What lies where on one disk in one recorded state.

    Attributes
    ----------
    disk_bytes : int
    blocks : polars.DataFrame
        `BLOCKS_SCHEMA`, one row a 4 KiB block, ``ceil(disk_bytes / 4096)`` rows.
    files : polars.DataFrame
        `FILES_SCHEMA`; ``blocks["file"]`` is a row number here.
    partitions : polars.DataFrame
        `PARTITIONS_SCHEMA`, bytes.
    """

    disk_bytes: int
    blocks: pl.DataFrame
    files: pl.DataFrame
    partitions: pl.DataFrame
