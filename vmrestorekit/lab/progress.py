"""Tell a person how a long job is going: lines that stay, and one line that changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.status import Status

__all__ = ["Report", "live_report"]


class Report:
    """Prints the lines that stay; without a terminal there is no line that changes."""

    def __init__(self, console: Console | None = None, status: Status | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._status = status

    def say(self, message: str) -> None:
        """Print a line that stays."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def now(self, message: str) -> None:
        """Show what is going on at this moment."""
        if self._status is not None:
            self._status.update(message)


@contextlib.contextmanager
def live_report() -> Iterator[Report]:
    """Report on stderr, with a spinner beside the changing line where that is a terminal."""
    console = Console(stderr=True)
    with console.status("") as status:
        yield Report(console, status)
