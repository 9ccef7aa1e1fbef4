"""Imports point upstream: which room may import which, read from the code's own imports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmrestorekit

PACKAGE = "vmrestorekit"
SOURCES = Path(vmrestorekit.__file__).parent
ROOT = SOURCES.parent

# room -> the rooms it may import; a room may always import itself
UPSTREAM = {
    "traces": set(),
    "parallel": set(),
    "backup": {"traces"},
    "plan": {"traces", "backup"},
    "predict": {"traces", "backup", "plan", "parallel"},
    "restore": {"traces", "backup", "plan"},
    "analysis": {"traces", "backup", "plan", "parallel", "predict", "restore"},
    "show": {"traces", "backup", "plan", "predict", "restore", "analysis"},
    "lab": {"traces", "backup", "plan", "predict", "restore"},
    "__init__": {"traces", "backup", "plan", "predict", "restore", "analysis", "show"},
    "cli": {"traces", "backup", "plan", "predict", "restore", "analysis", "show", "lab"},
}
# the evaluation of predictors measures the time a restore takes
EXCEPTIONS = {"predict.evaluation": {"restore"}}
DRAWING = {"altair", "ipywidgets", "IPython", "traitlets", "anywidget"}


def room_of(module: str) -> str:
    """``vmrestorekit.show.units`` -> ``show``, ``vmrestorekit`` -> ``__init__``."""
    return [*module.split("."), "__init__"][1]


def imported_modules(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Every module that a source text imports anywhere: at the top, in functions, for type checking."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            for alias in node.names:
                # what is imported from the package's root is a room, or a public name of one
                public = vmrestorekit._PUBLIC.get(alias.name)
                yield public if base == [PACKAGE] and public else ".".join([*base, alias.name])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {
            "import_module",
            "__import__",
        }:
            yield from (word.value for word in node.args if isinstance(word, ast.Constant))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == PACKAGE:
            yield vmrestorekit._PUBLIC.get(node.attr, f"{PACKAGE}.{node.attr}")


def wrong_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of a module of the package that do not point upstream."""
    room = room_of(module)
    allowed = UPSTREAM[room] | {room}
    for prefix, more in EXCEPTIONS.items():
        if module.startswith(f"{PACKAGE}.{prefix}"):
            allowed |= more
    wrong = []
    for name in imported_modules(source, module, is_package):
        root = name.split(".")[0]
        if root in DRAWING and room != "show":
            wrong.append(name)
        # a dunder name of the package's root, such as __version__, is no room
        elif root == PACKAGE and name != PACKAGE and not room_of(name).startswith("__"):
            wrong += [name] if room_of(name) not in allowed else []
    return sorted(set(wrong))


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        parts = path.relative_to(SOURCES.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_point_upstream(module: str, path: Path) -> None:
    wrong = wrong_imports(path.read_text("utf-8"), module, path.name == "__init__.py")
    assert not wrong, f"{module} may import {sorted(UPSTREAM[room_of(module)])}, not {wrong}"


def test_every_room_has_its_arrows() -> None:
    assert {room_of(name) for name, _ in modules()} == set(UPSTREAM)


def test_arrows_make_no_circle() -> None:
    left = dict(UPSTREAM)
    while left:
        free = [room for room, needs in left.items() if not needs & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        left = {room: needs for room, needs in left.items() if room not in free}


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("traces.schema", "import vmrestorekit.plan", ["vmrestorekit.plan"]),
        (
            "traces.schema",
            "def f():\n    from vmrestorekit.backup import layout",
            ["vmrestorekit.backup.layout"],
        ),
        ("traces.schema", "from ..show import units", ["vmrestorekit.show.units"]),
        ("traces.schema", "from .. import plan", ["vmrestorekit.plan"]),
        ("traces.schema", "from . import manifest", []),
        (
            "restore.engine",
            "if TYPE_CHECKING:\n    from vmrestorekit.predict.base import X",
            ["vmrestorekit.predict.base.X"],
        ),
        ("restore.engine", "from vmrestorekit import make_plan", ["vmrestorekit.predict.planning"]),
        (
            "restore.engine",
            "import vmrestorekit\nvmrestorekit.make_plan()",
            ["vmrestorekit.predict.planning"],
        ),
        ("restore.engine", "import vmrestorekit\nvmrestorekit.lab.qemu.f()", ["vmrestorekit.lab"]),
        ("restore.engine", "import vmrestorekit\nvmrestorekit.__version__", []),
        ("restore.engine", "importlib.import_module('vmrestorekit.show.theme')", ["vmrestorekit.show.theme"]),
        ("restore.engine", "import altair as alt", ["altair"]),
        ("show.charts", "import altair as alt", []),
        (
            "show.charts",
            "from vmrestorekit.lab.nbd.server import serve",
            ["vmrestorekit.lab.nbd.server.serve"],
        ),
        (
            "predict.base",
            "from vmrestorekit.restore.simulate import simulate",
            ["vmrestorekit.restore.simulate.simulate"],
        ),
        ("predict.evaluation", "from vmrestorekit.restore.simulate import simulate", []),
        ("lab.record", "from vmrestorekit.show.units import size", ["vmrestorekit.show.units.size"]),
        ("cli", "from vmrestorekit.lab.guests.spec import GuestSpec", []),
    ],
)
def test_the_check_finds_wrong_imports(module: str, source: str, wrong: list[str]) -> None:
    assert wrong_imports(source, f"{PACKAGE}.{module}") == wrong


def test_only_the_command_line_and_the_lab_s_own_notebooks_import_the_lab() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
        assert "vmrestorekit.lab" not in code or "lab" in path.stem, path.name


@pytest.mark.parametrize("statement", ["import vmrestorekit", "from vmrestorekit.cli import app"])
def test_importing_the_package_loads_nothing_heavy(statement: str) -> None:
    heavy = ["numba", "sklearn", "altair", "ipywidgets", "polars", "numpy", "pytsk3", "qemu"]
    program = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", vmrestorekit.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(vmrestorekit, name)
    assert thing.__module__.startswith(PACKAGE)
    # a dataclass without a docstring gets its signature as one
    text = (thing.__doc__ or "").strip()
    assert text
    assert not text.startswith(f"{name}(")
    assert name in dir(vmrestorekit)


def test_the_table_of_public_names_is_what_type_checkers_see() -> None:
    (block,) = (
        node
        for node in ast.parse((SOURCES / "__init__.py").read_text("utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == vmrestorekit._PUBLIC


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Steper'; it has .*Stepper"):
        _ = vmrestorekit.Steper
