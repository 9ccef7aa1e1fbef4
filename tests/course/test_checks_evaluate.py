"""The checks of notebook 09: right answers pass for many seeds, wrong ones get the hint meant for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from vmrestorekit.predict.evaluation import paired_differences
from vmrestorekit.traces.corpus import Corpus, load_corpus

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))

from checks import evaluate  # found through the line above

SEEDS = range(25)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """The packaged recordings; only their descriptions are read."""
    return load_corpus()


@pytest.fixture(scope="module")
def scores() -> pl.DataFrame:
    """Three predictors on ten machines: one is better everywhere, the others differ at random."""
    draw = np.random.default_rng(7)
    rows = []
    for number in range(10):
        base = float(draw.uniform(0.4, 0.9))
        rows += [(f"vm-{number}", name, base + float(draw.normal(0, 0.03))) for name in ("even", "odd")]
        rows.append((f"vm-{number}", "good", base + 0.1))
    return evaluate.as_scores(rows)


def leaking(corpus: Corpus, seed: int) -> tuple[str, pl.DataFrame, list[int]]:
    """The tested machine, the table, and what leaks, found without the check: by looking at names."""
    question, table = evaluate.training_table(corpus, seed)
    tested = question.split(" of ")[1].split(":")[0]
    family = tested.removesuffix("-a").removesuffix("-b")
    rows = table.filter(pl.col("machine").is_in([family, f"{family}-a", f"{family}-b"]))
    return tested, table, rows["number"].to_list()


def test_the_leaks_are_those_of_the_tested_machine_and_its_clones(corpus: Corpus) -> None:
    drawn = set()
    for seed in SEEDS:
        tested, table, leaks = leaking(corpus, seed)
        assert evaluate.leaks(corpus, leaks, seed).is_right, seed
        assert evaluate.leaks(corpus, np.array(leaks)[::-1], seed).is_right
        drawn.add((tested, *table["machine"]))
        # something to find of every sort, and something to leave
        assert table.filter(machine=tested).height
        assert table.filter(pl.col("repeats") != "").height == 1
        assert 3 <= len(leaks) < table.height
        assert not table.select("machine", "boot").is_duplicated().any()
    assert len(drawn) > len(SEEDS) // 2, "neighbours would have the same table"


def test_a_wrong_set_of_leaks_gets_a_hint_that_does_not_tell(corpus: Corpus) -> None:
    for seed in SEEDS:
        tested, table, leaks = leaking(corpus, seed)
        harmless = next(number for number in table["number"] if number not in leaks)
        for wrong in ([*leaks, harmless], leaks[:-1], leaks[1:], [], [harmless]):
            verdict = evaluate.leaks(corpus, wrong, seed)
            assert verdict.is_right is False
            assert str(leaks) not in verdict.text
        assert "may stay" in evaluate.leaks(corpus, [*leaks, harmless], seed).text
        repeated = table.filter(pl.col("repeats") != "")["number"][0]
        without = [number for number in leaks if number != repeated]
        assert "repeats" in evaluate.leaks(corpus, without, seed).text
        own = set(table.filter(pl.col("machine") == tested, pl.col("repeats") == "")["number"])
        assert "very machine" in evaluate.leaks(corpus, [n for n in leaks if n not in own], seed).text


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("0, 1", "a str"),
        ([0.5], "a list"),
        ([True], "a list"),
        ({0: 1}, "a dict"),
        ([99], "no 99"),
        ([-1], "no -1"),
    ],
)
def test_what_is_no_list_of_numbers_is_told_so(corpus: Corpus, answer: Any, says: str) -> None:
    verdict = evaluate.leaks(corpus, answer, 1)
    assert verdict.is_right is False
    assert says in verdict.text


def by_hand(disk: pl.DataFrame, budget: float, *, zeros: bool = False) -> tuple[float, float]:
    """Recall and precision, block by block."""
    blocks = [row for row in disk.iter_rows(named=True) if row["stored"] or zeros]
    needed = sum(row["read"] for row in blocks)
    named = sorted(blocks, key=lambda row: -row["probability"])[: round(budget * needed)]
    found = sum(row["read"] for row in named)
    return found / needed, found / len(named)


def test_the_recall_is_that_of_the_named_blocks(corpus: Corpus) -> None:
    disks = set()
    for seed in SEEDS:
        disk = evaluate.small_disk(seed)
        recall, precision = by_hand(disk, 1.25)
        assert evaluate.recall(recall, seed).is_right, seed
        assert evaluate.recall(np.float64(recall), seed).is_right
        for wrong, says in [
            (precision, "precision"),
            (by_hand(disk, 1.0)[0], "at 1×"),
            (by_hand(disk, 1.25, zeros=True)[0], "zeros"),
            (100 * recall, "percent"),
            (0.123, "Three steps"),
        ]:
            verdict = evaluate.recall(wrong, seed)
            assert verdict.is_right is False, (seed, wrong)
            assert says in verdict.text, (seed, wrong)
            assert f"{recall:.3g}" not in verdict.text
        assert 0 < recall < 1
        disks.add(str(disk.rows()))
    assert len(disks) == len(SEEDS)


@pytest.mark.parametrize("answer", ["0.5", [0.5], True, 0.5 + 0j])
def test_what_is_no_number_is_told_so(answer: Any) -> None:
    verdict = evaluate.recall(answer, 1)
    assert verdict.is_right is False
    assert "number" in verdict.text


def test_the_verdict_follows_the_interval(scores: pl.DataFrame) -> None:
    seen = set()
    for seed in SEEDS:
        first, second, chosen = evaluate.comparison(scores, seed)
        row = paired_differences(chosen, ["recall@1.25"]).filter(predictor=first, against=second)
        low, high = row["low"][0], row["high"][0]
        right = "better" if low > 0 else "worse" if high < 0 else "undecided"
        seen.add(right)
        assert evaluate.verdict(f" {right.title()} ", scores, seed).is_right, seed
        for wrong in {"better", "worse", "undecided"} - {right}:
            verdict = evaluate.verdict(wrong, scores, seed)
            assert verdict.is_right is False
            assert right not in verdict.text
        assert evaluate.verdict("equal", scores, seed).is_right is False
        assert "a float" in evaluate.verdict(0.1, scores, seed).text
    assert seen == {"better", "worse", "undecided"}


def test_equal_predictors_cannot_be_compared() -> None:
    equal = evaluate.as_scores((f"vm-{n}", name, 0.5) for n in range(8) for name in ("a", "b"))
    with pytest.raises(ValueError, match="all have equal scores"):
        evaluate.comparison(equal, 1)


@pytest.mark.parametrize("nothing", [..., None])
def test_no_answer_yet_is_no_mistake(corpus: Corpus, scores: pl.DataFrame, nothing: Any) -> None:
    for verdict in (
        evaluate.leaks(corpus, nothing, 1),
        evaluate.recall(nothing, 1),
        evaluate.verdict(nothing, scores, 1),
    ):
        assert verdict.is_right is None


@pytest.mark.parametrize("seed", [-1, 1.5, "one", True])
def test_a_seed_is_a_whole_number(corpus: Corpus, seed: Any) -> None:
    with pytest.raises(ValueError, match="seed: expected a whole number"):
        evaluate.training_table(corpus, seed)
