"""Operations O1 to O26, on the simulated restore of a small, busy machine: what happens, in which order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from small_restores import (
    BLOCKS,
    MICROSECOND,
    MS,
    SLOW_DESTINATION_NS,
    SLOW_LINK,
    busy_trace,
    cached_before,
    fetched_though_there,
    messages,
    purged_outside_runs,
    reads_at,
    row_of,
    rows_of,
    small_restore,
)
from where_reads_go import HostReplay, reads_served, replay_host

from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart
from vmrestorekit.restore.events import CAUSES, READERS
from vmrestorekit.restore.timeline import Timeline

VM = READERS.index("vm")
NO_PURGE = PurgeRule(by_run=False)


@pytest.fixture(scope="module")
def restore() -> Timeline:
    return small_restore()


@pytest.fixture(scope="module")
def host(restore: Timeline) -> HostReplay:
    return replay_host(restore, busy_trace().frame)


def test_o1_to_o20_of_an_instant_restore_are_told_in_order(restore: Timeline) -> None:
    assert messages(restore) == [
        "data_agent: export_file_system",
        "vm_host: mount_file_system",
        "vm_host: set_up_data_flow",
        "data_agent: indicate_vm_profile",
        "media_agent: determine_first_set",
        "vm_host: launch_vm",
        "data_agent: indicate_pre_relocation",
        "vm_host: start_relocation",
        "data_agent: indicate_relocation_in_progress",
        "vm_host: finish_relocation",
        "vm_host: apply_writes",
        "media_agent: use_destination",
        "vm_host: unmount_file_system",
        "data_agent: indicate_relocation_completed",
        "media_agent: empty_read_cache",
        "media_agent: de_associate",
    ]


def test_a_full_restore_launches_when_the_backup_has_let_go() -> None:
    assert messages(small_restore(mode="full_restore")) == [
        "data_agent: export_file_system",
        "vm_host: mount_file_system",
        "vm_host: set_up_data_flow",
        "vm_host: start_relocation",
        "data_agent: indicate_relocation_in_progress",
        "vm_host: finish_relocation",
        "vm_host: apply_writes",
        "media_agent: use_destination",
        "vm_host: unmount_file_system",
        "data_agent: indicate_relocation_completed",
        "media_agent: empty_read_cache",
        "media_agent: de_associate",
        "vm_host: launch_vm",
    ]


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_o6_launch_comes_with_the_share_of_the_first_set_and_says_how_much_is_staged(share: float) -> None:
    restore = small_restore(launch=LaunchRule("share", share))
    launch = row_of(restore, "launch_vm")
    staged = rows_of(restore, "staged").filter(
        pl.col("row") < launch, pl.col("detail") == CAUSES.index("first_set")
    )
    stored = int(restore.stored[restore.plan.first_set].sum())
    assert restore.events["detail"][launch] == staged["count"].sum()
    # no later than that, but both channels may have come to their end in the same instant
    assert int(np.ceil(share * stored)) <= staged["count"].sum() < int(np.ceil(share * stored)) + 2


def test_o8_a_block_on_its_way_is_waited_for_and_not_fetched_again() -> None:
    """Each block is read twice, the second time while it is in flight."""
    blocks = list(range(0, 60, 3))
    mount = small_restore(
        reads_at([block for block in blocks for _ in range(2)], 100 * MICROSECOND),
        mode="live_mount",
        first_set=np.array([], int),
        launch=LaunchRule("immediately"),
    )
    for kind in ("cache_miss", "fetch", "cache_wait"):
        assert rows_of(mount, kind)["block"].to_list() == blocks
    waits, staged = rows_of(mount, "cache_wait"), rows_of(mount, "staged").select("block", came="row")
    served = rows_of(mount, "serve").select("block", "request", sent="row")
    stay = waits.join(staged, on="block").join(served, on=["block", "request"])
    assert len(stay) == len(blocks)
    assert (stay["row"] < stay["came"]).all()
    assert (stay["came"] < stay["sent"]).all()


def test_o8_nothing_is_fetched_that_is_in_the_cache_or_on_its_way(restore: Timeline) -> None:
    assert len(rows_of(restore, "cache_wait")) > 10
    assert not fetched_though_there(restore)


def test_o9_writes_go_to_the_write_cache_until_the_pivot_and_to_the_destination_afterwards(
    restore: Timeline,
) -> None:
    pivot = row_of(restore, "use_destination")
    written = rows_of(restore, "written")
    before, after = written.filter(pl.col("row") < pivot), written.filter(pl.col("row") > pivot)
    assert set(before["detail"]) == {0}
    assert set(after["detail"]) == {1}
    wait = rows_of(restore, "vm_done").select("request", wait="detail")
    # each of the volumes takes the time that it takes: the write cache answers at once, the destination not
    assert before.join(wait, on="request")["wait"].min() < SLOW_DESTINATION_NS  # type: ignore[operator]
    assert after.join(wait, on="request")["wait"].min() > SLOW_DESTINATION_NS  # type: ignore[operator]


def test_o14_each_read_goes_where_the_newest_content_is(restore: Timeline, host: HostReplay) -> None:
    served = reads_served(restore)
    pivot = row_of(restore, "use_destination")
    before = rows_of(restore, "vm_read").filter(pl.col("row") < pivot)["request"].to_list()
    assert len(host.expected) > 0.9 * len(served)
    assert {request: served[request] for request in host.expected} == host.expected
    # of each way there are some, also before the pivot
    assert sum(served[request].destination > 0 for request in before) > 20
    assert sum(served[request].write_cache > 0 for request in before) > 10
    assert sum(len(served[request].logical_source) > 0 for request in before) > 50
    after = [served[request] for request in served if request not in before]
    assert len(after) > 100
    assert not any(read.write_cache or read.logical_source for read in after)


def test_o14_a_read_of_the_destination_takes_the_destinations_time(restore: Timeline) -> None:
    asked = rows_of(restore, "vm_read").select("request", asked="time_ns")
    done = rows_of(restore, "vm_done").select("request", done="row")
    reads = rows_of(restore, "read_destination").join(asked, on="request").join(done, on="request")
    assert len(reads) > 100
    transfer = reads["detail"] * 1_000_000_000 // SLOW_LINK.destination.bandwidth
    assert (reads["time_ns"] - reads["asked"] >= SLOW_DESTINATION_NS + transfer).all()
    assert (reads["row"] < reads["done"]).all()


def test_o16_reads_with_gaps_between_them_are_no_run() -> None:
    """Every other block, far from where the relocation is, and then the relocation itself."""
    ahead = list(range(100, 190, 2))
    restore = small_restore(
        reads_at(ahead, 100 * MICROSECOND),
        first_set=np.array(ahead),
        launch=LaunchRule("share", 1.0),
        relocation_start=RelocationStart("at_once"),
    )
    purged = rows_of(restore, "purge")
    assert set(purged["block"]) == set(np.flatnonzero(restore.stored).tolist())
    assert not purged_outside_runs(restore)


def test_o16_what_is_purged_belongs_to_a_run(restore: Timeline) -> None:
    assert len(rows_of(restore, "purge")) > 100
    assert not purged_outside_runs(restore)


def test_o17_all_that_was_written_is_applied_before_the_destination_is_used(
    restore: Timeline, host: HostReplay
) -> None:
    assert host.unapplied_at_pivot == set()
    assert host.written_meanwhile != set()
    finish, pivot = row_of(restore, "finish_relocation"), row_of(restore, "use_destination")
    assert rows_of(restore, "applied")["row"].is_between(finish, pivot).all()
    discards = rows_of(restore, "vm_discard")
    assert 5 < len(discards) == len(discards.filter(pl.col("row") < finish))
    # discards that nothing was written to since then are applied at no cost, without an event
    never = host.ever_written - host.ever_applied
    assert never < {
        block
        for first, count in discards.select("block", "count").iter_rows()
        for block in range(first, first + count)
    }
    assert host.ever_applied <= host.ever_written
    assert restore.events["detail"][row_of(restore, "apply_writes")] == host.pending_bytes > 0


def test_o18_the_file_system_stays_until_the_reads_that_need_it_have_ended() -> None:
    """At the pivot reads are on the link: they were sent there while the last blocks were being relocated."""
    restore = small_restore(
        reads_at([255, 254, 253, 252] * 200, 200 * MICROSECOND), relocation_start=RelocationStart("at_once")
    )
    pivot, unmount = row_of(restore, "use_destination"), row_of(restore, "unmount_file_system")
    reads = rows_of(restore, "cache_hit", "cache_wait", "cache_miss").filter(pl.col("detail") == VM)
    arrived = rows_of(restore, "serve").filter(pl.col("detail") == VM)
    assert (reads["row"] < pivot).all()
    under_way = arrived.filter(pl.col("row") > pivot)
    assert len(under_way) > 5
    assert (under_way["row"] < unmount).all()
    assert under_way["time_ns"].max() == restore.events["time_ns"][unmount]


@pytest.mark.parametrize("purge", [NO_PURGE, PurgeRule(by_run=True, run_length=BLOCKS)])
def test_o19_the_read_cache_is_emptied_of_all_that_is_in_it(purge: PurgeRule) -> None:
    restore = small_restore(purge=purge)
    emptied = row_of(restore, "empty_read_cache")
    assert restore.events["count"][emptied] == len(cached_before(restore, emptied)) > 100
    later = restore.events[emptied + 1 :]
    media = ["fetch", "staged", "serve", "cache_hit", "cache_wait", "cache_miss", "evict", "purge"]
    assert later.filter(pl.col("kind").is_in(media)).is_empty()


def test_o22_to_o26_a_live_mount_is_warned_and_expires_and_lets_everything_go() -> None:
    mount = small_restore(mode="live_mount", expiry_ns=400 * MS, warning_ns=100 * MS)
    assert messages(mount) == [
        "file_manager: select_vm",
        "data_agent: export_file_system",
        "vm_host: mount_file_system",
        "data_agent: indicate_vm_profile",
        "media_agent: determine_first_set",
        "vm_host: launch_vm",
        "storage_manager: warn_of_expiry",
        "storage_manager: expire",
        "vm_host: power_down",
        "media_agent: empty_read_cache",
        "vm_host: unmount_file_system",
        "media_agent: de_associate",
    ]
    expire = row_of(mount, "expire")
    assert mount.events["time_ns"][expire] == 400 * MS
    warning = mount.events.row(row_of(mount, "warn_of_expiry"), named=True)
    assert (warning["time_ns"], warning["detail"]) == (300 * MS, 100 * MS)
    assert mount.events["kind"][expire + 1 :].to_list() == [
        "power_down",
        "empty_read_cache",
        "unmount_file_system",
        "de_associate",
    ]
    issued = rows_of(mount, "vm_read", "vm_write", "vm_discard", "vm_flush")
    cut_off = len(issued) - len(rows_of(mount, "vm_done"))
    assert mount.events["detail"][expire] == cut_off > 0
    emptied = row_of(mount, "empty_read_cache")
    assert mount.events["count"][emptied] == len(cached_before(mount, emptied)) > 100
