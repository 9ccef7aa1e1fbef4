"""When the media agent starts which fetch from the backup device: rule 6 of the clockwork."""

from __future__ import annotations

import collections
import dataclasses

from vmrestorekit.lab.media.cache import IN_FLIGHT, QUEUED, Notes, ReadCache
from vmrestorekit.lab.media.staging import (
    FIRST_SET,
    PRE_RELOCATION,
    RELOCATION_READ,
    RELOCATION_STAGING,
    Medium,
    Stager,
)
from vmrestorekit.plan import PlanError, RestorePlan

__all__ = ["Fetch", "FetchQueue"]


@dataclasses.dataclass(eq=False, slots=True)
class Fetch:
    """Neighbouring blocks that are brought from the backup device, for a reader or for staging.

    Attributes
    ----------
    block, count : int
        What it was begun for.
    request : int
        Of the reader, -1 for staging.
    cause : int
        Its place in `CAUSES`.
    reason : int
        Number of the event that it follows.
    straight : bool
        Whether it goes past the cache.
    brings : list of int
        Ascending; more than what it was begun for, if whole chunks are read. Set when it starts, as the rest:
    address, end : int
        What is read on the medium.
    event : int
        Number of its `fetch`.
    """

    block: int
    count: int
    request: int
    cause: int
    reason: int
    straight: bool = False
    first_set_at: int = -1
    brings: list[int] = dataclasses.field(default_factory=list)
    address: int = -1
    end: int = -1
    event: int = -1


class FetchQueue:
    """Fetches that wait and those in flight, and what starts next.

    Attributes
    ----------
    idle_channels : int
        Of the backup device.
    reasons : dict of int to int
        For the causes of staging, the event that it follows.
    """

    def __init__(self, notes: Notes, cache: ReadCache, medium: Medium, stager: Stager, channels: int) -> None:
        self.notes, self.cache, self.medium, self.stager = notes, cache, medium, stager
        self.channels = self.idle_channels = channels
        self.waiting: collections.deque[Fetch] = collections.deque()
        self.in_flight: set[Fetch] = set()
        self.reasons = {FIRST_SET: -1, PRE_RELOCATION: -1, RELOCATION_STAGING: -1}
        self.stopped = False
        self.fetches = self.bytes_read = 0
        self._staging_fetches = 0

    def follow(self, plan: RestorePlan) -> None:
        """Go by a plan."""
        if plan.priorities == "weighted":
            raise PlanError(
                "priorities: weighted ones need to know which reads are the relocation's, which this media "
                "agent is not told; expected as_claimed, strict or equal"
            )
        if self.waiting or self.in_flight:
            # how they count depends on the priorities
            waiting = [*self.waiting, *self.in_flight]
            counted = _counted(plan.priorities)
            self._staging_fetches = sum(fetch.cause in counted for fetch in waiting)
        self._counted = _counted(plan.priorities)
        self._priorities = plan.priorities
        self._stage_depth = plan.stage_depth or self.channels

    def join(self, fetch: Fetch) -> None:
        """Append a fetch to the queue."""
        fetch.first_set_at = self.stager.first_set_at - fetch.count
        for block in range(fetch.block, fetch.block + fetch.count):
            copy = self.cache.copy_of(block)
            copy.place, copy.fetch = QUEUED, fetch
        self._staging_fetches += fetch.cause in self._counted
        self.waiting.append(fetch)

    def end(self, fetch: Fetch) -> None:
        """A fetch in flight has come to its end, its channel is idle again."""
        self.in_flight.remove(fetch)
        self.idle_channels += 1
        self._staging_fetches -= fetch.cause in self._counted

    def drop_waiting(self) -> None:
        """Drop what has not started."""
        while self.waiting:
            fetch = self.waiting.popleft()
            self._staging_fetches -= fetch.cause in self._counted
            for block in range(fetch.block, fetch.block + fetch.count):
                self.cache.become_absent(self.cache.copies[block])

    def dispatch(self) -> list[Fetch]:
        """Start what can be started; return it."""
        started: list[Fetch] = []
        if self.stopped:
            return started
        while True:
            self._refill()
            if not self.idle_channels:
                return started
            if self.waiting:
                if not self._deal_with_head(started):
                    return started
            else:
                fetch = self._next_low_priority()
                if fetch is None:
                    return started
                self._start(fetch, for_staging=True)
                started.append(fetch)

    @property
    def staging_waits(self) -> bool:
        """Whether staging waits in the queue, or anything is in flight."""
        return self._staging_fetches > 0 or bool(self.in_flight)

    def _refill(self) -> None:
        stager = self.stager
        while self._staging_fetches < self._stage_depth and not stager.finished:
            block: int | None
            if self._priorities == "equal":
                given = stager.next_low() if self.cache.slots_for(staging=True) > 0 else None
                block, cause = (None, FIRST_SET) if given is None else given
            elif self._priorities == "as_claimed" and stager.relocating:
                cause = RELOCATION_STAGING
                block = stager.next_of_relocation() if self.cache.slots_for(staging=True) > 0 else None
            else:
                return
            if block is None:
                return
            count = stager.take_neighbours(block, cause)
            self.join(Fetch(block, count, -1, cause, self.reasons[cause]))

    def _is_demanded(self, fetch: Fetch) -> bool:
        return fetch.cause <= RELOCATION_READ or any(
            self.cache.copies[block].waiting for block in range(fetch.block, fetch.block + fetch.count)
        )

    def _deal_with_head(self, started: list[Fetch]) -> bool:
        """Start the head of the queue or take it back; False if it has to wait for slots."""
        fetch = self.waiting[0]
        for_staging = not self._is_demanded(fetch)
        has_slots = fetch.straight or self.cache.slots_for(staging=for_staging) >= fetch.count
        if not has_slots and not for_staging:
            return False
        self.waiting.popleft()
        if has_slots:
            self._start(fetch, for_staging=for_staging)
            started.append(fetch)
        else:
            self._take_back(fetch)
        return True

    def _take_back(self, fetch: Fetch) -> None:
        for block in range(fetch.block, fetch.block + fetch.count):
            self.cache.become_absent(self.cache.copies[block])
        self.stager.take_back(fetch.block, fetch.cause, fetch.first_set_at)
        self._staging_fetches -= fetch.cause in self._counted

    def _next_low_priority(self) -> Fetch | None:
        if self.stager.finished or self._priorities == "equal" or not self.cache.slots_for(staging=True):
            return None
        given = self.stager.next_low()
        if given is None:
            return None
        block, cause = given
        fetch = Fetch(block, self.stager.take_neighbours(block, cause), -1, cause, self.reasons[cause])
        self._staging_fetches += cause in self._counted
        return fetch

    def _start(self, fetch: Fetch, *, for_staging: bool) -> None:
        if not fetch.straight:
            self.cache.take_slots(fetch.count, fetch.block, for_staging=for_staging, reason=fetch.reason)
        fetch.brings = list(range(fetch.block, fetch.block + fetch.count))
        for block in fetch.brings:
            copy = self.cache.copies[block]
            copy.place, copy.fetch = IN_FLIGHT, fetch
        first, last = fetch.block, fetch.block + fetch.count - 1
        fetch.address, fetch.end = self.medium.read_for(fetch.block, fetch.count)
        if self.medium.chunk is not None:
            first, last = self._widen(fetch)
        self.in_flight.add(fetch)
        self.idle_channels -= 1
        self.fetches += 1
        self.bytes_read += fetch.end - fetch.address
        fetch.event = self.notes.note(
            "fetch", first, last - first + 1, fetch.request, fetch.cause, fetch.reason
        )

    def _widen(self, fetch: Fetch) -> tuple[int, int]:
        """Let a fetch bring of whole chunks what a stager could bring, as far as there are slots."""
        first, last, read = self.medium.in_chunks_of(fetch.block, fetch.count)
        for block in () if fetch.straight else read:
            if not self.cache.slots_for(staging=True):
                break
            if self.stager.may_stage(block):
                self.cache.take_slots(1, fetch.block, for_staging=True, reason=fetch.reason)
                copy = self.cache.copy_of(block)
                copy.place, copy.fetch = IN_FLIGHT, fetch
                fetch.brings.append(block)
        fetch.brings.sort()
        return first, last


def _counted(priorities: str) -> tuple[int, ...]:
    """Return the causes of the staging that goes through the queue of demand."""
    if priorities == "equal":
        return FIRST_SET, PRE_RELOCATION, RELOCATION_STAGING
    return (RELOCATION_STAGING,) if priorities == "as_claimed" else ()
