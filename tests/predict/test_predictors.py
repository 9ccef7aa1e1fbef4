"""What every predictor promises, and what each of the three is for; on SYNTHETIC machines."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of, small_machine

from vmrestorekit.plan import PlanError
from vmrestorekit.predict.evaluation import recall_by_budget
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.replay import ContentHashReplay, LastBootReplay
from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM

ALPHA = small_machine("alpha", 1)
BETA = small_machine("beta", 2)
GAMMA = small_machine("gamma", 3)


@functools.cache
def fitted_once(make):
    return make().fit(ALPHA)


def without_trace(boot: Boot) -> Boot:
    """The same boot, with a trace that nobody may look at."""

    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError(f"looked at the trace that is to be predicted: {name}")

    return Boot(boot.vm, boot.boot, _parts=(Forbidden(), boot.manifests))


class PredictorContract:
    """Inherit and set `make`."""

    make: type

    @pytest.fixture
    def fitted(self):
        return fitted_once(self.make)

    def test_parameters_can_be_read_set_and_cloned(self):
        predictor = self.make()
        parameters = predictor.get_params()
        assert clone(predictor).get_params() == parameters
        assert clone(predictor.fit(ALPHA[:1])).get_params() == parameters
        assert predictor.set_params(**parameters) is predictor

    def test_fit_returns_the_predictor(self):
        predictor = self.make()
        assert predictor.fit(ALPHA[0]) is predictor

    def test_before_fit_there_is_no_answer(self):
        with pytest.raises(NotFittedError):
            self.make().score_blocks(ALPHA[0].manifest)
        with pytest.raises(NotFittedError):
            self.make().rank(ALPHA[0].manifest)

    @pytest.mark.parametrize("nothing", [[], ()])
    def test_nothing_to_learn_from(self, nothing):
        with pytest.raises(PredictError, match="expected at least one recorded boot to learn from, got none"):
            self.make().fit(nothing)

    @pytest.mark.parametrize("wrong", [["alpha"], "alpha", 3, None])
    def test_something_else_than_boots(self, wrong):
        with pytest.raises(PredictError, match="expected a Corpus, a RecordedVM or boots, got"):
            self.make().fit(wrong)

    def test_a_boot_that_never_ended(self):
        endless = boot_of(manifest_of([1, 2]), [(5, "read", 0, 0, BLOCK)], boot_done_ns=None)
        with pytest.raises(PredictError, match="expected a mark 'boot_done_ns'"):
            self.make().fit(endless)

    def test_corpus_machine_and_boots_are_the_same_to_it(self, fitted):
        machine = RecordedVM("alpha", {}, ALPHA)
        expected = fitted.score_blocks(BETA[0].manifest)
        for boots in (machine, Corpus({"alpha": machine}), iter(ALPHA)):
            assert self.make().fit(boots).score_blocks(BETA[0].manifest).equals(expected)

    def test_one_score_a_block_of_4_kib(self, fitted):
        scores = fitted.score_blocks(BETA[0].manifest)
        assert scores.height == BETA[0].manifest.blocks.height
        assert scores["probability"].is_between(0, 1).all()
        assert (scores["first_read_ns"].drop_nulls() >= 0).all()
        assert not scores["first_read_ns"].is_nan().any()

    def test_the_same_manifest_is_scored_once(self, fitted):
        assert fitted.score_blocks(BETA[1].manifest) is fitted.score_blocks(BETA[1].manifest)

    def test_a_new_fit_forgets_old_answers(self):
        predictor = self.make().fit(ALPHA)
        before = predictor.score_blocks(ALPHA[0].manifest)
        other = boot_of(ALPHA[0].manifest, [(5, "read", 0, 32 * BLOCK, 64 * BLOCK)])
        after = predictor.fit(other).score_blocks(ALPHA[0].manifest)
        assert not after.equals(before)
        assert after.equals(self.make().fit(other).score_blocks(ALPHA[0].manifest))

    def test_it_survives_pickling(self, fitted):
        fitted.score_blocks(ALPHA[0].manifest)
        copy = pickle.loads(pickle.dumps(fitted))
        assert copy.score_blocks(ALPHA[0].manifest).equals(fitted.score_blocks(ALPHA[0].manifest))

    @pytest.mark.parametrize("block_bytes", [4096, 16384, 65536])
    def test_rank_names_no_block_twice_and_no_hole(self, fitted, block_bytes):
        manifest = BETA[0].manifest
        ranked = fitted.rank(manifest, block_bytes)
        assert ranked.dtype == np.int32
        assert ranked.size == np.unique(ranked).size
        content = manifest.blocks["content"].to_list()
        per_block = block_bytes // BLOCK
        assert ranked.size
        assert all(any(content[at * per_block : (at + 1) * per_block]) for at in ranked)

    @pytest.mark.parametrize("budget", [0, 4095, 4096, 100_000, 10**9])
    def test_rank_stops_at_the_budget(self, fitted, budget):
        ranked = fitted.rank(BETA[0].manifest, 4096, budget)
        assert ranked.size == min(budget // 4096, fitted.rank(BETA[0].manifest, 4096).size)

    def test_a_plan_is_made_without_a_look_at_the_trace(self, fitted):
        plan = make_plan(fitted, without_trace(BETA[1]))
        assert plan.first_set.size
        assert plan.equals(make_plan(fitted, BETA[1].manifests))
        assert plan.equals(make_plan(fitted, BETA[1].manifest))

    def test_a_disk_of_zeros_needs_nothing(self, fitted):
        size = BETA[0].manifest.blocks.height
        assert make_plan(fitted, manifest_of([0] * size)).first_set.size == 0


class TestLastBootReplay(PredictorContract):
    make = LastBootReplay

    def test_it_replays_the_last_boot_only_at_the_same_addresses(self):
        manifest = manifest_of([1, 2, 3, 4])
        first = boot_of(manifest, [(5, "read", 0, 0, BLOCK)])
        last = boot_of(
            manifest, [(7, "read", 0, 3 * BLOCK, BLOCK), (9, "read", 0, BLOCK, BLOCK)], boot="boot-2"
        )
        scores = LastBootReplay().fit([first, last]).score_blocks(manifest_of([9, 9, 9, 9]))
        assert scores["probability"].to_list() == [0, 1, 0, 1]
        assert scores["first_read_ns"].to_list() == [None, 9, None, 7]

    def test_a_disk_of_another_size(self):
        with pytest.raises(PredictError, match=r"recorded disk 0 of 4194304 bytes, got a disk of 4096 bytes"):
            LastBootReplay().fit(ALPHA).score_blocks(manifest_of([1]))

    def test_a_disk_that_was_not_recorded(self):
        with pytest.raises(PredictError, match="one of 1 recorded disks, got disk 1"):
            LastBootReplay().fit(ALPHA).score_blocks(ALPHA[0].manifest, disk=1)

    def test_boots_of_several_machines(self):
        with pytest.raises(PredictError, match="one virtual machine, got boots of alpha, beta"):
            LastBootReplay().fit([*ALPHA, *BETA])


class TestContentHashReplay(PredictorContract):
    make = ContentHashReplay

    def test_it_finds_the_content_wherever_it_lies(self):
        seen = manifest_of([11, 12, 13, 0, 12])
        boots = [
            boot_of(seen, [(10, "read", 0, 0, 2 * BLOCK), (40, "read", 0, 3 * BLOCK, BLOCK)]),
            boot_of(seen, [(20, "read", 0, 4 * BLOCK, BLOCK)], boot="boot-2"),
        ]
        scores = ContentHashReplay().fit(boots).score_blocks(manifest_of([0, 13, 12, 99, 11, 12]))
        assert scores["probability"].to_list() == [0, 0, 1, 0, 0.5, 1]
        assert scores["first_read_ns"].to_list() == [None, None, 15, None, 10, 15]


class TestLearnedPredictor(PredictorContract):
    make = LearnedPredictor

    def test_the_seed_decides(self):
        first, second = (LearnedPredictor(random_state=3).fit(ALPHA) for _ in range(2))
        assert first.score_blocks(BETA[0].manifest).equals(second.score_blocks(BETA[0].manifest))

    @pytest.mark.parametrize("boots", [ALPHA[:1], ALPHA, [*ALPHA, *GAMMA]], ids=["boot", "vm", "vms"])
    def test_it_finds_another_machines_files_at_other_addresses(self, boots):
        recall = recall_by_budget(LearnedPredictor().fit(boots), BETA[1], budgets=[1.25])["recall"][0]
        assert recall > 0.9

    def test_boots_that_teach_no_difference(self):
        with pytest.raises(PredictError, match="blocks that were read and others that were not"):
            LearnedPredictor().fit(boot_of(manifest_of([1, 2]), []))


class TestMakePlan:
    def test_likely_blocks_by_time_over_all_disks(self):
        disks = (manifest_of([1] * 32), manifest_of([2] * 48))
        requests = [
            (300, "read", 0, 65536, BLOCK),
            (100, "read", 1, 2 * 65536, BLOCK),
            (200, "read", 0, 0, BLOCK),
        ]
        boot = boot_of(disks, requests)
        plan = make_plan(LastBootReplay().fit(boot), boot)
        assert plan.disk_bytes == (32 * BLOCK, 48 * BLOCK)
        assert plan.first_set.tolist() == [4, 0, 1]

    def test_the_budget_takes_the_most_probable(self):
        manifest = manifest_of([*range(1, 65)])
        often, once = (1, "read", 0, 0, BLOCK), (0, "read", 0, 3 * 65536, BLOCK)
        boots = [boot_of(manifest, [often, once]), boot_of(manifest, [often], boot="boot-2")]
        predictor = ContentHashReplay().fit(boots)
        assert make_plan(predictor, manifest, budget_bytes=65536).first_set.tolist() == [0]
        assert make_plan(predictor, manifest, budget_bytes=10 * 65536).first_set.tolist() == [3, 0]
        unlikely_last = make_plan(predictor, manifest, budget_bytes=10 * 65536, threshold=0.6)
        assert unlikely_last.first_set.tolist() == [0, 3]

    def test_settings_reach_the_plan(self):
        predictor = LastBootReplay().fit(ALPHA)
        plan = make_plan(predictor, ALPHA[0], mode="live_mount", block_bytes=4096, expiry_ns=10**11)
        assert (plan.mode, plan.block_bytes, plan.expiry_ns) == ("live_mount", 4096, 10**11)

    def test_settings_that_make_no_sense(self):
        predictor = LastBootReplay().fit(ALPHA)
        with pytest.raises(PlanError, match="mode: expected one of"):
            make_plan(predictor, ALPHA[0], mode="restore")
        with pytest.raises(PlanError, match="block_bytes: expected a power of two"):
            make_plan(predictor, ALPHA[0], block_bytes=5000)
        with pytest.raises(PredictError, match="budget_bytes: expected at least 0, got -1"):
            make_plan(predictor, ALPHA[0], budget_bytes=-1)
        with pytest.raises(PredictError, match="expected a Boot, or a Manifest of each disk"):
            make_plan(predictor, [ALPHA[0].trace])


def test_recall_counts_stored_blocks_that_were_read():
    manifest = manifest_of([1, 2, 3, 0, 5])
    learned_from = boot_of(manifest, [(MILLISECOND, "read", 0, 0, 2 * BLOCK)])
    boot = boot_of(manifest, [(1, "read", 0, BLOCK, 4 * BLOCK)], boot="boot-2")
    table = recall_by_budget(LastBootReplay().fit(learned_from), boot, budgets=[1.0])
    expected = {"budget": [1.0], "staged": [2], "recall": [1 / 3], "precision": [1 / 2]}
    assert table.equals(pl.DataFrame(expected))


def test_recall_of_a_boot_that_reads_nothing():
    boot = boot_of(manifest_of([1, 0]), [(1, "read", 0, BLOCK, BLOCK)])
    with pytest.raises(PredictError, match="expected a boot that reads stored blocks"):
        recall_by_budget(LastBootReplay().fit(boot), boot)
