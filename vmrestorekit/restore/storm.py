"""Simulate many restores at once through one or more media agents (rule 12 of the clockwork)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import PlanError, RestorePlan
from vmrestorekit.restore.closed_loop import closed_loop
from vmrestorekit.restore.hardware import Hardware, resolve_hardware
from vmrestorekit.restore.simulate import check_restore, local_boot_ns, to_frame
from vmrestorekit.restore.summary import figures
from vmrestorekit.restore.world import DETAILS, MediaAgents, Setup, World
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["MediaAgents", "Restore", "Storm", "simulate_storm"]

# what the plans say of the media agent, which has to be the same in all
_OF_THE_AGENT = (
    "block_bytes",
    "cache_bytes",
    "eviction",
    "misses",
    "priorities",
    "weights",
    "fetch_bytes",
    "stage_fetch_bytes",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Restore:
    """One restore of a storm.

    Attributes
    ----------
    trace : ReadTrace
    plan : RestorePlan
    address : ndarray of int64, shape (plan.blocks,)
        Position of each block on the backup medium in bytes, -1 for a hole.
    chunk : ndarray of int32, shape (plan.blocks,), optional
        The chunk that each block has to be read with as a whole, -1 for a hole.
    content : ndarray of int64, shape (plan.blocks,), optional
        Equal numbers are equal contents, over all machines; default: nothing is shared.
    start_ns : int
        When the restore is asked for.
    agent : int, optional
        The media agent that its user named.
    chunk_extents : ndarray of int64, shape (chunks, 2), optional
        Where each chunk starts and ends on the medium, in bytes; default: what its blocks take.
    """

    trace: ReadTrace
    plan: RestorePlan
    address: npt.NDArray[np.int64]
    chunk: npt.NDArray[np.int32] | None = None
    content: npt.NDArray[np.int64] | None = None
    start_ns: int = 0
    agent: int | None = None
    chunk_extents: npt.NDArray[np.int64] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Storm:
    """What became of a storm.

    Attributes
    ----------
    events : polars.DataFrame
        `vmrestorekit.restore.events.EVENTS_SCHEMA` and `vm`, the number of the restore, -1 for the loss of a
        media agent.
    machines : polars.DataFrame
        One row a restore: `vm`, `name`, `boot`, `start_ns`, `agent` (the last one, null if none), `stranded`,
        and the figures of `vmrestorekit.restore.summary.SUMMARY_MEANING`, times counted from `start_ns`.
    agents : polars.DataFrame
        One row a media agent: `agent`, `machines` (those whose last agent it was), `media_fetches` and
        `media_bytes` of these machines, `peak_cache_bytes`, `lost_ns` (null: never).
    """

    events: pl.DataFrame
    machines: pl.DataFrame
    agents: pl.DataFrame


def simulate_storm(
    restores: Sequence[Restore],
    agents: MediaAgents | None = None,
    hardware: Hardware | str = "object_storage",
    *,
    detail: str = "events",
) -> Storm:
    """Simulate many restores through shared media agents, links and backup devices.

    Parameters
    ----------
    restores : sequence of Restore
        Their plans have to agree in what they say of the media agent.
    agents : MediaAgents, optional
        Default: a single one.
    hardware : Hardware or str
        Backup device (one for all, or one for each agent), link of each agent, storage of each host.
    detail : {"events", "runs", "summary"}
        As in `vmrestorekit.simulate`.

    Raises
    ------
    PlanError
        If there is nothing to restore, plans do not agree, a mount expires before its launch, or a restore
        is none by itself.
    """
    agents, hardware = agents or MediaAgents(), resolve_hardware(hardware)
    if detail not in DETAILS:
        raise PlanError(f"detail: expected one of {', '.join(DETAILS)}, got {detail!r}")
    _check(restores, agents)
    setups = [
        Setup(
            closed_loop(restore.trace, restore.plan.block_bytes),
            restore.plan,
            restore.plan.mode,
            restore.address,
            restore.chunk,
            restore.content,
            restore.start_ns,
            restore.agent,
            restore.chunk_extents,
        )
        for restore in restores
    ]
    world = World(setups, agents, hardware, detail)
    events = world.run()
    vm = pl.Series("vm", events["vm"], pl.Int32)
    frame = to_frame(events).with_columns(vm)
    if detail == "runs":
        frame = frame.sort("time_ns", maintain_order=True)
    return Storm(frame, _machines(world, restores), _agents(world))


def _check(restores: Sequence[Restore], agents: MediaAgents) -> None:
    """Raise `PlanError` if the restores cannot be simulated together."""
    if not restores:
        raise PlanError("restores: expected at least one, got none")
    for number, restore in enumerate(restores):
        try:
            check_restore(
                *(restore.trace, restore.plan, restore.address, restore.chunk, restore.chunk_extents)
            )
        except PlanError as error:
            raise PlanError(f"restore {number}: {error}") from error
        if restore.content is not None and restore.content.shape != (restore.plan.blocks,):
            raise PlanError(
                f"restore {number}: expected contents of {restore.plan.blocks} blocks, "
                f"got {restore.content.shape[0]}"
            )
        if restore.start_ns < 0:
            raise PlanError(f"restore {number}: expected start_ns of at least 0, got {restore.start_ns}")
        if restore.agent is not None and not 0 <= restore.agent < agents.count:
            raise PlanError(
                f"restore {number}: expected an agent from 0 to {agents.count - 1}, got {restore.agent}"
            )
        _expect_same_agent(number, restore.plan, restores[0].plan)


def _expect_same_agent(number: int, plan: RestorePlan, first: RestorePlan) -> None:
    for name in _OF_THE_AGENT:
        if getattr(plan, name) != getattr(first, name):
            raise PlanError(
                f"restore {number}: expected {name} as in restore 0 ({getattr(first, name)}), since they "
                f"share a media agent, got {getattr(plan, name)}"
            )


def _machines(world: World, restores: Sequence[Restore]) -> pl.DataFrame:
    """Return one row a restore, with its figures."""
    rows = []
    for number, restore in enumerate(restores):
        v, metadata = world.machine(number), restore.trace.metadata
        identity = {
            "vm": number,
            "name": metadata.vm,
            "boot": metadata.boot,
            "start_ns": restore.start_ns,
            "agent": int(v["last_agent"]) if v["last_agent"] >= 0 else None,
            "stranded": bool(v["stranded"]),
        }
        local = local_boot_ns(world.setups[number], world.hardware)
        rows.append(identity | figures(world, number, local))
    return pl.DataFrame(rows, infer_schema_length=None)


def _agents(world: World) -> pl.DataFrame:
    """Return one row a media agent."""
    machines, agents = world.tables["machines"], world.tables["agents"]
    size = world.setups[0].plan.block_bytes
    lost = dict(world.agents.failures)
    rows = []
    for agent, record in enumerate(agents):
        own = machines[machines["last_agent"] == agent]
        rows.append(
            {
                "agent": agent,
                "machines": len(own),
                "media_fetches": int(own["fetches"].sum()),
                "media_bytes": int(own["fetched_bytes"].sum()),
                "peak_cache_bytes": int(record["peak"]) * size,
                "lost_ns": lost.get(agent),
            }
        )
    return pl.DataFrame(rows, schema_overrides={"lost_ns": pl.Int64})
