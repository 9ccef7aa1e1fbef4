"""Small images and stores for the tests of the backup store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from vmrestorekit.backup import BackupStore, CopySettings, open_copy

BLOCK = 4096

SETTINGS = (
    CopySettings(container_blocks=3, chunk_bytes=5 * BLOCK),
    CopySettings(container_bytes=2 * BLOCK, chunk_bytes=7 * BLOCK, zstd_level=1),
    CopySettings(container_blocks=4, chunk_bytes=9 * BLOCK, zstd_level=3, frame_bytes=3 * BLOCK),
)


def content(seed: int, size: int = BLOCK) -> bytes:
    """Bytes that differ from seed to seed; those of an even one can be compressed, seed 0 gives zeros."""
    if seed == 0:
        return bytes(size)
    if seed % 2:
        return random.Random(seed).randbytes(size)
    return (b"%16d" % seed * (size // 16 + 1))[:size]


def write_image(path: Path, blocks: Sequence[int], tail: int = 0) -> Path:
    """Write an image of such contents, and a shorter block at the end; of zeros come holes."""
    with open(path, "wb") as file:
        for number, seed in enumerate(blocks):
            if seed:
                file.seek(number * BLOCK)
                file.write(content(seed))
        file.truncate(len(blocks) * BLOCK)
        if tail:
            file.seek(len(blocks) * BLOCK)
            file.write(content(len(blocks) * 2 + 3, tail))
    return path


def stored_files(store: BackupStore, number: int) -> list[bytes]:
    """Each file of a copy, read back whole."""
    images = open_copy(store, store.copy(number))
    try:
        return [bytes(image.read(0, image.size)) for image in images]
    finally:
        images[0].close()


def allocated_bytes(store: BackupStore) -> int:
    """What the containers take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in store.path.glob("chunks/*/container-*"))
