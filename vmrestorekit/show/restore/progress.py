"""What had happened in a timeline up to and including an event, the row -1 being before the first."""

from __future__ import annotations

import polars as pl

from vmrestorekit.restore.timeline import Timeline

__all__ = ["happened", "hits", "media_bytes", "vm_state", "waited_ns"]


def happened(timeline: Timeline, row: int, kind: str) -> bool:
    """Tell whether an event of the kind was at or before the row."""
    first = timeline.next_of_kind(kind, -1)
    return first is not None and first <= row


def vm_state(timeline: Timeline, row: int) -> str:
    """Return what the virtual machine does, in a word or two."""
    states = {"power_down": "powered down", "boot_done": "running", "launch_vm": "booting"}
    return next((state for kind, state in states.items() if happened(timeline, row, kind)), "not launched")


def media_bytes(timeline: Timeline, row: int) -> int:
    """Return the bytes of all fetches from the backup copy that had begun."""
    fetches = timeline.events.head(row + 1).filter(kind="fetch")
    return int(fetches["count"].sum()) * timeline.plan.block_bytes


def hits(timeline: Timeline, row: int) -> tuple[int, int]:
    """Return how many blocks the VM found in the read cache, and how many it asked for."""
    outcomes = pl.col("kind").is_in(["cache_hit", "cache_wait", "cache_miss"])
    asked = timeline.events.head(row + 1).filter(outcomes, detail=0)
    return asked.filter(kind="cache_hit").height, asked.height


def waited_ns(timeline: Timeline, row: int) -> int:
    """Return how long the VM's requests had waited, added up."""
    return int(timeline.events.head(row + 1).filter(kind="vm_done")["detail"].sum())
