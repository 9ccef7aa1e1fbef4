"""Where somebody is who browses backup copies: at a machine, a copy, a drive, a folder, a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vmrestorekit.backup.browse import CopyContents
from vmrestorekit.show.backups.backed_up_disk import BackedUpCopy, BackedUpDisk, Blocks
from vmrestorekit.show.backups.file_selection import FileSelection
from vmrestorekit.show.backups.folder_tree import STRUCTURES, FolderTree
from vmrestorekit.show.backups.listing import (
    SORTED_BY,
    Entry,
    Listing,
    NodeListing,
    copies,
    drives,
    machines,
)
from vmrestorekit.show.backups.shelf import ShelvedCopy, shelf_of

__all__ = ["Browsing"]


class Browsing:
    """A place among backup copies; knows nothing of widgets.

    Parameters
    ----------
    source : Corpus, RecordedVM, Boot, BackupStore or CopyContents

    Attributes
    ----------
    machine : str or None
    copy : BackedUpCopy or None
        The copy that is open.
    selection : FileSelection or None
        What was chosen in it.
    disk, node : int
        The folder; -1 above the folders.
    pattern : str
        What is searched for below the folder; empty if nothing is.
    sorted_by : str
        One of `SORTED_BY`.

    Raises
    ------
    ValueError
        If the source is none of these, or empty.
    """

    def __init__(self, source: Any) -> None:
        self.shelf = shelf_of(source)
        self._given = source if isinstance(source, CopyContents) else None
        self.machine: str | None = None
        self.copy: BackedUpCopy | None = None
        self.selection: FileSelection | None = None
        self.disk, self.node, self.pattern, self.sorted_by = -1, -1, "", next(iter(SORTED_BY))
        if len(self.shelf) == 1:
            self.machine, (_, shelved) = next(iter(self.shelf.items()))
            if len(shelved) == 1:
                self._open(shelved[0])

    @property
    def here(self) -> BackedUpDisk:
        """The disk whose files are listed."""
        assert self.copy is not None
        return self.copy.disks[self.disk]

    @property
    def tree(self) -> FolderTree:
        """Its folders."""
        return self.here.tree

    def listing(self) -> Listing:
        """Return what is here."""
        if self.machine is None:
            return machines(self.shelf)
        if self.copy is None:
            return copies(self.shelf, self.machine)
        if self.disk < 0:
            return drives(self.copy.disks)
        if self.pattern:
            found = self.tree.find(self.pattern, self.node)
            return NodeListing(self.here, self.disk, found, self.sorted_by, whole_paths=True)
        return NodeListing(self.here, self.disk, self.tree.children(self.node), self.sorted_by)

    def trail(self) -> list[str]:
        """Return the names on the way here, from all machines on."""
        names = ["all machines"]
        names += [self.machine] if self.machine is not None else []
        names += [self.copy.name] if self.copy is not None else []
        if self.disk >= 0:
            top, *folders = self.tree.way(self.node)
            mark = self.tree.names[top]
            of_top = "structures" if mark == STRUCTURES else self.tree.path(top)
            names += [f"disk {self.disk} {of_top}", *(self.tree.names[node] for node in folders)]
        return names + ([f"search for {self.pattern}"] if self.pattern else [])

    def follow(self, place: int) -> None:
        """Go to a place on the trail."""
        while len(self.trail()) > max(place, 0) + 1:
            self.up()

    def up(self) -> int:
        """Go one step up; return the node that was left, -1 if it was none."""
        left = -1
        if self.pattern:
            self.pattern = ""
        elif self.disk >= 0:
            left, self.node = self.node, int(self.tree.parent[self.node])
            self.disk = self.disk if self.node >= 0 else -1
        elif self.copy is not None:
            self._close()
        else:
            self.machine = None
        return left

    def enter(self, entry: Entry) -> int:
        """Go to what an entry of the listing stands for; return the node to look at there, -1 if none."""
        if entry.kind == "machine":
            self.machine = entry.name
        elif entry.kind == "copy":
            assert self.machine is not None
            self._open(self.shelved(self.machine, entry.name))
        elif entry.node >= 0:
            return self.show_node(entry.disk, entry.node)
        return -1

    def show_node(self, disk: int, node: int) -> int:
        """Go into a folder, or to the folder of a file; return the file's node, -1 for a folder."""
        tree = self.copy.disks[disk].tree if self.copy else self.tree
        self.disk, self.pattern = disk, ""
        if tree.is_folder[node]:
            self.node = node
            return -1
        self.node = int(tree.parent[node])
        return node

    def go_to(self, machine: str | None, copy: str | None, disk: int | None, path: str) -> None:
        """Go anywhere by names; see `BackupBrowser.go_to`."""
        if machine is not None and machine not in self.shelf:
            raise ValueError(f"machine: expected one of {', '.join(self.shelf)}, got {machine!r}")
        if (copy is not None and machine is None) or (disk is not None and copy is None):
            raise ValueError("go_to: expected a machine with a copy, and a copy with a disk")
        if machine is not None and copy is not None:
            shelved = self.shelved(machine, copy)
            if (self.machine, self.copy.name if self.copy else None) != (machine, copy):
                self._close()
                self.machine = machine
                self._open(shelved)
            node = -1 if disk is None else self._node_at(disk, path)
            self.disk, self.node, self.pattern = -1 if disk is None else disk, node, ""
        else:
            self._close()
            self.machine = machine

    def shelved(self, machine: str, copy: str) -> ShelvedCopy:
        """Return a copy by its name."""
        there = {each.name: each for each in self.shelf[machine][1]}
        if copy not in there:
            raise ValueError(f"copy: expected one of {', '.join(there)}, got {copy!r}")
        return there[copy]

    def find(self, pattern: str) -> None:
        """Search below the folder; on the level of drives, below the first one."""
        if self.copy is None:
            raise ValueError("find: expected an open copy; open one first")
        if self.disk < 0:
            self.disk, self.node = 0, self._node_at(0, "/")
        self.pattern = pattern

    def select(self, patterns: Sequence[str], disk: int | None, chosen: bool) -> int:
        """Choose what fits patterns, or no longer; see `BackupBrowser.select`."""
        if self.selection is None or self.copy is None:
            raise ValueError("select: expected an open copy; open one first, for example with go_to()")
        fitting: list[tuple[int, Blocks]] = []
        for pattern in patterns:
            fits = [
                (number, here.tree.inside(node))
                for number, here in enumerate(self.copy.disks)
                if disk in (None, number)
                for top in here.tree.tops
                for node in here.tree.find(pattern.rstrip("/") or "*", top)
            ]
            if not fits:
                raise ValueError(f"select: expected a file or folder that fits {pattern!r}, found none")
            fitting += fits
        for number, files in fitting:
            self.selection.choose(number, files, chosen)
        return len(fitting)

    def files_at(self, entry: Entry) -> Blocks:
        """Return the files that an entry stands for."""
        if self.copy is None or entry.node < 0:
            return np.empty(0, np.int64)
        return self.copy.disks[entry.disk].tree.inside(entry.node)

    def _node_at(self, disk: int, path: str) -> int:
        assert self.copy is not None
        if not isinstance(disk, int) or not 0 <= disk < len(self.copy.disks):
            raise ValueError(f"disk: expected 0 to {len(self.copy.disks) - 1}, got {disk!r}")
        tree = self.copy.disks[disk].tree
        node = tree.node_at(path)
        if node is None or not tree.is_folder[node]:
            raise ValueError(f"path: expected a folder of disk {disk}, found no {path!r}")
        return node

    def _open(self, shelved: ShelvedCopy) -> None:
        self.copy = shelved.open()
        self.selection = FileSelection(self.copy)
        self.disk, self.node, self.pattern = -1, -1, ""

    def _close(self) -> None:
        contents = self.copy.contents if self.copy is not None else None
        if contents is not None and contents is not self._given:
            contents.close()
        self.copy = self.selection = None
        self.disk, self.node, self.pattern = -1, -1, ""
