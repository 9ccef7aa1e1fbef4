"""The checks of `10_what_if`: right and wrong answers, for several seeds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))

from checks import what_if

import vmrestorekit as vr
from vmrestorekit.plan import RelocationStart

SECOND = 1_000_000_000
SEEDS = (1, 3)


def figure(name, boot, plan, hardware="object_storage"):
    return vr.simulate(boot, plan, hardware, detail="summary").summary()[name]


def earliest(seed):
    """By brute force, from the launch on."""
    task = what_if.start_task(seed)
    for start in range(0, 65, 5):
        rule = RelocationStart("delay", delay_ns=start * SECOND)
        plan = task.plan.replace(relocation_start=rule)
        if figure("stall_ns", task.boot, plan, task.medium) / SECOND < task.limit_s:
            return start
    raise AssertionError(f"seed {seed}: no start keeps the limit")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_earliest_start(seed):
    right = earliest(seed)
    assert 0 < right < 60  # neither end can be guessed
    verdict = what_if.check_start(right, seed)
    assert verdict.is_right
    assert "stalls for" in verdict.text
    assert what_if.check_start(float(right), seed).is_right
    too_early = what_if.check_start(right - 5, seed)
    assert too_early.is_right is False
    assert "too long" in too_early.text
    too_late = what_if.check_start(right + 5, seed)
    assert too_late.is_right is False
    assert "earlier" in too_late.text
    assert str(right) not in too_late.text.replace("2.5", "")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_break_even_bandwidth(seed):
    task, exact = what_if.bandwidth_task(seed), what_if._break_even(seed)
    for speed, sooner in ((0.97 * exact, "instant_restore"), (1.03 * exact, "full_restore")):
        ready = {
            mode: figure("time_to_ready_ns", task.boot, task.plan.with_mode(mode), task.with_link(speed))
            for mode in ("instant_restore", "full_restore")
        }
        assert min(ready, key=ready.get) == sooner
    assert what_if.check_bandwidth(1.08 * exact, seed).is_right
    assert what_if.check_bandwidth(round(exact), seed).is_right
    assert "faster" in what_if.check_bandwidth(0.8 * exact, seed).text
    assert "slower" in what_if.check_bandwidth(1.3 * exact, seed).text
    assert "Megabytes a second" in what_if.check_bandwidth(exact * 1e6, seed).text
    assert f"{exact:.0f}" not in what_if.check_bandwidth(1.3 * exact, seed).text


@pytest.mark.parametrize("seed", SEEDS)
def test_mornings(seed):
    task = what_if.mornings_task(seed)
    mounts = [figure("media_bytes", boot, plan.with_mode("live_mount")) for boot, plan in task.mornings]
    restore, right = figure("media_bytes", *task.mornings[0]), 1
    while right * sum(mounts) / len(mounts) <= restore:
        right += 1
    assert what_if.check_mornings(right, seed).is_right
    for wrong in (1, right - 1, right + 1, 500):
        verdict = what_if.check_mornings(wrong, seed)
        assert verdict.is_right is False
        assert str(right) not in verdict.text


@pytest.mark.parametrize("check", [what_if.check_start, what_if.check_bandwidth, what_if.check_mornings])
def test_no_answer_and_no_number(check):
    assert check(..., 1).is_right is None
    assert check(None, 1).is_right is None
    for odd in ("35", [35], float("nan"), True, -5, object()):
        verdict = check(odd, 1)
        assert verdict.is_right is False
        assert "Expected" in verdict.text


def test_what_is_no_start_and_no_seed():
    assert "multiple of 5" in what_if.check_start(7, 1).text
    assert "multiple of 5" in what_if.check_start(65, 1).text
    for seed in (-1, 1.5, "one", True):
        with pytest.raises(ValueError, match="SEED: expected a whole number of at least 0"):
            what_if.start_task(seed)


def test_seeds_draw_different_tasks_and_say_what_they_are():
    assert len({str(what_if.start_task(seed)) for seed in range(6)}) > 3
    assert len({str(what_if.bandwidth_task(seed)) for seed in range(6)}) > 3
    assert len({str(what_if.mornings_task(seed)) for seed in range(4)}) > 2


def test_the_data_disk_is_relocated_first():
    task = what_if.start_task(1)
    sequence = task.plan.relocation_sequence
    system = vr.RestorePlan(task.boot.disk_bytes[:-1]).blocks
    assert sequence[0] == system
    assert sequence[-1] == system - 1
    assert len(set(sequence.tolist())) == len(sequence) == task.plan.blocks
