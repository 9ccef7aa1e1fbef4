"""Building the manifest of a raw disk image: hashes of its blocks, and the files they belong to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from vmrestorekit.backup.files import FoundFile, find_files
from vmrestorekit.traces.manifest import (
    BLOCKS_SCHEMA,
    FILES_SCHEMA,
    MANIFEST_BLOCK_BYTES,
    PARTITIONS_SCHEMA,
    Manifest,
    ManifestError,
)

__all__ = ["build_manifest", "describe_manifest", "hash_blocks", "raw_image_bytes"]

_READ_BYTES = 8 * 1024 * 1024
_SECTOR_BYTES = 512
_FOREIGN_FORMATS = {b"QFI\xfb": "QCOW2", b"KDMV": "VMDK", b"vhdx": "VHDX", b"conectix": "VHD"}


def build_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a raw disk image and tell what lies where on it.

    Parameters
    ----------
    path : path-like
        A raw image (or a block device); holes of a sparse file are not read.

    Returns
    -------
    Manifest
        `content` is the xxh3_64 of each 4 KiB, 0 for zeros (and 1 should the hash of others be 0). A block
        shared by several files belongs to the one that has the first of its bytes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If it is no disk image, or pytsk3 is not installed.
    """
    path = Path(path)
    disk_bytes = raw_image_bytes(path)
    found = find_files(path, disk_bytes)
    with open(path, "rb", buffering=0) as image:
        content = hash_blocks(image, disk_bytes)
    files = sorted(found.files, key=lambda file: file.path)
    owner, position = _owners(files, len(content))
    blocks = pl.DataFrame(
        {"content": content, "file": owner, "file_block": position}, schema=BLOCKS_SCHEMA
    ).with_columns(
        pl.when(pl.col("file") >= 0).then(pl.col("file")),
        pl.when(pl.col("file") >= 0).then(pl.col("file_block")).alias("file_block"),
    )
    columns = {
        "path": [file.path for file in files],
        "size": [file.size for file in files],
        "kind": [file.kind for file in files],
    }
    try:
        return Manifest(
            disk_bytes,
            blocks,
            pl.DataFrame(columns, schema=FILES_SCHEMA),
            pl.DataFrame(found.partitions, schema=PARTITIONS_SCHEMA),
        )
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from error


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest holds as plain data: counts, partitions, and the kinds of files by size."""
    blocks = manifest.blocks
    kinds = (
        blocks.join(manifest.files.with_row_index("file").cast({"file": pl.Int32}), on="file", how="left")
        .group_by(pl.col("kind").cast(pl.String).fill_null("no file"))
        .agg(
            files=pl.col("file").n_unique() - pl.col("file").has_nulls().cast(pl.UInt32),
            blocks=pl.len(),
            zero_blocks=(pl.col("content") == 0).sum(),
        )
        .sort("blocks", descending=True)
    )
    return {
        "disk_bytes": manifest.disk_bytes,
        "files": manifest.files.height,
        "blocks": blocks.height,
        "zero_blocks": blocks.filter(pl.col("content") == 0).height,
        "distinct_contents": blocks["content"].n_unique(),
        "partitions": manifest.partitions.to_dicts(),
        "kinds": kinds.to_dicts(),
    }


def hash_blocks(image: BinaryIO, disk_bytes: int) -> npt.NDArray[np.uint64]:
    """Return the hash of each 4 KiB block of an open image, 0 for zeros; a last, shorter block is padded."""
    hashes = np.zeros(-(-disk_bytes // MANIFEST_BLOCK_BYTES), np.uint64)
    buffer = np.empty(_READ_BYTES, np.uint8)
    words = buffer.view(np.uint64).reshape(-1, MANIFEST_BLOCK_BYTES // 8)
    view = buffer.data
    intdigest = xxhash.xxh3_64_intdigest
    for first, end in _allocated(image, disk_bytes):
        for offset in range(first, end, _READ_BYTES):
            length = min(_READ_BYTES, end - offset)
            _read_exactly(image, offset, view[:length])
            blocks = -(-length // MANIFEST_BLOCK_BYTES)
            buffer[length : blocks * MANIFEST_BLOCK_BYTES] = 0
            for block in np.flatnonzero(words[:blocks].any(axis=1)).tolist():
                start = block * MANIFEST_BLOCK_BYTES
                digest = intdigest(view[start : start + MANIFEST_BLOCK_BYTES])
                hashes[offset // MANIFEST_BLOCK_BYTES + block] = digest or 1
    return hashes


def _read_exactly(image: BinaryIO, offset: int, view: memoryview) -> None:
    image.seek(offset)
    done = 0
    while done < len(view):
        count = image.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise ManifestError(
                f"{image.name}: expected {len(view)} bytes at {offset}, the file ended after {done}"
            )
        done += count


def _allocated(image: BinaryIO, disk_bytes: int) -> Iterator[tuple[int, int]]:
    """Give the ranges that are not holes, in whole blocks, where the system can tell."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, disk_bytes
        return
    end = 0
    while end < disk_bytes:
        try:
            data = os.lseek(image.fileno(), end, os.SEEK_DATA)
            hole = os.lseek(image.fileno(), data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != 6:  # ENXIO: nothing but a hole is left; else it cannot tell
                yield end, disk_bytes
            return
        start = max(end, data // MANIFEST_BLOCK_BYTES * MANIFEST_BLOCK_BYTES)
        end = min(-(-hole // MANIFEST_BLOCK_BYTES) * MANIFEST_BLOCK_BYTES, disk_bytes)
        yield start, end


def _owners(files: list[FoundFile], blocks: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return file and position in it for each block, -1 for none."""
    extents = np.array(
        [(number, *extent) for number, file in enumerate(files) for extent in file.extents], np.int64
    ).reshape(-1, 4)
    file, start, length, position = extents.T
    first = start // MANIFEST_BLOCK_BYTES
    count = -(-(start + length) // MANIFEST_BLOCK_BYTES) - first
    block = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    file, start, position = (np.repeat(column, count) for column in (file, start, position))
    first_byte = np.maximum(start, block * MANIFEST_BLOCK_BYTES)
    order = np.lexsort((file, first_byte, block))
    order = order[block[order] < blocks]
    owned, chosen = np.unique(block[order], return_index=True)
    chosen = order[chosen]
    owner, owner_position = np.full(blocks, -1, np.int32), np.full(blocks, -1, np.int32)
    owner[owned] = file[chosen]
    owner_position[owned] = (position + first_byte - start)[chosen] // MANIFEST_BLOCK_BYTES
    return owner, owner_position


def raw_image_bytes(path: Path) -> int:
    """Return the size of a raw disk image.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If it is a directory, an image of another format, or no whole number of sectors.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"expected a disk image at {path}, found no such file") from None
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise ManifestError(
            f"{path}: expected a disk image, got {'a directory' if path.is_dir() else 'no file'}"
        )
    with open(path, "rb") as image:
        magic = image.read(8)
        size = image.seek(0, os.SEEK_END)
    for start, name in _FOREIGN_FORMATS.items():
        if magic.startswith(start):
            raise ManifestError(
                f"{path}: expected a raw disk image, got {name}; convert it with qemu-img convert -O raw"
            )
    if size == 0 or size % _SECTOR_BYTES:
        raise ManifestError(
            f"{path}: expected a raw disk image of whole sectors of {_SECTOR_BYTES} bytes, got {size} bytes"
        )
    return size
