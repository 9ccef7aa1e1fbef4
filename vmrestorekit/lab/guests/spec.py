"""A guest described in a small TOML file: what to install, where it lies on the disks, what happens to it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

__all__ = ["Change", "GuestSpec", "SpecError", "Volume"]

FILE_SYSTEMS = ("ext4", "xfs", "btrfs", "swap")
KERNELS = ("cloud", "full")
# what may come before a recorded boot
HISTORY = ("build", "shutdown", "again", "crash", "change")
_USUAL_HISTORY = ("build", "shutdown", "shutdown", "crash")
_OF_A_CLONE = ("name", "base", "roles", "changes", "history")  # all else is in the image it is copied from
_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}


class SpecError(ValueError):
    """A guest description that cannot be used; the message says what was expected, what came, and where."""


@dataclasses.dataclass(frozen=True)
class Volume:
    """A file system, or swap space, of a guest.

    Attributes
    ----------
    mount : str
        Where it is mounted, such as ``"/"`` or ``"/srv"``; ``"swap"`` for swap space.
    file_system : str
        One of ``ext4``, ``xfs``, ``btrfs``, ``swap``.
    size_bytes : int
        0 = the rest of its disk or volume group, for one volume of each.
    disk : int
        Number of the disk.
    group : str
        Name of the LVM volume group it is a logical volume of; empty = a partition, or the whole disk if it
        is the only volume of a disk other than the first.
    """

    mount: str
    file_system: str = "ext4"
    size_bytes: int = 0
    disk: int = 0
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done to a running guest between two recorded boots.

    Attributes
    ----------
    suite : str
        An archive suite such as ``"bullseye-security"`` from which packages come; empty = none.
    packages : tuple of str
        To be upgraded or installed from it; ``("*",)`` = everything that can be upgraded.
    script : tuple of str
        Shell commands run by root in the guest, with ``set -e``, after the packages.
    """

    suite: str = ""
    packages: tuple[str, ...] = ()
    script: tuple[str, ...] = ()


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
        Size of the first disk (written ``size = "3 GiB"``), a whole number of MiB.
    data_disks_bytes : tuple of int
        Sizes of further disks (written ``data_disks = ["1 GiB"]``).
    volumes : tuple of Volume
        What lies on the disks (tables ``[[volumes]]``); without any, one ext4 file system on the first.
    kernel : str
        ``"cloud"``, the small one for virtual machines, or ``"full"``.
    graphics : bool
        Whether it has a graphics adapter, and boots until its display manager is up.
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
    exercise : str
        Likewise, but over and over for a minute.
    base : str
        Name of the guest whose image this one is a clone of: the description beside this one, from which
        everything comes but the name, the changes, the history and perhaps the roles. Its ``lineage``.
    changes : tuple of Change
        Tables ``[[changes]]``, in the order in which the history comes to them.
    history : tuple of str
        What comes before each recorded boot: ``build`` (nothing: the image as built), ``shutdown`` (of the
        boot before), ``crash`` (it loses power), ``change`` (it shuts down, the next change is made), or
        ``again``: the boot before is recorded a second time, from the same disks.
    """

    name: str
    release: str
    size_bytes: int
    data_disks_bytes: tuple[int, ...] = ()
    volumes: tuple[Volume, ...] = (Volume("/"),)
    kernel: str = "cloud"
    graphics: bool = False
    roles: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    first_use: str = ""
    exercise: str = ""
    base: str = ""
    changes: tuple[Change, ...] = ()
    history: tuple[str, ...] = _USUAL_HISTORY

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GuestSpec:
        """Read a description from a TOML file, and the one it is based on from beside it.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        SpecError
            If it is no TOML, has a key that is not known, lacks one, or has a value of the wrong kind.
        """
        path = Path(path)
        table = _read(path)
        if isinstance(table.get("base"), str) and table["base"]:
            for key in table:
                if key not in _OF_A_CLONE:
                    known = ", ".join(_OF_A_CLONE)
                    raise SpecError(f"{path}: expected of a clone only the keys {known}, got {key!r}")
            golden = _read(path.with_name(table["base"] + ".toml"))
            if golden.get("base"):
                raise SpecError(f"{path}: expected a base that is no clone itself, got {table['base']!r}")
            golden.pop("history", None)
            golden.pop("changes", None)
            table = golden | table
        return cls.from_table(table, source=str(path))

    @classmethod
    def from_table(cls, table: dict[str, Any], source: str = "guest description") -> GuestSpec:
        """Check a table of plain values, as read from TOML; see `load`."""
        _expect_keys(cls, table, ("name", "release", "size"), source)
        for key, pattern in (("name", r"[a-z0-9][a-z0-9-]{0,62}"), ("release", r"[a-z]+")):
            if not isinstance(table[key], str) or not re.fullmatch(pattern, table[key]):
                raise SpecError(f"{source}: expected {key!r} to match {pattern}, got {table[key]!r}")
        texts = {key: _text(table, key, source) for key in ("first_use", "exercise", "base")}
        lists = {key: _strings(table, key, source) for key in ("roles", "packages", "services", "setup")}
        if not isinstance(table.get("graphics", False), bool):
            raise SpecError(f"{source}: expected 'graphics' to be true or false, got {table['graphics']!r}")
        data_disks = [_size(size, "data_disks", source) for size in _list(table, "data_disks", source)]
        volumes = [_volume(each, source) for each in _list(table, "volumes", source)]
        spec = cls(
            name=table["name"],
            release=table["release"],
            size_bytes=_size(table["size"], "size", source),
            data_disks_bytes=tuple(data_disks),
            volumes=tuple(volumes) or (Volume("/"),),
            kernel=_one_of(table.get("kernel", "cloud"), KERNELS, "kernel", source),
            graphics=table.get("graphics", False),
            changes=tuple(_change(each, source) for each in _list(table, "changes", source)),
            history=tuple(
                _one_of(each, HISTORY, "history", source)
                for each in _list(table, "history", source) or _USUAL_HISTORY
            ),
            first_use=texts["first_use"],
            exercise=texts["exercise"],
            base=texts["base"],
            roles=lists["roles"],
            packages=lists["packages"],
            services=lists["services"],
            setup=lists["setup"],
        )
        _expect_volumes(spec, source)
        _expect_history(spec, source)
        return spec

    @property
    def disk_bytes(self) -> tuple[int, ...]:
        """Size of each disk."""
        return (self.size_bytes, *self.data_disks_bytes)

    @property
    def lineage(self) -> str:
        """Name of the guest it is a clone of, or its own."""
        return self.base or self.name

    def digest(self) -> str:
        """Return eight hex digits that change with anything in the description."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()[:8]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"expected a guest description at {path}, found no file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: expected a guest description in TOML: {error}") from error


def _volume(table: object, source: str) -> Volume:
    fields = _subtable(Volume, table, ("mount",), "volumes", source)
    mount = fields["mount"]
    if not isinstance(mount, str) or not re.fullmatch(r"/|swap|(/[a-z0-9._-]+)+", mount):
        raise SpecError(f"{source}: expected 'mount' to be swap or an absolute path, got {mount!r}")
    group = fields.get("group", "")
    if not isinstance(group, str) or not re.fullmatch(r"[a-z0-9_]*", group):
        raise SpecError(f"{source}: expected 'group' to match [a-z0-9_]*, got {group!r}")
    disk = fields.get("disk", 0)
    if not isinstance(disk, int) or isinstance(disk, bool):
        raise SpecError(f"{source}: expected 'disk' to be a number, got {disk!r}")
    usual = "swap" if mount == "swap" else "ext4"
    kind = _one_of(fields.get("file_system", usual), FILE_SYSTEMS, "file_system", source)
    if (kind == "swap") != (mount == "swap"):
        raise SpecError(f"{source}: expected swap space to be mounted as 'swap', got {kind} at {mount!r}")
    size = _size(fields["size"], "size", source) if "size" in fields else 0
    return Volume(mount, kind, size, disk, group)


def _change(table: object, source: str) -> Change:
    fields = _subtable(Change, table, (), "changes", source)
    packages = _strings(fields, "packages", source)
    suite = _text(fields, "suite", source)
    if bool(packages) != bool(suite):
        raise SpecError(f"{source}: expected a change to have both 'suite' and 'packages', or neither")
    return Change(suite, packages, _strings(fields, "script", source))


def _expect_volumes(spec: GuestSpec, source: str) -> None:
    mounts = [volume.mount for volume in spec.volumes]
    if mounts.count("/") != 1 or len(set(mounts)) != len(mounts):
        raise SpecError(f"{source}: expected volumes for '/' and other places, each once, got {mounts}")
    boot = next(volume for volume in spec.volumes if volume.mount == ("/boot" if "/boot" in mounts else "/"))
    if (boot.file_system, boot.group, boot.disk) != ("ext4", "", 0):
        raise SpecError(
            f"{source}: expected '/boot', or '/' without it, to be ext4 in a partition of disk 0, got {boot}"
        )
    for volume in spec.volumes:
        if not 0 <= volume.disk < len(spec.disk_bytes):
            raise SpecError(f"{source}: expected 'disk' below {len(spec.disk_bytes)}, got {volume.disk}")
    for disk, size in enumerate(spec.disk_bytes):
        # that two volumes take the rest is seen when they are placed
        wanted = sum(volume.size_bytes for volume in spec.volumes if volume.disk == disk)
        if wanted >= size:
            raise SpecError(
                f"{source}: expected volumes smaller than disk {disk} of {size} bytes, got {wanted}"
            )


def _expect_history(spec: GuestSpec, source: str) -> None:
    first = spec.history[0]
    if first not in ("build", "change") or "build" in spec.history[1:]:
        raise SpecError(
            f"{source}: expected a history that starts with 'build' or 'change' and has no other 'build', "
            f"got {list(spec.history)}"
        )
    if spec.history.count("change") != len(spec.changes):
        raise SpecError(
            f"{source}: expected as many changes as the history has, {spec.history.count('change')}, "
            f"got {len(spec.changes)}"
        )


def _subtable(kind: type, table: object, needed: tuple[str, ...], key: str, source: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SpecError(f"{source}: expected {key!r} to be tables, got {table!r}")
    _expect_keys(kind, table, needed, f"{source}: {key}")
    return table


def _expect_keys(kind: type, table: dict[str, Any], needed: tuple[str, ...], source: str) -> None:
    keys = [field.name.removesuffix("_bytes") for field in dataclasses.fields(kind)]
    for key in table:
        if key not in keys:
            raise SpecError(f"{source}: expected only the keys {', '.join(keys)}, got {key!r}")
    for key in needed:
        if key not in table:
            raise SpecError(f"{source}: expected a value for {key!r}, got none")


def _list(table: dict[str, Any], key: str, source: str) -> list[Any]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise SpecError(f"{source}: expected {key!r} to be a list, got {value!r}")
    return value


def _strings(table: dict[str, Any], key: str, source: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SpecError(f"{source}: expected {key!r} to be a list of strings, got {value!r}")
    return tuple(value)


def _text(table: dict[str, Any], key: str, source: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise SpecError(f"{source}: expected {key!r} to be a string, got {value!r}")
    return value


def _one_of(value: object, known: tuple[str, ...], key: str, source: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise SpecError(f"{source}: expected {key!r} to be one of {', '.join(known)}, got {value!r}")
    return value


def _size(value: object, key: str, source: str) -> int:
    match = re.fullmatch(r"(\d+) ?(MiB|GiB)", value) if isinstance(value, str) else None
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 64 << 20 <= size <= 1 << 40:
        raise SpecError(f"{source}: expected {key!r} such as '3 GiB', from 64 MiB to 1024 GiB, got {value!r}")
    return size
