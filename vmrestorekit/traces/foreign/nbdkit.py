"""The log of nbdkit's log filter.

Defined in nbdkit-log-filter(1); each request has a line when it comes and one, with ``return=``, when it is
done::

    2026-11-27 06:36:03.061370 connection=1 Read id=2 offset=0x1000 count=0x200 ...
    2026-11-27 06:36:03.061377 connection=1 ...Read id=2 return=0
"""

from __future__ import annotations

import os

import polars as pl

from vmrestorekit.traces.foreign.common import (
    build_trace,
    expect,
    pair_events,
    read_lines,
    take_apart,
    with_forced_flushes,
)
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["import_nbdkit"]

_LINE = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} [A-Za-z.]"
_REQUEST = r"^\S+ \S+ connection=\d+ (?:\.\.\.)?(?:Read|Write|Trim|Zero|Flush)\b"
_PATTERN = (
    r"^(?P<time>\S+ \S+) connection=(?P<connection>\d{1,18}) (?P<returns>(?:\.\.\.)?)"
    r"(?P<name>Read|Write|Trim|Zero|Flush) id=(?P<id>\d{1,18})"
    r"(?: offset=0x(?P<offset>[0-9a-f]{1,15}) count=0x(?P<count>[0-9a-f]{1,15}))?"
    r"(?: trim=(?P<trim>[01]))?(?: fua=(?P<fua>[01]))?(?: fast=[01])?"
    r"(?: \.\.\.| return=(?P<return>-?\d+)(?: error=\S+)?)$"
)
_EXPECTED = "a request or its return as nbdkit's log filter writes it"


def import_nbdkit(path: str | os.PathLike[str]) -> ReadTrace:
    """Read the log of nbdkit's log filter.

    Time 0 is the first request; the log is precise to 1 µs. A request to write zeros is a discard where the
    client lets the server trim, else a write. The disk's size is that of the log's first ``Connect``.

    Parameters
    ----------
    path : path-like
        What ``logfile=`` named; a log of one disk.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If a line is none of such a log, or none is a request.
    """
    lines = read_lines(path)
    text = pl.col("text")
    expect(lines, text.str.contains(_LINE), path, "a line of nbdkit's log filter, which starts with a time")
    parts = take_apart(lines.filter(text.str.contains(_REQUEST)), _PATTERN, path, _EXPECTED)
    events = parts.with_columns(
        pl.col("time").str.to_datetime("%Y-%m-%d %H:%M:%S%.6f", time_unit="us", strict=False).cast(pl.Int64),
        pl.col("offset", "count").str.to_integer(base=16, strict=False),
        begins=pl.col("returns") == "",
        failed=pl.col("return").str.starts_with("-").fill_null(False),
    )
    expect(events, pl.col("time").is_not_null(), path, "a date and a time of day")
    has_range = (pl.col("name") == "Flush") | ~pl.col("begins") | pl.col("count").is_not_null()
    expect(events, has_range, path, "an offset and a count")
    op = (
        pl.when((pl.col("name") == "Zero") & (pl.col("trim") == "1"))
        .then(pl.lit("discard"))
        .otherwise(pl.col("name").replace_strict(_OPS))
    )
    requests = pair_events(events, ["connection", "id"]).with_columns(
        disk=pl.lit(0), op=op, length=pl.col("count"), forced=(pl.col("fua") == "1").fill_null(False)
    )
    size = lines.select(
        text.str.extract(r" Connect .*\bsize=0x([0-9a-f]{1,15})\b").drop_nulls().first()
    ).item()
    return build_trace(
        path,
        with_forced_flushes(requests),
        recorder="nbdkit log filter",
        tick_ns=1000,
        disk_bytes=(int(size, 16),) if size else None,
    )


_OPS = {"Read": "read", "Write": "write", "Trim": "discard", "Zero": "write", "Flush": "flush"}
