"""Names for sliders: without them a screen reader says "slider" and nothing else."""

from __future__ import annotations

from pathlib import Path

import anywidget

__all__ = ["SliderNames"]


class SliderNames(anywidget.AnyWidget):
    """An invisible part of a widget; the sliders beside it, and in its boxes, are named by their labels."""

    _esm = Path(__file__).with_suffix(".js")
