"""Which content each block of a copy has, put together from the chunks of a chain of copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from vmrestorekit.backup.chunk import BLOCKS, ZEROS, ChunkHeader

__all__ = ["BlockMap", "block_maps"]


@dataclasses.dataclass(frozen=True, eq=False)
class BlockMap:
    """The blocks of one file that are not zeros.

    Attributes
    ----------
    block : ndarray of int64, shape (n,)
        Ascending.
    copy, sequence, slot : ndarray of int64, shape (n,)
        Which content the block has: the copy and chunk that stored it, and its row there.
    signature : ndarray of 32-byte values, shape (n,)
    """

    block: npt.NDArray[np.int64]
    copy: npt.NDArray[np.int64]
    sequence: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int64]
    signature: npt.NDArray[np.void]

    def between(self, first: int, end: int) -> slice:
        """Return where the blocks from ``first`` to before ``end`` are."""
        start, stop = np.searchsorted(self.block, (first, end))
        return slice(int(start), int(stop))


def block_maps(headers: Iterable[ChunkHeader], file_bytes: Sequence[int], block_bytes: int) -> list[BlockMap]:
    """Return the map of each file; what a later chunk says about a block replaces what an earlier one said.

    Parameters
    ----------
    headers : iterable of ChunkHeader
        Of the oldest copy first, in the order of their sequence numbers.
    file_bytes : sequence of int
        Size of each file; blocks beyond it are left out.
    block_bytes : int
    """
    rows: list[list[npt.NDArray[np.void]]] = [[] for _ in file_bytes]
    for header in headers:
        if header.file < len(rows):
            rows[header.file].append(header.blocks)
    return [_latest(parts, -(-size // block_bytes)) for parts, size in zip(rows, file_bytes, strict=True)]


def _latest(parts: list[npt.NDArray[np.void]], blocks: int) -> BlockMap:
    if parts:
        rows = np.concatenate(parts)
        # of equal blocks the last one counts: the first, seen from behind
        block, from_behind = np.unique(rows["block"][::-1], return_index=True)
        chosen = len(rows) - 1 - from_behind[block < blocks]
        rows = rows[chosen]
        rows = rows[rows["slot"] != ZEROS]
    else:
        rows = np.empty(0, BLOCKS)
    return BlockMap(
        **{name: rows[name].astype(np.int64) for name in ("block", "copy", "sequence", "slot")},
        signature=np.ascontiguousarray(rows["signature"]),
    )
