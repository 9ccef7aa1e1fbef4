"""The command line: what it prints for people and for programs, and one sentence for bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vmrestorekit.cli import app, main
from vmrestorekit.plan import MODES
from vmrestorekit.restore.summary import SUMMARY_MEANING
from vmrestorekit.traces.corpus import Corpus

COMPARE = ["compare", "--vm", "bookworm-db", "--media", "object_storage", "--predictor", "last_boot"]


def plain(text: str) -> str:
    """Without colours, which are on in a terminal and on some CI machines."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return plain(done.stdout)


def run_main(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the program as installed, in this process."""
    monkeypatch.setattr(sys, "argv", ["vmrestorekit", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), plain(printed.out), plain(printed.err)


@pytest.mark.parametrize("words", [[], ["traces"], ["traces", "list"], ["simulate"], ["compare"], ["lab"]])
def test_help_is_there_at_every_level(words: list[str]) -> None:
    text = run(*words, "--help")
    assert "Usage" in text
    assert "--help" in text


def test_the_installed_program_lists_its_commands() -> None:
    program = Path(sys.executable).with_name("vmrestorekit")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, timeout=60)
    for command in ("simulate", "compare", "manifest", "traces", "lab"):
        assert command in plain(done.stdout)


def test_traces_list_has_one_row_a_recording(packaged_corpus: Corpus) -> None:
    rows = json.loads(run("traces", "list", "--json"))
    boots = {(boot.vm, boot.boot) for boot in packaged_corpus.recordings}
    assert {(row["vm"], row["boot"]) for row in rows} == boots
    assert len(rows) == len(boots)
    reads = {
        (boot.vm, boot.boot): (boot.trace.frame["op"] == "read").sum() for boot in packaged_corpus.recordings
    }
    assert {(row["vm"], row["boot"]): row["reads"] for row in rows} == reads
    assert [row["follows"] for row in rows] == [boot.follows for boot in packaged_corpus.recordings]
    # the same figures for people, nothing cut short in a pipe
    table = run("traces", "list")
    for row in rows:
        line = next(line for line in table.splitlines() if row["vm"] in line and row["boot"] in line)
        assert str(row["reads"]) in line


@pytest.fixture(scope="module")
def compared() -> list[dict[str, float | str | None]]:
    return json.loads(run(*COMPARE, "--json"))


def test_compare_has_the_three_modes_with_every_figure(compared: list[dict[str, float | str | None]]) -> None:
    assert [row["mode"] for row in compared] == list(MODES)
    for row in compared:
        assert set(row) == {"mode", *SUMMARY_MEANING}
        assert row["time_to_boot_ns"] > 0


def test_the_three_modes_differ_as_they_must(compared: list[dict[str, float | str | None]]) -> None:
    full, instant, mount = compared
    # a full restore copies everything first, then runs on primary storage
    assert full["stall_ns"] == full["misses"] == 0
    assert full["time_to_ready_ns"] > instant["time_to_ready_ns"] > instant["time_to_boot_ns"]
    assert full["launch_ns"] > instant["launch_ns"] == mount["launch_ns"]
    # an instant restore and a live mount boot from the backup copy, only the former copies it
    assert instant["media_bytes"] > 0 < mount["media_bytes"]
    assert instant["relocated_bytes"] == full["relocated_bytes"] > 0
    assert not mount["relocated_bytes"]
    assert not mount["writes_applied_bytes"]


def test_compare_for_people_has_the_modes_side_by_side() -> None:
    text = run(*COMPARE)
    assert any(all(mode in line for mode in MODES) for line in text.splitlines())


def test_simulate_is_one_of_the_modes_of_compare(
    compared: list[dict[str, float | str | None]], tmp_path: Path
) -> None:
    words = ["--mode", "live_mount", "--json", "-o", str(tmp_path / "events.parquet")]
    assert json.loads(run("simulate", *COMPARE[1:], *words)) == [compared[2]]
    assert (tmp_path / "events.parquet").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "--vm", "nobody"], "bookworm-db"),
        ([*COMPARE, "--boot", "boot-9"], "boot-9"),
        ([*COMPARE, "--media", "punched_cards"], "object_storage"),
        ([*COMPARE[:-1], "crystal_ball"], "last_boot"),
        ([*COMPARE, "--cache-mib", "0"], "cache"),
        ([*COMPARE, "--head-start", "-1"], "head"),
        ([*COMPARE, "--expiry", "1"], "expir"),
        (["simulate", *COMPARE[1:], "--mode", "teleport"], "live_mount"),
        (["traces", "list", "--corpus", "no/such/directory"], "no/such/directory"),
        (["traces", "show", "bookworm-db", "boot-9"], "boot-9"),
        (["manifest", "no-such.img"], "no-such.img"),
        (["lab", "build", "no-such.toml"], "no-such.toml"),
    ],
    ids=lambda found: " ".join(found) if isinstance(found, list) else "",
)
def test_bad_input_ends_with_one_sentence(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run_main(words, monkeypatch, capsys)
    assert status == 2
    assert out == ""
    assert err.startswith("vmrestorekit: ")
    assert says in err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err


def test_a_file_that_is_no_trace_is_a_problem_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace.parquet").write_bytes(b"this is no trace")
    words = ["traces", "validate", str(tmp_path / "trace.parquet")]
    status, out, _ = run_main(words, monkeypatch, capsys)
    assert status == 1
    assert "trace.parquet" in out
    status, out, _ = run_main([*words, "--json"], monkeypatch, capsys)
    assert status == 1
    assert "trace.parquet" in json.loads(out)[0]["problem"]


def test_a_missing_option_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run_main(["compare"], monkeypatch, capsys)
    assert status == 2
    assert "--vm" in err
