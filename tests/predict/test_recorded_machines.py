"""The predictors on the recorded machines that come with the package: they learn from some of them.

They are asked of others that they have not seen, of one that they know, and of its clone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.by_name import make_predictor
from vmrestorekit.predict.evaluation import recall_by_budget
from vmrestorekit.predict.observed import blocks_read
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.replay import LastBootReplay
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.corpus import Corpus

# three of one release and one of another, of four roles; of how many boots is learned. More takes longer
BOOTS_LEARNED_FROM = {"bookworm-db": 1, "bookworm-files": 1, "bookworm-python": 2, "trixie-web": 1}
NAMES = ("learned", "content", "first_access_by_address", "linear_tuned_by_address")
# of roles that nothing was learned of; of trixie-files another machine of its release only
UNSEEN = ("bookworm-web", "bookworm-mail", "trixie-files")


@pytest.fixture(scope="module")
def corpus(packaged_corpus: Corpus) -> Iterator[Corpus]:
    yield packaged_corpus
    for boot in packaged_corpus.recordings:
        boot.drop_manifests()


@pytest.fixture(scope="module")
def predictors(corpus: Corpus) -> dict[str, BlockPredictor]:
    machines = {
        # the first boot of an image is unlike all others
        name: dataclasses.replace(corpus[name], recordings=corpus[name].boots[1 : 1 + count])
        for name, count in BOOTS_LEARNED_FROM.items()
    }
    return {name: make_predictor(name).fit(Corpus(machines)) for name in NAMES}


@pytest.fixture(scope="module", params=UNSEEN)
def unseen(request: pytest.FixtureRequest, corpus: Corpus) -> Boot:
    return corpus[request.param].boots[2]


def recall(predictor: BlockPredictor, boot: Boot, budget: float) -> float:
    return float(recall_by_budget(predictor, boot, [budget])["recall"][0])


@pytest.mark.parametrize("vm", ["bookworm-db", "bullseye-dns", "trixie-cache", "trixie-dns"])
def test_the_last_boot_tells_the_next_one(corpus: Corpus, vm: str) -> None:
    before, boot, after_a_crash = corpus[vm].boots[1], corpus[vm].boots[2], corpus[vm].boots[-1]
    assert after_a_crash.follows == "crash"
    known = LastBootReplay().fit(before)
    assert recall(known, boot, 1.0) > 0.95
    assert recall(known, after_a_crash, 1.25) > 0.9


def test_learned_finds_nearly_all_that_an_unseen_machine_reads(
    predictors: dict[str, BlockPredictor], unseen: Boot
) -> None:
    assert recall(predictors["learned"], unseen, 1.25) > 0.9


def test_learned_finds_more_than_the_same_addresses(
    predictors: dict[str, BlockPredictor], unseen: Boot
) -> None:
    # whatever that costs: a machine with LVM has next to nothing at the same address
    for name in ("first_access_by_address", "linear_tuned_by_address"):
        assert recall(predictors["learned"], unseen, 1.25) > recall(predictors[name], unseen, 2.0) + 0.2


def test_learned_finds_more_than_equal_content(predictors: dict[str, BlockPredictor], unseen: Boot) -> None:
    for budget in (1.0, 1.25):
        assert recall(predictors["learned"], unseen, budget) > recall(predictors["content"], unseen, budget)
    assert recall(predictors["learned"], unseen, 1.25) > recall(predictors["content"], unseen, 2.0)


def test_equal_content_finds_more_than_chance(predictors: dict[str, BlockPredictor], unseen: Boot) -> None:
    share = blocks_read(unseen).height / unseen.manifest.blocks.filter(pl.col("content") != 0).height
    assert recall(predictors["content"], unseen, 1.0) > 2 * share


def test_a_plan_for_an_unseen_machine_is_no_copy_of_its_disk(
    predictors: dict[str, BlockPredictor], unseen: Boot
) -> None:
    plan = make_plan(predictors["learned"], unseen)
    needed = np.unique(blocks_read(unseen)["block"].to_numpy() * 4096 // plan.block_bytes)
    assert 0.75 * needed.size < plan.first_set.size < 2 * needed.size
    assert np.isin(needed, plan.first_set).mean() > 0.9


def test_expected_times_put_the_reads_in_about_the_right_order(
    predictors: dict[str, BlockPredictor], unseen: Boot
) -> None:
    reads = blocks_read(unseen)
    expected = predictors["learned"].score_blocks(unseen.manifest)["first_read_ns"].gather(reads["block"])
    both = pl.DataFrame({"expected": expected, "seen": reads["first_read_ns"]}).drop_nulls()
    assert both.select(pl.corr("expected", "seen", method="spearman")).item() > 0.9


@pytest.mark.parametrize(("vm", "boot"), [("bookworm-python", "boot-4"), ("bookworm-python-b", "boot-3")])
def test_learned_knows_a_machine_and_its_clone_as_well_as_their_last_boot(
    corpus: Corpus, predictors: dict[str, BlockPredictor], vm: str, boot: str
) -> None:
    """After a crash; and of a clone that was changed since, and nothing of which was learned."""
    asked = corpus[vm].boot(boot)
    own = LastBootReplay().fit(corpus["bookworm-python"].boots[2])
    assert asked.follows in ("crash", "change")
    assert recall(predictors["learned"], asked, 1.25) > max(recall(own, asked, 1.25) - 0.005, 0.9)
