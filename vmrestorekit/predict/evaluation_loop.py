"""What a prediction is worth in time: the engine restores a boot with its plan, and with plans that bound it.

A restore is simulated as a live mount, where nothing is staged but the first set: what differs is the
prediction. The boot ends at its mark, and with it the trace.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import DEFAULT_BLOCK_BYTES, LaunchRule, RestorePlan, first_block_of_disk
from vmrestorekit.predict.observed import PredictError, blocks_read
from vmrestorekit.predict.ordering import StagingDevice
from vmrestorekit.predict.read_ahead import read_around
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link, resolve_hardware
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES
from vmrestorekit.traces.schema import ReadTrace

__all__ = [
    "LAZY",
    "ORACLE",
    "REFERENCES",
    "Conditions",
    "end_of",
    "hardware_at",
    "loop_scores",
    "reference_scores",
]

MB = 1_000_000
SECOND = 1_000_000_000
READ_AHEAD_BYTES = 512 * 1024
LINK_BANDWIDTH = 1250 * MB

PlanFor = Callable[[StagingDevice], RestorePlan]

LAZY, ORACLE = "lazy", "oracle_order"
# bounds and beginnings that learn nothing
REFERENCES = {
    LAZY: "nothing is staged",
    "read_ahead": "nothing is staged; a miss brings the 512 KiB around it on the medium",
    ORACLE: "all that the boot reads, in the order of first touch",
    "oracle_set": "all that the boot reads, in the order of the disk",
    "oracle_all": "all that the boot reads is staged before the launch, however long that takes",
}


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Under which conditions a restore is simulated.

    Attributes
    ----------
    bandwidths : tuple of int
        Of the backup device, in bytes per second.
    head_starts_ns : tuple of int
        From the request for the restore to the launch, in which staging is alone.
    block_bytes : int
        Size of a block of the read cache.
    media : str
        A preset of `vmrestorekit.restore.hardware.MEDIA`, for the positioning time.
    """

    bandwidths: tuple[int, ...] = (2 * MB, 10 * MB, 25 * MB, 100 * MB, 250 * MB)
    head_starts_ns: tuple[int, ...] = (0, 4 * SECOND)
    block_bytes: int = DEFAULT_BLOCK_BYTES
    media: str = "flash"

    def __post_init__(self) -> None:
        if not self.bandwidths or min(self.bandwidths) < 1:
            raise PredictError(f"bandwidths: expected some, all above 0, got {self.bandwidths}")
        if not self.head_starts_ns or min(self.head_starts_ns) < 0:
            raise PredictError(f"head starts: expected some, none below 0, got {self.head_starts_ns}")

    def each(self) -> Iterator[tuple[str, Hardware, LaunchRule]]:
        """Yield each pair: its name such as ``"25MB/s,4s"``, the hardware, and the launch rule."""
        for bandwidth in self.bandwidths:
            for head_start_ns in self.head_starts_ns:
                yield (
                    f"{bandwidth / MB:g}MB/s,{head_start_ns / SECOND:g}s",
                    hardware_at(bandwidth, self.media),
                    LaunchRule(head_start_ns=head_start_ns),
                )


def hardware_at(bandwidth: int, media: str = "flash") -> Hardware:
    """Return hardware whose backup device gives so many bytes per second, and is what limits the restore.

    One channel, with the positioning time of the preset; the link is ten times as fast as Gigabit Ethernet.
    """
    preset = resolve_hardware(media)
    device = preset.backup_device
    return preset.replace(
        name=f"{media}, {bandwidth / MB:g} MB/s",
        backup_device=BackupDevice(channels=1, positioning_ns=device.positioning_ns, bandwidth=bandwidth),
        link=Link(preset.link.latency_ns, LINK_BANDWIDTH),
        source=f"bandwidth as wanted, one channel, link of 10 Gbit/s; else: {preset.source}",
    )


def end_of(boot: Boot) -> int:
    """Return when a boot ended, in nanoseconds on the recording's clock.

    Raises
    ------
    PredictError
        If the recording has no such mark.
    """
    marks = boot.trace.metadata.marks
    if "boot_done_ns" not in marks:
        raise PredictError(f"{boot.vm}, {boot.boot}: expected a mark 'boot_done_ns', got {sorted(marks)}")
    return marks["boot_done_ns"]


@dataclasses.dataclass(frozen=True, eq=False)
class _PreparedBoot:
    """What all simulations of a boot share; the engine keeps the closed loop as long as the trace is here."""

    trace: ReadTrace
    layout: BackupLayout
    read_around: BackupLayout


@functools.lru_cache(maxsize=16)
def _prepared(boot: Boot, block_bytes: int) -> _PreparedBoot:
    done = end_of(boot)
    until_done = ReadTrace(boot.trace.frame.filter(pl.col("issued_ns") <= done), boot.trace.metadata)
    layout = BackupLayout.full(boot.manifests, block_bytes)
    return _PreparedBoot(until_done, layout, read_around(layout, max(READ_AHEAD_BYTES, block_bytes)))


def loop_scores(boot: Boot, plan_for: PlanFor, conditions: Conditions) -> dict[str, float]:
    """Simulate a boot with the first set of a plan under all conditions.

    Parameters
    ----------
    boot : Boot
    plan_for : callable
        Returns the plan for a device, which is the same one for all if a predictor does not ask for it.
    conditions : Conditions

    Returns
    -------
    dict of str to float
        For each condition, behind an ``@``: ``time_to_boot_s``, ``stall_s`` (beyond a boot from the
        destination), ``media_bytes`` (read from the backup device), ``wasted_bytes`` (staged and never sent),
        ``late_share`` (of the first set's blocks that the boot asked for: those that were not in the cache
        when first asked for), and ``wait_p50_s``, ``wait_p99_s``, ``wait_max_s`` of the machine's reads.
    """
    prepared = _prepared(boot, conditions.block_bytes)
    found: dict[str, float] = {}
    for name, hardware, launch in conditions.each():
        first_set = plan_for(_staging_device(hardware, launch)).first_set
        timeline = _simulated(prepared, first_set, conditions, hardware, launch, prepared.layout)
        found |= {f"{metric}@{name}": value for metric, value in _figures(timeline).items()}
    return found


def _staging_device(hardware: Hardware, launch: LaunchRule) -> StagingDevice:
    device = hardware.backup_device
    return StagingDevice(device.bandwidth, device.positioning_ns, launch.head_start_ns)


def reference_scores(boot: Boot, conditions: Conditions) -> dict[str, dict[str, float]]:
    """Return what `loop_scores` does for each of `REFERENCES`."""
    prepared = _prepared(boot, conditions.block_bytes)
    in_order = _blocks_in_order(boot, conditions.block_bytes, prepared.layout.address)
    first_sets = {LAZY: in_order[:0], "read_ahead": in_order[:0], ORACLE: in_order}
    first_sets |= {"oracle_set": np.sort(in_order), "oracle_all": in_order}
    scores: dict[str, dict[str, float]] = {reference: {} for reference in REFERENCES}
    for name, hardware, launch in conditions.each():
        for reference, first_set in first_sets.items():
            rule = LaunchRule("share") if reference == "oracle_all" else launch
            layout = prepared.read_around if reference == "read_ahead" else prepared.layout
            timeline = _simulated(prepared, first_set, conditions, hardware, rule, layout)
            scores[reference] |= {f"{metric}@{name}": value for metric, value in _figures(timeline).items()}
    return scores


def _simulated(
    prepared: _PreparedBoot,
    first_set: npt.NDArray[np.int32],
    conditions: Conditions,
    hardware: Hardware,
    launch: LaunchRule,
    layout: BackupLayout,
) -> Timeline:
    from vmrestorekit.restore.simulate import simulate_trace

    plan = RestorePlan(
        prepared.trace.metadata.disk_bytes,
        mode="live_mount",
        block_bytes=conditions.block_bytes,
        first_set=first_set,
        launch=launch,
    )
    chunk, extents = layout.read_together() or (None, None)
    return simulate_trace(prepared.trace, plan, hardware, layout.address, chunk, extents)


def _blocks_in_order(boot: Boot, block_bytes: int, address: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return the stored cache blocks that a boot reads, in the order of their first touch."""
    reads = blocks_read(boot).sort("first_read_ns", maintain_order=True)
    first = np.array(first_block_of_disk(boot.disk_bytes, block_bytes))
    units = block_bytes // MANIFEST_BLOCK_BYTES
    blocks = first[reads["disk"].to_numpy()] + reads["block"].to_numpy() // units
    _, touched = np.unique(blocks, return_index=True)
    in_order: npt.NDArray[np.int32] = blocks[np.sort(touched)].astype(np.int32)
    return in_order.compress(address[in_order] >= 0)


def _figures(timeline: Timeline) -> dict[str, float]:
    summary = timeline.summary()
    found = {}
    for name in ("time_to_boot", "stall", "wait_p50", "wait_p99", "wait_max"):
        value = summary[f"{name}_ns"]
        if value is not None:
            found[f"{name}_s"] = value / SECOND
    for name in ("media_bytes", "wasted_bytes"):
        found[name] = float(summary[name] or 0)
    return found | {"late_share": _late_share(timeline)}


def _late_share(timeline: Timeline) -> float:
    """Return how much of what was staged for the boot, and asked for, came too late; 0 if nothing was."""
    asked = timeline.events.filter(pl.col("kind").is_in(["cache_hit", "cache_wait", "cache_miss"]))
    first = asked.unique("block", keep="first", maintain_order=True).filter(
        pl.col("block").is_in(timeline.plan.first_set.tolist())
    )
    return first.filter(pl.col("kind") != "cache_hit").height / max(first.height, 1)
