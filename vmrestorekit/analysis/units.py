"""Sizes, times and rates as people write them: ``"64 MiB"``, ``"4 s"``, ``"25 MB/s"``."""

from __future__ import annotations

import re

__all__ = ["number_of"]

_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_RATES = {f"{unit}/s": factor for unit, factor in _SIZES.items()}

# how a name ends -> units, and an example
_KINDS: tuple[tuple[str, dict[str, int], str], ...] = (
    ("_bytes", _SIZES, "64 MiB"),
    ("_ns", _TIMES, "4 s"),
    ("_ns_per_gib", {}, ""),
    ("bandwidth", _RATES, "25 MB/s"),
)


def number_of(name: str, value: object) -> object:
    """Return the value of a setting, a size, time or rate as a whole number of bytes, nanoseconds, bytes/s.

    Values that are no text, and settings that are none of these, stay as they are.

    Raises
    ------
    ValueError
        If a text is no number with a unit of the setting.
    """
    units, example = _units_of(name)
    if not isinstance(value, str) or not units:
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z/]+)\s*", value)
    if not match or match[2] not in units:
        raise ValueError(
            f"{name}: expected a number with a unit ({', '.join(units)}) such as {example!r}, got {value!r}"
        )
    return round(float(match[1]) * units[match[2]])


def _units_of(name: str) -> tuple[dict[str, int], str]:
    fitting = [(len(end), units, example) for end, units, example in _KINDS if name.endswith(end)]
    if not fitting:
        return {}, ""
    _, units, example = max(fitting, key=lambda each: each[0])
    return units, example
