"""SYNTHETIC machines and boots: small, made up, for tests of rules; nothing here was recorded."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, FILES_SCHEMA, PARTITIONS_SCHEMA, Manifest
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

BLOCK = 4096
MILLISECOND = 1_000_000


def manifest_of(
    content: Iterable[int], files: Iterable[tuple[str, int, int]] = (), file_system: str = "made up"
) -> Manifest:
    """A disk with these block contents; a file is its path, first block and number of blocks."""
    content = list(content)
    owner: list[int | None] = [None] * len(content)
    position: list[int | None] = [None] * len(content)
    rows = []
    for number, (path, first, count) in enumerate(files):
        rows.append((path, count * BLOCK, "metadata" if path.startswith("$") else "regular", None))
        for at in range(count):
            owner[first + at], position[first + at] = number, at
    return Manifest(
        len(content) * BLOCK,
        pl.DataFrame({"content": content, "file": owner, "file_block": position}, schema=BLOCKS_SCHEMA),
        pl.DataFrame(rows, schema=FILES_SCHEMA, orient="row"),
        pl.DataFrame([(1, 0, len(content) * BLOCK, file_system)], schema=PARTITIONS_SCHEMA, orient="row"),
    )


def boot_of(
    manifests: Manifest | tuple[Manifest, ...],
    requests: Iterable[tuple[int, str, int, int, int]],
    *,
    vm: str = "synthetic",
    boot: str = "boot-1",
    boot_done_ns: int | None = 10**12,
) -> Boot:
    """A boot with these requests: (issued_ns, op, disk, offset, length), each done 1 ms after its issue."""
    manifests = (manifests,) if isinstance(manifests, Manifest) else manifests
    rows = [
        (issued, issued + MILLISECOND, disk, op, offset, length)
        for issued, op, disk, offset, length in sorted(requests)
    ]
    metadata = TraceMetadata(
        vm=vm,
        boot=boot,
        disk_bytes=tuple(manifest.disk_bytes for manifest in manifests),
        marks={} if boot_done_ns is None else {"boot_done_ns": boot_done_ns},
        recorder="made up",
        accelerator="none",
        versions={},
    )
    return Boot.from_parts(
        ReadTrace(pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row"), metadata), manifests
    )


def small_machine(vm: str, layout_seed: int, own_files: int = 6, boots: int = 2) -> tuple[Boot, ...]:
    """Boots of a machine of 60 files that all such machines have, and a few of its own.

    Files whose number is a multiple of 3 are read at boot, by all machines in the same order; they lie at
    addresses of the machine's own. Every second boot reads one file more.
    """
    layout = np.random.default_rng(layout_seed)
    shared = [(f"/usr/lib/shared{number:02d}x/lib{chr(97 + number % 26)}.so", number) for number in range(60)]
    own = [
        (f"/opt/{vm}/data.bin{chr(97 + number)}", 1000 * layout_seed + number) for number in range(own_files)
    ]
    content = [0] * 1024
    files, first_of = [], {}
    first = 16
    for at in layout.permutation(len(shared) + len(own)):
        path, identity = (shared + own)[at]
        count = 4 + identity % 5
        content[first : first + count] = [10_000 * (identity + 1) + block for block in range(count)]
        files.append((path, first, count))
        first_of[identity] = (first, count)
        first += count + int(layout.integers(0, 3))
    recorded = []
    for number in range(boots):
        wanted = [identity for identity in first_of if identity < 60 and identity % 3 == 0]
        wanted = sorted(wanted) + ([1] if number % 2 else [])
        requests = [
            (
                (order + 1) * 50 * MILLISECOND,
                "read",
                0,
                first_of[identity][0] * BLOCK,
                first_of[identity][1] * BLOCK,
            )
            for order, identity in enumerate(wanted)
        ]
        recorded.append(boot_of(manifest_of(content, files), requests, vm=vm, boot=f"boot-{number + 1}"))
    return tuple(recorded)
