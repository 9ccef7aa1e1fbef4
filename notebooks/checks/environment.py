"""Notebook 00: whether everything is there, what the course has, and how exercises work."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

import vmrestorekit as vr
from checks import Verdict, hint, right, your_turn

_LEAST_PYTHON = (3, 11)
_LEAST_MEMORY = 1 << 30  # a kernel takes less


@dataclasses.dataclass(frozen=True)
class Report:
    """What was looked at: whether it is as it should be, what it is, and what to do if not."""

    lines: tuple[tuple[bool, str, str], ...]

    @property
    def is_fine(self) -> bool:
        """Whether nothing is left to do."""
        return all(fine for fine, _, _ in self.lines)

    def __repr__(self) -> str:
        return "\n".join(f"✓ {what}" if fine else f"✗ {what} → {todo}" for fine, what, todo in self.lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<li style="list-style:none"><b style="color:{"#009E73" if fine else "#D55E00"}">'
            f"{'✓' if fine else '✗'}</b> {escape(what)}{'' if fine else f' → <b>{escape(todo)}</b>'}</li>"
            for fine, what, todo in self.lines
        )
        return f'<ul role="status" style="padding:0;margin:0">{rows}</ul>'


def check_environment() -> Report:
    """Look at everything that the course needs on this computer; nothing is fetched from the network."""
    looks: dict[str, tuple[Callable[[], bool], str]] = {
        f"Python {_LEAST_PYTHON[0]}.{_LEAST_PYTHON[1]} or newer": (
            lambda: sys.version_info >= _LEAST_PYTHON,
            "install a newer Python, delete the folder .venv, and run make lab again",
        ),
        "the package vmrestorekit": (
            lambda: bool(importlib.metadata.version("vmrestorekit")),
            "run make lab, or: pip install '.[lab]' in the folder of the repository",
        ),
        "the recorded boots": (
            lambda: len(vr.load_corpus().boots) > 0,
            "the folder data/traces is missing: fetch the repository anew",
        ),
        "the engine is compiled": (_engine_runs, "reinstall numba: pip install --force-reinstall numba"),
        "widgets are shown by JupyterLab": (
            _has_widgets,
            "pip install '.[lab]' into the environment that JupyterLab runs in, then restart JupyterLab",
        ),
        "1 GB of free memory": (
            lambda: _free_memory() >= _LEAST_MEMORY,
            "shut down other kernels (the tab at the left edge with a square in a circle), or other programs",
        ),
    }
    return Report(tuple((_holds(look), what, todo) for what, (look, todo) in looks.items()))


def _holds(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except Exception:  # whatever it is, what is to be done about it is the same
        return False


def _engine_runs() -> bool:
    from vmrestorekit.restore.simulate import warmup

    warmup()
    return True


def _has_widgets() -> bool:
    """Tell whether the part of the widgets that runs in the browser is installed, and not switched off."""
    if importlib.util.find_spec("ipywidgets") is None:
        return False
    wanted = {"@jupyter-widgets/jupyterlab-manager", "anywidget"}
    installed = {
        path.relative_to(folder).as_posix() for folder in _lab_extensions() for path in _extensions_in(folder)
    }
    switched_off = set()
    for page in (folder.parent / "labconfig" / "page_config.json" for folder in _lab_extensions()):
        if page.is_file():
            disabled = json.loads(page.read_text(encoding="utf-8")).get("disabledExtensions", {})
            switched_off |= {name for name in disabled if not isinstance(disabled, dict) or disabled[name]}
    return wanted <= installed and not wanted & switched_off


def _lab_extensions() -> list[Path]:
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError:
        return [Path(sys.prefix, "share", "jupyter", "labextensions")]
    return [Path(path) for path in jupyter_path("labextensions")]


def _extensions_in(folder: Path) -> Iterator[Path]:
    yield from (
        path.parent for pattern in ("*/package.json", "@*/*/package.json") for path in folder.glob(pattern)
    )


def _free_memory() -> int:
    """Return how many bytes are free; where nobody says, take it that there are enough."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return _LEAST_MEMORY
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


# --- the map of the course --------------------------------------------------------------------------------

_WORDS_A_MINUTE, _MINUTES_A_CELL, _MINUTES_AN_EXERCISE = 150, 0.4, 3
# number -> its question, so that it can be understood elsewhere, and how many minutes a new student takes
_KNOWN = {
    "00": ("Can a machine run from a disk that is not there yet?", 12),
    "01": ("How soon does a lost database serve again, and what still depends on the backup then?", 25),
    "02": ("What does it cost if the blocks of one disk lie in eight backup copies?", 20),
    "03": ("How large must the read cache be, and which blocks should it drop?", 30),
    "04": ("Which parts of a disk are worth fetching before the boot?", 25),
    "05": ("In which order, and from when on, should the disk move while the machine boots?", 35),
    "06": ("How little of the backup do one file, or one boot, need; and what becomes of the writes?", 30),
    "07": ("How much of its disk does a boot read, and is it the same every time?", 30),
    "08": ("What do the boots of two machines tell about a third one?", 30),
    "09": ("A predictor looks excellent in a report: how do you notice that it will fail at a customer?", 30),
    "10": ("Which settings of a restore matter, and by how much?", 40),
}


@dataclasses.dataclass(frozen=True)
class Course:
    """The notebooks of the course: file, title, the question it asks, about how many minutes it takes."""

    notebooks: tuple[tuple[str, str, str, int], ...]

    def __repr__(self) -> str:
        return "\n".join(f"{title} (about {minutes} min)" for _, title, _, minutes in self.notebooks)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align:left"><a href="{escape(file)}">{escape(title)}</a></td>'
            f'<td style="text-align:left">{escape(question)}</td><td>{minutes}</td></tr>'
            for file, title, question, minutes in self.notebooks
        )
        head = "".join(
            f'<th style="text-align:{side}">{name}</th>'
            for name, side in (("notebook", "left"), ("its question", "left"), ("minutes, about", "right"))
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def course(folder: Path | str = ".") -> Course:
    """Return the notebooks of a folder; what is not known of one is taken from its text."""
    return Course(tuple(_entry(path) for path in sorted(Path(folder).glob("[0-9]*.ipynb"))))


def _entry(path: Path) -> tuple[str, str, str, int]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    first = texts[0] if texts else path.stem
    title = first.splitlines()[0].lstrip("# ").strip()
    # the first sentence in bold that asks something; a table before it may have words in bold, too
    asked = next((bold for text in texts for bold in re.findall(r"\*\*([^*]+\?)\*\*", text)), "")
    words = sum(len(text.split()) for text in texts)
    exercises = sum("SEED = " in code for code in codes)
    if path.name[:2] in _KNOWN:
        return path.name, title, *_KNOWN[path.name[:2]]
    minutes = words / _WORDS_A_MINUTE + _MINUTES_A_CELL * len(codes) + _MINUTES_AN_EXERCISE * exercises
    return path.name, title, " ".join(asked.split()), max(5, 5 * round(minutes / 5))


# --- the first exercise -----------------------------------------------------------------------------------


def machine(seed: int = 1) -> str:
    """Return the name of a recorded machine, another one for (nearly) each seed."""
    return str(np.random.default_rng(seed).choice(list(vr.load_corpus())))


def check_boots(boots: Any, seed: int = 1) -> Verdict:
    """Check how many boots of the seed's machine were recorded."""
    if boots is None or boots is ...:
        return your_turn("Put a number in place of the dots, run the cell again (Shift+Enter), and see.")
    if isinstance(boots, bool) or not isinstance(boots, int | np.integer):
        given = "a tuple: count what is in it" if isinstance(boots, tuple) else f"{boots!r:.60}"
        return hint(f"A whole number is asked for, such as 3; this is {given}.")
    name = machine(seed)
    answer = len(vr.load_corpus()[name].boots)
    if boots == answer:
        return right(f"{answer} boots of {name}. With another seed it is another machine: try one.")
    return hint(
        "corpus[your_machine].boots is a tuple with an element for each boot. Which function of Python says "
        "how long a tuple is? It may stand in place of the number."
    )
