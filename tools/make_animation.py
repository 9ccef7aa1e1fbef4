"""Make the animation of the README and the site from a simulated restore: ``python tools/make_animation.py``.

Each picture is a moment of one timeline, drawn by the parts of the `Stepper` in headless Chromium. Needs
Chromium, as the browser tests do, and Pillow (``pip install '.[docs]'``).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "browser"))

from lab_in_chromium import chromium  # noqa: E402  (found through the line above)
from PIL import Image  # noqa: E402

import vmrestorekit as vr  # noqa: E402
from vmrestorekit.plan import LaunchRule, RelocationStart  # noqa: E402
from vmrestorekit.restore.timeline import Timeline  # noqa: E402
from vmrestorekit.show.restore.column import Column  # noqa: E402
from vmrestorekit.show.theme import BLOCK_STATES, SOURCES, STYLE  # noqa: E402

OUT = REPOSITORY / "docs" / "restore.gif"
WIDTH, HEIGHT = 940, 440
COLOURS = 64
MOST_BYTES = 1_500_000
SECOND = 1_000_000_000

# what is worth a longer look, in the order in which it happens
KEY_EVENTS = (
    "mount_file_system",
    "determine_first_set",
    "launch_vm",
    "cache_hit",
    "cache_miss",
    "start_relocation",
    "purge",
    "boot_done",
    "finish_relocation",
    "use_destination",
    "de_associate",
)
LOOK = """<style>
body { margin: 8px 12px; background: #fff; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.vmrk p[role=status] { min-height: 3.4em; }
.vmrk ul.legend { display: grid; grid-template-columns: 1.3fr 1fr; font-size: 10.5px; gap: 2px 6px; }
.vmrk ul.legend li.soft { display: none; }
</style>"""
LONG, SHORT = 1500, 260  # milliseconds
BETWEEN = 18  # pictures from the request to the last block of the relocation, evenly in time


def restored() -> Timeline:
    """Return an instant restore of a recorded boot that knows the boot before, as in the first notebook."""
    machine = vr.load_corpus()["bookworm-db"]
    plan = vr.make_plan(
        vr.LastBootReplay().fit([machine.boot("boot-1")]),
        machine.boot("boot-2"),
        launch=LaunchRule("head_start", head_start_ns=4 * SECOND),
        relocation_start=RelocationStart("delay", delay_ns=10 * SECOND),
    )
    return vr.simulate(machine.boot("boot-2"), plan, "object_storage")


def moments(timeline: Timeline) -> list[tuple[int, int]]:
    """Return rows of events, ascending, and for how many milliseconds each is shown."""
    kinds, times = timeline.events["kind"].to_list(), timeline.events["time_ns"].to_numpy()
    shown = {kinds.index(kind): LONG for kind in KEY_EVENTS if kind in kinds}
    end = times[kinds.index("finish_relocation")]
    for number in range(1, BETWEEN + 1):
        time = times[0] + (end - times[0]) * number // (BETWEEN + 1)
        shown.setdefault(int(times.searchsorted(time, "right")) - 1, SHORT)
    shown[len(kinds) - 1] = 2 * LONG
    return sorted(shown.items())


def pages(timeline: Timeline, rows: list[int]) -> Iterator[str]:
    """Yield a page for each moment."""
    column = Column(timeline)
    heading, status, pictures = column.children
    system, disk = pictures.children
    for row in rows:
        time = int(timeline.events["time_ns"][row])
        column.show(row, time, current=False)
        yield (
            f"<!doctype html><meta charset=utf-8>{STYLE}{LOOK}{heading.value}{status.value}"
            f"<div class=two><div>{system.value}</div><div>{disk.value}</div></div>"
        )


def photographed(page: Any, html: str) -> Image.Image:
    """Return what Chromium shows of a page."""
    page.set_content(html)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def common_palette(frames: list[Image.Image]) -> Image.Image:
    """Return a palette for all pictures, so that no colour flickers, in which each thing keeps its own."""
    signs = [sign.colour for sign in (*BLOCK_STATES.values(), *SOURCES.values()) if sign.colour[0] == "#"]
    every_colour = Image.new("RGB", (WIDTH, 6 * HEIGHT), "white")
    for place, frame in enumerate(frames[:: max(1, len(frames) // 4)][:4]):
        every_colour.paste(frame, (0, place * HEIGHT))
    side = WIDTH // len(signs)
    for place, colour in enumerate(signs):  # large areas, or the few cells of a rare state would lose theirs
        every_colour.paste(colour, (place * side, 4 * HEIGHT, (place + 1) * side, 6 * HEIGHT))
    return every_colour.quantize(COLOURS, Image.Quantize.MEDIANCUT)


def main() -> None:
    """Draw all moments and write the animation."""
    timeline = restored()
    chosen = moments(timeline)
    with chromium(WIDTH, HEIGHT) as page:
        frames = [photographed(page, html) for html in pages(timeline, [row for row, _ in chosen])]
    palette = common_palette(frames)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [milliseconds for _, milliseconds in chosen]
    made = io.BytesIO()
    frames[0].save(
        made, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
    )
    if made.tell() > MOST_BYTES:
        raise SystemExit(f"{OUT.name}: expected at most {MOST_BYTES:,} bytes, got {made.tell():,}")
    OUT.write_bytes(made.getvalue())
    print(f"{OUT.relative_to(REPOSITORY)}: {len(frames)} pictures, {made.tell():,} bytes")


if __name__ == "__main__":
    main()
