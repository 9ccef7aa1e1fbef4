"""The components of the system as a picture, with what the current event sets in motion."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from html import escape

from vmrestorekit.show.restore.flows import Flow
from vmrestorekit.show.theme import BLOCK_STATES

__all__ = ["Look", "system_picture"]

_WIDTH, _HEIGHT = 480, 330


@dataclasses.dataclass(frozen=True)
class Look:
    """What one component looks like at this instant.

    Attributes
    ----------
    text : str
        What it says of itself, a line or two.
    gauge : tuple of (state, share)
        Of a store: how full it is, in the colours of `BLOCK_STATES`.
    absent : bool
        It does not take part, or not now.
    """

    text: str
    gauge: tuple[tuple[str, float], ...] = ()
    absent: bool = False


# component -> name, x, y, width, height; stores are drawn as drums
_BOXES = {
    "storage_manager": ("Storage manager", 12, 12, 122, 28),
    "data_agent": ("Data agent", 300, 12, 168, 28),
    "vm": ("Virtual machine", 18, 82, 160, 40),
    "vm_host": ("VM host", 18, 150, 160, 54),
    "file_system": ("Shared file system", 222, 150, 124, 54),
    "media_agent": ("Media agent", 378, 150, 92, 54),
}
_DRUMS = {
    "write_cache": ("Write cache", 10, 238, 80, 84),
    "destination": ("Destination", 106, 238, 80, 84),
    "read_cache": ("Read cache", 224, 238, 112, 84),
    "backup": ("Backup copy", 378, 238, 92, 84),
}
_PANELS = """
<g style="fill:var(--vmrk-panel);stroke:var(--vmrk-line)">
  <rect x="4" y="4" width="472" height="44" rx="8"/>
  <rect x="4" y="58" width="188" height="270" rx="8"/>
  <rect x="212" y="58" width="264" height="270" rx="8"/>
</g>
<text x="217" y="20" class="title" text-anchor="middle">CONTROL</text>
<text x="14" y="74" class="title">HOST SIDE</text> <text x="84" y="74" class="soft">primary storage</text>
<text x="222" y="74" class="title">SECONDARY SIDE</text>"""

# arrow -> its corners
_ARROWS: dict[str, tuple[tuple[float, float], ...]] = {
    "manager_agent": ((134, 26), (298, 26)),
    "agent_host": ((300, 34), (202, 34), (202, 162), (180, 162)),
    "agent_fs": ((336, 40), (336, 148)),
    "agent_media": ((434, 40), (434, 148)),
    "media_host": ((400, 150), (400, 136), (156, 136), (156, 148)),
    "host_vm": ((88, 150), (88, 124)),
    "vm_host": ((110, 122), (110, 148)),
    "host_write": ((40, 204), (40, 236)),
    "write_host": ((60, 238), (60, 206)),
    "host_destination": ((136, 204), (136, 236)),
    "destination_host": ((156, 238), (156, 206)),
    "write_destination": ((90, 287), (105, 287)),
    "host_fs": ((178, 178), (220, 178)),
    "fs_host": ((222, 193), (180, 193)),
    "fs_media": ((346, 177), (376, 177)),
    "cache_fs": ((281, 238), (281, 206)),
    "backup_cache": ((378, 287), (338, 287)),
}


def system_picture(looks: Mapping[str, Look], flow: Flow, title: str) -> str:
    """Return the picture as SVG.

    Parameters
    ----------
    looks : mapping of component to Look
        What the components look like; those that are left out show their name only.
    flow : Flow
        Which components and arrows the current event sets in motion.
    title : str
        What the picture shows, for those who do not see it.
    """
    colour = "var(--vmrk-message)" if flow.is_message else "var(--vmrk-flow)"
    parts = [
        _PANELS,
        *(_arrow(corners) for name, corners in _ARROWS.items() if name not in flow.arrows),
        *(_component(name, looks.get(name, Look("")), name in flow.active) for name in _BOXES | _DRUMS),
        *(_arrow(_ARROWS[name], colour, dashed=flow.is_message) for name in flow.arrows),
    ]
    if flow.payload:
        parts.append(_pill(_ARROWS[flow.arrows[0]], flow.payload, colour))
    return (
        f'<svg role="img" aria-label="{escape(title, quote=True)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'style="max-width:760px">{"".join(parts)}</svg>'
    )


def _component(name: str, look: Look, active: bool) -> str:
    """Draw a box, or for a store a drum with its gauge."""
    title, x, y, width, height = (_BOXES | _DRUMS)[name]
    stroke, thick = ("var(--vmrk-flow)", 2.6) if active else ("var(--vmrk-soft)", 1)
    dashes = "3 3" if look.absent else "none"
    style = f"fill:var(--vmrk-paper);stroke:{stroke};stroke-width:{thick};stroke-dasharray:{dashes}"
    lines = look.text.split("\n") if look.text else []
    if name in _BOXES:
        shape = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" style="{style}"/>'
        name_at = y + height / 2 + 4 - 6.5 * len(lines)
        text_at = name_at + 14
    else:
        shape = _drum(x, y, width, height, style)
        name_at = y + 32
        text_at = y + (62 if look.gauge else 50)
        shape += _gauge(x + 8, y + 40, width - 16, look.gauge) if look.gauge else ""
    middle = x + width / 2
    said = [_text(middle, text_at + 12 * number, line, soft=True) for number, line in enumerate(lines)]
    return shape + _text(middle, name_at, title, bold=True, soft=look.absent) + "".join(said)


def _drum(x: int, y: int, width: int, height: int, style: str) -> str:
    half, lid = width / 2, 7
    return (
        f'<path d="M{x} {y + lid}a{half:g} {lid} 0 0 1 {width} 0v{height - 2 * lid}'
        f'a{half:g} {lid} 0 0 1 -{width} 0z" style="{style}"/>'
        f'<path d="M{x} {y + lid}a{half:g} {lid} 0 0 0 {width} 0" style="{style};fill:none"/>'
    )


def _gauge(x: float, y: float, width: float, shares: tuple[tuple[str, float], ...]) -> str:
    bars, at = "", x
    for state, share in shares:
        length = min(width * share, x + width - at)
        colour = BLOCK_STATES[state].colour
        bars += f'<rect x="{at:.1f}" y="{y}" width="{length:.1f}" height="9" fill="{colour}"/>'
        at += length
    frame = "fill:none;stroke:var(--vmrk-soft);stroke-width:.8"
    return f'{bars}<rect x="{x}" y="{y}" width="{width}" height="9" style="{frame}"/>'


def _text(x: float, y: float, text: str, *, bold: bool = False, soft: bool = False) -> str:
    css = "soft" if soft else ""
    style = "font-size:11px;font-weight:600" if bold else "font-size:10.5px"
    return (
        f'<text class="{css}" x="{x:g}" y="{y:g}" text-anchor="middle" style="{style}">{escape(text)}</text>'
    )


def _arrow(points: tuple[tuple[float, float], ...], colour: str = "", *, dashed: bool = False) -> str:
    """Draw an arrow through its corners; without a colour it is one that nothing moves along now."""
    (before_x, before_y), (x, y) = points[-2:]
    across, down = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
    size = 7 if colour else 4.5
    base_x, base_y = x - across * size, y - down * size
    half = size * 0.62
    head = (
        f"M{x:g} {y:g}L{base_x + down * half:g} {base_y + across * half:g}"
        f"L{base_x - down * half:g} {base_y - across * half:g}z"
    )
    corners = [*points[:-1], (base_x, base_y)]
    line = "M" + "L".join(f"{corner_x:g} {corner_y:g}" for corner_x, corner_y in corners)
    paint = colour or "var(--vmrk-line)"
    dashes = ";stroke-dasharray:5 3" if dashed else ""
    return (
        f'<path d="{line}" style="fill:none;stroke:{paint};stroke-width:{3.2 if colour else 1.2}{dashes}"/>'
        f'<path d="{head}" style="fill:{paint}"/>'
    )


def _pill(points: tuple[tuple[float, float], ...], text: str, colour: str) -> str:
    """Return a label in the middle of the longest stretch of an arrow."""
    start, end = max(itertools.pairwise(points), key=lambda stretch: math.dist(*stretch))
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    width = 8 + 5.9 * len(text)
    if start[1] == end[1]:
        y -= 14  # above a level arrow, beside an upright one
    else:
        x += width / 2 + 6
    x = min(max(x, width / 2 + 2), _WIDTH - width / 2 - 2)
    return (
        f'<rect x="{x - width / 2:g}" y="{y - 8:g}" width="{width:g}" height="16" rx="8" '
        f'style="fill:var(--vmrk-paper);stroke:{colour}" stroke-width="1.4"/>{_text(x, y + 3.8, text)}'
    )
