"""In which order to stage what may be read: the one with the least expected stall, on this hardware.

Staging what is likely in the order of its expected reads has each block there when the machine comes to it.
How likely is likely enough depends on the device. Where it is slow, the boot waits for bytes, and a wasted
one delays all that follow; where it is fast, bytes cost nothing and each miss costs a fetch. And where
positioning is dear, neighbours are better fetched one after the other, even if one of them is needed later.

So several orders are made, which differ in how probable a block must be to be staged by its time, and in how
long a span of time is staged in the order of the medium. Each is followed through a boot in expectation, and
the one with the least stall is taken, or one that is usual and hardly worse.
"""

from __future__ import annotations

import dataclasses
import itertools

import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.cache_blocks import LIKELY, staging_order
from vmrestorekit.predict.observed import PredictError

__all__ = ["StagingDevice", "expected_stall_ns", "least_stall_order"]

Order = npt.NDArray[np.int32]

# the usual order first
THRESHOLDS = (LIKELY, 0.35, 0.2, 0.1, 0.05, 0.02)
SPANS_NS = (0, 250_000_000, 1_000_000_000, 4_000_000_000)
# as much less stall an order has to promise than one before it: times are not more certain
WORTHWHILE = 0.02


@dataclasses.dataclass(frozen=True)
class StagingDevice:
    """What ordering needs to know of the backup device, and of the time before the launch.

    Attributes
    ----------
    bandwidth : int
        Bytes per second.
    positioning_ns : int
        Before each fetch that does not go on where the last one ended.
    head_start_ns : int
        In which staging is alone, before the machine is launched.

    Raises
    ------
    PredictError
        If one makes no sense.
    """

    bandwidth: int
    positioning_ns: int = 0
    head_start_ns: int = 0

    def __post_init__(self) -> None:
        for name, least in (("bandwidth", 1), ("positioning_ns", 0), ("head_start_ns", 0)):
            if getattr(self, name) < least:
                raise PredictError(f"device: expected {name} of at least {least}, got {getattr(self, name)}")


def least_stall_order(
    scores: pl.DataFrame, most: int | None, block_bytes: int, device: StagingDevice
) -> Order:
    """Return cache blocks in the order in which they are to be staged on a device.

    Parameters
    ----------
    scores : polars.DataFrame
        `CACHE_BLOCKS_SCHEMA`, a row a block; several disks one after the other. The medium is taken to have
        the stored blocks in this order.
    most : int, optional
        How many blocks at most; default: as many as have a chance.
    block_bytes : int
    device : StagingDevice

    Returns
    -------
    ndarray of int32, shape (n,)
        Row numbers.
    """
    spans = SPANS_NS if device.positioning_ns else SPANS_NS[:1]
    orders = [
        _by_spans(staging_order(scores, most, threshold), scores, threshold, span_ns)
        for span_ns, threshold in itertools.product(spans, THRESHOLDS)
    ]
    stalls = [expected_stall_ns(order, scores, block_bytes, device) for order in orders]
    good = (1 + WORTHWHILE) * min(stalls)
    return next(order for order, stall in zip(orders, stalls, strict=True) if stall <= good)


def _by_spans(order: Order, scores: pl.DataFrame, threshold: float, span_ns: int) -> Order:
    """Put what is likely, and expected within the same span of time, in the order of the medium."""
    if not span_ns:
        return order
    probability = scores["probability"].to_numpy()[order]
    time = scores["first_read_ns"].fill_null(np.inf).to_numpy()[order]
    likely = int(np.count_nonzero(probability.round(2) >= threshold))
    finite = np.where(np.isfinite(time[:likely]), time[:likely], np.finfo(np.float64).max)
    spans = np.floor(finite / span_ns)
    return np.concatenate([order[:likely][np.lexsort((order[:likely], spans))], order[likely:]])


def expected_stall_ns(order: Order, scores: pl.DataFrame, block_bytes: int, device: StagingDevice) -> float:
    """Return by how much a boot is expected to be delayed if blocks are staged in this order.

    The boot comes to its blocks in the order of their expected times, later by the delay so far. A block that
    is staged by then costs nothing; one that is being fetched, the rest of its fetch; any other waits for the
    fetch under way and for its own, for which staging stands still, and which staging need not repeat. All of
    that counts with the probability that the block is read.

    Parameters
    ----------
    order : ndarray of int32, shape (n,)
        Row numbers of `scores`.
    scores : polars.DataFrame
        `CACHE_BLOCKS_SCHEMA`.
    block_bytes : int
    device : StagingDevice
    """
    stored = scores["stored"].to_numpy()
    address = np.cumsum(stored)  # where the medium has it
    transfer_ns = block_bytes * 1e9 / device.bandwidth
    goes_on = np.diff(address[order], prepend=-1) == 1
    place = np.full(stored.size, order.size)
    place[order] = np.arange(order.size)
    probability = scores["probability"].to_numpy()
    time = scores["first_read_ns"].fill_null(np.inf).to_numpy()
    asked = np.flatnonzero(stored & (probability > 0) & np.isfinite(time))
    asked = asked[np.argsort(time[asked], kind="stable")]
    return float(
        _delay(
            time[asked] + device.head_start_ns,
            probability[asked],
            place[asked],
            np.where(goes_on, transfer_ns, transfer_ns + device.positioning_ns),
            transfer_ns + device.positioning_ns,
        )
    )


@numba.njit(cache=True, nogil=True)
def _delay(asked_at, probability, place, staging_ns, fetch_ns):  # type: ignore[no-untyped-def]
    delay = 0.0  # of the boot
    free_at = 0.0  # when staging begins with the block at the cursor
    cursor = 0
    left_ns = staging_ns.copy()  # what is left to fetch of each block, in expectation
    for row in range(asked_at.size):
        now = asked_at[row] + delay
        while cursor < left_ns.size and free_at + left_ns[cursor] <= now:
            free_at += left_ns[cursor]
            cursor += 1
        if place[row] < cursor:
            continue
        chance = probability[row]
        under_way = (
            max(free_at + left_ns[cursor] - now, 0.0) if cursor < left_ns.size and free_at < now else 0.0
        )
        if place[row] == cursor and under_way > 0:
            delay += chance * under_way
            continue
        delay += chance * (under_way + fetch_ns)
        free_at += chance * fetch_ns
        if place[row] < left_ns.size:
            left_ns[place[row]] *= 1 - chance
    return delay
