"""What boots read, on tiny SYNTHETIC machines and on the recorded ones."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest
from tiny_boots import MS, TINY_FILES

from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.corpus import Corpus
from vmrestorekit.traces.schema import ReadTrace
from vmrestorekit.traces.working_set import (
    BLOCKS_OF_A_BOOT,
    boot_blocks,
    first_touches,
    kernel_read,
    service_blocks,
    working_sets,
)


def test_blocks_of_a_boot_by_a_plain_loop(tiny_boot: Boot) -> None:
    content = tiny_boot.manifest.blocks["content"].to_list()
    where = {
        block: (path, block - first)
        for path, _, first, count in TINY_FILES
        for block in range(first, first + count)
    }
    read = {
        block
        for _, _, _, op, offset, length in tiny_boot.trace.frame.iter_rows()
        for block in range(offset // 4096, -(-(offset + length) // 4096))
        if op == "read" and content[block]
    }
    rows = boot_blocks(tiny_boot).rows()
    assert rows == [(0, block, content[block], *where[block]) for block in sorted(read)]


def test_reads_after_the_boot_was_done_do_not_count(tiny_boot: Boot) -> None:
    late = tiny_boot.trace.frame.with_columns(pl.col("issued_ns", "completed_ns") + 100_000_000)
    trace = ReadTrace(late, tiny_boot.metadata)
    moved = Boot.from_parts(trace, tiny_boot.manifests)
    assert 0 < boot_blocks(moved).height < boot_blocks(tiny_boot).height


def with_marks(boot: Boot, **marks: int) -> Boot:
    metadata = dataclasses.replace(boot.metadata, marks=marks)
    return Boot.from_parts(ReadTrace(boot.trace.frame, metadata), boot.manifests)


def blocks_by_a_plain_loop(boot: Boot, start: int, end: int) -> set[int]:
    content = boot.manifest.blocks["content"].to_list()
    return {
        block
        for issued, _, _, op, offset, length in boot.trace.frame.iter_rows()
        for block in range(offset // 4096, -(-(offset + length) // 4096))
        if op == "read" and start <= issued <= end and content[block]
    }


def test_the_service_phase_has_what_was_not_read_before_the_boot_was_done(tiny_boot: Boot) -> None:
    done, start, end = 100 * MS, 105 * MS, 147 * MS  # reads some blocks again, and goes on behind its end
    boot = with_marks(tiny_boot, boot_done_ns=done, service_start_ns=start, service_end_ns=end)
    booting = blocks_by_a_plain_loop(boot, 0, done)
    expected = blocks_by_a_plain_loop(boot, start, end) - booting
    assert 0 < len(expected) < len(blocks_by_a_plain_loop(boot, start, end))
    assert set(service_blocks(boot)["block"]) == expected
    assert set(boot_blocks(boot)["block"]) == booting
    assert service_blocks(boot).schema == boot_blocks(boot).schema == BLOCKS_OF_A_BOOT
    row = working_sets({"vm": RecordedVM("vm", {}, (boot,))}).row(0, named=True)
    assert row["service_mb"] == round(len(expected) * 4096 / 1e6, 1)
    assert row["distinct_mb"] == round(len(booting) * 4096 / 1e6, 1)


def test_without_a_service_phase_there_are_no_blocks_of_it(tiny_boot: Boot) -> None:
    assert service_blocks(tiny_boot).height == 0
    assert working_sets({"vm": RecordedVM("vm", {}, (tiny_boot,))})["service_mb"].to_list() == [None]


def test_blocks_on_a_second_disk(tiny_boot: Boot) -> None:
    disks = tiny_boot.disk_bytes * 2
    frame = tiny_boot.trace.frame.with_columns(disk=(pl.int_range(pl.len()) % 2).cast(pl.UInt8))
    trace = ReadTrace(frame, dataclasses.replace(tiny_boot.metadata, disk_bytes=disks))
    both = boot_blocks(Boot.from_parts(trace, tiny_boot.manifests * 2))
    assert both.equals(both.sort("disk", "block"))
    for disk in range(2):
        rows = frame.filter((pl.col("disk") == disk) | (pl.col("op") == "flush"))
        alone = ReadTrace(rows.with_columns(disk=pl.lit(0, pl.UInt8)), tiny_boot.metadata)
        expected = boot_blocks(Boot.from_parts(alone, tiny_boot.manifests)).drop("disk")
        assert both.filter(pl.col("disk") == disk).drop("disk").equals(expected)


def test_touches_are_in_order_of_the_first_read(tiny_boot: Boot) -> None:
    order: list[int] = []
    for _, _, _, op, offset, length in tiny_boot.trace.frame.iter_rows():
        blocks = range(offset // 4096, -(-(offset + length) // 4096))
        order += [block for block in blocks if op == "read" and block not in order]
    known = set(boot_blocks(tiny_boot)["block"])
    expected = [block for block in order if block in known]
    assert first_touches(tiny_boot).sort("touch")["block"].to_list() == expected
    assert expected != sorted(expected)


def kernels(boot: Boot, **paths: str) -> Boot:
    """The boot with files renamed: read are 96 blocks of the kernel, 24 of init, 40 of libc, 4 of a log."""
    names = {"kernel": "/boot/vmlinuz", "init": "/sbin/init", "library": "/lib/libc.so.6"}
    names["log"] = "/var/log/messages"
    renamed = pl.col("path").replace({names[key]: path for key, path in paths.items()})
    manifest = dataclasses.replace(boot.manifest, files=boot.manifest.files.with_columns(renamed))
    return Boot.from_parts(boot.trace, [manifest])


@pytest.mark.parametrize(
    ("paths", "kernel"),
    [
        ({}, ""),  # its name has no version
        ({"kernel": "/boot/vmlinuz-6.1.0-50-amd64"}, "6.1.0-50-amd64"),
        # on a file system of its own, mounted at /boot
        ({"kernel": "/vmlinuz-6.12.95+deb12-cloud-amd64"}, "6.12.95+deb12-cloud-amd64"),
        # a boot loader may look into others
        ({"kernel": "/boot/vmlinuz-5.10", "library": "/boot/vmlinuz-6.1", "log": "/vmlinuz-4.19"}, "5.10"),
        ({"init": "/boot/vmlinuz-6.1", "library": "/boot/vmlinuz-5.10"}, "5.10"),
        ({"init": "/boot/vmlinuz-6.1-a", "kernel": "/boot/initrd.img-6.12"}, "6.1-a"),
        # none of these is a kernel
        ({"kernel": "/boot/vmlinuz-6.1/readme", "init": "/boot/old-vmlinuz-6.1", "log": "/vmlinuz-"}, ""),
    ],
)
def test_the_kernel_that_a_boot_read_by_the_name_of_its_file(
    tiny_boot: Boot, paths: dict[str, str], kernel: str
) -> None:
    assert kernel_read(kernels(tiny_boot, **paths)) == kernel


def test_a_kernel_that_was_not_read_until_the_boot_was_done_is_not_the_one(tiny_boot: Boot) -> None:
    boot = kernels(tiny_boot, kernel="/boot/vmlinuz-6.1", log="/boot/vmlinuz-6.12")
    assert kernel_read(with_marks(boot, boot_done_ns=9 * MS)) == ""
    assert kernel_read(with_marks(boot, boot_done_ns=12 * MS)) == "6.1"


def test_the_recorded_machines(packaged_corpus: Corpus) -> None:
    sets = working_sets(packaged_corpus)
    assert sets.select("vm", "boot").rows() == [
        (name, vm.boots[-1].boot) for name, vm in packaged_corpus.items()
    ]
    assert sets["share"].is_between(1, 60).all()
    # nothing large is left in memory
    assert not any("manifests" in vars(boot) for boot in packaged_corpus.recordings)
