"""The events around the current one as a table: a click or an arrow key chooses another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.restore.clock import Clock
from vmrestorekit.show.sentences import KIND_NAMES
from vmrestorekit.show.theme import mode_name
from vmrestorekit.show.units import blocks
from vmrestorekit.show.units import clock as clock_text

__all__ = ["EventList"]

ROWS = 9


class EventList(anywidget.AnyWidget):
    """A few rows of a long table, among them the current event; the browser is sent no others.

    Parameters
    ----------
    clock : Clock
    timelines : sequence of Timeline
        Those of the clock.
    chosen : callable
        Called with the index on the clock of the event that a person chose.

    Attributes
    ----------
    heads : list of str
        Over the columns.
    rows : list of dict
        ``index``, on the clock, and ``cells``, the texts.
    current : int
        The index of the current event, -1 for none.
    """

    _esm = Path(__file__).with_suffix(".js")

    heads = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    current = traitlets.Int(-1, min=-1).tag(sync=True)

    def __init__(self, clock: Clock, timelines: Sequence[Timeline], chosen: Callable[[int], object]) -> None:
        self._clock, self._timelines = clock, timelines
        self._kinds: Collection[str] | None = None
        self._listed = np.empty(0, np.int64)
        self._first = 0  # of the rows in what is listed
        self._names = _names(timelines)
        heads = ["Time", *(["Run"] if self._names else []), "Event", "Blocks"]
        super().__init__(heads=heads, layout={"flex": "1 1 470px", "min_width": "0", "max_width": "640px"})

        def told(_: Any, content: Any, __: Any) -> None:
            content = content if isinstance(content, dict) else {}
            index, pages = content.get("index"), content.get("pages")
            if isinstance(index, int) and 0 <= index < len(clock):
                chosen(index)
            elif pages in (1, -1) and self._listed.size:
                place = int(np.searchsorted(self._listed, self.current)) + pages * (ROWS - 1)
                chosen(int(self._listed[min(max(place, 0), self._listed.size - 1)]))

        self.on_msg(told)

    def show(self, index: int, kinds: Collection[str]) -> None:
        """Show an event among those of some kinds; it is listed whatever its kind.

        Parameters
        ----------
        index : int
            On the clock; -1 for before the first.
        kinds : collection of str
        """
        if kinds is not self._kinds:
            self._kinds, self._listed = kinds, self._clock.of_kinds(kinds)
        place = int(np.searchsorted(self._listed, index))
        listed = self._listed
        if index >= 0 and (place == listed.size or listed[place] != index):
            listed = np.insert(listed, place, index)
        # the rows stay where they are while the current one is among them, but for the outermost
        if not self._first < place < self._first + ROWS - 1:
            self._first = place - ROWS // 2
        self._first = max(0, min(self._first, listed.size - ROWS))
        with self.hold_sync():
            self.rows = [self._row(each) for each in listed[self._first : self._first + ROWS].tolist()]
            self.current = index

    def _row(self, index: int) -> dict[str, Any]:
        owner = int(self._clock.owner[index])
        timeline = self._timelines[owner]
        kind, first, count = timeline.events.select("kind", "block", "count").row(
            self._clock.row(owner, index)
        )
        whose = self._names[owner : owner + 1]
        about = blocks(first, count).removeprefix("blocks ").removeprefix("block ") if first >= 0 else ""
        return {
            "index": index,
            "cells": [clock_text(int(self._clock.times[index])), *whose, KIND_NAMES[kind], about],
        }


def _names(timelines: Sequence[Timeline]) -> list[str]:
    """Return a word for each run, such as restore and mount; none if there is only one run."""
    words = [mode_name(timeline.plan.mode).split()[-1].lower() for timeline in timelines]
    if len(set(words)) < len(words):
        words = [f"{word} {number}" for number, word in enumerate(words, 1)]
    return words if len(words) > 1 else []
