"""Whether anything of a file is read: the first of two questions.

Files say of each other what blocks cannot: a program that will run needs its libraries. So first each file
gets a probability from what is known of it, then these are handed on along the references between files, and
the question is asked once more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.description import FILE_FEATURES, FILE_KEYS, DescribedDisk
from vmrestorekit.predict.evidence import Evidence
from vmrestorekit.predict.lessons import FOLDS, Lesson, folds_of, parts_of_files, reads_of_files
from vmrestorekit.predict.observations import Observation
from vmrestorekit.predict.reached import likelihood_of_use
from vmrestorekit.predict.trees import SMALL, Trees

__all__ = ["FILE_READ_FEATURES", "FileReads", "spread_to_blocks"]

Floats = npt.NDArray[np.float32]

MANY = 8  # machines: more say no more
FIRST_ROUND = (*FILE_FEATURES, *(f"{key}_{what}" for key in FILE_KEYS for what in ("met", "rate")))
FILE_READ_FEATURES = (
    *FIRST_ROUND,
    "first_guess",
    *("used_by_chain", "used_by", "used_by_sum", "users", "uses"),
)
# of files that nothing was read of, only some are needed to learn from, if there are many
UNREAD_SHARE, FEWEST_UNREAD = 0.08, 500


@dataclasses.dataclass(frozen=True, eq=False)
class FileReads:
    """What was learned: the probability that anything of a file is read.

    Attributes
    ----------
    evidence : Evidence
        Of files.
    first, second : Trees
        Before and after the first guesses were handed on.
    """

    evidence: Evidence
    first: Trees
    second: Trees

    @classmethod
    def learn(
        cls, observations: Sequence[Observation], lessons: Sequence[Lesson], seed: int
    ) -> tuple[FileReads, list[Floats]]:
        """Learn from observations; also return what the model says of each lesson's files.

        These are answers to questions that were kept from the model: with them the second question, whether
        a block is read, is learned from guesses as good and as bad as those on a new machine.
        """
        evidence = Evidence.of(parts_of_files(observations), FILE_KEYS)
        examples = list(_examples(observations, lessons, evidence, seed))
        described = [observations[lesson.number].described for lesson in lessons]
        first, guesses = _crossed(examples, [example.features for example in examples], seed)
        handed_on = [
            np.column_stack([example.features, guess, _of_use(disk, guess)])
            for example, guess, disk in zip(examples, guesses, described, strict=True)
        ]
        second, answers = _crossed(examples, handed_on, seed)
        return cls(evidence, first, second), answers

    def predict(self, described: DescribedDisk, without: frozenset[str] = frozenset()) -> Floats:
        """Return the probability of each file, in the order of ``described.first_rows``."""
        return self.second.chances(self.features_of(described, without))

    def features_of(self, described: DescribedDisk, without: frozenset[str] = frozenset()) -> Floats:
        """Return `FILE_READ_FEATURES` of each file, the first guess among them."""
        known = file_features(described, self.evidence, without)
        guess = self.first.chances(known)
        return np.column_stack([known, guess, _of_use(described, guess)])


@dataclasses.dataclass(frozen=True, eq=False)
class _Example:
    features: Floats
    read: npt.NDArray[np.bool_]
    weight: Floats
    fold: npt.NDArray[np.int64]


def _examples(
    observations: Sequence[Observation], lessons: Sequence[Lesson], evidence: Evidence, seed: int
) -> Iterator[_Example]:
    drawn = np.random.default_rng(seed)
    for lesson in lessons:
        observation = observations[lesson.number]
        rows = observation.described.first_rows
        read = reads_of_files(observation)[0] > 0
        unread = max(int(np.count_nonzero(~read)), 1)
        share = min(max(UNREAD_SHARE, FEWEST_UNREAD / unread), 1.0)
        asked = read | (drawn.random(read.size) < share)
        if lesson.branches is not None:
            asked &= folds_of([observation], 0, rows) == lesson.branches
        weight = np.where(asked, np.where(read, 1, 1 / share), 0) * lesson.weight
        features = file_features(observation.described, evidence, lesson.without)
        yield _Example(features, read, weight.astype(np.float32), folds_of(observations, lesson.number, rows))


def _crossed(examples: list[_Example], features: list[Floats], seed: int) -> tuple[Trees, list[Floats]]:
    """Return a model of all examples, and for each the answers of models that did not see its part."""
    x = np.concatenate(features)
    read = np.concatenate([example.read for example in examples])
    weight = np.concatenate([example.weight for example in examples])
    fold = np.concatenate([example.fold for example in examples])
    answers = np.zeros(read.size, np.float32)
    for number in range(FOLDS):
        there = (fold != number) & (weight > 0)
        if there.any() and (fold == number).any() and np.unique(read[there]).size == 2:
            model = Trees.classify(x[there], read[there], weight[there], random_state=seed, **SMALL)
            answers[fold == number] = model.chances(x[fold == number])
    there = weight > 0
    model = Trees.classify(x[there], read[there], weight[there], random_state=seed, **SMALL)
    ends = np.cumsum([example.read.size for example in examples])
    return model, np.split(answers, ends[:-1])


def file_features(described: DescribedDisk, evidence: Evidence, without: frozenset[str]) -> Floats:
    """Return `FIRST_ROUND` of each file."""
    rows = described.first_rows
    columns = [described.features[rows, : len(FILE_FEATURES)]]
    for key, table in evidence.tables.items():
        found = table.without(without)[table.rows(described.keys[key][rows]), :2]
        columns.append(np.minimum(found, [MANY, np.inf]))
    return np.column_stack(columns).astype(np.float32)


def _of_use(described: DescribedDisk, guess: Floats) -> Floats:
    probability = np.zeros(described.file_count, np.float32)
    own = described.file[described.first_rows]
    probability[own] = guess
    return likelihood_of_use(described.edges, probability)[own]


def spread_to_blocks(described: DescribedDisk, probability: Floats) -> Floats:
    """Return for each block the probability of its file, and of what uses it; NaN for blocks of no file.

    Returns
    -------
    ndarray of float32, shape (n, 2)
    """
    by_file = np.full((described.file_count + 1, 2), np.nan, np.float32)
    own = described.file[described.first_rows]
    by_file[own, 0] = probability
    by_file[own, 1] = _of_use(described, probability)[:, 0]
    return by_file[described.file]
