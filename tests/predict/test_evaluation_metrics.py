"""Scores of blocks and of time, against scikit-learn, plain Python and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss
from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of
from synthetic_corpus import UNITS, reading

from vmrestorekit.plan import RestorePlan
from vmrestorekit.predict.base import SCORES_SCHEMA, BlockPredictor
from vmrestorekit.predict.evaluation_loop import Conditions, hardware_at, loop_scores, reference_scores
from vmrestorekit.predict.intervals import SCORES_OF_BOOTS_SCHEMA, mean_of_machines, paired_differences
from vmrestorekit.predict.metrics import (
    calibration,
    ceiling_scores,
    fetched_scores,
    needed_blocks,
    ranking_scores,
    service_scores,
)
from vmrestorekit.predict.observed import PredictError


class Told(BlockPredictor):
    """Says what it is told to."""

    def __init__(self, probability=(), service=None):
        self.probability = probability
        self.service = service

    def _fit(self, boots):
        self.fitted_ = True

    def _score_blocks(self, manifest, disk):
        return pl.DataFrame({"probability": self.probability, "first_read_ns": None}, schema=SCORES_SCHEMA)


class ToldOfService(Told):
    def score_service_blocks(self, manifest, disk=0):
        return pl.DataFrame({"probability": self.service, "first_read_ns": None}, schema=SCORES_SCHEMA)


blocks = st.lists(
    st.tuples(st.integers(0, 100).map(lambda percent: percent / 100), st.booleans(), st.booleans()),
    min_size=1,
    max_size=40,
).filter(lambda rows: any(read and stored for _, read, stored in rows))


@settings(max_examples=80, deadline=None)
@given(blocks)
def test_block_scores_are_those_of_scikit_learn_and_of_counting(rows):
    probability, read, stored = (np.array(column) for column in zip(*rows, strict=True))
    boot = boot_of(
        manifest_of([int(each) for each in stored]),
        [(at, "read", 0, at * BLOCK, BLOCK) for at in np.flatnonzero(read).tolist()],
    )
    found = ranking_scores(Told(probability.tolist()).fit(boot), boot)
    assert found["average_precision"] == pytest.approx(
        average_precision_score(read[stored], probability[stored])
    )
    assert found["brier"] == pytest.approx(np.mean((probability[stored] - read[stored]) ** 2))
    if len(set(read[stored])) == 2:
        assert found["brier"] == pytest.approx(brier_score_loss(read[stored], probability[stored]))
    needed = int((read & stored).sum())
    ranked = sorted(
        (at for at in range(len(rows)) if stored[at] and probability[at] > 0),
        key=lambda at: (-probability[at], at),
    )
    for budget in (1, 1.25, 1.5, 2):
        staged = ranked[: round(budget * needed)]
        hits = sum(bool(read[at]) for at in staged)
        assert found[f"recall@{budget:g}"] == pytest.approx(hits / needed)
        assert found[f"precision@{budget:g}"] == pytest.approx(hits / max(len(staged), 1))


def test_calibration_by_bins():
    found = calibration(np.array([0.0, 0.05, 0.95, 1.0, 0.5, 0.5]), np.array([0, 1, 1, 1, 0, 1], bool))
    assert found["bin0_blocks"] == found["bin5_blocks"] == found["bin9_blocks"] == 2
    assert [found[f"bin{at}_predicted"] for at in (0, 5, 9)] == pytest.approx([0.025, 0.5, 0.975])
    assert [found[f"bin{at}_read"] for at in (0, 5, 9)] == [0.5, 0.5, 1.0]
    assert found["calibration_error"] == pytest.approx((2 * 0.475 + 0 + 2 * 0.025) / 6)
    assert "bin1_blocks" not in found


def test_what_is_fetched_is_whole_cache_blocks():
    # reads: two 4 KiB blocks of cache block 0, one of 1, one of 3
    boot = reading("a", "boot-1", [0, 1, UNITS, 3 * UNITS], range(1, 4 * UNITS + 1))
    plan = RestorePlan(boot.disk_bytes, first_set=np.array([0, 2, 3]))
    assert fetched_scores(plan, boot) == {
        "fetched_bytes": 3 * 65536,
        "fetched_recall": 3 / 4,
        "unread_bytes": 65536,
        "unread_share": 1 / 3,
        "surplus_share": 1 - 3 / (3 * UNITS),
    }
    nothing = fetched_scores(RestorePlan(boot.disk_bytes), boot)
    assert nothing["fetched_bytes"] == nothing["fetched_recall"] == nothing["surplus_share"] == 0


def test_the_boot_before_is_the_ceiling():
    content = [1, 2, 3, 4, 0]
    before = reading("a", "boot-1", [0, 1, 4], content)
    boot = reading("a", "boot-2", [1, 2, 3, 4], content)
    assert ceiling_scores(before, boot) == {"recall": 1 / 3, "precision": 1 / 2}
    assert ceiling_scores(reading("a", "boot-1", [0], [1]), boot) == {}


def test_the_minute_of_service_counts_what_is_first_read_then():
    # read every 50 ms; the boot is over at 1500 ms, service lasts from 1600 to 1700 ms: blocks 31, 32 and 33
    reads = [0] * 30 + [1, 0, 2, 3, 4]
    boot = reading(
        *("a", "boot-1", reads, range(1, 9)),
        service_start_ns=1600 * MILLISECOND,
        service_end_ns=1700 * MILLISECOND,
    )
    needed = needed_blocks(boot)
    assert np.flatnonzero(needed.in_service).tolist() == [2, 3]
    assert np.flatnonzero(needed.before_service).tolist() == [0, 1]
    # the blocks that had been read before count neither way, however probable
    told = ToldOfService([0.0] * 8, [1.0, 1.0, 0.9, 0.0, 0.8, 0, 0, 0]).fit(boot)
    found = service_scores(told, boot)
    assert (found["service_recall@1"], found["service_precision@1"]) == (0.5, 0.5)
    assert service_scores(Told([0.0] * 8).fit(boot), boot) == {}


ONE = Conditions(bandwidths=(2_000_000,), head_starts_ns=(0, 4_000_000_000))


def one_read():
    # issued after 10 ms, there after 11 ms, and 9 ms later the boot is done
    return boot_of(manifest_of([1]), [(10 * MILLISECOND, "read", 0, 0, BLOCK)], boot_done_ns=20 * MILLISECOND)


def test_a_restore_takes_what_can_be_worked_out_by_hand():
    found = reference_scores(one_read(), ONE)
    fetch = 90_000 + 65536 * 500  # positioning, 64 KiB at 2 MB/s
    link = 200_000 + -(-4096 * 10**9 // 1_250_000_000)
    lazy, staged = (19 * MILLISECOND + wait + link for wait in (fetch, 0))
    assert found["lazy"]["time_to_boot_s@2MB/s,4s"] == lazy / 1e9
    assert found["lazy"]["wait_max_s@2MB/s,4s"] == (fetch + link) / 1e9
    assert found["oracle_order"]["time_to_boot_s@2MB/s,4s"] == staged / 1e9
    assert found["oracle_all"]["time_to_boot_s@2MB/s,0s"] == staged / 1e9
    # without a head start, staging began 10 ms before the block was asked for
    late = found["oracle_order"]
    assert late["time_to_boot_s@2MB/s,0s"] == (lazy - 10 * MILLISECOND) / 1e9
    assert (late["late_share@2MB/s,0s"], late["late_share@2MB/s,4s"]) == (1.0, 0.0)
    assert found["lazy"]["media_bytes@2MB/s,0s"] == 65536


def test_what_nobody_reads_is_wasted():
    boot = reading("a", "boot-1", [0], range(1, 3 * UNITS + 1))
    plan = RestorePlan(boot.disk_bytes, first_set=np.array([0, 2]))
    found = loop_scores(boot, lambda _: plan, ONE)
    assert found["wasted_bytes@2MB/s,4s"] == 65536


def test_the_device_limits_the_restore():
    hardware = hardware_at(250_000_000)
    assert hardware.backup_device.bandwidth * hardware.backup_device.channels == 250_000_000
    assert hardware.link.bandwidth > hardware.backup_device.bandwidth


@pytest.mark.parametrize("wrong", [{"bandwidths": ()}, {"bandwidths": (0,)}, {"head_starts_ns": (-1,)}])
def test_conditions_that_cannot_be(wrong):
    with pytest.raises(PredictError, match="expected some"):
        Conditions(**wrong)


def scores_of(*rows):
    full = [("lineage", vm, vm, boot, predictor, "recall@1.25", value) for vm, boot, predictor, value in rows]
    return pl.DataFrame(full, schema=SCORES_OF_BOOTS_SCHEMA, orient="row")


def test_each_machine_counts_once_however_many_boots_it_has():
    scores = scores_of(
        ("a", "1", "x", 1.0), ("a", "2", "x", 0.5), ("a", "3", "x", 0.75), ("b", "1", "x", 0.25)
    )
    (row,) = mean_of_machines(scores).iter_rows(named=True)
    assert (row["vms"], row["mean"], row["least"], row["most"]) == (2, 0.5, 0.25, 0.75)
    # 2 machines: a quarter of all draws is twice the same one
    assert (row["low"], row["high"]) == (0.25, 0.75)


def test_differences_are_taken_machine_by_machine():
    machines = [(vm, 0.1 * number) for number, vm in enumerate("abcdef")]
    scores = scores_of(
        *((vm, "1", "x", value + 0.05) for vm, value in machines),
        *((vm, "1", "y", value) for vm, value in machines),
        ("z", "1", "y", 9.0),
    )
    found = paired_differences(scores, ["recall@1.25"])
    assert found.select("predictor", "against", "vms").rows() == [("x", "y", 6), ("y", "x", 6)]
    # machines differ, the difference does not: its interval is a point; the machine without x is left out
    assert found.select("mean", "low", "high").row(0) == pytest.approx((0.05, 0.05, 0.05))
    assert found.select("mean", "low", "high").row(1) == pytest.approx((-0.05, -0.05, -0.05))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 99))
def test_the_seed_decides_and_the_order_of_rows_does_not(values, seed):
    rows = [(f"vm{at:02d}", "1", "x", value) for at, value in enumerate(values)]
    one, other = mean_of_machines(scores_of(*rows), seed), mean_of_machines(scores_of(*rows[::-1]), seed)
    assert one.equals(other)
    (row,) = one.iter_rows(named=True)
    assert row["least"] - 1e-9 <= row["low"] <= row["high"] <= row["most"] + 1e-9
