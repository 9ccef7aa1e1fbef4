"""The check of notebook 07: how much a boot asks for, and how much of it in a row."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "notebooks"))

from checks import recorded_traces

from vmrestorekit.traces.corpus import Corpus


def counted(seed: int, until: float | None = None, op: str | None = "read") -> tuple[float, float]:
    """Count row by row, in the slow way."""
    frame, done = recorded_traces.requests(seed)
    total, sequential, rows, before = 0, 0, 0, None
    for row in frame.iter_rows(named=True):
        if (op and row["op"] != op) or row["issued_ns"] > (done if until is None else until):
            continue
        sequential += before == (row["disk"], row["offset"])
        before = row["disk"], row["offset"] + row["length"]
        total, rows = total + row["length"], rows + 1
    return total / 1e6, 100 * sequential / rows


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_right_and_typically_wrong_answers(seed: int, packaged_corpus: Corpus) -> None:
    megabytes, percent = counted(seed)
    assert recorded_traces.check_reads(megabytes, percent, seed).is_right
    assert recorded_traces.check_reads(round(megabytes, 1), round(percent, 1), seed).is_right
    for wrong, said in {
        counted(seed, float("inf"))[0]: "after the boot",
        counted(seed, op=None)[0]: "writes",
        megabytes * 1e6: "bytes",
        megabytes * 1e6 / 2**20: "MiB",
        0.0: "boot_done_ns",
    }.items():
        verdict = recorded_traces.check_reads(wrong, percent, seed)
        assert verdict.is_right is False
        assert said in verdict.text
    for wrong, said in {
        percent / 100: "between 0 and 1",
        100 - percent: "jumps",
        counted(seed, op=None)[1]: "writes",
        -1.0: "shift",
    }.items():
        verdict = recorded_traces.check_reads(megabytes, wrong, seed)
        assert verdict.is_right is False
        assert said in verdict.text
        assert f"{percent:.1f}" not in verdict.text


def test_seeds_give_different_machines(packaged_corpus: Corpus) -> None:
    assert len({recorded_traces.requests(seed)[1] for seed in range(6)}) > 2


@pytest.mark.parametrize("answers", [("12", 3), (12, [3]), (float("nan"), 3), (True, 3)])
def test_what_is_no_number_gets_a_sentence(answers: tuple[object, object]) -> None:
    verdict = recorded_traces.check_reads(*answers, seed=1)
    assert verdict.is_right is False
    assert "A number of" in verdict.text


@pytest.mark.parametrize("answers", [(..., ...), (None, 3), (3, ...)])
def test_without_an_answer_it_is_the_student_s_turn(answers: tuple[object, object]) -> None:
    assert recorded_traces.check_reads(*answers, seed=1).is_right is None
