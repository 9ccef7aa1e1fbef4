"""Which machines and copies there are to browse: a corpus of recorded boots, or a backup store."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from vmrestorekit.backup.browse import CopyContents
from vmrestorekit.backup.store import BackupCopy, BackupStore
from vmrestorekit.show.backups.backed_up_disk import BackedUpCopy, copy_in_store, copy_of_boot
from vmrestorekit.show.units import size
from vmrestorekit.traces.boots import Boot, RecordedVM

__all__ = ["Shelf", "ShelvedCopy", "shelf_of"]


_SAID = "the disks as that recorded boot found them"


@dataclasses.dataclass(frozen=True)
class ShelvedCopy:
    """A copy that can be opened.

    Attributes
    ----------
    name, said : str
        What it is called, and what is known of it without opening it.
    open : callable
        Reads its table of contents, which may take a second or two.
    """

    name: str
    said: str
    open: Callable[[], BackedUpCopy]


Shelf = Mapping[str, tuple[str, tuple[ShelvedCopy, ...]]]  # machine -> what is said of it, its copies


def shelf_of(source: Any) -> Shelf:
    """Return the machines and copies of a source.

    Raises
    ------
    ValueError
        If it is none that can be browsed, or has no copy.
    """
    shelf: Shelf
    if isinstance(source, CopyContents):
        shelf = {source.copy.vm: ("", (_stored(source.copy, lambda: copy_in_store(source)),))}
    elif isinstance(source, BackupStore):
        shelf = _of_store(source)
    elif isinstance(source, Boot):
        whole = ShelvedCopy(f"before {source.boot}", _SAID, functools.partial(copy_of_boot, source))
        shelf = {source.vm: (source.release, (whole,))}
    elif isinstance(source, RecordedVM):
        shelf = {source.name: _of_machine(source)}
    elif isinstance(source, Mapping) and all(isinstance(vm, RecordedVM) for vm in source.values()):
        shelf = {name: _of_machine(vm) for name, vm in source.items()}
    else:
        raise ValueError(
            "source: expected a corpus, a recorded machine or boot, a BackupStore or CopyContents, "
            f"got {type(source).__name__}"
        )
    if not any(copies for _, copies in shelf.values()):
        raise ValueError("source: expected at least one machine with a copy, got none")
    return shelf


def _of_machine(machine: RecordedVM) -> tuple[str, tuple[ShelvedCopy, ...]]:
    before = {boot.boot: boot for boot in machine.recordings}
    copies = tuple(_recorded(boot, before) for boot in machine.boots)
    return f"{machine.release}, {', '.join(machine.roles)}", copies


def _recorded(boot: Boot, before: Mapping[str, Boot]) -> ShelvedCopy:
    def opened() -> BackedUpCopy:
        others = [each for each in before.values() if each is not boot]
        held = [each for each in others if "manifests" in vars(each)]
        was_held = "manifests" in vars(boot)
        copy = copy_of_boot(boot)
        # a state is read as changes of the one before; those take much memory, and were not asked for
        for each in others if was_held else [*others, boot]:
            if each.path is not None and each not in held:
                each.drop_manifests()
        return copy

    return ShelvedCopy(f"before {boot.boot}", _SAID, opened)


def _of_store(store: BackupStore) -> Shelf:
    machines: dict[str, list[ShelvedCopy]] = {}
    for copy in store.copies():
        machines.setdefault(copy.vm, []).append(_stored(copy, functools.partial(_opened, store, copy.number)))
    return {name: ("", tuple(copies)) for name, copies in sorted(machines.items())}


def _opened(store: BackupStore, number: int) -> BackedUpCopy:
    return copy_in_store(CopyContents(store, number))


def _stored(copy: BackupCopy, opened: Callable[[], BackedUpCopy]) -> ShelvedCopy:
    disks = size(sum(disk.bytes for disk in copy.disks))
    return ShelvedCopy(f"copy {copy.number}", f"{copy.kind}, disks of {disks}", opened)
