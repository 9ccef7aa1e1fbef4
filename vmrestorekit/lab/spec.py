"""A guest described in a small TOML file: what to install, how large the disk, what to put in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

__all__ = ["GuestSpec", "SpecError"]

_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}


class SpecError(ValueError):
    """A guest description that cannot be used; the message says what was expected, what came, and where."""


@dataclasses.dataclass(frozen=True)
class GuestSpec:
    """A guest to build.

    Attributes
    ----------
    name : str
        Name of the virtual machine: lower-case letters, digits and hyphens.
    release : str
        Debian release, such as ``"bookworm"``.
    size_bytes : int
        Size of the disk (written ``size = "3 GiB"``), a whole number of MiB.
    roles : tuple of str
        What the machine is for, such as ``("web",)``; for evaluation, nothing is installed because of it.
    packages : tuple of str
        Debian packages on top of the base system.
    services : tuple of str
        systemd units to enable.
    setup : tuple of str
        Shell commands run in order by root inside the guest's root directory, with ``set -e``.
    first_use : str
        A shell command the guest runs once a boot, one second after it has announced the end of its boot: a
        first client that comes. Empty = none.
    """

    name: str
    release: str
    size_bytes: int
    roles: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    first_use: str = ""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GuestSpec:
        """Read a description from a TOML file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        SpecError
            If it is no TOML, has a key that is not known, lacks one, or has a value of the wrong kind.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"expected a guest description at {path}, found no file")
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpecError(f"{path}: expected a guest description in TOML: {error}") from error
        return cls.from_table(table, source=str(path))

    @classmethod
    def from_table(cls, table: dict[str, Any], source: str = "guest description") -> GuestSpec:
        """Check a table of plain values, as read from TOML; see `load`."""
        keys = [field.name.removesuffix("_bytes") for field in dataclasses.fields(cls)]
        for key in table:
            if key not in keys:
                raise SpecError(f"{source}: expected only the keys {', '.join(keys)}, got {key!r}")
        for key in ("name", "release", "size"):
            if key not in table:
                raise SpecError(f"{source}: expected a value for {key!r}, got none")
        for key, pattern in (("name", r"[a-z0-9][a-z0-9-]{0,62}"), ("release", r"[a-z]+")):
            if not isinstance(table[key], str) or not re.fullmatch(pattern, table[key]):
                raise SpecError(f"{source}: expected {key!r} to match {pattern}, got {table[key]!r}")
        if not isinstance(table.get("first_use", ""), str):
            raise SpecError(f"{source}: expected 'first_use' to be a string, got {table['first_use']!r}")
        lists = {key: _strings(table, key, source) for key in ("roles", "packages", "services", "setup")}
        return cls(
            name=table["name"],
            release=table["release"],
            size_bytes=_size(table["size"], source),
            first_use=table.get("first_use", ""),
            **lists,
        )

    def digest(self) -> str:
        """Return eight hex digits that change with anything in the description."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()[:8]


def _strings(table: dict[str, Any], key: str, source: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SpecError(f"{source}: expected {key!r} to be a list of strings, got {value!r}")
    return tuple(value)


def _size(value: object, source: str) -> int:
    match = re.fullmatch(r"(\d+) ?(MiB|GiB)", value) if isinstance(value, str) else None
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 64 << 20 <= size <= 1 << 40:
        raise SpecError(f"{source}: expected 'size' such as '3 GiB', from 64 MiB to 1024 GiB, got {value!r}")
    return size
