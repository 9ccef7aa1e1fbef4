"""A sweep written down as TOML, for `vmrestorekit sweep`."""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmrestorekit.analysis.rows import SweepError
from vmrestorekit.analysis.settings import SETTINGS, SettingError, known_setting
from vmrestorekit.analysis.space import Between
from vmrestorekit.plan import DEFAULT_BLOCK_BYTES
from vmrestorekit.traces.corpus import Boot, Corpus

__all__ = ["SweepFile", "boots_named", "read_sweep_file"]

ALL, LAST = "*", "last"


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """What a file says; the names are its keys.

    Attributes
    ----------
    boots : tuple of str
        ``"bookworm-db/boot-2"``, ``"bookworm-db"`` (all its boots), ``"bookworm-db/last"``, or with ``*`` for
        every machine.
    plans : tuple of str
        Names of predictors, such as ``"learned"`` or ``"last_boot"``, ``"none"``, or saved models
        (``*.npz``).
    hardware : tuple of str
        Names of presets.
    block_bytes : tuple of int
    copies : tuple of str
    settings : mapping of str to sequence or Between
        In the file a table ``[settings]``; a range for a sample is written ``{ low = 1, high = 10, log =
        true }``.
    sample : int, optional
    seed : int
    """

    boots: tuple[str, ...]
    plans: tuple[str, ...] = ("none",)
    hardware: tuple[str, ...] = ("object_storage",)
    block_bytes: tuple[int, ...] = (DEFAULT_BLOCK_BYTES,)
    copies: tuple[str, ...] = ("full",)
    settings: Mapping[str, Sequence[Any] | Between] = dataclasses.field(default_factory=dict)
    sample: int | None = None
    seed: int = 0


_KEYS = [field.name for field in dataclasses.fields(SweepFile)]


def read_sweep_file(path: str | os.PathLike[str]) -> SweepFile:
    """Read a sweep.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SweepError
        If it is no TOML, or a key or value makes no sense; the message names file and key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a description of a sweep at {path}, found no such file")
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        return _from_fields(fields)
    except (ValueError, TypeError) as error:  # TOML, text and our own errors
        raise SweepError(f"{path}: {error}") from error


def _from_fields(fields: dict[str, Any]) -> SweepFile:
    for key in fields:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, [*_KEYS, *SETTINGS], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SweepError(f"expected the keys {', '.join(_KEYS)}, got {key!r}{hint}")
    if "boots" not in fields:
        raise SweepError('expected boots, such as boots = ["bookworm-db/last"], found none')
    for key in ("boots", "plans", "hardware", "copies", "block_bytes"):
        if key in fields:
            fields[key] = _list_of(key, fields[key], int if key == "block_bytes" else str)
    for key in ("sample", "seed"):
        if key in fields and (isinstance(fields[key], bool) or not isinstance(fields[key], int)):
            raise SweepError(f"{key}: expected a whole number, got {fields[key]!r}")
    settings = fields.get("settings", {})
    if not isinstance(settings, dict):
        raise SweepError(f"settings: expected a table, got {settings!r}")
    fields["settings"] = {name: _axis(name, value) for name, value in _flat(settings).items()}
    return SweepFile(**fields)


def _list_of(key: str, values: Any, kind: type) -> tuple[Any, ...]:
    listed = values if isinstance(values, list) else [values]
    if key == "block_bytes":
        listed = [known_setting("plan.cache_bytes", value) for value in listed]  # "64 KiB"
    what = "whole numbers or sizes" if kind is int else "texts"
    if not listed or not all(isinstance(value, kind) for value in listed):
        raise SweepError(f"{key}: expected a list of {what}, got {values!r}")
    return tuple(listed)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by whole name, whether written with dots, in quotes, or as tables in tables."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in SETTINGS:
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _axis(name: str, value: Any) -> Sequence[Any] | Between:
    if isinstance(value, dict):
        if not {"low", "high"} <= set(value) <= {"low", "high", "log"}:
            raise SettingError(f"{name}: expected a range {{ low = …, high = …, log = true }}, got {value!r}")
        low, high = (known_setting(name, value[end]) for end in ("low", "high"))
        try:
            return Between(low, high, bool(value.get("log", False)))
        except SettingError as error:
            raise SettingError(f"{name}: {error}") from error
    listed = value if isinstance(value, list) else [value]
    return [known_setting(name, each) for each in listed]


def boots_named(names: Sequence[str], corpus: Corpus) -> list[Boot]:
    """Return the boots of a corpus that names stand for, each once, in the order of the names.

    Raises
    ------
    ValueError
        If there is no such machine or boot.
    """
    found: dict[Boot, None] = {}
    for name in names:
        vm, _, boot = name.partition("/")
        for machine in corpus.values() if vm == ALL else [corpus[vm]]:
            if not boot:
                found |= dict.fromkeys(machine.boots)
            else:
                found[machine.boots[-1] if boot == LAST else machine.boot(boot)] = None
    return list(found)
