"""Running totals of a timeline: what had been read, served and kept by any event, looked up in no time."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import Timeline

__all__ = ["Progress"]

Totals = npt.NDArray[np.int64]


class Progress:
    """Totals up to and including an event; every method takes the event's row, -1 for before the first.

    Parameters
    ----------
    timeline : Timeline
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._totals: dict[tuple[str, ...], Totals] = {}

    def events(self, row: int, *kinds: str) -> int:
        """Return how many events of these kinds there were."""
        return int(self._total(kinds, per_block=False)[row + 1])

    def blocks(self, row: int, *kinds: str) -> int:
        """Return how many blocks the events of these kinds were about, counting repeats."""
        return int(self._total(kinds, per_block=True)[row + 1])

    def media_bytes(self, row: int) -> int:
        """Return the bytes of all fetches from the backup copy that had begun."""
        return self.blocks(row, "fetch") * self.timeline.plan.block_bytes

    def hits(self, row: int) -> tuple[int, int]:
        """Return how many blocks the VM found in the read cache, and how many it asked for."""
        return int(self._vm_asked[0][row + 1]), int(self._vm_asked[1][row + 1])

    def waited_ns(self, row: int) -> int:
        """Return how long the VM's requests had waited, added up."""
        return int(self._waits[row + 1])

    def happened(self, row: int, kind: str) -> bool:
        """Tell whether an event of the kind was at or before the row."""
        return row >= self.first_row.get(kind, len(self.timeline))

    def vm_state(self, row: int) -> str:
        """Return what the virtual machine does, in a word or two."""
        if self.happened(row, "power_down"):
            return "powered down"
        if self.happened(row, "boot_done"):
            return "running"
        return "booting" if self.happened(row, "launch_vm") else "not launched"

    @functools.cached_property
    def first_row(self) -> dict[str, int]:
        """Row of the first event of each kind that occurs."""
        kinds, rows = np.unique(self.timeline.kinds, return_index=True)
        return {KINDS[kind]: int(row) for kind, row in zip(kinds, rows, strict=True)}

    def time_of(self, kind: str) -> int | None:
        """Return when the first event of the kind was, None if there is none."""
        row = self.first_row.get(kind)
        return None if row is None else int(self.timeline.times[row])

    def _total(self, kinds: tuple[str, ...], *, per_block: bool) -> Totals:
        key = (*kinds, "per block" if per_block else "")
        if key not in self._totals:
            chosen = np.isin(self.timeline.kinds, [KINDS.index(kind) for kind in kinds])
            weights = self.timeline.events["count"].to_numpy() if per_block else 1
            self._totals[key] = _running_total(chosen * weights)
        return self._totals[key]

    @functools.cached_property
    def _vm_asked(self) -> tuple[Totals, Totals]:
        kinds = self.timeline.kinds
        by_vm = self.timeline.events["detail"].to_numpy() == 0
        hit = by_vm & (kinds == KINDS.index("cache_hit"))
        late = np.isin(kinds, [KINDS.index("cache_wait"), KINDS.index("cache_miss")])
        return _running_total(hit), _running_total(hit | (by_vm & late))

    @functools.cached_property
    def _waits(self) -> Totals:
        done = self.timeline.kinds == KINDS.index("vm_done")
        return _running_total(done * self.timeline.events["detail"].to_numpy())


def _running_total(values: npt.NDArray[np.generic]) -> Totals:
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
