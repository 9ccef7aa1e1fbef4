"""The media agent serves the parts of reads, at once or when they were fetched: rule 4 of the clockwork."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vmrestorekit.lab.media.cache import ABSENT, PRESENT, QUEUED, Copy, Log, Notes, Part, ReadCache
from vmrestorekit.lab.media.fetch_queue import Fetch, FetchQueue
from vmrestorekit.lab.media.purging import Purger
from vmrestorekit.lab.media.staging import Medium, Stager
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import READERS

__all__ = ["PartServer"]

_VM = READERS.index("vm")


class PartServer:
    """Parts from their arrival to their transmission, and what a fetch brings them.

    Attributes
    ----------
    hits, waits, misses : int
        Of any reader.
    refetches : int
        Misses of the virtual machine of blocks that had been purged.
    staged_first_set : set of int
        Those blocks of the first set that have come.
    """

    def __init__(self, medium: Medium, channels: int, plan: RestorePlan, log: Log) -> None:
        self.notes = Notes(log)
        self.medium = medium
        self.cache = ReadCache(self.notes, len(medium.stored), plan.cache_slots, plan.eviction)
        self.stager = Stager(self.cache, medium)
        self.queue = FetchQueue(self.notes, self.cache, medium, self.stager, channels)
        self.purger = Purger(self.notes, self.cache, self.stager)
        self.hits = self.waits = self.misses = self.refetches = 0
        self.staged_first_set: set[int] = set()
        self._first_set: frozenset[int] = frozenset()
        self._straight = False
        self._fetch_blocks = 1

    def arrive(
        self,
        now: int,
        request: int,
        reader: int,
        wanted: Sequence[tuple[int, int]],
        ticket: object,
        event: int,
    ) -> tuple[list[Part], list[Part]]:
        """A request needs blocks of the backup copy: (block, bytes), ascending; none of them is a hole.

        Returns
        -------
        parts, hits : list of Part
            All, and those of them that can be sent at once.
        """
        self.notes.now = now
        parts: list[Part] = []
        hits: list[Part] = []
        missing: list[Part] = []
        cache = self.cache
        for block, size in wanted:
            part = Part(request, reader, block, size, ticket, event)
            parts.append(part)
            copy = cache.copy_of(block)
            copy.pins += 1
            if copy.place == PRESENT:
                self.hits += 1
                part.event = self.notes.note("cache_hit", block, 1, request, reader, event)
                part.content = copy.content
                cache.update_hold(copy)
                cache.policy.hit(block)
                hits.append(part)
            elif copy.place == ABSENT:
                self._miss(copy, part)
                if missing and not self._follows(missing[-1], part, parts, len(missing)):
                    self._join_queue(missing)
                    missing = []
                missing.append(part)
            else:
                self.waits += 1
                part.event = self.notes.note("cache_wait", block, 1, request, reader, event)
                copy.waiting.append(part)
            self.purger.track(block, part.event)
        if missing:
            self._join_queue(missing)
        return parts, hits

    def _miss(self, copy: Copy, part: Part) -> None:
        self.misses += 1
        part.event = self.notes.note("cache_miss", copy.block, 1, part.request, part.reader, part.event)
        if self.cache.was_purged[copy.block] and part.reader == _VM:
            self.refetches += 1
            self.notes.note("refetch_after_purge", copy.block, 1, part.request, part.reader, part.event)
        if not self._straight:
            self.cache.policy.miss(copy.block)
        copy.place = QUEUED
        copy.waiting.append(part)

    def _follows(self, last: Part, part: Part, parts: list[Part], gathered: int) -> bool:
        """Tell whether a missing block is fetched with the ones before: its neighbours in all respects."""
        return (
            gathered < self._fetch_blocks
            and parts[-2] is last
            and part.block == last.block + 1
            and self.medium.lies_behind(part.block)
        )

    def _join_queue(self, missing: list[Part]) -> None:
        first = missing[0]
        # the causes of demand are numbered like the readers
        self.queue.join(
            Fetch(first.block, len(missing), first.request, first.reader, first.event, self._straight)
        )

    def sent(self, now: int, part: Part) -> int:
        """A part's transmission has arrived at its reader; return the number of that event."""
        self.notes.now = now
        copy = self.cache.copies[part.block]
        event = self.notes.note("serve", part.block, 1, part.request, part.reader, part.event)
        copy.served = True
        self.cache.ahead.discard(part.block)
        part.content = None
        self._unpin(copy)
        return event

    def abandon(self, now: int, part: Part) -> None:
        """Nobody waits for a part any more; what was begun for it goes on."""
        self.notes.now = now
        copy = self.cache.copies.get(part.block)
        if copy is not None and part in copy.waiting:
            copy.waiting.remove(part)
            self._unpin(copy)

    def lose(self, now: int, part: Part) -> None:
        """A part that was being sent is not any more."""
        self.notes.now = now
        part.content = None
        self._unpin(self.cache.copies[part.block])

    def _unpin(self, copy: Copy) -> None:
        copy.pins -= 1
        self.cache.update_hold(copy)
        self.purger.make_due(copy)
        self.cache.forget(copy)

    def completed(
        self, now: int, fetch: Fetch, contents: Mapping[int, bytes], failed: Collection[int] = ()
    ) -> tuple[list[Part], list[Part]]:
        """A fetch has come to its end, with contents, but for those blocks that could not be read.

        Returns
        -------
        to_send, in_vain : list of Part
            Parts that can be sent now, and those whose block failed.
        """
        self.notes.now = now
        self.queue.end(fetch)
        to_send: list[Part] = []
        in_vain: list[Part] = []
        came: list[int] = []
        for block in [*fetch.brings, -1]:
            if came and (block in failed or block != came[-1] + 1):
                to_send += self._bring(fetch, came, contents)
                came = []
            if block in failed:
                in_vain += self._fail(fetch, self.cache.copies[block])
            elif block >= 0:
                came.append(block)
        return to_send, in_vain

    def _bring(self, fetch: Fetch, blocks: list[int], contents: Mapping[int, bytes]) -> list[Part]:
        """Neighbours have come: into the cache, or past it, and to those who wait for them."""
        kind = "read_from_media" if fetch.straight else "staged"
        event = self.notes.note(kind, blocks[0], len(blocks), fetch.request, fetch.cause, fetch.event)
        to_send: list[Part] = []
        for block in blocks:
            copy = self.cache.copies[block]
            content = contents.get(block)
            if fetch.straight:
                copy.place, copy.fetch = ABSENT, None
            else:
                self.cache.enter(copy, content)
                if block in self._first_set:
                    self.staged_first_set.add(block)
            for part in copy.waiting:
                part.event, part.content = event, content
            to_send += copy.waiting
            copy.waiting = []
            self.cache.forget(copy)
        return to_send

    def _fail(self, fetch: Fetch, copy: Copy) -> list[Part]:
        """A block could not be read: it is absent again, and who waits for it waits in vain."""
        in_vain, copy.waiting = copy.waiting, []
        copy.pins -= len(in_vain)
        if fetch.straight:
            self.cache.become_absent(copy)
        else:
            self.cache.free_slot(copy)
        return in_vain

    def drop(self, now: int, fetch: Fetch) -> None:
        """A fetch has come to its end after `stop`: nobody wants it any more."""
        self.notes.now = now
        self.queue.end(fetch)
        for block in fetch.brings:
            self._fail(fetch, self.cache.copies[block])
