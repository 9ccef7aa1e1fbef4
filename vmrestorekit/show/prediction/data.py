"""What a prediction stages of a boot's disks for any budget: worked out once, then looked up."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import DEFAULT_BLOCK_BYTES, first_block_of_disk
from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.cache_blocks import cache_block_scores, staging_order
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.metrics import needed_blocks
from vmrestorekit.predict.missed import missed_and_wasted
from vmrestorekit.predict.planning import GENEROSITY
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = [
    "CURVE_SCHEMA",
    "FILES_SCHEMA",
    "Needs",
    "Prediction",
    "budget_curve",
    "files_of",
    "known_of_files",
]

CURVE_SCHEMA = pl.Schema(
    {
        "predictor": pl.String(),
        "budget_mb": pl.Float64(),
        "staged_mb": pl.Float64(),  # a predictor that expects little stages less than it may
        "recall": pl.Float64(),  # share of the blocks read that are staged
        "precision": pl.Float64(),  # share of the blocks staged that are read; null where none is
        "waste_mb": pl.Float64(),  # staged, and never read
    }
)
FILES_SCHEMA = pl.Schema(
    {
        "disk": pl.Int64(),
        "path": pl.String(),  # null: blocks of no file
        "missed_kib": pl.Int64(),  # read, and in blocks that are not staged
        "wasted_kib": pl.Int64(),  # in blocks that are staged, and of which nothing is read
        "found_kib": pl.Int64(),  # read, and staged
    }
)

_STEPS_OF_THE_NEED = 20  # a budget of the usual grid is a multiple of 5 % of what is needed
_KIB = MANIFEST_BLOCK_BYTES // 1024
_ANY_PROBABILITY = 2.0  # a threshold that none reaches: staging_order then keeps the order of probability

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Needs:
    """What a boot reads, in blocks of the read cache, those of disk 0 first, then those of disk 1.

    Attributes
    ----------
    boot : Boot
    block_bytes : int
    stored, read : ndarray of bool, shape (blocks,)
        What the backup copy stores; of it, what the boot reads anything of before it ends.
    small_read, small_stored : ndarray of bool, shape (n,)
        The same of 4 KiB blocks.
    small_block : ndarray of int64, shape (n,)
        The block of the read cache that a 4 KiB block lies in.
    small_disk, small_number : ndarray of int64, shape (n,)
        The disk of a 4 KiB block, and its number there.
    """

    boot: Boot
    block_bytes: int
    stored: Flags
    read: Flags
    small_read: Flags
    small_stored: Flags
    small_block: Numbers
    small_disk: Numbers
    small_number: Numbers

    @classmethod
    def of(cls, boot: Boot, block_bytes: int = DEFAULT_BLOCK_BYTES) -> Needs:
        """Return what a boot needs.

        Raises
        ------
        PredictError
            If the boot has no mark of its end, or read nothing that the backup copy stores.
        """
        small = needed_blocks(boot)
        first = np.array(first_block_of_disk(boot.disk_bytes, block_bytes), np.int64)
        block = first[small.disk] + small.block // (block_bytes // MANIFEST_BLOCK_BYTES)
        stored, read = np.zeros((2, int(block[-1]) + 1), bool)
        stored[block[small.stored]] = True
        read[block[small.read]] = True
        return cls(
            *(boot, block_bytes, stored, read, small.read, small.stored, block), small.disk, small.block
        )

    @functools.cached_property
    def needed(self) -> int:
        """How many blocks the boot reads."""
        return int(self.read.sum())

    @functools.cached_property
    def grid(self) -> tuple[int, ...]:
        """Budgets in blocks, each once: from nothing to twice what is needed."""
        steps = range(2 * _STEPS_OF_THE_NEED + 1)
        return tuple(dict.fromkeys(round(step * self.needed / _STEPS_OF_THE_NEED) for step in steps))

    @functools.cached_property
    def usual(self) -> int:
        """The budget of the grid next to what a plan stages if nobody says: a quarter more than is needed."""
        return min(self.grid, key=lambda budget: abs(budget - GENEROSITY * self.needed))

    @functools.cached_property
    def small_file(self) -> Numbers:
        """The row of `files` of each 4 KiB block; the last row is that of blocks of no file."""
        found, before = [], 0
        for manifest in self.boot.manifests:
            numbers = manifest.blocks["file"].cast(pl.Int64).fill_null(-1).to_numpy()
            found.append(np.where(numbers < 0, -1, numbers + before))
            before += manifest.files.height
        numbers = np.concatenate(found)
        return np.where(numbers < 0, before, numbers)

    @functools.cached_property
    def files(self) -> pl.DataFrame:
        """``disk`` and ``path`` of all files of all disks; the last row stands for no file."""
        of_disks = [
            manifest.files.select(pl.lit(disk, pl.Int64).alias("disk"), "path")
            for disk, manifest in enumerate(self.boot.manifests)
        ]
        return pl.concat([*of_disks, pl.DataFrame([(None, None)], of_disks[0].schema, orient="row")])

    def megabytes(self, blocks: float) -> float:
        """Return how many MB so many blocks are."""
        return blocks * self.block_bytes / 1e6


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """What a predictor would stage of a boot's disks.

    Attributes
    ----------
    name : str
    predictor : BlockPredictor
    needs : Needs
    scores : polars.DataFrame
        `vmrestorekit.predict.cache_blocks.CACHE_BLOCKS_SCHEMA`, a row a block.
    chosen : ndarray of int32
        The blocks in the order in which a growing budget takes them in, the most probable first.
    place : ndarray of int64, shape (blocks,)
        Of each block in `chosen`; beyond its end for one that is never chosen.
    found : ndarray of int64
        How many of the first so many chosen ones the boot reads, from none to all.
    """

    name: str
    predictor: BlockPredictor
    needs: Needs
    scores: pl.DataFrame
    chosen: npt.NDArray[np.int32]
    place: Numbers
    found: Numbers

    @classmethod
    def of(cls, name: str, predictor: BlockPredictor, needs: Needs) -> Prediction:
        """Ask a fitted predictor of the disks as they were before the boot, and show it nothing else.

        Raises
        ------
        PredictError
            If the predictor cannot say anything of these disks.
        """
        scores = pl.concat(
            cache_block_scores(predictor.score_blocks(manifest, disk), manifest.blocks, needs.block_bytes)
            for disk, manifest in enumerate(needs.boot.manifests)
        )
        chosen = staging_order(scores, threshold=_ANY_PROBABILITY)
        place = np.full(needs.stored.size, needs.stored.size, np.int64)
        place[chosen] = np.arange(chosen.size)
        found = np.concatenate([[0], np.cumsum(needs.read[chosen])])
        return cls(name, predictor, needs, scores, chosen, place, found)

    def staged(self, budget: int) -> int:
        """Return how many blocks are staged of a budget of so many."""
        return min(budget, self.chosen.size)

    def recall(self, budget: int) -> float:
        """Return which share of the blocks that the boot reads is staged."""
        return int(self.found[self.staged(budget)]) / self.needs.needed

    def precision(self, budget: int) -> float | None:
        """Return which share of the blocks that are staged is read; None if none is staged."""
        staged = self.staged(budget)
        return int(self.found[staged]) / staged if staged else None

    def wasted(self, budget: int) -> int:
        """Return how many blocks are staged and never read."""
        staged = self.staged(budget)
        return staged - int(self.found[staged])

    def first_set(self, budget: int) -> npt.NDArray[np.int32]:
        """Return the blocks in the order of their staging, as `vmrestorekit.make_plan` does for a budget."""
        return staging_order(self.scores, budget)


def budget_curve(prediction: Prediction) -> pl.DataFrame:
    """Return recall, precision and waste of a prediction for each budget of its grid, as `CURVE_SCHEMA`."""
    needs = prediction.needs
    rows = [
        (
            prediction.name,
            needs.megabytes(budget),
            needs.megabytes(prediction.staged(budget)),
            prediction.recall(budget),
            prediction.precision(budget),
            needs.megabytes(prediction.wasted(budget)),
        )
        for budget in needs.grid
    ]
    return pl.DataFrame(rows, CURVE_SCHEMA, orient="row")


def files_of(prediction: Prediction, budget: int) -> pl.DataFrame:
    """Return, file by file, what a budget misses, wastes and finds, as `FILES_SCHEMA`.

    `vmrestorekit.predict.missed.missed_and_wasted` tells the same for a budget of single 4 KiB blocks. A
    media agent stages whole blocks of its read cache, so here a file is missed or wasted by these: what lies
    in one of which anything is read has come along, and counts for nothing.
    """
    needs = prediction.needs
    is_staged, is_read = (
        flags[needs.small_block] for flags in (prediction.place < prediction.staged(budget), needs.read)
    )
    found = {}
    for name, rows in {
        "missed_kib": needs.small_read & ~is_staged,
        "wasted_kib": needs.small_stored & is_staged & ~is_read,
        "found_kib": needs.small_read & is_staged,
    }.items():
        found[name] = _KIB * np.bincount(needs.small_file[rows], minlength=needs.files.height)
    table = needs.files.with_columns(**{name: pl.Series(counts) for name, counts in found.items()})
    any_of_it = pl.sum_horizontal("missed_kib", "wasted_kib", "found_kib") > 0
    order = ["missed_kib", "wasted_kib", "disk", "path"]
    table = table.filter(any_of_it).sort(order, descending=[True, True, False, False])
    return table.match_to_schema(FILES_SCHEMA)


def known_of_files(prediction: Prediction) -> dict[tuple[int | None, str | None], str]:
    """Return what the machines that were learned from say of files, in words, by disk and path.

    Only a `LearnedPredictor` remembers that. It is asked for all files at once: with a budget that stages
    whatever has a chance, everything that is ever missed or wasted is in its list.
    """
    if not isinstance(prediction.predictor, LearnedPredictor):
        return {}
    needs = prediction.needs
    enough = needs.small_stored.sum() / max(int(needs.small_read.sum()), 1) + 1
    table = missed_and_wasted(prediction.predictor, needs.boot, float(enough))
    said = (
        pl.when(pl.col("met").is_null())
        .then(pl.lit(""))
        .when(~pl.col("met"))
        .then(pl.lit("no machine learned from has it"))
        .when(pl.col("read_elsewhere"))
        .then(pl.lit("others have it and read it"))
        .otherwise(pl.lit("others have it, none reads it"))
    )
    return {(disk, path): words for disk, path, words in table.select("disk", "path", said).iter_rows()}
