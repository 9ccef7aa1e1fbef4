"""Reading disk images: raw, QCOW2 and VMDK behind one interface that tells data from holes."""

from __future__ import annotations

import abc
import errno
import os
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = [
    "SECTOR_BYTES",
    "DiskImage",
    "ImageError",
    "RawImage",
    "image_format",
    "open_image",
    "read_exactly",
]

SECTOR_BYTES = 512
_FORMATS = {
    b"QFI\xfb": "qcow2",
    b"KDMV": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"vhdx": "vhdx",
    b"conectix": "vhd",
}


class ImageError(ValueError):
    """An image that cannot be read; the message says what was expected, what came, and where."""


class DiskImage(abc.ABC):
    """A disk to read from, by several threads at once; a context manager.

    Attributes
    ----------
    name : str
        Where it comes from, for messages.
    size : int
        Bytes of the disk.
    """

    name: str
    size: int

    @abc.abstractmethod
    def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        """Return ``length`` bytes from ``offset`` on, fewer at the end of the disk."""

    def extents(self) -> Iterator[tuple[int, int]]:
        """Give the ranges (first byte, end) that may hold data, ascending; all between them is zeros."""
        yield 0, self.size

    def close(self) -> None:  # noqa: B027 - an image in memory has nothing to let go of
        """Let go of the file."""

    def __enter__(self) -> DiskImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_image(path: str | os.PathLike[str]) -> DiskImage:
    """Open a disk image by its contents: raw, QCOW2 (versions 2 and 3) or VMDK.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImageError
        If it is no disk image, of another format, needs a second image (a backing file, a parent), or the
        library for its format is not installed.
    """
    path = Path(path)
    name = image_format(path)
    if name == "qcow2":
        return _Qcow2Image(path)
    if name == "vmdk":
        return _VmdkImage(path)
    if name != "raw":
        raise ImageError(
            f"{path}: expected a raw, QCOW2 or VMDK image, got {name.upper()}; "
            "convert it with qemu-img convert -O raw"
        )
    return RawImage(path)


def image_format(path: Path) -> str:
    """Return the format of an image by its first bytes; ``"raw"`` if they are those of no other.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImageError
        If it is neither a file nor a block device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"expected a disk image at {path}, found no such file") from None
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise ImageError(
            f"{path}: expected a disk image, got {'a directory' if path.is_dir() else 'no file'}"
        )
    with open(path, "rb") as image:
        magic = image.read(32)
    return next((name for start, name in _FORMATS.items() if magic.startswith(start)), "raw")


class RawImage(DiskImage):
    """A raw image or a block device; holes of a sparse file are not read where the system can tell them."""

    def __init__(self, path: Path) -> None:
        self.name = os.fspath(path)
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - open as long as the image is
        self.size = self._file.seek(0, os.SEEK_END)
        if self.size == 0 or self.size % SECTOR_BYTES:
            self._file.close()
            raise ImageError(
                f"{path}: expected a raw disk image of whole sectors of {SECTOR_BYTES} bytes, "
                f"got {self.size} bytes"
            )

    def read(self, offset: int, length: int) -> bytes:
        """As `DiskImage.read`."""
        length = max(0, min(length, self.size - offset))
        return read_exactly(self._file.fileno(), offset, length, self.name)

    def extents(self) -> Iterator[tuple[int, int]]:
        """As `DiskImage.extents`."""
        if not hasattr(os, "SEEK_DATA"):
            yield 0, self.size
            return
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self._file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # it cannot tell; else nothing but a hole is left
                    yield end, self.size
                return
            end = min(os.lseek(self._file.fileno(), start, os.SEEK_HOLE), self.size)
            yield start, end

    def close(self) -> None:
        """As `DiskImage.close`."""
        self._file.close()


def read_exactly(descriptor: int, offset: int, length: int, name: str) -> bytes:
    """Read so many bytes of an open file; `ImageError` if it ends before."""
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            raise ImageError(f"{name}: expected {length} bytes at {offset}, the file ended after {len(data)}")
        data += more
    return data


class _LibraryImage(DiskImage):
    """An image read by one of libyal's libraries, which are not made for several threads at once."""

    _handle: Any

    def __init__(self, path: Path) -> None:
        self.name = os.fspath(path)
        self._path = path
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """As `DiskImage.read`."""
        length = min(length, self.size - offset)
        parts = []
        with self._lock:
            while length > 0:
                try:
                    part = bytes(self._handle.read_buffer_at_offset(length, offset))
                except OSError as error:
                    raise ImageError(f"{self.name}: damaged at byte {offset} of the disk: {error}") from error
                if not part:
                    raise ImageError(
                        f"{self.name}: expected {length} bytes at {offset} of the disk, got none"
                    )
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def close(self) -> None:
        """As `DiskImage.close`."""
        with self._lock:
            self._handle.close()


class _Qcow2Image(_LibraryImage):
    """A QCOW2 image; the fields of its tables are those of QEMU's ``docs/interop/qcow2.rst``."""

    _KNOWN_FEATURES = 0b11  # dirty, corrupt: of the reference counts, which reading does not need
    _OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
    _COMPRESSED = 1 << 62
    _READS_AS_ZEROS = 1

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        header = _read_at(path, 0, 104)
        if len(header) < 72:
            raise ImageError(f"{path}: expected a QCOW2 header, the file ended after {len(header)} bytes")
        self._version, backing, _, self._cluster_bits = struct.unpack_from(">IQII", header, 4)
        self.size, encryption, self._l1_entries, self._l1_offset = struct.unpack_from(">QIIQ", header, 24)
        features = struct.unpack_from(">Q", header, 72)[0] if self._version >= 3 and len(header) >= 80 else 0
        reasons = {
            f"version {self._version}": self._version not in (2, 3),
            "a backing file": backing != 0,
            "encryption": encryption != 0,
            "an external data file, zstd clusters or subclusters": features & ~self._KNOWN_FEATURES != 0,
            "an impossible cluster size": not 9 <= self._cluster_bits <= 21,
        }
        for reason, holds in reasons.items():
            if holds:
                raise ImageError(
                    f"{path}: expected a QCOW2 image that stands alone, got one with {reason}; "
                    "convert it with qemu-img convert -O raw"
                )
        self._handle = _library("pyqcow").file()
        _open(self._handle, path, "QCOW2")

    def extents(self) -> Iterator[tuple[int, int]]:
        """As `DiskImage.extents`, by clusters."""
        cluster = 1 << self._cluster_bits
        per_table = cluster // 8
        l1 = _table(self._path, self._l1_offset, self._l1_entries, ">Q")
        return _merged(self._clusters(l1, cluster, per_table), self.size)

    def _clusters(self, l1: list[int], cluster: int, per_table: int) -> Iterator[tuple[int, int]]:
        for number, entry in enumerate(l1):
            table = entry & self._OFFSET_MASK
            if not table:
                continue
            for position, cell in enumerate(_table(self._path, table, per_table, ">Q")):
                compressed = cell & self._COMPRESSED
                if compressed or (cell & self._OFFSET_MASK and not cell & self._READS_AS_ZEROS):
                    start = (number * per_table + position) * cluster
                    yield start, start + cluster


class _VmdkImage(_LibraryImage):
    """A VMDK image; the fields of its tables are those of VMware's "Virtual Disk Format 1.1"."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._handle = _library("pyvmdk").handle()
        _open(self._handle, path, "VMDK")
        try:
            self._handle.open_extent_data_files()
            if self._handle.parent_filename:
                raise ImageError(
                    f"{path}: expected a VMDK image that stands alone, got one with the parent "
                    f"{self._handle.parent_filename!r}; convert it with qemu-img convert -O raw"
                )
        except OSError as error:
            self._handle.close()
            raise ImageError(f"{path}: cannot read the files that belong to it: {error}") from error
        self.size = self._handle.media_size

    def extents(self) -> Iterator[tuple[int, int]]:
        """As `DiskImage.extents`, by grains; of an image in several files all of it."""
        header = self._header()
        if header is None:
            return iter([(0, self.size)])
        return _merged(self._grains(header), self.size)

    def _header(self) -> bytes | None:
        """Return the sparse header that tells where the grain directory is, or None."""
        header = _read_at(self._path, 0, 512)
        if not header.startswith(b"KDMV") or self._handle.number_of_extents != 1:
            return None
        if struct.unpack_from("<Q", header, 56)[0] == 2**64 - 1:  # written as a stream: it is at the end
            header = _read_at(self._path, self._path.stat().st_size - 1024, 512)
        return header if header.startswith(b"KDMV") else None

    def _grains(self, header: bytes) -> Iterator[tuple[int, int]]:
        capacity, grain = struct.unpack_from("<QQ", header, 12)
        per_table = struct.unpack_from("<I", header, 44)[0]
        directory = struct.unpack_from("<Q", header, 56)[0]
        if not grain or not per_table:
            raise ImageError(f"{self.name}: expected a grain size and a table size above 0, got 0")
        tables = -(-capacity // (grain * per_table))
        for number, table in enumerate(_table(self._path, directory * SECTOR_BYTES, tables, "<I")):
            if not table:
                continue
            for position, cell in enumerate(_table(self._path, table * SECTOR_BYTES, per_table, "<I")):
                if cell > 1:  # 0 is a hole, 1 a grain of zeros
                    start = (number * per_table + position) * grain * SECTOR_BYTES
                    yield start, start + grain * SECTOR_BYTES


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImageError(
            "reading QCOW2 and VMDK images needs libqcow and libvmdk: pip install 'vmrestorekit[images]'"
        ) from error


def _open(handle: Any, path: Path, name: str) -> None:
    try:
        handle.open(os.fspath(path))
    except OSError as error:
        raise ImageError(f"{path}: expected a {name} image, but it cannot be opened: {error}") from error


def _read_at(path: Path, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def _table(path: Path, offset: int, entries: int, form: str) -> list[int]:
    """Return a table of numbers of the image file; `ImageError` if the file ends before."""
    width = struct.calcsize(form)
    if offset + entries * width > path.stat().st_size:
        raise ImageError(
            f"{path}: expected a table of {entries} entries at byte {offset}, the file ends before"
        )
    data = _read_at(path, offset, entries * width)
    return list(struct.unpack(f"{form[0]}{entries}{form[1]}", data))


def _merged(ranges: Iterator[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Join ranges that touch, and cut them at the end of the disk."""
    current: tuple[int, int] | None = None
    for start, end in ranges:
        if current is not None and start == current[1]:
            current = current[0], end
            continue
        if current is not None and current[0] < size:
            yield current[0], min(current[1], size)
        current = start, end
    if current is not None and current[0] < size:
        yield current[0], min(current[1], size)
