"""The system in seven scenes, for those who see it for the first time."""

from __future__ import annotations

import dataclasses
import re
from html import escape

import ipywidgets as widgets
import numpy as np
import traitlets

from vmrestorekit.restore.timeline import IN_CACHE, RELOCATED, STORED, WRITTEN, State, Timeline
from vmrestorekit.show.checks import expect_timeline
from vmrestorekit.show.controls import button, row
from vmrestorekit.show.look import Look
from vmrestorekit.show.theme import BLUISH_GREEN, REDDISH_PURPLE, SKY_BLUE, styled
from vmrestorekit.show.units import share, size

__all__ = ["SCENES", "NewcomerPicture"]


@dataclasses.dataclass(frozen=True)
class Scene:
    """A scene: its name, what happens in it, and along which arrows blocks move."""

    name: str
    operations: str
    told: str
    flows: tuple[str, ...] = ()
    runs: bool = True


SCENES = (
    Scene(
        "The disk is lost",
        "",
        "The machine is down. All that is left is a backup copy of its disk, on slow storage far away.",
        runs=False,
    ),
    Scene(
        "Pre-stage",
        "O1–O5",
        "The media agent (it looks after the backup copy) predicts which blocks the machine will read first, "
        "and copies them to its read cache.",
        ("backup_read",),
        runs=False,
    ),
    Scene(
        "Launch, and serve reads",
        "O6–O8",
        "The machine boots, long before its disk is copied. What it reads comes from the read cache; what is "
        "not there has to be fetched from the backup copy first, and the machine waits.",
        ("backup_read", "read_vm"),
    ),
    Scene(
        "Keep what it writes",
        "O9",
        "The backup copy is never changed: what the machine writes goes to a write cache on its own side.",
        ("vm_write", "read_vm"),
    ),
    Scene(
        "Relocate",
        "O10–O16",
        "While the machine runs, its disk is copied block by block to a new volume on fast primary "
        "storage: the destination. What has arrived there is dropped from the read cache.",
        ("backup_read", "read_destination", "destination_vm"),
    ),
    Scene(
        "Apply the writes",
        "O17",
        "When all blocks have arrived, what the machine has written in the meantime is added.",
        ("write_destination", "destination_vm"),
    ),
    Scene(
        "Let go, and run on",
        "O18–O21",
        "The machine reads and writes on its new disk and never stopped; the backup copy is as it was, "
        "and free.",
        ("destination_vm", "vm_destination"),
    ),
)

# arrow -> its way, what moves along it, and where that is written
_ARROWS = {
    "backup_read": ("M512 214V146", "", 0, 0),
    "read_vm": ("M440 66H266", "reads", 370, 58),
    "vm_write": ("M110 104V214", "writes", 136, 164),
    "read_destination": ("M440 96H370V262H322", "relocation", 370, 85),
    "write_destination": ("M154 262H196", "apply", 175, 254),
    "destination_vm": ("M252 214V106", "reads", 279, 164),
    "vm_destination": ("M224 104V212", "writes", 196, 164),
}
_STYLE = """<style>
.vmrk-dots { fill: none; stroke: var(--vmrk-flow); stroke-width: 9; stroke-linecap: round;
  stroke-dasharray: .1 15.9; }
.vmrk-moving .vmrk-dots { animation: vmrk-dots .9s linear infinite; }
@keyframes vmrk-dots { to { stroke-dashoffset: -16; } }
@media (prefers-reduced-motion: reduce) { .vmrk-moving .vmrk-dots { animation: none; } }
</style>"""


class NewcomerPicture(widgets.VBox):  # type: ignore[misc]
    """Show an instant restore in seven scenes; how full everything is comes from a timeline.

    Parameters
    ----------
    timeline : Timeline
        Of an instant restore that was completed.

    Attributes
    ----------
    scene : int
        Which of `SCENES` is shown, from 0.

    Raises
    ------
    ValueError
        If the timeline is none of an instant restore that was completed.
    """

    scene = traitlets.Int(0, min=0, max=len(SCENES) - 1)

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = expect_timeline("timeline", timeline)
        self.rows = _rows_of_scenes(timeline)
        self._most_written = max(timeline.state_at(row).count(WRITTEN) for row in self.rows)
        self.back_button = button("Back", "Go to the scene before", lambda: self._go(-1))
        self.next_button = button("Next", "Go to the next scene", lambda: self._go(1))
        self.slider = widgets.IntSlider(
            value=1, min=1, max=len(SCENES), description="Scene", tooltip="Go to a scene",
            layout={"width": "300px"}, style={"description_width": "60px"},
        )  # fmt: skip
        self.moving = widgets.Checkbox(
            value=True, description="Blocks move", tooltip="Stop the dots, or let them move", indent=False,
            layout={"width": "120px"},
        )  # fmt: skip
        self._picture, self._status = widgets.HTML(), widgets.HTML()
        super().__init__(layout={"max_width": "900px"})
        self.slider.observe(lambda change: self.set_trait("scene", change["new"] - 1), "value")
        self.observe(lambda _: self._show(), "scene")
        self.moving.observe(lambda _: self._show(), "value")
        self.children = [
            Look(),
            widgets.HTML(_STYLE, layout={"display": "none"}),
            row([self.back_button, self.next_button, self.slider, self.moving]),
            self._status,
            self._picture,
        ]
        self._show()

    def _go(self, step: int) -> None:
        self.scene = min(max(self.scene + step, 0), len(SCENES) - 1)

    def _show(self) -> None:
        scene, state = SCENES[self.scene], self.timeline.state_at(self.rows[self.scene])
        self.slider.value = self.scene + 1
        operations = f' <span class="soft">({scene.operations})</span>'
        self._status.value = styled(
            f'<p role="status" aria-live="polite"><b>{self.scene + 1} · {escape(scene.name)}.</b> '
            f"{escape(scene.told)}{operations if scene.operations else ''}</p>"
        )
        moving = "vmrk-moving" if self.moving.value else ""
        self._picture.value = styled(f'<div class="{moving}">{self._draw(scene, state)}</div>')

    def _draw(self, scene: Scene, state: State) -> str:
        block, slots = self.timeline.plan.block_bytes, self.timeline.plan.cache_slots
        stored = max(1, state.count(STORED))
        there = int(np.count_nonzero(state.flags & (STORED | RELOCATED) == STORED | RELOCATED))
        cached, written = state.count(IN_CACHE), state.count(WRITTEN)
        most, is_over = max(1, self._most_written), self.scene == len(SCENES) - 1
        if is_over:  # all that was written is on the destination, and later writes go there
            written = 0
        kept = size(written * block) if written else "empty"
        backup = "free again" if is_over else size(stored * block)
        parts = [
            _PANELS,
            *(_arrow(name, moves=name in scene.flows) for name in _ARROWS),
            _box(90, 44, 170, 56, "Virtual machine", "runs" if scene.runs else "down", absent=not scene.runs),
            _drum(34, 216, 116, "Write cache", kept, written / most, REDDISH_PURPLE),
            _drum(
                200, 216, 116, "Destination", f"{share(there, stored)} there", there / stored, BLUISH_GREEN
            ),
            _drum(444, 36, 136, "Read cache", f"{share(cached, slots)} full", cached / slots, SKY_BLUE),
            _box(444, 152, 136, 30, "Media agent", "", absent=False),
            _drum(444, 216, 136, "Backup copy", backup, 1.0, "var(--jp-layout-color3, #bdbdbd)"),
        ]
        title = f"Scene {self.scene + 1}: {scene.name}. {scene.told}"
        return (
            f'<svg role="img" aria-label="{escape(title, quote=True)}" viewBox="0 0 624 340" '
            f'style="max-width:860px">{"".join(parts)}</svg>'
        )


_PANELS = """
<g style="fill:var(--vmrk-panel);stroke:var(--vmrk-line)">
  <rect x="6" y="6" width="326" height="328" rx="10"/><rect x="408" y="6" width="210" height="328" rx="10"/>
</g>
<text x="18" y="26" class="title">HOST SIDE</text>
<text x="88" y="26" class="soft">where the machine runs: fast</text>
<text x="420" y="26" class="title">SECONDARY SIDE</text>
<text x="534" y="26" class="soft">backup: slow</text>"""


def _rows_of_scenes(timeline: Timeline) -> tuple[int, ...]:
    """Return the event that each scene shows."""
    names = ("launch_vm", "start_relocation", "finish_relocation", "apply_writes", "use_destination")
    found = {name: timeline.next_of_kind(name, -1) for name in names}
    missing = [name for name, at in found.items() if at is None]
    if missing:
        raise ValueError(
            f"timeline: expected an instant restore that was completed, got one without {', '.join(missing)}"
        )
    at = {name: int(at or 0) for name, at in found.items()}

    def between(one: str, other: str) -> int:
        middle = (int(timeline.times[at[one]]) + int(timeline.times[at[other]])) // 2
        return timeline.index_at(middle)

    serving = between("launch_vm", "start_relocation")
    return (
        -1,
        max(at["launch_vm"] - 1, -1),
        serving,
        max(serving, at["start_relocation"] - 1),
        between("start_relocation", "finish_relocation"),
        at["apply_writes"],
        len(timeline) - 1,
    )


def _arrow(name: str, *, moves: bool) -> str:
    """Draw an arrow; along the one that blocks move on there are dots."""
    way, label, x, y = _ARROWS[name]
    line = f'<path d="{way}" style="fill:none;stroke:var(--vmrk-line);stroke-width:1.4"/>'
    if moves:
        line = f'<path d="{way}" class="vmrk-dots"/>'
    written = f'<text x="{x}" y="{y}" text-anchor="middle" class="soft">{label}</text>' if label else ""
    return f"{line}{_head(way)}{written}"


def _head(way: str) -> str:
    """Draw the head of an arrow at the end of its way, which is made of level and upright stretches."""
    at, before, towards = {"H": 0.0, "V": 0.0}, 0.0, ""
    start, *stretches = re.findall(r"[HV]?[\d. ]+", way[1:])
    at["H"], at["V"] = map(float, start.split())
    for stretch in stretches:
        towards = stretch[0]
        before, at[towards] = at[towards], float(stretch[1:])
    back = -7 if at[towards] > before else 7
    x, y = at["H"], at["V"]
    corners = f"L{x + back:g} {y - 4:g}v8z" if towards == "H" else f"L{x - 4:g} {y + back:g}h8z"
    return f'<path d="M{x:g} {y:g}{corners}" style="fill:var(--vmrk-soft)"/>'


def _box(x: int, y: int, width: int, height: int, name: str, said: str, *, absent: bool) -> str:
    dashes = "4 4" if absent else "none"
    style = f"fill:var(--vmrk-paper);stroke:var(--vmrk-ink);stroke-width:1.4;stroke-dasharray:{dashes}"
    middle = x + width / 2
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" style="{style}"/>'
        + _text(middle, y + height / 2 - (2 if said else -4), name, bold=True)
        + (_text(middle, y + height / 2 + 15, said) if said else "")
    )


def _drum(x: int, y: int, width: int, name: str, said: str, full: float, colour: str) -> str:
    """Draw a store, filled from below."""
    lid, height = 8, 92
    half, inside = width / 2, height - 2 * lid - 30
    level = inside * min(max(full, 0.0), 1.0)
    outline = (
        f"M{x} {y + lid}a{half:g} {lid} 0 0 1 {width} 0v{height - 2 * lid}a{half:g} {lid} 0 0 1 -{width} 0z"
    )
    middle, bottom = x + half, y + height - lid - 4
    return (
        f'<path d="{outline}" style="fill:var(--vmrk-paper);stroke:var(--vmrk-ink);stroke-width:1.2"/>'
        f'<path d="M{x} {y + lid}a{half:g} {lid} 0 0 0 {width} 0" '
        'style="fill:none;stroke:var(--vmrk-ink);stroke-width:1.2"/>'
        f'<rect x="{x + 8}" y="{bottom - level:.1f}" width="{width - 16}" height="{level:.1f}" '
        f'style="fill:{colour}"/>'
        f'<rect x="{x + 8}" y="{bottom - inside:g}" width="{width - 16}" height="{inside:g}" '
        'style="fill:none;stroke:var(--vmrk-soft);stroke-width:.7"/>'
        + _text(middle, y + 30, name, bold=True)
        + _text(middle, y + height + 11, said)
    )


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = "600" if bold else "400"
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" style="font-size:12px;font-weight:{weight}">'
        f"{escape(text)}</text>"
    )
