"""What is in a backed-up machine, from the store alone, against debugfs, ntfs-3g and mtools."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disks import CHANGED, DISK_BYTES, EXT_SPARSE, FILES, PARTITIONS, Disk, contents
from store_helpers import BLOCK, MIB, need, run

from vmrestorekit.backup import BackupStore, CopyContents, StoreError, create_copy, export_copy
from vmrestorekit.backup.browse import Selection
from vmrestorekit.backup.chunk import container_path
from vmrestorekit.backup.files import find_files
from vmrestorekit.backup.images import RawImage
from vmrestorekit.traces.manifest import ManifestError

UTF8 = {"LC_ALL": "C.UTF-8"}
READABLE = {number: mark for number, (_, _, _, mark) in PARTITIONS.items() if mark is not None}
AFTER = {1: FILES, 2: FILES | CHANGED}  # copy: what its files have
each_copy = pytest.mark.parametrize("number", [1, 2])
each_file_system = pytest.mark.parametrize("partition", READABLE)


@dataclasses.dataclass
class BackedUp:
    """A disk before (1) and after (2) a change, and the store with both."""

    disk: Disk
    store: BackupStore
    images: dict[int, Path]


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackedUp]:
    need("ntfsls", "ntfscat", "ntfscluster", "mdir", "mshowfat", "mdel")
    folder = tmp_path_factory.mktemp("browse")
    disk = Disk(folder)
    (folder / "disk.img.json").write_text('{"name": "web"}')
    store, images = BackupStore.create(folder / "store", BLOCK), {}
    for number, kind in ((1, "full"), (2, "incremental")):
        if number == 2:
            disk.change()
            (folder / "disk.img.json").write_text('{"name": "web", "memory": 2}')
        images[number] = Path(shutil.copy(disk.image, folder / f"state{number}.img"))
        create_copy(store, "web", [disk.image], kind=kind, configuration=[folder / "disk.img.json"])
    disk.image.unlink()  # from here on only the store can tell
    yield BackedUp(disk, store, images)
    store.close()


@pytest.fixture
def after(backed_up: BackedUp) -> Iterator[CopyContents]:
    with CopyContents(backed_up.store, 2) as found:
        yield found


# --- independent tools, on a partition that is a file of its own ---------------------------------------


def listed(part: Path, partition: int, folder: str) -> set[str]:
    if partition == 1:
        rows = run("debugfs", "-R", f'ls -p "{folder}"', part).splitlines()
        names = {row.split("/")[5] for row in rows if row.startswith("/")}
    elif partition == 2:
        names = set(run("ntfsls", "-f", "-p", folder, part, **UTF8).splitlines())
    else:
        rows = run("mdir", "-b", "-i", part, f"::{folder}", **UTF8).splitlines()
        names = {row.rstrip("/").rsplit("/", 1)[1] for row in rows}
    return names - {".", "..", ""}


def read_by_tool(part: Path, partition: int, path: str) -> bytes:
    out = part.with_name("out")
    out.unlink(missing_ok=True)
    if partition == 1:
        # -c: without the bitmaps, which only writing needs
        run("debugfs", "-c", "-R", f'dump "{path}" {out}', part)
        return out.read_bytes()
    if partition == 2:
        run("sh", "-c", 'ntfscat "$1" "$2" > "$3"', "sh", part, path, out, **UTF8)
        return out.read_bytes()
    run("mcopy", "-n", "-i", part, f"::{path}", out, **UTF8)
    return out.read_bytes()


def runs_by_tool(part: Path, partition: int, path: str) -> list[tuple[int, int, int]]:
    """Where a file lies: first byte of the partition, number of bytes, first byte of the file."""
    if partition == 1:
        text = run("debugfs", "-R", f'stat "{path}"', part)
        text = text[text.index("EXTENTS:") :]
        found = re.findall(r"\((\d+)(?:-(\d+))?\):(\d+)", text)
        return [
            (int(at) * 4096, (int(last or first) - int(first) + 1) * 4096, int(first) * 4096)
            for first, last, at in found
        ]
    if partition == 2:
        text = run("ntfscluster", "-f", "-F", path, part, **UTF8)
        found = re.findall(r"^\s+(\d+)\s+(\d+)\s+(\d+)$", text[text.index("0x80") :], re.MULTILINE)
        return [(int(at) * 4096, int(count) * 4096, int(first) * 4096) for first, at, count in found]
    sector, per_cluster, reserved, tables, root = struct.unpack_from("<HBHBH", part.read_bytes(), 11)
    (table,) = struct.unpack_from("<H", part.read_bytes(), 22)
    start, size = (reserved + tables * table) * sector + root * 32, sector * per_cluster
    text = run("mshowfat", "-i", part, f"::{path}", **UTF8)
    runs, position = [], 0
    for first, last in re.findall(r"<(\d+)(?:-(\d+))?>", text):
        length = (int(last or first) - int(first) + 1) * size
        runs.append((start + (int(first) - 2) * size, length, position))
        position += length
    return runs


# --- partitions, folders, files -----------------------------------------------------------------------


@each_copy
def test_partitions_are_those_that_were_made(backed_up: BackedUp, number: int) -> None:
    with CopyContents(backed_up.store, number) as found:
        partitions = found.files().partitions
        assert [tuple(row.values()) for row in partitions] == [
            (partition, start, size, name) for partition, (name, start, size, _) in PARTITIONS.items()
        ]
        assert found.files().readable == frozenset(READABLE)
        assert [disk.size for disk in found.disks] == [DISK_BYTES]
    table = json.loads(run("sfdisk", "--json", backed_up.images[number]))["partitiontable"]["partitions"]
    assert [(row["start"] * 512, row["size"] * 512) for row in table] == [
        (start, size) for _, start, size, _ in PARTITIONS.values()
    ]


@each_copy
@each_file_system
def test_folders_have_what_an_independent_tool_lists(
    backed_up: BackedUp, number: int, partition: int
) -> None:
    part, mark = backed_up.disk.take_apart(backed_up.images[number], partition), READABLE[partition]
    with CopyContents(backed_up.store, number) as found:
        pending, seen = [f"{mark}/"], 0
        while pending:
            folder = pending.pop()
            rows = found.folder(folder)
            names = [row.path.rsplit("/", 1)[1] for row in rows]
            assert names == sorted(names)
            expected = listed(part, partition, folder.removeprefix(mark))
            if partition == 2 and folder == f"{mark}/":  # ntfsls leaves out names that begin so
                assert "$top" in names
                expected |= {"$top"}
            assert set(names) == expected, folder
            assert len(names) == len(expected)
            assert rows == found.folder(folder + "/" if not folder.endswith("/") else folder)
            pending += [row.path for row in rows if row.kind == "directory"]
            seen += len(rows)
        assert seen > 65


@each_copy
@each_file_system
def test_every_file_that_went_in_is_read_out_of_the_copy(
    backed_up: BackedUp, number: int, partition: int
) -> None:
    mark = READABLE[partition]
    with CopyContents(backed_up.store, number) as found:
        sizes = {row.path: row.size for row in found.files().files}
        for path, data in AFTER[number].items():
            if "many" in path and not path.endswith("0"):
                continue
            assert b"".join(found.read(mark + path)) == data, path
            assert sizes.get(mark + path, len(data)) == len(data)


@each_copy
def test_hard_links_and_sparse_files(backed_up: BackedUp, number: int) -> None:
    shared = FILES["/data/base/16384/1249"]
    with CopyContents(backed_up.store, number) as found:
        for path in ("/data/another name", "/data/base/16384/1249", "/zz", "@2/data/another name"):
            assert b"".join(found.read(path)) == shared, path
        assert b"".join(found.read("/sparse")) == EXT_SPARSE
        chosen = found.select("/data/another name", "/data/base/16384/1249", "/zz")
        assert len(chosen.files) == 1
        assert sum(length for _, _, length in chosen.extents[-1:]) == -(-len(shared) // 4096) * 4096


def test_the_configuration_is_part_of_the_backup(backed_up: BackedUp) -> None:
    told = []
    for number in (1, 2):
        with CopyContents(backed_up.store, number) as found:
            assert [(file.name, file.role) for file in found.copy.files] == [
                ("disk.img", "disk"),
                ("disk.img.json", "configuration"),
            ]
            told.append(json.loads(b"".join(found.read("disk.img.json"))))
    assert told == [{"name": "web"}, {"name": "web", "memory": 2}]


def test_what_cannot_be_read_is_exported_byte_for_byte(backed_up: BackedUp, tmp_path: Path) -> None:
    for number in (1, 2):
        (image,) = export_copy(backed_up.store, number, tmp_path / f"{number}.img")
        assert image.read_bytes() == backed_up.images[number].read_bytes()
    part = backed_up.disk.take_apart(tmp_path / "2.img", 4)
    assert run("blkid", "-p", "-o", "value", "-s", "TYPE", part).strip() == "swap"


# --- extracting ---------------------------------------------------------------------------------------


def test_extract_writes_one_file_and_refuses_a_target_that_is_there(
    after: CopyContents, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    path = "/data/base/16384/1247"
    assert after.extract(path, out) == len(CHANGED[path])
    assert out.read_bytes() == CHANGED[path]
    with pytest.raises(StoreError, match="out: expected no such file, or it would be lost"):
        after.extract("/readme.txt", out)
    assert out.read_bytes() == CHANGED[path]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("/nowhere", StoreError, "copy 2, disk.img: expected a file '/nowhere', found none"),
        ("/data", ManifestError, "/data: expected a regular file, got one of the kind 'directory'"),
        ("/link", ManifestError, "/link: expected a regular file, got one of the kind 'symlink'"),
        ("$superblock", ManifestError, "expected a regular file, got one of the kind 'metadata'"),
    ],
)
def test_what_is_no_file_leaves_nothing_behind(
    after: CopyContents, tmp_path: Path, path: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as told:
        after.extract(path, tmp_path / "out")
    assert says in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_damage_in_the_middle_of_a_file_leaves_nothing_half_written(
    backed_up: BackedUp, tmp_path: Path
) -> None:
    shutil.copytree(backed_up.store.path, tmp_path / "store")
    with BackupStore(tmp_path / "store") as store:
        for chunk in store.chunks_there():
            for container in range(len(store.header(chunk).container_bytes)):
                path = container_path(store.chunk_folder(chunk), container)
                data = path.read_bytes()
                part = CHANGED["/data/base/16384/1247"][200_000:200_100]
                path.write_bytes(data.replace(part, bytes(100)))
        (tmp_path / "target").mkdir()
        with CopyContents(store, 2) as found:
            for mark in READABLE.values():
                with pytest.raises(StoreError, match="damaged content in chunk"):
                    found.extract(f"{mark}/data/base/16384/1247", tmp_path / "target" / "out")
                assert list((tmp_path / "target").iterdir()) == []
            for mark in READABLE.values():  # the neighbours are whole
                for path in ("/data/base/16384/1249", "/data/new/later", "/data/$money"):
                    assert b"".join(found.read(mark + path)) == AFTER[2][path]


# --- selecting ----------------------------------------------------------------------------------------

SELECTED = ["/data/base/16384/1247", "/data/base/ünïcode näme €.txt", "/data/new/later", "/readme.txt"]


@each_file_system
def test_a_file_is_selected_in_the_order_of_its_bytes(backed_up: BackedUp, partition: int) -> None:
    _, start, _, mark = PARTITIONS[partition]
    fragmented = 0
    for number in (1, 2):
        part = backed_up.disk.take_apart(backed_up.images[number], partition)
        paths = [path for path in AFTER[number] if "many" not in path and len(AFTER[number][path]) > 2000]
        paths += ["/sparse"] if partition == 1 else []
        with CopyContents(backed_up.store, number) as found:
            for path in paths:
                chosen = found.select(f"{mark}{path}")
                expected = runs_by_tool(part, partition, path)
                assert expected, path
                (file,) = chosen.files
                assert joined(file.extents) == joined([(start + at, *rest) for at, *rest in expected]), path
                tail = chosen.extents[len(chosen.extents) - len(file.extents) :]
                assert [(0, at, length) for at, length, _ in file.extents] == list(tail)
                fragmented += len(joined(file.extents)) > 1
                check_blocks(chosen)
    assert fragmented


def joined(runs: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Runs in their order, those that go on joined: (first byte of the disk, number of bytes)."""
    found: list[tuple[int, int]] = []
    for at, length, _ in runs:
        if found and sum(found[-1]) == at:
            at, length = found[-1][0], found.pop()[1] + length
        found.append((at, length))
    return found


def check_blocks(chosen: Selection) -> None:
    """Each block of the extents once, in their order, as a plain loop finds them."""
    for block_bytes in (BLOCK, 65_536):
        expected: dict[int, None] = {}
        for _, offset, length in chosen.extents:
            for byte in range(offset, offset + length, 512):
                expected[byte // block_bytes] = None
        assert chosen.blocks(block_bytes).tolist() == list(expected)


@pytest.mark.parametrize("block_bytes", [BLOCK, 65_536])
@each_file_system
def test_the_selected_blocks_alone_suffice_to_read_the_files(
    backed_up: BackedUp, tmp_path: Path, partition: int, block_bytes: int
) -> None:
    mark, source = READABLE[partition], backed_up.images[2].read_bytes()
    with CopyContents(backed_up.store, 2) as found:
        paths = [*SELECTED, "/data/many/file 033", *(["/sparse"] if partition == 1 else [])]
        for path in paths:
            blocks = found.select(f"{mark}{path}").blocks(block_bytes)
            image = tmp_path / "little.img"
            with open(image, "wb") as file:
                file.truncate(len(source))
                for block in blocks.tolist():
                    file.seek(block * block_bytes)
                    file.write(source[block * block_bytes : (block + 1) * block_bytes])
            part = backed_up.disk.take_apart(image, partition)
            expected = bytes(EXT_SPARSE) if path == "/sparse" else AFTER[2][path]
            assert read_by_tool(part, partition, path) == expected, path
            # and not because nearly everything is there
            assert len(blocks) * block_bytes < 6 * MIB


def test_a_pattern_takes_a_folder_with_everything_in_it(after: CopyContents) -> None:
    for pattern in ("/data/base/**", "/data/base/*"):
        chosen = after.select(pattern)
        names = {name for file in chosen.files for name in (file.path, *file.other_paths)}
        assert {"/data/base/16384", "/data/base/16384/1247", "/data/base/16384/1249"} <= names
        assert not any("many" in name or name == "/data/base" for name in names)
    assert {file.path for file in after.select("/data/base").files} >= {"/data/base"}
    everything = {file.path for file in after.select("@2/").files}
    assert {"@2/", "@2/readme.txt", "@2/data/many/file 000"} <= everything
    assert all(path.startswith("@2/") for path in everything)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_whole_partition_is_exactly_its_blocks(after: CopyContents, partition: int) -> None:
    _, start, size, _ = PARTITIONS[partition]
    chosen = after.select(partitions=[partition])
    assert chosen.files == ()
    assert chosen.disk_bytes == (DISK_BYTES,)
    blocks = chosen.blocks(BLOCK).tolist()
    assert blocks == list(range(start // BLOCK, (start + size) // BLOCK))


def test_a_partition_that_ends_beyond_the_disk_takes_no_block_of_the_next_disk(tmp_path: Path) -> None:
    need("sfdisk")
    first, second = tmp_path / "a.img", tmp_path / "b.img"
    for path in (first, second):
        path.write_bytes(contents(1, 4 * MIB))
    run("sfdisk", "-q", first, stdin="label: dos\nstart=2048, size=6144, type=83\n")
    with open(first, "r+b") as file:
        file.truncate(3 * MIB)
    with BackupStore.create(tmp_path / "store", BLOCK) as store:
        create_copy(store, "web", [first, second])
        with CopyContents(store, 1) as found:
            assert found.select(partitions=[1]).blocks(BLOCK).tolist() == list(range(256, 768))


def test_what_fits_nothing_is_one_sentence(backed_up: BackedUp, after: CopyContents) -> None:
    for words, says in [
        ({"patterns": ["/nothing/**"]}, "copy 2: no file or folder fits '/nothing/\\*\\*'"),
        ({"patterns": ["/readme.txt", ""]}, "copy 2: no file or folder fits ''"),
        ({"partitions": [9]}, r"expected the number of a partition \(1, 2, 3, 4, 5\), got 9"),
        ({"patterns": ["/readme.txt"], "disk": 1}, "expected the number of a disk, 0 to 0, got 1"),
        ({"partitions": [1], "disk": -1}, "expected the number of a disk, 0 to 0, got -1"),
    ]:
        with pytest.raises(StoreError, match=says) as told:
            after.select(*words.pop("patterns", []), **words)
        assert "\n" not in str(told.value)
    for folder in ("/nowhere", "/readme.txt", "@4/", ""):
        with pytest.raises(StoreError, match=r"copy 2, disk\.img: expected a folder, found no") as told:
            after.folder(folder)
    with pytest.raises(StoreError, match="expected the number of a copy"):
        CopyContents(backed_up.store, 9)


# --- other disks --------------------------------------------------------------------------------------


def test_several_disks_without_partition_tables(tmp_path: Path) -> None:
    need("mkfs.vfat", "mcopy", "mkntfs", "ntfscp")
    fat, ntfs, noise = tmp_path / "fat.img", tmp_path / "ntfs.img", tmp_path / "noise.img"
    source = tmp_path / "source"
    source.write_bytes(contents(1, 30_000))
    for image, size in ((fat, 40), (ntfs, 6)):
        with open(image, "wb") as file:
            file.truncate(size * MIB)
    run("mkfs.vfat", "-F", "32", fat)
    run("mcopy", "-i", fat, source, "::on fat")
    run("mkntfs", "-F", "-q", "-c", "1024", ntfs)
    run("ntfscp", "-q", "-f", ntfs, source, "/on ntfs")
    noise.write_bytes(contents(2, MIB))
    with BackupStore.create(tmp_path / "store", BLOCK) as store:
        create_copy(store, "web", [fat, ntfs, noise])
        with CopyContents(store, 1) as found:
            kinds = [[row["file_system"] for row in found.files(disk).partitions] for disk in range(3)]
            assert kinds == [["fat32"], ["ntfs"], []]
            assert b"".join(found.read("/on fat")) == source.read_bytes()
            assert b"".join(found.read("/on ntfs", disk=1)) == source.read_bytes()
            chosen = found.select("/on *")
            assert {disk for disk, _, _ in chosen.extents} == {0, 1}
            blocks = chosen.blocks(BLOCK)
            for disk, image, partition, path in ((0, fat, 3, "/on fat"), (1, ntfs, 2, "/on ntfs")):
                start = disk * 40 * MIB // BLOCK
                little = bytearray(image.stat().st_size)
                for block in blocks[(blocks >= start) & (blocks < start + len(little) // BLOCK)].tolist():
                    at = (block - start) * BLOCK
                    little[at : at + BLOCK] = image.read_bytes()[at : at + BLOCK]
                (tmp_path / "little.img").write_bytes(little)
                read = read_by_tool(tmp_path / "little.img", partition, path)
                assert read == source.read_bytes()


def test_group_descriptors_that_are_spread_do_not_hinder_reading(tmp_path: Path) -> None:
    need("mke2fs")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_bytes(contents(1, 9_000))
    image = tmp_path / "disk.img"
    run("mke2fs", "-q", "-t", "ext4", "-O", "meta_bg,^resize_inode", "-d", tmp_path / "root", image, "8M")
    with BackupStore.create(tmp_path / "store", BLOCK) as store:
        create_copy(store, "web", [image])
        with CopyContents(store, 1) as found:
            assert b"".join(found.read("/file")) == contents(1, 9_000)


def test_what_was_allocated_and_never_written_reads_as_zeros(tmp_path: Path) -> None:
    need("mke2fs", "debugfs")
    image = tmp_path / "disk.img"
    image.write_bytes(contents(1, 8 * MIB))  # what was there before must not show
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E", "nodiscard", image)
    (tmp_path / "source").write_bytes(contents(2, 20_000))
    run("debugfs", "-w", "-R", f"write {tmp_path / 'source'} file", image)
    run("debugfs", "-w", "-R", "fallocate file 5 9", image)
    run("debugfs", "-w", "-R", "set_inode_field file size 40960", image)
    found = find_files(RawImage(image))
    with BackupStore.create(tmp_path / "store", BLOCK) as store:
        create_copy(store, "web", [image])
        with CopyContents(store, 1) as copy:
            assert b"".join(copy.read("/file")) == contents(2, 20_000) + bytes(20_960)
    assert found.readable == {0}
