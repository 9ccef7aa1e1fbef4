"""The engine: the rules of ``docs/clockwork.md`` as compiled step functions over tables of records.

`run` is what Python calls (and `see_read`, for a live media agent). Everything it works on hangs on one
record, `WORLD`, so that it can return when the buffer of events is full and be called again.
`vmrestorekit.restore.world` lays the tables out.

The modules, from the bottom: `state` (records), `clock` (what is due, events), `read_cache`, `fetches`,
`staging` and `dispatch` (backup device), `tracking` (runs, purging), `media_agent` (parts of reads), `units`,
`host` (the virtual machine's requests), `ending`, `relocation`, `expiry`, `coordination`, `failover`, `loop`.
"""

from vmrestorekit.restore.engine.loop import run, see_read
from vmrestorekit.restore.engine.state import (
    AGENT,
    BLOCK,
    CHANNEL,
    CHUNK,
    COPY,
    DEVICE,
    DONE,
    DUE,
    EVENT,
    EVENTS_FULL,
    EXPIRED_BEFORE_LAUNCH,
    FETCHING,
    IN_FIRST_SET,
    KIND_COUNT,
    MACHINE,
    MERGED,
    MERGED_DETAILS,
    NUMBER,
    OP_MARK,
    OPEN_RUNS,
    PART,
    RELOCATION,
    REQUEST,
    RUN,
    UNIT,
    UNIT_BYTES,
    WANTED,
    WORLD,
)

__all__ = [
    "AGENT",
    "BLOCK",
    "CHANNEL",
    "CHUNK",
    "COPY",
    "DEVICE",
    "DONE",
    "DUE",
    "EVENT",
    "EVENTS_FULL",
    "EXPIRED_BEFORE_LAUNCH",
    "FETCHING",
    "IN_FIRST_SET",
    "KIND_COUNT",
    "MACHINE",
    "MERGED",
    "MERGED_DETAILS",
    "NUMBER",
    "OPEN_RUNS",
    "OP_MARK",
    "PART",
    "RELOCATION",
    "REQUEST",
    "RUN",
    "UNIT",
    "UNIT_BYTES",
    "WANTED",
    "WORLD",
    "run",
    "see_read",
]
