"""Inferring the relocation from reads, outside of a simulation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrestorekit.plan import PlanError
from vmrestorekit.restore.runs import RunDetector


def test_a_run_is_shown_as_a_whole_and_then_block_by_block() -> None:
    detector = RunDetector([7, 5, 3, 9, 1], run_length=3)
    assert [detector.read(block) for block in (7, 5, 3, 9, 1)] == [[], [], [7, 5, 3], [9], [1]]


def test_reads_in_between_do_not_break_a_run_and_those_elsewhere_show_nothing() -> None:
    detector = RunDetector(range(100), run_length=3)
    assert [detector.read(block) for block in (10, 90, 11, 500, 12)] == [[], [], [], [], [10, 11, 12]]


def test_the_ninth_open_run_drops_the_one_extended_least_recently() -> None:
    detector = RunDetector(range(100), run_length=2)
    for block in range(0, 18, 2):
        assert detector.read(block) == []
    assert detector.read(1) == []  # the run of block 0 was dropped, and this dropped that of 2
    assert detector.read(5) == [4, 5]


@settings(max_examples=200, deadline=None)
@given(reads=st.lists(st.integers(0, 12), max_size=60), length=st.integers(2, 4))
def test_what_is_shown_is_what_a_list_of_open_runs_shows(reads: list[int], length: int) -> None:
    detector = RunDetector(range(12), length)
    runs: list[list[int]] = []  # the last extended one last
    for block in reads:
        expecting = [run for run in runs if run[-1] + 1 == block]
        run = expecting[-1] if expecting else []
        if expecting:
            runs = [other for other in runs if other is not run]
        expected: list[int] = []
        if block < 12:
            run.append(block)
            runs = [*runs, run][-8:]
            expected = list(run) if len(run) == length else [block] if len(run) > length else []
        assert detector.read(block) == expected


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(PlanError, match="expected a sequence without a block twice"):
        RunDetector([1, 2, 1])
    with pytest.raises(PlanError, match="purge run_length: expected at least 2, got 1"):
        RunDetector([1, 2], run_length=1)
