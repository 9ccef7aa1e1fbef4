"""Write the tables of the data sheet (data/traces/README.md) anew from the corpus beside it.

Between the lines ``<!-- NAME -->`` and ``<!-- end -->`` stands what ``vmrestorekit traces list`` and ``traces
summary`` print, and what the catalogue says of the guests. A test compares the sheet with the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from vmrestorekit.cli.traces import side_by_side
from vmrestorekit.traces.corpus import Corpus, load_corpus
from vmrestorekit.traces.in_common import read_again, repeatability
from vmrestorekit.traces.working_set import working_sets

SHEET = Path(__file__).parents[1] / "data" / "traces" / "README.md"
RECORDINGS = (
    "vm",
    "boot",
    "follows",
    "requests",
    "reads",
    "read_mb",
    "distinct_read_mb",
    "writes",
    "boot_done_s",
)


def tables(corpus: Corpus) -> dict[str, pl.DataFrame]:
    """Return the tables of the sheet by name."""
    return {
        "guests": guests(corpus),
        "recordings": corpus.summary().select(RECORDINGS),
        "working sets": working_sets(corpus),
        "read again": pl.DataFrame(side_by_side(read_again(corpus).to_dicts())),
        "repeatability": repeatability(corpus),
    }


def guests(corpus: Corpus) -> pl.DataFrame:
    """Return one row a machine: what it is."""
    catalog = corpus.catalog()
    used_s = (_mark("service_end_ns") - _mark("service_start_ns")) / 1e9
    return catalog.group_by("vm", maintain_order=True).agg(
        release=pl.col("release").first(),
        roles=pl.col("roles").first().list.join(", "),
        kernel=pl.col("kernel").unique(maintain_order=True).str.join(", then "),
        disks=pl.col("disk_bytes").first().list.eval((pl.element() // 2**30).cast(pl.String)).list.join(" + ")
        + " GiB",
        file_systems=pl.col("file_systems").first().list.join(", "),
        clone_of=pl.when(pl.col("lineage").first() != pl.col("vm").first()).then(pl.col("lineage").first()),
        recordings=pl.len(),
        client_s=used_s.median().round(),
    )  # fmt: skip


def _mark(name: str) -> pl.Expr:
    named = pl.col("marks").list.filter(pl.element().struct.field("name") == name)
    return named.list.first().struct.field("value")


def as_markdown(table: pl.DataFrame) -> str:
    """Return a table as Markdown, numbers to the right."""
    align = ("---:" if dtype.is_numeric() else "---" for dtype in table.dtypes)
    rows = [[name.replace("_", " ") for name in table.columns], align]
    rows += [["" if value is None else str(value) for value in row] for row in table.iter_rows()]
    return "\n".join(_line(row) for row in rows)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the sheet."""
    text = SHEET.read_text(encoding="utf-8")
    for name, table in tables(load_corpus(SHEET.parent)).items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        found = pattern.search(text)
        if not found:
            raise SystemExit(f"{SHEET}: expected a place for the table of {name}, found none")
        text = text[: found.end(1)] + as_markdown(table) + "\n" + text[found.start(2) :]
    SHEET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
