"""Predictors that replay what was read before: at the same addresses, or wherever the same content lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.mapped import expect_way, keyed_reads, replayed
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot

__all__ = ["ContentHashReplay", "LastBootReplay"]


class LastBootReplay(BlockPredictor):
    """What the same machine read in its last recorded boot.

    Parameters
    ----------
    by : {"address", "content", "path"}
        Where: at the same addresses, wherever the same content lies now, or at the same places of files of
        the same path, see `vmrestorekit.predict.mapped`.

    Attributes
    ----------
    boot_ : str
        The boot that is replayed: the last of those given.
    times_ : polars.DataFrame
        ``key`` and ``first_read_ns``; a row for each block that was read.
    disk_bytes_ : tuple of int
    """

    def __init__(self, by: str = "address") -> None:
        self.by = by

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        expect_way(self.by)
        machines = sorted({boot.vm for boot in boots})
        if len(machines) > 1:
            raise PredictError(
                f"{type(self).__name__}: expected boots of one virtual machine, "
                f"got boots of {', '.join(machines)}"
            )
        newest = boots[-1]
        self.boot_ = newest.boot
        self.times_ = keyed_reads(newest, self.by).select("key", first_read_ns="first_ns")
        self.disk_bytes_ = newest.disk_bytes

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        name = type(self).__name__
        if disk >= len(self.disk_bytes_):
            raise PredictError(
                f"{name}: expected one of {len(self.disk_bytes_)} recorded disks, got disk {disk}"
            )
        # contents and files may have moved to a larger disk, addresses have not
        if self.by == "address" and manifest.disk_bytes != self.disk_bytes_[disk]:
            raise PredictError(
                f"{name}: expected the recorded disk {disk} of {self.disk_bytes_[disk]} bytes, "
                f"got a disk of {manifest.disk_bytes} bytes"
            )
        return replayed(manifest, disk, self.by, self.times_)


class ContentHashReplay(BlockPredictor):
    """What other machines read, wherever the same content lies on this disk.

    Blocks are compared by the hash of their 4 KiB, as they were before each boot. A content that lies in
    several places gets the same score in all of them; blocks of zeros get probability 0, the backup copy has
    no need to store them.

    Attributes
    ----------
    contents_ : polars.DataFrame
        ``content``; ``probability``: in how many of the boots of machines that had this content it was read;
        ``first_read_ns``: median over boots. Only contents that were read.
    """

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        seen = pl.concat([contents_of(boot).with_columns(boot=pl.lit(n)) for n, boot in enumerate(boots)])
        self.contents_ = (
            seen.group_by("content")
            .agg(probability=pl.col("read").mean(), first_read_ns=pl.col("first_read_ns").median())
            .filter(pl.col("probability") > 0)
            .sort("content")
        )

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        return (
            manifest.blocks.select("content")
            .join(self.contents_, on="content", how="left", maintain_order="left")
            .select(pl.col("probability").fill_null(0.0), "first_read_ns")
        )


def contents_of(boot: Boot) -> pl.DataFrame:
    """Return each content on a boot's disks but zeros, once: was it read, and when first."""
    reads = blocks_read(boot)
    disks = []
    for disk, manifest in enumerate(boot.manifests):
        blocks = manifest.blocks.select(pl.row_index("block").cast(pl.Int64), "content")
        there = reads.filter(pl.col("disk") == disk).select("block", "first_read_ns")
        disks.append(blocks.join(there, on="block", how="left").filter(pl.col("content") != 0))
    return (
        pl.concat(disks)
        .group_by("content")
        .agg(first_read_ns=pl.col("first_read_ns").min())
        .with_columns(read=pl.col("first_read_ns").is_not_null())
    )
