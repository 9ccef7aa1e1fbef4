"""What the cache explorer says: a sentence about a size and a policy, and a table of all policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from vmrestorekit.show.cache.charts import FIGURES, MISS_RATIO, POLICIES, policy_label
from vmrestorekit.show.units import size as size_text

__all__ = ["sentence_of", "table_at"]

_SAME = 0.1  # seconds of stall in which nobody sees a difference
_HEADS = {
    "stall_s": "Stall",
    "hit_rate": "Found in cache",
    "misses": "Misses",
    "evicted_mib": "Evicted",
    "refetches": "Fetched again after purge",
    "media_mib": "Read from backup",
    "peak_mib": "Most in cache",
    MISS_RATIO: "Misses, without time",
}
_UNITS = {
    "stall_s": "s",
    "hit_rate": "%",
    "evicted_mib": "MiB",
    "media_mib": "MiB",
    "peak_mib": "MiB",
    MISS_RATIO: "%",
}


def sentence_of(table: pl.DataFrame, size: int, policy: str) -> str:
    """Return what a size and a policy do, how others do, and from which size on nothing changes any more."""
    here = table.filter(pl.col("cache_bytes") == size, pl.col("policy") == policy).row(0, named=True)
    begin = f"{POLICIES[policy].name}, {size_text(size)}:"
    if "stall_s" not in table.columns:
        return f"{begin} {_without_time(table, size, here)}"
    if here["stall_s"] is None:
        return f"{begin} not simulated yet."
    said = (
        f"{begin} {here['stall_s']:.1f} s of stall; {here['hit_rate']:.0f} % of the blocks that the VM asks "
        f"for are found in the cache; {here['evicted_mib']:,.0f} MiB are evicted."
    )
    return " ".join([said, *_others(table, size, policy), *_enough(table)])


def _without_time(table: pl.DataFrame, size: int, here: Mapping[str, Any]) -> str:
    ratio = here[MISS_RATIO]
    best = table.filter(pl.col("cache_bytes") == size, pl.col("policy") == "belady")[MISS_RATIO][0]
    if ratio is None or best is None:
        return "not replayed yet."
    least = table.filter(policy="belady")[MISS_RATIO].to_numpy().min()
    return (
        f"{ratio:.1f} % of the accesses miss; Belady's optimum, which knows the future, misses {best:.1f} %. "
        f"At {least:.1f} % all curves end: a block's first access always misses."
    )


def _others(table: pl.DataFrame, size: int, policy: str) -> Iterable[str]:
    """Say which policy is the best at this size, once all are known."""
    at_size = table.filter(pl.col("cache_bytes") == size, pl.col("policy") != "belady")
    stalls = dict(at_size.select("policy", "stall_s").iter_rows())
    if None in stalls.values():
        return
    best = min(stalls, key=lambda name: stalls[name])
    if max(stalls.values()) - stalls[best] <= _SAME:
        yield f"All {len(stalls)} policies do the same at this size."
    elif stalls[policy] - stalls[best] <= _SAME:
        worst = max(stalls, key=lambda name: stalls[name])
        yield f"None is better at this size; {POLICIES[worst].name} is the worst with {stalls[worst]:.1f} s."
    else:
        yield f"Best at this size is {POLICIES[best].name} with {stalls[best]:.1f} s."


def _enough(table: pl.DataFrame) -> Iterable[str]:
    """Say from which size on nothing is evicted, once all are known."""
    known = table.filter(pl.col("policy") != "belady")
    if known["evicted_mib"].null_count():
        return
    evicted = known.group_by("cache_bytes").agg(pl.col("evicted_mib").max()).sort("cache_bytes")
    filled = evicted.filter(pl.col("evicted_mib") > 0)["cache_bytes"]
    enough = evicted.filter(pl.col("cache_bytes") > (filled[-1] if len(filled) else 0))["cache_bytes"]
    if len(enough):
        yield f"From {size_text(enough[0])} on nothing is evicted, and the policy does not matter."


def table_at(table: pl.DataFrame, size: int, policy: str) -> str:
    """Return all figures at a size as a table in HTML, a row for each policy; the chosen one is marked."""
    figures = [name for name in _HEADS if name in table.columns]
    if "refetches" in figures and not table["refetches"].sum():
        figures.remove("refetches")  # where nothing is purged
    heads = "".join(f'<th scope="col">{_HEADS[name]}</th>' for name in figures)
    lines = []
    for row in table.filter(pl.col("cache_bytes") == size).iter_rows(named=True):
        texts = [_text(name, row[name]) for name in figures]
        mark, weight = ("● ", 700) if row["policy"] == policy else ("", 400)
        cells = "".join(f'<td style="font-weight:{weight};white-space:nowrap">{text}</td>' for text in texts)
        label = f"{mark}{policy_label(row['policy'])}"
        lines.append(f'<tr><th scope="row" style="font-weight:{weight}">{label}</th>{cells}</tr>')
    return (
        f"<table><caption>All policies with a read cache of {size_text(size)}</caption>"
        f'<thead><tr><th scope="col">Policy</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    unit = f" {_UNITS[name]}" if name in _UNITS else ""
    return f"{format(value, FIGURES[name][1])}{unit}"
