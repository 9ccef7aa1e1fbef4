"""Charts that draw offline in JupyterLab: the renderer that Altair lacks.

Altair's own renderer fetches Vega from the network, and its MIME renderer announces Vega-Lite 6, which
JupyterLab does not draw and the notebook format rejects. JupyterLab brings Vega-Lite 5; the charts of this
room stay within it.
"""

from __future__ import annotations

from typing import Any

import altair as alt

__all__ = ["MIME_TYPE", "VEGA_LITE_5", "enable", "vega_lite_5"]

MIME_TYPE = "application/vnd.vegalite.v5+json"
VEGA_LITE_5 = "https://vega.github.io/schema/vega-lite/v5.20.1.json"


def vega_lite_5(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return a chart's specification as Vega-Lite 5."""
    return chart.to_dict() | {"$schema": VEGA_LITE_5}


def enable() -> None:
    """Let notebooks show charts as Vega-Lite 5, without a network."""
    alt.renderers.register("vmrestorekit", _render)
    alt.renderers.enable("vmrestorekit")


def _render(specification: dict[str, Any], **_: Any) -> dict[str, Any]:
    described = specification.get("description", "a chart")
    return {
        MIME_TYPE: specification | {"$schema": VEGA_LITE_5},
        "text/plain": f"<Chart: {described}>",
    }
