"""What a history says becomes the boots to record."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vmrestorekit.lab.guests.spec import HISTORY
from vmrestorekit.lab.recording.history import Step, steps_of


def test_each_entry_is_a_boot_and_the_one_before_a_crash_ends_with_it() -> None:
    assert steps_of(["build", "shutdown", "again", "crash", "change"]) == [
        Step("boot-1", 1, "build"),
        Step("boot-2", 2, "shutdown", ends="crash"),
        Step("boot-2-again", 2, "shutdown", "boot-2"),
        Step("boot-3", 3, "crash"),
        Step("boot-4", 4, "change"),
    ]


@given(st.lists(st.sampled_from([each for each in HISTORY if each != "build"]), max_size=12))
def test_boots_are_numbered_in_order_and_repetitions_count_for_nothing(entries: list[str]) -> None:
    steps = steps_of(["build", *entries])
    assert len(steps) == len(entries) + 1
    distinct = [step for step in steps if not step.repeats]
    assert [step.boot for step in distinct] == [f"boot-{n}" for n in range(1, len(distinct) + 1)]
    # what an interruption in the middle of the history leaves is the beginning of the same history
    for before, after in itertools.pairwise(distinct):
        assert (before.ends == "crash") == (after.follows == "crash")
