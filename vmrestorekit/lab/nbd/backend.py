"""What an NBD server serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Backend"]


class Backend(Protocol):
    """A disk to serve. The server has checked every range: it lies on the disk and is not empty.

    An OSError is passed on to the client as its errno. A disk that is shared between connections must be
    consistent after each ``await``.
    """

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""

    @property
    def tells_holes(self) -> bool:
        """Whether clients may ask for `extents`, or have to read to find out."""

    async def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes."""

    async def write(self, offset: int, data: bytes) -> None:
        """Store ``data``; later reads, through any connection, return it."""

    async def zero(self, offset: int, length: int, *, discard: bool) -> None:
        """Make a range read as zeros; ``discard`` says the client no longer needs the space."""

    async def flush(self) -> None:
        """Make what was written so far as durable as this backend ever makes it."""

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, bool]]:
        """Return ``(length, zero)`` pairs from ``offset`` on; where in doubt, not zero.

        They cover the range, or at least its beginning: clients ask again.
        """
