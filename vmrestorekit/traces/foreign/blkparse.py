"""The text that blkparse prints of a recording by blktrace, in its default format.

Defined in blkparse(1), "Output description and formatting": device, processor, sequence number, seconds,
process, action, kind (RWBS), and for the actions used here first sector + count of 512 bytes::

      8,0    0        4     0.000002600   697  D  RS 2048 + 8 [dd]
      8,0    0        5     0.000180000     0  C  RS 2048 + 8 [0]
"""

from __future__ import annotations

import os

import polars as pl

from vmrestorekit.traces.foreign.common import (
    ForeignFormatError,
    build_trace,
    expect,
    pair_events,
    read_lines,
    take_apart,
    with_forced_flushes,
)
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["import_blkparse"]

_PREFIX = (
    r"^ *(?P<device>\d+,\d+) +\d+ +\d+ +(?P<seconds>\d{1,9})\.(?P<nanoseconds>\d{9}) +\d+ "
    r"+(?P<action>[A-Za-z]{1,2})\b"
)
_EVENT = _PREFIX + (
    r" +(?P<kind>[RWDFNSAMVB]+)(?: (?P<sector>\d{1,15}) \+ (?P<count>\d{1,15}))?(?: \d+)?(?: \[.*\])?$"
)
_USED = ("Q", "D", "C")
_SUMMARY = r"^(?:CPU ?\d+|Total) \("
_SECTOR = 512


def import_blkparse(path: str | os.PathLike[str]) -> ReadTrace:
    """Read what blkparse prints.

    A request is a D event (issued to the driver, after merging) and the C event (completion) of the same
    device, sectors and kind that follows it; in a recording without D events (of a device mapper, say) it is
    a Q event. Other actions are skipped, and so is the summary at the end. Kinds (RWBS): D is a discard, F
    without sectors a flush, F behind the W a write that is durable at once; a flush in front of a write with
    data is not told apart. Time 0 is the start of the recording, precise to 1 ns. Disks are numbered in order
    of appearance.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If a line is no event, or there is no Q or D event.
    """
    lines = read_lines(path)
    summary = lines.filter(pl.col("text").str.contains(_SUMMARY))["line"]
    if len(summary):
        lines = lines.filter(pl.col("line") < summary[0])
    heads = take_apart(lines, _PREFIX, path, "an event as blkparse prints it by default")
    actions = set(heads["action"].unique())
    issue = "D" if "D" in actions else "Q"
    if issue not in actions:
        raise ForeignFormatError(
            f"{path}: expected events as blkparse prints them, with the action D or Q, found none"
        )
    used = lines.filter(heads["action"].is_in([issue, "C"]))
    events = take_apart(used, _EVENT, path, "an event with RWBS and sector + count").with_columns(
        pl.col("sector", "count").cast(pl.Int64),
        time=pl.col("seconds").cast(pl.Int64) * 10**9 + pl.col("nanoseconds").cast(pl.Int64),
        begins=pl.col("action") == issue,
        failed=pl.lit(False),
        appeared=pl.col("line").min().over("device"),
    )
    flush = pl.col("kind").str.contains("F") & pl.col("count").is_null()
    expect(events, flush | pl.col("count").is_not_null(), path, "a first sector and a count")
    op = (
        pl.when(flush)
        .then(pl.lit("flush"))
        .when(pl.col("kind").str.contains("D"))
        .then(pl.lit("discard"))
        .when(pl.col("kind").str.contains("W"))
        .then(pl.lit("write"))
        .when(pl.col("kind").str.contains("R"))
        .then(pl.lit("read"))
    )
    events = events.with_columns(
        op=op,
        disk=pl.col("appeared").rank("dense").cast(pl.Int64) - 1,
        forced=pl.col("kind").str.contains("WF"),
        # a bare flush has no sectors; nulls would be a key of their own anyway
        offset=pl.col("sector").fill_null(0) * _SECTOR,
        length=pl.col("count").fill_null(0) * _SECTOR,
    )
    expect(events, pl.col("op").is_not_null(), path, "R, W, D or F in the kind (RWBS)")
    empty = (pl.col("op") != "flush") & (pl.col("length") == 0)  # a barrier, or a flush of older kernels
    requests = pair_events(events.filter(~empty), ["device", "kind", "offset", "length"])
    return build_trace(path, with_forced_flushes(requests), recorder="blkparse", tick_ns=1, zero=0)
