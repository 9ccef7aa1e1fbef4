"""Where each read has to go (O14), worked out from the events before it: a replay in sets of 4 KiB units."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl

from vmrestorekit.restore.timeline import Timeline

UNIT = 4096


@dataclasses.dataclass
class Served:
    """What serves a read: bytes of write cache and destination, blocks of the logical source."""

    write_cache: int = 0
    destination: int = 0
    logical_source: tuple[int, ...] = ()


@dataclasses.dataclass
class HostReplay:
    """What the host knows after each event of a restore with blocks of one unit and writes of whole units.

    Attributes
    ----------
    written, zeroed, applied, relocated : set of int
        Units in that state; a unit that is being applied is written until it is applied.
    ever_written, ever_applied : set of int
        Units written before the pivot, and units that the events ``applied`` name.
    expected : dict
        What has to serve each read, by its row of the trace; without the few of which no event tells: while
        writes are applied, units that were discarded become applied one after the other, at no cost.
    written_meanwhile : set of int
        Units written while they were being applied, which have to be applied once more.
    unapplied_at_pivot : set of int
        Units still written then.
    pending_bytes : int
        What is written or discarded when the relocation has finished.
    """

    stored: set[int]
    written: set[int] = dataclasses.field(default_factory=set)
    zeroed: set[int] = dataclasses.field(default_factory=set)
    applied: set[int] = dataclasses.field(default_factory=set)
    relocated: set[int] = dataclasses.field(default_factory=set)
    ever_written: set[int] = dataclasses.field(default_factory=set)
    ever_applied: set[int] = dataclasses.field(default_factory=set)
    expected: dict[int, Served] = dataclasses.field(default_factory=dict)
    written_meanwhile: set[int] = dataclasses.field(default_factory=set)
    unapplied_at_pivot: set[int] = dataclasses.field(default_factory=set)
    pending_bytes: int = 0
    _applying: bool = False
    # units rewritten since the running application of writes read the write cache
    _rewritten: set[int] = dataclasses.field(default_factory=set)

    def take(self, event: dict[str, Any], start: int, length: int) -> None:
        """Go on by one event; `start` and `length` are the bytes of its request."""
        blocks = set(range(event["block"], event["block"] + event["count"]))
        match event["kind"]:
            case "vm_read":
                if not (self._applying and self.zeroed & blocks):
                    self.expected[event["request"]] = self.route(start, start + length)
            case "vm_discard":
                self.zeroed |= blocks
                self.written -= blocks
            case "written" if event["detail"] == 0:
                # a write that finds nothing pending is what is applied next, and not behind it
                self._rewritten |= blocks if self.written else set()
                self.written |= blocks
                self.zeroed -= blocks
                self.applied -= blocks
                self.ever_written |= blocks
            case "written":
                self.applied |= blocks
            case "relocated":
                self.relocated |= blocks
            case "apply_writes":
                self.pending_bytes = UNIT * len(self.written | self.zeroed)
                self._rewritten.clear()
                self._applying = True
            case "applied":
                self.ever_applied |= blocks
                self.applied |= blocks - self._rewritten
                self.written -= blocks - self._rewritten
                self.written_meanwhile |= blocks & self._rewritten
                self._rewritten.clear()
            case "use_destination":
                self.unapplied_at_pivot = set(self.written)
                self.applied |= self.zeroed
                self.zeroed.clear()
                self._applying = False

    def route(self, start: int, end: int) -> Served:
        """Cut a read up by the state of its units."""
        served = Served()
        for unit in range(start // UNIT, -(-end // UNIT)):
            size = min(end, (unit + 1) * UNIT) - max(start, unit * UNIT)
            if unit in self.written:
                served.write_cache += size
            elif unit in self.zeroed:
                continue
            elif unit in self.applied or unit in self.relocated:
                served.destination += size
            elif unit in self.stored:
                served.logical_source += (unit,)
        return served


def replay_host(timeline: Timeline, trace: pl.DataFrame) -> HostReplay:
    """Replay a whole restore of a trace."""
    host = HostReplay({block for block, stored in enumerate(timeline.stored) if stored})
    offset, length = trace["offset"].to_list(), trace["length"].to_list()
    for event in timeline.events.iter_rows(named=True):
        row = event["request"]
        known = 0 <= row < len(offset)
        host.take(event, *((offset[row], length[row]) if known else (0, 0)))
    return host


def reads_served(timeline: Timeline) -> dict[int, Served]:
    """What did serve each read, by its row of the trace."""
    events = timeline.events
    reads = events.filter(pl.col("kind") == "vm_read")["request"].to_list()
    served = {int(request): Served() for request in reads}
    parts = ["cache_hit", "cache_wait", "cache_miss"]
    kinds = ["read_write_cache", "read_destination", *parts]
    for event in events.filter(pl.col("kind").is_in(kinds)).iter_rows(named=True):
        of_request = served.get(event["request"])
        if of_request is None:  # the relocation's
            continue
        if event["kind"] in parts:
            of_request.logical_source += (event["block"],)
        elif event["kind"] == "read_destination":
            of_request.destination += event["detail"]
        else:
            of_request.write_cache += event["detail"]
    return served
