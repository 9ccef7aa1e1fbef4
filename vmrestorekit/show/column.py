"""One timeline at one instant: a sentence, a picture of the system, and a map of the disk."""

from __future__ import annotations

from html import escape

import ipywidgets as widgets
import numpy as np

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import (
    IN_CACHE,
    IN_FLIGHT,
    RELOCATED,
    SERVED,
    STORED,
    WRITTEN,
    State,
    Timeline,
)
from vmrestorekit.show import block_map
from vmrestorekit.show.flows import NOTHING, Flow, flow_of
from vmrestorekit.show.progress import Progress
from vmrestorekit.show.sentences import tell, tell_instant
from vmrestorekit.show.system_picture import Gauge, Labels, system_picture
from vmrestorekit.show.theme import mode_name
from vmrestorekit.show.units import clock, share, size

__all__ = ["Column"]

_NOW = '<span class="now">● now</span>'


class Column(widgets.VBox):  # type: ignore[misc]
    """A view of one timeline; `show` is told the row, and that is all it knows.

    Parameters
    ----------
    timeline : Timeline
    name : str, optional
        Heading; default: the mode and whose boot it is.
    """

    def __init__(self, timeline: Timeline, name: str | None = None) -> None:
        self.timeline = timeline
        self.progress = Progress(timeline)
        self.name = name or mode_name(timeline.plan.mode)
        self.sentence = ""
        self._written_ever = int(np.unique(_blocks_of(timeline, "written")).size)
        self._heading, self._status, self._picture, self._map = (_html() for _ in range(4))
        self._picture.layout.flex = "1 1 450px"
        self._map.layout.flex = "1 1 380px"
        pictures = widgets.HBox(
            [self._picture, self._map], layout={"flex_flow": "row wrap", "grid_gap": "8px 16px"}
        )
        super().__init__(
            [self._heading, self._status, pictures], layout={"flex": "1 1 430px", "min_width": "0"}
        )

    def show(self, row: int, time_ns: int, *, whole_instant: bool = False, current: bool = True) -> State:
        """Show the state right after an event.

        Parameters
        ----------
        row : int
            Row of the event, -1 for before the first.
        time_ns : int
            What the clock says; the event may have been earlier.
        whole_instant : bool
            Tell all events of the instant, not only the last.
        current : bool
            The clock stands at this event, and not at a later one of another timeline.
        """
        timeline = self.timeline
        state = timeline.state_at(row)
        first = row
        if whole_instant and row >= 0:
            first = int(np.searchsorted(timeline.times, timeline.times[row], side="left"))
        told = tell_instant(timeline, first, row) if first < row else tell(timeline, row)
        at = clock(int(timeline.times[row])) if row >= 0 else clock(0)
        self.sentence = f"{at} · {told}"
        self._status.value = _div(f'<p role="status" aria-live="polite"><b>{at}</b> · {escape(told)}</p>')
        self._heading.value = _div(
            f'<h4>{escape(self.name)}{_NOW if current else ""}<span class="soft">{escape(timeline.vm)} / '
            f"{escape(timeline.boot)} · {escape(state.phase)}</span></h4>"
        )
        flow = flow_of(timeline, row) if first == row else _together(timeline, first, row)
        title = f"{self.name} at {clock(time_ns)}: {state.phase}. {told}"
        self._picture.value = _div(system_picture(self._labels(state), flow, title))
        self._map.value = _div(block_map.block_map(state, self._touched(row)) + block_map.legend(state))
        return state

    def _touched(self, row: int) -> tuple[int, int] | None:
        if row < 0:
            return None
        block, count = self.timeline.events["block"][row], self.timeline.events["count"][row]
        return (block, count) if block >= 0 else None

    def _labels(self, state: State) -> Labels:
        progress, row, plan = self.progress, state.index, self.timeline.plan
        mounted = "not mounted"
        if progress.happened(row, "mount_file_system"):
            mounted = "unmounted" if progress.happened(row, "unmount_file_system") else "mounted"
        read = f"{size(progress.media_bytes(row))} read"
        tied = "not tied to the VM" if progress.happened(row, "de_associate") else "read-only"
        never = plan.mode == "live_mount"
        absent = {"destination"} if never else set()
        absent |= {"file_system"} if mounted != "mounted" else set()
        absent |= {"vm"} if progress.vm_state(row) in ("not launched", "powered down") else set()
        return Labels(
            vm=progress.vm_state(row),
            host=_routes(progress, row),
            file_system=f"logical source\n{mounted}",
            media_agent=_media_agent(progress, row),
            read_cache=self._read_cache(state),
            backup=Gauge(f"{read}\n{tied}"),
            write_cache=self._write_cache(state),
            destination=self._destination(state, never),
            absent=frozenset(absent),
        )

    def _read_cache(self, state: State) -> Gauge:
        slots = self.timeline.plan.cache_slots
        cached = state.flags & IN_CACHE > 0
        served = int(np.count_nonzero(cached & (state.flags & SERVED > 0)))
        staged, coming = int(np.count_nonzero(cached)) - served, state.count(IN_FLIGHT)
        used = served + staged + coming
        parts = (("served", served / slots), ("staged", staged / slots), ("on_its_way", coming / slots))
        return Gauge(f"{share(used, slots)} full\n{size(used * self.timeline.plan.block_bytes)}", parts)

    def _write_cache(self, state: State) -> Gauge:
        written = state.count(WRITTEN)
        word = "discarded" if state.phase == "expired" else "block" if written == 1 else "blocks"
        return Gauge(
            word if word == "discarded" else f"{written:,} {word}",
            (("written", written / max(1, self._written_ever)),),
        )

    def _destination(self, state: State, never: bool) -> Gauge:
        if never:
            return Gauge("not used\nby a mount")
        part = int(np.count_nonzero((state.flags & RELOCATED > 0) & (state.flags & STORED > 0)))
        stored = state.count(STORED)
        return Gauge(f"{share(part, stored)} there", (("relocated", part / max(1, stored)),))


def _routes(progress: Progress, row: int) -> str:
    if progress.happened(row, "power_down"):
        return "no longer runs the VM"
    if progress.happened(row, "use_destination"):
        return "reads: destination only"
    if progress.happened(row, "start_relocation"):
        return "reads: write cache, else\ndestination, else backup"
    return "reads: write cache,\nelse backup"


def _media_agent(progress: Progress, row: int) -> str:
    words = {
        "de_associate": "done",
        "finish_relocation": "staging ended",
        "indicate_relocation_in_progress": "relocation\nin progress",
        "indicate_pre_relocation": "pre-relocation\nmode",
        "determine_first_set": "stages the\nfirst set",
    }
    return next((text for kind, text in words.items() if progress.happened(row, kind)), "idle")


def _together(timeline: Timeline, first: int, last: int) -> Flow:
    """Return what all events of an instant set in motion."""
    flows = [flow_of(timeline, row) for row in range(max(first, last - 40), last + 1)]
    merged = NOTHING
    for flow in flows:
        merged = Flow(
            tuple(dict.fromkeys(merged.active + flow.active)),
            tuple(dict.fromkeys(merged.arrows + flow.arrows)),
            tuple(dict.fromkeys(merged.messages + flow.messages)),
            flow.payload if len(flows) == 1 else "",
        )
    return merged


def _blocks_of(timeline: Timeline, kind: str) -> np.ndarray:
    rows = np.flatnonzero(timeline.kinds == KINDS.index(kind))
    first, count = (timeline.events[name].to_numpy()[rows].astype(np.int64) for name in ("block", "count"))
    return np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())


def _html() -> widgets.HTML:
    return widgets.HTML(layout={"margin": "0", "min_width": "0"})


def _div(content: str) -> str:
    return f'<div class="vmrk">{content}</div>'
