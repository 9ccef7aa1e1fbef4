"""The checks of notebook 03: right answers are right for every seed, wrong ones get a hint only."""

import re
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

NOTEBOOKS = str(Path(__file__).parents[2] / "notebooks")
if NOTEBOOKS not in sys.path:
    sys.path.insert(0, NOTEBOOKS)

from checks import read_cache  # noqa: E402

import vmrestorekit as vr  # noqa: E402
from vmrestorekit.plan import PurgeRule  # noqa: E402

SEEDS = (1, 2, 3, 7, 2024)


def smallest_lru(machine):
    """Found by trying, not from the curve."""
    low, high = 1, 60_000
    while low < high:
        middle = (low + high) // 2
        enough = 100 * vr.replay_cache(machine.boot.trace, middle, "lru").miss_ratio <= machine.percent
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def misses_by_hand(puzzle, policy):
    """As a student does it with paper: the slots, in the order in which their blocks came or were used."""
    slots, misses = [], 0
    for at, block in enumerate(puzzle.accesses):
        if block in slots:
            if policy == "lru":
                slots.remove(block)
                slots.append(block)
            continue
        misses += 1
        if len(slots) == puzzle.slots:
            ahead = puzzle.accesses[at + 1 :]
            far = [ahead.index(each) if each in ahead else 99 for each in slots]
            slots.pop(int(np.argmax(far)) if policy == "belady" else 0)
        slots.append(block)
    return misses


def is_hint(verdict, *not_told):
    assert verdict.is_right is False
    for answer in not_told:
        assert not re.search(rf"\b{answer:,}\b|\b{answer}\b", verdict.text), "the hint tells the answer"
    return True


@pytest.fixture(scope="module")
def restore(packaged_corpus):
    return read_cache.draw_restore(packaged_corpus, 1)


# --- 1: how large -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_size(packaged_corpus, seed):
    machine = read_cache.draw_machine(packaged_corpus, seed)
    least = smallest_lru(machine)
    assert least > 64  # a small cache is not enough
    for answer in (least, np.int64(least), float(least)):
        assert read_cache.check_size(answer, machine).is_right
    for answer in (
        least - 1,
        least + 1,
        1,
        10**6,
        least * 65536,
        0,
        -3,
        1.5,
        "many",
        True,
        [1],
        np.array([1, 2]),
        float("nan"),
        float("inf"),
    ):
        assert is_hint(read_cache.check_size(answer, machine), least)
    for nothing in (..., None):
        assert read_cache.check_size(nothing, machine).is_right is None


def test_seeds_draw_different_machines(packaged_corpus):
    drawn = {repr(read_cache.draw_machine(packaged_corpus, seed)) for seed in range(12)}
    assert len(drawn) > 8
    again = read_cache.draw_machine(packaged_corpus, 3)
    assert repr(again) == repr(read_cache.draw_machine(packaged_corpus, 3))


# --- 2: which policy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_misses(seed):
    puzzle = read_cache.draw_accesses(seed)
    answer = {policy: misses_by_hand(puzzle, policy) for policy in read_cache.POLICIES}
    verdict = read_cache.check_misses(answer, puzzle)
    assert verdict.is_right
    better = "FIFO" if answer["fifo"] < answer["lru"] else "LRU"
    assert f"{better} is the better one" in verdict.text
    for policy in answer:
        for off in (-1, 1):
            wrong = answer | {policy: answer[policy] + off}
            hint = read_cache.check_misses(wrong, puzzle)
            assert hint.is_right is False
            assert hint.text.startswith(f"{policy}: ")


def test_both_policies_win_sometimes():
    puzzles = [read_cache.draw_accesses(seed) for seed in range(40)]
    wins = {misses_by_hand(each, "fifo") < misses_by_hand(each, "lru") for each in puzzles}
    assert wins == {True, False}


def test_misses_of_the_wrong_kind():
    puzzle = read_cache.draw_accesses(1)
    right = {policy: puzzle.misses(policy) for policy in read_cache.POLICIES}
    for answer in (3, "lru", [1, 2, 3], {"lru": 3}, right | {"arc": 1}):
        assert "Expected a dict" in read_cache.check_misses(answer, puzzle).text
    assert "expected a whole number" in read_cache.check_misses(right | {"lru": "few"}, puzzle).text
    assert "expected a whole number" in read_cache.check_misses(right | {"lru": ...}, puzzle).text
    hits = {policy: len(puzzle.accesses) - count for policy, count in right.items()}
    assert read_cache.check_misses(hits, puzzle).is_right is False
    for nothing in (..., None, dict.fromkeys(read_cache.POLICIES, ...)):
        assert read_cache.check_misses(nothing, puzzle).is_right is None


# --- 3: what a purge saves --------------------------------------------------------------------------------


def test_purge(restore):
    boot, plan = restore
    purged, kept = (
        next(
            size
            for size in read_cache.SIZES
            if "evict"
            not in set(
                vr.simulate(boot, plan.replace(purge=rule, cache_bytes=size << 20), detail="events")
                .events["kind"]
                .cast(pl.String)
            )
        )
        for rule in (plan.purge, PurgeRule(by_run=False))
    )
    assert purged < kept
    for answer in ((purged, kept), [purged, kept], np.array([purged, kept])):
        assert read_cache.check_purge(answer, boot, plan).is_right
    assert "other way round" in read_cache.check_purge((kept, purged), boot, plan).text
    for answer in ((64, kept), (1536, kept), (purged, 64), (purged, 1536)):
        assert is_hint(read_cache.check_purge(answer, boot, plan), purged, kept)
    for answer in ((purged, 100), (purged,), purged, "96", {"purged": purged}, ("a", "b"), (purged, ...)):
        assert read_cache.check_purge(answer, boot, plan).is_right is False
    for nothing in (..., None, (..., ...)):
        assert read_cache.check_purge(nothing, boot, plan).is_right is None


@pytest.mark.parametrize("seed", [2, 5])
def test_every_drawn_restore_has_an_answer(packaged_corpus, seed):
    boot, plan = read_cache.draw_restore(packaged_corpus, seed)
    purged = read_cache.smallest_without_eviction(boot, plan)
    kept = read_cache.smallest_without_eviction(boot, plan.replace(purge=PurgeRule(by_run=False)))
    assert 64 < purged < kept
