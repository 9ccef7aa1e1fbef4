"""What came of tries at a first set, as a chart, tables and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from vmrestorekit.show.chart_frame import Chart, finished, heading
from vmrestorekit.show.first_set.disk_contents import DiskContents
from vmrestorekit.show.first_set.tries import HIT, LEFT, MISSED, UNREAD, WAITED, Try
from vmrestorekit.show.theme import BLUE, GREY

__all__ = ["history_frame", "history_table", "kinds_table", "sentence", "stall_chart"]

_NAMES = alt.Axis(labelLimit=220, labelPadding=8, ticks=False, domain=False)
_SHOWN = 8  # tries in the chart and the table: the last ones


def sentence(number: int, tried: Try, others: Mapping[str, float], block_bytes: int) -> str:
    """Say what came of a try."""
    mb = block_bytes / 1e6
    nothing = next(iter(others.values()))
    asked = sum(map(tried.count, (HIT, WAITED, MISSED)))
    over = f" ({tried.left_out * mb:.0f} MB more did not fit into the budget)" if tried.left_out else ""
    return (
        f"Try {number}: {tried.first_set.size * mb:.0f} MB in the first set{over}, "
        f"{tried.rules.head_start_s} s of head start. The boot stalls {tried.stall_s:.2f} s "
        f"({nothing:.2f} s with nothing pre-staged). Of {asked:,} blocks that it asks for, "
        f"{tried.count(HIT):,} hit, "
        f"{tried.count(WAITED):,} were still on their way, {tried.count(MISSED):,} were missed; "
        f"{tried.count(UNREAD) * mb:.0f} MB were picked in vain."
    )


def history_frame(tries: Sequence[Try], block_bytes: int) -> pl.DataFrame:
    """Return a row a try."""
    mb = block_bytes / 1e6
    return pl.DataFrame(
        [
            {
                "try": number,
                "picked": tried.picked,
                "budget (MB)": tried.rules.budget_mb,
                "head start (s)": tried.rules.head_start_s,
                "first set (MB)": round(tried.first_set.size * mb, 1),
                "left out (MB)": round(tried.left_out * mb, 1),
                "stall (s)": round(tried.stall_s, 2),
                "hits": tried.count(HIT),
                "on their way": tried.count(WAITED),
                "misses": tried.count(MISSED),
                "in vain (MB)": round(tried.count(UNREAD) * mb, 1),
            }
            for number, tried in enumerate(tries, 1)
        ]
    )


def history_table(tries: Sequence[Try], block_bytes: int, looked_at: int) -> str:
    """Return the last tries as HTML, the one that is looked at marked."""
    frame = history_frame(tries, block_bytes)
    rows = "".join(
        _row(row, head="▶ " if row["try"] == looked_at + 1 else "") for row in frame.tail(_SHOWN).to_dicts()
    )
    left = " style='text-align:left'"
    head = "".join(f"<th scope='col'{left * (name == 'picked')}>{name}</th>" for name in frame.columns)
    return f"<table><caption>Your tries</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(row: Mapping[str, Any], *, head: str) -> str:
    first, picked, *others = row.values()
    cells = "".join(f"<td>{value:,}</td>" for value in others)
    wraps = "text-align:left;white-space:normal;min-width:14em;max-width:30em"
    left = f'<td style="{wraps}">{escape(picked)}</td>'
    return f"<tr><th scope='row'>{head}{first}</th>{left}{cells}</tr>"


def kinds_table(tried: Try, contents: DiskContents, title: str) -> str:
    """Return as HTML what was picked, read and missed, by the kind of file that each block holds most of."""
    kinds, mb = contents.kinds(), contents.block_bytes / 1e6
    code = tried.outcome[kinds["block"].to_numpy()]
    picked = np.zeros(tried.outcome.size, bool)
    picked[tried.first_set] = True
    counted = kinds.with_columns(
        picked=picked[kinds["block"].to_numpy()],
        read=(code != LEFT) & (code != UNREAD),
        missed=code == MISSED,
        vain=code == UNREAD,
    )
    each = counted.group_by("what").agg(pl.col("picked", "read", "missed", "vain").sum() * mb)
    rows = "".join(
        f"<tr><th scope='row'>{escape(what)}</th>"
        + "".join(f"<td>{value:.1f}</td>" for value in values)
        + "</tr>"
        for what, *values in each.sort("missed", "what", descending=[True, False]).iter_rows()
    )
    names = ("MB by kind of file", "in the first set", "read by the boot", "of it missed", "in vain")
    head = "".join(f"<th scope='col'>{name}</th>" for name in names)
    table = f"<table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return table + _most_missed(tried, contents)


def _most_missed(tried: Try, contents: DiskContents) -> str:
    """Name the folders in which most blocks were missed."""
    missed = np.flatnonzero(tried.outcome == MISSED).astype(np.int32)
    if not missed.size:
        return "<p>Nothing was missed.</p>"
    folders = contents.pieces.filter(pl.col("block").is_in(missed)).group_by("folder")
    most = folders.agg(blocks=pl.col("block").n_unique()).sort("blocks", "folder", descending=[True, False])
    told = ", ".join(f"{folder} ({blocks:,} blocks)" for folder, blocks in most.head(4).iter_rows())
    return f"<p>Most was missed in {escape(told)}.</p>"


def stall_chart(tries: Sequence[Try], others: Mapping[str, float], looked_at: int) -> Chart:
    """Return the stall of the last tries, and of others by the rules of the one that is looked at."""
    rules = tries[looked_at].rules
    own = [
        (f"try {number} · {tried.rules.budget_mb} MB, {tried.rules.head_start_s} s", tried.stall_s, "yours")
        for number, tried in enumerate(tries, 1)
    ][-_SHOWN:]
    rows = [*own, *((name, stall, "for comparison") for name, stall in others.items())]
    frame = pl.DataFrame(
        rows, {"first set": pl.String, "stall": pl.Float64, "whose": pl.String}, orient="row"
    )
    title = heading(
        "How long the boot waits for the backup",
        f"for comparison: the same {rules.budget_mb} MB, {rules.head_start_s} s of head start",
    )
    scale = alt.Scale(domain=["yours", "for comparison"], range=[BLUE, GREY])
    bars = alt.Chart(frame).mark_bar(height=15).encode(
        alt.X("stall:Q", title="stall (s)", scale=alt.Scale(domainMin=0)),
        alt.Y("first set:N", sort=None, title=None, axis=_NAMES),
        alt.Color("whose:N", scale=scale, legend=alt.Legend(orient="bottom", title=None)),
        tooltip=["first set:N", alt.Tooltip("stall:Q", title="stall (s)", format=".2f")],
    )  # fmt: skip
    return finished(bars.properties(width=300, height=22 * len(rows)), title)
