"""Make the course's notebooks from their sources, which hold the solutions.

A source is a notebook as text, in Jupytext's percent format (`tools/course/NN_name.py`). What stands between

    # BEGIN SOLUTION slots = ...
    # END SOLUTION

is a solution; a student gets ``slots = ...`` in its stead. A line ``# NBVAL_CHECK_OUTPUT`` becomes a tag of
its cell, and the code of a cell with the tag "plumbing" is hidden. What is shown behind the guess is folded
up until its cell is run: nbval compares it, and nobody reads the answer on opening. Run from the repository's
root:

    python tools/make_notebooks.py                    # make all notebooks anew, and run them
    python tools/make_notebooks.py 03_the_read_cache  # only some
    python tools/make_notebooks.py --solutions OUT    # with their solutions, into a folder, for a teacher
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "tools" / "course"
NOTEBOOKS = ROOT / "notebooks"
SECONDS_PER_CELL = 240
NOTHING = " \n"  # tests/nbval.cfg takes it away before it compares

_SOLUTION = re.compile(
    r"^(?P<indent>[ \t]*)# BEGIN SOLUTION (?P<stub>[^\n]+)\n(?P<solution>.*?)^[ \t]*# END SOLUTION\n?",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"^[ \t]*# (BEGIN|END) SOLUTION.*\n?", re.MULTILINE)
_CHECKED = re.compile(r"^# NBVAL_CHECK_OUTPUT\n", re.MULTILINE)
_WIDGET = "application/vnd.jupyter.widget-view+json"
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def for_students(source: str) -> str:
    """Return a cell with its stub where the solution is.

    Raises
    ------
    ValueError
        If a mark is left without its fellow, or without a stub.
    """
    exercise = _SOLUTION.sub(lambda found: f"{found['indent']}{found['stub']}\n", source)
    if mark := _MARK.search(exercise):
        raise ValueError(
            f"expected '# BEGIN SOLUTION stub' and '# END SOLUTION' in pairs, got {mark[0].strip()!r}"
        )
    return exercise.rstrip("\n")


def for_teachers(source: str) -> str:
    """Return a cell with its solution, without the marks."""
    for_students(source)
    return _MARK.sub("", source).rstrip("\n")


def notebook(path: Path, *, solved: bool = False) -> Any:
    """Return the notebook of a source, not yet run.

    Raises
    ------
    ValueError
        If the marks of a solution are not in order; says where.
    """
    made = jupytext.read(path, fmt="py:percent")
    guessed = False
    for number, cell in enumerate(made.cells):
        if cell.cell_type == "code":
            try:
                cell.source = (for_teachers if solved else for_students)(cell.source)
            except ValueError as error:
                raise ValueError(f"{path.name}, cell {number + 1}: {error}") from error
            _tag(cell)
            asks = "GuessForm(" in cell.source
            if guessed and not asks and not solved:  # JupyterLab unfolds what a cell shows when it is run
                cell.metadata["jupyter"] = cell.metadata.get("jupyter", {}) | {"outputs_hidden": True}
            guessed = guessed or asks
        cell.id = f"cell-{number:02d}"  # random ones would make every difference a large one
    made.metadata = nbformat.from_dict(_METADATA)
    return made


def _tag(cell: Any) -> None:
    """Say in a cell's metadata, where no student stumbles over it, what nbval and JupyterLab are to do."""
    tags = list(cell.metadata.get("tags", []))
    if _CHECKED.search(cell.source):
        cell.source = _CHECKED.sub("", cell.source)
        tags.append("nbval-check-output")
    if "plumbing" in tags:
        cell.metadata["jupyter"] = {"source_hidden": True}
    if tags:
        cell.metadata["tags"] = tags
    cell.metadata.pop("lines_to_next_cell", None)  # Jupytext's own


def run(made: Any, folder: Path = NOTEBOOKS) -> Any:
    """Run a notebook in a folder, and return it with what it shows.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    client = NotebookClient(
        made,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
    )
    client.execute()
    return made


def for_opening(made: Any) -> Any:
    """Leave out of a notebook that was run what nobody should see before running it."""
    for cell in made.cells:
        if cell.cell_type != "code":
            continue
        # what libraries warn of on this machine is nobody else's
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        if ".tell(" in cell.source:  # the answers, before anybody has guessed
            cell.outputs = []
        for output in cell.outputs:
            if _WIDGET in output.get("data", {}):
                output["data"]["text/plain"] = "Run this cell: the widget appears then."
            if cell.metadata.get("jupyter", {}).get("outputs_hidden"):
                _hide_first_line(output)
    return made


def _hide_first_line(output: Any) -> None:
    """Begin with an empty line: JupyterLab shows the first one of what is folded up."""
    shown, kind = (output, "text") if "text" in output else (output.get("data", {}), "text/html")
    if kind in shown and not shown[kind].startswith(NOTHING):
        shown[kind] = NOTHING + shown[kind]


def write(made: Any, path: Path) -> None:
    """Write a notebook, whole or not at all."""
    nbformat.validate(made)
    handle, name = tempfile.mkstemp(".ipynb", ".making-", path.parent)
    os.close(handle)
    try:
        nbformat.write(made, name)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def main(arguments: list[str]) -> None:
    """Make the notebooks that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="sources without '.py'; all if there is none")
    parser.add_argument("--solutions", type=Path, metavar="OUT", help="a folder for notebooks with solutions")
    asked = parser.parse_args(arguments)
    sources = [SOURCES / f"{name}.py" for name in asked.names] or sorted(SOURCES.glob("[0-9]*.py"))
    for missing in (path for path in sources if not path.is_file()):
        parser.error(f"expected a source in {SOURCES.relative_to(ROOT)}, found no {missing.name}")
    out = asked.solutions or NOTEBOOKS
    out.mkdir(parents=True, exist_ok=True)
    for path in sources:
        print(path.stem, flush=True)
        made = run(notebook(path, solved=asked.solutions is not None))
        write(for_opening(made), out / f"{path.stem}.ipynb")


if __name__ == "__main__":
    main(sys.argv[1:])
