"""Where each block of a backup copy lies on the backup medium.

Blocks are those of the read cache, numbered densely over all disks: those of disk 0 first, then those of
disk 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # making a copy needs no polars, which takes longer to import than all else
    from vmrestorekit.traces.manifest import Manifest

__all__ = [
    "DEFAULT_BLOCK_BYTES",
    "BackupLayout",
    "CopySettings",
    "LayoutError",
    "block_count",
    "first_block_of_disk",
]

MIB = 1024 * 1024
DEFAULT_BLOCK_BYTES = 64 * 1024
ROWS_PER_CHUNK = 1 << 16  # a chunk has no more blocks, so that one of nothing but links ends, too
_LEAST_BLOCK_BYTES, _MOST_BLOCK_BYTES = 4096, 4 * MIB


class LayoutError(ValueError):
    """A layout that is not possible; the message says what was expected and what came."""


def block_count(disk_bytes: Sequence[int], block_bytes: int = DEFAULT_BLOCK_BYTES) -> int:
    """Return how many blocks the disks have together; a last, shorter block of a disk counts."""
    expect_block_bytes(block_bytes)
    return sum(-(-size // block_bytes) for size in disk_bytes)


def first_block_of_disk(disk_bytes: Sequence[int], block_bytes: int = DEFAULT_BLOCK_BYTES) -> tuple[int, ...]:
    """Return the number of each disk's first block."""
    return tuple(block_count(disk_bytes[:disk], block_bytes) for disk in range(len(disk_bytes)))


@dataclasses.dataclass(frozen=True)
class CopySettings:
    """When a copy starts a new container file and a new chunk, and how its blocks are stored.

    Attributes
    ----------
    container_blocks, container_bytes : int
        A container file is full when one more block would exceed either.
    chunk_bytes : int
        A chunk is full when one more block would exceed it. All sizes are before compression.
    zstd_level : int, optional
        Compress with zstd at this level, 1 (fast) to 22 (small); default: do not compress.
    frame_bytes : int, optional
        Neighbours up to so many bytes are compressed together, and have to be read together; default: each
        block by itself.
    """

    container_blocks: int = 100
    container_bytes: int = 50 * MIB
    chunk_bytes: int = 512 * MIB
    zstd_level: int | None = None
    frame_bytes: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise LayoutError(f"{field.name}: expected at least 1, got {value}")
        if self.zstd_level is not None and self.zstd_level > 22:
            raise LayoutError(f"zstd_level: expected 1 to 22, got {self.zstd_level}")
        if self.frame_bytes is not None and self.zstd_level is None:
            raise LayoutError("frame_bytes: what is not compressed is read block by block; give a zstd_level")


@dataclasses.dataclass(frozen=True, eq=False)
class BackupLayout:
    """Where each of n blocks lies on the backup medium; the arrays cannot be written to.

    Attributes
    ----------
    block_bytes : int
        Size of a block, a power of two from 4 KiB to 4 MiB.
    disk_bytes : tuple of int
        Size of each disk.
    address : ndarray of int64, shape (n,)
        Where the block starts on the medium, in bytes; -1 for a hole, a block of zeros that is not stored.
    container, chunk : ndarray of int32, shape (n,)
        Which container file and which chunk the block is in; -1 for a hole.
    frame_start, frame_end : ndarray of int64, shape (n,), optional
        What has to be read to have the block: from where to where on the medium, in bytes; -1 for a hole.
        Given where neighbours are compressed together; default: each block can be read by itself.

    Raises
    ------
    LayoutError
        If the arrays do not fit the disks or each other.
    """

    block_bytes: int
    disk_bytes: tuple[int, ...]
    address: npt.NDArray[np.int64]
    container: npt.NDArray[np.int32]
    chunk: npt.NDArray[np.int32]
    frame_start: npt.NDArray[np.int64] | None = None
    frame_end: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        blocks = block_count(self.disk_bytes, self.block_bytes)
        if (self.frame_start is None) != (self.frame_end is None):
            raise LayoutError("expected both frame_start and frame_end or neither, got one")
        for name in ("address", "container", "chunk", "frame_start", "frame_end"):
            if getattr(self, name) is None:
                continue
            array = np.array(getattr(self, name), np.int32 if name in ("container", "chunk") else np.int64)
            if array.shape != (blocks,):
                raise LayoutError(
                    f"{name}: expected one value for each of {blocks} blocks, got {array.shape}"
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        hole = self.address < 0
        differing = np.flatnonzero((hole != (self.container < 0)) | (hole != (self.chunk < 0)))
        if len(differing):
            raise LayoutError(
                f"block {differing[0]}: expected address, container and chunk, or a hole in all three"
            )
        if self.frame_start is not None and self.frame_end is not None:
            within = (self.frame_start <= self.address) & (self.address < self.frame_end)
            outside = np.flatnonzero(~within & ~hole)
            if len(outside):
                raise LayoutError(f"block {outside[0]}: expected an address within its frame")

    @classmethod
    def full(
        cls,
        manifests: Sequence[Manifest],
        block_bytes: int = DEFAULT_BLOCK_BYTES,
        settings: CopySettings | None = None,
    ) -> BackupLayout:
        """Lay out a full backup written in the order of the disks, without holes, one block after another.

        A chunk holds blocks of one disk and a container file blocks of one chunk.

        Parameters
        ----------
        manifests : sequence of Manifest
            The state of each disk that is backed up.
        block_bytes : int
        settings : CopySettings, optional

        Raises
        ------
        LayoutError
            If `block_bytes` is no power of two from 4 KiB to 4 MiB, or there is no disk.
        """
        settings = settings or CopySettings()
        if not manifests:
            raise LayoutError("expected the manifest of at least one disk, got none")
        expect_block_bytes(block_bytes)
        per_chunk = min(max(1, settings.chunk_bytes // block_bytes), ROWS_PER_CHUNK)
        per_container = min(settings.container_blocks, max(1, settings.container_bytes // block_bytes))
        per_frame = max(1, (settings.frame_bytes or 0) // block_bytes)
        containers_a_chunk = -(-per_chunk // per_container)
        addresses, lengths, containers, chunks, in_container = [], [], [], [], []
        end, chunks_before, containers_before = 0, 0, 0
        for manifest in manifests:
            stored = _stored(manifest, block_bytes)
            length = np.full(len(stored), block_bytes, np.int64)
            length[-1] = manifest.disk_bytes - (len(stored) - 1) * block_bytes
            length[~stored] = 0
            position = np.cumsum(stored) - 1  # among the disk's stored blocks
            chunk, in_chunk = np.divmod(position, per_chunk)
            container = chunk * containers_a_chunk + in_chunk // per_container
            # the last chunk of a disk may have fewer containers; numbers stay dense over the disks
            addresses.append(np.where(stored, end + np.cumsum(length) - length, -1))
            lengths.append(length)
            in_container.append(in_chunk % per_container)
            chunks.append(np.where(stored, chunks_before + chunk, -1))
            containers.append(np.where(stored, containers_before + container, -1))
            end += int(length.sum())
            chunks_before = max(chunks_before, int(chunks[-1].max()) + 1)
            containers_before = max(containers_before, int(containers[-1].max()) + 1)
        address, container = np.concatenate(addresses), np.concatenate(containers)
        frames: tuple[npt.NDArray[np.int64], ...] = ()
        if per_frame > 1:
            frame = container * per_container + np.concatenate(in_container) // per_frame
            frames = _frames(address, np.concatenate(lengths), frame)
        return cls(
            block_bytes,
            tuple(manifest.disk_bytes for manifest in manifests),
            address,
            container.astype(np.int32),
            np.concatenate(chunks).astype(np.int32),
            *frames,
        )

    def read_together(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]] | None:
        """Return the number of each block's frame (-1 for a hole), and start and end of each frame.

        None if each block can be read by itself.
        """
        if self.frame_start is None or self.frame_end is None:
            return None
        number = np.full(len(self.address), -1, np.int32)
        stored = np.flatnonzero(~self.hole)
        extents = np.stack([self.frame_start[stored], self.frame_end[stored]], axis=1)
        frames, number[stored] = np.unique(extents, axis=0, return_inverse=True)
        return number, frames

    @property
    def hole(self) -> npt.NDArray[np.bool_]:
        """Which blocks are not stored."""
        return self.address < 0

    @property
    def stored_bytes(self) -> int:
        """Size of all stored blocks together, without headers."""
        length = np.full(len(self.address), self.block_bytes, np.int64)
        ends = [*first_block_of_disk(self.disk_bytes, self.block_bytes)[1:], len(self.address)]
        for end, size in zip(ends, self.disk_bytes, strict=True):
            length[end - 1] = (size - 1) % self.block_bytes + 1
        return int(length[~self.hole].sum())


def _frames(
    address: npt.NDArray[np.int64], length: npt.NDArray[np.int64], frame: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return start and end of each block's frame, -1 for holes; frames ascend with their blocks."""
    stored = np.flatnonzero(address >= 0)
    _, first, number = np.unique(frame[stored], return_index=True, return_inverse=True)
    last = np.append(first[1:], len(stored)) - 1
    start, end = np.full(len(address), -1, np.int64), np.full(len(address), -1, np.int64)
    start[stored] = address[stored[first]][number]
    end[stored] = (address + length)[stored[last]][number]
    return start, end


def _stored(manifest: Manifest, block_bytes: int) -> npt.NDArray[np.bool_]:
    """Tell for each block whether one of its 4 KiB has contents."""
    from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

    blocks = -(-manifest.disk_bytes // block_bytes)
    content = np.zeros((blocks, block_bytes // MANIFEST_BLOCK_BYTES), np.uint64)
    content.reshape(-1)[: manifest.blocks.height] = manifest.blocks["content"].to_numpy()
    return np.asarray(content.any(axis=1), np.bool_)


def expect_block_bytes(block_bytes: int) -> None:
    if block_bytes & (block_bytes - 1) or not _LEAST_BLOCK_BYTES <= block_bytes <= _MOST_BLOCK_BYTES:
        raise LayoutError(
            f"block_bytes: expected a power of two from {_LEAST_BLOCK_BYTES} to {_MOST_BLOCK_BYTES}, "
            f"got {block_bytes}"
        )
