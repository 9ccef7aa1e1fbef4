"""A learned predictor: gradient-boosted trees on content, path and kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.base import SCORES_SCHEMA, BlockPredictor
from vmrestorekit.predict.features import FEATURES, TREND, Evidence, block_features, describe_disk, observe
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot

__all__ = ["LearnedPredictor"]

TIME_FEATURES = tuple(name for name in FEATURES if name.endswith("_time"))
# when something was read says little about whether, and lets a model recognise what it has seen
READ_FEATURES = tuple(name for name in FEATURES if name not in TIME_FEATURES)


class LearnedPredictor(BlockPredictor):
    """Gradient-boosted trees that learn how far the reads of other machines tell those of a new one.

    A block is described by evidence: how often its content, its place in its file, its file and its directory
    were read elsewhere. The examples learned from must not find themselves in that evidence.

    - From several machines: the examples of each are described by the evidence of the others.
    - From one machine: by that of its other boots (of the same boot, if there is only one). That alone would
      teach blind trust, because on the same machine everything has been met. So the machine is also shown
      with a part of itself hidden, in three ways and in turn for each of `folds` groups of files: as if the
      contents had changed, as if the files were new, as if whole branches of the directory tree were new.

    Where nothing was met before, what is left is the kind of file, its rough size, and whether it belongs to
    an installed service. Blocks of zeros get probability 0: the backup copy does not store them.

    Parameters
    ----------
    max_iter, learning_rate, max_leaf_nodes, min_samples_leaf
        Of the trees, see `sklearn.ensemble.HistGradientBoostingClassifier`.
    folds : int
        Groups of files that are hidden in turn.
    max_times : int
        At most about as many examples are drawn to learn times from.
    random_state : int
        Seed of the drawing and of the trees.

    Attributes
    ----------
    classifier_, time_regressor_
        Fitted scikit-learn models for the probability and the time of a first read.
    evidence_ : Evidence
        From all boots.
    """

    def __init__(
        self,
        max_iter: int = 100,
        learning_rate: float = 0.1,
        max_leaf_nodes: int = 15,
        min_samples_leaf: int = 5,
        folds: int = 3,
        max_times: int = 20_000,
        random_state: int = 0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes
        self.min_samples_leaf = min_samples_leaf
        self.folds = folds
        self.max_times = max_times
        self.random_state = random_state

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        # importing these takes seconds: only who learns pays
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        if self.folds < 2:
            raise PredictError(f"folds: expected at least 2, got {self.folds}")
        observations = [observe(boot, self.folds) for boot in boots]
        examples = _examples(_lessons(observations, self.folds))
        if examples["read"].n_unique() < 2:
            raise PredictError("boots: expected stored blocks that were read and others that were not")
        # exact sizes and positions are no features, so that a few thousand examples stand for all
        distinct = examples.group_by(*READ_FEATURES, "read", maintain_order=True).agg(pl.col("weight").sum())
        read = examples.filter("read")
        timed = read.sample(min(read.height, self.max_times), seed=self.random_state)
        settings = {
            "max_iter": self.max_iter,
            "learning_rate": self.learning_rate,
            "max_leaf_nodes": self.max_leaf_nodes,
            "min_samples_leaf": self.min_samples_leaf,
            "random_state": self.random_state,
            "early_stopping": False,
        }
        trend = [TREND[name] for name in READ_FEATURES]
        # more OpenMP threads than free cores make this six times slower
        with threadpool_limits(limits=1, user_api="openmp"):
            self.classifier_ = HistGradientBoostingClassifier(**settings, monotonic_cst=trend).fit(
                distinct.select(READ_FEATURES).to_numpy(),
                distinct["read"].to_numpy(),
                distinct["weight"].to_numpy(),
            )
            self.time_regressor_ = HistGradientBoostingRegressor(**settings, loss="absolute_error").fit(
                timed.select(FEATURES).to_numpy(), timed["seconds"].to_numpy()
            )
        self.evidence_ = Evidence(pl.concat(observations))

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        from threadpoolctl import threadpool_limits

        blocks = describe_disk(manifest)
        number = blocks["block"].to_numpy()
        probability = np.zeros(manifest.blocks.height)
        seconds = np.full(manifest.blocks.height, np.nan)
        if number.size:
            features = block_features(blocks, self.evidence_)
            # blocks with the same features get the same answer: ask once
            distinct, where = _distinct(features)
            with threadpool_limits(limits=1, user_api="openmp"):
                read = self.classifier_.predict_proba(distinct.select(READ_FEATURES).to_numpy())[:, 1]
                time = self.time_regressor_.predict(distinct.select(FEATURES).to_numpy())
            probability[number] = read[where]
            seconds[number] = np.maximum(time, 0.0)[where]
        scores = pl.DataFrame(
            {"probability": probability, "first_read_ns": seconds * 1e9}, schema=SCORES_SCHEMA
        )
        return scores.with_columns(pl.col("first_read_ns").fill_nan(None))


@dataclasses.dataclass(frozen=True)
class _Lesson:
    """Blocks of one boot as some evidence shows them; only the rows `asked` are learned from."""

    blocks: pl.DataFrame
    evidence: Evidence
    asked: pl.Expr
    weight: float


def _lessons(observations: list[pl.DataFrame], folds: int) -> Iterator[_Lesson]:
    machines = [observation["vm"][0] for observation in observations]
    if len(set(machines)) > 1:
        for machine in sorted(set(machines)):
            pairs = list(zip(machines, observations, strict=True))
            evidence = Evidence(pl.concat(observation for name, observation in pairs if name != machine))
            for name, blocks in pairs:
                if name == machine:
                    yield _Lesson(blocks, evidence, pl.lit(True), 1.0)
        return
    for number, blocks in enumerate(observations):
        yield _Lesson(blocks, Evidence(_others(observations, number)), pl.lit(True), 1.0)
    for fold in range(folds):
        number = fold % len(observations)
        blocks, others = observations[number], _others(observations, number)
        file, branch = pl.col("file_group") == fold, pl.col("branch_group") == fold
        yield _Lesson(blocks, Evidence(others, changed=file), file, 0.3)
        yield _Lesson(blocks, Evidence(others.filter(~file)), file, 0.5)
        yield _Lesson(blocks, Evidence(others.filter(~branch)), branch, 0.5)


def _others(observations: list[pl.DataFrame], number: int) -> pl.DataFrame:
    others = [observation for at, observation in enumerate(observations) if at != number]
    return pl.concat(others or observations)


def _examples(lessons: Iterator[_Lesson]) -> pl.DataFrame:
    """Return `FEATURES`, ``read``, ``seconds`` (null where not read) and ``weight``, a row an example."""
    parts = []
    for lesson in lessons:
        asked = lesson.blocks.filter(lesson.asked)
        features = pl.DataFrame(block_features(asked, lesson.evidence), schema=list(FEATURES))
        answers = asked.select(
            "read", seconds=pl.col("first_read_ns") / 1e9, weight=pl.lit(lesson.weight, pl.Float64)
        )
        parts.append(features.hstack(answers))
    return pl.concat(parts)


def _distinct(features: npt.NDArray[np.float32]) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """Return the distinct rows, and for each row which one it is."""
    frame = pl.DataFrame(features, schema=list(FEATURES))
    distinct = frame.unique(maintain_order=True).with_row_index("number")
    where = frame.join(distinct, on=list(FEATURES), how="left", nulls_equal=True, maintain_order="left")
    return distinct.drop("number"), where["number"].to_numpy()
