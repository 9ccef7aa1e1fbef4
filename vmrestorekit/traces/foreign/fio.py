"""fio's iolog, versions 2 and 3: the requests of a job, which fio can carry out again.

Defined in fio(1), "Trace file format v2" and "v3", and in ``iolog.c`` of fio's sources, which were looked at
where the manual is silent or says otherwise:

- Times of version 3 are microseconds. fio loses the gap after a time of 0, so ours start at 1.
- ``wait`` of version 2 waits until so many milliseconds after fio started (3.33 and the sources do that; the
  manual says microseconds since the wait before).
- fio up to at least 3.33 skips ``trim`` in an iolog with a message.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import polars as pl

from vmrestorekit.traces.foreign.common import (
    ForeignFormatError,
    build_trace,
    expect,
    read_lines,
    take_apart,
    write_whole,
)
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["export_fio", "import_fio"]

_HEADER = "fio version {} iolog"
_BODY = (
    r"(?P<file>\S+) (?:(?P<action>add|open|close)|"
    r"(?P<op>read|write|trim|sync|datasync|wait) (?P<offset>-?\d{1,18}) (?P<length>-?\d{1,18}))$"
)
_PATTERNS = {2: "^" + _BODY, 3: r"^(?P<time>\d{1,18}) " + _BODY}
_OPS = {"read": "read", "write": "write", "trim": "discard", "sync": "flush", "datasync": "flush"}
_ACTIONS = {"read": "read", "write": "write", "discard": "trim", "flush": "datasync"}


def import_fio(path: str | os.PathLike[str]) -> ReadTrace:
    """Read an iolog of version 2 or 3; completions are not recorded.

    Disks are the files, in the order in which they are added. Time 0 is the first line's; it is precise to
    1 µs in version 3. In version 2 only ``wait`` tells it, to 1 ms; fio itself writes none, and all is at 0.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If the first line is none of an iolog, a later one no action, or a file is used that was not added.
    """
    lines = read_lines(path)
    versions = {_HEADER.format(version): version for version in _PATTERNS}
    first = pl.col("text").is_in(list(versions))
    expect(lines.head(1), first, path, f"{' or '.join(map(repr, versions))}")
    version = versions[lines["text"][0]] if lines.height else 3
    expected = f"{'a time, ' if version == 3 else ''}a file and an action of iolog version {version}"
    actions = take_apart(lines.slice(1), _PATTERNS[version], path, expected)
    added = actions.filter(pl.col("action") == "add")["file"].unique(maintain_order=True).to_list()
    expect(actions, pl.col("file").is_in(added), path, "a file that the log adds")
    actions = _with_times(actions, version, path).with_columns(
        pl.col("offset", "length").cast(pl.Int64),
        op=pl.col("op").replace_strict(_OPS, default=None, return_dtype=pl.String),
        completed=pl.lit(None, pl.Int64),
        disk=pl.col("file").replace_strict(added, range(len(added)), return_dtype=pl.Int64),
    )
    zero = int(actions["issued"][0]) if actions.height else 0
    requests = actions.filter(pl.col("op").is_not_null())
    return build_trace(path, requests, recorder=f"fio iolog {version}", tick_ns=1000, zero=zero)


def _with_times(actions: pl.DataFrame, version: int, path: str | os.PathLike[str]) -> pl.DataFrame:
    waits = (pl.col("op") == "wait").fill_null(False)
    if version == 3:
        expect(actions, ~waits, path, "an action of version 3, which has no 'wait'")
        return actions.with_columns(issued=pl.col("time").cast(pl.Int64))
    waited = pl.when(waits).then(pl.col("offset").cast(pl.Int64))
    expect(actions, ~waits | waited.is_between(0, 2**40), path, f"a wait of 0 to {2**40} ms")
    return actions.with_columns(issued=waited.forward_fill().cum_max().fill_null(0) * 1000)


def export_fio(
    trace: ReadTrace,
    path: str | os.PathLike[str],
    *,
    version: int = 3,
    targets: Sequence[str] | None = None,
) -> None:
    """Write an iolog with which fio carries out the trace's requests again, at the times they were issued.

    Carry it out with ``fio --name=boot --read_iolog=PATH --ioengine=libaio --iodepth=32 --direct=1``; on
    another device with ``--replay_redirect=DEVICE``. WRITES ARE WRITTEN: to leave them out, select the reads
    first.
    Completions are lost; a flush becomes ``datasync``.

    Parameters
    ----------
    trace : ReadTrace
    path : path-like
    version : int
        3 (fio 3.31 and later; times to 1 µs) or 2 (times to 1 ms).
    targets : sequence of str, optional
        File or device for each disk; default: ``disk0``, ``disk1``, …

    Raises
    ------
    ForeignFormatError
        If fio could not read it: another version, a name with spaces, a length of 2^32 bytes or more.
    """
    if version not in _PATTERNS:
        raise ForeignFormatError(f"fio iolog: expected version 2 or 3, got {version}")
    disks = len(trace.metadata.disk_bytes)
    names = list(targets) if targets is not None else [f"disk{disk}" for disk in range(disks)]
    if len(names) != disks or any(len(name.split()) != 1 or len(name) > 256 for name in names):
        raise ForeignFormatError(
            f"fio iolog: expected {disks} names without spaces, of up to 256 characters, got {names}"
        )
    rows = trace.frame.with_row_index("line")
    source = f"{trace.metadata.vm} {trace.metadata.boot}"
    expect(rows, pl.col("length") < 2**32, source, "a length below 2^32 bytes", "row")
    body = rows.select(
        time=pl.col("issued_ns") // (1000 if version == 3 else 10**6),
        file=pl.col("disk").cast(pl.Int64).replace_strict(range(disks), names, return_dtype=pl.String),
        action=pl.col("op").cast(pl.String).replace_strict(_ACTIONS),
        offset="offset",
        length="length",
    )
    last = int(body["time"].max() or 0) + 1 if body.height else 1  # type: ignore[arg-type]
    if version == 3:
        lines = body.select(
            pl.format("{} {} {} {} {}", pl.col("time") + 1, "file", "action", "offset", "length")
        )
        opening = [f"1 {name} {action}" for action in ("add", "open") for name in names]
        closing = [f"{last} {name} close" for name in names]
    else:
        waits = pl.col("time") > pl.col("time").shift(1, fill_value=0)
        action = pl.format("{} {} {} {}", "file", "action", "offset", "length")
        lines = body.select(
            pl.when(waits).then(pl.format("{} wait {} 0\n{}", "file", "time", action)).otherwise(action)
        )
        opening = [f"{name} {action}" for action in ("add", "open") for name in names]
        closing = [f"{name} close" for name in names]
    text = [_HEADER.format(version), *opening, *lines.to_series().to_list(), *closing]
    write_whole(path, ("\n".join(text) + "\n").encode())
