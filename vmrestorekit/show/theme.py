"""One visual language for charts and widgets: a colour and a letter for everything that is shown.

The colours are those of Okabe and Ito, which people with any common colour vision deficiency can tell apart;
a letter (or the lack of one) says the same again. Text, lines and surfaces take JupyterLab's own variables,
so that light and dark themes are both readable.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

__all__ = ["BLOCK_STATES", "SOURCES", "STYLE", "Sign", "mode_name", "styled"]

BLACK = "#000000"
WHITE = "#FFFFFF"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
BLUISH_GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
REDDISH_PURPLE = "#CC79A7"
GREY = "#8C8C8C"


@dataclasses.dataclass(frozen=True)
class Sign:
    """How one thing looks: a name, a colour, and a letter that says it without the colour.

    Attributes
    ----------
    name : str
        In words, for legends.
    colour : str
        Of the fill.
    letter : str
        Drawn on the fill; empty where the plain square is the sign.
    ink : str
        Colour of the letter, with a contrast of at least 4.5 to the fill.
    shape : str
        Of a point in a chart, in Vega's words; says the same as the letter.
    """

    name: str
    colour: str
    letter: str
    ink: str = BLACK
    shape: str = ""


# from the least to the most advanced; a cell that stands for several blocks shows the last of equals
BLOCK_STATES = {
    "hole": Sign("hole (nothing stored)", "none", "·", "var(--vmrk-soft)"),
    "in_backup": Sign("in the backup only", "var(--jp-layout-color3, #bdbdbd)", "", "var(--vmrk-soft)"),
    "on_its_way": Sign("on its way to the read cache", YELLOW, "O"),
    "staged": Sign("staged in the read cache", SKY_BLUE, "S"),
    "served": Sign("served from the read cache", BLUE, "V", WHITE),
    "relocated": Sign("relocated, not purged", BLUISH_GREEN, "R"),
    "purged": Sign("relocated, purged from the read cache", ORANGE, "P"),
    "written": Sign("written by the VM", REDDISH_PURPLE, "W"),
}

# where a read of the virtual machine got its bytes, by the kind of event that says so; a read in several
# parts counts as the last of these
SOURCES = {
    "nothing": Sign("hole: nothing to read", GREY, "N", shape="cross"),
    "read_destination": Sign("destination", BLUISH_GREEN, "D", shape="square"),
    "read_write_cache": Sign("write cache", REDDISH_PURPLE, "W", shape="diamond"),
    "cache_hit": Sign("read cache: hit", BLUE, "H", WHITE, shape="circle"),
    "cache_wait": Sign("read cache: waited, on its way", YELLOW, "O", shape="triangle-up"),
    "cache_miss": Sign("miss: fetched from the backup", VERMILLION, "M", shape="triangle-down"),
}

MODE_NAMES = {
    "full_restore": "Full restore",
    "instant_restore": "Instant restore",
    "live_mount": "Live mount",
}

# for pages that are no widget; widgets bring the same sheet as a `vmrestorekit.show.look.Look`
STYLE = f"<style>\n{Path(__file__).with_name('look.css').read_text(encoding='utf-8')}</style>"


def mode_name(mode: str) -> str:
    """Return the mode as a person reads it; a name that is no mode stays as it is."""
    return MODE_NAMES.get(mode, mode)


def styled(html: str) -> str:
    """Return HTML to which `STYLE` applies."""
    return f'<div class="vmrk">{html}</div>'
