"""Notebook 02: how much of what a boot reads lies in the incremental copies of a chain."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

import vmrestorekit as vr
from checks import Verdict, hint, right, your_turn
from vmrestorekit.backup import BackupLayout, recorded_layouts
from vmrestorekit.predict.observed import blocks_read

_MACHINE = "bookworm-db"
_CLOSE_MB = 0.06  # what rounding to a tenth may do


@functools.lru_cache(maxsize=4)
def chain(seed: int = 1) -> tuple[int, BackupLayout, npt.NDArray[np.int64], int]:
    """Return a chain's number of increments and layout, what the boot reads, and the full copy's chunks."""
    length = int(np.random.default_rng(seed).integers(1, 8))
    machine = vr.load_corpus()[_MACHINE]
    layouts = recorded_layouts(machine)
    layout = layouts[f"length {length}"]
    read = blocks_read(machine.boots[-1])["block"].to_numpy() * 4096 // layout.block_bytes
    blocks = np.unique(read)
    # each boot's disk lies in a chain that begins with the same kind of full copy: those of length 0
    full_chunks = len(np.unique(layouts["length 0"].chunk[~layouts["length 0"].hole]))
    return length, layout, blocks[~layout.hole[blocks]], full_chunks


def check_increments(megabytes: Any, seed: int = 1) -> Verdict:
    """Check how many MB of what the boot reads lie in the incremental copies."""
    if megabytes is None or megabytes is ...:
        return your_turn("Put a number of MB in place of the dots, worked out from `layout.chunk[blocks]`.")
    if isinstance(megabytes, bool) or not isinstance(megabytes, numbers.Real) or math.isnan(megabytes):
        return hint(f"A number of MB is asked for, such as 12.3; this is {megabytes!r:.60}.")
    length, layout, blocks, full_chunks = chain(seed)
    in_increments = int(np.count_nonzero(layout.chunk[blocks] >= full_chunks))
    mb = layout.block_bytes / 1e6
    answer = in_increments * mb
    if abs(megabytes - answer) <= _CLOSE_MB:
        changed = int(np.count_nonzero(layout.chunk >= full_chunks)) * mb
        return right(
            f"{answer:.1f} of the {blocks.size * mb:.1f} MB that the boot reads lie in incremental copies. "
            f"These ({length}) hold {changed:.1f} MB in all. What a server changes it often reads again."
        )
    for wrong, why in {
        (blocks.size - in_increments)
        * mb: "That is what lies in the full copy. What is asked for is the rest.",
        in_increments: "That is a number of blocks. How large is one?",
        in_increments * layout.block_bytes: "That is in bytes; MB are asked for.",
        in_increments * layout.block_bytes / 2**20: "That is in MiB of 2²⁰ bytes; here a MB has 10⁶.",
        int(np.count_nonzero(layout.chunk >= full_chunks))
        * mb: "That counts all blocks of the disk, not only `blocks`.",
    }.items():
        if abs(megabytes - wrong) <= _CLOSE_MB:
            return hint(why)
    return hint(
        f"The chunks of the full copy have the numbers 0 to {full_chunks - 1}. Which of "
        "`layout.chunk[blocks]` are higher? Count these, and multiply by the size of a block."
    )
