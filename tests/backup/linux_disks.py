"""Small disks that look like installed Linux systems, and ELF files made byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
from store_helpers import MIB, need, run

from vmrestorekit.traces.manifest import Manifest


def write_tree(root: Path, files: Mapping[str, str | bytes], links: Mapping[str, str] | None = None) -> Path:
    """Write files and symbolic links (path: what it says) below a folder; links first."""
    root.mkdir(parents=True, exist_ok=True)
    for path, target in (links or {}).items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
    for path, content in files.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def merged_usr(root: Path) -> Path:
    """Make the folders and links of a system whose /bin and /lib are in /usr."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc").mkdir()
    return root


def image_of(root: Path, image: Path, *options: str, size: int = 40 * MIB) -> Path:
    """Make a file system without a partition table that holds a folder."""
    need("mke2fs")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", *options, "-d", root, image, f"{size // 1024}K")
    return image


def references_of(manifest: Manifest, kind: str) -> dict[str, set[str]]:
    """What each source refers to."""
    found: dict[str, set[str]] = {}
    rows = manifest.references.filter(pl.col("kind") == kind).select("source", "target")
    for source, target in rows.iter_rows():
        found.setdefault(source, set()).add(target)
    return found


def elf(
    needed: list[str],
    *,
    interpreter: str = "",
    runpath: str = "",
    rpath: str = "",
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
) -> bytes:
    """A shared library that needs others, with nothing to run: headers, a dynamic section, its strings."""
    address = 0x10000  # where the file is loaded
    strings = b"\0"
    tags: list[tuple[int, int]] = []
    for tag, text in [*((1, name) for name in needed), (29, runpath), (15, rpath)]:
        if text:
            tags.append((tag, len(strings)))
            strings += text.encode() + b"\0"
    word = "Q" if bits == 64 else "I"
    header_bytes, segment_bytes = (64, 56) if bits == 64 else (52, 32)
    strings_at = header_bytes + 3 * segment_bytes
    interpreter_at = strings_at + len(strings)
    dynamic_at = -(-(interpreter_at + len(interpreter) + 1) // 16) * 16
    tags += [(5, address + strings_at), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack(f"{order}2{word}", *tag) for tag in tags)
    total = dynamic_at + len(dynamic)

    def segment(kind: int, at: int, length: int) -> bytes:
        if bits == 64:
            return struct.pack(f"{order}II6Q", kind, 4, at, address + at, address + at, length, length, 1)
        return struct.pack(f"{order}8I", kind, at, address + at, address + at, length, length, 4, 1)

    identity = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    rest = (3, machine, 1, 0, header_bytes, 0, 0, header_bytes, segment_bytes, 3, 0, 0, 0)
    data = identity + struct.pack(f"{order}HHI3{word}I6H", *rest)
    data += segment(1, 0, total) + segment(2, dynamic_at, len(dynamic))
    # without an interpreter a segment of no kind
    data += segment(3 if interpreter else 0, interpreter_at, len(interpreter) + 1)
    return (data + strings + interpreter.encode()).ljust(dynamic_at, b"\0") + dynamic


def xfs_image_of(root: Path, image: Path) -> Path:
    """Make an XFS file system without a partition table that holds a folder."""
    need("mkfs.xfs")
    prototype = image.with_suffix(".prototype")
    prototype.write_text("/no/boot/program\n0 0\nd--755 0 0\n" + "".join(_prototype(root)) + "$\n")
    with open(image, "wb") as file:
        file.truncate(400 * MIB)  # it takes no less
    run("mkfs.xfs", "-q", "-p", prototype, image)
    return image


def _prototype(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            yield f"{path.name} l--777 0 0 {path.readlink()}\n"
        elif path.is_dir():
            yield f"{path.name} d--755 0 0\n"
            yield from _prototype(path)
            yield "$\n"
        else:
            yield f"{path.name} ---755 0 0 {path}\n"
