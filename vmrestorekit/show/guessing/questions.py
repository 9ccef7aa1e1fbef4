"""Questions about moments of a timeline, drawn by a seed.

What is right is what the events say. A moment whose answer the rules do not explain, by the events before it,
is never asked about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np

from vmrestorekit.restore.eviction import EVICTION_POLICIES
from vmrestorekit.restore.timeline import IN_CACHE, IN_FLIGHT, RELOCATED, STORED, WRITTEN, Timeline
from vmrestorekit.show import units
from vmrestorekit.show.checks import expect_timeline
from vmrestorekit.show.guessing.past import Past, Rows
from vmrestorekit.show.sentences import tell

__all__ = ["QUESTION_KINDS", "READERS", "Question", "QuestionError", "draw_questions"]

# kind of question -> what it needs
QUESTION_KINDS = {
    "hit_or_miss": "reads that reach the media agent",
    "which_goes": "evictions that the policy explains",
    "what_next": "reads of single blocks from different places",
}
READERS = ("the VM", "the relocation")
_FOUND = {"cache_hit": "hit", "cache_wait": "wait", "cache_miss": "miss"}
_SOURCES = ("write cache", "destination", "media agent", "nowhere (a hole)")
_SOURCE_OF = {"read_write_cache": "write cache", "read_destination": "destination"}
_SOURCE_OF |= dict.fromkeys(_FOUND, "media agent")
_MOST_TRIES = 200  # moments looked at for one answer; each takes milliseconds
_APART_NS = 1_000_000  # times are told to the millisecond


class QuestionError(ValueError):
    """Questions that cannot be asked; the message says what was expected and what came."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a moment of a timeline; its repr does not tell the answer.

    Attributes
    ----------
    kind : str
        A name of `QUESTION_KINDS`.
    text : str
    options : tuple of str
        One of them is right.
    blocks : tuple of int
        The blocks it is about.
    index : int
        Row of the event that it is about.
    """

    kind: str
    text: str
    options: tuple[str, ...]
    blocks: tuple[int, ...]
    index: int
    _answer: str = dataclasses.field(repr=False)
    _explanation: str = dataclasses.field(repr=False)

    def answer(self) -> str:
        """Return the option that is right."""
        return self._answer

    def explanation(self) -> str:
        """Return why it is right, with times."""
        return self._explanation


def draw_questions(
    timeline: Timeline, count: int = 5, seed: int = 0, kinds: Collection[str] = tuple(QUESTION_KINDS)
) -> tuple[Question, ...]:
    """Draw questions about a timeline; the same seed draws the same ones.

    Kinds, and the answers within each, take turns as long as the timeline offers them.

    Parameters
    ----------
    timeline : Timeline
    count : int
        At least 1.
    seed : int
        At least 0.
    kinds : collection of str
        Names of `QUESTION_KINDS`.

    Returns
    -------
    tuple of Question
        In the order of time.

    Raises
    ------
    ValueError
        If an argument is none of these; a `QuestionError` if the timeline offers fewer questions.
    """
    expect_timeline("timeline", timeline)
    for name, number, least in (("questions", count, 1), ("seed", seed, 0)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
            raise QuestionError(f"{name}: expected a whole number of at least {least}, got {number!r}")
    names = [] if isinstance(kinds, str) or not isinstance(kinds, Collection) else list(kinds)
    known = list(QUESTION_KINDS)
    if not names or any(name not in known for name in names) or len(set(names)) < len(names):
        raise QuestionError(f"kinds: expected some of {', '.join(known)}, each once, got {kinds!r}")
    drawn = []
    for question in _in_turn(
        _STREAMS[name](timeline, np.random.default_rng([seed, known.index(name)])) for name in names
    ):
        drawn.append(question)
        if len(drawn) == count:
            return tuple(sorted(drawn, key=lambda each: each.index))
    needed = ", ".join(f"{name} ({QUESTION_KINDS[name]})" for name in names)
    raise QuestionError(
        f"questions: expected at most {len(drawn)}, as this timeline offers no more for {needed}, got {count}"
    )


def _in_turn(streams: Iterable[Iterator[Question]]) -> Iterator[Question]:
    """Give a question of each stream in turn, until all have ended."""
    left = list(streams)
    while left:
        for stream in tuple(left):
            if (question := next(stream, None)) is None:
                left.remove(stream)
            else:
                yield question


def _asked(
    timeline: Timeline,
    groups: Iterable[Rows],
    ask: Callable[[Past, np.random.Generator], Question | None],
    rng: np.random.Generator,
) -> Iterator[Question]:
    """Give the questions at the rows of each group in turn, the rows of each in a drawn order."""

    def of(rows: Rows) -> Iterator[Question]:
        asked = (ask(Past(timeline, row), rng) for row in rng.permutation(rows)[:_MOST_TRIES].tolist())
        return (question for question in asked if question is not None)

    return _in_turn([of(rows) for rows in groups])


# --- hit or miss? ---------------------------------------------------------------------------------------


def _hits_and_misses(timeline: Timeline, rng: np.random.Generator) -> Iterator[Question]:
    """Take turns of the answers; in each of both readers, and of blocks that came before or never did."""
    block, count, reader = (timeline.events[name].to_numpy() for name in ("block", "count", "detail"))
    came, arrivals = Past(timeline, len(timeline) - 1).named("staged")
    first = np.full(timeline.plan.blocks, len(timeline))
    first[came[::-1]] = arrivals[::-1]
    answers = []
    for kind in rng.permutation(list(_FOUND)):
        rows = np.flatnonzero(timeline.are_of_kind(kind) & (count == 1))
        group = 2 * reader[rows] + (first[block[rows]] < rows)
        answers.append(_asked(timeline, [rows[group == each] for each in rng.permutation(4)], _found, rng))
    return _in_turn(answers)


def _found(past: Past, rng: np.random.Generator) -> Question | None:
    answer, block = _FOUND[past.kind], units.blocks(past.block, 1)
    why = _why_found(past, answer)
    text = (
        f"At {past.time(past.row)} {READERS[past.detail]} asks the media agent for {block}. Is it in the "
        "read cache (hit), on its way there (wait), or neither (miss)?"
    )
    told = f"{tell(past.timeline, past.row)} {why}"
    options = tuple(_FOUND.values())
    return Question("hit_or_miss", text, options, (past.block,), past.row, answer, told) if why else None


def _why_found(past: Past, answer: str) -> str:
    """Return what had become of the block; nothing if that does not lead to the answer."""
    came, begun = (int(past.last(kind)[past.block]) for kind in ("staged", "fetch"))
    here = past.flags[past.block]
    if answer == "hit":
        since = f"It came at {past.time(came)}, and was neither evicted nor purged since."
        return since if here & IN_CACHE and came >= 0 else ""
    if here & IN_CACHE or (answer == "miss" and here & IN_FLIGHT):
        return ""
    if answer == "wait":
        if here & IN_FLIGHT:
            return f"Its fetch began at {past.time(begun)}."
        later = past.timeline.events[past.row :].filter(kind="fetch")
        later = later.filter(later["block"] <= past.block, later["block"] + later["count"] > past.block)
        return f"Its fetch stands in the queue until {units.clock(later[0, 0])}." if later.height else ""
    if came < 0:
        in_first_set = past.block in past.timeline.plan.first_set
        more = "; its turn in the first set had not come yet" if in_first_set else ""
        return f"It was never in the read cache before{more}."
    gone = {
        name: int(past.last(kind)[past.block]) for name, kind in (("evicted", "evict"), ("purged", "purge"))
    }
    gone["lost with the whole cache"] = int(past.rows("lose_media_agent", "empty_read_cache").max(initial=-1))
    how = max(gone, key=lambda each: gone[each])
    return (
        f"It came at {past.time(came)} and was {how} at {past.time(gone[how])}." if gone[how] > came else ""
    )


# --- which block goes? ----------------------------------------------------------------------------------


def _evictions(timeline: Timeline, rng: np.random.Generator) -> Iterator[Question]:
    return _asked(timeline, [np.flatnonzero(timeline.are_of_kind("evict"))], _which_goes, rng)


def _which_goes(past: Past, rng: np.random.Generator) -> Question | None:
    policy, others = past.timeline.plan.eviction, _others(past)
    if len(others) < 2:
        return None
    # the first one tempts those who take the policy for another
    drawn = [int(others[0]), *rng.permutation(others[1:])[:2].tolist()]
    blocks = tuple(sorted([past.block, *drawn]))
    text = f"At {past.time(past.row)} a block of the read cache has to go. By {policy.upper()}, which one?"
    told = " ".join(map(past.in_cache, blocks))
    told = f"{tell(past.timeline, past.row)} {policy.upper()}: {EVICTION_POLICIES[policy]}. {told}"
    first = {"fifo": "came first", "lru": "was used least recently (to come counts as use)"}
    told += f" Of these, {units.blocks(past.block, 1)} {first.get(policy, 'alone had no hit since it came')}."
    options = tuple(units.blocks(block, 1) for block in blocks)
    answer = units.blocks(past.block, 1)
    return Question("which_goes", text, options, blocks, past.row, answer, told)


def _others(past: Past) -> Rows:
    """Return blocks that would have gone but for the policy; none if it does not explain the eviction."""
    came, used = past.last("staged"), past.last("staged", "cache_hit")
    there = (past.flags & IN_CACHE > 0) & (came >= 0)
    # also for staging: served since it came, and nobody waits for it
    may_go = there & (past.last("serve") > came) & (past.count(*_FOUND) <= past.count("serve"))
    may_go[past.block] = False
    others: Rows = np.flatnonzero(may_go)
    if past.timeline.plan.eviction not in ("fifo", "lru"):  # all of them spare what was used again
        hits = past.count("cache_hit", since=came)
        spared = others[hits[others] > (past.timeline.plan.eviction == "s3fifo")]
        return spared[np.argsort(came[spared])] if there[past.block] and not hits[past.block] else spared[:0]
    key, tempting = (came, used) if past.timeline.plan.eviction == "fifo" else (used, came)
    if not there[past.block] or np.any(key[others] < key[past.block]):
        return others[:0]
    times = past.timeline.times
    others = others[times[key[others]] - times[key[past.block]] >= _APART_NS]
    return others[np.argsort(tempting[others])]


# --- what next? -----------------------------------------------------------------------------------------


def _reads(timeline: Timeline, rng: np.random.Generator) -> Iterator[Question]:
    """Take turns of the places that single blocks were read from, if there are several."""
    request = timeline.events["request"].to_numpy()
    rows = np.flatnonzero(timeline.are_of_kind("vm_read") & (timeline.events["count"].to_numpy() == 1))
    source = np.full(len(rows), len(_SOURCES) - 1)
    for kind, name in _SOURCE_OF.items():
        source[np.isin(request[rows], request[timeline.are_of_kind(kind)])] = _SOURCES.index(name)
    places = rng.permutation(np.unique(source))
    return _asked(timeline, [rows[source == place] for place in places if len(places) > 1], _what_next, rng)


def _what_next(past: Past, rng: np.random.Generator) -> Question | None:
    of_request = past.timeline.events[past.row :].filter(request=past.timeline.events["request"][past.row])
    kinds = of_request["kind"].to_list()
    answer, why = _routed(past)
    there, _, place = past.relocation()
    applied = past.last("applied")[past.block] >= 0
    in_order = applied or (place and place <= there) == bool(past.flags[past.block] & RELOCATED)
    done = kinds.index("vm_done") if "vm_done" in kinds else 0
    sources = {_SOURCE_OF[kind] for kind in kinds[:done] if kind in _SOURCE_OF} or {_SOURCES[-1]}
    if not done or sources != {answer} or not in_order:
        return None
    what = f"{units.size(past.detail)} of {units.blocks(past.block, 1)}"
    text = f"At {past.time(past.row)} the VM reads {what}. Where do the bytes come from?"
    return Question(
        "what_next", text, _SOURCES, (past.block,), past.row, answer, f"{tell(past.timeline, past.row)} {why}"
    )


def _routed(past: Past) -> tuple[str, str]:
    """Return where the host routes a read of the block, and why (O14)."""
    flags, pivot = past.flags[past.block], past.rows("use_destination")
    if pivot.size and flags & (RELOCATED | WRITTEN):
        return "destination", f"Since {past.time(pivot[0])} the VM uses the destination only. (O21)"
    if flags & WRITTEN:
        written = past.time(past.last("written")[past.block])
        return "write cache", f"It was written at {written}, which is not applied yet. (O9)"
    if flags & RELOCATED:
        moved = past.time(past.last("relocated", "applied")[past.block])
        return "destination", f"It is on the destination since {moved}. (O14)"
    if flags & STORED:
        return (
            "media agent",
            "It was neither written nor relocated: it comes through the logical source. (O14)",
        )
    return "nowhere (a hole)", "The backup copy stores nothing there, and nothing was written. (O14)"


_STREAMS = {"hit_or_miss": _hits_and_misses, "which_goes": _evictions, "what_next": _reads}
