"""Where a Python interpreter finds modules, and which of their files it reads."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from vmrestorekit.backup.file_tree import FileTree
from vmrestorekit.backup.python_source import Import

__all__ = ["ModuleFinder", "PythonModule"]

# part of the program: in every version, and from 3.11 on
_FROZEN = ("zipimport", "importlib/_bootstrap", "importlib/_bootstrap_external")
_FROZEN_LATER = (
    *("abc", "codecs", "io", "_collections_abc", "_sitebuiltins", "genericpath", "ntpath", "posixpath"),
    *("os", "site", "stat", "importlib/util", "importlib/machinery", "runpy"),
)


class PythonModule(NamedTuple):
    """A module by its files, or a script."""

    read: str  # what Python reads: the compiled file if there is one
    source: str | None  # its text
    folder: str
    is_script: bool = False


class ModuleFinder:
    """Where one interpreter looks for modules: the folders of its library, of a venv and of Debian."""

    def __init__(self, tree: FileTree, program: str, venv: str | None) -> None:
        self._tree = tree
        prefix, _, name = program.rpartition("/bin/")
        self.version = 3, int(name.removeprefix("python3."))
        self._tag = "cpython-{}{}".format(*self.version)
        library = self._tree.resolve(f"{prefix}/lib/{name}") or ""
        folders = [library, f"{library}/lib-dynload"]
        folders += [f"{venv}/lib/{name}/site-packages"] if venv else []
        if venv is None or b"include-system-site-packages = true" in self._tree.read(f"{venv}/pyvenv.cfg"):
            folders += [f"/usr/local/lib/{name}/dist-packages", "/usr/lib/python3/dist-packages"]
            folders += [f"{library}/site-packages"]
        self.roots = tuple(found for each in folders if each and (found := self._tree.resolve(each)))
        frozen = _FROZEN + (_FROZEN_LATER if self.version >= (3, 11) else ())
        self._frozen = {f"{library}/{each}.py" for each in frozen}
        self._standard = re.compile(rf"{re.escape(library)}(?!/(site|dist)-packages(/|$))(/.*)?", re.DOTALL)
        # in the order in which Python prefers them
        suffixes = rf"(\.{self._tag}-[^.]+\.so)|(\.abi3\.so)|(\.so)|(\.py)|(\.pyc)"
        self._file = re.compile(rf"([^.]+)(?:{suffixes})")
        self._find = functools.cache(self._look)
        self._files_in = functools.cache(self._list_files)

    def is_own(self, module: PythonModule) -> bool:
        """Tell if a module is a script's own: what is shared does not look into the script's folder."""
        return not any(f"{module.folder}/".startswith(f"{root}/") for root in self.roots)

    def is_frozen(self, module: PythonModule) -> bool:
        """Tell if a module is part of the interpreter's program: none of its files is read."""
        return module.source in self._frozen

    def resolve(self, asked: Import, search: tuple[str, ...]) -> list[PythonModule]:
        """Return the modules of an import in the order in which they are read: packages first."""
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
            inside = self._tree.resolve(f"{folder}/{name}") if name in self._files_in(folder)[0] else None
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
        name = self._files_in(folder)[1].get(stem)
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

    def _list_files(self, folder: str) -> tuple[frozenset[str], dict[str, str]]:
        """Return the names in a folder, and the file of each module: of several the one Python prefers."""
        names = self._tree.names_in(folder)
        matches = [match for match in map(self._file.fullmatch, names) if match]
        matches.sort(key=lambda match: -(match.lastindex or 0))
        return frozenset(names), {match[1]: match[0] for match in matches}

    def _entry_point(self, asked: Import) -> str:
        """Return the module that an installed project names in its list of programs."""
        group, name = asked.names
        wanted = _normal(re.split(r"[^\w.-]", asked.name)[0])
        for root in self.roots:
            for folder in self._tree.names_in(root):
                if folder.endswith("-info") and _normal(folder.split("-")[0]) == wanted:
                    section = ""
                    for line in self._tree.lines(f"{root}/{folder}/entry_points.txt"):
                        section = line.strip() if line.startswith("[") else section
                        key, _, value = line.partition("=")
                        if section == f"[{group}]" and key.strip() == name:
                            return value.partition(":")[0].strip()
        return ""


def _normal(project: str) -> str:
    return re.sub(r"[-_.]+", "_", project).lower()
