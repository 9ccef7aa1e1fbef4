"""The read cache alone: replay block accesses through an eviction policy, and the curve for all cache sizes.

No time passes here: what is missing is there at once. That answers which policy keeps what is needed, and how
much a larger cache would help; how long a virtual machine waits, only the simulation tells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import first_block_of_disk
from vmrestorekit.restore.eviction import PolicyError, new_policy
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["CURVE_SCHEMA", "ReplayResult", "block_accesses", "miss_ratio_curve", "replay_cache"]

DEFAULT_BLOCK_BYTES = 64 << 10
CURVE_SCHEMA = pl.Schema(
    {"cache_blocks": pl.Int64(), "cache_bytes": pl.Int64(), "miss_ratio": pl.Float64()},
)

Accesses = ReadTrace | npt.NDArray[Any] | pl.Series | Sequence[int]


@dataclasses.dataclass(frozen=True)
class ReplayResult:
    """What a cache made of a series of block accesses.

    Attributes
    ----------
    policy : str
        A name of `vmrestorekit.restore.eviction.EVICTION_POLICIES`.
    capacity_blocks : int
        Slots of the cache.
    hits, misses : int
        Block accesses that found their block in the cache, and those that did not.
    """

    policy: str
    capacity_blocks: int
    hits: int
    misses: int

    @property
    def accesses(self) -> int:
        """Number of block accesses."""
        return self.hits + self.misses

    @property
    def miss_ratio(self) -> float:
        """Misses as a share of all accesses; 0 if there were none."""
        return self.misses / self.accesses if self.accesses else 0.0


def block_accesses(
    trace: ReadTrace, block_bytes: int = DEFAULT_BLOCK_BYTES, ops: Sequence[str] = ("read",)
) -> npt.NDArray[np.int32]:
    """Return the blocks that the requests of a trace touch, in order; those of a request ascend.

    Parameters
    ----------
    trace : ReadTrace
    block_bytes : int
        A power of two.
    ops : sequence of str
        Which requests count.

    Returns
    -------
    ndarray of int32
        Blocks are numbered over all disks, each beginning at a block.

    Raises
    ------
    PolicyError
        If the block size is no power of two.
    """
    if block_bytes < 1 or block_bytes & (block_bytes - 1):
        raise PolicyError(f"block_bytes: expected a power of two, got {block_bytes}")
    frame = trace.frame.filter(pl.col("op").is_in(list(ops)) & (pl.col("length") > 0))
    start = np.array(first_block_of_disk(trace.metadata.disk_bytes, block_bytes))
    offset, length = frame["offset"].to_numpy(), frame["length"].to_numpy()
    first = offset // block_bytes
    count = (offset + length - 1) // block_bytes - first + 1
    first = first + start[frame["disk"].to_numpy()]
    # 0, 1, … within each request
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    blocks: npt.NDArray[np.int32] = (np.repeat(first, count) + within).astype(np.int32)
    return blocks


def replay_cache(
    accesses: Accesses,
    capacity_blocks: int,
    policy: str = "lru",
    *,
    block_bytes: int = DEFAULT_BLOCK_BYTES,
) -> ReplayResult:
    """Replay block accesses through a cache that fetches what is missing at once.

    Parameters
    ----------
    accesses : ReadTrace or array-like of int
        A trace, whose reads are cut into blocks, or block numbers.
    capacity_blocks : int
        Slots of the cache.
    policy : str
        A name of `vmrestorekit.restore.eviction.EVICTION_POLICIES`.
    block_bytes : int
        Used for a trace only.

    Returns
    -------
    ReplayResult

    Raises
    ------
    PolicyError
        If the policy is unknown, the capacity or the block size out of range, or a block number no integer.

    Examples
    --------
    >>> replay_cache([1, 2, 3, 1, 2], capacity_blocks=2, policy="belady").hits
    1
    """
    numbers, blocks = _dense(accesses, block_bytes)
    if capacity_blocks < 1:
        raise PolicyError(f"capacity_blocks: expected at least 1, got {capacity_blocks}")
    hits = _replay(numbers, blocks, capacity_blocks, policy)
    return ReplayResult(policy, capacity_blocks, hits, len(numbers) - hits)


def miss_ratio_curve(accesses: Accesses, *, block_bytes: int = DEFAULT_BLOCK_BYTES) -> pl.DataFrame:
    """Return LRU's miss ratio for every cache size, exact, in one pass.

    Parameters
    ----------
    accesses : ReadTrace or array-like of int
        A trace, whose reads are cut into blocks, or block numbers.
    block_bytes : int
        Size of a block, for a trace and for the column `cache_bytes`.

    Returns
    -------
    polars.DataFrame
        `CURVE_SCHEMA`, one row a size from 1 to the number of distinct blocks; beyond that nothing changes.

    Raises
    ------
    PolicyError
        If the block size is no power of two, or a block number no integer.
    """
    from vmrestorekit.restore import distances  # numba takes a second to import

    numbers, blocks = _dense(accesses, block_bytes)
    times = _round_up(min(max(4 * blocks, 1 << 16), max(len(numbers), 1)), int(distances.GROUP))
    times = max(times, _round_up(blocks + 1, int(distances.GROUP)))
    counts = np.zeros(blocks + 1, np.int64)
    distinct = distances.count_distances(
        numbers,
        np.full(blocks, -1, np.int32),
        np.empty(times, np.int32),
        np.zeros(times >> int(distances.WORD_SHIFT), np.uint64),
        np.zeros((times >> int(distances.GROUP_SHIFT)) + 1, np.int32),
        counts,
    )
    sizes = np.arange(1, distinct + 1)
    hits = np.cumsum(counts[1 : distinct + 1])
    return pl.DataFrame(
        {
            "cache_blocks": sizes,
            "cache_bytes": sizes * block_bytes,
            "miss_ratio": (len(numbers) - hits) / max(len(numbers), 1),
        },
        schema=CURVE_SCHEMA,
    )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _replay(numbers: npt.NDArray[np.int32], blocks: int, capacity: int, policy: str) -> int:
    from vmrestorekit.restore import distances, policies

    if policy == "lru":
        slot_of = np.full(blocks, -1, np.int32)
        return int(distances.replay_lru(numbers, slot_of, np.empty((min(capacity, blocks) + 1, 3), np.int32)))
    next_use = np.empty(0, np.int64)
    arrays = new_policy(policy, blocks, capacity)
    if policy == "belady":
        next_use = np.empty(len(numbers), np.int64)
        policies.find_next_uses(numbers, next_use, np.full(blocks, policies.NEVER))
    return int(policies.replay(arrays.caches, numbers, next_use))


def _dense(accesses: Accesses, block_bytes: int) -> tuple[npt.NDArray[np.int32], int]:
    """Return block numbers from 0 on, as the kernels want them, and how many blocks there may be."""
    if isinstance(accesses, ReadTrace):
        accesses = block_accesses(accesses, block_bytes)
    given = np.asarray(accesses)
    if given.size == 0:
        return np.empty(0, np.int32), 1
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise PolicyError(
            "accesses: expected a trace or block numbers in one dimension, "
            f"got {given.dtype} of shape {given.shape}"
        )
    lowest, highest = int(given.min()), int(given.max())
    if lowest < 0 or highest >= max(8 * len(given), 1 << 20):
        # few of many possible blocks: ranks take less memory than a table of all
        distinct, ranks = np.unique(given, return_inverse=True)
        return ranks.astype(np.int32), len(distinct)
    # numba compiles a second version for an array that is read-only
    numbers = np.require(given, np.int32, ["C_CONTIGUOUS", "WRITEABLE"])
    return numbers, highest + 1
