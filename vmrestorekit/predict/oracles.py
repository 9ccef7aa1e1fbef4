"""Bounds, not rivals: predictors that have seen the boot they are asked of.

Fitted on the boot that is to be predicted, the last of those given, they say how much there is to win.
"""

from __future__ import annotations

import polars as pl

from vmrestorekit.predict.replay import LastBootReplay
from vmrestorekit.traces.manifest import Manifest

__all__ = ["OracleAll", "OracleOrder", "OracleSet"]


class OracleOrder(LastBootReplay):
    """Knows all: what the boot will read, in the order of the first reads."""

    def __init__(self) -> None:
        super().__init__(by="address")


class OracleSet(OracleOrder):
    """Knows what the boot will read and not when: the right blocks in the order of the disk."""

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        scores = super()._score_blocks(manifest, disk)
        return scores.with_columns(first_read_ns=pl.lit(None, pl.Float64))


class OracleAll(OracleOrder):
    """Has the whole disk staged, in its order: nothing is missed, if there is time enough.

    It looks at nothing of the boot but the number and sizes of its disks.
    """

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        scores = super()._score_blocks(manifest, disk)
        return scores.with_columns(probability=pl.lit(1.0), first_read_ns=pl.lit(None, pl.Float64))
