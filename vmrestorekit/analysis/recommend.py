"""The cheapest way to restore that meets a service level, what it is traded against, and what limits it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from vmrestorekit.analysis.cases import PlanSource
from vmrestorekit.analysis.rows import SweepError
from vmrestorekit.analysis.settings import SETTINGS, with_settings
from vmrestorekit.analysis.space import Between
from vmrestorekit.analysis.sweep import sweep
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link, PrimaryStorage, resolve_hardware
from vmrestorekit.traces.corpus import Boot

__all__ = ["CRITERIA", "Recommendation", "ServiceLevel", "options_of", "recommend"]

SECOND, HOUR = 1_000_000_000, 3600 * 1_000_000_000
_PLENTY = 1 << 40
_CHOICE = ("plan", "block_bytes", "copy", "hardware")  # and the settings

# criterion, a column of an option -> what a person calls it
CRITERIA = {
    "ready_s": "boot done, 95th percentile over the boots, in seconds from the request",
    "released_h": "backup copy released, slowest boot, in hours from the request",
    "cache_gib": "read cache, largest peak of a boot, in GiB",
}


@dataclasses.dataclass(frozen=True)
class ServiceLevel:
    """What a restore has to do; None: whatever it takes.

    Attributes
    ----------
    ready_s : float, optional
        In this time from the request 95 of 100 boots are done.
    released_h : float, optional
        In this time every backup copy is released.
    cache_gib : float, optional
        No restore's read cache holds more.
    """

    ready_s: float | None = None
    released_h: float | None = None
    cache_gib: float | None = None

    def __post_init__(self) -> None:
        for name, bound in dataclasses.asdict(self).items():
            if bound is not None and not 0 < bound < float("inf"):
                raise SweepError(f"service level: expected {name} above 0, got {bound!r}")
        if not self.bounds:
            raise SweepError(f"service level: expected at least one of {', '.join(CRITERIA)}, got none")

    @property
    def bounds(self) -> dict[str, float]:
        """The criteria that count, with their bounds."""
        return {name: bound for name, bound in dataclasses.asdict(self).items() if bound is not None}


@dataclasses.dataclass(frozen=True, eq=False)
class Recommendation:
    """What to choose, and why.

    Attributes
    ----------
    level : ServiceLevel
    options : polars.DataFrame
        One row for each combination of plan, hardware and settings: those, `cost`, the `CRITERIA` over all
        boots, `media_gb` (mean bytes read from media), `errors` (boots that could not be simulated), `meets`
        the level, and whether it is on the Pareto `front`: no other is as good in cost and every criterion,
        and better in one.
    chosen : mapping, optional
        The cheapest option that meets the level; None if none does.
    nearest : mapping
        The chosen one, or the one that misses the level by the least factor.
    limits : polars.DataFrame
        What the criteria of `nearest` would be if one thing cost nothing: `without`, the criteria, `meets`.
    """

    level: ServiceLevel
    options: pl.DataFrame
    chosen: Mapping[str, Any] | None
    nearest: Mapping[str, Any]
    limits: pl.DataFrame

    def sentence(self) -> str:
        """Return what a person is told."""
        what = ", ".join(
            f"{name} {self.nearest[name]}" for name in self.options.columns if name in (*_CHOICE, *SETTINGS)
        )
        first = max(self.level.bounds, key=lambda name: self.nearest[name] / self.level.bounds[name])
        best = self.limits.sort(first, nulls_last=True).row(0, named=True)
        figures = ", ".join(
            f"{name} {self.nearest[name]:.3g} (at most {bound:g})"
            for name, bound in self.level.bounds.items()
        )
        limit = f"what limits {first} most is {best['without']}: without it {best[first]:.3g}"
        if self.chosen is not None:
            return f"Cheapest that meets the level: {what}; {figures}; {limit}."
        enough = self.limits.filter("meets")["without"].to_list()
        change = "no single change is enough"
        if enough:
            change = f"it would be met without {' or without '.join(enough)}"
        return f"The level cannot be met. Nearest: {what}; {figures}; {limit}; {change}."


def recommend(
    boots: Boot | Iterable[Boot],
    plans: PlanSource | Mapping[str, PlanSource],
    hardware: Hardware | str | Sequence[Hardware | str],
    settings: Mapping[str, Sequence[Any] | Between] | None = None,
    *,
    level: ServiceLevel,
    cost: pl.Expr | None = None,
    **how: Any,
) -> Recommendation:
    """Sweep over plans, hardware and settings, and choose the cheapest that meets a service level.

    Parameters
    ----------
    boots, plans, hardware, settings, **how
        As of `sweep`. All boots count alike.
    level : ServiceLevel
    cost : polars.Expr, optional
        Over the columns of `Recommendation.options`; default: GiB of read cache, and a hundredth of the GB
        read from media. Name prices of your own.

    Returns
    -------
    Recommendation

    Raises
    ------
    SweepError
        As `sweep`; or every option fails.
    """
    chosen_boots = [boots] if isinstance(boots, Boot) else list(boots)
    table = sweep(chosen_boots, plans, hardware, settings, **how)
    options = options_of(table, level, cost)
    usable = options.filter(errors=0)
    if usable.is_empty():
        reason = table["error"].drop_nulls()[0]
        raise SweepError(f"recommend: expected an option that every boot can take; the first error: {reason}")
    meeting = usable.filter("meets").sort("cost", maintain_order=True)
    chosen = meeting.row(0, named=True) if meeting.height else None
    nearest = chosen or usable.sort(_missed_by(level), maintain_order=True).row(0, named=True)
    limits = _limits(chosen_boots, plans, hardware, nearest, level, how)
    return Recommendation(level, options, chosen, nearest, limits)


def options_of(table: pl.DataFrame, level: ServiceLevel, cost: pl.Expr | None = None) -> pl.DataFrame:
    """Return the options of a sweep's table, see `Recommendation.options`."""
    choice = [name for name in table.columns if name in (*_CHOICE, *SETTINGS)]
    # a mount that is never released, a boot without an end, meet no bound
    options = table.group_by(choice, maintain_order=True).agg(
        ready_s=pl.col("time_to_ready_ns").quantile(0.95, "higher") / SECOND,
        released_h=pl.when(pl.col("released_ns").null_count() == 0).then(pl.col("released_ns").max() / HOUR),
        cache_gib=pl.col("peak_cache_bytes").max() / 2**30,
        media_gb=pl.col("media_bytes").mean() / 1e9,
        errors=pl.col("error").count(),
        unfinished=pl.col("time_to_ready_ns").null_count(),
    )
    options = options.with_columns(ready_s=pl.when(unfinished=0).then("ready_s")).drop("unfinished")
    price = pl.col("cache_gib") + pl.col("media_gb") / 100 if cost is None else cost
    options = options.with_columns(price.alias("cost"), meets=_meets(level) & (pl.col("errors") == 0))
    return options.with_columns(front=_on_front(options, ["cost", *level.bounds]))


def _meets(level: ServiceLevel) -> pl.Expr:
    met = (pl.col(name).is_not_null() & (pl.col(name) <= at) for name, at in level.bounds.items())
    return pl.all_horizontal(met)


def _missed_by(level: ServiceLevel) -> pl.Expr:
    """Return the factor by which the level is missed in its worst criterion."""
    unmet = pl.lit(float("inf"))
    return pl.max_horizontal(pl.col(name).fill_null(unmet) / at for name, at in level.bounds.items())


def _on_front(options: pl.DataFrame, criteria: Sequence[str]) -> pl.Series:
    values = options.select(pl.col(criteria).fill_null(float("inf"))).to_numpy()
    failed = (options["errors"] > 0).to_numpy()
    front = [
        not failed[at] and not ((values <= row).all(axis=1) & (values < row).any(axis=1) & ~failed).any()
        for at, row in enumerate(values)
    ]
    return pl.Series("front", front, pl.Boolean)


# --- what limits it -----------------------------------------------------------------------------------


def _idealised(hardware: Hardware) -> dict[str, Hardware]:
    """Return the hardware with one thing at a time that costs nothing."""
    device = hardware.backup_device
    no_positioning: dict[str, Any] = {"positioning_ns": 0, "mount_ns": 0, "distance_ns_per_gib": 0}
    quick = PrimaryStorage(0, _PLENTY)
    return {
        "media positioning": hardware.replace(backup_device=_with(device, **no_positioning)),
        "media bandwidth": hardware.replace(backup_device=_with(device, bandwidth=_PLENTY)),
        "the link": hardware.replace(link=Link(0, _PLENTY)),
        "the destination": hardware.replace(destination=quick, write_cache=quick),
        "the guest's own computing": hardware.replace(cpu_factor=1e-6),
    }


def _with(device: BackupDevice, **changes: Any) -> BackupDevice:
    return dataclasses.replace(device, **changes)


def _limits(
    boots: Sequence[Boot],
    plans: PlanSource | Mapping[str, PlanSource],
    hardware: Hardware | str | Sequence[Hardware | str],
    nearest: Mapping[str, Any],
    level: ServiceLevel,
    how: Mapping[str, Any],
) -> pl.DataFrame:
    """Simulate the nearest option again, each time without one of the things that cost time."""
    settings = {name: value for name, value in nearest.items() if name in SETTINGS}
    source = plans[nearest["plan"]] if isinstance(plans, Mapping) else plans
    machines = [hardware] if isinstance(hardware, Hardware | str) else hardware
    machine = next(each for each in map(resolve_hardware, machines) if each.name == nearest["hardware"])
    of_hardware = {name: value for name, value in settings.items() if name.startswith("hardware.")}
    _, machine = with_settings(RestorePlan((1 << 20,)), machine, of_hardware)
    of_plan = {name: [value] for name, value in settings.items() if name.startswith("plan.")}
    kept = {name: how[name] for name in ("n_jobs", "workers", "cluster") if name in how}
    cases: dict[str, tuple[Hardware, dict[str, list[Any]]]] = {
        name: (ideal, of_plan) for name, ideal in _idealised(machine).items()
    }
    cases["a bound of the cache"] = (machine, of_plan | {"plan.cache_bytes": [_all_bytes(boots)]})
    rows = []
    for name, (ideal, changed) in cases.items():
        table = sweep(
            *(boots, {nearest["plan"]: source}, ideal, changed),
            block_bytes=[nearest["block_bytes"]],
            copies=[nearest["copy"]],
            **kept,
        )
        option = options_of(table, level).row(0, named=True)
        rows.append({"without": name, **{each: option[each] for each in CRITERIA}, "meets": option["meets"]})
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(CRITERIA, pl.Float64()))


def _all_bytes(boots: Sequence[Boot]) -> int:
    return max(sum(boot.disk_bytes) for boot in boots) + (64 << 20)
