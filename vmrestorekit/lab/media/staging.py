"""What the media agent stages ahead of the reads: cursors along lists of blocks (rule 6 of the clockwork)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.lab.media.cache import ABSENT, QUEUED, ReadCache
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import CAUSES

__all__ = ["FIRST_SET", "PRE_RELOCATION", "RELOCATION_READ", "RELOCATION_STAGING", "Medium", "Stager"]

VM_READ, RELOCATION_READ, FIRST_SET, PRE_RELOCATION, RELOCATION_STAGING = range(len(CAUSES))


class Medium:
    """Where blocks lie on the backup medium, and which have to be read together.

    Attributes
    ----------
    stored : ndarray of bool, shape (blocks,)
    address : memoryview of int
        Of each block, -1 for a hole.
    chunk : memoryview of int, optional
        The chunk that each block has to be read with; default: blocks are read by themselves.
    """

    def __init__(
        self,
        block_bytes: int,
        address: npt.NDArray[np.int64],
        chunk: npt.NDArray[np.int32] | None = None,
        extents: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.block_bytes = block_bytes
        self.stored = address >= 0
        # a view gives integers of Python, and takes no memory
        self.address = np.ascontiguousarray(address, np.int64).data
        self.chunk = None if chunk is None else np.ascontiguousarray(chunk, np.int32).data
        if chunk is not None:
            assert extents is not None, "chunks have to begin and end somewhere"
            self._lay_out_chunks(address, chunk, extents)

    @classmethod
    def of_layout(cls, layout: BackupLayout) -> Medium:
        """Return the medium of a backup copy."""
        return cls(layout.block_bytes, layout.address, *(layout.read_together() or (None, None)))

    def _lay_out_chunks(
        self, address: npt.NDArray[np.int64], chunk: npt.NDArray[np.int32], extents: npt.NDArray[np.int64]
    ) -> None:
        stored = np.flatnonzero(self.stored)
        self._extents = extents
        self._first = np.full(len(extents), len(address), np.int64)
        self._last = np.full(len(extents), -1, np.int64)
        np.minimum.at(self._first, chunk[stored], stored)
        np.maximum.at(self._last, chunk[stored], stored)
        self._by_address = stored[np.argsort(address[stored], kind="stable")]
        self._addresses = address[self._by_address]

    def lies_behind(self, block: int) -> bool:
        """Tell whether a block follows the one before it on the medium."""
        return self.address[block] == self.address[block - 1] + self.block_bytes

    def read_for(self, block: int, count: int) -> tuple[int, int]:
        """Return where a fetch of neighbours begins to read on the medium, and where it ends."""
        last = block + count - 1
        if self.chunk is None:
            return self.address[block], self.address[last] + self.block_bytes
        return int(self._extents[self.chunk[block], 0]), int(self._extents[self.chunk[last], 1])

    def in_chunks_of(self, block: int, count: int) -> tuple[int, int, list[int]]:
        """Return first and last block of a fetch's chunks, and the blocks between that are read with it."""
        assert self.chunk is not None
        chunks = [self.chunk[block], self.chunk[block + count - 1]]
        first, last = int(self._first[chunks].min()), int(self._last[chunks].max())
        start, end = np.searchsorted(self._addresses, self.read_for(block, count))
        read = self._by_address[start:end]
        return first, last, np.sort(read[(read >= first) & (read <= last)]).tolist()


class Stager:
    """The cursors of the first set and of the relocation.

    Attributes
    ----------
    first_set : list of int
        Its stored blocks.
    sequence : ndarray of int64
        The stored blocks in the order of their relocation.
    relocated, marked : bytearray
        Of each block, whether it is on the destination; and the trigger that marked it for purging plus 1.
    """

    def __init__(self, cache: ReadCache, medium: Medium) -> None:
        self.cache, self.medium = cache, medium
        blocks = len(medium.stored)
        self.relocated = bytearray(blocks)
        self.marked = bytearray(blocks)
        self.pre_relocation = self.relocating = self.finished = False
        self.first_set: list[int] = []
        self.sequence = np.empty(0, np.int64)
        self.first_set_at = self.sequence_at = 0

    def follow(self, plan: RestorePlan) -> None:
        """Go by a plan, from the beginning of its lists."""
        stored = self.medium.stored
        chosen = [] if plan.mode == "full_restore" else plan.first_set.tolist()
        self.first_set = [block for block in chosen if stored[block]]
        sequence = plan.sequence.astype(np.int64)
        self.sequence = sequence[stored[sequence]]
        self.position = np.full(len(stored), -1, np.int64)
        self.position[self.sequence] = np.arange(len(self.sequence))
        self.first_set_at = self.sequence_at = 0
        self.priorities = plan.priorities
        size = plan.block_bytes
        self._most = min(plan.stage_fetch_bytes // size, plan.cache_slots)
        self._most_ahead = plan.stage_ahead_limit // size

    def may_stage(self, block: int) -> bool:
        """Tell whether a stager would fetch a block."""
        return bool(
            self.medium.address[block] >= 0
            and not self.relocated[block]
            and not self.marked[block]
            and self.cache.place_of(block) == ABSENT
        )

    def relocation_cause(self) -> int:
        """Return what the relocation's cursor stages for."""
        return RELOCATION_STAGING if self.relocating else PRE_RELOCATION

    def next_of_first_set(self) -> int | None:
        """Return the next block of the first set; the cursor moves behind it."""
        while self.first_set_at < len(self.first_set):
            block = self.first_set[self.first_set_at]
            self.first_set_at += 1
            if self.may_stage(block):
                return block
        return None

    def next_of_relocation(self) -> int | None:
        """Return the next block of the relocation sequence; the cursor moves behind it."""
        if len(self.cache.ahead) >= self._most_ahead:
            return None
        while self.sequence_at < len(self.sequence):
            block = int(self.sequence[self.sequence_at])
            self.sequence_at += 1
            if self.may_stage(block):
                return block
        return None

    def next_of_low_relocation(self) -> int | None:
        """Return the next block that the relocation's cursor gives at low priority."""
        may_give = self.priorities != "as_claimed" if self.relocating else self.pre_relocation
        return self.next_of_relocation() if may_give else None

    def next_low(self) -> tuple[int, int] | None:
        """Return the next block that the cursors give at low priority, first set first, and its cause."""
        block = self.next_of_first_set()
        if block is not None:
            return block, FIRST_SET
        block = self.next_of_low_relocation()
        return None if block is None else (block, self.relocation_cause())

    def take_neighbours(self, block: int, cause: int) -> int:
        """Let the cursor that gave a block give its neighbours too; return how many blocks that makes."""
        of_first_set = cause == FIRST_SET
        most = min(self._most, self.cache.slots_for(staging=True))
        if not of_first_set:
            most = min(most, self._most_ahead - len(self.cache.ahead))
        self.cache.copy_of(block).place = QUEUED
        count = 1
        while count < most and self._stands_at(block + count, of_first_set):
            following = block + count
            if not (self.medium.lies_behind(following) and self.may_stage(following)):
                break
            self.cache.copy_of(following).place = QUEUED
            if of_first_set:
                self.first_set_at += 1
            else:
                self.sequence_at += 1
            count += 1
        if not of_first_set:
            self.cache.ahead.update(range(block, block + count))
        return count

    def _stands_at(self, block: int, of_first_set: bool) -> bool:
        if of_first_set:
            return self.first_set_at < len(self.first_set) and self.first_set[self.first_set_at] == block
        return self.sequence_at < len(self.sequence) and bool(self.sequence[self.sequence_at] == block)

    def take_back(self, block: int, cause: int, first_set_at: int) -> None:
        """Return a cursor to a block that it gave and that found no slot."""
        if cause == FIRST_SET:
            self.first_set_at = min(self.first_set_at, first_set_at)
        else:
            self.sequence_at = min(self.sequence_at, int(self.position[block]))
