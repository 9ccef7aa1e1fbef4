"""What a person jumps to: the few kinds of event that part a run, by their operation, or all there are."""

from __future__ import annotations

from collections.abc import Mapping

from vmrestorekit.show.sentences import KIND_NAMES

__all__ = ["jump_choices"]

# kind -> its operation, in the order of the operations
_TURNING_POINTS = {
    "export_file_system": "O1",
    "determine_first_set": "O4",
    "launch_vm": "O6",
    "boot_done": "",
    "cache_miss": "O8",
    "vm_write": "O9",
    "indicate_pre_relocation": "O11",
    "start_relocation": "O12",
    "finish_relocation": "O13",
    "purge": "O16",
    "apply_writes": "O17",
    "use_destination": "O21",
    "warn_of_expiry": "O25",
    "expire": "O26",
    "lose_media_agent": "",
    "strand": "",
}


def jump_choices(counts: Mapping[str, int], *, every_kind: bool = False) -> dict[str, str]:
    """Return the kinds of event to choose from, each under its name with its operation and how often it is.

    Parameters
    ----------
    counts : mapping of str to int
        How often each kind happens; those that do not are not offered.
    every_kind : bool
        Also those that are no turning point, below the others.
    """
    first = [kind for kind in _TURNING_POINTS if kind in counts]
    others = [kind for kind in counts if kind not in _TURNING_POINTS]
    # a run without any of them still has something to jump to
    kinds = first + others if every_kind or not first else first
    return {f"{_operation(kind)}{KIND_NAMES[kind]} ({counts[kind]:,})": kind for kind in kinds}


def _operation(kind: str) -> str:
    operation = _TURNING_POINTS.get(kind)
    return f"{operation} · " if operation else ""
