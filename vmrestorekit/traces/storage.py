"""How the states of a disk are stored in a corpus: runs of changed blocks, contents as row numbers.

A state is stored as what differs from a *base*: the state before the previous boot of the same machine, or,
for a first boot, a disk of zeros without files. Block contents are row numbers in one table of unique hashes
that only grows (row 0 is the block of zeros), so that contents shared by several machines are stored once.

Two formats are read. The first, whose metadata names no format, knows neither packages nor references; the
second is written.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from vmrestorekit.traces.manifest import (
    BLOCKS_SCHEMA,
    FILES_SCHEMA,
    MANIFEST_BLOCK_BYTES,
    PARTITIONS_SCHEMA,
    REFERENCES_SCHEMA,
    Manifest,
    sorted_references,
)
from vmrestorekit.traces.schema import expect_no_row, read_parquet_with_metadata, write_parquet_atomically

__all__ = [
    "CONTENTS_SCHEMA",
    "BlockStates",
    "ContentTable",
    "CorpusError",
    "load_state",
    "save_state",
    "state_digest",
    "stored_digest",
]

CONTENTS_SCHEMA = pl.Schema({"content": pl.UInt64()})

# one row a run: `count` blocks from `block` on, with contents content, content + 1, … (or all zeros), of one
# file at positions file_block, file_block + 1, …
_RUNS_SCHEMA = pl.Schema(
    {
        "block": pl.Int32(),
        "count": pl.Int32(),
        "content": pl.Int32(),
        "file": pl.Int32(),
        "file_block": pl.Int32(),
    }
)
# one row a run of `count` files that equal those from `base_row` on in the base, or one new file
_FILE_RUNS_SCHEMA = pl.Schema({"count": pl.Int32(), "base_row": pl.Int32(), **FILES_SCHEMA})
# one row a reference that the base has not, or (removed) that only the base has
_REFERENCE_CHANGES_SCHEMA = pl.Schema({**REFERENCES_SCHEMA, "removed": pl.Boolean()})

_WITHOUT_REFERENCES, _FORMAT = 1, 2
_METADATA_KEY = "vmrestorekit.manifest_state"
# what the metadata of a stored state says, and its types
_ABOUT: dict[str, type | tuple[type, ...]] = {
    "disk_bytes": int,
    "partitions": pl.DataFrame,  # rows in the file
    "base_boot": (str, type(None)),
    "base_digest": (str, type(None)),
    "digest": str,
    "contents_rows": int,
    "contents_digest": str,
}


class CorpusError(ValueError):
    """A corpus that cannot be read or extended; the message says what was expected, what came, and where."""


@dataclasses.dataclass(frozen=True, eq=False)
class ContentTable:
    """The shared table of block contents.

    Attributes
    ----------
    hashes : ndarray of uint64, shape (n,)
        Unique; row 0 is 0, the block of zeros.
    source : str
        Named in errors.
    """

    hashes: npt.NDArray[np.uint64]
    source: str = "contents"

    @classmethod
    def empty(cls) -> ContentTable:
        """Return a table that knows only the block of zeros."""
        return cls(np.zeros(1, np.uint64))

    @classmethod
    def load(cls, path: Path) -> ContentTable:
        """Read and check the shared table."""
        frame, _ = read_parquet_with_metadata(path, "the shared table of block contents", CorpusError)
        _expect_schema(frame, CONTENTS_SCHEMA, path)
        hashes = frame["content"].to_numpy()
        if frame["content"].null_count() or not len(hashes) or hashes[0] != 0:
            raise CorpusError(f"{path}: expected hashes without gaps and 0 in row 0")
        if len(np.unique(hashes)) != len(hashes):
            raise CorpusError(f"{path}: expected unique hashes, got one twice")
        return cls(hashes, str(path))

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        write_parquet_atomically(pl.DataFrame({"content": self.hashes}, schema=CONTENTS_SCHEMA), path)

    def with_contents(self, contents: npt.NDArray[np.uint64]) -> ContentTable:
        """Return a table that knows these too; new ones are appended in order of first occurrence."""
        unique, first = np.unique(contents, return_index=True)
        new = ~np.isin(unique, self.hashes)
        appended = unique[new][np.argsort(first[new])]
        return ContentTable(np.concatenate([self.hashes, appended]), self.source) if len(appended) else self

    def rows_of(self, contents: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the row of each content, all of which the table has to know."""
        order = np.argsort(self.hashes)
        return order[np.searchsorted(self.hashes, contents, sorter=order)]

    def digest(self, rows: int) -> str:
        """Return a fingerprint of the first rows; appending does not change it."""
        return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(self.hashes[:rows]).data)


@dataclasses.dataclass(frozen=True, eq=False)
class BlockStates:
    """The columns of a manifest's blocks as plain arrays of shape (n,), with -1 for none."""

    content: npt.NDArray[np.uint64]
    file: npt.NDArray[np.int32]
    file_block: npt.NDArray[np.int32]

    @classmethod
    def of(cls, manifest: Manifest) -> BlockStates:
        """Take the columns of a manifest."""
        blocks = manifest.blocks
        return cls(
            blocks["content"].to_numpy(),
            blocks["file"].fill_null(-1).to_numpy(),
            blocks["file_block"].fill_null(-1).to_numpy(),
        )

    @classmethod
    def predicted(cls, base: Manifest | None, blocks: int, files: pl.DataFrame) -> BlockStates:
        """Return the state expected if nothing changed since the base, with the row numbers of `files`."""
        content = np.zeros(blocks, np.uint64)
        file = np.full(blocks, -1, np.int32)
        file_block = np.full(blocks, -1, np.int32)
        if base is not None:
            states = cls.of(base)
            common = min(blocks, len(states.content))
            row_of_path = {path: row for row, path in reversed(list(enumerate(files["path"])))}
            # one more entry, so that -1 (no file) stays -1
            renumbered = np.array([*(row_of_path.get(path, -1) for path in base.files["path"]), -1], np.int32)
            content[:common] = states.content[:common]
            file[:common] = renumbered[states.file[:common]]
            file_block[:common] = np.where(file[:common] < 0, -1, states.file_block[:common])
        return cls(content, file, file_block)

    def frame(self) -> pl.DataFrame:
        """Return them as `BLOCKS_SCHEMA`."""
        frame = pl.DataFrame(
            {"content": self.content, "file": self.file, "file_block": self.file_block}, schema=BLOCKS_SCHEMA
        )
        none = pl.col("file") < 0
        return frame.with_columns(
            pl.when(~none).then(pl.col("file")), pl.when(~none).then(pl.col("file_block")).alias("file_block")
        )


def state_digest(manifest: Manifest) -> str:
    """Return a fingerprint of everything a manifest says.

    Where it knows no packages and no references, it is that of the time before there were any, so that states
    stored then, and what was stored as changes against them, keep theirs.
    """
    states = BlockStates.of(manifest)
    digest = xxhash.xxh3_64()
    for column in (states.content, states.file, states.file_block):
        digest.update(np.ascontiguousarray(column).data)
    files = manifest.files.drop("package").rows()
    digest.update(json.dumps([manifest.disk_bytes, files, manifest.partitions.rows()]).encode())
    packages = manifest.files["package"]
    if packages.null_count() < len(packages) or not manifest.references.is_empty():
        more = [packages.to_list(), manifest.references.rows()]
        digest.update(json.dumps(more).encode())
    return digest.hexdigest()


def save_state(
    stem: Path, manifest: Manifest, base: Manifest | None, base_boot: str | None, table: ContentTable
) -> None:
    """Write ``<stem>.blocks.parquet``, ``<stem>.files.parquet`` and ``<stem>.references.parquet``.

    The table has to know all contents.
    """
    metadata = {
        "format": _FORMAT,
        "disk_bytes": manifest.disk_bytes,
        "partitions": manifest.partitions.to_dicts(),
        "base_boot": base_boot,
        "base_digest": None if base is None else state_digest(base),
        "digest": state_digest(manifest),
        "contents_rows": len(table.hashes),
        "contents_digest": table.digest(len(table.hashes)),
    }
    runs = _block_runs(manifest, base, table)
    changes = _reference_changes(manifest.references, base)
    write_parquet_atomically(_file_runs(manifest.files, base), stem.with_name(stem.name + ".files.parquet"))
    write_parquet_atomically(changes, stem.with_name(stem.name + ".references.parquet"))
    write_parquet_atomically(
        runs, stem.with_name(stem.name + ".blocks.parquet"), {_METADATA_KEY: json.dumps(metadata)}
    )


def load_state(stem: Path, base: Manifest | None, base_boot: str | None, table: ContentTable) -> Manifest:
    """Read what `save_state` wrote.

    Raises
    ------
    CorpusError
        If a file is truncated or foreign, or does not fit the base or the shared table.
    """
    path = stem.with_name(stem.name + ".blocks.parquet")
    files_path = stem.with_name(stem.name + ".files.parquet")
    runs, metadata = read_parquet_with_metadata(path, "a stored disk state", CorpusError)
    file_runs, _ = read_parquet_with_metadata(files_path, "the files of a stored disk state", CorpusError)
    about = _read_about(metadata, path)
    base = _expected_base(path, about, base, base_boot)
    rows = about["contents_rows"]
    if rows > len(table.hashes) or about["contents_digest"] != table.digest(rows):
        raise CorpusError(
            f"{path}: expected the shared table of block contents it was written with "
            f"({rows} rows), {table.source} is another or an older one"
        )
    references = REFERENCES_SCHEMA.to_frame()
    if about["format"] == _WITHOUT_REFERENCES:
        file_runs = file_runs.with_columns(package=pl.lit(None, pl.String))
    else:
        references_path = stem.with_name(stem.name + ".references.parquet")
        what = "the references of a stored disk state"
        changes, _ = read_parquet_with_metadata(references_path, what, CorpusError)
        references = _expand_references(changes, base, references_path)
    files = _expand_files(file_runs, base, files_path)
    states = _expand_blocks(runs, about["disk_bytes"], base, files, table, path)
    try:
        manifest = Manifest(about["disk_bytes"], states.frame(), files, about["partitions"], references)
    except ValueError as error:
        raise CorpusError(f"{path}: {error}") from error
    if state_digest(manifest) != about["digest"]:
        raise CorpusError(f"{path}: the state read is not the one that was written (its fingerprint differs)")
    return manifest


def stored_digest(stem: Path) -> str:
    """Return the `state_digest` of a stored state, without reading the state.

    Raises
    ------
    CorpusError
        If the file is truncated or foreign.
    """
    path = stem.with_name(stem.name + ".blocks.parquet")
    _, metadata = read_parquet_with_metadata(path, "a stored disk state", CorpusError)
    return str(_read_about(metadata, path)["digest"])


def _read_about(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    if _METADATA_KEY not in metadata:
        raise CorpusError(f"{path}: a Parquet file, but no disk state (no '{_METADATA_KEY}' in its metadata)")
    try:
        about: dict[str, Any] = json.loads(metadata[_METADATA_KEY])
        about["partitions"] = pl.DataFrame(about["partitions"], schema=PARTITIONS_SCHEMA)
        about.setdefault("format", _WITHOUT_REFERENCES)
        if about["format"] not in (_WITHOUT_REFERENCES, _FORMAT):
            raise ValueError(f"format {_WITHOUT_REFERENCES} or {_FORMAT}, got {about['format']!r}")
        if about.keys() < _ABOUT.keys() or any(not isinstance(about[key], _ABOUT[key]) for key in _ABOUT):
            raise TypeError(f"expected {', '.join(_ABOUT)}")
        if about["disk_bytes"] <= 0 or about["contents_rows"] <= 0:
            raise ValueError("a size is not positive")
        return about
    except (ValueError, TypeError, KeyError, AttributeError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise CorpusError(f"{path}: expected what is known of a disk state as JSON: {reason}") from error


def _expected_base(
    path: Path, about: dict[str, Any], base: Manifest | None, base_boot: str | None
) -> Manifest | None:
    if about["base_boot"] is None:
        return None
    if base is None or base_boot != about["base_boot"]:
        raise CorpusError(
            f"{path}: stores only changes since boot {about['base_boot']!r}, which does not come before it "
            f"in the corpus (there is {base_boot!r})"
        )
    if state_digest(base) != about["base_digest"]:
        raise CorpusError(
            f"{path}: stores changes since another state of boot {base_boot!r} than the corpus has"
        )
    return base


def _block_runs(manifest: Manifest, base: Manifest | None, table: ContentTable) -> pl.DataFrame:
    now = BlockStates.of(manifest)
    before = BlockStates.predicted(base, len(now.content), manifest.files)
    changed = (
        (now.content != before.content) | (now.file != before.file) | (now.file_block != before.file_block)
    )
    block = np.flatnonzero(changed)
    content = table.rows_of(now.content[block])
    file, file_block = now.file[block], now.file_block[block]
    goes_on = (
        (np.diff(block) == 1)
        & np.where(content[:-1] == 0, content[1:] == 0, np.diff(content) == 1)
        & (np.diff(file) == 0)
        & ((file[1:] < 0) | (np.diff(file_block) == 1))
    )
    start = np.flatnonzero(np.concatenate([[True], ~goes_on])) if len(block) else np.empty(0, np.int64)
    count = np.diff(np.append(start, len(block)))
    runs = {
        "block": block[start],
        "count": count,
        "content": content[start],
        "file": file[start],
        "file_block": file_block[start],
    }
    return pl.DataFrame(runs).cast(_RUNS_SCHEMA)


def _expand_blocks(
    runs: pl.DataFrame,
    disk_bytes: int,
    base: Manifest | None,
    files: pl.DataFrame,
    table: ContentTable,
    path: Path,
) -> BlockStates:
    _expect_schema(runs, _RUNS_SCHEMA, path)
    blocks = -(-disk_bytes // MANIFEST_BLOCK_BYTES)
    end = pl.col("block") + pl.col("count")
    last_content = pl.col("content") + pl.when(pl.col("content") == 0).then(1).otherwise(pl.col("count"))
    expect_no_row(
        runs,
        {
            "a value is missing": pl.any_horizontal(pl.all().is_null()),
            "'count' is not positive": pl.col("count") <= 0,
            "the run starts before the one above ends": pl.col("block") < end.shift(1, fill_value=0),
            f"the run ends beyond the disk's {blocks} blocks": end > blocks,
            "'content' is no row of the shared table": (pl.col("content") < 0)
            | (last_content > len(table.hashes)),
        },
        str(path),
        CorpusError,
    )
    count = runs["count"].to_numpy()
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    where = np.repeat(runs["block"].to_numpy(), count) + within
    content = np.repeat(runs["content"].to_numpy(), count)
    file = np.repeat(runs["file"].to_numpy(), count)
    states = BlockStates.predicted(base, blocks, files)
    states.content[where] = table.hashes[np.where(content == 0, 0, content + within)]
    states.file[where] = file
    states.file_block[where] = np.where(
        file < 0, -1, np.repeat(runs["file_block"].to_numpy(), count) + within
    )
    return states


def _file_runs(files: pl.DataFrame, base: Manifest | None) -> pl.DataFrame:
    base_rows = {} if base is None else {row: number for number, row in enumerate(base.files.rows())}
    runs: list[list[Any]] = []
    for row in files.rows():
        number = base_rows.get(row)
        if number is not None and runs and runs[-1][1] is not None and sum(runs[-1][:2]) == number:
            runs[-1][0] += 1
        else:
            runs.append([1, number, *(row if number is None else [None] * len(row))])
    return pl.DataFrame(runs, schema=_FILE_RUNS_SCHEMA, orient="row")


def _expand_files(runs: pl.DataFrame, base: Manifest | None, path: Path) -> pl.DataFrame:
    _expect_schema(runs, _FILE_RUNS_SCHEMA, path)
    known = 0 if base is None else base.files.height
    row = pl.col("base_row")
    expect_no_row(
        runs,
        {
            "'count' is not positive": pl.col("count").is_null() | (pl.col("count") <= 0),
            "neither a new file nor files of the base": row.is_null()
            & (pl.any_horizontal(pl.col("path", "size", "kind").is_null()) | (pl.col("count") != 1)),
            f"the run is not within the base's {known} files": (row < 0) | (row + pl.col("count") > known),
        },
        str(path),
        CorpusError,
    )
    if base is None:
        return runs.select(*FILES_SCHEMA)
    expanded = runs.with_columns(base_row=pl.int_ranges(row, row + pl.col("count"))).explode(
        "base_row", empty_as_null=True
    )
    kept = base.files.with_row_index("base_row").with_columns(pl.col("base_row").cast(pl.Int64))
    joined = expanded.join(kept, on="base_row", how="left", suffix="_kept", maintain_order="left")
    return joined.select(pl.coalesce(name, f"{name}_kept").alias(name) for name in FILES_SCHEMA)


def _reference_changes(references: pl.DataFrame, base: Manifest | None) -> pl.DataFrame:
    before = REFERENCES_SCHEMA.to_frame() if base is None else base.references
    columns = list(REFERENCES_SCHEMA)
    added = references.join(before, on=columns, how="anti").with_columns(removed=False)
    removed = before.join(references, on=columns, how="anti").with_columns(removed=True)
    return pl.concat([added, removed]).sort(*columns).select(*_REFERENCE_CHANGES_SCHEMA)


def _expand_references(changes: pl.DataFrame, base: Manifest | None, path: Path) -> pl.DataFrame:
    _expect_schema(changes, _REFERENCE_CHANGES_SCHEMA, path)
    before = REFERENCES_SCHEMA.to_frame() if base is None else base.references
    columns = list(REFERENCES_SCHEMA)
    marked = changes.join(before.with_columns(known=True), on=columns, how="left", maintain_order="left")
    is_known = pl.col("known").fill_null(False)
    expect_no_row(
        marked,
        {
            "a value is missing": pl.any_horizontal(pl.col(*_REFERENCE_CHANGES_SCHEMA).is_null()),
            "removes a reference that the base has not": pl.col("removed") & ~is_known,
            "adds a reference that the base has": ~pl.col("removed") & is_known,
        },
        str(path),
        CorpusError,
    )
    removed, added = changes.filter("removed"), changes.filter(~pl.col("removed"))
    kept = before.join(removed, on=columns, how="anti")
    return sorted_references(pl.concat([kept, added.select(*columns)]))


def _expect_schema(frame: pl.DataFrame, schema: pl.Schema, path: Path) -> None:
    if dict(frame.schema) != dict(schema):
        raise CorpusError(f"{path}: expected columns {dict(schema)}, got {dict(frame.schema)}")
