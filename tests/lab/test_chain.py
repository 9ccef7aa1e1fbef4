"""A chain of copies of the disk between boots: each is checked by others' programs, and its layout saved."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from lab_helpers import need

from vmrestorekit.backup import load_layouts
from vmrestorekit.backup.copy_layout import LAYOUTS_FILE
from vmrestorekit.backup.manifest import build_manifest
from vmrestorekit.lab.programs import LabError, find_program, run
from vmrestorekit.lab.recording.chain import back_up_chain
from vmrestorekit.traces.corpus import add_boot
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

MIB = 1 << 20


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """An image, two later states of its disk where `record_boots` leaves them, and a corpus."""
    need("mke2fs", "debugfs", "e2fsck", "qemu-img")
    image, boots = tmp_path / "small.img", tmp_path / "small.img.boots"
    random = np.random.default_rng(5)
    with open(image, "wb") as file:
        file.truncate(24 * MIB)
    run([find_program("mke2fs"), "-q", "-F", "-t", "ext4", image])
    boots.mkdir()
    before = image
    for boot in (2, 3):
        after = boots / f"before-boot-{boot}.img"
        shutil.copy(before, after)
        note = tmp_path / f"note-{boot}"
        note.write_bytes(random.bytes(300_000))
        run([find_program("debugfs"), "-w", "-R", f"write {note} note-{boot}", after])
        before = after
    record_pretended_boots(image, boots, tmp_path / "corpus")
    return image


def record_pretended_boots(image: Path, boots: Path, corpus: Path) -> None:
    """Add three boots without a request, and what `record_boots` leaves of the two before the last."""
    for number in (1, 2, 3):
        metadata = TraceMetadata(
            "small", f"boot-{number}", (24 * MIB,), {"boot_done_ns": 1}, "none", "none", {}
        )
        trace = ReadTrace(pl.DataFrame(schema=TRACE_SCHEMA), metadata)
        state = image if number == 1 else boots / f"before-boot-{number}.img"
        add_boot(corpus, trace, [build_manifest(state)], {})


def test_the_layouts_of_a_chain(recorded: Path, tmp_path: Path) -> None:
    path = back_up_chain(recorded, tmp_path / "corpus")
    layouts = load_layouts(path)
    boots, lengths = ["boot-1", "boot-2", "boot-3"], ["length 2", "length 1", "length 0"]
    assert list(layouts) == [*boots, "synthetic full", *lengths, "in frames"]
    assert [len(np.unique(layouts[name].chunk[layouts[name].chunk >= 0])) for name in boots] == [1, 2, 3]
    np.testing.assert_array_equal(layouts["boot-3"].address, layouts["length 2"].address)
    for name in ("synthetic full", *lengths, "in frames"):
        np.testing.assert_array_equal(layouts[name].hole, layouts["boot-3"].hole)
    assert len(np.unique(layouts["length 0"].chunk[~layouts["length 0"].hole])) == 1
    assert layouts["in frames"].read_together() is not None
    assert layouts["length 2"].read_together() is None
    # no contents stay behind
    assert not (tmp_path / "small.img.boots" / "stores").exists()


def crash(disk: Path, before: Path) -> None:
    """Make a disk as a crash leaves it: what was last written to a bitmap is in the journal only."""
    told = re.search(r"inode bitmap at (\d+)", run([find_program("debugfs"), "-R", "stats", disk]))
    assert told is not None
    block, block_bytes = int(told[1]), 1024
    where = slice(block * block_bytes, (block + 1) * block_bytes)
    written, commands = disk.with_name("written"), disk.with_name("commands")
    written.write_bytes(disk.read_bytes()[where])
    commands.write_text(f"journal_open\njournal_write -b {block} {written}\njournal_close\n")
    run([find_program("debugfs"), "-w", "-f", commands, disk])
    old = before.read_bytes()[where]
    assert old != written.read_bytes()
    with open(disk, "r+b") as file:
        file.seek(where.start)
        file.write(old)
    with pytest.raises(LabError, match="e2fsck"):  # without the journal it is not in order
        run([find_program("e2fsck"), "-f", "-n", disk])


def test_a_disk_after_a_crash_is_in_order_once_its_journal_was_replayed(
    recorded: Path, tmp_path: Path
) -> None:
    boots = tmp_path / "small.img.boots"
    last = boots / "before-boot-3.img"
    crash(last, boots / "before-boot-2.img")
    crashed = last.read_bytes()
    layouts = load_layouts(back_up_chain(recorded, tmp_path / "corpus"))
    assert list(layouts)[:3] == ["boot-1", "boot-2", "boot-3"]
    # what is backed up is the disk as the crash left it
    assert last.read_bytes() == crashed


@pytest.mark.parametrize("crashes", [False, True], ids=["clean", "with a journal to replay"])
def test_a_file_system_that_is_not_in_order_stops_it(recorded: Path, tmp_path: Path, crashes: bool) -> None:
    last = tmp_path / "small.img.boots" / "before-boot-3.img"
    run([find_program("debugfs"), "-w", "-R", "clri note-3", last])
    if crashes:
        crash(last, last.with_name("before-boot-2.img"))
    with pytest.raises(LabError, match="e2fsck"):
        back_up_chain(recorded, tmp_path / "corpus")
    assert not (tmp_path / "corpus" / "small" / LAYOUTS_FILE).exists()
    assert not (tmp_path / "small.img.boots" / "stores").exists()


def test_a_machine_without_recorded_boots(tmp_path: Path) -> None:
    image = tmp_path / "small.img"
    image.write_bytes(bytes(MIB))
    need("e2fsck", "qemu-img")
    with pytest.raises(LabError, match="expected at least two recorded boots of small"):
        back_up_chain(image, tmp_path / "corpus")
