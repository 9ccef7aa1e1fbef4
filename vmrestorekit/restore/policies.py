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

Everything compiled stands in this one file, since numba's cache notices no edits in other files. All policies
share one state, laid out by `vmrestorekit.restore.eviction`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

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


def _record(**fields: str) -> np.dtype:
    return np.dtype(list(fields.items()), align=True)


ENTRY = _record(
    older="i4",  # neighbours in the block's queue; for Belady `older` is the place in the heap
    newer="i4",
    queue="i1",
    visits="i1",  # hits since it came or since the hand last passed, up to what the policy counts
    hold="i1",
    returning="i1",  # the ghost queue it was in when it was asked for
)
QUEUE = _record(oldest="i8", newest="i8", size="i8")
STATE = _record(
    policy="i8",
    capacity="i8",
    small_capacity="i8",  # S3-FIFO
    ghost_capacity="i8",
    has_evicted="i8",
    hand="i8",  # SIEVE
    target="f8",  # ARC's p
)


class Policy(NamedTuple):
    """The whole state of a policy, as arrays; `state` has one row, `entries` one a block."""

    state: np.ndarray
    queues: np.ndarray
    entries: np.ndarray
    held: np.ndarray  # how many blocks the cache holds, by their `hold`
    next_use: np.ndarray  # Belady: of each block; the cache sets it before `on_hit` and `on_insert`
    heap: np.ndarray  # Belady: the blocks that the cache holds, farthest next use first


compiled = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", _nrt=False)
entry = njit(cache=True, nogil=True, error_model="numpy", _nrt=False, no_cfunc_wrapper=True)

# --- queues ---------------------------------------------------------------------------------------------


@compiled
def append(p, queue, block):
    """Make a block the newest of a queue."""
    e = p.entries[block]
    q = p.queues[queue]
    e.queue = queue
    e.older = q.newest
    e.newer = NONE
    if q.newest == NONE:
        q.oldest = block
    else:
        p.entries[q.newest].newer = block
    q.newest = block
    q.size += 1


@compiled
def unlink(p, block):
    """Take a block out of its queue; a hand that points to it moves on."""
    e = p.entries[block]
    q = p.queues[e.queue]
    if p.state[0].hand == block:
        p.state[0].hand = e.newer
    if e.older == NONE:
        q.oldest = e.newer
    else:
        p.entries[e.older].newer = e.newer
    if e.newer == NONE:
        q.newest = e.older
    else:
        p.entries[e.newer].older = e.older
    q.size -= 1
    e.queue = NOWHERE


@compiled
def move_to_newest(p, queue, block):
    """Make a block of some queue the newest of that one."""
    unlink(p, block)
    append(p, queue, block)


@compiled
def forget_oldest(p, queue):
    """Drop the oldest of a ghost queue."""
    unlink(p, p.queues[queue].oldest)


@compiled
def holds(p, block):
    """Tell whether the cache holds a block, as the policy sees it."""
    queue = p.entries[block].queue
    return queue == MAIN or queue == SMALL


@compiled
def evictable(p, level):
    """Return how many blocks `evict` could take at that level."""
    count = ZERO
    for hold in range(level + 1):
        count += p.held[hold]
    return count


@compiled
def set_hold(p, block, hold):
    """Set what a block may be evicted for, whether the cache holds it yet or not."""
    e = p.entries[block]
    if holds(p, block):
        p.held[e.hold] -= 1
        p.held[hold] += 1
    e.hold = hold


@compiled
def leave(p, block):
    """Take a block that the cache held out of the policy's order."""
    e = p.entries[block]
    p.held[e.hold] -= 1
    if p.state[0].policy == BELADY:
        leave_heap(p, block)
    else:
        unlink(p, block)


# --- Belady's heap --------------------------------------------------------------------------------------


@compiled
def is_used_later(p, first, second):
    """Tell whether a block is used later than another; of two that are never used again, the lower number."""
    a, b = p.next_use[first], p.next_use[second]
    return a > b or (a == b and first < second)


@compiled
def settle(p, block, at):
    """Put a block in its place in the heap, starting at a free one."""
    size = p.queues[MAIN].size
    while at > 0 and is_used_later(p, block, p.heap[(at - 1) >> 1]):
        parent = p.heap[(at - 1) >> 1]
        p.heap[at] = parent
        p.entries[parent].older = at
        at = (at - 1) >> 1
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and is_used_later(p, p.heap[below + 1], p.heap[below]):
            below += 1
        child = p.heap[below]
        if not is_used_later(p, child, block):
            break
        p.heap[at] = child
        p.entries[child].older = at
        at = below
    p.heap[at] = block
    p.entries[block].older = at


@compiled
def enter_heap(p, block):
    """Add a block to the heap."""
    q = p.queues[MAIN]
    p.entries[block].queue = MAIN
    q.size += 1
    settle(p, block, q.size - 1)


@compiled
def leave_heap(p, block):
    """Take a block out of the heap."""
    q = p.queues[MAIN]
    at = np.int64(p.entries[block].older)
    q.size -= 1
    last = np.int64(p.heap[q.size])
    if last != block:
        settle(p, last, at)
    p.entries[block].queue = NOWHERE


@compiled
def used_last(p, level):
    """Return the block with the farthest next use; the heap is searched through if its first may not go."""
    best = np.int64(p.heap[0])
    if p.entries[best].hold <= level:
        return best
    best = NONE
    for at in range(p.queues[MAIN].size):
        block = np.int64(p.heap[at])
        if p.entries[block].hold <= level and (best == NONE or is_used_later(p, block, best)):
            best = block
    return best


# --- who goes: each returns the first block in the policy's order that may, or NONE ---------------------


@compiled
def oldest(p, queue, level):
    """FIFO, LRU, the queues of ARC: the oldest."""
    block = p.queues[queue].oldest
    while block != NONE and p.entries[block].hold > level:
        block = np.int64(p.entries[block].newer)
    return block


@compiled
def oldest_after_second_chances(p, queue, level):
    """CLOCK, the main queue of S3-FIFO: the oldest without a visit; the others lose one and go to the end."""
    block = p.queues[queue].oldest
    while block != NONE:
        e = p.entries[block]
        following = np.int64(e.newer)
        if e.hold <= level:
            if e.visits == 0:
                return block
            e.visits -= 1
            if following == NONE:
                continue  # the newest already: it stays where it is, and its turn is next
            move_to_newest(p, queue, block)
        block = following
    return NONE


@compiled
def sieve(p, level):
    """SIEVE: the first without a visit from the hand on, towards newer ones and round."""
    s = p.state[0]
    block = s.hand if s.hand != NONE else p.queues[MAIN].oldest
    while p.entries[block].visits > 0 or p.entries[block].hold > level:
        if p.entries[block].hold <= level:
            p.entries[block].visits = 0
        block = np.int64(p.entries[block].newer)
        if block == NONE:
            block = p.queues[MAIN].oldest
    s.hand = block
    return block


@compiled
def oldest_after_promotions(p, level):
    """S3-FIFO's small queue: the oldest with less than two visits; the others go to the main queue."""
    block = p.queues[SMALL].oldest
    while block != NONE:
        e = p.entries[block]
        following = np.int64(e.newer)
        if e.hold <= level:
            if e.visits < 2:
                return block
            e.visits = 0
            move_to_newest(p, MAIN, block)
        block = following
    return NONE


@compiled
def of_s3_fifo(p, level):
    """S3-FIFO: from the small queue if it has its share, else the main one; from the other if none may."""
    small = p.queues[SMALL].size
    from_small = small > 0 and small >= p.state[0].small_capacity
    while True:
        block = (
            oldest_after_promotions(p, level) if from_small else oldest_after_second_chances(p, MAIN, level)
        )
        if block != NONE:
            return block
        from_small = not from_small


@compiled
def of_arc(p, incoming, level):
    """ARC's REPLACE: from T1 if it is above its target, else from T2; from the other if none may."""
    recent = p.queues[SMALL].size
    target = p.state[0].target
    at_target = incoming != NONE and p.entries[incoming].returning == GHOST_MAIN and recent == target
    from_recent = recent > 0 and (recent > target or at_target)
    block = oldest(p, SMALL if from_recent else MAIN, level)
    if block == NONE:
        block = oldest(p, MAIN if from_recent else SMALL, level)
    return block


# --- the contract ---------------------------------------------------------------------------------------


@compiled
def on_hit(p, block):
    """Tell the policy of a request for a block that the cache holds."""
    policy = p.state[0].policy
    e = p.entries[block]
    if policy == LRU or policy == ARC:
        move_to_newest(p, MAIN, block)
    elif policy == CLOCK or policy == SIEVE:
        e.visits = 1
    elif policy == S3_FIFO:
        if e.visits < MOST_VISITS_S3_FIFO:
            e.visits += 1
    elif policy == BELADY:
        settle(p, block, np.int64(e.older))


@compiled
def on_miss(p, block):
    """Tell the policy of a request for a block that is not there, before room is made: it may remember it."""
    e = p.entries[block]
    if e.queue == GHOST_SMALL or e.queue == GHOST_MAIN:
        if p.state[0].policy == ARC:
            adapt(p, e.queue == GHOST_SMALL)
        ghost = e.queue
        unlink(p, block)
        e.returning = ghost


@compiled
def adapt(p, evicted_too_early_from_recent):
    """ARC: move the target size of T1 towards the queue that should have kept a block."""
    s = p.state[0]
    once, often = p.queues[GHOST_SMALL].size, p.queues[GHOST_MAIN].size
    if evicted_too_early_from_recent:
        s.target = min(s.target + max(often / once, 1.0), np.float64(s.capacity))
    else:
        s.target = max(s.target - max(once / often, 1.0), 0.0)


@compiled
def evict(p, incoming, level):
    """Choose a block that may go at this level, take it out and remember it as the policy does.

    `incoming` is the block that its slot is for, NONE if that is not known.
    """
    if evictable(p, level) == 0:
        return NONE
    s = p.state[0]
    if s.policy == CLOCK:
        block = oldest_after_second_chances(p, MAIN, level)
    elif s.policy == SIEVE:
        block = sieve(p, level)
    elif s.policy == S3_FIFO:
        block = of_s3_fifo(p, level)
    elif s.policy == ARC:
        block = of_arc(p, incoming, level)
    elif s.policy == BELADY:
        block = used_last(p, level)
    else:
        block = oldest(p, MAIN, level)
    queue = p.entries[block].queue
    leave(p, block)
    s.has_evicted = 1
    if s.policy == S3_FIFO and queue == SMALL:
        append(p, GHOST_SMALL, block)
        if p.queues[GHOST_SMALL].size > s.ghost_capacity:
            forget_oldest(p, GHOST_SMALL)
    elif s.policy == ARC:
        append(p, GHOST_SMALL if queue == SMALL else GHOST_MAIN, block)
    return block


@compiled
def on_insert(p, block):
    """Tell the policy that a block is in its slot; one that nobody asked for counts as new."""
    s = p.state[0]
    e = p.entries[block]
    if e.queue != NOWHERE:
        unlink(p, block)
    queue = MAIN
    if s.policy == ARC and e.returning == 0:
        queue = SMALL
    elif s.policy == S3_FIFO and e.returning == 0:
        small_is_full = p.queues[SMALL].size >= s.small_capacity
        queue = MAIN if small_is_full and not s.has_evicted else SMALL
    e.visits = 0
    e.returning = 0
    p.held[e.hold] += 1
    if s.policy == BELADY:
        enter_heap(p, block)
    else:
        append(p, queue, block)
    if s.policy == ARC:
        shorten_histories(p)


@compiled
def shorten_histories(p):
    """ARC: T1 and B1 together are at most as many as the cache has slots, all four at most twice as many."""
    once, often = p.queues[GHOST_SMALL], p.queues[GHOST_MAIN]
    recent, frequent, capacity = p.queues[SMALL].size, p.queues[MAIN].size, p.state[0].capacity
    while once.size > 0 and recent + once.size > capacity:
        forget_oldest(p, GHOST_SMALL)
    while often.size > 0 and recent + once.size + frequent + often.size > 2 * capacity:
        forget_oldest(p, GHOST_MAIN)


@compiled
def on_remove(p, block):
    """Tell the policy that a block is gone for good: it leaves without a trace."""
    e = p.entries[block]
    if holds(p, block):
        leave(p, block)
    elif e.queue != NOWHERE:
        unlink(p, block)
    e.visits = 0
    e.returning = 0


@entry
def act(p, action, block, level):
    """Do one step from Python; returns what `evict` and `evictable` return, else 0."""
    if action == ON_HIT:
        on_hit(p, block)
    elif action == ON_MISS:
        on_miss(p, block)
    elif action == ON_INSERT:
        on_insert(p, block)
    elif action == ON_REMOVE:
        on_remove(p, block)
    elif action == SET_HOLD:
        set_hold(p, block, level)
    elif action == EVICT:
        return evict(p, block, level)
    else:
        return evictable(p, level)
    return ZERO


# --- replaying accesses ---------------------------------------------------------------------------------


@entry
def replay(p, accesses, next_use):
    """Return the hits of a cache that fetches what is missing at once; `next_use` is empty but for Belady."""
    s = p.state[0]
    hits = ZERO
    for i in range(len(accesses)):
        block = np.int64(accesses[i])
        if s.policy == BELADY:
            p.next_use[block] = next_use[i]
        if holds(p, block):
            hits += 1
            on_hit(p, block)
        else:
            on_miss(p, block)
            if evictable(p, FOR_DEMAND) == s.capacity:
                evict(p, block, FOR_DEMAND)
            on_insert(p, block)
    return hits


@entry
def find_next_uses(accesses, next_use, seen):
    """Fill in, for each access, when its block is used next; `seen`, one a block, is NEVER at first."""
    for i in range(len(accesses) - 1, -1, -1):
        block = accesses[i]
        next_use[i] = seen[block]
        seen[block] = i


@entry
def replay_lru(accesses, slot_of, slots):
    """Return the hits of LRU alone, the same as `replay` and several times as fast.

    Its order is kept by slot and not by block, so that it stays in the processor's cache; and indices are
    unsigned, since numba looks at the sign of others each time.

    Parameters
    ----------
    accesses : ndarray of int32
    slot_of : ndarray of int32, one a block
        -1 at first.
    slots : ndarray of int32, shape (capacity + 1, 3)
        Older slot, newer slot, block; the last slot is older than all. Contents do not matter.
    """
    capacity = len(slots) - 1
    before_oldest = np.uint64(capacity)
    newest = before_oldest
    used = ZERO
    hits = ZERO
    for i in range(len(accesses)):
        block = np.uint64(accesses[i])
        found = slot_of[block]
        if found >= 0:
            hits += 1
            slot = np.uint64(found)
        else:
            if used < capacity:
                slot = np.uint64(used)
                used += 1
                slots[slot, 0] = slot  # its own neighbour, so that it can be taken out like others
                slots[slot, 1] = slot
            else:
                slot = np.uint64(slots[before_oldest, 1])
                slot_of[np.uint64(slots[slot, 2])] = -1
            slots[slot, 2] = block
            slot_of[block] = slot
        if slot != newest:
            older, newer = slots[slot, 0], slots[slot, 1]
            slots[np.uint64(older), 1] = newer
            slots[np.uint64(newer), 0] = older
            slots[slot, 0] = newest
            slots[newest, 1] = slot
            newest = slot
    return hits


# --- the miss-ratio curve -------------------------------------------------------------------------------
# F. Olken's method (1981): LRU with c slots hits if fewer than c other blocks were used since the last use of
# the block, so one pass that counts those serves all sizes. Each block has a bit at the time of its last use.
# The bits are counted by words, and the words by a Fenwick tree over groups of them; both are small.

WORD_SHIFT = 6
GROUP_SHIFT = 9  # of 512 bits, 8 words
GROUP = np.int64(1 << GROUP_SHIFT)
WORDS_OF_GROUP = 1 << (GROUP_SHIFT - WORD_SHIFT)
M1 = np.uint64(0x5555555555555555)
M2 = np.uint64(0x3333333333333333)
M4 = np.uint64(0x0F0F0F0F0F0F0F0F)
H01 = np.uint64(0x0101010101010101)
U1, U2, U4, U56, U63 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56), np.uint64(63)


@compiled
def count_ones(word):
    """Return the number of bits that are set; the compiler makes one instruction of it."""
    word -= (word >> U1) & M1
    word = (word & M2) + ((word >> U2) & M2)
    word = (word + (word >> U4)) & M4
    return np.int64((word * H01) >> U56)


@compiled
def count_until(time, bits, tree):
    """Return how many blocks were last used at `time` or before; groups that the tree lacks must be later."""
    group = time >> GROUP_SHIFT
    count = ZERO
    at = group
    while at > 0:
        count += tree[at]
        at &= at - 1
    word = time >> WORD_SHIFT
    for i in range(group * WORDS_OF_GROUP, word):
        count += count_ones(bits[i])
    # shifted left so that later bits fall out
    return count + count_ones(bits[word] << (U63 - (np.uint64(time) & U63)))


@compiled
def add_to_tree(tree, group, change):
    """Change the count of a group."""
    at = group + 1
    while at < len(tree):
        tree[at] += change
        at += at & -at


@compiled
def flip(bits, time):
    """Set a bit that was clear or clear one that was set."""
    bits[time >> WORD_SHIFT] ^= U1 << (np.uint64(time) & U63)


@compiled
def renumber(last_use, block_at, bits, tree):
    """Give the last uses the times 0, 1, … in their order, and return the first free one."""
    tree[:] = 0
    now = ZERO
    for time in range(len(block_at)):
        if (bits[time >> WORD_SHIFT] >> (np.uint64(time) & U63)) & U1:
            block = block_at[time]
            block_at[now] = block
            last_use[block] = now
            now += 1
    bits[:] = np.uint64(0)
    for time in range(now):
        flip(bits, time)
        if (time + 1) % GROUP == 0:
            add_to_tree(tree, time >> GROUP_SHIFT, GROUP)
    return now


@entry
def count_distances(accesses, last_use, block_at, bits, tree, distances):
    """Count the accesses by how many blocks were used since their block was, itself included.

    Parameters
    ----------
    accesses : ndarray of int32
    last_use : ndarray of int32, one a block
        -1 at first.
    block_at : ndarray of int32
        Length: the times that fit before they are renumbered, more than there are blocks, a multiple of 512.
    bits : ndarray of uint64, one for 64 times
        Zero at first.
    tree : ndarray of int32, one for 512 times and one more
        Zero at first.
    distances : ndarray of int64, one a block and one more
        Zero at first. Those of first uses are not counted.
    """
    now, blocks = ZERO, ZERO
    for i in range(len(accesses)):
        block = accesses[i]
        if now == len(block_at):
            now = renumber(last_use, block_at, bits, tree)
        before = np.int64(last_use[block])
        if before >= 0:
            distances[blocks - count_until(before, bits, tree) + 1] += 1
            flip(bits, before)
            # the group that is being filled is not in the tree yet
            if (before >> GROUP_SHIFT) < (now >> GROUP_SHIFT):
                add_to_tree(tree, before >> GROUP_SHIFT, -ONE)
        else:
            blocks += 1
        flip(bits, now)
        last_use[block] = now
        block_at[now] = block
        now += 1
        if now % GROUP == 0:
            group = (now >> GROUP_SHIFT) - 1
            full = ZERO
            for word in range(group * WORDS_OF_GROUP, (group + 1) * WORDS_OF_GROUP):
                full += count_ones(bits[word])
            add_to_tree(tree, group, full)
    return blocks
