"""What the picker of a first set is given: one clear sentence for what it cannot work with."""

from __future__ import annotations

from vmrestorekit.traces.boots import Boot

__all__ = ["PickError", "expect_boots", "expect_whole"]


class PickError(ValueError):
    """Something that cannot be picked; the message says what was expected and what came."""


def expect_boots(boot: object, last_boot: object) -> None:
    """Complain unless both are recorded boots of one machine that say when they were done.

    Raises
    ------
    PickError
    """
    for name, given in (("boot", boot), ("last_boot", last_boot)):
        if not isinstance(given, Boot) or "boot_done_ns" not in given.metadata.marks:
            raise PickError(f"{name}: expected a recorded Boot with a mark 'boot_done_ns', got {given!r:.80}")
    assert isinstance(boot, Boot)
    assert isinstance(last_boot, Boot)
    if boot.vm != last_boot.vm:
        raise PickError(f"last_boot: expected a boot of {boot.vm}, got one of {last_boot.vm}")


def expect_whole(name: str, value: object, least: int, most: int) -> None:
    """Complain unless a value is a whole number within bounds.

    Raises
    ------
    PickError
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise PickError(f"{name}: expected a whole number from {least} to {most}, got {value!r}")
