"""Pages that the documentation site makes while it is built (a hook of MkDocs, see mkdocs.yml).

- ``course/``: each notebook as it is stored, with its outputs; nothing is run. Charts become pictures here,
  so that no page needs a script from the network.
- ``api/``: the public names of the package, a page a room, and the widgets. They are taken from the package
  itself, so that nothing public can be missing.
- ``data.md``, ``glossary.md``: the data sheet of the recordings, and the glossary beside the notebooks.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from docs_notebook import Page, page_of, title_of  # noqa: E402  (found through the line above)

NOTEBOOKS = ROOT / "notebooks"
PACKAGE = "vmrestorekit"
ROOMS = {
    "traces": "Recordings: what real machines read while they booted.",
    "plan": "The plan: plain data between prediction, simulation and the laboratory.",
    "predict": "Prediction: which blocks a machine will want first.",
    "restore": "Restores, simulated to the nanosecond.",
    "analysis": "What-if questions over thousands of restores.",
    "show": "Widgets for Jupyter: what is seen, stepped through and guessed.",
}


def public_names() -> dict[str, list[str]]:
    """Return the full names of all that is public, by room."""
    import vmrestorekit

    rooms: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name, module in vmrestorekit._PUBLIC.items():
        rooms[module.split(".")[1]].append(f"{module}.{name}")
    for widget in widget_names():
        if widget not in rooms["show"]:
            rooms["show"].append(widget)
    return rooms


def widget_names() -> list[str]:
    """Return the widgets of the room ``show``, whether the package exports them or not.

    They are found in the source: public classes of modules that import ipywidgets, made of its widgets.
    """
    found = []
    for path in sorted((ROOT / PACKAGE / "show").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        public = _public_of(tree)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name in public:
                bases = [ast.unparse(base) for base in node.bases]
                documented = ast.get_docstring(node) is not None
                if documented and any(base.startswith("widgets.") for base in bases):
                    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                    found.append(f"{module}.{node.name}")
    return found


def _public_of(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def api_pages() -> dict[str, str]:
    """Return the pages of the API, by their place: Markdown with a directive for each name."""
    pages = {}
    for room, names in public_names().items():
        directives = "\n\n".join(f"::: {name}" for name in names)
        pages[f"api/{room}.md"] = f"# {room}\n\n{ROOMS[room]}\n\n{directives}\n"
    return pages


def notebook_pages() -> dict[str, Page]:
    """Return each notebook as a page, by its place."""
    return {f"course/{path.stem}.md": page_of(path) for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}


def course_page() -> str:
    """Return the list of notebooks."""
    lines = [
        "# The course",
        "",
        "Each notebook asks a question, lets you guess, shows what happens, and ends with exercises that "
        "check themselves. Here they can be read, with the results that they had; to move anything, run them "
        "in JupyterLab: `make lab`.",
        "",
    ]
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        lines.append(f"- [{title_of(path)}]({path.stem}.md)")
    return "\n".join(lines) + "\n"


# --- what MkDocs calls --------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Put the notebooks and the rooms into the navigation."""
    for section in config.nav:
        if "Course" in section:
            section["Course"][1:1] = [f"course/{path.name}" for path in _notebook_places()]
        if "API" in section:
            section["API"][1:] = [{room: f"api/{room}.md"} for room in ROOMS]
    return config


def _notebook_places() -> list[Path]:
    return [path.with_suffix(".md") for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and the pictures in them."""
    made: dict[str, str | bytes] = {"course/index.md": course_page(), "data.md": _data_sheet()}
    # it lies beside the notebooks, where a student can open it
    made["glossary.md"] = (NOTEBOOKS / "glossary.md").read_text("utf-8")
    made |= api_pages()
    for place, page in notebook_pages().items():
        made[place] = page.text
        made |= {f"course/{name}": picture for name, picture in page.pictures.items()}
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def _data_sheet() -> str:
    return (ROOT / "data" / "traces" / "README.md").read_text("utf-8")
