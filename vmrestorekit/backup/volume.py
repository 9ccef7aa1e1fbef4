"""A part of a disk, or several of them put together, as a disk of its own: what a file system lies on."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterator, Sequence

from vmrestorekit.backup.images import DiskImage
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["DamagedError", "StructureReader", "UnreadableError", "Volume"]

_PIECE_BYTES = 1 << 16
_PIECES_KEPT = 256
_BYTES_BESIDES = 16 << 20


class UnreadableError(ManifestError):
    """A file system that cannot be read at all."""


class DamagedError(UnreadableError):
    """A structure that does not hold together; of a file or a folder, the others can be read all the same."""


class Volume(DiskImage):
    """A partition, or a logical volume.

    Parameters
    ----------
    disk : DiskImage
    pieces : sequence of (int, int)
        First byte on the disk and number of bytes, in the order of the volume; cut off at the disk's end.
    name : str
        For messages.
    """

    def __init__(self, disk: DiskImage, pieces: Sequence[tuple[int, int]], name: str = "") -> None:
        self.disk, self.name = disk, name or disk.name
        within = [(start, max(min(length, disk.size - start), 0)) for start, length in pieces]
        ends = list(itertools.accumulate(length for _, length in within))
        self.size = ends[-1] if ends else 0
        self._ends, self._disk_starts = ends, [start for start, _ in within]
        self._starts = [end - length for end, (_, length) in zip(ends, within, strict=True)]

    def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        """Return ``length`` bytes from ``offset`` on, fewer at the end of the volume."""
        places = list(self.places(offset, length))
        if len(places) == 1:
            return self.disk.read(*places[0])
        return b"".join(self.disk.read(*place) for place in places)

    def places(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Give where bytes of the volume lie: first byte on the disk and number of bytes, piece by piece."""
        end = min(offset + length, self.size)
        piece = bisect.bisect_right(self._ends, offset)
        while offset < end:
            stop = min(end, self._ends[piece])
            if stop > offset:
                yield self._disk_starts[piece] + offset - self._starts[piece], stop - offset
            offset, piece = stop, piece + 1

    def on_disk(self, extents: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """Return extents (first byte, number of bytes, first byte within the file) as places of the disk."""
        found = []
        for offset, length, position in extents:
            for start, count in self.places(offset, length):
                found.append((start, count, position))
                position += count
        return found


class StructureReader:
    """Reads structures of a file system, and no more than a volume can hold of them.

    Whoever follows references of a damaged volume may be sent to the same place again and again; nothing
    that is in order makes anyone read more than ``times`` its size.

    Parameters
    ----------
    volume : DiskImage
    times : int
    """

    def __init__(self, volume: DiskImage, times: int = 2) -> None:
        self.volume = volume
        self._left = times * volume.size + _BYTES_BESIDES
        self._piece = functools.lru_cache(_PIECES_KEPT)(self._read_piece)

    def __call__(self, offset: int, length: int) -> bytes:
        """Return exactly so many bytes.

        Raises
        ------
        DamagedError
            If they lie outside the volume.
        UnreadableError
            If too much was read already.
        """
        if offset < 0 or length < 0 or offset + length > self.volume.size:
            raise DamagedError(
                f"{self.volume.name}: expected a structure within {self.volume.size} bytes, "
                f"got one of {length} bytes at {offset}"
            )
        self._left -= length
        if self._left < 0:
            raise UnreadableError(
                f"{self.volume.name}: expected structures that end, "
                "they lead to the same places over and over"
            )
        piece, within = divmod(offset, _PIECE_BYTES)
        if within + length <= _PIECE_BYTES:
            return self._piece(piece)[within : within + length]
        return bytes(self.volume.read(offset, length))

    def _read_piece(self, number: int) -> bytes:
        return bytes(self.volume.read(number * _PIECE_BYTES, _PIECE_BYTES))
