"""`vmrestorekit bench`: rows, ratios and targets, the README's table; the cache benchmark in small."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from vmrestorekit import cli

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


def test_an_unknown_benchmark_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"expected one of .*cache.*, got 'nix'"):
        CliRunner().invoke(cli.app, ["bench", "nix"], catch_exceptions=False)


def test_without_the_repository_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "vmrestorekit" / "cli.py"))
    with pytest.raises(FileNotFoundError, match="they come with the repository, not with the package"):
        CliRunner().invoke(cli.app, ["bench"], catch_exceptions=False)
