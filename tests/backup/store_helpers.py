"""Small images and stores for the tests of the backup store."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from vmrestorekit.backup import BackupStore, CopySettings, open_copy

BLOCK = 4096
MIB = 1024 * 1024
PATH = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"

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


def need(*programs: str, modules: Sequence[str] = ("pytsk3",)) -> None:
    """Skip where a program or a module is missing; fail where everything has to be there."""
    lacking = [program for program in programs if not shutil.which(program, path=PATH)]
    lacking += [module for module in modules if importlib.util.find_spec(module) is None]
    if lacking:
        reason = f"needs {', '.join(lacking)} (tools/install_debian_packages.sh; extra 'images')"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def run(*command: str | Path, stdin: str | None = None, **variables: str) -> str:
    """Run a program, with such variables in its environment; return what it prints."""
    environment = (
        os.environ | {"PATH": PATH, "LC_ALL": "C", "DEBUGFS_PAGER": "cat", "PAGER": "cat"} | variables
    )
    done = subprocess.run(
        command, input=stdin, check=True, capture_output=True, text=True, timeout=60, env=environment
    )
    return done.stdout
