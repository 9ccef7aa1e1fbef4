"""A chart inside a widget, drawn anew whenever something changes."""

from __future__ import annotations

from typing import Any, TypeAlias

import ipywidgets as widgets

from vmrestorekit.show.renderer import MIME_TYPE, vega_lite_5

__all__ = ["LiveChart"]

Chart: TypeAlias = Any


class LiveChart(widgets.Output):  # type: ignore[misc]
    """A place where charts are drawn by JupyterLab itself: offline, in its light or dark theme.

    Parameters
    ----------
    height : int
        Pixels that are kept free, so that nothing below jumps when the chart is drawn anew.

    Attributes
    ----------
    chart : altair chart or None
        What is drawn.
    """

    def __init__(self, height: int = 0) -> None:
        super().__init__(layout={"min_height": f"{height}px", "min_width": "0", "overflow": "auto hidden"})
        self.chart: Chart | None = None

    def draw(self, chart: Chart) -> None:
        """Draw a chart instead of the one before."""
        self.chart = chart
        specification = vega_lite_5(chart)
        described = specification.get("description", "a chart")
        self.outputs = (
            {
                "output_type": "display_data",
                "data": {MIME_TYPE: specification, "text/plain": f"<Chart: {described}>"},
                # its own menu has no name for screen readers; the widget's row of controls saves the chart
                "metadata": {MIME_TYPE: {"embed_options": {"actions": False}}},
            },
        )
