"""Relocation sequences: in which order a relocation copies the blocks of a backup copy (operation O13).

Each is a list of block numbers for `RestorePlan.relocation_sequence` that leaves out no stored block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import PlanError
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES, Manifest

__all__ = ["allocated", "as_stored", "by_file", "first", "sequential"]

BlockArray = npt.NDArray[np.int32]


def sequential(layout: BackupLayout) -> BlockArray:
    """Return all blocks ascending, holes too: what copying a volume from its start to its end does."""
    return np.arange(len(layout.address), dtype=np.int32)


def allocated(layout: BackupLayout) -> BlockArray:
    """Return the stored blocks, ascending."""
    return np.flatnonzero(layout.address >= 0).astype(np.int32)


def as_stored(layout: BackupLayout) -> BlockArray:
    """Return the stored blocks in the order in which they lie on the medium, chunk after chunk."""
    blocks = allocated(layout)
    return blocks[np.argsort(layout.address[blocks], kind="stable")]


def by_file(manifests: Sequence[Manifest], layout: BackupLayout) -> BlockArray:
    """Return the stored blocks file after file, by path; blocks without a file come last.

    A block that holds parts of several files goes with the one whose path comes first.

    Parameters
    ----------
    manifests : sequence of Manifest
        One a disk, as the layout was made of.
    layout : BackupLayout

    Raises
    ------
    PlanError
        If manifests and layout are not of the same disks.
    """
    disk_bytes = tuple(manifest.disk_bytes for manifest in manifests)
    if disk_bytes != layout.disk_bytes:
        raise PlanError(
            f"by_file: expected manifests of disks of {layout.disk_bytes} bytes, got {disk_bytes}"
        )
    units = layout.block_bytes // MANIFEST_BLOCK_BYTES
    ranks, positions = [], []
    for manifest in manifests:
        path_rank = manifest.files["path"].rank("ordinal").to_numpy()
        file = manifest.blocks["file"].fill_null(-1).to_numpy()
        nowhere = len(path_rank) + 1
        rank = np.where(file >= 0, path_rank[file] if len(path_rank) else nowhere, nowhere)
        rank = np.pad(rank, (0, -len(rank) % units), constant_values=nowhere).reshape(-1, units)
        position = manifest.blocks["file_block"].fill_null(0).to_numpy()
        position = np.pad(position, (0, -len(position) % units)).reshape(-1, units)
        owner = rank.argmin(axis=1)[:, None]
        ranks.append(np.take_along_axis(rank, owner, 1)[:, 0])
        positions.append(np.take_along_axis(position, owner, 1)[:, 0])
    disk = np.repeat(np.arange(len(ranks)), [len(rank) for rank in ranks])
    order = np.lexsort((np.concatenate(positions), np.concatenate(ranks), disk))
    return order[layout.address[order] >= 0].astype(np.int32)


def first(blocks: npt.ArrayLike, rest: BlockArray) -> BlockArray:
    """Return a sequence with some blocks moved to its front, such as those that a boot needs.

    Parameters
    ----------
    blocks : array_like of int
        In the order in which they are to come; those that are not in `rest` are left out.
    rest : ndarray of int32
        Another sequence.
    """
    wanted = np.asarray(blocks, np.int32)
    moved = wanted[np.isin(wanted, rest)]
    return np.concatenate([moved, rest[~np.isin(rest, moved)]])
