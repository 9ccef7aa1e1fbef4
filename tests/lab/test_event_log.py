"""Events as they come, and the timeline that is made of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vmrestorekit.lab.media.event_log import EventLog, load_timeline, save_timeline
from vmrestorekit.lab.programs import LabError
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import EVENTS_SCHEMA
from vmrestorekit.restore.hardware import MEDIA
from vmrestorekit.restore.timeline import Timeline, TimelineError

PLAN = RestorePlan((4 * 65536,), first_set=np.array([2, 0]))
STORED = np.array([True, False, True, True])


def small_log() -> EventLog:
    log = EventLog()
    read = log.append(1000, "vm_read", 2, 1, 0, 4096)
    miss = log.append(1000, "cache_miss", 2, 1, 0, 0, read)
    fetch = log.append(1010, "fetch", 2, 1, 0, 0, miss)
    staged = log.append(1500, "staged", 2, 1, 0, 0, fetch)
    serve = log.append(1600, "serve", 2, 1, 0, 0, staged)
    log.append(1600, "vm_done", 2, 1, 0, 600, serve)
    log.append(900, "launch_vm")  # told late, by another process
    return log


def small_timeline() -> Timeline:
    return small_log().timeline(PLAN, STORED, vm="web", boot="real", measured={"media_bytes": 7})


def test_events_are_ordered_by_time_and_causes_follow() -> None:
    frame = small_log().frame()
    assert dict(frame.schema) == dict(EVENTS_SCHEMA)
    assert frame["kind"].to_list() == [
        *("launch_vm", "vm_read", "cache_miss", "fetch", "staged", "serve", "vm_done")
    ]
    assert frame["time_ns"].to_list() == [0, 100, 100, 110, 600, 700, 700]
    assert frame["cause"].to_list() == [-1, -1, 1, 2, 3, 4, 5]
    assert frame["actor"].to_list()[:4] == ["vm_host", "vm", "media_agent", "media_agent"]


def test_an_empty_log_is_an_empty_timeline() -> None:
    timeline = EventLog().timeline(PLAN, STORED)
    assert len(timeline) == 0
    assert timeline.summary()["hits"] == 0


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(LabError, match=r"event: expected one of .*, got 'vm_dance'"):
        EventLog().append(0, "vm_dance")


def test_the_log_is_bounded() -> None:
    log = EventLog(limit=2)
    assert [log.append(time, "vm_flush") for time in range(4)] == [0, 1, -1, -1]
    assert (len(log), log.lost) == (2, 2)


def test_the_timeline_has_figures_and_states() -> None:
    timeline = small_timeline()
    figures = timeline.summary()
    assert (figures["misses"], figures["wait_max_ns"], figures["launch_ns"]) == (1, 600, 0)
    assert figures["media_bytes"] == 7  # measured otherwise
    assert timeline.state_at(len(timeline) - 1).phase == "running from the backup"
    assert [timeline.state_at(at).flags[2] for at in (2, 3, 4, 5)] == [1, 3, 5, 13]


def test_a_timeline_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    hardware = MEDIA["tape"].replace(cpu_factor=0.5)
    for saved in (small_timeline(), dataclasses.replace(small_timeline(), hardware=hardware)):
        save_timeline(saved, tmp_path / "run")
        loaded = load_timeline(tmp_path / "run")
        assert loaded.events.equals(saved.events)
        assert dict(loaded.events.schema) == dict(EVENTS_SCHEMA)
        assert loaded.metrics == saved.metrics
        assert loaded.plan.equals(saved.plan)
        assert (loaded.vm, loaded.boot, loaded.hardware) == ("web", "real", saved.hardware)
        assert np.array_equal(loaded.stored, STORED)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_timeline(tmp_path / "none")
    save_timeline(small_timeline(), tmp_path / "run")
    path = tmp_path / "run" / "events.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(TimelineError, match="expected a recording of a restore of format 1"):
        load_timeline(tmp_path / "run")
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(TimelineError, match="a whole Parquet file with a recording of a restore"):
        load_timeline(tmp_path / "run")
