"""Disks are written so that programs of others read from them what was meant to be there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_helpers import need

from vmrestorekit.lab.guests.disks import disk_paths, split_volumes, write_disks
from vmrestorekit.lab.guests.lvm import volume_group_header
from vmrestorekit.lab.guests.placement import (
    EXTENT_BYTES,
    PARTITION_START,
    partitions,
    place_groups,
    place_volumes,
)
from vmrestorekit.lab.guests.spec import GuestSpec, SpecError
from vmrestorekit.lab.programs import LabError, find_program, run

MIB, GIB = 1 << 20, 1 << 30
GOOD = {"name": "a-guest", "release": "bookworm", "size": "1 GiB"}


def spec_of(*volumes: Mapping[str, Any], **more: Any) -> GuestSpec:
    return GuestSpec.from_table(GOOD | {"volumes": list(volumes)} | more)


# --- where volumes lie --------------------------------------------------------------------------------


def test_partitions_logical_volumes_and_a_disk_used_whole() -> None:
    spec = spec_of(
        {"mount": "/boot", "size": "200 MiB"},
        {"mount": "/", "group": "vg0", "size": "301 MiB"},
        {"mount": "/var/lib/db-1", "group": "vg0"},
        {"mount": "/srv", "disk": 1, "file_system": "xfs"},
        data_disks=["512 MiB"],
    )
    placed = {each.volume.mount: each for each in place_volumes(spec)}
    assert {mount: each.device for mount, each in placed.items()} == {
        "/boot": "/dev/vda1",
        "/": "/dev/mapper/vg0-root",
        "/var/lib/db-1": "/dev/mapper/vg0-var_lib_db_1",
        "/srv": "/dev/vdb",
    }
    group_start = PARTITION_START + 200 * MIB
    assert partitions(spec, 0) == [
        (PARTITION_START, 200 * MIB, "ext4"),
        (group_start, GIB - group_start, "lvm"),
    ]
    assert partitions(spec, 1) == []
    assert placed["/"].start_bytes == group_start + MIB
    assert placed["/"].length_bytes == 304 * MIB  # whole extents
    assert placed["/var/lib/db-1"].start_bytes == group_start + 305 * MIB
    (group,) = place_groups(spec)
    assert group.volumes == (
        ("root", 0, 76),
        ("var_lib_db_1", 76, (GIB - group_start - MIB) // EXTENT_BYTES - 76),
    )


@given(
    st.lists(st.tuples(st.integers(64, 300), st.sampled_from(["", "vg0", "vg1"])), max_size=4),
    st.booleans(),
)
def test_volumes_never_overlap_and_stay_on_their_disk(sizes: list[tuple[int, str]], rest: bool) -> None:
    volumes: list[dict[str, Any]] = [{"mount": "/", "size": "100 MiB"}]
    volumes += [
        {"mount": f"/data-{number}", "size": f"{size} MiB", "group": group}
        for number, (size, group) in enumerate(sizes)
    ]
    volumes += [{"mount": "/rest"}] if rest else []
    spec = spec_of(*volumes, size="2 GiB")
    placed = sorted(place_volumes(spec), key=lambda each: each.start_bytes)
    end = PARTITION_START
    for each in placed:
        assert each.start_bytes >= end
        assert each.length_bytes >= each.volume.size_bytes
        end = each.start_bytes + each.length_bytes
    assert end <= 2 * GIB
    assert (end == 2 * GIB) or not rest or placed[-1].volume.mount != "/rest"
    assert len({each.device for each in placed}) == len(placed)


def test_two_that_want_the_rest() -> None:
    with pytest.raises(SpecError, match=r"a-guest: disk 0: expected volumes that fit, one of them without"):
        place_volumes(spec_of({"mount": "/"}, {"mount": "/srv"}))


# --- what is on them ----------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root directory with what makes file systems work: links, devices, rights, a name with a blank."""
    if os.geteuid() != 0:
        pytest.skip("needs root rights, as building a guest does")
    root = tmp_path / "tree"
    for folder in ("boot/grub", "bin", "srv/share", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    (root / "boot/vmlinuz").write_bytes(os.urandom(300_000))
    (root / "bin/tool").write_bytes(os.urandom(10_000))
    (root / "bin/tool").chmod(0o4755)
    (root / "bin/link").symlink_to("tool")
    (root / "bin/same").hardlink_to(root / "bin/tool")
    os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(root / "dev/pipe")
    (root / "tmp").chmod(0o1777)
    (root / "srv").chmod(0o750)
    (root / "srv/share/a name with blanks").write_text("left out by mkfs.xfs")
    (root / "srv/share/empty").touch()
    (root / "srv/share/owned").write_bytes(b"x" * 5000)
    os.chown(root / "srv/share/owned", 33, 34)
    return root


def test_a_volume_is_split_off_and_leaves_a_place_to_mount_it(tree: Path) -> None:
    (tree / "srv/share/inner").mkdir()
    trees = split_volumes(tree, ["/", "swap", "/srv", "/srv/share", "/opt/new"])
    assert trees.keys() == {"/", "/srv", "/srv/share", "/opt/new"}
    assert (trees["/srv/share"] / "owned").stat().st_uid == 33
    assert list((trees["/srv"] / "share").iterdir()) == []
    assert list((tree / "srv").iterdir()) == []
    assert stat.S_IMODE((tree / "srv").stat().st_mode) == 0o750
    assert list((tree / "opt/new").iterdir()) == []


def written(tmp_path: Path, spec: GuestSpec, tree: Path) -> list[Path]:
    disks = disk_paths(tmp_path / "a.img", len(spec.disk_bytes))
    trees = split_volumes(tree, [volume.mount for volume in spec.volumes])
    code = (b"\xeb" + bytes(509) + b"\x55\xaa", b"core" * 1000)
    write_disks(spec, trees, code, disks, tmp_path, tmp_path / "log")
    return disks


def test_ext4_xfs_btrfs_and_swap_as_others_see_them(tree: Path, tmp_path: Path) -> None:
    need("mke2fs", "mkfs.xfs", "mkfs.btrfs", "mkswap", "sfdisk", "e2fsck", "debugfs", "xfs_repair", "blkid")
    tool, kernel = (tree / "bin/tool").read_bytes(), (tree / "boot/vmlinuz").read_bytes()
    spec = spec_of(
        {"mount": "/boot", "size": "64 MiB"},
        {"mount": "/", "file_system": "xfs", "size": "400 MiB"},
        {"mount": "swap", "size": "64 MiB"},
        {"mount": "/srv", "file_system": "btrfs", "disk": 1},
        data_disks=["256 MiB"],
    )
    system, data = written(tmp_path, spec, tree)
    assert (system.stat().st_size, data.stat().st_size) == (GIB, 256 * MIB)
    assert system.stat().st_blocks * 512 < 100 * MIB  # sparse
    table = json.loads(run(["sfdisk", "--json", system]))["partitiontable"]
    assert [part["type"] for part in table["partitions"]] == ["83", "83", "82"]
    assert table["partitions"][0]["bootable"]
    assert system.read_bytes()[512:4512] == b"core" * 1000

    parts = {}
    for placed in place_volumes(spec):
        part = parts[placed.volume.mount] = tmp_path / f"part-{placed.volume.mount.strip('/') or 'root'}"
        with open((system, data)[placed.volume.disk], "rb") as disk, open(part, "wb") as out:
            disk.seek(placed.start_bytes)
            out.write(disk.read(placed.length_bytes))
    kinds = {
        mount: run(["blkid", "-p", "-o", "value", "-s", "TYPE", part]).strip()
        for mount, part in parts.items()
    }
    assert kinds == {"/boot": "ext4", "/": "xfs", "swap": "swap", "/srv": "btrfs"}
    run(["e2fsck", "-f", "-n", parts["/boot"]])
    run(["debugfs", "-R", f"dump /vmlinuz {tmp_path / 'kernel'}", parts["/boot"]])
    assert (tmp_path / "kernel").read_bytes() == kernel
    run(["xfs_repair", "-n", "-f", parts["/"]])
    run(["btrfs", "check", parts["/srv"]])
    restored = tmp_path / "restored"
    restored.mkdir()
    run(["btrfs", "restore", parts["/srv"], restored])
    assert (restored / "share/owned").read_bytes() == b"x" * 5000
    expect_in_xfs(parts["/"], tool)


def expect_in_xfs(part: Path, tool: bytes) -> None:
    """Ask xfs_db, which knows no files by their paths before version 6.2, for the entries of the folders."""
    listed = run(["xfs_db", "-r", "-f", "-c", "blockget -n", "-c", "ncheck", part])
    names = {line.split(maxsplit=1)[1] for line in listed.splitlines() if line.split()[0].isdigit()}
    assert {"bin/tool", "bin/link", "bin/same", "dev/null", "dev/pipe"} <= names
    (inode,) = (line.split()[0] for line in listed.splitlines() if line.endswith(" bin/tool"))
    shown = run(["xfs_db", "-r", "-f", "-c", f"inode {inode}", "-c", "p core.mode core.size", part])
    assert "core.mode = 0104755" in shown
    assert f"core.size = {len(tool)}" in shown


def test_lvm_s_own_tools_read_the_volume_group(tmp_path: Path) -> None:
    need("pvck")
    spec = spec_of({"mount": "/boot", "size": "64 MiB"}, {"mount": "/", "group": "vg0"})
    (group,) = place_groups(spec)
    physical = tmp_path / "pv"
    with open(physical, "wb") as stream:
        stream.truncate(group.length_bytes)
        stream.write(volume_group_header(group, uuid.uuid4()))
    attached = subprocess.run(
        [find_program("losetup") or "losetup", "--find", "--show", str(physical)],
        capture_output=True,
        text=True,
        check=False,
    )
    if attached.returncode:
        pytest.skip(f"LVM's tools want a block device: {attached.stderr}")
    device = attached.stdout.strip()
    try:
        report = ["--reportformat", "json", "--devices", device]
        said = run(["pvs", *report, "-o", "vg_name,pv_size,pv_free", "--units", "b"])
        volumes = run(["lvs", *report, "-o", "lv_name,lv_size", "--units", "b"])
    finally:
        run(["losetup", "--detach", device])
    assert "WARNING" not in said
    (found,) = _rows(said, "pv")
    assert found["vg_name"] == "vg0"
    assert found["pv_free"] == "0B"
    (volume,) = _rows(volumes, "lv")
    assert volume == {"lv_name": "root", "lv_size": f"{group.volumes[0][2] * EXTENT_BYTES}B"}


def _rows(said: str, kind: str) -> list[dict[str, str]]:
    """Take the report out of what the tool said; it may complain of things before and after."""
    report = json.loads(said[said.index("{") : said.rindex("}") + 1])["report"][0][kind]
    return list(report)


@settings(max_examples=20)
@given(st.integers(64, 900), st.integers(0, 2**64 - 1))
def test_the_header_is_one_megabyte_and_the_same_for_the_same_identity(size: int, number: int) -> None:
    spec = spec_of(
        {"mount": "/boot", "size": "64 MiB"}, {"mount": "/", "group": "vg0", "size": f"{size} MiB"}
    )
    (group,) = place_groups(spec)
    header = volume_group_header(group, uuid.UUID(int=number))
    assert len(header) == MIB
    assert header == volume_group_header(group, uuid.UUID(int=number))
    assert header[512:520] == b"LABELONE"


def test_a_boot_loader_that_is_too_large(tree: Path, tmp_path: Path) -> None:
    need("mke2fs", "sfdisk")
    code = (bytes(512), bytes(PARTITION_START))
    with pytest.raises(LabError, match="expected GRUB's core to fit in front of the partition, got 1048576"):
        write_disks(
            spec_of({"mount": "/"}), {"/": tree}, code, [tmp_path / "a.img"], tmp_path, tmp_path / "log"
        )
