"""From scores of boots to means over machines, with bootstrap intervals; and predictors compared in pairs.

Each machine counts once, however many of its boots were tested.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = [
    "DIFFERENCES_SCHEMA",
    "MEANS_SCHEMA",
    "SCORES_OF_BOOTS_SCHEMA",
    "mean_of_machines",
    "paired_differences",
]

SCORES_OF_BOOTS_SCHEMA = pl.Schema(
    {
        "split": pl.String(),
        "fold": pl.String(),
        "vm": pl.String(),
        "boot": pl.String(),
        "predictor": pl.String(),
        "metric": pl.String(),
        "value": pl.Float64(),
    }
)
_INTERVAL = {
    "vms": pl.Int64(),  # how many machines have such a value
    "mean": pl.Float64(),
    "low": pl.Float64(),  # 95 % interval of the mean, by bootstrap over machines
    "high": pl.Float64(),
}
MEANS_SCHEMA = pl.Schema(
    {
        **{name: pl.String() for name in ("split", "predictor", "metric")},
        **_INTERVAL,
        "least": pl.Float64(),  # the lowest of a machine
        "most": pl.Float64(),
    }
)
DIFFERENCES_SCHEMA = pl.Schema(
    {
        **{name: pl.String() for name in ("split", "metric", "predictor", "against")},
        **_INTERVAL,  # of predictor - against
    }
)
RESAMPLES = 2000


def mean_of_machines(scores: pl.DataFrame, seed: int = 0, resamples: int = RESAMPLES) -> pl.DataFrame:
    """Return the mean over machines of each split, predictor and metric.

    Parameters
    ----------
    scores : polars.DataFrame
        `SCORES_OF_BOOTS_SCHEMA`.
    seed : int
        Equal seeds draw the same machines, for whatever predictor and metric.
    resamples : int

    Returns
    -------
    polars.DataFrame
        `MEANS_SCHEMA`.
    """
    rows = []
    for keys, group in _by_machine(scores).group_by("split", "predictor", "metric", maintain_order=True):
        values = group["value"].to_numpy()
        rows.append((*keys, *_interval(values, seed, resamples), float(values.min()), float(values.max())))
    return pl.DataFrame(rows, schema=MEANS_SCHEMA, orient="row")


def paired_differences(
    scores: pl.DataFrame, metrics: Iterable[str], seed: int = 0, resamples: int = RESAMPLES
) -> pl.DataFrame:
    """Return for each two predictors the mean difference over the machines that have a value of both.

    Parameters
    ----------
    scores : polars.DataFrame
        `SCORES_OF_BOOTS_SCHEMA`.
    metrics : iterable of str
        Which metrics to compare.
    seed, resamples : int
        As in `mean_of_machines`.

    Returns
    -------
    polars.DataFrame
        `DIFFERENCES_SCHEMA`, each pair both ways.
    """
    chosen = _by_machine(scores.filter(pl.col("metric").is_in(list(metrics))))
    both = (
        chosen.join(chosen, on=["split", "metric", "vm"], suffix="_against")
        .filter(pl.col("predictor") != pl.col("predictor_against"))
        .with_columns(difference=pl.col("value") - pl.col("value_against"))
        .sort("split", "metric", "predictor", "predictor_against", "vm")
    )
    keys = ["split", "metric", "predictor", "predictor_against"]
    rows = [
        (*names, *_interval(group["difference"].to_numpy(), seed, resamples))
        for names, group in both.group_by(keys, maintain_order=True)
    ]
    return pl.DataFrame(rows, schema=DIFFERENCES_SCHEMA, orient="row")


def _by_machine(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the mean over each machine's boots, in an order that does not depend on that of the rows."""
    keys = ["split", "predictor", "metric", "vm"]
    ordered = scores.sort(*keys, "fold", "boot")
    return ordered.group_by(keys, maintain_order=True).agg(pl.col("value").mean())


def _interval(values: npt.NDArray[np.float64], seed: int, resamples: int) -> tuple[int, float, float, float]:
    drawn = _drawn(values.size, seed, resamples)
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return values.size, float(values.mean()), float(low), float(high)


@functools.lru_cache(maxsize=64)
def _drawn(machines: int, seed: int, resamples: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, machines, (resamples, machines))
