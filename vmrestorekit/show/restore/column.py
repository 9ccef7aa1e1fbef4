"""One timeline at one instant: a sentence, a picture of the system, and a map of the disk."""

from __future__ import annotations

from html import escape

import ipywidgets as widgets
import polars as pl

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
from vmrestorekit.show.block_map import block_map, legend
from vmrestorekit.show.restore.flows import flow_of
from vmrestorekit.show.restore.progress import happened, media_bytes, vm_state
from vmrestorekit.show.restore.system_picture import Look, system_picture
from vmrestorekit.show.sentences import tell
from vmrestorekit.show.theme import mode_name, styled
from vmrestorekit.show.units import clock, share, size

__all__ = ["Column"]

_NOW = '<span class="now">● now</span>'

_FILE_SYSTEM = {"unmount_file_system": "unmounted", "mount_file_system": "mounted"}
# what was announced last -> what the media agent does
_MEDIA_AGENT = {
    "de_associate": "done",
    "finish_relocation": "staging ended",
    "indicate_relocation_in_progress": "relocation\nin progress",
    "indicate_pre_relocation": "pre-relocation\nmode",
    "determine_first_set": "stages the\nfirst set",
}
# what happened last -> how the host routes the VM's reads
_ROUTES = {
    "power_down": "no longer runs the VM",
    "use_destination": "reads: destination only",
    "start_relocation": "reads: write cache, else\ndestination, else backup",
}


class Column(widgets.VBox):  # type: ignore[misc]
    """A view of one timeline; `show` is told the row, and that is all it knows."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.name = mode_name(timeline.plan.mode)
        self.sentence = ""
        written = timeline.events.filter(kind="written")
        blocks = pl.int_ranges("block", pl.col("block") + pl.col("count")).explode()
        self._written_ever = written.select(blocks).n_unique()
        self._heading, self._status, self._picture, self._map = (
            widgets.HTML(layout={"margin": "0", "min_width": "0"}) for _ in range(4)
        )
        self._picture.layout.flex = "1 1 450px"
        self._map.layout.flex = "1 1 380px"
        wrap = {"flex_flow": "row wrap", "grid_gap": "8px 16px"}
        pictures = widgets.HBox([self._picture, self._map], layout=wrap)
        layout = {"flex": "1 1 430px", "min_width": "0"}
        super().__init__([self._heading, self._status, pictures], layout=layout)

    def show(self, row: int, time_ns: int, *, current: bool, remark: str = "") -> State:
        """Show the state right after an event.

        Parameters
        ----------
        row : int
            Row of the event, -1 for before the first.
        time_ns : int
            What the clock says; the event may have been earlier.
        current : bool
            The clock stands at this event, and not at one of another timeline.
        remark : str
            Said before the sentence.
        """
        timeline = self.timeline
        state = timeline.state_at(row)
        told, at = tell(timeline, row), clock(state.time_ns)
        self.sentence = f"{at} · {told}"
        said = f"<i>{escape(remark)}</i> " if remark else ""
        self._status.value = styled(
            f'<p role="status" aria-live="polite">{said}<b>{at}</b> · {escape(told)}</p>'
        )
        self._heading.value = styled(
            f'<h4>{escape(self.name)}{_NOW if current else ""}<span class="soft">{escape(timeline.vm)} / '
            f"{escape(timeline.boot)} · {escape(state.phase)}</span></h4>"
        )
        title = f"{self.name} at {clock(time_ns)}: {state.phase}. {told}"
        self._picture.value = styled(system_picture(self._looks(state), flow_of(timeline, row), title))
        touched = timeline.events.select("block", "count").row(row) if row >= 0 else (-1, 0)
        self._map.value = styled(block_map(state, *touched) + legend(state))
        return state

    def _looks(self, state: State) -> dict[str, Look]:
        timeline, row = self.timeline, state.index
        running = vm_state(timeline, row)
        mounted = self._last(row, _FILE_SYSTEM, "not mounted")
        tied = self._last(row, {"de_associate": "not tied to the VM"}, "read-only")
        return {
            "vm": Look(running, absent=running in ("not launched", "powered down")),
            "vm_host": Look(self._last(row, _ROUTES, "reads: write cache,\nelse backup")),
            "file_system": Look(f"logical source\n{mounted}", absent=mounted != "mounted"),
            "media_agent": Look(self._last(row, _MEDIA_AGENT, "idle")),
            "read_cache": self._read_cache(state),
            "backup": Look(f"{size(media_bytes(timeline, row))} read\n{tied}"),
            "write_cache": self._write_cache(state),
            "destination": self._destination(state),
        }

    def _last(self, row: int, words: dict[str, str], otherwise: str) -> str:
        """Return the words for the first of these kinds of event that has happened."""
        return next((text for kind, text in words.items() if happened(self.timeline, row, kind)), otherwise)

    def _read_cache(self, state: State) -> Look:
        plan = self.timeline.plan
        served = int(((state.flags & (IN_CACHE | SERVED)) == IN_CACHE | SERVED).sum())
        parts = {
            "served": served,
            "staged": state.count(IN_CACHE) - served,
            "on_its_way": state.count(IN_FLIGHT),
        }
        used = sum(parts.values())
        return Look(
            f"{share(used, plan.cache_slots)} full\n{size(used * plan.block_bytes)}",
            tuple((name, blocks / plan.cache_slots) for name, blocks in parts.items()),
        )

    def _write_cache(self, state: State) -> Look:
        # after the pivot writes go to the destination
        written = 0 if happened(self.timeline, state.index, "use_destination") else state.count(WRITTEN)
        text = "discarded" if state.phase == "expired" else f"{written:,} block{'s' * (written != 1)}"
        return Look(text, (("written", written / max(1, self._written_ever)),))

    def _destination(self, state: State) -> Look:
        if self.timeline.plan.mode == "live_mount":
            return Look("not used\nby a mount", absent=True)
        stored = state.count(STORED)
        part = int(((state.flags & (RELOCATED | STORED)) == RELOCATED | STORED).sum())
        return Look(f"{share(part, stored)} there", (("relocated", part / max(1, stored)),))
