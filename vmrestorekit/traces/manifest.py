"""What lies where on a disk: one row for each 4 KiB block, and the files and partitions it belongs to.

A manifest holds hashes, paths and what files say of each other, never contents.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Protocol

import polars as pl

from vmrestorekit.traces.schema import (
    expect_no_row,
    read_parquet,
    read_parquet_metadata,
    write_parquet_atomically,
)

__all__ = [
    "BLOCKS_SCHEMA",
    "FILES_SCHEMA",
    "FILE_KINDS",
    "MANIFEST_BLOCK_BYTES",
    "PARTITIONS_SCHEMA",
    "REFERENCES_SCHEMA",
    "REFERENCE_KINDS",
    "Manifest",
    "ManifestError",
    "check_blocks",
    "check_tables",
    "read_tables",
    "sorted_references",
    "validate_manifest",
]

MANIFEST_BLOCK_BYTES = 4096

_METADATA_KEY = "vmrestorekit.manifest"
_SAVED = "a saved manifest"
# what makes contents comparable; files from before this was told have it, too
_IDENTITY = {"block_bytes": MANIFEST_BLOCK_BYTES, "hash": "xxh3_64"}

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
FILES_SCHEMA = pl.Schema(
    {
        "path": pl.String(),
        "size": pl.Int64(),
        "kind": pl.Enum(FILE_KINDS),
        "package": pl.String(),  # the Debian package that owns the file, null where there is none or unknown
    }
)
PARTITIONS_SCHEMA = pl.Schema(
    {"partition": pl.Int32(), "start": pl.Int64(), "length": pl.Int64(), "file_system": pl.String()}
)

# a unit pulls in a unit; a unit starts a program, and a link in /etc/rc?.d a script; a program loads a
# library, a dynamic linker or an interpreter, and a Python file the modules that it imports; a kernel module
# needs another; a symbolic link leads to a file
REFERENCE_KINDS = ("enables", "starts", "loads", "needs_module", "links")

# sorted by these columns, unique; a path need not be one of `files`, which lacks what has no blocks
REFERENCES_SCHEMA = pl.Schema(
    {"source": pl.String(), "kind": pl.Enum(REFERENCE_KINDS), "target": pl.String()}
)


class ManifestError(ValueError):
    """A manifest that cannot be used; the message says what was expected, what came, and where."""


@dataclasses.dataclass(frozen=True, eq=False)
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
    references : polars.DataFrame
        `REFERENCES_SCHEMA`, sorted and unique; empty where nothing is known.

    Raises
    ------
    ManifestError
        If a table does not fit its schema, the disk or the other tables.
    """

    disk_bytes: int
    blocks: pl.DataFrame
    files: pl.DataFrame
    partitions: pl.DataFrame
    references: pl.DataFrame = dataclasses.field(default_factory=REFERENCES_SCHEMA.to_frame)

    def __post_init__(self) -> None:
        validate_manifest(self)

    @classmethod
    def synthetic(cls, disk_bytes: int) -> Manifest:
        """Make a SYNTHETIC disk: full of blocks that all differ, without partitions or files."""
        blocks = -(-disk_bytes // MANIFEST_BLOCK_BYTES)
        # the last hashes before 2^64: no hash of a recorded disk is likely to be among them
        content = pl.Series(range(2**64 - 1, 2**64 - 1 - blocks, -1), dtype=pl.UInt64)
        frame = pl.DataFrame({"content": content, "file": None, "file_block": None}, schema=BLOCKS_SCHEMA)
        return cls(
            disk_bytes, frame, pl.DataFrame(schema=FILES_SCHEMA), pl.DataFrame(schema=PARTITIONS_SCHEMA)
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one Parquet file with the blocks; the other tables go into its metadata."""
        tables = {
            **_IDENTITY,
            "disk_bytes": self.disk_bytes,
            "files": self.files.to_dict(as_series=False),
            "partitions": self.partitions.to_dicts(),
            "references": self.references.to_dict(as_series=False),
        }
        write_parquet_atomically(self.blocks, Path(path), {_METADATA_KEY: json.dumps(tables)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read what `save` wrote, also before there were packages and references.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ManifestError
            If it is truncated, or no manifest.
        """
        path = Path(path)
        disk_bytes, files, partitions, references = read_tables(path)
        try:
            return cls(disk_bytes, read_parquet(path, _SAVED, ManifestError), files, partitions, references)
        except ManifestError as error:
            raise ManifestError(f"{path}: expected a saved manifest: {error}") from error

    def equals(self, other: Manifest) -> bool:
        """Tell whether both describe the same state of a disk."""
        return (
            self.disk_bytes == other.disk_bytes
            and self.blocks.equals(other.blocks)
            and self.files.equals(other.files)
            and self.partitions.equals(other.partitions)
            and self.references.equals(other.references)
        )


def sorted_references(references: pl.DataFrame) -> pl.DataFrame:
    """Return references (`REFERENCES_SCHEMA`) as a manifest has them: each once, sorted."""
    return references.unique().sort(*REFERENCES_SCHEMA)


def validate_manifest(manifest: Manifest, source: str = "manifest") -> None:
    """Check a manifest's tables against their schemas, the size of the disk and each other.

    Raises
    ------
    ManifestError
        Names the source, the table, the first bad row (counted from 0) and what is wrong with it.
    """
    _expect_positive(manifest.disk_bytes, source)
    expected = -(-manifest.disk_bytes // MANIFEST_BLOCK_BYTES)
    if manifest.blocks.height != expected:
        raise ManifestError(
            f"{source}: expected {expected} blocks for a disk of {manifest.disk_bytes} bytes, "
            f"got {manifest.blocks.height}"
        )
    check_blocks(manifest.blocks, manifest.files.height, source)
    check_tables(manifest, source)


def _expect_positive(disk_bytes: object, source: str) -> None:
    if not isinstance(disk_bytes, int) or disk_bytes <= 0:
        raise ManifestError(f"{source}: expected a disk of positive size, got {disk_bytes!r} bytes")


class _Tables(Protocol):
    """What manifests of all sizes have."""

    @property
    def disk_bytes(self) -> int: ...
    @property
    def files(self) -> pl.DataFrame: ...
    @property
    def partitions(self) -> pl.DataFrame: ...
    @property
    def references(self) -> pl.DataFrame: ...


def check_tables(manifest: _Tables, source: str) -> None:
    """Check the size of the disk and all tables but that of the blocks, see `validate_manifest`."""
    _expect_positive(manifest.disk_bytes, source)
    tables = {
        "files": (manifest.files, FILES_SCHEMA),
        "partitions": (manifest.partitions, PARTITIONS_SCHEMA),
        "references": (manifest.references, REFERENCES_SCHEMA),
    }
    for name, (frame, schema) in tables.items():
        _expect_schema(frame, schema, f"{source}: {name}")
    missing = {"a value is missing": pl.any_horizontal(pl.all().is_null())}
    end = pl.col("start") + pl.col("length")
    rules = {
        "files": {
            "a value is missing": pl.any_horizontal(pl.col("path", "size", "kind").is_null()),
            "'size' is negative": pl.col("size") < 0,
        },
        "partitions": missing
        | {
            "'start' or 'length' is negative": (pl.col("start") < 0) | (pl.col("length") < 0),
            "the partition ends beyond the disk": end > manifest.disk_bytes,
        },
        "references": missing
        | {"not behind the row above, as sorted and unique rows are": ~_is_behind_row_above()},
    }
    for name, (frame, _) in tables.items():
        expect_no_row(frame, rules[name], f"{source}: {name}", ManifestError)


def check_blocks(blocks: pl.DataFrame, files: int, source: str) -> None:
    """Check consecutive blocks of a disk with so many files, see `validate_manifest`."""
    _expect_schema(blocks, BLOCKS_SCHEMA, f"{source}: blocks")
    file = pl.col("file")
    rules = {
        "'content' is missing": pl.col("content").is_null(),
        f"'file' is not a row of the {files} files": ~file.is_between(0, files - 1),
        "one of 'file' and 'file_block' is missing": file.is_null() != pl.col("file_block").is_null(),
        "'file_block' is negative": pl.col("file_block") < 0,
    }
    expect_no_row(blocks, rules, f"{source}: blocks", ManifestError)


def _expect_schema(frame: pl.DataFrame, schema: pl.Schema, source: str) -> None:
    if dict(frame.schema) != dict(schema):
        raise ManifestError(f"{source}: expected columns {dict(schema)}, got {dict(frame.schema)}")


def read_tables(path: Path) -> tuple[int, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return of a saved manifest the size of the disk, files, partitions and references."""
    metadata = read_parquet_metadata(path, _SAVED, ManifestError)
    try:
        tables = json.loads(metadata[_METADATA_KEY])
        if not isinstance(tables, dict) or not isinstance(tables["disk_bytes"], int):
            raise ValueError("tables, and the size of the disk in bytes")
        identity = {name: tables.get(name, value) for name, value in _IDENTITY.items()}
        if identity != _IDENTITY:
            raise ValueError(
                "blocks of {block_bytes} bytes by their {hash}, ".format(**_IDENTITY)
                + "got blocks of {block_bytes} bytes by their {hash}".format(**identity)
            )
        columns = {"package": [None] * len(tables["files"]["path"]), **tables["files"]}
        files = pl.DataFrame(columns, schema=FILES_SCHEMA)
        partitions = pl.DataFrame(tables["partitions"], schema=PARTITIONS_SCHEMA)
        references = pl.DataFrame(tables.get("references", []), schema=REFERENCES_SCHEMA)
        return tables["disk_bytes"], files, partitions, references
    except KeyError as error:
        raise ManifestError(f"{path}: a Parquet file, but no saved manifest ({error} is missing)") from error
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise ManifestError(f"{path}: expected a saved manifest: {error}") from error


def _is_behind_row_above() -> pl.Expr:
    order: pl.Expr = pl.lit(False)
    for name in reversed(REFERENCES_SCHEMA):
        # an Enum sorts by the place of its values, as its numbers do
        value = pl.col(name).to_physical() if name == "kind" else pl.col(name)
        order = (value > value.shift(1)) | ((value == value.shift(1)) & order)
    return order.fill_null(True)  # the first row
