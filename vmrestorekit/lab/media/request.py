"""One read of a media agent's client, from its parts to its bytes."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import Sequence

from vmrestorekit.lab.media.cache import Part

__all__ = ["Request"]


@dataclasses.dataclass(eq=False, slots=True)
class Request:
    """A read that is under way.

    Attributes
    ----------
    number : int
    reader : int
        Its place in `READERS`.
    block, count : int
        Range of blocks that it touches.
    start : int
        Where it begins in its first block.
    length : int
    issued_ns : int
    outstanding : int
        Parts that have not come.
    last_event : int
        Number of the event that led on so far.
    done : Future, optional
        Whoever waits, waits for it.
    error : OSError, optional
        Why it fails.
    """

    number: int
    reader: int
    block: int
    count: int
    start: int
    length: int
    block_bytes: int
    issued_ns: int
    outstanding: int = 0
    last_event: int = -1
    done: asyncio.Future[None] | None = None
    error: OSError | None = None
    _whole: bytes | None = None
    _pieces: bytearray | None = None

    def wanted(self, address: Sequence[int]) -> list[tuple[int, int]]:
        """Return the blocks that are not holes, and how many bytes of each; `address` is of all blocks."""
        size, end = self.block_bytes, self.start + self.length
        if self.count == 1:
            return [(self.block, self.length)] if address[self.block] >= 0 else []
        return [
            (self.block + at, min(end, (at + 1) * size) - max(self.start, at * size))
            for at in range(self.count)
            if address[self.block + at] >= 0
        ]

    def take(self, part: Part) -> None:
        """Take in a part's content."""
        self.outstanding -= 1
        assert part.content is not None
        if self.count == 1:
            self._whole = part.content[self.start : self.start + self.length]
            return
        if self._pieces is None:
            self._pieces = bytearray(self.length)
        at = (part.block - self.block) * self.block_bytes - self.start
        skip = max(0, -at)
        self._pieces[at + skip : at + skip + part.size] = part.content[skip : skip + part.size]

    def fail(self, error: OSError) -> None:
        """A part will not come."""
        self.outstanding -= 1
        self.error = self.error or error

    def cut_off(self) -> None:
        """No part will come any more."""
        self.outstanding = 0
        self.error = OSError(errno.ESHUTDOWN, "the backup copy is not served any more")
        self.finish()

    def finish(self) -> None:
        """Let whoever waits go on, once everything has come."""
        if self.outstanding == 0 and self.done is not None and not self.done.done():
            self.done.set_result(None)

    def content(self) -> bytes:
        """Return the bytes that were asked for; holes are zeros."""
        if self.error is not None:
            raise self.error
        if self._whole is not None:
            return self._whole
        return bytes(self.length) if self._pieces is None else bytes(self._pieces)
