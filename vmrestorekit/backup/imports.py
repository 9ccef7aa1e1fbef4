"""What Python scripts import when they start: modules found where Python looks for them."""

from __future__ import annotations

import functools
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator

from vmrestorekit.backup.file_tree import FileTree, Reference
from vmrestorekit.backup.loads import Program
from vmrestorekit.backup.python_modules import Budget, ModuleFinder, ModuleFolders, PythonModule
from vmrestorekit.backup.python_source import Import, read_imports
from vmrestorekit.backup.units import UnitCommand

__all__ = ["python_references"]

_PROGRAM = re.compile(r"(.*)/bin/python3\.(\d{1,3})")
_PROGRAMS = ("/usr/bin", "/usr/local/bin")
_MOST_ENVIRONMENTS = 64  # in each of them all modules are looked for anew
# what the interpreter imports itself
_STARTED = (
    *("encodings", "encodings.aliases", "encodings.utf_8", "sitecustomize", "site", "os", "codecs", "io"),
    *("abc", "stat", "posixpath", "genericpath", "_collections_abc", "_sitebuiltins"),
)

_Started = tuple["_Environment", PythonModule, str | None]  # and the folder in which a script looks first


def python_references(
    tree: FileTree, programs: Iterable[Program], commands: Iterable[UnitCommand]
) -> Iterator[Reference]:
    """Give (path, "loads", path), by paths of the system, of Python scripts and of all that they import.

    And (unit, "starts", path) of what a unit's command names beside the script that it starts.

    A module is the file that is read of it: the compiled one in ``__pycache__`` if there is one. What is
    imported only when a function is called is left out. The name of a module, or of something in one, in
    quotes counts, and so does the entry point that a script of setuptools looks up.

    Parameters
    ----------
    tree : FileTree
        The files of a system. Only what a script leads to is parsed, and nothing is ever run. The system
        is not trusted: what is read and looked up is limited, and what is beyond that is left out.
    programs : iterable of Program
        Its scripts, as of `find_programs`.
    commands : iterable of UnitCommand
        What its units start, as of `unit_commands`.

    Yields
    ------
    tuple of str
        Source, kind and target. A file that is no valid Python says nothing.
    """
    scripts = {program.path: program.interpreters for program in programs if program.interpreters}
    sources = _Sources(tree, scripts)
    pending: deque[_Started] = deque()
    for path in (f"{folder}/{name}" for folder in _PROGRAMS for name in tree.names_in(folder)):
        is_program = _PROGRAM.fullmatch(path) and tree.resolve(path) == path
        if is_program and (environment := sources.environment(path, None)):
            for module in environment.started():
                yield path, "loads", module.read
                pending.append((environment, module, None))
    # what the machine starts by itself comes before all other scripts, should there be too many
    for command in commands:
        for started in sources.started_by(command):
            yield command.unit, "starts", started[1].read
            pending.append(started)
    for path, interpreters in scripts.items():
        if found := sources.environment_of(interpreters):
            script = _script(path)
            if found.finder.is_own(script):  # many modules can be run, too: they are parsed when imported
                pending.append((found, script, script.folder))
    pending = deque(dict.fromkeys(pending))  # several units may start the same
    seen = set(pending)
    while pending and not sources.budget.is_spent:
        environment, module, own = pending.popleft()
        for target in environment.imported(module, own):
            if not sources.budget.take(1):
                return
            yield module.read, "loads", target.read
            following = environment, target, own if environment.finder.is_own(target) else None
            if following not in seen:
                seen.add(following)
                pending.append(following)


class _Sources:
    """What Python files of a system say, each parsed once, and the environments that scripts ask for."""

    def __init__(self, tree: FileTree, scripts: dict[str, list[str]]) -> None:
        self.tree = tree
        self.budget = Budget(tree)
        self._scripts = scripts
        self._folders = ModuleFolders(tree)
        self._environments: dict[tuple[str, str | None], _Environment] = {}
        self._parsed = functools.cache(self._parse)

    def environment(self, program: str, venv: str | None) -> _Environment | None:
        """Return an environment; None if there are too many others."""
        if (program, venv) not in self._environments and len(self._environments) < _MOST_ENVIRONMENTS:
            finder = ModuleFinder(self._folders, self.budget, program, venv)
            self._environments[program, venv] = _Environment(self, finder)
        return self._environments.get((program, venv))

    def environment_of(self, interpreters: list[str]) -> _Environment | None:
        """Return the environment of a script by its first line; None if it is not one of Python 3."""
        name = (interpreters or [""])[-1]
        program = self.tree.program(name) if "python" in name else None
        if program is None or not _PROGRAM.fullmatch(program):
            return None
        top = name.rpartition("/bin/")[0]
        is_venv = bool(top) and self.tree.resolve(f"{top}/pyvenv.cfg") is not None
        return self.environment(program, self.tree.resolve(top) if is_venv else None)

    def started_by(self, command: UnitCommand) -> Iterator[_Started]:
        """Give the modules that words of a command name, if its program is Python: ``-m a.b``, ``a.b:name``.

        And a file of Python's. Modules are looked for where the command is started, or in ``--chdir``.
        """
        program = self.tree.program(command.words[0])
        environment = self._of_program(command.words[0], program) if program else None
        if environment is None or not self.budget.take(len(command.words)):
            return
        chosen = re.search(r"--chdir[= ](\S+)", " ".join(command.words))
        folder = self.tree.resolve(command.folder) or "/"
        folder = (self.tree.resolve(chosen[1], folder) or "/") if chosen else folder
        search = (folder, *environment.finder.roots)
        for before, word in itertools.pairwise(command.words):
            path = self._file(word, folder) if word.endswith(".py") else None
            name = word if before == "-m" else (re.match(r"([A-Za-z_][\w.]*):\w+$", word) or ["", ""])[1]
            found = [_script(path)] if path else []
            # what ``-m`` runs of a package; of a module there is no such thing
            for asked in (name, f"{name}.__main__") if before == "-m" else (name,) if name else ():
                found += environment.finder.resolve(Import("import", 0, asked), search)
            for module in dict.fromkeys(found):
                yield environment, module, module.folder if environment.finder.is_own(module) else None

    def _file(self, path: str, folder: str) -> str | None:
        resolved = self.tree.resolve(path, folder)
        file = self.tree.files.get(resolved) if resolved else None
        return resolved if file and file.kind == "regular" else None

    def _of_program(self, name: str, program: str) -> _Environment | None:
        if _PROGRAM.fullmatch(program):
            return self.environment_of([name] if name.startswith("/") else [])
        return self.environment_of(self._scripts.get(self.tree.name(program), []))

    def imports(self, path: str, version: tuple[int, int], is_script: bool) -> tuple[Import, ...]:
        """Return what a file imports; one with several names is parsed once."""
        return self._parsed(self.tree.name(path), version, is_script)

    def _parse(self, name: str, version: tuple[int, int], is_script: bool) -> tuple[Import, ...]:
        return read_imports(self.budget.read(name), version, is_script)


def _script(path: str) -> PythonModule:
    return PythonModule(path, path, path.rpartition("/")[0] or "/", is_script=True)


class _Environment:
    """An interpreter, with what its modules import."""

    def __init__(self, sources: _Sources, finder: ModuleFinder) -> None:
        self._imports = sources.imports
        self.finder = finder

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
            # not step by step: there may be a million dots
            folder = module.folder.rsplit("/", max(0, each.level - 1))[0]
            found += self.finder.resolve(each, (folder,) if each.level else search)
        return found
