"""Simulate a restore of a recorded boot: the way from a boot, a plan and hardware to a timeline."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import DAY, MODES, PRIORITIES, PlanError, RelocationStart, RestorePlan
from vmrestorekit.restore.closed_loop import ClosedLoop, closed_loop
from vmrestorekit.restore.events import ACTORS, EVENTS_SCHEMA, KIND_MEANING, KINDS
from vmrestorekit.restore.hardware import BackupDevice, Hardware, resolve_hardware
from vmrestorekit.restore.summary import summarise, time_of
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import Manifest
from vmrestorekit.traces.schema import OPS, ReadTrace

if TYPE_CHECKING:
    from vmrestorekit.backup.layout import BackupLayout

__all__ = ["compare", "simulate", "simulate_trace", "warmup"]

_CODE_OF_LAUNCH_RULE = {"share": 0, "head_start": 1, "immediately": 2}
_CODE_OF_MODE = {mode: code for code, mode in enumerate(MODES)} | {"local": 3}
_CODE_OF_PRIORITIES = {name: code for code, name in enumerate(PRIORITIES)}
_CODE_OF_POLICY = {"lru": 0, "fifo": 1}


def simulate(
    boot: Boot,
    plan: RestorePlan,
    hardware: Hardware | str = "object_storage",
    *,
    layout: BackupLayout | None = None,
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
    return simulate_trace(boot.trace, plan, resolve_hardware(hardware), layout.address)


def compare(
    boot: Boot,
    plan: RestorePlan,
    hardware: Hardware | str = "object_storage",
    modes: Sequence[str] = MODES,
) -> dict[str, Timeline]:
    """Simulate the same restore in several modes; a dict from mode to timeline."""
    return {mode: simulate(boot, plan.with_mode(mode), hardware) for mode in modes}


@functools.lru_cache(maxsize=8)
def _full_backup(manifests: tuple[Manifest, ...], block_bytes: int) -> BackupLayout:
    from vmrestorekit.backup.layout import BackupLayout

    return BackupLayout.full(manifests, block_bytes)


def simulate_trace(
    trace: ReadTrace, plan: RestorePlan, hardware: Hardware, address: npt.NDArray[np.int64]
) -> Timeline:
    """Simulate the restore of a trace whose blocks lie at known places.

    Parameters
    ----------
    address : ndarray of int64, shape (plan.blocks,)
        Position of each block on the backup medium in bytes, -1 for a hole.

    Raises
    ------
    PlanError
        As `simulate`.
    """
    _check(trace, plan, address)
    loop = closed_loop(trace, plan.block_bytes)
    local = _run(loop, plan, hardware, address, "local")
    local_boot = time_of(local, "boot_done")
    events = _run(loop, plan, hardware, address, plan.mode)
    metadata = trace.metadata
    return Timeline(
        events=events,
        metrics=summarise(events, plan, local_boot),
        plan=plan,
        hardware=hardware,
        vm=metadata.vm,
        boot=metadata.boot,
        stored=address >= 0,
    )


def _check(trace: ReadTrace, plan: RestorePlan, address: npt.NDArray[np.int64]) -> None:
    if trace.metadata.disk_bytes != plan.disk_bytes:
        raise PlanError(
            f"expected a plan for the disks of {trace.metadata.vm} ({trace.metadata.disk_bytes} bytes), "
            f"got one for {plan.disk_bytes}"
        )
    if address.shape != (plan.blocks,):
        raise PlanError(
            f"expected a backup layout of {plan.blocks} blocks of {plan.block_bytes} bytes, "
            f"got {address.shape[0]}"
        )
    relocated = np.zeros(plan.blocks, np.bool_)
    relocated[plan.sequence] = True
    forgotten = np.flatnonzero((address >= 0) & ~relocated)
    if forgotten.size and plan.mode != "live_mount":
        raise PlanError(
            f"relocation sequence: expected every block that the backup stores, but {forgotten.size} are "
            f"missing, first block {int(forgotten[0])}"
        )


def _run(
    loop: ClosedLoop, plan: RestorePlan, hardware: Hardware, address: npt.NDArray[np.int64], mode: str
) -> pl.DataFrame:
    """Run the engine once and return the events."""
    from vmrestorekit.restore import engine  # numba takes a second to import

    world = _new_world(loop, plan, hardware, address, mode)
    sim = world.sim
    spare = _most_events(loop, plan, world)
    if len(world.events) < 2 * spare:
        world = world._replace(events=np.zeros(2 * spare, engine.EVENT))
    filled = []
    while (status := engine.run(world, spare)) == engine.EVENTS_FULL:
        filled.append(world.events[: sim["events"][0]].copy())
        sim["events"] = 0
    if status == engine.EXPIRED_BEFORE_LAUNCH:
        raise PlanError(
            f"expiry_ns: the mount expires after {plan.expiry_ns} ns, before the virtual machine is "
            f"launched; expected a later expiry or an earlier launch"
        )
    if sim["events_lost"][0]:
        raise RuntimeError(
            f"the engine had no room for {sim['events_lost'][0]} events: a defect, please report"
        )
    filled.append(world.events[: sim["events"][0]])
    return _to_frame(np.concatenate(filled))


def _most_events(loop: ClosedLoop, plan: RestorePlan, world: Any) -> int:
    """Return more than what one step and the dispatch behind it can note."""
    sim = world.sim[0]
    of_fetch = 2 * max(int(sim["fetch_blocks"]), int(sim["stage_fetch_blocks"])) + 2
    flushes = int((loop.op == OPS.index("flush")).sum())
    return 4 * _most_blocks(loop, plan) + 2 * len(world.channels) * of_fetch + flushes + 64


def _most_blocks(loop: ClosedLoop, plan: RestorePlan) -> int:
    """Return the most blocks that one request, of the virtual machine or the relocation, touches."""
    of_vm = int(loop.length.max(initial=0)) // plan.block_bytes + 2
    return max(of_vm, plan.relocation_request_bytes // plan.block_bytes)


def _to_frame(events: npt.NDArray[Any]) -> pl.DataFrame:
    """Return the engine's records as a frame of `EVENTS_SCHEMA`."""
    from vmrestorekit.restore import engine

    kind = np.array([KINDS.index(name) for name in engine.KIND_NAMES], np.uint8)[events["kind"]]
    actor = np.array([ACTORS.index(KIND_MEANING[name][0]) for name in KINDS], np.uint8)[kind]
    return pl.DataFrame(
        {
            "time_ns": events["time"],
            "kind": pl.Series(KINDS, dtype=EVENTS_SCHEMA["kind"]).gather(kind),
            "actor": pl.Series(ACTORS, dtype=EVENTS_SCHEMA["actor"]).gather(actor),
            "block": events["block"],
            "count": events["count"],
            "request": events["request"],
            "detail": events["detail"],
        },
        schema=EVENTS_SCHEMA,
    )


def _new_world(
    loop: ClosedLoop, plan: RestorePlan, hardware: Hardware, address: npt.NDArray[np.int64], mode: str
) -> Any:
    """Lay out the arrays that the engine works on."""
    from vmrestorekit.restore import engine

    stored = address >= 0
    sequence = plan.sequence[stored[plan.sequence]] if mode in ("full_restore", "instant_restore") else None
    sequence = np.empty(0, np.int64) if sequence is None else sequence.astype(np.int64)
    wanted_first = plan.first_set if mode in ("instant_restore", "live_mount") else plan.first_set[:0]
    first_set = wanted_first[stored[wanted_first]].astype(np.int64)
    blocks = np.zeros(plan.blocks, engine.BLOCK)
    blocks["address"], blocks["stored"], blocks["position"] = address, stored, -1
    blocks["position"][sequence] = np.arange(len(sequence))
    blocks["in_first_set"][first_set] = 1
    for name in ("older", "newer", "first_waiter", "last_waiter", "fetch"):
        blocks[name] = -1
    if mode == "local":
        blocks["relocated"] = stored
    parts = int((loop.length // plan.block_bytes + 2).sum()) + plan.relocation_depth * _most_blocks(
        loop, plan
    )
    channels = hardware.backup_device.channels
    stage_depth = plan.stage_depth or channels
    fetches = parts + stage_depth + channels + 4
    runs = np.zeros(engine.OPEN_RUNS, engine.RUN)
    requests, launch_child = _new_requests(loop, hardware.cpu_factor)
    units = plan.blocks * (plan.block_bytes // engine.UNIT_BYTES)
    world = engine.World(
        sim=np.zeros(1, engine.SIM),
        blocks=blocks,
        units=np.zeros(units, np.int8),
        requests=requests,
        relocations=np.zeros(plan.relocation_depth, engine.RELOCATION),
        parts=_free_list(parts, engine.PART),
        fetches=_free_list(fetches, engine.FETCHING),
        channels=np.zeros(channels, engine.CHANNEL),
        due=np.zeros(2 * parts + loop.rows + fetches + plan.relocation_depth + plan.blocks + 64, engine.DUE),
        events=np.zeros(12 * len(stored) + 16 * loop.rows + 4096, engine.EVENT),
        runs=runs,
        sequence=sequence,
        first_set=first_set,
    )
    _set_up(world.sim, plan, hardware, mode, len(first_set))
    world.sim["rows"], world.sim["next_relocation"] = loop.rows, loop.rows + 1
    world.sim["first_child"] = launch_child
    return world


def _free_list(size: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    records = np.zeros(size, dtype)
    records["next"] = np.arange(1, size + 1)
    records["next"][-1] = -1
    return records


def _new_requests(loop: ClosedLoop, cpu_factor: float) -> tuple[npt.NDArray[Any], int]:
    """Return the requests, each one's children linked in ascending order, and the launch's first."""
    from vmrestorekit.restore import engine

    requests = np.zeros(loop.rows + 1, engine.REQUEST)
    rows = requests[:-1]
    rows["op"], rows["start"], rows["length"] = loop.op, loop.start, loop.length
    parent, gap = np.append(loop.parent, -2), np.append(loop.gap, 0)
    requests["op"][-1] = engine.OP_MARK
    if loop.boot_done is not None:
        parent[-1], gap[-1] = loop.boot_done
    # numpy rounds half to even, as the clockwork wants it
    requests["think"] = gap if cpu_factor == 1.0 else np.rint(gap * cpu_factor).astype(np.int64)
    first_child = np.full(loop.rows + 2, -1, np.int64)
    for child in range(loop.rows, -1, -1):
        requests["next_child"][child] = first_child[parent[child] + 2]
        first_child[parent[child] + 2] = child
    requests["first_child"][:-1] = first_child[2:]
    requests["first_child"][-1] = requests["next_flush"] = -1
    return requests, int(first_child[1])


def _set_up(sim: npt.NDArray[Any], plan: RestorePlan, hardware: Hardware, mode: str, first_set: int) -> None:
    """Fill in the settings and the first values of the engine's scalars."""
    device, block_bytes = hardware.backup_device, plan.block_bytes
    settings = {
        "block_shift": block_bytes.bit_length() - 1,
        "blocks": plan.blocks,
        "mode": _CODE_OF_MODE[mode],
        "launch_rule": _CODE_OF_LAUNCH_RULE[plan.launch.rule] if mode not in ("full_restore", "local") else 2,
        "staged_to_launch": int(np.ceil(plan.launch.share * first_set)),
        "head_start_ns": plan.launch.head_start_ns,
        **_relocation_start(plan.relocation_start, device),
        "pre_relocation_delay_ns": plan.pre_relocation_delay_ns,
        "stage_ahead_blocks": plan.stage_ahead_limit // block_bytes,
        "purge_by_run": plan.purge.by_run,
        "run_length": plan.purge.run_length,
        "purge_by_indication": plan.purge.by_indication,
        "slots": plan.cache_slots,
        "policy": _CODE_OF_POLICY[plan.eviction],
        "priorities": _CODE_OF_PRIORITIES[plan.priorities],
        "relocation_depth": plan.relocation_depth,
        "relocation_positions": plan.relocation_request_bytes // block_bytes,
        "apply_units": plan.relocation_request_bytes // 4096,
        "stage_depth": plan.stage_depth or device.channels,
        "stage_fetch_blocks": min(plan.stage_fetch_bytes // block_bytes, plan.cache_slots),
        "fetch_blocks": min(plan.fetch_bytes // block_bytes, plan.cache_slots),
        "expiry_ns": -1 if plan.expiry_ns is None else plan.expiry_ns,
        "warning_ns": plan.warning_ns,
        "positioning_ns": device.positioning_ns,
        "bandwidth": device.bandwidth,
        "mount_ns": device.mount_ns,
        "distance_ns_per_gib": device.distance_ns_per_gib,
        "link_latency_ns": hardware.link.latency_ns,
        "link_bandwidth": hardware.link.bandwidth,
        "destination_latency_ns": hardware.destination.latency_ns,
        "destination_bandwidth": hardware.destination.bandwidth,
        "write_cache_latency_ns": hardware.write_cache.latency_ns,
        "write_cache_bandwidth": hardware.write_cache.bandwidth,
        "idle_channels": device.channels,
        "pivoted": mode == "local",
    }
    for name, value in settings.items():
        sim[name] = value
    for name in ("queue_head", "queue_tail", "oldest", "newest", "first_flush", "last_flush"):
        sim[name] = -1


def _relocation_start(start: RelocationStart, device: BackupDevice) -> dict[str, int]:
    """Return the engine's settings for the start of the relocation."""
    settings = {"relocation_delay_ns": start.at_ns(0)}
    if start.rule == "time_of_day":
        settings |= {"relocation_first_ns": start.at_ns(0), "relocation_period_ns": DAY}
    elif start.rule == "load":
        window_ns = 60 * start.check_ns
        given = device.channels * device.bandwidth * window_ns // 1_000_000_000
        settings |= {"load_check_ns": start.check_ns, "load_limit_bytes": int(start.load_share * given)}
    return settings


def warmup() -> None:
    """Compile the engine, so that the first simulation that somebody waits for is quick."""
    from vmrestorekit.traces.schema import TRACE_SCHEMA, TraceMetadata

    metadata = TraceMetadata("warmup", "warmup", (8192,), {}, "none", "none", {})
    trace = ReadTrace(pl.DataFrame(schema=TRACE_SCHEMA), metadata)
    plan = RestorePlan((8192,), block_bytes=4096)
    simulate_trace(trace, plan, resolve_hardware("flash"), np.array([0, 4096]))
