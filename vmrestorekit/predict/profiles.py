"""The forms in which a data agent may indicate a virtual machine's profile to the media agent (operation O3).

Each form says which blocks to pre-stage, given the disks before the boot; `first_set` of several forms is
what the first names, then what the second adds, and so on. A predictor (`vmrestorekit.make_plan`) is the
media agent's own answer to a profile that it knows by name.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.browse import Selection
from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import DEFAULT_BLOCK_BYTES, block_count, first_block_of_disk
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES, Manifest

__all__ = [
    "APPLICATIONS",
    "ApplicationProfiles",
    "BlockList",
    "BootScheme",
    "NamedProfile",
    "Profile",
    "SelectedFiles",
    "SelectedInBackup",
    "first_set",
]

BlockArray = npt.NDArray[np.int32]

# what an application reads when it starts: program, libraries and settings, then its data (Debian's paths)
APPLICATIONS: Mapping[str, tuple[str, ...]] = {
    "nginx": ("/usr/sbin/nginx", "/usr/lib/nginx/*", "/etc/nginx/*", "/var/www/*"),
    "postgresql": ("/usr/lib/postgresql/*", "/etc/postgresql/*", "/var/lib/postgresql/*"),
    "openssh": ("/usr/sbin/sshd", "/etc/ssh/*"),
}


class Profile(Protocol):
    """Says which blocks of a virtual machine's disks to pre-stage, in which order."""

    def blocks(self, manifests: Sequence[Manifest], block_bytes: int) -> BlockArray:
        """Return block numbers over all disks; holes and repetitions are taken out later."""
        ...


@dataclasses.dataclass(frozen=True)
class BlockList:
    """The blocks themselves: the data agent has chosen, the media agent stages."""

    numbers: tuple[int, ...]

    def blocks(self, manifests: Sequence[Manifest], block_bytes: int) -> BlockArray:
        """Return the list, each entry checked against the disks."""
        count = block_count(_sizes(manifests), block_bytes)
        for at, number in enumerate(self.numbers):
            if not 0 <= number < count:
                raise PredictError(f"block list: entry {at} is block {number}, but the disks have {count}")
        return np.array(self.numbers, np.int32)


@dataclasses.dataclass(frozen=True)
class BootScheme:
    """A starting block of the boot, from which so many bytes are staged in the order of the disk."""

    starting_block: int = 0
    stage_bytes: int = 64 << 20

    def blocks(self, manifests: Sequence[Manifest], block_bytes: int) -> BlockArray:
        """Return the stored blocks from the starting block on."""
        stored = _stored(manifests, block_bytes)
        if not 0 <= self.starting_block < len(stored):
            raise PredictError(
                f"boot scheme: expected a starting block from 0 to {len(stored) - 1}, "
                f"got {self.starting_block}"
            )
        following = self.starting_block + np.flatnonzero(stored[self.starting_block :])
        return following[: self.stage_bytes // block_bytes].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class SelectedFiles:
    """Files and folders that a user selected in the file manager, as patterns such as ``/var/www/*``.

    A ``*`` stands for anything, slashes too. Blocks come in the order of the patterns, then of the paths, and
    by their position in the file.
    """

    patterns: tuple[str, ...]

    def blocks(self, manifests: Sequence[Manifest], block_bytes: int) -> BlockArray:
        """Return the blocks of the files; a pattern that fits no file of any disk is an error."""
        found = []
        for pattern in self.patterns:
            blocks = _blocks_of_files(manifests, pattern, block_bytes)
            if not len(blocks):
                raise PredictError(f"selected files: no file of the disks fits {pattern!r}")
            found.append(blocks)
        return np.concatenate(found) if found else np.empty(0, np.int32)


@dataclasses.dataclass(frozen=True)
class SelectedInBackup:
    """What a user selected while browsing a backup store: files, partitions, the metadata on the way."""

    selection: Selection

    def blocks(self, manifests: Sequence[Manifest], block_bytes: int) -> BlockArray:
        """Return the blocks of the selection; one of a machine with other disks is an error."""
        if self.selection.disk_bytes != _sizes(manifests):
            raise PredictError(
                f"selection: expected one of disks of {_sizes(manifests)} bytes, "
                f"got one of {self.selection.disk_bytes}"
            )
        return self.selection.blocks(block_bytes)


@dataclasses.dataclass(frozen=True)
class ApplicationProfiles:
    """Names of applications whose files the media agent knows; what is not installed is left out."""

    names: tuple[str, ...]

    def blocks(self, manifests: Sequence[Manifest], block_bytes: int) -> BlockArray:
        """Return the blocks of the applications' files, application after application."""
        for name in self.names:
            if name not in APPLICATIONS:
                raise PredictError(
                    f"application profile: expected one of {', '.join(APPLICATIONS)}, got {name!r}"
                )
        patterns = [pattern for name in self.names for pattern in APPLICATIONS[name]]
        found = [_blocks_of_files(manifests, pattern, block_bytes) for pattern in patterns]
        return np.concatenate(found) if found else np.empty(0, np.int32)


@dataclasses.dataclass(frozen=True)
class NamedProfile:
    """A profile that the media agent knows by its name."""

    name: str
    known: Mapping[str, Profile]

    def blocks(self, manifests: Sequence[Manifest], block_bytes: int) -> BlockArray:
        """Return the blocks of the profile of that name."""
        if self.name not in self.known:
            raise PredictError(
                f"named profile: expected one of {', '.join(self.known) or 'none'}, got {self.name!r}"
            )
        return self.known[self.name].blocks(manifests, block_bytes)


def first_set(
    profiles: Sequence[Profile], manifests: Sequence[Manifest], block_bytes: int = DEFAULT_BLOCK_BYTES
) -> BlockArray:
    """Return the first set that profiles indicate together: stored blocks, none twice, in their order.

    Parameters
    ----------
    profiles : sequence of Profile
        The most important first.
    manifests : sequence of Manifest
        State of each disk before the boot.
    block_bytes : int

    Raises
    ------
    PredictError
        If a profile names what the disks do not have.
    """
    named = [profile.blocks(manifests, block_bytes) for profile in profiles]
    blocks = np.concatenate(named) if named else np.empty(0, np.int32)
    blocks = blocks[_stored(manifests, block_bytes)[blocks]]
    _, first_named = np.unique(blocks, return_index=True)
    return blocks[np.sort(first_named)]


def _sizes(manifests: Sequence[Manifest]) -> tuple[int, ...]:
    return tuple(manifest.disk_bytes for manifest in manifests)


def _stored(manifests: Sequence[Manifest], block_bytes: int) -> npt.NDArray[np.bool_]:
    """Tell of each block of all disks whether a backup copy would store it."""
    return ~BackupLayout.full(manifests, block_bytes).hole


def _blocks_of_files(manifests: Sequence[Manifest], pattern: str, block_bytes: int) -> BlockArray:
    """Return the blocks of the files that fit a pattern, by path and position; a block may come again."""
    fits = re.compile(fnmatch.translate(pattern)).match
    starts = first_block_of_disk(_sizes(manifests), block_bytes)
    units = block_bytes // MANIFEST_BLOCK_BYTES
    found = []
    for start, manifest in zip(starts, manifests, strict=True):
        paths = manifest.files["path"].to_list()
        chosen = pl.Series([number for number, path in enumerate(paths) if fits(path)], dtype=pl.Int32)
        rows = (
            manifest.blocks.with_row_index("unit")
            .filter(pl.col("file").is_in(chosen.implode()))
            .with_columns(
                path=pl.col("file").replace_strict(chosen, [paths[n] for n in chosen], default=None)
            )
            .sort("path", "file_block")
        )
        found.append(start + rows["unit"].to_numpy().astype(np.int64) // units)
    return np.concatenate(found).astype(np.int32)
