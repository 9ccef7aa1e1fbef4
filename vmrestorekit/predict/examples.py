"""Blocks of recorded machines to learn from, as lessons show them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.block_features import BlockEvidence, block_features
from vmrestorekit.predict.evidence import Evidence
from vmrestorekit.predict.file_reads import spread_to_blocks
from vmrestorekit.predict.lessons import Lesson, folds_of
from vmrestorekit.predict.observations import Observation

__all__ = ["Examples", "draw_examples"]

Floats = npt.NDArray[np.float32]

FEWEST = 100  # of each answer in each lesson, however many lessons there are


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Rows of features with what came of them.

    Attributes
    ----------
    features : ndarray of float32, shape (n, len(FEATURES))
    rate, when, after : ndarray of float32, shape (n,)
        As in `Observation`.
    weight : ndarray of float32, shape (n,)
        How many blocks an example stands for, times the weight of its lesson.
    """

    features: Floats
    rate: Floats
    when: Floats
    after: Floats
    weight: Floats

    def of_reading(self) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
        """Return features, answers and weights; what only some boots read is an example of both answers."""
        return self._of_share(self.rate)

    def of_reading_after(self) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
        """Return the same of what is first read in the minute after a boot."""
        return self._of_share(self.after)

    def _of_share(self, share: Floats) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
        some, not_all = np.flatnonzero(share > 0), np.flatnonzero(share < 1)
        rows = np.concatenate([some, not_all])
        read = np.arange(rows.size) < some.size
        weight = self.weight[rows] * np.where(read, share[rows], 1 - share[rows])
        return self.features[rows], read, weight

    def of_time(self) -> tuple[Floats, Floats, Floats]:
        """Return features, times and weights of every second block that was read."""
        rows = np.flatnonzero(~np.isnan(self.when))[::2]
        return self.features[rows], self.when[rows], self.weight[rows]


def draw_examples(
    observations: Sequence[Observation],
    lessons: Sequence[Lesson],
    evidence: Evidence,
    of_files: Sequence[Floats],
    most: int,
    seed: int,
) -> Examples:
    """Draw as many blocks that were read as others, the same number from each lesson, and some read later.

    Parameters
    ----------
    observations : sequence of Observation
    lessons : sequence of Lesson
        Those of one machine one after the other.
    evidence : Evidence
        Of blocks.
    of_files : sequence of ndarray of float32
        Of each lesson, the probabilities of its files.
    most : int
        At most about so many.
    seed : int
    """
    drawn = np.random.default_rng(seed)
    each = max(most // (2 * len(lessons)), FEWEST)
    parts = []
    number, rows = -1, {}
    without, view = None, {}
    for lesson, files in zip(lessons, of_files, strict=True):
        observation = observations[lesson.number]
        if lesson.number != number:
            number, rows = lesson.number, evidence.rows(observation.described.keys)
        if lesson.without != without:
            without, view = lesson.without, evidence.without(lesson.without)
        chosen, stands_for = _draw(observation, lesson, each, drawn)
        features = block_features(
            observation.described,
            BlockEvidence(observation.described, rows, view),
            spread_to_blocks(observation.described, files),
            chosen,
        )
        seen = (observation.rate, observation.when, observation.after)
        parts.append((features, *(column[chosen] for column in seen), stands_for))
    return Examples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _draw(
    observation: Observation, lesson: Lesson, each: int, drawn: np.random.Generator
) -> tuple[npt.NDArray[np.int64], Floats]:
    asked = np.ones(observation.rate.size, bool)
    if lesson.branches is not None:
        asked = folds_of([observation], 0, slice(None)) == lesson.branches
    chosen, weights = [], []
    read, read_after = observation.rate > 0, observation.after > 0
    # what is read after a boot is little, and looks much like what is read in it: all sides need examples
    groups = ((read, each), (~read & read_after, each // 4), (~read & ~read_after, each))
    for answer, most in groups:
        group = np.flatnonzero(asked & answer)
        some = drawn.permutation(group)[:most]
        chosen.append(some)
        weights.append(np.full(some.size, lesson.weight * group.size / max(some.size, 1), np.float32))
    return np.concatenate(chosen), np.concatenate(weights)
