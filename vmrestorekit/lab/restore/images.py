"""What the data agent does with files itself: what was written, the configuration, the association."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from vmrestorekit.backup.reader import open_copy
from vmrestorekit.backup.store import BackupStore
from vmrestorekit.lab.media.source import CopySource
from vmrestorekit.lab.programs import run
from vmrestorekit.lab.restore.folder import RestoreFolder

__all__ = ["let_go_of_copy", "relocate_configuration", "written_ranges"]


async def written_ranges(image: Path, block_bytes: int) -> list[tuple[int, int, int]]:
    """Return first block, number of blocks and bytes of each range that an image by itself holds."""
    if not image.exists():
        return []
    told = await asyncio.to_thread(run, ["qemu-img", "map", "--output=json", image], timeout_s=600)
    edges: list[list[int]] = []
    for extent in json.loads(told):
        if not extent["present"]:
            continue
        start, end = extent["start"], extent["start"] + extent["length"]
        if edges and edges[-1][1] == start:
            edges[-1][1] = end
        else:
            edges.append([start, end])
    return [
        (start // block_bytes, -(-end // block_bytes) - start // block_bytes, end - start)
        for start, end in edges
    ]


def let_go_of_copy(folder: RestoreFolder) -> None:
    """De-associate the backup copy of a live mount that crashed: nobody runs from it any more."""
    number = folder.state.serve.get("copy")
    if number is not None:
        serve = folder.state.serve
        source = CopySource(serve["source"][0], number, serve.get("user"))
        source.release()
        source.close()


def relocate_configuration(folder: RestoreFolder) -> None:
    """Copy the virtual machine's configuration files from the backup copy, if that is where it comes from."""
    number = folder.state.serve.get("copy")
    if number is None:
        return
    with BackupStore(folder.state.serve["source"][0]) as store:
        copy = store.copy(number)
        for file, image in zip(copy.files, open_copy(store, copy), strict=True):
            if file.role == "configuration":
                folder.keep_configuration(file.name, bytes(image.read(0, file.bytes)))
