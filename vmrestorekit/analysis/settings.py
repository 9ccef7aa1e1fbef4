"""The settings of a restore by name, such as ``plan.launch.head_start_ns``: what an analysis can vary."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import polars as pl

from vmrestorekit.analysis.units import number_of
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import Hardware

__all__ = ["SETTINGS", "SettingError", "known_setting", "with_settings"]

# what a plan says of one machine only, and what describes hardware in words
_NOT_VARIED = {
    "plan": ("disk_bytes", "first_set", "relocation_sequence", "block_bytes"),
    "hardware": ("name", "source"),
}
Part = TypeVar("Part")
_TYPES = {bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64(), str: pl.String()}


class SettingError(ValueError):
    """A setting that there is not, or a value that it cannot have."""


def _settings(owner: type, prefix: str, left_out: tuple[str, ...]) -> Iterator[tuple[str, pl.DataType]]:
    hints = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        if field.name in left_out:
            continue
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):  # int | None
            kind = next(each for each in typing.get_args(kind) if each is not type(None))
        if dataclasses.is_dataclass(kind):
            yield from _settings(typing.cast(type, kind), f"{prefix}.{field.name}", ())
        else:
            yield f"{prefix}.{field.name}", _TYPES[kind]


# name -> type of its column in a table
SETTINGS: Mapping[str, pl.DataType] = {
    **dict(_settings(RestorePlan, "plan", _NOT_VARIED["plan"])),
    **dict(_settings(Hardware, "hardware", _NOT_VARIED["hardware"])),
}


def known_setting(name: str, value: object) -> Any:
    """Return a setting's value as a number, if it was written with a unit.

    Raises
    ------
    SettingError
        If there is no such setting (the nearest names are said), or the value is of another type.
    """
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, n=3, cutoff=0.5) or sorted(SETTINGS)
        raise SettingError(f"{name}: expected a setting such as {', '.join(near[:5])}; there is no such one")
    try:
        value = number_of(name, value)
    except ValueError as error:
        raise SettingError(str(error)) from None
    wanted = SETTINGS[name]
    fits = {
        pl.Boolean(): isinstance(value, bool),
        pl.Int64(): isinstance(value, int) and not isinstance(value, bool),
        pl.Float64(): isinstance(value, int | float) and not isinstance(value, bool),
        pl.String(): isinstance(value, str),
    }[wanted]
    if value is not None and not fits:
        what = {pl.Boolean(): "true or false", pl.Int64(): "a whole number", pl.Float64(): "a number"}
        raise SettingError(f"{name}: expected {what.get(wanted, 'a text')}, got {value!r}")
    return value


def with_settings(
    plan: RestorePlan, hardware: Hardware, settings: Mapping[str, Any]
) -> tuple[RestorePlan, Hardware]:
    """Return a plan and hardware with some settings changed; `known_setting` has seen them.

    The mode comes first: what it cannot have is left out of the plan, not of the settings.

    Raises
    ------
    ValueError
        If plan or hardware cannot be so.
    """
    mode = settings.get("plan.mode", plan.mode)
    changed = _changed(plan.with_mode(mode), _of("plan", settings))
    return changed, _changed(hardware, _of("hardware", settings))


def _of(room: str, settings: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    paths = {tuple(name.split(".")): value for name, value in settings.items()}
    return {path[1:]: value for path, value in paths.items() if path[0] == room}


def _changed(part: Part, changes: Mapping[tuple[str, ...], Any]) -> Part:
    """Return a dataclass with values deep in it changed, all at once: one alone might not be possible."""
    here = {path[0]: value for path, value in changes.items() if len(path) == 1}
    for name in sorted({path[0] for path in changes if len(path) > 1}):
        inner = {path[1:]: value for path, value in changes.items() if path[0] == name and len(path) > 1}
        here[name] = _changed(getattr(part, name), inner)
    return dataclasses.replace(part, **here) if here else part  # type: ignore[type-var]
