"""The data sheet says what is in the corpus."""

from __future__ import annotations

import re
from pathlib import Path

from vmrestorekit.traces.corpus import Corpus

FOLDER = Path(__file__).parents[2] / "data" / "traces"


def test_the_table_is_what_the_command_beside_it_prints(packaged_corpus: Corpus) -> None:
    columns = "vm boot requests reads read_mb distinct_read_mb writes boot_done_s".split()  # noqa: SIM905
    expected = [
        tuple(str(value) for value in row) for row in packaged_corpus.summary().select(columns).iter_rows()
    ]
    sheet = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in sheet.splitlines()]
    assert [row for row in rows if len(row) == len(columns) and re.match("boot-", row[1])] == expected


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 10_000_000
