"""Trees of files, images of them, and what has to be found there, for the tests of file systems."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from store_helpers import MIB, run

from vmrestorekit.backup.files import DiskFiles, find_files, read_file
from vmrestorekit.backup.images import DiskImage, RawImage


def make_tree(root: Path, seed: int = 7, many: int = 300) -> None:
    """Files of many sizes, names beyond ASCII, holes, hard links, short and long symbolic links."""
    random = np.random.default_rng(seed)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "many").mkdir()
    (root / "big").write_bytes(random.bytes(3 * MIB + 123))
    (root / "small").write_bytes(b"#!/bin/sh\n")
    (root / "empty").touch()
    (root / "deep" / "er" / "é ü.txt").write_bytes(random.bytes(70_001))
    os.link(root / "big", root / "another name")
    os.link(root / "big", root / "deep" / "third name")
    (root / "short link").symlink_to("bin/tool")
    (root / "long link").symlink_to("y/" * 450 + "z")
    with open(root / "sparse", "wb") as file:
        for part in range(12):
            file.seek(part * 262_144)
            file.write(random.bytes(5_000))
        file.truncate(12 * 262_144 + 99)
    for number in range(many):
        name = f"a file with number {number:05} and a name of some length"
        (root / "many" / name).write_bytes(random.bytes(int(random.integers(1, 3000))))


class MemoryImage(DiskImage):
    """A disk in memory."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.name, self.size, self.data = "memory", len(data), data

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])


def find(image: Path) -> DiskFiles:
    with RawImage(image) as disk:
        return find_files(disk)


def check_against_tree(image: Path, root: Path, mark: str = "") -> DiskFiles:
    """Compare all that is found with a folder: names, links, sizes, and contents read in both ways."""
    expected: dict[tuple[str, ...], Path] = {}
    by_inode: dict[int, list[Path]] = {}
    for path in root.rglob("*"):
        by_inode.setdefault(path.lstat().st_ino, []).append(path)
    for paths in by_inode.values():
        expected[tuple(sorted(f"{mark}/{path.relative_to(root)}" for path in paths))] = paths[0]
    with RawImage(image) as disk:
        found = find_files(disk)
        files = {
            (file.path, *file.other_paths): file
            for file in found.files
            if file.kind != "metadata" and file.path.startswith(mark + "/")
        }
        beside = {(f"{mark}/",), (f"{mark}/lost+found",), (f"{mark}/$OrphanFiles",)}
        assert files.keys() - beside == expected.keys()
        for paths, source in expected.items():
            file = files[paths]
            if source.is_symlink():
                assert (file.kind, file.target) == ("symlink", os.readlink(source)), paths
            elif source.is_dir():
                assert file.kind == "directory", paths
            else:
                content = source.read_bytes()
                assert (file.kind, file.size, file.target) == ("regular", len(content), ""), paths
                assert digest(b"".join(read_file(disk, file))) == digest(content), paths
    return found


def through_extents(image: Path, found: DiskFiles, path: str) -> bytes:
    """Put a file together from the bytes of the disk by its extents alone."""
    (file,) = (file for file in found.files if path in (file.path, *file.other_paths))
    content = bytearray(file.size)
    with open(image, "rb") as disk:
        for start, length, position in file.extents:
            disk.seek(start)
            piece = disk.read(length)[: max(file.size - position, 0)]
            content[position : position + len(piece)] = piece
    return bytes(content)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def loop_device(image: Path) -> Iterator[str]:
    """A loop device on an image; skips where this machine gives none."""
    done = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs a loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        run("losetup", "-d", device)


@contextlib.contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[Path]:
    """An image mounted by the kernel; skips where that is not possible."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-o", ",".join(("loop", *options)), image, folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"needs the kernel to mount an image: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        run("umount", folder)
