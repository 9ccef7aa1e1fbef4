"""What systemd's units pull in and start, and what scripts of System V do, by the files of a disk."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from vmrestorekit.backup.file_tree import FileTree, Reference

__all__ = ["UnitCommand", "Units", "unit_commands", "unit_references"]

_OWN = "/etc/systemd/system"
# the first that has a unit of a name wins; what lies in /run comes with the boot
_FOLDERS = (_OWN, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_PULLED_IN = (".wants", ".requires")
_DEPENDENCIES = frozenset({"Wants", "Requires", "BindsTo", "Upholds"})
# what all say is kept: a disk that is not trusted may have one large file under any number of names
_MOST_BYTES = 1 << 20
_MOST_BYTES_OF_ALL = 16 << 20
_PREFIXES = "@-:+!|"  # of a command: how it is started
_UNIT = re.compile(r".+\.(service|socket|target|device|mount|automount|swap|path|timer|slice|scope)")
_SETTING = re.compile(r"\s*([A-Za-z]+)\s*=\s*(.*)")


class UnitCommand(NamedTuple):
    """A command that a unit starts."""

    unit: str  # its path
    words: list[str]  # program first
    folder: str  # in which it is started


def unit_commands(units: Units) -> Iterator[UnitCommand]:
    """Give what the units of a system start."""
    for path, settings in units.contents:
        for command in settings.commands():
            if words := _words(command):
                yield UnitCommand(path, words, settings.folder or "/")


def unit_references(tree: FileTree, units: Units) -> Iterator[Reference]:
    """Give (path, "enables" or "starts", path), by paths of the system, of units and of /etc/rc?.d."""
    yield from units.enabled()
    for path, settings in units.contents:
        for name in settings.depends:
            if target := units.find(name):
                yield path, "enables", target
        for command in settings.commands():
            if (words := _words(command)) and (program := tree.program(words[0])):
                yield path, "starts", program
    for folder in tree.names_in("/etc"):
        if re.fullmatch(r"rc[0-9S]\.d", folder):
            for name in tree.names_in(f"/etc/{folder}"):
                script = tree.resolve(f"/etc/{folder}/{name}")
                if name.startswith("S") and script:
                    yield f"/etc/{folder}/{name}", "starts", script


class Units:
    """The units of a system, found by name as systemd finds them; each is read once."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        resolved = (tree.resolve(folder) for folder in _FOLDERS)
        self._folders = list(dict.fromkeys(folder for folder in resolved if folder))
        self._places: dict[str, str] = {}
        for folder in self._folders:
            for name in tree.names_in(folder):
                if _UNIT.fullmatch(name):
                    self._places.setdefault(name, f"{folder}/{name}")

    def find(self, name: str) -> str | None:
        """Return the file of a unit; None if there is none, or it is masked."""
        known = self._known(name)
        return self._unit_file(self._places[known]) if known else None

    def _known(self, name: str) -> str | None:
        """Return the name under which there is a file: an instance has that of its template, mostly."""
        template = re.sub(r"@.+(\.[a-z]+)$", r"@\1", name)
        return next((each for each in (name, template) if each in self._places), None)

    def _unit_file(self, path: str) -> str | None:
        """Return the regular file of a path: a link to /dev/null and an empty file mask a unit."""
        resolved = self._tree.resolve(path)
        file = self._tree.files.get(resolved) if resolved else None
        return resolved if file and file.kind == "regular" and file.size else None

    def enabled(self) -> Iterator[Reference]:
        """Give what the default target is, and what folders of links pull in."""
        if default := self.find("default.target"):
            yield f"{_OWN}/default.target", "enables", default
        for folder in self._folders:
            for name in self._tree.names_in(folder):
                owner, kind = name.rpartition(".")[::2]
                if f".{kind}" not in _PULLED_IN:
                    continue
                source = self.find(owner) or f"{_OWN}/{owner}"
                for unit in self._tree.names_in(f"{folder}/{name}"):
                    # the name counts; where the link leads only if no unit has that name
                    found = (
                        self.find(unit) if self._known(unit) else self._unit_file(f"{folder}/{name}/{unit}")
                    )
                    if found:
                        yield source, "enables", found

    @functools.cached_property
    def contents(self) -> list[tuple[str, _Settings]]:
        """Each unit's file and what it and its drop-ins say."""
        left = _MOST_BYTES_OF_ALL
        found = []
        additions: dict[str, dict[str, str]] = defaultdict(dict)
        for folder in self._folders:
            for name in self._tree.names_in(folder):
                if name.endswith(".d") and (unit := self.find(name.removesuffix(".d"))):
                    for addition in self._tree.names_in(f"{folder}/{name}"):
                        if addition.endswith(".conf"):  # of several of a name the first one counts
                            additions[unit].setdefault(addition, f"{folder}/{name}/{addition}")
        for path in sorted({unit for name in self._places if (unit := self.find(name))}):
            settings = _Settings()
            later = [place for _, place in sorted(additions[path].items())]  # by name, of whatever folder
            for place in (path, *later):
                resolved = self._tree.resolve(place)
                file = self._tree.files.get(resolved) if resolved else None
                if file and file.size <= min(left, _MOST_BYTES):
                    left -= file.size
                    settings.read(self._tree.lines(place))
            found.append((path, settings))
        return found


@dataclasses.dataclass
class _Settings:
    """What a unit and its drop-ins say: units it depends on, commands by their kind, where they start."""

    depends: list[str] = dataclasses.field(default_factory=list)
    by_kind: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    folder: str = ""

    def commands(self) -> list[str]:
        return [command for each in self.by_kind.values() for command in each]

    def read(self, lines: list[str]) -> None:
        """Add what a unit or a drop-in says; an empty command takes back those of its kind before it."""
        text = "\n".join(line for line in lines if not line.lstrip().startswith(("#", ";")))
        for line in text.replace("\\\n", " ").split("\n"):
            match = _SETTING.fullmatch(line)
            if not match:
                continue
            key, value = match.groups()
            if key in _DEPENDENCIES:
                self.depends += value.split()
            elif key == "WorkingDirectory":
                self.folder = value.strip().lstrip("-")
            elif key.startswith("Exec") and not value.strip():
                self.by_kind[key] = []
            elif key.startswith("Exec"):
                self.by_kind.setdefault(key, []).append(value)


def _words(command: str) -> list[str]:
    """Return the words of a command, the program first; only the program may be in quotes."""
    text = command.strip().lstrip(_PREFIXES)
    quote = text[:1] if text[:1] in ("'", '"') else None
    if quote is None:
        return text.split()
    program, _, rest = text[1:].partition(quote)
    return [program, *rest.split()]
