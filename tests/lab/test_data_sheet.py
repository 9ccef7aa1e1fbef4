"""The data sheet says what is in the corpus."""

from __future__ import annotations

import re
from pathlib import Path

from vmrestorekit.cli.traces import side_by_side
from vmrestorekit.traces.corpus import Corpus
from vmrestorekit.traces.in_common import read_again, repeatability
from vmrestorekit.traces.working_set import working_sets

FOLDER = Path(__file__).parents[2] / "data" / "traces"


def test_the_table_is_what_the_command_beside_it_prints(packaged_corpus: Corpus) -> None:
    columns = "vm boot follows requests reads read_mb distinct_read_mb writes boot_done_s".split()  # noqa: SIM905
    expected = [
        tuple(str(value) for value in row) for row in packaged_corpus.summary().select(columns).iter_rows()
    ]
    sheet = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in sheet.splitlines()]
    assert [row for row in rows if len(row) == len(columns) and re.match("boot-", row[1])] == expected


def test_the_figures_of_the_summary_are_what_the_command_prints(packaged_corpus: Corpus) -> None:
    tables = [
        working_sets(packaged_corpus).rows(),
        [tuple(row.values()) for row in side_by_side(read_again(packaged_corpus).to_dicts())],
        repeatability(packaged_corpus).rows(),
    ]
    expected = [
        tuple("" if value is None else str(value) for value in row) for table in tables for row in table
    ]
    sheet = (FOLDER / "README.md").read_text(encoding="utf-8")
    sheet = sheet[sheet.index("## What a boot reads") : sheet.index("## How it was recorded")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in sheet.splitlines()]
    assert [row for row in rows if row[0] in packaged_corpus] == expected


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 10_000_000
