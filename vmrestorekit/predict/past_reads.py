"""Whether a block is read by a machine whose past is known: the last of three questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.description import DescribedDisk
from vmrestorekit.predict.observations import Observation, reads_of
from vmrestorekit.predict.relatives import PAST_FEATURES, Past, PastOfDisk, alike_with, past_features, past_of
from vmrestorekit.predict.trees import SMALL, Trees

if TYPE_CHECKING:
    from vmrestorekit.traces.boots import Boot

__all__ = ["Foretold", "PastReads", "Stranger", "Told", "foretold", "machines_to_foretell"]

Floats = npt.NDArray[np.float32]
# rows of a disk, and whose evidence to leave out -> what a model says that knows no relative
Stranger = Callable[[DescribedDisk, npt.NDArray[np.int64], frozenset[str]], "Told"]
# a boot, and what different earlier boots of its machine tell of it
Foretold = tuple["Boot", list[Past]]

# of blocks that neither the past nor the boot to foretell read, so many a disk are learned from
UNREAD = 4000
# how constant machines are is learned from so many of them
MACHINES = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Told:
    """What is said of n blocks: probability, place in the order of first reads, probability of the file."""

    probability: Floats
    when: Floats
    file_read: Floats


@dataclasses.dataclass(frozen=True, eq=False)
class PastReads:
    """What was learned of how far the past tells the next boot.

    Attributes
    ----------
    classifier : Trees or None
        None if no machine had two boots to learn from.
    """

    classifier: Trees | None

    @classmethod
    def learn(
        cls,
        foretold: Sequence[Foretold],
        observations: Sequence[Observation],
        stranger: Stranger,
        seed: int,
    ) -> PastReads:
        """Learn from machines whose last boot is foretold by earlier ones."""
        drawn = np.random.default_rng(seed)
        features, answers, weights = [], [], []
        for boot, pasts in foretold:
            for x, read, weight in _examples(boot, pasts, observations, stranger, drawn):
                features.append(x)
                answers.append(read)
                weights.append(weight)
        read = np.concatenate(answers) if answers else np.zeros(0, bool)
        if np.unique(read).size < 2:
            return cls(None)
        x, weight = np.concatenate(features), np.concatenate(weights)
        return cls(Trees.classify(x, read, weight, random_state=seed, **SMALL))

    def predict(
        self, described: DescribedDisk, past: PastOfDisk, boots: int, alike: float, told: Told
    ) -> tuple[Floats, Floats]:
        """Return probability, and place in the order of first reads, of each stored block."""
        x = past_features(
            described, past, boots, alike, (told.probability, told.when, told.file_read), slice(None)
        )
        named = dict(zip(PAST_FEATURES, x.T, strict=True))
        when = told.when
        for seen in ("place_when", "content_when", "address_when"):  # the most specific last
            when = np.where(np.isnan(named[seen]), when, named[seen])
        if self.classifier is not None:
            return self.classifier.chances(x), when
        # nothing tells how constant a machine is: what is as it was is read as it was
        as_it_was = named["unchanged"] > 0
        return np.where(as_it_was, named["address_rate"], told.probability).astype(np.float32), when


def machines_to_foretell(machines: Iterable[tuple[Boot, ...]], seed: int) -> frozenset[str]:
    """Draw machines whose last boot was not their first."""
    known = sorted(boots[-1].vm for boots in machines if len(boots) > 1)
    return frozenset(np.random.default_rng(seed).permutation(known)[:MACHINES].tolist())


def foretold(boots: tuple[Boot, ...]) -> Foretold:
    """Return the last boot of a machine, and what the boots before, and the first one alone, tell of it."""
    pasts = [past_of(boots[:-1])]
    return boots[-1], [*pasts, past_of(boots[:1])] if len(boots) > 2 else pasts


def _examples(
    boot: Boot,
    pasts: Sequence[Past],
    observations: Sequence[Observation],
    stranger: Stranger,
    drawn: np.random.Generator,
) -> Iterator[tuple[Floats, npt.NDArray[np.bool_], Floats]]:
    lineage = frozenset(each.vm for each in observations if each.lineage == boot.lineage)
    for observation in observations:
        disk, described = observation.disk, observation.described
        having = [past for past in pasts if observation.vm == boot.vm and disk < len(past.disks)]
        if not having:
            continue
        blocks = int(described.block.max(initial=-1)) + 1
        now = ~np.isnan(reads_of(boot).of_disk(disk, blocks)[described.block])
        chosen = [_draw(now | past.disks[disk].read_before(described), drawn) for past in having]
        # what a stranger says is dear to ask for, and does not depend on the past
        asked = np.unique(np.concatenate([rows for rows, _ in chosen]))
        told = stranger(described, asked, lineage)
        answers = np.array([told.probability, told.when, told.file_read])
        for past, (rows, weight) in zip(having, chosen, strict=True):
            earlier = past.disks[disk]
            alike = alike_with(described, earlier)
            of_others = answers[:, np.searchsorted(asked, rows)]
            x = past_features(described, earlier, past.boots, alike, tuple(of_others), rows)
            yield x, now[rows], weight


def _draw(known: npt.NDArray[np.bool_], drawn: np.random.Generator) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the rows that are known, and some of the others, with how many rows each stands for."""
    unread = drawn.permutation(np.flatnonzero(~known))
    rows = np.concatenate([np.flatnonzero(known), unread[:UNREAD]])
    weight = np.ones(rows.size, np.float32)
    weight[np.count_nonzero(known) :] = unread.size / max(min(unread.size, UNREAD), 1)
    return rows, weight
