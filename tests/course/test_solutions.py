"""The exercises of every notebook, answered by their solutions: each check says that they are right."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "tools" / "course").glob("[0-9]*.py"))


def load_maker():
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "tools" / "make_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdicts(notebook):
    """What the checks of a notebook that was run have said."""
    said = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]
    return [text for text in said if text.startswith(("✓ Right.", "✗ Not yet.", "… Your turn."))]


@pytest.mark.parametrize("source", SOURCES, ids=[path.stem for path in SOURCES])
def test_the_solutions_are_right(source):
    maker = load_maker()
    exercises = source.read_text(encoding="utf-8").count("# BEGIN SOLUTION")
    assert exercises >= 1
    said = verdicts(maker.run(maker.notebook(source, solved=True)))
    assert said
    assert [text for text in said if not text.startswith("✓ Right.")] == []
