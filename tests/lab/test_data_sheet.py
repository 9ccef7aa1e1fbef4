"""The data sheet says what is in the corpus, in the figures that the commands print."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.traces.corpus import Corpus

ROOT = Path(__file__).parents[2]
SHEET = ROOT / "data" / "traces" / "README.md"
# of the tables that `vmrestorekit traces summary` prints, in this order
OF_THE_SUMMARY = ("working sets", "read again", "repeatability")

Rows = list[list[str]]


@pytest.fixture(scope="module")
def data_sheet() -> ModuleType:
    """The tool that writes the tables."""
    spec = importlib.util.spec_from_file_location("data_sheet", ROOT / "tools" / "data_sheet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables(data_sheet: ModuleType, packaged_corpus: Corpus) -> dict[str, pl.DataFrame]:
    made: dict[str, pl.DataFrame] = data_sheet.tables(packaged_corpus)
    return made


@pytest.fixture(scope="module")
def sheet() -> dict[str, str]:
    """Each table between its marks, by name."""
    text = SHEET.read_text(encoding="utf-8")
    found = re.findall(r"^<!-- (?!end)(.+?) -->\n(.*?)\n<!-- end -->$", text, re.DOTALL | re.MULTILINE)
    assert len(found) == text.count("<!-- end -->") == text.count("<!--") / 2
    return dict(found)


@pytest.fixture
def run(packaged_corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    """Run a command on the corpus as it was loaded for all tests: what boots read is not looked for again."""
    monkeypatch.setattr("vmrestorekit.traces.corpus.load_corpus", lambda _path=None: packaged_corpus)

    def run(*words: str) -> list[Rows]:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return printed_tables(done.stdout)

    return run


def printed_tables(text: str) -> list[Rows]:
    """The tables that a command printed for people, each with its head."""
    tables: list[Rows] = []
    for line in text.splitlines():
        if line.startswith("┏"):
            tables.append([])
        elif line[:1] in ("┃", "│"):
            tables[-1].append([cell.strip() for cell in re.split("[┃│]", line)[1:-1]])
    return tables


def rows_of(markdown: str) -> Rows:
    """The same of a table in Markdown."""
    head, align, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines())
    assert set("".join(align)) <= set("-:")
    return [head, *rows]


def chosen(table: Rows, names: list[str]) -> Rows:
    """Some columns of a table, their names without underscores."""
    columns = [[name.replace("_", " ") for name in table[0]].index(name) for name in names]
    return [names, *([row[column] for column in columns] for row in table[1:])]


def test_every_table_is_what_the_tool_would_write(
    data_sheet: ModuleType, tables: dict[str, pl.DataFrame], sheet: dict[str, str]
) -> None:
    assert set(sheet) == set(tables)
    mend = "bring the sheet up to date: python tools/data_sheet.py"
    for name, table in tables.items():
        assert sheet[name].splitlines() == data_sheet.as_markdown(table).splitlines(), f"{name}: {mend}"


def test_the_recordings_are_those_that_the_command_lists(run, sheet: dict[str, str]) -> None:
    (printed,) = run("traces", "list")
    rows = rows_of(sheet["recordings"])
    assert len(rows) > 100
    assert chosen(printed, rows[0]) == rows


def test_the_figures_are_those_of_the_summary(run, packaged_corpus: Corpus, sheet: dict[str, str]) -> None:
    printed = run("traces", "summary")
    assert len(printed) == len(OF_THE_SUMMARY)
    for name, table in zip(OF_THE_SUMMARY, printed, strict=True):
        rows = rows_of(sheet[name])
        assert len(rows) > len(packaged_corpus) - 5
        assert [[name.replace("_", " ") for name in table[0]], *table[1:]] == rows


def test_the_guests_are_as_their_descriptions_say(packaged_corpus: Corpus, sheet: dict[str, str]) -> None:
    head, *rows = rows_of(sheet["guests"])
    assert [row[0] for row in rows] == list(packaged_corpus)
    for cells in rows:
        row = dict(zip(head, cells, strict=True))
        vm = packaged_corpus[row["vm"]]
        assert row["release"] == vm.release
        assert row["roles"] == ", ".join(vm.roles)
        assert row["file systems"] == ", ".join(vm.description["file_systems"])
        assert row["clone of"] == ("" if vm.lineage == vm.name else vm.lineage)
        assert int(row["recordings"]) == len(vm.recordings)
        kernels = dict.fromkeys(boot.metadata.versions["kernel"] for boot in vm.recordings)
        assert row["kernel"] == ", then ".join(kernels)
        gib = [str(size // 2**30) for size in vm.boots[0].disk_bytes]
        assert row["disks"] == " + ".join(gib) + " GiB"
        marks = [boot.metadata.marks for boot in vm.recordings]
        used = pl.Series([each["service_end_ns"] - each["service_start_ns"] for each in marks])
        assert float(row["client s"]) == pytest.approx(float(used.median()) / 1e9, abs=0.5)


def test_the_tool_leaves_a_sheet_that_is_up_to_date_as_it_is(
    data_sheet: ModuleType,
    tables: dict[str, pl.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = SHEET.read_text(encoding="utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(text.replace("| bookworm-db |", "| nobody |"), encoding="utf-8")
    monkeypatch.setattr(data_sheet, "SHEET", copy)
    monkeypatch.setattr(data_sheet, "load_corpus", lambda path: path)
    monkeypatch.setattr(data_sheet, "tables", {tmp_path: tables}.__getitem__)
    data_sheet.main()
    assert copy.read_text(encoding="utf-8") == text
    copy.write_text(text.replace("<!-- guests -->", ""), encoding="utf-8")
    with pytest.raises(SystemExit, match="expected a place for the table of guests"):
        data_sheet.main()
