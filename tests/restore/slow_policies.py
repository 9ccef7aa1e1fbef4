"""Eviction policies once more, slow and readable, on Python's lists: each as its paper tells it.

Blocks that may not go are left out of the list that a policy looks at: plainly, they do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

MayGo = Callable[[int], bool]


class Slow:
    """FIFO: `order` is a list from oldest to newest."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.order: list[int] = []

    def blocks(self) -> set[int]:
        return set(self.order)

    def hit(self, block: int) -> None:
        pass

    def miss(self, block: int) -> None:
        pass

    def insert(self, block: int) -> None:
        self.order.append(block)

    def choose(self, incoming: int | None, may_go: MayGo) -> int:
        return next(block for block in self.order if may_go(block))

    def evict(self, incoming: int | None, may_go: MayGo) -> int | None:
        if not any(may_go(block) for block in self.blocks()):
            return None
        victim = self.choose(incoming, may_go)
        self.remember(victim)
        return victim

    def remember(self, victim: int) -> None:
        self.order.remove(victim)

    def remove(self, block: int) -> None:
        if block in self.order:
            self.order.remove(block)


class SlowLRU(Slow):
    def hit(self, block: int) -> None:
        self.order.remove(block)
        self.order.append(block)


class SlowClock(Slow):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.bit: set[int] = set()

    def hit(self, block: int) -> None:
        self.bit.add(block)

    def insert(self, block: int) -> None:
        super().insert(block)
        self.bit.discard(block)

    def choose(self, incoming: int | None, may_go: MayGo) -> int:
        candidates = [block for block in self.order if may_go(block)]
        while candidates[0] in self.bit:
            spared = candidates.pop(0)
            self.bit.remove(spared)
            candidates.append(spared)
            self.order.remove(spared)
            self.order.append(spared)
        return candidates[0]


class SlowSieve(SlowClock):
    """The hand is the number of blocks that are older than the one it points to."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.hand = 0

    def choose(self, incoming: int | None, may_go: MayGo) -> int:
        while True:
            if self.hand >= len(self.order):
                self.hand = 0
            block = self.order[self.hand]
            if may_go(block):
                if block not in self.bit:
                    return block
                self.bit.remove(block)
            self.hand += 1

    def remember(self, victim: int) -> None:
        self.remove(victim)

    def remove(self, block: int) -> None:
        if block in self.order:
            if self.order.index(block) < self.hand:
                self.hand -= 1
            self.order.remove(block)
            # a hand past the newest starts again at the oldest, whatever comes meanwhile
            if self.hand >= len(self.order):
                self.hand = 0


class SlowS3FIFO(Slow):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.small: list[int] = []
        self.main: list[int] = []
        self.ghost: list[int] = []
        self.returning: set[int] = set()
        self.visits: dict[int, int] = {}
        self.share = max(int(0.1 * capacity), 1)
        self.has_evicted = False

    def blocks(self) -> set[int]:
        return {*self.small, *self.main}

    def hit(self, block: int) -> None:
        self.visits[block] = min(self.visits[block] + 1, 3)

    def miss(self, block: int) -> None:
        if block in self.ghost:
            self.ghost.remove(block)
            self.returning.add(block)

    def insert(self, block: int) -> None:
        if block in self.ghost:
            self.ghost.remove(block)
        warming_up = not self.has_evicted and len(self.small) >= self.share
        (self.main if block in self.returning or warming_up else self.small).append(block)
        self.returning.discard(block)
        self.visits[block] = 0

    def choose(self, incoming: int | None, may_go: MayGo) -> int:
        self.has_evicted = True
        small_first = 0 < len(self.small) >= self.share
        for from_small in (small_first, not small_first, small_first):
            victim = self.from_small(may_go) if from_small else self.from_main(may_go)
            if victim is not None:
                return victim
        raise AssertionError

    def from_small(self, may_go: MayGo) -> int | None:
        for block in [block for block in self.small if may_go(block)]:
            if self.visits[block] <= 1:
                return block
            self.small.remove(block)
            self.main.append(block)
            self.visits[block] = 0
        return None

    def from_main(self, may_go: MayGo) -> int | None:
        candidates = [block for block in self.main if may_go(block)]
        while candidates and self.visits[candidates[0]] > 0:
            spared = candidates.pop(0)
            self.visits[spared] -= 1
            candidates.append(spared)
            self.main.remove(spared)
            self.main.append(spared)
        return candidates[0] if candidates else None

    def remember(self, victim: int) -> None:
        if victim in self.small:
            self.small.remove(victim)
            self.ghost.append(victim)
            self.ghost = self.ghost[-int(0.9 * self.capacity) :] if int(0.9 * self.capacity) else []
        else:
            self.main.remove(victim)

    def remove(self, block: int) -> None:
        for queue in (self.small, self.main, self.ghost):
            if block in queue:
                queue.remove(block)
        self.returning.discard(block)


class SlowARC(Slow):
    """T1 and B1, T2 and B2, from oldest to newest, and the target size of T1."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.t1: list[int] = []
        self.t2: list[int] = []
        self.b1: list[int] = []
        self.b2: list[int] = []
        self.returning: dict[int, str] = {}
        self.target = 0.0

    def blocks(self) -> set[int]:
        return {*self.t1, *self.t2}

    def hit(self, block: int) -> None:
        (self.t1 if block in self.t1 else self.t2).remove(block)
        self.t2.append(block)

    def miss(self, block: int) -> None:
        if block in self.b1:
            self.target = min(self.target + max(len(self.b2) / len(self.b1), 1), self.capacity)
            self.b1.remove(block)
            self.returning[block] = "b1"
        elif block in self.b2:
            self.target = max(self.target - max(len(self.b1) / len(self.b2), 1), 0)
            self.b2.remove(block)
            self.returning[block] = "b2"

    def insert(self, block: int) -> None:
        for ghosts in (self.b1, self.b2):
            if block in ghosts:
                ghosts.remove(block)
        (self.t1 if self.returning.pop(block, None) is None else self.t2).append(block)
        while self.b1 and len(self.t1) + len(self.b1) > self.capacity:
            self.b1.pop(0)
        while self.b2 and len([*self.t1, *self.t2, *self.b1, *self.b2]) > 2 * self.capacity:
            self.b2.pop(0)

    def choose(self, incoming: int | None, may_go: MayGo) -> int:
        size = len(self.t1)
        returns_to_t2 = incoming is not None and self.returning.get(incoming) == "b2"
        from_t1 = size > 0 and (size > self.target or (returns_to_t2 and size == self.target))
        both: Iterable[int] = [*self.t1, *self.t2] if from_t1 else [*self.t2, *self.t1]
        return next(block for block in both if may_go(block))

    def remember(self, victim: int) -> None:
        resident, ghosts = (self.t1, self.b1) if victim in self.t1 else (self.t2, self.b2)
        resident.remove(victim)
        ghosts.append(victim)

    def remove(self, block: int) -> None:
        for blocks in (self.t1, self.t2, self.b1, self.b2):
            if block in blocks:
                blocks.remove(block)
        self.returning.pop(block, None)


class SlowBelady(Slow):
    """`next_use` is told by the cache."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.next_use: dict[int, int] = {}

    def choose(self, incoming: int | None, may_go: MayGo) -> int:
        candidates = [block for block in self.order if may_go(block)]
        return max(candidates, key=lambda block: (self.next_use[block], -block))


SLOW = {
    "fifo": Slow,
    "lru": SlowLRU,
    "clock": SlowClock,
    "sieve": SlowSieve,
    "s3fifo": SlowS3FIFO,
    "arc": SlowARC,
    "belady": SlowBelady,
}
