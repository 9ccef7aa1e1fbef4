"""Building the manifest of a disk: hashes of its blocks, the files they belong to, and what leads to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from vmrestorekit.backup.file_tree import FileTree
from vmrestorekit.backup.files import DiskFiles, FoundFile, find_files
from vmrestorekit.backup.images import DiskImage, open_image
from vmrestorekit.backup.packages import package_owners
from vmrestorekit.backup.references import find_references
from vmrestorekit.traces.manifest import (
    BLOCKS_SCHEMA,
    FILES_SCHEMA,
    MANIFEST_BLOCK_BYTES,
    PARTITIONS_SCHEMA,
    Manifest,
    ManifestError,
)

__all__ = ["build_manifest", "build_manifests", "describe_manifest", "hash_blocks"]

_READ_BYTES = 8 * 1024 * 1024


def build_manifest(disk: str | os.PathLike[str] | DiskImage) -> Manifest:
    """Read a disk image and tell what lies where on it; of a machine with several see `build_manifests`.

    Parameters
    ----------
    disk : path-like or DiskImage
        A raw, QCOW2 or VMDK image, a block device, or a disk of a backup copy; holes are not read.

    Returns
    -------
    Manifest
        `content` is the xxh3_64 of each 4 KiB, 0 for zeros (and 1 should the hash of others be 0). A block
        shared by several files belongs to the one that has the first of its bytes. Packages and references
        are those of the one system that is installed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImageError
        If it is no disk image.
    ManifestError
        If pytsk3 is not installed.
    """
    return build_manifests([disk])[0]


def build_manifests(disks: Sequence[str | os.PathLike[str] | DiskImage]) -> tuple[Manifest, ...]:
    """Read all disks of a machine and tell what lies where on each; errors as of `build_manifest`.

    Paths are those under which the machine's system knows the files, wherever its /etc/fstab mounts what is
    on the disks. A reference belongs to the manifest of the disk on which its source lies.
    """
    with contextlib.ExitStack() as stack:
        images = [
            disk if isinstance(disk, DiskImage) else stack.enter_context(open_image(disk)) for disk in disks
        ]
        found = [find_files(image) for image in images]
        tree = FileTree(list(zip(images, found, strict=True)))
        packages, references = package_owners(tree), find_references(tree)
        disk_of = {tree.name(path): file.disk for path, file in tree.files.items()}
        place = references["source"].replace_strict(disk_of, default=0, return_dtype=pl.Int64)
        return tuple(
            _manifest(image, its_files, tree, packages, references.filter(place == number))
            for number, (image, its_files) in enumerate(zip(images, found, strict=True))
        )


def _manifest(
    disk: DiskImage, found: DiskFiles, tree: FileTree, packages: Mapping[str, str], references: pl.DataFrame
) -> Manifest:
    content = hash_blocks(disk)
    named = sorted(
        ((tree.path_in_manifest(file), file) for file in found.files if file.extents),
        key=lambda pair: pair[0],
    )
    owner, position = _owners([file for _, file in named], len(content))
    blocks = pl.DataFrame(
        {"content": content, "file": owner, "file_block": position}, schema=BLOCKS_SCHEMA
    ).with_columns(
        pl.when(pl.col("file") >= 0).then(pl.col("file")),
        pl.when(pl.col("file") >= 0).then(pl.col("file_block")).alias("file_block"),
    )
    columns = {
        "path": [path for path, _ in named],
        "size": [file.size for _, file in named],
        "kind": [file.kind for _, file in named],
        "package": [packages.get(path) for path, _ in named],
    }
    try:
        return Manifest(
            disk.size,
            blocks,
            pl.DataFrame(columns, schema=FILES_SCHEMA),
            pl.DataFrame(found.partitions, schema=PARTITIONS_SCHEMA),
            references,
        )
    except ManifestError as error:
        raise ManifestError(f"{disk.name}: {error}") from error


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest holds as plain data: counts, partitions, kinds of files and of references."""
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
    packages = manifest.files["package"].drop_nulls()
    references = manifest.references.group_by(pl.col("kind").cast(pl.String)).len("references").sort("kind")
    return {
        "disk_bytes": manifest.disk_bytes,
        "files": manifest.files.height,
        "files_of_packages": len(packages),
        "packages": packages.n_unique(),
        "blocks": blocks.height,
        "zero_blocks": blocks.filter(pl.col("content") == 0).height,
        "distinct_contents": blocks["content"].n_unique(),
        "partitions": manifest.partitions.to_dicts(),
        "kinds": kinds.to_dicts(),
        "references": references.to_dicts(),
    }


def hash_blocks(disk: DiskImage) -> npt.NDArray[np.uint64]:
    """Return the hash of each 4 KiB block of a disk, 0 for zeros; a last, shorter block is padded."""
    hashes = np.zeros(-(-disk.size // MANIFEST_BLOCK_BYTES), np.uint64)
    intdigest = xxhash.xxh3_64_intdigest
    end = 0
    for start, stop in disk.extents():
        first = max(end, start // MANIFEST_BLOCK_BYTES * MANIFEST_BLOCK_BYTES)
        end = min(-(-stop // MANIFEST_BLOCK_BYTES) * MANIFEST_BLOCK_BYTES, disk.size)
        for offset in range(first, end, _READ_BYTES):
            data = disk.read(offset, min(_READ_BYTES, end - offset))
            if len(data) % MANIFEST_BLOCK_BYTES:
                data = bytes(data).ljust(-(-len(data) // MANIFEST_BLOCK_BYTES) * MANIFEST_BLOCK_BYTES, b"\0")
            view = memoryview(data)
            words = np.frombuffer(data, np.uint64).reshape(-1, MANIFEST_BLOCK_BYTES // 8)
            for block in np.flatnonzero(words.any(axis=1)).tolist():
                at = block * MANIFEST_BLOCK_BYTES
                digest = intdigest(view[at : at + MANIFEST_BLOCK_BYTES])
                hashes[offset // MANIFEST_BLOCK_BYTES + block] = digest or 1
    return hashes


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
