"""What axe-core finds wrong with a page for people who use a screen reader or a keyboard."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

GRAVE = ("serious", "critical")
WIDGETS = ".jp-OutputArea-output .jupyter-widgets"


def grave_findings(page: Any, within: str = WIDGETS) -> list[str]:
    """Return what is serious or critical in parts of a page: the rule, and where.

    Parameters
    ----------
    page : playwright page
    within : str
        A selector; what is not drawn yet is not seen.
    """
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("within => axe.run({include: [[within]]}, {resultTypes: ['violations']})", within)
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]}"
        for rule in found["violations"]
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]
