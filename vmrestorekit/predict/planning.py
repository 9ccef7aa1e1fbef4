"""From a predictor and the state of a machine's disks to a restore plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from vmrestorekit.plan import DEFAULT_BLOCK_BYTES, RestorePlan
from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.cache_blocks import LIKELY, cache_block_scores, staging_order
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.ordering import StagingDevice, least_stall_order
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.large_manifest import LargeManifest
from vmrestorekit.traces.manifest import Manifest

__all__ = ["make_plan"]

AnyManifest = Manifest | LargeManifest

# how much more than the expected number of blocks is staged when no budget is given
GENEROSITY = 1.25
LEAST_CHANCE, NOT_A_CHANCE = 0.005, 0.001
# share of the read cache that may be staged; the rest is for what was missed, and for a relocation
ROOM, ROOM_OF_A_MOUNT = 0.6, 0.85


def make_plan(
    predictor: BlockPredictor,
    boot_or_manifests: Boot | AnyManifest | Iterable[AnyManifest],
    *,
    mode: str = "instant_restore",
    block_bytes: int = DEFAULT_BLOCK_BYTES,
    budget_bytes: int | None = None,
    threshold: float = LIKELY,
    device: StagingDevice | None = None,
    **plan_settings: Any,
) -> RestorePlan:
    """Decide what to pre-stage, and in which order.

    Parameters
    ----------
    predictor : BlockPredictor
        Fitted.
    boot_or_manifests : Boot, Manifest, LargeManifest or iterable of them
        State of the machine's disks before the boot. Of a `Boot` only its manifests are looked at, never its
        trace: that is what is to be predicted.
    mode : {"instant_restore", "live_mount", "full_restore"}
    block_bytes : int
        Size of a block of the read cache.
    budget_bytes : int, optional
        How much to stage at most, over all disks; default: 1.25 times what the boot is expected to read, and
        for a known device whatever has a chance of `LEAST_CHANCE`, as long as there is room in the cache
        (a share of `ROOM`, or `ROOM_OF_A_MOUNT`).
    threshold : float
        Blocks at least this probable are staged in the order of their expected first reads, the others after
        them by falling probability. See `staging_order`.
    device : StagingDevice, optional
        Choose the order, and what is probable enough for it, so that the expected stall on this device is
        least (`vmrestorekit.predict.ordering`); `threshold` is then only that of a block's time.
    **plan_settings
        Further attributes of the `RestorePlan`, such as ``expiry_ns`` or ``cache_bytes``.

    Returns
    -------
    RestorePlan

    Raises
    ------
    PredictError
        If the predictor cannot say anything of these disks.
    PlanError
        If a setting makes no sense.
    """
    manifests = _manifests_of(boot_or_manifests)
    empty_plan = RestorePlan(
        disk_bytes=tuple(manifest.disk_bytes for manifest in manifests),
        mode=mode,
        block_bytes=block_bytes,
        **plan_settings,
    )
    if budget_bytes is not None and budget_bytes < 0:
        raise PredictError(f"budget_bytes: expected at least 0, got {budget_bytes}")
    # disks one after the other: the numbering of `first_block_of_disk`
    scores = pl.concat(
        cache_block_scores(scores, blocks, block_bytes, threshold)
        for disk, manifest in enumerate(manifests)
        for scores, blocks in _scored(predictor, manifest, disk)
    )
    if budget_bytes is None:
        if predictor.calibrated:
            # on a large disk these are nearly all blocks, and none of them would be staged
            hardly = pl.col("probability") < NOT_A_CHANCE
            scores = scores.with_columns(probability=pl.when(hardly).then(0.0).otherwise("probability"))
        share = ROOM_OF_A_MOUNT if mode == "live_mount" else ROOM
        room = int(share * empty_plan.cache_bytes) // block_bytes
        most = _usual_most(scores["probability"].filter(scores["stored"]), room, device)
    else:
        most = budget_bytes // block_bytes
    if device is None:
        return empty_plan.replace(first_set=staging_order(scores, most, threshold))
    return empty_plan.replace(first_set=least_stall_order(scores, most, block_bytes, device))


def _usual_most(probability: pl.Series, room: int, device: StagingDevice | None) -> int:
    """Return how many blocks are staged if nobody says.

    What is left when all that is likely was staged waits for nothing but an idle device. So in an order made
    for a device unlikely blocks cost a boot next to nothing, and each that is read after all saves a fetch.
    But they must not drive out of the cache what is likely.
    """
    usual = int(GENEROSITY * float(probability.sum())) + 1
    return usual if device is None else max(usual, min(int((probability >= LEAST_CHANCE).sum()), room))


def _scored(
    predictor: BlockPredictor, manifest: AnyManifest, disk: int
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield scores of 4 KiB blocks and the blocks, piece by piece."""
    if isinstance(manifest, Manifest):
        yield predictor.score_blocks(manifest, disk), manifest.blocks
    else:
        pieces = (blocks for _, blocks in manifest.pieces())
        yield from zip(predictor.score_pieces(manifest, disk), pieces, strict=True)


def _manifests_of(
    boot_or_manifests: Boot | AnyManifest | Iterable[AnyManifest],
) -> tuple[AnyManifest, ...]:
    if isinstance(boot_or_manifests, Boot):
        return boot_or_manifests.manifests
    if isinstance(boot_or_manifests, AnyManifest):
        return (boot_or_manifests,)
    manifests = tuple(boot_or_manifests)
    if not manifests or not all(isinstance(manifest, AnyManifest) for manifest in manifests):
        raise PredictError(f"expected a Boot, or a Manifest of each disk, got {boot_or_manifests!r:.80}")
    return manifests
