"""What boots read of their disks, and how much of that machines have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = ["boot_blocks", "overlaps", "working_sets"]

BLOCKS_OF_A_BOOT = pl.Schema(
    {
        "disk": pl.UInt8(),
        "block": pl.Int64(),  # number of the 4 KiB block on its disk
        "content": pl.UInt64(),  # before the boot; never 0
        "path": pl.String(),  # null: of no file
        "file_block": pl.Int64(),
    }
)
# what makes two blocks the same
_SAME = {"address": ["disk", "block"], "content": ["content"], "path": ["path", "file_block"]}


def boot_blocks(boot: Boot) -> pl.DataFrame:
    """Return the 4 KiB blocks with contents that a boot read until it was done, each once.

    Without a mark ``boot_done_ns`` all that was recorded counts. Blocks of zeros are left out: no backup copy
    stores them.

    Returns
    -------
    polars.DataFrame
        `BLOCKS_OF_A_BOOT`, by disk and block.
    """
    end = boot.metadata.marks.get("boot_done_ns")
    reads = boot.trace.frame.filter(pl.col("op") == "read")
    reads = reads if end is None else reads.filter(pl.col("issued_ns") <= end)
    first = reads["offset"].to_numpy() // MANIFEST_BLOCK_BYTES
    count = -(-(reads["offset"] + reads["length"]).to_numpy() // MANIFEST_BLOCK_BYTES) - first
    block = np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())
    touched = pl.DataFrame({"disk": np.repeat(reads["disk"].to_numpy(), count), "block": block}).unique()
    disks = []
    for disk, manifest in enumerate(boot.manifests):
        known = manifest.blocks.with_row_index("block").with_columns(
            pl.col("block").cast(pl.Int64), disk=pl.lit(disk, pl.UInt8)
        )
        paths = manifest.files.select("path").with_row_index("file").cast({"file": pl.Int32})
        disks.append(
            known.join(touched, on=["disk", "block"], how="semi")
            .filter(pl.col("content") != 0)
            .join(paths, on="file", how="left")
            .select(pl.col(name).cast(kind) for name, kind in BLOCKS_OF_A_BOOT.items())
        )
    return pl.concat(disks).sort("disk", "block")


def working_sets(machines: Mapping[str, RecordedVM]) -> pl.DataFrame:
    """Return one row a boot: what it read until it was done.

    Returns
    -------
    polars.DataFrame
        `vm`, `boot`, `reads` (requests), `read_mb`, `distinct_mb` (4 KiB blocks with contents, each once),
        `stored_mb` (all with contents on the disks before the boot) and `share` of these that was read, in
        percent; MB of 10⁶ bytes.
    """
    rows = []
    for boot in (boot for machine in machines.values() for boot in machine.boots):
        end = boot.metadata.marks.get("boot_done_ns", np.iinfo(np.int64).max)
        reads = boot.trace.frame.filter((pl.col("op") == "read") & (pl.col("issued_ns") <= end))
        distinct = boot_blocks(boot).height * MANIFEST_BLOCK_BYTES
        stored = sum(int((disk.blocks["content"] != 0).sum()) for disk in boot.manifests)
        rows.append(
            {
                "vm": boot.vm,
                "boot": boot.boot,
                "reads": reads.height,
                "read_mb": round(int(reads["length"].sum()) / 1e6, 1),
                "distinct_mb": round(distinct / 1e6, 1),
                "stored_mb": round(stored * MANIFEST_BLOCK_BYTES / 1e6, 1),
                "share": round(100 * distinct / max(stored * MANIFEST_BLOCK_BYTES, 1), 1),
            }
        )
    return pl.DataFrame(rows)


def overlaps(machines: Mapping[str, RecordedVM]) -> pl.DataFrame:
    """Return how much of what a machine's last boot read another boot read, too.

    Compared with the last boot of each other machine, and with the machine's own boot before.

    Returns
    -------
    polars.DataFrame
        `vm`, `other` (with the name of the boot), and in percent of the blocks of `boot_blocks` those that
        the other boot read at the same `address`, with the same `content`, and at the same place of a file of
        the same `path`.
    """
    last = {name: boot_blocks(machine.boots[-1]) for name, machine in machines.items()}
    rows = []
    for name, machine in machines.items():
        others = [(other.boots[-1], last[key]) for key, other in machines.items() if key != name]
        if len(machine.boots) > 1:
            others.insert(0, (machine.boots[-2], boot_blocks(machine.boots[-2])))
        for other, blocks in others:
            shares = {way: _share(last[name], blocks, same) for way, same in _SAME.items()}
            rows.append({"vm": name, "other": f"{other.vm} {other.boot}", **shares})
    schema = {"vm": pl.String, "other": pl.String} | dict.fromkeys(_SAME, pl.Float64)
    return pl.DataFrame(rows, schema=schema)


def _share(blocks: pl.DataFrame, others: pl.DataFrame, same: Sequence[str]) -> float:
    found = blocks.join(others.select(same).unique(), on=same, how="semi").height
    return round(100 * found / max(blocks.height, 1), 1)
