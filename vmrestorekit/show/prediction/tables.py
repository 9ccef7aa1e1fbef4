"""What a prediction comes to, in words and tables."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import polars as pl

from vmrestorekit.show.prediction.charts import NO_PREDICTION, ORACLE
from vmrestorekit.show.prediction.data import Needs, Prediction, files_of

__all__ = ["figures_table", "files_table", "sentence", "with_reasons"]

_ROWS = 8  # of a table of files
_LONGEST_PATH = 52


def with_reasons(
    prediction: Prediction, budget: int, known: Mapping[tuple[int | None, str | None], str]
) -> pl.DataFrame:
    """Return `files_of` with a column ``why``: what the machines that were learned from say of a file."""
    files = files_of(prediction, budget)
    why = [known.get(file, "") for file in files.select("disk", "path").iter_rows()]
    return files.with_columns(why=pl.Series(why, dtype=pl.String))


def files_table(files: pl.DataFrame, column: str, caption: str) -> str:
    """Return the files with most of a column as HTML."""
    some = files.filter(pl.col(column) > 0).sort(column, "path", descending=[True, False])
    is_known = bool((files["why"] != "").any())  # a list remembers nobody

    def words(text: str) -> str:
        return f"<td style='text-align:left'>{escape(text)}</td>" if is_known else ""

    rows = "".join(
        f"<tr><th title='{escape(row['path'] or 'no file')}'>{escape(_shortened(row['path']))}</th>"
        f"<td>{row[column]:,}</td>{words(row['why'])}</tr>"
        for row in some.head(_ROWS).iter_rows(named=True)
    )
    said = f"{caption}: {some.height:,}, {some[column].sum():,} KiB in all"
    said += f"; the {_ROWS} largest" if some.height > _ROWS else ""
    last = "<th style='text-align:left'>machines learned from</th>" if is_known else ""
    return (
        f"<table><caption>{said}</caption><thead><tr><th>file</th><th>KiB</th>{last}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _shortened(path: str | None) -> str:
    if path is None:
        return "(no file)"
    return path if len(path) <= _LONGEST_PATH else f"…{path[1 - _LONGEST_PATH :]}"


def figures_table(figures: pl.DataFrame, chosen: str, needs: Needs) -> str:
    """Return the figures of all predictors and both bounds for one budget as HTML."""
    rows = []
    for row in figures.iter_rows(named=True):
        name = escape(row["predictor"])
        cells = (
            _percent(row["recall"]),
            _percent(row["precision"]),
            f"{row['staged_mb']:.1f} MB",
            f"{row['waste_mb']:.1f} MB",
            "…" if row["stall_s"] is None else f"{row['stall_s']:.1f} s",
        )
        mark = " aria-current='true'" if row["predictor"] == chosen else ""
        head = f"<b>▸ {name}</b>" if mark else name
        rows.append(f"<tr{mark}><th>{head}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = ("predictor", "recall", "precision", "staged", "waste", "stall")
    budget = figures["budget_mb"][0]
    caption = f"With {budget:.1f} MB; the boot's blocks are {needs.megabytes(needs.needed):.1f} MB"
    return (
        f"<table><caption>{caption}</caption><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def sentence(figures: pl.DataFrame, chosen: str, needs: Needs) -> str:
    """Return what a budget comes to with the chosen predictor, in words."""
    of: dict[str, dict[str, Any]] = {row["predictor"]: row for row in figures.iter_rows(named=True)}
    row = of[chosen]
    told = (
        f"{chosen}, {row['budget_mb']:.1f} MB: of the {needs.needed:,} blocks that the boot reads, "
        f"{_percent(row['recall'])} are staged (recall). Of what is staged, {_percent(row['precision'])} is "
        f"read (precision): {row['waste_mb']:.1f} MB are staged and never read (waste)."
    )
    if row["stall_s"] is None:
        return f"{told} How long the boot is held up is not simulated yet."
    bounds = [
        f"{name} {of[name]['stall_s']:.1f} s"
        for name in (NO_PREDICTION, ORACLE)
        if name != chosen and of[name]["stall_s"] is not None
    ]
    beside = f" ({', '.join(bounds)})" if bounds else ""
    return f"{told} The boot is held up for {row['stall_s']:.1f} s{beside}."


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
