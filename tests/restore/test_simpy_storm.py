"""The slow model with several virtual machines and media agents: rule 12 of `docs/clockwork.md`.

As in `test_simpy_model`, a block is 4 KiB, and 4 KiB take 1000 ns on every device. An event's last
value is its machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from scenarios import Row, Scenario, StormScenario, make_trace, storms
from simpy_devices import Event
from simpy_model import MediaAgents, Restore, simulate_slowly, simulate_storm_slowly
from test_simpy_model import AT_ONCE, BLOCK, LAZY, SPEED, read

from vmrestorekit.plan import LaunchRule, PurgeRule, RestorePlan, Weights
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link, PrimaryStorage

NEVER_LAUNCHED: dict[str, Any] = {
    "mode": "live_mount",
    "launch": LaunchRule("head_start", head_start_ns=10**6),
}


def restore(
    rows: Sequence[Row] = (),
    blocks: int = 8,
    start_ns: int = 0,
    agent: int | None = None,
    content: list[int] | None = None,
    **settings: Any,
) -> Restore:
    """Return the restore of one disk, all blocks of which lie in order on the medium."""
    disk_bytes = (blocks * BLOCK,)
    defaults = {"cache_bytes": 64 * BLOCK, "stage_fetch_bytes": BLOCK, "stage_ahead_bytes": 64 * BLOCK}
    plan = RestorePlan(disk_bytes=disk_bytes, block_bytes=BLOCK, **(defaults | settings))
    contents = None if content is None else np.array(content, dtype=np.int64)
    address = np.arange(blocks, dtype=np.int64) * BLOCK
    return Restore(
        make_trace(list(rows), disk_bytes), plan, address, content=contents, start_ns=start_ns, agent=agent
    )


def run(restores: list[Restore], channels: int = 1, **agents: Any) -> list[Event]:
    hardware = Hardware(
        "example",
        BackupDevice(channels=channels, positioning_ns=0, bandwidth=SPEED),
        link=Link(0, SPEED),
        destination=PrimaryStorage(0, SPEED),
        write_cache=PrimaryStorage(0, SPEED),
    )
    return simulate_storm_slowly(restores, MediaAgents(**agents), hardware)


def only(events: list[Event], *kinds: str) -> list[Event]:
    return [event for event in events if event[1] in kinds]


def when(events: list[Event], kind: str) -> list[tuple[int, int, int]]:
    """Return time, machine and first block of all events of a kind."""
    return [(event[0], event[6], event[2]) for event in only(events, kind)]


def agents_of(events: list[Event]) -> list[tuple[int, int]]:
    """Return machine and agent of each association."""
    return [(event[6], event[5]) for event in only(events, "export_file_system", "take_over")]


# association


def test_fewest_takes_the_lowest_of_those_with_the_fewest_machines_and_counts_no_ended_restore() -> None:
    # Machine 0 named agent 1; 1 goes to 0; 2 finds one on each. Machine 0 expires at 500.
    restores = [
        restore(agent=1, expiry_ns=500, **LAZY),
        restore(**LAZY),
        restore(**LAZY),
        restore(start_ns=1000, **LAZY),
    ]
    assert agents_of(run(restores, count=2)) == [(0, 1), (1, 0), (2, 0), (3, 1)]


def test_round_robin_goes_on_behind_the_agent_that_it_chose_last() -> None:
    restores = [restore(agent=number, **LAZY) for number in (None, 0, None, None, None)]
    chosen = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 0)]
    assert agents_of(run(restores, count=3, balancing="round_robin")) == chosen


def test_an_agent_that_is_gone_is_not_chosen_even_if_named() -> None:
    # It goes away before the machine is asked for in the same instant.
    events = run([restore(agent=0, start_ns=700, **LAZY)], count=2, failures=((0, 700),))
    assert [event[:2] for event in events[:1]] == [(700, "lose_media_agent")]
    assert agents_of(events) == [(0, 1)]


def test_times_count_from_when_a_restore_is_asked_for() -> None:
    # Head start 200, expiry 1000, warned 300 before it, extended at 600 by 400.
    settings = {"mode": "live_mount", "launch": LaunchRule("head_start", head_start_ns=200)}
    times = {"expiry_ns": 1000, "warning_ns": 300, "extend_at_ns": 600, "extend_by_ns": 400}
    events = run([restore(start_ns=5000, **settings, **times)])
    assert [event[:2] + event[5:6] for event in events if event[0] > 5000] == [
        (5200, "launch_vm", 0),
        (5600, "extend_expiry", 1400),
        (6100, "warn_of_expiry", 300),
        (6400, "expire", 0),
        (6400, "power_down", 0),
        (6400, "empty_read_cache", 0),
        (6400, "unmount_file_system", 0),
        (6400, "de_associate", 0),
    ]


# the order of fetches


@pytest.mark.parametrize(
    ("agents", "expected"),
    [
        ({"staging": "round_robin"}, [(0, 0, 0), (1000, 1, 0), (2000, 0, 2), (3000, 1, 2)]),
        ({"staging": "in_turn"}, [(0, 0, 0), (1000, 0, 2), (2000, 1, 0), (3000, 1, 2)]),
        ({"shared_device": False}, [(0, 0, 0), (0, 1, 0), (1000, 0, 2), (1000, 1, 2)]),
    ],
)
def test_first_sets_are_staged_in_turn_or_round_robin(
    agents: dict[str, Any], expected: list[tuple[int, int, int]]
) -> None:
    machines = [restore(first_set=np.array([0, 2]), **NEVER_LAUNCHED) for _ in range(2)]
    assert when(run(machines, count=2, **agents), "fetch") == expected


def test_all_first_sets_come_before_all_relocation_cursors() -> None:
    # Machine 0 has no first set and is in pre-relocation mode from 0; machine 1 is asked for at 500.
    machines = [
        restore(blocks=3, mode="instant_restore", launch=LaunchRule("immediately")),
        restore(start_ns=500, first_set=np.array([4, 6]), **NEVER_LAUNCHED),
    ]
    fetched = when(run(machines), "fetch")
    assert fetched == [(0, 0, 0), (1000, 1, 4), (2000, 1, 6), (3000, 0, 1), (4000, 0, 2)]


def test_of_the_heads_of_several_queues_the_one_that_joined_first_starts() -> None:
    # Two agents, one channel. Machine 1 asks at 100, machine 0 at 200 and 300, while block 6 is staged until
    # 1000.
    machines = [
        restore([read(200, 0), read(300, 2)], first_set=np.array([6]), **LAZY),
        restore([read(100, 4)], **LAZY),
    ]
    assert when(run(machines, count=2), "fetch") == [(0, 0, 6), (1000, 1, 4), (2000, 0, 0), (3000, 0, 2)]


def test_an_agent_whose_head_has_no_slot_does_not_hold_up_another() -> None:
    # Agents of one slot, two channels. Block 0 is pinned until 2000, when machine 0's block 2 can start.
    settings = LAZY | {"cache_bytes": BLOCK}
    machines = [restore([read(0, 0), read(0, 2)], **settings), restore([read(500, 4)], **settings)]
    fetched = when(run(machines, count=2, channels=2), "fetch")
    assert fetched == [(0, 0, 0), (500, 1, 4), (2000, 0, 2)]


def test_weighted_agents_give_one_fetch_each() -> None:
    # Agent 0 has machine 0 with a quantum of 4096 for its reads in effect at once, agent 1 likewise: they
    # alternate although machine 0 asked for all of its blocks first.
    settings = LAZY | {"priorities": "weighted", "weights": Weights(98, 1, 1), "fetch_bytes": BLOCK}
    machines = [restore([read(0, block) for block in (0, 2, 4)], **settings) for _ in range(2)]
    fetched = when(run(machines, count=2), "fetch")
    assert fetched == [(0, 0, 0), (1000, 1, 0), (2000, 0, 2), (3000, 1, 2), (4000, 0, 4), (5000, 1, 4)]


# contents


def test_equal_contents_are_fetched_once_and_belong_to_the_machine_they_came_for() -> None:
    # Block 5 of machine 1 is block 0 of machine 0: it waits at 500 and hits at 5000. One slot: machine 1 then
    # reads another block, and the content goes as block 0 of machine 0.
    settings = LAZY | {"cache_bytes": BLOCK}
    machines = [
        restore([read(0, 0)], content=[0, 1, 2, 3, 4, 5, 6, 7], **settings),
        restore(
            [read(500, 5), read(5000, 5), read(7000, 4)], content=[8, 9, 10, 11, 12, 0, 13, 14], **settings
        ),
    ]
    assert only(run(machines), "cache_miss", "cache_wait", "cache_hit", "fetch", "evict") == [
        (0, "cache_miss", 0, 1, 0, 0, 0),
        (0, "fetch", 0, 1, 0, 0, 0),
        (500, "cache_wait", 5, 1, 0, 0, 1),
        (5000, "cache_hit", 5, 1, 1, 0, 1),
        (7000, "cache_miss", 4, 1, 2, 0, 1),
        (7000, "evict", 0, 1, -1, 0, 0),
        (7000, "fetch", 4, 1, 2, 0, 1),
    ]


def test_one_fetch_of_a_stager_brings_no_content_twice() -> None:
    # Blocks 0 to 3 lie in a row; 2 has the content of 0. It is never staged: its content is there.
    settings = NEVER_LAUNCHED | {"first_set": np.arange(4), "stage_fetch_bytes": 4 * BLOCK}
    events = run([restore(content=[0, 1, 0, 2, 3, 4, 5, 6], **settings)])
    assert [event[2:4] for event in only(events, "fetch")] == [(0, 2), (3, 1)]


def test_a_content_is_purged_when_the_last_machine_has_marked_it() -> None:
    # Machine 0 relocates alone at first: fetched until 1000, sent until 2000, written until 3000 and marked.
    # Machine 1 is asked for at 0, too, but relocates from 10000 on: a hit, sent until 11000, written until
    # 12000: the last mark, by indication (1). The content came for machine 0's block 0.
    settings = AT_ONCE | {"blocks": 1, "purge": PurgeRule(by_run=False, by_indication=True)}
    late = settings | {"launch": LaunchRule("head_start", head_start_ns=10_000)}
    events = run([restore(content=[7], **settings), restore(content=[7], **late)])
    # machine 0 drops nothing when it is done at 3000: machine 1 has an unmarked block of the content
    assert only(events, "fetch", "empty_read_cache", "cache_hit", "relocated")[:5] == [
        (0, "fetch", 0, 1, 1, 1, 0),
        (3000, "relocated", 0, 1, 1, 4096, 0),
        (3000, "empty_read_cache", -1, 0, -1, 0, 0),
        (10_000, "cache_hit", 0, 1, 1, 1, 1),
        (12_000, "relocated", 0, 1, 1, 4096, 1),
    ]
    # at 12000 it is due for purging, but the end of machine 1 empties the cache in the same action
    assert only(events, "purge", "empty_read_cache")[-1] == (12_000, "empty_read_cache", -1, 1, -1, 0, 1)


def test_a_marked_content_stays_for_another_machine_and_goes_with_its_last_mark() -> None:
    # Two requests of one block each. Both relocate, machine 1 from 500 on. Machine 0: block 0 until 1000,
    # block 1 staged until 2000; at 500 machine 1 waits for block 0. Sent to 0 until 2000, to 1 until 3000.
    # Written at 3000 (mark of machine 0; pinned no more at 3000) and at 4000 (mark of machine 1): purged.
    settings = AT_ONCE | {"blocks": 2, "purge": PurgeRule(by_run=False, by_indication=True)}
    events = run([restore(content=[7, 8], **settings), restore(content=[7, 8], start_ns=500, **settings)])
    assert only(events, "purge")[0] == (4000, "purge", 0, 1, -1, 1, 0)
    assert [event[:1] + event[6:] for event in only(events, "relocated")][:2] == [(3000, 0), (4000, 1)]


def test_an_expiry_leaves_what_others_wait_for() -> None:
    # Machine 0 reads 0-1 in one fetch until 2000, block 3 and block 5, and expires at 1500. Machine 1 waits
    # for the contents of 1 and 3. Of the first fetch only block 1 enters; 3 is still fetched, 5 is not.
    machines = [
        restore(
            [read(0, 0, count=2), read(600, 3), read(650, 5)],
            content=list(range(8)),
            expiry_ns=1500,
            warning_ns=0,
            **LAZY,
        ),
        restore([read(500, 0), read(700, 1)], content=[1, 3, *range(10, 16)], **LAZY),
    ]
    events = run(machines)
    assert [event for event in events if event[0] >= 1500] == [
        (1500, "warn_of_expiry", -1, 0, -1, 0, 0),
        (1500, "expire", -1, 0, -1, 3, 0),
        (1500, "power_down", -1, 0, -1, 0, 0),
        (2000, "staged", 1, 1, 0, 0, 0),
        (2000, "empty_read_cache", -1, 0, -1, 0, 0),
        (2000, "unmount_file_system", -1, 0, -1, 0, 0),
        (2000, "de_associate", -1, 0, -1, 0, 0),
        (2000, "fetch", 3, 1, 1, 0, 0),
        (3000, "staged", 3, 1, 1, 0, 0),
        (3000, "serve", 0, 1, 0, 0, 1),
        (3000, "vm_done", 0, 1, 0, 2500, 1),
        (4000, "serve", 1, 1, 1, 0, 1),
        (4000, "vm_done", 1, 1, 1, 3300, 1),
    ]


# fail-over


def test_a_media_agent_is_taken_over_from() -> None:
    # Agent 0 goes away at 2500. Row 0 (0-1): fetched until 2000, block 0 on the link. Row 1 (3): fetched to
    # 3000, in vain. Row 2 (5) asks at 2600, when there is no agent. At 3200 all three are missing again, 0
    # and 1 in one fetch until 5200; row 1 until 6200, row 2 until 7200.
    rows = [read(0, 0, count=2), read(100, 3), read(2600, 5)]
    events = run([restore(rows, **LAZY)], count=2, failures=((0, 2500),), takeover_ns=700)
    assert [event for event in events if event[0] >= 2500] == [
        (2500, "lose_media_agent", -1, 0, -1, 0, -1),
        (2600, "vm_read", 5, 1, 2, 4096, 0),
        (3200, "take_over", -1, 0, -1, 1, 0),
        (3200, "cache_miss", 0, 1, 0, 0, 0),
        (3200, "cache_miss", 1, 1, 0, 0, 0),
        (3200, "cache_miss", 3, 1, 1, 0, 0),
        (3200, "cache_miss", 5, 1, 2, 0, 0),
        (3200, "fetch", 0, 2, 0, 0, 0),
        (5200, "staged", 0, 2, 0, 0, 0),
        (5200, "fetch", 3, 1, 1, 0, 0),
        (6200, "staged", 3, 1, 1, 0, 0),
        (6200, "serve", 0, 1, 0, 0, 0),
        (6200, "fetch", 5, 1, 2, 0, 0),
        (7200, "staged", 5, 1, 2, 0, 0),
        (7200, "serve", 1, 1, 0, 0, 0),
        (7200, "vm_done", 0, 2, 0, 7200, 0),
        (8200, "serve", 3, 1, 1, 0, 0),
        (8200, "vm_done", 3, 1, 1, 8100, 0),
        (9200, "serve", 5, 1, 2, 0, 0),
        (9200, "vm_done", 5, 1, 2, 6600, 0),
    ]


def test_nothing_is_staged_at_the_new_agent_and_the_share_counts_anew() -> None:
    # Blocks 0 and 2 are staged by 2000, 4 is in flight when agent 0 goes away at 2500; its channel is busy
    # until 3000. Taken over at 2700: 0, 2, 4 from 3000 on; launched at 6000.
    settings = {"mode": "live_mount", "first_set": np.array([0, 2, 4]), "launch": LaunchRule("share", 1.0)}
    events = run([restore(**settings)], count=2, failures=((0, 2500),), takeover_ns=200)
    assert when(events, "fetch") == [(at, 0, at // 1000 % 3 * 2) for at in range(0, 6000, 1000)]
    assert only(events, "launch_vm") == [(6000, "launch_vm", -1, 0, -1, 3, 0)]


def test_without_any_agent_left_a_machine_is_stranded_and_one_asked_for_is_at_once() -> None:
    machines = [restore([read(0, 0), read(2000, 2)], **LAZY), restore(start_ns=3000, **LAZY)]
    events = run(machines, failures=((0, 500),), takeover_ns=1000)
    assert [event for event in events if event[0] >= 500] == [
        (500, "lose_media_agent", -1, 0, -1, 0, -1),
        (1500, "strand", -1, 0, -1, 0, 0),
        (2000, "vm_read", 2, 1, 1, 4096, 0),
        (3000, "strand", -1, 0, -1, 0, 1),
    ]


# invariants


def simulate(storm: StormScenario, **changes: Any) -> list[Event] | None:
    """Carry out a drawn storm; None if a mount expires before its launch."""
    restores = [
        Restore(
            machine.trace,
            machine.plan,
            machine.address,
            machine.chunk,
            storm.content[number],
            storm.start_ns[number],
            storm.named_agent[number],
            machine.chunk_extents,
        )
        for number, machine in enumerate(storm.machines)
    ]
    try:
        return simulate_storm_slowly(restores, MediaAgents(**storm.agents | changes), storm.hardware)
    except ValueError as error:
        if "expiry after the launch" not in str(error):
            raise
        return None


def check_machine(events: list[Event], machine: Scenario) -> None:
    """Every request is done once, unless the mount has expired or the machine is stranded."""
    issued = {event[4] for event in only(events, "vm_read", "vm_write", "vm_discard", "vm_flush")}
    done = [event[4] for event in only(events, "vm_done")]
    assert len(done) == len(set(done))
    assert set(done) <= issued
    if not only(events, "expire", "strand"):
        assert set(done) == set(range(machine.trace.frame.height))
        for kind in ("unmount_file_system", "empty_read_cache", "de_associate"):
            assert len(only(events, kind)) == (machine.plan.mode != "live_mount")


def test_invariants_hold_in_drawn_storms_and_every_kind_of_fail_over_is_seen() -> None:
    seen: set[str] = set()

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(storms())
    def check(storm: StormScenario) -> None:
        events = simulate(storm)
        if events is None:
            return
        seen.update(event[1] for event in events)
        times = [event[0] for event in events]
        assert times == sorted(times)
        for number, machine in enumerate(storm.machines):
            check_machine([event for event in events if event[6] == number], machine)

    check()
    assert {"lose_media_agent", "take_over", "strand"} <= seen


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(storms())
def test_machines_that_share_neither_agent_nor_device_do_not_feel_each_other(storm: StormScenario) -> None:
    alone = dataclasses.replace(storm, named_agent=list(range(len(storm.machines))))
    alone = dataclasses.replace(alone, content=[None] * len(storm.machines))
    events = simulate(alone, count=len(storm.machines), shared_device=False, failures=())
    if events is None:
        return
    for number, machine in enumerate(storm.machines):
        parts = (machine.trace, machine.plan, machine.hardware, machine.stored, machine.address)
        expected = [
            (
                time + storm.start_ns[number],
                kind,
                block,
                count,
                request,
                number if kind == "export_file_system" else detail,
                number,
            )
            for time, kind, block, count, request, detail in simulate_slowly(
                *parts, chunk=machine.chunk, chunk_extents=machine.chunk_extents
            )
        ]
        assert sorted(event for event in events if event[6] == number) == sorted(expected)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(storms())
def test_contents_that_are_all_different_change_nothing(storm: StormScenario) -> None:
    sizes = [len(machine.stored) for machine in storm.machines]
    first = np.cumsum([0, *sizes])
    different = [np.arange(size) + first[number] for number, size in enumerate(sizes)]
    unshared = dataclasses.replace(storm, content=[None] * len(sizes))
    assert simulate(dataclasses.replace(storm, content=different)) == simulate(unshared)
