"""The media agent of the slow model (`simpy_model`): rules 4, 5, 6 and 8 of `docs/clockwork.md`."""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from simpy_devices import (
    LAST_NUMBER,
    PURGE,
    Action,
    Agenda,
    BackupDevice,
    Fetch,
    Link,
    Part,
)

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import CAUSES, PURGE_TRIGGERS, READERS
from vmrestorekit.restore.hardware import Hardware

VM_READ, RELOCATION_READ, FIRST_SET, PRE_STAGING, RELOCATION_STAGING = range(len(CAUSES))
OF_VM, OF_RELOCATION = range(len(READERS))
BY_RUN, BY_INDICATION = range(len(PURGE_TRIGGERS))
CAUSE_OF_READER = {OF_VM: VM_READ, OF_RELOCATION: RELOCATION_READ}


@dataclasses.dataclass(eq=False)
class Media:
    """Where blocks are: on the backup medium, and on the destination."""

    stored: list[bool]
    address: list[int]
    first_set: list[int]  # stored blocks of the plan's
    sequence: list[int]  # stored blocks of the plan's
    relocated: set[int] = dataclasses.field(default_factory=set)


class ReadCache:
    """Rule 5: slots, pins, and the order of eviction."""

    def __init__(self, slots: int, policy: str) -> None:
        self.slots, self.policy = slots, policy
        self.served: OrderedDict[int, bool] = OrderedDict()  # in the policy's order: served since it came?
        self.in_flight: set[int] = set()
        self.pins: Counter[int] = Counter()

    def __contains__(self, block: int) -> bool:
        return block in self.served

    @property
    def free(self) -> int:
        return self.slots - len(self.served) - len(self.in_flight)

    def hit(self, block: int) -> None:
        if self.policy == "lru":
            self.served.move_to_end(block)

    def reserve(self, blocks: Iterable[int]) -> None:
        self.in_flight.update(blocks)
        assert self.free >= 0, "more slots are taken than there are"

    def enter(self, block: int) -> None:
        self.in_flight.remove(block)
        self.served[block] = False

    def victims_of_demand(self, count: int) -> list[int] | None:
        """Return what has to be evicted for `count` blocks of demand; None if it cannot have all slots."""
        missing = max(0, count - self.free)
        unpinned = [block for block in self.served if not self.pins[block]]
        return unpinned[:missing] if missing <= len(unpinned) else None

    def victims_of_stager(self, count: int) -> list[int] | None:
        """Return what has to be evicted for `count` blocks of a stager; None if it cannot have the slots."""
        missing = max(0, count - self.free)
        return self._served_and_unpinned[:missing] if count <= self.slots_for_stagers else None

    @property
    def slots_for_stagers(self) -> int:
        return self.free + len(self._served_and_unpinned)

    @property
    def _served_and_unpinned(self) -> list[int]:
        return [block for block, served in self.served.items() if served and not self.pins[block]]


class Cursor:
    """Rule 6: walks a list of blocks and never looks back, unless a block is taken back."""

    def __init__(self, blocks: list[int]) -> None:
        self.blocks, self.position = blocks, 0

    def next_block(self, wanted: Callable[[int], bool]) -> int | None:
        while self.position < len(self.blocks):
            self.position += 1
            if wanted(self.blocks[self.position - 1]):
                return self.blocks[self.position - 1]
        return None

    def extend(self, blocks: list[int], may_follow: Callable[[int, int], bool], most: int) -> None:
        """Give what follows the last block in the list, as long as it may, up to so many in all."""
        while len(blocks) < most and self.position < len(self.blocks):
            if not may_follow(blocks[-1], self.blocks[self.position]):
                return
            blocks.append(self.blocks[self.position])
            self.position += 1

    def take_back(self, position: int) -> None:
        self.position = min(self.position, position)


class RunTracker:
    """Rule 8: at most eight open runs along the relocation sequence, the last extended one last."""

    def __init__(self, sequence: list[int]) -> None:
        self.position_of = {block: position for position, block in enumerate(sequence)}
        self.runs: list[tuple[int, int]] = []  # first position, length

    def see(self, block: int) -> tuple[int, int]:
        """Extend or open a run; return it."""
        position = self.position_of[block]
        expecting = [index for index, run in enumerate(self.runs) if sum(run) == position]
        if expecting:
            start, length = self.runs.pop(expecting[-1])
            extended = (start, length + 1)
        else:
            extended = (position, 1)
        self.runs = [*self.runs, extended][-8:]
        return extended


class MediaAgent:
    """Rules 4, 5, 6 and 8: serves parts, fetches, stages, tracks and purges."""

    def __init__(self, agenda: Agenda, plan: RestorePlan, hardware: Hardware, media: Media) -> None:
        self.agenda, self.plan, self.media = agenda, plan, media
        self.link = Link(agenda, hardware.link)
        self.device = BackupDevice(agenda, hardware.backup_device, media.address, plan.block_bytes)
        self.cache = ReadCache(plan.cache_slots, plan.eviction)
        self.queue: list[Fetch] = []
        self.in_flight: list[Fetch] = []
        self.waiting: dict[int, list[Part]] = {}
        self.first_set = Cursor([] if plan.mode == "full_restore" else media.first_set)
        self.relocation_cursor = Cursor(media.sequence)
        self.runs = RunTracker(media.sequence)
        self.ahead: set[int] = set()  # given by the relocation cursor, not sent to anyone since
        self.pre_relocation_mode = self.relocating = self.relocation_finished = False
        self.marks: dict[int, int] = {}  # block -> trigger
        self.purged: set[int] = set()
        self.vm_parts = 0
        self.vm_demand: list[tuple[int, int]] = []  # when, bytes
        self.fetched_of_first_set: set[int] = set()
        self.after_fetch: Action = lambda: None
        self.after_serving: Action = lambda: None

    # rule 4

    def ask(self, parts: list[Part]) -> None:
        """Rule 4: the parts of one request arrive, in their order."""
        missing: list[int | None] = []  # None: a part that is not missing separates its neighbours
        for part in parts:
            missing.append(part.block if self._receive(part) else None)
            self.cache.pins[part.block] += 1
            self.vm_parts += part.reader == OF_VM
            if part.reader == OF_VM:
                self.vm_demand.append((self.agenda.now, part.size))
            self._track(part)
        if parts:
            cause = CAUSE_OF_READER[parts[0].reader]
            self.queue += [Fetch(blocks, cause, parts[0].number) for blocks in self._group(missing)]

    def _receive(self, part: Part) -> bool:
        """Tell whether the part's block has to be fetched; transmit it if it is there."""

        def note(kind: str) -> None:
            self.agenda.note(kind, part.block, 1, part.number, part.reader)

        if part.block in self.cache:
            note("cache_hit")
            self.cache.hit(part.block)
            self._transmit(part)
            return False
        known = self._is_coming(part.block)
        note("cache_wait" if known else "cache_miss")
        if not known and part.reader == OF_VM and part.block in self.purged:
            note("refetch_after_purge")
        self.waiting.setdefault(part.block, []).append(part)
        return not known

    def _transmit(self, part: Part) -> None:
        self.link.hand_over(part, lambda: self._arrive(part))

    def _is_coming(self, block: int) -> bool:
        """Tell whether the block is in flight or in the queue; where it is, only one fetch has it.

        A block that somebody waits for is coming, also while the parts of its request still arrive.
        """
        return block in self.waiting or any(block in fetch.blocks for fetch in self.in_flight + self.queue)

    def _group(self, missing: list[int | None]) -> list[list[int]]:
        """Rule 4: neighbours in the request, in number and on the medium are one fetch."""
        most = min(self.plan.fetch_bytes // self.plan.block_bytes, self.cache.slots)
        address = self.media.address
        groups: list[list[int]] = []
        previous = None
        for block in missing:
            if block is not None:
                neighbours = (
                    previous is not None
                    and block == previous + 1
                    and address[block] == address[previous] + self.plan.block_bytes
                )
                if neighbours and len(groups[-1]) < most:
                    groups[-1].append(block)
                else:
                    groups.append([block])
            previous = block
        return groups

    def _arrive(self, part: Part) -> None:
        """Rule 4: the transmission has arrived."""
        self.agenda.note("serve", part.block, 1, part.number, part.reader)
        self.cache.pins[part.block] -= 1
        assert part.block in self.cache, f"block {part.block} was pinned and is gone"
        self.cache.served[part.block] = True
        self.ahead.discard(part.block)
        self._purge_if_due(part.block)
        self.vm_parts -= part.reader == OF_VM
        part.received()
        self.after_serving()

    # rule 6

    def dispatch(self) -> None:
        """Rule 6: start what can be started."""
        while self._dispatch_step():
            pass

    def _dispatch_step(self) -> bool:
        self._refill()
        if not self.device.idle:
            return False
        if self.queue:
            return self._start_head(self.queue[0])
        return self._start_low_priority()

    def _refill(self) -> None:
        """Rule 6.1: only fetches of the running relocation's staging count, demanded or not."""
        depth = self.plan.stage_depth or self.device.spec.channels
        equal = self.plan.priorities == "equal"
        counted = (FIRST_SET, PRE_STAGING, RELOCATION_STAGING) if equal else (RELOCATION_STAGING,)
        while self.cache.slots_for_stagers > 0:
            staging = [fetch for fetch in self.queue + self.in_flight if fetch.cause in counted]
            if len(staging) >= depth or self.plan.priorities == "strict":
                return
            if equal:
                cause, block, cursor = self._next_to_stage()
            elif self.relocating:
                cause, cursor = RELOCATION_STAGING, self.relocation_cursor
                block = self._next_of_relocation()
            else:
                return
            if block is None:
                return
            self.queue.append(self._with_neighbours(block, cause, cursor))

    def _start_head(self, fetch: Fetch) -> bool:
        """Rule 6.3."""
        if any(block in self.waiting for block in fetch.blocks):
            victims = self.cache.victims_of_demand(len(fetch.blocks))
            if victims is None:
                return False
        else:
            victims = self.cache.victims_of_stager(len(fetch.blocks))
        self.queue.remove(fetch)
        if victims is None:
            cursor = self.first_set if fetch.cause == FIRST_SET else self.relocation_cursor
            cursor.take_back(fetch.position)
            self.ahead -= set(fetch.blocks)
        else:
            self._start(fetch, victims)
        return True

    def _start_low_priority(self) -> bool:
        """Rule 6.4: without a slot no cursor moves."""
        if not self.cache.slots_for_stagers or self.plan.priorities == "equal":
            return False
        cause, block, cursor = self._next_to_stage()
        if block is None:
            return False
        fetch = self._with_neighbours(block, cause, cursor)
        victims = self.cache.victims_of_stager(len(fetch.blocks))
        assert victims is not None, "a stager took more than it can have"
        self._start(fetch, victims)
        return True

    def _with_neighbours(self, block: int, cause: int, cursor: Cursor) -> Fetch:
        """Rule 6, of cursors: the block and its neighbours in the list, in number and on the medium."""
        size, address = self.plan.block_bytes, self.media.address
        most = min(self.plan.stage_fetch_bytes // size, self.cache.slots_for_stagers)
        if cause != FIRST_SET:
            most = min(most, self._most_ahead - len(self.ahead))
        position = cursor.position - 1
        blocks = [block]
        cursor.extend(
            blocks,
            lambda last, next_one: (
                next_one == last + 1
                and address[next_one] == address[last] + size
                and self._to_stage(next_one)
            ),
            most,
        )
        if cause != FIRST_SET:
            self.ahead |= set(blocks)
        return Fetch(blocks, cause, LAST_NUMBER, position)

    def _next_to_stage(self) -> tuple[int, int | None, Cursor]:
        """Rule 6.4: the order in which the low-priority cursors are asked."""
        if self.relocation_finished:
            return FIRST_SET, None, self.first_set
        block = self.first_set.next_block(self._to_stage)
        if block is not None:
            return FIRST_SET, block, self.first_set
        cause = RELOCATION_STAGING if self.relocating else PRE_STAGING
        may = self.plan.priorities != "as_claimed" if self.relocating else self.pre_relocation_mode
        if may:
            block = self._next_of_relocation()
        return cause, block, self.relocation_cursor

    def _next_of_relocation(self) -> int | None:
        """Rule 6, of cursors: nothing while too much of what it gave was not sent to anyone."""
        if len(self.ahead) >= self._most_ahead:
            return None
        return self.relocation_cursor.next_block(self._to_stage)

    @property
    def _most_ahead(self) -> int:
        return self.plan.stage_ahead_limit // self.plan.block_bytes

    def _to_stage(self, block: int) -> bool:
        """Rule 6: what a cursor does not pass over."""
        return (
            self.media.stored[block]
            and block not in self.cache
            and not self._is_coming(block)
            and block not in self.media.relocated
            and block not in self.purged
        )

    def _start(self, fetch: Fetch, victims: list[int]) -> None:
        """Rules 5 and 6: take the slots and a channel."""
        for victim in victims:
            served = self.cache.served.pop(victim)
            self.ahead.discard(victim)
            self.marks.pop(victim, None)
            self.agenda.note("evict", victim, 1, detail=0 if served else 1)
        self.cache.reserve(fetch.blocks)
        self.in_flight.append(fetch)
        self.agenda.note("fetch", fetch.blocks[0], len(fetch.blocks), fetch.request, fetch.cause)
        self.device.start(fetch, lambda: self._complete(fetch))

    def _complete(self, fetch: Fetch) -> None:
        """Rule 6: blocks enter the cache, and who waits for them is served."""
        self.in_flight.remove(fetch)
        self.agenda.note("staged", fetch.blocks[0], len(fetch.blocks), fetch.request, fetch.cause)
        for block in fetch.blocks:
            self.cache.enter(block)
            for part in self.waiting.pop(block, []):
                self._transmit(part)
        self.fetched_of_first_set.update(set(fetch.blocks) & set(self.first_set.blocks))
        self.after_fetch()

    # rule 8

    def _track(self, part: Part) -> None:
        """Rule 8: look for runs of reads along the relocation sequence, whoever reads."""
        if not (self.relocating and self.plan.purge.by_run):
            return
        start, length = self.runs.see(part.block)
        if length == self.plan.purge.run_length:
            self.agenda.note("infer_run", self.media.sequence[start], length)
            for block in self.media.sequence[start : start + length]:
                self.mark(block, BY_RUN)
        elif length > self.plan.purge.run_length:
            self.mark(part.block, BY_RUN)

    def mark(self, block: int, trigger: int) -> None:
        """Rule 8: mark a block that is there or coming; the first mark stays."""
        if block in self.cache or self._is_coming(block):
            self.marks.setdefault(block, trigger)
            self._purge_if_due(block)

    def _can_be_purged(self, block: int) -> bool:
        return block in self.marks and self.cache.served.get(block, False) and not self.cache.pins[block]

    def _purge_if_due(self, block: int) -> None:
        if self._can_be_purged(block) and not self.agenda.is_due((PURGE, 0, block)):
            self.agenda.add(PURGE, 0, block, lambda: self._purge(block))

    def _purge(self, block: int) -> None:
        """Rule 8: unless the block was pinned again, or the cache emptied, since it became due."""
        if self._can_be_purged(block):
            del self.cache.served[block]
            self.purged.add(block)
            self.agenda.note("purge", block, 1, detail=self.marks.pop(block))

    def empty_cache(self) -> None:
        self.agenda.note("empty_read_cache", count=len(self.cache.served))
        self.cache.served.clear()
