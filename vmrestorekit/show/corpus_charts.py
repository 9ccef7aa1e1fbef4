"""Charts of a corpus: what machines read of their disks, when, and what they have in common.

Those of all machines list them by release, then lineage; a bold label begins each release. Every text (but a
number on its colour) is a title or a label of an axis: those suit JupyterLab's light and dark theme.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt
import numpy as np
import polars as pl

from vmrestorekit.show import renderer
from vmrestorekit.show.chart_frame import ONLY_LABELS, WIDTH, Chart, finished, heading, only_says
from vmrestorekit.show.theme import (
    BLUE,
    GREY,
    ORANGE,
    VERMILLION,
)
from vmrestorekit.traces.boots import RecordedVM
from vmrestorekit.traces.in_common import WAYS
from vmrestorekit.traces.working_set import until_boot_done

__all__ = [
    "after_changes_dots",
    "bytes_read_so_far",
    "machines_by_release",
    "overlap_matrix",
    "reading_curves",
    "repeatability_dots",
    "working_set_bars",
]

renderer.enable()

Machines: TypeAlias = Mapping[str, RecordedVM]

_MB = 1e6
_PALE = "#C4C4C4"
_ROW = 19  # pixels of one machine
_WAY_TITLES = {
    "address": "at the same address",
    "content": "with the same content",
    "path": "at the same place of the same path",
}
_LARGEST_CELL, _ROOM_FOR_A_NUMBER, _LARGEST_MATRIX = 44, 22, 680  # pixels
_BEFORE_BOOTS = {"shutdown": (BLUE, "circle"), "crash": (GREY, "square"), "change": (VERMILLION, "triangle")}
_PAIRS = {"recorded twice": (BLUE, "circle"), "after shutdowns": (VERMILLION, "triangle")}
_SMALL: dict[str, Any] = {"fontSize": 12, "fontWeight": "normal"}
_SAMPLES = 60  # of a curve


def machines_by_release(machines: Machines) -> pl.DataFrame:
    """Return the `vm`, `release` and `lineage` of each machine, by release, then lineage, then name."""
    rows = [(name, vm.release or "release unknown", vm.lineage) for name, vm in machines.items()]
    frame = pl.DataFrame(rows, dict.fromkeys(("vm", "release", "lineage"), pl.String), orient="row")
    return frame.sort("release", "lineage", "vm")


def working_set_bars(sets: pl.DataFrame, machines: Machines, *, width: int = WIDTH) -> Chart:
    """Chart what each machine reads until it has booted and in a minute of service, and what it stores.

    Parameters
    ----------
    sets : polars.DataFrame
        As `working_sets` returns it.
    machines : mapping of str to RecordedVM
        Those it is about.
    width : int
        In pixels, without the names.
    """
    title = "What a machine reads, and what it stores"
    if not sets.height:
        return only_says(title, "No machine was recorded.")
    sets = machines_by_release(machines).join(sets, on="vm")
    names = _Names(sets.sort("release", "distinct_mb", descending=[False, True]))
    parts = {"distinct_mb": "until boot done", "service_mb": "first read while used"}
    read = sets.unpivot(list(parts), index="vm", variable_name="when", value_name="mb").drop_nulls()
    read = read.with_columns(pl.col("when").replace(parts))
    colour = alt.Color(
        "when:N",
        title=None,
        scale=alt.Scale(domain=read["when"].unique(maintain_order=True).to_list(), range=[BLUE, ORANGE]),
        legend=alt.Legend(orient="bottom", labelLimit=300),
    )
    order = alt.Order("when:N", sort="descending")  # the boot first
    tooltip = ["vm:N", "when:N", alt.Tooltip("mb:Q", title="MB")]
    bars = (
        alt.Chart(read)
        .mark_bar(height=12)
        .encode(_mb("mb", "distinct MB read"), colour, order, tooltip=tooltip)
    )
    disk = alt.Chart(sets.select("vm", "distinct_mb", "stored_mb")).mark_bar(height=12)
    of_disk = "MB stored, and % of it read until boot done"
    stored = disk.encode(_mb("stored_mb", of_disk), color=alt.value(_PALE))
    of_it = disk.encode(_mb("distinct_mb", of_disk), color=alt.value(BLUE))
    sums = {
        vm: f"{boot:.1f}" + ("" if service is None else f" + {service:.1f}")
        for vm, boot, service in sets.select("vm", "distinct_mb", "service_mb").iter_rows()
    }
    shares = {vm: f"{share:.1f} %" for vm, share in sets.select("vm", "share").iter_rows()}
    left = names.beside(bars, sums, round(0.48 * width))
    right = names.beside(stored + of_it, shares, round(0.3 * width), named=False)
    said = "each machine's last boot; 4 KiB blocks with contents, each counted once"
    return finished(alt.hconcat(left, right, spacing=20), heading(title, said))


def _mb(field: str, title: str) -> alt.X:
    return alt.X(f"{field}:Q", title=title, stack="zero" if field == "mb" else None)


def overlap_matrix(
    pairs: pl.DataFrame, machines: Machines, ways: Sequence[str] = WAYS, *, width: int = WIDTH
) -> Chart:
    """Chart how much of what each machine reads each other one reads, too: a matrix for each way to compare.

    Numbers are in the cells if there is room for them.

    Parameters
    ----------
    pairs : polars.DataFrame
        As `overlaps` returns it.
    machines : mapping of str to RecordedVM
    ways : sequence of {"address", "content", "path"}
    width : int
        Of all matrices together, in pixels; a few machines do not fill it.
    """
    unknown = [way for way in ways if way not in WAYS]
    if unknown or not ways:
        raise ValueError(f"ways: expected some of {', '.join(WAYS)}, got {unknown or 'none'}")
    title = "How much of what a machine reads another one reads, too"
    if not pairs.height:
        return only_says(title, "There are no two boots to compare.")
    names = _Names(machines_by_release(machines))
    side = min(width / len(ways) - 10, _LARGEST_CELL * len(names.places), _LARGEST_MATRIX)
    small = min(10, round(0.8 * side / len(names.places)))
    frame = pairs.with_columns(pl.col("other").str.split(" ").list.first())
    charts: list[Chart] = []
    for way in ways:
        matrix = _matrix(frame, way, has_room=side / len(names.places) >= _ROOM_FOR_A_NUMBER)
        x = names.channel(alt.X, "other", labelAngle=-90, labelFontSize=small)
        y = names.channel(alt.Y, labels=not charts, labelFontSize=small)
        named = alt.TitleParams(_WAY_TITLES[way], frame="group", anchor="start", **_SMALL)
        charts.append(matrix.encode(x, y).properties(width=round(side), height=round(side), title=named))
    said = "percent of what the last boot of the machine on the left reads; on the diagonal: its boot before"
    return finished(alt.hconcat(*charts, spacing=10).resolve_scale(color="shared"), heading(title, said))


def _matrix(frame: pl.DataFrame, way: str, *, has_room: bool) -> Chart:
    base = alt.Chart(frame).encode(tooltip=["vm:N", "other:N", *(f"{each}:Q" for each in WAYS)])
    legend = alt.Legend(orient="bottom", gradientLength=220)
    scale = alt.Scale(scheme="blues", domain=[0, 100])
    cells = base.mark_rect().encode(alt.Color(f"{way}:Q", title="percent", scale=scale, legend=legend))
    ink = alt.condition(f"datum.{way} > 55", alt.value("white"), alt.value("black"))
    numbers = base.mark_text(fontSize=10).encode(text=alt.Text(f"{way}:Q", format=".0f"), color=ink)
    return alt.layer(cells, numbers) if has_room else alt.layer(cells)


def repeatability_dots(pairs: pl.DataFrame, machines: Machines, *, width: int = WIDTH) -> Chart:
    """Chart how much two boots of one machine have in common, and whether they read it in the same order.

    Parameters
    ----------
    pairs : polars.DataFrame
        As `repeatability` returns it.
    machines : mapping of str to RecordedVM
    width : int
        In pixels, without the names.
    """
    title = "Does a machine boot the same way twice?"
    if not pairs.height:
        return only_says(
            title, "No boot was recorded twice, and no two in a row are known to follow a shutdown."
        )
    panels = {
        "same_blocks": "blocks of either that both read (%)",
        "rank_correlation": "rank correlation of their order",
    }
    said = heading(title, "a point is a pair of recordings of one machine; the axes do not begin at zero")
    scales = {
        "same_blocks": _up_to(100, pairs, "same_blocks"),
        "rank_correlation": _up_to(1, pairs, "rank_correlation"),
    }
    return _dots(pairs, machines, panels, scales, "kind", _PAIRS, said, width)


def after_changes_dots(pairs: pl.DataFrame, machines: Machines, *, width: int = WIDTH) -> Chart:
    """Chart how much of what a boot reads the boot before read, too: after a change, a shutdown, a crash.

    Parameters
    ----------
    pairs : polars.DataFrame
        As `after_changes` returns it.
    machines : mapping of str to RecordedVM
    width : int
        In pixels, without the names.
    """
    title = "What a change does to a boot: blocks that the boot before read, too (%)"
    if not pairs.height:
        return only_says(title, "No machine of this corpus was changed between two of its boots.")
    said = heading(title, "a point is a boot, compared with the one before of the same machine")
    scales = dict.fromkeys(WAYS, _up_to(100, pairs, *WAYS))
    return _dots(pairs, machines, _WAY_TITLES, scales, "follows", _BEFORE_BOOTS, said, width)


def bytes_read_so_far(machines: Machines) -> pl.DataFrame:
    """Return how much the last boot of each machine had read, sampled until it was done.

    Returns
    -------
    polars.DataFrame
        `vm`, `boot`, `second` since the start of the machine, `mb` of 10⁶ bytes that had been asked for.
    """
    curves = []
    for machine in machines.values():
        boot = machine.boots[-1]
        reads = until_boot_done(boot).filter(pl.col("op") == "read")
        issued = reads["issued_ns"].to_numpy()
        last = int(issued[-1]) if len(issued) else 0
        second = np.linspace(0, boot.metadata.marks.get("boot_done_ns", last), _SAMPLES) / 1e9
        asked = np.concatenate([[0], np.cumsum(reads["length"].to_numpy())])
        mb = asked[np.searchsorted(issued / 1e9, second, side="right")] / _MB
        curves.append(pl.DataFrame({"second": second.round(3), "mb": mb.round(2)}).select(
            pl.lit(boot.vm).alias("vm"), pl.lit(boot.boot).alias("boot"), "second", "mb"
        ))  # fmt: skip
    schema = {"vm": pl.String, "boot": pl.String, "second": pl.Float64, "mb": pl.Float64}
    return pl.concat(curves) if curves else pl.DataFrame(schema=schema)


def reading_curves(curves: pl.DataFrame, machines: Machines, *, width: int = WIDTH) -> Chart:
    """Chart how much each machine had read over time until its boot was done, a small chart each.

    Parameters
    ----------
    curves : polars.DataFrame
        As `bytes_read_so_far` returns it.
    machines : mapping of str to RecordedVM
    width : int
        Of a full row of small charts, in pixels.
    """
    title = "How a boot's reading goes on until it is done"
    if not curves.height:
        return only_says(title, "No machine was recorded.")
    order = machines_by_release(machines)["vm"].to_list()
    ends = curves.group_by("vm").agg(pl.col("second", "mb").last())
    texts = {vm: [vm, f"{mb:.0f} MB in {second:.0f} s"] for vm, second, mb in ends.iter_rows()}
    columns = min(5, len(texts))
    x = alt.X("second:Q", title="seconds", axis=alt.Axis(tickCount=4))
    lines = alt.Chart(curves).mark_area(
        color=BLUE, fillOpacity=0.25, line={"color": BLUE, "strokeWidth": 2}, interpolate="step-after"
    )
    labels = f"{json.dumps(texts)}[datum.value]"
    header = alt.Header(title=None, labelExpr=labels, labelFontSize=11, labelAnchor="start")
    facets = (
        lines.encode(x, alt.Y("mb:Q", title="MB read"), tooltip=["vm:N", "second:Q", "mb:Q"])
        .properties(width=min(220, width // columns - 16), height=90)
        .facet(alt.Facet("vm:N", sort=order, header=header), columns=columns, spacing=16)
    )
    return finished(facets, heading(title, "each machine's last boot"))


def _dots(
    pairs: pl.DataFrame,
    machines: Machines,
    panels: Mapping[str, str],
    scales: Mapping[str, alt.Scale],
    kind: str,
    signs: Mapping[str, tuple[str, str]],
    title: alt.TitleParams,
    width: int,
) -> Chart:
    """Return a small chart for each of the panels: a point for each pair in the row of its machine."""
    names = _Names(machines_by_release(machines).join(pairs, on="vm", how="semi", maintain_order="left"))
    colours, shapes = ([sign[place] for sign in signs.values()] for place in (0, 1))
    legend: dict[str, Any] = {"title": None, "legend": alt.Legend(orient="bottom", symbolSize=80)}
    charts: list[Chart] = []
    for panel, said in panels.items():
        points = alt.Chart(pairs).mark_point(filled=True, size=60, opacity=0.8)
        points = points.encode(
            alt.X(f"{panel}:Q", title=said, scale=scales[panel]),
            names.channel(alt.Y, labels=not charts, padding=0.5, grid=True),
            alt.Color(f"{kind}:N", scale=alt.Scale(domain=list(signs), range=colours), **legend),
            alt.Shape(f"{kind}:N", scale=alt.Scale(domain=list(signs), range=shapes), **legend),
            tooltip=pairs.columns,
        )
        charts.append(points.properties(width=width // len(panels) - 18, height=names.height))
    return finished(alt.hconcat(*charts, spacing=18), title)


def _up_to(most: float, pairs: pl.DataFrame, *columns: str) -> alt.Scale:
    """Return a scale from a little below the least of the values to what they can be at most."""
    least = pairs.select(pl.min_horizontal(pl.col(columns).min())).item()
    room = (most if least is None else 0) or 1.05 * (most - least) or most / 100
    return alt.Scale(domain=[most - room, most], zero=False)


class _Names:
    """The machines of a chart in order, and in front of those of a release its name, in bold.

    Parameters
    ----------
    order : polars.DataFrame
        `vm` and `release`, those of one release together.
    """

    def __init__(self, order: pl.DataFrame) -> None:
        release_of = dict(order.select("vm", "release").iter_rows())
        self.releases = list(dict.fromkeys(release_of.values()))
        self.places: list[str] = []
        for release, members in itertools.groupby(release_of, release_of.__getitem__):
            self.places += [release, *members]
        self.height = _ROW * len(self.places)

    def channel(
        self, channel: Any, field: str = "vm", *, labels: bool = True, padding: float = 0.03, **axis: Any
    ) -> Any:
        """Return the machines along x or y."""
        bold = alt.condition(
            f"indexof({json.dumps(self.releases)}, datum.value) >= 0", alt.value("bold"), alt.value("normal")
        )
        return channel(
            f"{field}:N",
            scale=alt.Scale(domain=self.places, padding=padding),
            axis=alt.Axis(labels=labels, labelFontWeight=bold, **ONLY_LABELS | axis),
        )

    def beside(self, bars: Chart, texts: Mapping[str, str], width: int, *, named: bool = True) -> Chart:
        """Return bars with a text at the right of each, as labels of an axis."""
        expression = f"{json.dumps(dict(texts))}[datum.value] || ''"
        right = self.channel(alt.Y, orient="right", labelExpr=expression)
        no_bars = alt.Chart(pl.DataFrame({"vm": list(texts)})).mark_tick(opacity=0).encode(right)
        bars = bars.encode(self.channel(alt.Y, labels=named))
        layers = alt.layer(bars, no_bars).resolve_axis(y="independent")
        return layers.properties(width=width, height=self.height)
