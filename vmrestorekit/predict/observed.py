"""What a recorded boot asked of its disks, block by block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM

__all__ = ["READ_BLOCKS_SCHEMA", "PredictError", "as_boots", "blocks_covered", "blocks_read", "boot_done_ns"]

READ_BLOCKS_SCHEMA = pl.Schema(
    {
        "disk": pl.UInt8(),
        "block": pl.Int64(),  # number of the 4 KiB block on its disk
        "first_read_ns": pl.Int64(),  # when its first read was issued, on the recording's clock
        "reads": pl.Int64(),  # requests that touched it
    }
)


class PredictError(ValueError):
    """Recordings or disks that a predictor cannot use; the message says what was expected and what came."""


def as_boots(boots: Corpus | RecordedVM | Boot | Iterable[Boot]) -> tuple[Boot, ...]:
    """Return the boots of a corpus, of a machine, or the given ones, in their order.

    Raises
    ------
    PredictError
        If there are none, or something else is among them.
    """
    from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM

    if isinstance(boots, Boot):
        return (boots,)
    if isinstance(boots, Corpus | RecordedVM):
        found = boots.boots
    else:
        try:
            found = tuple(boots)
        except TypeError:
            found = (boots,)  # type: ignore[assignment]
    for boot in found:
        if not isinstance(boot, Boot):
            raise PredictError(f"boots: expected a Corpus, a RecordedVM or boots, got {boot!r:.80}")
    if not found:
        raise PredictError("boots: expected at least one recorded boot to learn from, got none")
    return found


def blocks_covered(
    offset: npt.NDArray[np.int64], length: npt.NDArray[np.int64], block_bytes: int, *, whole: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut byte ranges into blocks.

    Parameters
    ----------
    offset, length : ndarray of int64, shape (n,)
        Byte ranges.
    block_bytes : int
    whole : bool
        Only blocks that a range covers from end to end.

    Returns
    -------
    row, block : ndarray of int64, shape (m,)
        For each block of each range: the number of the range, and the block.
    """
    first, end = offset // block_bytes, -(-(offset + length) // block_bytes)
    if whole:
        first, end = -(-offset // block_bytes), (offset + length) // block_bytes
    count = np.where(length > 0, np.maximum(end - first, 0), 0)
    row = np.repeat(np.arange(count.size), count)
    position = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
    return row, first[row] + position


def blocks_read(boot: Boot, until: str = "boot_done") -> pl.DataFrame:
    """Return the 4 KiB blocks that a boot needed from its disks.

    A block is needed if it was read before a write or discard of the whole block completed: what the machine
    itself has written comes from the write cache and never from the backup copy.

    Parameters
    ----------
    boot : Boot
    until : {"boot_done", "end"}
        ``boot_done``: only reads issued up to the mark ``boot_done_ns``. ``end``: all that was recorded.

    Returns
    -------
    polars.DataFrame
        `READ_BLOCKS_SCHEMA`, by disk and block.

    Raises
    ------
    PredictError
        If the recording has no mark ``boot_done_ns``.
    """
    frame = boot.trace.frame
    reads = _per_block(frame.filter(pl.col("op") == "read"), "issued_ns")
    if until == "boot_done":
        reads = reads.filter(pl.col("time_ns") <= boot_done_ns(boot))
    elif until != "end":
        raise PredictError(f"until: expected 'boot_done' or 'end', got {until!r}")
    writes = _per_block(frame.filter(pl.col("op").is_in(["write", "discard"])), "completed_ns", whole=True)
    written = writes.group_by("disk", "block").agg(written_ns=pl.col("time_ns").min())
    needed = (
        reads.join(written, on=["disk", "block"], how="left")
        .filter(pl.col("written_ns").is_null() | (pl.col("time_ns") < pl.col("written_ns")))
        .group_by("disk", "block")
        .agg(first_read_ns=pl.col("time_ns").min(), reads=pl.len().cast(pl.Int64))
        .sort("disk", "block")
    )
    return needed.select(pl.col(name).cast(dtype) for name, dtype in READ_BLOCKS_SCHEMA.items())


def boot_done_ns(boot: Boot) -> int:
    """Return when a boot was done, on the recording's clock.

    Raises
    ------
    PredictError
        If the recording has no mark ``boot_done_ns``.
    """
    marks = boot.trace.metadata.marks
    if "boot_done_ns" not in marks:
        raise PredictError(f"{boot.vm}, {boot.boot}: expected a mark 'boot_done_ns', got {sorted(marks)}")
    return marks["boot_done_ns"]


def _per_block(requests: pl.DataFrame, time: str, *, whole: bool = False) -> pl.DataFrame:
    offset, length = requests["offset"].to_numpy(), requests["length"].to_numpy()
    row, block = blocks_covered(offset, length, MANIFEST_BLOCK_BYTES, whole=whole)
    return pl.DataFrame(
        {"disk": requests["disk"].to_numpy()[row], "block": block, "time_ns": requests[time].to_numpy()[row]},
        schema={"disk": pl.UInt8, "block": pl.Int64, "time_ns": pl.Int64},
    )
