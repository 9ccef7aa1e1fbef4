"""A tiny SYNTHETIC machine: a disk of 4 MiB and 41 hand-made requests."""

from __future__ import annotations

import numpy as np
import polars as pl

from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, FILES_SCHEMA, PARTITIONS_SCHEMA, Manifest
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

MIB = 1024 * 1024
TINY_DISK_BYTES = 4 * MIB
MS = 1_000_000

# path, kind, first 4 KiB block on the disk, blocks; what lies outside is zeros
TINY_FILES = (
    ("$boot", "metadata", 0, 16),
    ("$superblock", "metadata", 256, 1),
    ("$inode_table", "metadata", 260, 12),
    ("/boot/vmlinuz", "regular", 300, 96),
    ("/sbin/init", "regular", 420, 24),
    ("/lib/libc.so.6", "regular", 450, 40),
    ("/var/log/messages", "regular", 520, 8),
    ("/var/lib/data", "regular", 600, 200),
)


def tiny_manifest() -> Manifest:
    """A 4 MiB disk: one partition from 1 MiB on, eight files, the rest zeros."""
    blocks = TINY_DISK_BYTES // 4096
    content = np.zeros(blocks, np.uint64)
    file, file_block = np.full(blocks, -1), np.full(blocks, -1)
    for number, (_, _, first, count) in enumerate(TINY_FILES):
        where = slice(first, first + count)
        content[where] = 1_000_003 * (number + 1) + np.arange(count, dtype=np.uint64)
        file[where], file_block[where] = number, np.arange(count)
    none = pl.col("file") < 0
    frame = pl.DataFrame({"content": content, "file": file, "file_block": file_block}, schema=BLOCKS_SCHEMA)
    frame = frame.with_columns(
        pl.when(~none).then(pl.col("file")), pl.when(~none).then(pl.col("file_block")).alias("file_block")
    )
    files = [{"path": path, "size": count * 4096, "kind": kind} for path, kind, _, count in TINY_FILES]
    partition = {"partition": 1, "start": MIB, "length": 3 * MIB, "file_system": "ext4"}
    return Manifest(
        TINY_DISK_BYTES,
        frame,
        pl.DataFrame(files, schema=FILES_SCHEMA),
        pl.DataFrame([partition], schema=PARTITIONS_SCHEMA),
    )


def tiny_trace(vm: str = "SYNTHETIC", boot: str = "boot-1") -> ReadTrace:
    """41 hand-made requests: loader, kernel, init and libraries (some overlapping), a log, a hole, a mark."""
    rows: list[tuple[int, int, int, str, int, int]] = []

    def ask(at_ms: float, for_ms: float, op: str, block: int = 0, blocks: int = 0) -> None:
        start = int(at_ms * MS)
        rows.append((start, start + int(for_ms * MS), 0, op, block * 4096, blocks * 4096))

    ask(0, 1, "read", 0, 1)
    ask(2, 2, "read", 1, 15)
    ask(5, 1, "read", 256, 1)
    ask(7, 1, "read", 260, 4)
    for part in range(12):  # the kernel, in order, one after the other
        ask(10 + 5 * part, 4, "read", 300 + 8 * part, 8)
    for part in range(6):  # init, two requests at a time
        ask(80 + 4 * (part // 2) + part % 2, 3, "read", 420 + 4 * part, 4)
    for part in range(8):  # the library, backwards and with gaps
        ask(100 + 3 * part, 2, "read", 485 - 5 * part, 5)
    ask(130, 1, "read", 264, 8)
    ask(132, 1, "write", 520, 2)
    ask(134, 1, "read", 520, 4)  # half of it just written
    ask(136, 1, "write", 900, 4)  # into a hole
    ask(138, 1, "read", 900, 8)
    ask(140, 2, "flush")
    ask(143, 1, "read", 420, 8)  # again
    ask(145, 1, "discard", 600, 4)
    ask(147, 1, "read", 600, 8)
    ask(150, 2, "read", 700, 32)
    ask(160, 2, "read", 1023, 1)  # the last block
    frame = pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row")
    marks = {"boot_done_ns": 165 * MS}
    return ReadTrace(frame, TraceMetadata(vm, boot, (TINY_DISK_BYTES,), marks, "SYNTHETIC", "none", {}))
