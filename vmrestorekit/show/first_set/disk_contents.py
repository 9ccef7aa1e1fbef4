"""What the blocks of a read cache hold: which files, of which kinds, in which folders."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import DEFAULT_BLOCK_BYTES, first_block_of_disk
from vmrestorekit.show.first_set.first_touch_map import kinds_of_files
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = ["WAYS_TO_PICK", "DiskContents"]

BlockArray = npt.NDArray[np.int32]

# how blocks can be picked -> the column that names them
WAYS_TO_PICK = {"kind of file": "what", "folder": "folder", "file": "path"}
_DEEPEST = 3  # folders below are counted with the one above
_NO_FILE = "(no file)"


class DiskContents:
    """The stored blocks of a boot's disks, and what is in them before the boot.

    Parameters
    ----------
    boot : Boot
    block_bytes : int
        Of a block of the read cache; a block that holds a part of a file counts as a whole.

    Attributes
    ----------
    stored : ndarray of int32
        Blocks that hold anything, ascending.
    pieces : polars.DataFrame
        ``block``, ``what`` (kind of file), ``path``, ``folder``, and ``count``: how many 4 KiB blocks.
    """

    def __init__(self, boot: Boot, block_bytes: int = DEFAULT_BLOCK_BYTES) -> None:
        self.block_bytes = block_bytes
        per_block = block_bytes // MANIFEST_BLOCK_BYTES
        disks = []
        for disk, first in enumerate(first_block_of_disk(boot.disk_bytes, block_bytes)):
            manifest = boot.manifests[disk]
            held = (
                manifest.blocks.with_row_index("at")
                .filter(pl.col("content") != 0)
                .group_by("file", block=(pl.col("at") // per_block + first).cast(pl.Int32))
                .agg(count=pl.len())
                .join(kinds_of_files(manifest), on="file", how="left")
            )
            named = pl.format("disk {}: {}", pl.lit(disk), "path") if disk else pl.col("path")
            disks.append(
                held.with_columns(path=named.fill_null(_NO_FILE), what=pl.col("what").fill_null("other"))
            )
        folder = pl.col("path").str.extract(rf"^((?:/[^/]+){{1,{_DEEPEST}}})/").fill_null("/")
        is_own = pl.col("path").str.starts_with("$") | (pl.col("path") == _NO_FILE)
        folder = pl.when(is_own).then(pl.lit("(file system's own)")).otherwise(folder)
        self.pieces = (
            pl.concat(disks).select("block", "what", "path", "count", folder=folder).sort("block", "path")
        )
        self.stored: BlockArray = self.pieces["block"].unique().sort().to_numpy()

    @functools.cached_property
    def _names(self) -> dict[str, dict[str, int]]:
        return {way: self._blocks_of_each(column) for way, column in WAYS_TO_PICK.items()}

    def _blocks_of_each(self, column: str) -> dict[str, int]:
        each = self.pieces.group_by(column).agg(blocks=pl.col("block").n_unique())
        return dict(each.sort("blocks", column, descending=[True, False]).iter_rows())

    def names(self, way: str) -> Mapping[str, int]:
        """Return what can be picked in a way of `WAYS_TO_PICK`, and its number of blocks, largest first."""
        return self._names[way]

    def blocks(self, way: str, name: str) -> BlockArray:
        """Return the blocks of a kind, a folder or a file, ascending."""
        found = self.pieces.filter(pl.col(WAYS_TO_PICK[way]) == name)["block"]
        return found.unique().sort().to_numpy()

    def kinds(self) -> pl.DataFrame:
        """Return ``block`` and ``what``: the kind of which most is in each stored block."""
        by_kind = self.pieces.group_by("block", "what").agg(pl.col("count").sum())
        most = by_kind.sort("block", "count", "what", descending=[False, True, False])
        return most.unique("block", keep="first", maintain_order=True).select("block", "what").sort("block")

    def tell(self, blocks: BlockArray) -> str:
        """Say what is in some blocks, in a line."""
        here = self.pieces.filter(pl.col("block").is_in(blocks))
        kinds = here.group_by("what").agg(mb=pl.col("count").sum() * MANIFEST_BLOCK_BYTES / 1e6)
        kinds = kinds.sort("mb", "what", descending=[True, False]).head(3)
        files = here.group_by("path").agg(pl.col("count").sum())
        largest = files.sort("count", "path", descending=[True, False])["path"]
        said = ", ".join(f"{what} {mb:.1f} MB" for what, mb in kinds.iter_rows())
        return f"{said}; such as {largest[0]}" if len(largest) else "nothing stored"
