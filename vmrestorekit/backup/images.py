"""Reading disk images: raw, QCOW2 and VMDK behind one interface that tells data from holes."""

from __future__ import annotations

import abc
import errno
import functools
import os
import stat
import struct
import threading
import zlib
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
# what a file holds at an offset (from its end where negative), and the format that this tells
_FORMATS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"COWD", "cowd"),
    (0, b"vhdx", "vhdx"),
    (0, b"conectix", "vhd"),
    (-512, b"conectix", "vhd"),  # of a fixed size: nothing in front tells it
    (0, b"QED\0", "qed"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)


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
    """Return the format of an image by what its file holds; ``"raw"`` if that tells no other.

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
        size = image.seek(0, os.SEEK_END)
        for offset, magic, name in _FORMATS:
            at = offset if offset >= 0 else size + offset
            image.seek(max(at, 0))
            if at >= 0 and image.read(len(magic)) == magic:
                return name
    return "raw"


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
        return _data_ranges(Path(self.name), self.size)

    def close(self) -> None:
        """As `DiskImage.close`."""
        self._file.close()


def _data_ranges(path: Path, size: int) -> Iterator[tuple[int, int]]:
    """Give the ranges of a file that are no holes, as far as the system can tell them."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    with open(path, "rb", buffering=0) as file:
        if file.seek(0, os.SEEK_END) < size:
            raise ImageError(f"{path}: expected {size} bytes, the file ended after {file.tell()}")
        end = 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # it cannot tell; else nothing but a hole is left
                    yield end, size
                return
            end = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), size)
            if start < end:
                yield start, end


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

        self._cluster = 1 << self._cluster_bits
        try:
            self._l1 = _table(path, self._l1_offset, self._l1_entries, ">Q")
            needed = -(-self.size // (self._cluster * (self._cluster // 8)))
            if self.size == 0 or self.size % SECTOR_BYTES or len(self._l1) < needed:
                raise ImageError(
                    f"{path}: expected a QCOW2 image of whole sectors with a table of {needed} entries, "
                    f"got {self.size} bytes and {len(self._l1)} entries"
                )
        except ImageError:
            self._handle.close()
            raise
        self._cells = functools.lru_cache(maxsize=16)(self._read_cells)

    def read(self, offset: int, length: int) -> bytes:
        """As `DiskImage.read`; compressed clusters are read here.

        libqcow takes the lowest bit of their address, in version 3, for the mark of a cluster of zeros.
        """
        end = min(offset + length, self.size)
        parts = []
        while offset < end:
            # as far as the clusters are of one sort
            compressed = self._compressed(offset)
            stop = min(end, (offset // self._cluster + 1) * self._cluster)
            while not compressed and stop < end and not self._compressed(stop):
                stop = min(end, stop + self._cluster)
            if compressed:
                within = offset % self._cluster
                parts.append(self._inflated(compressed, offset)[within : within + stop - offset])
            else:
                parts.append(super().read(offset, stop - offset))
            offset = stop
        return b"".join(parts)

    def extents(self) -> Iterator[tuple[int, int]]:
        """As `DiskImage.extents`, by clusters."""
        return _merged(self._clusters(), self.size)

    def _clusters(self) -> Iterator[tuple[int, int]]:
        per_table = self._cluster // 8
        for number, entry in enumerate(self._l1):
            if not entry & self._OFFSET_MASK:
                continue
            for position, cell in enumerate(self._read_cells(number)):
                compressed = cell & self._COMPRESSED
                if compressed or (cell & self._OFFSET_MASK and not cell & self._READS_AS_ZEROS):
                    start = (number * per_table + position) * self._cluster
                    yield start, start + self._cluster

    def _read_cells(self, number: int) -> tuple[int, ...]:
        """Return a table of the second level; empty where there is none."""
        table = self._l1[number] & self._OFFSET_MASK
        return tuple(_table(self._path, table, self._cluster // 8, ">Q")) if table else ()

    def _compressed(self, offset: int) -> int:
        """Return the cell of a byte's cluster if that is compressed, else 0."""
        number, position = divmod(offset // self._cluster, self._cluster // 8)
        cells = self._cells(number)
        return cells[position] if cells and cells[position] & self._COMPRESSED else 0

    def _inflated(self, cell: int, offset: int) -> bytes:
        """Return a compressed cluster; its cell has the address and the number of sectors."""
        address_bits = 62 - (self._cluster_bits - 8)
        address = cell & ((1 << address_bits) - 1)
        sectors = (cell >> address_bits & ((1 << (self._cluster_bits - 8)) - 1)) + 1
        packed = _read_at(self._path, address, sectors * SECTOR_BYTES - address % SECTOR_BYTES)
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, self._cluster)
        except zlib.error as error:
            raise ImageError(f"{self.name}: damaged at byte {offset} of the disk: {error}") from error
        if len(data) != self._cluster:
            raise ImageError(
                f"{self.name}: damaged at byte {offset} of the disk: expected a compressed cluster of "
                f"{self._cluster} bytes, got {len(data)}"
            )
        return data


class _VmdkImage(_LibraryImage):
    """A VMDK image; the fields of its tables are those of VMware's "Virtual Disk Format 1.1"."""

    _FLAT, _SPARSE = 1, 2  # numbers of libvmdk's interface

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._is_alone = _read_at(path, 0, 4) == b"KDMV"
        self._file = open(path, "rb")  # noqa: SIM115 - open as long as the image is
        try:
            self._open()
        except ImageError:
            self._file.close()
            raise

    def _open(self) -> None:
        path = self._path
        self._handle = _library("pyvmdk").handle()
        _open(self._handle, path, "VMDK")
        try:
            if self._is_alone:
                # its description names it as it was called once; there may be another file of that name now
                self._handle.open_extent_data_files_as_file_objects([self._file])
            else:
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

    def close(self) -> None:
        """As `DiskImage.close`."""
        super().close()
        self._file.close()

    def extents(self) -> Iterator[tuple[int, int]]:
        """As `DiskImage.extents`, by grains, or where the file system of a flat file has data.

        Raises
        ------
        ImageError
            If a file ends before what its tables name.
        """
        return _merged(self._data(), self.size)

    def _data(self) -> Iterator[tuple[int, int]]:
        start = 0
        for number in range(self._handle.number_of_extents):
            extent = self._handle.get_extent_descriptor(number)
            path = self._path if self._is_alone else self._path.parent / extent.filename
            if extent.type == self._SPARSE:
                ranges = self._grains(path)
            elif extent.type == self._FLAT and extent.offset == 0:
                ranges = _data_ranges(path, extent.size)
            else:
                ranges = iter([(0, extent.size)])
            for first, end in ranges:
                yield start + first, start + end
            start += extent.size

    def _grains(self, path: Path) -> Iterator[tuple[int, int]]:
        header, file_bytes = _read_at(path, 0, SECTOR_BYTES), path.stat().st_size
        if header.startswith(b"KDMV") and struct.unpack_from("<Q", header, 56)[0] == 2**64 - 1:
            # written as a stream: where the tables are is told at its end
            header = _read_at(path, max(0, file_bytes - 2 * SECTOR_BYTES), SECTOR_BYTES)
        if not header.startswith(b"KDMV") or len(header) < SECTOR_BYTES:
            raise ImageError(f"{path}: expected the header of a sparse VMDK file, found none")
        capacity, grain = struct.unpack_from("<QQ", header, 12)
        per_table = struct.unpack_from("<I", header, 44)[0]
        directory = struct.unpack_from("<Q", header, 56)[0]
        compressed = struct.unpack_from("<H", header, 77)[0] != 0
        if not grain or not per_table:
            raise ImageError(f"{path}: expected a grain size and a table size above 0, got 0")
        tables = -(-capacity // (grain * per_table))
        for number, table in enumerate(_table(path, directory * SECTOR_BYTES, tables, "<I")):
            if not table:
                continue
            for position, cell in enumerate(_table(path, table * SECTOR_BYTES, per_table, "<I")):
                if cell > 1:  # 0 is a hole, 1 a grain of zeros
                    first = (number * per_table + position) * grain
                    stored = min(grain, capacity - first) * SECTOR_BYTES
                    if compressed:
                        marker = _read_at(path, cell * SECTOR_BYTES, 12)
                        stored = 12 + struct.unpack("<QI", marker)[1] if len(marker) == 12 else 12
                    if cell * SECTOR_BYTES + stored > file_bytes:
                        raise ImageError(
                            f"{path}: expected {stored} bytes of the disk at byte {cell * SECTOR_BYTES}, "
                            f"the file ended after {file_bytes}"
                        )
                    yield first * SECTOR_BYTES, (first + grain) * SECTOR_BYTES


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
        if offset >= file.seek(0, os.SEEK_END):
            return b""
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
