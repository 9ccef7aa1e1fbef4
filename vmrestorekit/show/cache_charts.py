"""What the cache explorer shows: what is asked of a read cache, and charts of what each size makes of it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt
import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import PurgeRule, RestorePlan, first_block_of_disk
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.restore.replay import block_accesses
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.restore.storm import Restore, simulate_storm
from vmrestorekit.show.theme import (
    BLUE,
    BLUISH_GREEN,
    GREY,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILLION,
    YELLOW,
    Sign,
)
from vmrestorekit.show.units import size as size_text
from vmrestorekit.traces.corpus import Boot

__all__ = [
    "FIGURES",
    "MISS_RATIO",
    "POLICIES",
    "Case",
    "cases_of",
    "curves",
    "heat_map",
    "sentence_of",
    "table_at",
]

Accesses: TypeAlias = npt.NDArray[np.int64]

_MIB = 1 << 20
_GAP_NS = 60_000_000_000  # a minute: the clone before has booted by then
_PAGE = 4096
_WIDTH = 400  # pixels, of each of two charts

POLICIES = {
    "fifo": Sign("FIFO", SKY_BLUE, "F", shape="circle"),
    "lru": Sign("LRU", BLUE, "L", "#FFFFFF", shape="square"),
    "clock": Sign("CLOCK", BLUISH_GREEN, "C", shape="cross"),
    "sieve": Sign("SIEVE", REDDISH_PURPLE, "V", shape="diamond"),
    "s3fifo": Sign("S3-FIFO", VERMILLION, "3", shape="triangle-up"),
    "arc": Sign("ARC", ORANGE, "A", shape="triangle-down"),
    "belady": Sign("Belady's optimum", GREY, "O", shape="stroke"),
}

MISS_RATIO = "miss_ratio"
# name -> title, number format; all are better when small but the hit rate
FIGURES = {
    "stall_s": ("stall (s)", ".1f"),
    "hit_rate": ("found in the cache (% of what the VM asked)", ".0f"),
    "misses": ("misses of the VM (blocks)", ",.0f"),
    "evicted_mib": ("evicted (MiB)", ",.0f"),
    "refetches": ("fetched again after a purge (blocks)", ",.0f"),
    "media_mib": ("read from the backup (MiB)", ",.0f"),
    "peak_mib": ("most that the cache held (MiB)", ",.0f"),
    MISS_RATIO: ("miss ratio, without time (%)", ".1f"),
}


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


_SUMMED = (*("stall_ns", "hits", "waits", "misses", "evicted_bytes", "refetches_after_purge", "media_bytes"),)


# --- what may be asked of the cache of a recorded machine ---------------------------------------------------


def cases_of(boot: Boot, plan: RestorePlan, clones: Sequence[Boot], hardware: Hardware) -> dict[str, Case]:
    """Return what may be asked of a read cache when a machine is restored or mounted."""
    bare = plan.with_mode("live_mount", first_set=np.empty(0, np.int32))
    purging = plan.purge if plan.purge != PurgeRule(by_run=False) else PurgeRule()
    restore = plan.replace(mode="instant_restore", purge=purging)
    unpurged = restore.replace(purge=PurgeRule(by_run=False))
    size = plan.block_bytes

    def one(of: RestorePlan) -> Callable[..., list[Mapping[str, Any]]]:
        return lambda **cache: [simulate(boot, of.replace(**cache), hardware, detail="summary").summary()]

    staged = size_text(len(plan.first_set) * size)
    reads = functools.cache(lambda: _asked(boot, bare, hardware))
    asked = functools.cache(lambda: _asked(boot, unpurged, hardware))
    cases = {
        "live_mount": Case(
            "Live mount, first set staged",
            f"{boot.vm} boots straight from the backup. Its first set of {staged} is staged in the read "
            "cache before and during the boot; there is no relocation.",
            *(reads, size, one(plan.with_mode("live_mount"))),
        ),
        "bare_mount": Case(
            "Live mount, nothing staged (what-if)",
            f"{boot.vm} boots straight from the backup, and every block is fetched when it is first asked "
            "for.",
            *(reads, size, one(bare)),
        ),
        "instant_restore": Case(
            "Instant restore, purging",
            f"{boot.vm} boots, and the relocation copies its disk through the same cache. Runs of reads "
            "along the relocation's order are purged once served (O15, O16). The curves know no time and no "
            "purge.",
            *(asked, size, one(restore)),
        ),
        "never_purged": Case(
            "Instant restore, never purging (what-if)",
            f"{boot.vm} boots, and the relocation copies its disk through the same cache; what was sent "
            "stays until it is evicted.",
            *(asked, size, one(unpurged)),
        ),
    }
    if not len(plan.first_set):
        del cases["live_mount"]
    if clones:
        cases["clones"] = _clones((boot, *clones), size, hardware)
    return cases


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


# --- charts -------------------------------------------------------------------------------------------------


class VegaLite(dict[str, Any]):
    """A chart as plain data: made in a millisecond, where Altair's checks would take a third second."""

    def to_dict(self) -> dict[str, Any]:
        """Return the specification, as Altair's charts do."""
        return dict(self)

    def to_altair(self) -> alt.TopLevelMixin:
        """Return the same chart as Altair's, which can be saved."""
        return alt.Chart.from_dict(dict(self))


def curves(table: pl.DataFrame, figure: str, size: int, policy: str, title: str) -> VegaLite:
    """Chart miss ratios without time against the size of the cache, beside them a figure of restores.

    Parameters
    ----------
    table : polars.DataFrame
        Columns `cache_bytes`, `policy`, and those of `FIGURES`.
    figure : str
        Which figure is beside them.
    size, policy
        The chosen ones, which are marked.
    title : str
    """
    charts = [_lines(table, MISS_RATIO, size, policy, _WIDTH)]
    if figure == MISS_RATIO:
        said, charts = (
            "chosen: the line and the thick curve",
            [_lines(table, figure, size, policy, 2 * _WIDTH)],
        )
    else:
        said = "left: blocks alone, no time passes · right: simulated restores"
        charts.append(_lines(table, figure, size, policy, _WIDTH))
    return VegaLite(
        title={"text": title, "subtitle": said, "anchor": "start", "fontSize": 15, "offset": 10},
        description=f"{title}: {FIGURES[figure][0]} against the size of the read cache",
        config={"view": {"stroke": None}},
        hconcat=charts,
        spacing=26,
        resolve={"scale": {"color": "shared", "shape": "shared"}},
    )


def _label(policy: str) -> str:
    return f"{POLICIES[policy].letter}  {POLICIES[policy].name}"


def _lines(table: pl.DataFrame, figure: str, size: int, policy: str, width: int) -> dict[str, Any]:
    title, form = FIGURES[figure]
    known = table.filter(pl.col(figure).is_not_null()).select("cache_bytes", "policy", figure)
    values = [
        {"size": each / _MIB, "policy": name, "name": _label(name), "value": value}
        for each, name, value in known.iter_rows()
    ]
    sizes = sorted(each / _MIB for each in table["cache_bytes"].unique())
    axis = {
        "title": "size of the read cache (MiB, log)",
        "values": [each for each in sizes if math.log2(each) % 1 == 0],
        "format": "~g",
    }
    scale = {"type": "log", "base": 2, "domain": [sizes[0], sizes[-1]], "nice": False}
    x = {"field": "size", "type": "quantitative", "axis": axis, "scale": scale}
    chosen = f"datum.policy == '{policy}'"
    encoding = {
        "x": x,
        "y": {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": True}},
        "color": _by_policy("colour"),
        "tooltip": [
            {"field": "name", "title": "policy"},
            {"field": "size", "type": "quantitative", "title": "MiB", "format": "~g"},
            {"field": "value", "type": "quantitative", "title": title, "format": form},
        ],
    }
    lines = {
        "mark": "line",
        "encoding": {
            "strokeWidth": {"condition": {"test": chosen, "value": 4}, "value": 1.6},
            "strokeDash": {
                "condition": {"test": "datum.policy == 'belady'", "value": [5, 4]},
                "value": [1, 0],
            },
        },
    }
    at_size = f"{chosen} && datum.size == {size / _MIB}"
    points = {
        "mark": {"type": "point", "filled": True, "opacity": 1},
        "encoding": {
            "shape": _by_policy("shape"),
            "size": {"condition": {"test": at_size, "value": 260}, "value": 34},
        },
    }
    rule = {
        "data": {"values": [{"size": size / _MIB}]},
        "mark": {"type": "rule", "color": GREY, "strokeWidth": 3},
        "encoding": {"x": x},
    }
    drawn = {"data": {"values": values}, "encoding": encoding, "layer": [lines, points]}
    return {"width": width, "height": 250, "layer": [rule, drawn]}


def _by_policy(sign: str) -> dict[str, Any]:
    """Return the policy as a colour or as a shape, with one legend for both."""
    return {
        "field": "name",
        "type": "nominal",
        "title": "policy",
        "scale": {
            "domain": [_label(name) for name in POLICIES],
            "range": [getattr(each, sign) for each in POLICIES.values()],
        },
        "legend": {"orient": "bottom", "columns": 7, "labelLimit": 220, "symbolSize": 70},
    }


# --- the map of sizes and policies --------------------------------------------------------------------------

_CELL = 12  # user units, as ClickableMap has it
# from the best to the worst; the root tells apart what is near the best
_GRADES = (BLUISH_GREEN, SKY_BLUE, YELLOW, ORANGE, VERMILLION)


def heat_map(
    values: Sequence[Sequence[float | None]], figure: str, sizes: Sequence[int], rows: Sequence[str]
) -> str:
    """Return a map as SVG: a row for each policy, a column for each size, in each cell the number itself."""
    known = [value for row in values for value in row if value is not None]
    best, worst = (min(known), max(known)) if known else (0.0, 0.0)
    if figure == "hit_rate":
        best, worst = worst, best
    parts = [
        _cell(column, row, value, figure, best, worst)
        for row, line in enumerate(values)
        for column, value in enumerate(line)
    ]
    small = 'style="font-size:3.9px"'
    for row, policy in enumerate(rows):
        parts.append(
            f'<text x="-2" y="{_CELL * row + 7.4}" text-anchor="end" {small}>{_label(policy)}</text>'
        )
    bottom = _CELL * len(rows) + 5
    for column, size in enumerate(sizes):
        x = _CELL * column + _CELL / 2
        parts.append(f'<text x="{x}" y="{bottom}" text-anchor="middle" {small}>{size / _MIB:g}</text>')
    width = _CELL * len(sizes)
    parts.append(f'<text x="-2" y="{bottom}" text-anchor="end" {small}>MiB</text>')
    # else the frame of the chosen cell would grow with the picture, over its neighbours' numbers
    style = "<style>.vmrk-chosen { vector-effect: non-scaling-stroke; }</style>"
    view = f'viewBox="-26 -1 {width + 27} {bottom + 3}" style="max-width:{3.2 * (width + 27):.0f}px"'
    return f'<svg role="img" {view}>{style}{"".join(parts)}</svg>'


def _cell(column: int, row: int, value: float | None, figure: str, best: float, worst: float) -> str:
    x, y = _CELL * column, _CELL * row
    if value is None:
        fill, text, ink = "var(--vmrk-panel)", "…", "var(--vmrk-soft)"
    else:
        far = math.sqrt((value - best) / (worst - best)) if worst != best else 0.0
        fill, ink = _GRADES[min(int(far * len(_GRADES)), len(_GRADES) - 1)], "#000000"
        text = format(value, FIGURES[figure][1])
        text = text if len(text) < 5 else format(value, ".0f")
    style = f'text-anchor="middle" style="font-size:4.3px;fill:{ink}"'
    return (
        f'<rect x="{x + 0.3}" y="{y + 0.3}" width="11.4" height="11.4" style="fill:{fill}"/>'
        f'<text x="{x + 6}" y="{y + 7.5}" {style}>{text}</text>'
    )


# --- words and numbers --------------------------------------------------------------------------------------

_SAME = 0.1  # seconds of stall in which nobody sees a difference
_HEADS = {
    "stall_s": "Stall",
    "hit_rate": "Found in cache",
    "misses": "Misses",
    "evicted_mib": "Evicted",
    "refetches": "Refetched after purge",
    "media_mib": "Read from backup",
    "peak_mib": "Most in cache",
    MISS_RATIO: "Miss ratio (no time)",
}
_UNITS = {
    "stall_s": "s",
    "hit_rate": "%",
    "evicted_mib": "MiB",
    "media_mib": "MiB",
    "peak_mib": "MiB",
    MISS_RATIO: "%",
}


def sentence_of(table: pl.DataFrame, size: int, policy: str) -> str:
    """Return what a size and a policy do, how others do, and from which size on nothing changes any more."""
    here = table.filter(pl.col("cache_bytes") == size, pl.col("policy") == policy).row(0, named=True)
    begin = f"{POLICIES[policy].name}, {size_text(size)}:"
    if "stall_s" not in table.columns:
        return f"{begin} {_without_time(table, size, here)}"
    if here["stall_s"] is None:
        return f"{begin} not simulated yet."
    said = (
        f"{begin} {here['stall_s']:.1f} s of stall; {here['hit_rate']:.0f} % of the blocks that the VM asks "
        f"for are found in the cache; {here['evicted_mib']:,.0f} MiB are evicted."
    )
    return " ".join([said, *_others(table, size, policy), *_enough(table)])


def _without_time(table: pl.DataFrame, size: int, here: Mapping[str, Any]) -> str:
    ratio = here[MISS_RATIO]
    best = table.filter(pl.col("cache_bytes") == size, pl.col("policy") == "belady")[MISS_RATIO][0]
    if ratio is None or best is None:
        return "not replayed yet."
    least = table.filter(policy="belady")[MISS_RATIO].to_numpy().min()
    return (
        f"{ratio:.1f} % of the accesses miss; Belady's optimum, which knows the future, misses {best:.1f} %. "
        f"At {least:.1f} % all curves end: a block's first access always misses."
    )


def _others(table: pl.DataFrame, size: int, policy: str) -> Iterable[str]:
    """Say which policy is the best at this size, once all are known."""
    at_size = table.filter(pl.col("cache_bytes") == size, pl.col("policy") != "belady")
    stalls = dict(at_size.select("policy", "stall_s").iter_rows())
    if None in stalls.values():
        return
    best = min(stalls, key=lambda name: stalls[name])
    if max(stalls.values()) - stalls[best] <= _SAME:
        yield f"All {len(stalls)} policies do the same at this size."
    elif stalls[policy] - stalls[best] <= _SAME:
        worst = max(stalls, key=lambda name: stalls[name])
        yield f"None is better at this size; {POLICIES[worst].name} is the worst with {stalls[worst]:.1f} s."
    else:
        yield f"Best at this size is {POLICIES[best].name} with {stalls[best]:.1f} s."


def _enough(table: pl.DataFrame) -> Iterable[str]:
    """Say from which size on nothing is evicted, once all are known."""
    known = table.filter(pl.col("policy") != "belady")
    if known["evicted_mib"].null_count():
        return
    evicted = known.group_by("cache_bytes").agg(pl.col("evicted_mib").max()).sort("cache_bytes")
    filled = evicted.filter(pl.col("evicted_mib") > 0)["cache_bytes"]
    enough = evicted.filter(pl.col("cache_bytes") > (filled[-1] if len(filled) else 0))["cache_bytes"]
    if len(enough):
        yield f"From {size_text(enough[0])} on nothing is evicted, and the policy does not matter."


def table_at(table: pl.DataFrame, size: int, policy: str) -> str:
    """Return all figures at a size as a table in HTML, a row for each policy; the chosen one is marked."""
    figures = [name for name in _HEADS if name in table.columns]
    heads = "".join(f'<th scope="col">{_HEADS[name]}</th>' for name in figures)
    lines = []
    for row in table.filter(pl.col("cache_bytes") == size).iter_rows(named=True):
        texts = [_text(name, row[name]) for name in figures]
        mark, weight = ("● ", 700) if row["policy"] == policy else ("", 400)
        cells = "".join(f'<td style="font-weight:{weight};white-space:nowrap">{text}</td>' for text in texts)
        lines.append(
            f'<tr><th scope="row" style="font-weight:{weight}">{mark}{_label(row["policy"])}</th>{cells}</tr>'
        )
    return (
        f"<table><caption>All policies with a read cache of {size_text(size)}</caption>"
        f'<thead><tr><th scope="col">Policy</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    unit = f" {_UNITS[name]}" if name in _UNITS else ""
    return f"{format(value, FIGURES[name][1])}{unit}"
