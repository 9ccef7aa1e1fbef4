"""What a file manager lists: machines, their copies, drives, folders and files, and what a search found."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from vmrestorekit.show.backups.backed_up_disk import BackedUpDisk
from vmrestorekit.show.backups.file_selection import FileSelection
from vmrestorekit.show.backups.folder_tree import STRUCTURES
from vmrestorekit.show.backups.shelf import Shelf
from vmrestorekit.show.units import size

__all__ = [
    "SORTED_BY",
    "Entry",
    "EntryListing",
    "Listing",
    "NodeListing",
    "copies",
    "drives",
    "machines",
    "tick_of",
]

SORTED_BY = {"name": "Name", "bytes": "Size", "stored": "Stored blocks", "read": "Blocks the boot reads"}
HEADS = ["Name", "Size", "Stored blocks", "Boot reads"]
_SIGNS = {  # kind -> sign, and the same in words
    "machine": ("■", "machine"),
    "copy": ("◆", "backup copy"),
    "drive": ("●", "drive"),
    "partition": ("○", "partition"),
    "directory": ("▸", "folder"),
    "regular": ("–", "file"),
    "symlink": ("→", "link"),
    "metadata": ("§", "structure of a file system"),
    "other": ("?", "special file"),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row: what it is, and what may be done with it.

    Attributes
    ----------
    kind, name, hint : str
    cells : tuple of str
        The further columns.
    disk, node, partition : int
        What it stands for; -1 where it does not.
    opens : bool
    """

    kind: str
    name: str
    hint: str = ""
    cells: tuple[str, ...] = ()
    disk: int = -1
    node: int = -1
    partition: int = -1
    opens: bool = True

    def row(self, tick: int) -> dict[str, Any]:
        """Return the row as `vmrestorekit.show.backups.file_list.FileList` takes it."""
        sign, said = _SIGNS[self.kind]
        row = {"name": self.name, "kind": sign, "said": said, "cells": list(self.cells), "tick": tick}
        return row | {"opens": self.opens} | ({"hint": self.hint} if self.hint else {})


class Listing(Protocol):
    """Entries, of which one page at a time is looked at."""

    @property
    def heads(self) -> list[str]:
        """Over the columns."""
        ...

    def __len__(self) -> int: ...

    def page(self, start: int, stop: int) -> list[Entry]:
        """Return some of the entries."""
        ...


@dataclasses.dataclass(frozen=True)
class EntryListing:
    """A listing of few entries."""

    heads: list[str]
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def page(self, start: int, stop: int) -> list[Entry]:
        """As `Listing`."""
        return list(self.entries[start:stop])


def machines(shelf: Shelf) -> EntryListing:
    """List the machines."""
    rows = [Entry("machine", name, said, (f"{len(copies):,}",)) for name, (said, copies) in shelf.items()]
    return EntryListing(["Machine", "Copies"], tuple(rows))


def copies(shelf: Shelf, machine: str) -> EntryListing:
    """List the copies of a machine."""
    return EntryListing(
        ["Backup copy"], tuple(Entry("copy", each.name, each.said) for each in shelf[machine][1])
    )


def drives(disks: Sequence[BackedUpDisk]) -> EntryListing:
    """List the drives of a copy: for each disk its file systems, their structures, and its partitions."""
    entries = []
    for number, disk in enumerate(disks):
        figures = _Figures(disk)
        for top in disk.tree.tops:
            mark = disk.tree.names[top]
            if mark == STRUCTURES:
                name, hint = f"disk {number}, structures", "what file systems keep for themselves"
            else:
                name, hint = f"disk {number}, files of {disk.tree.path(top)}", _file_systems(disk, mark)
            entries.append(Entry("drive", name, hint, figures.cells(top), number, top))
        for partition in disk.partitions:
            name = f"disk {number}, partition {partition['partition']} as a whole"
            blocks = disk.blocks_of_partition(partition["partition"])
            stored = disk.stored[blocks]
            read = "–" if disk.read is None else f"{int((stored & disk.read[blocks]).sum()):,}"
            cells = (size(partition["length"]), f"{int(stored.sum()):,}", read)
            hint = partition["file_system"]
            entries.append(
                Entry("partition", name, hint, cells, number, partition=partition["partition"], opens=False)
            )
    return EntryListing(["Drive", *HEADS[1:]], tuple(entries))


def _file_systems(disk: BackedUpDisk, mark: str) -> str:
    """Return what is known of the file systems whose files are listed under a mark."""
    names = [f"{each['file_system']}" for each in disk.partitions]
    return "of partition " + mark.lstrip("@") if mark else ", ".join(names)


class _Figures:
    """Size, stored blocks and blocks read of each node, all in it included."""

    def __init__(self, disk: BackedUpDisk) -> None:
        tree = disk.tree
        self.sums = {
            "bytes": tree.sums(disk.sizes),
            "stored": tree.sums(disk.stored_of_files),
            "read": tree.sums(disk.read_of_files),
        }
        self.reads_known = disk.read is not None

    def cells(self, node: int) -> tuple[str, ...]:
        read = f"{int(self.sums['read'][node]):,}" if self.reads_known else "–"
        return size(int(self.sums["bytes"][node])), f"{int(self.sums['stored'][node]):,}", read


class NodeListing:
    """Nodes of a disk's tree, sorted: what is in a folder, or what was found.

    Parameters
    ----------
    disk : BackedUpDisk
    number : int
        Of the disk.
    nodes : sequence of int
    sorted_by : str
        One of `SORTED_BY`; by name folders come first, by figures the largest.
    whole_paths : bool
        Show paths, as after a search, and let files be opened, too: that leads to their folder.
    """

    def __init__(
        self, disk: BackedUpDisk, number: int, nodes: Sequence[int], sorted_by: str, whole_paths: bool = False
    ) -> None:
        self.heads = HEADS
        self.disk, self.number, self.whole_paths = disk, number, whole_paths
        self._figures = _Figures(disk)
        array = np.array(nodes, np.int64)
        if sorted_by == "name":
            # found by their paths they stay in the order of these
            order = np.argsort(~disk.tree.is_folder[array], kind="stable") if not whole_paths else slice(None)
        else:
            order = np.argsort(-self._figures.sums[sorted_by][array], kind="stable")
        self.nodes = array[order]

    def __len__(self) -> int:
        return len(self.nodes)

    def page(self, start: int, stop: int) -> list[Entry]:
        """As `Listing`."""
        return [self._entry(int(node)) for node in self.nodes[start:stop]]

    def _entry(self, node: int) -> Entry:
        tree, file = self.disk.tree, int(self.disk.tree.file[node])
        is_folder = bool(tree.is_folder[node])
        kind = "directory" if is_folder else self.disk.kinds[file]
        name = tree.path(node) if self.whole_paths else tree.names[node]
        cells = self._figures.cells(node)
        opens = is_folder or self.whole_paths
        return Entry(kind, name, "", cells, self.number, node, opens=opens)


def tick_of(entry: Entry, selection: FileSelection | None) -> int:
    """Return whether an entry is chosen, as `FileList` takes it."""
    if selection is None or entry.disk < 0:
        return -1
    if entry.partition >= 0:
        return 2 * ((entry.disk, entry.partition) in selection.partitions)
    files = selection.copy.disks[entry.disk].tree.inside(entry.node)
    chosen = int(selection.files[entry.disk][files].sum())
    return 0 if not chosen else 2 if chosen == len(files) else 1
