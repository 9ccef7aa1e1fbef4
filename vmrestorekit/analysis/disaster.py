"""After a disaster: a whole fleet is restored at once, through a few media agents, most important first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from vmrestorekit.analysis.fleet import Fleet, Member
from vmrestorekit.analysis.rows import SweepError
from vmrestorekit.restore.hardware import Hardware, resolve_hardware
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.restore.storm import MediaAgents, Restore, simulate_storm

__all__ = ["Disaster", "simulate_disaster"]

SECOND = 1_000_000_000
UP_SHARES = (0.5, 0.95, 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Disaster:
    """What became of a fleet.

    Attributes
    ----------
    machines : polars.DataFrame
        One row a machine: `vm`, `name`, `boot`, `priority` (0 first), `asked_s`, `ready_s` (its boot is
        done), `released_s` (its disk is relocated and the backup copy is free), all counted from the
        disaster, null if never; `stranded`; `media_bytes`; and `one_by_one_ready_s`, if all were restored
        fully one after the other in the same order.
    agents : polars.DataFrame
        As of `vmrestorekit.restore.storm.Storm`.
    """

    machines: pl.DataFrame
    agents: pl.DataFrame

    def summary(self) -> pl.DataFrame:
        """Return the figures of both ways: one row each."""
        rows = []
        for way, ready, released, media in (
            ("instant restore", "ready_s", "released_s", int(self.machines["media_bytes"].sum())),
            ("one after the other", "one_by_one_ready_s", "one_by_one_ready_s", None),
        ):
            times = self.machines[ready].sort(nulls_last=True)
            rows.append(
                {
                    "way": way,
                    **{f"up {share:.0%} (s)": _at_share(times, share) for share in UP_SHARES},
                    "all relocated (s)": _at_share(self.machines[released].sort(nulls_last=True), 1.0),
                    "media (GB)": None if media is None else media / 1e9,
                }
            )
        return pl.DataFrame(rows)

    def curve(self) -> pl.DataFrame:
        """Return how many machines are up and relocated over time: `time_s`, `what`, `machines`."""
        parts = []
        columns = {"up": "ready_s", "relocated": "released_s", "up, one by one": "one_by_one_ready_s"}
        for what, column in columns.items():
            times = self.machines[column].drop_nulls().sort()
            counted = pl.DataFrame({"time_s": times}).with_row_index("machines", offset=1)
            machines = pl.col("machines").cast(pl.Int64)
            parts.append(counted.select("time_s", pl.lit(what).alias("what"), machines))
        return pl.concat(parts)


def _at_share(times: pl.Series, share: float) -> float | None:
    at: float | None = times[int(np.ceil(share * len(times))) - 1]
    return at


def simulate_disaster(
    fleet: Fleet,
    agents: MediaAgents,
    hardware: Hardware | str = "object_storage",
    *,
    priority_shares: Sequence[float] = (0.1, 0.3, 0.6),
    asked_per_minute: float = 60.0,
    seed: int = 0,
) -> Disaster:
    """Restore a whole fleet.

    Parameters
    ----------
    fleet : Fleet
    agents : MediaAgents
        How many, what they share, and which one fails when.
    hardware : Hardware or str
        The backup device (one for all or one for each agent), each agent's link, each host's storage.
    priority_shares : sequence of float
        Share of the machines in each class, the most important first; which is in which is drawn.
    asked_per_minute : float
        Restores are asked for one after the other, class by class, so many a minute.
    seed : int

    Raises
    ------
    SweepError
        If the shares do not sum to 1, or the pace is none.
    PlanError
        If the fleet's plans do not agree in what they say of the media agent.
    """
    if min(priority_shares, default=-1) < 0 or abs(sum(priority_shares) - 1) > 1e-9:
        raise SweepError(f"priority_shares: expected shares that sum to 1, got {tuple(priority_shares)}")
    if not 0 < asked_per_minute < float("inf"):
        raise SweepError(f"asked_per_minute: expected a number above 0, got {asked_per_minute}")
    hardware = resolve_hardware(hardware)
    size = len(fleet.members)
    bounds = np.round(np.cumsum(priority_shares) * size).astype(int)
    drawn = np.random.default_rng(seed).permutation(size)
    # in the order in which they are asked for
    members = [fleet.members[number] for number in drawn]
    priority = np.searchsorted(bounds, np.arange(size), side="right")
    asked = np.round(np.arange(size) * 60 * SECOND / asked_per_minute).astype(np.int64)
    restores = [
        Restore(member.trace, member.plan, member.address, content=member.content, start_ns=int(start))
        for member, start in zip(members, asked, strict=True)
    ]
    storm = simulate_storm(restores, agents, hardware, detail="summary")
    since = pl.col("start_ns")
    machines = storm.machines.select(
        "vm",
        "name",
        "boot",
        pl.Series("priority", priority, pl.Int64),
        asked_s=since / SECOND,
        ready_s=(since + pl.col("time_to_ready_ns")) / SECOND,
        released_s=(since + pl.col("released_ns")) / SECOND,
        stranded="stranded",
        media_bytes="media_bytes",
    )
    known: dict[tuple[int, int], float] = {}
    alone = np.cumsum([_full_restore_s(member, hardware, known) for member in members])
    return Disaster(machines.with_columns(one_by_one_ready_s=pl.Series(alone)), storm.agents)


def _full_restore_s(member: Member, hardware: Hardware, known: dict[tuple[int, int], float]) -> float:
    """Return how long a full restore takes alone; that of a clone as long as that of another as fast."""
    key = (id(member.trace), id(member.plan))
    if key not in known:
        plan = member.plan.with_mode("full_restore")
        found = simulate_trace(member.trace, plan, hardware, member.address, detail="summary").metrics
        known[key] = (found["time_to_ready_ns"] or 0) / SECOND
    return known[key]
