"""A timeline: everything that happened in a restore, simulated or measured, as a table of events.

Charts and widgets are views of a timeline; they never simulate. `Timeline.state_at` says where every block
was at any instant.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import EVENTS_SCHEMA, KINDS
from vmrestorekit.restore.hardware import Hardware

__all__ = [
    "IN_CACHE",
    "IN_FLIGHT",
    "PURGED",
    "RELOCATED",
    "SERVED",
    "STORED",
    "WRITTEN",
    "State",
    "Timeline",
    "TimelineError",
]

# a block's state is a sum of these flags
STORED = 1  # the backup copy holds it; a block without this is a hole
IN_FLIGHT = 2  # on its way from the backup copy to the read cache
IN_CACHE = 4  # in the read cache
SERVED = 8  # was sent from the read cache at least once
WRITTEN = 16  # the virtual machine wrote to it, and the write cache holds what it wrote
RELOCATED = 32  # on the destination
PURGED = 64  # was purged from the read cache, because the relocation had read it

_SNAPSHOT_EVERY = 16_384

# kind -> (flags set, flags cleared) on the blocks of the event
_EFFECTS = {
    "fetch": (IN_FLIGHT, 0),
    "staged": (IN_CACHE, IN_FLIGHT | PURGED),
    "serve": (SERVED, 0),
    "evict": (0, IN_CACHE),
    "purge": (PURGED, IN_CACHE),
    "written": (WRITTEN, 0),
    "relocated": (RELOCATED, 0),
    "applied": (RELOCATED, WRITTEN),
}
# the same for events about the cache as a whole
_EFFECTS_ON_ALL = {"empty_read_cache": (0, IN_CACHE | IN_FLIGHT), "power_down": (0, WRITTEN)}

PHASES = {
    "export_file_system": "preparing",
    "launch_vm": "running from the backup",
    "indicate_pre_relocation": "pre-relocation",
    "start_relocation": "relocating",
    "apply_writes": "applying writes",
    "use_destination": "running on the destination",
    "expire": "expired",
}


class TimelineError(ValueError):
    """A question that the timeline cannot answer; the message says what was expected and what came."""


@dataclasses.dataclass(frozen=True)
class State:
    """Where everything is right after an event.

    Attributes
    ----------
    index : int
        Row of the event in `Timeline.events`.
    time_ns : int
    phase : str
        One of the values of `PHASES`.
    flags : ndarray of uint8, shape (blocks,)
        Sum of the flags of this module for each block.
    """

    index: int
    time_ns: int
    phase: str
    flags: npt.NDArray[np.uint8]

    def count(self, flag: int) -> int:
        """Return how many blocks have the flag."""
        return int(np.count_nonzero(self.flags & flag))


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """What happened, when, to which block, for whom.

    Attributes
    ----------
    events : polars.DataFrame
        `EVENTS_SCHEMA`, ordered by time; equal times in the order in which they happened.
    metrics : mapping of str to int, float or None
        Figures of the whole run, see `vmrestorekit.restore.simulate`.
    plan, hardware
        What was carried out, and on what (None for a measured run).
    vm, boot : str
        Which recording drove it.
    stored : ndarray of bool, shape (blocks,)
        Which blocks the backup copy stores; the others are holes.
    """

    events: pl.DataFrame
    metrics: Mapping[str, int | float | None]
    plan: RestorePlan
    hardware: Hardware | None
    vm: str
    boot: str
    stored: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if dict(self.events.schema) != dict(EVENTS_SCHEMA):
            raise TimelineError(
                f"events: expected columns {dict(EVENTS_SCHEMA)}, got {dict(self.events.schema)}"
            )
        if self.stored.shape != (self.plan.blocks,):
            raise TimelineError(f"stored: expected shape ({self.plan.blocks},), got {self.stored.shape}")

    def __len__(self) -> int:
        return self.events.height

    def __repr__(self) -> str:
        what = f"{self.plan.mode} of {self.vm}/{self.boot}"
        return f"<Timeline {what}: {len(self)} events in {self.end_ns / 1e9:.1f} s>"

    @property
    def end_ns(self) -> int:
        """Time of the last event."""
        return int(self.times[-1]) if len(self) else 0

    @functools.cached_property
    def times(self) -> npt.NDArray[np.int64]:
        """Times of the events in nanoseconds, shape (events,)."""
        return self.events["time_ns"].to_numpy()

    @functools.cached_property
    def kinds(self) -> npt.NDArray[np.uint8]:
        """Number of each event's kind in `KINDS`, shape (events,)."""
        return self.events["kind"].to_physical().to_numpy().astype(np.uint8)

    def summary(self) -> dict[str, int | float | None]:
        """Return the figures of the whole run; times in nanoseconds, sizes in bytes."""
        return dict(self.metrics)

    def index_at(self, time_ns: int) -> int:
        """Return the row of the last event not after that time, -1 before the first."""
        return int(np.searchsorted(self.times, time_ns, side="right")) - 1

    def next_of_kind(self, kind: str, after: int) -> int | None:
        """Return the row of the next event of a kind behind row `after`, None if there is none."""
        if kind not in KINDS:
            raise TimelineError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        later = np.flatnonzero(self.kinds[after + 1 :] == KINDS.index(kind))
        return after + 1 + int(later[0]) if later.size else None

    def state_at(self, index: int | None = None, *, time_ns: int | None = None) -> State:
        """Return where everything is right after an event, or at a time.

        Parameters
        ----------
        index : int
            Row of the event; -1 is before the first.
        time_ns : int
            Instead of `index`.

        Raises
        ------
        TimelineError
            If neither or both are given, or there is no such event.
        """
        if (index is None) == (time_ns is None):
            raise TimelineError("state_at: expected either an event's index or time_ns")
        at = self.index_at(time_ns) if time_ns is not None else int(index)  # type: ignore[arg-type]
        if not -1 <= at < len(self):
            raise TimelineError(f"state_at: expected an event from -1 to {len(self) - 1}, got {at}")
        nearest = (at + 1) // _SNAPSHOT_EVERY
        flags = self._snapshots[nearest].copy()
        self._replay(flags, nearest * _SNAPSHOT_EVERY, at + 1)
        shown_ns = time_ns if time_ns is not None else int(self.times[at]) if at >= 0 else 0
        return State(at, shown_ns, self._phase(at), flags)

    def _phase(self, at: int) -> str:
        position = int(np.searchsorted(self._phase_rows, at, side="right")) - 1
        return self._phase_names[position] if position >= 0 else "preparing"

    @functools.cached_property
    def _phase_rows(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(np.isin(self.kinds, [KINDS.index(kind) for kind in PHASES]))

    @functools.cached_property
    def _phase_names(self) -> list[str]:
        return [PHASES[KINDS[self.kinds[row]]] for row in self._phase_rows]

    @functools.cached_property
    def _snapshots(self) -> list[npt.NDArray[np.uint8]]:
        """Flags before the first event and after every so many."""
        flags = np.where(self.stored, STORED, 0).astype(np.uint8)
        snapshots = [flags.copy()]
        for start in range(0, len(self) - _SNAPSHOT_EVERY + 1, _SNAPSHOT_EVERY):
            self._replay(flags, start, start + _SNAPSHOT_EVERY)
            snapshots.append(flags.copy())
        return snapshots

    @functools.cached_property
    def _changes(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Rows that change flags, their block range, and what they set and clear."""
        table = np.zeros((len(KINDS), 2), np.uint8)
        for kind, effect in (_EFFECTS | _EFFECTS_ON_ALL).items():
            table[KINDS.index(kind)] = effect
        rows = np.flatnonzero(table[self.kinds].any(axis=1))
        block = self.events["block"].to_numpy()[rows].astype(np.int64)
        end = block + self.events["count"].to_numpy()[rows]
        on_all = np.isin(self.kinds[rows], [KINDS.index(kind) for kind in _EFFECTS_ON_ALL])
        block[on_all], end[on_all] = 0, self.plan.blocks
        sets, clears = table[self.kinds[rows]].T
        return rows, block, end, sets.astype(np.int64), clears.astype(np.int64)

    def _replay(self, flags: npt.NDArray[np.uint8], start: int, stop: int) -> None:
        """Apply the events from row `start` up to, not including, row `stop`."""
        rows, block, end, sets, clears = self._changes
        first, last = np.searchsorted(rows, [start, stop])
        lengths = end[first:last] - block[first:last]
        blocks = np.repeat(block[first:last] - np.cumsum(lengths) + lengths, lengths) + np.arange(
            lengths.sum()
        )
        set_flags = np.repeat(sets[first:last], lengths)
        changed_flags = np.repeat(sets[first:last] | clears[first:last], lengths)
        for flag in (1 << bit for bit in range(8)):
            changes = np.flatnonzero(changed_flags & flag)
            if changes.size:
                value = flags & np.uint8(flag)
                # of several changes of one block the last one stays
                value[blocks[changes]] = set_flags[changes] & flag
                flags &= np.uint8(~flag & 0xFF)
                flags |= value
