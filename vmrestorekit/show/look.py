"""What every widget of this room brings to the page: its style sheet, and names for its sliders."""

from __future__ import annotations

from pathlib import Path

import anywidget

__all__ = ["Look"]


class Look(anywidget.AnyWidget):
    """An invisible part of a widget: the style sheet, and a name for each slider in the page.

    ipywidgets gives the handles of sliders no name: a screen reader would say "slider" and nothing else.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
