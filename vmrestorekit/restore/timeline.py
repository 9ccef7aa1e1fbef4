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

# flags are kept after every so many events, or after more, so that what is kept does not exceed so many bytes
_SNAPSHOT_EVERY = 4096
_SNAPSHOT_BYTES = 64 * 1024 * 1024
# from so many blocks an event on, changing its range as a slice is quicker than listing its blocks
_WIDE = 64

# kind -> (flags set, flags cleared) on the blocks of the event
_EFFECTS = {
    "fetch": (IN_FLIGHT, 0),
    "staged": (IN_CACHE, IN_FLIGHT | PURGED),
    "read_from_media": (0, IN_FLIGHT),
    "serve": (SERVED, 0),
    "evict": (0, IN_CACHE),
    "purge": (PURGED, IN_CACHE),
    "written": (WRITTEN, 0),
    "relocated": (RELOCATED, 0),
    "applied": (RELOCATED, WRITTEN),
}
# the same for events about the cache as a whole
_EFFECTS_ON_ALL = {
    "empty_read_cache": (0, IN_CACHE | IN_FLIGHT),
    "lose_media_agent": (0, IN_CACHE | IN_FLIGHT),
    "power_down": (0, WRITTEN),
}

Flags = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

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
    flags: Flags

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

    @functools.cached_property
    def causes(self) -> npt.NDArray[np.int32]:
        """Row of the event that led to each event, -1 if none did, shape (events,)."""
        return self.events["cause"].to_numpy()

    def are_of_kind(self, *kinds: str) -> npt.NDArray[np.bool_]:
        """Return which events are of one of these kinds, shape (events,)."""
        return np.array([kind in kinds for kind in KINDS])[self.kinds]

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
        nearest = (at + 1) // self._snapshot_every
        flags = self._snapshots[nearest].copy()
        self._changes.apply(flags, nearest * self._snapshot_every, at + 1)
        shown_ns = time_ns if time_ns is not None else int(self.times[at]) if at >= 0 else 0
        return State(at, shown_ns, self._phase(at), flags)

    def _phase(self, at: int) -> str:
        position = int(np.searchsorted(self._phase_rows, at, side="right")) - 1
        return self._phase_names[position] if position >= 0 else "preparing"

    @functools.cached_property
    def _phase_rows(self) -> IntArray:
        return np.flatnonzero(self.are_of_kind(*PHASES))

    @functools.cached_property
    def _phase_names(self) -> list[str]:
        return [PHASES[KINDS[self.kinds[row]]] for row in self._phase_rows]

    @functools.cached_property
    def _snapshot_every(self) -> int:
        return max(_SNAPSHOT_EVERY, -(-len(self) * self.plan.blocks // _SNAPSHOT_BYTES))

    @functools.cached_property
    def _snapshots(self) -> list[Flags]:
        """Flags before the first event and after every so many."""
        flags = np.where(self.stored, STORED, 0).astype(np.uint8)
        snapshots = [flags.copy()]
        every = self._snapshot_every
        for start in range(0, len(self) - every + 1, every):
            self._changes.apply(flags, start, start + every)
            snapshots.append(flags.copy())
        return snapshots

    @functools.cached_property
    def _changes(self) -> _Changes:
        effects = _EFFECTS | _EFFECTS_ON_ALL
        table = np.array([effects.get(kind, (0, 0)) for kind in KINDS], np.uint8)
        rows, about = self._rows_that_matter(self.are_of_kind(*effects))
        first = self.events["block"].to_numpy()[about]
        end = first + self.events["count"].to_numpy()[about]
        on_all = self.are_of_kind(*_EFFECTS_ON_ALL)[about]
        first[on_all], end[on_all] = 0, self.plan.blocks
        sets, clears = table[self.kinds[rows]].T
        return _Changes(rows, first, end, sets, clears)

    def _rows_that_matter(self, matter: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
        """Return the rows of the events that matter and, for each, the row that names the blocks.

        It is the same row, but for a fetch that completed: not all in its range need come from it, as when a
        whole chunk is read; what comes is named by the events that it led to.
        """
        of_fetch = (self.causes >= 0) & self.are_of_kind("fetch")[self.causes]
        completions = np.flatnonzero(of_fetch & self.are_of_kind("staged", "read_from_media"))
        fetches = self.causes[completions].astype(np.int64)
        matter[fetches] = False
        alone = np.flatnonzero(matter)
        rows, about = np.append(alone, fetches), np.append(alone, completions)
        order = np.argsort(rows, kind="stable")
        return rows[order], about[order]


@dataclasses.dataclass(frozen=True)
class _Changes:
    """What events do to the flags of blocks; arrays of shape (changes,), ordered by row.

    Attributes
    ----------
    row : ndarray of int64
        Of the event.
    first, end : ndarray of int32
        Range of blocks; `end` is the first behind it.
    sets, clears : ndarray of uint8
        Flags.
    """

    row: IntArray
    first: npt.NDArray[np.int32]
    end: npt.NDArray[np.int32]
    sets: Flags
    clears: Flags

    def apply(self, flags: Flags, start: int, stop: int) -> None:
        """Apply the changes of the events from row `start` up to, not including, row `stop`."""
        window = slice(*np.searchsorted(self.row, [start, stop]))
        lengths = self.end[window] - self.first[window]
        if lengths.sum(dtype=np.int64) > _WIDE * len(lengths):
            self._apply_in_turn(flags, window)
        else:
            self._apply_at_once(flags, window, lengths)

    def _apply_in_turn(self, flags: Flags, window: slice) -> None:
        columns = (self.first, self.end, self.sets, ~self.clears)
        for first, end, sets, keeps in zip(*(column[window].tolist() for column in columns), strict=True):
            part = flags[first:end]
            part &= keeps
            part |= sets

    def _apply_at_once(self, flags: Flags, window: slice, lengths: npt.NDArray[np.int32]) -> None:
        offset = self.first[window] - np.cumsum(lengths) + lengths
        blocks = np.repeat(offset, lengths) + np.arange(lengths.sum())
        sets = np.repeat(self.sets[window], lengths)
        changed = sets | np.repeat(self.clears[window], lengths)
        for flag in (1 << bit for bit in range(8)):
            at = np.flatnonzero(changed & flag)
            touched = blocks[at]
            # of several changes of one block the last one stays
            flags[touched] = flags[touched] & (~flag & 0xFF) | sets[at] & flag
