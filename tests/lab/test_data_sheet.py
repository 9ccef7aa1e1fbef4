"""The data sheet says what is in the corpus."""

from __future__ import annotations

import re
from pathlib import Path

from vmrestorekit.traces.corpus import Corpus
from vmrestorekit.traces.working_set import overlaps, working_sets

FOLDER = Path(__file__).parents[2] / "data" / "traces"


def test_the_table_is_what_the_command_beside_it_prints(packaged_corpus: Corpus) -> None:
    columns = "vm boot requests reads read_mb distinct_read_mb writes boot_done_s".split()  # noqa: SIM905
    expected = [
        tuple(str(value) for value in row) for row in packaged_corpus.summary().select(columns).iter_rows()
    ]
    sheet = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in sheet.splitlines()]
    assert [row for row in rows if len(row) == len(columns) and re.match("boot-", row[1])] == expected


def test_working_sets_and_overlaps_are_what_the_command_prints(packaged_corpus: Corpus) -> None:
    sets = working_sets(packaged_corpus).unique("vm", keep="last", maintain_order=True)
    expected = [*sets.iter_rows(), *overlaps(packaged_corpus).iter_rows()]
    sheet = (FOLDER / "README.md").read_text(encoding="utf-8")
    sheet = sheet[sheet.index("## What a boot reads") : sheet.index("## How it was recorded")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in sheet.splitlines()]
    named = [row for row in rows if row[0] in packaged_corpus]
    assert named == [tuple(str(value) for value in row) for row in expected]


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 10_000_000
