"""What happened in a restore for real: events as they come, and the Timeline that is made of them."""

from __future__ import annotations

import dataclasses
import json
import os
from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.lab.programs import LabError
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import ACTORS, EVENTS_SCHEMA, KIND_MEANING, KINDS
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link, PrimaryStorage
from vmrestorekit.restore.summary import summarise
from vmrestorekit.restore.timeline import Timeline, TimelineError
from vmrestorekit.traces.schema import read_parquet, read_parquet_with_metadata, write_parquet_atomically

__all__ = ["EventLog", "load_timeline", "save_timeline"]

_KIND_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_ACTOR_OF_KIND = np.array([ACTORS.index(KIND_MEANING[kind][0]) for kind in KINDS], np.uint8)
_COLUMNS = ("time_ns", "kind", "block", "count", "request", "detail", "cause")
_METADATA_KEY = "vmrestorekit.recording"
_EVENTS_FILE, _STORED_FILE, _PLAN_FOLDER = "events.parquet", "stored.parquet", "plan"
_FORMAT = 1


class EventLog:
    """Events of a restore, of whoever takes part in it, by the clock that all of them share.

    Parameters
    ----------
    limit : int
        How many events are kept; the rest is counted in `lost`. An event takes 56 bytes.
    """

    def __init__(self, limit: int = 4_000_000) -> None:
        self.limit = limit
        self.lost = 0
        self._rows = array("q")

    def __len__(self) -> int:
        return len(self._rows) // len(_COLUMNS)

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
        """Append an event at a time of the clock; return its number, -1 if it was lost.

        Raises
        ------
        LabError
            If there is no such kind (`vmrestorekit.restore.events`).
        """
        number = _KIND_NUMBER.get(kind)
        if number is None:
            raise LabError(f"event: expected one of {', '.join(KINDS)}, got {kind!r}")
        row = len(self._rows) // len(_COLUMNS)
        if row >= self.limit:
            self.lost += 1
            return -1
        self._rows.extend((at_ns, number, block, count, request, detail, cause))
        return row

    def frame(self) -> pl.DataFrame:
        """Return the events as a frame of `EVENTS_SCHEMA`, in their order; time 0 is the first event.

        Events may have been told late; of equal times, the one that was told first comes first.
        """
        rows = np.array(self._rows, np.int64).reshape(-1, len(_COLUMNS))
        order = np.argsort(rows[:, 0], kind="stable")
        place = np.append(np.empty(len(rows), np.int64), -1)
        place[order] = np.arange(len(rows))
        rows = rows[order]
        time, kind, block, count, request, detail, cause = rows.T
        return pl.DataFrame(
            {
                "time_ns": time - (time[0] if len(time) else 0),
                "kind": pl.Series(KINDS, dtype=EVENTS_SCHEMA["kind"]).gather(kind),
                "actor": pl.Series(ACTORS, dtype=EVENTS_SCHEMA["actor"]).gather(_ACTOR_OF_KIND[kind]),
                "block": block,
                "count": count,
                "request": request,
                "detail": detail,
                "cause": place[cause],
            },
            schema=EVENTS_SCHEMA,
        )

    def timeline(
        self,
        plan: RestorePlan,
        stored: npt.NDArray[np.bool_],
        hardware: Hardware | None = None,
        *,
        vm: str = "",
        boot: str = "",
        local_boot_ns: int | None = None,
        measured: Mapping[str, int | float | None] | None = None,
    ) -> Timeline:
        """Return what happened as a timeline, its figures by `vmrestorekit.restore.summary.summarise`.

        Parameters
        ----------
        stored : ndarray of bool, shape (plan.blocks,)
        measured : mapping, optional
            Figures that were measured otherwise, in place of those that the events tell.
        """
        events = self.frame()
        metrics = summarise(events, plan, local_boot_ns) | dict(measured or {})
        return Timeline(events, metrics, plan, hardware, vm, boot, stored)


def save_timeline(timeline: Timeline, folder: str | os.PathLike[str]) -> None:
    """Write a timeline into a folder: events and stored blocks as Parquet, the plan as it saves itself.

    The events are written last: without them there is no recording.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    timeline.plan.save(folder / _PLAN_FOLDER)
    write_parquet_atomically(pl.DataFrame({"stored": timeline.stored}), folder / _STORED_FILE)
    about = {
        "format": _FORMAT,
        "vm": timeline.vm,
        "boot": timeline.boot,
        "metrics": dict(timeline.metrics),
        "hardware": None if timeline.hardware is None else dataclasses.asdict(timeline.hardware),
    }
    write_parquet_atomically(timeline.events, folder / _EVENTS_FILE, {_METADATA_KEY: json.dumps(about)})


def load_timeline(folder: str | os.PathLike[str]) -> Timeline:
    """Read what `save_timeline` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no recording.
    TimelineError, PlanError
        If it is damaged, or something else.
    """
    folder = Path(folder)
    path = folder / _EVENTS_FILE
    events, metadata = read_parquet_with_metadata(path, "a recording of a restore", TimelineError)
    about = json.loads(metadata.get(_METADATA_KEY, "{}"))
    if about.get("format") != _FORMAT or dict(events.schema) != dict(EVENTS_SCHEMA):
        raise TimelineError(
            f"{path}: expected a recording of a restore of format {_FORMAT}, got another file"
        )
    stored = read_parquet(folder / _STORED_FILE, "the stored blocks of a recording", TimelineError)["stored"]
    plan = RestorePlan.load(folder / _PLAN_FOLDER)
    hardware = None if about["hardware"] is None else _hardware(about["hardware"])
    return Timeline(events, about["metrics"], plan, hardware, about["vm"], about["boot"], stored.to_numpy())


def _hardware(about: dict[str, object]) -> Hardware:
    parts = {
        "backup_device": BackupDevice,
        "link": Link,
        "destination": PrimaryStorage,
        "write_cache": PrimaryStorage,
    }
    return Hardware(**about | {name: part(**about[name]) for name, part in parts.items()})  # type: ignore[arg-type]
