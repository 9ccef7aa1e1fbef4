"""The check of notebook 01: from which size on the instant restore serves first."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "notebooks"))

from checks import first_steps

from vmrestorekit.traces.corpus import Corpus


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_one_size_is_right_and_its_neighbours_are_not(seed: int, packaged_corpus: Corpus) -> None:
    verdicts = {gib: first_steps.check_size(gib, seed) for gib in range(1, 9)}
    right = [gib for gib, verdict in verdicts.items() if verdict.is_right]
    assert len(right) == 1
    assert all("full one is first" in verdicts[gib].text for gib in range(1, right[0]))
    assert all("smaller disk" in verdicts[gib].text for gib in range(right[0] + 1, 9))
    assert first_steps.check_size(np.int64(right[0]), seed).is_right
    assert first_steps.check_size(float(right[0]), seed).is_right


def test_without_a_data_disk_the_full_restore_is_first(packaged_corpus: Corpus) -> None:
    from vmrestorekit.restore.simulate import simulate

    for seed in (1, 2, 5):
        boot, plan, medium = first_steps.scenario(seed)
        modes = ("instant_restore", "full_restore")
        instant, full = (
            simulate(boot, plan.with_mode(mode), medium, detail="summary").metrics["time_to_ready_ns"]
            for mode in modes
        )
        assert full < instant


def test_the_answer_can_be_worked_out_from_what_is_told(packaged_corpus: Corpus) -> None:
    pattern = r"Its ([\d,]+) MB .* in ([\d.]+) s\. .* after (\d+) s with the full restore, after (\d+) s"
    for seed in (1, 2, 5):
        told = first_steps.told(seed)
        numbers = re.search(pattern, told)
        assert numbers, told
        megabytes, copied, full, instant = (float(number.replace(",", "")) for number in numbers.groups())
        gib = math.ceil((instant - full) * megabytes * 1e6 / copied / 2**30)
        assert any(first_steps.check_size(near, seed).is_right for near in (gib - 1, gib, gib + 1)), told


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("3", "whole number"),
        (2.5, "whole number"),
        (float("nan"), "whole number"),
        (float("inf"), "whole number"),
        (True, "whole number"),
        ([3], "whole number"),
        (0, "1 to 64"),
        (65, "1 to 64"),
    ],
)
def test_what_is_no_size_gets_a_sentence(answer: object, said: str) -> None:
    verdict = first_steps.check_size(answer, 1)
    assert verdict.is_right is False
    assert said in verdict.text


@pytest.mark.parametrize("answer", [..., None])
def test_without_an_answer_it_is_the_student_s_turn(answer: object) -> None:
    assert first_steps.check_size(answer, 1).is_right is None
