"""What recorded boots read, under keys that say what makes a block of one disk the same as one of another.

``address``: the same place on the disk of the same number. ``content``: the same 4 KiB, wherever they lie;
zeros are the same as nothing. ``path``: the same place in a file of the same path, where numbers and random
names in paths are overlooked, as releases and machines differ in them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from vmrestorekit.predict.base import SCORES_SCHEMA
from vmrestorekit.predict.observed import PredictError, blocks_covered, blocks_read
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES, Manifest
from vmrestorekit.traces.working_set import boot_blocks, until_boot_done

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot

__all__ = [
    "WAYS",
    "accesses",
    "block_keys",
    "expect_way",
    "keyed_reads",
    "pool",
    "replayed",
    "states_held",
    "states_let_go",
]

WAYS = ("address", "content", "path")

# a machine's own random names, then versions
_OVERLOOKED = (r"[0-9a-f]{8}[0-9a-f-]*", r"[0-9]+")
# an odd number near 2^64 / golden ratio: its multiples, modulo 2^64, are far from each other
_STEP = pl.lit(0x9E3779B97F4A7C15, pl.UInt64)
_DISK_STEP = pl.lit(1 << 40, pl.UInt64)  # in blocks: more than any disk has

_KEYS = {
    "address": pl.col("disk").cast(pl.UInt64) * _DISK_STEP + pl.col("block").cast(pl.UInt64),
    "content": pl.when(pl.col("content") != 0).then(pl.col("content")),
    # null where a block is of no file; the sum wraps
    "path": pl.col("path_hash") + pl.col("file_block").cast(pl.UInt64) * _STEP,
}


def expect_way(by: str) -> None:
    """Check the name of a way to tell which blocks are the same.

    Raises
    ------
    PredictError
        Lists the ways there are.
    """
    if by not in WAYS:
        raise PredictError(f"by: expected one of {', '.join(WAYS)}, got {by!r}")


def block_keys(manifest: Manifest, disk: int, by: str) -> pl.Series:
    """Return the key of each 4 KiB block of a disk.

    Parameters
    ----------
    manifest : Manifest
    disk : int
        Which disk of its machine this is.
    by : {"address", "content", "path"}

    Returns
    -------
    polars.Series of UInt64
        Null where a block has no key.
    """
    blocks = manifest.blocks.with_row_index("block").with_columns(disk=pl.lit(disk))
    if by == "path":
        hashes = np.append(_hash_paths(manifest.files["path"]), np.uint64(0))
        blocks = blocks.with_columns(path_hash=hashes[blocks["file"].fill_null(-1).to_numpy()])
    return blocks.select(key=_KEYS[by])["key"]


def _hash_paths(paths: pl.Series) -> npt.NDArray[np.uint64]:
    """Return a hash of each path that is the same on every machine, in every process and version."""
    for pattern in _OVERLOOKED:
        paths = paths.str.replace_all(pattern, "#")
    return np.array([xxhash.xxh3_64_intdigest(path.encode()) for path in paths], np.uint64)


def keyed_reads(boot: Boot, by: str) -> pl.DataFrame:
    """Return what a boot read until its end, under keys.

    Parameters
    ----------
    boot : Boot
    by : {"address", "content", "path"}

    Returns
    -------
    polars.DataFrame
        ``key``, each once, ascending; ``count``, requests that read it, of several places with this key those
        to the one most read; ``mean_ns`` and ``first_ns``, on the recording's clock: mean time of its reads,
        time of the first one.

    Raises
    ------
    PredictError
        If the boot never ended.
    """
    needed = blocks_read(boot)
    reads = until_boot_done(boot).filter(pl.col("op") == "read")
    row, block = blocks_covered(reads["offset"].to_numpy(), reads["length"].to_numpy(), MANIFEST_BLOCK_BYTES)
    touched = reads[row].select("disk", "issued_ns", block=pl.Series(block))
    means = touched.group_by("disk", "block").agg(mean_ns=pl.col("issued_ns").mean())
    found = needed.join(means, on=["disk", "block"], maintain_order="left")
    if by != "address":
        # what was read is kept with the boot, so that a second look at it needs no state of a disk
        found = found.join(_described(boot, by), on=["disk", "block"], maintain_order="left")
    return (
        found.with_columns(key=_KEYS[by])
        .drop_nulls("key")
        .group_by("key", maintain_order=True)
        .agg(
            count=pl.col("reads").max().cast(pl.Float64),
            mean_ns=pl.col("mean_ns").mean(),
            first_ns=pl.col("first_read_ns").min().cast(pl.Float64),
        )
        .sort("key")
    )


def _described(boot: Boot, by: str) -> pl.DataFrame:
    blocks = boot_blocks(boot)
    if by == "path":
        paths = blocks["path"].drop_nulls().unique()
        hashes = pl.DataFrame({"path": paths, "path_hash": _hash_paths(paths)})
        blocks = blocks.join(hashes, on="path", how="left", maintain_order="left")
    return blocks


def accesses(boots: Sequence[Boot], by: str) -> pl.DataFrame:
    """Return what machines read, one row a machine and key; the boots of a machine count alike.

    Parameters
    ----------
    boots : sequence of Boot
    by : {"address", "content", "path"}

    Returns
    -------
    polars.DataFrame
        ``vm``; ``key``; ``count``, reads a boot, those boots counted that read nothing of it; ``mean_ns``,
        mean over the boots that read it; ``first_ns``, the earliest of any boot. By vm and key.

    Raises
    ------
    PredictError
        If there is no such way, or a boot never ended.
    """
    expect_way(by)
    machines = []
    for vm, own in itertools.groupby(sorted(boots, key=lambda boot: boot.vm), key=lambda boot: boot.vm):
        recorded = list(own)
        with states_let_go(recorded):
            read = pl.concat([keyed_reads(boot, by) for boot in recorded])
        machines.append(
            read.group_by("key", maintain_order=True)
            .agg(pl.col("count").sum() / len(recorded), pl.col("mean_ns").mean(), pl.col("first_ns").min())
            .select(pl.lit(vm).alias("vm"), "key", "count", "mean_ns", "first_ns")
            .sort("key")
        )
    return pl.concat(machines)


@contextlib.contextmanager
def states_let_go(boots: Sequence[Boot]) -> Iterator[None]:
    """Drop, afterwards, the states of the disks that boots did not hold before: all do not fit in memory."""
    held = [boot for boot in boots if "manifests" in vars(boot)]
    yield
    for boot in boots:
        if not any(boot is other for other in held):
            boot.drop_manifests()


@contextlib.contextmanager
def states_held(boots: Sequence[Boot]) -> Iterator[None]:
    """Hold the states of the disks before boots of a machine, until all that asks for them has been done.

    A state is stored as changes since the one before, so that of the last boot is dear to read twice.
    """
    with states_let_go(boots):
        for boot in boots:
            _ = boot.manifests
        yield


def pool(found: pl.DataFrame, machines: int) -> pl.DataFrame:
    """Sum up over machines, all of which count alike.

    Parameters
    ----------
    found : polars.DataFrame
        See `accesses`.
    machines : int
        How many there are; one that read nothing has no row.

    Returns
    -------
    polars.DataFrame
        ``key``, ascending; ``count``, reads a boot, machines counted that read nothing of it; ``mean_ns``,
        mean over the machines that read it; ``first_ns``, the earliest of any boot.
    """
    return (
        found.group_by("key", maintain_order=True)
        .agg(pl.col("count").sum() / machines, pl.col("mean_ns").mean(), pl.col("first_ns").min())
        .sort("key")
    )


def replayed(manifest: Manifest, disk: int, by: str, times: pl.DataFrame) -> pl.DataFrame:
    """Score a disk by a list of what to expect: what is on it is certain, all else is never read.

    Certain are all alike because only so a list keeps an order of its own: `staging_order` puts equally
    probable blocks in the order of their times, and cuts there, too. Shares of machines as probabilities
    would put what few of them read behind what most did.

    Parameters
    ----------
    manifest : Manifest
    disk : int
    by : {"address", "content", "path"}
    times : polars.DataFrame
        ``key``, each once, and ``first_read_ns``.

    Returns
    -------
    polars.DataFrame
        `SCORES_SCHEMA`, one row a 4 KiB block of the disk.
    """
    keys = block_keys(manifest, disk, by).to_frame("key")
    found = keys.join(times, on="key", how="left", maintain_order="left").select(
        pl.col("first_read_ns").is_not_null().cast(pl.Float64).alias("probability"),
        pl.col("first_read_ns").cast(pl.Float64),
    )
    return found.match_to_schema(SCORES_SCHEMA)
