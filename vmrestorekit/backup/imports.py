"""What Python scripts import when they start: modules found where Python looks for them."""

from __future__ import annotations

import functools
import itertools
import re
from collections import deque
from collections.abc import Iterator

from vmrestorekit.backup.file_tree import FileTree, Reference
from vmrestorekit.backup.loads import first_bytes, interpreter_names
from vmrestorekit.backup.python_modules import ModuleFinder, PythonModule
from vmrestorekit.backup.python_source import Import, read_imports
from vmrestorekit.backup.units import UnitCommand, unit_commands

__all__ = ["python_references"]

_PROGRAM = re.compile(r"(.*)/bin/python3\.(\d{1,3})")
_PROGRAMS = ("/usr/bin", "/usr/local/bin")
_MOST_BYTES = 1 << 20
_MOST_PARSED = 20_000
# what the interpreter imports itself
_STARTED = (
    *("encodings", "encodings.aliases", "encodings.utf_8", "sitecustomize", "site", "os", "codecs", "io"),
    *("abc", "stat", "posixpath", "genericpath", "_collections_abc", "_sitebuiltins"),
)


def python_references(tree: FileTree) -> Iterator[Reference]:
    """Give (path, "loads", path), by paths of the system, of Python scripts and of all that they import.

    And (unit, "starts", path) of what a unit's command names beside the script that it starts.

    A module is the file that is read of it: the compiled one in ``__pycache__`` if there is one. What is
    imported only when a function is called is left out. The name of a module, or of something in one, in
    quotes counts, and so does the entry point that a script of setuptools looks up.

    Parameters
    ----------
    tree : FileTree
        The files of a system. Only what a script leads to is parsed, and nothing is ever run.

    Yields
    ------
    tuple of str
        Source, kind and target. A file that is no valid Python says nothing.
    """
    sources = _Sources(tree)
    pending: deque[tuple[_Environment, PythonModule, str | None]] = deque()
    for path in (f"{folder}/{name}" for folder in _PROGRAMS for name in tree.names_in(folder)):
        if _PROGRAM.fullmatch(path) and tree.resolve(path) == path:
            environment = sources.environment(path, None)
            for module in environment.started():
                yield path, "loads", module.read
                pending.append((environment, module, None))
    for path, _, first in first_bytes(tree):
        if first.startswith(b"#!") and (found := sources.environment_of(first)):
            folder = path.rpartition("/")[0] or "/"
            script = PythonModule(path, path, folder, is_script=True)
            if found.finder.is_own(script):  # many modules can be run, too: they are parsed when imported
                pending.append((found, script, folder))
    for command in unit_commands(tree):
        for started in sources.started_by(command):
            yield command.unit, "starts", started[1].read
            pending.append(started)
    seen = set(pending)
    while pending:
        environment, module, own = pending.popleft()
        for target in environment.imported(module, own):
            yield module.read, "loads", target.read
            following = environment, target, own if environment.finder.is_own(target) else None
            if following not in seen:
                seen.add(following)
                pending.append(following)


class _Sources:
    """What Python files of a system say, each parsed once, and the environments that scripts ask for."""

    def __init__(self, tree: FileTree) -> None:
        self.tree = tree
        self._parsed = 0
        self.environment = functools.cache(functools.partial(_Environment, self))
        self.imports = functools.cache(self._imports)

    def environment_of(self, first: bytes) -> _Environment | None:
        """Return the environment of a script by its first bytes; None if it is not one of Python 3."""
        name = (interpreter_names(first) or [""])[-1]
        program = self.tree.program(name) if "python" in name else None
        if program is None or not _PROGRAM.fullmatch(program):
            return None
        top = name.rpartition("/bin/")[0]
        is_venv = bool(top) and self.tree.resolve(f"{top}/pyvenv.cfg") is not None
        return self.environment(program, top if is_venv else None)

    def started_by(self, command: UnitCommand) -> Iterator[tuple[_Environment, PythonModule, str | None]]:
        """Give the modules that words of a command name, if its program is Python: ``-m a.b``, ``a.b:name``.

        And a file of Python's. Modules are looked for where the command is started, or in ``--chdir``.
        """
        program = self.tree.program(command.words[0])
        environment = self._of_program(command.words[0], program) if program else None
        if environment is None:
            return
        chosen = re.search(r"--chdir[= ](\S+)", " ".join(command.words))
        folder = self.tree.resolve(chosen[1] if chosen else command.folder) or "/"
        search = (folder, *environment.finder.roots)
        for before, word in itertools.pairwise(command.words):
            path = self.tree.resolve(word, folder) if word.endswith(".py") else None
            name = word if before == "-m" else (re.match(r"([A-Za-z_][\w.]*):\w+$", word) or ["", ""])[1]
            found = [PythonModule(path, path, path.rpartition("/")[0], is_script=True)] if path else []
            # what ``-m`` runs of a package; of a module there is no such thing
            for asked in (name, f"{name}.__main__") if before == "-m" else (name,) if name else ():
                found += environment.finder.resolve(Import("import", 0, asked), search)
            for module in dict.fromkeys(found):
                yield environment, module, module.folder if environment.finder.is_own(module) else None

    def _of_program(self, name: str, program: str) -> _Environment | None:
        if _PROGRAM.fullmatch(program):
            return self.environment_of(b"#!" + name.encode())
        first = self.tree.read_range(self.tree.files[program], 0, 512)
        return self.environment_of(first) if first.startswith(b"#!") else None

    def _imports(self, path: str, version: tuple[int, int], is_script: bool) -> tuple[Import, ...]:
        file = self.tree.files[path]
        if file.size > _MOST_BYTES or self._parsed >= _MOST_PARSED:
            return ()
        self._parsed += 1
        return read_imports(self.tree.read_range(file, 0, file.size), version, is_script)


class _Environment:
    """An interpreter, with what its modules import."""

    def __init__(self, sources: _Sources, program: str, venv: str | None) -> None:
        self._imports = sources.imports
        self.finder = ModuleFinder(sources.tree, program, venv)

    def started(self) -> list[PythonModule]:
        """Return what is read as the interpreter starts, before it runs anything."""
        asked = [Import("import", 0, name) for name in _STARTED]
        return self._read(
            [module for each in asked for module in self.finder.resolve(each, self.finder.roots)]
        )

    def imported(self, module: PythonModule, own: str | None) -> list[PythonModule]:
        """Return what is read as a module is imported, or a script of the folder ``own`` started."""
        return self._read(self._direct(module, own))

    def _read(self, modules: list[PythonModule]) -> list[PythonModule]:
        """Return modules, but instead of the frozen ones, of which nothing is read, what these import."""
        found = dict.fromkeys(modules)
        pending = list(found)
        while pending:
            module = pending.pop()
            if self.finder.is_frozen(module):
                new = [each for each in self._direct(module, None) if each not in found]
                found |= dict.fromkeys(new)
                pending += new
        return [module for module in found if not self.finder.is_frozen(module)]

    def _direct(self, module: PythonModule, own: str | None) -> list[PythonModule]:
        if module.source is None:
            return []
        search = self.finder.roots if own is None else (own, *self.finder.roots)
        found: list[PythonModule] = []
        for each in self._imports(module.source, self.finder.version, module.is_script):
            folder = module.folder
            for _ in range(each.level - 1):
                folder = folder.rpartition("/")[0]
            found += self.finder.resolve(each, (folder,) if each.level else search)
        return found
