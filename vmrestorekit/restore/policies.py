"""Eviction policies as compiled step functions, and the kernels that replay block accesses through them.

A cache tells its policy what happens, one call an event, and the policy says which block goes:

    on_hit      a request for a block that the cache holds
    on_miss     a request for a block that it does not hold, before a slot is made for it
    evict       choose a block that may go and take it out; `NONE` if none may
    on_insert   a block is in its slot now, whether it was asked for or staged
    on_remove   a block is gone, purged, without a trace in the policy's memory
    set_hold    what a block may be evicted for: anything, demand only, or nothing

So the cache may insert a block long after it made a slot for it, may keep blocks from being evicted (those in
flight or awaited from everybody, those not yet served from stagers), and may evict several in a row. Blocks
that may not go are passed over as if they were not there: they keep their place and their bits.

The policies, and where their definitions leave a choice:

- FIFO and LRU, as everywhere.
- CLOCK with one bit (F. J. Corbató, *A Paging Experiment with the Multics System*, 1968), in its equal form
  as a queue: the oldest block, if it was hit since it last passed, loses its bit and goes to the end.
  Textbooks differ on whether a new block has its bit set; here it has not.
- SIEVE (Y. Zhang et al., *SIEVE is Simpler than LRU*, NSDI 2024).
- S3-FIFO (J. Yang et al., *FIFO Queues are All You Need for Cache Eviction*, SOSP 2023): small queue of a
  tenth, ghost queue of nine tenths of the cache. What can be read in more than one way is done as in its
  authors' own simulator, libCacheSim: before the first eviction, new blocks that find the small queue full go
  to the main queue; whether a block is in the ghost queue is looked up before room is made for it; and a
  promotion to the main queue evicts nothing by itself. Below ten slots the small queue has one.
- ARC (N. Megiddo, D. Modha, *ARC: A Self-Tuning, Low Overhead Replacement Cache*, FAST 2003), with a
  real-valued target. Its histories are cut after an insertion and not before, which leaves the same lists.
- Belady's optimum (L. Belady, 1966): the block whose next use is farthest; it needs to be told the future.

All policies share one record, a `CACHE`, laid out by `vmrestorekit.restore.eviction`.
"""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.records import accessor, compiled, entry, record, table

# --- numbering ------------------------------------------------------------------------------------------
# numpy integers: numba would compile each function anew for every Python integer constant it is given

POLICY_NAMES = ("fifo", "lru", "clock", "sieve", "s3fifo", "arc", "belady")
FIFO, LRU, CLOCK, SIEVE, S3_FIFO, ARC, BELADY = np.arange(7)

# where the policy has a block. ARC's T1, T2, B1, B2 are SMALL, MAIN, GHOST_SMALL, GHOST_MAIN
NOWHERE, MAIN, SMALL, GHOST_SMALL, GHOST_MAIN = np.arange(5)

# what a block may be evicted for; `evict` takes blocks up to the level it is given
FOR_ALL, FOR_DEMAND, FOR_NOTHING = np.arange(3)

# what `act` does
ON_HIT, ON_MISS, ON_INSERT, ON_REMOVE, EVICT, SET_HOLD, EVICTABLE = np.arange(7)

MOST_VISITS_S3_FIFO = np.int64(3)
NONE = np.int64(-1)
ZERO = np.int64(0)
ONE = np.int64(1)
NEVER = np.int64(2**62)  # the next use of a block that is not used again

# --- state ----------------------------------------------------------------------------------------------


ENTRY = record(
    older="i4",  # neighbours in the block's queue; for Belady `older` is the place in the heap
    newer="i4",
    queue="i1",
    visits="i1",  # hits since it came or since the hand last passed, up to what the policy counts
    hold="i1",
    returning="i1",  # the ghost queue it was in when it was asked for
)
NEXT_USE = record(at="i8")
HEAP = record(block="i4")
CACHE = record(
    **table("entries"),  # one a block
    **table("next_use"),  # Belady: of each block; the cache sets it before `on_hit` and `on_insert`
    **table("heap"),  # Belady: the blocks that the cache holds, farthest next use first
    policy="i8",
    capacity="i8",
    small_capacity="i8",  # S3-FIFO
    ghost_capacity="i8",
    has_evicted="i8",
    hand="i8",  # SIEVE
    target="f8",  # ARC's p
    held="3i8",  # how many blocks the cache holds, by their `hold`
    oldest="5i8",  # of each queue
    newest="5i8",
    size="5i8",
)

entry_at = accessor("entries", ENTRY)
next_use_at = accessor("next_use", NEXT_USE)
heap_at = accessor("heap", HEAP)

# --- queues ---------------------------------------------------------------------------------------------


@compiled
def append(c, queue, block):
    """Make a block the newest of a queue."""
    e = entry_at(c, block)
    newest = c.newest[queue]
    e.queue = queue
    e.older = newest
    e.newer = NONE
    if newest == NONE:
        c.oldest[queue] = block
    else:
        entry_at(c, newest).newer = block
    c.newest[queue] = block
    c.size[queue] += 1


@compiled
def unlink(c, block):
    """Take a block out of its queue; a hand that points to it moves on."""
    e = entry_at(c, block)
    queue = e.queue
    if c.hand == block:
        c.hand = e.newer
    if e.older == NONE:
        c.oldest[queue] = e.newer
    else:
        entry_at(c, e.older).newer = e.newer
    if e.newer == NONE:
        c.newest[queue] = e.older
    else:
        entry_at(c, e.newer).older = e.older
    c.size[queue] -= 1
    e.queue = NOWHERE


@compiled
def move_to_newest(c, queue, block):
    """Make a block of some queue the newest of that one."""
    unlink(c, block)
    append(c, queue, block)


@compiled
def forget_oldest(c, queue):
    """Drop the oldest of a ghost queue."""
    unlink(c, c.oldest[queue])


@compiled
def holds(c, block):
    """Tell whether the cache holds a block, as the policy sees it."""
    queue = entry_at(c, block).queue
    return queue == MAIN or queue == SMALL


@compiled
def evictable(c, level):
    """Return how many blocks `evict` could take at that level."""
    count = ZERO
    for hold in range(level + 1):
        count += c.held[hold]
    return count


@compiled
def set_hold(c, block, hold):
    """Set what a block may be evicted for, whether the cache holds it yet or not."""
    e = entry_at(c, block)
    if holds(c, block):
        c.held[e.hold] -= 1
        c.held[hold] += 1
    e.hold = hold


@compiled
def leave(c, block):
    """Take a block that the cache held out of the policy's order."""
    e = entry_at(c, block)
    c.held[e.hold] -= 1
    if c.policy == BELADY:
        leave_heap(c, block)
    else:
        unlink(c, block)


# --- Belady's heap --------------------------------------------------------------------------------------


@compiled
def is_used_later(c, first, second):
    """Tell whether a block is used later than another; of two that are never used again, the lower number."""
    a, b = next_use_at(c, first).at, next_use_at(c, second).at
    return a > b or (a == b and first < second)


@compiled
def in_heap(c, at):
    """Return the block at a place of the heap."""
    return np.int64(heap_at(c, at).block)


@compiled
def settle(c, block, at):
    """Put a block in its place in the heap, starting at a free one."""
    size = c.size[MAIN]
    while at > 0 and is_used_later(c, block, in_heap(c, (at - 1) >> 1)):
        parent = in_heap(c, (at - 1) >> 1)
        heap_at(c, at).block = parent
        entry_at(c, parent).older = at
        at = (at - 1) >> 1
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and is_used_later(c, in_heap(c, below + 1), in_heap(c, below)):
            below += 1
        child = in_heap(c, below)
        if not is_used_later(c, child, block):
            break
        heap_at(c, at).block = child
        entry_at(c, child).older = at
        at = below
    heap_at(c, at).block = block
    entry_at(c, block).older = at


@compiled
def enter_heap(c, block):
    """Add a block to the heap."""
    entry_at(c, block).queue = MAIN
    c.size[MAIN] += 1
    settle(c, block, c.size[MAIN] - 1)


@compiled
def leave_heap(c, block):
    """Take a block out of the heap."""
    at = np.int64(entry_at(c, block).older)
    c.size[MAIN] -= 1
    last = in_heap(c, c.size[MAIN])
    if last != block:
        settle(c, last, at)
    entry_at(c, block).queue = NOWHERE


@compiled
def used_last(c, level):
    """Return the block with the farthest next use; the heap is searched through if its first may not go."""
    best = in_heap(c, ZERO)
    if entry_at(c, best).hold <= level:
        return best
    best = NONE
    for at in range(c.size[MAIN]):
        block = in_heap(c, at)
        if entry_at(c, block).hold <= level and (best == NONE or is_used_later(c, block, best)):
            best = block
    return best


# --- who goes: each returns the first block in the policy's order that may, or NONE ---------------------


@compiled
def oldest(c, queue, level):
    """FIFO, LRU, the queues of ARC: the oldest."""
    block = c.oldest[queue]
    while block != NONE and entry_at(c, block).hold > level:
        block = np.int64(entry_at(c, block).newer)
    return block


@compiled
def oldest_after_second_chances(c, queue, level):
    """CLOCK, the main queue of S3-FIFO: the oldest without a visit; the others lose one and go to the end."""
    block = c.oldest[queue]
    while block != NONE:
        e = entry_at(c, block)
        following = np.int64(e.newer)
        if e.hold <= level:
            if e.visits == 0:
                return block
            e.visits -= 1
            if following == NONE:
                continue  # the newest already: it stays where it is, and its turn is next
            move_to_newest(c, queue, block)
        block = following
    return NONE


@compiled
def sieve(c, level):
    """SIEVE: the first without a visit from the hand on, towards newer ones and round."""
    block = c.hand if c.hand != NONE else c.oldest[MAIN]
    while entry_at(c, block).visits > 0 or entry_at(c, block).hold > level:
        if entry_at(c, block).hold <= level:
            entry_at(c, block).visits = 0
        block = np.int64(entry_at(c, block).newer)
        if block == NONE:
            block = c.oldest[MAIN]
    c.hand = block
    return block


@compiled
def oldest_after_promotions(c, level):
    """S3-FIFO's small queue: the oldest with less than two visits; the others go to the main queue."""
    block = c.oldest[SMALL]
    while block != NONE:
        e = entry_at(c, block)
        following = np.int64(e.newer)
        if e.hold <= level:
            if e.visits < 2:
                return block
            e.visits = 0
            move_to_newest(c, MAIN, block)
        block = following
    return NONE


@compiled
def of_s3_fifo(c, level):
    """S3-FIFO: from the small queue if it has its share, else the main one; from the other if none may."""
    small = c.size[SMALL]
    from_small = small > 0 and small >= c.small_capacity
    while True:
        block = (
            oldest_after_promotions(c, level) if from_small else oldest_after_second_chances(c, MAIN, level)
        )
        if block != NONE:
            return block
        from_small = not from_small


@compiled
def of_arc(c, incoming, level):
    """ARC's REPLACE: from T1 if it is above its target, else from T2; from the other if none may."""
    recent = c.size[SMALL]
    target = c.target
    at_target = incoming != NONE and entry_at(c, incoming).returning == GHOST_MAIN and recent == target
    from_recent = recent > 0 and (recent > target or at_target)
    block = oldest(c, SMALL if from_recent else MAIN, level)
    if block == NONE:
        block = oldest(c, MAIN if from_recent else SMALL, level)
    return block


# --- the contract ---------------------------------------------------------------------------------------


@compiled
def on_hit(c, block):
    """Tell the policy of a request for a block that the cache holds."""
    policy = c.policy
    e = entry_at(c, block)
    if policy == LRU or policy == ARC:
        move_to_newest(c, MAIN, block)
    elif policy == CLOCK or policy == SIEVE:
        e.visits = 1
    elif policy == S3_FIFO:
        if e.visits < MOST_VISITS_S3_FIFO:
            e.visits += 1
    elif policy == BELADY:
        settle(c, block, np.int64(e.older))


@compiled
def on_miss(c, block):
    """Tell the policy of a request for a block that is not there, before room is made: it may remember it."""
    e = entry_at(c, block)
    if e.queue == GHOST_SMALL or e.queue == GHOST_MAIN:
        if c.policy == ARC:
            adapt(c, e.queue == GHOST_SMALL)
        ghost = e.queue
        unlink(c, block)
        e.returning = ghost


@compiled
def adapt(c, evicted_too_early_from_recent):
    """ARC: move the target size of T1 towards the queue that should have kept a block."""
    once, often = c.size[GHOST_SMALL], c.size[GHOST_MAIN]
    if evicted_too_early_from_recent:
        c.target = min(c.target + max(often / once, 1.0), np.float64(c.capacity))
    else:
        c.target = max(c.target - max(once / often, 1.0), 0.0)


@compiled
def evict(c, incoming, level):
    """Choose a block that may go at this level, take it out and remember it as the policy does.

    `incoming` is the block that its slot is for, NONE if that is not known.
    """
    if evictable(c, level) == 0:
        return NONE
    if c.policy == CLOCK:
        block = oldest_after_second_chances(c, MAIN, level)
    elif c.policy == SIEVE:
        block = sieve(c, level)
    elif c.policy == S3_FIFO:
        block = of_s3_fifo(c, level)
    elif c.policy == ARC:
        block = of_arc(c, incoming, level)
    elif c.policy == BELADY:
        block = used_last(c, level)
    else:
        block = oldest(c, MAIN, level)
    queue = entry_at(c, block).queue
    leave(c, block)
    c.has_evicted = 1
    if c.policy == S3_FIFO and queue == SMALL:
        append(c, GHOST_SMALL, block)
        if c.size[GHOST_SMALL] > c.ghost_capacity:
            forget_oldest(c, GHOST_SMALL)
    elif c.policy == ARC:
        append(c, GHOST_SMALL if queue == SMALL else GHOST_MAIN, block)
    return block


@compiled
def on_insert(c, block):
    """Tell the policy that a block is in its slot; one that nobody asked for counts as new."""
    e = entry_at(c, block)
    if e.queue != NOWHERE:
        unlink(c, block)
    queue = MAIN
    if c.policy == ARC and e.returning == 0:
        queue = SMALL
    elif c.policy == S3_FIFO and e.returning == 0:
        small_is_full = c.size[SMALL] >= c.small_capacity
        queue = MAIN if small_is_full and not c.has_evicted else SMALL
    e.visits = 0
    e.returning = 0
    c.held[e.hold] += 1
    if c.policy == BELADY:
        enter_heap(c, block)
    else:
        append(c, queue, block)
    if c.policy == ARC:
        shorten_histories(c)


@compiled
def shorten_histories(c):
    """ARC: T1 and B1 together are at most as many as the cache has slots, all four at most twice as many."""
    recent, frequent = c.size[SMALL], c.size[MAIN]
    while c.size[GHOST_SMALL] > 0 and recent + c.size[GHOST_SMALL] > c.capacity:
        forget_oldest(c, GHOST_SMALL)
    while (
        c.size[GHOST_MAIN] > 0
        and recent + c.size[GHOST_SMALL] + frequent + c.size[GHOST_MAIN] > 2 * c.capacity
    ):
        forget_oldest(c, GHOST_MAIN)


@compiled
def on_remove(c, block):
    """Tell the policy that a block is gone for good: it leaves without a trace."""
    e = entry_at(c, block)
    if holds(c, block):
        leave(c, block)
    elif e.queue != NOWHERE:
        unlink(c, block)
    e.visits = 0
    e.returning = 0


@entry
def act(caches, action, block, level):
    """Do one step from Python; returns what `evict` and `evictable` return, else 0."""
    c = caches[0]
    if action == ON_HIT:
        on_hit(c, block)
    elif action == ON_MISS:
        on_miss(c, block)
    elif action == ON_INSERT:
        on_insert(c, block)
    elif action == ON_REMOVE:
        on_remove(c, block)
    elif action == SET_HOLD:
        set_hold(c, block, level)
    elif action == EVICT:
        return evict(c, block, level)
    else:
        return evictable(c, level)
    return ZERO


# --- replaying accesses ---------------------------------------------------------------------------------


@entry
def replay(caches, accesses, next_use):
    """Return the hits of a cache that fetches what is missing at once; `next_use` is empty but for Belady."""
    c = caches[0]
    hits = ZERO
    for i in range(len(accesses)):
        block = np.int64(accesses[i])
        if c.policy == BELADY:
            next_use_at(c, block).at = next_use[i]
        if holds(c, block):
            hits += 1
            on_hit(c, block)
        else:
            on_miss(c, block)
            if evictable(c, FOR_DEMAND) == c.capacity:
                evict(c, block, FOR_DEMAND)
            on_insert(c, block)
    return hits


@entry
def find_next_uses(accesses, next_use, seen):
    """Fill in, for each access, when its block is used next; `seen`, one a block, is NEVER at first."""
    for i in range(len(accesses) - 1, -1, -1):
        block = accesses[i]
        next_use[i] = seen[block]
        seen[block] = i
