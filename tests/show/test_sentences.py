"""Every event can be told, and what is told is true."""

import re

import pytest

from vmrestorekit.plan import LaunchRule, RestorePlan
from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.show import units
from vmrestorekit.show.restore.flows import flow_of
from vmrestorekit.show.restore.system_picture import _ARROWS, _BOXES, _DRUMS
from vmrestorekit.show.sentences import KIND_NAMES, tell


def event_at(timeline, row):
    return timeline.events.row(row, named=True)


def rows_of(timeline, kind):
    return [row for row in range(len(timeline)) if KINDS[timeline.kinds[row]] == kind]


def test_the_two_timelines_hold_every_kind(restore, mount):
    assert {KINDS[kind] for timeline in (restore, mount) for kind in timeline.kinds} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_in_a_sentence(restore, mount, kind):
    told = {tell(timeline, row) for timeline in (restore, mount) for row in rows_of(timeline, kind)}
    assert told
    for sentence in told:
        assert re.match(r"^[A-Z0-9].*[.)]$", sentence), sentence
        assert "{" not in sentence
        assert 20 < len(sentence) < 230
    assert KIND_NAMES[kind]


# kinds for which system.md has no operation of its own
WITHOUT_OPERATION = {"vm_done", "boot_done", "evict"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WITHOUT_OPERATION])
def test_the_operation_is_named(restore, mount, kind):
    for timeline in (restore, mount):
        for row in rows_of(timeline, kind):
            number = int(re.search(r"\(O(\d+)\)", tell(timeline, row)).group(1))
            assert 1 <= number <= 26


def test_operations_of_restore_and_mount_differ(restore, mount):
    for kind, of_restore, of_mount in [
        ("unmount_file_system", "O18", "O26"),
        ("de_associate", "O20", "O26"),
        ("empty_read_cache", "O19", "O26"),
    ]:
        assert of_restore in tell(restore, rows_of(restore, kind)[0])
        assert of_mount in tell(mount, rows_of(mount, kind)[0])


def test_a_read_says_what_follows_at_the_same_instant(large):
    outcomes = {
        "cache_hit": "served from there. (O7)",
        "cache_miss": "not in the read cache",
        "read": "routes it",
    }
    seen = set()
    for row in rows_of(large, "vm_read")[:300]:
        event, after = event_at(large, row), event_at(large, row + 1)
        assert f"{event['block']:,}" in tell(large, row)
        assert units.size(event["detail"]) in tell(large, row)
        if after["kind"] in outcomes and after["time_ns"] == event["time_ns"] and event["count"] == 1:
            assert outcomes[after["kind"]] in tell(large, row)
            seen.add(after["kind"])
    assert {"cache_hit", "cache_miss"} <= seen


def test_a_request_done_says_what_it_was(restore, mount):
    for timeline in (restore, mount):
        issued = {}
        for row in range(len(timeline)):
            event = event_at(timeline, row)
            if event["kind"] in ("vm_read", "vm_write", "vm_discard", "vm_flush"):
                issued[event["request"]] = event["kind"][3:]
            if event["kind"] == "vm_done":
                assert f"The VM's {issued[event['request']]}" in tell(timeline, row)


def test_before_the_first_event(restore):
    assert "Nothing has happened yet" in tell(restore, -1)


def test_what_moves_is_in_the_picture(restore, mount):
    for timeline in (restore, mount):
        for row in range(len(timeline)):
            flow = flow_of(timeline, row)
            assert flow.active
            assert set(flow.active) <= set(_BOXES) | set(_DRUMS)
            assert set(flow.arrows) <= set(_ARROWS)
            assert flow.arrows or not flow.payload


def test_what_is_served_goes_to_who_asked(restore):
    for row in rows_of(restore, "serve"):
        last = flow_of(restore, row).arrows[-1]
        assert last == ("host_vm" if event_at(restore, row)["detail"] == 0 else "host_destination")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 bytes"), (24 * 1024, "24 KiB"), (1536, "1.5 KiB"), (5 * 2**30, "5 GiB"), (3 * 2**42, "12 TiB")],
)
def test_sizes(value, text):
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (999, "999 ns"),
        (34_200_000, "34.2 ms"),
        (119e9, "119.0 s"),
        (200e9, "3 min 20 s"),
        (2 * 3600e9 + 300e9, "2 h 05 min"),
    ],
)
def test_durations(value, text):
    assert units.duration(value) == text


def test_a_request_that_waited_says_for_what(tiny_boot):
    plan = RestorePlan(tiny_boot.disk_bytes, launch=LaunchRule("immediately"))
    run = simulate(tiny_boot, plan, "tape")
    first, *_ = rows_of(run, "vm_done")
    assert tell(run, first).endswith("of it waiting for the backup device to read.")
    afterwards = simulate(tiny_boot, plan.replace(mode="full_restore"), "tape")
    told = {tell(afterwards, row) for row in rows_of(afterwards, "vm_done")}
    assert all("waiting for the destination" in sentence or "at once" in sentence for sentence in told)
    without_causes = simulate(tiny_boot, plan, "tape", detail="runs")
    assert all("waiting" not in tell(without_causes, row) for row in rows_of(without_causes, "vm_done"))
