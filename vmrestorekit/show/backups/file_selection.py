"""What was chosen in a file manager, and what the backup copy has to give for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.browse import Selection
from vmrestorekit.backup.files import FoundFile
from vmrestorekit.backup.layout import first_block_of_disk
from vmrestorekit.show.backups.backed_up_disk import BackedUpCopy, Blocks
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = ["SELECTION_SCHEMA", "Cost", "FileSelection", "by_cache_block"]

SELECTION_SCHEMA = pl.Schema(
    {
        "disk": pl.Int32(),
        "block": pl.Int64(),  # number of the 4 KiB block on its disk
        "cache_block": pl.Int64(),  # number over all disks
        "path": pl.String(),  # null: of no file
        "why": pl.String(),  # "chosen", or "leads there": needed to find it
        "read_by_boot": pl.Boolean(),  # null where no boot was recorded
    }
)


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
    """What a selection takes; `blocks` are of 4 KiB, `cache_blocks` of `block_bytes`; only stored ones count.

    Attributes
    ----------
    block_bytes : int
    files, file_bytes : int
        How many were chosen, folders included, and their bytes.
    blocks, blocks_read : int
        Blocks of what was chosen, and how many of these the recorded boot reads.
    blocks_leading : int
        Further blocks that have to be read to find it.
    cache_blocks : ndarray of int64
        What the media agent has to fetch: numbers over all disks, first what leads to the files.
    blocks_along, files_along : int
        Blocks that come along in the same cache blocks, and how many other files they belong to.
    """

    block_bytes: int
    files: int
    file_bytes: int
    blocks: int
    blocks_read: int
    blocks_leading: int
    cache_blocks: Blocks
    blocks_along: int
    files_along: int

    @property
    def media_bytes(self) -> int:
        """Bytes read from the backup."""
        return len(self.cache_blocks) * self.block_bytes


class FileSelection:
    """Files, folders and partitions chosen in one copy.

    Attributes
    ----------
    copy : BackedUpCopy
    files : list of ndarray of bool, one a disk
        Which files are chosen.
    partitions : set of (int, int)
        Disks and numbers of partitions chosen as a whole.
    """

    def __init__(self, copy: BackedUpCopy) -> None:
        self.copy = copy
        self.files = [np.zeros(len(disk.paths), np.bool_) for disk in copy.disks]
        self.partitions: set[tuple[int, int]] = set()
        self._kept: dict[int, tuple[Blocks, Blocks]] = {}  # until something else is chosen
        self._costs: dict[int, Cost] = {}

    def __bool__(self) -> bool:
        return bool(self.partitions) or any(chosen.any() for chosen in self.files)

    def clear(self) -> None:
        """Choose nothing."""
        for chosen in self.files:
            chosen[:] = False
        self.partitions.clear()
        self._forget()

    def choose(self, disk: int, files: npt.ArrayLike, chosen: bool = True) -> None:
        """Choose files of a disk, or no longer."""
        self.files[disk][np.asarray(files, np.int64)] = chosen
        self._forget()

    def choose_partition(self, disk: int, number: int, chosen: bool = True) -> None:
        """Choose a whole partition, or no longer."""
        (self.partitions.add if chosen else self.partitions.discard)((disk, number))
        self._forget()

    def _forget(self) -> None:
        self._kept.clear()
        self._costs.clear()

    def blocks(self, disk: int) -> tuple[Blocks, Blocks]:
        """Return the stored blocks of what was chosen on a disk, and the further ones that lead there.

        Both in the order in which they are read, and each once.
        """
        if disk not in self._kept:
            self._kept[disk] = self._blocks(disk)
        return self._kept[disk]

    def _blocks(self, disk: int) -> tuple[Blocks, Blocks]:
        here = self.copy.disks[disk]
        # in the order of their paths, and what is in a folder after the folder
        in_order = here.tree.file[here.tree.file >= 0]
        chosen = in_order[self.files[disk][in_order]]
        parts = [here.blocks_of_partition(number) for at, number in sorted(self.partitions) if at == disk]
        own = _each_once(np.concatenate([here.blocks_of(chosen), *parts]))
        own = own[here.stored[own]]
        leading = _each_once(here.leads_to(chosen))
        is_own = np.zeros(len(here.stored), np.bool_)
        is_own[own] = True
        return own, leading[here.stored[leading] & ~is_own[leading]]

    def cache_blocks(self, block_bytes: int) -> Blocks:
        """Return the stored cache blocks over all disks: first what leads to the files, then the files."""
        starts = first_block_of_disk(self.copy.disk_bytes, block_bytes)
        pairs = [self.blocks(disk) for disk in range(len(self.copy.disks))]
        pieces = [
            starts[disk] + pair[part] * MANIFEST_BLOCK_BYTES // block_bytes
            for part in (1, 0)
            for disk, pair in enumerate(pairs)
        ]
        return _each_once(np.concatenate(pieces))

    def cost(self, block_bytes: int) -> Cost:
        """Return what the selection takes with cache blocks of this size."""
        if block_bytes not in self._costs:
            self._costs[block_bytes] = self._cost(block_bytes)
        return self._costs[block_bytes]

    def _cost(self, block_bytes: int) -> Cost:
        per_block = block_bytes // MANIFEST_BLOCK_BYTES
        figures = np.zeros(7, np.int64)
        for disk, here in enumerate(self.copy.disks):
            own, leading = self.blocks(disk)
            fetched = np.zeros(-(-len(here.stored) // per_block) * per_block, np.bool_)
            of_cache_block = fetched.reshape(-1, per_block)  # a view
            of_cache_block[np.concatenate([own, leading]) // per_block] = True
            along = fetched[: len(here.stored)] & here.stored
            along[own] = along[leading] = False
            owners = here.owner[along]
            others = len(np.unique(owners[owners >= 0]))
            read = 0 if here.read is None else int(here.read[own].sum())
            chosen = self.files[disk]
            figures += (
                *(int(chosen.sum()), int(here.sizes[chosen].sum())),
                *(len(own), read, len(leading), int(along.sum()), others),
            )
        files, file_bytes, own_blocks, read, leads, along_blocks, along_files = figures.tolist()
        fetches = self.cache_blocks(block_bytes)
        return Cost(
            block_bytes, files, file_bytes, own_blocks, read, leads, fetches, along_blocks, along_files
        )

    def as_selection(self) -> Selection:
        """Return the same as `vmrestorekit.backup.CopyContents.select` gives it; holes are left out."""
        leads, own, files = [], [], []
        for disk, here in enumerate(self.copy.disks):
            pair = self.blocks(disk)
            own += [(disk, *extent) for extent in _extents(pair[0], here.disk_bytes)]
            leads += [(disk, *extent) for extent in _extents(pair[1], here.disk_bytes)]
            for file in np.flatnonzero(self.files[disk]).tolist():
                extents = _extents(here.blocks_of([file]), here.disk_bytes)
                within = np.cumsum([0, *(length for _, length in extents)]).tolist()
                places = [(*extent, at) for extent, at in zip(extents, within, strict=False)]
                path, size, kind = here.paths[file], int(here.sizes[file]), here.kinds[file]
                files.append(FoundFile(path, size, kind, places, disk=disk))
        return Selection(self.copy.disk_bytes, tuple(files), tuple(leads + own))

    def table(self, block_bytes: int) -> pl.DataFrame:
        """Return the blocks that are needed, as `SELECTION_SCHEMA`, in the order in which they are read."""
        starts = first_block_of_disk(self.copy.disk_bytes, block_bytes)
        frames = []
        for part, why in ((1, "leads there"), (0, "chosen")):
            for disk, here in enumerate(self.copy.disks):
                blocks = self.blocks(disk)[part]
                owner = here.owner[blocks]
                paths = pl.Series(here.paths, dtype=pl.String)
                frames.append(
                    pl.DataFrame(
                        {
                            "disk": pl.Series(np.full(len(blocks), disk, np.int32)),
                            "block": pl.Series(blocks),
                            "cache_block": pl.Series(
                                starts[disk] + blocks * MANIFEST_BLOCK_BYTES // block_bytes
                            ),
                            "path": paths.gather(
                                pl.Series(owner).set(pl.Series(owner) < 0, None).cast(pl.UInt32)
                            ),
                            "why": pl.Series([why] * len(blocks), dtype=pl.String),
                            "read_by_boot": pl.Series(
                                [None] * len(blocks) if here.read is None else here.read[blocks],
                                dtype=pl.Boolean,
                            ),
                        },
                        schema=SELECTION_SCHEMA,
                    )
                )
        return pl.concat(frames)


def by_cache_block(mask: npt.NDArray[np.bool_], block_bytes: int) -> npt.NDArray[np.bool_]:
    """Return what is said of 4 KiB blocks as one row a cache block; the last one is filled up."""
    per_block = block_bytes // MANIFEST_BLOCK_BYTES
    missing = -len(mask) % per_block
    return (np.pad(mask, (0, missing)) if missing else mask).reshape(-1, per_block)


def _each_once(blocks: Blocks) -> Blocks:
    place = np.arange(len(blocks))
    first = np.zeros(int(blocks.max(initial=-1)) + 1, np.int64)
    first[blocks[::-1]] = place[::-1]  # of several the earliest is written last
    found: Blocks = blocks[first[blocks] == place]
    return found


def _extents(blocks: Blocks, disk_bytes: int) -> list[tuple[int, int]]:
    """Return first bytes and lengths of runs of blocks, in their order; none beyond the end of the disk."""
    if not len(blocks):
        return []
    cuts = np.flatnonzero(np.diff(blocks) != 1) + 1
    firsts = blocks[np.concatenate([[0], cuts])] * MANIFEST_BLOCK_BYTES
    lasts = (blocks[np.concatenate([cuts - 1, [len(blocks) - 1]])] + 1) * MANIFEST_BLOCK_BYTES
    lengths = np.minimum(lasts, disk_bytes) - firsts
    return list(zip(firsts.tolist(), lengths.tolist(), strict=True))
