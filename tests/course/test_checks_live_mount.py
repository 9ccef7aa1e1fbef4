"""The checks of notebook 06: right answers pass for many seeds, wrong ones get the hint meant for them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from vmrestorekit.restore.simulate import simulate
from vmrestorekit.traces.corpus import Corpus, load_corpus

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))

from checks import live_mount  # found through the line above

SEEDS = (1, 2, 5, 11)
KIB, SECOND = 1024, 1_000_000_000
SMALL, LARGE = 64 * KIB, 1024 * KIB


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """The packaged recordings."""
    return load_corpus()


@pytest.fixture(scope="module", params=SEEDS)
def case(request: pytest.FixtureRequest, corpus: Corpus) -> live_mount.Case:
    """What each seed draws."""
    return live_mount.draw(corpus, request.param)


def own_blocks(case: live_mount.Case) -> list[int]:
    """Where the file's stored blocks are, row by row."""
    manifest = case.boot.manifests[0]
    (file,) = [n for n, path in enumerate(manifest.files["path"].to_list()) if path == case.path]
    rows = manifest.blocks.select("content", "file").iter_rows()
    return [block for block, (content, of) in enumerate(rows) if of == file and content]


def right_bytes(case: live_mount.Case) -> dict[int, int]:
    return {size: len({4096 * block // size for block in own_blocks(case)}) * size for size in (SMALL, LARGE)}


def figures(case: live_mount.Case, seconds: int) -> dict[str, int | float | None]:
    plan = case.plan.replace(expiry_ns=seconds * SECOND)
    return simulate(case.boot, plan, case.hardware, detail="summary").summary()


def right_expiry(case: live_mount.Case) -> int:
    """Try all, from the launch on."""
    for seconds in range(case.plan.launch.head_start_ns // SECOND + 1, 1000):
        run = figures(case, seconds)
        ready = run["time_to_ready_ns"]
        if (
            ready is not None
            and seconds * SECOND >= ready + case.service_seconds * SECOND
            and not run["cut_off"]
        ):
            return seconds
    raise AssertionError("never")


def test_draws_are_their_own_and_the_same_again(corpus: Corpus, case: live_mount.Case) -> None:
    seed = next(seed for seed in SEEDS if repr(live_mount.draw(corpus, seed)) == repr(case))
    assert repr(live_mount.draw(corpus, seed)) == repr(case)
    assert case.path in repr(case)


def test_seeds_differ(corpus: Corpus) -> None:
    assert len({repr(live_mount.draw(corpus, seed)) for seed in SEEDS}) == len(SEEDS)


# --- 1 ----------------------------------------------------------------------------------------------------


def test_bytes_of_a_file(case: live_mount.Case) -> None:
    right = right_bytes(case)
    assert right[SMALL] < right[LARGE]
    verdict = live_mount.check_bytes(right, case)
    assert verdict.is_right
    assert f"{right[SMALL] // KIB:,} KiB" in verdict.text
    assert live_mount.check_bytes({size: np.int64(count) for size, count in right.items()}, case).is_right


def test_wrong_bytes_get_a_hint_that_is_not_the_answer(case: live_mount.Case) -> None:
    right, blocks = right_bytes(case), own_blocks(case)
    own = len(blocks) * 4096
    wrong = {
        "how many blocks there are": {size: count // size for size, count in right.items()},
        "own 4 KiB blocks": {SMALL: own, LARGE: own},
        "by 256 for blocks of 1 MiB": right | {LARGE: right[LARGE] + LARGE},
        "by 16 for blocks of 64 KiB and by 256 for blocks of 1 MiB": {SMALL: 1, LARGE: 2},
    }
    for said, answer in wrong.items():
        verdict = live_mount.check_bytes(answer, case)
        assert verdict.is_right is False
        assert said in verdict.text, (answer, verdict)
        for size in right:
            if answer[size] != right[size]:
                assert f"{right[size]:,}" not in verdict.text
                assert f"{right[size] // KIB:,} KiB" not in verdict.text or right[size] == LARGE


@pytest.mark.parametrize(
    "answer", [7, "7", [1, 2], {1: 2}, {SMALL: 1}, {SMALL: 0.5, LARGE: 1}, {SMALL: "x", LARGE: 1}]
)
def test_no_bytes_at_all(case: live_mount.Case, answer: object) -> None:
    verdict = live_mount.check_bytes(answer, case)
    assert verdict.is_right is False
    assert verdict.text.startswith("Expected")


# --- 2 ----------------------------------------------------------------------------------------------------


def test_shortest_expiry(case: live_mount.Case) -> None:
    right = right_expiry(case)
    assert live_mount.check_expiry(right, case).is_right
    assert live_mount.check_expiry(float(right), case).is_right
    wrong = {
        0: "at least 1",
        1: "before the machine is launched",
        case.plan.launch.head_start_ns // SECOND + 2: "still booting",
        right - 1: "",
        right + 100: "shorter",
        right * SECOND: "not nanoseconds",
    }
    for answer, said in wrong.items():
        verdict = live_mount.check_expiry(answer, case)
        assert verdict.is_right is False
        assert said in verdict.text, (answer, verdict)
        assert str(right) not in verdict.text.replace(str(answer), "").split()


def test_every_seed_meets_a_request_under_way(corpus: Corpus) -> None:
    for seed in range(8):
        case = live_mount.draw(corpus, seed)
        ready = figures(case, 3600)["time_to_ready_ns"]
        assert ready is not None
        booted_and_served = -(-int(ready) // SECOND) + case.service_seconds
        assert figures(case, booted_and_served)["cut_off"]
        verdict = live_mount.check_expiry(booted_and_served, case)
        assert verdict.is_right is False
        assert "cut off" in verdict.text


# --- all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["7", [7], 7.5, True, float("nan"), float("inf"), {}])
def test_wrong_types_get_a_kind_sentence(case: live_mount.Case, answer: object) -> None:
    verdict = live_mount.check_expiry(answer, case)
    assert verdict.is_right is False
    assert verdict.text.startswith("Expected a whole number")


def test_no_answer_yet(case: live_mount.Case) -> None:
    for check in (live_mount.check_bytes, live_mount.check_expiry):
        for answer in (..., None):
            assert check(answer, case).is_right is None
    assert live_mount.check_bytes({SMALL: ..., LARGE: ...}, case).is_right is None
