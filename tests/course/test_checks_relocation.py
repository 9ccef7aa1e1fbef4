"""The checks of notebook 05: right answers are right for every seed, wrong ones get a hint only."""

import sys
from pathlib import Path

import numpy as np
import pytest

NOTEBOOKS = str(Path(__file__).parents[2] / "notebooks")
if NOTEBOOKS not in sys.path:
    sys.path.insert(0, NOTEBOOKS)

from checks import relocation  # noqa: E402

import vmrestorekit as vr  # noqa: E402
from vmrestorekit.plan import RelocationStart  # noqa: E402

SEEDS = (1, 2, 3, 7, 2024)
MANY_SEEDS = range(60)


def is_hint(verdict, *, without=()):
    assert verdict.is_right is False
    assert not any(str(part) in verdict.text for part in without), verdict
    return True


@pytest.mark.parametrize("check", [relocation.purge, relocation.order, relocation.start])
def test_nothing_answered_yet(check):
    for nothing in (..., None):
        assert check(nothing, 1).is_right is None


# --- start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_some_starts_suit_everybody_and_the_others_do_not(seed):
    wanted = relocation.scenario(seed)
    right = [delay for delay in range(0, 31, 3) if relocation.start(delay, seed).is_right]
    late, early = relocation.start(120, seed), relocation.start(0, seed)
    assert is_hint(early)
    assert is_hint(late)
    good = [delay for delay in range(60) if relocation.start(delay, seed).is_right]
    assert good
    assert good[0] > wanted.earliest_s > 4  # not the one that the text tells of
    assert "busy" in early.text
    is_hint(relocation.start(wanted.earliest_s, seed))
    assert len(right) < 5
    start = RelocationStart("delay", delay_ns=good[0] * 1_000_000_000)
    figures = vr.simulate(wanted.boot, wanted.plan.replace(relocation_start=start)).summary()
    assert figures["stall_ns"] < wanted.stall_s * 1e9
    assert figures["released_ns"] < wanted.released_s * 1e9


def test_other_seeds_have_other_starts():
    good = {
        next(delay for delay in range(60) if relocation.start(delay, seed).is_right) for seed in range(1, 7)
    }
    assert len(good) > 2


@pytest.mark.parametrize("answer", ["4", -1, True, [4], 1e9, float("nan")])
def test_a_start_is_a_number_of_seconds(answer):
    assert "number of seconds" in relocation.start(answer, 1).text


# --- purge ------------------------------------------------------------------------------------------------


def by_hand(seen):
    """Follow one run along the sequence; reads of others do not break it."""
    place = {block: at for at, block in enumerate(seen.sequence)}
    runs = []
    for block in seen.reads:
        if block not in place:
            continue
        run = next((run for run in runs if place[run[-1]] + 1 == place[block]), None)
        if run is None:
            runs.append(run := [])
        run.append(block)
    return [block for run in runs if len(run) >= seen.run_length for block in run]


@pytest.mark.parametrize("seed", MANY_SEEDS)
def test_purged_blocks(seed):
    seen = relocation.reads(seed)
    purged = by_hand(seen)
    assert purged
    for answer in (purged, set(purged), tuple(purged[::-1])):
        assert relocation.purge(answer, seed).is_right
    is_hint(relocation.purge(purged[1:], seed))
    is_hint(relocation.purge([], seed))
    is_hint(relocation.purge(list(seen.reads), seed))
    is_hint(relocation.purge([*purged, 1000], seed))
    kept = [block for block in seen.reads if block not in purged and block in seen.sequence]
    is_hint(relocation.purge([*purged, kept[0]], seed))


@pytest.mark.parametrize("answer", ["12", 12, ["12"], [True], [1.5], {"a": 1}])
def test_purged_blocks_are_a_list_of_numbers(answer):
    is_hint(relocation.purge(answer, 1))


def test_other_seeds_have_other_numbers():
    assert len({relocation.reads(seed).reads for seed in MANY_SEEDS}) == len(MANY_SEEDS)
    assert len({relocation.tiny_disk(seed) for seed in MANY_SEEDS}) > 30


# --- order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", MANY_SEEDS)
def test_orders(seed):
    disk = relocation.tiny_disk(seed)
    needed = [*disk.wanted]
    rest = [block for block in range(128) if block not in needed]
    assert "on the destination before" in relocation.order(needed + rest, seed).text
    assert relocation.order(np.array(needed + rest), seed).is_right
    assert "Blocks fetched again: " in relocation.order([*range(128)], seed).text
    is_hint(relocation.order([*range(128)], seed))
    is_hint(relocation.order(rest + needed, seed))
    assert "jumps" in relocation.order(needed[::-1] + rest, seed).text
    is_hint(relocation.order(needed[::-1] + rest, seed))


def test_an_order_has_every_block_once():
    for answer, said in [
        ("abc", "list of block numbers"),
        (3, "list of block numbers"),
        ([range(128)], "[*range(128)]"),
        ([0.5] * 128, "block number"),
        ([*range(127)], "Never relocated: 1 of the blocks, the first of them block 127"),
        ([*range(128), 3], "expected 128 entries"),
        ([*range(128), 500], "expected 128 entries"),
        ([*range(1, 128), -1], "Never relocated"),
    ]:
        verdict = relocation.order(answer, 1)
        is_hint(verdict)
        assert said in verdict.text


def test_breaking_a_run_is_right_too_and_said_so():
    seed = next(seed for seed in MANY_SEEDS if relocation.tiny_disk(seed).count == 4)
    first = relocation.tiny_disk(seed).first
    order = [first, *range(first), *range(first + 1, 128)]
    assert "in a row" in relocation.order(order, seed).text
