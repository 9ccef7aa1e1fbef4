"""Controls as all of this room's widgets have them: a text label, a tooltip, room for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

__all__ = ["button", "dropdown", "row", "slider"]


def row(children: Any, *, align: str = "center", gap: str = "4px 8px") -> widgets.HBox:
    """Return widgets side by side, or below each other where there is no room."""
    return widgets.HBox(children, layout={"flex_flow": "row wrap", "grid_gap": gap, "align_items": align})


def button(text: str, tooltip: str, act: Callable[[], object]) -> widgets.Button:
    """Return a button that acts when it is pressed."""
    made = widgets.Button(description=text, tooltip=tooltip, layout={"width": "100px"})
    made.on_click(lambda _: act())
    return made


def dropdown(text: str, options: list[str], tooltip: str, *, width: str = "250px") -> widgets.Dropdown:
    """Return a list of which one is chosen."""
    return widgets.Dropdown(
        options=options, description=text, tooltip=tooltip, layout={"width": width},
        style={"description_width": "70px"},
    )  # fmt: skip


def slider(text: str, value: int, least: int, most: int, tooltip: str) -> widgets.IntSlider:
    """Return a slider of whole numbers."""
    return widgets.IntSlider(
        value=value, min=least, max=most, description=text, tooltip=tooltip, layout={"width": "330px"},
        style={"description_width": "90px"},
    )  # fmt: skip
