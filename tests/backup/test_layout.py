"""The layout of a full backup, against a plain loop that writes block after block."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrestorekit.backup.layout import (
    BackupLayout,
    CopySettings,
    LayoutError,
    block_count,
    first_block_of_disk,
)
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, FILES_SCHEMA, PARTITIONS_SCHEMA, Manifest


def disk(contents, short=0):
    none = [None] * len(contents)
    blocks = pl.DataFrame({"content": contents, "file": none, "file_block": none}, schema=BLOCKS_SCHEMA)
    size = len(contents) * 4096 - short
    return Manifest(size, blocks, FILES_SCHEMA.to_frame(), PARTITIONS_SCHEMA.to_frame())


disks = st.builds(
    disk,
    st.lists(st.sampled_from([0, 0, 7]), min_size=1, max_size=60),
    st.sampled_from([0, 512, 4095 // 512 * 512]),
)
copy_settings = st.builds(
    CopySettings,
    container_blocks=st.integers(1, 6),
    container_bytes=st.sampled_from([1, 8192, 20000, 10**9]),
    chunk_bytes=st.sampled_from([1, 16384, 70000, 10**9]),
)


def write_backup(manifests, block_bytes, limits):
    """Write a backup as one would by hand: (address, container, chunk) of each block."""
    rows, address, container, chunk = [], 0, -1, -1
    for manifest in manifests:
        contents = manifest.blocks["content"].to_list()
        in_chunk = in_container = None  # a disk starts a new chunk
        for start in range(0, manifest.disk_bytes, block_bytes):
            if not any(contents[start // 4096 : (start + block_bytes) // 4096]):
                rows.append((-1, -1, -1))
                continue
            if in_chunk is None or (in_chunk + 1) * block_bytes > limits.chunk_bytes:
                chunk, in_chunk, in_container = chunk + 1, 0, None
            if in_container is None or (
                in_container == limits.container_blocks
                or (in_container + 1) * block_bytes > limits.container_bytes
            ):
                container, in_container = container + 1, 0
            rows.append((address, container, chunk))
            in_chunk, in_container = in_chunk + 1, in_container + 1
            address += min(block_bytes, manifest.disk_bytes - start)
    return rows, address


@settings(deadline=None)
@given(st.lists(disks, min_size=1, max_size=3), st.sampled_from([4096, 8192, 65536]), copy_settings)
def test_a_full_backup_is_what_a_loop_writes(manifests, block_bytes, limits):
    layout = BackupLayout.full(manifests, block_bytes, limits)
    rows, stored_bytes = write_backup(manifests, block_bytes, limits)
    found = list(zip(layout.address.tolist(), layout.container.tolist(), layout.chunk.tolist(), strict=True))
    assert found == rows
    assert layout.stored_bytes == stored_bytes
    assert layout.hole.tolist() == [row[0] == -1 for row in rows]
    assert layout.address.dtype == np.int64
    assert layout.container.dtype == layout.chunk.dtype == np.int32


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=4), st.sampled_from([4096, 65536]))
def test_blocks_are_numbered_disk_after_disk(disk_bytes, block_bytes):
    blocks = [-(-size // block_bytes) for size in disk_bytes]
    assert block_count(disk_bytes, block_bytes) == sum(blocks)
    assert list(first_block_of_disk(disk_bytes, block_bytes)) == [sum(blocks[:d]) for d in range(len(blocks))]


def test_defaults_are_those_of_the_specification():
    layout = BackupLayout.full([disk([1] * 16 * 250)])
    assert np.unique(layout.container, return_counts=True)[1].tolist() == [100, 100, 50]
    layout = BackupLayout.full([disk([1] * 1024 * 130)], block_bytes=4 * 1024 * 1024)
    assert np.unique(layout.chunk, return_counts=True)[1].tolist() == [128, 2]
    assert np.unique(layout.container, return_counts=True)[1].tolist() == [12] * 10 + [8, 2]


def test_a_layout_cannot_be_written_to(tiny_boot):
    layout = BackupLayout.full(tiny_boot.manifests)
    with pytest.raises(ValueError, match="read-only"):
        layout.address[0] = 5


@pytest.mark.parametrize("block_bytes", [0, -4096, 1024, 2048, 5000, 8 * 1024 * 1024])
def test_impossible_block_sizes(tiny_boot, block_bytes):
    with pytest.raises(LayoutError, match=f"a power of two from 4096 to 4194304, got {block_bytes}"):
        BackupLayout.full(tiny_boot.manifests, block_bytes)


def test_impossible_layouts():
    with pytest.raises(LayoutError, match="at least one disk"):
        BackupLayout.full([])
    with pytest.raises(LayoutError, match="container_blocks: expected at least 1, got 0"):
        CopySettings(container_blocks=0)
    with pytest.raises(LayoutError, match=r"address: expected one value for each of 2 blocks, got \(1,\)"):
        BackupLayout(4096, (8192,), np.zeros(1), np.zeros(2), np.zeros(2))
    with pytest.raises(LayoutError, match="block 1: expected address, container and chunk, or a hole"):
        BackupLayout(4096, (8192,), np.array([0, -1]), np.array([0, 0]), np.array([0, -1]))
