"""pyproject.toml, constraints.txt, environment.yml, Makefile and Binder agree; a wheel has all it needs."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {
    name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()
}
BASE = [Requirement(line) for line in PROJECT["dependencies"]]
INSTALLED = ".[lab,test]"  # what every way to set up installs
OLDEST_PYTHON = "3.11.2"  # Debian 12's; a package may ask for a later 3.11


def pins() -> dict[str, Version]:
    """Name -> version of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned: dict[str, Version] = {}
    for line in (line for line in lines if not line.startswith("#")):
        name, _, version = line.partition("==")
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!+-]+", line), f"not name==version: {line!r}"
        assert canonicalize_name(name) not in pinned, f"twice: {name}"
        pinned[canonicalize_name(name)] = Version(version)
    return pinned


@pytest.mark.parametrize(
    "requirement",
    [*BASE, *EXTRAS["images"], *EXTRAS["lab"], *EXTRAS["cluster"], *EXTRAS["test"]],
    ids=lambda found: found.name,
)
def test_a_direct_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    version = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11),
    reason="the pins are those of Python 3.11 on Linux",
)
def test_what_dependencies_need_is_pinned_too() -> None:
    """Walk from what is installed on set-up to all that it requires here, by the packages' own metadata."""
    pinned, seen = pins(), set()
    todo = [*BASE, *EXTRAS["lab"], *EXTRAS["test"]]
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        assert key[0] in pinned, f"{requirement} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[key[0]], prereleases=True), (
            f"{requirement}: {pinned[key[0]]}"
        )
        about = importlib.metadata.metadata(requirement.name)
        python = about.get("Requires-Python") or ""
        # in an environment that does not follow the pins, the metadata at hand are those of another version
        assert Version(about["Version"]) != pinned[key[0]] or SpecifierSet(python).contains(OLDEST_PYTHON), (
            f"{requirement.name} needs Python {python}"
        )
        for line in importlib.metadata.requires(requirement.name) or []:
            needed = Requirement(line)
            wanted = ({"extra": extra} for extra in ("", *requirement.extras))
            if needed.marker is None or any(needed.marker.evaluate(extra) for extra in wanted):
                todo.append(needed)
    assert not pinned.keys() - {name for name, _ in seen}, "pinned, but needed by nothing"


def test_conda_installs_the_same_under_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert environment["name"] == PROJECT["name"]
    assert environment["channels"] == ["conda-forge"]
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-c constraints.txt", f"-e {INSTALLED}"]}


def test_one_python_everywhere() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.11" in PROJECT["classifiers"]
    assert (ROOT / ".binder" / "runtime.txt").read_text("utf-8").strip() == "python-3.11"
    assert "(3, 11)" in (ROOT / "Makefile").read_text("utf-8")


def test_make_and_binder_install_the_same_under_the_same_pins() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"REQUIREMENT := {INSTALLED}\n" in makefile
    assert (
        "pip install --quiet --disable-pip-version-check -c constraints.txt -e '$(REQUIREMENT)'" in makefile
    )
    assert f"pip install --no-cache-dir -c constraints.txt -e '{INSTALLED}'" in (
        ROOT / ".binder" / "postBuild"
    ).read_text("utf-8")


def test_what_the_code_imports_is_declared_and_the_other_way_round() -> None:
    imported = set()
    for path in (ROOT / "vmrestorekit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module)
    own = {"vmrestorekit", *sys.stdlib_module_names}
    roots = {name.split(".")[0] for name in imported} - own
    distribution = {"sklearn": "scikit-learn", "qemu": "qemu.qmp", "vl_convert": "vl-convert-python"}
    used = {canonicalize_name(distribution.get(root, root)) for root in roots}
    base = {canonicalize_name(requirement.name) for requirement in BASE}
    optional = {
        canonicalize_name(found.name) for name in ("images", "lab", "cluster") for found in EXTRAS[name]
    }
    assert used <= base | optional, "imported, but not declared"
    assert base <= used, "declared, but not imported"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that ``pip install .`` would build, by the same build backend."""
    out = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return out / done.stdout.split()[-1]


def test_the_wheel_brings_types_and_the_recorded_boots(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "vmrestorekit/py.typed" in names
    recorded = [
        path.relative_to(ROOT / "data" / "traces") for path in (ROOT / "data" / "traces").rglob("*.*")
    ]
    assert {f"vmrestorekit/_corpus/{path.as_posix()}" for path in recorded if path.suffix} <= set(names)
    roots = {name.split("/")[0] for name in names}
    assert roots == {"vmrestorekit", f"vmrestorekit-{PROJECT['version']}.dist-info"}
    # twice what it has now would be a mistake: a student downloads this
    assert wheel.stat().st_size < 32_000_000


def test_the_recorded_boots_are_found_after_a_plain_install(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import vmrestorekit; print(vmrestorekit.__file__); "
        "from vmrestorekit.cli import app; app(['traces', 'list', '--json'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    where, _, rows = done.stdout.partition("\n")
    assert Path(where).parent == tmp_path / "vmrestorekit"
    assert rows == (
        subprocess.run(
            [Path(sys.executable).with_name("vmrestorekit"), "traces", "list", "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
    )


def test_the_version_is_one() -> None:
    import vmrestorekit

    assert vmrestorekit.__version__ == PROJECT["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


# --- the script that installs Debian packages -----------------------------------------------------------

DEB822 = """\
# a comment
Types: deb-src
URIs: http://other.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

Types: deb deb-src
# http://comment.example/snapshot
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /keys/archive.gpg
"""
ONE_LINE = """\
# deb http://comment.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian-security bookworm-security main
deb http://mirror.example/debian bookworm contrib
deb [signed-by=/keys/archive.gpg arch=amd64] http://mirror.example/debian bookworm non-free main
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a script for Debian")
@pytest.mark.parametrize(
    ("files", "entry"),
    [
        (
            {"sources.list.d/debian.sources": DEB822},
            "sources\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n"
            "Components: main contrib\nSigned-By: /keys/archive.gpg\n",
        ),
        (
            {"sources.list": ONE_LINE},
            "list\ndeb [signed-by=/keys/archive.gpg arch=amd64] http://mirror.example/debian "
            "bookworm-backports main\n",
        ),
        (
            {
                "sources.list": "",
                "sources.list.d/debian.list": "deb\thttp://m.example/debian/\tbookworm\tmain\n",
            },
            "list\ndeb\thttp://m.example/debian/\tbookworm-backports main\n",
        ),
        ({"sources.list": ONE_LINE.replace("bookworm", "trixie")}, None),
        ({}, None),
    ],
    ids=["deb822", "one line", "one line with tabs", "another release", "nothing"],
)
def test_backports_come_from_where_the_machine_gets_its_debian(
    tmp_path: Path, files: dict[str, str], entry: str | None
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    script = (
        f"source '{ROOT / 'tools' / 'install_debian_packages.sh'}'; backports_entry '{tmp_path}' bookworm"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=20)
    assert done.stdout == (entry or "")
    assert (done.returncode == 0) == (entry is not None)


# --- the script that says whether a change is good ------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="a script for Debian")
def test_what_is_missing_fails_in_ci_whoever_starts_it(tmp_path: Path) -> None:
    """Everything that ``.ci/run`` starts is told ``CI=true``, by which tests fail that would be skipped."""
    told = 'echo "$(basename "$0") $* CI=$CI"\n'
    for name, text in {
        ".ci/run": (ROOT / ".ci" / "run").read_text("utf-8"),
        "tools/install_debian_packages.sh": told,
        "programs/make": f"#!/bin/bash\n{told}",
    }.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text, "utf-8")
        path.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment["PATH"] = f"{tmp_path / 'programs'}:{environment['PATH']}"
    command = ["bash", str(tmp_path / ".ci" / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True)
    started = [line for line in done.stdout.splitlines() if " CI=" in line]
    assert "make test CI=true" in started
    assert all(line.endswith(" CI=true") for line in started)
