"""Numbers as a person reads them."""

from __future__ import annotations

__all__ = ["blocks", "clock", "duration", "share", "size"]


def size(count: float) -> str:
    """Return bytes in the unit that keeps at least one digit before the point, such as ``'24 KiB'``."""
    number = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return _short(number, unit)
        number /= 1024
    return _short(number, "TiB")


def duration(nanoseconds: float) -> str:
    """Return a length of time, such as ``'34.2 ms'`` or ``'3 min 20 s'``."""
    if abs(nanoseconds) < 1_000:
        return f"{nanoseconds:.0f} ns"
    if abs(nanoseconds) < 1_000_000:
        return _short(nanoseconds / 1e3, "µs")
    if abs(nanoseconds) < 1_000_000_000:
        return _short(nanoseconds / 1e6, "ms")
    seconds = nanoseconds / 1e9
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def clock(nanoseconds: int) -> str:
    """Return an instant of a timeline in seconds, to the millisecond."""
    return f"{nanoseconds / 1e9:,.3f} s"


def share(part: float, whole: float) -> str:
    """Return a percentage; nothing of nothing is 0 %."""
    return f"{100 * part / whole if whole else 0:.0f} %"


def blocks(first: int, count: int) -> str:
    """Return a range of blocks in words, such as ``'blocks 1,204 to 1,207'``."""
    if count <= 1:
        return f"block {first:,}"
    return f"blocks {first:,} to {first + count - 1:,}"


def _short(number: float, unit: str) -> str:
    text = f"{number:.1f}" if abs(number) < 100 and number != int(number) else f"{number:.0f}"
    return f"{text} {unit}"
