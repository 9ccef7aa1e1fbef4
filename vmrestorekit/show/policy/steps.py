"""An eviction policy, access by access: what the compiled policy keeps, read out of its own arrays.

Nothing here decides anything. The policy is the one that the simulation and the live media agent use; it is
told of each access, and what it has done to its queues is read out between its steps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.restore.eviction import EVICTION_POLICIES, EvictionPolicy

__all__ = ["CacheState", "PolicyStep", "accesses_of", "capacity_of", "draw_accesses", "policy_steps"]

MOST_ACCESSES, MOST_SLOTS = 240, 16
_QUEUES = ("main", "small", "ghost_small", "ghost_main")  # policies.MAIN is 1; a test compares


@dataclasses.dataclass(frozen=True)
class CacheState:
    """What a policy keeps at one moment.

    Attributes
    ----------
    queues : mapping of str to tuple of int
        ``main``, ``small``, ``ghost_small``, ``ghost_main``: blocks from the oldest to the newest; for
        Belady's optimum from the farthest next use to the soonest. ARC's T1, T2, B1, B2 are ``small``,
        ``main``, ``ghost_small``, ``ghost_main``. Blocks of the ghosts are remembered only, not held.
    visits : mapping of int to int
        Of each block that is held: its reference bit (CLOCK, SIEVE), or its counter (S3-FIFO).
    hand : int or None
        The block that SIEVE's hand points to; None: it begins at the oldest.
    target : float
        ARC: how large T1 is to be.
    next_use : mapping of int to (int or None)
        Belady's optimum: the access, from 0, at which a held block is used next.
    """

    queues: Mapping[str, tuple[int, ...]]
    visits: Mapping[int, int]
    hand: int | None
    target: float
    next_use: Mapping[int, int | None]

    @property
    def held(self) -> tuple[int, ...]:
        """The blocks in the cache."""
        return self.queues["small"] + self.queues["main"]


@dataclasses.dataclass(frozen=True)
class PolicyStep:
    """What a policy did with one access.

    Attributes
    ----------
    access : int
        Counted from 0.
    block : int
    hit : bool
    evicted : int or None
    hits : int
        Up to and with this access.
    before, asked, room, after : CacheState
        Before the access; once the policy was told of it; once there was room; and at the end.
    evicted_came, evicted_used : int
        When the evicted block came, and was used last; -1 if nothing was evicted.
    """

    access: int
    block: int
    hit: bool
    evicted: int | None
    hits: int
    before: CacheState
    asked: CacheState
    room: CacheState
    after: CacheState
    evicted_came: int = -1
    evicted_used: int = -1


def accesses_of(accesses: Any) -> tuple[int, ...]:
    """Return block numbers as a tuple, if there are enough and not too many.

    Raises
    ------
    ValueError
    """
    given = np.asarray(accesses)
    if given.ndim != 1 or given.dtype.kind not in "iu" or not 1 <= len(given) <= MOST_ACCESSES:
        raise ValueError(
            f"accesses: expected 1 to {MOST_ACCESSES} block numbers in one dimension, "
            f"got {given.dtype} of shape {given.shape}"
        )
    if int(given.min()) < 0:
        at = int(np.argmin(given))
        raise ValueError(f"accesses: expected block numbers from 0 on, got {int(given[at])} at place {at}")
    return tuple(int(block) for block in given)


def capacity_of(capacity: object) -> int:
    """Return a number of slots that can be shown.

    Raises
    ------
    ValueError
    """
    if isinstance(capacity, bool) or not isinstance(capacity, int) or not 1 <= capacity <= MOST_SLOTS:
        raise ValueError(f"capacity: expected a whole number from 1 to {MOST_SLOTS}, got {capacity!r}")
    return capacity


def draw_accesses(seed: int, length: int = 30, blocks: int = 8) -> tuple[int, ...]:
    """Draw a SYNTHETIC access string: some blocks come back often, the others now and then.

    Parameters
    ----------
    seed : int
        The same seed draws the same string.
    length, blocks : int
        How many accesses, and of how many blocks, numbered from 1.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    for name, value, least in (("seed", seed, 0), ("length", length, 1), ("blocks", blocks, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    rng = np.random.default_rng(seed)
    liked = 1 / np.arange(1, blocks + 1)
    drawn = rng.choice(rng.permutation(np.arange(1, blocks + 1)), size=length, p=liked / liked.sum())
    return accesses_of(drawn)


@functools.lru_cache(maxsize=256)
def policy_steps(policy: str, accesses: tuple[int, ...], capacity: int) -> tuple[PolicyStep, ...]:
    """Tell the compiled policy of each access, and return what it did.

    Parameters
    ----------
    policy : str
        A name of `vmrestorekit.restore.eviction.EVICTION_POLICIES`.
    accesses : tuple of int
        Block numbers; a block that is not there is there at once.
    capacity : int
        Slots of the cache.

    Raises
    ------
    ValueError
        If the policy is unknown.
    """
    if policy not in EVICTION_POLICIES:
        raise ValueError(f"policies: expected some of {', '.join(EVICTION_POLICIES)}, got {policy!r}")
    return tuple(_Run(policy, accesses, capacity).steps())


class _Run:
    """A policy with the names of its blocks: it numbers them from 0 on."""

    def __init__(self, name: str, accesses: tuple[int, ...], capacity: int) -> None:
        names, numbers = np.unique(np.array(accesses, np.int64), return_inverse=True)
        self.name, self.capacity, self.accesses = name, capacity, accesses
        self.names, self.numbers = names.tolist(), numbers.astype(np.int32)
        self.policy = EvictionPolicy(name, len(self.names), capacity)
        self.next_use = _next_uses(self.numbers, len(self.names))

    def steps(self) -> Iterator[PolicyStep]:
        """Yield one step an access."""
        hits, after = 0, self.state()
        came, used = dict.fromkeys(self.names, -1), dict.fromkeys(self.names, -1)
        for access, block in enumerate(self.accesses):
            number, before, evicted = int(self.numbers[access]), after, None
            self.policy.next_use(number, int(self.next_use[access]))
            hit = block in before.held
            if hit:
                self.policy.hit(number)
                asked = room = after = self.state()
            else:
                self.policy.miss(number)
                asked = self.state()
                room = asked
                if len(asked.held) == self.capacity:
                    evicted, room = self.names[self.policy.evict(number)], self.state()
                self.policy.insert(number)
                after = self.state()
                came[block] = access
            hits += hit
            times = (-1, -1) if evicted is None else (came[evicted], used[evicted])
            used[block] = access
            yield PolicyStep(access, block, hit, evicted, hits, before, asked, room, after, *times)

    def state(self) -> CacheState:
        """Read out what the policy keeps."""
        arrays, names = self.policy.arrays, self.names
        cache = arrays.caches[0]
        hand, visits = int(cache["hand"]), arrays.entries["visits"].tolist()
        queues: dict[str, list[int]] = {queue: [] for queue in _QUEUES}
        queues |= {"main": self._farthest_first()} if self.name == "belady" else self._walk(cache["oldest"])
        held = queues["main"] + queues["small"]
        return CacheState(
            {queue: tuple(names[number] for number in numbers) for queue, numbers in queues.items()},
            {names[number]: visits[number] for number in held},
            None if hand < 0 else names[hand],
            float(cache["target"]),
            {names[number]: self._used_next(number) for number in held} if self.name == "belady" else {},
        )

    def _walk(self, oldest: npt.NDArray[np.int64]) -> dict[str, list[int]]:
        newer, queues = self.policy.arrays.entries["newer"].tolist(), {}
        for queue, number in zip(_QUEUES, oldest[1:].tolist(), strict=True):
            found = queues[queue] = list[int]()
            while number >= 0:
                found.append(number)
                number = newer[number]
        return queues

    def _farthest_first(self) -> list[int]:
        held = sorted(self.policy.blocks())
        # of two that are never used again, the one with the lower number goes first, as the policy has it
        held.sort(key=lambda number: -int(self.policy.arrays.next_use["at"][number]))
        return held

    def _used_next(self, number: int) -> int | None:
        at = int(self.policy.arrays.next_use["at"][number])
        return at if at < len(self.accesses) else None


def _next_uses(numbers: npt.NDArray[np.int32], blocks: int) -> npt.NDArray[np.int64]:
    from vmrestorekit.restore import policies  # numba takes a second to import

    next_use = np.empty(len(numbers), np.int64)
    policies.find_next_uses(numbers, next_use, np.full(blocks, policies.NEVER))
    return next_use
