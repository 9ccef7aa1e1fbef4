"""A fleet drawn from recorded boots, and its restore after a disaster."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny_boots import tiny_manifest, tiny_trace

import vmrestorekit as vr
from vmrestorekit.analysis.disaster import simulate_disaster
from vmrestorekit.analysis.fleet import draw_fleet
from vmrestorekit.analysis.rows import SweepError
from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import RelocationStart

SECOND = 1_000_000_000
BOOT = vr.Boot.from_parts(tiny_trace(), [tiny_manifest()])
BLOCK = 16 << 10


def plan_of(boot, **changes):
    settings = {"block_bytes": BLOCK, "cache_bytes": 64 << 20, "relocation_start": RelocationStart("at_once")}
    return vr.make_plan(vr.LastBootReplay().fit([boot]), boot, **settings | changes)


def fleet_of(size, **more):
    return draw_fleet([BOOT], size, plan_of, **more)


def test_a_member_without_drift_restores_as_its_boot_does():
    fleet = fleet_of(60, drift=0.0)
    same_speed = [each for each in fleet.members if each.trace.metadata.marks == BOOT.metadata.marks]
    assert same_speed
    member = same_speed[0]
    for mode in ("instant_restore", "live_mount", "full_restore"):
        expected = vr.simulate(BOOT, plan_of(BOOT).with_mode(mode), "disk_library").summary()
        storm = vr.simulate_storm(
            [vr.Restore(member.trace, member.plan.with_mode(mode), member.address)], hardware="disk_library"
        )
        found = storm.machines.row(0, named=True)
        # the first machine's copy lies in the store as a full backup does, but for blocks that are alike
        for name in ("vm_reads", "misses", "hits", "relocated_bytes", "media_bytes"):
            assert found[name] == expected[name], (mode, name)
    assert member.plan.blocks < plan_of(BOOT).blocks


def test_blocks_that_were_no_neighbours_do_not_become_some():
    def runs(stored):
        return int((np.diff(stored.astype(int), prepend=0) == 1).sum())

    whole = BackupLayout.full(BOOT.manifests, BLOCK)
    member = fleet_of(1, drift=0.0).members[0]
    assert member.plan.blocks < len(whole.hole)
    assert runs(member.content >= 0) == runs(~whole.hole) > 1


def test_equal_contents_are_stored_once_and_drift_is_not_shared():
    alike, drifted = fleet_of(10, drift=0.0), fleet_of(10, drift=0.3)
    one = fleet_of(1, drift=0.0)
    assert alike.unique_bytes == one.unique_bytes
    assert alike.stored_bytes == 10 * one.stored_bytes
    own = (drifted.unique_bytes - one.unique_bytes) / (drifted.stored_bytes - one.stored_bytes)
    assert own == pytest.approx(0.3, abs=0.1)
    assert fleet_of(10, drift=1.0).unique_bytes == fleet_of(10, drift=1.0).stored_bytes


def test_a_seed_draws_the_same_fleet():
    first, again, other = fleet_of(20, seed=1), fleet_of(20, seed=1), fleet_of(20, seed=2)
    contents = [np.concatenate([each.content for each in fleet.members]) for fleet in (first, again, other)]
    assert np.array_equal(contents[0], contents[1])
    assert not np.array_equal(contents[0], contents[2])


@pytest.fixture(scope="module")
def disaster():
    return simulate_disaster(fleet_of(40), vr.MediaAgents(2), "disk_library", asked_per_minute=6000)


def test_everybody_comes_back_the_important_first(disaster):
    machines = disaster.machines
    assert machines["priority"].to_list() == [0] * 4 + [1] * 12 + [2] * 24
    assert machines["asked_s"].is_sorted()
    assert (machines["ready_s"] > machines["asked_s"]).all()
    assert machines["released_s"].null_count() == 0
    first = machines.filter(priority=0)["ready_s"].mean()
    assert first < machines.filter(priority=2)["ready_s"].mean()


def test_the_summary_and_the_curve_say_the_same(disaster):
    summary = {row["way"]: row for row in disaster.summary().iter_rows(named=True)}
    curve = disaster.curve()
    for what, way in (("up", "instant restore"), ("up, one by one", "one after the other")):
        up = curve.filter(what=what)
        assert up["machines"].to_list() == list(range(1, 41))
        assert up["time_s"][19] == summary[way]["up 50% (s)"]
        assert up["time_s"][-1] == summary[way]["up 100% (s)"]
    assert summary["instant restore"]["up 100% (s)"] < summary["one after the other"]["up 100% (s)"]


def test_one_by_one_is_the_sum_of_full_restores_alone():
    fleet = draw_fleet([BOOT], 3, plan_of, drift=0.0)
    found = simulate_disaster(fleet, vr.MediaAgents(), "flash").machines["one_by_one_ready_s"]
    alone = []
    for member in fleet.members:
        restore = vr.Restore(member.trace, member.plan.with_mode("full_restore"), member.address)
        storm = vr.simulate_storm([restore], hardware="flash")
        alone.append(storm.machines["time_to_ready_ns"][0] / SECOND)
    assert found[-1] == pytest.approx(sum(alone))


def test_shared_contents_are_read_from_the_medium_less_often():
    agents, settings = vr.MediaAgents(1), {"asked_per_minute": 6000}
    alike = simulate_disaster(fleet_of(20, drift=0.0), agents, "disk_library", **settings)
    different = simulate_disaster(fleet_of(20, drift=1.0), agents, "disk_library", **settings)
    assert alike.machines["media_bytes"].sum() < different.machines["media_bytes"].sum() / 3


def test_the_loss_of_an_agent_costs_time_and_no_machine(disaster):
    lost_at = int(disaster.machines["ready_s"].median() * SECOND / 2)
    agents = vr.MediaAgents(2, failures=((0, lost_at),), takeover_ns=5 * SECOND)
    found = simulate_disaster(fleet_of(40), agents, "disk_library", asked_per_minute=6000)
    assert found.agents["lost_ns"].to_list() == [lost_at, None]
    assert not found.machines["stranded"].any()
    assert found.machines["ready_s"].null_count() == 0
    assert found.machines["ready_s"].max() > disaster.machines["ready_s"].max()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: draw_fleet([], 3, plan_of), "fleet: expected boots and at least 1 machine, got 0 and 3"),
        (lambda: fleet_of(3, drift=2.0), "drift: expected a share from 0 to 1, got 2.0"),
        (
            lambda: simulate_disaster(fleet_of(2), vr.MediaAgents(), priority_shares=(0.5, 0.4)),
            "priority_shares: expected shares that sum to 1, got (0.5, 0.4)",
        ),
        (
            lambda: simulate_disaster(fleet_of(2), vr.MediaAgents(), asked_per_minute=0),
            "asked_per_minute: expected a number above 0, got 0",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(SweepError, match=re.escape(sentence)):
        call()
