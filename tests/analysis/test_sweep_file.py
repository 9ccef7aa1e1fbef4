"""Sweeps written down as TOML, and the command that carries them out."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_boots import tiny_manifest, tiny_trace
from typer.testing import CliRunner

import vmrestorekit as vr
from vmrestorekit.analysis.settings import SETTINGS, known_setting, with_settings
from vmrestorekit.analysis.space import Between, Space
from vmrestorekit.analysis.sweep_file import boots_named, read_sweep_file
from vmrestorekit.cli import app
from vmrestorekit.restore.hardware import MEDIA
from vmrestorekit.traces.recording import add_boot

WHOLE = """
boots = ["SYNTHETIC"]
plans = ["none", "last_boot"]
hardware = ["flash", "tape"]
block_bytes = ["64 KiB"]
seed = 3

[settings]
plan.cache_bytes = ["512 KiB", "1 MiB"]
plan.launch.head_start_ns = "2 s"
"hardware.backup_device.bandwidth" = ["2 MB/s"]
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for boot in ("boot-1", "boot-2"):
        add_boot(folder, tiny_trace(boot=boot), [tiny_manifest()], {"release": "SYNTHETIC"})
    return folder


def write(folder, text):
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_what_the_function_is_given(tmp_path):
    found = read_sweep_file(write(tmp_path, WHOLE))
    assert (found.boots, found.hardware, found.block_bytes) == (("SYNTHETIC",), ("flash", "tape"), (65536,))
    assert found.settings == {
        "plan.cache_bytes": [512 << 10, 1 << 20],
        "plan.launch.head_start_ns": [2_000_000_000],
        "hardware.backup_device.bandwidth": [2_000_000],
    }


def test_ranges_of_a_sample(tmp_path):
    a_range = '{ low = "1 MiB", high = "1 GiB", log = true }'
    text = f'boots = ["a"]\nsample = 5\n[settings]\n"plan.cache_bytes" = {a_range}'
    found = read_sweep_file(write(tmp_path, text))
    assert found.settings["plan.cache_bytes"] == Between(1 << 20, 1 << 30, log=True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("boots = [", "study.toml: "),
        ("plans = ['none']", 'expected boots, such as boots = ["bookworm-db/last"], found none'),
        ("boots = ['a']\nplan = ['none']", "got 'plan'; did you mean 'plans'?"),
        ("boots = [3]", "boots: expected a list of texts, got [3]"),
        ("boots = ['a']\nsample = 'x'", "sample: expected a whole number, got 'x'"),
        ("boots = ['a']\nblock_bytes = ['64 elephants']", "expected a number with a unit"),
        ("boots = ['a']\n[settings]\nplan.cash_bytes = 1", "expected a setting such as plan.cache_bytes"),
        ("boots = ['a']\n[settings]\nplan.cache_bytes = {low = 1}", "plan.cache_bytes: expected a range"),
        (
            "boots = ['a']\n[settings]\nplan.cache_bytes = {low = 5, high = 1}",
            "plan.cache_bytes: expected low < high, got 5 and 1",
        ),
        ("boots = ['a']\nsettings = 3", "settings: expected a table, got 3"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_it(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        read_sweep_file(write(tmp_path, text))
    assert "study.toml" in str(raised.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a description of a sweep"):
        read_sweep_file(tmp_path / "none.toml")


def test_names_of_boots(stored):
    corpus = vr.load_corpus(stored)
    labels = [boot.boot for boot in boots_named(["*/last", "SYNTHETIC", "SYNTHETIC/boot-1"], corpus)]
    assert labels == ["boot-2", "boot-1"]
    with pytest.raises(ValueError, match="expected one of its boots boot-1, boot-2, got 'boot-9'"):
        boots_named(["SYNTHETIC/boot-9"], corpus)


def test_the_command_writes_the_table_and_goes_on_after_a_cut(stored, tmp_path):
    path = write(tmp_path, WHOLE)
    command = ["sweep", str(path), "--corpus", str(stored), "--json"]
    told = json.loads(CliRunner().invoke(app, command).stdout)
    # a first boot has no last boot before it
    assert told == [{"rows": 16, "with an error": 4, "written to": str(tmp_path / "study.parquet")}]
    table = pl.read_parquet(tmp_path / "study.parquet")
    failed = table.filter(pl.col("error").is_not_null())
    assert set(failed["boot"]) == {"boot-1"}
    assert set(failed["plan"]) == {"last_boot"}
    assert failed["error"][0] == "last_boot: expected a boot of SYNTHETIC before boot-1, found none"
    assert CliRunner().invoke(app, command).exit_code == 0
    assert pl.read_parquet(tmp_path / "study.parquet").equals(table)


# --- settings and spaces ------------------------------------------------------------------------------


def test_every_setting_can_be_set_to_what_it_is():
    plan = vr.RestorePlan((8 << 20,), stage_depth=2, stage_ahead_bytes=1 << 20)
    hardware = MEDIA["tape"]
    for name in SETTINGS:
        value = plan if name.startswith("plan") else hardware
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        known = known_setting(name, value)
        changed, machine = with_settings(plan, hardware, {name: known})
        assert changed.equals(plan)
        assert machine == hardware


def test_settings_that_are_possible_only_together():
    plan = vr.RestorePlan((8 << 20,))
    weights = {"plan.weights.vm_reads": 60, "plan.weights.relocation_reads": 20}
    changed, _ = with_settings(plan, MEDIA["flash"], {"plan.priorities": "weighted", **weights})
    assert (changed.weights.vm_reads, changed.weights.relocation_reads, changed.weights.staging) == (
        60,
        20,
        20,
    )
    with pytest.raises(ValueError, match="sum to 100"):
        with_settings(plan, MEDIA["flash"], {"plan.weights.vm_reads": 60})


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), min_size=1, unique=True), max_size=4))
def test_a_grid_has_every_combination_once(axes):
    space = Space(axes)
    points = [tuple(space.point(number).items()) for number in range(len(space))]
    assert len(set(points)) == len(points)
    for name, values in axes.items():
        assert {dict(point)[name] for point in points} == set(values)


@given(st.integers(1, 40), st.integers(0, 5))
def test_a_sample_has_one_point_in_each_part_of_an_axis(size, seed):
    space = Space({"x": Between(0.0, float(size)), "y": ["a", "b"]}, size, seed)
    assert sorted(int(space.point(number)["x"]) for number in range(size)) == list(range(size))
    counted = [space.point(number)["y"] for number in range(size)].count("a")
    assert abs(counted - size / 2) <= 0.5
