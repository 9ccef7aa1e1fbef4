"""What Python scripts lead to, on small disks and in trees in memory, against what Python really imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linux_disks import image_of, merged_usr, references_of, write_tree

from vmrestorekit.backup import imports, python_modules, python_source
from vmrestorekit.backup.file_tree import FileTree
from vmrestorekit.backup.files import DiskFiles, FoundFile
from vmrestorekit.backup.imports import python_references
from vmrestorekit.backup.loads import find_programs
from vmrestorekit.backup.manifest import build_manifest
from vmrestorekit.backup.units import Units, unit_commands

PACKAGES = "/usr/lib/python3/dist-packages"
SCRIPT = "#!/usr/bin/python3\n"


def library(version):
    return f"/usr/lib/python{version}"


def tree_of(files, links=None, version="3.11", hard_links=None):
    """What is seen of files in memory: each with its contents, and Python of a version."""
    files = {f"/usr/bin/python{version}": "x", "/usr/bin/env": "x", "/etc/hostname": "x"} | files
    links = {"/usr/bin/python3": f"python{version}"} | (links or {})
    found = {}
    for path, text in files.items():
        data = text.encode() if isinstance(text, str) else text
        others = [name for name, of in (hard_links or {}).items() if of == path]
        found[path] = FoundFile(path, len(data), "regular", [], inline=data, other_paths=others)
    found |= {path: FoundFile(path, 0, "symlink", [], target=target) for path, target in links.items()}
    for path in [*found, *(hard_links or {})]:
        while path := path.rpartition("/")[0]:
            found.setdefault(path, FoundFile(path, 0, "directory", []))
    return FileTree([(None, DiskFiles([], list(found.values())))])


def loads(files, links=None, version="3.11", hard_links=None):
    """What each file leads to, of a tree in memory."""
    tree, found = tree_of(files, links, version, hard_links), {}
    commands = unit_commands(Units(tree))
    for source, kind, target in python_references(tree, find_programs(tree), commands):
        assert kind == ("starts" if source.endswith(".service") else "loads")
        found.setdefault(source, set()).add(target)
    return found


def module(path, text="", version="3.11"):
    """A module with its compiled file, by its path without an ending."""
    return {f"{path}.py": text, compiled(path, version): "compiled"}


def compiled(path, version="3.11"):
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name}.cpython-{version.replace('.', '')}.pyc"


# --- what is read of a module -------------------------------------------------------------------------


def test_a_script_of_a_disk_leads_to_packages_and_these_to_their_modules(tmp_path):
    files = {
        "/usr/bin/python3.11": "x",
        "/usr/bin/service": SCRIPT + "import web.app.main\nimport sys, missing\n",
        **module(f"{PACKAGES}/web/__init__"),
        **module(f"{PACKAGES}/web/app/__init__", "from web import settings, VERSION\n"),
        **module(f"{PACKAGES}/web/app/main", "import json\n"),
        **module(f"{PACKAGES}/web/settings"),
        **module(f"{PACKAGES}/unused", "import json\n"),
        **module(f"{library('3.11')}/json/__init__"),
    }
    root = write_tree(merged_usr(tmp_path / "root"), files, {"/usr/bin/python3": "python3.11"})
    found = references_of(build_manifest(image_of(root, tmp_path / "disk.img")), "loads")
    web, app = (compiled(f"{PACKAGES}/{name}/__init__") for name in ("web", "web/app"))
    main = compiled(f"{PACKAGES}/web/app/main")
    assert found == {
        "/usr/bin/service": {"/usr/bin/python3.11", web, app, main},
        app: {web, compiled(f"{PACKAGES}/web/settings")},
        main: {compiled(f"{library('3.11')}/json/__init__")},
    }


def test_the_file_that_python_reads_of_a_module():
    folder = f"{library('3.11')}/lib-dynload"
    files = {
        "/usr/bin/tool": SCRIPT + "import plain, other, old, both, fast, stable, bare, space.inner, wrong\n",
        f"{PACKAGES}/plain.py": "import other",
        f"{PACKAGES}/other.py": "",
        compiled(f"{PACKAGES}/other", "3.10"): "of another version",
        f"{PACKAGES}/old.pyc": "without its text",
        **module(f"{PACKAGES}/both"),  # a package wins
        **module(f"{PACKAGES}/both/__init__"),
        f"{folder}/fast.cpython-311-x86_64-linux-gnu.so": "x",
        f"{PACKAGES}/fast.py": "import plain",
        f"{PACKAGES}/stable.abi3.so": "x",
        f"{PACKAGES}/bare.so": "x",
        f"{PACKAGES}/space/inner.py": "",  # a package without a file of its own
        f"{PACKAGES}/wrong.cpython-310-x86_64-linux-gnu.so": "x",
    }
    plain = {f"{PACKAGES}/plain.py", f"{PACKAGES}/other.py", f"{PACKAGES}/old.pyc"}
    extensions = {f"{folder}/fast.cpython-311-x86_64-linux-gnu.so"}
    extensions |= {f"{PACKAGES}/stable.abi3.so", f"{PACKAGES}/bare.so"}
    assert loads(files) == {
        "/usr/bin/tool": plain
        | extensions
        | {compiled(f"{PACKAGES}/both/__init__"), f"{PACKAGES}/space/inner.py"},
        f"{PACKAGES}/plain.py": {f"{PACKAGES}/other.py"},
    }


def test_links_are_followed():
    files = {
        "/usr/bin/tool": SCRIPT + "import linked, folder.part\n",
        "/usr/share/linked.py": "import linked_too",
        "/usr/share/linked_too.py": "",
        "/usr/share/folder/__init__.py": "",
        "/usr/share/folder/part.py": "",
    }
    links = {f"{PACKAGES}/{name}": f"/usr/share/{name}" for name in ("linked.py", "folder")}
    links |= {f"{PACKAGES}/gone.py": "nothing", f"{PACKAGES}/round": "round", f"{PACKAGES}/top": "/"}
    assert loads(files, links)["/usr/bin/tool"] == {
        "/usr/share/linked.py",
        "/usr/share/folder/__init__.py",
        "/usr/share/folder/part.py",
    }


# --- which scripts, and where Python looks ------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "is_python"),
    [
        ("#!/usr/bin/python3", True),
        ("#! /usr/bin/python3 -sP", True),
        ("#!/usr/bin/python3.11", True),
        ("#!/usr/bin/env python3", True),
        ("#!/usr/bin/env -S LANG=C python3 -u", True),
        ("#!/usr/bin/env", False),
        ("#!/bin/sh", False),
        ("#!python3", False),
        ("#!/usr/bin/python2.7", False),
        ("# no script", False),
    ],
)
def test_scripts_are_told_by_their_first_line(line, is_python):
    files = {"/srv/tool": f"{line}\nimport a\n", "/usr/bin/python2.7": "x", "/bin/sh": "x"}
    expected = {"/srv/tool": {f"{PACKAGES}/a.py"}} if is_python else {}
    assert loads(files | {f"{PACKAGES}/a.py": ""}) == expected


def test_a_script_looks_into_its_own_folder_first_and_the_modules_of_all_do_not():
    files = {
        "/srv/app/run": SCRIPT + "import mine, shared\n",
        "/srv/app/mine.py": "import own\n",
        "/srv/app/own.py": "",
        "/srv/app/json.py": "",
        "/srv/other/run": SCRIPT + "import own\n",
        f"{PACKAGES}/shared.py": "import json, own\n",
        f"{library('3.11')}/json.py": "",
    }
    assert loads(files) == {
        "/srv/app/run": {"/srv/app/mine.py", f"{PACKAGES}/shared.py"},
        "/srv/app/mine.py": {"/srv/app/own.py"},
        f"{PACKAGES}/shared.py": {f"{library('3.11')}/json.py"},
    }


def test_the_order_of_the_folders():
    local = "/usr/local/lib/python3.11/dist-packages"
    folders = [library("3.11"), f"{library('3.11')}/lib-dynload", local, PACKAGES]
    files = {"/usr/bin/tool": SCRIPT + "".join(f"import m{number}\n" for number in range(len(folders)))}
    for number, folder in enumerate(folders):
        files |= {f"{folder}/m{each}.py": "" for each in range(number + 1)}
    expected = {f"{folders[number]}/m{number}.py" for number in range(1, len(folders))}
    assert loads(files) == {"/usr/bin/tool": expected | {f"{folders[0]}/m0.py"}}


@pytest.mark.parametrize("sees_debian", [False, True])
def test_a_virtual_environment(sees_debian):
    folder = "/opt/venv/lib/python3.11/site-packages"
    files = {
        "/opt/venv/pyvenv.cfg": f"include-system-site-packages = {str(sees_debian).lower()}\n",
        "/opt/venv/bin/tool": "#!/opt/venv/bin/python\nimport a, b\n",
        f"{folder}/a.py": "",
        f"{PACKAGES}/a.py": "",
        f"{PACKAGES}/b.py": "",
    }
    links = {"/opt/venv/bin/python": "python3", "/opt/venv/bin/python3": "/usr/bin/python3"}
    debian = {f"{PACKAGES}/b.py"} if sees_debian else set()
    assert loads(files, links) == {"/opt/venv/bin/tool": {f"{folder}/a.py"} | debian}


# --- which imports ------------------------------------------------------------------------------------


def names_of(text, names, first=SCRIPT, version="3.11"):
    """Which of some modules a script imports."""
    files = {"/srv/tool": first + text, **{f"{PACKAGES}/{name}.py": "" for name in names}}
    found = loads(files, version=version).get("/srv/tool", set())
    return " ".join(sorted(path.rpartition("/")[2].removesuffix(".py") for path in found))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import a, b as c", "a b"),
        ("from a import b", "a"),
        ("from a import *", "a"),
        ("try:\n import a\nexcept ImportError:\n import b\nelse:\n import c\nfinally:\n import d", "a b c d"),
        ("if x:\n import a\nelif y:\n import b\nelse:\n import c", "a b c"),
        ("with x:\n import a\nfor y in z:\n import b\nwhile x:\n import c", "a b c"),
        ("class X:\n import a\n def f(self):\n  import b\n", "a"),
        ("def f():\n import a\nasync def g():\n import b\nh = lambda: __import__('c.x')\n", ""),
        ("if TYPE_CHECKING:\n import a\nelse:\n import b", "b"),
        ("import d\nif d.TYPE_CHECKING:\n import a\n", "d"),
        ("if __name__ == '__main__':\n import a", "a"),
        ("if __name__ != '__main__':\n import a", ""),
        ("if sys.platform == 'win32':\n import a\nelif os.name == 'posix':\n import b", "b"),
        ("if sys.version_info >= (3, 11):\n import a\nelse:\n import b", "a"),
        ("if sys.version_info < (3, 12, 1):\n import a\nelse:\n import b", "a"),
        ("if sys.version_info < 'x':\n import a\nelif sys.other == (x,):\n import b", "a b"),
        ("if 0:\n import a\nelse:\n import b", "b"),
        ("if not TYPE_CHECKING:\n import a\nelse:\n import b", "a"),
        ("if not x:\n import a\nelse:\n import b", "a b"),
        ("if sys.version_info[0] == 2:\n import a\nelse:\n import b", "b"),
        ("if sys.version_info[1] >= 11:\n import a\nelse:\n import b", "a"),
        ("if sys.version_info[2] == 2:\n import a\nelif sys.version_info[x] == 2:\n import b", "a b"),
        ("if sys.version_info[0] < '3':\n import a\nelif x[0] == 3:\n import b", "a b"),
        ("if False and x:\n import a\nelif x and False:\n import b\nelif 1 and 2:\n import c", "c"),
        ("if x and True:\n import a\nelse:\n import b", "a b"),
        ("if x or True:\n import a\nelse:\n import b", "a"),
        ("if False or 0:\n import a\nelif False or x:\n import b\nelse:\n import c", "b c"),
        ("if not (TYPE_CHECKING or os.name == 'nt'):\n import a\nelse:\n import b", "a"),
        (f"import a\nif {'not ' * 200}x:\n import b", "a b"),
        (f"import a\nif {'not ' * 2000}x:\n import b", ""),
        ("import a.b\n", "a"),
        ("x = '\\d'\nimport a", "a"),
        ("import a\nprint 'of Python 2'", ""),
        ("import a\n\0", ""),
        ("import a\n\udc80", ""),
        ("x = " + "(" * 5000 + "\nimport a", ""),
        ("x = " + "-" * 100_000 + "1\nimport a", ""),
        ("import a\n" + "#" * (1 << 20), ""),
    ],
)
def test_what_is_imported_outside_of_functions(text, expected):
    text = (SCRIPT + text).encode("utf-8", "surrogateescape")
    assert names_of(text, "abcd", first=b"") == expected


def test_what_a_module_imports_only_when_it_is_run_is_left_out():
    files = {"/srv/tool": SCRIPT + "import a", f"{PACKAGES}/b.py": ""}
    files[f"{PACKAGES}/a.py"] = "if __name__ == '__main__':\n import b\n"
    assert loads(files) == {"/srv/tool": {f"{PACKAGES}/a.py"}}


def test_relative_imports():
    top = f"{PACKAGES}/top"
    files = {
        "/usr/bin/tool": SCRIPT + "import top.inner.deep\n",
        f"{top}/__init__.py": "from . import near\nfrom .near import far\n",
        f"{top}/near.py": "from .inner import part, missing\n",
        f"{top}/inner/__init__.py": "",
        f"{top}/inner/part.py": "from .. import far\nfrom ..other import *\n",
        f"{top}/inner/deep.py": "from ... import none\nfrom ........................ import none\n",
        f"{top}/far.py": "",
        f"{top}/other.py": "",
    }
    found = loads(files)
    assert found == {
        "/usr/bin/tool": {f"{top}/{name}.py" for name in ("__init__", "inner/__init__", "inner/deep")},
        f"{top}/__init__.py": {f"{top}/near.py"},
        f"{top}/near.py": {f"{top}/inner/__init__.py", f"{top}/inner/part.py"},
        f"{top}/inner/part.py": {f"{top}/far.py", f"{top}/other.py"},
    }


def test_names_in_quotes_of_what_is_loaded_by_its_name():
    names = [
        "studio.fast.Worker",
        "studio.slow",
        "studio.gone.Worker.method",
        "studio",
        "studio.Worker",
        "re.kit",
    ]
    files = {
        "/usr/bin/tool": SCRIPT + f"import config\n'not.quite. this'\nx = {names}",
        f"{PACKAGES}/config.py": "def f():\n return 'studio.later'\n",
        f"{library('3.11')}/re/__init__.py": "",
        f"{library('3.11')}/re/kit.py": "",
        **{f"{PACKAGES}/studio/{name}.py": "" for name in ("__init__", "fast", "slow", "later")},
    }
    expected = {f"{PACKAGES}/studio/{name}.py" for name in ("__init__", "fast", "slow")}
    assert loads(files) == {"/usr/bin/tool": expected | {f"{PACKAGES}/config.py"}}


def test_the_entry_point_that_a_script_of_setuptools_names():
    text = "if __name__ == '__main__':\n sys.exit("
    text += "load_entry_point('Web-Kit==1.2', 'console_scripts', 'serve')())"
    points = "[gui_scripts]\nserve = web.window:main\n"
    points += "[console_scripts]\nother = web.x:main\nserve = web.run:main\n"
    files = {
        "/usr/bin/serve": SCRIPT + text,
        f"{PACKAGES}/web_kit-1.2.egg-info/entry_points.txt": points,
        **{f"{PACKAGES}/web/{name}.py": "" for name in ("__init__", "run", "window", "x")},
    }
    assert loads(files) == {"/usr/bin/serve": {f"{PACKAGES}/web/__init__.py", f"{PACKAGES}/web/run.py"}}
    files[f"{PACKAGES}/web_kit-1.2.egg-info/entry_points.txt"] = bytes(range(256))
    assert loads(files) == {}


def test_setuptools_finds_what_others_made_in_another_folder():
    top = f"{PACKAGES}/pkg_resources"
    files = {
        "/usr/bin/tool": SCRIPT + "from pkg_resources.extern.packaging import tags\n",
        f"{top}/__init__.py": "",
        f"{top}/extern/__init__.py": "",
        f"{top}/_vendor/__init__.py": "",
        f"{top}/_vendor/packaging/__init__.py": "",
        f"{top}/_vendor/packaging/tags.py": "",
    }
    names = ("__init__", "extern/__init__", "_vendor/packaging/__init__", "_vendor/packaging/tags")
    assert loads(files) == {"/usr/bin/tool": {f"{top}/{name}.py" for name in names}}


# --- the interpreter ----------------------------------------------------------------------------------


def standard(version):
    texts = {"os": "import abc, missing, stat", "importlib/util": "import warnings"}
    names = ["abc", "codecs", "io", "os", "site", "stat", "posixpath", "genericpath", "_collections_abc"]
    names += ["_sitebuiltins", "encodings/__init__", "encodings/aliases", "encodings/utf_8", "warnings"]
    names += ["encodings/other", "sitecustomize", "importlib/__init__", "importlib/util"]
    found = {}
    for name in names:
        found |= module(f"{library(version)}/{name}", texts.get(name, ""), version)
    return found


@pytest.mark.parametrize("version", ["3.9", "3.11", "3.13"])
def test_what_is_frozen_into_the_interpreter_is_not_read(version):
    def told(*names):
        return {compiled(f"{library(version)}/{name}", version) for name in names}

    tool = SCRIPT + "import os, importlib.util\n"
    found = loads({"/usr/bin/tool": tool, **standard(version)}, version=version)
    started = told("encodings/__init__", "encodings/aliases", "encodings/utf_8", "sitecustomize")
    if version == "3.9":
        started |= told("abc", "codecs", "io", "os", "site", "stat", "posixpath", "genericpath")
        started |= told("_collections_abc", "_sitebuiltins")
        assert found["/usr/bin/python3.9"] == started
        assert found["/usr/bin/tool"] == told("os", "importlib/__init__", "importlib/util")
        assert found[compiled(f"{library('3.9')}/os", "3.9")] == told("abc", "stat")
    else:
        # what a frozen module imports is still read
        assert found == {
            f"/usr/bin/python{version}": started,
            "/usr/bin/tool": told("importlib/__init__", "warnings"),
        }


def test_modules_are_those_that_python_itself_imports(tmp_path):
    """The folders of the tree as those of a script: Python tells the file of each module that it has."""
    files = {
        "main": SCRIPT + "import one.two.three\nfrom four import five, name\ntry:\n import absent\n"
        "except ImportError:\n import six_\n",
        "one/__init__.py": "from .base import *\nfrom . import siblings as s\n",
        "one/base.py": "import typing\nif typing.TYPE_CHECKING:\n import never\nclass X:\n import seven\n",
        "one/siblings.py": "def later():\n import never\n",
        "one/two/__init__.py": "",
        "one/two/three.py": "from .. import eight\n",
        "one/eight.py": "from .two import three\n",
        "four/__init__.py": "name = 1\n",
        "four/five.py": "import space.inner\n",
        "four/unused.py": "",
        "space/inner.py": "",
        "six_.py": "import sys\nif sys.version_info < (3, 0):\n import never\n",
        "seven.py": "if __name__ == '__main__':\n import never\n",
        "never.py": "raise SystemExit\n",
    }
    app = write_tree(tmp_path / "app", {f"/{name}": text for name, text in files.items()})
    code = (
        "import sys, runpy\nsys.path.insert(0, sys.argv[1])\nrunpy.run_path(sys.argv[1] + '/main')\n"
        "for m in list(sys.modules.values()):\n"
        " f = getattr(m, '__cached__', None)\n"
        " if f and f.startswith(sys.argv[1]): print(f)\n"
    )
    settings_of_python = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": ""}
    told = subprocess.run(
        [sys.executable, "-c", code, app],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | settings_of_python,
    )
    really = {line.removeprefix(str(tmp_path)) for line in told.stdout.split()}
    assert len(really) == 11

    version = f"3.{sys.version_info.minor}"
    below = [path for path in app.rglob("*") if path.is_file()]
    in_memory = {f"/{path.relative_to(tmp_path)}": path.read_bytes() for path in below}
    assert really <= set(in_memory)  # Python has written its compiled files
    found = loads(in_memory, version=version)
    assert set.union(*found.values()) == really


# --- odd contents -------------------------------------------------------------------------------------


def test_a_damaged_module_says_nothing_and_is_no_error():
    files = {"/srv/tool": SCRIPT + "import a, b\n", f"{PACKAGES}/b.py": "import c\n", f"{PACKAGES}/c.py": ""}
    files[f"{PACKAGES}/a.py"] = bytes(range(256)) * 9
    found = loads(files)
    assert found == {
        "/srv/tool": {f"{PACKAGES}/a.py", f"{PACKAGES}/b.py"},
        f"{PACKAGES}/b.py": {f"{PACKAGES}/c.py"},
    }


# --- what is too much ---------------------------------------------------------------------------------


CHAIN = {f"{PACKAGES}/m{number}.py": f"import m{number + 1}" for number in range(9)}
CHAIN["/srv/tool"] = SCRIPT + "import m0\n"


def test_no_more_than_so_many_bytes_are_parsed(monkeypatch):
    monkeypatch.setattr(python_modules, "_MOST_BYTES", len(CHAIN["/srv/tool"]) + 2 * len("import m0") + 5)
    assert sorted(loads(CHAIN)) == ["/srv/tool", f"{PACKAGES}/m0.py", f"{PACKAGES}/m1.py"]


def test_the_search_ends_after_so_many_steps(monkeypatch):
    whole = loads(CHAIN)
    assert len(whole) == 9
    for steps in range(0, 80, 3):
        monkeypatch.setattr(python_modules, "_MOST_STEPS", steps)
        found = loads(CHAIN)
        assert set(found) <= set(whole)
        assert sum(map(len, found.values())) <= steps
    assert found == whole
    # then nothing is parsed any more
    monkeypatch.setattr(python_modules, "_MOST_STEPS", 0)
    with monkeypatch.context() as within:
        within.setattr(imports, "read_imports", lambda *asked: pytest.fail("parsed"))
        assert loads(CHAIN) == {}
    # what finds nothing takes steps, too: a million imports of what is not there take as long
    monkeypatch.setattr(python_modules, "_MOST_STEPS", 100)
    missing = "".join(f"import missing.m{number}\n" for number in range(50))
    assert loads(CHAIN | {f"{PACKAGES}/m0.py": missing + "import m1\n"}) == {
        "/srv/tool": {f"{PACKAGES}/m0.py"}
    }


def test_what_units_start_comes_before_other_scripts(monkeypatch):
    unit = "[Service]\nExecStart=/usr/bin/python3 /srv/z/service.py\n"
    files = {**CHAIN, UNIT: unit, "/srv/z/service.py": "import m8\n"}
    monkeypatch.setattr(python_modules, "_MOST_BYTES", len("import m8\n"))
    assert loads(files) == {UNIT: {"/srv/z/service.py"}, "/srv/z/service.py": {f"{PACKAGES}/m8.py"}}


def test_a_file_with_several_names_is_parsed_once(monkeypatch):
    parsed = []
    read = imports.read_imports
    monkeypatch.setattr(imports, "read_imports", lambda *asked: parsed.append(asked[0]) or read(*asked))
    names = [f"{PACKAGES}/n{number}.py" for number in range(20)]
    text = "import a\n# parsed once\n"
    files = {
        "/srv/tool": SCRIPT + "import " + ", ".join(f"n{number}" for number in range(20)),
        names[0]: text,
        f"{PACKAGES}/a.py": "",
    }
    found = loads(files, hard_links=dict.fromkeys(names[1:], names[0]))
    assert found == {"/srv/tool": set(names)} | {name: {f"{PACKAGES}/a.py"} for name in names}
    assert parsed.count(text.encode()) == 1


def test_no_more_than_so_many_imports_of_a_file_count(monkeypatch):
    monkeypatch.setattr(python_source, "_MOST_IMPORTS", 6)

    def told(text):
        found = python_source.read_imports(text.encode(), (3, 11), True)
        return [" ".join((each.name, *each.names)) for each in found]

    table = "x = ['d.v', 'd.w', 'd.x', 'd.y', 'd.z']\n"
    assert told(f"{table}import a, b\n") == ["a", "b", "d.v", "d.w", "d.x", "d.y"]  # quoted ones are last
    many = "from b import m1, m2, m3, m4, m5, m6\n"
    assert told(f"{table}import a\n{many}import c\n") == ["a", "b m1 m2 m3 m4"]
    assert told("import a, b, c, d, e\n" + many) == [*"abcde", "b"]
    assert told("import a, b, c, d\nload_entry_point('x', 'y', 'z')\nimport e\n") == [*"abcde"]
    assert told("import a, b, c, d, e\nload_entry_point('x', 'y', 'z')\n") == [*"abcde"]


def test_names_that_nobody_would_write_are_passed_over():
    long = "m" * 256
    text = f"import {long}, a\nfrom b import {long}\nfrom {'.' * 9000} import c\n"
    text += f"load_entry_point('', '', '{long}')"
    assert names_of(text, ["a", "b", long]) == "a"


def test_no_more_than_so_many_environments_are_looked_into(monkeypatch):
    monkeypatch.setattr(imports, "_MOST_ENVIRONMENTS", 3)  # one of them that of the system's program
    files = {f"{PACKAGES}/a.py": "", "/srv/tool": SCRIPT + "import a\n"}
    for number in range(9):
        files |= {
            f"/opt/v{number}/pyvenv.cfg": "",
            f"/opt/v{number}/bin/tool": f"#!/opt/v{number}/bin/python\nimport b\n",
            f"/opt/v{number}/lib/python3.11/site-packages/b.py": "",
        }
    found = loads(files, {f"/opt/v{number}/bin/python": "/usr/bin/python3" for number in range(9)})
    assert found.pop("/srv/tool") == {f"{PACKAGES}/a.py"}
    assert len(found) == 2


def test_an_environment_is_the_same_under_every_name(monkeypatch):
    monkeypatch.setattr(imports, "_MOST_ENVIRONMENTS", 2)
    package = "/opt/venv/lib/python3.11/site-packages/b.py"
    tops = ["/opt/venv", "/opt/./venv", "/srv/linked", "//opt//venv"]
    files = {f"/srv/tool{number}": f"#!{top}/bin/python\nimport b\n" for number, top in enumerate(tops)}
    files |= {"/opt/venv/pyvenv.cfg": "", package: ""}
    links = {"/opt/venv/bin/python": "/usr/bin/python3", "/srv/linked": "/opt/venv"}
    assert loads(files, links) == {f"/srv/tool{number}": {package} for number in range(len(tops))}


def test_tables_of_entry_points_are_read_once_and_large_ones_not_at_all(monkeypatch):
    read, asked = FileTree.read_range, []
    monkeypatch.setattr(
        FileTree, "read_range", lambda self, file, *at: asked.append(file.path) or read(self, file, *at)
    )
    table = f"{PACKAGES}/kit-1.egg-info/entry_points.txt"
    files = {f"{PACKAGES}/m{number}.py": "" for number in range(5)}
    for number in range(5):
        files[f"/srv/tool{number}"] = SCRIPT + f"load_entry_point('kit==1', 'programs', 'p{number}')\n"
    files[table] = "[programs]\n" + "".join(f"p{number} = m{number}:main\n" for number in range(5))
    files[table] += "p0 = m4\n"  # the first of a name counts
    expected = {f"/srv/tool{number}": {f"{PACKAGES}/m{number}.py"} for number in range(5)}
    assert loads(files) == expected
    # beside the look for scripts among all files
    assert asked.count(table) == 2
    asked.clear()
    assert loads(files | {table: files[table] + "#" * (1 << 20)}) == {}
    assert asked.count(table) == 1


WORDS = [
    *("import", "from", "a", "b", ".", "..", "as", "if", "else", ":", "\n", "\n ", "(", ")", "class", "'"),
    *("TYPE_CHECKING", "sys.version_info", "<", "==", "load_entry_point", "'a.b'", ",", "\\", "*", "try"),
]


@settings(deadline=None, max_examples=150)
@given(
    script=st.binary(max_size=80) | st.lists(st.sampled_from(WORDS)).map(" ".join).map(str.encode),
    line=st.sampled_from([b"#!/usr/bin/python3\n", b"#!/usr/bin/env python3", b"#!", b""]),
    inside=st.binary(max_size=80) | st.lists(st.sampled_from(WORDS)).map(" ".join).map(str.encode),
)
@example(script=b"# coding: nothing\nimport a", line=b"#!/usr/bin/python3\n", inside=b"")
@example(script=b"import a", line=b"#!/usr/bin/python3\n", inside=b"\xff\xfeimport b")
@example(script=b"load_entry_point('', '', '')", line=b"#!/usr/bin/python3\n", inside=b"")
def test_no_contents_are_an_error(script, line, inside):
    files = {
        "/srv/tool": line + script,
        f"{PACKAGES}/a/__init__.py": inside,
        f"{PACKAGES}/a/b.py": inside,
        f"{PACKAGES}/b.py": inside,
        f"{PACKAGES}/a-1.egg-info/entry_points.txt": inside,
    }
    for targets in loads(files).values():
        assert targets <= set(files)


# --- what a unit's command names ----------------------------------------------------------------------

APP = {
    "/usr/bin/server": SCRIPT + "import sys\n",
    **module(f"{PACKAGES}/server/__main__"),
    **module(f"{PACKAGES}/server/__init__"),
    **module(f"{PACKAGES}/framework"),
    "/srv/app/service.py": "import framework, helper\n",
    "/srv/app/helper.py": "",
    "/srv/other/service.py": "",
}
UNIT = "/usr/lib/systemd/system/app.service"


@pytest.mark.parametrize(
    ("command", "started"),
    [
        ("/usr/bin/server --workers 2 service:application", {"/srv/app/service.py"}),
        ("/usr/bin/server --chdir /srv/other service:application", {"/srv/other/service.py"}),
        ("/usr/bin/python3 /srv/other/service.py", {"/srv/other/service.py"}),
        ("/usr/bin/python3 helper.py", {"/srv/app/helper.py"}),
        (
            "/usr/bin/python3 -m server",
            {compiled(f"{PACKAGES}/server/__init__"), compiled(f"{PACKAGES}/server/__main__")},
        ),
        ("/usr/bin/server missing:application missing.py", set()),
        ("/usr/bin/env service:application", set()),  # no Python
    ],
)
def test_an_application_that_a_unit_names(command, started):
    unit = f"[Service]\nWorkingDirectory=/srv/app\nExecStart={command}\n"
    found = loads({**APP, UNIT: unit})
    assert found.get(UNIT, set()) == started
    if "/srv/app/service.py" in started:
        assert found["/srv/app/service.py"] == {compiled(f"{PACKAGES}/framework"), "/srv/app/helper.py"}


@pytest.mark.parametrize(
    ("word", "started"),
    [
        ("/top.py", {"/top.py"}),
        ("/root.py", set()),  # a link to the root, which is no file
        ("/srv/folder.py", set()),
        ("/srv/linked.py", {"/top.py"}),
        ("/srv/gone.py", set()),
    ],
)
def test_a_word_is_a_script_only_if_it_is_a_file(word, started):
    files = {"/top.py": "import beside\n", "/beside.py": "", "/srv/folder.py/inside.py": ""}
    links = {"/root.py": "/", "/srv/linked.py": "/top.py", "/srv/gone.py": "nothing"}
    found = loads({**files, UNIT: f"[Service]\nExecStart=/usr/bin/python3 {word}\n"}, links)
    assert found.get(UNIT, set()) == started
    assert found.get("/top.py", set()) == ({"/beside.py"} if started else set())


@pytest.mark.parametrize(
    ("chosen", "place"),
    [("--chdir inner", "/srv/app/inner"), ("--chdir=../other", "/srv/other"), ("--chdir /inner", "/inner")],
)
def test_a_folder_is_changed_to_from_where_the_command_starts(chosen, place):
    files = {f"{folder}/wsgi.py": "" for folder in ("/srv/app", "/srv/app/inner", "/srv/other", "/inner")}
    unit = f"[Service]\nWorkingDirectory=/srv/app\nExecStart=/usr/bin/server {chosen} wsgi:application\n"
    found = loads({**files, "/usr/bin/server": SCRIPT, UNIT: unit})
    assert found == {UNIT: {f"{place}/wsgi.py"}}
