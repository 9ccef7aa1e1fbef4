"""Relocation sequences: one contract for all, and what is particular to each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import PlanError, RelocationStart, RestorePlan
from vmrestorekit.restore import sequences
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.traces.corpus import Boot

BLOCK_BYTES = 16 * 1024
Blocks = npt.NDArray[np.int32]
Sequence = Callable[[Boot, BackupLayout], Blocks]

ALL: dict[str, Sequence] = {
    "sequential": lambda boot, layout: sequences.sequential(layout),
    "allocated": lambda boot, layout: sequences.allocated(layout),
    "as_stored": lambda boot, layout: sequences.as_stored(layout),
    "by_file": lambda boot, layout: sequences.by_file(boot.manifests, layout),
    "boot blocks first": lambda boot, layout: sequences.first([75, 3, 250], sequences.allocated(layout)),
}


@pytest.fixture
def layout(tiny_boot: Boot) -> BackupLayout:
    return BackupLayout.full(tiny_boot.manifests, BLOCK_BYTES)


@pytest.mark.parametrize("name", ALL)
class TestContract:
    def test_every_stored_block_comes_once(self, name: str, tiny_boot: Boot, layout: BackupLayout) -> None:
        sequence = ALL[name](tiny_boot, layout)
        assert len(np.unique(sequence)) == len(sequence)
        assert set(np.flatnonzero(layout.address >= 0)) <= set(sequence)

    def test_a_restore_follows_it(self, name: str, tiny_boot: Boot, layout: BackupLayout) -> None:
        sequence = ALL[name](tiny_boot, layout)
        plan = RestorePlan(
            tiny_boot.disk_bytes,
            block_bytes=BLOCK_BYTES,
            relocation_sequence=sequence,
            relocation_start=RelocationStart("at_once"),
            relocation_request_bytes=BLOCK_BYTES,
        )
        events = simulate(tiny_boot, plan, "flash").events
        relocated = events.filter(events["kind"] == "relocated")["block"].to_list()
        assert relocated == [block for block in sequence.tolist() if layout.address[block] >= 0]


def test_as_stored_follows_the_medium(tiny_boot: Boot) -> None:
    layout = BackupLayout.full(tiny_boot.manifests, BLOCK_BYTES)
    assert (np.diff(layout.address[sequences.as_stored(layout)]) > 0).all()


def test_by_file_goes_by_path_and_within_a_file_by_position(tiny_boot: Boot, layout: BackupLayout) -> None:
    files = tiny_boot.manifest.blocks["file"].fill_null(-1).to_list()
    paths = tiny_boot.manifest.files["path"].to_list()
    units = BLOCK_BYTES // 4096
    seen: list[str] = []
    for block in sequences.by_file(tiny_boot.manifests, layout).tolist():
        names = [paths[file] for file in files[block * units : (block + 1) * units] if file >= 0]
        seen.append(min(names))
    assert seen == sorted(seen)
    kernel = [300 // units + part for part in range(96 // units)]
    order = sequences.by_file(tiny_boot.manifests, layout).tolist()
    assert order[order.index(kernel[0]) :][: len(kernel)] == kernel


def test_by_file_wants_the_manifests_of_the_layout(tiny_boot: Boot, layout: BackupLayout) -> None:
    with pytest.raises(PlanError, match="by_file: expected manifests of disks of"):
        sequences.by_file([*tiny_boot.manifests, tiny_boot.manifest], layout)


def test_first_leaves_out_what_the_rest_does_not_have(tiny_boot: Boot, layout: BackupLayout) -> None:
    rest = sequences.allocated(layout)
    hole = int(np.flatnonzero(layout.address < 0)[0])
    assert sequences.first([hole, int(rest[5])], rest).tolist() == [
        rest[5],
        *np.delete(rest, 5).tolist(),
    ]
