"""How much of a boot a predictor finds, by the bytes it may stage."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.cache_blocks import cache_block_scores, staging_order
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = ["recall_by_budget"]

RECALL_SCHEMA = pl.Schema(
    {
        "budget": pl.Float64(),  # times the blocks that were really read
        "staged": pl.Int64(),  # 4 KiB blocks
        "recall": pl.Float64(),  # share of the read blocks that was staged
        "precision": pl.Float64(),  # share of the staged blocks that was read
    }
)


def recall_by_budget(
    predictor: BlockPredictor, boot: Boot, budgets: Iterable[float] = (1.0, 1.25, 1.5, 2.0)
) -> pl.DataFrame:
    """Compare a prediction with what a boot read until its end, in 4 KiB blocks that are not all zeros.

    Parameters
    ----------
    predictor : BlockPredictor
        Fitted, and not on this boot.
    boot : Boot
    budgets : iterable of float
        How many blocks may be staged, as multiples of those that were really read.

    Returns
    -------
    polars.DataFrame
        A row a budget: ``budget``, ``staged``, ``recall``, ``precision``.

    Raises
    ------
    PredictError
        If the boot read nothing that the backup copy stores.
    """
    scores = pl.concat(
        cache_block_scores(predictor.score_blocks(manifest, disk), manifest, MANIFEST_BLOCK_BYTES)
        for disk, manifest in enumerate(boot.manifests)
    )
    reads = blocks_read(boot)
    rows = np.array([manifest.blocks.height for manifest in boot.manifests])
    was_read = np.zeros(scores.height, bool)
    was_read[(np.cumsum(rows) - rows)[reads["disk"].to_numpy()] + reads["block"].to_numpy()] = True
    was_read &= scores["stored"].to_numpy()
    needed = int(was_read.sum())
    if not needed:
        raise PredictError(f"{boot.vm}, {boot.boot}: expected a boot that reads stored blocks, it read none")
    table = []
    for budget in budgets:
        staged = staging_order(scores, round(budget * needed))
        found = int(was_read[staged].sum())
        table.append((float(budget), staged.size, found / needed, found / max(staged.size, 1)))
    return pl.DataFrame(table, schema=RECALL_SCHEMA, orient="row")
