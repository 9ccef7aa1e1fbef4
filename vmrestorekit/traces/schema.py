"""The recorded trace: its schema, its metadata, and what makes a row valid.

A trace has one row for each request as the virtual machine saw it. Time is integer nanoseconds since the
recorder saw the virtual machine start; offsets and lengths are bytes.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

__all__ = [
    "FOLLOWS",
    "OPS",
    "TRACE_SCHEMA",
    "ReadTrace",
    "TraceError",
    "TraceMetadata",
    "expect_no_row",
    "read_parquet",
    "read_parquet_metadata",
    "read_parquet_rows",
    "read_parquet_with_metadata",
    "validate_trace",
    "write_parquet_atomically",
]

_Read = TypeVar("_Read")

OPS = ("read", "write", "discard", "flush")
# what can come before a boot; "" = unknown
FOLLOWS = ("", "build", "shutdown", "crash", "change")

TRACE_SCHEMA = pl.Schema(
    {
        "issued_ns": pl.Int64(),
        "completed_ns": pl.Int64(),
        "disk": pl.UInt8(),
        "op": pl.Enum(OPS),
        "offset": pl.Int64(),
        "length": pl.Int64(),
    }
)

_METADATA_KEY = "vmrestorekit.trace"


class TraceError(ValueError):
    """A trace that cannot be used; the message says what was expected, what came, and where."""


@dataclasses.dataclass(frozen=True)
class TraceMetadata:
    """What is known about a recording besides its rows.

    Attributes
    ----------
    vm, boot : str
        Name of the virtual machine and of the recorded boot, such as ``"bookworm-db"`` and ``"boot-1"``.
    disk_bytes : tuple of int
        Size of each disk; the trace's ``disk`` column indexes it.
    marks : mapping of str to int
        Instants in nanoseconds on the trace's clock. ``boot_done_ns`` is when the guest's serial console
        announced the end of its boot; from ``service_start_ns`` to ``service_end_ns`` a client used the
        service.
    recorder, accelerator : str
        What wrote the trace, and what ran the guest's processor (``"kvm"`` or ``"tcg"``).
    versions : mapping of str to str
        Versions of the programs that took part, such as ``qemu`` and ``kernel``.
    follows : str
        What came before this boot, one of `FOLLOWS`: ``"build"`` (the very first boot of a new image), a
        clean ``"shutdown"``, a ``"crash"``, a ``"change"`` of packages, configuration or data since the boot
        before; empty if unknown.
    repeats : str
        Name of the boot of which this is another recording, from the same state of the disks; empty if of
        none.

    Raises
    ------
    TraceError
        If `follows` is none of these, or `repeats` is no name of another boot.
    """

    vm: str
    boot: str
    disk_bytes: tuple[int, ...]
    marks: Mapping[str, int]
    recorder: str
    accelerator: str
    versions: Mapping[str, str]
    follows: str = ""
    repeats: str = ""

    def __post_init__(self) -> None:
        where = f"{self.vm} {self.boot}"
        if self.follows not in FOLLOWS:
            raise TraceError(f"{where}: expected 'follows' to be one of {FOLLOWS}, got {self.follows!r}")
        if not isinstance(self.repeats, str) or (self.repeats and self.repeats == self.boot):
            raise TraceError(
                f"{where}: expected 'repeats' to be the name of another boot, got {self.repeats!r}"
            )

    def to_json(self) -> str:
        """Return the metadata as one JSON object."""
        return json.dumps(dataclasses.asdict(self) | {"disk_bytes": list(self.disk_bytes)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TraceMetadata:
        """Read what `to_json` wrote.

        Raises
        ------
        TraceError
            If the text is no such object.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            metadata = cls(**(fields | {"disk_bytes": tuple(map(operator.index, fields["disk_bytes"]))}))
            if any(operator.index(instant) < 0 for instant in metadata.marks.values()):
                raise ValueError(f"a mark is negative: {metadata.marks}")
            return metadata
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TraceError(f"expected a trace's metadata as JSON, got {text[:60]!r}: {error}") from error


@dataclasses.dataclass(frozen=True)
class ReadTrace:
    """A recorded trace: a frame with `TRACE_SCHEMA`, ordered by ``issued_ns``, and its metadata."""

    frame: pl.DataFrame
    metadata: TraceMetadata

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one Parquet file (zstd), whole or not at all."""
        write_parquet_atomically(self.frame, Path(path), {_METADATA_KEY: self.metadata.to_json()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ReadTrace:
        """Read and validate what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        TraceError
            If the file is truncated, is no trace of this kind, or a row is invalid.
        """
        path = Path(path)
        frame, metadata = read_parquet_with_metadata(path, "a recorded trace", TraceError)
        if _METADATA_KEY not in metadata:
            raise TraceError(f"{path}: a Parquet file, but no trace (no '{_METADATA_KEY}' in its metadata)")
        try:
            trace = cls(frame, TraceMetadata.from_json(metadata[_METADATA_KEY]))
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from error
        validate_trace(trace.frame, trace.metadata, source=str(path))
        return trace


def write_parquet_atomically(frame: pl.DataFrame, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a frame so that a reader sees the old file or the whole new one, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        frame.write_parquet(partial, compression="zstd", compression_level=19, metadata=metadata)
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_parquet_with_metadata(
    path: Path, what: str, error_class: type[ValueError]
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read a Parquet file and its metadata; `what` says in errors what was expected in it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    error_class
        If it is no whole Parquet file.
    """
    return read_parquet(path, what, error_class), read_parquet_metadata(path, what, error_class)


def read_parquet(path: Path, what: str, error_class: type[ValueError]) -> pl.DataFrame:
    """Read a Parquet file, see `read_parquet_with_metadata`."""
    return _read_with(lambda path: pl.read_parquet(path, glob=False), path, what, error_class)


def read_parquet_rows(
    path: Path, what: str, error_class: type[ValueError], first: int, count: int
) -> pl.DataFrame:
    """Read some rows of a Parquet file, see `read_parquet_with_metadata`."""

    def read(path: Path) -> pl.DataFrame:
        return pl.scan_parquet(path, glob=False).slice(first, count).collect()

    return _read_with(read, path, what, error_class)


def read_parquet_metadata(path: Path, what: str, error_class: type[ValueError]) -> dict[str, str]:
    """Read the metadata of a Parquet file, see `read_parquet_with_metadata`."""
    return _read_with(pl.read_parquet_metadata, path, what, error_class)


def _read_with(read: Callable[[Path], _Read], path: Path, what: str, error_class: type[ValueError]) -> _Read:
    if not path.is_file():
        raise FileNotFoundError(f"expected {what} at {path}, found no such file")
    try:
        return read(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        # polars panics on some damaged pages, and a panic is no Exception
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise error_class(f"{path}: expected a whole Parquet file with {what}: {reason}") from error


def validate_trace(frame: pl.DataFrame, metadata: TraceMetadata, source: str = "trace") -> None:
    """Check every row against the schema and the disks it names.

    Raises
    ------
    TraceError
        Names the source, the first bad row (counted from 0) and what is wrong with it.
    """
    if dict(frame.schema) != dict(TRACE_SCHEMA):
        raise TraceError(f"{source}: expected columns {dict(TRACE_SCHEMA)}, got {dict(frame.schema)}")
    if not metadata.disk_bytes or min(metadata.disk_bytes) <= 0:
        raise TraceError(f"{source}: expected at least one disk of positive size, got {metadata.disk_bytes}")
    disks = pl.Series("disk_bytes", metadata.disk_bytes, dtype=pl.Int64)
    has_range = pl.col("op") != "flush"
    size = pl.col("disk").cast(pl.Int64).replace_strict(list(range(len(disks))), disks, default=None)
    rules = {
        "a value is missing": pl.any_horizontal(pl.all().is_null()),
        f"'disk' is not below {len(disks)}": pl.col("disk") >= len(disks),
        "'issued_ns' is negative": pl.col("issued_ns") < 0,
        "'completed_ns' is before 'issued_ns'": pl.col("completed_ns") < pl.col("issued_ns"),
        "'issued_ns' is before that of the row above": pl.col("issued_ns") < pl.col("issued_ns").shift(1),
        "'offset' is negative": pl.col("offset") < 0,
        "'length' is not positive": has_range & (pl.col("length") <= 0),
        "a flush has a range": ~has_range & ((pl.col("offset") != 0) | (pl.col("length") != 0)),
        "the request ends beyond the disk": has_range & (pl.col("length") > size - pl.col("offset")),
    }
    expect_no_row(frame, rules, source, TraceError)


def expect_no_row(
    frame: pl.DataFrame, rules: Mapping[str, pl.Expr], source: str, error_class: type[ValueError]
) -> None:
    """Check that no row breaks one of the rules, each given as a reason and when it applies.

    Raises
    ------
    error_class
        Names the source, the first bad row (counted from 0), the reason and the row's values.
    """
    broken = frame.select(pl.arg_where(rule).first().alias(reason) for reason, rule in rules.items()).row(0)
    found = [(row, reason) for row, reason in zip(broken, rules, strict=True) if row is not None]
    if found:
        row, reason = min(found, key=lambda pair: pair[0])
        raise error_class(f"{source}: row {row}: {reason}: {frame.row(row, named=True)}")
