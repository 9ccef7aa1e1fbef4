"""Controls as all of this room's widgets have them: a text label, a tooltip, room for both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ipywidgets as widgets

__all__ = ["button", "checkbox", "dropdown", "row", "slider"]


def row(children: Any, *, align: str = "center", gap: str = "4px 8px") -> widgets.HBox:
    """Return widgets side by side, or below each other where there is no room."""
    return widgets.HBox(children, layout={"flex_flow": "row wrap", "grid_gap": gap, "align_items": align})


def button(
    text: str, tooltip: str, act: Callable[[], object], *, width: str = "100px", disabled: bool = False
) -> widgets.Button:
    """Return a button that acts when it is pressed."""
    made = widgets.Button(description=text, tooltip=tooltip, disabled=disabled, layout={"width": width})
    made.on_click(lambda _: act())
    return made


def dropdown(
    text: str,
    options: Iterable[Any] | Mapping[str, Any],
    tooltip: str,
    *,
    width: str = "250px",
    label_width: str = "70px",
    **value: Any,
) -> widgets.Dropdown:
    """Return a list of which one is chosen: the first, unless a `value` is given.

    Parameters
    ----------
    text, tooltip : str
    options : iterable, or mapping of str
        With a mapping, the values are what the names stand for.
    width, label_width : str
        CSS lengths, of the whole and of the text before it.
    **value
        ``value=…``, one of the options.
    """
    return widgets.Dropdown(
        options=list(options.items()) if isinstance(options, Mapping) else list(options),
        description=text, tooltip=tooltip, layout={"width": width}, style={"description_width": label_width},
        **value,
    )  # fmt: skip


def checkbox(text: str, tooltip: str, on: bool = False) -> widgets.Checkbox:
    """Return a box to tick, as wide as its text."""
    return widgets.Checkbox(
        value=on, description=text, tooltip=tooltip, indent=False, layout={"width": "auto"}
    )


def slider(text: str, value: int, least: int, most: int, tooltip: str) -> widgets.IntSlider:
    """Return a slider of whole numbers."""
    return widgets.IntSlider(
        value=value, min=least, max=most, description=text, tooltip=tooltip, layout={"width": "330px"},
        style={"description_width": "90px"},
    )  # fmt: skip
