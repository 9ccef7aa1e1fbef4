"""Where a copy in a store really lies: what its chain, shared contents and compression cost to bring back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.backup.chunk import ChunkHeader, ChunkId
from vmrestorekit.backup.layout import BackupLayout, LayoutError, block_count
from vmrestorekit.backup.store import BackupStore
from vmrestorekit.traces.boots import RecordedVM
from vmrestorekit.traces.schema import read_parquet_with_metadata, write_parquet_atomically

__all__ = [
    "LAYOUTS_FILE",
    "LAYOUT_SCHEMA",
    "load_layouts",
    "recorded_layouts",
    "save_layouts",
    "stored_layout",
]

LAYOUTS_FILE = "copies.parquet"  # in a machine's folder of a corpus

LAYOUT_SCHEMA = pl.Schema(
    {
        "copy": pl.String(),
        "block": pl.Int32(),
        "count": pl.Int32(),
        "address": pl.Int64(),
        "container": pl.Int32(),
        "chunk": pl.Int32(),
        "frame_start": pl.Int64(),  # null: each block can be read by itself
        "frame_end": pl.Int64(),
    }
)
_PLACES = ("address", "container", "chunk", "frame_start", "frame_end")
_METADATA_KEY = "vmrestorekit.layouts"
_KEYS = {"block_bytes", "disk_bytes", "copies"}
_SLOT_BITS = 32

Places = npt.NDArray[np.int64]  # shape (5, n): a row for each of _PLACES


def stored_layout(store: BackupStore, number: int) -> BackupLayout:
    """Return where the blocks of a copy's disks lie on the medium of its store.

    The medium has the payload of the store's chunks in the order in which they were written, container after
    container. What other copies of the store have written lies in between, and so do holes of pruned blocks.
    Sizes and addresses are those before compression; the 4 KiB in front of each container are left out.

    Parameters
    ----------
    store : BackupStore
    number : int
        Which copy.

    Raises
    ------
    StoreError
        If there is no such copy, or a chunk that it needs is missing.
    """
    copy = store.copy(number)
    medium = _medium([store.header(chunk) for chunk in store.chunks_there()])
    disks = []
    for file, blocks in list(zip(copy.files, store.maps(copy), strict=True))[: len(copy.disks)]:
        placed = np.full((len(_PLACES), block_count([file.bytes], store.block_bytes)), -1, np.int64)
        chunks = blocks.copy << _SLOT_BITS | blocks.sequence
        for key in np.unique(chunks).tolist():
            chunk = ChunkId(key >> _SLOT_BITS, key & (1 << _SLOT_BITS) - 1)
            mine = chunks == key
            placed[:, blocks.block[mine]] = medium[chunk][:, blocks.slot[mine]]
        disks.append(placed)
    return _layout(store.block_bytes, tuple(file.bytes for file in copy.disks), np.concatenate(disks, axis=1))


def _medium(headers: list[ChunkHeader]) -> dict[ChunkId, Places]:
    """Return where each slot of each chunk lies, the chunks one after the other."""
    places: dict[ChunkId, Places] = {}
    end = containers = 0
    for number, header in enumerate(headers):
        stored = header.stored
        # a frame holds several slots, and counts once; frames lie in the order of container and offset
        key = np.stack([stored["container"].astype(np.int64), stored["offset"].astype(np.int64)])
        _, first, frame = np.unique(key, axis=1, return_index=True, return_inverse=True)
        size = stored["frame_raw_bytes"][first].astype(np.int64)
        start = end + np.cumsum(size) - size
        places[header.id] = np.stack(
            [
                start[frame] + stored["position"],
                containers + key[0],
                np.full(len(stored), number),
                start[frame],
                (start + size)[frame],
            ]
        )
        end += int(size.sum())
        containers += len(header.container_bytes)
    return places


def _layout(block_bytes: int, disk_bytes: tuple[int, ...], places: Places) -> BackupLayout:
    address, container, chunk, start, end = places
    alone = bool(np.all((start == address) & (end <= address + block_bytes) | (address < 0)))
    frames = () if alone else (start, end)
    return BackupLayout(
        block_bytes, disk_bytes, address, container.astype(np.int32), chunk.astype(np.int32), *frames
    )


# --- files --------------------------------------------------------------------------------------------


def save_layouts(path: str | os.PathLike[str], layouts: Mapping[str, BackupLayout]) -> None:
    """Save layouts of the same disks under their names as one Parquet file of `LAYOUT_SCHEMA`: no contents.

    A row is a run of `count` blocks from `block` on that lie one behind the other in one container and frame.

    Raises
    ------
    LayoutError
        If there is none, or they are of different disks or blocks.
    """
    about = {(layout.block_bytes, layout.disk_bytes) for layout in layouts.values()}
    if len(about) != 1:
        raise LayoutError(f"{path}: expected layouts of the same disks and blocks, got {sorted(about)}")
    block_bytes, disk_bytes = about.pop()
    metadata = json.dumps({"block_bytes": block_bytes, "disk_bytes": disk_bytes, "copies": list(layouts)})
    frames = [_runs(name, layout) for name, layout in layouts.items()]
    write_parquet_atomically(pl.concat(frames), Path(path), {_METADATA_KEY: metadata})


def load_layouts(path: str | os.PathLike[str]) -> dict[str, BackupLayout]:
    """Load what `save_layouts` saved: a dict from name to layout, in the order of saving.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    LayoutError
        If it is no such file, or its rows do not fit the disks.
    """
    path = Path(path)
    frame, metadata = read_parquet_with_metadata(path, "layouts of backup copies", LayoutError)
    about = json.loads(metadata.get(_METADATA_KEY, "{}"))
    if set(about) != _KEYS or frame.schema != LAYOUT_SCHEMA:
        raise LayoutError(f"{path}: expected layouts of backup copies, got another file")
    disks = about["block_bytes"], tuple(about["disk_bytes"])
    loaded = {}
    for name in about["copies"]:
        try:
            loaded[name] = _from_runs(frame.filter(copy=name), *disks)
        except LayoutError as error:
            raise LayoutError(f"{path}, copy {name!r}: {error}") from error
    return loaded


def recorded_layouts(machine: RecordedVM) -> dict[str, BackupLayout]:
    """Return where the blocks of a recorded machine's backup copies lie: a dict from copy to layout.

    The copies were made of the real disk between its boots, in blocks of 64 KiB: ``boot-<n>``, the disk
    before this boot, of a chain of one full copy and an incremental one for each boot since; ``length <k>``,
    the disk before the last boot, of a chain with k incremental copies; ``synthetic full``, that disk written
    anew from the longest chain; ``in frames``, that chain with neighbours compressed together up to 1 MiB.

    Raises
    ------
    FileNotFoundError
        If the machine was not backed up when it was recorded.
    """
    folder = machine.boots[0].path
    if folder is None:
        raise FileNotFoundError(f"{machine.name}: expected a machine of a corpus on disk, got one in memory")
    return load_layouts(folder.parent / LAYOUTS_FILE)


def _runs(name: str, layout: BackupLayout) -> pl.DataFrame:
    stored = np.flatnonzero(~layout.hole)
    columns: dict[str, npt.NDArray[Any] | None] = {
        key: None if getattr(layout, key) is None else getattr(layout, key)[stored] for key in _PLACES
    }
    goes_on = np.diff(stored) == 1
    for key, column in columns.items():
        if column is not None:
            goes_on &= np.diff(column) == (layout.block_bytes if key == "address" else 0)
    first = np.flatnonzero(np.append([True], ~goes_on))[: len(stored)]
    count = np.diff(np.append(first, len(stored)))
    values = {"copy": [name] * len(first), "block": stored[first], "count": count}
    places = {
        key: pl.Series([None] * len(first), dtype=pl.Int64) if column is None else column[first]
        for key, column in columns.items()
    }
    return pl.DataFrame(values | places, schema=LAYOUT_SCHEMA, strict=False)


def _from_runs(rows: pl.DataFrame, block_bytes: int, disk_bytes: tuple[int, ...]) -> BackupLayout:
    blocks = block_count(disk_bytes, block_bytes)
    block, count = (rows[key].to_numpy().astype(np.int64) for key in ("block", "count"))
    if block.min(initial=0) < 0 or count.min(initial=1) < 1 or (block + count).max(initial=0) > blocks:
        raise LayoutError(f"expected runs within {blocks} blocks")
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    placed = np.repeat(block, count) + step
    if len(np.unique(placed)) != len(placed):
        raise LayoutError("expected each block once")
    places = np.full((len(_PLACES), blocks), -1, np.int64)
    for row, key in enumerate(_PLACES):
        places[row, placed] = np.repeat(rows[key].fill_null(-1).to_numpy(), count)
    places[0, placed] += step * block_bytes
    if rows["frame_start"].null_count() == len(rows):
        places[3] = np.where(places[0] >= 0, places[0], -1)
        places[4] = np.where(places[0] >= 0, places[0] + block_bytes, -1)
    return _layout(block_bytes, disk_bytes, places)
