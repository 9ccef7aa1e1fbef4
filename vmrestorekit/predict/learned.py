"""The learned predictor: how far other machines, and a machine's own past, tell its next boot."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from vmrestorekit.predict.asked_disk import AskedDisk
from vmrestorekit.predict.base import SCORES_SCHEMA, BlockPredictor
from vmrestorekit.predict.block_features import BlockEvidence, block_features
from vmrestorekit.predict.description import FILE_KEYS, KEYS, DescribedDisk
from vmrestorekit.predict.evidence import Evidence
from vmrestorekit.predict.examples import draw_examples
from vmrestorekit.predict.file_reads import FileReads, spread_to_blocks
from vmrestorekit.predict.later_boots import continued, names_of_parts
from vmrestorekit.predict.lessons import lessons, parts_of_blocks, parts_of_files
from vmrestorekit.predict.mapped import states_held
from vmrestorekit.predict.observations import (
    CLOCK_POINTS,
    MINUTE_NS,
    Observation,
    boots_by_machine,
    observe,
    reads_of,
    usual_boots,
    usual_clock,
)
from vmrestorekit.predict.observed import PredictError, as_boots
from vmrestorekit.predict.past_reads import PastReads, Told, foretold, machines_to_foretell
from vmrestorekit.predict.relatives import past_of
from vmrestorekit.predict.trees import Trees
from vmrestorekit.traces.large_manifest import LargeManifest
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.boots import Boot, RecordedVM
    from vmrestorekit.traces.corpus import Corpus

__all__ = ["LearnedPredictor"]

Floats = npt.NDArray[np.float32]

HARDLY = 0.001
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
    after_classifier_ : Trees or None
        The same for the minute after a boot; None where nothing was recorded of it.
    past_reads_ : PastReads
    pasts_ : tuple of Past
        Of each machine.
    clock_ : ndarray of float64
        When boots usually make each hundredth of their first reads, nanoseconds.
    clocks_ : tuple of ndarray of float64
        The same of each boot.
    """

    calibrated = True
    file_reads_: FileReads

    def __init__(
        self,
        max_iter: int = 150,
        learning_rate: float = 0.12,
        max_leaf_nodes: int = 31,
        max_examples: int = 200_000,
        random_state: int = 0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes
        self.max_examples = max_examples
        self.random_state = random_state

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        machines = boots_by_machine(boots)
        to_foretell = machines_to_foretell(machines, self.random_state)
        observations, pasts = [], []
        for own in machines:
            with states_held(own):
                observations += observe(own)
                pasts += [foretold(own)] if own[-1].vm in to_foretell else []
        self._learn_from_others(observations)
        self.past_reads_ = PastReads.learn(pasts, observations, self._told_of, self.random_state)
        self.pasts_ = tuple(past_of(own, _disks_of(own, observations)) for own in machines)
        self._set_clock(_clocks(machines))

    def partial_fit(self, boots: Corpus | RecordedVM | Boot | Iterable[Boot], y: None = None) -> Self:
        """Learn from boots that have finished since; cheap, for no trees are grown.

        What machines read, each one's own past and the clock are taken further: of a new machine as if `fit`
        had known it, of a known one as the mean over all its boots, by what its disks are now. (Boots that
        read nothing of a file are heard of its blocks only if they come with one that does: ``read_place``.)
        How far all this is to be trusted stays as it was learned. Boots that were learned from already count
        once more.

        Parameters
        ----------
        boots : Corpus, RecordedVM, Boot or iterable of Boot
            As of `fit`; of known machines those that came later. Before `fit` this is the same as `fit`.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        PredictError
            If there are no boots, or a boot never ended; then nothing was learned from any of them.
        """
        try:
            check_is_fitted(self)
        except NotFittedError:
            return self.fit(boots)
        machines = boots_by_machine(as_boots(boots))
        observations = [each for own in machines for each in observe(own)]
        pasts = {past.vm: past for past in self.pasts_}
        known = {vm: past.lineage for vm, past in pasts.items()}
        for own in machines:
            disks = _disks_of(own, observations)
            later, earlier = past_of(own, disks), pasts.get(own[-1].vm)
            pasts[later.vm] = later if earlier is None else continued(earlier, later, disks)
        self.evidence_, of_files = self._evidence_with(observations, known)
        self.file_reads_ = dataclasses.replace(self.file_reads_, evidence=of_files)
        self.pasts_ = tuple(pasts[vm] for vm in sorted(pasts))
        self._set_clock((*self.clocks_, *_clocks(machines)))
        self._scored = weakref.WeakKeyDictionary()
        return self

    def _evidence_with(
        self, observations: Sequence[Observation], known: dict[str, str]
    ) -> tuple[Evidence, Evidence]:
        """Return what blocks and files are known for, with more observations beside machines of lineages."""
        met = {each.vm: each.lineage for each in observations}
        together = len({*known.values(), *met.values()}) == 1
        found = []
        for before, parts, keys in (
            (self.evidence_, parts_of_blocks(observations), KEYS),
            (self.file_reads_.evidence, parts_of_files(observations), FILE_KEYS),
        ):
            names = names_of_parts(known, together) | names_of_parts(met, together)
            found.append(Evidence.joined([before, Evidence.of(parts, keys)], names))
        return found[0], found[1]

    def _set_clock(self, clocks: tuple[npt.NDArray[np.float64], ...]) -> None:
        self.clocks_ = clocks
        self.clock_ = np.median(clocks, axis=0) if clocks else usual_clock([])

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
        self.time_regressor_ = Trees.regress(*examples.of_time(), max_iter=self.max_iter // 3, **settings)
        after = examples.of_reading_after()
        self.after_classifier_ = None
        if np.unique(after[1]).size == 2:
            self.after_classifier_ = Trees.classify(*after, max_iter=self.max_iter // 2, **settings)

    @staticmethod
    def _expect_a_difference(observations: Sequence[Observation]) -> None:
        read = [(each.rate > 0).any() for each in observations]
        unread = [(each.rate == 0).any() for each in observations]
        if not any(read) or not any(unread):
            raise PredictError("boots: expected stored blocks that were read and others that were not")

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        (scores,) = self._score_pieces(LargeManifest.of(manifest), disk)
        return scores

    def _score_pieces(self, manifest: LargeManifest, disk: int) -> Iterator[pl.DataFrame]:
        asked = self.asked(manifest, disk)
        for described, x, first, blocks in self._described(manifest, asked):
            of_files = asked.of_files[described.file, 0]
            read, clock = self.classifier_.chances(x), self.clock_
            # when is asked only of what may be read; of what may not, it would cost as much as whether
            timed = (read >= HARDLY) | (asked.relative is not None)
            when = np.ones_like(read)
            when[timed] = self.time_regressor_.values(x[timed])
            if asked.relative is not None:
                past, alike = asked.relative
                told = Told(read, when, of_files)
                read, when = self.past_reads_.predict(described, past.disks[disk], past.boots, alike, told)
                clock = past.clock
            nanoseconds = np.interp(when, np.linspace(0, 1, CLOCK_POINTS), clock)
            probability, first_read_ns = asked.hardly(blocks), np.full(blocks.height, clock[-1])
            probability[described.block - first] = read
            first_read_ns[described.block - first] = nanoseconds
            yield _scores(probability, first_read_ns)

    def score_minute_after(self, manifest: Manifest, disk: int = 0) -> pl.DataFrame:
        """Say of each 4 KiB block how probable it is to be first read in the minute after the boot.

        What applications are asked for then, and services that start late. Of a machine whose past is known,
        an unchanged block is read as often as it was.

        Parameters
        ----------
        manifest : Manifest
            State of the disk before the boot.
        disk : int
            Which disk of its machine this is.

        Returns
        -------
        polars.DataFrame
            `SCORES_SCHEMA`, one row a 4 KiB block; times are those after the launch. All 0 if nothing was
            recorded after the boots that were learned from.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        # files that no boot reads may well be read then
        asked = self.asked(LargeManifest.of(manifest), disk, everything=True)
        ((described, x, _, blocks),) = self._described(LargeManifest.of(manifest), asked)
        trees, clock = self.after_classifier_, self.clock_
        read = np.zeros(described.block.size, np.float32) if trees is None else trees.chances(x)
        if asked.relative is not None:
            past = asked.relative[0].disks[disk]
            was = np.append(past.after, np.nan)[past.at(described)]
            read = np.where(past.unchanged(described) & ~np.isnan(was), was, read)
            clock = asked.relative[0].clock
        gone_by = np.clip(self.time_regressor_.values(x) - 1, 0, 1)
        probability, first_read_ns = np.zeros(blocks.height), np.full(blocks.height, np.nan)
        probability[described.block] = read
        first_read_ns[described.block] = clock[-1] + gone_by * MINUTE_NS
        return _scores(probability, first_read_ns)

    def asked(self, manifest: LargeManifest, disk: int, everything: bool = False) -> AskedDisk:
        """Ask of the files of a disk whether anything of them is read, to know which blocks to look at."""
        met = self.evidence_.tables["content"].known
        return AskedDisk.of(manifest, disk, self.pasts_, self.file_reads_, met, everything)

    def _described(
        self, manifest: LargeManifest, asked: AskedDisk
    ) -> Iterator[tuple[DescribedDisk, Floats, int, pl.DataFrame]]:
        """Yield of each piece what is described, `FEATURES`, its first block and all its blocks."""
        known = self.evidence_.without(asked.without)
        for first, blocks in manifest.pieces():
            described = asked.described(first, blocks)
            evidence = BlockEvidence(described, self.evidence_.rows(described.keys), known)
            x = block_features(described, evidence, asked.of_files[described.file], slice(None))
            yield described, x, first, blocks

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
        evidence, left = self.evidence_, self.evidence_.without(without)
        found = BlockEvidence(described, evidence.rows(described.keys), left)
        return block_features(described, found, of_files, rows), of_files


def _scores(probability: npt.NDArray[np.float64], first_read_ns: npt.NDArray[np.float64]) -> pl.DataFrame:
    """Return `SCORES_SCHEMA`; what cannot be read has no time."""
    times = np.where(probability > 0, first_read_ns, np.nan)
    scores = pl.DataFrame({"probability": probability, "first_read_ns": times}, schema=SCORES_SCHEMA)
    return scores.with_columns(pl.col("first_read_ns").fill_nan(None))


def _disks_of(boots: Sequence[Boot], observations: Iterable[Observation]) -> list[DescribedDisk]:
    return [each.described for each in observations if each.vm == boots[-1].vm]


def _clocks(machines: Iterable[tuple[Boot, ...]]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return of each boot that read something when it made each hundredth of its first reads."""
    found = [reads_of(boot) for own in machines for boot in usual_boots(own)]
    return tuple(usual_clock([reads]) for reads in found if reads.first_read_ns.size)
