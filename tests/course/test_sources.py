"""The notebooks are what their sources say, without the solutions; all of it without running them."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "tools" / "course").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATHS = re.compile(r"/(?:home|root|tmp|work|Users|var/folders|private)/[\w.-]+|[A-Z]:\\\\")


def _load(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


make = _load(ROOT / "tools" / "make_notebooks.py")


@functools.cache
def made_of(path: Path) -> Any:
    return make.notebook(path)


@functools.cache
def there_is(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def of_each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def test_there_are_some() -> None:
    assert SOURCES
    assert NOTEBOOKS


# --- every source and every notebook -----------------------------------------------------------------------


@of_each(NOTEBOOKS)
def test_a_notebook_has_a_source(path: Path) -> None:
    assert (ROOT / "tools" / "course" / f"{path.stem}.py") in SOURCES


@of_each(SOURCES)
def test_a_source_is_a_notebook_of_its_number(path: Path) -> None:
    made = made_of(path)
    first = made.cells[0]
    assert first.cell_type == "markdown"
    number = path.stem[:2]
    assert re.match(rf"# {number} · \S", first.source), first.source.splitlines()[0]
    text = " ".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert "What is real and what is not" in text
    assert len({cell.id for cell in made.cells}) == len(made.cells)


@of_each(SOURCES)
def test_a_notebook_is_what_its_source_says(path: Path) -> None:
    target = ROOT / "notebooks" / f"{path.stem}.ipynb"
    assert target.is_file(), f"make it: python tools/make_notebooks.py {path.stem}"
    made, there = made_of(path), there_is(target)
    assert [(cell.id, cell.cell_type, cell.metadata, cell.source) for cell in made.cells] == [
        (cell.id, cell.cell_type, cell.metadata, cell.source) for cell in there.cells
    ], f"its source has changed; make it anew: python tools/make_notebooks.py {path.stem}"
    assert there.metadata.kernelspec.name == "python3"


@of_each(SOURCES)
def test_no_solution_gets_to_the_students(path: Path) -> None:
    solutions = make._SOLUTION.findall(path.read_text(encoding="utf-8"))
    target = ROOT / "notebooks" / f"{path.stem}.ipynb"
    if not target.is_file():
        pytest.skip("test_a_notebook_is_what_its_source_says tells")
    code = [cell.source for cell in there_is(target).cells if cell.cell_type == "code"]
    assert not any("SOLUTION" in source for source in code)
    for _, stub, solution in solutions:
        assert any(stub in source for source in code)
        body = solution.strip()
        assert body
        assert not any(body in source for source in code), body


@of_each(NOTEBOOKS)
def test_a_notebook_was_run_without_errors_and_tells_nothing_of_its_machine(path: Path) -> None:
    there = there_is(path)
    nbformat.validate(there)
    for cell in there.cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        assert cell.execution_count is not None, f"{cell.id} was not run"
        for output in cell.outputs:
            assert output.output_type != "error", f"{cell.id}: {output.get('evalue')}"
            assert output.get("name") != "stderr", cell.id
            found = MACHINE_PATHS.search(json.dumps(output))
            assert not found, f"{cell.id} shows a path of the machine it was made on: {found}"


@of_each(NOTEBOOKS)
def test_a_cell_whose_result_is_compared_shows_one(path: Path) -> None:
    cells = [cell for cell in there_is(path).cells if cell.cell_type == "code"]
    assert not any("NBVAL" in cell.source for cell in cells)
    for cell in cells:
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert cell.outputs, cell.id


@of_each(NOTEBOOKS)
def test_nobody_sees_the_answers_before_guessing(path: Path) -> None:
    for cell in there_is(path).cells:
        if cell.cell_type == "code" and ".tell(" in cell.source:
            assert cell.outputs == [], cell.id


# --- the marks of solutions --------------------------------------------------------------------------------

SOLVED = """slots = 3
# BEGIN SOLUTION answer = ...
answer = 7 * slots
# END SOLUTION
check(answer)"""


def test_a_student_gets_the_stub_and_a_teacher_the_solution() -> None:
    assert make.for_students(SOLVED) == "slots = 3\nanswer = ...\ncheck(answer)"
    assert make.for_teachers(SOLVED) == "slots = 3\nanswer = 7 * slots\ncheck(answer)"


def test_a_solution_within_a_function_keeps_its_indent() -> None:
    source = "def f():\n    # BEGIN SOLUTION return ...\n    return 7\n    # END SOLUTION"
    assert make.for_students(source) == "def f():\n    return ..."
    assert make.for_teachers(source) == "def f():\n    return 7"


def test_several_solutions_in_a_cell() -> None:
    assert make.for_students(f"{SOLVED}\n{SOLVED}").count("answer = ...") == 2


@pytest.mark.parametrize(
    "source",
    [
        "# BEGIN SOLUTION answer = ...\nanswer = 7",
        "answer = 7\n# END SOLUTION",
        "# BEGIN SOLUTION\nanswer = 7\n# END SOLUTION",
        f"{SOLVED}\n# END SOLUTION",
    ],
)
def test_marks_that_are_not_in_pairs_are_refused(source: str) -> None:
    for way in (make.for_students, make.for_teachers):
        with pytest.raises(
            ValueError, match=r"expected '# BEGIN SOLUTION stub' and '# END SOLUTION' in pairs"
        ):
            way(source)


def test_a_source_with_unbalanced_marks_is_refused_with_its_name_and_cell(tmp_path: Path) -> None:
    path = tmp_path / "99_wrong.py"
    path.write_text("# %% [markdown]\n# # 99 · Wrong\n\n# %%\n# BEGIN SOLUTION x = ...\nx = 1\n", "utf-8")
    with pytest.raises(ValueError, match=r"99_wrong.py, cell 2: expected '# BEGIN SOLUTION stub'"):
        make.notebook(path)


def test_writing_a_notebook_is_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "99_right.py"
    path.write_text("# %% [markdown]\n# # 99 · Right\n\n# %%\n" + SOLVED + "\n", "utf-8")
    made = make.notebook(path)
    make.write(made, tmp_path / "99_right.ipynb")
    assert [cell.source for cell in nbformat.read(tmp_path / "99_right.ipynb", as_version=4).cells][1] == (
        "slots = 3\nanswer = ...\ncheck(answer)"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["99_right.ipynb", "99_right.py"]


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(SystemExit):
        make.main(["99_not_there"])


# --- what is in a cell's metadata, and what is left out ----------------------------------------------------


def made_from(text: str, folder: Path) -> Any:
    path = folder / "00_made.py"
    path.write_text(text, encoding="utf-8")
    return make.notebook(path)


def test_marks_of_tools_become_tags(tmp_path: Path) -> None:
    text = '# %%\n# NBVAL_CHECK_OUTPUT\n1 + 1\n\n# %% tags=["plumbing"]\n2 + 2\n\n# %%\n3 + 3\n'
    checked, hidden, plain = made_from(text, tmp_path).cells
    assert (checked.source, checked.metadata) == ("1 + 1", {"tags": ["nbval-check-output"]})
    assert hidden.metadata == {"tags": ["plumbing"], "jupyter": {"source_hidden": True}}
    assert plain.metadata == {}


def test_what_is_shown_behind_the_guess_is_folded_up_for_students(tmp_path: Path) -> None:
    text = '# %%\n1\n\n# %%\nguess = GuessForm()\n\n# %% tags=["plumbing"]\n2\n\n# %%\n3\n'
    before, guess, hidden, plain = made_from(text, tmp_path).cells
    assert (before.metadata, guess.metadata) == ({}, {})
    assert hidden.metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
    assert plain.metadata == {"jupyter": {"outputs_hidden": True}}
    for_teacher = make.notebook(tmp_path / "00_made.py", solved=True)
    assert for_teacher.cells[-1].metadata == {}


@of_each(NOTEBOOKS)
def test_what_is_shown_behind_the_guess_is_folded_up(path: Path) -> None:
    code = [cell for cell in there_is(path).cells if cell.cell_type == "code"]
    asks = next(number for number, cell in enumerate(code) if "GuessForm(" in cell.source)
    for cell in code[asks + 1 :]:
        if "GuessForm(" not in cell.source:
            assert cell.metadata.get("jupyter", {}).get("outputs_hidden"), cell.id


def test_the_first_line_of_what_is_folded_up_says_nothing(tmp_path: Path) -> None:
    text = "# %%\nGuessForm = list\nprint(6)\n\n# %%\nprint(7)\n"
    made = make.for_opening(
        make.run(made_from(text.replace("= list", "= list\nGuessForm()"), tmp_path), tmp_path)
    )
    before, behind = made.cells
    assert before.outputs[0]["text"] == "6\n"
    assert behind.outputs[0]["text"] == " \n7\n"
    assert make.for_opening(made).cells[1].outputs[0]["text"] == " \n7\n"


def test_what_is_told_and_what_is_alive_is_not_saved(tmp_path: Path) -> None:
    text = (
        "# %%\nimport ipywidgets\nipywidgets.IntSlider()\n\n# %%\nclass Form:\n"
        "    def tell(self):\n        return 7\n\nForm().tell()\n\n# %%\n8\n"
    )
    alive, told, plain = make.for_opening(make.run(made_from(text, tmp_path), tmp_path)).cells
    assert alive.outputs[0]["data"]["text/plain"] == "Run this cell: the widget appears then."
    assert told.outputs == []
    assert plain.outputs[0]["data"]["text/plain"] == "8"
