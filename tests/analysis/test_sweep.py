"""Sweeps: every combination once, the same rows wherever they are computed, none lost or computed again."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import polars as pl
import pytest
from lacking import missing
from tiny_boots import tiny_manifest, tiny_trace

import vmrestorekit as vr
from vmrestorekit.analysis import rows as rows_module
from vmrestorekit.analysis import study as study_module
from vmrestorekit.analysis.space import Between
from vmrestorekit.analysis.sweep import SweepError, sweep

BOOT = vr.Boot.from_parts(tiny_trace(), [tiny_manifest()])
OTHER = vr.Boot.from_parts(tiny_trace(boot="boot-2"), [tiny_manifest()])
PLANS = {"none": None, "last_boot": vr.LastBootReplay().fit([BOOT])}
SETTINGS = {
    "plan.mode": ["instant_restore", "live_mount"],
    "plan.cache_bytes": ["512 KiB", "1 MiB"],
    "hardware.backup_device.bandwidth": ["2 MB/s", 50_000_000],
}


def swept(**more) -> pl.DataFrame:
    return sweep([BOOT, OTHER], PLANS, ["object_storage", "flash"], SETTINGS, **more)


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return swept()


def test_each_combination_is_a_row_in_the_order_of_the_space(table):
    assert table.height == 2 * 2 * 2 * 2 * 2 * 2
    assert table["point"].to_list() == list(range(table.height))
    names = ["boot", "plan", "hardware", "plan.mode", "plan.cache_bytes", "hardware.backup_device.bandwidth"]
    assert table.select(names).is_unique().all()
    assert table["hardware.backup_device.bandwidth"].head(4).to_list() == [2_000_000, 50_000_000] * 2
    assert table["error"].is_null().all()


def test_a_row_says_what_a_simulation_of_its_settings_says(table):
    for row in table.sample(6, seed=1).iter_rows(named=True):
        boot = {"boot-1": BOOT, "boot-2": OTHER}[row["boot"]]
        plan = vr.RestorePlan(boot.disk_bytes)
        if row["plan"] != "none":
            plan = vr.make_plan(PLANS[row["plan"]], boot)
        plan = plan.with_mode(row["plan.mode"]).replace(cache_bytes=row["plan.cache_bytes"])
        hardware = vr.simulate(boot, plan, row["hardware"]).hardware
        device = hardware.backup_device.__class__(
            **{**vars(hardware.backup_device), "bandwidth": row["hardware.backup_device.bandwidth"]}
        )
        expected = vr.simulate(boot, plan, hardware.replace(backup_device=device)).summary()
        assert {name: row[name] for name in expected} == dict(expected)


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_workers_compute_the_same_rows(table, workers):
    assert swept(n_jobs=2, workers=workers).equals(table)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_cluster_of_which_a_worker_is_killed_computes_the_same_rows(table):
    try:
        from distributed import LocalCluster
    except ImportError:
        missing("no package 'distributed'")
    killed = []
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:

        def kill_one(done, total):
            if done and not killed:
                killed.append(next(iter(cluster.workers.values())).process.pid)
                os.kill(killed[0], signal.SIGKILL)

        assert swept(cluster=cluster.scheduler_address, progress=kill_one).equals(table)
    assert killed


def test_after_a_cut_nothing_is_computed_again_and_nothing_lost(table, tmp_path, monkeypatch):
    out, computed = tmp_path / "rows.parquet", []
    simulate = study_module.simulate_trace
    monkeypatch.setattr(
        study_module, "simulate_trace", lambda *a, **k: computed.append(1) or simulate(*a, **k)
    )

    def stop(done, total):
        if done >= total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(out=out, progress=stop)
    assert not out.exists()
    first = len(computed)
    assert 0 < first < table.height
    assert swept(out=out).equals(table)
    assert len(computed) == table.height
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
    assert pl.read_parquet(out).equals(table)
    assert swept(out=out).equals(table)
    assert len(computed) == table.height


def test_a_larger_sweep_uses_the_rows_of_a_smaller_one(tmp_path, monkeypatch):
    out, computed = tmp_path / "rows.parquet", []
    sweep(BOOT, None, settings={"plan.cache_bytes": ["1 MiB"]}, out=out)
    simulate = study_module.simulate_trace
    monkeypatch.setattr(
        study_module, "simulate_trace", lambda *a, **k: computed.append(1) or simulate(*a, **k)
    )
    found = sweep(BOOT, None, settings={"plan.cache_bytes": ["512 KiB", "1 MiB", "2 MiB"]}, out=out)
    assert found["point"].to_list() == [0, 1, 2]
    assert len(computed) == 2


def test_a_full_disk_keeps_the_rows_before_it(tmp_path, monkeypatch):
    out, written = tmp_path / "rows.parquet", []

    def fills_up(frame, path):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(frame.height)
        frame.write_parquet(path)

    (tmp_path / "rows.parquet.parts").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(rows_module, "write_parquet_atomically", fills_up)
        with pytest.raises(
            OSError, match=f"No space left on device; {sum([16, 16])} rows before it are kept"
        ):
            swept(out=out)
    done = []
    swept(out=out, progress=lambda now, total: done.append(now))
    assert done[0] == 32


def test_what_cannot_be_simulated_is_a_row_that_says_why():
    found = sweep(
        BOOT,
        {"other disks": vr.RestorePlan((8 << 20,)), "none": None},
        settings={"plan.mode": ["instant_restore", "live_mount"], "plan.expiry_ns": [None, "60 s"]},
        copies=["full", "length 3"],
    )
    reasons = dict(found.select("point", "error").iter_rows())
    assert "expected a plan for the disks of SYNTHETIC" in reasons[0]
    assert "copy: expected one of full for SYNTHETIC/boot-1, got 'length 3'" in reasons[15]
    assert found.filter(plan="none", copy="full")["error"].is_null().to_list() == [True, False, True, True]
    assert found.filter(pl.col("error").is_not_null())["stall_ns"].is_null().all()


def test_a_sample_of_a_space_is_spread_over_each_axis():
    bandwidth = Between(1_000_000, 100_000_000, log=True)
    settings = {"hardware.backup_device.bandwidth": bandwidth, "plan.mode": SETTINGS["plan.mode"]}
    found = sweep(BOOT, None, settings=settings, sample=20, seed=3)
    drawn = found["hardware.backup_device.bandwidth"]
    assert found["plan.mode"].value_counts()["count"].to_list() == [10, 10]
    # each twentieth of the range, by orders of magnitude, has one
    assert sorted(((drawn.log10() - 6) * 10).floor().to_list()) == sorted([*range(20)])
    assert sweep(BOOT, None, settings=settings, sample=20, seed=3).equals(found)
    assert not sweep(BOOT, None, settings=settings, sample=20, seed=4)[drawn.name].equals(drawn)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (dict(boots=[]), "boots: expected at least one, got none"),
        (dict(boots=[BOOT, BOOT]), "boots: expected each once, got SYNTHETIC/boot-1, SYNTHETIC/boot-1"),
        (dict(plans={}), "plans: expected at least one, got none"),
        (dict(plans={"odd": 3}), "plans: expected None, a RestorePlan, a fitted predictor or a function"),
        (dict(hardware="floppy"), "hardware: expected a Hardware or one of"),
        (dict(settings={"plan.cash_bytes": [1]}), "expected a setting such as plan.cache_bytes"),
        (dict(settings={"plan.cache_bytes": []}), "plan.cache_bytes: expected at least one value"),
        (dict(settings={"plan.cache_bytes": "1 MiB"}), "plan.cache_bytes: expected a list of values"),
        (dict(settings={"plan.cache_bytes": ["1 MB/s"]}), "expected a number with a unit"),
        (dict(settings={"plan.cache_bytes": [1.5]}), "plan.cache_bytes: expected a whole number, got 1.5"),
        (dict(settings={"plan.cache_bytes": [-1, 1 << 20]}), "plan.cache_bytes = -1: cache_bytes: expected"),
        (dict(settings={"plan.cache_bytes": Between(1, 2)}), "the space is not sampled"),
        (dict(sample=0), "sample: expected at least 1 point, got 0"),
        (dict(n_jobs=0), "jobs: expected a number of workers"),
        (dict(n_jobs=2, workers="elves"), "workers: expected one of threads, processes, got 'elves'"),
        (dict(cluster="nowhere"), "cluster: expected a Dask scheduler at 'nowhere'"),
    ],
)
def test_bad_input_is_one_sentence(asked, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        sweep(**{"boots": BOOT, "plans": None, "hardware": "flash", **asked})
    assert "\n" not in str(raised.value)


def test_a_file_that_is_none_of_ours(tmp_path):
    (tmp_path / "rows.parquet").write_text("no Parquet")
    with pytest.raises(SweepError, match="expected a whole Parquet file with rows of a sweep"):
        sweep(BOOT, out=tmp_path / "rows.parquet")
    assert Path(tmp_path / "rows.parquet").read_text() == "no Parquet"
