"""Where a Python interpreter finds modules, and which of their files it reads."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from vmrestorekit.backup.file_tree import FileTree
from vmrestorekit.backup.python_source import Import

__all__ = ["Budget", "ModuleFinder", "ModuleFolders", "PythonModule"]

# part of the program: in every version, and from 3.11 on
_FROZEN = ("zipimport", "importlib/_bootstrap", "importlib/_bootstrap_external")
_FROZEN_LATER = (
    *("abc", "codecs", "io", "_collections_abc", "_sitebuiltins", "genericpath", "ntpath", "posixpath"),
    *("os", "site", "stat", "importlib/util", "importlib/machinery", "runpy"),
)
# the name of a module and the kind of its file, in the order in which Python prefers them; a library that was
# built for one version has that as its kind
_MODULE = re.compile(r"([^.]+)\.(?:(cpython-\d+)-[^.]+\.so|(abi3)\.so|(so)|(py)|(pyc))")
_KINDS = ("abi3", "so", "py", "pyc")
_MOST_IN_FILE = 1 << 20
_MOST_BYTES = 64 << 20
_MOST_STEPS = 1_000_000


class Budget:
    """How much may still be read and looked up: a disk that is not trusted could ask for any amount."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self._bytes = _MOST_BYTES
        self._steps = _MOST_STEPS

    @property
    def is_spent(self) -> bool:
        """Whether nothing more is looked up."""
        return self._steps <= 0

    def take(self, steps: int) -> bool:
        """Take steps, one for what takes some microseconds or is kept; False if too few are left."""
        self._steps -= steps
        return self._steps >= 0

    def read(self, path: str) -> bytes:
        """Return the contents of a regular file; nothing of a large one, or if no bytes are left for it."""
        resolved = self._tree.resolve(path)
        file = self._tree.files.get(resolved) if resolved else None
        if file is None or file.kind != "regular" or file.size > min(_MOST_IN_FILE, self._bytes):
            return b""
        self._bytes -= file.size
        return self._tree.read_range(file, 0, file.size)


class PythonModule(NamedTuple):
    """A module by its files, or a script."""

    read: str  # what Python reads: the compiled file if there is one
    source: str | None  # its text
    folder: str
    is_script: bool = False


class ModuleFolders:
    """What lies in the folders of a system, each looked through once for all interpreters."""

    def __init__(self, tree: FileTree) -> None:
        self.tree = tree
        self.names = functools.cache(lambda folder: frozenset(tree.names_in(folder)))
        self.modules = functools.cache(self._list_modules)
        self.projects = functools.cache(self._list_projects)

    def _list_modules(self, folder: str) -> Mapping[tuple[str, str], str]:
        """Return files by the name of the module and what kind of file it is."""
        matches = filter(None, map(_MODULE.fullmatch, self.tree.names_in(folder)))
        return {(match[1], match[match.lastindex or 0]): match[0] for match in matches}

    def _list_projects(self, folder: str) -> Mapping[str, list[str]]:
        """Return where installed projects tell of themselves, by the project's normal name."""
        found = defaultdict(list)
        for name in self.tree.names_in(folder):
            if name.endswith("-info"):
                found[_normal(name.split("-")[0])].append(f"{folder}/{name}")
        return found


class ModuleFinder:
    """Where one interpreter looks for modules: the folders of its library, of a venv and of Debian."""

    def __init__(self, folders: ModuleFolders, budget: Budget, program: str, venv: str | None) -> None:
        self._tree, self._folders, self._budget = folders.tree, folders, budget
        prefix, _, name = program.rpartition("/bin/")
        self.version = 3, int(name.removeprefix("python3."))
        self._tag = "cpython-{}{}".format(*self.version)
        library = self._tree.resolve(f"{prefix}/lib/{name}") or ""
        places = [library, f"{library}/lib-dynload"]
        places += [f"{venv}/lib/{name}/site-packages"] if venv else []
        if venv is None or b"include-system-site-packages = true" in budget.read(f"{venv}/pyvenv.cfg"):
            places += [f"/usr/local/lib/{name}/dist-packages", "/usr/lib/python3/dist-packages"]
            places += [f"{library}/site-packages"]
        self.roots = tuple(found for each in places if each and (found := self._tree.resolve(each)))
        frozen = _FROZEN + (_FROZEN_LATER if self.version >= (3, 11) else ())
        self._frozen = {f"{library}/{each}.py" for each in frozen}
        self._standard = re.compile(rf"{re.escape(library)}(?!/(site|dist)-packages(/|$))(/.*)?", re.DOTALL)
        self._find = functools.cache(self._look)
        self._entries = functools.cache(self._list_entries)

    def is_own(self, module: PythonModule) -> bool:
        """Tell if a module is a script's own: what is shared does not look into the script's folder."""
        return not any(f"{module.folder}/".startswith(f"{root}/") for root in self.roots)

    def is_frozen(self, module: PythonModule) -> bool:
        """Tell if a module is part of the interpreter's program: none of its files is read."""
        return module.source in self._frozen

    def resolve(self, asked: Import, search: tuple[str, ...]) -> list[PythonModule]:
        """Return the modules of an import in the order in which they are read: packages first.

        No modules once the budget is spent.
        """
        if not self._budget.take(1 + asked.name.count(".") + len(asked.names)):
            return []
        name = self._entry_point(asked) if asked.how == "entry point" else asked.name
        parts = name.split(".") if name else []
        modules: list[PythonModule | None] = []
        for part in parts:
            module, inside = self._find(part, search)
            if module is None and not inside:
                break
            modules.append(module)
            search = inside
        if asked.how == "quoted":
            # at least two names, and at most one of something in the module; tables list the standard ones
            last = modules[-1] if len(modules) >= max(2, len(parts) - 1) else None
            return [module for module in modules if module] if last and not self._is_standard(last) else []
        if asked.how == "import" and len(modules) == len(parts):
            modules += [self._find(each, search)[0] for each in asked.names]
        return [module for module in modules if module]

    def _is_standard(self, module: PythonModule) -> bool:
        return self._standard.fullmatch(module.folder) is not None

    def _look(self, name: str, folders: tuple[str, ...]) -> tuple[PythonModule | None, tuple[str, ...]]:
        """Return the module of a name in one of the folders, and where modules in it are looked for."""
        portions = []
        for folder in folders:
            inside = self._tree.resolve(f"{folder}/{name}") if name in self._folders.names(folder) else None
            if inside and (module := self._module(inside, "__init__")):
                return module, (inside,)
            if module := self._module(folder, name):
                return module, ()
            if inside and self._kind(inside) == "directory":
                portions.append(inside)  # of a package without a file of its own
        if portions:
            return None, tuple(portions)
        # setuptools redirects: what others have made is in `_vendor`
        vendored = [re.sub("extern$", "_vendor", folder) for folder in folders if folder.endswith("/extern")]
        return self._find(name, tuple(vendored)) if vendored else (None, ())

    def _module(self, folder: str, stem: str) -> PythonModule | None:
        files = self._folders.modules(folder)
        name = next((files[stem, kind] for kind in (self._tag, *_KINDS) if (stem, kind) in files), None)
        path = self._regular(f"{folder}/{name}") if name else None
        if path is None or name is None or not name.endswith(".py"):
            return PythonModule(path, None, folder) if path else None
        compiled = self._regular(f"{folder}/__pycache__/{stem}.{self._tag}.pyc")
        return PythonModule(compiled or path, path, folder)

    def _regular(self, path: str) -> str | None:
        resolved = self._tree.resolve(path)
        return resolved if resolved and self._kind(resolved) == "regular" else None

    def _kind(self, path: str) -> str | None:
        file = self._tree.files.get(path)
        return file.kind if file else None

    def _entry_point(self, asked: Import) -> str:
        """Return the module that an installed project names in its list of programs."""
        group, name = asked.names
        project = re.split(r"[^\w.-]", asked.name, maxsplit=1)[0]
        return self._entries(_normal(project)).get((f"[{group}]", name), "")

    def _list_entries(self, project: str) -> Mapping[tuple[str, str], str]:
        """Return the module of each entry of a project by its section and name; the first of a name wins."""
        found: dict[tuple[str, str], str] = {}
        for root in self.roots:
            for folder in self._folders.projects(root).get(project, ()):
                lines = self._budget.read(f"{folder}/entry_points.txt").decode("utf-8", "backslashreplace")
                section = ""
                self._budget.take(1)
                for line in lines.split("\n"):
                    section = line.strip() if line.startswith("[") else section
                    key, is_entry, value = line.partition("=")
                    if is_entry and self._budget.take(1):
                        found.setdefault((section, key.strip()), value.partition(":")[0].strip())
        return found


def _normal(project: str) -> str:
    return re.sub(r"[-_.]+", "_", project).lower()
