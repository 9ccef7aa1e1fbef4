"""The linear score of three terms by which ThinkAhead orders what it preloads, and a search for weights.

After “How Soon is Now? Preloading Images for Virtual Disks with ThinkAhead” (Chen et al., FAST 2026), which
counts accesses of blocks at the same address of one image; there weights are found anew for each bandwidth.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.mapped import accesses, block_keys, pool, replayed, states_let_go
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES, Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot

__all__ = ["WEIGHTS", "LinearScore"]

# of access count, mean access time, first access time: as ThinkAhead ships them
WEIGHTS: Mapping[str, tuple[float, float, float]] = {
    "10MB/s": (0.13, 0.44, 0.43),
    "100MB/s": (0.14, 0.15, 0.72),
}
TUNED = "tuned"
# what may be staged while weights are searched, as a multiple of what was read
BUDGET = 1.25
# weights are searched in steps of a tenth
STEPS = 10

FloatArray = npt.NDArray[np.float64]


class LinearScore(BlockPredictor):
    """Orders what any of the machines read by how often, when on average and when first it was read.

    The score is a weighted sum of three terms, each scaled to 0 to 1 over all blocks that were ever read, and
    more of each is better: reads a boot; earliness of the mean read; earliness of the first read. Machines
    count alike, see `vmrestorekit.predict.mapped.pool`. How ThinkAhead scales its terms is our reading of it.

    Tuned weights are searched on the machines given only: each in turn is left out, the others are pooled,
    and its last boot is asked for. The objective is the mean over machines of the recall at 1.25 times the
    blocks that were read, staged in the order of the score; with a `bandwidth`, only blocks count that arrive
    before they are first read, as on hardware that nothing else disturbs. Of equal weights the first on the
    grid stays, which puts time before count. One machine alone teaches no weights: then those for 10 MB/s
    hold.

    Parameters
    ----------
    weights : {"10MB/s", "100MB/s", "tuned"} or sequence of three floats
        Of count, mean access and first access; not negative, not all zero.
    by : {"address", "content", "path"}
        What makes a block the same on another machine, see `vmrestorekit.predict.mapped`.
    bandwidth : float, optional
        Bytes a second at which tuned weights are to be good; default: whenever a block arrives, it counts.
    head_start_ns : int
        With a bandwidth: how long is staged before the launch.

    Attributes
    ----------
    weights_ : tuple of three floats
    times_ : polars.DataFrame
        ``key`` and ``first_read_ns``, a row for each block that was ever read. The time says the place in the
        order and no more: the k-th of the list has about the k-th of all earliest reads.
    """

    def __init__(
        self,
        weights: str | Sequence[float] = "10MB/s",
        by: str = "address",
        bandwidth: float | None = None,
        head_start_ns: int = 4_000_000_000,
    ) -> None:
        self.weights = weights
        self.by = by
        self.bandwidth = bandwidth
        self.head_start_ns = head_start_ns

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        weights = None if self.weights == TUNED else _expect_weights(self.weights)
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise PredictError(f"bandwidth: expected more than 0 bytes a second, got {self.bandwidth!r}")
        found = accesses(boots, self.by)
        machines = sorted({boot.vm for boot in boots})
        if weights is None and len(machines) < 2:
            weights = WEIGHTS["10MB/s"]
        self.weights_ = weights or self._search(boots, found)
        pooled = pool(found, len(machines))
        times = _times_in_order(_terms(pooled) @ self.weights_, pooled["first_ns"].to_numpy())
        self.times_ = pooled.select("key", first_read_ns=pl.Series(times, dtype=pl.Float64))

    def _search(self, boots: Sequence[Boot], found: pl.DataFrame) -> tuple[float, float, float]:
        """Return the weights of the grid that serve machines best which were left out."""
        last = {boot.vm: boot for boot in boots}
        grid = _grid()
        in_time = np.zeros(len(grid))
        for vm, boot in sorted(last.items()):
            others = pool(found.filter(pl.col("vm") != vm), len(last) - 1)
            # a state is stored as changes since the one before, which is then held, too
            with states_let_go([other for other in boots if other.vm == vm]):
                exam = _Exam.of(boot, self.by, others)
            in_time += [exam.share_in_time(weights, self.bandwidth, self.head_start_ns) for weights in grid]
        return grid[int(in_time.argmax())]

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        return replayed(manifest, disk, self.by, self.times_)


def _expect_weights(weights: str | Sequence[float]) -> tuple[float, float, float]:
    if isinstance(weights, str):
        if weights not in WEIGHTS:
            raise PredictError(
                f"weights: expected one of {', '.join(WEIGHTS)}, {TUNED} or three numbers, got {weights!r}"
            )
        return WEIGHTS[weights]
    try:
        count, mean, first = (float(weight) for weight in weights)
    except (TypeError, ValueError) as error:
        raise PredictError(f"weights: expected a name or three numbers, got {weights!r:.80}") from error
    if not (min(count, mean, first) >= 0 and 0 < count + mean + first < np.inf):
        raise PredictError(f"weights: expected three numbers from 0 on, not all 0, got {weights!r}")
    return count, mean, first


def _grid() -> list[tuple[float, float, float]]:
    """Return all weights in steps that sum to 1, those with little count first."""
    steps = itertools.product(range(STEPS + 1), repeat=2)
    return [
        (count / STEPS, mean / STEPS, (STEPS - count - mean) / STEPS)
        for count, mean in steps
        if count + mean <= STEPS
    ]


def _terms(pooled: pl.DataFrame) -> FloatArray:
    """Return the three terms of the score, shape (n, 3)."""
    columns = [pooled["count"], -pooled["mean_ns"], -pooled["first_ns"]]
    return np.stack([_scaled(column.to_numpy()) for column in columns], axis=1)


def _scaled(values: FloatArray) -> FloatArray:
    if not values.size or values.min() == values.max():
        return np.zeros(values.size)
    scaled: FloatArray = (values - values.min()) / (values.max() - values.min())
    return scaled


def _times_in_order(score: FloatArray, first_ns: FloatArray) -> FloatArray:
    """Return a time for each block, by which they come in the order of falling scores; equal for equals."""
    # what is equal but for rounding is equal: then the address decides, and neighbours stay together
    _, level, size = np.unique(-score.round(12), return_inverse=True, return_counts=True)
    start = np.cumsum(size) - size
    # a nanosecond a place keeps levels apart that begin at equal times
    times: FloatArray = (np.sort(first_ns)[start] + start)[level]
    return times


@dataclasses.dataclass(frozen=True)
class _Exam:
    """What others' reads offer a machine that was left out, and what its boot wanted.

    Attributes
    ----------
    terms : ndarray of float64, shape (n, 3)
        Of the stored blocks of its disks that are the same as any that the others read, in the order of the
        disks.
    wanted_ns : ndarray of float64, shape (n,)
        When each was first read; NaN: never.
    needed : int
        How many stored blocks its boot read.
    """

    terms: FloatArray
    wanted_ns: FloatArray
    needed: int

    @classmethod
    def of(cls, boot: Boot, by: str, others: pl.DataFrame) -> _Exam:
        offers = others.select("key").hstack(
            pl.DataFrame(_terms(others), schema=["count", "mean", "first"], orient="row")
        )
        blocks = _stored_blocks(boot, by).join(offers, on="key", how="left", maintain_order="left")
        offered = blocks.drop_nulls("count")
        return cls(
            offered.select("count", "mean", "first").to_numpy(),
            offered["wanted"].to_numpy(),
            int(blocks["wanted"].is_not_nan().sum()),
        )

    def share_in_time(
        self, weights: tuple[float, float, float], bandwidth: float | None, head_start_ns: int
    ) -> float:
        """Return which share of the needed blocks is staged, and before it is wanted if that matters."""
        score = (self.terms @ weights).round(12)
        staged = np.argsort(-score, kind="stable")[: round(BUDGET * self.needed)]
        wanted_ns = self.wanted_ns[staged]
        found = np.isfinite(wanted_ns)
        if bandwidth is not None:
            arrival_ns = np.arange(1, staged.size + 1) * (MANIFEST_BLOCK_BYTES * 1e9 / bandwidth)
            found &= arrival_ns - head_start_ns <= np.nan_to_num(wanted_ns)
        return float(found.sum()) / max(self.needed, 1)


def _stored_blocks(boot: Boot, by: str) -> pl.DataFrame:
    """Return ``key`` and ``wanted`` (when first read, NaN: never) of the stored blocks before a boot.

    They are kept with the boot: a hundredth of what the states of its machine's disks take.
    """
    kept: dict[str, pl.DataFrame] = vars(boot).setdefault("_stored_blocks", {})
    if by not in kept:
        reads = blocks_read(boot)
        disks = []
        for disk, manifest in enumerate(boot.manifests):
            wanted = np.full(manifest.blocks.height, np.nan)
            there = reads.filter(pl.col("disk") == disk)
            wanted[there["block"].to_numpy()] = there["first_read_ns"].to_numpy()
            blocks = pl.DataFrame({"key": block_keys(manifest, disk, by), "wanted": wanted})
            disks.append(blocks.filter(manifest.blocks["content"] != 0))
        kept[by] = pl.concat(disks)
    return kept[by]
