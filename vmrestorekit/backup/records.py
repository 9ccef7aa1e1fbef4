"""Small files that are there whole or not at all, and tell when a bit of them has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blake3

__all__ = ["StoreError", "flush_folder", "locked", "read_record", "write_file", "write_record"]

_FIRST_LINE = "vmrestorekit record, blake3 "


class StoreError(ValueError):
    """A backup store, or a request to it, that is not as expected; the message says how and where."""


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record durably, as JSON below a line with its checksum."""
    body = json.dumps(record, indent=1, sort_keys=True).encode() + b"\n"
    write_file(path, f"{_FIRST_LINE}{blake3.blake3(body).hexdigest()}\n".encode() + body)


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises
    ------
    StoreError
        If the file is missing, or one bit of it is not as it was written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{path}: expected a record of the backup store, found no such file") from None
    first, _, body = data.partition(b"\n")
    if first != f"{_FIRST_LINE}{blake3.blake3(body).hexdigest()}".encode():
        raise StoreError(f"{path}: damaged, its checksum does not fit")
    record: dict[str, Any] = json.loads(body)
    return record


def write_file(path: Path, data: bytes) -> None:
    """Write a file durably: under another name first, then in its place."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make names that were given or taken in a folder durable, where a system needs and allows that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a store that is written to; `StoreError` if somebody else does."""
    with open(path, "ab") as file:
        try:
            _lock(file.fileno())
        except OSError:
            raise StoreError(
                f"{path.parent}: another process writes to this backup store; wait until it has ended"
            ) from None
        yield  # closing the file gives the lock back, and so does the end of the process


def _lock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
