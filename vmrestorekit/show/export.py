"""Saving what a widget shows: its chart as a picture or a page, its table as Parquet."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import ipywidgets as widgets
import polars as pl

from vmrestorekit.show.controls import button
from vmrestorekit.show.theme import styled

__all__ = ["Export", "ExportError", "save"]

Chart: TypeAlias = Any

# what a person chooses -> the end of the file's name
FORMATS = {
    "PNG (picture)": ".png",
    "SVG (picture)": ".svg",
    "HTML (page)": ".html",
    "Parquet (table)": ".parquet",
}
_DOTS_PER_PIXEL = 2  # sharp on paper and on dense screens


class ExportError(ValueError):
    """What is to be saved, or where, is not as expected."""


def save(path: str | Path, chart: Chart, table: pl.DataFrame) -> Path:
    """Save a chart (.png, .svg, .html) or its table (.parquet), and return where.

    Parameters
    ----------
    path : str or Path
        Its ending says which; a file that is there is replaced once the new one is whole.
    chart : altair chart
    table : polars.DataFrame

    Raises
    ------
    ExportError
        If the ending is none of these, the folder does not exist, or pictures cannot be drawn here.
    """
    path = Path(path)
    if path.suffix not in FORMATS.values():
        raise ExportError(f"{path.name}: expected a name that ends in {', '.join(FORMATS.values())}")
    if not path.parent.is_dir():
        raise ExportError(f"{path}: expected a folder that exists, {path.parent} does not")
    handle, name = tempfile.mkstemp(path.suffix, f".{path.stem}-", path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        _write(unfinished, chart, table)
        unfinished.chmod(0o644)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _write(path: Path, chart: Chart, table: pl.DataFrame) -> None:
    if path.suffix == ".parquet":
        table.write_parquet(path, compression="zstd")
        return
    try:
        import vl_convert  # noqa: F401  altair would say it in ten lines
    except ImportError as error:
        raise ExportError(f"{path.suffix}: expected the package vl-convert-python, which draws it") from error
    if path.suffix == ".html":
        chart.save(path, inline=True)  # a page that needs no network
    else:
        chart.save(path, scale_factor=_DOTS_PER_PIXEL)


class Export(widgets.HBox):  # type: ignore[misc]
    """A row of controls by which the widget above is saved to a file.

    Parameters
    ----------
    name : str
        The file's name without its ending, until somebody changes it.
    chart, table : callable
        Called without arguments when something is saved; return the chart, and the table, as they are shown.
    """

    def __init__(self, name: str, chart: Callable[[], Chart], table: Callable[[], pl.DataFrame]) -> None:
        self._chart, self._table = chart, table
        self.format = widgets.Dropdown(
            options=list(FORMATS.items()),
            description="Save as",
            tooltip="A picture or a page of the chart, or its table",
            layout={"width": "220px"},
            style={"description_width": "60px"},
        )
        self.name = widgets.Text(
            value=name, description="File", tooltip="Its name, without the ending", layout={"width": "240px"},
            style={"description_width": "40px"},
        )  # fmt: skip
        self.button = button("Save", "Save beside the notebook", self.save, width="80px")
        self._status = widgets.HTML(layout={"min_width": "0"})
        self._announce("")
        super().__init__(
            [self.format, self.name, self.button, self._status],
            layout={"flex_flow": "row wrap", "grid_gap": "4px 8px", "align_items": "center"},
        )

    def save(self) -> Path | None:
        """Save as chosen, and say where; return None, and say why, if that is not possible."""
        try:
            path = save(f"{self.name.value}{self.format.value}", self._chart(), self._table())
        except (ExportError, OSError) as error:
            self._announce(f"Not saved: {error}")
            return None
        self._announce(f"Saved as {path.name}.")
        return path

    def _announce(self, text: str) -> None:
        self._status.value = styled(f'<span role="status" aria-live="polite">{escape(text)}</span>')
