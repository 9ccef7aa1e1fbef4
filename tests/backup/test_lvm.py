"""Logical volumes: of metadata written by hand, which pvck of lvm2 reads, too, and of lvm2's own."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from file_system_helpers import MemoryImage, check_against_tree, find, loop_device, make_tree, through_extents
from store_helpers import MIB, need, run

from vmrestorekit.backup.images import RawImage
from vmrestorekit.backup.lvm import LogicalVolume, logical_volumes
from vmrestorekit.backup.manifest import build_manifest
from vmrestorekit.backup.volume import Volume

EXTENT = 4 * MIB
Segment = tuple[int, int, str]  # first extent, number of extents, lines that say where
IDENTIFIERS = {"pv0": "a" * 32, "pv1": "b" * 32}


def checksum(data: bytes) -> int:
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def dashed(identifier: str) -> str:
    return "-".join(re.fullmatch("(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})", identifier).groups())


def linear(start: int, count: int, at: int, physical: str = "pv0") -> Segment:
    return start, count, f'type = "striped"\nstripe_count = 1\nstripes = ["{physical}", {at}]\n'


def describe(volumes: dict[str, list[Segment]], seqno: int = 1, status: str = '"READ", "VISIBLE"') -> str:
    physical = "".join(
        f'{name} {{\nid = "{dashed(identifier)}"\npe_start = 2048\npe_count = 30\n}}\n'
        for name, identifier in IDENTIFIERS.items()
    )
    logical = ""
    for name, segments in volumes.items():
        logical += f"{name} {{\nstatus = [{status}]\nsegment_count = {len(segments)}\n"
        for number, (start, count, where) in enumerate(segments, 1):
            logical += f"segment{number} {{\nstart_extent = {start}\nextent_count = {count}\n{where}}}\n"
        logical += "}\n"
    return (
        f'vg {{ # a comment with a "quote and a {{\nid = "{dashed("c" * 32)}"\nseqno = {seqno}\n'
        f"extent_size = {EXTENT // 512}\nphysical_volumes {{\n{physical}}}\nlogical_volumes {{\n{logical}}}\n"
        f'}}\ndescription = "a \\"word\\" }}"\nversion = 1\n'
    )


def physical_volume(
    size: int, text: str, name: str = "pv0", text_at: int = 512, sector: int = 1
) -> bytearray:
    """A physical volume whose text begins at a byte of the metadata area, and may go round in it."""
    data = bytearray(size)
    area, area_bytes = 4096, MIB - 4096
    body = IDENTIFIERS[name].encode() + struct.pack("<Q", size)
    body += struct.pack("<QQQQ", MIB, 0, 0, 0) + struct.pack("<QQQQ", area, area_bytes, 0, 0)
    label = (struct.pack("<I8s", 32, b"LVM2 001") + body).ljust(512 - 20, b"\0")
    data[512 * sector : 512 * sector + 512] = (
        struct.pack("<8sQI", b"LABELONE", sector, checksum(label)) + label
    )
    raw = text.encode() + b"\0"
    header = b" LVM2 x[5A%r0N*>" + struct.pack("<IQQ", 1, area, area_bytes)
    header = (header + struct.pack("<QQII", text_at, len(raw), checksum(raw), 0)).ljust(508, b"\0")
    data[area : area + 512] = struct.pack("<I", checksum(header)) + header
    first = min(len(raw), area_bytes - text_at)
    data[area + text_at : area + text_at + first] = raw[:first]
    data[area + 512 : area + 512 + len(raw) - first] = raw[first:]
    return data


def places(data: bytes | bytearray) -> dict[str, list[tuple[int, int]]]:
    disk = MemoryImage(data)
    return by_name(logical_volumes(disk, {2: Volume(disk, [(0, disk.size)])}))


def by_name(found: list[LogicalVolume]) -> dict[str, list[tuple[int, int]]]:
    return {each.name: list(each.volume.places(0, each.volume.size)) for each in found}


def ext4(folder: Path, name: str, size: int, many: int = 50) -> tuple[Path, Path]:
    """A tree, and an ext4 file system with it."""
    root, part = folder / f"{name}.root", folder / f"{name}.part"
    make_tree(root, seed=len(name), many=many)
    part.write_bytes(bytes(size))
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", root, part)
    return root, part


def put(disk: bytearray, part: Path, where: list[tuple[int, int]]) -> None:
    """Write a file system into the pieces (offset, length) of a disk."""
    data, position = part.read_bytes(), 0
    for start, length in where:
        disk[start : start + length] = data[position : position + length]
        position += length


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """/boot on partition 1; on partition 2 a root in three segments out of order, a smaller volume, swap."""
    need("sfdisk", "mke2fs")
    folder = tmp_path_factory.mktemp("lvm")
    roots = {}
    boot, image = 9 * MIB, folder / "disk.img"
    image.write_bytes(bytes(boot + 90 * MIB))
    run("sfdisk", "-q", image, stdin=f"label: gpt\nstart=2048, size={8 * 2048}\nstart={9 * 2048}\n")
    data = bytearray(image.read_bytes())
    roots["@1"], part = ext4(folder, "boot", 8 * MIB, many=5)
    put(data, part, [(MIB, 8 * MIB)])
    volumes = {
        "root": [linear(5, 2, 0), linear(0, 5, 9), linear(7, 1, 6)],
        "var": [linear(0, 3, 2)],
        "swap": [linear(0, 1, 5)],
    }
    begin = boot + MIB
    physical = physical_volume(len(data) - boot - 34 * 512, describe(volumes), text_at=MIB - 4096 - 700)
    data[boot : boot + len(physical)] = physical
    roots[""], part = ext4(folder, "root", 8 * EXTENT)
    put(data, part, [(begin + at * EXTENT, n * EXTENT) for at, n in ((9, 5), (0, 2), (6, 1))])
    roots["@2-var"], part = ext4(folder, "var", 3 * EXTENT)
    put(data, part, [(begin + 2 * EXTENT, 3 * EXTENT)])
    image.write_bytes(data)
    return {"image": image, **roots}


@pytest.mark.parametrize("mark", ["", "@1", "@2-var"])
def test_every_file_of_every_volume_is_found_and_read(disk: dict[str, Path], mark: str) -> None:
    found = check_against_tree(disk["image"], disk[mark], mark)
    assert [(row["partition"], row["file_system"]) for row in found.partitions] == [(1, "ext4"), (2, "lvm2")]
    assert found.readable == {1, 2}
    for path in disk[mark].rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = f"{mark}/{path.relative_to(disk[mark])}"
            assert through_extents(disk["image"], found, name) == path.read_bytes(), name


def test_an_extent_that_crosses_segments_is_split(disk: dict[str, Path]) -> None:
    found = find(disk["image"])
    begin = 10 * MIB
    segments = [
        (begin + at * EXTENT, begin + (at + n) * EXTENT) for at, n in ((9, 5), (0, 2), (6, 1), (2, 3))
    ]
    assert all(
        sum(start <= first and first + length <= end for start, end in segments) == 1
        for file in found.files
        if file.partition == 2
        for first, length in [*((at, n) for at, n, _ in file.extents), *file.reached_by]
    )
    names = {file.path for file in found.files}
    assert {"$superblock", "$superblock@1", "$superblock@2-var", "$journal@2-var"} <= names
    manifest = build_manifest(disk["image"])
    assert {"/deep/er/é ü.txt", "@2-var/deep", "@1/deep"} <= set(manifest.files["path"])


def test_pvck_reads_the_same(disk: dict[str, Path], tmp_path: Path) -> None:
    """What is written here by hand is what lvm2 reads, too."""
    need("pvck")
    part = tmp_path / "part"
    part.write_bytes(disk["image"].read_bytes()[9 * MIB :])
    told = run("pvck", "--dump", "headers", part, LVM_SUPPRESS_FD_WARNINGS="1")
    assert "vgname vg seqno 1" in told
    assert re.search(r"CHECK|invalid|should be", told) is None, told


def test_stripes() -> None:
    where = 'type = "striped"\nstripe_count = 2\nstripe_size = 128\nstripes = [\n"pv0", 3,\n"pv0", 8\n]\n'
    found = places(physical_volume(60 * MIB, describe({"data": [(0, 2, where)]})))
    expected = [
        (MIB + at * EXTENT + row * 65_536, 65_536) for row in range(EXTENT // 65_536) for at in (3, 8)
    ]
    assert found == {"data": expected}


@pytest.mark.parametrize("sector", range(4))
def test_the_label_may_be_in_any_of_four_sectors(sector: int) -> None:
    data = physical_volume(20 * MIB, describe({"root": [linear(0, 2, 1)]}), sector=sector)
    assert places(data) == {"root": [(MIB + EXTENT, 2 * EXTENT)]}


def test_two_physical_volumes_on_one_disk_and_the_newer_text_counts(tmp_path: Path) -> None:
    new = describe({"root": [linear(0, 2, 1), linear(2, 1, 0, "pv1")]}, seqno=12)
    old = describe({"root": [linear(0, 2, 1)]}, seqno=9)
    image = tmp_path / "disk.img"
    image.write_bytes(physical_volume(20 * MIB, old) + physical_volume(20 * MIB, new, "pv1"))
    with RawImage(image) as disk:
        partitions = {number: Volume(disk, [(number * 20 * MIB, 20 * MIB)]) for number in (0, 1)}
        found = logical_volumes(disk, partitions)
        assert by_name(found) == {"root": [(MIB + EXTENT, 2 * EXTENT), (21 * MIB, EXTENT)]}
        assert found[0].partition == 0
        found = logical_volumes(disk, {0: partitions[0]})  # the other one is missing
        assert by_name(found) == {"root": [(MIB + EXTENT, 2 * EXTENT)]}


@pytest.mark.parametrize(
    "segments",
    [
        [linear(0, 1, 0), linear(1, 1, 0, "pv1")],  # on a disk that is not here
        [linear(0, 1, 0), linear(1, 1, 0, "pv7")],
        [(0, 1, 'type = "thin"\ntransaction_id = 1\n')],
        [(0, 1, 'type = "striped"\nstripe_count = 2\nstripe_size = 0\nstripes = ["pv0", 0, "pv0", 1]\n')],
        [(0, 1, 'type = "striped"\nstripe_count = 1\nstripes = ["pv0"]\n')],
        [(0, 1, 'type = "striped"\nstripe_count = 1\nstripes = "pv0"\n')],
        [(0, 1, 'type = "striped"\nstripe_count = 1\nstripes = ["pv0", "pv0"]\n')],
        [linear(0, 0, 0)],
        [linear(0, 1, 0), linear(2, 1, 1)],  # a gap
        [linear(0, 10**15, 0)],  # beyond the end
        [],
    ],
)
def test_a_volume_that_cannot_be_read_is_left_out(segments: list[Segment]) -> None:
    text = describe({"bad": segments, "good": [linear(0, 1, 2)]})
    assert places(physical_volume(20 * MIB, text)) == {"good": [(MIB + 2 * EXTENT, EXTENT)]}


def test_parts_of_other_volumes_are_left_out() -> None:
    text = describe({"root_rimage_0": [linear(0, 1, 2)]}, status='"READ"')
    assert places(physical_volume(20 * MIB, text)) == {}


@pytest.mark.parametrize(
    "text",
    ["", "vg {", "vg = 3", "vg { id = 3 }", "a {" * 5_000, '"', "vg [ ] ,", "vg { id = [", "\0" * 100],
)
def test_text_that_is_damaged_gives_no_volumes(text: str) -> None:
    assert places(physical_volume(8 * MIB, text)) == {}


def test_no_changed_byte_of_the_headers_does_harm() -> None:
    good = physical_volume(8 * MIB, describe({"root": [linear(0, 1, 0)]}))
    expected = places(good)
    assert expected
    for at in [*range(512, 700), *range(4096, 4096 + 80), *range(4608, 4608 + 900, 7)]:
        data = bytearray(good)
        data[at] ^= 0x5A
        assert places(data) in ({}, expected), at


def test_volumes_that_lvm_made(tmp_path: Path) -> None:
    """Without a device mapper lvm2 still writes its metadata; lvs tells where its segments are."""
    need("vgcreate", "losetup", "mke2fs")
    image = tmp_path / "pv.img"
    image.write_bytes(bytes(120 * MIB))
    with loop_device(image) as device:
        settings = (
            f'devices {{ use_devicesfile=0 filter=["a|{device}|","r|.*|"] }} activation {{ monitoring=0 }} '
            "global { locking_type=1 } backup { backup=0 archive=0 }"
        )

        def lvm(*command: str) -> str:
            return run(command[0], "--driverloaded", "n", "--config", settings, *command[1:])

        try:
            lvm("pvcreate", device)
            lvm("vgcreate", "vmrestorekit-test", device)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs lvm2 to write to a loop device: {error.stderr}")
        off = ("-an", "-Zn", "-Wn", "vmrestorekit-test")
        lvm("lvcreate", "-n", "root", "-L", "20M", *off)
        lvm("lvcreate", "-n", "other", "-L", "8M", *off)
        lvm("lvextend", "-L", "+12M", "vmrestorekit-test/root")
        told = lvm(
            "lvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "lv_name,seg_pe_ranges,seg_start"
        )
    with RawImage(image) as disk:
        found = by_name(logical_volumes(disk, {0: Volume(disk, [(0, disk.size)])}))
    expected: dict[str, list[tuple[int, int]]] = {}
    for line in told.strip().splitlines():
        name, ranges, _ = line.split()
        first, last = re.search(r":(\d+)-(\d+)$", ranges).groups()
        piece = (MIB + int(first) * EXTENT, (int(last) - int(first) + 1) * EXTENT)
        expected.setdefault(name, []).append(piece)
    assert found == expected
    assert len(found["root"]) == 2

    root, part = ext4(tmp_path, "root", 32 * MIB)
    data = bytearray(image.read_bytes())
    put(data, part, found["root"])
    image.write_bytes(data)
    assert check_against_tree(image, root).partitions == [
        {"partition": 0, "start": 0, "length": 120 * MIB, "file_system": "lvm2"}
    ]
