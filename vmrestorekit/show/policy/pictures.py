"""Pictures of what an eviction policy keeps, and of all accesses with their hits and misses, as SVG."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from vmrestorekit.show.policy.reasons import POLICY_NAMES
from vmrestorekit.show.policy.steps import CacheState, PolicyStep
from vmrestorekit.show.theme import ORANGE, SOURCES, Sign

__all__ = ["HIT", "MISS", "legend", "policy_picture", "strip"]

HIT = dataclasses.replace(SOURCES["cache_hit"], name="hit")
MISS = dataclasses.replace(SOURCES["cache_miss"], name="miss")
_GOES = Sign("goes", ORANGE, "✕")
_CELL, _HIGH, _LABEL = 34, 26, 128  # user units of a cell, and of the names of the queues

# what is drawn for a policy: queue -> its name, and what its order means
_QUEUES = {
    "fifo": {"main": ("queue", "came first → last")},
    "lru": {"main": ("list", "used longest ago → just now")},
    "clock": {"main": ("queue", "oldest → newest; bit")},
    "sieve": {"main": ("queue", "oldest → newest; bit")},
    "s3fifo": {
        "small": ("small queue", "oldest → newest; uses"),
        "main": ("main queue", "oldest → newest; uses"),
        "ghost_small": ("ghost list", "numbers only"),
    },
    "arc": {
        "small": ("T1, used once", "oldest → newest"),
        "main": ("T2, used again", "oldest → newest"),
        "ghost_small": ("B1, gone from T1", "numbers only"),
        "ghost_main": ("B2, gone from T2", "numbers only"),
    },
    "belady": {"main": ("by next use", "farthest → soonest")},
}
_NAMES = 54  # user units for the names of the rows of a strip
_MARKED = {"clock", "sieve", "s3fifo", "belady"}  # something is written below each block


def policy_picture(policy: str, state: CacheState, step: PolicyStep | None, capacity: int) -> str:
    """Draw the queues of a policy as it keeps them.

    Parameters
    ----------
    policy : str
        A name of `vmrestorekit.restore.eviction.EVICTION_POLICIES`.
    state : CacheState
    step : PolicyStep, optional
        Whose block is to be seen: the one that was asked for, and the one that went.
    capacity : int
        Slots of the cache.
    """
    rows = _QUEUES[policy]
    row_height = 60 if policy in _MARKED else 46
    cells = max(capacity, *(len(state.queues[queue]) for queue in rows))
    width, height = _LABEL + cells * _CELL + 4, row_height * len(rows) + 40
    drawn = []
    for at, (queue, (name, order)) in enumerate(rows.items()):
        top = 8 + at * row_height
        drawn.append(_text(0, top + 12, name, "title") + _text(0, top + 25, order, "soft", 8.5))
        free = capacity if len(rows) == 1 else 0
        drawn.append(_queue(policy, queue, state, step, top, free))
    drawn.append(_last_row(policy, state, step, capacity, row_height * len(rows) + 12))
    label = f"{POLICY_NAMES[policy]}: {_in_words(policy, state)}"
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'style="max-width:{int(1.3 * width)}px">{"".join(drawn)}</svg>'
    )


def _queue(policy: str, queue: str, state: CacheState, step: PolicyStep | None, top: int, free: int) -> str:
    """Draw one row; `free` is how many slots are drawn in it though they hold nothing."""
    ghost, parts = queue.startswith("ghost"), []
    for at, block in enumerate(state.queues[queue]):
        x = _LABEL + at * _CELL
        sign = None
        if step is not None and block == step.block and not ghost:
            sign = HIT if step.hit else MISS
        elif step is not None and block == step.evicted and ghost:
            sign = _GOES
        parts.append(_block(x, top, block, sign, dashed=ghost))
        if not ghost and policy in _MARKED:
            parts.append(_mark(policy, block, state, x, top))
    if not state.queues[queue] and not free:
        parts.append(_text(_LABEL, top + 17, "empty", "soft"))
    for at in range(len(state.queues[queue]), free):
        parts.append(_rect(_LABEL + at * _CELL, top, "none", dashed=True))
    return "".join(parts)


def _mark(policy: str, block: int, state: CacheState, x: float, top: float) -> str:
    """Write below a block what the policy notes of it."""
    middle, below = x + _CELL / 2 - 1, top + _HIGH + 11
    if policy == "belady":
        at = state.next_use[block]
        return _text(middle, below, "never" if at is None else f"at {at + 1}", "soft", 9, "middle")
    visits = state.visits[block]
    look = "font-weight:700" if visits else "opacity:.75"
    note = f'<text x="{middle:g}" y="{below}" text-anchor="middle" style="{look}">{visits}</text>'
    if policy == "sieve" and block == (state.queues["main"][0] if state.hand is None else state.hand):
        note += _text(middle, below + 12, "▲ hand", "", 9, "middle")
    return note


def _last_row(policy: str, state: CacheState, step: PolicyStep | None, capacity: int, top: int) -> str:
    """Draw what went, and say how full the cache is."""
    said = f"{len(state.held)} of {capacity} slots in use"
    if policy == "arc":
        said += f"; target of T1: {state.target:.3g}"
    gone = ""
    if step is not None and step.evicted is not None:
        gone = _text(0, top + 16, "goes", "title") + _block(_LABEL, top, step.evicted, _GOES, dashed=False)
    return gone + _text(_LABEL + (_CELL + 10 if gone else 0), top + 16, said, "soft")


def _block(x: float, y: float, block: int, sign: Sign | None, *, dashed: bool) -> str:
    """Draw one block with its number; the letter in the corner says what the colour says."""
    fill = sign.colour if sign else "var(--vmrk-paper)" if dashed else "var(--vmrk-panel)"
    ink = sign.ink if sign else "var(--vmrk-soft)" if dashed else "var(--vmrk-ink)"
    number, size = str(block), 11 if len(str(block)) < 4 else 9 if len(str(block)) < 6 else 7
    letter = ""
    if sign:
        letter = f'<text x="{x + 3:g}" y="{y + 8:g}" style="fill:{ink};font-size:7px">{sign.letter}</text>'
    return (
        _rect(x, y, fill, dashed=dashed)
        + f'<text x="{x + _CELL / 2 - 1:g}" y="{y + 18:g}" text-anchor="middle" '
        f'style="fill:{ink};font-size:{size}px">{number}</text>{letter}'
    )


def _rect(x: float, y: float, fill: str, *, dashed: bool) -> str:
    dashes = "stroke-dasharray:3 2;" if dashed else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{_CELL - 3}" height="{_HIGH}" rx="3" '
        f'style="fill:{fill};stroke:var(--vmrk-line);{dashes}"/>'
    )


def _text(x: float, y: float, text: str, of: str = "", size: float = 0, anchor: str = "start") -> str:
    style = f' style="font-size:{size}px"' if size else ""
    return f'<text x="{x:g}" y="{y:g}" class="{of}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _in_words(policy: str, state: CacheState) -> str:
    """Return the queues for those who cannot see them."""
    return "; ".join(
        f"{name}, {order}: {', '.join(map(str, state.queues[queue])) or 'empty'}"
        for queue, (name, order) in _QUEUES[policy].items()
    )


# --- all accesses ---------------------------------------------------------------------------------------


def strip(
    accesses: Sequence[int], outcomes: Mapping[str, Sequence[bool]], first: int, count: int, seen: int
) -> str:
    """Draw a stretch of the accesses, with a row of hits and misses for each policy, as a map of cells.

    Parameters
    ----------
    accesses : sequence of int
    outcomes : mapping of str to sequence of bool
        Title of a row -> whether each access hits.
    first, count : int
        The stretch.
    seen : int
        The last access that was made; of later ones nothing is told.
    """
    cells = [_strip_cell(at, 0, str(accesses[first + at]), first + at == seen) for at in range(count)]
    cells.append(_row_name(0, "block"))
    for row, (name, hits) in enumerate(outcomes.items(), start=1):
        cells.append(_row_name(row, name))
        for at in range(count):
            made = first + at <= seen
            cells.append(_outcome_cell(at, row, (HIT if hits[first + at] else MISS) if made else None))
    height, width = 12 * (1 + len(outcomes)), 12 * count + _NAMES
    return (
        f'<svg viewBox="{-_NAMES} -0.5 {width + 1} {height + 1}" style="max-width:{int(2.5 * width)}px">'
        f"{''.join(cells)}</svg>"
    )


def _row_name(row: int, name: str) -> str:
    return _text(-3, 12 * row + 8, name, "soft", 5, "end")


def _strip_cell(column: int, row: int, text: str, current: bool) -> str:
    size = 5.5 if len(text) < 4 else 4.2 if len(text) < 6 else 3.2
    look = "font-weight:700" if current else ""
    fill = "var(--vmrk-panel)" if current else "none"
    return (
        f'<rect x="{12 * column}" y="{12 * row}" width="12" height="12" '
        f'style="fill:{fill};stroke:var(--vmrk-line);stroke-width:.3"/>'
        f'<text x="{12 * column + 6}" y="{12 * row + 8}" text-anchor="middle" '
        f'style="font-size:{size}px;{look}">{text}</text>'
    )


def _outcome_cell(column: int, row: int, sign: Sign | None) -> str:
    fill = sign.colour if sign else "none"
    letter = ""
    if sign:
        letter = (
            f'<text x="{12 * column + 6}" y="{12 * row + 8}" text-anchor="middle" '
            f'style="font-size:5.5px;fill:{sign.ink}">{sign.letter}</text>'
        )
    return (
        f'<rect x="{12 * column + 0.5}" y="{12 * row + 0.5}" width="11" height="11" rx="1.5" '
        f'style="fill:{fill};stroke:var(--vmrk-line);stroke-width:.3"/>{letter}'
    )


def legend() -> str:
    """Return what the colours and letters mean."""
    items: Iterable[Sign] = (HIT, MISS, _GOES)
    squares = "".join(
        f'<li><svg viewBox="0 0 12 12"><rect width="12" height="12" rx="2" fill="{sign.colour}"/>'
        f'<text class="letter" x="6" y="9" style="fill:{sign.ink}">{sign.letter}</text></svg>{sign.name}</li>'
        for sign in items
    )
    return f'<ul class="legend">{squares}<li>dashed: free, or remembered only</li></ul>'
