"""What a boot touches of a copy, against a plain loop over its requests."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrestorekit.backup.layout import BackupLayout, CopySettings, LayoutError
from vmrestorekit.backup.touched import containers_touched, first_touches, read_amplification
from vmrestorekit.traces.manifest import Manifest
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

KIB = 1024
DISKS = (40 * 4 * KIB, 24 * 4 * KIB + 512)


def trace_of(rows: list[tuple[int, str, int, int]], disks: tuple[int, ...] = DISKS) -> ReadTrace:
    frame = pl.DataFrame(
        [(n, n + 1, disk, op, offset, length) for n, (disk, op, offset, length) in enumerate(rows)],
        schema=TRACE_SCHEMA,
        orient="row",
    )
    return ReadTrace(frame, TraceMetadata("vm", "boot-1", disks, {}, "SYNTHETIC", "none", {}))


def layout_of(block_bytes: int, frame_bytes: int | None = None, holes: bool = False) -> BackupLayout:
    manifests = [Manifest.synthetic(size) for size in DISKS]
    copy_settings = CopySettings(container_blocks=4, chunk_bytes=6 * block_bytes)
    if frame_bytes:
        copy_settings = CopySettings(
            container_blocks=8, chunk_bytes=64 * block_bytes, zstd_level=1, frame_bytes=frame_bytes
        )
    if holes:
        content = manifests[0].blocks["content"].to_numpy().copy()
        content[: len(content) // 2] = 0
        blocks = manifests[0].blocks.with_columns(content=pl.Series(content))
        manifests[0] = Manifest(DISKS[0], blocks, manifests[0].files, manifests[0].partitions)
    return BackupLayout.full(manifests, block_bytes, copy_settings)


requests = st.tuples(
    st.integers(0, 1), st.sampled_from(["read", "read", "write"]), st.integers(0, 180), st.integers(1, 60)
).map(lambda row: (row[0], row[1], row[2] * 512, row[3] * 512))


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(requests, max_size=12),
    block_kib=st.sampled_from([4, 8, 32]),
    holes=st.booleans(),
    frame_blocks=st.sampled_from([None, 2, 3]),
)
def test_touches_and_amplification(
    rows: list[tuple[int, str, int, int]], block_kib: int, holes: bool, frame_blocks: int | None
) -> None:
    rows = [(disk, op, offset, min(length, DISKS[disk] - offset)) for disk, op, offset, length in rows]
    rows = [row for row in rows if row[3] > 0]
    size = block_kib * KIB
    layout = layout_of(size, frame_blocks and frame_blocks * size, holes)
    trace = trace_of(rows)
    second = -(-DISKS[0] // size)
    order: list[int] = []
    units: set[tuple[int, int]] = set()
    for disk, op, offset, length in rows:
        for byte in range(offset, offset + length, 512):
            block = second * disk + byte // size
            if op == "read" and not layout.hole[block]:
                units.add((disk, byte // 4096))
                if block not in order:
                    order.append(block)
    assert first_touches(trace, layout).tolist() == order
    touched = containers_touched(trace, layout)
    assert touched["read"].sum() == len(order)
    assert touched["blocks"].sum() == np.count_nonzero(~layout.hole)
    for row in touched.iter_rows(named=True):
        inside = [at for at, block in enumerate(order) if layout.container[block] == row["container"]]
        assert row["read"] == len(inside)
        first = inside[0] / max(len(order) - 1, 1) if inside else None
        assert row["order"] == pytest.approx(first)
    if not units:
        with pytest.raises(LayoutError, match="reads nothing that the copy stores"):
            read_amplification(trace, layout)
        return
    if layout.frame_start is None or layout.frame_end is None:
        expected = len(order) * size
    else:
        frames = {(int(layout.frame_start[block]), int(layout.frame_end[block])) for block in order}
        expected = sum(end - start for start, end in frames)
    assert read_amplification(trace, layout) == pytest.approx(expected / (len(units) * 4096))


def test_the_more_is_read_together_the_more_is_read() -> None:
    trace = trace_of([(0, "read", 4096 * block, 4096) for block in range(0, 40, 8)])
    factors = [read_amplification(trace, layout_of(4096, frames * 4096)) for frames in (1, 2, 4, 8)]
    assert factors == [1, 2, 4, 8]


def test_a_trace_of_other_disks() -> None:
    with pytest.raises(LayoutError, match=r"vm: expected a layout of disks of \(4096,\) bytes, got one of"):
        first_touches(trace_of([], (4096,)), layout_of(4096))
