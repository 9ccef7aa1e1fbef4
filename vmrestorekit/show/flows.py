"""What an event sets in motion: which components act, and along which arrows data or messages go."""

from __future__ import annotations

import dataclasses

from vmrestorekit.restore.events import KINDS, READERS
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.units import size

__all__ = ["NOTHING", "Flow", "flow_of"]


@dataclasses.dataclass(frozen=True)
class Flow:
    """What moves at an event.

    Attributes
    ----------
    active : tuple of str
        Components that act.
    arrows : tuple of str
        Arrows of the picture that data or messages go along.
    messages : tuple of str
        Those of the arrows that carry a message or a request, not data.
    payload : str
        How much data, or which message.
    """

    active: tuple[str, ...] = ()
    arrows: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    payload: str = ""


NOTHING = Flow()


def _data(active: str, *arrows: str) -> Flow:
    return Flow(tuple(active.split()), arrows)


def _message(active: str, arrow: str, payload: str = "") -> Flow:
    return Flow(tuple(active.split()), (arrow,), (arrow,), payload)


def _acts(active: str) -> Flow:
    return Flow(tuple(active.split()))


_ASK = Flow(
    ("file_system", "media_agent"), ("host_fs", "fs_media"), ("host_fs", "fs_media")
)  # a reader asks the media agent through the shared file system

_FLOWS = {
    "export_file_system": _message("data_agent file_system", "agent_fs", "export"),
    "mount_file_system": _message("vm_host file_system", "host_fs", "mount"),
    "set_up_data_flow": _message("vm_host destination", "host_destination", "set up"),
    "indicate_vm_profile": _message("data_agent media_agent", "agent_media", "VM profile"),
    "determine_first_set": _acts("media_agent"),
    "launch_vm": _message("vm_host vm", "host_vm", "launch"),
    "indicate_pre_relocation": _message("data_agent media_agent", "agent_media", "pre-relocation"),
    "start_relocation": _message("vm_host destination", "host_destination", "start"),
    "indicate_relocation_in_progress": _message("data_agent media_agent", "agent_media", "in progress"),
    "finish_relocation": _acts("vm_host destination"),
    "apply_writes": _message("vm_host write_cache destination", "write_destination", "apply"),
    "use_destination": _message("media_agent vm_host", "media_host", "use destination"),
    "unmount_file_system": _message("vm_host file_system", "host_fs", "unmount"),
    "indicate_relocation_completed": _message("data_agent media_agent", "agent_media", "completed"),
    "empty_read_cache": _acts("media_agent read_cache"),
    "de_associate": _acts("media_agent backup"),
    "warn_of_expiry": _message("storage_manager data_agent", "manager_agent", "expires soon"),
    "expire": Flow(
        ("storage_manager", "data_agent", "vm_host"),
        ("manager_agent", "agent_host"),
        ("manager_agent", "agent_host"),
        "expired",
    ),
    "power_down": _message("vm_host vm", "host_vm", "power down"),
    "vm_read": _message("vm vm_host", "vm_host"),
    "vm_write": _data("vm vm_host", "vm_host"),
    "vm_discard": _message("vm vm_host", "vm_host", "discard"),
    "vm_flush": _message("vm vm_host", "vm_host", "flush"),
    "vm_done": _message("vm_host vm", "host_vm", "done"),
    "boot_done": _acts("vm"),
    "cache_hit": dataclasses.replace(_ASK, active=("media_agent", "read_cache"), payload="hit"),
    "cache_wait": dataclasses.replace(_ASK, active=("media_agent", "backup"), payload="on its way"),
    "cache_miss": dataclasses.replace(_ASK, active=("media_agent", "backup"), payload="miss"),
    "refetch_after_purge": dataclasses.replace(_ASK, active=("media_agent", "backup"), payload="miss"),
    "fetch": _data("media_agent backup", "backup_cache"),
    "staged": _data("media_agent read_cache", "backup_cache"),
    "serve": _data("read_cache file_system media_agent", "cache_fs", "fs_host", "host_vm"),
    "evict": _acts("media_agent read_cache"),
    "infer_run": _acts("media_agent"),
    "purge": _acts("media_agent read_cache"),
    "read_destination": _data("destination vm_host vm", "destination_host", "host_vm"),
    "read_write_cache": _data("write_cache vm_host vm", "write_host", "host_vm"),
    "written": _data("vm_host write_cache", "host_write"),
    "relocation_read": _message("vm_host destination", "host_fs"),
    "relocated": _data("vm_host destination", "host_destination"),
    "applied": _data("write_cache destination", "write_destination"),
}

# kinds whose detail is a number of bytes, and those where the blocks say how many
_BYTES_IN_DETAIL = frozenset(
    ("vm_read", "vm_write", "read_destination", "read_write_cache", "relocation_read", "relocated", "applied")
)
_BYTES_OF_BLOCKS = frozenset(("fetch", "staged", "serve", "written"))


def flow_of(timeline: Timeline, row: int) -> Flow:
    """Return what the event of a row sets in motion; nothing before the first."""
    if row < 0:
        return NOTHING
    kind = KINDS[timeline.kinds[row]]
    flow = _FLOWS[kind]
    event = timeline.events.row(row, named=True)
    if kind == "serve" and READERS[event["detail"]] == "relocation":
        flow = _data(
            "read_cache file_system media_agent destination", "cache_fs", "fs_host", "host_destination"
        )
    if kind == "written" and event["detail"] == 1:
        flow = _data("vm_host destination", "host_destination")
    if kind in _BYTES_IN_DETAIL:
        return dataclasses.replace(flow, payload=size(event["detail"]))
    if kind in _BYTES_OF_BLOCKS:
        return dataclasses.replace(flow, payload=size(event["count"] * timeline.plan.block_bytes))
    return flow
