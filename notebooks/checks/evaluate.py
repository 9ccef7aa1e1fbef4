"""Checks of notebook 09: leaks in a table of training boots, a recall by hand, an interval and zero."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from checks import Verdict, hint, right, your_turn
from vmrestorekit.predict.cache_blocks import staging_order
from vmrestorekit.predict.evaluation import SCORES_OF_BOOTS_SCHEMA, paired_differences
from vmrestorekit.traces.corpus import Boot, Corpus

__all__ = [
    "as_scores",
    "comparison",
    "leaks",
    "recall",
    "small_disk",
    "training_table",
    "verdict",
]

METRIC = "recall@1.25"
BUDGET = 1.25
DISK_BLOCKS = 24
VERDICTS = ("better", "worse", "undecided")


# --- exercise 1: which boots must go ------------------------------------------------------------------------


def training_table(corpus: Corpus, seed: int) -> tuple[str, pl.DataFrame]:
    """Return the question that the seed draws, and the boots that somebody put into training."""
    tested, boots = _drawn_boots(corpus, _seed(seed))
    question = (
        f"Tested is {tested.boot} of {tested.vm}: "
        "how well do we predict a machine that nobody has seen, nor any copy of it?"
    )
    rows = [
        (number, boot.vm, boot.boot, boot.lineage, boot.release, ", ".join(boot.roles), boot.repeats)
        for number, boot in enumerate(boots)
    ]
    columns = ["number", "machine", "boot", "lineage", "release", "roles", "repeats"]
    return question, pl.DataFrame(rows, schema=columns, orient="row")


def leaks(corpus: Corpus, answer: Any, seed: int) -> Verdict:
    """Check which numbers of the training table were said to leak."""
    if answer is ... or answer is None:
        return your_turn("Give a list of numbers from the column “number”, such as [0, 3].")
    tested, boots = _drawn_boots(corpus, _seed(seed))
    numbers = _whole_numbers(answer)
    if numbers is None:
        return hint(f"A list of whole numbers was expected, such as [0, 3]; this is {_kind(answer)}.")
    if beyond := sorted(numbers - set(range(len(boots)))):
        return hint(f"The numbers go from 0 to {len(boots) - 1}; there is no {beyond[0]}.")
    leaking = {number for number, boot in enumerate(boots) if boot.lineage == tested.lineage}
    if numbers == leaking:
        return right(
            f"All {len(leaking)} descend from the image {tested.lineage}, as the tested boot does. What is "
            "of the same release or role only may stay: customers' machines have such relatives, too."
        )
    if harmless := numbers - leaking:
        boot = boots[min(harmless)]
        return hint(
            f"Number {min(harmless)} may stay: {boot.vm} was installed by itself. Having the release or the "
            "role in common is no leak here. What has a copy of a disk in common with the original?"
        )
    missed = boots[min(leaking - numbers)]
    if missed.repeats:
        return hint("There are more. What does the column “repeats” say of a boot?")
    if missed.vm == tested.vm:
        return hint(
            "There are more. May a predictor know another boot of the very machine that nobody has seen?"
        )
    return hint("There are more. Look for machines that go by another name, yet come from the same image.")


def _drawn_boots(corpus: Corpus, seed: int) -> tuple[Boot, tuple[Boot, ...]]:
    """Draw a tested boot of a machine with clones, and a training set with leaks of each sort and others."""
    draw = np.random.default_rng(seed)
    sizes = {
        lineage: [vm.name for vm in corpus.values() if vm.lineage == lineage] for lineage in _lineages(corpus)
    }
    family = _one(draw, [machines for machines in sizes.values() if len(machines) > 1])
    golden = corpus[_one(draw, family)]
    tested = golden.boot(_one(draw, ["boot-2", "boot-3", "boot-4"]))
    relatives = [vm for vm in family if vm != golden.name]
    of_relatives = [_one(draw, corpus[vm].boots) for vm in relatives[: draw.integers(1, len(relatives) + 1)]]
    own = [boot for boot in golden.boots if boot != tested]
    repeats = [again for vm in family for again in corpus[vm].repeats][:1]
    strangers = [vm for vm in corpus.values() if vm.lineage != golden.lineage]
    # those most easily taken for relatives: of the same role, of the same release
    alike = [vm for vm in strangers if vm.roles == golden.roles or vm.release == golden.release]
    chosen = {
        vm.name: vm
        for vm in (_one(draw, alike), _one(draw, alike), _one(draw, strangers), _one(draw, strangers))
    }
    training = [_one(draw, own), *of_relatives, *repeats, *(_one(draw, vm.boots) for vm in chosen.values())]
    order = draw.permutation(len(training))
    return tested, tuple(training[number] for number in order)


def _lineages(corpus: Corpus) -> list[str]:
    return sorted({vm.lineage for vm in corpus.values()})


# --- exercise 2: a recall by hand ---------------------------------------------------------------------------


def small_disk(seed: int) -> pl.DataFrame:
    """Return a made-up disk: a row a block, what a predictor says of it and whether the boot read it."""
    return _small_disk(_seed(seed))


@functools.lru_cache(maxsize=8)
def _small_disk(seed: int) -> pl.DataFrame:
    draw = np.random.default_rng([seed, 2])
    while True:
        stored = draw.random(DISK_BLOCKS) < 0.8
        probability = draw.permutation(np.arange(1, DISK_BLOCKS + 1)) / 25  # no two alike
        read = draw.random(DISK_BLOCKS) < 0.15 + 0.55 * probability
        disk = pl.DataFrame(
            {"block": range(DISK_BLOCKS), "stored": stored, "probability": probability, "read": read}
        )
        if (stored & read).sum() != 8:  # a quarter more is then two
            continue
        # every mistake that is worth a hint has to show in the number
        values = [round(value, 3) for value in (_recall_of(disk), *_wrong_values(disk))]
        if values[0] < 1 and len(set(values)) == len(values):
            return disk


def recall(answer: Any, seed: int) -> Verdict:
    """Check a recall at 1.25 times the blocks that were read."""
    if answer is ... or answer is None:
        return your_turn("Give the recall at 1.25× as a number from 0 to 1.")
    if isinstance(answer, bool) or not isinstance(answer, int | float | np.number):
        return hint(f"A number from 0 to 1 was expected; this is {_kind(answer)}.")
    value, disk = float(answer), small_disk(seed)
    wanted = _recall_of(disk)
    if math.isclose(value, wanted, abs_tol=5e-3):
        needed = disk.filter(pl.col("stored") & pl.col("read")).height
        return right(
            f"The boot needs {needed} stored blocks, so {round(BUDGET * needed)} may be named, the most "
            f"probable ones; {round(wanted * needed)} of the {needed} are among them."
        )
    if math.isclose(value, 100 * wanted, abs_tol=0.5):
        return hint("That looks like percent; a number from 0 to 1 was asked for.")
    for other, text in _wrong_recalls(disk):
        if math.isclose(value, other, abs_tol=5e-3):
            return hint(text)
    return hint(
        "Three steps: how many stored blocks did the boot read? How many may then be named? Of what was "
        "read, which share is among the most probable ones?"
    )


def _recall_of(disk: pl.DataFrame, budget: float = BUDGET) -> float:
    """Return the recall, by the order in which a plan would stage the blocks."""
    needed = (disk["stored"] & disk["read"]).to_numpy()
    order = staging_order(disk.with_columns(first_read_ns=pl.lit(0.0)), round(budget * int(needed.sum())))
    return float(needed[order].sum() / max(needed.sum(), 1))


def _wrong_values(disk: pl.DataFrame) -> list[float]:
    return [value for value, _ in _wrong_recalls(disk)]


def _wrong_recalls(disk: pl.DataFrame) -> list[tuple[float, str]]:
    """Return what common mistakes come to, each with what to say of it."""
    needed = int((disk["stored"] & disk["read"]).sum())
    all_stored = disk.with_columns(stored=True)
    return [
        (
            _recall_of(disk) * needed / max(round(BUDGET * needed), 1),
            "That is the precision: of what was named, the share that was read. Recall asks the reverse.",
        ),
        (_recall_of(disk, 1.0), "That is the recall at 1×. At 1.25× somewhat more may be named."),
        (
            _recall_of(all_stored),
            "You counted blocks of zeros. A backup copy does not store them, so nobody needs to find them.",
        ),
    ]


# --- exercise 3: better, or only different ------------------------------------------------------------------


def as_scores(rows: Iterable[tuple[str, str, float]]) -> pl.DataFrame:
    """Return machine, predictor and recall at 1.25× in the form in which `evaluate` returns scores."""
    full = [("lineage", vm, vm, "boot-2", predictor, METRIC, value) for vm, predictor, value in rows]
    return pl.DataFrame(full, schema=SCORES_OF_BOOTS_SCHEMA, orient="row")


def comparison(scores: pl.DataFrame, seed: int) -> tuple[str, str, pl.DataFrame]:
    """Return two predictors and the scores of the machines that the seed draws."""
    draw = np.random.default_rng([_seed(seed), 3])
    predictors = sorted(scores["predictor"].unique())
    machines = sorted(scores["vm"].unique())
    for _ in range(1000):
        first, second = (str(name) for name in draw.permutation(predictors)[:2])
        drawn = draw.permutation(machines)[: draw.integers(6, len(machines) + 1)]
        chosen = scores.filter(pl.col("vm").is_in(drawn.tolist())).sort("predictor", "vm")
        low, high = _interval(chosen, first, second)
        if min(abs(low), abs(high)) > 1e-4:  # zero on the very edge would be a quibble
            return first, second, chosen
    raise ValueError("comparison: expected predictors that differ somewhere, all have equal scores")


def verdict(answer: Any, scores: pl.DataFrame, seed: int) -> Verdict:
    """Check whether one predictor is better than another, as far as the interval tells."""
    if answer is ... or answer is None:
        return your_turn("Give “better”, “worse” or “undecided”, as a text.")
    if not isinstance(answer, str):
        return hint(f"A text was expected, one of {', '.join(VERDICTS)}; this is {_kind(answer)}.")
    if answer.strip().lower() not in VERDICTS:
        return hint(f"One of {', '.join(VERDICTS)} was expected, not {answer!r}.")
    first, second, chosen = comparison(scores, seed)
    low, high = _interval(chosen, first, second)
    wanted = "better" if low > 0 else "worse" if high < 0 else "undecided"
    if answer.strip().lower() == wanted:
        span = f"from {100 * low:+.1f} to {100 * high:+.1f} points"
        so = "includes zero, so these machines cannot tell" if wanted == "undecided" else "excludes zero"
        return right(f"The interval of the difference, {span}, {so}.")
    if wanted == "undecided":
        return hint(
            "The means differ, but look at both ends of the interval: on which side of zero do they lie?"
        )
    if answer.strip().lower() == "undecided":
        return hint(
            "Compare the two on each machine (paired_differences does), not the two intervals of their "
            "means: those may overlap although one predictor wins everywhere."
        )
    return hint("The sign: a positive difference is one in favour of “predictor”, over “against”.")


def _interval(scores: pl.DataFrame, first: str, second: str) -> tuple[float, float]:
    row = paired_differences(scores, [METRIC]).filter(predictor=first, against=second)
    return float(row["low"][0]), float(row["high"][0])


# --- all exercises ------------------------------------------------------------------------------------------


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
    return int(seed)


def _one(draw: np.random.Generator, choices: Any) -> Any:
    return choices[int(draw.integers(len(choices)))]


def _whole_numbers(answer: Any) -> set[int] | None:
    if isinstance(answer, pl.Series):
        answer = answer.to_list()
    if isinstance(answer, np.ndarray):
        answer = answer.ravel().tolist()
    if not isinstance(answer, list | tuple | set | frozenset | range):
        return None
    if any(isinstance(each, bool) or not isinstance(each, int | np.integer) for each in answer):
        return None
    return {int(each) for each in answer}


def _kind(answer: Any) -> str:
    return f"a {type(answer).__name__}"
