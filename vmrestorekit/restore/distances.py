"""Kernels for LRU alone: a replay by slots, and how many blocks were used since each block's last use."""

from __future__ import annotations

import numpy as np

from vmrestorekit.restore.records import compiled, entry

ZERO = np.int64(0)
ONE = np.int64(1)


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
