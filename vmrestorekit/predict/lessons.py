"""How a model is taught from the machines it learns from: each is shown as if nobody had met it before.

A model that is asked of new machines must learn on machines that are new to its evidence. So each machine is
described by the evidence of others, in up to three views: without its lineage, without its whole release,
without its role. The last two teach what still holds when little is known.

If all machines are of one lineage, nobody else is there to tell. Then each is shown with all evidence, which
teaches to trust it, and with part of its own hidden: in turn the branches of the directory tree of each of
`FOLDS` groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.evidence import Part
from vmrestorekit.predict.observations import Observation

__all__ = ["FOLDS", "Lesson", "folds_of", "lessons", "parts_of_blocks", "parts_of_files"]

FOLDS = 3
LINEAGE_WEIGHT, RELEASE_WEIGHT, ROLE_WEIGHT, HIDDEN_WEIGHT = 1.0, 0.5, 0.5, 0.5


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One disk of one machine, and whose evidence describes it.

    Attributes
    ----------
    number : int
        Of the observation.
    without : frozenset of str
        Sources of evidence that are left out.
    weight : float
    branches : int or None
        Only blocks of branches in this group are asked for; None: all.
    """

    number: int
    without: frozenset[str]
    weight: float
    branches: int | None = None


def one_lineage(observations: Sequence[Observation]) -> bool:
    """Tell whether no machine has one of another lineage beside it."""
    return len({observation.lineage for observation in observations}) == 1


def lessons(observations: Sequence[Observation]) -> Iterator[Lesson]:
    """Yield what a model is to be taught, a machine's lessons one after the other."""
    if one_lineage(observations):
        for number in range(len(observations)):
            yield Lesson(number, frozenset(), 1.0)
            for fold in range(FOLDS):
                hidden = frozenset(_hidden(each.vm, fold) for each in observations)
                yield Lesson(number, hidden, HIDDEN_WEIGHT, fold)
        return
    everyone = {observation.vm for observation in observations}
    for number, own in enumerate(observations):
        lineage = {each.vm for each in observations if each.lineage == own.lineage}
        release = {each.vm for each in observations if own.release and each.release == own.release}
        role = {each.vm for each in observations if each.roles & own.roles}
        for left_out, weight in ((set(), LINEAGE_WEIGHT), (release, RELEASE_WEIGHT), (role, ROLE_WEIGHT)):
            without = frozenset(lineage | left_out)
            if without != everyone and (weight == LINEAGE_WEIGHT or left_out):
                yield Lesson(number, without, weight)


def _hidden(vm: str, fold: int) -> str:
    return f"{vm}#{fold}"


def _branch_folds(observation: Observation, rows: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.int64]:
    keys = observation.described.keys
    branch, content = keys["branch"][rows], observation.described.content[rows]
    return (np.where(branch > 0, branch, content) % np.uint64(FOLDS)).astype(np.int64)


def folds_of(
    observations: Sequence[Observation], number: int, rows: npt.NDArray[np.int64] | slice
) -> npt.NDArray[np.int64]:
    """Return in which part of a cross-validation rows of an observation are: by lineage, if possible."""
    lineages = sorted({each.lineage for each in observations})
    if len(lineages) < FOLDS:
        return _branch_folds(observations[number], rows)
    size = observations[number].described.block[rows].size
    return np.full(size, lineages.index(observations[number].lineage) % FOLDS)


def parts_of_blocks(observations: Sequence[Observation]) -> list[Part]:
    """Return what each source says of blocks."""
    every = slice(None)
    return [part for each in observations for part in _parts(each, every, each.rate, each.when, observations)]


def parts_of_files(observations: Sequence[Observation]) -> list[Part]:
    """Return what each source says of files: a file is read if, and when, a block of it first is."""
    parts: list[Part] = []
    for each in observations:
        rows = each.described.first_rows
        rate, when = reads_of_files(each)
        parts += _parts(each, rows, rate, when, observations)
    return parts


def reads_of_files(observation: Observation) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the highest rate and the earliest time of any block of each file, by `first_rows`."""
    described = observation.described
    if not described.block.size:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    first = described.starts[:-1]
    of_file = described.file[first] >= 0
    rate = np.maximum.reduceat(observation.rate, first)[of_file]
    when = np.fmin.reduceat(observation.when, first)[of_file]
    return rate, when


def _is_of_read_file(observation: Observation) -> npt.NDArray[np.bool_]:
    """Tell of each block whether anything of its file is read."""
    starts = observation.described.starts
    if not observation.rate.size:
        return np.zeros(0, bool)
    return np.repeat(np.maximum.reduceat(observation.rate, starts[:-1]) > 0, np.diff(starts))


def _parts(
    observation: Observation,
    rows: npt.NDArray[np.int64] | slice,
    rate: npt.NDArray[np.float32],
    when: npt.NDArray[np.float32],
    observations: Sequence[Observation],
) -> Iterator[Part]:
    keys = {kind: values[rows] for kind, values in observation.described.keys.items()}
    keys["read_place"] = np.where(_is_of_read_file(observation)[rows], keys["read_place"], np.uint64(0))
    if not one_lineage(observations):
        yield Part(observation.vm, keys, rate, when, observation.boots)
        return
    folds = _branch_folds(observation, rows)
    for fold in range(FOLDS):
        own = folds == fold
        yield Part(
            _hidden(observation.vm, fold),
            {kind: each[own] for kind, each in keys.items()},
            rate[own],
            when[own],
            observation.boots,
        )
