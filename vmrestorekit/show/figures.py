"""Figures beside the pictures: at this instant, and of the whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from vmrestorekit.restore.timeline import IN_CACHE, IN_FLIGHT, RELOCATED, STORED, WRITTEN, State
from vmrestorekit.show.progress import Progress
from vmrestorekit.show.theme import mode_name
from vmrestorekit.show.units import duration, share, size

__all__ = ["at_this_instant", "of_the_whole_run"]


def at_this_instant(progresses: Sequence[Progress], states: Sequence[State]) -> str:
    """Return a table of where each timeline stands now, as HTML."""
    columns = [_now(progress, state) for progress, state in zip(progresses, states, strict=True)]
    rows = [(name, [column[name] for column in columns]) for name in columns[0]]
    return _table("At this instant", [mode_name(p.timeline.plan.mode) for p in progresses], rows)


def _now(progress: Progress, state: State) -> dict[str, str]:
    row, plan = state.index, progress.timeline.plan
    hits, asked = progress.hits(row)
    used = state.count(IN_CACHE | IN_FLIGHT)
    written = state.count(WRITTEN)
    relocated = "never" if plan.mode == "live_mount" else share(state.count(RELOCATED), state.count(STORED))
    return {
        "Phase": state.phase,
        "VM": progress.vm_state(row),
        "VM's waits so far": duration(progress.waited_ns(row)),
        "Read cache hits so far": f"{share(hits, asked)} of {asked:,}" if asked else "–",
        "Read from the backup so far": size(progress.media_bytes(row)),
        "Read cache now": f"{size(used * plan.block_bytes)} of {size(plan.cache_bytes)}",
        "Written, not applied": f"{written:,} blocks",
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


def of_the_whole_run(progresses: Sequence[Progress]) -> str:
    """Return a table of the runs' summaries, with the difference if there are two, as HTML."""
    summaries = [progress.timeline.summary() for progress in progresses]
    heads = [mode_name(progress.timeline.plan.mode) for progress in progresses]
    rows = []
    for name, (metric, written) in _RUN.items():
        values = [summary.get(metric) for summary in summaries]
        if all(value is None for value in values):
            continue
        cells = ["–" if value is None else written(value) for value in values]
        if len(values) == 2:
            cells.append(_difference(values[0], values[1], written))
        rows.append((name, cells))
    last = [independence(progress) for progress in progresses]
    rows.append(("Independent of the backup", last + ([""] if len(last) == 2 else [])))
    return _table("The whole run", heads + (["difference"] if len(heads) == 2 else []), rows)


def _difference(one: float | None, other: float | None, written: Callable[[float], str]) -> str:
    if one is None or other is None:
        return ""
    if one == other:
        return "none"
    return f"{'+' if other > one else '−'}{written(abs(other - one))}"


def independence(progress: Progress) -> str:
    """Return from when on the virtual machine needs the backup copy no more."""
    pivot = progress.time_of("use_destination")
    if pivot is not None:
        return f"after {duration(pivot)}"
    return "never: gone at expiry" if progress.time_of("expire") is not None else "never"


def _table(caption: str, heads: list[str], rows: list[tuple[str, list[str]]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    return (
        f'<table><caption>{caption}</caption><thead><tr><th scope="col"></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
