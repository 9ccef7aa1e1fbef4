"""A real virtual machine boots through our server and is recorded; independent clients read what it left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path

import polars as pl
import pytest
from lab_helpers import need, serving, uri
from tiny_guest import DISK_BYTES, MARK, TinyGuest, build_tiny_guest

from vmrestorekit.backup import BackupStore, CopyContents, create_copy, export_copy, verify_store
from vmrestorekit.lab.programs import LabError, run
from vmrestorekit.lab.qemu import qemu_version
from vmrestorekit.lab.recording.machine import record_boot
from vmrestorekit.lab.recording.overlay import Overlay
from vmrestorekit.traces.schema import ReadTrace

pytestmark = pytest.mark.realvm


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> TinyGuest:
    need("qemu-system-x86_64", "mke2fs", "busybox", "dpkg-deb", "apt-get")
    need("nbdcopy", "nbdinfo", "qemu-img")
    try:
        return build_tiny_guest(
            tmp_path_factory.mktemp("tiny"), request.config.cache.mkdir("kernel-packages")
        )
    except (LabError, StopIteration, subprocess.SubprocessError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"this machine's apt has no kernel package linux-image-cloud-amd64: {error}")


def record(guest: TinyGuest, writes: Path, console: Path) -> ReadTrace:
    with Overlay(guest.image, writes) as disk:
        trace = asyncio.run(
            record_boot(
                *([disk], "tiny", "boot-1"),
                accelerator="tcg",
                console_log=console,
                versions={"qemu": qemu_version(), "kernel": guest.kernel_version},
                boot_done_line=MARK,
                after_boot_s=1.0,
                timeout_s=120,
                extra=guest.qemu_options,
            )
        )
        disk.save()
    return trace


def test_a_machine_boots_through_the_server_and_is_recorded(guest: TinyGuest, tmp_path: Path) -> None:
    before = guest.image.read_bytes()
    trace = record(guest, tmp_path / "writes", tmp_path / "console.log")

    # what the guest says it read is what is on the disk
    console = (tmp_path / "console.log").read_text(errors="replace")
    assert dict(reversed(pair) for pair in re.findall(r"([0-9a-f]{32})  (file-\d)", console)) == guest.sums

    # the trace is valid, complete and in time
    trace.save(tmp_path / "trace.parquet")
    frame = ReadTrace.load(tmp_path / "trace.parquet").frame
    reads = frame.filter(pl.col("op") == "read")
    blocks = {
        block
        for offset, length in reads.select("offset", "length").iter_rows()
        for block in range(offset // 4096, -(-(offset + length) // 4096))
    }
    files = sum(-(-path.stat().st_size // 4096) for path in (guest.image.parent / "content").iterdir())
    assert files <= len(blocks) <= DISK_BYTES // 4096
    superblock = 1024
    assert any(
        offset <= superblock < offset + length for offset, length in reads.select("offset", "length").rows()
    )
    assert {"read", "write", "flush"} <= set(frame["op"].unique())
    done_ns = trace.metadata.marks["boot_done_ns"]
    assert 0 < reads["issued_ns"].max() < done_ns
    assert frame["issued_ns"].max() < done_ns + 1_000_000_000

    # the image is untouched, and what independent clients read is the disk with the guest's writes
    assert guest.image.read_bytes() == before
    with Overlay(guest.image, tmp_path / "writes") as disk:
        assert disk.written_bytes > 0
        after = tmp_path / "after.img"
        disk.apply(after)
        with serving({"tiny": disk}) as path:
            run(["nbdcopy", uri(path, "tiny"), tmp_path / "copy"], timeout_s=60)
            compared = run(["qemu-img", "compare", "-f", "raw", "-F", "raw", after, uri(path, "tiny")])
    assert "identical" in compared
    assert (tmp_path / "copy").read_bytes() == after.read_bytes() != before
    assert "written by the guest" in run(["debugfs", "-R", "cat /note", after])
    assert run(["e2fsck", "-f", "-n", after])  # fails, and with it the test, if the file system is not clean
    expect_backups_are_the_disks(guest.image, after, tmp_path)


def expect_backups_are_the_disks(before: Path, after: Path, folder: Path) -> None:
    """Back the machine up before and after its boot, raw and as QCOW2; what QEMU compares is identical."""
    with BackupStore.create(folder / "store") as store:
        for kind, disk in (("full", before), ("incremental", after)):
            converted = folder / f"{kind}.qcow2"
            run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, converted])
            create_copy(store, "tiny", [converted], kind=kind)
            create_copy(store, "raw", [disk], kind=kind)
        assert store.copies()[-1].counts["new_blocks"] == 0  # the same contents in another format
        for number, disk in enumerate((before, before, after, after), 1):
            exported = folder / f"exported-{number}.img"
            export_copy(store, number, exported)
            assert "identical" in run(["qemu-img", "compare", "-f", "raw", "-F", "raw", disk, exported])
            assert run(["e2fsck", "-f", "-n", exported])
        with CopyContents(store, 3) as contents:
            assert b"".join(contents.read("/note")) == b"written by the guest\n"
        assert verify_store(store) == []


def test_independent_clients_read_the_image_byte_for_byte(guest: TinyGuest, tmp_path: Path) -> None:
    with Overlay(guest.image, tmp_path / "writes") as disk, serving({"tiny": disk}) as path:
        run(["nbdcopy", uri(path, "tiny"), tmp_path / "copy"], timeout_s=60)
        compared = run(
            ["qemu-img", "compare", "-s", "-f", "raw", "-F", "raw", guest.image, uri(path, "tiny")]
        )
        told = json.loads(run(["nbdinfo", "--json", uri(path, "tiny")]))["exports"][0]
    assert (tmp_path / "copy").read_bytes() == guest.image.read_bytes()
    assert "identical" in compared
    assert told["export-size"] == DISK_BYTES
    assert not told["is_read_only"]
