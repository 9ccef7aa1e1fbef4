"""A list of what was picked for a first set, and the blocks that come of it, in the order of staging."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["ORDERS", "BlockArray", "Picks"]

BlockArray = npt.NDArray[np.int32]

AS_PICKED, DISK_ORDER, BACKWARDS = ORDERS = ("as picked", "in the order of the disk", "backwards")


class Picks:
    """Names with their blocks, in an order that can be changed; a block counts where it comes first."""

    def __init__(self) -> None:
        self._named: dict[str, BlockArray] = {}

    def __len__(self) -> int:
        return len(self._named)

    @property
    def names(self) -> list[str]:
        """What is picked, in order."""
        return list(self._named)

    @property
    def sizes(self) -> dict[str, int]:
        """What is picked, with its number of blocks."""
        return {name: blocks.size for name, blocks in self._named.items()}

    def add(self, name: str, blocks: BlockArray) -> bool:
        """Add blocks behind the others; return whether they are new."""
        if name in self._named:
            return False
        self._named[name] = blocks
        return True

    def remove(self, at: int) -> None:
        """Drop one by its place."""
        del self._named[self.names[at]]

    def earlier(self, at: int) -> None:
        """Put one in front of the one before it."""
        items = list(self._named.items())
        items[at - 1 : at + 1] = reversed(items[at - 1 : at + 1])
        self._named = dict(items)

    def clear(self) -> None:
        """Drop everything."""
        self._named.clear()

    def blocks(self, order: str = AS_PICKED) -> BlockArray:
        """Return all blocks, each once, in an order of `ORDERS`."""
        picked = np.concatenate([np.empty(0, np.int32), *self._named.values()])
        _, first = np.unique(picked, return_index=True)
        blocks = picked[np.sort(first)].astype(np.int32)
        if order == AS_PICKED:
            return blocks
        blocks.sort()
        return blocks if order == DISK_ORDER else np.ascontiguousarray(blocks[::-1])
