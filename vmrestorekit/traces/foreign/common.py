"""What the importers of foreign formats share: reading lines, pairing events, making a valid trace of rows.

Rules that hold for every importer:

- A completion that the format or the file does not tell is *not recorded*: ``completed_ns`` equals
  ``issued_ns``, and the metadata's ``recorder`` says of how many requests this is so.
- Requests that the file says failed are left out, as in our own recordings; a write that had to be durable at
  once (FUA) is a write and, when it is done, a flush.
- Where a format does not tell a disk's size, it is where the disk's furthest request ends.
- Rows are ordered by issue, equal times as in the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from vmrestorekit.traces.schema import OPS, TRACE_SCHEMA, ReadTrace, TraceError, TraceMetadata, validate_trace

__all__ = [
    "ForeignFormatError",
    "build_trace",
    "expect",
    "pair_events",
    "read_lines",
    "read_records",
    "take_apart",
    "with_forced_flushes",
    "write_whole",
]

_LARGEST = 2**62  # of a time in nanoseconds, an offset or a length: sums of two still fit 64 bits
_MOST_DISKS = 256


class ForeignFormatError(ValueError):
    """A foreign trace that cannot be read or written; says what was expected, what came, and where."""


def read_lines(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Return the lines of a UTF-8 file that are not blank: ``line`` (from 1) and ``text``, without line ends.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If it is no UTF-8 text.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ForeignFormatError(
            f"{path}: line {line}: expected UTF-8 text, got the byte {byte:#04x}"
        ) from None
    lines = pl.DataFrame({"text": text.split("\n")}, schema={"text": pl.String})
    return (
        lines.with_row_index("line", offset=1)
        .with_columns(pl.col("line").cast(pl.Int64), pl.col("text").str.strip_suffix("\r"))
        .filter(pl.col("text").str.strip_chars() != "")
    )


def read_records(path: str | os.PathLike[str], record: np.dtype[np.void]) -> pl.DataFrame:
    """Return the records of a binary file as columns, with ``line`` the record's number from 1.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If the file does not end with a whole record.
    """
    content = Path(path).read_bytes()
    whole, rest = divmod(len(content), record.itemsize)
    if rest:
        raise ForeignFormatError(
            f"{path}: record {whole + 1}: expected {record.itemsize} bytes, got {rest} and the end"
        )
    records = np.frombuffer(content, record)
    assert record.names is not None
    columns = {name: np.ascontiguousarray(records[name]) for name in record.names}
    return pl.DataFrame(columns).with_columns(line=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))


def take_apart(
    lines: pl.DataFrame, pattern: str, path: str | os.PathLike[str], expected: str
) -> pl.DataFrame:
    """Return what the named groups of a pattern match in each line, as text; every line has to match.

    Raises
    ------
    ForeignFormatError
        Names the first line that does not match.
    """
    expect(lines, pl.col("text").str.contains(pattern), path, expected)
    return lines.select("line", pl.col("text").str.extract_groups(pattern).alias("group")).unnest("group")


def expect(
    rows: pl.DataFrame, holds: pl.Expr, path: str | os.PathLike[str], expected: str, unit: str = "line"
) -> None:
    """Check that a rule holds for every row; a null is a failure.

    Raises
    ------
    ForeignFormatError
        Names the file, the first bad line or record, what was expected and what came.
    """
    bad = rows.filter(~holds.fill_null(False))
    if bad.height:
        first = bad.row(0, named=True)
        number = first.pop("line")
        came = repr(first["text"])[:100] if "text" in first else str(first)
        raise ForeignFormatError(f"{path}: {unit} {number}: expected {expected}, got {came}")


def pair_events(events: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Give each request the completion that follows it among the events of its key.

    Parameters
    ----------
    events : polars.DataFrame
        In the file's order, with ``time``, ``begins`` (whether the event is an issue), ``failed`` and `key`.
    key : sequence of str
        Columns that tell requests in flight apart.

    Returns
    -------
    polars.DataFrame
        The issues that did not fail, with ``issued``, ``completed`` (null: the file has none), ``end_line``.
    """
    following = {"completed": "time", "ends": "begins", "end_failed": "failed", "end_line": "line"}
    paired = events.with_columns(
        pl.col(name).shift(-1).over(key).alias(new) for new, name in following.items()
    )
    ends = ~pl.col("ends").fill_null(True)
    return (
        paired.filter("begins", ~(ends & pl.col("end_failed").fill_null(False)))
        .with_columns(pl.when(ends).then(pl.col("completed", "end_line")), issued="time")
        .drop("time", "begins", "failed", "ends", "end_failed")
    )


def with_forced_flushes(requests: pl.DataFrame) -> pl.DataFrame:
    """Add a flush after each request that is ``forced`` (FUA), at its completion if that is known."""
    flushes = requests.filter("forced").with_columns(
        issued=pl.coalesce("completed", "issued"),
        line=pl.coalesce("end_line", "line"),
        op=pl.lit("flush"),
        offset=pl.lit(0, pl.Int64),
        length=pl.lit(0, pl.Int64),
    )
    return pl.concat([requests, flushes])


def build_trace(
    path: str | os.PathLike[str],
    requests: pl.DataFrame,
    *,
    recorder: str,
    tick_ns: int,
    unit_bytes: int = 1,
    zero: int | None = None,
    disk_bytes: Sequence[int] | None = None,
    unit: str = "line",
) -> ReadTrace:
    """Check the requests of a foreign file and make a valid trace of them.

    Parameters
    ----------
    path : path-like
        Named in errors; the machine is named after it, and the boot ``"boot-1"``.
    requests : polars.DataFrame
        ``line``, ``issued`` and ``completed`` (null = not recorded) in ticks, ``disk``, ``op``, ``offset`` in
        units of `unit_bytes`, ``length`` in bytes.
    recorder : str
        The format, for the metadata.
    tick_ns : int
        Nanoseconds of one tick.
    unit_bytes : int
        Bytes of a unit of offset.
    zero : int, optional
        The tick that becomes time 0; default: that of the first request.
    disk_bytes : sequence of int, optional
        Size of each disk; default: where its furthest request ends.
    unit : str
        What ``line`` counts.

    Raises
    ------
    ForeignFormatError
        If there is no request, or one is impossible.
    """
    if requests.is_empty():
        raise ForeignFormatError(f"{path}: expected requests ({recorder}), found none in this file")
    start = int(requests["issued"].min()) if zero is None else zero  # type: ignore[arg-type]
    rows = requests.with_columns(
        pl.when(pl.col("op") == "flush").then(0).otherwise(pl.col("offset", "length")).name.keep()
    )
    flush, longest = pl.col("op") == "flush", _LARGEST // tick_ns
    span = pl.col("issued") - start
    took = pl.coalesce("completed", "issued") - pl.col("issued")
    rules = {
        f"a time of at most {longest} ticks of {tick_ns} ns since the start": span.is_between(0, longest),
        "a completion that is not before the issue": took.is_between(0, longest),
        f"an offset from 0 to {_LARGEST // unit_bytes}": pl.col("offset").is_between(
            0, _LARGEST // unit_bytes
        ),
        f"a length from 1 to {_LARGEST} bytes": flush | pl.col("length").is_between(1, _LARGEST),
        f"one of at most {_MOST_DISKS} disks": pl.col("disk").is_between(0, _MOST_DISKS - 1),
    }
    for expected, holds in rules.items():
        expect(rows, holds, path, expected, unit)
    rows = rows.sort("issued", "line", maintain_order=True)
    frame = rows.select(
        issued_ns=span * tick_ns,
        completed_ns=(span + took) * tick_ns,
        disk=pl.col("disk").cast(pl.UInt8),
        op=pl.col("op").cast(pl.Enum(OPS)),
        offset=pl.col("offset") * unit_bytes,
        length=pl.col("length"),
    ).cast(TRACE_SCHEMA)
    unfinished = rows["completed"].null_count()
    told = f"; completion not recorded for {unfinished} of {rows.height} requests" if unfinished else ""
    sizes = tuple(disk_bytes) if disk_bytes else _sizes(frame)
    metadata = TraceMetadata(Path(path).stem, "boot-1", sizes, {}, recorder + told, "unknown", {})
    try:
        validate_trace(frame, metadata, source=str(path))
    except TraceError as error:
        # such as a request beyond the end of the disk, whose size the file told
        raise ForeignFormatError(f"expected requests that are possible: {error}") from error
    return ReadTrace(frame, metadata)


def _sizes(frame: pl.DataFrame) -> tuple[int, ...]:
    ends = frame.group_by("disk").agg(end=(pl.col("offset") + pl.col("length")).max())
    known = dict(ends.iter_rows())
    return tuple(max(known.get(disk, 1), 1) for disk in range(max(known) + 1))


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    partial = Path(path).with_name(Path(path).name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
