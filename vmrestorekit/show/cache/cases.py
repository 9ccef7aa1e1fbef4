"""What may be asked of a read cache: mounts and restores of recorded machines, or accesses alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import PurgeRule, RestorePlan, first_block_of_disk
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.restore.replay import block_accesses, replay_cache
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.restore.storm import Restore, simulate_storm
from vmrestorekit.show.units import size as size_text
from vmrestorekit.traces.corpus import Boot

__all__ = ["Case", "accesses_alone", "cases_of"]

Accesses: TypeAlias = npt.NDArray[np.int64]

_MIB = 1 << 20
_GAP_NS = 60_000_000_000  # a minute: the clone before has booted by then
_PAGE = 4096
_SUMMED = (*("stall_ns", "hits", "waits", "misses", "evicted_bytes", "refetches_after_purge", "media_bytes"),)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Something that is asked of a read cache.

    Attributes
    ----------
    name, about : str
        For a list to choose from, and in a sentence or two.
    ask : callable
        Returns the blocks that are asked for, in order.
    block_bytes : int
    run : callable or None
        Simulates it for a plan's ``cache_bytes`` and ``eviction``, and returns rows of summaries; None where
        accesses are all that is known.
    """

    name: str
    about: str
    ask: Callable[[], Accesses]
    block_bytes: int
    run: Callable[..., Iterable[Mapping[str, Any]]] | None = None

    @functools.cached_property
    def accesses(self) -> Accesses:
        """The blocks that are asked for, in order."""
        return self.ask()

    def miss_ratios(self, sizes: Sequence[int], policy: str) -> list[float]:
        """Return the miss ratio in percent, without time, for each size of a cache."""
        accesses = self.accesses
        return [100 * replay_cache(accesses, size // self.block_bytes, policy).miss_ratio for size in sizes]

    def figures(self, cache_bytes: int, policy: str) -> dict[str, float]:
        """Return what a cache of this size and policy makes of it, all machines together."""
        assert self.run is not None
        rows = list(self.run(cache_bytes=cache_bytes, eviction=policy))
        total = {name: sum(row[name] or 0 for row in rows) for name in _SUMMED}
        asked = total["hits"] + total["waits"] + total["misses"]
        return {
            "stall_s": total["stall_ns"] / 1e9,
            "hit_rate": 100 * total["hits"] / asked if asked else 0.0,
            "misses": float(total["misses"]),
            "evicted_mib": total["evicted_bytes"] / _MIB,
            "refetches": float(total["refetches_after_purge"]),
            "media_mib": total["media_bytes"] / _MIB,
            "peak_mib": max(row["peak_cache_bytes"] for row in rows) / _MIB,
        }


def cases_of(boot: Boot, plan: RestorePlan, clones: Sequence[Boot], hardware: Hardware) -> dict[str, Case]:
    """Return what may be asked of a read cache when a machine is restored or mounted."""
    cases = _mounts(boot, plan, hardware) | _restores(boot, plan, hardware)
    if clones:
        cases["clones"] = _clones((boot, *clones), plan.block_bytes, hardware)
    return cases


def _mounts(boot: Boot, plan: RestorePlan, hardware: Hardware) -> dict[str, Case]:
    bare = plan.with_mode("live_mount", first_set=np.empty(0, np.int32))
    reads = functools.cache(lambda: _asked(boot, bare, hardware))
    size, staged = plan.block_bytes, size_text(len(plan.first_set) * plan.block_bytes)
    cases = {
        "live_mount": Case(
            "Live mount, first set staged",
            f"{boot.vm} boots straight from the backup. Its first set of {staged} is staged in the read "
            "cache before and during the boot; there is no relocation.",
            *(reads, size, _run_of(boot, plan.with_mode("live_mount"), hardware)),
        ),
        "bare_mount": Case(
            "Live mount, nothing staged (what-if)",
            f"{boot.vm} boots straight from the backup, and every block is fetched when it is first asked "
            "for.",
            *(reads, size, _run_of(boot, bare, hardware)),
        ),
    }
    if not len(plan.first_set):
        del cases["live_mount"]
    return cases


def _restores(boot: Boot, plan: RestorePlan, hardware: Hardware) -> dict[str, Case]:
    purging = plan.purge if plan.purge != PurgeRule(by_run=False) else PurgeRule()
    restore = plan.replace(mode="instant_restore", purge=purging)
    unpurged = restore.replace(purge=PurgeRule(by_run=False))
    asked = functools.cache(lambda: _asked(boot, unpurged, hardware))
    return {
        "instant_restore": Case(
            "Instant restore, purging",
            f"{boot.vm} boots, and the relocation copies its disk through the same cache. Runs of reads "
            "along the relocation's order are purged once served (O15, O16). The curves know no time and no "
            "purge.",
            *(asked, plan.block_bytes, _run_of(boot, restore, hardware)),
        ),
        "never_purged": Case(
            "Instant restore, never purging (what-if)",
            f"{boot.vm} boots, and the relocation copies its disk through the same cache; what was sent "
            "stays until it is evicted.",
            *(asked, plan.block_bytes, _run_of(boot, unpurged, hardware)),
        ),
    }


def _run_of(boot: Boot, plan: RestorePlan, hardware: Hardware) -> Callable[..., list[Mapping[str, Any]]]:
    """Return what simulates the boot by a plan but for its cache."""
    return lambda **cache: [simulate(boot, plan.replace(**cache), hardware, detail="summary").summary()]


def _asked(boot: Boot, plan: RestorePlan, hardware: Hardware) -> Accesses:
    """Return the blocks that machine and relocation ask of the media agent, in the order of time.

    That is not all that the machine reads: holes, and what it has written itself, are nothing to the agent.
    """
    all_of_it = plan.replace(cache_bytes=plan.blocks * plan.block_bytes)
    events = simulate(boot, all_of_it, hardware).events
    asked = events.filter(pl.col("kind").is_in(["cache_hit", "cache_wait", "cache_miss"]))
    return asked["block"].cast(pl.Int64).to_numpy()


def _clones(boots: Sequence[Boot], size: int, hardware: Hardware) -> Case:
    """Return live mounts of machines that share contents, one a minute, through one media agent."""
    names = ", ".join(boot.vm for boot in boots)

    def run(**cache: Any) -> Iterable[Mapping[str, Any]]:
        restores = []
        for number, (boot, content, address) in enumerate(laid_out()):
            plan = RestorePlan(boot.disk_bytes, mode="live_mount", block_bytes=size, **cache)
            start_ns = number * _GAP_NS
            restores.append(Restore(boot.trace, plan, address, content=content, start_ns=start_ns))
        return simulate_storm(restores, hardware=hardware, detail="summary").machines.iter_rows(named=True)

    def ask() -> Accesses:
        reads = []
        for boot, content, address in laid_out():
            blocks = block_accesses(boot.trace, size)
            reads.append(content[blocks[address[blocks] >= 0]])
        return np.concatenate(reads)

    laid_out = functools.cache(lambda: _lay_out(boots, size))
    return Case(
        f"Live mounts of {len(boots)} clones, one a minute",
        f"{names}: machines made from one image, mounted one a minute, nothing staged. The cache knows "
        "blocks by their content: what one has read, the next finds there. Stalls are added up.",
        *(ask, size, run),
    )


def _lay_out(boots: Sequence[Boot], size: int) -> list[tuple[Boot, Accesses, Accesses]]:
    """Return each machine with a number for each block's content, equal for equals, and its address."""
    rows, laid_out, end = [], [], 0
    for boot in boots:
        blocks = BackupLayout.full(boot.manifests, size)
        pages = np.zeros((len(blocks.address), size // _PAGE), np.uint64)
        starts = first_block_of_disk(boot.disk_bytes, size)
        for manifest, start in zip(boot.manifests, starts, strict=False):
            content = manifest.blocks["content"].to_numpy()
            pages[start:].reshape(-1)[: len(content)] = content
        rows.append(pages.view(f"V{pages.shape[1] * 8}").ravel())
        laid_out.append(np.where(blocks.address >= 0, blocks.address + end, -1))
        end += blocks.stored_bytes
    numbers = np.unique(np.concatenate(rows), return_inverse=True)[1].astype(np.int64)
    contents = np.split(numbers, np.cumsum([len(row) for row in rows])[:-1])
    return list(zip(boots, contents, laid_out, strict=True))


def accesses_alone(accesses: npt.NDArray[Any], name: str) -> Case:
    """Return accesses to blocks of 64 KiB as a case of which nothing else is known."""
    about = (
        f"{len(accesses):,} accesses to {len(np.unique(accesses)):,} blocks of 64 KiB, replayed without time."
    )
    return Case(name, about, lambda: accesses, 64 << 10)
