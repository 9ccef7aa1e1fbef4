"""QEMU's trace events for block requests, as its ``log`` backend writes them.

The events are defined in ``hw/block/trace-events`` and ``block/trace-events`` of QEMU's sources; the text was
looked at with QEMU 10.0. With ``-msg timestamp=on`` each line starts with ``pid@seconds.microseconds:``::

    4153@1795761817.326574:virtio_blk_handle_read vdev 0x55f5 req 0x7400 sector 8 nsectors 8
    4153@1795761817.326606:virtio_blk_req_complete vdev 0x55f5 req 0x7400 status 0
    4153@1795761817.326582:blk_co_preadv blk 0x5dc3 bs 0x4107 offset 4096 bytes 4096 flags 0x8
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

__all__ = ["import_qemu"]

_PREFIX = r"^(?:\d+@(?P<seconds>\d{1,12})\.(?P<microseconds>\d{6}):)?"
_VIRTIO = (
    r"(?P<name>virtio_blk_(?:handle_read|handle_write|req_complete)) vdev (?P<disk>0x[0-9a-f]+) "
    r"req (?P<request>0x[0-9a-f]+) "
    r"(?:sector (?P<offset>\d{1,15}) nsectors (?P<length>\d{1,15})|status (?P<status>\d+))$"
)
_BLOCK = (
    r"(?P<name>blk_co_(?:preadv|pwritev)) blk (?P<disk>0x[0-9a-f]+) bs \S+ "
    r"offset (?P<offset>\d{1,18}) bytes (?P<length>\d{1,18}) flags 0x(?P<flags>[0-9a-f]{1,8})$"
)
_VIRTIO_NAMES = r"^(?:\S+:)?virtio_blk_(?:handle_read|handle_write|req_complete)\b"
_BLOCK_NAMES = r"^(?:\S+:)?blk_co_p(?:readv|writev)\b"
# BDRV_REQ_ZERO_WRITE, BDRV_REQ_MAY_UNMAP and BDRV_REQ_FUA of QEMU's block/block-common.h
_ZERO, _MAY_UNMAP, _FUA = 0x2, 0x4, 0x10


def import_qemu(path: str | os.PathLike[str]) -> ReadTrace:
    """Read the log of QEMU's trace events.

    If the file has ``virtio_blk_handle_read`` or ``…_write``, these are the requests, as the guest made them,
    with completions from ``virtio_blk_req_complete``; QEMU has no such event for flushes and discards. Else
    the requests are ``blk_co_preadv`` and ``blk_co_pwritev``, of any device, without completions. Other lines
    are ignored. Disks are numbered in order of appearance. Time 0 is the first request, precise to 1 µs; the
    times of a log without timestamps (as `qemu-io` writes it) are not recorded: all are 0, in file order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If a line with one of these events is not of this form, or no line has one.
    """
    lines = read_lines(path)
    virtio = lines.filter(pl.col("text").str.contains(_VIRTIO_NAMES))
    parts = virtio if virtio.height else lines.filter(pl.col("text").str.contains(_BLOCK_NAMES))
    events = take_apart(
        parts,
        _PREFIX + (_VIRTIO if virtio.height else _BLOCK),
        path,
        "an event as QEMU's log backend writes it",
    )
    timed = pl.col("seconds").is_not_null()
    if events["seconds"].drop_nulls().len():
        expect(events, timed, path, "a time in front of this event, as of others in this file")
    time = pl.col("seconds").cast(pl.Int64) * 1_000_000 + pl.col("microseconds").cast(pl.Int64)
    events = events.with_columns(
        time.fill_null(0).alias("time"),
        pl.col("offset", "length").cast(pl.Int64),
        appeared=pl.col("line").min().over("disk"),
        write=pl.col("name").str.contains("write"),
    ).with_columns(disk=pl.col("appeared").rank("dense").cast(pl.Int64) - 1)
    requests = _virtio_requests(events, path) if virtio.height else _block_requests(events)
    untimed = "" if events["seconds"].drop_nulls().len() else "; times not recorded"
    return build_trace(path, requests, recorder="QEMU trace events" + untimed, tick_ns=1000)


def _virtio_requests(events: pl.DataFrame, path: str | os.PathLike[str]) -> pl.DataFrame:
    begins = pl.col("name") != "virtio_blk_req_complete"
    expect(events, begins == pl.col("length").is_not_null(), path, "sectors of a request, a status of an end")
    events = events.with_columns(begins=begins, failed=(pl.col("status") != "0").fill_null(False))
    op = pl.when("write").then(pl.lit("write")).otherwise(pl.lit("read"))
    return pair_events(events, ["disk", "request"]).with_columns(pl.col("offset", "length") * 512, op=op)


def _block_requests(events: pl.DataFrame) -> pl.DataFrame:
    flags = pl.col("flags").str.to_integer(base=16)
    discards = flags & (_ZERO | _MAY_UNMAP) == _ZERO | _MAY_UNMAP
    op = pl.when(~pl.col("write")).then(pl.lit("read")).when(discards).then(pl.lit("discard"))
    none = pl.lit(None, pl.Int64)
    requests = events.with_columns(issued=pl.col("time"), completed=none, end_line=none).with_columns(
        op=op.otherwise(pl.lit("write")), forced=pl.col("write") & (flags & _FUA != 0)
    )
    return with_forced_flushes(requests)
