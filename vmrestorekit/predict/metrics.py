"""How well a prediction fits what a boot read, in 4 KiB blocks that are not all zeros; no time passes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import RestorePlan, first_block_of_disk
from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.cache_blocks import cache_block_scores, staging_order
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = [
    "BUDGETS",
    "RECALL_SCHEMA",
    "NeededBlocks",
    "calibration",
    "ceiling_scores",
    "fetched_scores",
    "needed_blocks",
    "ranking_scores",
    "recall_by_budget",
    "service_scores",
]

BUDGETS = (1.0, 1.25, 1.5, 2.0)
CALIBRATION_BINS = 10

RECALL_SCHEMA = pl.Schema(
    {
        "budget": pl.Float64(),  # times the blocks that were really read
        "staged": pl.Int64(),  # 4 KiB blocks
        "recall": pl.Float64(),  # share of the read blocks that was staged
        "precision": pl.Float64(),  # share of the staged blocks that was read
    }
)

Flags = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class NeededBlocks:
    """The 4 KiB blocks of a boot's disks, one disk after the other.

    Attributes
    ----------
    stored : ndarray of bool, shape (n,)
        Not all zeros: what the backup copy stores.
    read : ndarray of bool, shape (n,)
        Stored, and read before the boot ended.
    in_service : ndarray of bool, shape (n,), optional
        Stored, and first read while a client used the service after the boot; None if that was not recorded.
    before_service : ndarray of bool, shape (n,), optional
        Stored, and first read before that.
    disk, block : ndarray of int64, shape (n,)
    """

    stored: Flags
    read: Flags
    in_service: Flags | None
    before_service: Flags | None
    disk: npt.NDArray[np.int64]
    block: npt.NDArray[np.int64]


@functools.lru_cache(maxsize=16)
def needed_blocks(boot: Boot) -> NeededBlocks:
    """Return what a boot needed; that of the last few boots is kept.

    Raises
    ------
    PredictError
        If the boot has no mark of its end, or read nothing that the backup copy stores.
    """
    rows = [manifest.blocks.height for manifest in boot.manifests]
    first = np.cumsum(rows) - rows
    stored = np.concatenate([manifest.blocks["content"].to_numpy() != 0 for manifest in boot.manifests])

    def flags(reads: pl.DataFrame) -> Flags:
        found = np.zeros(stored.size, bool)
        found[first[reads["disk"].to_numpy()] + reads["block"].to_numpy()] = True
        found &= stored
        return found

    read = flags(blocks_read(boot))
    if not read.any():
        raise PredictError(f"{boot.vm}, {boot.boot}: expected a boot that reads stored blocks, it read none")
    marks = boot.trace.metadata.marks
    in_service = before_service = None
    if {"service_start_ns", "service_end_ns"} <= marks.keys():
        reads, start = blocks_read(boot, until="end"), marks["service_start_ns"]
        in_service = flags(reads.filter(pl.col("first_read_ns").is_between(start, marks["service_end_ns"])))
        before_service = flags(reads.filter(pl.col("first_read_ns") < start))
    return NeededBlocks(
        *(stored, read, in_service, before_service),
        disk=np.repeat(np.arange(len(rows)), rows),
        block=np.concatenate([np.arange(height) for height in rows]),
    )


def recall_by_budget(
    predictor: BlockPredictor, boot: Boot, budgets: Iterable[float] = BUDGETS
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
    return _recall_by_budget(_block_scores(predictor, boot), needed_blocks(boot).read, budgets)


def _block_scores(predictor: BlockPredictor, boot: Boot) -> pl.DataFrame:
    """Return `CACHE_BLOCKS_SCHEMA` for cache blocks of 4 KiB, all disks one after the other."""
    return pl.concat(
        cache_block_scores(predictor.score_blocks(manifest, disk), manifest.blocks, MANIFEST_BLOCK_BYTES)
        for disk, manifest in enumerate(boot.manifests)
    )


def _recall_by_budget(scores: pl.DataFrame, read: Flags, budgets: Iterable[float]) -> pl.DataFrame:
    needed = int(read.sum())
    table = []
    for budget in budgets:
        staged = staging_order(scores, round(budget * needed))
        found = int(read[staged].sum())
        table.append((float(budget), staged.size, found / needed, found / max(staged.size, 1)))
    return pl.DataFrame(table, schema=RECALL_SCHEMA, orient="row")


def ranking_scores(
    predictor: BlockPredictor, boot: Boot, budgets: Iterable[float] = BUDGETS
) -> dict[str, float]:
    """Return average precision, recall and precision by budget, and calibration, of stored blocks.

    Returns
    -------
    dict of str to float
        ``average_precision``; ``recall@1.25``, ``precision@1.25`` and so on; those of `calibration`.
    """
    from sklearn.metrics import average_precision_score

    scores, needed = _block_scores(predictor, boot), needed_blocks(boot)
    probability, read = scores["probability"].to_numpy()[needed.stored], needed.read[needed.stored]
    found = {"average_precision": float(average_precision_score(read, probability))}
    for row in _recall_by_budget(scores, needed.read, budgets).iter_rows(named=True):
        found[f"recall@{row['budget']:g}"] = row["recall"]
        found[f"precision@{row['budget']:g}"] = row["precision"]
    return found | calibration(probability, read)


def calibration(probability: npt.NDArray[np.float64], read: Flags) -> dict[str, float]:
    """Return whether of the blocks that were given a probability, that share was read.

    Returns
    -------
    dict of str to float
        ``brier``: mean squared error, 0 is best. ``calibration_error``: how far predicted and real share are
        apart, mean over bins of equal width, weighted by their blocks. Of each bin that has blocks, numbered
        from 0: ``bin0_blocks``, ``bin0_predicted``, ``bin0_read``.
    """
    bins = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    blocks = np.bincount(bins, minlength=CALIBRATION_BINS)
    predicted = np.bincount(bins, probability, CALIBRATION_BINS)
    really = np.bincount(bins, read, CALIBRATION_BINS)
    found = {
        "brier": float(np.mean((probability - read) ** 2)),
        "calibration_error": float(np.abs(predicted - really).sum() / probability.size),
    }
    for number in np.flatnonzero(blocks).tolist():
        found[f"bin{number}_blocks"] = float(blocks[number])
        found[f"bin{number}_predicted"] = float(predicted[number] / blocks[number])
        found[f"bin{number}_read"] = float(really[number] / blocks[number])
    return found


def service_scores(
    predictor: BlockPredictor, boot: Boot, budgets: Iterable[float] = BUDGETS
) -> dict[str, float]:
    """Return how well blocks are predicted that are first read in the minute of service after the boot.

    For a predictor with a method ``score_service_blocks(manifest, disk)``, which returns a frame like that of
    `score_blocks`, and a boot whose service was recorded; else nothing. What was read before the service
    began counts neither way: it has come by then.

    Returns
    -------
    dict of str to float
        ``service_average_precision``, ``service_recall@1.25`` and so on.
    """
    from sklearn.metrics import average_precision_score

    needed = needed_blocks(boot)
    score = getattr(predictor, "score_service_blocks", None)
    if score is None or needed.in_service is None or needed.before_service is None:
        return {}
    if not needed.in_service.any():
        return {}
    scores = pl.concat(
        cache_block_scores(score(manifest, disk), manifest.blocks, MANIFEST_BLOCK_BYTES)
        for disk, manifest in enumerate(boot.manifests)
    )
    open_blocks = needed.stored & ~needed.before_service
    scores = scores.filter(open_blocks)
    read = needed.in_service[open_blocks]
    found = {
        "service_average_precision": float(average_precision_score(read, scores["probability"].to_numpy()))
    }
    for row in _recall_by_budget(scores, read, budgets).iter_rows(named=True):
        found[f"service_recall@{row['budget']:g}"] = row["recall"]
        found[f"service_precision@{row['budget']:g}"] = row["precision"]
    return found


def fetched_scores(plan: RestorePlan, boot: Boot) -> dict[str, float]:
    """Return recall and waste of a plan's first set, in bytes that are fetched by whole cache blocks.

    Returns
    -------
    dict of str to float
        ``fetched_bytes``; ``fetched_recall``: share of the 4 KiB blocks that the boot read; ``unread_bytes``
        and ``unread_share``: of what is fetched, what lies in cache blocks of which the boot reads nothing;
        ``surplus_share``: of what is fetched, what is in no 4 KiB block that the boot reads.
    """
    needed = needed_blocks(boot)
    units = plan.block_bytes // MANIFEST_BLOCK_BYTES
    first = np.array(first_block_of_disk(plan.disk_bytes, plan.block_bytes))
    read = (first[needed.disk] + needed.block // units)[needed.read]  # a cache block for each block read
    is_staged, is_read = np.zeros(plan.blocks, bool), np.zeros(plan.blocks, bool)
    is_staged[plan.first_set], is_read[read] = True, True
    found = int(is_staged[read].sum())
    fetched, unread = int(is_staged.sum()), int((is_staged & ~is_read).sum())
    return {
        "fetched_bytes": float(fetched * plan.block_bytes),
        "fetched_recall": found / read.size,
        "unread_bytes": float(unread * plan.block_bytes),
        "unread_share": unread / max(fetched, 1),
        "surplus_share": 1 - found / (fetched * units) if fetched else 0.0,
    }


def ceiling_scores(before: Boot, boot: Boot) -> dict[str, float]:
    """Return what the boot before tells of a boot of the same machine, at its own size: the ceiling.

    Returns
    -------
    dict of str to float
        ``recall`` and ``precision`` of the blocks read, at the same addresses; nothing if the disks changed.
    """
    if before.disk_bytes != boot.disk_bytes:
        return {}
    needed = needed_blocks(boot)
    rows = [manifest.blocks.height for manifest in boot.manifests]
    reads = blocks_read(before)
    there = np.zeros(needed.stored.size, bool)
    there[(np.cumsum(rows) - rows)[reads["disk"].to_numpy()] + reads["block"].to_numpy()] = True
    there &= needed.stored
    found = int((there & needed.read).sum())
    return {"recall": found / int(needed.read.sum()), "precision": found / max(int(there.sum()), 1)}
