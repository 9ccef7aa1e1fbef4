"""How long work tells how far it is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Is called with the bytes done so far, and of how many; may raise KeyboardInterrupt to stop the work."""

    def __call__(self, done: int, total: int, /) -> None:
        """Take note."""
        ...


def silent(done: int, total: int, /) -> None:
    """Take no note."""
