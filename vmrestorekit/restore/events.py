"""The vocabulary of a timeline: who did what, for whom, and what the columns of an event mean.

The order in the tuples is the numbering used by the engine.
"""

from __future__ import annotations

import polars as pl

__all__ = ["ACTORS", "CAUSES", "EVENTS_SCHEMA", "KINDS", "KIND_MEANING", "PURGE_TRIGGERS", "READERS"]

ACTORS = ("data_agent", "media_agent", "vm_host", "vm", "relocation", "storage_manager", "file_manager")

# what a fetch from the backup copy was for
CAUSES = ("vm_read", "relocation_read", "first_set", "pre_relocation", "relocation_staging")

# who asked the media agent for a block
READERS = ("vm", "relocation")

PURGE_TRIGGERS = ("run", "indication", "period")

# kind -> (actor, what block and count say, what request says, what detail says)
KIND_MEANING = {
    # coordination
    "select_vm": ("file_manager", "", "", ""),
    "export_file_system": ("data_agent", "", "", "media agent"),
    "mount_file_system": ("vm_host", "", "", ""),
    "set_up_data_flow": ("vm_host", "", "", ""),
    "indicate_vm_profile": ("data_agent", "", "", ""),
    "determine_first_set": ("media_agent", "count: blocks in the first set", "", ""),
    "launch_vm": ("vm_host", "", "", "blocks of the first set staged so far"),
    "indicate_pre_relocation": ("data_agent", "", "", ""),
    "start_relocation": ("vm_host", "", "", ""),
    "indicate_relocation_in_progress": ("data_agent", "", "", ""),
    "finish_relocation": ("vm_host", "", "", ""),
    "apply_writes": ("vm_host", "", "", "bytes to apply at the start"),
    "use_destination": ("media_agent", "", "", ""),
    "unmount_file_system": ("vm_host", "", "", ""),
    "indicate_relocation_completed": ("data_agent", "", "", ""),
    "empty_read_cache": ("media_agent", "count: blocks dropped", "", ""),
    "de_associate": ("media_agent", "", "", ""),
    "warn_of_expiry": ("storage_manager", "", "", "nanoseconds left"),
    "extend_expiry": (
        "storage_manager",
        "",
        "",
        "the new expiry, counted from the request for the mount",
    ),
    "expire": ("storage_manager", "", "", "requests cut off"),
    "power_down": ("vm_host", "", "", ""),
    "lose_media_agent": ("media_agent", "", "", "media agent"),
    "take_over": ("data_agent", "", "", "media agent"),
    "strand": ("data_agent", "", "", ""),
    # the virtual machine
    "vm_read": ("vm", "range", "row of the trace", "bytes"),
    "vm_write": ("vm", "range", "row of the trace", "bytes"),
    "vm_discard": ("vm", "range", "row of the trace", "bytes"),
    "vm_flush": ("vm", "", "row of the trace", ""),
    "vm_done": ("vm", "range", "row of the trace", "wait in nanoseconds"),
    "boot_done": ("vm", "", "", ""),
    # the media agent: a block was asked for, and it was there, on its way, or not there
    "cache_hit": ("media_agent", "block", "of the reader", "reader"),
    "cache_wait": ("media_agent", "block", "of the reader", "reader"),
    "cache_miss": ("media_agent", "block", "of the reader", "reader"),
    "refetch_after_purge": ("media_agent", "block", "of the reader", "reader"),
    "fetch": ("media_agent", "range", "of the reader, or -1 for staging", "cause"),
    "staged": ("media_agent", "range", "of the reader, or -1 for staging", "cause"),
    "read_from_media": ("media_agent", "range", "of the reader", "cause"),
    "serve": ("media_agent", "block", "of the reader", "reader"),
    "evict": ("media_agent", "block", "", "1 if never served"),
    "infer_run": ("media_agent", "block: where the run starts, count: its length", "", ""),
    "purge": ("media_agent", "block", "", "trigger"),
    # the host: reads that need no media agent, writes, relocation
    "read_destination": ("vm_host", "range", "row of the trace", "bytes"),
    "read_write_cache": ("vm_host", "range", "row of the trace", "bytes"),
    "written": ("vm_host", "range", "row of the trace", "0 write cache, 1 destination"),
    "relocation_read": ("relocation", "range", "number of the request (rule 1 of the clockwork)", "bytes"),
    "relocated": ("relocation", "range", "number of the request (rule 1 of the clockwork)", "bytes"),
    "applied": ("vm_host", "range", "", "bytes"),
}

KINDS = tuple(KIND_MEANING)

EVENTS_SCHEMA = pl.Schema(
    {
        "time_ns": pl.Int64(),
        "kind": pl.Enum(KINDS),
        "actor": pl.Enum(ACTORS),
        "block": pl.Int32(),  # -1 where the event is about no block
        "count": pl.Int32(),
        "request": pl.Int32(),  # -1 where there is none
        "detail": pl.Int64(),
        "cause": pl.Int32(),  # the row of the event that led to this one, -1 if none
    }
)
