"""What the live media agent's rules do beyond the clockwork: failures, readers that leave, other plans.

That they are those of the clockwork is shown by ``test_agent_against_engine``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vmrestorekit.lab.media.event_log import EventLog
from vmrestorekit.lab.media.rules import AgentRules, Fetch, Medium, Part
from vmrestorekit.plan import PlanError, PurgeRule, RestorePlan
from vmrestorekit.restore.events import CAUSES

BLOCK = 4096
VM, RELOCATION = 0, 1


class World:
    """Rules with a clock that is set by hand; what they start completes when told to."""

    def __init__(self, blocks: int = 16, holes: tuple[int, ...] = (), channels: int = 1, **plan: Any) -> None:
        address = np.arange(blocks, dtype=np.int64) * BLOCK
        address[list(holes)] = -1
        plan.setdefault("cache_bytes", 8 * BLOCK)
        self.plan = RestorePlan((blocks * BLOCK,), block_bytes=BLOCK, **plan)
        self.log = EventLog()
        self.rules = AgentRules(Medium(BLOCK, address), channels, self.plan, self.log)
        self.now = 0
        self.requests = 0
        self.in_flight: list[Fetch] = []
        self.to_send: list[Part] = []

    def settle(self) -> None:
        self.now += 1
        self.rules.purge_due(self.now)
        self.in_flight += self.rules.dispatch(self.now)

    def stage(self) -> None:
        self.rules.indicate_vm_profile(self.now, self.plan)
        self.settle()

    def read(self, *blocks: int, reader: int = VM) -> list[Part]:
        wanted = [(block, BLOCK) for block in blocks]
        parts, hits = self.rules.arrive(self.now, self.requests, reader, wanted, None, -1)
        self.requests += 1
        self.to_send += hits
        self.settle()
        return parts

    def complete(self, *failed: int) -> list[Part]:
        """The oldest fetch ends; return the parts that wait in vain."""
        fetch = self.in_flight.pop(0)
        contents = {block: bytes([block]) for block in fetch.brings if block not in failed}
        to_send, in_vain = self.rules.completed(self.now, fetch, contents, failed)
        self.to_send += to_send
        self.settle()
        return in_vain

    def send(self) -> list[bytes | None]:
        """All that can be sent arrives; return the contents."""
        sent, self.to_send = self.to_send, []
        contents = [part.content for part in sent]
        for part in sent:
            self.rules.sent(self.now, part)
        self.settle()
        return contents

    def serve(self, *blocks: int, reader: int = VM) -> None:
        self.read(*blocks, reader=reader)
        while self.in_flight:
            self.complete()
        self.send()

    def cached(self) -> set[int]:
        return self.rules.cache.policy.blocks()

    def kinds(self) -> list[str]:
        return [str(kind) for kind in self.log.frame()["kind"]]

    def assert_nothing_is_pinned(self) -> None:
        assert all(copy.pins == 0 for copy in self.rules.cache.copies.values())
        assert self.rules.cache.used == len(self.cached()) == len(self.rules.cache.copies)
        assert all(copy.content is not None for copy in self.rules.cache.copies.values())


def test_a_miss_is_fetched_once_and_sent_to_all_who_wait() -> None:
    world = World()
    world.read(3)
    world.read(3, reader=RELOCATION)
    assert [(fetch.block, fetch.count) for fetch in world.in_flight] == [(3, 1)]
    world.complete()
    assert world.send() == [b"\3", b"\3"]
    assert world.kinds() == ["cache_miss", "fetch", "cache_wait", "staged", "serve", "serve"]
    world.assert_nothing_is_pinned()


def test_causes_lead_from_the_read_to_what_was_sent() -> None:
    world = World()
    world.serve(3)
    frame = world.log.frame()
    assert dict(zip(frame["kind"].to_list(), frame["cause"].to_list(), strict=True)) == {
        "cache_miss": -1,
        "fetch": 0,
        "staged": 1,
        "serve": 2,
    }


def test_who_asked_decides_nothing() -> None:
    """The same reads from the other reader have the same effects; only the labels differ."""
    purge = PurgeRule(run_length=3)
    worlds = [World(purge=purge, first_set=np.array([9, 2])) for _ in range(2)]
    for world, readers in zip(worlds, ((VM, RELOCATION), (RELOCATION, VM)), strict=True):
        world.stage()
        world.rules.indicate_relocation(world.now)
        for block, reader in ((0, 0), (9, 1), (1, 0), (2, 0), (3, 0), (12, 1), (4, 0)):
            world.serve(block, reader=readers[reader])
    columns = ("time_ns", "kind", "block", "count", "cause")
    ours, others = (world.log.frame() for world in worlds)
    kept = [frame.select(columns).rows() for frame in (ours, others)]
    assert kept[0] == kept[1]
    assert "purge" in worlds[0].kinds()


def test_a_block_that_failed_is_absent_and_fetched_again_at_the_next_read() -> None:
    world = World()
    world.read(4, 5, 6)
    assert [part.block for part in world.complete(5)] == [5]
    assert world.send() == [b"\4", b"\6"]
    assert world.cached() == {4, 6}
    world.assert_nothing_is_pinned()
    world.read(5)
    assert world.complete() == []
    assert world.send() == [b"\5"]
    world.assert_nothing_is_pinned()


def test_a_stager_s_block_that_failed_is_not_tried_again_by_itself() -> None:
    world = World(first_set=np.array([1, 2, 3]), stage_fetch_bytes=BLOCK)
    world.stage()
    for failed in ((1,), (), ()):
        assert world.complete(*failed) == []
    assert not world.in_flight
    assert world.cached() == {2, 3}
    assert world.rules.staged_first_set == {2, 3}
    assert world.rules.has_staged_enough  # staging can go no further
    world.assert_nothing_is_pinned()


def test_a_straight_miss_that_failed_leaves_nothing_behind() -> None:
    world = World(misses="straight")
    world.read(4)
    assert len(world.complete(4)) == 1
    assert not world.rules.cache.copies
    world.serve(4)
    assert not world.rules.cache.copies
    assert world.rules.cache.used == 0


def test_a_reader_that_leaves_leaves_no_pin() -> None:
    world = World(cache_bytes=2 * BLOCK)
    parts = world.read(1)
    world.rules.abandon(world.now, parts[0])
    world.complete()  # what was begun goes on
    assert world.send() == []
    world.assert_nothing_is_pinned()
    world.serve(2, 3)  # both slots can be had
    assert world.cached() == {2, 3}


def test_a_reader_that_leaves_takes_no_other_s_part_along() -> None:
    world = World()
    left = world.read(1)[0]
    world.read(1)
    world.rules.abandon(world.now, left)
    world.complete()
    assert world.send() == [b"\1"]
    world.assert_nothing_is_pinned()


def test_a_marked_block_goes_when_the_last_reader_has_left() -> None:
    world = World(purge=PurgeRule(run_length=2))
    world.stage()
    world.rules.indicate_relocation(world.now)
    world.serve(1, reader=RELOCATION)
    world.serve(2, reader=RELOCATION)
    assert world.cached().isdisjoint({1, 2})
    world.read(2)  # again, and it goes again
    world.complete()
    world.send()
    assert 2 not in world.cached()
    assert world.rules.refetches == 1


def test_demand_that_finds_all_slots_pinned_waits_and_is_not_forgotten() -> None:
    world = World(cache_bytes=BLOCK)
    world.read(1)
    world.complete()  # pinned until it is sent
    world.read(2)
    assert not world.in_flight
    world.send()
    assert [fetch.block for fetch in world.in_flight] == [2]
    world.complete()
    assert world.send() == [b"\2"]


@pytest.mark.parametrize("is_demanded", [True, False])
def test_staging_that_waits_may_evict_what_was_not_served_only_once_it_is_demanded(is_demanded: bool) -> None:
    world = World(cache_bytes=2 * BLOCK, stage_depth=3, stage_fetch_bytes=BLOCK, stage_ahead_bytes=8 * BLOCK)
    world.stage()
    world.rules.indicate_relocation(world.now)
    world.settle()
    world.complete()
    assert [fetch.block for fetch in world.rules.queue.waiting] == [2, 3]  # while 1 is in flight
    if is_demanded:
        world.read(2)
    world.complete()
    if not is_demanded:
        assert not world.in_flight  # they were taken back
        assert world.cached() == {0, 1}
        assert not world.rules.queue.waiting
        return
    assert [fetch.block for fetch in world.in_flight] == [2]
    assert world.cached() == {1}
    world.complete()
    assert world.send() == [b"\2"]


def test_what_is_relocated_is_not_staged_and_the_last_block_ends_it() -> None:
    world = World(blocks=6, holes=(4,), stage_fetch_bytes=BLOCK)
    world.stage()
    world.rules.indicate_pre_relocation(world.now)
    world.rules.relocated(world.now, [0, 1])
    world.rules.indicate_relocation(world.now)
    world.settle()
    assert world.in_flight[0].block == 2
    world.rules.relocated(world.now, range(2, 6))
    assert world.rules.stager.finished
    world.complete()
    assert not world.in_flight


def test_a_relocation_that_is_cancelled_can_run_again() -> None:
    world = World(blocks=8, stage_fetch_bytes=BLOCK, purge=PurgeRule(run_length=2))
    world.stage()
    world.rules.indicate_relocation(world.now)
    world.serve(0, reader=RELOCATION)
    world.rules.relocated(world.now, [0])
    world.rules.cancel_relocation(world.now)
    world.settle()
    while world.in_flight:
        world.complete()
    staged = world.cached()
    world.serve(6)
    world.serve(7)  # a run, which nobody looks for
    assert world.rules.purger.purged == 0
    world.rules.indicate_relocation(world.now)
    world.settle()
    while world.in_flight:
        world.complete()
    assert world.cached() >= staged
    world.serve(6)
    world.serve(7)
    assert world.rules.purger.purged == 2


def test_indicated_blocks_are_purged_once_served() -> None:
    world = World(purge=PurgeRule(by_run=False, by_indication=True), stage_ahead_bytes=0)
    world.serve(1, 2)
    world.rules.indicate_relocation(world.now)
    world.rules.relocated(world.now, [2, 3])
    world.settle()
    assert world.cached() == {1}
    frame = world.log.frame()
    assert frame.row(-1, named=True)["kind"] == "purge"
    assert frame.row(-1, named=True)["detail"] == 1


def test_runs_are_purged_by_period() -> None:
    world = World(blocks=64, purge=PurgeRule(by_run=False, by_period=True), stage_ahead_bytes=0)
    world.rules.indicate_relocation(world.now)
    for block in (1, 2, 30):
        world.serve(block)
    world.rules.look_at_runs(world.now)
    world.settle()
    assert world.cached() == {30}
    world.serve(3)  # the run was noted, and marks as it grows
    assert world.cached() == {30}
    assert world.kinds().count("infer_run") == 1


def test_a_smaller_cache_evicts_what_has_no_room() -> None:
    world = World()
    world.serve(1, 2, 3, 4)
    pinned = world.read(2)
    world.rules.follow(world.plan.replace(cache_bytes=2 * BLOCK, eviction="fifo"))
    assert len(world.cached()) == 2
    assert 2 in world.cached()
    world.send()
    world.assert_nothing_is_pinned()
    assert pinned[0].content is None


def test_pinned_blocks_may_exceed_a_smaller_cache_until_they_are_sent() -> None:
    world = World()
    world.serve(1, 2, 3)
    world.read(1, 2, 3)
    world.rules.follow(world.plan.replace(cache_bytes=BLOCK))
    assert world.cached() == {1, 2, 3}
    world.read(9)
    assert not world.in_flight
    world.send()
    while world.in_flight:
        world.complete()
    world.send()
    assert world.cached() == {9}


def test_a_profile_that_is_indicated_anew_starts_from_the_beginning() -> None:
    world = World(first_set=np.array([1, 2]), stage_fetch_bytes=BLOCK)
    world.stage()
    world.complete()
    world.complete()
    world.plan = world.plan.replace(first_set=np.array([2, 5, 1]))
    world.stage()
    assert world.rules.staged_first_set == {1, 2}
    assert [fetch.block for fetch in world.in_flight] == [5]
    assert world.in_flight[0].cause == CAUSES.index("first_set")


def test_a_profile_that_comes_while_the_relocation_runs_is_followed() -> None:
    world = World(blocks=32, purge=PurgeRule(run_length=2), stage_ahead_bytes=0)
    world.stage()
    world.rules.indicate_relocation(world.now)
    world.rules.relocated(world.now, [0])
    world.plan = world.plan.replace(relocation_sequence=np.arange(31, -1, -1))
    world.stage()
    world.serve(9)
    world.serve(8)
    assert world.rules.purger.purged == 2
    world.rules.relocated(world.now, range(1, 32))
    assert world.rules.stager.finished


def test_priorities_can_change_while_fetches_are_under_way() -> None:
    world = World(first_set=np.arange(8), stage_fetch_bytes=BLOCK, priorities="equal", channels=2)
    world.stage()
    assert len(world.in_flight) == 2
    world.plan = world.plan.replace(priorities="as_claimed")
    world.stage()
    while world.in_flight:
        world.complete()
    assert world.cached() == set(range(8))
    assert not world.rules.queue.staging_waits


def test_a_plan_that_is_refused_changes_nothing() -> None:
    world = World(first_set=np.array([1]))
    with pytest.raises(PlanError, match="weighted"):
        world.rules.indicate_vm_profile(0, world.plan.replace(priorities="weighted"))
    assert world.rules.plan is world.plan


def test_after_the_stop_nothing_starts_and_nothing_is_left() -> None:
    world = World(first_set=np.arange(8), stage_fetch_bytes=BLOCK)
    world.stage()
    waiting = world.read(12)
    sending = world.read(0)
    world.complete()
    world.rules.stop(world.now)
    for part in world.to_send:
        world.rules.lose(world.now, part)
    for fetch in world.in_flight:
        world.rules.drop(world.now, fetch)
    world.in_flight.clear()
    world.settle()
    assert not world.in_flight
    assert world.rules.cache.empty() == 1
    assert not world.rules.cache.copies
    assert world.rules.cache.used == 0
    assert waiting[0].content is None
    assert sending[0].content is None


def test_neighbours_are_coalesced_up_to_the_limit_and_holes_break_them() -> None:
    world = World(channels=8, fetch_bytes=3 * BLOCK, holes=(6,), cache_bytes=16 * BLOCK)
    world.read(1, 2, 3, 4, 5, 7, 8)
    assert [(fetch.block, fetch.count) for fetch in world.in_flight] == [(1, 3), (4, 2), (7, 2)]


def test_what_is_read_with_a_whole_chunk_comes_along() -> None:
    address = np.arange(8, dtype=np.int64) * BLOCK
    chunk = np.repeat([0, 1], 4).astype(np.int32)
    extents = np.array([(0, 4 * BLOCK), (4 * BLOCK, 8 * BLOCK)], np.int64)
    plan = RestorePlan((8 * BLOCK,), block_bytes=BLOCK, cache_bytes=3 * BLOCK)
    rules = AgentRules(Medium(BLOCK, address, chunk, extents), 1, plan, EventLog())
    rules.arrive(0, 0, VM, [(5, BLOCK)], None, -1)
    (fetch,) = rules.dispatch(0)
    assert (fetch.address, fetch.end) == (4 * BLOCK, 8 * BLOCK)
    assert fetch.brings == [4, 5, 6]  # there is no slot for the last one
