"""Comma-separated formats: MSR Cambridge, CloudPhysics, and this project's own.

**MSR Cambridge**, defined in the README of the traces (Narayanan and others, "Write Off-Loading", FAST 2008):
``Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime``, times in Windows file time (ticks of 100 ns).

**CloudPhysics**, as in the public libCacheSim repository (``data/``): ``version,time,op,size,lbn`` with time
in whole seconds, a hexadecimal SCSI operation code, size in bytes and the logical block number of 512 bytes.

**Own**: the columns of `TRACE_SCHEMA`, nanoseconds and bytes; holds all but the metadata.
"""

from __future__ import annotations

import os

import polars as pl

from vmrestorekit.traces.foreign.common import build_trace, expect, read_lines, take_apart, write_whole
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace

__all__ = ["export_csv", "import_cloudphysics_csv", "import_csv", "import_msr_cambridge"]

_NUMBER = r"-?\d{1,18}"
_MSR_HEADER = "Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime"
_MSR = (
    rf"^(?P<issued>{_NUMBER}),(?P<host>[^,]+),(?P<number>\d{{1,9}}),(?P<op>(?i:read|write)),"
    rf"(?P<offset>{_NUMBER}),(?P<length>{_NUMBER}),(?P<took>{_NUMBER})$"
)
_CLOUDPHYSICS_HEADER = "version,time,op,size,lbn"
_CLOUDPHYSICS = (
    rf"^\d+,(?P<issued>{_NUMBER}),(?P<op>[0-9a-fA-F]{{1,2}}),(?P<length>{_NUMBER}),(?P<offset>{_NUMBER})$"
)
_OWN_HEADER = ",".join(TRACE_SCHEMA)
_OWN = (
    rf"^(?P<issued>{_NUMBER}),(?P<completed>{_NUMBER}),(?P<disk>\d{{1,9}}),"
    rf"(?P<op>read|write|discard|flush),(?P<offset>{_NUMBER}),(?P<length>{_NUMBER})$"
)
# SCSI Block Commands (SBC): READ and WRITE of 6, 10, 12 and 16 bytes, SYNCHRONIZE CACHE of 10 and 16
SCSI_OPS = dict.fromkeys((0x08, 0x28, 0xA8, 0x88), "read")
SCSI_OPS |= dict.fromkeys((0x0A, 0x2A, 0xAA, 0x8A), "write")
SCSI_OPS |= dict.fromkeys((0x35, 0x91), "flush")


def import_msr_cambridge(path: str | os.PathLike[str]) -> ReadTrace:
    """Read a trace of MSR Cambridge: a host, its disks numbered anew from 0 in the order of their numbers.

    Time 0 is the first request; the completion is the issue plus the response time. A header is allowed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If a line has other columns or values, or another host.
    """
    rows = _rows(path, _MSR, _MSR_HEADER)
    if rows.height:
        expect(rows, pl.col("host") == rows["host"][0], path, f"requests of one host, {rows['host'][0]!r}")
    numbers = rows.cast({name: pl.Int64 for name in ("issued", "number", "offset", "length", "took")})
    requests = numbers.with_columns(
        pl.col("op").str.to_lowercase(),
        completed=pl.col("issued") + pl.col("took"),
        disk=pl.col("number").rank("dense").cast(pl.Int64) - 1,
    )
    return build_trace(path, requests, recorder="MSR Cambridge CSV", tick_ns=100)


def import_cloudphysics_csv(path: str | os.PathLike[str]) -> ReadTrace:
    """Read a trace of CloudPhysics as comma-separated text; completions are not recorded.

    Time 0 is the first request, precise to 1 s.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If a line has other columns, or an operation that neither reads, writes nor flushes.
    """
    rows = _rows(path, _CLOUDPHYSICS, _CLOUDPHYSICS_HEADER)
    operation = pl.col("op").str.to_integer(base=16)
    requests = rows.with_columns(
        pl.col("issued", "offset", "length").cast(pl.Int64),
        op=operation.replace_strict(SCSI_OPS, default=None, return_dtype=pl.String),
        code=pl.col("op"),
        completed=pl.lit(None, pl.Int64),
        disk=pl.lit(0),
    )
    expect(requests, pl.col("op").is_not_null(), path, "a SCSI operation that reads, writes or flushes")
    return build_trace(path, requests, recorder="CloudPhysics CSV", tick_ns=10**9, unit_bytes=512)


def import_csv(path: str | os.PathLike[str]) -> ReadTrace:
    """Read what `export_csv` wrote; the first line has to name the columns.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If a line has other columns or values.
    """
    lines = read_lines(path)
    expect(lines.head(1), pl.col("text") == _OWN_HEADER, path, f"the header {_OWN_HEADER!r}")
    rows = take_apart(lines.slice(1), _OWN, path, f"{_OWN_HEADER} as whole numbers and an operation")
    requests = rows.with_columns(pl.col("issued", "completed", "disk", "offset", "length").cast(pl.Int64))
    return build_trace(path, requests, recorder="CSV", tick_ns=1, zero=0)


def export_csv(trace: ReadTrace, path: str | os.PathLike[str]) -> None:
    """Write the rows of a trace as comma-separated text with a header: all that it holds but the metadata."""
    write_whole(path, trace.frame.select(*TRACE_SCHEMA).write_csv().encode())


def _rows(path: str | os.PathLike[str], pattern: str, header: str) -> pl.DataFrame:
    lines = read_lines(path)
    if lines.height and lines["text"][0].lower() == header.lower():
        lines = lines.slice(1)
    return take_apart(lines, pattern, path, header)
