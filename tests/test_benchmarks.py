"""`vmrestorekit bench`: rows, ratios and targets, the README's table; the cache benchmark in small."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from vmrestorekit import cli
from vmrestorekit.cli import bench

DIRECTORY = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DIRECTORY))
    return importlib.import_module("runner")


@pytest.mark.parametrize(
    ("ours", "peer", "target", "ratio", "met"),
    [(24.0, 2.0, ">= 12", 12.0, True), (23.0, 2.0, ">= 12", 11.5, False), (0.3, 0.2, "<= 1.4", 1.5, False)],
)
def test_a_row_says_whether_the_target_is_met(
    runner: ModuleType, ours: float, peer: float, target: str, ratio: float, met: bool
) -> None:
    assert runner.compare("what", ours, peer, target) == {
        "name": "what",
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "target": target,
        "met": met,
    }


def test_the_table_keeps_other_rows_and_replaces_those_of_the_same_name(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{runner.BEGIN}\n\n| name |\n| --- |\n\n{runner.END}\nafter\n", "utf-8")
    monkeypatch.setattr(runner, "README", readme)
    runner.write_table([runner.compare("a", 2, 1, ">= 1"), runner.compare("b", 1, 1, ">= 1")])
    runner.write_table([runner.compare("a", 1, 2, ">= 1")])
    text = readme.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert [line for line in text.splitlines() if line.startswith("| ")][2:] == [
        "| a | 1.0 | 2.0 | 0.5 | >= 1 | **no** |",
        "| b | 1.0 | 1.0 | 1.0 | >= 1 | yes |",
    ]


def test_the_command_runs_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("libcachesim", reason="the peer of this benchmark is not installed")
    monkeypatch.syspath_prepend(str(DIRECTORY))
    bench = importlib.import_module("bench_cache")
    for name, value in (("REQUESTS", 30_000), ("BLOCKS", 5_000), ("CAPACITY", 500)):
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setitem(bench.HASH_POWERS, "default", 16)  # the real one takes 128 MB
    done = CliRunner().invoke(cli.app, ["bench", "cache", "--json"], catch_exceptions=False)
    rows = json.loads(done.stdout)
    assert [set(row) for row in rows] == [{"name", "ours", "peer", "ratio", "target", "met"}] * 3
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows)


@pytest.fixture
def bench_backup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark of the backup store in small, its large disk too."""
    monkeypatch.syspath_prepend(str(DIRECTORY))
    bench = importlib.import_module("bench_backup")
    for name, value in (("LARGE_GIB", 1), ("PLACES", 20), ("REPETITIONS", 1), ("READS", 10)):
        monkeypatch.setattr(bench, name, value)
    return bench


def test_without_a_guest_the_backup_benchmark_says_how_to_get_one_and_goes_on(
    bench_backup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VMRESTOREKIT_GUEST_IMAGE", raising=False)
    (row,) = bench_backup.bench_backup()
    assert "memory" in row["name"]
    assert 0.01 < row["ours"] < row["peer"] == 0.5
    assert "vmrestorekit lab build specs/trixie-web.toml -o web.img" in capsys.readouterr().err


def test_without_its_peers_the_backup_benchmark_says_what_to_install(
    bench_backup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMRESTOREKIT_GUEST_IMAGE", str(tmp_path / "web.img"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"the peers borg, restic, .*; apt-get install borgbackup restic"):
        bench_backup.bench_backup()


def test_the_backup_benchmark_in_small(
    bench_backup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = [program for program in bench_backup.PEERS if shutil.which(program) is None]
    if lacking or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip(f"the peers of this benchmark are not installed: {', '.join(lacking) or 'no FUSE'}")
    image = tmp_path / "guest.img"
    with open(image, "wb") as disk:
        for megabyte in (0, 5, 6):
            disk.seek(megabyte << 20)
            disk.write(random.Random(megabyte).randbytes(1 << 20))
        disk.truncate(16 << 20)
    monkeypatch.setenv("VMRESTOREKIT_GUEST_IMAGE", str(image))
    rows = bench_backup.bench_backup()
    assert len(rows) == 10
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows)


def test_an_unknown_benchmark_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"expected one of .*cache.*, got 'nix'"):
        CliRunner().invoke(cli.app, ["bench", "nix"], catch_exceptions=False)


def test_without_the_repository_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "vmrestorekit" / "cli" / "bench.py"))
    with pytest.raises(FileNotFoundError, match="they come with the repository, not with the package"):
        CliRunner().invoke(cli.app, ["bench"], catch_exceptions=False)
