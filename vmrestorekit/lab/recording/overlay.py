"""A disk image that is never written, and the writes kept apart from it: the write cache of a recording."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from vmrestorekit.lab.programs import LabError, run

__all__ = ["UNIT_BYTES", "Overlay"]

UNIT_BYTES = 4096
_States = npt.NDArray[np.uint8]
_IN_IMAGE, _WRITTEN, _ZERO = 0, 1, 2  # where the content of a unit is


class Overlay:
    """An NBD backend: reads merge, writes go to a sparse file beside the image, in units of 4 KiB.

    A flush makes writes visible to every connection (they already are); durable is only what `save` wrote. A
    recording that is interrupted is repeated, so nothing more is needed.

    Parameters
    ----------
    image : Path
        A raw disk image, opened read-only; its size need not be a multiple of 4096.
    writes : Path
        The file for the writes. If it and its ``.state`` exist, the disk goes on from there.

    Raises
    ------
    FileNotFoundError
        If there is no image.
    LabError
        If the image is empty, or the stored writes belong to an image of another size.
    """

    read_only = False
    tells_holes = True

    def __init__(self, image: Path, writes: Path) -> None:
        if not image.is_file():
            raise FileNotFoundError(f"expected a disk image at {image}, found no file")
        self.image = image
        self.writes = writes
        self.size = image.stat().st_size
        if self.size == 0:
            raise LabError(f"{image}: expected a disk image, got an empty file")
        units = -(-self.size // UNIT_BYTES)
        self._state_path = writes.with_name(writes.name + ".state")
        goes_on = self._state_path.exists()
        self._state = _load_state(self._state_path, units) if goes_on else np.zeros(units, np.uint8)
        flags = os.O_RDWR | (0 if goes_on else os.O_CREAT | os.O_TRUNC)
        self._image_fd = os.open(image, os.O_RDONLY)
        self._writes_fd = os.open(writes, flags, 0o600)
        os.ftruncate(self._writes_fd, units * UNIT_BYTES)

    async def read(self, offset: int, length: int) -> bytes:
        """Return what the disk holds now."""
        return self._merged(offset, length)

    async def write(self, offset: int, data: bytes) -> None:
        """Keep ``data``; the units it covers in part are filled up from what the disk held."""
        first, end = offset // UNIT_BYTES, -(-(offset + len(data)) // UNIT_BYTES)
        head = self._merged(first * UNIT_BYTES, offset - first * UNIT_BYTES)
        tail_start = offset + len(data)
        tail = self._merged(tail_start, min(end * UNIT_BYTES, self.size) - tail_start)
        _write_all(self._writes_fd, b"".join((head, data, tail)), first * UNIT_BYTES)
        self._state[first:end] = _WRITTEN

    async def zero(self, offset: int, length: int, *, discard: bool) -> None:
        """Make a range read as zeros; whole units take no space in the file."""
        end = offset + length
        first_whole = -(-offset // UNIT_BYTES)
        end_whole = end // UNIT_BYTES if end < self.size else len(self._state)
        if first_whole >= end_whole:
            await self.write(offset, bytes(length))
            return
        if offset < first_whole * UNIT_BYTES:
            await self.write(offset, bytes(first_whole * UNIT_BYTES - offset))
        if end > end_whole * UNIT_BYTES:
            await self.write(end_whole * UNIT_BYTES, bytes(end - end_whole * UNIT_BYTES))
        self._state[first_whole:end_whole] = _ZERO

    async def flush(self) -> None:
        """Do nothing: writes are already visible to all, see the class."""

    async def extents(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """Return where the disk is known to be zero: discarded units and holes of the image."""
        found: list[tuple[int, bool]] = []
        for start, end, state in self._runs(offset, length):
            if state == _IN_IMAGE:
                found += _holes(self._image_fd, start, end)
            else:
                found.append((end - start, state == _ZERO))
        return found

    @property
    def written_bytes(self) -> int:
        """Bytes of the disk that no longer come from the image."""
        return int(np.count_nonzero(self._state)) * UNIT_BYTES

    def save(self) -> None:
        """Make the writes so far durable; another `Overlay` on the same files goes on from here."""
        os.fsync(self._writes_fd)
        partial = self._state_path.with_name(self._state_path.name + ".partial")
        with open(partial, "wb") as stream:
            np.save(stream, self._state)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, self._state_path)

    def apply(self, target: Path) -> None:
        """Write the disk as it is now to ``target``, a sparse raw image, whole or not at all."""
        partial = target.with_name(target.name + ".partial")
        try:
            run(["cp", "--sparse=always", self.image, partial])
            with open(partial, "r+b") as copy:
                for start, end, state in self._runs(0, self.size):
                    if state == _WRITTEN:
                        for at in range(start, end, 1 << 20):
                            _write_all(copy.fileno(), self._merged(at, min(1 << 20, end - at)), at)
                    elif state == _ZERO:
                        _zero_range(copy.fileno(), start, end)
                os.fsync(copy.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; what was not saved is lost."""
        os.close(self._image_fd)
        os.close(self._writes_fd)

    def __enter__(self) -> Overlay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _merged(self, offset: int, length: int) -> bytes:
        parts = []
        for start, end, state in self._runs(offset, length):
            if state == _ZERO:
                parts.append(bytes(end - start))
            else:
                source = self._image_fd if state == _IN_IMAGE else self._writes_fd
                parts.append(_read_all(source, end - start, start))
        return b"".join(parts)

    def _runs(self, offset: int, length: int) -> list[tuple[int, int, int]]:
        """Return ``(start, end, state)`` in bytes for each run of units in one state."""
        if length <= 0:
            return []
        first, end = offset // UNIT_BYTES, -(-(offset + length) // UNIT_BYTES)
        states = self._state[first:end]
        borders = (np.flatnonzero(np.diff(states)) + 1 + first) * UNIT_BYTES
        edges = [offset, *borders.tolist(), offset + length]
        return [(a, b, int(self._state[a // UNIT_BYTES])) for a, b in itertools.pairwise(edges)]


def _load_state(path: Path, units: int) -> _States:
    try:
        state = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise LabError(f"{path}: expected the state of a disk's writes: {error}") from error
    if state.shape != (units,) or state.dtype != np.uint8:
        raise LabError(f"{path}: expected writes to a disk of {units} units of 4 KiB, got {state.shape}")
    return cast("_States", state)


def _read_all(fd: int, length: int, offset: int) -> bytes:
    parts = []
    while length:
        part = os.pread(fd, length, offset)
        if not part:
            raise LabError(
                f"expected {length} more bytes at {offset}, the file ends there: was it truncated?"
            )
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _holes(fd: int, start: int, end: int) -> list[tuple[int, bool]]:
    """Return ``(length, zero)`` pairs from the file system's own knowledge of a sparse file."""
    found = []
    while start < end:
        try:
            data = min(os.lseek(fd, start, os.SEEK_DATA), end)
        except OSError:  # ENXIO: no data from here to the end of the file
            data = end
        if data > start:
            found.append((data - start, True))
        if data < end:
            hole = min(os.lseek(fd, data, os.SEEK_HOLE), end)
            found.append((hole - data, False))
            data = hole
        start = data
    return found


def _zero_range(fd: int, start: int, end: int) -> None:
    for at in range(start, end, 1 << 20):
        _write_all(fd, bytes(min(1 << 20, end - at)), at)
