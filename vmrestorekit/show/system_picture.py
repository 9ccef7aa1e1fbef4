"""The components of the system as a picture, with what the current event sets in motion."""

from __future__ import annotations

import dataclasses
import itertools
from html import escape

from vmrestorekit.show.flows import Flow
from vmrestorekit.show.theme import BLUE, BLUISH_GREEN, REDDISH_PURPLE, SKY_BLUE, VERMILLION, YELLOW

__all__ = ["Gauge", "Labels", "system_picture"]

_WIDTH, _HEIGHT = 480, 330
_DATA, _MESSAGE = "var(--vmrk-flow)", VERMILLION


@dataclasses.dataclass(frozen=True)
class Gauge:
    """How full a store is: coloured parts of a bar, each a share of the whole, and a line of text."""

    text: str
    parts: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the picture says about its components at this instant."""

    vm: str
    host: str
    file_system: str
    media_agent: str
    read_cache: Gauge
    backup: Gauge
    write_cache: Gauge
    destination: Gauge
    absent: frozenset[str] = frozenset()


# colours of the parts of a gauge
GAUGE_COLOURS = {
    "served": BLUE,
    "staged": SKY_BLUE,
    "on_its_way": YELLOW,
    "written": REDDISH_PURPLE,
    "relocated": BLUISH_GREEN,
}

# component -> x, y, width, height
_BOXES = {
    "storage_manager": (12, 12, 122, 28),
    "data_agent": (300, 12, 168, 28),
    "vm": (18, 82, 160, 40),
    "vm_host": (18, 150, 160, 54),
    "file_system": (222, 150, 124, 54),
    "media_agent": (378, 150, 92, 54),
}
_DRUMS = {
    "write_cache": (10, 238, 80, 84),
    "destination": (106, 238, 80, 84),
    "read_cache": (224, 238, 112, 84),
    "backup": (378, 238, 92, 84),
}
_NAMES = {
    "storage_manager": "Storage manager",
    "data_agent": "Data agent",
    "vm": "Virtual machine",
    "vm_host": "VM host",
    "file_system": "Shared file system",
    "media_agent": "Media agent",
    "write_cache": "Write cache",
    "destination": "Destination",
    "read_cache": "Read cache",
    "backup": "Backup copy",
}

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


def system_picture(labels: Labels, flow: Flow, title: str) -> str:
    """Return the picture as SVG.

    Parameters
    ----------
    labels : Labels
        What the components say of themselves.
    flow : Flow
        Which components and arrows the current event sets in motion.
    title : str
        What the picture shows, for those who do not see it.
    """
    parts = [
        _panel(4, 4, 472, 44, "", ""),
        _panel(4, 58, 188, 270, "HOST SIDE", "primary storage"),
        _panel(212, 58, 264, 270, "SECONDARY SIDE", ""),
        '<text x="217" y="20" text-anchor="middle" style="font-size:9.5px;font-weight:700">CONTROL</text>',
    ]
    parts += [_arrow(points) for name, points in _ARROWS.items() if name not in flow.arrows]
    parts += [_box(name, labels, name in flow.active) for name in _BOXES]
    parts += [_drum(name, labels, name in flow.active) for name in _DRUMS]
    messages = frozenset(flow.messages)
    parts += [
        _arrow(_ARROWS[name], _MESSAGE if name in messages else _DATA, dashed=name in messages)
        for name in flow.arrows
    ]
    if flow.payload and flow.arrows:
        first = next((name for name in flow.arrows if name not in messages), flow.arrows[0])
        parts.append(_pill(_ARROWS[first], flow.payload, _MESSAGE if first in messages else _DATA))
    return (
        f'<svg role="img" aria-label="{escape(title, quote=True)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'style="max-width:760px">{"".join(parts)}</svg>'
    )


def _panel(x: int, y: int, width: int, height: int, title: str, subtitle: str) -> str:
    heading = ""
    if title:
        heading = (
            f'<text x="{x + 10}" y="{y + 16}" style="font-size:10.5px;font-weight:700">{title}'
            f'<tspan dx="6" style="font-weight:400;fill:var(--vmrk-soft)">{subtitle}</tspan></text>'
        )
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" '
        f'style="fill:var(--vmrk-panel);stroke:var(--vmrk-line)"/>{heading}'
    )


def _outline(active: bool, absent: bool) -> str:
    stroke = f"stroke:{_DATA};stroke-width:2.6" if active else "stroke:var(--vmrk-soft);stroke-width:1"
    dashes = ";stroke-dasharray:3 3" if absent else ""
    return f"fill:var(--vmrk-paper);{stroke}{dashes}"


def _box(name: str, labels: Labels, active: bool) -> str:
    x, y, width, height = _BOXES[name]
    lines = {
        "vm": labels.vm,
        "vm_host": labels.host,
        "file_system": labels.file_system,
        "media_agent": labels.media_agent,
    }.get(name, "")
    absent = name in labels.absent
    middle = x + width / 2
    top = y + height / 2 + (4 if not lines else -3 - 6 * (lines.count("\n")))
    text = _text(middle, top, _NAMES[name], bold=True, soft=absent)
    for number, line in enumerate(lines.split("\n") if lines else []):
        text += _text(middle, top + 14 + 12 * number, line, soft=True)
    style = _outline(active, absent)
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" style="{style}"/>{text}'


def _drum(name: str, labels: Labels, active: bool) -> str:
    x, y, width, height = _DRUMS[name]
    gauge: Gauge = getattr(labels, name)
    half, lid = width / 2, 7
    absent = name in labels.absent
    style = _outline(active, absent)
    shape = (
        f'<path d="M{x} {y + lid}a{half:g} {lid} 0 0 1 {width} 0v{height - 2 * lid}'
        f'a{half:g} {lid} 0 0 1 -{width} 0z" style="{style}"/>'
        f'<path d="M{x} {y + lid}a{half:g} {lid} 0 0 0 {width} 0" style="{style};fill:none"/>'
    )
    text = _text(x + half, y + 32, _NAMES[name], bold=True, soft=absent)
    lines = gauge.text.split("\n")
    bar = ""
    if gauge.parts:
        bar = _gauge(x + 8, y + 40, width - 16, gauge)
    for number, line in enumerate(lines):
        text += _text(x + half, y + (62 if gauge.parts else 50) + 12 * number, line, soft=True)
    return shape + bar + text


def _gauge(x: float, y: float, width: float, gauge: Gauge) -> str:
    bars, at = "", x
    for name, share in gauge.parts:
        length = min(width * share, x + width - at)
        box = f'x="{at:.1f}" y="{y}" width="{max(0.0, length):.1f}" height="9"'
        bars += f'<rect {box} fill="{GAUGE_COLOURS[name]}"/>'
        at += length
    box = f'x="{x}" y="{y}" width="{width}" height="9"'
    return f'{bars}<rect {box} style="fill:none;stroke:var(--vmrk-soft);stroke-width:.8"/>'


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
    pairs = list(itertools.pairwise(points))
    start, end = max(pairs, key=lambda pair: abs(pair[0][0] - pair[1][0]) + abs(pair[0][1] - pair[1][1]))
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
