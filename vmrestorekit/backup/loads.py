"""What programs load when they start: shared libraries, dynamic linkers, interpreters of scripts."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vmrestorekit.backup.elf import ELF_MAGIC, ElfNeeds, read_elf
from vmrestorekit.backup.file_tree import FileTree, Reference
from vmrestorekit.backup.files import FoundFile

__all__ = ["Program", "find_programs", "interpreter_names", "load_references"]

_KERNEL_MODULE = re.compile(r".*\.ko(\.xz|\.zst|\.gz)?")
_CONFIGURATION = "/etc/ld.so.conf"
_MOST_INCLUDES = 100
_FIRST_BYTES = 512


class Program(NamedTuple):
    """A file that something has to be loaded for: a script or an ELF file."""

    path: str
    interpreters: list[str]  # that the first line of a script names
    needs: ElfNeeds | None  # of an ELF file


def load_references(tree: FileTree, programs: Iterable[Program]) -> Iterator[Reference]:
    """Give (path, "loads", path), by paths of the system, of what `find_programs` has found."""
    needs: dict[str, tuple[str, ElfNeeds]] = {}
    for path, interpreters, found in programs:
        for program in filter(None, map(tree.program, interpreters)):
            yield path, "loads", program
        if found:
            needs[tree.name(path)] = path, found
    libraries = _Libraries(tree, needs)
    for path, found in needs.values():
        targets = [tree.resolve(found.interpreter)] if found.interpreter.startswith("/") else []
        targets += [libraries.find(path, found, name) for name in found.needed]
        for target in targets:
            if target is not None:
                yield path, "loads", target


def find_programs(tree: FileTree) -> list[Program]:
    """Return scripts, and ELF files but kernel modules, each once, in one walk over all files."""
    return [program for found in _first_bytes(tree) if (program := _program(tree, *found))]


def _first_bytes(tree: FileTree) -> Iterator[tuple[str, FoundFile, bytes]]:
    """Give the first bytes of each regular file that is not empty, and no kernel module; once per file."""
    # in the order of the disk: a backup copy is decompressed piece by piece
    files = {id(file): (path, file) for path, file in sorted(tree.files.items(), reverse=True)}
    for path, file in sorted(files.values(), key=lambda pair: pair[1].extents[:1]):
        has_contents = file.extents or file.inline
        if file.kind == "regular" and has_contents and not _KERNEL_MODULE.fullmatch(path):
            yield path, file, tree.read_range(file, 0, _FIRST_BYTES)


def _program(tree: FileTree, path: str, file: FoundFile, first: bytes) -> Program | None:
    if first.startswith(b"#!"):
        return Program(path, interpreter_names(first), None)
    needs = _read_elf(tree, file, first) if first.startswith(ELF_MAGIC) else None
    return Program(path, [], needs) if needs else None


def _read_elf(tree: FileTree, file: FoundFile, first: bytes) -> ElfNeeds | None:
    def read(offset: int, length: int) -> bytes:
        inside = offset + length <= len(first)
        return first[offset : offset + length] if inside else tree.read_range(file, offset, length)

    return read_elf(read)


def interpreter_names(first: bytes) -> list[str]:
    """Return the program that a script's first line names; of ``env`` also the one that it looks for."""
    words = first[2:].split(b"\n")[0].decode("utf-8", "backslashreplace").split()
    names = words[:1]
    if not names or not names[0].startswith("/"):
        return []
    if names[0].endswith("/env"):
        names += [word for word in words[1:] if not word.startswith("-") and "=" not in word][:1]
    return names


class _Libraries:
    """Finds libraries as the dynamic linker does: RUNPATH or RPATH, then the system's folders.

    Unlike it, without LD_LIBRARY_PATH, without an RPATH of what loads the file that asks, and without the
    variants for newer processors (``glibc-hwcaps``): they depend on the boot.
    """

    def __init__(self, tree: FileTree, needs: dict[str, tuple[str, ElfNeeds]]) -> None:
        self._tree = tree
        # one name of a file with hard links is enough
        self._machines = {name: found.machine for name, (_, found) in needs.items()}
        self._system = _system_folders(tree)
        self._find_in_system = functools.cache(self._look_in_system)

    def find(self, path: str, asks: ElfNeeds, name: str) -> str | None:
        """Return the file of a library that the file at a path needs."""
        origin = path.rpartition("/")[0] or "/"

        def expand(text: str) -> str:
            return text.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", origin)

        if "/" in name:
            return self._fitting(expand(name), asks.machine)
        own = (f"{expand(folder)}/{name}" for folder in asks.search)
        found = (self._fitting(place, asks.machine) for place in own)
        return next(filter(None, found), None) or self._find_in_system(name, asks.machine)

    def _look_in_system(self, name: str, machine: tuple[int, int, int]) -> str | None:
        found = (self._fitting(f"{folder}/{name}", machine) for folder in self._system)
        return next(filter(None, found), None)

    def _fitting(self, place: str, machine: tuple[int, int, int]) -> str | None:
        """Return the file of a path if it is a library for this machine: the linker passes over others."""
        resolved = self._tree.resolve(place)
        fits = resolved is not None and self._machines.get(self._tree.name(resolved)) == machine
        return resolved if fits else None


def _system_folders(tree: FileTree) -> list[str]:
    """Return the folders of /etc/ld.so.conf, then those of Debian's architectures, then the old ones."""
    folders = _configured_folders(tree)
    for top in ("/lib", "/usr/lib"):
        names = tree.names_in(tree.resolve(top) or top)
        folders += [f"{top}/{name}" for name in names if "-linux-gnu" in name]
    folders += ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib32", "/usr/lib32"]
    return list(dict.fromkeys(resolved for folder in folders if (resolved := tree.resolve(folder))))


def _configured_folders(tree: FileTree) -> list[str]:
    pending, folders, files = [_CONFIGURATION], [], 0
    while pending and files < _MOST_INCLUDES:  # files may include each other in circles
        files += 1
        included: list[str] = []
        for line in tree.lines(pending.pop(0)):
            words = line.split("#")[0].split()
            if len(words) == 2 and words[0] == "include":
                included += _matching(tree, words[1])
            elif words and words[0].startswith("/"):
                folders.append(words[0])
        pending = included + pending
    return folders


def _matching(tree: FileTree, pattern: str) -> list[str]:
    """Return the files that fit a pattern with ``*`` in its last part only."""
    folder, _, name = pattern.rpartition("/")
    folder = folder if folder.startswith("/") else f"/etc/{folder}".rstrip("/")
    fits = re.compile(".*".join(map(re.escape, name.split("*"))))
    resolved = tree.resolve(folder) or folder
    return [f"{resolved}/{each}" for each in tree.names_in(resolved) if fits.fullmatch(each)]
