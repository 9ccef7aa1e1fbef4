"""A restore plan: what it refuses, and that it comes back from disk as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrestorekit.plan import (
    EVICTION_POLICIES,
    MISSES,
    MODES,
    PRIORITIES,
    LaunchRule,
    PlanError,
    PurgeRule,
    RelocationStart,
    RestorePlan,
    Weights,
    block_count,
    first_block_of_disk,
)

MIB = 1 << 20
MOUNT = {"mode": "live_mount", "expiry_ns": 10**12}


@st.composite
def plans(draw: st.DrawFn) -> RestorePlan:
    disks = tuple(draw(st.lists(st.integers(1, 64).map(lambda n: n * 4096), min_size=1, max_size=3)))
    block_bytes = draw(st.sampled_from([4096, 8192, 65536]))
    blocks = block_count(disks, block_bytes)
    mode = draw(st.sampled_from(MODES))
    relocates = mode != "live_mount"
    weighted = draw(st.integers(1, 98) | st.none())
    extension = {} if relocates else {"extend_at_ns": 10**12 - 1, "extend_by_ns": draw(st.integers(1, 9))}
    sequence = draw(st.none() | st.permutations(range(blocks)))
    return RestorePlan(
        disks,
        mode=mode,
        block_bytes=block_bytes,
        first_set=np.array(draw(st.permutations(range(blocks)))[: draw(st.integers(0, blocks))], np.int32),
        relocation_sequence=None if sequence is None else np.array(sequence),
        launch=LaunchRule(draw(st.sampled_from(["share", "head_start", "immediately"])), 0.1, 7),
        relocation_start=RelocationStart("at_once", 3),
        purge=PurgeRule(
            draw(st.booleans()),
            draw(st.integers(2, 99)),
            relocates and draw(st.booleans()),
            relocates and draw(st.booleans()),
            draw(st.integers(1, 10**12)),
        ),
        misses=draw(st.sampled_from(MISSES)),
        priorities="weighted" if weighted else draw(st.sampled_from(PRIORITIES)),
        weights=Weights(weighted, 99 - weighted, 1) if weighted else Weights(),
        cache_bytes=draw(st.integers(block_bytes, 1 << 40)),
        eviction=draw(st.sampled_from(EVICTION_POLICIES)),
        stage_depth=draw(st.none() | st.integers(1, 9)),
        fetch_bytes=block_bytes * 3,
        stage_ahead_bytes=draw(st.none() | st.integers(0, 1 << 40)),
        expiry_ns=None if relocates else 10**12,
        **extension,
    )


@given(plan=plans())
def test_a_saved_plan_comes_back(plan: RestorePlan, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("plan")
    plan.save(directory)
    assert RestorePlan.load(directory).equals(plan)


def test_saving_over_an_older_plan_leaves_nothing_of_it(tmp_path: Path) -> None:
    RestorePlan((MIB,), relocation_sequence=np.arange(16)[::-1]).save(tmp_path)
    newer = RestorePlan((MIB,), first_set=np.array([3]))
    newer.save(tmp_path)
    assert RestorePlan.load(tmp_path).equals(newer)


def test_blocks_are_numbered_disk_after_disk() -> None:
    assert first_block_of_disk((65536 * 3, 1, 65536), 65536) == (0, 3, 4)
    assert block_count((65536 * 3, 1, 65536), 65536) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_set": [0, 16]}, "first set: entry 1 is block 16, but the disks have 16 blocks"),
        ({"first_set": [-1]}, "first set: entry 0 is block -1"),
        ({"first_set": [4, 5, 4]}, "first set: entry 2 names block 4 a second time"),
        ({"first_set": [0.5]}, "first set: expected a list of block numbers, got float64"),
        ({"relocation_sequence": [1, 1]}, "relocation sequence: entry 1 names block 1 a second time"),
        ({"cache_bytes": 65535}, "cache_bytes: expected at least one block .65536 bytes., got 65535"),
        ({"block_bytes": 3000}, "block_bytes: expected a power of two from 4096 to 4194304, got 3000"),
        ({"block_bytes": 8 * MIB}, "block_bytes: expected a power of two"),
        (
            {"mode": "instant"},
            "mode: expected one of full_restore, instant_restore, live_mount, got 'instant'",
        ),
        ({"eviction": "mru"}, "eviction: expected one of lru, fifo, clock, sieve, s3fifo, arc, got 'mru'"),
        ({"disk_bytes": ()}, "disk_bytes: expected at least one disk of positive size"),
        ({"expiry_ns": 10**12}, "expiry_ns: only a live mount expires, but the mode is instant_restore"),
        (
            {"mode": "live_mount", "expiry_ns": 4 * 10**9},
            "expiry_ns: expected a time after the launch at 4000000000 ns, got 4000000000 ns",
        ),
        ({"cache_bytes": "big"}, "cache_bytes: expected a whole number, got 'big'"),
        ({"mode": "live_mount", "expiry_ns": 5.5e9}, "expiry_ns: expected a whole number, got 5500000000.0"),
        ({"relocation_depth": 0}, "relocation_depth: expected at least 1, got 0"),
        ({"stage_depth": 0}, "stage_depth: expected at least 1, got 0"),
        ({"fetch_bytes": 1}, "fetch_bytes: expected at least 65536, got 1"),
        ({"stage_ahead_bytes": -1}, "stage_ahead_bytes: expected at least 0, got -1"),
        ({"stage_fetch_bytes": 4096}, "stage_fetch_bytes: expected at least 65536, got 4096"),
        ({"relocation_request_bytes": 0}, "relocation_request_bytes: expected at least 65536, got 0"),
        ({"pre_relocation_delay_ns": -1}, "pre_relocation_delay_ns: expected at least 0, got -1"),
        ({"eviction": "belady"}, "eviction: belady has to know the future, which a restore does not"),
        ({"misses": "around"}, "misses: expected one of through_cache, straight, got 'around'"),
        (
            {"priorities": "fair"},
            "priorities: expected one of as_claimed, strict, equal, weighted, got 'fair'",
        ),
        (
            {"weights": Weights(60, 20, 20)},
            "weights: only weighted priorities have weights, but they are as_claimed",
        ),
        (
            {"mode": "live_mount", "purge": PurgeRule(by_indication=True)},
            "purge by_indication: expected a mode that relocates, but a live mount never does",
        ),
        (
            {"mode": "live_mount", "purge": PurgeRule(by_period=True)},
            "purge by_period: expected a mode that relocates",
        ),
        ({"extend_at_ns": 5, "extend_by_ns": 5}, "only a live mount with an expiry can be extended"),
        ({**MOUNT, "extend_by_ns": 5}, "extend_by_ns: expected extend_at_ns too, got 5 ns alone"),
        ({**MOUNT, "extend_at_ns": -1, "extend_by_ns": 5}, "extend_at_ns: expected at least 0, got -1"),
        ({**MOUNT, "extend_at_ns": 5}, "extend_by_ns: expected at least 1, got 0"),
        (
            {**MOUNT, "extend_at_ns": 10**12, "extend_by_ns": 5},
            "extend_at_ns: expected a time before the expiry at 1000000000000 ns, got 1000000000000 ns",
        ),
        ({**MOUNT, "warning_ns": -1}, "warning_ns: expected at least 0, got -1"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        RestorePlan(**({"disk_bytes": (MIB,)} | changes))


def test_rules_out_of_range_are_refused() -> None:
    with pytest.raises(PlanError, match=r"launch share: expected a number from 0 to 1, got 1\.5"):
        LaunchRule("share", 1.5)
    with pytest.raises(PlanError, match=r"launch head_start_ns: expected a whole number, got 4\.5"):
        LaunchRule(head_start_ns=4.5)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="relocation start load_share: expected a number above 0 to 1, got 0"):
        RelocationStart("load", load_share=0)
    with pytest.raises(PlanError, match="time_of_day: expected a time of day as \"HH:MM\", got '6 pm'"):
        RelocationStart("time_of_day", time_of_day="6 pm")
    with pytest.raises(PlanError, match="purge run_length: expected at least 2, got 1"):
        PurgeRule(run_length=1)
    with pytest.raises(PlanError, match="relocation start delay_ns: expected at least 0, got -1"):
        RelocationStart("delay", -1)
    with pytest.raises(PlanError, match="relocation start check_ns: expected at least 1, got 0"):
        RelocationStart("load", check_ns=0)
    with pytest.raises(PlanError, match="purge period_ns: expected at least 1, got 0"):
        PurgeRule(period_ns=0)
    with pytest.raises(PlanError, match="weights: expected percents that sum to 100, got 99"):
        Weights(50, 29, 20)
    with pytest.raises(PlanError, match="weights staging: expected at least 1, got 0"):
        Weights(50, 50, 0)
    with pytest.raises(PlanError, match=r"weights vm_reads: expected a whole number, got 33\.4"):
        Weights(33.4, 33.3, 33.3)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["missing", "not TOML", "unknown key", "truncated blocks"])
def test_a_damaged_plan_on_disk_is_refused(tmp_path: Path, damage: str) -> None:
    RestorePlan((MIB,), first_set=np.arange(9)).save(tmp_path)
    toml = tmp_path / "plan.toml"
    if damage == "missing":
        toml.unlink()
    elif damage == "not TOML":
        toml.write_text("mode =")
    elif damage == "unknown key":
        toml.write_text("speed = 3\n" + toml.read_text())
    else:
        blocks = tmp_path / "first_set.parquet"
        blocks.write_bytes(blocks.read_bytes()[:-20])
    with pytest.raises(PlanError, match="expected a saved plan"):
        RestorePlan.load(tmp_path)


def test_an_expiry_stays_with_a_live_mount() -> None:
    mount = RestorePlan((MIB,), mode="live_mount", expiry_ns=10**12)
    assert mount.with_mode("instant_restore").expiry_ns is None
    assert mount.with_mode("live_mount").expiry_ns == 10**12
    extended = mount.replace(extend_at_ns=5, extend_by_ns=6)
    assert extended.with_mode("full_restore").extend_at_ns is None


def test_a_restore_becomes_a_live_mount_without_what_needs_a_relocation() -> None:
    restore = RestorePlan((MIB,), purge=PurgeRule(run_length=7, by_indication=True, by_period=True))
    assert restore.with_mode("live_mount").purge == PurgeRule(run_length=7)


def test_a_plan_saved_before_a_setting_existed_has_its_default(tmp_path: Path) -> None:
    RestorePlan((MIB,)).save(tmp_path)
    toml = tmp_path / "plan.toml"
    older = [line for line in toml.read_text().splitlines() if not line.startswith(("misses", "period_ns"))]
    toml.write_text("\n".join(older[: older.index("[weights]")]))
    assert RestorePlan.load(tmp_path).equals(RestorePlan((MIB,)))
