"""Two restores that relocate differently: what differs, why it does, and a table of both."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import polars as pl

from vmrestorekit.restore.difference import Difference, difference
from vmrestorekit.restore.explain import WAITED_FOR_MEANING
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.theme import styled
from vmrestorekit.show.units import duration, size

__all__ = ["compare_figures", "figures_table", "reasons", "what_differs"]

SECOND = 1_000_000_000
_WORTH_NS, _WORTH = SECOND // 20, 0.02  # at least so much is worth telling, of times of all a relocation

# name -> metric, and how it is written
_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "Stall: what the backup costs the boot": ("stall_ns", duration),
    "99 % of the VM's reads wait at most": ("wait_p99_ns", duration),
    "Relocation starts at": ("relocation_start_ns", duration),
    "Relocation takes": ("relocation_ns", duration),
    "Backup copy released at": ("released_ns", duration),
    "Read from the backup": ("media_bytes", size),
    "in so many fetches": ("media_fetches", lambda value: f"{value:,.0f}"),
    "Read cache peak": ("peak_cache_bytes", size),
    "Purged from it": ("purged_bytes", size),
    "Evicted from it": ("evicted_bytes", size),
    "Fetched again after a purge (blocks)": ("refetches_after_purge", lambda value: f"{value:,.0f}"),
}


def compare_figures(reference: Timeline, this: Timeline) -> pl.DataFrame:
    """Return the figures of two runs: `figure`, and in words `reference`, `this`, `difference`."""
    one, other = reference.summary(), this.summary()
    rows = []
    for name, (metric, written) in _FIGURES.items():
        values = one[metric], other[metric]
        told = ["–" if value is None else written(value) for value in values]
        gap = None if None in values else values[1] - values[0]  # type: ignore[operator]
        sign = "" if gap is None else "+" if gap > 0 else "−"
        rows.append(
            (name, *told, "" if gap is None else "none" if gap == 0 else f"{sign}{written(abs(gap))}")
        )
    return pl.DataFrame(rows, schema=["figure", "reference", "this", "difference"], orient="row")


def figures_table(figures: pl.DataFrame) -> str:
    """Return what `compare_figures` returned as HTML."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", *figures.columns[1:]))
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in figures.iter_rows()
    )
    return styled(
        f"<details><summary>The whole run in figures</summary><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></details>"
    )


def what_differs(reference: Timeline, this: Timeline) -> str:
    """Return what is different in `this` restore, in two sentences at most."""
    if reference.plan.equals(this.plan):
        return "This is the reference itself. Change something, and see what it does."
    effects = [*_boot(difference(reference, this), reference, this), *_relocation(reference, this)]
    return " ".join(effects) or (
        "Boot, relocation and release take the same time in both, to a twentieth of a second."
    )


def reasons(reference: Timeline, this: Timeline) -> list[str]:
    """Return what the events give as reasons, a sentence each, the most particular first."""
    if reference.plan.equals(this.plan):
        return []
    return _reasons(difference(reference, this), reference, this)


def _boot(found: Difference, reference: Timeline, this: Timeline) -> list[str]:
    gap = found.difference_ns
    one, other = (timeline.summary()["stall_ns"] for timeline in (reference, this))
    if not found.booted or one is None or other is None or abs(gap) < _WORTH_NS:
        return []
    later = "later" if gap > 0 else "sooner"
    return [
        f"This one boots {duration(abs(gap))} {later}: "
        f"its stall is {duration(other)} instead of {duration(one)}."
    ]


def _relocation(reference: Timeline, this: Timeline) -> list[str]:
    told = []
    for words, metric in (
        ("the relocation takes", "relocation_ns"),
        ("the backup copy is free after", "released_ns"),
    ):
        one, other = (timeline.summary()[metric] for timeline in (reference, this))
        if one is not None and other is not None and abs(other - one) >= max(_WORTH_NS, _WORTH * one):
            told.append(f"{words} {duration(other)} instead of {duration(one)}")
    sentence = ", and ".join(told)
    return [f"{sentence[0].upper()}{sentence[1:]}."] if told else []


def _reasons(found: Difference, reference: Timeline, this: Timeline) -> list[str]:
    told = [reason(reference, this) for reason in (_eviction, _refetches, _destination, _jumps, _no_purge)]
    return [*filter(None, told), *_longest_part(found)]


def _eviction(reference: Timeline, this: Timeline) -> str:
    one, other = (timeline.summary()["evicted_bytes"] or 0 for timeline in (reference, this))
    if abs(other - one) < 0.02 * this.plan.cache_bytes:
        return ""
    if other < one:
        return f"The read cache had room: {size(other)} were evicted instead of {size(one)}."
    unread = int(this.events.filter(kind="evict", detail=1)["count"].sum()) * this.plan.block_bytes
    told = f"The read cache was full and evicted {size(other)} (the reference: {size(one)})"
    if unread < 0.1 * other:
        return f"{told}."
    return f"{told}, {size(unread)} of it unread. Priority protects the backup device, not the cache."


def _refetches(reference: Timeline, this: Timeline) -> str:
    one, other = (timeline.summary()["refetches_after_purge"] or 0 for timeline in (reference, this))
    if one == other:
        return ""
    if other < one:
        return f"Only {other:,.0f} blocks had to be fetched again after a purge, instead of {one:,.0f}."
    return (
        f"{other:,.0f} blocks (the reference: {one:,.0f}) were purged before they were on the destination, "
        "and had to be fetched again for the VM: a run may be made of anybody's reads, also of the VM's "
        "(O15, O16)."
    )


def _destination(reference: Timeline, this: Timeline) -> str:
    one, other = (_share_of_destination(timeline) for timeline in (reference, this))
    if abs(other - one) < 0.05:
        return ""
    return (
        f"{100 * other:.0f} % of what the VM read came from the destination, where it no longer needs the "
        f"backup (the reference: {100 * one:.0f} %)."
    )


def _share_of_destination(timeline: Timeline) -> float:
    read, there = (
        int(timeline.events.filter(kind=kind)["detail"].sum()) for kind in ("vm_read", "read_destination")
    )
    return there / read if read else 0.0


def _jumps(reference: Timeline, this: Timeline) -> str:
    one, other = (
        (timeline.summary()["media_bytes"] or 0) / max(1, timeline.summary()["media_fetches"] or 0)
        for timeline in (reference, this)
    )
    if not one or not other or 0.75 < other / one < 1.33:
        return ""
    follows = "jumps about on" if other < one else "follows"
    return (
        f"A fetch brings {size(other)} on average instead of {size(one)}: what is fetched {follows} the "
        "backup medium, and each jump costs positioning."
    )


def _no_purge(reference: Timeline, this: Timeline) -> str:
    one, other = (timeline.summary()["purged_bytes"] or 0 for timeline in (reference, this))
    peaks = [size(timeline.summary()["peak_cache_bytes"] or 0) for timeline in (reference, this)]
    if bool(one) == bool(other):
        return ""
    keeps = "keeps what the relocation has already read" if one else "drops what the relocation has read"
    return f"The read cache {keeps}: its peak is {peaks[1]} instead of {peaks[0]}."


def _longest_part(found: Difference) -> list[str]:
    """Return what most of the difference in waiting is for."""
    parts = dict(found.totals.select(pl.col("waited_for").cast(pl.String), "difference_ns").iter_rows())
    name = max(WAITED_FOR_MEANING, key=lambda part: abs(parts[part]))
    gap = parts[name]
    if abs(gap) < _WORTH_NS:
        return []
    more = "longer" if gap > 0 else "less long"
    what = "VM's boot" if found.booted else "VM"
    return [f"The {what} waits {duration(abs(gap))} {more} for {WAITED_FOR_MEANING[name]}."]
