"""Binary formats of cache simulators: libCacheSim's oracleGeneral and CloudPhysics' vscsi, little-endian.

Defined in libCacheSim's ``traceReader/customizedReader``: ``oracle/oracleGeneralBin.h`` and ``vscsi.h``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from vmrestorekit.traces.foreign.common import (
    ForeignFormatError,
    build_trace,
    expect,
    read_records,
    write_whole,
)
from vmrestorekit.traces.foreign.tables import SCSI_OPS
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["export_oracle_general", "import_oracle_general", "import_vscsi"]

_ORACLE_GENERAL = np.dtype([("seconds", "<u4"), ("object", "<u8"), ("size", "<u4"), ("next", "<i8")])
_VSCSI = {
    1: np.dtype(
        [
            ("serial", "<u4"),
            ("length", "<u4"),
            ("segments", "<u4"),
            ("command", "<u2"),
            ("version", "<u2"),
            ("block", "<u8"),
            ("microseconds", "<u8"),
        ]
    ),
    2: np.dtype(
        [
            ("command", "<u2"),
            ("version", "<u2"),
            ("serial", "<u4"),
            ("length", "<u4"),
            ("segments", "<u4"),
            ("block", "<u8"),
            ("microseconds", "<u8"),
            ("response", "<u8"),
        ]
    ),
}
_SECTOR = 512
_LARGEST = 2**63 - 1
_NO_TIME = pl.lit(None, pl.Int64)


def import_oracle_general(path: str | os.PathLike[str], *, unit_bytes: int = _SECTOR) -> ReadTrace:
    """Read libCacheSim's oracleGeneral: seconds, object, size, and when the object is next asked for.

    The format tells neither reads from writes nor completions: all are reads, completions are not recorded.
    Time 0 is the first request, precise to 1 s. The next access is ignored; it follows from the rest.

    Parameters
    ----------
    path : path-like
    unit_bytes : int
        Bytes of a disk for each step of the object's number: 512 in traces whose objects are logical blocks.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If the file ends within a record, or a record is no request of a disk.
    """
    records = read_records(path, _ORACLE_GENERAL)
    known = pl.col("object") <= _LARGEST
    expect(records, known, path, "an object's number below 2^63, a place on a disk and no hash", "record")
    expect(records, pl.col("next") >= -1, path, "a next access of -1 or later", "record")
    requests = records.select(
        "line",
        issued=pl.col("seconds").cast(pl.Int64),
        completed=_NO_TIME,
        disk=pl.lit(0),
        op=pl.lit("read"),
        offset=pl.col("object").cast(pl.Int64),
        length=pl.col("size").cast(pl.Int64),
    )
    name = "oracleGeneral, in which all are reads"
    return build_trace(path, requests, recorder=name, tick_ns=10**9, unit_bytes=unit_bytes, unit="record")


def import_vscsi(path: str | os.PathLike[str]) -> ReadTrace:
    """Read CloudPhysics' vscsi, version 1 or 2; completions are not recorded.

    Time 0 is the first request, precise to 1 µs. The response time of version 2 has no documented unit and is
    ignored.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If it is neither version, ends within a record, or a command neither reads, writes nor flushes.
    """
    version = _vscsi_version(path)
    records = read_records(path, _VSCSI[version])
    expect(records, pl.col("version") // 256 == version, path, f"a record of version {version}", "record")
    positive = (pl.col("block") <= _LARGEST) & (pl.col("microseconds") <= _LARGEST)
    expect(records, positive, path, "a block and a time below 2^63", "record")
    command = pl.col("command").cast(pl.Int64)
    requests = records.with_columns(
        issued=pl.col("microseconds").cast(pl.Int64),
        completed=_NO_TIME,
        disk=pl.lit(0),
        op=command.replace_strict(SCSI_OPS, default=None, return_dtype=pl.String),
        offset=pl.col("block").cast(pl.Int64),
        length=pl.col("length").cast(pl.Int64),
    )
    known = pl.col("op").is_not_null()
    expect(requests, known, path, "a SCSI command that reads, writes or flushes", "record")
    return build_trace(
        path, requests, recorder=f"vscsi {version}", tick_ns=1000, unit_bytes=_SECTOR, unit="record"
    )


def _vscsi_version(path: str | os.PathLike[str]) -> int:
    with open(path, "rb") as file:
        start = file.read(max(record.itemsize for record in _VSCSI.values()))
    for version, record in _VSCSI.items():
        if len(start) >= record.itemsize and np.frombuffer(start, record, 1)["version"][0] >> 8 == version:
            return version
    raise ForeignFormatError(
        f"{path}: record 1: expected a record of vscsi version 1 or 2, got {start[:16]!r}"
    )


def export_oracle_general(
    trace: ReadTrace, path: str | os.PathLike[str], *, unit_bytes: int = _SECTOR
) -> None:
    """Write libCacheSim's oracleGeneral: each read and write is an access to the object that starts there.

    Discards and flushes are left out; completions, and which is a write, are lost; times are whole seconds.

    Parameters
    ----------
    trace : ReadTrace
        Of one disk.
    path : path-like
    unit_bytes : int
        An object's number is its offset in these units.

    Raises
    ------
    ForeignFormatError
        If there are requests of several disks, or one does not fit the format.
    """
    rows = trace.frame.with_row_index("line").filter(pl.col("op").is_in(["read", "write"]))
    source = f"{trace.metadata.vm} {trace.metadata.boot}"
    if rows["disk"].n_unique() > 1:
        raise ForeignFormatError(
            f"{source}: expected requests of one disk, which is all that oracleGeneral holds, got those of "
            f"{rows['disk'].n_unique()}"
        )
    expect(
        rows, pl.col("offset") % unit_bytes == 0, source, f"an offset in steps of {unit_bytes} bytes", "row"
    )
    expect(rows, pl.col("length") < 2**32, source, "a length below 2^32 bytes", "row")
    expect(rows, pl.col("issued_ns") < 2**32 * 10**9, source, "a time below 2^32 seconds", "row")
    accesses = rows.select(
        pl.col("offset") // unit_bytes, "length", "issued_ns", position=pl.int_range(pl.len(), dtype=pl.Int64)
    ).with_columns(next=pl.col("position").shift(-1).over("offset").fill_null(-1))
    records = np.zeros(accesses.height, _ORACLE_GENERAL)
    records["seconds"] = accesses["issued_ns"].to_numpy() // 10**9
    records["object"], records["size"] = accesses["offset"].to_numpy(), accesses["length"].to_numpy()
    records["next"] = accesses["next"].to_numpy()
    write_whole(Path(path), records.tobytes())
