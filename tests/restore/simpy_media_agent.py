"""The media agent of the slow model (`simpy_model`): rules 4, 5 and 8 of `docs/clockwork.md`.

Also what a fetch brings (rule 6). When fetches start is the business of `simpy_dispatcher`.
"""

from __future__ import annotations

from simpy_cache import Held, ReadCache
from simpy_client import Client, Copy, Fetch, Part, Run
from simpy_devices import FETCHED, PURGE, Agenda, BackupDevice, Key, Link

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import CAUSES, READERS
from vmrestorekit.restore.hardware import Hardware

VM_READ, RELOCATION_READ, FIRST_SET, PRE_STAGING, RELOCATION_STAGING = range(len(CAUSES))
OF_VM, OF_RELOCATION = range(len(READERS))
BY_RUN, BY_INDICATION, BY_PERIOD = range(3)
CAUSE_OF_READER = {OF_VM: VM_READ, OF_RELOCATION: RELOCATION_READ}


def ascending_neighbours(blocks: list[int]) -> list[tuple[int, int]]:
    """Return first block and length of each run in which every block is one more than the last."""
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and block == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return runs


class MediaAgent:
    """Rules 4, 5, 6 and 8: serves parts, fetches, tracks and purges.

    `plan` says what has to be the same in the plans of all its clients (rule 12).
    """

    def __init__(
        self, agenda: Agenda, number: int, plan: RestorePlan, hardware: Hardware, device: BackupDevice
    ) -> None:
        self.agenda, self.number, self.plan, self.device = agenda, number, plan, device
        self.link = Link(agenda, hardware.link)
        self.cache = ReadCache(plan.cache_slots, plan.eviction)
        self.clients: list[Client] = []  # in the order of their numbers
        self.queue: list[Fetch] = []
        self.in_flight: list[Fetch] = []
        self.waiting: dict[int, list[Part]] = {}
        self.purged: set[int] = set()  # what left the cache by being purged when it was there last
        self.balance = [0, 0, 0]  # rule 6, weighted: of reads of machines, of relocations, and of staging
        self.turn = 0
        self.in_service = True
        self.last_trigger: dict[int, int] = {}  # of each content that was ever marked

    # rule 12

    def associate(self, client: Client) -> None:
        client.agent = self
        self.clients = sorted([*self.clients, client], key=lambda other: other.number)
        cached = [block for block in client.first_set if client.copy.content[block] in self.cache]
        client.staged_of_first_set.update(cached)

    def de_associate(self, client: Client) -> None:
        client.agent = None
        self.clients.remove(client)

    def lose(self) -> list[Client]:
        """Go away; return the clients that have no agent now."""
        self.in_service = False
        for fetch in self.in_flight:
            fetch.is_lost = True
        left_alone, self.clients, self.queue = self.clients, [], []
        for client in left_alone:
            client.agent = None
            client.forget()
        self.link.lose()
        return left_alone

    # rule 4

    def receive(self, parts: list[Part]) -> None:
        """Rule 4: parts of one request arrive, in their order."""
        missing: list[Part] = []
        for part in parts:
            if self._is_missing(part):
                missing.append(part)
            self.cache.pins[part.content] += 1
            self._track(part)
        for group in self._group(missing):
            blocks, first = [part.block for part in group], group[0]
            cause, straight = CAUSE_OF_READER[first.reader], self.plan.misses == "straight"
            self.join_queue(Fetch(first.client, blocks, cause, first.number, straight=straight))

    def join_queue(self, fetch: Fetch) -> None:
        fetch.joined = self.device.next_to_join()
        self.queue.append(fetch)

    def _is_missing(self, part: Part) -> bool:
        """Tell whether the part's block has to be fetched; transmit it if it is there."""

        def note(kind: str) -> None:
            part.client.schedule.note(kind, part.block, 1, part.number, part.reader)

        content = part.content
        if content in self.cache:
            note("cache_hit")
            self.cache.policy.hit(content)
            self._transmit(part)
            return False
        is_coming = self.is_coming(content)
        self.waiting.setdefault(content, []).append(part)
        if is_coming:
            note("cache_wait")
            return False
        note("cache_miss")
        if content in self.purged and part.reader == OF_VM:
            note("refetch_after_purge")
        if self.plan.misses != "straight":
            self.cache.policy.miss(content)
        return True

    def is_coming(self, content: int) -> bool:
        """Tell whether a content is in flight or in the queue; where it is, only one fetch has it.

        What somebody waits for is coming, also while the parts of its request still arrive.
        """
        fetches = self.in_flight + self.queue
        return content in self.waiting or any(content in fetch.contents for fetch in fetches)

    def _group(self, missing: list[Part]) -> list[list[Part]]:
        """Rule 4: neighbours in the request, in number and on the medium are one fetch."""
        size = self.plan.block_bytes
        most = min(self.plan.fetch_bytes // size, self.cache.slots)
        groups: list[list[Part]] = []
        for part in missing:
            last = groups[-1][-1] if groups else None
            if (
                last is not None
                and part.place == last.place + 1
                and part.block == last.block + 1
                and part.client.copy.address[part.block] == part.client.copy.address[last.block] + size
                and len(groups[-1]) < most
            ):
                groups[-1].append(part)
            else:
                groups.append([part])
        return groups

    def _transmit(self, part: Part) -> None:
        schedule = part.client.schedule
        self.link.hand_over(schedule, part.number, part.block, part.size, lambda: self._arrive(part))

    def _arrive(self, part: Part) -> None:
        """Rule 4: the transmission has arrived; rule 10: without effect, if the machine has expired."""
        client, content = part.client, part.content
        self.cache.pins[content] -= 1
        if client.schedule.expired:
            self._purge_if_due(content)
            return
        client.schedule.note("serve", part.block, 1, part.number, part.reader)
        if content in self.cache:
            self.cache.held[content].served = True
        else:
            assert self.plan.misses == "straight", f"content {content} was pinned and is gone"
        self._is_ahead_no_more(content)
        self._purge_if_due(content)
        client.outstanding.remove(part)
        part.received()
        client.after_serving()

    # rules 5 and 6

    def can_start(self, fetch: Fetch) -> bool:
        if fetch.straight:
            return True
        demanded = self.is_demanded(fetch)
        slots = self.cache.slots_for_demand if demanded else self.cache.slots_for_stagers
        return len(fetch.blocks) <= slots

    def is_demanded(self, fetch: Fetch) -> bool:
        return any(content in self.waiting for content in fetch.contents)

    def may_stage(self, client: Client, block: int) -> bool:
        """Rule 6: what a cursor does not pass over, and what may come along with a whole chunk."""
        content = client.copy.content[block]
        return (
            client.copy.stored[block]
            and content not in self.cache
            and not self.is_coming(content)
            and block not in client.relocated
            and block not in client.marks
        )

    def start(self, fetch: Fetch) -> int:
        """Take the slots and a channel; return the bytes that are read."""
        client = fetch.client
        if not fetch.straight:
            demanded = self.is_demanded(fetch)
            may_evict = self.cache.demand_may_evict if demanded else self.cache.stager_may_evict
            self._evict(self.cache.make_room(len(fetch.blocks), fetch.incoming, may_evict))
            for content in client.contents(fetch.blocks):
                self.cache.reserve(content)
        self.in_flight.append(fetch)
        first, last = self._widen(fetch)
        client.schedule.note("fetch", first, last - first + 1, fetch.request, fetch.cause)
        start, end = self._bytes_read(fetch)
        span = end - start
        counts_for_expiry = not client.schedule.expired
        if counts_for_expiry:
            client.schedule.begin_operation()

        def key() -> Key | None:
            return None if fetch.is_lost else (FETCHED, client.number, fetch.number, fetch.blocks[0])

        def complete() -> None:
            if not fetch.is_lost:
                self._complete(fetch)
            if counts_for_expiry:
                client.schedule.end_operation()

        self.device.start(key, start, span, complete)
        return span

    def _evict(self, victims: list[Held]) -> None:
        for victim in victims:
            unserved = int(not victim.served)
            self.agenda.note(victim.machine, "evict", victim.block, 1, detail=unserved)
            self._is_ahead_no_more(victim.content)

    def _bytes_read(self, fetch: Fetch) -> tuple[int, int]:
        """Rule 6: return where a fetch begins to read on the medium, and where it ends."""
        copy, size = fetch.client.copy, self.plan.block_bytes
        first, last = fetch.blocks[0], fetch.blocks[-1]
        if copy.chunk is None:
            return copy.address[first], copy.address[last] + size
        return self._extent(copy, copy.chunk[first])[0], self._extent(copy, copy.chunk[last])[1]

    def _extent(self, copy: Copy, chunk: int) -> tuple[int, int]:
        assert copy.chunk is not None
        if copy.chunk_extents is not None:
            return copy.chunk_extents[chunk]
        address = [copy.address[block] for block, of in enumerate(copy.chunk) if of == chunk]
        return min(address), max(address) + self.plan.block_bytes

    def _widen(self, fetch: Fetch) -> tuple[int, int]:
        """Rule 6, whole chunks: return first and last block that are read; reserve what comes along."""
        copy = fetch.client.copy
        first, last = fetch.blocks[0], fetch.blocks[-1]
        if copy.chunk is None:
            return first, last
        chunks = {copy.chunk[first], copy.chunk[last]}
        start, end = self._bytes_read(fetch)
        numbers = [block for block, chunk in enumerate(copy.chunk) if chunk in chunks]
        first, last = min(numbers), max(numbers)
        if not fetch.straight:
            for block in range(first, last + 1):
                is_read = start <= copy.address[block] < end
                if is_read and self.may_stage(fetch.client, block) and self.cache.slots_for_stagers:
                    may_evict = self.cache.stager_may_evict
                    self._evict(self.cache.make_room(1, fetch.incoming, may_evict))
                    self.cache.reserve(copy.content[block])
                    fetch.along.append(block)
        return first, last

    def _complete(self, fetch: Fetch) -> None:
        """Rule 6: blocks enter the cache, and who waits for them is served.

        Rule 12: for a machine that has expired, only blocks that others wait for.
        """
        client = fetch.client
        self.in_flight.remove(fetch)
        came = sorted(fetch.blocks + fetch.along)
        if client.schedule.expired:
            unwanted = [block for block in came if client.copy.content[block] not in self.waiting]
            came = [block for block in came if block not in unwanted]
            if not fetch.straight:
                for content in client.contents(unwanted):
                    self.cache.release(content)
        kind = "read_from_media" if fetch.straight else "staged"
        for first, count in ascending_neighbours(came):
            client.schedule.note(kind, first, count, fetch.request, fetch.cause)
        for block in came:
            content = client.copy.content[block]
            if not fetch.straight:
                self.cache.enter(content, Held(client.number, block, content))
                self.purged.discard(content)
            for part in self.waiting.pop(content, []):
                self._transmit(part)
        if not fetch.straight:
            self._count_first_sets(client.contents(came))

    def _count_first_sets(self, contents: list[int]) -> None:
        for client in self.clients:
            came = [block for block in client.first_set if client.copy.content[block] in contents]
            client.staged_of_first_set.update(came)
            client.after_fetch()

    def _is_ahead_no_more(self, content: int) -> None:
        for client in self.clients:
            client.ahead -= set(client.copy.blocks_of(content))

    # rule 8

    def _track(self, part: Part) -> None:
        """Rule 8: look for runs of reads along the relocation sequence, whoever reads."""
        client, rule = part.client, part.client.plan.purge
        if not (client.relocating and (rule.by_run or rule.by_period)):
            return
        run = client.runs.see(part.block)
        if rule.by_run and run.length == rule.run_length:
            self._infer(client, run, BY_RUN)
        elif run.trigger is not None:
            self.mark(client, part.block, run.trigger)

    def _infer(self, client: Client, run: Run, trigger: int) -> None:
        run.trigger = trigger
        client.schedule.note("infer_run", client.sequence[run.start], run.length)
        self._mark_run(client, run, trigger)

    def _mark_run(self, client: Client, run: Run, trigger: int) -> None:
        for block in client.sequence[run.start : run.expected]:
            self.mark(client, block, trigger)

    def look_at_runs(self, client: Client) -> None:
        """Rule 8: purging by period."""
        for run in client.runs.runs:
            if run.length < 2:
                continue
            if run.trigger is None:
                self._infer(client, run, BY_PERIOD)
            else:
                self._mark_run(client, run, BY_PERIOD)

    def mark(self, client: Client, block: int, trigger: int) -> None:
        """Rule 8: mark a block that is there or coming; the first mark stays."""
        content = client.copy.content[block]
        if block not in client.marks and (content in self.cache or self.is_coming(content)):
            client.marks.add(block)
            self.last_trigger[content] = trigger
            self._purge_if_due(content)

    def _can_be_purged(self, content: int) -> bool:
        """Rules 8 and 12: somebody marked it, and of the machines associated everybody who has it."""
        is_marked = content in self.last_trigger and all(
            block in client.marks for client in self.clients for block in client.copy.blocks_of(content)
        )
        return is_marked and self.cache.stager_may_evict(content)

    def _purge_if_due(self, content: int) -> None:
        if self._can_be_purged(content):
            held = self.cache.held[content]
            key = (PURGE, held.machine, 0, held.block)
            if not self.agenda.is_due(key):
                self.agenda.add(key, lambda: self._purge(content))

    def _purge(self, content: int) -> None:
        """Rule 8: unless it was pinned again, or the cache emptied, since it became due."""
        if self._can_be_purged(content):
            held = self.cache.drop(content)
            self.purged.add(content)
            self._is_ahead_no_more(content)
            self.agenda.note(held.machine, "purge", held.block, 1, detail=self.last_trigger[content])

    # rules 9, 10 and 12

    def cut_off(self, client: Client) -> None:
        """Rule 10: nobody waits for this client's parts any more; its fetches leave the queue."""
        for content, parts in list(self.waiting.items()):
            others = [part for part in parts if part.client is not client]
            self.cache.pins[content] -= len(parts) - len(others)
            self.waiting[content] = others
            if not others:
                del self.waiting[content]
        self.queue = [fetch for fetch in self.queue if fetch.client is not client or self.is_demanded(fetch)]
        for content in list(self.cache.held):
            self._purge_if_due(content)

    def empty_cache(self, client: Client) -> int:
        """Drop the unpinned contents of the client's blocks that nobody else may need; return how many."""
        others = [other for other in self.clients if other is not client]

        def is_needed(content: int) -> bool:
            return any(
                block not in other.marks for other in others for block in other.copy.blocks_of(content)
            )

        stored = [block for block, is_stored in enumerate(client.copy.stored) if is_stored]
        dropped = [
            content
            for content in sorted(set(client.contents(stored)))
            if self.cache.demand_may_evict(content) and not is_needed(content)
        ]
        for content in dropped:
            self.cache.drop(content)
            self._is_ahead_no_more(content)
        return len(dropped)
