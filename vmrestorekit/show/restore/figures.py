"""Figures beside the pictures: at this instant, and of the whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from vmrestorekit.restore.summary import time_of
from vmrestorekit.restore.timeline import IN_CACHE, IN_FLIGHT, RELOCATED, STORED, WRITTEN, State, Timeline
from vmrestorekit.show.restore.progress import happened, hits, media_bytes, vm_state, waited_ns
from vmrestorekit.show.theme import mode_name, styled
from vmrestorekit.show.units import duration, share, size

__all__ = ["at_this_instant", "of_the_whole_run"]


def at_this_instant(timelines: Sequence[Timeline], states: Sequence[State]) -> str:
    """Return a table of where each timeline stands now, as HTML."""
    columns = [_now(timeline, state) for timeline, state in zip(timelines, states, strict=True)]
    rows = {name: [column[name] for column in columns] for name in columns[0]}
    return _table("At this instant", _names(timelines), rows)


def _now(timeline: Timeline, state: State) -> dict[str, str]:
    row, plan = state.index, timeline.plan
    found, asked = hits(timeline, row)
    used = state.count(IN_CACHE | IN_FLIGHT)
    # after the pivot writes go to the destination
    written = 0 if happened(timeline, row, "use_destination") else state.count(WRITTEN)
    relocated = "never" if plan.mode == "live_mount" else share(state.count(RELOCATED), state.count(STORED))
    return {
        "Phase": state.phase,
        "VM": vm_state(timeline, row),
        "VM's waits so far": duration(waited_ns(timeline, row)),
        "Read cache hits so far": f"{share(found, asked)} of {asked:,}" if asked else "–",
        "Read from the backup so far": size(media_bytes(timeline, row)),
        "Read cache now": f"{size(used * plan.block_bytes)} of {size(plan.cache_bytes)}",
        "In the write cache": f"{written:,} blocks",
        "Relocated": relocated,
    }


# name -> metric, and how it is written
_RUN: dict[str, tuple[str, Callable[[float], str]]] = {
    "Time to boot": ("time_to_boot_ns", duration),
    "Stall beyond a local boot": ("stall_ns", duration),
    "Longest wait for a read": ("wait_max_ns", duration),
    "Read cache hit rate": ("hit_rate", lambda value: f"{100 * value:.1f} %"),
    "Read from the backup": ("media_bytes", size),
    "Read cache peak": ("peak_cache_bytes", size),
    "Relocation": ("relocation_ns", duration),
}


def of_the_whole_run(timelines: Sequence[Timeline]) -> str:
    """Return a table of the runs' summaries, with the difference if there are two, as HTML."""
    heads = _names(timelines)
    rows = {}
    for name, (metric, written) in _RUN.items():
        values = [timeline.summary().get(metric) for timeline in timelines]
        if any(value is not None for value in values):
            rows[name] = ["–" if value is None else written(value) for value in values]
            rows[name] += [_difference(values[0], values[1], written)] if len(values) == 2 else []
    rows["Independent of the backup"] = [_independence(timeline) for timeline in timelines]
    if len(timelines) == 2:
        heads.append("difference")
        rows["Independent of the backup"].append("")
    return _table("The whole run", heads, rows)


def _difference(one: float | None, other: float | None, written: Callable[[float], str]) -> str:
    if one is None or other is None:
        return ""
    if one == other:
        return "none"
    return f"{'+' if other > one else '−'}{written(abs(other - one))}"


def _independence(timeline: Timeline) -> str:
    """Return from when on the virtual machine needs the backup copy no more."""
    pivot = time_of(timeline.events, "use_destination")
    if pivot is not None:
        return f"after {duration(pivot)}"
    return "never: gone at expiry" if time_of(timeline.events, "expire") is not None else "never"


def _names(timelines: Sequence[Timeline]) -> list[str]:
    return [mode_name(timeline.plan.mode) for timeline in timelines]


def _table(caption: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, cells in rows.items()
    )
    return styled(
        f'<table><caption>{caption}</caption><thead><tr><th scope="col"></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
