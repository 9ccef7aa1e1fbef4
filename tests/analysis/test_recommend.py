"""The cheapest option that meets a service level, against a search by hand."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_boots import tiny_manifest, tiny_trace

import vmrestorekit as vr
from vmrestorekit.analysis.recommend import ServiceLevel, options_of, recommend
from vmrestorekit.analysis.sweep import SweepError, sweep
from vmrestorekit.restore.hardware import MEDIA, BackupDevice

BOOTS = [vr.Boot.from_parts(tiny_trace(boot=f"boot-{n}"), [tiny_manifest()]) for n in (1, 2)]
PLANS = {"none": None, "last_boot": vr.LastBootReplay().fit([BOOTS[0]])}
SETTINGS = {"plan.cache_bytes": ["256 KiB", "1 MiB", "4 MiB"], "plan.mode": ["instant_restore"]}
MACHINES = ["object_storage", "flash"]


def test_the_cheapest_of_those_that_meet_the_level_is_chosen():
    table = sweep(BOOTS, PLANS, MACHINES, SETTINGS)
    by_hand = []
    for key, rows in table.group_by("plan", "hardware", "plan.cache_bytes"):
        ready = sorted(rows["time_to_ready_ns"].to_list())[-1] / 1e9  # of two boots, the slower one
        cache = rows["peak_cache_bytes"].max() / 2**30
        by_hand.append((ready, cache, cache + rows["media_bytes"].mean() / 1e11, key))
    bound = sorted(each[0] for each in by_hand)[len(by_hand) // 2]
    found = recommend(BOOTS, PLANS, MACHINES, SETTINGS, level=ServiceLevel(ready_s=bound))
    assert found.chosen is not None
    meeting = [each for each in by_hand if each[0] <= bound]
    assert found.chosen["cost"] == pytest.approx(min(each[2] for each in meeting))
    assert found.options["meets"].sum() == len(meeting)
    assert found.chosen["ready_s"] <= bound
    assert found.sentence().startswith("Cheapest that meets the level: plan ")


def test_prices_of_ones_own():
    price = pl.when(pl.col("hardware") == "flash").then(100.0).otherwise(1.0)
    level = ServiceLevel(ready_s=1000)
    found = recommend(BOOTS, PLANS, MACHINES, SETTINGS, level=level, cost=price)
    assert found.chosen["hardware"] == "object_storage"
    assert recommend(BOOTS, PLANS, MACHINES, SETTINGS, level=level, cost=-price).chosen["hardware"] == "flash"


def test_what_limits_it_is_what_was_made_slow():
    device = MEDIA["flash"].backup_device
    slow = {
        "media positioning": BackupDevice(1, 300_000_000, device.bandwidth),
        "media bandwidth": BackupDevice(1, 0, 200_000),
    }
    for name, part in slow.items():
        hardware = MEDIA["flash"].replace(backup_device=part)
        found = recommend(
            BOOTS, None, hardware, {"plan.launch.rule": ["immediately"]}, level=ServiceLevel(ready_s=0.01)
        )
        assert found.chosen is None
        assert found.limits.sort("ready_s")["without"][0] == name
        assert f"what limits ready_s most is {name}" in found.sentence()
        assert found.sentence().startswith("The level cannot be met. Nearest: plan none")


def test_a_level_that_one_change_would_meet_says_which():
    hardware = MEDIA["flash"].replace(backup_device=BackupDevice(1, 3_000_000_000, 400_000_000))
    quick = recommend(BOOTS, None, "flash", level=ServiceLevel(ready_s=100)).nearest["ready_s"]
    found = recommend(BOOTS, None, hardware, level=ServiceLevel(ready_s=quick * 1.2))
    assert "it would be met without media positioning" in found.sentence()


def test_options_that_fail_are_not_chosen():
    other = vr.RestorePlan((8 << 20,))
    found = recommend(BOOTS, {"wrong": other, "none": None}, "flash", level=ServiceLevel(ready_s=1000))
    assert found.chosen["plan"] == "none"
    assert found.options.filter(plan="wrong").select("errors", "meets", "front").row(0) == (2, False, False)
    with pytest.raises(SweepError, match="expected an option that every boot can take; the first error"):
        recommend(BOOTS, other, "flash", level=ServiceLevel(ready_s=1000))


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=12))
def test_the_front_is_what_nothing_else_is_better_than(rows):
    table = pl.DataFrame(
        {
            "plan": [str(number) for number in range(len(rows))],
            "time_to_ready_ns": [row[0] * 10**9 for row in rows],
            "released_ns": [row[1] * 3600 * 10**9 for row in rows],
            "peak_cache_bytes": [row[2] << 30 for row in rows],
            "media_bytes": [0] * len(rows),
            "error": pl.Series([None] * len(rows), dtype=pl.String),
        }
    )
    options = options_of(table, ServiceLevel(ready_s=1, released_h=1, cache_gib=1))
    for number, row in enumerate(rows):
        beaten = any(all(a <= b for a, b in zip(o, row, strict=True)) and o != row for o in rows)
        assert options["front"][number] == (not beaten)
        assert options["meets"][number] == (max(row) <= 1)


@pytest.mark.parametrize(
    ("bounds", "sentence"),
    [
        ({}, "service level: expected at least one of ready_s, released_h, cache_gib, got none"),
        ({"ready_s": 0}, "service level: expected ready_s above 0, got 0"),
        ({"cache_gib": float("nan")}, "service level: expected cache_gib above 0, got nan"),
    ],
)
def test_a_level_that_is_none(bounds, sentence):
    with pytest.raises(SweepError, match=re.escape(sentence)):
        ServiceLevel(**bounds)
