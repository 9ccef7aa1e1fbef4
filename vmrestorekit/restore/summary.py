"""The figures of a whole run: as the engine has counted them, or from the events alone, simulated or real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import CAUSES, READERS
from vmrestorekit.traces.schema import OPS

if TYPE_CHECKING:
    from vmrestorekit.restore.world import World

__all__ = ["SUMMARY_MEANING", "figures", "summarise", "tabulate", "time_of"]

# name -> (unit, meaning), in the order in which they are shown
SUMMARY_MEANING = {
    "launch_ns": ("ns", "from the request for the restore to the launch of the virtual machine"),
    "time_to_boot_ns": ("ns", "from the launch to the end of the boot"),
    "time_to_ready_ns": ("ns", "from the request for the restore to the end of the boot"),
    "local_boot_ns": ("ns", "time to boot with every block on the destination"),
    "stall_ns": ("ns", "time to boot beyond that: what the backup cost the boot"),
    "wait_p50_ns": ("ns", "median wait of the virtual machine's reads"),
    "wait_p99_ns": ("ns", "99th percentile of these waits"),
    "wait_max_ns": ("ns", "longest of these waits"),
    "vm_reads": ("", "reads of the virtual machine"),
    "hits": ("blocks", "asked for by the virtual machine and found in the read cache"),
    "waits": ("blocks", "asked for by the virtual machine while on their way"),
    "misses": ("blocks", "asked for by the virtual machine and fetched for it"),
    "hit_rate": ("", "hits / (hits + waits + misses)"),
    "refetches_after_purge": ("blocks", "misses of blocks that had been purged"),
    "staged_bytes": ("bytes", "brought to the read cache by the stagers"),
    "wasted_bytes": ("bytes", "staged, and never sent to anyone"),
    "unread_first_set_bytes": ("bytes", "staged for the boot, and never read by the virtual machine"),
    "media_fetches": ("", "fetches from the backup device"),
    "media_bytes": ("bytes", "read from the backup device"),
    "peak_cache_bytes": ("bytes", "most that the read cache held, blocks in flight included"),
    "purged_bytes": ("bytes", "purged from the read cache"),
    "evicted_bytes": ("bytes", "evicted from the read cache"),
    "relocation_start_ns": ("ns", "from the request for the restore to the start of the relocation"),
    "relocation_ns": ("ns", "from the start of the relocation to its last block"),
    "relocated_bytes": ("bytes", "copied to the destination by the relocation"),
    "writes_applied_bytes": ("bytes", "written by the virtual machine and applied to the destination"),
    "released_ns": ("ns", "until the backup copy was de-associated"),
    "cut_off": ("", "requests that the expiry cut off"),
}


def time_of(events: pl.DataFrame, kind: str) -> int | None:
    """Return the time of the first event of a kind, None if there is none."""
    times = events.filter(pl.col("kind") == kind)["time_ns"]
    return int(times[0]) if len(times) else None


def summarise(
    events: pl.DataFrame, plan: RestorePlan, local_boot_ns: int | None
) -> dict[str, int | float | None]:
    """Return the figures named in `SUMMARY_MEANING`; None where the run has no such thing.

    Parameters
    ----------
    events : polars.DataFrame
        `vmrestorekit.restore.events.EVENTS_SCHEMA`.
    plan : RestorePlan
        For the size of a block.
    local_boot_ns : int, optional
        Time to boot with every block on the destination.
    """
    size = plan.block_bytes
    launch, boot_done = time_of(events, "launch_vm"), time_of(events, "boot_done")
    started, finished = time_of(events, "start_relocation"), time_of(events, "finish_relocation")
    to_boot = _difference(boot_done, launch)
    blocks = dict(events.group_by("kind").agg(pl.col("count").sum()).iter_rows())
    reads = dict(
        events.filter(
            pl.col("kind").is_in(["cache_hit", "cache_wait", "cache_miss"]),
            pl.col("detail") == READERS.index("vm"),
        )
        .group_by("kind")
        .len()
        .iter_rows()
    )
    hits, waits, misses = (reads.get(kind, 0) for kind in ("cache_hit", "cache_wait", "cache_miss"))
    wait = _read_waits(events)
    staged, wasted = _staged_and_wasted(events)
    cut_off = events.filter(pl.col("kind") == "expire")["detail"]
    return {
        "launch_ns": launch,
        "time_to_boot_ns": to_boot,
        "time_to_ready_ns": boot_done,
        "local_boot_ns": local_boot_ns,
        "stall_ns": _difference(to_boot, local_boot_ns),
        "wait_p50_ns": _percentile(wait, 50),
        "wait_p99_ns": _percentile(wait, 99),
        "wait_max_ns": _percentile(wait, 100),
        "vm_reads": _count(events, "vm_read"),
        "hits": hits,
        "waits": waits,
        "misses": misses,
        "hit_rate": hits / (hits + waits + misses) if hits + waits + misses else None,
        "refetches_after_purge": _count(events, "refetch_after_purge"),
        "staged_bytes": staged * size,
        "wasted_bytes": wasted * size,
        "unread_first_set_bytes": _unread_first_set(events) * size,
        "media_fetches": _count(events, "fetch"),
        "media_bytes": blocks.get("fetch", 0) * size,
        "peak_cache_bytes": _peak_cache_blocks(events) * size,
        "purged_bytes": blocks.get("purge", 0) * size,
        "evicted_bytes": blocks.get("evict", 0) * size,
        "relocation_start_ns": started,
        "relocation_ns": _difference(finished, started),
        "relocated_bytes": blocks.get("relocated", 0) * size,
        "writes_applied_bytes": int(events.filter(pl.col("kind") == "applied")["detail"].sum()),
        "released_ns": time_of(events, "de_associate"),
        "cut_off": int(cut_off[0]) if len(cut_off) else 0,
    }


def figures(world: World, number: int, local_boot_ns: int | None) -> dict[str, int | float | None]:
    """Return the same figures for a machine of a simulated run, as the engine has counted them.

    Times count from the request for its restore. With several machines, the peak of the read cache is that of
    the media agent that the machine was associated with last.
    """
    v = world.machine(number)
    size = world.setups[number].plan.block_bytes
    asked = int(v["asked_ns"])

    def since_asked(name: str) -> int | None:
        return int(v[name]) - asked if v[name] >= 0 else None

    launch, boot_done, started = map(since_asked, ("launched_ns", "boot_done_ns", "started_ns"))
    to_boot = _difference(boot_done, launch)
    requests, blocks = world.requests(number), world.blocks(number)
    reads = (requests["op"] == OPS.index("read")) & (requests["issued"] >= 0)
    done = requests[reads & (requests["done"] >= 0)]
    wait = done["done"] - done["issued"]
    hits, waits, misses = (int(v[name]) for name in ("hits", "waits", "misses"))
    return {
        "launch_ns": launch,
        "time_to_boot_ns": to_boot,
        "time_to_ready_ns": boot_done,
        "local_boot_ns": local_boot_ns,
        "stall_ns": _difference(to_boot, local_boot_ns),
        "wait_p50_ns": _percentile(wait, 50),
        "wait_p99_ns": _percentile(wait, 99),
        "wait_max_ns": _percentile(wait, 100),
        "vm_reads": int(reads.sum()),
        "hits": hits,
        "waits": waits,
        "misses": misses,
        "hit_rate": hits / (hits + waits + misses) if hits + waits + misses else None,
        "refetches_after_purge": int(v["refetches"]),
        "staged_bytes": int(v["staged"]) * size,
        "wasted_bytes": int(v["wasted"]) * size,
        "unread_first_set_bytes": int((blocks["staged_first"] & (1 - blocks["read"])).sum()) * size,
        "media_fetches": int(v["fetches"]),
        "media_bytes": int(v["fetched_bytes"]),
        "peak_cache_bytes": _peak(world, int(v["last_agent"])) * size,
        "purged_bytes": int(v["purged"]) * size,
        "evicted_bytes": int(v["evicted"]) * size,
        "relocation_start_ns": started,
        "relocation_ns": _difference(since_asked("finished_ns"), started),
        "relocated_bytes": int(v["relocated"]) * size,
        "writes_applied_bytes": int(v["applied_bytes"]),
        "released_ns": since_asked("released_ns"),
        "cut_off": int(v["cut_off"]),
    }


def _peak(world: World, agent: int) -> int:
    return int(world.tables["agents"]["peak"][agent]) if agent >= 0 else 0


def _difference(later: int | None, earlier: int | None) -> int | None:
    return None if later is None or earlier is None else later - earlier


def _count(events: pl.DataFrame, kind: str) -> int:
    return events.filter(pl.col("kind") == kind).height


def _read_waits(events: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Return completion minus issue of the virtual machine's reads, in nanoseconds."""
    reads = events.filter(pl.col("kind") == "vm_read").select("request")
    return (
        events.filter(pl.col("kind") == "vm_done").join(reads, on="request", how="semi")["detail"].to_numpy()
    )


def _percentile(values: npt.NDArray[np.int64], percent: int) -> int | None:
    return int(np.percentile(values, percent, method="higher")) if len(values) else None


def _staged_and_wasted(events: pl.DataFrame) -> tuple[int, int]:
    """Return how many blocks were staged, and how many of them were not sent before they left the cache."""
    by_stager = [CAUSES.index(cause) for cause in ("first_set", "pre_relocation", "relocation_staging")]
    staged = events.filter(pl.col("kind") == "staged")
    ahead = staged.filter(pl.col("detail").is_in(by_stager))
    # the number of the stay in the cache that an event belongs to: how often its block came before
    stays = (
        events.filter(pl.col("kind").is_in(["staged", "serve"]))
        .with_row_index()
        .select("index", "kind", "detail", block=pl.int_ranges("block", pl.col("block") + pl.col("count")))
        .explode("block")
        .with_columns(stay=(pl.col("kind") == "staged").cum_sum().over("block", order_by="index"))
    )
    came_ahead = stays.filter(pl.col("kind") == "staged", pl.col("detail").is_in(by_stager))
    served = stays.filter(pl.col("kind") == "serve").select("block", "stay").unique()
    wasted = came_ahead.join(served, on=["block", "stay"], how="anti").height
    return int(ahead["count"].sum()), wasted


def _unread_first_set(events: pl.DataFrame) -> int:
    """Return how many blocks of the first set were staged and never read by the virtual machine."""
    staged = events.filter(pl.col("kind") == "staged", pl.col("detail") == CAUSES.index("first_set"))
    read = events.filter(pl.col("kind") == "vm_read")
    return _each_block(staged).join(_each_block(read), on="block", how="anti").height


def _each_block(events: pl.DataFrame) -> pl.DataFrame:
    """Return the blocks of the events' ranges, each once."""
    blocks = pl.int_ranges("block", pl.col("block") + pl.col("count"))
    return events.select(block=blocks).explode("block").unique()


def _peak_cache_blocks(events: pl.DataFrame) -> int:
    """Return the most slots that were taken at a time; a slot is taken when its fetch starts."""
    taken = events.filter(pl.col("kind").is_in(["fetch", "evict", "purge"])).select(
        change=pl.when(pl.col("kind") == "fetch").then(pl.col("count")).otherwise(-pl.col("count"))
    )
    return int(taken["change"].cum_sum().to_numpy().max(initial=0))


def tabulate(summaries: Mapping[str, Mapping[str, int | float | None]]) -> list[dict[str, str]]:
    """Return the figures of several runs side by side, one row a figure, as text for people.

    Parameters
    ----------
    summaries : mapping of str to mapping
        Column title -> what `summarise` returned.
    """
    return [
        {"figure": name.removesuffix("_ns").removesuffix("_bytes").replace("_", " ")}
        | {title: _for_people(summary[name], unit) for title, summary in summaries.items()}
        for name, (unit, _) in SUMMARY_MEANING.items()
    ]


def _for_people(value: int | float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "ns":
        return f"{value / 1e6:,.3f} ms" if 0 < abs(value) < 1e7 else f"{value / 1e9:,.3f} s"
    if unit == "bytes":
        return f"{value / 1e6:,.1f} MB"
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}"
