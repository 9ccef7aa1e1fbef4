"""Predictors that replay what was read before: at the same addresses, or wherever the same content lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from vmrestorekit.predict.base import SCORES_SCHEMA, BlockPredictor
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot

__all__ = ["ContentHashReplay", "LastBootReplay"]


class LastBootReplay(BlockPredictor):
    """What the same machine read in its last recorded boot, at the same addresses.

    Attributes
    ----------
    boot_ : str
        The boot that is replayed: the last of those given.
    reads_ : polars.DataFrame
        See `blocks_read`.
    disk_bytes_ : tuple of int
    """

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        machines = sorted({boot.vm for boot in boots})
        if len(machines) > 1:
            raise PredictError(
                f"LastBootReplay: expected boots of one virtual machine, got boots of {', '.join(machines)}"
            )
        newest = boots[-1]
        self.boot_ = newest.boot
        self.reads_ = blocks_read(newest)
        self.disk_bytes_ = tuple(manifest.disk_bytes for manifest in newest.manifests)

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        if disk >= len(self.disk_bytes_):
            raise PredictError(
                f"LastBootReplay: expected one of {len(self.disk_bytes_)} recorded disks, got disk {disk}"
            )
        if manifest.disk_bytes != self.disk_bytes_[disk]:
            raise PredictError(
                f"LastBootReplay: expected the recorded disk {disk} of {self.disk_bytes_[disk]} bytes, "
                f"got a disk of {manifest.disk_bytes} bytes"
            )
        reads = self.reads_.filter(pl.col("disk") == disk)
        blocks = reads["block"].to_numpy()
        probability = np.zeros(manifest.blocks.height)
        probability[blocks] = 1.0
        time = np.full(manifest.blocks.height, np.nan)
        time[blocks] = reads["first_read_ns"].to_numpy()
        scores = pl.DataFrame({"probability": probability, "first_read_ns": time}, schema=SCORES_SCHEMA)
        return scores.with_columns(pl.col("first_read_ns").fill_nan(None))


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
