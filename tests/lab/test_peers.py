"""Ways to boot beside ours: what each prepares, the order of turns, and what is made of the runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from lab_helpers import need
from tiny_boots import tiny_manifest, tiny_trace

import vmrestorekit as vr
from vmrestorekit.cli.lab_peers import device_named
from vmrestorekit.lab.peers import runs as peer_runs
from vmrestorekit.lab.peers.fidelity import compare_with_model, scaled_to
from vmrestorekit.lab.peers.runs import RUNS_SCHEMA, GuestDisk, run_peers, summary_of_runs
from vmrestorekit.lab.peers.ways import LOCAL, DeviceSpec, ways
from vmrestorekit.lab.programs import LabError, run
from vmrestorekit.lab.progress import Report
from vmrestorekit.plan import LaunchRule, RestorePlan

MIB = 1 << 20
SIZE = 4 * MIB
QUICK = DeviceSpec(read_ms=2, parallel=8)
BOOT = vr.Boot.from_parts(tiny_trace(), [tiny_manifest()])


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.raw"
    content = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    content[MIB : 2 * MIB] = 0
    path.write_bytes(content.tobytes())
    return path


@pytest.mark.parametrize("number", range(6))
def test_a_machine_finds_the_image_whichever_way_it_is_brought(number, image, tmp_path):
    need("nbdkit", "nbdcopy", "qemu-img", "setpriv")
    plan = RestorePlan((SIZE,), mode="live_mount", launch=LaunchRule("head_start", head_start_ns=0))
    way = ways({"none": plan})[number]

    async def read_back():
        async with way.prepare(image, QUICK, tmp_path, Report()) as prepared:
            found = _read_through_qemu(prepared.nodes, tmp_path)
            await prepared.launched()
            return found, await prepared.figures()

    found, figures = asyncio.run(read_back())
    assert found == image.read_bytes()
    if way.name != LOCAL:
        assert SIZE - MIB <= figures["media_bytes"] <= 2 * SIZE
        assert figures["media_fetches"] > 0


def _read_through_qemu(nodes, folder: Path) -> bytes:
    """Copy what the node named base reads as; `qemu-img` takes one description, with the others inside."""
    described = [json.loads(word) for word in nodes if word.startswith("{")]
    by_name = {node["node-name"]: node for node in described}

    def whole(name: str):
        if by_name[name]["driver"] == "copy-on-read":  # it would write, which qemu-img does not let it
            return whole(by_name[name]["file"])
        node = {key: value for key, value in by_name[name].items() if key != "node-name"}
        for key in ("backing", "file"):
            if isinstance(node.get(key), str):
                node[key] = whole(node[key])
        return node

    copied = folder / "read-back.raw"
    run(["qemu-img", "convert", "-O", "raw", f"json:{json.dumps(whole('base'))}", copied])
    return copied.read_bytes()


def test_devices_by_name():
    for name in ("20 ms", "0 ms", "25 MB/s"):
        assert device_named(name).name == name
    assert device_named("20 ms").hardware().backup_device.positioning_ns == 20_000_000
    assert device_named("20 ms").hardware().backup_device.channels == 8
    shared = device_named("25 MB/s").hardware().backup_device
    assert (shared.channels, shared.bandwidth) == (1, 25_000_000)
    with pytest.raises(ValueError, match="expected such as '20 ms' or '25 MB/s', got '20'"):
        device_named("20")


# --- runs ---------------------------------------------------------------------------------------------


def test_turns_go_on_after_a_cut_and_failures_are_tried_again(tmp_path, monkeypatch):
    booted, out = [], tmp_path / "runs.parquet"

    async def boot(guest, way, device, **_):
        booted.append(way.name)
        if len(booted) == 3:
            raise LabError("the guest did not boot")
        if len(booted) == 5:
            raise KeyboardInterrupt
        return {"prepare_s": 0.1, "boot_s": float(len(booted)), "media_bytes": 5}

    monkeypatch.setattr(peer_runs, "boot_once", boot)
    cases = [(GuestDisk("SYNTHETIC", tmp_path / "disk"), QUICK, ways({})[:3])]
    with pytest.raises(KeyboardInterrupt):
        run_peers(cases, 2, out)
    names = [way.name for way in cases[0][2]]
    # the second turn begins with another way
    assert booted == [*names, names[1], names[2]]
    assert pl.read_parquet(out)["error"].to_list() == [None, None, "the guest did not boot", None]
    rows = run_peers(cases, 2, out)
    assert rows.schema == RUNS_SCHEMA
    assert rows["error"].is_null().all()
    assert sorted(rows.select("way", "run").iter_rows()) == sorted((n, r) for n in names for r in (1, 2))
    assert len(booted) == 5 + 3
    assert run_peers(cases, 2, out).equals(rows)


def runs_of(**boot_s) -> pl.DataFrame:
    names = {"local": LOCAL, "plain": "plain NBD", "ours": "ours: last_boot"}
    rows = [
        {"guest": "SYNTHETIC", "device": "2 ms", "way": names[way], "run": number, "boot_s": value}
        for way, values in boot_s.items()
        for number, value in enumerate(values, 1)
    ]
    return pl.DataFrame(rows, schema=RUNS_SCHEMA)


def test_a_summary_pairs_each_boot_with_the_local_one_of_its_turn():
    found = summary_of_runs(runs_of(local=[10, 20, 40], plain=[30, 40, 60], ours=[11, 21, 44]))
    plain = found.filter(way="plain NBD").row(0, named=True)
    assert (plain["ratio"], plain["stall_s"], plain["boot_s"]) == (2.0, 20.0, 40.0)
    assert (plain["ratio_low"], plain["ratio_high"]) == (1.75, 2.5)
    assert found.filter(way="ours: last_boot")["ratio"][0] == pytest.approx(1.1)


# --- the model beside them ----------------------------------------------------------------------------


def plan_for(name, boot, device):
    return vr.make_plan(vr.LastBootReplay().fit([boot]), boot, mode="live_mount", block_bytes=16 << 10)


def test_the_model_is_given_as_slow_a_machine_as_was_measured():
    hardware = scaled_to(BOOT, plan_for("", BOOT, QUICK), QUICK.hardware(), local_s=3.0)
    model = vr.simulate(BOOT, plan_for("", BOOT, QUICK), hardware).summary()
    assert model["local_boot_ns"] == pytest.approx(3e9, rel=1e-3)


def test_real_boots_stand_beside_simulated_ones():
    local = [3.0, 3.1, 3.2]
    hardware = scaled_to(BOOT, plan_for("", BOOT, QUICK), QUICK.hardware(), local_s=3.1)
    model = vr.simulate(BOOT, plan_for("", BOOT, QUICK), hardware).summary()
    predicted = model["time_to_boot_ns"] / 1e9
    runs = runs_of(local=local, ours=[predicted + 0.01, predicted + 2, predicted - 2])
    found = compare_with_model(runs, {"SYNTHETIC": BOOT}, {"2 ms": QUICK}, plan_for)
    assert found["boot_error"].to_list() == pytest.approx([-0.01, -2, 2], abs=1e-6)
    assert found["boot_within"].to_list() == [True, False, False]
    assert found["stall_within"].to_list() == [True, False, False]
    assert found["local_spread_s"][0] == pytest.approx(0.2)
    assert found["model_misses"][0] == model["misses"]
    with pytest.raises(LabError, match="expected local boots of SYNTHETIC among the runs, found none"):
        compare_with_model(runs_of(ours=[3.0]), {"SYNTHETIC": BOOT}, {"2 ms": QUICK}, plan_for)
