"""What boots read of their disks: the 4 KiB blocks with contents, each once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = [
    "BLOCKS_OF_A_BOOT",
    "blocks_touched",
    "boot_blocks",
    "find_blocks",
    "first_touches",
    "kernel_read",
    "last_boots",
    "service_blocks",
    "until_boot_done",
    "working_sets",
]

BLOCKS_OF_A_BOOT = pl.Schema(
    {
        "disk": pl.UInt8(),
        "block": pl.Int64(),  # number of the 4 KiB block on its disk
        "content": pl.UInt64(),  # before the boot; never 0
        "path": pl.String(),  # null: of no file
        "file_block": pl.Int64(),
    }
)
_WORKING_SET_SCHEMA = pl.Schema(
    {
        "vm": pl.String(),
        "boot": pl.String(),
        "reads": pl.Int64(),
        "read_mb": pl.Float64(),
        "distinct_mb": pl.Float64(),
        "stored_mb": pl.Float64(),
        "share": pl.Float64(),
        "service_mb": pl.Float64(),
    }
)
_FOR_EVER = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True, eq=False)
class _Blocks:
    """What is kept of a boot: some 20,000 blocks, where the state of a disk has a million."""

    boot: pl.DataFrame
    service: pl.DataFrame
    stored: int


def blocks_touched(requests: pl.DataFrame) -> pl.DataFrame:
    """Return the 4 KiB blocks that requests touch, each once.

    Returns
    -------
    polars.DataFrame
        ``disk``, ``block`` and ``touch``: blocks in order of their first touch have ascending ones.
    """
    first = requests["offset"].to_numpy() // MANIFEST_BLOCK_BYTES
    count = -(-(requests["offset"] + requests["length"]).to_numpy() // MANIFEST_BLOCK_BYTES) - first
    block = np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())
    disk = np.repeat(requests["disk"].to_numpy(), count)
    touches = pl.DataFrame({"disk": disk, "block": block}).with_row_index("touch")
    return touches.unique(["disk", "block"], keep="first", maintain_order=True).select(
        "disk", "block", "touch"
    )


def until_boot_done(boot: Boot) -> pl.DataFrame:
    """Return the requests issued until the boot was done; without a mark ``boot_done_ns`` all of them."""
    return boot.trace.frame.filter(pl.col("issued_ns") <= boot.metadata.marks.get("boot_done_ns", _FOR_EVER))


def boot_blocks(boot: Boot) -> pl.DataFrame:
    """Return the 4 KiB blocks with contents that a boot read until it was done, each once.

    Without a mark ``boot_done_ns`` all that was recorded counts. Blocks of zeros are left out: no backup copy
    stores them. What was found is kept with the boot.

    Returns
    -------
    polars.DataFrame
        `BLOCKS_OF_A_BOOT`, by disk and block.
    """
    return _blocks(boot).boot


def kernel_read(boot: Boot) -> str:
    """Return the version of the Linux kernel that a boot read, such as ``6.1.0-50-amd64``; empty if unknown.

    That is what the name of the file says. Of several the boot loader took the one of which most was read.
    """
    version = pl.col("path").str.extract(r"/vmlinuz-([^/]+)$")
    read = boot_blocks(boot).select(version.alias("version"))["version"].drop_nulls()
    return str(read.mode().sort()[0]) if len(read) else ""


def service_blocks(boot: Boot) -> pl.DataFrame:
    """Return the blocks with contents read while a client used the service, and not until the boot was done.

    Returns
    -------
    polars.DataFrame
        `BLOCKS_OF_A_BOOT`, by disk and block; empty where the trace does not mark a ``service_start_ns``.
    """
    return _blocks(boot).service


def first_touches(boot: Boot) -> pl.DataFrame:
    """Return the ``disk``, ``block`` and ``touch`` (see `blocks_touched`) of what `boot_blocks` returns."""
    touched = blocks_touched(until_boot_done(boot).filter(pl.col("op") == "read"))
    return touched.join(boot_blocks(boot), on=["disk", "block"], how="semi")


def working_sets(machines: Mapping[str, RecordedVM]) -> pl.DataFrame:
    """Return one row a machine: what its last boot read.

    Returns
    -------
    polars.DataFrame
        `vm`, `boot`, `reads` (requests) and `read_mb` until the boot was done, `distinct_mb` (4 KiB blocks
        with contents, each once), `stored_mb` (all with contents on the disks before the boot), `share` of
        these that was read, in percent, and `service_mb` (blocks first read while a client used the service;
        null where that was not recorded); MB of 10⁶ bytes.
    """
    find_blocks(machines)
    rows = [_working_set(boot) for boot in last_boots(machines)]
    return pl.DataFrame(rows, schema=_WORKING_SET_SCHEMA)


def _working_set(boot: Boot) -> dict[str, Any]:
    reads = until_boot_done(boot).filter(pl.col("op") == "read")
    blocks = _blocks(boot)
    served = "service_start_ns" in boot.metadata.marks
    return {
        "vm": boot.vm,
        "boot": boot.boot,
        "reads": reads.height,
        "read_mb": round(int(reads["length"].sum()) / 1e6, 1),
        "distinct_mb": _mb(blocks.boot.height),
        "stored_mb": _mb(blocks.stored),
        "share": round(100 * blocks.boot.height / max(blocks.stored, 1), 1),
        "service_mb": _mb(blocks.service.height) if served else None,
    }


def find_blocks(machines: Mapping[str, RecordedVM]) -> None:
    """Find the blocks that all recordings read, holding the states of the disks of one machine at a time.

    Later calls for these recordings then cost nothing. A state is stored as changes since the one before, so
    the recordings are best read in stored order, and the states of all machines do not fit in memory.
    """
    for machine in machines.values():
        for boot in machine.recordings:
            _blocks(boot)
        for boot in machine.recordings:
            boot.drop_manifests()


def last_boots(machines: Mapping[str, RecordedVM]) -> Iterator[Boot]:
    """Yield the last boot of each machine."""
    return (machine.boots[-1] for machine in machines.values())


def _mb(blocks: int) -> float:
    return round(blocks * MANIFEST_BLOCK_BYTES / 1e6, 1)


def _blocks(boot: Boot) -> _Blocks:
    kept: dict[str, Any] = vars(boot)  # where functools.cached_property keeps things, too
    if "_read_blocks" not in kept:
        kept["_read_blocks"] = _find_blocks(boot)
    found: _Blocks = kept["_read_blocks"]
    return found


def _find_blocks(boot: Boot) -> _Blocks:
    reads = boot.trace.frame.filter(pl.col("op") == "read")
    marks = boot.metadata.marks
    start, end = marks.get("service_start_ns", _FOR_EVER), marks.get("service_end_ns", _FOR_EVER)
    booting = blocks_touched(until_boot_done(boot).filter(pl.col("op") == "read"))
    serving = blocks_touched(reads.filter(pl.col("issued_ns").is_between(start, end)))
    serving = serving.join(booting, on=["disk", "block"], how="anti")
    stored = sum(int((manifest.blocks["content"] != 0).sum()) for manifest in boot.manifests)
    return _Blocks(_with_contents(boot, booting), _with_contents(boot, serving), stored)


def _with_contents(boot: Boot, touched: pl.DataFrame) -> pl.DataFrame:
    disks = []
    for disk, manifest in enumerate(boot.manifests):
        block = touched.filter(pl.col("disk") == disk)["block"].sort()
        paths = manifest.files.select("path").with_row_index("file").cast({"file": pl.Int32})
        disks.append(
            manifest.blocks[block]
            .with_columns(block, disk=pl.lit(disk, pl.UInt8))
            .filter(pl.col("content") != 0)
            .join(paths, on="file", how="left", maintain_order="left")
            .select(pl.col(name).cast(kind) for name, kind in BLOCKS_OF_A_BOOT.items())
        )
    return pl.concat(disks)
