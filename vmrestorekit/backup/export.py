"""Giving back the files of a copy as they were."""

from __future__ import annotations

import collections
import concurrent.futures
import os
from collections.abc import Iterator
from pathlib import Path

from vmrestorekit.backup.progress import Progress, silent
from vmrestorekit.backup.reader import CopyImage, open_copy
from vmrestorekit.backup.records import StoreError, flush_folder
from vmrestorekit.backup.store import BackupStore

__all__ = ["export_copy"]

_PIECE_BYTES = 4 << 20
_PIECES_AHEAD = 8


def export_copy(
    store: BackupStore, number: int, out: str | os.PathLike[str], progress: Progress = silent
) -> list[Path]:
    """Write the files of a copy: raw images, sparse where the copy has no blocks, and the configuration.

    Parameters
    ----------
    store : BackupStore
    number : int
        Which copy.
    out : path-like
        A folder for all files under their names; or, for a machine with one disk, the image to write.
    progress : Progress, optional
        Is told how many bytes were written.

    Returns
    -------
    list of Path
        What was written. An interruption or an error leaves no half image.

    Raises
    ------
    StoreError
        If there is no such copy, a content is damaged, a file is there already, or the machine has several
        disks and `out` is no folder.
    """
    copy, out = store.copy(number), Path(out)
    if out.is_dir():
        chosen = [(file, out / file.name) for file in copy.files]
    elif len(copy.disks) == 1:
        chosen = [(copy.disks[0], out)]
    else:
        raise StoreError(
            f"{out}: expected a folder for the {len(copy.disks)} disks of copy {number}, got no folder"
        )
    if len({path for _, path in chosen}) < len(chosen):
        raise StoreError(f"{store.path}: expected the files of copy {number} to have different names")
    for _, path in chosen:
        if path.exists():
            raise StoreError(f"{path}: expected no such file, or it would be lost")
    images = open_copy(store, copy)
    total = sum(len(image.blocks.block) for image in images[: len(chosen)]) * store.block_bytes
    done = 0
    try:
        for image, (_, path) in zip(images, chosen, strict=False):
            done = _write(image, path, done, total, progress)
    finally:
        images[0].close()
    return [path for _, path in chosen]


def _write(image: CopyImage, path: Path, done: int, total: int, progress: Progress) -> int:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.truncate(image.size)
            for count in _pieces(image, file.fileno()):
                done += count * image.block_bytes
                progress(done, total)
            os.fsync(file.fileno())
        os.replace(partial, path)
        flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)
    return done


def _pieces(image: CopyImage, descriptor: int) -> Iterator[int]:
    """Copy all blocks with several threads; give the number of blocks of each piece."""
    count = max(1, _PIECE_BYTES // image.block_bytes)
    blocks = image.blocks.block
    starts = range(0, len(blocks), count)
    pending: collections.deque[concurrent.futures.Future[int]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for start in starts:
                first, last = int(blocks[start]), int(blocks[min(start + count, len(blocks)) - 1])
                pending.append(pool.submit(_copy_piece, image, descriptor, first, last + 1))
                if len(pending) >= _PIECES_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for piece in pending:
                piece.cancel()


def _copy_piece(image: CopyImage, descriptor: int, first: int, end: int) -> int:
    contents = image.contents(first, end)
    for block, data in contents:
        view, offset = memoryview(data), block * image.block_bytes
        while len(view):
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
    return len(contents)
