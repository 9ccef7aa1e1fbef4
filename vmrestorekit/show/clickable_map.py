"""A map of which a cell can be chosen, by a click or with the arrow keys."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

__all__ = ["ClickableMap"]


class ClickableMap(anywidget.AnyWidget):
    """A picture made of cells, one of which is chosen.

    Attributes
    ----------
    svg : str
        The picture: cells of 12 by 12 user units from the origin, row after row, as
        `vmrestorekit.show.block_map.block_map` draws them.
    columns, cells : int
        How many there are in a row, and in all.
    cell : int
        The chosen one, -1 for none; observe it.
    label : str
        What the map shows, for screen readers.
    text : str
        What the chosen cell is, for screen readers.
    """

    _esm = Path(__file__).with_suffix(".js")

    svg = traitlets.Unicode().tag(sync=True)
    columns = traitlets.Int(1, min=1).tag(sync=True)
    cells = traitlets.Int(0, min=0).tag(sync=True)
    cell = traitlets.Int(-1, min=-1).tag(sync=True)
    label = traitlets.Unicode("Map").tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
