"""The learned predictor: how far other machines, and a machine's own past, tell its next boot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.base import SCORES_SCHEMA, BlockPredictor
from vmrestorekit.predict.block_features import BlockEvidence, block_features
from vmrestorekit.predict.description import KEYS, DescribedDisk, describe_disk
from vmrestorekit.predict.evidence import Evidence
from vmrestorekit.predict.examples import draw_examples
from vmrestorekit.predict.file_reads import FileReads, spread_to_blocks
from vmrestorekit.predict.lessons import lessons, parts_of_blocks
from vmrestorekit.predict.observations import (
    CLOCK_POINTS,
    Observation,
    boots_by_machine,
    observe,
    reads_of,
    usual_boots,
    usual_clock,
)
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.past_reads import PastReads, Told
from vmrestorekit.predict.relatives import past_of, relative_of
from vmrestorekit.predict.trees import Trees
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.boots import Boot

__all__ = ["LearnedPredictor"]

Floats = npt.NDArray[np.float32]

TREES: Mapping[str, Any] = {"min_samples_leaf": 40, "l2_regularization": 1.0}


class LearnedPredictor(BlockPredictor):
    """Gradient-boosted trees that learn how far the reads of others tell those of a machine.

    Three questions are asked, each with the answers to the one before:

    1. Is anything of a *file* read? By what it is, what others read of its like, and what uses it
       (`vmrestorekit.predict.file_reads`).
    2. Is a *block* read, and when? By its content, its place in its file, its neighbours, on other machines
       (`vmrestorekit.predict.block_features`).
    3. If the disk is that of a machine that was recorded, or of its clone: what of this does its *own past*
       confirm (`vmrestorekit.predict.past_reads`)?

    Every machine learned from is described by the evidence of machines of other lineages, releases and roles
    only (`vmrestorekit.predict.lessons`), as a new one will be. Blocks of zeros get probability 0: the backup
    copy does not store them.

    Parameters
    ----------
    max_iter, learning_rate, max_leaf_nodes
        Of the trees for the second question, see `sklearn.ensemble.HistGradientBoostingClassifier`.
    max_examples : int
        At most about as many blocks are drawn to learn from.
    random_state : int
        Seed of the drawing and of the trees.

    Attributes
    ----------
    evidence_ : Evidence
        What machines read.
    file_reads_ : FileReads
    classifier_, time_regressor_
        `Trees` for the second question.
    past_reads_ : PastReads
    pasts_ : tuple of Past
        Of each machine.
    clock_ : ndarray of float64
        When boots usually make each hundredth of their first reads, nanoseconds.
    """

    calibrated = True

    def __init__(
        self,
        max_iter: int = 150,
        learning_rate: float = 0.12,
        max_leaf_nodes: int = 31,
        max_examples: int = 240_000,
        random_state: int = 0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes
        self.max_examples = max_examples
        self.random_state = random_state

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        machines = boots_by_machine(boots)
        observations = [each for own in machines for each in observe(own)]
        self._learn_from_others(observations)
        self.past_reads_ = PastReads.learn(machines, observations, self._told_of, self.random_state)
        self.pasts_ = tuple(
            past_of(own, [each.described for each in observations if each.vm == own[-1].vm])
            for own in machines
        )
        self.clock_ = usual_clock([reads_of(boot) for own in machines for boot in usual_boots(own)])

    def _learn_from_others(self, observations: Sequence[Observation]) -> None:
        taught = list(lessons(observations))
        seed = self.random_state
        self.evidence_ = Evidence.of(parts_of_blocks(observations), KEYS)
        self._expect_a_difference(observations)
        self.file_reads_, of_files = FileReads.learn(observations, taught, seed)
        examples = draw_examples(observations, taught, self.evidence_, of_files, self.max_examples, seed)
        settings = {
            "learning_rate": self.learning_rate,
            "max_leaf_nodes": self.max_leaf_nodes,
            "random_state": seed,
            **TREES,
        }
        self.classifier_ = Trees.classify(*examples.of_reading(), max_iter=self.max_iter, **settings)
        self.time_regressor_ = Trees.regress(*examples.of_time(), max_iter=self.max_iter // 2, **settings)

    @staticmethod
    def _expect_a_difference(observations: Sequence[Observation]) -> None:
        read = [(each.rate > 0).any() for each in observations]
        unread = [(each.rate == 0).any() for each in observations]
        if not any(read) or not any(unread):
            raise PredictError("boots: expected stored blocks that were read and others that were not")

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        described = describe_disk(manifest)
        relative = relative_of(described, disk, self.pasts_)
        every = np.arange(described.block.size)
        clock = self.clock_
        if relative is None:
            told = self._told_of(described, every)
            read, when = told.probability, told.when
        else:
            past, alike = relative
            lineage = frozenset(each.vm for each in self.pasts_ if each.lineage == past.lineage)
            told = self._told_of(described, every, lineage)
            read, when = self.past_reads_.predict(described, past.disks[disk], past.boots, alike, told)
            clock = past.clock
        probability = np.zeros(manifest.blocks.height)
        nanoseconds = np.full(manifest.blocks.height, np.nan)
        probability[described.block] = read
        nanoseconds[described.block] = np.interp(when, np.linspace(0, 1, CLOCK_POINTS), clock)
        scores = pl.DataFrame(
            {"probability": probability, "first_read_ns": nanoseconds}, schema=SCORES_SCHEMA
        )
        return scores.with_columns(pl.col("first_read_ns").fill_nan(None))

    def _told_of(
        self,
        described: DescribedDisk,
        rows: npt.NDArray[np.int64],
        without: frozenset[str] = frozenset(),
    ) -> Told:
        """Return what is said of blocks of a disk by others than these sources."""
        x, of_files = self.features_of(described, rows, without)
        return Told(self.classifier_.chances(x), self.time_regressor_.values(x), of_files[rows, 0])

    def features_of(
        self,
        described: DescribedDisk,
        rows: npt.NDArray[np.int64],
        without: frozenset[str] = frozenset(),
    ) -> tuple[Floats, Floats]:
        """Return `FEATURES` of some rows by what others than these sources say.

        And, of all rows, what is said of their files (`spread_to_blocks`).
        """
        of_files = spread_to_blocks(described, self.file_reads_.predict(described, without))
        found = {
            key: table.without(without)[table.rows(described.keys[key])]
            for key, table in self.evidence_.tables.items()
        }
        return block_features(described, BlockEvidence(described, found), of_files, rows), of_files
