"""An event told in a sentence, with the name of its operation (O1 to O26)."""

from __future__ import annotations

import numpy as np
import polars as pl

from vmrestorekit.restore.events import CAUSES, KIND_MEANING, KINDS, READERS
from vmrestorekit.restore.explain import WAITED_FOR, waits
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import units

__all__ = ["KIND_NAMES", "tell"]

KIND_NAMES = {
    "export_file_system": "shared file system exported",
    "mount_file_system": "shared file system mounted",
    "set_up_data_flow": "relocation's data flow set up",
    "indicate_vm_profile": "message: VM profile",
    "determine_first_set": "first set determined",
    "launch_vm": "VM launched",
    "indicate_pre_relocation": "message: pre-relocation mode",
    "start_relocation": "relocation starts",
    "indicate_relocation_in_progress": "message: relocation in progress",
    "finish_relocation": "relocation ends",
    "apply_writes": "writes begin to be applied",
    "use_destination": "VM told to use the destination",
    "unmount_file_system": "shared file system unmounted",
    "indicate_relocation_completed": "message: relocation completed",
    "empty_read_cache": "read cache emptied",
    "de_associate": "backup copy de-associated",
    "warn_of_expiry": "warning of expiry",
    "select_vm": "VM selected",
    "extend_expiry": "live mount extended",
    "expire": "live mount expires",
    "power_down": "VM powered down",
    "lose_media_agent": "media agent goes away",
    "take_over": "another media agent takes over",
    "strand": "no media agent is left",
    "vm_read": "VM reads",
    "vm_write": "VM writes",
    "vm_discard": "VM discards",
    "vm_flush": "VM flushes",
    "vm_done": "VM request done",
    "boot_done": "boot done",
    "cache_hit": "read cache hit",
    "cache_wait": "wait for a block on its way",
    "cache_miss": "read cache miss",
    "refetch_after_purge": "miss of a purged block",
    "fetch": "fetch from the backup begins",
    "staged": "block arrives in the read cache",
    "read_from_media": "block arrives, past the read cache",
    "serve": "block served",
    "evict": "block evicted",
    "infer_run": "relocation's run recognised",
    "purge": "block purged",
    "read_destination": "read from the destination",
    "read_write_cache": "read from the write cache",
    "written": "write stored",
    "relocation_read": "relocation reads",
    "relocated": "blocks relocated",
    "applied": "writes applied",
}

# who wants a block, and under which operation it is served
_READERS = {"vm": ("the VM", "O7"), "relocation": ("the relocation", "O13")}

# why a block is fetched, and under which operation
_CAUSES = {
    "vm_read": ("the VM waits for it", "O8"),
    "relocation_read": ("the relocation waits for it", "O13"),
    "first_set": ("pre-staging of the first set", "O5"),
    "pre_relocation": ("pre-staging for the relocation, at low priority", "O11"),
    "relocation_staging": ("pre-staging for the running relocation, at the VM's priority", "O12"),
}

# kind -> what its detail of 0, of 1 and so on means
_BY_NUMBER = {
    "evict": ("", ", although it was never served"),
    "purge": (
        "it belongs to a run of the relocation",
        "the data agent said that it is relocated",
        "it belongs to a run that the media agent found when it last looked",
    ),
    "written": ("write cache; the backup copy stays as it is. (O9)", "destination. (O21)"),
}

# what a request waited for
_WAITED = {
    "queue": "for its turn at the backup device",
    "device": "for the backup device to read",
    "link_queue": "for its turn on the link",
    "link": "for its way over the link",
    "destination": "for the destination",
    "write_cache": "for the write cache",
    "media_agent": "for another media agent",
}

# kind -> sentence; `_words` says what stands in braces
_SENTENCES = {
    "export_file_system": (
        "The data agent exports the shared file system of the media agent: the backup copy appears in it as "
        "the logical source. (O1)"
    ),
    "mount_file_system": (
        "The VM host mounts the shared file system: the VM's restore point and the relocation's source. (O1)"
    ),
    "set_up_data_flow": "The VM host sets up the relocation from the logical source to the destination. (O2)",
    "indicate_vm_profile": "The data agent tells the media agent the profile of the VM. (O3)",
    "determine_first_set": (
        "The media agent predicts the first set: the {count:,} blocks most likely to be read first. (O4)"
    ),
    "launch_vm": "The VM is launched{staged}",
    "indicate_pre_relocation": (
        "The data agent indicates pre-relocation mode: the media agent pre-stages along the relocation "
        "sequence, whenever no read waits. (O11)"
    ),
    "start_relocation": "The VM host starts the relocation; the VM goes on running. (O12)",
    "indicate_relocation_in_progress": (
        "The data agent indicates that relocation is in progress: from now on its reads count as much as the "
        "VM's, and the media agent watches for runs. (O12)"
    ),
    "finish_relocation": "The last block of the relocation sequence is on the destination. (O13)",
    "apply_writes": "The VM host begins to apply the write cache to the destination: {bytes}. (O17)",
    "use_destination": (
        "The media agent instructs the VM to use the destination as its primary data store; the VM never "
        "stopped. (O21)"
    ),
    "unmount_file_system": "The shared file system leaves the host. (O18)",
    "indicate_relocation_completed": "The data agent indicates that the relocation is completed. (O17)",
    "empty_read_cache": "The media agent empties the read cache of {count:,} blocks and stops staging. (O19)",
    "de_associate": "The backup copy is no longer tied to the VM, and is untouched. (O20)",
    "select_vm": "In the file manager the user selects a backed-up VM; the data agent is told. (O22)",
    "warn_of_expiry": "The storage manager warns: the live mount expires in {duration}. (O25)",
    "extend_expiry": "The user has the mount extended: it expires {duration} after it was asked for. (O25)",
    "expire": (
        "The live mount expires; {detail:,} requests are cut off, and what the VM wrote is discarded. (O26)"
    ),
    "power_down": "The VM host powers the VM down. (O26)",
    "lose_media_agent": (
        "Media agent {detail:,} goes away, with its read cache and all that it was about to send. (O1)"
    ),
    "take_over": "Media agent {detail:,} takes over: it exports the same backup copy. (O1)",
    "strand": "No media agent is left: reads of the backup copy wait for ever. (O1)",
    "vm_read": "The VM reads {bytes} at {range}; {outcome}",
    "vm_write": "The VM writes {bytes} at {range}. (O9)",
    "vm_discard": "The VM discards {bytes} at {range}: they read as zeros from now on. (O9)",
    "vm_flush": "The VM asks that all writes before be safely stored (flush). (O9)",
    "vm_done": "The VM's {asked} is done {waited}.",
    "boot_done": "The VM has booted: its services answer, {since_launch} after its launch.",
    "cache_hit": "{Range}, wanted by {reader}, is in the read cache. ({operation})",
    "cache_wait": (
        "{Range}, wanted by {reader}, is already on its way: it is waited for, never fetched twice. (O8)"
    ),
    "cache_miss": (
        "{Range}, wanted by {reader}, is not in the read cache: the media agent has to copy it from the "
        "backup copy first. (O8)"
    ),
    "refetch_after_purge": "{Range} was purged too early: {reader} asks for it again. (O8)",
    "fetch": (
        "The media agent begins to copy {range} from the backup copy to the read cache: {why}. ({operation})"
    ),
    "staged": "{Range} {verb} in the read cache now ({why}). ({operation})",
    "read_from_media": (
        "{Range} {verb} there, straight from the backup copy: {why}; the read cache is left as it is. "
        "({operation})"
    ),
    "serve": "{Range} is served to {reader} by the media agent, through the logical source. ({operation})",
    "evict": "The read cache is full: {range} is evicted to make room{how}.",
    "infer_run": (
        "The media agent recognises the relocation: {count:,} reads in a row follow its sequence, from "
        "block {block:,} on. (O15)"
    ),
    "purge": "{Range} is purged from the read cache: {how}, and it was served. (O16)",
    "read_destination": "The VM's read of {bytes} at {range} is served by the destination. (O14)",
    "read_write_cache": ("The VM reads back what it wrote: {bytes} at {range} from the write cache. (O9)"),
    "written": "What the VM wrote to {range} is in the {how}",
    "relocation_read": (
        "The relocation reads the next part of its sequence from the logical source: {bytes} at {range}. "
        "(O13)"
    ),
    "relocated": "{Range} ({bytes}) {verb} on the destination: reads go there from now on. (O13)",
    "applied": "{bytes} of the write cache are applied to {range} of the destination. (O17)",
}
_OF_A_MOUNT = {
    "mount_file_system": "The VM host mounts the shared file system: it is the VM's restore point. (O1)",
    "unmount_file_system": "The shared file system leaves the host. (O26)",
    "empty_read_cache": "The media agent empties the read cache of {count:,} blocks and stops staging. (O26)",
    "de_associate": "The backup copy is no longer tied to the VM, and is byte for byte as it was. (O26)",
}


def tell(timeline: Timeline, row: int) -> str:
    """Return what happens at an event in one sentence, without its time.

    Parameters
    ----------
    timeline : Timeline
    row : int
        Row of the event; -1, before the first event, is told as well.
    """
    if row < 0:
        return "Nothing has happened yet: the VM exists only in the backup copy."
    kind = KINDS[timeline.kinds[row]]
    sentences = _SENTENCES | (_OF_A_MOUNT if timeline.plan.mode == "live_mount" else {})
    return sentences[kind].format_map(_words(timeline, row))


def _words(timeline: Timeline, row: int) -> dict[str, str | int]:
    """Return what the sentence of an event may name; what its detail says depends on its kind."""
    event = timeline.events.row(row, named=True)
    kind, count, detail = event["kind"], event["count"], event["detail"]
    blocks = units.blocks(event["block"], count)
    words: dict[str, str | int] = {
        "range": blocks,
        "Range": blocks.capitalize(),
        "verb": "is" if count == 1 else "are",
        "block": event["block"],
        "count": count,
        "detail": detail,
        "bytes": units.size(detail),
        "duration": units.duration(detail),
    }
    meaning = KIND_MEANING[kind][3]
    if meaning == "reader":
        words["reader"], words["operation"] = _READERS[READERS[detail]]
    elif meaning == "cause":
        words["why"], words["operation"] = _CAUSES[CAUSES[detail]]
    elif kind in _BY_NUMBER:
        words["how"] = _BY_NUMBER[kind][detail]
    elif kind == "launch_vm":
        words["staged"] = _staged_at_launch(timeline, detail)
    elif kind == "boot_done":
        launch = timeline.times[timeline.kinds == KINDS.index("launch_vm")]
        words["since_launch"] = units.duration(timeline.times[row] - launch[0])
    elif kind == "vm_read":
        words["outcome"] = _outcome(timeline, row, event["request"], count)
    elif kind == "vm_done":
        words["asked"] = _asked(timeline, row, event["request"]) + (f" of {blocks}" if count else "")
        waited = f"after {units.duration(detail)}" if detail else "at once"
        words["waited"] = waited + _mostly_for(timeline, row, event["request"])
    return words


def _staged_at_launch(timeline: Timeline, staged: int) -> str:
    if timeline.plan.mode == "full_restore":
        return ", from the destination: everything was copied first. (O21)"
    if staged == 0:
        return " with nothing pre-staged: a what-if. (O6)"
    return f"; {staged:,} of the {timeline.plan.first_set.size:,} blocks of the first set are staged. (O6)"


def _outcome(timeline: Timeline, row: int, request: int, count: int) -> str:
    """Tell what becomes of a read from the events about it at the same instant."""
    end = min(row + 400, int(np.searchsorted(timeline.times, timeline.times[row], "right")))
    requests = timeline.events["request"][row + 1 : end].to_numpy()
    follow = {KINDS[kind] for kind in timeline.kinds[row + 1 : end][requests == request]}
    what = "part of it" if count > 1 else "the block"
    if "cache_miss" in follow:
        return f"{what} is not in the read cache: the media agent fetches it from the backup copy. (O8)"
    if "cache_wait" in follow:
        return f"{what} is already on its way: the VM waits, nothing is fetched twice. (O8)"
    if "cache_hit" in follow:
        return f"{'it' if count > 1 else 'the block'} is in the read cache and is served from there. (O7)"
    if "vm_done" in follow:
        return "nothing is stored there (a hole): done at once. (O14)"
    return "the host routes it to where the bytes are now. (O14)"


def _mostly_for(timeline: Timeline, row: int, request: int) -> str:
    """Return what most of a request's wait was for; nothing if it did not wait, or no causes are kept."""
    if timeline.causes[row] < 0:
        return ""
    waited = waits(timeline).row(by_predicate=pl.col("request") == request, named=True)
    longest = max(WAITED_FOR, key=lambda part: waited[f"{part}_ns"])
    nanoseconds = waited[f"{longest}_ns"]
    return f", {units.duration(nanoseconds)} of it waiting {_WAITED[longest]}" if nanoseconds else ""


def _asked(timeline: Timeline, row: int, request: int) -> str:
    """Return what a request asked for: ``'read'``, ``'write'``, ``'discard'`` or ``'flush'``."""
    asking = [KINDS.index(kind) for kind in ("vm_read", "vm_write", "vm_discard", "vm_flush")]
    of_request = timeline.events["request"][:row].to_numpy() == request
    rows = np.flatnonzero(of_request & np.isin(timeline.kinds[:row], asking))
    kind: str = KINDS[timeline.kinds[rows[-1]]]
    return kind.removeprefix("vm_")
