"""From 4 KiB blocks with probabilities to blocks of the read cache in the order of their staging."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.observed import PredictError
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = ["CACHE_BLOCKS_SCHEMA", "LIKELY", "cache_block_scores", "staging_order"]

# a block at least this probable is staged by its time, the others after them by their probability
LIKELY = 0.5
# no predictor knows more precisely than this; among such equals the earlier block goes first, because what is
# read early in a boot differs less between machines
PROBABILITY_DIGITS = 2

CACHE_BLOCKS_SCHEMA = pl.Schema(
    {
        "probability": pl.Float64(),  # that any of its 4 KiB blocks is read before the boot ends
        "first_read_ns": pl.Float64(),  # expected, null where unknown
        "stored": pl.Boolean(),  # False = hole: all zeros, the backup copy does not store it
    }
)


def cache_block_scores(
    scores: pl.DataFrame, blocks: pl.DataFrame, block_bytes: int, threshold: float = LIKELY
) -> pl.DataFrame:
    """Sum up the scores of 4 KiB blocks for the cache blocks that they lie in.

    The probability is that of the most probable 4 KiB block: neighbours are mostly read together or not at
    all. Taking their reads for independent, ``1 - Π(1 - p)``, would turn sixteen unlikely neighbours into a
    near certainty, and a first set into most of the disk. The time is the earliest of the likely 4 KiB
    blocks, or, where none is likely, that of the most probable one.

    Parameters
    ----------
    scores : polars.DataFrame
        What a predictor's ``score_blocks`` returned, one row a 4 KiB block of the disk.
    blocks : polars.DataFrame
        `vmrestorekit.traces.manifest.BLOCKS_SCHEMA`, the same blocks.
    block_bytes : int
        A power of two, at least 4 KiB.
    threshold : float
        Probability from which a block counts as likely.

    Returns
    -------
    polars.DataFrame
        `CACHE_BLOCKS_SCHEMA`, one row a cache block of the disk.
    """
    if block_bytes < MANIFEST_BLOCK_BYTES or block_bytes & (block_bytes - 1):
        raise PredictError(f"block_bytes: expected a power of two of at least 4096, got {block_bytes}")
    probability = _by_cache_block(scores["probability"].to_numpy(), block_bytes, 0.0)
    times = scores["first_read_ns"].cast(pl.Float64).fill_null(np.inf).to_numpy()
    time = _by_cache_block(times, block_bytes, np.inf)
    earliest = np.where(probability >= threshold, time, np.inf).min(axis=1)
    most_probable = np.take_along_axis(time, probability.argmax(axis=1)[:, None], axis=1)[:, 0]
    first_read = np.where(np.isfinite(earliest), earliest, most_probable)
    content = _by_cache_block(blocks["content"].to_numpy(), block_bytes, 0)
    frame = pl.DataFrame(
        {
            "probability": probability.max(axis=1),
            "first_read_ns": first_read,
            "stored": content.any(axis=1),
        },
        schema=CACHE_BLOCKS_SCHEMA,
    )
    finite = pl.col("first_read_ns").is_finite()
    return frame.with_columns(first_read_ns=pl.when(finite).then(pl.col("first_read_ns")))


def _by_cache_block(values: npt.NDArray[Any], block_bytes: int, fill: float) -> npt.NDArray[Any]:
    """Return one row a cache block; the last one is filled up."""
    per_block = block_bytes // MANIFEST_BLOCK_BYTES
    missing = -values.size % per_block
    return np.pad(values, (0, missing), constant_values=fill).reshape(-1, per_block)


def staging_order(
    scores: pl.DataFrame, most: int | None = None, threshold: float = LIKELY
) -> npt.NDArray[np.int32]:
    """Return cache blocks in the order in which they are to be staged.

    Which blocks: the most probable ones, the earlier first where probabilities are equal to a hundredth;
    never a hole, and none that cannot be read. In which order: the likely ones by the expected time of their
    first read, so that the machine finds each when it comes to it; then the others by falling probability, so
    that a guess never delays what is nearly certain.

    Parameters
    ----------
    scores : polars.DataFrame
        `CACHE_BLOCKS_SCHEMA`, a row a block; several disks one after the other.
    most : int, optional
        How many blocks at most; default: as many as have a chance.
    threshold : float
        Probability from which a block counts as likely.

    Returns
    -------
    ndarray of int32, shape (n,)
        Row numbers.
    """
    exact = scores["probability"].to_numpy()
    probability = exact.round(PROBABILITY_DIGITS)
    time = scores["first_read_ns"].fill_null(np.inf).to_numpy()
    candidates = np.flatnonzero(scores["stored"].to_numpy() & (exact > 0))
    by_probability = candidates[np.lexsort((candidates, time[candidates], -probability[candidates]))][:most]
    likely = by_probability[probability[by_probability] >= threshold]
    by_time = likely[np.lexsort((likely, -probability[likely], time[likely]))]
    return np.concatenate([by_time, by_probability[likely.size :]]).astype(np.int32)
