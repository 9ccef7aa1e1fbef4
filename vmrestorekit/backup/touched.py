"""What a boot touches of a backup copy: which blocks and containers, and how much has to be read for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.layout import BackupLayout, LayoutError, first_block_of_disk
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["containers_touched", "first_touches", "read_amplification"]


def first_touches(trace: ReadTrace, layout: BackupLayout) -> npt.NDArray[np.int32]:
    """Return the stored blocks that the trace reads, each once, in the order of their first reads.

    Raises
    ------
    LayoutError
        If trace and layout are of different disks.
    """
    blocks = _touched(trace, layout, layout.block_bytes)
    blocks = blocks[~layout.hole[blocks]]
    _, first = np.unique(blocks, return_index=True)
    return blocks[np.sort(first)].astype(np.int32)


def containers_touched(trace: ReadTrace, layout: BackupLayout) -> pl.DataFrame:
    """Return one row a container of the copy: what is in it, and how much of that the trace reads.

    Returns
    -------
    polars.DataFrame
        `chunk`, `container` (numbers of the layout), `blocks` of the copy that lie in it, `read` of these,
        and `order` (0 to 1, when the first of them is read among all blocks that are; null: never).
    """
    stored = np.flatnonzero(~layout.hole)
    touched = first_touches(trace, layout)
    order = np.full(len(layout.address), -1, np.int64)
    order[touched] = np.arange(len(touched))
    frame = pl.DataFrame(
        {
            "chunk": layout.chunk[stored],
            "container": layout.container[stored],
            "order": order[stored],
        }
    )
    is_read = pl.col("order") >= 0
    return (
        frame.group_by("chunk", "container")
        .agg(
            blocks=pl.len().cast(pl.Int64),
            read=is_read.sum().cast(pl.Int64),
            order=pl.col("order").filter(is_read).min() / max(len(touched) - 1, 1),
        )
        .sort("container")
    )


def read_amplification(trace: ReadTrace, layout: BackupLayout) -> float:
    """Return how many bytes have to be read from the medium for each byte that the trace reads.

    Nothing is read twice, as with a cache that holds everything: the number is what the block size and
    compression in frames cost, and nothing else. Bytes read are counted in 4 KiB; holes do not count.

    Raises
    ------
    LayoutError
        If trace and layout are of different disks, or nothing that is stored is read.
    """
    touched = first_touches(trace, layout)
    if not len(touched):
        raise LayoutError(f"{trace.metadata.vm} {trace.metadata.boot}: reads nothing that the copy stores")
    units = np.unique(_touched(trace, layout, MANIFEST_BLOCK_BYTES))
    starts = np.array(first_block_of_disk(layout.disk_bytes, MANIFEST_BLOCK_BYTES))
    disk = np.searchsorted(starts, units, side="right") - 1
    within = (units - starts[disk]) // (layout.block_bytes // MANIFEST_BLOCK_BYTES)
    block = np.array(first_block_of_disk(layout.disk_bytes, layout.block_bytes))[disk] + within
    wanted = int(np.count_nonzero(~layout.hole[block])) * MANIFEST_BLOCK_BYTES
    together = layout.read_together()
    if together is None:
        return len(touched) * layout.block_bytes / wanted
    number, extents = together
    return int(np.diff(extents[np.unique(number[touched])]).sum()) / wanted


def _touched(trace: ReadTrace, layout: BackupLayout, size: int) -> npt.NDArray[np.int64]:
    """Return the number of each block of this size that a read touches, in order; blocks come again."""
    if trace.metadata.disk_bytes != layout.disk_bytes:
        raise LayoutError(
            f"{trace.metadata.vm}: expected a layout of disks of {trace.metadata.disk_bytes} bytes, "
            f"got one of {layout.disk_bytes}"
        )
    reads = trace.frame.filter((pl.col("op") == "read") & (pl.col("length") > 0))
    offset, length = reads["offset"].to_numpy(), reads["length"].to_numpy()
    first = offset // size
    count = -(-(offset + length) // size) - first
    starts = np.array(first_block_of_disk(layout.disk_bytes, size))[reads["disk"].to_numpy()]
    return np.repeat(starts + first - (np.cumsum(count) - count), count) + np.arange(count.sum())
