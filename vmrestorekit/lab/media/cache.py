"""The media agent's read cache: slots, pins, and what goes when room is needed (rule 5 of the clockwork)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

from vmrestorekit.restore.eviction import EvictionPolicy

if TYPE_CHECKING:
    from vmrestorekit.lab.media.fetch_queue import Fetch

__all__ = ["ABSENT", "IN_FLIGHT", "PRESENT", "QUEUED", "Copy", "Log", "Notes", "Part", "ReadCache"]

# where a block is
ABSENT, QUEUED, IN_FLIGHT, PRESENT = range(4)


class Log(Protocol):
    """Where events go, see `vmrestorekit.lab.media.event_log.EventLog.append`."""

    def append(
        self,
        at_ns: int,
        kind: str,
        block: int = -1,
        count: int = 0,
        request: int = -1,
        detail: int = 0,
        cause: int = -1,
    ) -> int:
        """Append an event; return its number."""


class Notes:
    """The log, with the time of what is being done; all rules of a media agent share one."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.now = 0

    def note(
        self, kind: str, block: int = -1, count: int = 0, request: int = -1, detail: int = 0, cause: int = -1
    ) -> int:
        """Append an event at this instant; return its number."""
        return self.log.append(self.now, kind, block, count, request, detail, cause)


@dataclasses.dataclass(eq=False, slots=True)
class Part:
    """A reader's need of one block.

    Attributes
    ----------
    reader : int
        Its place in `READERS`; no rule looks at it, it is for the events.
    size : int
        Bytes that are wanted of the block.
    ticket : object
        Of whoever asked; the rules do not look at it.
    event : int
        Number of the last event about the part.
    content : bytes, optional
        From when the part may be sent until it was.
    """

    request: int
    reader: int
    block: int
    size: int
    ticket: object = None
    event: int = -1
    content: bytes | None = None


@dataclasses.dataclass(eq=False, slots=True)
class Copy:
    """What the agent knows of a block that is in the cache, coming, or still being sent."""

    block: int
    place: int = ABSENT
    pins: int = 0
    served: bool = False
    waiting: list[Part] = dataclasses.field(default_factory=list)
    content: bytes | None = None
    fetch: Fetch | None = None


class ReadCache:
    """Slots, and the blocks that have them.

    Parameters
    ----------
    notes : Notes
    blocks : int
        Number of blocks there are.
    slots : int
    policy : str
        A name of `vmrestorekit.restore.eviction.EVICTION_POLICIES`.

    Attributes
    ----------
    used, peak : int
        Slots that are taken, now and at most.
    copies : dict of int to Copy
        Of all blocks that are not absent, or are pinned.
    ahead : set of int
        Blocks that the relocation's cursor gave and that were not sent to anyone since.
    was_purged : bytearray
        Of each block, whether it left the cache by being purged when it was there last.
    """

    def __init__(self, notes: Notes, blocks: int, slots: int, policy: str) -> None:
        self.notes = notes
        self.blocks = blocks
        self.used = self.peak = self.evicted = 0
        self.copies: dict[int, Copy] = {}
        self.ahead: set[int] = set()
        self.was_purged = bytearray(blocks)
        self.slots = slots
        self.policy = EvictionPolicy(policy, blocks, slots)

    def resize(self, slots: int, policy: str) -> None:
        """Go by another size and policy; what is there stays as far as there is room."""
        self.slots = slots
        self.policy = EvictionPolicy(policy, self.blocks, slots)
        for copy in list(self.copies.values()):
            if copy.place == PRESENT:
                self.update_hold(copy)
                self.policy.insert(copy.block)
        while self.used > slots and self.policy.evictable():
            self._evict_first(None, for_staging=False, reason=-1)

    def place_of(self, block: int) -> int:
        """Return where a block is."""
        copy = self.copies.get(block)
        return ABSENT if copy is None else copy.place

    def copy_of(self, block: int) -> Copy:
        """Return what is known of a block, to be changed."""
        copy = self.copies.get(block)
        if copy is None:
            copy = self.copies[block] = Copy(block)
        return copy

    def forget(self, copy: Copy) -> None:
        """Keep no record of a block of which there is nothing to know."""
        if copy.place == ABSENT and copy.pins == 0:
            self.copies.pop(copy.block, None)

    def update_hold(self, copy: Copy) -> None:
        """Tell the policy what a block that is there may be evicted for now."""
        if copy.place == PRESENT:
            self.policy.hold(copy.block, pinned=copy.pins > 0, served=copy.served)

    @property
    def free(self) -> int:
        """How many slots are free."""
        return self.slots - self.used

    def slots_for(self, *, staging: bool) -> int:
        """Return how many slots a stager, or a demand, could have now."""
        return self.slots - self.used + self.policy.evictable(for_staging=staging)

    def take_slots(self, count: int, incoming: int, *, for_staging: bool, reason: int) -> None:
        """Take slots, and evict as many blocks as are missing; the caller knows that they can be had."""
        while self.slots - self.used < count:
            self._evict_first(incoming, for_staging=for_staging, reason=reason)
        self.used += count
        self.peak = max(self.peak, self.used)

    def _evict_first(self, incoming: int | None, *, for_staging: bool, reason: int) -> None:
        block = self.policy.evict(incoming, for_staging=for_staging)
        assert block is not None, "room was promised that there is not"
        copy = self.copies[block]
        self.evicted += 1
        self.notes.note("evict", block, 1, -1, int(not copy.served), reason)
        self.free_slot(copy)

    def enter(self, copy: Copy, content: bytes | None) -> None:
        """A block's fetch completed: its slot now holds it."""
        copy.place = PRESENT
        copy.served = False
        copy.content = content
        copy.fetch = None
        self.was_purged[copy.block] = 0
        self.update_hold(copy)
        self.policy.insert(copy.block)

    def purge(self, copy: Copy) -> None:
        """Drop a block that is there because the relocation has read it."""
        self.policy.remove(copy.block)
        self.was_purged[copy.block] = 1
        self.free_slot(copy)

    def free_slot(self, copy: Copy) -> None:
        """Forget a block that a slot was for."""
        self.used -= 1
        self.become_absent(copy)

    def become_absent(self, copy: Copy) -> None:
        """A block is neither there nor coming."""
        copy.place = ABSENT
        copy.content = None
        copy.fetch = None
        self.ahead.discard(copy.block)
        self.forget(copy)

    def empty(self) -> int:
        """Drop every block that is there and unpinned; return how many."""
        gone = [copy for copy in self.copies.values() if copy.place == PRESENT and copy.pins == 0]
        for copy in gone:
            self.policy.remove(copy.block)
            self.free_slot(copy)
        return len(gone)
