"""Timelines written down event by event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import EVENTS_SCHEMA, KIND_MEANING
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.restore.timeline import Timeline

UNIT = 4096
NAMES = ("time_ns", "kind", "block", "count", "request", "detail", "cause")
ABOUT_NOTHING = {"block": -1, "count": 0, "request": -1, "detail": 0, "cause": -1}

Event = tuple[Any, ...]


def events_of(rows: Sequence[Event]) -> pl.DataFrame:
    """Return events of rows with values of `NAMES`, of which the last ones may be left out."""
    events = [ABOUT_NOTHING | dict(zip(NAMES, row, strict=False)) for row in rows]
    for event in events:
        event["actor"] = KIND_MEANING[event["kind"]][0]
    columns = {name: [event[name] for event in events] for name in EVENTS_SCHEMA}
    return pl.DataFrame(columns, schema=EVENTS_SCHEMA)


def timeline_of(
    rows: Sequence[Event], blocks: int, holes: Sequence[int] = (), hardware: Hardware | None = None
) -> Timeline:
    """Return a timeline of such rows, with blocks of 4 KiB."""
    stored = np.ones(blocks, np.bool_)
    stored[list(holes)] = False
    plan = RestorePlan((blocks * UNIT,), block_bytes=UNIT)
    return Timeline(events_of(rows), {}, plan, hardware, "vm", "boot", stored)
