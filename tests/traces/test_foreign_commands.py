"""``vmrestorekit traces import`` and ``export``."""

from __future__ import annotations

import pytest
from foreign_contract import SAMPLES
from tiny_boots import tiny_trace
from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.traces.foreign import ForeignFormatError, import_trace
from vmrestorekit.traces.schema import ReadTrace


def run(*words: object) -> str:
    done = CliRunner().invoke(app, ["traces", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_import(tmp_path):
    out = tmp_path / "trace.parquet"
    said = run("import", "nbdkit", SAMPLES / "nbdkit.log", "-o", out)
    assert "trace.parquet: 15 requests (nbdkit log filter)" in said.replace("\n", "")
    assert ReadTrace.load(out).frame.equals(import_trace("nbdkit", SAMPLES / "nbdkit.log").frame)
    assert run("validate", out).strip() == "no problems found"


def test_export(tmp_path):
    tiny_trace().save(tmp_path / "trace.parquet")
    run("export", tmp_path / "trace.parquet", "csv", tmp_path / "trace.csv")
    assert import_trace("csv", tmp_path / "trace.csv").frame.equals(tiny_trace().frame)


def test_bad_input_writes_nothing(tmp_path):
    with pytest.raises(ForeignFormatError, match="line 1: expected"):
        run("import", "fio", SAMPLES / "nbdkit.log", "-o", tmp_path / "trace.parquet")
    assert list(tmp_path.iterdir()) == []
