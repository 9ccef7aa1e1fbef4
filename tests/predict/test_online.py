"""Boots that teach after they finished, and boots that are ranked anew while they are under way.

SYNTHETIC machines, but for the last class.
"""

from __future__ import annotations

import dataclasses
import itertools
import os

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score
from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of, small_machine

from vmrestorekit.predict.base import SCORES_SCHEMA
from vmrestorekit.predict.cache_blocks import cache_block_scores, staging_order
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.metrics import recall_by_budget
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.predict.online import BootSoFar, rerank
from vmrestorekit.predict.ordering import StagingDevice
from vmrestorekit.predict.saved_model import load_model, save_model
from vmrestorekit.traces.corpus import load_corpus

FEW_TREES = {"max_iter": 8, "max_leaf_nodes": 7, "learning_rate": 0.3}
ALPHA, BETA, GAMMA = (
    small_machine(vm, seed, boots=4) for seed, vm in enumerate(("alpha", "beta", "gamma"), 1)
)
DELTA = small_machine("delta", 4, boots=4)


def of_lineage(boots, lineage):
    return tuple(dataclasses.replace(boot, description={"lineage": lineage}) for boot in boots)


def fitted(*machines):
    return LearnedPredictor(**FEW_TREES).fit([boot for boots in machines for boot in boots])


def evidence_of(predictor):
    kinds = (("blocks", predictor.evidence_), ("files", predictor.file_reads_.evidence))
    return {(which, kind): table for which, each in kinds for kind, table in each.tables.items()}


def assert_same_evidence(found, expected):
    tables = evidence_of(expected)
    for which, table in evidence_of(found).items():
        other = tables[which]
        np.testing.assert_array_equal(table.known, other.known)
        assert list(table.parts) == list(other.parts)
        for source, part in table.parts.items():
            for own, its in zip(
                (*part, *table.weights[source]), (*other.parts[source], *other.weights[source]), strict=True
            ):
                np.testing.assert_allclose(own, its, rtol=0, atol=1e-6, equal_nan=True)
        np.testing.assert_allclose(table.totals, other.totals, rtol=0, atol=1e-5)


class TestPartialFit:
    def test_before_fit_it_is_fit(self):
        first = LearnedPredictor(**FEW_TREES).partial_fit([*ALPHA, *BETA])
        assert first.score_blocks(DELTA[0].manifest).equals(
            fitted(ALPHA, BETA).score_blocks(DELTA[0].manifest)
        )

    def test_a_new_machine_is_known_as_if_fit_had_known_it(self):
        later = fitted(ALPHA, BETA).partial_fit(GAMMA)
        every = fitted(ALPHA, BETA, GAMMA)
        assert_same_evidence(later, every)
        np.testing.assert_array_equal(later.clock_, every.clock_)
        assert [past.vm for past in later.pasts_] == ["alpha", "beta", "gamma"]
        for name in ("block", "content", "rate", "last", "when"):
            own, its = (getattr(each.pasts_[2].disks[0], name) for each in (later, every))
            np.testing.assert_array_equal(own, its)

    @pytest.mark.parametrize(
        "names", [("one", "one", "one"), ("one", "one", "other"), ("one", "other", "other")]
    )
    def test_evidence_kept_in_parts_of_one_lineage_goes_on(self, names):
        first, second, third = map(of_lineage, (ALPHA, BETA, GAMMA), names)
        later = fitted(first).partial_fit(second).partial_fit(third)
        assert_same_evidence(later, fitted(first, second, third))
        has_parts = any("#" in source for source in later.evidence_.tables["file"].parts)
        assert has_parts == (len(set(names)) == 1)

    def test_no_order_of_boots_changes_the_evidence(self):
        pieces = (ALPHA[2:3], ALPHA[3:], DELTA[:2], DELTA[2:])
        found = []
        for order in itertools.islice(itertools.permutations(pieces), 0, 24, 5):
            found.append(fitted(ALPHA[:2], BETA))
            for piece in order:
                found[-1].partial_fit(piece)
        for other in found[1:]:
            assert_same_evidence(other, found[0])
        at_once = fitted(ALPHA[:2], BETA).partial_fit([*ALPHA[2:], *DELTA])
        for which, table in evidence_of(at_once).items():
            if which[-1] == "read_place":
                continue  # boots that are learned together read a file if one of them does
            other = evidence_of(found[0])[which]
            np.testing.assert_allclose(table.totals[:, :2], other.totals[:, :2], rtol=0, atol=1e-5)

    def test_boots_of_a_known_machine_count_by_their_number(self):
        disk = manifest_of(range(1, 41), [("/usr/bin/a", 0, 20), ("/usr/bin/b", 20, 20)])

        def boots(firsts, start):
            return [
                boot_of(
                    disk, [(MILLISECOND, "read", 0, first * BLOCK, 4 * BLOCK)], vm="x", boot=f"boot-{number}"
                )
                for number, first in enumerate(firsts, start)
            ]

        three, one = boots((0, 0, 0), 1), boots((8,), 4)
        later = fitted(ALPHA, three).partial_fit(one)
        table = later.evidence_.tables["content"]
        found = dict(
            zip(table.known[table.parts["x"][0]].tolist(), table.parts["x"][1].tolist(), strict=True)
        )
        assert [found[block + 1] for block in (0, 8, 30)] == [0.75, 0.25, 0]
        past = next(past for past in later.pasts_ if past.vm == "x")
        assert past.boots == 4
        assert past.disks[0].rate[[0, 8, 30]].tolist() == [0.75, 0.25, 0]
        assert past.disks[0].last[[0, 8, 30]].tolist() == [0, 1, 0]

    def test_a_boot_teaches_the_next_one_of_its_machine(self):
        # nothing told these how constant machines are: what is as it was is read as it was
        predictor, manifest = fitted(ALPHA[:1], BETA[:1]), DELTA[0].manifest
        # reads what no other machine has: files of its own
        own = manifest.blocks.with_row_index().filter(pl.col("content") >= 10_000 * 4001)["index"]
        rows = [(MILLISECOND * (at + 1), "read", 0, block * BLOCK, BLOCK) for at, block in enumerate(own)]
        boots = [boot_of(manifest, rows, vm="odd", boot=f"boot-{number}") for number in range(3)]
        before = recall_by_budget(predictor, boots[2], [1.25])["recall"][0]
        predictor.partial_fit(boots[0])
        assert before < 0.5
        assert recall_by_budget(predictor, boots[1], [1.25])["recall"][0] == 1  # no stale scores, either
        predictor.partial_fit(boots[1])
        scores = predictor.score_blocks(manifest)
        assert recall_by_budget(predictor, boots[2], [1.0])["recall"][0] == 1
        assert scores["first_read_ns"].gather(own).is_sorted()

    def test_what_was_learned_later_is_saved(self, tmp_path):
        predictor = fitted(ALPHA, BETA).partial_fit(GAMMA[:2])
        save_model(predictor, tmp_path / "model.npz", trained_on=[*ALPHA, *BETA, *GAMMA[:2]])
        loaded = load_model(tmp_path / "model.npz")
        assert_same_evidence(loaded, predictor)
        for each in (loaded, predictor):
            each.partial_fit(GAMMA[2:])
        assert_same_evidence(loaded, predictor)
        assert loaded.score_blocks(DELTA[0].manifest).equals(predictor.score_blocks(DELTA[0].manifest))

    def test_boots_that_cannot_be_learned_from_change_nothing(self):
        predictor = fitted(ALPHA, BETA)
        before = evidence_of(predictor)
        endless = boot_of(DELTA[0].manifest, [(1, "read", 0, 0, BLOCK)], vm="delta", boot_done_ns=None)
        for wrong in ([], [*GAMMA, endless], [3]):
            with pytest.raises(PredictError, match="expected"):
                predictor.partial_fit(wrong)
        assert evidence_of(predictor) == before
        assert len(predictor.pasts_) == 2


FILES = 40
PER_FILE = 16


def services(probabilities, at=lambda number: number * 100 * MILLISECOND):
    """A disk of ten files of each of three services, and ten others; all of a service score alike."""
    names = ("base", "first", "second", "third")
    files = [(f"/opt/{names[n // 10]}/f{n}", n * PER_FILE, PER_FILE) for n in range(FILES)]
    manifest = manifest_of(range(1, FILES * PER_FILE + 1), files)
    number = np.arange(FILES * PER_FILE) // PER_FILE
    time_ns = [float(at(n) + block % PER_FILE * MILLISECOND) for block, n in enumerate(number.tolist())]
    chance = np.array(probabilities, float)[number // 10]
    return manifest, pl.DataFrame({"probability": chance, "first_read_ns": time_ns}, schema=SCORES_SCHEMA)


def reads_of_files(numbers, every_ns=100 * MILLISECOND, blocks=PER_FILE):
    rows = [((at + 1) * every_ns, 0, n * PER_FILE * BLOCK, blocks * BLOCK) for at, n in enumerate(numbers)]
    return tuple(np.array(column, np.int64) for column in zip(*rows, strict=True))


def frame_of(columns):
    return pl.DataFrame(dict(zip(("time_ns", "disk", "offset", "length"), columns, strict=True)))


def mean_of(scores, files):
    return float(np.mean([scores["probability"][n * PER_FILE : (n + 1) * PER_FILE].mean() for n in files]))


class TestRerank:
    def test_before_anything_was_read_nothing_changes(self):
        manifest, scores = services((0.9, 0.6, 0.1, 0))
        boot = BootSoFar([manifest], [scores])
        (found,) = boot.scores()
        np.testing.assert_allclose(found["probability"], scores["probability"], atol=1e-6)
        order = boot.rerank(block_bytes=BLOCK).order
        expected = staging_order(cache_block_scores(scores, manifest.blocks, BLOCK))
        np.testing.assert_array_equal(order, expected)

    def test_what_was_read_is_never_ranked(self):
        manifest, scores = services((0.9, 0.6, 0.1, 0.1))
        boot = BootSoFar([manifest], [scores])
        boot.see(MILLISECOND, 0, 5 * BLOCK + 7, BLOCK)  # two blocks
        (found,) = boot.scores()
        assert found["probability"][5:7].to_list() == [0, 0]
        assert found["first_read_ns"][5:7].to_list() == [None, None]
        assert found["probability"][4] > 0
        assert not np.isin([5, 6], boot.rerank(block_bytes=BLOCK).order).any()
        assert 0 not in boot.rerank().order  # the cache block around it has been fetched
        device = StagingDevice(10**7, 10**6, 4 * 10**9)
        assert not np.isin([5, 6], boot.rerank(block_bytes=BLOCK, device=device).order).any()
        assert boot.rerank(block_bytes=BLOCK, most=3).order.size == 3

    def test_a_mispredicted_service_is_found_by_its_first_files(self):
        # of three services the third was expected least, and it is the one that runs
        manifest, scores = services((0.95, 0.1, 0.05, 0.04))
        read = [*range(10), *range(30, 40)]
        seen = reads_of_files(read[:16])
        boot = BootSoFar([manifest], [scores])
        boot.see(*seen)
        (found,) = boot.scores()
        needed = np.zeros(FILES * PER_FILE, bool)
        for n in read:
            needed[n * PER_FILE : (n + 1) * PER_FILE] = True
        left = np.ones(needed.size, bool)
        for n in read[:16]:
            left[n * PER_FILE : (n + 1) * PER_FILE] = False
        before = average_precision_score(needed[left], scores["probability"].to_numpy()[left])
        after = average_precision_score(needed[left], found["probability"].to_numpy()[left])
        assert before < 0.2
        assert after > 0.9
        assert mean_of(found, range(36, 40)) > 4 * 0.04
        assert mean_of(found, range(20, 30)) < 0.06  # nobody asked for the second one
        order = boot.rerank(block_bytes=PER_FILE * BLOCK).order
        assert sorted(order[:4].tolist()) == [36, 37, 38, 39]

    def test_what_ought_to_have_come_is_given_up(self):
        manifest, scores = services((0.95, 0.7, 0.95, 0.95))
        boot = BootSoFar([manifest], [scores])
        boot.see(*reads_of_files([*range(10), *range(20, 36)]))
        (found,) = boot.scores()
        assert mean_of(found, range(10, 14)) < 0.2
        assert mean_of(found, range(36, 40)) > 0.9

    def test_the_rest_of_a_file_that_was_not_expected_mostly_after_what_was_read(self):
        manifest, scores = services((0.9, 0.02, 0.02, 0.02))
        boot = BootSoFar([manifest], [scores])
        boot.see(MILLISECOND, 0, (15 * PER_FILE + 8) * BLOCK, BLOCK)
        chance = boot.scores()[0]["probability"].to_numpy()[15 * PER_FILE : 16 * PER_FILE]
        assert chance[9] > chance[12] > chance[15] > 0.05
        assert chance[9] > chance[7] > chance[0]

    @pytest.mark.parametrize("pace", [0.5, 1, 3])
    def test_a_boot_may_be_faster_or_slower(self, pace):
        manifest, scores = services((0.9, 0.9, 0.9, 0.9), at=lambda n: (n + 1) * 100 * MILLISECOND)
        boot = BootSoFar([manifest], [scores])
        boot.see(*reads_of_files(range(20), every_ns=int(pace * 100 * MILLISECOND)))
        found = boot.scores()[0]["first_read_ns"].to_numpy()[30 * PER_FILE]
        assert found == pytest.approx(pace * 31 * 100 * MILLISECOND, rel=0.1)

    def test_expected_times_are_never_past_and_keep_their_order(self):
        manifest, scores = services((0.9, 0.9, 0.9, 0.9))
        boot = BootSoFar([manifest], [scores])
        boot.see(*reads_of_files(range(10, 30)))
        now = 10**11
        times = boot.scores(now)[0]["first_read_ns"].drop_nulls().to_numpy()
        assert times.min() >= now
        assert (np.diff(times) >= 0).all()

    def test_several_disks(self):
        manifest, scores = services((0.9, 0.6, 0.1, 0))
        seen = frame_of(reads_of_files([3])).with_columns(disk=1)
        found = rerank([manifest, manifest], [scores, scores], seen, block_bytes=BLOCK)
        blocks = FILES * PER_FILE
        read = np.arange(3 * PER_FILE, 4 * PER_FILE)
        assert np.isin(read, found.order).all()
        assert not np.isin(blocks + read, found.order).any()
        assert [each.height for each in found.scores] == [blocks, blocks]

    def test_reads_in_several_calls_are_reads_in_one(self):
        manifest, scores = services((0.9, 0.6, 0.1, 0.1))
        columns = reads_of_files([0, 1, 12, 1, 30], blocks=6)
        once, often = (BootSoFar([manifest], [scores]) for _ in range(2))
        once.see(*columns)
        for row in zip(*columns, strict=True):
            often.see(*row)
        often.see([], [], [], [])
        assert once.scores()[0].equals(often.scores()[0])

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ((5, 0, FILES * PER_FILE * BLOCK, BLOCK), "reads inside disks of"),
            ((5, 0, -BLOCK, BLOCK), "reads inside disks of"),
            ((5, 1, 0, BLOCK), "reads inside disks of"),
            ((5, -1, 0, BLOCK), "reads inside disks of"),
            ((5, 0, 0, -1), "reads inside disks of"),
            ((5, 0, 0, 2**63 - 1), "reads inside disks of"),
            ((3, 0, 0, BLOCK), "times that do not go backwards, got 3 ns after 4 ns"),
            (([5, 4], [0, 0], [0, 0], [1, 1]), "times that do not go backwards, got 4 ns after 5 ns"),
            (([5, 6], 0, 0, 1), "as many times as disks"),
            ((5.5, 0, 0, 1), "whole numbers"),
        ],
    )
    def test_reads_that_make_no_sense(self, row, message):
        manifest, scores = services((0.9, 0.6, 0.1, 0))
        boot = BootSoFar([manifest], [scores])
        boot.see(4, 0, 0, BLOCK)
        before = boot.scores()[0]
        with pytest.raises(PredictError, match=message) as error:
            boot.see(*row)
        assert "\n" not in str(error.value)
        assert boot.scores()[0].equals(before)

    def test_what_does_not_fit(self):
        manifest, scores = services((0.9, 0.6, 0.1, 0))
        for manifests, given in (([manifest], []), ([], []), ([manifest], [scores, scores])):
            with pytest.raises(PredictError, match="each of the machine's disks"):
                BootSoFar(manifests, given)
        with pytest.raises(PredictError, match=r"640 blocks of disk 0, got .* of 3"):
            BootSoFar([manifest], [scores[:3]])
        with pytest.raises(PredictError, match="from 0 to 1"):
            BootSoFar([manifest], [scores.with_columns(probability=pl.lit(float("nan")))])
        with pytest.raises(PredictError, match="time_ns, disk lack"):
            rerank([manifest], [scores], pl.DataFrame({"offset": [1], "length": [1]}))
        boot = BootSoFar([manifest], [scores])
        boot.see(4, 0, 0, BLOCK)
        with pytest.raises(PredictError, match="now_ns: expected at least 4"):
            boot.scores(3)


@pytest.fixture(scope="module")
def recorded():
    """Recorded machines, and a predictor that knows two of them: no mail and no database server."""
    try:
        corpus = load_corpus()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no recorded machines: {error}")
    boots = [boot for vm in ("bookworm-python", "trixie-web") for boot in corpus[vm].boots[:2]]
    return corpus, LearnedPredictor(max_iter=40, max_examples=60_000).fit(boots)


def precision_of_what_is_left(predictor, boot, now):
    """Average precision of what is first read later, by the prediction, and after it was ranked anew."""
    scores = predictor.score_blocks(boot.manifest)
    seen = boot.trace.frame.filter((pl.col("op") == "read") & (pl.col("issued_ns") <= now)).sort("issued_ns")
    so_far = BootSoFar(boot.manifests, [scores])
    so_far.see(*(seen[name].to_numpy() for name in ("issued_ns", "disk", "offset", "length")))
    (found,) = so_far.scores(now)
    needed, left = np.zeros(scores.height, bool), boot.manifest.blocks["content"].to_numpy() != 0
    needed[blocks_read(boot).filter(pl.col("first_read_ns") > now)["block"].to_numpy()] = True
    left &= found["probability"].to_numpy() > 0
    return [
        average_precision_score(needed[left], each["probability"].to_numpy()[left])
        for each in (scores, found)
    ]


class TestRecorded:
    @pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
    def test_what_is_left_is_not_told_worse_than_before(self, recorded, share):
        corpus, predictor = recorded
        boot = corpus["bookworm-mail"].boots[-1]
        before, after = precision_of_what_is_left(
            predictor, boot, int(share * boot.metadata.marks["boot_done_ns"])
        )
        assert after > before - 0.005

    def test_a_service_that_nobody_expected_is_told_from_its_first_reads(self, recorded):
        corpus, predictor = recorded
        boot = corpus["bookworm-db"].boots[-1]
        files = boot.manifest.files["path"]
        program = files.str.ends_with("/bin/postgres").arg_max()
        blocks = (boot.manifest.blocks["file"] == program).fill_null(False).arg_true()
        started = blocks_read(boot).filter(pl.col("block").is_in(blocks.implode()))["first_read_ns"].min()
        before, after = precision_of_what_is_left(predictor, boot, started + 500 * MILLISECOND)
        assert after > before + 0.1
