"""The checks of notebook 04: right answers, wrong ones, and no answers at all, for several seeds."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "notebooks"))

from checks import first_set as exercises

from vmrestorekit.predict.oracles import OracleOrder
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.show.first_set.disk_contents import DiskContents
from vmrestorekit.traces.corpus import Corpus

SEEDS = (1, 2, 5)


def picked(asked: exercises.Exercise, names: tuple[str, ...]) -> np.ndarray:
    return exercises._picked(DiskContents(asked.boot), names)[: int(asked.budget_mb * 1e6) // 65536]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_first_set_can_be_found_by_hand(seed: int, packaged_corpus: Corpus) -> None:
    asked = exercises.exercise(seed)
    # kinds alone are not enough; who looks at the folders in which most was missed finds one
    for names in exercises._BY_KIND:
        assert exercises.check_first_set(picked(asked, names), seed).is_right is False
    assert any(
        exercises.check_first_set(picked(asked, names), seed).is_right for names in exercises._WITH_FOLDERS
    )
    oracle = make_plan(OracleOrder().fit(asked.boot), asked.boot).first_set
    assert exercises.check_first_set(oracle.tolist(), seed).is_right
    # the largest thing that a boot reads is not enough, and nothing is not either
    kernel = DiskContents(asked.boot).blocks("kind of file", "kernel, initial RAM disk")
    wrong = exercises.check_first_set(kernel, seed)
    assert wrong.is_right is False
    assert f"below {asked.stall_below_s:.2f} s" in wrong.text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "empty"),
        (5, "Block numbers are asked for"),
        ("abc", "Whole block numbers"),
        ([1.5, 2.5], "Whole block numbers"),
        ([1, 1], "none twice"),
        ([-1], "from 0 to"),
        ([10**9], "from 0 to"),
        (range(4000), "the budget is"),
        ({7, 8}, "is asked for"),
    ],
)
def test_what_is_no_first_set_gets_a_sentence(answer: object, said: str, packaged_corpus: Corpus) -> None:
    verdict = exercises.check_first_set(answer, 1)
    assert verdict.is_right is False
    assert said in verdict.text


@pytest.mark.parametrize("answer", [..., None])
def test_without_an_answer_it_is_the_student_s_turn(answer: object) -> None:
    assert exercises.check_first_set(answer, 1).is_right is None
    assert exercises.check_order(answer, 1).is_right is None


# --- five blocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_order_is_right_and_the_obvious_ones_are_not(seed: int) -> None:
    blocks = exercises.five_blocks(seed)["block"].to_list()
    orders = {order: exercises.stall_of(order, seed) for order in itertools.permutations(blocks)}
    best = min(orders, key=lambda order: orders[order])
    assert exercises.check_order(list(best), seed).is_right
    assert exercises.check_order(np.array(best), seed).is_right
    for wrong, said in ((blocks, "first reads"), (sorted(blocks), "order of the disk")):
        verdict = exercises.check_order(wrong, seed)
        assert verdict.is_right is False
        assert said in verdict.text
        assert str(list(best)) not in verdict.text


def test_a_recording_is_no_pick(packaged_corpus: Corpus) -> None:
    asked = exercises.exercise(1)
    bench = exercises._bench(asked.boot, asked.last_boot, asked.medium)
    recorded = bench.others["what the last boot read"]
    told = exercises.check_first_set(recorded[: int(asked.budget_mb * 1e6) // 65536], 1)
    assert told.is_right is False
    assert "pick by hand" in told.text


def test_seeds_differ_and_stay() -> None:
    assert exercises.five_blocks(1).equals(exercises.five_blocks.__wrapped__(1))
    assert len({tuple(exercises.five_blocks(seed)["block"]) for seed in range(5)}) > 1


@pytest.mark.parametrize("order", [3, [1], [1, 2, 3, 4, 5], "abcde", [[1], 2], ["a", 1]])
def test_what_is_no_order_gets_a_sentence(order: object) -> None:
    verdict = exercises.check_order(order, 1)
    assert verdict.is_right is False
    assert "asked for" in verdict.text
    with pytest.raises(ValueError, match="asked for"):
        exercises.stall_of(order, 1)
