"""Charts of backup copies: where the blocks of a boot lie, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import altair as alt
import polars as pl

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.backup.touched import containers_touched, read_amplification
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import renderer
from vmrestorekit.show.theme import BLUE, BLUISH_GREEN, GREY, REDDISH_PURPLE, VERMILLION
from vmrestorekit.traces.boots import Boot

__all__ = ["amplification_by_frame", "boot_in_containers", "time_by_chain_length"]

renderer.enable()

# Altair's charts return themselves from most methods, which its types say as Any or as a union
Chart: TypeAlias = Any

_COLUMNS = 40  # containers in a row
_CELL = 17
_FIGURES = {
    "stall_ns": ("stall", "s", 1e9),
    "time_to_boot_ns": ("time to boot", "s", 1e9),
    "relocation_ns": ("relocation", "s", 1e9),
    "media_bytes": ("read from the medium", "MB", 1e6),
    "media_fetches": ("fetches", "in all", 1),
}
_FROM_ZERO = alt.Scale(domainMin=0)
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
_COLOURS = (BLUE, VERMILLION, BLUISH_GREEN, REDDISH_PURPLE, GREY)
# what is drawn later is dashed and smaller, so that an equal one behind it is seen
_DASHES = ([1, 0], [6, 6], [2, 3], [10, 4], [1, 5])
_SIZES = (170, 70, 70, 60, 50)


def boot_in_containers(boot: Boot, layouts: Mapping[str, BackupLayout], *, width: int = 760) -> Chart:
    """Chart the container files of backup copies of a machine, and how much of each its boot reads.

    A cell is a container file, in the order in which they were written, row after row; where a chunk begins
    there is its number.

    Parameters
    ----------
    boot : Boot
    layouts : mapping of name to BackupLayout
        Copies of the disks before this boot.
    width : int
        Of the drawing area in pixels.
    """
    if not layouts:
        raise ValueError("layouts: expected at least one BackupLayout, got none")
    touched = {name: containers_touched(boot.trace, layout) for name, layout in layouts.items()}
    most = max(int(frame["read"].to_numpy().max()) for frame in touched.values())
    charts = [_containers(name, frame, most, width) for name, frame in touched.items()]
    title = alt.TitleParams(
        "Where the blocks of a boot lie", subtitle=f"{boot.vm}, {boot.boot}", anchor="start", fontSize=15
    )
    return (
        alt.vconcat(*charts, spacing=16)
        .resolve_scale(color="shared")
        .properties(title=title, description=f"Containers that {boot.boot} of {boot.vm} reads")
        .configure_view(stroke=None)
    )


def _containers(name: str, frame: pl.DataFrame, most: int, width: int) -> Chart:
    place = pl.int_range(pl.len())
    frame = frame.with_columns(
        row=place // _COLUMNS,
        column=place % _COLUMNS,
        chunk_begins=pl.when(pl.col("chunk") != pl.col("chunk").shift(fill_value=-1))
        .then(pl.col("chunk").cast(pl.String))
        .otherwise(pl.lit("")),
        first=(100 * pl.col("order")).round(),
    )
    read, chunks = frame.filter(pl.col("read") > 0), frame["chunk"].n_unique()
    said = (
        f"{name}: {frame['read'].sum():,} blocks in {read.height} of {frame.height} containers"
        f" and {read['chunk'].n_unique()} of {chunks} chunks"
    )
    rows = int(frame["row"].to_numpy().max()) + 1
    x = alt.X("column:O", axis=None, scale=alt.Scale(domain=list(range(_COLUMNS)), paddingInner=0.08))
    y = alt.Y("row:O", axis=None)
    base = alt.Chart(frame).encode(
        x,
        y,
        tooltip=[
            alt.Tooltip("chunk:Q"),
            alt.Tooltip("container:Q"),
            alt.Tooltip("blocks:Q", title="blocks of the copy"),
            alt.Tooltip("read:Q", title="read by the boot"),
            alt.Tooltip("first:Q", title="first read after % of the boot's blocks"),
        ],
    )
    colour = alt.Color(
        "read:Q",
        title="blocks the boot reads",
        scale=alt.Scale(scheme="blues", domain=[0, most]),
        legend=alt.Legend(orient="bottom", gradientLength=220),
    )
    cells = base.mark_rect(stroke=GREY, strokeWidth=0.5).encode(colour)
    ink = alt.condition(f"datum.read > {0.55 * most}", alt.value("white"), alt.value("black"))
    numbers = base.mark_text(fontSize=10, fontWeight="bold").encode(text="chunk_begins:N", color=ink)
    return (cells + numbers).properties(
        width=width,
        height=_CELL * rows,
        title=alt.TitleParams(said, anchor="start", fontSize=12, fontWeight="normal"),
    )


def amplification_by_frame(boot: Boot, layouts: Mapping[int, BackupLayout], *, width: int = 480) -> Chart:
    """Chart how much is read from the medium for each byte that a boot reads, by what is read together.

    Parameters
    ----------
    boot : Boot
    layouts : mapping of int to BackupLayout
        Copies of the disks before this boot by the bytes that are compressed, and so read, together.
    width : int
        Of the drawing area in pixels.
    """
    if not layouts:
        raise ValueError("layouts: expected at least one BackupLayout, got none")
    rows = [
        {"together": _binary(size), "times": read_amplification(boot.trace, layout)}
        for size, layout in sorted(layouts.items())
    ]
    frame = pl.DataFrame(rows).with_columns(text=pl.col("times").round(1).cast(pl.String) + "×")
    base = alt.Chart(frame).encode(
        alt.X("together:O", sort=None, title="read together", axis=alt.Axis(labelAngle=0)),
        alt.Y("times:Q", title="bytes from the medium for a byte read"),
        tooltip=["together:O", alt.Tooltip("times:Q", format=".2f")],
    )
    # a value inside its bar, so that it needs no colour of the theme
    numbers = base.mark_text(dy=10, color="white", fontWeight="bold").encode(text="text:N")
    title = alt.TitleParams(
        "Read amplification", subtitle=f"{boot.vm}, {boot.boot}", anchor="start", fontSize=15
    )
    return (
        (base.mark_bar(color=BLUE) + numbers)
        .properties(width=width, height=220, title=title, description="Read amplification by frame size")
        .configure_view(stroke=None)
    )


def time_by_chain_length(
    runs: Mapping[str, Mapping[int, Timeline]],
    figures: tuple[str, ...] = ("stall_ns", "relocation_ns", "media_fetches"),
    *,
    width: int = 215,
) -> Chart:
    """Chart what a restore costs against the length of the chain of copies that it is read from.

    Each figure as a multiple of what it is with the shortest chain; the figure itself is in the tooltip.

    Parameters
    ----------
    runs : mapping of name to (mapping of int to Timeline)
        For each name, such as that of a medium: restores by the number of incremental copies in the chain.
    figures : tuple of str
        Names of the summary, one small chart each; of `stall_ns`, `time_to_boot_ns`, `relocation_ns`,
        `media_bytes` and `media_fetches`.
    width : int
        Of each small chart's drawing area in pixels.
    """
    unknown = [figure for figure in figures if figure not in _FIGURES]
    if unknown or not figures:
        raise ValueError(f"figures: expected some of {', '.join(_FIGURES)}, got {unknown or 'none'}")
    if not runs or not all(runs.values()):
        raise ValueError("runs: expected at least one restore under each name, got none")
    rows = [
        {"run": name, "length": length, **_figures(timeline, figures)}
        for name, of_length in runs.items()
        for length, timeline in sorted(of_length.items())
    ]
    shortest = pl.col(figures).first().over("run")
    relative = (pl.col(figures) / shortest).fill_nan(1).name.prefix("relative_")
    frame = pl.DataFrame(rows).with_columns(relative)

    def by_run(values: tuple[Any, ...]) -> Any:
        return alt.Scale(domain=list(runs), range=list(values))

    colour = alt.Color("run:N", title=None, scale=by_run(_COLOURS))
    # the same title and domain, and none without a legend: only then are the legends one
    dash = alt.StrokeDash("run:N", title=None, scale=by_run(_DASHES))
    shape = alt.Shape("run:N", title=None, scale=by_run(_SHAPES))
    size = alt.Size("run:N", title=None, scale=by_run(_SIZES))
    x = alt.X("length:O", title="incremental copies in the chain", axis=alt.Axis(labelAngle=0))
    charts: list[Chart] = []
    for figure in figures:
        name, unit, _ = _FIGURES[figure]
        times = alt.Y(f"relative_{figure}:Q", title=f"{name} (× the shortest chain's)", scale=_FROM_ZERO)
        base = alt.Chart(frame).encode(x, times)
        lines = base.mark_line(strokeWidth=2).encode(colour, dash)
        exact = alt.Tooltip(f"{figure}:Q", title=f"{name} ({unit})", format=",.2f")
        points = base.mark_point(filled=True, opacity=1).encode(
            colour, shape, size, tooltip=["run:N", "length:Q", exact]
        )
        charts.append((lines + points).properties(width=width, height=220))
    title = alt.TitleParams("What a longer chain costs", anchor="start", fontSize=15, offset=10)
    return (
        alt.hconcat(*charts, spacing=24)
        .properties(title=title, description="Cost of a restore by the length of its chain")
        .configure_legend(orient="bottom", symbolSize=80)
        .configure_view(stroke=None)
    )


def _figures(timeline: Timeline, figures: tuple[str, ...]) -> dict[str, float | None]:
    if not isinstance(timeline, Timeline):
        raise TypeError(f"runs: expected Timelines by the length of their chain, got {timeline!r:.60}")
    summary = timeline.summary()
    values: dict[str, float | None] = {}
    for figure in figures:
        value = summary.get(figure)
        values[figure] = None if value is None else float(value) / _FIGURES[figure][2]
    return values


def _binary(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
