"""An event told in a sentence, with the name of its operation (O1 to O26)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vmrestorekit.restore.events import CAUSES, KINDS, READERS
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import units

__all__ = ["KIND_NAMES", "event_at", "tell", "tell_instant"]

Event = dict[str, int | str]

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
    "expire": "live mount expires",
    "power_down": "VM powered down",
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
    "serve": "block served from the read cache",
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

# who gets the block, and under which operation it is served or fetched
_READER_NAMES = {"vm": "the VM", "relocation": "the relocation"}
_CAUSES = {
    "vm_read": ("the VM waits for it", "O8"),
    "relocation_read": ("the relocation waits for it", "O13"),
    "first_set": ("pre-staging of the first set", "O5"),
    "pre_relocation": ("pre-staging for the relocation, at low priority", "O11"),
    "relocation_staging": ("pre-staging for the running relocation, at the VM's priority", "O12"),
}
_REQUEST_NAMES = {"vm_read": "read", "vm_write": "write", "vm_discard": "discard", "vm_flush": "flush"}


def event_at(timeline: Timeline, row: int) -> Event:
    """Return one event as a mapping of column to value."""
    return timeline.events.row(row, named=True)


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
    event = event_at(timeline, row)
    return _TELLERS[str(event["kind"])](timeline, row, event)


def tell_instant(timeline: Timeline, first: int, last: int, limit: int = 3) -> str:
    """Return what happens from row `first` to row `last`, at most `limit` sentences, then how many more."""
    told: dict[str, str] = {}
    for row in range(first, min(last, first + 50) + 1):
        kind = KINDS[timeline.kinds[row]]
        if kind not in told and len(told) < limit:
            told[kind] = tell(timeline, row)
    more = last - first + 1 - len(told)
    if more > 0:
        told["more"] = f"And {more:,} more at the same instant."
    return " ".join(told.values())


def _range(event: Event) -> str:
    return units.blocks(int(event["block"]), int(event["count"]))


def _blocks(event: Event) -> str:
    return _range(event).capitalize()


def _bytes(event: Event) -> str:
    return units.size(int(event["detail"]))


def _reader(event: Event) -> str:
    return _READER_NAMES[READERS[int(event["detail"])]]


def _served_as(event: Event) -> str:
    return "O7" if int(event["detail"]) == 0 else "O13"


def _same_moment(timeline: Timeline, row: int, request: int) -> set[str]:
    """Kinds of the events about the same request that follow at the same instant."""
    end = min(len(timeline), row + 400, int(np.searchsorted(timeline.times, timeline.times[row], "right")))
    requests = timeline.events["request"].slice(row + 1, end - row - 1).to_numpy()
    return {KINDS[kind] for kind in timeline.kinds[row + 1 : end][requests == request]}


def _vm_read(timeline: Timeline, row: int, event: Event) -> str:
    text = f"The VM reads {_bytes(event)} at {_range(event)}"
    follow = _same_moment(timeline, row, int(event["request"]))
    many = int(event["count"]) > 1
    what = "part of it" if many else "the block"
    if "cache_miss" in follow:
        return (
            f"{text}; {what} is not in the read cache: the media agent fetches it from the backup copy. (O8)"
        )
    if "cache_wait" in follow:
        return f"{text}; {what} is already on its way: the VM waits, nothing is fetched twice. (O8)"
    if "cache_hit" in follow:
        return f"{text}; {'it' if many else 'the block'} is in the read cache and is served from there. (O7)"
    if "vm_done" in follow:
        return f"{text}; nothing is stored there (a hole): done at once. (O14)"
    return f"{text}; the host routes it to where the bytes are now. (O14)"


def _vm_done(timeline: Timeline, row: int, event: Event) -> str:
    kind = _kind_of_request(timeline, row, int(event["request"]))
    where = f" of {_range(event)}" if int(event["count"]) else ""
    wait = int(event["detail"])
    waited = f"after {units.duration(wait)}" if wait else "at once"
    return f"The VM's {kind}{where} is done {waited}."


def _kind_of_request(timeline: Timeline, row: int, request: int) -> str:
    numbers = [KINDS.index(kind) for kind in _REQUEST_NAMES]
    requests = timeline.events["request"].slice(0, row).to_numpy()
    for at in np.flatnonzero(requests == request)[::-1]:
        if timeline.kinds[at] in numbers:
            return _REQUEST_NAMES[KINDS[timeline.kinds[at]]]
    return "request"


def _launch(timeline: Timeline, row: int, event: Event) -> str:
    if timeline.plan.mode == "full_restore":
        return "The VM is launched, from the destination: everything was copied first. (O21)"
    staged, planned = int(event["detail"]), timeline.plan.first_set.size
    if staged == 0:
        return "The VM is launched with nothing pre-staged: a what-if. (O6)"
    return f"The VM is launched; {staged:,} of the {planned:,} blocks of the first set are staged. (O6)"


def _fetch(timeline: Timeline, row: int, event: Event) -> str:
    why, operation = _CAUSES[CAUSES[int(event["detail"])]]
    begins = f"The media agent begins to copy {_range(event)} from the backup copy to the read cache"
    return f"{begins}: {why}. ({operation})"


def _staged(timeline: Timeline, row: int, event: Event) -> str:
    cause = CAUSES[int(event["detail"])]
    why, operation = _CAUSES[cause]
    verb = "is" if int(event["count"]) == 1 else "are"
    now = why if cause.endswith("_read") else f"{why}; not asked for yet"
    return f"{_blocks(event)} {verb} in the read cache now ({now}). ({operation})"


def _evict(timeline: Timeline, row: int, event: Event) -> str:
    lost = ", although it was never served" if int(event["detail"]) else ""
    return f"The read cache is full: {_range(event)} is evicted to make room{lost}."


def _purge(timeline: Timeline, row: int, event: Event) -> str:
    why = (
        "the data agent said that it is relocated"
        if int(event["detail"])
        else "it belongs to a run of the relocation"
    )
    return f"{_blocks(event)} is purged from the read cache: {why}, and it was served. (O16)"


def _infer_run(timeline: Timeline, row: int, event: Event) -> str:
    return (
        f"The media agent recognises the relocation: {int(event['count']):,} reads in a row follow its "
        f"sequence, from block {int(event['block']):,} on. (O15)"
    )


def _written(timeline: Timeline, row: int, event: Event) -> str:
    where = "destination" if int(event["detail"]) else "write cache; the backup copy stays as it is"
    operation = "O21" if int(event["detail"]) else "O9"
    return f"What the VM wrote to {_range(event)} is in the {where}. ({operation})"


def _empty(timeline: Timeline, row: int, event: Event) -> str:
    operation = "O26" if timeline.plan.mode == "live_mount" else "O19"
    dropped = int(event["count"])
    return f"The media agent empties the read cache ({dropped:,} blocks) and stops pre-staging. ({operation})"


def _relocation_read(timeline: Timeline, row: int, event: Event) -> str:
    what = f"{_bytes(event)} at {_range(event)}"
    return f"The relocation reads the next part of its sequence from the logical source: {what}. (O13)"


def _by_mode(mount: str, other: str) -> Callable[[Timeline, int, Event], str]:
    return lambda timeline, row, event: mount if timeline.plan.mode == "live_mount" else other


def _fixed(text: str) -> Callable[[Timeline, int, Event], str]:
    return lambda timeline, row, event: text


_TELLERS: dict[str, Callable[[Timeline, int, Event], str]] = {
    "export_file_system": _fixed(
        "The data agent exports the shared file system of the media agent: the backup copy appears in it as "
        "the logical source. (O1)"
    ),
    "mount_file_system": _by_mode(
        "The VM host mounts the shared file system: it is the VM's restore point. (O1)",
        "The VM host mounts the shared file system: the VM's restore point and the relocation's source. (O1)",
    ),
    "set_up_data_flow": _fixed(
        "The VM host sets up the relocation: from the logical source to the destination. (O2)"
    ),
    "indicate_vm_profile": _fixed("The data agent tells the media agent the profile of the VM. (O3)"),
    "determine_first_set": lambda timeline, row, event: (
        f"The media agent predicts the first set: the {int(event['count']):,} blocks most likely to be read "
        "first. (O4)"
    ),
    "launch_vm": _launch,
    "indicate_pre_relocation": _fixed(
        "The data agent indicates pre-relocation mode: the media agent pre-stages along the relocation "
        "sequence, whenever no read waits. (O11)"
    ),
    "start_relocation": _fixed("The VM host starts the relocation; the VM goes on running. (O12)"),
    "indicate_relocation_in_progress": _fixed(
        "The data agent indicates that relocation is in progress: from now on its reads count as much as the "
        "VM's, and the media agent watches for runs. (O12)"
    ),
    "finish_relocation": _fixed("The last block of the relocation sequence is on the destination. (O13)"),
    "apply_writes": lambda timeline, row, event: (
        f"The VM host begins to apply the write cache to the destination: {_bytes(event)}. (O17)"
    ),
    "use_destination": _fixed(
        "The media agent instructs the VM to use the destination as its primary data store; the VM never "
        "stopped. (O21)"
    ),
    "unmount_file_system": _by_mode(
        "The shared file system leaves the host. (O26)", "The shared file system leaves the host. (O18)"
    ),
    "indicate_relocation_completed": _fixed(
        "The data agent indicates that the relocation is completed. (O17)"
    ),
    "empty_read_cache": _empty,
    "de_associate": _by_mode(
        "The backup copy is no longer tied to the VM, and is byte for byte as it was. (O26)",
        "The backup copy is no longer tied to the VM, and is untouched. (O20)",
    ),
    "warn_of_expiry": lambda timeline, row, event: (
        f"The storage manager warns: the live mount expires in {units.duration(int(event['detail']))}. (O25)"
    ),
    "expire": lambda timeline, row, event: (
        f"The live mount expires; {int(event['detail']):,} requests are cut off, and what the VM wrote is "
        "discarded. (O26)"
    ),
    "power_down": _fixed("The VM host powers the VM down. (O26)"),
    "vm_read": _vm_read,
    "vm_write": lambda timeline, row, event: f"The VM writes {_bytes(event)} at {_range(event)}. (O9)",
    "vm_discard": lambda timeline, row, event: (
        f"The VM discards {_bytes(event)} at {_range(event)}: they read as zeros from now on. (O9)"
    ),
    "vm_flush": _fixed("The VM asks that all writes before be safely stored (flush). (O9)"),
    "vm_done": _vm_done,
    "boot_done": lambda timeline, row, event: (
        f"The VM has booted: its services answer, {units.duration(_since_launch(timeline, row))} after its "
        "launch."
    ),
    "cache_hit": lambda timeline, row, event: (
        f"{_blocks(event)}, wanted by {_reader(event)}, is in the read cache. ({_served_as(event)})"
    ),
    "cache_wait": lambda timeline, row, event: (
        f"{_blocks(event)}, wanted by {_reader(event)}, is already on its way: it is waited for, "
        "never fetched twice. (O8)"
    ),
    "cache_miss": lambda timeline, row, event: (
        f"{_blocks(event)}, wanted by {_reader(event)}, is not in the read cache: the media agent "
        "has to copy it from the backup copy first. (O8)"
    ),
    "refetch_after_purge": lambda timeline, row, event: (
        f"{_blocks(event)} was purged too early: {_reader(event)} asks for it again. (O8)"
    ),
    "fetch": _fetch,
    "staged": _staged,
    "serve": lambda timeline, row, event: (
        f"{_blocks(event)} is served to {_reader(event)} from the read cache, through the logical "
        f"source. ({_served_as(event)})"
    ),
    "evict": _evict,
    "infer_run": _infer_run,
    "purge": _purge,
    "read_destination": lambda timeline, row, event: (
        f"The VM's read of {_bytes(event)} at {_range(event)} is served by the destination. (O14)"
    ),
    "read_write_cache": lambda timeline, row, event: (
        f"The VM reads back what it wrote: {_bytes(event)} at {_range(event)} from the write cache. (O9)"
    ),
    "written": _written,
    "relocation_read": _relocation_read,
    "relocated": lambda timeline, row, event: (
        f"{_blocks(event)} ({_bytes(event)}) {'is' if event['count'] == 1 else 'are'} on the "
        "destination: reads go there from now on. (O13)"
    ),
    "applied": lambda timeline, row, event: (
        f"{_bytes(event)} of the write cache are applied to {_range(event)} of the destination. (O17)"
    ),
}


def _since_launch(timeline: Timeline, row: int) -> int:
    launches = np.flatnonzero(timeline.kinds[:row] == KINDS.index("launch_vm"))
    return (
        int(timeline.times[row] - timeline.times[launches[0]]) if launches.size else int(timeline.times[row])
    )
