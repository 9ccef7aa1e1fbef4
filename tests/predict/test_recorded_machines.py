"""The predictors on the recorded machines that come with the package: each learns from one, and is asked of
what it has not seen.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import polars as pl
import pytest

from vmrestorekit.predict.evaluation import recall_by_budget
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.observed import blocks_read
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.replay import ContentHashReplay, LastBootReplay
from vmrestorekit.traces.corpus import Corpus, load_corpus

VMS = ("bookworm-db", "bookworm-web")


@pytest.fixture(scope="module")
def corpus():
    try:
        found = load_corpus()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no recorded machines: {error}")
    # two boots of each: fitting on all of them takes long, and shows no more
    return Corpus({name: dataclasses.replace(found[name], recordings=found[name].boots[:2]) for name in VMS})


@pytest.fixture(scope="module", params=VMS)
def unseen(request, corpus):
    """A machine, and predictors that were trained on the others."""
    others = corpus.without(request.param)
    predictors = {
        "learned": LearnedPredictor().fit(others),
        "content": ContentHashReplay().fit(others),
    }
    return corpus[request.param].boots[-1], others, predictors


def recall(predictor, boot, budget):
    return recall_by_budget(predictor, boot, [budget])["recall"][0]


def recall_of_the_same_addresses(others, boot):
    """Everything that any other machine read, at the same addresses, whatever it costs."""
    read = pl.concat(blocks_read(other) for other in others.boots)["block"].unique()
    needed = blocks_read(boot)["block"].to_numpy()
    stored = boot.manifest.blocks["content"].to_numpy() != 0
    needed = needed[stored[needed]]
    return float(np.isin(needed, read.to_numpy()).mean())


@pytest.mark.parametrize("vm", VMS)
def test_the_last_boot_tells_the_next_one(corpus, vm):
    first, second = corpus[vm].boots[:2]
    assert recall(LastBootReplay().fit(first), second, 1.0) > 0.9


def test_learned_finds_more_on_an_unseen_machine_than_the_same_addresses(unseen):
    boot, others, predictors = unseen
    assert recall(predictors["learned"], boot, 1.25) > recall_of_the_same_addresses(others, boot) + 0.2


def test_learned_finds_more_on_an_unseen_machine_than_equal_content(unseen):
    boot, _, predictors = unseen
    assert recall(predictors["learned"], boot, 1.25) > recall(predictors["content"], boot, 2.0)


def test_equal_content_finds_more_than_chance(unseen):
    boot, _, predictors = unseen
    share = blocks_read(boot).height / boot.manifest.blocks.filter(pl.col("content") != 0).height
    assert recall(predictors["content"], boot, 1.0) > 2 * share


def test_a_plan_for_an_unseen_machine_is_no_copy_of_its_disk(unseen):
    boot, _, predictors = unseen
    plan = make_plan(predictors["learned"], boot)
    needed = np.unique(blocks_read(boot)["block"].to_numpy() * 4096 // plan.block_bytes)
    assert 0.75 * needed.size < plan.first_set.size < 2 * needed.size
    assert np.isin(needed, plan.first_set).mean() > 0.75


def test_expected_times_put_the_reads_in_about_the_right_order(unseen):
    boot, _, predictors = unseen
    reads = blocks_read(boot)
    expected = predictors["learned"].score_blocks(boot.manifest)["first_read_ns"].gather(reads["block"])
    both = pl.DataFrame({"expected": expected, "seen": reads["first_read_ns"]}).drop_nulls()
    assert both.select(pl.corr("expected", "seen", method="spearman")).item() > 0.7
