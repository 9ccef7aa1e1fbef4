"""One visual language for charts and widgets: a colour and a letter for everything that is shown.

The colours are those of Okabe and Ito, which people with any common colour vision deficiency can tell apart;
a letter (or the lack of one) says the same again. Text, lines and surfaces take JupyterLab's own variables,
so that light and dark themes are both readable.
"""

from __future__ import annotations

import dataclasses

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

# one style sheet for everything inside a widget of this room; a widget carries it once
STYLE = """<style>
.vmrk {
  --vmrk-ink: var(--jp-ui-font-color1, #212121);
  --vmrk-soft: var(--jp-ui-font-color2, #5f5f5f);
  --vmrk-line: var(--jp-border-color1, #bdbdbd);
  --vmrk-flow: var(--jp-brand-color1, #0072B2);
  --vmrk-message: #D55E00;
  --vmrk-paper: var(--jp-layout-color1, #ffffff);
  --vmrk-panel: var(--jp-layout-color2, #f2f2f2);
  color: var(--vmrk-ink); font-family: var(--jp-ui-font-family, system-ui, sans-serif);
  font-size: 13px; line-height: 1.45;
}
.vmrk svg { display: block; width: 100%; height: auto; }
.vmrk svg text { font-family: inherit; font-size: 10.5px; fill: var(--vmrk-ink); }
.vmrk svg text.letter { font-size: 8px; font-weight: 600; text-anchor: middle; }
.vmrk svg text.title { font-size: 10.5px; font-weight: 700; }
.vmrk .soft, .vmrk svg text.soft { color: var(--vmrk-soft); fill: var(--vmrk-soft); }
.vmrk h4 { margin: 4px 0 2px; font-size: 15px; font-weight: 600; white-space: nowrap; }
.vmrk h4 .soft { font-weight: 400; font-size: 13px; margin-left: 6px; }
.vmrk h4 .now { font-weight: 400; font-size: 13px; margin-left: 8px; color: var(--vmrk-flow); }
.vmrk p[role=status] {
  margin: 4px 0; padding: 7px 12px; min-height: 4.4em; box-sizing: border-box;
  border-left: 4px solid var(--vmrk-flow); background: var(--vmrk-panel); font-size: 14px;
}
.vmrk p[role=status] b { font-variant-numeric: tabular-nums; margin-right: 2px; }
.vmrk table { border-collapse: collapse; margin: 4px 0; font-size: 12.5px; }
.vmrk caption { text-align: left; font-weight: 600; padding: 4px 0; }
.vmrk th, .vmrk td { padding: 2px 10px 2px 0; text-align: right; border-bottom: 1px solid var(--vmrk-line);
  font-variant-numeric: tabular-nums; font-weight: 400; }
.vmrk thead th { font-weight: 600; }
.vmrk tbody th, .vmrk thead th:first-child { text-align: left; }
.vmrk ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 4px 0;
  padding: 0; font-size: 12px; }
.vmrk ul.legend li { display: inline-flex; align-items: center; gap: 5px; margin: 0; padding: 0; }
.vmrk ul.legend svg { width: 15px; height: 15px; flex: none; }
.vmrk ul.legend b { font-variant-numeric: tabular-nums; }
</style>"""


def mode_name(mode: str) -> str:
    """Return the mode as a person reads it; a name that is no mode stays as it is."""
    return MODE_NAMES.get(mode, mode)


def styled(html: str) -> str:
    """Return HTML to which `STYLE` applies."""
    return f'<div class="vmrk">{html}</div>'
