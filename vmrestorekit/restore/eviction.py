"""Eviction policies by name: the arrays of one, and one as an object that is told of each access."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["EVICTION_POLICIES", "EvictionPolicy", "Policy", "PolicyError", "new_policy", "set_up_cache"]

EVICTION_POLICIES = {
    "fifo": "the block that came first goes first",
    "lru": "the block that was used least recently goes first",
    "clock": "first in, first out, but a block that was used since gets a second chance",
    "sieve": "like CLOCK, but blocks that stay keep their place, so that new ones are sifted quickly",
    "s3fifo": "new blocks pass a small queue first and reach the main one only if used again",
    "arc": "two lists, used once and used often, with sizes that adapt to what was evicted too early",
    "belady": "the block whose next use is farthest goes first: the optimum, for those who know the future",
}

_IN_CACHE = (1, 2)  # policies.MAIN, policies.SMALL; a test compares


class PolicyError(ValueError):
    """A policy, a size or accesses that cannot be used; the message says what was expected and what came."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """The arrays of a cache's policy; `caches` has one row, which the step functions are given."""

    caches: npt.NDArray[Any]
    entries: npt.NDArray[Any]
    next_use: npt.NDArray[Any]
    heap: npt.NDArray[Any]


def new_policy(policy: str, blocks: int, capacity: int) -> Policy:
    """Return the arrays of an empty cache's policy, for the step functions of `policies`.

    Parameters
    ----------
    policy : str
        A name of `EVICTION_POLICIES`.
    blocks : int
        Number of blocks; they are numbered from 0.
    capacity : int
        Slots of the cache.

    Raises
    ------
    PolicyError
        If the name is unknown or a number is not positive.
    """
    if policy not in EVICTION_POLICIES:
        raise PolicyError(f"policy: expected one of {', '.join(EVICTION_POLICIES)}, got {policy!r}")
    for name, value in (("blocks", blocks), ("capacity", capacity)):
        if value < 1:
            raise PolicyError(f"{name}: expected at least 1, got {value}")
    from vmrestorekit.restore import policies, records  # numba takes a second to import

    foresees = policy == "belady"
    arrays = Policy(
        caches=np.zeros(1, policies.CACHE),
        entries=np.zeros(blocks, policies.ENTRY),
        next_use=np.full(blocks if foresees else 0, policies.NEVER).astype(policies.NEXT_USE),
        heap=np.zeros(min(blocks, capacity) if foresees else 0, policies.HEAP),
    )
    set_up_cache(arrays.caches, policy, capacity)
    records.lay_out(arrays.caches, entries=arrays.entries, next_use=arrays.next_use, heap=arrays.heap)
    return arrays


def set_up_cache(caches: npt.NDArray[Any], policy: str, capacity: int) -> None:
    """Fill in what a policy begins with, in every row of an array of `policies.CACHE`."""
    from vmrestorekit.restore import policies

    caches["policy"] = policies.POLICY_NAMES.index(policy)
    caches["capacity"] = capacity
    caches["small_capacity"] = max(capacity // 10, 1)
    caches["ghost_capacity"] = capacity * 9 // 10
    caches["hand"] = caches["oldest"] = caches["newest"] = -1


class EvictionPolicy:
    """An eviction policy that is told of each event, as a live media agent does it.

    The cache calls `miss`, then `evict` if it has no free slot, then `insert` once the block is there; `hit`
    otherwise. Blocks that may not go are declared by `hold`.

    Parameters
    ----------
    policy : str
        A name of `EVICTION_POLICIES`.
    blocks : int
        Number of blocks; they are numbered from 0.
    capacity : int
        Slots of the cache. It is for the cache to see that no more are taken.

    Raises
    ------
    PolicyError
        If the name is unknown or a number is not positive; later, if a block is none of those, or is in the
        cache where it should not be or the other way round.
    """

    def __init__(self, policy: str, blocks: int, capacity: int) -> None:
        self.arrays = new_policy(policy, blocks, capacity)
        self.policy = policy
        # numba takes a second to import, and a media agent calls it for each block
        self._steps = importlib.import_module("vmrestorekit.restore.policies")

    def hit(self, block: int) -> None:
        """A block that the cache holds was asked for."""
        self._expect(block, in_cache=True)
        self._act("ON_HIT", block)

    def miss(self, block: int) -> None:
        """A block that the cache does not hold was asked for; no room was made yet."""
        self._expect(block, in_cache=False)
        self._act("ON_MISS", block)

    def insert(self, block: int) -> None:
        """A block is in its slot now."""
        self._expect(block, in_cache=False)
        self._act("ON_INSERT", block)

    def remove(self, block: int) -> None:
        """A block was purged; the policy remembers nothing of it."""
        self._expect(block)
        self._act("ON_REMOVE", block)

    def evict(self, incoming: int | None = None, *, for_staging: bool = False) -> int | None:
        """Choose the block that goes, for a demand or for staging, and take it out; None if none may go.

        `incoming` is the block for which room is made, if that is known; ARC makes use of it.
        """
        if incoming is not None:
            self._expect(incoming, in_cache=False)
        block = self._act("EVICT", -1 if incoming is None else incoming, 0 if for_staging else 1)
        return None if block < 0 else block

    def hold(self, block: int, *, pinned: bool = False, served: bool = True) -> None:
        """Say what a block may be evicted for: nothing while pinned, demand only until it was served."""
        self._expect(block)
        self._act("SET_HOLD", block, 2 if pinned else 0 if served else 1)

    def evictable(self, *, for_staging: bool = False) -> int:
        """How many blocks may go, for a demand or for staging."""
        return self._act("EVICTABLE", -1, 0 if for_staging else 1)

    def next_use(self, block: int, at: int) -> None:
        """Tell Belady's optimum when a block is used next, before `hit` and `insert`."""
        self._expect(block)
        if self.policy == "belady":
            self.arrays.next_use["at"][block] = at

    def blocks(self) -> set[int]:
        """The blocks that are in the cache, as the policy has it."""
        return set(np.flatnonzero(np.isin(self.arrays.entries["queue"], _IN_CACHE)).tolist())

    def _expect(self, block: int, in_cache: bool | None = None) -> None:
        if not 0 <= block < len(self.arrays.entries):
            raise PolicyError(f"block: expected one from 0 to {len(self.arrays.entries) - 1}, got {block}")
        is_there = self.arrays.entries["queue"][block] in _IN_CACHE
        if in_cache is not None and in_cache != is_there:
            raise PolicyError(
                f"block {block}: expected one that is {'in' if in_cache else 'not in'} the cache, "
                f"it is {'in it' if is_there else 'not'}"
            )

    def _act(self, action: str, block: int, level: int = 0) -> int:
        return int(self._steps.act(self.arrays.caches, int(getattr(self._steps, action)), block, level))
