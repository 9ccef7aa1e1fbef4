"""Why a block goes, and what else a policy does with an access, in a sentence or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vmrestorekit.show.policy.steps import CacheState, PolicyStep

__all__ = ["POLICY_NAMES", "reason", "tell_step"]

POLICY_NAMES = {
    "fifo": "FIFO",
    "lru": "LRU",
    "clock": "CLOCK",
    "sieve": "SIEVE",
    "s3fifo": "S3-FIFO",
    "arc": "ARC",
    "belady": "Belady's optimum",
}


def tell_step(policy: str, step: PolicyStep, *, hide_victim: bool = False) -> str:
    """Return what happened at an access; without the block that goes if that is to be guessed."""
    asked = f"Access {step.access + 1} asks for block {step.block}"
    if step.hit:
        return f"{asked}: hit. {_ON_HIT[policy](step)}"
    if step.evicted is None:
        return f"{asked}: miss. A slot is free. {_insertion(policy, step)}"
    if hide_victim:
        return f"{asked}: miss, and the cache is full. Which block goes?"
    then = [reason(policy, step), _insertion(policy, step)]
    if policy == "arc" and step.after.target != step.before.target:
        then.reverse()  # the target moves before the choice, and has a say in it
    return f"{asked}: miss, and the cache is full. {' '.join(then)}"


def reason(policy: str, step: PolicyStep) -> str:
    """Return why the block goes that was evicted; empty if none was."""
    return "" if step.evicted is None else _REASONS[policy](step)


# --- who goes, and why ----------------------------------------------------------------------------------


def _of_fifo(step: PolicyStep) -> str:
    used = step.evicted_used > step.evicted_came
    since = (
        f"that it was used since, last at access {step.evicted_used + 1}, does not help it"
        if used
        else "and it was not used since"
    )
    return f"Block {step.evicted} goes: it came first, at access {step.evicted_came + 1}; {since}."


def _of_lru(step: PolicyStep) -> str:
    return f"Block {step.evicted} goes: its last use, at access {step.evicted_used + 1}, is the longest ago."


def _of_clock(step: PolicyStep) -> str:
    spared = _spared(step.asked, step.room)
    if not spared:
        return f"Block {step.evicted} goes: it is the oldest, and its bit is not set."
    if step.evicted in spared:
        return (
            "Every block has its bit set: all lose it and go to the end in turn. So "
            f"block {step.evicted}, the oldest, is looked at again, and goes."
        )
    return (
        f"{_blocks(spared)} {_were(spared)} older, but {_were(spared)} used since: the bit is cleared, and "
        f"{_it(spared)} to the end. Block {step.evicted}, the oldest without a bit, goes."
    )


def _of_sieve(step: PolicyStep) -> str:
    spared = _spared(step.asked, step.room)
    order = step.asked.queues["main"]
    begin = 0 if step.asked.hand is None else order.index(step.asked.hand)
    spared.sort(key=lambda block: (order.index(block) - begin) % len(order))
    from_oldest = step.asked.hand is None
    start = f"The hand begins at {'the oldest' if from_oldest else f'block {step.asked.hand}'}"
    passed = (
        f" and passes {_blocks(spared, 'block')}, used since: the bit is cleared, the place stays"
        if spared
        else ""
    )
    then = "the hand is back at it" if step.evicted in spared else "its bit is not set"
    return f"{start}{passed}. Block {step.evicted} goes: {then}."


def _of_s3_fifo(step: PolicyStep) -> str:
    before, victim = step.asked, step.evicted
    assert victim is not None
    # from the small queue only those go that were used less than twice
    from_small = victim in before.queues["small"] and before.visits[victim] < 2
    promoted = [
        block
        for block in before.queues["small"]
        if block not in step.room.queues["small"] and not (from_small and block == victim)
    ]
    moved = (
        f"{_blocks(promoted)} {_were(promoted)} used at least twice in the small queue and "
        f"{_moves(promoted)} to the main queue. "
        if promoted
        else ""
    )
    if from_small:
        uses = ("not used", "used only once")[before.visits[victim]]
        full = f"The small queue has its share, {_count(before.queues['small'])}. " if not moved else ""
        why = f"Block {victim} goes: the oldest of the small queue, {uses} since it came."
        return f"{moved}{full}{why}{_remembered(step, 'the ghost list')}"
    spared = [
        block
        for block in before.queues["main"]
        if block in step.room.visits and step.room.visits[block] < before.visits[block]
    ]
    chance = (
        f"{_blocks(spared)} had been used: the counter falls, and {_it(spared)} to the end. "
        if spared
        else ""
    )
    fell = victim in before.queues["main"] and before.visits[victim] > 0
    last = (
        "its counter is the first to fall to 0" if fell else "the oldest of the main queue whose counter is 0"
    )
    return f"{moved}{chance}Block {victim} goes: {last}."


def _of_arc(step: PolicyStep) -> str:
    once, victim = step.asked.queues["small"], step.evicted
    size, target = len(once), f"{step.asked.target:.3g}"
    if victim in once:
        if size > step.asked.target:
            why = f"T1 (used once) holds {_count(once)}, above its target of {target}"
        elif step.block in step.before.queues["ghost_main"] and size == step.asked.target:
            why = f"T1 (used once) is at its target of {target}, and the new block comes back to T2"
        else:
            why = "T2 (used again) is empty"
        return f"{why}: block {victim}, the oldest of T1, goes.{_remembered(step, 'B1')}"
    why = (
        f"T1 (used once) holds {_count(once)}, not more than its target of {target}"
        if once
        else "T1 (used once) is empty"
    )
    return f"{why}: block {victim}, the oldest of T2 (used again), goes.{_remembered(step, 'B2')}"


def _of_belady(step: PolicyStep) -> str:
    assert step.evicted is not None
    at = step.asked.next_use[step.evicted]
    when = (
        "it is never used again" if at is None else f"its next use, at access {at + 1}, is the farthest away"
    )
    return f"Block {step.evicted} goes: {when}."


_REASONS: dict[str, Callable[[PolicyStep], str]] = {
    "fifo": _of_fifo,
    "lru": _of_lru,
    "clock": _of_clock,
    "sieve": _of_sieve,
    "s3fifo": _of_s3_fifo,
    "arc": _of_arc,
    "belady": _of_belady,
}


# --- what else happens ----------------------------------------------------------------------------------


def _bit(step: PolicyStep) -> str:
    return "Its bit is set already." if step.before.visits[step.block] else "Its bit is set; its place stays."


def _counter(step: PolicyStep) -> str:
    most = step.before.visits[step.block] == step.after.visits[step.block]
    return f"Its counter {'stays at' if most else 'goes to'} {step.after.visits[step.block]}."


def _to_often(step: PolicyStep) -> str:
    if step.block in step.before.queues["small"]:
        return "Used again: it moves from T1 to T2."
    return "It becomes the newest of T2 (used again)."


def _next_need(step: PolicyStep) -> str:
    at = step.after.next_use[step.block]
    return "It is never used again." if at is None else f"Its next use is access {at + 1}."


_ON_HIT: dict[str, Callable[[PolicyStep], str]] = {
    "fifo": lambda step: "The order stays as it is.",
    "lru": lambda step: "It becomes the most recently used.",
    "clock": _bit,
    "sieve": _bit,
    "s3fifo": _counter,
    "arc": _to_often,
    "belady": _next_need,
}


def _insertion(policy: str, step: PolicyStep) -> str:
    came = f"Block {step.block} comes in"
    if policy in ("clock", "sieve"):
        return f"{came} as the newest, its bit not set."
    if policy == "s3fifo":
        return _insertion_s3_fifo(step, came)
    if policy == "arc":
        return _insertion_arc(step, came)
    if policy == "belady":
        return f"{came}. {_next_need(step)}"
    return f"{came} as the newest."


def _insertion_s3_fifo(step: PolicyStep, came: str) -> str:
    if step.block in step.before.queues["ghost_small"]:
        return f"The ghost list remembers block {step.block}: it comes into the main queue at once."
    if step.block in step.after.queues["small"]:
        return f"{came} to the small queue, as every new one."
    return f"{came} to the main queue: the small one is full, and nothing was evicted so far."


def _insertion_arc(step: PolicyStep, came: str) -> str:
    for ghosts, name, change in (("ghost_small", "B1", "grows"), ("ghost_main", "B2", "shrinks")):
        if step.block in step.before.queues[ghosts]:
            old, new = step.before.target, step.after.target
            moved = (
                f"{change} from {old:.3g} to {new:.3g}" if old != new else f"stays at its limit of {new:.3g}"
            )
            gone = f"{name} remembers block {step.block}, gone too early"
            return f"{gone}: T1's target {moved}, the block joins T2."
    return f"{came} to T1 (used once)."


# --- words ----------------------------------------------------------------------------------------------


def _spared(before: CacheState, after: CacheState) -> list[int]:
    """Return the blocks that had a bit and lost it, or have gone in spite of it, in their order."""
    return [block for block in before.queues["main"] if before.visits[block] > after.visits.get(block, 0)]


def _remembered(step: PolicyStep, where: str) -> str:
    ghosts = step.after.queues["ghost_small"] + step.after.queues["ghost_main"]
    return f" Its number stays in {where}." if step.evicted in ghosts else ""


def _blocks(blocks: Sequence[int], first: str = "Block") -> str:
    names = [str(block) for block in blocks]
    if len(names) == 1:
        return f"{first} {names[0]}"
    return f"{first}s {', '.join(names[:-1])} and {names[-1]}"


def _count(blocks: Sequence[int]) -> str:
    return f"{len(blocks)} block{'s' * (len(blocks) != 1)}"


def _were(blocks: Sequence[int]) -> str:
    return "was" if len(blocks) == 1 else "were"


def _it(blocks: Sequence[int]) -> str:
    return "it goes" if len(blocks) == 1 else "they go"


def _moves(blocks: Sequence[int]) -> str:
    return "moves" if len(blocks) == 1 else "move"
