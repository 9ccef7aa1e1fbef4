"""What a learned predictor is told of a block: what it belongs to, and what others did with its like.

`describe_disk` says what a manifest alone shows. `Evidence` is what recorded boots add: how often, and when,
the same content, the same place in the same file, the file, and files of the same directory were read.

Everything here has to mean the same on a machine never seen. So there are no addresses, exact sizes or
positions: with one recorded machine they only serve to recognise that machine's own files. Measured on the
recorded machines, each of them made predictions for the other one worse, as did the rates of neighbours.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.observed import blocks_read
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import Manifest

__all__ = ["FEATURES", "TREND", "Evidence", "block_features", "describe_disk", "observe"]

# what a block has in common with blocks of other disks, from the most to the least specific
KEYS = ("content", "place", "file", "directory")

# 1: more of it never makes a read less probable; -1: never more probable; 0: free
TREND = {
    "kind": 0,
    "program": 0,  # 2 = regular file in a bin directory, 1 = shared library, 0 = neither
    "of_service": 1,  # 1 = the path names an installed service
    "size": -1,  # of the file, in powers of two: of big files less is read
    "content_rate": 1,
    "place_rate": 1,
    "file_rate": 1,
    "directory_rate": 1,
    "content_time": 0,
    "place_time": 0,
    "file_time": 0,
    "directory_time": 0,
}
FEATURES = tuple(TREND)

# a machine's own random names, then versions
_RANDOM_NAME = r"[0-9a-f]{8}[0-9a-f-]*"
_NUMBER = r"[0-9]+"
# what is installed counts: the links that enable a service hold no block, so a manifest may lack them
_SERVICE = r"(?:/etc/init\.d/|/systemd/system/)([A-Za-z][A-Za-z0-9_-]*)(?:@?\.service)?$"


def describe_disk(manifest: Manifest) -> pl.DataFrame:
    """Say of each block that is not all zeros what the manifest alone shows.

    Returns
    -------
    polars.DataFrame
        ``block``; `KEYS`, null where a block belongs to no file; ``own_file``, the number of its file on this
        disk; and the features ``kind, program, of_service, size``.
    """
    return (
        manifest.blocks.with_row_index("block")
        .with_columns(pl.col("block").cast(pl.Int64))
        .filter(pl.col("content") != 0)
        .rename({"file": "own_file"})
        .join(_describe_files(manifest.files), on="own_file", how="left", maintain_order="left")
        .with_columns(
            place=pl.when(pl.col("file").is_not_null()).then(pl.struct("file", "file_block").hash(seed=1))
        )
    )


def _describe_files(files: pl.DataFrame) -> pl.DataFrame:
    path = pl.col("path")
    normal = path.str.replace_all(_RANDOM_NAME, "#").str.replace_all(_NUMBER, "#")
    in_bin = (pl.col("kind") == "regular") & path.str.contains(r"/s?bin/")
    is_library = path.str.contains(r"\.so(\.|$)")
    return files.select(
        own_file=pl.row_index().cast(pl.Int32),
        file=normal.hash(seed=2),
        directory=normal.str.replace(r"/?[^/]*$", "").hash(seed=3),
        # where packages keep what is theirs: /usr/lib/postgresql, /var/lib/dpkg
        branch=normal.str.extract(r"^(/?[^/]*/[^/]*/[^/]*)").fill_null("").hash(seed=4),
        kind=pl.col("kind").to_physical(),
        program=pl.when(in_bin).then(2).when(is_library).then(1).otherwise(0),
        of_service=_names_a_service(files["path"]),
        size=(pl.col("size") + 1).log(2.0).floor(),
    )


def _names_a_service(paths: pl.Series) -> pl.Series:
    """Tell which paths name an installed service: where there is an nginx.service, /usr/sbin/nginx does."""
    services = paths.str.extract(_SERVICE).drop_nulls().unique().sort().to_list()
    if not services:
        return pl.Series(values=[False] * len(paths), dtype=pl.Boolean)
    alternatives = "|".join(re.escape(service) for service in services)
    return paths.str.contains(rf"/({alternatives})d?([^a-z]|$)")


def observe(boot: Boot, groups: int) -> pl.DataFrame:
    """Describe the disks of a recorded boot, with what it read.

    Returns
    -------
    polars.DataFrame
        `describe_disk` of all its disks and ``vm``, ``boot``, ``disk``, ``read``, ``first_read_ns`` (null
        where not read); ``file_group`` and ``branch_group``: each file, and each branch of the directory
        tree, is in one of `groups` groups.
    """
    reads = blocks_read(boot).select("disk", "block", "first_read_ns")
    disks = [
        describe_disk(manifest)
        .with_columns(disk=pl.lit(number, pl.UInt8))
        .join(reads, on=["disk", "block"], how="left", maintain_order="left")
        for number, manifest in enumerate(boot.manifests)
    ]
    return pl.concat(disks).with_columns(
        vm=pl.lit(boot.vm),
        boot=pl.lit(boot.boot),
        read=pl.col("first_read_ns").is_not_null(),
        # a block of no file goes by its content
        file_group=pl.coalesce("file", "content") % groups,
        branch_group=pl.coalesce("branch", "content") % groups,
    )


class Evidence:
    """What recorded boots say of contents, places, files and directories.

    Parameters
    ----------
    observations : polars.DataFrame
        Of one or more boots, see `observe`.
    changed : polars.Expr, optional
        Rows whose contents are to be overlooked, as if those blocks had changed since.
    """

    def __init__(self, observations: pl.DataFrame, changed: pl.Expr | None = None) -> None:
        unchanged = observations if changed is None else observations.filter(~changed)
        self.tables = {key: _rates(unchanged if key == "content" else observations, key) for key in KEYS}

    def of(self, blocks: pl.DataFrame) -> pl.DataFrame:
        """Return ``<key>_rate`` and ``<key>_time`` in seconds, one row a block, null where never met."""
        found = {
            key: blocks.select(key).join(table, on=key, how="left", maintain_order="left")
            for key, table in self.tables.items()
        }
        rates = [table["rate"].alias(f"{key}_rate") for key, table in found.items()]
        times = [(table["time"] / 1e9).alias(f"{key}_time") for key, table in found.items()]
        return pl.DataFrame(rates + times)


def _rates(observations: pl.DataFrame, key: str) -> pl.DataFrame:
    """Return how often and when blocks with this key were read, machines counting alike.

    Within one boot a content or place was read or not; of a file it is the share of blocks that was read, and
    of a directory the share of files of which anything was.
    """
    read = pl.col("read").mean() if key == "file" else pl.col("read").any()
    unit = [key, "file"] if key == "directory" else [key]
    return (
        observations.filter(pl.col(key).is_not_null())
        .group_by("vm", "boot", *unit)
        .agg(rate=read.cast(pl.Float64), time=pl.col("first_read_ns").min())
        .group_by("vm", key)
        .agg(pl.col("rate").mean(), pl.col("time").median())
        .group_by(key)
        .agg(pl.col("rate").sort().mean(), pl.col("time").median())
    )


def block_features(blocks: pl.DataFrame, evidence: Evidence) -> npt.NDArray[np.float32]:
    """Return the features of blocks in the light of evidence.

    Parameters
    ----------
    blocks : polars.DataFrame
        See `describe_disk`.
    evidence : Evidence

    Returns
    -------
    ndarray of float32, shape (n, len(FEATURES))
        NaN where nothing is known.
    """
    frame = pl.concat([blocks, evidence.of(blocks)], how="horizontal")
    return frame.select(pl.col(name).cast(pl.Float32).fill_null(np.nan) for name in FEATURES).to_numpy()
