"""The folders of a disk as one sorted list, in which everything inside a folder follows it."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["STRUCTURES", "FolderTree"]

STRUCTURES = "$"  # the drive under which the file systems' own structures are shown
_SLASH = "\0"  # sorts before every character of a name, so that a folder's contents come right after it

Nodes = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class FolderTree:
    """Nodes, sorted so that what is in a folder follows it without a gap; the first of each drive is its top.

    Attributes
    ----------
    names : list of str
        Without the folders on the way; of a top the mark of its file system.
    file : ndarray of int64
        Number of the file, -1 for a folder of which nothing but its contents is known.
    parent, end : ndarray of int64
        The folder that it is in (-1 for a top), and the first node behind all that is in it.
    is_folder : ndarray of bool
    node_of_file : ndarray of int64
    tops : list of int
    """

    names: list[str]
    file: Nodes
    parent: Nodes
    end: Nodes
    is_folder: npt.NDArray[np.bool_]
    node_of_file: Nodes
    tops: list[int]

    @classmethod
    def of(cls, paths: Sequence[str], kinds: Sequence[str]) -> FolderTree:
        """Make the tree of files; folders that are not listed, as they have no blocks, are added."""
        keys = [_key(path) for path in paths]
        files = {key: file for file, key in reversed(list(enumerate(keys)))}
        every = dict.fromkeys(files)
        for key in files:
            above = key
            while _SLASH in above:
                above = above.rpartition(_SLASH)[0]
                if above in every:
                    break
                every[above] = None
        ordered = sorted(every)
        place = {key: node for node, key in enumerate(ordered)}
        file = np.array([files.get(key, -1) for key in ordered], np.int64)
        end = np.array([bisect_left(ordered, key + "\1") for key in ordered], np.int64)
        parent = [place[key.rpartition(_SLASH)[0]] if _SLASH in key else -1 for key in ordered]
        inside = end > np.arange(len(ordered)) + 1
        listed = np.array([at >= 0 and kinds[at] == "directory" for at in file.tolist()], np.bool_)
        return cls(
            names=[key.rpartition(_SLASH)[2] for key in ordered],
            file=file,
            parent=np.array(parent, np.int64),
            end=end,
            is_folder=inside | listed | (file < 0),
            node_of_file=np.array([place[key] for key in keys], np.int64),
            tops=[node for node, above in enumerate(parent) if above < 0],
        )

    def __len__(self) -> int:
        return len(self.names)

    def children(self, node: int) -> list[int]:
        """Return what is directly in a folder, by name."""
        found, at = [], node + 1
        while at < self.end[node]:
            found.append(at)
            at = int(self.end[at])
        return found

    def inside(self, node: int) -> Nodes:
        """Return the files of a node: its own, and those of all that is in it."""
        files = self.file[node : self.end[node]]
        return files[files >= 0]

    def sums(self, of_files: npt.NDArray[np.integer]) -> Nodes:
        """Return the sum of a figure of files over each node and all that is in it."""
        own = np.where(self.file >= 0, of_files[self.file] if len(of_files) else 0, 0)
        until = np.concatenate([[0], np.cumsum(own)])
        sums: Nodes = until[self.end] - until[:-1]
        return sums

    def way(self, node: int) -> list[int]:
        """Return the folders from the top to a node, itself included."""
        way = [node]
        while self.parent[way[-1]] >= 0:
            way.append(int(self.parent[way[-1]]))
        return way[::-1]

    def path(self, node: int) -> str:
        """Return the path as the copy has it, such as ``/etc/passwd`` or ``@1/grub``."""
        names = [self.names[each] for each in self.way(node)]
        if names[0] == STRUCTURES:
            return names[-1]
        return "/".join(names) if len(names) > 1 else names[0] + "/"

    def node_at(self, path: str) -> int | None:
        """Return the node of a path, None if there is none."""
        top, *names = path.rstrip("/").split("/") if not path.startswith(STRUCTURES) else (STRUCTURES, path)
        at = next((node for node in self.tops if self.names[node] == top), None)
        for name in names:
            if at is not None:
                at = next((node for node in self.children(at) if self.names[node] == name), None)
        return at

    def find(self, pattern: str, top: int) -> list[int]:
        """Return the nodes below a folder that fit a pattern, in the order of their paths.

        ``*`` stands for anything, slashes too. A pattern without a slash is one for names, another for paths.
        """
        fits = re.compile(fnmatch.translate(pattern), re.IGNORECASE).match
        nodes = range(top + 1, int(self.end[top]))
        if "/" not in pattern:
            return [node for node in nodes if fits(self.names[node])]
        paths, found = {top: self.path(top).rstrip("/")}, []
        for node in nodes:  # a folder comes before what is in it
            paths[node] = f"{paths[int(self.parent[node])]}/{self.names[node]}"
            if fits(paths[node]):
                found.append(node)
        return found


def _key(path: str) -> str:
    if path.startswith(STRUCTURES):
        return f"{STRUCTURES}{_SLASH}{path}"
    return path.rstrip("/").replace("/", _SLASH)
