"""What an event sets in motion: which components act, and along which arrows data or messages go."""

from __future__ import annotations

import dataclasses

from vmrestorekit.restore.events import KIND_MEANING, READERS
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show.units import size

__all__ = ["Flow", "flow_of"]


@dataclasses.dataclass(frozen=True)
class Flow:
    """What moves at an event.

    Attributes
    ----------
    active : frozenset of str
        Components that act.
    arrows : tuple of str
        Arrows of the picture that something goes along.
    payload : str
        How much data, or which message.
    is_message : bool
        A message or a request goes along the arrows, not data.
    """

    active: frozenset[str] = frozenset()
    arrows: tuple[str, ...] = ()
    payload: str = ""
    is_message: bool = False


def _data(active: str, *arrows: str) -> Flow:
    return Flow(frozenset(active.split()), arrows)


def _message(active: str, arrows: str, payload: str = "") -> Flow:
    return Flow(frozenset(active.split()), tuple(arrows.split()), payload, is_message=True)


def _asks(payload: str) -> Flow:
    """A reader asks the media agent for a block, through the shared file system."""
    where = "read_cache" if payload == "hit" else "backup"
    return _message(f"media_agent {where}", "host_fs fs_media", payload)


_FLOWS = {
    "export_file_system": _message("data_agent file_system", "agent_fs", "export"),
    "mount_file_system": _message("vm_host file_system", "host_fs", "mount"),
    "set_up_data_flow": _message("vm_host destination", "host_destination", "set up"),
    "indicate_vm_profile": _message("data_agent media_agent", "agent_media", "VM profile"),
    "determine_first_set": _data("media_agent"),
    "launch_vm": _message("vm_host vm", "host_vm", "launch"),
    "indicate_pre_relocation": _message("data_agent media_agent", "agent_media", "pre-relocation"),
    "start_relocation": _message("vm_host destination", "host_destination", "start"),
    "indicate_relocation_in_progress": _message("data_agent media_agent", "agent_media", "in progress"),
    "finish_relocation": _data("vm_host destination"),
    "apply_writes": _message("vm_host write_cache destination", "write_destination", "apply"),
    "use_destination": _message("media_agent vm_host", "media_host", "use destination"),
    "unmount_file_system": _message("vm_host file_system", "host_fs", "unmount"),
    "indicate_relocation_completed": _message("data_agent media_agent", "agent_media", "completed"),
    "empty_read_cache": _data("media_agent read_cache"),
    "de_associate": _data("media_agent backup"),
    "select_vm": _message("storage_manager data_agent", "manager_agent", "selection"),
    "warn_of_expiry": _message("storage_manager data_agent", "manager_agent", "expires soon"),
    "extend_expiry": _message("storage_manager data_agent", "manager_agent", "extended"),
    "expire": _message("storage_manager data_agent vm_host", "manager_agent agent_host", "expired"),
    "power_down": _message("vm_host vm", "host_vm", "power down"),
    "lose_media_agent": _data("media_agent read_cache"),
    "take_over": _message("data_agent media_agent", "agent_media", "take over"),
    "strand": _data("data_agent"),
    "vm_read": _message("vm vm_host", "vm_host"),
    "vm_write": _data("vm vm_host", "vm_host"),
    "vm_discard": _message("vm vm_host", "vm_host", "discard"),
    "vm_flush": _message("vm vm_host", "vm_host", "flush"),
    "vm_done": _message("vm_host vm", "host_vm", "done"),
    "boot_done": _data("vm"),
    "cache_hit": _asks("hit"),
    "cache_wait": _asks("on its way"),
    "cache_miss": _asks("miss"),
    "refetch_after_purge": _asks("miss"),
    "fetch": _data("media_agent backup", "backup_cache"),
    "staged": _data("media_agent read_cache", "backup_cache"),
    "read_from_media": _data("media_agent backup", "backup_cache"),
    "serve": _data("read_cache file_system media_agent", "cache_fs", "fs_host", "host_vm"),
    "evict": _data("media_agent read_cache"),
    "infer_run": _data("media_agent"),
    "purge": _data("media_agent read_cache"),
    "read_destination": _data("destination vm_host vm", "destination_host", "host_vm"),
    "read_write_cache": _data("write_cache vm_host vm", "write_host", "host_vm"),
    "written": _data("vm_host write_cache", "host_write"),
    "relocation_read": _message("vm_host destination", "host_fs"),
    "relocated": _data("vm_host destination", "host_destination"),
    "applied": _data("write_cache destination", "write_destination"),
}


def flow_of(timeline: Timeline, row: int) -> Flow:
    """Return what the event of a row sets in motion; nothing before the first."""
    if row < 0:
        return Flow()
    event = timeline.events.row(row, named=True)
    kind, detail = event["kind"], event["detail"]
    flow = _FLOWS[kind]
    if kind == "serve" and READERS[detail] == "relocation":
        flow = _data(
            "read_cache file_system media_agent destination", "cache_fs", "fs_host", "host_destination"
        )
    if kind == "written" and detail == 1:
        flow = _data("vm_host destination", "host_destination")
    if flow.payload or not flow.arrows:
        return flow
    if KIND_MEANING[kind][3] == "bytes":
        return dataclasses.replace(flow, payload=size(detail))
    if kind in ("fetch", "staged", "read_from_media", "serve", "written"):
        return dataclasses.replace(flow, payload=size(event["count"] * timeline.plan.block_bytes))
    return flow
