"""A notebook as a page of the documentation: Markdown and pictures, without running anything."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path
from typing import Any

import nbformat

__all__ = ["Page", "page_of", "title_of"]

CHART = "application/vnd.vegalite.v5+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
VEGA_LITE = "5.20"
DOTS_PER_PIXEL = 2
_FOR_TESTS = "# NBVAL_CHECK_OUTPUT\n"
_OTHER_NOTEBOOK = re.compile(r"\]\((\d\d_\w+)\.ipynb\)")


@dataclasses.dataclass(frozen=True)
class Page:
    """Markdown, and the pictures that it shows, by their names."""

    text: str
    pictures: dict[str, bytes]


def title_of(path: Path) -> str:
    """Return the first heading of a notebook; its name, if it has none."""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            return str(found[1])
    return path.stem


def page_of(path: Path) -> Page:
    """Return a notebook as it is stored as a page."""
    pictures: dict[str, bytes] = {}
    parts = []
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            text = _OTHER_NOTEBOOK.sub(r"](\1.md)", cell.source)
            parts.append(text.replace("](glossary.md)", "](../glossary.md)"))
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(_fenced(cell.source.removeprefix(_FOR_TESTS), "python"))
            parts += [_shown(output, path.stem, pictures) for output in cell.outputs]
    note = (
        '!!! note "A notebook to be run"\n    This page shows it as it was stored. Widgets move only in '
        f"JupyterLab: `make lab`, then open `{path.name}`."
    )
    parts[1:1] = [note]
    return Page("\n\n".join(part for part in parts if part) + "\n", pictures)


def _shown(output: Any, stem: str, pictures: dict[str, bytes]) -> str:
    """Return what an output shows; the richest of its forms that needs no script."""
    if output.output_type == "stream":
        return _fenced(output.text, "text") if output.name == "stdout" else ""
    if output.output_type == "error":
        return _fenced(f"{output.ename}: {output.evalue}", "text")
    data = output.data
    if CHART in data:
        name = f"{stem}-{len(pictures) + 1}.png"
        pictures[name] = _drawn(data[CHART])
        width = int.from_bytes(pictures[name][16:20], "big") // DOTS_PER_PIXEL  # as the header of a PNG says
        described = html.escape(
            str(data[CHART].get("description") or data[CHART].get("title") or "a chart"), quote=True
        )
        return f'<img class="vmrk-chart" src="{name}" width="{width}" alt="{described}">'
    if WIDGET in data:
        return '!!! example "A widget"\n    To be used in JupyterLab.'
    if "text/html" in data:
        # a blank line would end the block of HTML
        table = re.sub(r"\n\s*\n", "\n", data["text/html"])
        return f'<div class="vmrk-output">{table}</div>'
    return _fenced(str(data.get("text/plain", "")), "text")


def _drawn(specification: dict[str, Any]) -> bytes:
    import vl_convert

    # no SVG: its texts would be drawn in a font of the reader's, which may need more room than there is
    drawn: bytes = vl_convert.vegalite_to_png(specification, vl_version=VEGA_LITE, scale=DOTS_PER_PIXEL)
    return drawn


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
