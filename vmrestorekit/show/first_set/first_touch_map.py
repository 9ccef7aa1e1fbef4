"""When a recording first reads which place of its disks, and what it is that it reads."""

from __future__ import annotations

import json
from collections.abc import Mapping

import altair as alt
import numpy as np
import polars as pl

from vmrestorekit.show import renderer
from vmrestorekit.show.chart_frame import ONLY_LABELS, Chart, finished, heading, only_says
from vmrestorekit.show.theme import (
    BLUE,
    BLUISH_GREEN,
    GREY,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILLION,
    YELLOW,
)
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES, Manifest
from vmrestorekit.traces.working_set import blocks_touched

__all__ = ["KINDS_READ", "first_touch_map", "kinds_of_files", "touches_by_kind"]

renderer.enable()

_MB = 1e6
_MARKS = {"boot_done_ns": "boot done", "service_start_ns": "service", "service_end_ns": "service ends"}
_READ_MB = (pl.len() * MANIFEST_BLOCK_BYTES / _MB).round(3).alias("mb")
_MB_AND_SECOND = [alt.Tooltip("mb:Q", title="MB"), alt.Tooltip("second:Q", format=".2f")]
_CELLS_ACROSS, _CELLS_DOWN = 250, 90  # of the map of first touches

KINDS_READ = {
    "boot loader": "#595959",
    "kernel, initial RAM disk": BLUE,
    "kernel modules": SKY_BLUE,
    "programs and their files": VERMILLION,
    "libraries": ORANGE,
    "configuration": YELLOW,
    "file system's own": BLUISH_GREEN,
    "data and logs": REDDISH_PURPLE,
    "other": "#B3B3B3",
}
# the first that fits
_KINDS_OF_PATHS = {
    r"^\$boot|^(/boot)?/grub(/|$)": "boot loader",
    r"^\$": "file system's own",
    r"^/boot/|^/(vmlinuz|initrd\.img|config|System\.map)-": "kernel, initial RAM disk",
}
_KINDS_OF_SYSTEM_PATHS = {
    r"^(/usr)?/lib/modules/": "kernel modules",
    r"^/etc/|\.(conf|service|socket|target|timer|mount|path|slice|rules)$": "configuration",
    r"^(/usr|/lib|/opt).*\.so(\.[0-9.]+)?$": "libraries",
    r"^/(usr|bin|sbin|lib|opt)": "programs and their files",
    r"^/(var|srv|home|root|tmp|mnt|media)/": "data and logs",
}


def touches_by_kind(boot: Boot) -> pl.DataFrame:
    """Return the 4 KiB blocks with contents that a recording reads, when it first does, and what they are.

    Returns
    -------
    polars.DataFrame
        `disk`, `block`, `place` (how many blocks with contents the disk has in front of it), `path` (null: of
        no file), `second` of the first read, and `what`, one of `KINDS_READ`; in order of the first reads.
    """
    reads = boot.trace.frame.filter(pl.col("op") == "read")
    touched = blocks_touched(reads)
    ends = (reads["offset"] + reads["length"]).to_numpy()
    blocks = -(-ends // MANIFEST_BLOCK_BYTES) - reads["offset"].to_numpy() // MANIFEST_BLOCK_BYTES
    request = np.searchsorted(np.cumsum(blocks), touched["touch"].to_numpy(), side="right")
    touched = touched.with_columns(second=reads["issued_ns"].gather(request) / 1e9)
    disks = []
    for disk, manifest in enumerate(boot.manifests):
        here = touched.filter(pl.col("disk") == disk)
        place = (manifest.blocks["content"] != 0).cum_sum().cast(pl.Int64) - 1
        found = manifest.blocks[here["block"]].select("content", "file")
        named = pl.concat([here, found], how="horizontal").with_columns(place=place[here["block"]])
        named = named.filter(pl.col("content") != 0)
        disks.append(named.join(kinds_of_files(manifest), on="file", how="left"))
    what = pl.col("what").fill_null("other")
    return pl.concat(disks).sort("touch").select("disk", "block", "place", "path", "second", what)


def kinds_of_files(manifest: Manifest) -> pl.DataFrame:
    """Return `file`, `path` and `what` of each file.

    A file system without the folders of an installation is mounted somewhere, but the manifest does not say
    where: what is in it counts as data, unless it looks like /boot.
    """
    files = manifest.files.select("path", "kind").with_row_index("file").cast({"file": pl.Int32})
    inside = pl.col("path").str.replace(r"^@[^/]*/", "/")  # the mark of one of several file systems
    files = files.with_columns(inside=inside, mark=pl.col("path").str.extract(r"^(@[^/]*)/").fill_null(""))
    is_system = pl.col("inside").str.contains(r"^/(etc|usr|sbin)/").any().over("mark")
    of_system = _first_that_fits(_KINDS_OF_SYSTEM_PATHS)
    elsewhere = pl.when(is_system).then(of_system).otherwise(pl.lit("data and logs"))
    is_folder = pl.col("kind").is_in(["directory", "symlink"])
    by_path = _first_that_fits(_KINDS_OF_PATHS).fill_null(elsewhere)
    what = pl.when(is_folder).then(pl.lit("file system's own")).otherwise(by_path)
    return files.select("file", "path", what=what)


def _first_that_fits(kinds: Mapping[str, str]) -> pl.Expr:
    fits = {what: pl.col("inside").str.contains(expression) for expression, what in kinds.items()}
    return pl.coalesce(pl.when(each).then(pl.lit(what)) for what, each in fits.items())


def first_touch_map(boot: Boot, *, width: int = 560) -> Chart:
    """Chart when a recording first reads which place of its disks; below, the same by what is read.

    Parameters
    ----------
    boot : Boot
    width : int
        Of the drawing area in pixels.
    """
    title = "When a boot reads what for the first time"
    touches = touches_by_kind(boot)
    if not touches.height:
        return only_says(title, f"{boot.boot} of {boot.vm} reads no block with contents.")
    last_mark = max(boot.metadata.marks.values(), default=0)
    end = max(int(boot.trace.frame["completed_ns"].to_numpy().max()), last_mark) / 1e9
    x = alt.X("second:Q", scale=alt.Scale(domain=[0, end], nice=False), title="seconds since the start")
    disks = touches["disk"].unique().sort().to_list()
    maps = [_map_of_disk(touches.filter(pl.col("disk") == disk), boot, disk, end) for disk in disks]
    charts: list[Chart] = [
        alt.layer(each.encode(x.axis(None)), _marks(boot, x.axis(None), named=not above)).resolve_axis(
            x="independent"
        )
        for above, each in enumerate(maps)
    ]
    charts.append(_lanes(touches, end).encode(x) + _marks(boot, x))
    said = f"{boot.vm}, {boot.boot}; upwards: what is stored, in the order of the disk, without empty space"
    sized = [chart.properties(width=width) for chart in charts]
    return finished(alt.vconcat(*sized, spacing=8), heading(title, said))


def _map_of_disk(touches: pl.DataFrame, boot: Boot, disk: int, end: float) -> Chart:
    # empty space would press everything flat, and no backup copy stores it
    stored = int((boot.manifests[disk].blocks["content"] != 0).sum()) * MANIFEST_BLOCK_BYTES / _MB
    span = stored / _CELLS_DOWN
    position = ((pl.col("place") * MANIFEST_BLOCK_BYTES / _MB / span).floor() + 0.5) * span
    places = touches.group_by("what", second=_middle(end), position=position.round(2))
    cells = places.agg(_READ_MB, pl.col("path").first()).sort("second", "position", "what")
    scale = alt.Scale(domain=[0, stored], nice=False)
    y = alt.Y("position:Q", title=f"disk {disk} (MB)", scale=scale)
    tooltip = ["what:N", alt.Tooltip("path:N", title="such as"), *_MB_AND_SECOND]
    squares = alt.Chart(cells).mark_square(size=14, opacity=1)
    return squares.encode(y, _what_colour(), tooltip=tooltip).properties(height=70 if disk else 230)


def _lanes(touches: pl.DataFrame, end: float) -> Chart:
    """Return a lane for each kind of what is read: its label says what the colours above mean."""
    total = dict(touches.group_by("what").agg(_READ_MB).iter_rows())
    kinds = [kind for kind in KINDS_READ if kind in total]
    texts = {kind: f"{kind}  {max(total[kind], 0.1):.1f} MB" for kind in kinds}
    labels = alt.Axis(labelExpr=f"{json.dumps(texts)}[datum.value]", **ONLY_LABELS)
    bins = touches.group_by("what", second=_middle(end)).agg(_READ_MB).sort("second", "what")
    ticks = alt.Chart(bins).mark_tick(thickness=2.4, size=13, opacity=1)
    y = alt.Y("what:N", scale=alt.Scale(domain=kinds), axis=labels)
    return ticks.encode(y, _what_colour(), tooltip=["what:N", *_MB_AND_SECOND]).properties(
        height=17 * len(kinds)
    )


def _middle(end: float) -> pl.Expr:
    """Return the middle of the span of time that a second is in, so that a chart has few enough marks."""
    span = end / _CELLS_ACROSS
    return (((pl.col("second") / span).floor() + 0.5) * span).round(3)


def _what_colour() -> alt.Color:
    scale = alt.Scale(domain=list(KINDS_READ), range=list(KINDS_READ.values()))
    return alt.Color("what:N", legend=None, scale=scale)


def _marks(boot: Boot, x: alt.X, *, named: bool = False) -> Chart:
    """Return a rule for each mark of a recording, and their names as an axis above.

    A client comes right after the boot is done: that name stands left of its rule, the next one right.
    """
    marks = boot.metadata.marks
    seconds = {name: marks[mark] / 1e9 for mark, name in _MARKS.items() if mark in marks}
    names, values = list(seconds), list(seconds.values())
    rightwards = f"datum.value == {seconds.get(_MARKS['service_start_ns'], -1)}"
    axis = alt.Axis(
        orient="top",
        values=values,
        labelExpr=f"{json.dumps(names)}[indexof({json.dumps(values)}, datum.value)]",
        labelAlign=alt.condition(rightwards, alt.value("left"), alt.value("right")),
        labelFontSize=11,
        **ONLY_LABELS,
    )
    frame = pl.DataFrame({"second": values, "mark": names}, {"second": pl.Float64, "mark": pl.String})
    rules = alt.Chart(frame).mark_rule(color=GREY, strokeDash=[4, 3])
    return rules.encode(x.axis(axis) if named else x, tooltip=["mark:N", "second:Q"])
