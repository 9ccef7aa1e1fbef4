"""Lists of what other machines read: the nearest one's, or the union of them all.

Baselines, to be beaten: they learn nothing but the list, and the order of the list is all they say. Their
probabilities are 0 or 1 and no estimates, see `replayed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.mapped import (
    accesses,
    block_keys,
    expect_way,
    keyed_reads,
    pool,
    replayed,
    states_let_go,
)
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot

__all__ = ["ORDERS", "NearestReplay", "UnionReplay"]

# column of `pool` by the name of the order
ORDERS = {"first_access": "first_ns", "mean_access": "mean_ns"}
# of each machine so many hashes are kept: the share of equal blocks is then known to about 0.4 %
SKETCH = 1 << 14

HashArray = npt.NDArray[np.uint64]


class UnionReplay(BlockPredictor):
    """Everything that any of the machines read, in the order in which they did.

    Parameters
    ----------
    order : {"first_access", "mean_access"}
        ``first_access``: by the earliest read in any boot. ``mean_access``: by the mean time of all reads in
        a boot, averaged over the boots of a machine that read the block, then over machines.
    by : {"address", "content", "path"}
        What makes a block the same on another machine, see `vmrestorekit.predict.mapped`.

    Attributes
    ----------
    times_ : polars.DataFrame
        ``key`` and ``first_read_ns``, its time in the order; a row for each block that was ever read.
    """

    def __init__(self, order: str = "first_access", by: str = "address") -> None:
        self.order = order
        self.by = by

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        if self.order not in ORDERS:
            raise PredictError(f"order: expected one of {', '.join(ORDERS)}, got {self.order!r}")
        found = accesses(boots, self.by)
        pooled = pool(found, machines=len({boot.vm for boot in boots}))
        self.times_ = pooled.select("key", first_read_ns=ORDERS[self.order])

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        return replayed(manifest, disk, self.by, self.times_)


class NearestReplay(BlockPredictor):
    """The last boot of the machine whose disks are most like the one to be predicted.

    Likeness is the share of the disk's stored blocks, each key once, that the other machine has, too, before
    its last boot: ``address``: equal contents at equal addresses; ``content``: equal contents anywhere;
    ``path``: equal places in files. It is estimated from the `SKETCH` smallest hashes of each (bottom-k
    sketches: Cohen and Kaplan, PODC 2007) and exact for smaller disks. Each disk of a machine is asked for by
    itself and may have another nearest machine.

    Parameters
    ----------
    by : {"address", "content", "path"}
        What makes a block the same on another machine, see `vmrestorekit.predict.mapped`.

    Attributes
    ----------
    machines_ : tuple of str
        Whose boots were given, by name.
    sketches_ : tuple of ndarray of uint64
        Of each machine the smallest hashes of its stored blocks, ascending.
    times_ : tuple of polars.DataFrame
        Of each machine ``key`` and ``first_read_ns`` of its last boot.
    """

    def __init__(self, by: str = "address") -> None:
        self.by = by

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        expect_way(self.by)
        last = {boot.vm: boot for boot in boots}  # of several boots of a machine the last stays
        self.machines_ = tuple(sorted(last))
        sketches, times = [], []
        for machine in self.machines_:
            # a state is stored as changes since the one before, which is then held, too
            with states_let_go([boot for boot in boots if boot.vm == machine]):
                reads = keyed_reads(last[machine], self.by)
                sketches.append(_sketch_of(last[machine], self.by))
            times.append(reads.select("key", first_read_ns="first_ns"))
        self.sketches_ = tuple(sketches)
        self.times_ = tuple(times)

    def likeness(self, manifest: Manifest, disk: int = 0) -> dict[str, float]:
        """Return of each machine which share of a disk's stored blocks it has, too, from 0 to 1.

        Parameters
        ----------
        manifest : Manifest
        disk : int
            Which disk of its machine this is.
        """
        asked = _sketch(_hashes(manifest, disk, self.by))
        shares = [_share(asked, known) for known in self.sketches_]
        return dict(zip(self.machines_, shares, strict=True))

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        likeness = self.likeness(manifest, disk)
        # of machines equally near, such as those that have nothing in common with it, the first by name
        nearest = max(likeness, key=likeness.__getitem__)
        return replayed(manifest, disk, self.by, self.times_[self.machines_.index(nearest)])


def _sketch_of(boot: Boot, by: str) -> HashArray:
    """Return the sketch of all disks before a boot; it is kept with the boot, whose states are large."""
    kept: dict[str, HashArray] = vars(boot).setdefault("_sketches", {})
    if by not in kept:
        disks = [_hashes(manifest, disk, by) for disk, manifest in enumerate(boot.manifests)]
        kept[by] = _sketch(np.concatenate(disks))
    return kept[by]


def _hashes(manifest: Manifest, disk: int, by: str) -> HashArray:
    """Return hashes of the stored blocks of a disk; equal for blocks that are the same in that way."""
    content = manifest.blocks["content"].to_numpy()
    keys = block_keys(manifest, disk, by)
    has_key = (content != 0) & keys.is_not_null().to_numpy()
    value = keys.fill_null(0).to_numpy()[has_key]
    if by == "address":
        value = _mix(value) ^ content[has_key]
    return _mix(value)


def _mix(value: HashArray) -> HashArray:
    """Spread numbers evenly: the end of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    value = value ^ (value >> np.uint64(30))
    value = value * np.uint64(0xBF58476D1CE4E5B9)
    value = value ^ (value >> np.uint64(27))
    value = value * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _sketch(hashes: HashArray) -> HashArray:
    return np.unique(hashes)[:SKETCH].copy()


def _share(asked: HashArray, known: HashArray) -> float:
    """Return which share of one set is in another one, from their sketches."""
    # beyond the last hash of a full sketch nobody knows what is there
    ends = [sketch[-1] for sketch in (asked, known) if sketch.size == SKETCH]
    if ends:
        asked = asked[asked <= min(ends)]
    return float(np.isin(asked, known).mean()) if asked.size else 0.0
