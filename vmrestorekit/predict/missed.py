"""Which blocks a prediction missed, which it staged in vain, and what they were."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from vmrestorekit.predict.base import BlockPredictor, expect_fitted
from vmrestorekit.predict.cache_blocks import cache_block_scores, staging_order
from vmrestorekit.predict.description import describe_disk
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.metrics import needed_blocks
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.paths import PATH_CLASSES, path_class
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

if TYPE_CHECKING:
    from vmrestorekit.traces.boots import Boot

__all__ = ["MISSED_SCHEMA", "missed_and_wasted", "missed_by_class", "with_path_classes"]

MISSED_SCHEMA = pl.Schema(
    {
        "disk": pl.Int64(),
        "path": pl.String(),  # null: blocks of no file
        "path_class": pl.String(),  # of `PATH_CLASSES`; "other" if none fits, "no file"
        "package": pl.String(),
        "missed": pl.Int64(),  # 4 KiB blocks read and not staged
        "wasted": pl.Int64(),  # staged and not read
        "found": pl.Int64(),  # staged and read
        "probability": pl.Float64(),  # mean over these blocks
        "met": pl.Boolean(),  # whether a machine learned from has the file; null where nobody can say
        "read_elsewhere": pl.Boolean(),  # whether one of these read something of it
    }
)


def missed_and_wasted(predictor: BlockPredictor, boot: Boot, budget: float = 1.25) -> pl.DataFrame:
    """Tell, file by file, what of a boot's needs a prediction would not have staged, and what for nothing.

    Parameters
    ----------
    predictor : BlockPredictor
        Fitted, and not on this boot.
    boot : Boot
    budget : float
        How many 4 KiB blocks are staged, the most probable of all disks, as a multiple of those really read.

    Returns
    -------
    polars.DataFrame
        `MISSED_SCHEMA`, one row a file that something was read or staged of; the most missed blocks first, of
        as many the most wasted. ``met`` tells what was missed because nobody had it, ``read_elsewhere`` what
        because nobody wanted it; only a `LearnedPredictor` knows.

    Raises
    ------
    PredictError
        If the predictor is not fitted, the budget is no positive number, or the boot never ended or read
        nothing that the backup copy stores.
    """
    expect_fitted(predictor)
    if not (isinstance(budget, float | int) and 0 < budget < math.inf):
        raise PredictError(f"budget: expected a positive number, times what the boot read; got {budget!r}")
    needed = needed_blocks(boot)
    scores = pl.concat(
        cache_block_scores(predictor.score_blocks(manifest, disk), manifest.blocks, MANIFEST_BLOCK_BYTES)
        for disk, manifest in enumerate(boot.manifests)
    )
    staged = np.zeros(scores.height, bool)
    staged[staging_order(scores, round(budget * int(needed.read.sum())))] = True
    blocks = pl.DataFrame(
        {
            "disk": needed.disk,
            "file": pl.concat([manifest.blocks["file"] for manifest in boot.manifests]),
            "missed": needed.read & ~staged,
            "wasted": staged & ~needed.read,
            "found": staged & needed.read,
            "probability": scores["probability"],
        }
    )
    counted = ("missed", "wasted", "found")
    table = (
        blocks.filter(needed.read | staged)
        .group_by("disk", "file")
        .agg(pl.col(*counted).sum(), pl.col("probability").mean())
        .join(_files_of(predictor, boot), on=["disk", "file"], how="left")
        .with_columns(pl.col("path_class").fill_null("no file"))
        .sort("missed", "wasted", "disk", "path", descending=[True, True, False, False])
    )
    return table.match_to_schema(MISSED_SCHEMA, integer_cast="upcast", extra_columns="ignore")


def missed_by_class(table: pl.DataFrame) -> pl.DataFrame:
    """Sum up what `missed_and_wasted` returned by what paths say of their files' purposes.

    Returns
    -------
    polars.DataFrame
        ``path_class``; ``files``; ``missed``, ``missed_unmet`` (of files that no machine learned from has),
        ``missed_unread`` (of files that some have, and none read), ``wasted``, ``found``: 4 KiB blocks; in
        the order of `missed_and_wasted`.
    """
    unmet = pl.col("met").eq(False).fill_null(False)
    unread = pl.col("met") & ~pl.col("read_elsewhere")
    return (
        table.group_by("path_class")
        .agg(
            files=pl.col("path").count(),
            missed=pl.col("missed").sum(),
            missed_unmet=pl.col("missed").filter(unmet).sum(),
            missed_unread=pl.col("missed").filter(unread).sum(),
            wasted=pl.col("wasted").sum(),
            found=pl.col("found").sum(),
        )
        .sort("missed", "wasted", "path_class", descending=[True, True, False])
    )


def _files_of(predictor: BlockPredictor, boot: Boot) -> pl.DataFrame:
    """Return the files of all disks, as ``disk`` and ``file``, with what is said of them."""
    found = []
    for disk, manifest in enumerate(boot.manifests):
        told = pl.DataFrame(schema={"file": pl.Int32, "met": pl.Boolean, "read_elsewhere": pl.Boolean})
        if isinstance(predictor, LearnedPredictor):
            described = describe_disk(manifest)
            rows = described.first_rows
            table = predictor.file_reads_.evidence.tables["file"]
            met = table.rows(described.keys["file"][rows])
            read = table.totals[met, 1] > 0
            told = pl.DataFrame([described.file[rows], met < table.known.size, read], schema=told.schema)
        named = with_path_classes(manifest.files).with_columns(
            disk=pl.lit(disk, pl.Int64), file=pl.int_range(pl.len(), dtype=pl.Int32)
        )
        found.append(named.join(told, on="file", how="left"))
    return pl.concat(found).select("disk", "file", "path", "path_class", "package", "met", "read_elsewhere")


def with_path_classes(files: pl.DataFrame) -> pl.DataFrame:
    """Return files with ``path_class``: the name of the first of `PATH_CLASSES` that fits, or ``other``."""
    names = pl.Series([*(name for name, _ in PATH_CLASSES), "other"], dtype=pl.String)
    return files.with_columns(path_class=names[files.select(number=path_class(pl.col("path")))["number"]])
