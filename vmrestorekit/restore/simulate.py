"""Simulate a restore of a recorded boot: the way from a boot, a plan and hardware to a timeline."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import MODES, PlanError, RestorePlan
from vmrestorekit.restore.closed_loop import ClosedLoop, closed_loop
from vmrestorekit.restore.events import ACTORS, EVENTS_SCHEMA, KIND_MEANING, KINDS
from vmrestorekit.restore.hardware import Hardware, PrimaryStorage, resolve_hardware
from vmrestorekit.restore.summary import figures
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.restore.world import DETAILS, Array, MediaAgents, Setup, World
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import Manifest
from vmrestorekit.traces.schema import ReadTrace

if TYPE_CHECKING:
    from vmrestorekit.backup.layout import BackupLayout

__all__ = ["compare", "simulate", "simulate_trace", "warmup"]


def simulate(
    boot: Boot,
    plan: RestorePlan,
    hardware: Hardware | str = "object_storage",
    *,
    layout: BackupLayout | None = None,
    detail: str = "events",
) -> Timeline:
    """Simulate the restore of a recorded boot.

    Parameters
    ----------
    boot : Boot
        The virtual machine's requests, and what its disks held before them.
    plan : RestorePlan
    hardware : Hardware or str
        Or the name of a preset in `vmrestorekit.restore.hardware.MEDIA`.
    layout : BackupLayout, optional
        Where the blocks lie on the backup medium; default: a full backup written in the order of the disks.
    detail : {"events", "runs", "summary"}
        Keep every event with its cause; or one for each run of neighbours, without causes, for large disks;
        or none but the summary.

    Returns
    -------
    Timeline

    Raises
    ------
    PlanError
        If the plan is for other disks, leaves a stored block out of its relocation, or expires before the
        launch.
    """
    if layout is None:
        layout = _full_backup(boot.manifests, plan.block_bytes)
    chunk, extents = layout.read_together() or (None, None)
    return simulate_trace(
        boot.trace, plan, resolve_hardware(hardware), layout.address, chunk, extents, detail=detail
    )


def compare(
    boot: Boot,
    plan: RestorePlan,
    hardware: Hardware | str = "object_storage",
    modes: Sequence[str] = MODES,
) -> dict[str, Timeline]:
    """Simulate the same restore in several modes; a dict from mode to timeline."""
    return {mode: simulate(boot, plan.with_mode(mode), hardware) for mode in modes}


@functools.lru_cache(maxsize=2)
def _full_backup(manifests: tuple[Manifest, ...], block_bytes: int) -> BackupLayout:
    from vmrestorekit.backup.layout import BackupLayout

    return BackupLayout.full(manifests, block_bytes)


def simulate_trace(
    trace: ReadTrace,
    plan: RestorePlan,
    hardware: Hardware,
    address: npt.NDArray[np.int64],
    chunk: npt.NDArray[np.int32] | None = None,
    chunk_extents: npt.NDArray[np.int64] | None = None,
    *,
    detail: str = "events",
) -> Timeline:
    """Simulate the restore of a trace whose blocks lie at known places.

    Parameters
    ----------
    address : ndarray of int64, shape (plan.blocks,)
        Position of each block on the backup medium in bytes, -1 for a hole.
    chunk : ndarray of int32, shape (plan.blocks,), optional
        The chunk that each block has to be read with as a whole, -1 for a hole; default: blocks are read by
        themselves.
    chunk_extents : ndarray of int64, shape (chunks, 2), optional
        Where each chunk starts and ends on the medium, in bytes; default: what its blocks take.
    detail : {"events", "runs", "summary"}
        As in `simulate`.

    Raises
    ------
    PlanError
        As `simulate`.
    """
    if detail not in DETAILS:
        raise PlanError(f"detail: expected one of {', '.join(DETAILS)}, got {detail!r}")
    check_restore(trace, plan, address, chunk, chunk_extents)
    loop = closed_loop(trace, plan.block_bytes)
    setup = Setup(loop, plan, plan.mode, address, chunk, chunk_extents=chunk_extents)
    world = World([setup], MediaAgents(), hardware, detail)
    events = to_frame(world.run(), in_order=detail != "runs")
    metadata = trace.metadata
    return Timeline(
        events=events,
        metrics=figures(world, 0, local_boot_ns(setup, hardware)),
        plan=plan,
        hardware=hardware,
        vm=metadata.vm,
        boot=metadata.boot,
        stored=setup.stored,
    )


def check_restore(
    trace: ReadTrace,
    plan: RestorePlan,
    address: npt.NDArray[np.int64],
    chunk: npt.NDArray[np.int32] | None = None,
    chunk_extents: npt.NDArray[np.int64] | None = None,
) -> None:
    """Raise `PlanError` if a trace, a plan and where the blocks lie do not belong together."""
    if trace.metadata.disk_bytes != plan.disk_bytes:
        raise PlanError(
            f"expected a plan for the disks of {trace.metadata.vm} ({trace.metadata.disk_bytes} bytes), "
            f"got one for {plan.disk_bytes}"
        )
    for name, array in (("backup layout", address), ("list of chunks", chunk)):
        if array is not None and array.shape != (plan.blocks,):
            raise PlanError(
                f"expected a {name} of {plan.blocks} blocks of {plan.block_bytes} bytes, got {array.shape[0]}"
            )
    if chunk is not None and np.any((chunk >= 0) != (address >= 0)):
        block = int(np.flatnonzero((chunk >= 0) != (address >= 0))[0])
        raise PlanError(f"chunk: expected one for each stored block and -1 for holes, not so block {block}")
    if chunk_extents is not None:
        _check_extents(plan, address, chunk, chunk_extents)
    if plan.relocation_sequence is None or plan.mode == "live_mount":
        return
    relocated = np.zeros(plan.blocks, np.bool_)
    relocated[plan.sequence] = True
    forgotten = np.flatnonzero((address >= 0) & ~relocated)
    if forgotten.size:
        raise PlanError(
            f"relocation sequence: expected every block that the backup stores, but {forgotten.size} are "
            f"missing, first block {int(forgotten[0])}"
        )


def _check_extents(
    plan: RestorePlan,
    address: npt.NDArray[np.int64],
    chunk: npt.NDArray[np.int32] | None,
    extents: npt.NDArray[np.int64],
) -> None:
    chunks = 0 if chunk is None else int(chunk.max(initial=-1)) + 1
    if chunk is None or extents.ndim != 2 or extents.shape[0] < chunks or extents.shape[1] != 2:
        raise PlanError(
            f"chunk_extents: expected start and end of each of {chunks} chunks, got shape {extents.shape}"
        )
    stored = np.flatnonzero(chunk >= 0)
    start, end = extents[chunk[stored]].T
    outside = stored[(address[stored] < start) | (address[stored] + plan.block_bytes > end)]
    if len(outside):
        raise PlanError(
            f"chunk_extents: block {int(outside[0])} lies outside of its chunk {int(chunk[outside[0]])}"
        )


def local_boot_ns(setup: Setup, hardware: Hardware) -> int | None:
    """Return the time to boot with every stored block on the destination, None without a mark (rule 11)."""
    stored = hashlib.blake2b(np.packbits(setup.stored).tobytes()).digest()
    key = _LocalBoot(setup, hardware, stored)
    return _local_boot_ns(key)


class _LocalBoot:
    """A local boot to simulate; equal ones take equal times."""

    def __init__(self, setup: Setup, hardware: Hardware, stored: bytes) -> None:
        self.setup, self.hardware = setup, hardware
        self._key: tuple[ClosedLoop, PrimaryStorage, float, int, bytes] = (
            setup.loop,
            hardware.destination,
            hardware.cpu_factor,
            setup.plan.block_bytes,
            stored,
        )

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LocalBoot) and self._key == other._key


@functools.lru_cache(maxsize=256)
def _local_boot_ns(boot: _LocalBoot) -> int | None:
    from vmrestorekit.restore.world import as_local

    world = World([as_local(boot.setup)], MediaAgents(), boot.hardware, "summary")
    world.run()
    done = int(world.machine(0)["boot_done_ns"])
    return None if done < 0 else done


def to_frame(events: Array, in_order: bool = True) -> pl.DataFrame:
    """Return the engine's records as a frame of `EVENTS_SCHEMA`."""
    kind = events["kind"]
    actor = np.array([ACTORS.index(KIND_MEANING[name][0]) for name in KINDS], np.uint8)[kind]
    frame = pl.DataFrame(
        {
            "time_ns": events["time"],
            "kind": pl.Series(KINDS, dtype=EVENTS_SCHEMA["kind"]).gather(kind),
            "actor": pl.Series(ACTORS, dtype=EVENTS_SCHEMA["actor"]).gather(actor),
            "block": events["block"],
            "count": events["count"],
            "request": events["request"],
            "detail": events["detail"],
            "cause": events["cause"],
        },
        schema=EVENTS_SCHEMA,
    )
    return frame if in_order else frame.sort("time_ns", maintain_order=True)


def warmup() -> None:
    """Compile the engine, so that the first simulation that somebody waits for is quick."""
    from vmrestorekit.traces.schema import TRACE_SCHEMA, TraceMetadata

    metadata = TraceMetadata("warmup", "warmup", (8192,), {}, "none", "none", {})
    trace = ReadTrace(pl.DataFrame(schema=TRACE_SCHEMA), metadata)
    plan = RestorePlan((8192,), block_bytes=4096)
    simulate_trace(trace, plan, resolve_hardware("flash"), np.array([0, 4096]))
