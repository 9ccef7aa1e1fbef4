"""Why something took as long as it did: the causes of an event, and what each request waited for.

Each event of a timeline names the event that led to it. Going back from the event that completed a request,
from cause to cause, until the request was issued, gives the one chain of steps that it waited for. The time
between an event and its cause is what that step took, so the parts of a wait add up to it, to the nanosecond.
A request for several blocks waited for the one that came last: only this one's steps are told.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.restore.events import EVENTS_SCHEMA, KIND_MEANING, KINDS, READERS
from vmrestorekit.restore.timeline import Timeline, TimelineError

__all__ = ["WAITED_FOR", "WAITED_FOR_MEANING", "WAITS_SCHEMA", "WHY_SCHEMA", "critical_path", "waits", "why"]

IntArray = npt.NDArray[np.int64]

# what a request can wait for
WAITED_FOR_MEANING = {
    "queue": "a free channel of the backup device, or a slot of the read cache, behind other fetches",
    "device": "the backup device: positioning and transfer",
    "link_queue": "the link, behind other transmissions, also of its own other blocks",
    "link": "its own transmission over the link",
    "destination": "the destination, also behind others",
    "write_cache": "the write cache, also behind others",
    "media_agent": "another media agent, after its own was lost",
}
WAITED_FOR = tuple(WAITED_FOR_MEANING)

_REQUESTS = ("vm_read", "vm_write", "vm_discard", "vm_flush")
# how a block was found -> the column of `waits` that counts it
_FOUND = {"cache_hit": "hits", "cache_wait": "waits", "cache_miss": "misses"}

# what ends with events of a kind; what ends with other kinds was planned to come then
_STEPS = (*WAITED_FOR, "think", "plan")
_ENDS_WITH = {
    "queue": ("fetch", "evict"),
    "device": ("staged", "read_from_media"),
    "link": ("serve",),
    "destination": ("read_destination", "relocated", "applied"),
    "write_cache": ("read_write_cache", "written"),
    "media_agent": (*_FOUND, "refetch_after_purge", "lose_media_agent", "take_over"),
    "think": (*_REQUESTS, "boot_done"),
}
_STEP_OF = {kind: step for step, kinds in _ENDS_WITH.items() for kind in kinds}
_STEP_NUMBER_OF_KIND = np.array([_STEPS.index(_STEP_OF.get(kind, "plan")) for kind in KINDS])

# where `why` stops: requests, and messages of those who coordinate
_COORDINATORS = ("data_agent", "storage_manager", "file_manager")
_BEGINNINGS = {kind for kind in KINDS if KIND_MEANING[kind][0] in _COORDINATORS} | {
    *_REQUESTS,
    "relocation_read",
}

WHY_SCHEMA = pl.Schema(
    {
        "step": pl.Int32(),
        "row": pl.Int32(),
        "time_ns": pl.Int64(),
        "kind": EVENTS_SCHEMA["kind"],
        "block": pl.Int32(),
        "count": pl.Int32(),
        "request": pl.Int32(),
        "waited_for": pl.Enum(_STEPS),
        "waited_ns": pl.Int64(),
    }
)

WAITS_SCHEMA = pl.Schema(
    {
        "request": pl.Int32(),
        "kind": EVENTS_SCHEMA["kind"],
        "block": pl.Int32(),
        "count": pl.Int32(),
        "bytes": pl.Int64(),
        "issued_ns": pl.Int64(),
        "wait_ns": pl.Int64(),
        **{name: pl.Int32() for name in _FOUND.values()},
        **{f"{name}_ns": pl.Int64() for name in WAITED_FOR},
    }
)


def why(timeline: Timeline, event: int | None = None, *, request: int | None = None) -> pl.DataFrame:
    """Return the steps that led to an event, or those that a request waited for.

    Parameters
    ----------
    timeline : Timeline
    event : int
        Row of the event. The steps begin with the request of the virtual machine or the relocation, or the
        message between components, that the event goes back to.
    request : int
        Instead of `event`: row of the trace. The steps begin when it is issued and end when it is done; a
        step that began earlier, such as a fetch that was under way already, counts from the issue. Their
        `waited_ns` add up to the request's wait.

    Returns
    -------
    polars.DataFrame
        `WHY_SCHEMA`: one row a step, the earliest first: `step`; `row` of the event that ended it, with its
        `time_ns`, `kind`, `block`, `count` and `request`; `waited_for`, one of `WAITED_FOR`, or ``"think"``
        (the virtual machine computes) or ``"plan"`` (what was planned comes now), null if it came at once;
        `waited_ns`. A transmission that began behind others takes two rows, the first of which
        (``"link_queue"``) ends when it begins.

    Raises
    ------
    TimelineError
        If neither or both are given, there is no such event, the request did not complete, or the timeline's
        events do not name their causes.
    """
    if (event is None) == (request is None):
        raise TimelineError("why: expected either an event's row or a request")
    chain = _Chain(timeline)
    if request is not None:
        return chain.tabulate(*chain.of_request(request))
    assert event is not None
    if not 0 <= event < len(timeline):
        raise TimelineError(f"why: expected an event from 0 to {len(timeline) - 1}, got {event}")
    rows = chain.of_event(event)
    return chain.tabulate(rows, int(timeline.times[rows[0]]))


def waits(timeline: Timeline) -> pl.DataFrame:
    """Return how long each request of the virtual machine waited, and for what.

    Returns
    -------
    polars.DataFrame
        `WAITS_SCHEMA`: one row a request that was issued, in the order of the trace: `request` (row of the
        trace), `kind`, `block`, `count`, `bytes`, `issued_ns`, `wait_ns`; `hits`, `waits` and `misses`: how
        many of its blocks were in the read cache, on their way to it, or neither; for each name in
        `WAITED_FOR` a column such as `queue_ns`. These add up to `wait_ns`: they are the steps that
        ``why(timeline, request=…)`` tells one by one. All times but `issued_ns` are null if the request did
        not complete.

    Raises
    ------
    TimelineError
        If the timeline's events do not name their causes.
    """
    return _Chain(timeline).waits()


def critical_path(timeline: Timeline) -> IntArray | None:
    """Return the requests that the end of the boot waited for, one after the other; None if it did not end.

    Each was issued some think time after the one before was done, the first after the launch: think times and
    waits of these requests, and the think time before the end of the boot, add up to the time to boot.

    Returns
    -------
    ndarray of int64, shape (requests,)
        Rows of the trace, the earliest first.

    Raises
    ------
    TimelineError
        If the timeline's events do not name their causes.
    """
    return _Chain(timeline).critical_path()


class _Chain:
    """The causes in a timeline as arrays of shape (events,)."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.times, self.kinds, self.cause = timeline.times, timeline.kinds, timeline.causes
        self.block, self.count, self.request, self.detail = (
            timeline.events[name].to_numpy() for name in ("block", "count", "request", "detail")
        )
        if not (self.cause >= 0).any():
            raise TimelineError(f"expected a timeline whose events name their causes, got {timeline!r}")
        wrong = np.flatnonzero(self.cause >= np.arange(len(timeline)))
        if wrong.size:
            raise TimelineError(f"event {wrong[0]}: expected a cause before it, got {self.cause[wrong[0]]}")

    # --- steps ------------------------------------------------------------------------------------------

    def steps(self, rows: IntArray, since: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return what ended with each event, as a position in `_STEPS`, and since when.

        Returns
        -------
        step, start, began
            A transmission stood behind others from `start` to `began`; else both are the same. Nothing starts
            before `since`.
        """
        step = _STEP_NUMBER_OF_KIND[self.kinds[rows]]
        to_destination = (self.kinds[rows] == KINDS.index("written")) & (self.detail[rows] == 1)
        step[to_destination] = _STEPS.index("destination")
        before = self.cause[rows]
        start = np.where(before >= 0, np.maximum(since, self.times[before]), since)
        began = start.copy()
        on_link = step == _STEPS.index("link")
        began[on_link] = np.maximum(start[on_link], self._transmission_began(rows[on_link]))
        return step, start, began

    def _transmission_began(self, rows: IntArray) -> IntArray:
        """Return when the link turned to the transmissions whose arrivals are given.

        The link carries one after the other, in the order of their arrival. It was free when it had sent the
        one before, which arrived its latency later. If machines that are not in this timeline share the link,
        what took longer than the transmission of a whole block was behind theirs.
        """
        position = np.searchsorted(self._serves, rows)
        before = np.where(position > 0, self.times[self._serves[position - 1]], 0)
        hardware = self.timeline.hardware
        if hardware is None:
            return before
        link, block_bytes = hardware.link, self.timeline.plan.block_bytes
        longest = link.latency_ns - (-block_bytes * 1_000_000_000 // link.bandwidth)
        began: IntArray = np.maximum(before - link.latency_ns, self.times[rows] - longest)
        return began

    @functools.cached_property
    def _serves(self) -> IntArray:
        return np.flatnonzero(self.timeline.are_of_kind("serve"))

    # --- one chain --------------------------------------------------------------------------------------

    def of_event(self, event: int) -> list[int]:
        """Return the rows from the request or message that the event goes back to, up to the event."""
        rows = [event]
        while (before := int(self.cause[rows[-1]])) >= 0:
            rows.append(before)
            if KINDS[self.kinds[before]] in _BEGINNINGS:
                break
        return rows[::-1]

    def of_request(self, request: int) -> tuple[list[int], int]:
        """Return the rows from the issue of a request to its completion, and the time of the issue."""
        requests = self._issued[1]
        at = np.searchsorted(requests, request)
        if at == len(requests) or requests[at] != request or self._done[at] < 0:
            raise TimelineError(f"why: expected a request that was issued and completed, got {request}")
        issued, done = int(self._issued[0][at]), int(self._done[at])
        since = int(self.times[issued])
        rows = [done]
        while (before := int(self.cause[rows[-1]])) >= 0 and self.times[before] > since:
            rows.append(before)
        return [issued, *self._asked(issued, rows), *rows[::-1]], since

    def _asked(self, issued: int, rows: list[int]) -> list[int]:
        """Return the row where the block that the request waited for last was found, unless it is in `rows`.

        A block that was on its way already came for another reason, so that its chain does not lead there.
        """
        served = [row for row in rows if self.kinds[row] == KINDS.index("serve")]
        if not served or self.request[served[0]] != self.request[issued]:
            return []
        between = slice(issued, int(np.searchsorted(self.times, self.times[issued], side="right")))
        own = (self.request[between] == self.request[issued]) & (self.block[between] == self.block[served[0]])
        found = self.timeline.are_of_kind(*_FOUND)[between]
        return (issued + np.flatnonzero(own & found)).tolist()

    def tabulate(self, rows: list[int], since: int) -> pl.DataFrame:
        """Return one row a step, and two for a transmission that began behind others."""
        at = np.array(rows)
        step, start, began = self.steps(at, np.full(len(at), since))
        behind = np.flatnonzero(began > start)
        # the two rows of such a transmission: until it began, and from then on
        place = np.sort(np.append(np.arange(len(at)), behind))
        is_first = np.append(place[:-1] == place[1:], False)
        end = np.where(is_first, began[place], self.times[at[place]])
        spent = end - np.where(is_first, start[place], began[place])
        step = np.where(is_first, _STEPS.index("link_queue"), step[place])
        columns = {
            "step": np.arange(len(place)),
            "row": at[place],
            "time_ns": end,
            "kind": self.timeline.events["kind"].gather(at[place]),
            "block": self.block[at[place]],
            "count": self.count[at[place]],
            "request": self.request[at[place]],
            "waited_for": [_STEPS[s] if ns else None for s, ns in zip(step, spent, strict=True)],
            "waited_ns": spent,
        }
        return pl.DataFrame(columns, schema=WHY_SCHEMA)

    # --- all requests -----------------------------------------------------------------------------------

    @functools.cached_property
    def _issued(self) -> tuple[IntArray, IntArray]:
        """Rows of the events that issued requests, and the requests, in the order of the trace."""
        rows = np.flatnonzero(self.timeline.are_of_kind(*_REQUESTS))
        order = np.argsort(self.request[rows], kind="stable")
        return rows[order], self.request[rows[order]].astype(np.int64)

    @functools.cached_property
    def _done(self) -> IntArray:
        """Row of the event that completed each of the requests issued, -1 if none."""
        rows = np.flatnonzero(self.timeline.are_of_kind("vm_done"))
        done = np.full(len(self._issued[1]), -1)
        done[np.searchsorted(self._issued[1], self.request[rows])] = rows
        return done

    def waits(self) -> pl.DataFrame:
        """Return one row a request: see the function of this name."""
        issued, requests = self._issued
        completed = self._done >= 0
        since = self.times[issued]
        parts = np.zeros((len(issued), len(WAITED_FOR)), np.int64)
        parts[completed] = self._parts(self._done[completed], since[completed])
        columns = {
            "request": requests,
            "kind": self.timeline.events["kind"].gather(issued),
            "block": self.block[issued],
            "count": self.count[issued],
            "bytes": self.detail[issued],
            "issued_ns": since,
            "wait_ns": self.times[self._done] - since,
            **{name: self._count(kind) for kind, name in _FOUND.items()},
            **{f"{name}_ns": parts[:, number] for number, name in enumerate(WAITED_FOR)},
        }
        of_completed = [name for name in columns if name.endswith("_ns") and name != "issued_ns"]
        return pl.DataFrame(columns, schema=WAITS_SCHEMA).with_columns(
            pl.when(pl.Series(completed)).then(pl.col(of_completed))
        )

    def _parts(self, done: IntArray, since: IntArray) -> IntArray:
        """Return the parts of waits, shape (requests, len(WAITED_FOR)).

        All chains are followed at once, a step at a time.
        """
        parts = np.zeros((len(done), len(WAITED_FOR)), np.int64)
        of, rows = np.arange(len(done)), done
        while rows.size:
            step, start, began = self.steps(rows, since)
            parts[of, WAITED_FOR.index("link_queue")] += began - start
            # what is neither thought nor planned, if anything, is left to the media agent
            parts[of, np.minimum(step, WAITED_FOR.index("media_agent"))] += self.times[rows] - began
            before = self.cause[rows]
            on = (before >= 0) & (self.times[before] > since)
            of, rows, since = of[on], before[on].astype(np.int64), since[on]
        return parts

    def _count(self, kind: str) -> IntArray:
        """Return how many events of a kind each of the requests issued had."""
        of_vm = self.timeline.are_of_kind(kind) & (self.detail == READERS.index("vm"))
        found = np.searchsorted(self._issued[1], self.request[of_vm])
        return np.bincount(found, minlength=len(self._issued[1]))

    def critical_path(self) -> IntArray | None:
        """Return the requests on the way to the end of the boot: see the function of this name."""
        ends = np.flatnonzero(self.timeline.are_of_kind("boot_done"))
        if not ends.size:
            return None
        issued = dict(zip(self._issued[1].tolist(), self._issued[0].tolist(), strict=True))
        path: list[int] = []
        row = int(ends[0])
        while (kind := self._kind_of_cause(row)) == "vm_done":
            path.append(int(self.request[self.cause[row]]))
            row = issued[path[-1]]
        if kind != "launch_vm":
            raise TimelineError(f"event {row}: expected vm_done or launch_vm as its cause, got {kind}")
        return np.array(path[::-1], np.int64)

    def _kind_of_cause(self, row: int) -> str:
        before = int(self.cause[row])
        return KINDS[self.kinds[before]] if before >= 0 else "none"
