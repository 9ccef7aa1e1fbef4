"""Btrfs, made by mkfs.btrfs and by the kernel, against dump-tree and the files that went in."""

from __future__ import annotations

import contextlib
import os
import random
import re
from pathlib import Path

import pytest
from file_system_helpers import MemoryImage, check_against_tree, find, make_tree, mounted, through_extents
from linux_disks import elf, image_of, merged_usr, references_of, write_tree
from store_helpers import MIB, need, run

from vmrestorekit.backup.btrfs_trees import open_trees
from vmrestorekit.backup.file_systems import FoundFile
from vmrestorekit.backup.files import DiskFiles, find_files, read_file
from vmrestorekit.backup.images import RawImage
from vmrestorekit.backup.manifest import build_manifest
from vmrestorekit.backup.volume import StructureReader
from vmrestorekit.traces.manifest import ManifestError

LAYOUTS = {
    "default": (),
    "single, small nodes": ("-m", "single", "-n", "4096"),
    "mixed, old features": ("--mixed", "-n", "4096", "-R", "^free-space-tree", "-O", "^no-holes"),
}
each_layout = pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)


def make_btrfs(image: Path, *options: str, size: int = 200 * MIB) -> Path:
    need("mkfs.btrfs", "btrfs")
    with open(image, "wb") as file:
        file.truncate(size)
    run("mkfs.btrfs", "-q", *options, image)
    return image


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without hard links, of which mkfs.btrfs makes files of their own or worse."""
    root = tmp_path_factory.mktemp("btrfs") / "root"
    make_tree(root, many=700)
    (root / "another name").unlink()
    (root / "deep" / "third name").unlink()
    return root


def named(found: DiskFiles, path: str) -> FoundFile:
    (file,) = (file for file in found.files if path in (file.path, *file.other_paths))
    return file


def blocks_by_dump_tree(image: Path) -> set[int]:
    told = run("btrfs", "inspect-internal", "dump-tree", image)
    return {int(at) for at in re.findall(r"^(?:leaf|node) (\d+) ", told, re.MULTILINE)}


def addresses(image: Path) -> set[int]:
    """All blocks of trees that are found here, by their addresses."""
    with RawImage(image) as disk:
        trees = open_trees(StructureReader(disk))
        assert trees is not None
        roots = [trees.root, trees.chunk_root]
        for item in trees.items(trees.root):
            if item.key.kind == 132:
                address = int.from_bytes(item.content[176:184], "little")
                roots.append(trees.root._replace(address=address, level=item.content[238]))
        return {address for root in roots for address in trees.addresses(root)}


def places_by_dump_tree(image: Path, address: int) -> list[int]:
    """The places of an address on the disk, copies too, by the chunks as dump-tree prints them."""
    told = run("btrfs", "inspect-internal", "dump-tree", "-t", "chunk", image)
    for chunk in re.split(r"\bitem \d+ key ", told):
        head = re.match(r"\(FIRST_CHUNK_TREE CHUNK_ITEM (\d+)\).*\n\s+length (\d+)", chunk)
        if head and int(head[1]) <= address < int(head[1]) + int(head[2]):
            return [int(at) + address - int(head[1]) for at in re.findall(r"devid 1 offset (\d+)", chunk)]
    return []


def extents_by_dump_tree(image: Path, inode: int) -> list[tuple[int, int, int]]:
    told = run("btrfs", "inspect-internal", "dump-tree", "-t", "5", image)
    pattern = (
        rf"key \({inode} EXTENT_DATA (\d+)\).*\n.*\n\s+extent data disk byte (\d+) nr (\d+)\n"
        r"\s+extent data offset (\d+) nr (\d+)"
    )
    found, known = [], {}
    for at, address, _, begin, length in re.findall(pattern, told):
        if int(address):
            if address not in known:
                known[address] = places_by_dump_tree(image, int(address))[0]
            found.append((known[address] + int(begin), int(length), int(at)))
    return found


@each_layout
def test_a_file_system_made_by_mkfs(tmp_path: Path, tree: Path, options: tuple[str, ...]) -> None:
    image = make_btrfs(tmp_path / "btrfs.img", *options, "--rootdir", str(tree))
    found = check_against_tree(image, tree)
    assert found.partitions[0]["file_system"] == "btrfs"
    assert found.readable == {0}
    for path in ("/big", "/deep/er/é ü.txt"):
        file = named(found, path)
        assert through_extents(image, found, path) == (tree / path[1:]).read_bytes()
        assert file.extents == extents_by_dump_tree(image, file.inode)
    assert addresses(image) == blocks_by_dump_tree(image)
    (tmp_path / "restored").mkdir()
    run("btrfs", "restore", "-x", image, tmp_path / "restored")
    assert (tmp_path / "restored" / "big").read_bytes() == (tree / "big").read_bytes()


@each_layout
def test_what_the_kernel_made_of_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fragments, holes, space never written, nested subvolumes, a snapshot, shared extents, deleted files."""
    root = tmp_path / "root"
    make_tree(root, many=400)
    image = make_btrfs(tmp_path / "btrfs.img", *options)
    content = bytearray(random.Random(1).randbytes(2 * MIB))
    with mounted(image, tmp_path / "mounted") as folder:
        run("btrfs", "subvolume", "create", folder / "sub")
        run("btrfs", "subvolume", "create", folder / "sub" / "nested")
        run("cp", "-a", f"{root}/.", folder)
        for path in ("sub", "sub/nested"):
            run("cp", "-a", root / "deep", root / "small", folder / path)
        with open(folder / "fragments", "wb") as file:
            file.write(content)
        os.sync()
        with open(folder / "fragments", "r+b") as file:
            for at in range(0, len(content), 3 * 4096):
                file.seek(at)
                file.write(b"new" * 1365)
                content[at : at + 4095] = b"new" * 1365
        with open(folder / "preallocated", "wb") as file:
            file.write(b"x" * 5_000)
            file.flush()
            os.posix_fallocate(file.fileno(), 0, MIB)
        for path in list((folder / "many").iterdir())[::3]:
            path.unlink()
            (root / "many" / path.name).unlink()
        run("cp", "--reflink=always", folder / "big", folder / "shared")
        os.sync()
        run("btrfs", "subvolume", "snapshot", folder / "sub", folder / "snapshot")
        (folder / "snapshot" / "later").write_bytes(b"later")
        run("btrfs", "subvolume", "create", folder / "gone")
        run("btrfs", "subvolume", "delete", folder / "gone")
    for path in ("sub", "sub/nested", "snapshot"):
        (root / path).mkdir()
        run("cp", "-a", root / "deep", root / "small", root / path)
    (root / "snapshot" / "nested").mkdir()  # a snapshot does not go into subvolumes
    (root / "snapshot" / "later").write_bytes(b"later")
    (root / "fragments").write_bytes(content)
    (root / "preallocated").write_bytes((b"x" * 5_000).ljust(MIB, b"\0"))
    (root / "shared").write_bytes((root / "big").read_bytes())

    found = check_against_tree(image, root)
    assert addresses(image) >= blocks_by_dump_tree(image)
    fragments = named(found, "/fragments")
    assert len(fragments.extents) > 300
    assert fragments.extents == extents_by_dump_tree(image, fragments.inode)
    assert through_extents(image, found, "/fragments") == bytes(content)
    assert sum(length for _, length, _ in named(found, "/preallocated").extents) < MIB
    assert named(found, "/shared").extents == named(found, "/big").extents
    inodes = [file.inode for file in found.files if file.inode]
    assert len(inodes) == len(set(inodes))  # those of subvolumes, too
    check_what_leads_to_files(image, found)


def check_what_leads_to_files(image: Path, found: DiskFiles) -> None:
    """Each file is reached by blocks that are among those of the trees, and begin with their address."""
    structures = {(start, length) for start, length, _ in named(found, "$btrfs_trees").extents}
    data = image.read_bytes()
    for file in found.files:
        if file.kind == "metadata" or not file.inode:
            continue
        assert file.reached_by, file.path
        assert set(file.reached_by) <= structures
    for start, _ in list(structures)[:20]:
        address = int.from_bytes(data[start + 48 : start + 56], "little")
        assert start in places_by_dump_tree(image, address)


def test_compressed_contents_have_places_and_are_not_read(tmp_path: Path) -> None:
    image = make_btrfs(tmp_path / "btrfs.img")
    with mounted(image, tmp_path / "mounted", "compress-force=zstd") as folder:
        (folder / "text").write_bytes(b"a line of text\n" * 40_000)
        (folder / "short").write_bytes(b"text" * 300)
    found = find(image)
    text = named(found, "/text")
    assert 0 < sum(length for _, length, _ in text.extents) < text.size / 4
    with RawImage(image) as disk:
        for path in ("/text", "/short"):
            with pytest.raises(
                ManifestError, match=rf"{path}: expected contents as they are, got compressed"
            ):
                list(read_file(disk, named(found, path)))
    assert "/text" in build_manifest(image).files["path"]


def test_several_devices_and_other_profiles_are_not_read(tmp_path: Path) -> None:
    need("mkfs.btrfs")
    images = [tmp_path / "a.img", tmp_path / "b.img"]
    for image in images:
        image.write_bytes(bytes(130 * MIB))
    run("mkfs.btrfs", "-q", "-d", "raid0", "-m", "raid1", *images)
    found = find(images[0])
    assert (found.files, found.readable) == ([], frozenset())
    assert [row["file_system"] for row in found.partitions] == ["btrfs"]


def test_btrfs_under_ext4_is_ext4(tmp_path: Path, tree: Path) -> None:
    """What mke2fs does not write over may still look like another file system."""
    need("mke2fs")
    image = make_btrfs(tmp_path / "btrfs.img", "--rootdir", str(tree))
    superblock = image.read_bytes()[65_536 : 65_536 + 4096]
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", image)
    data = bytearray(image.read_bytes())
    data[65_536 : 65_536 + 4096] = superblock
    image.write_bytes(data)
    assert find(image).partitions[0]["file_system"] == "ext4"


# --- damage --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("small")
    make_tree(folder / "root", many=100)
    for path in ("another name", "deep/third name"):
        (folder / "root" / path).unlink()
    options = ("--mixed", "-n", "4096", "--rootdir", str(folder / "root"))
    return make_btrfs(folder / "btrfs.img", *options, size=24 * MIB).read_bytes()


def test_damage_ends_in_fewer_files_or_none_and_never_in_anything_else(small: bytes) -> None:
    chosen = random.Random(5)
    found = find_files(MemoryImage(small))
    assert len(found.files) > 100
    places = [65_536] * 5 + [start for start, _, _ in named(found, "$btrfs_trees").extents]
    data = bytearray(small)
    for turn in range(60):
        at = chosen.choice(places)
        saved = bytes(data[at : at + 4096])
        if turn % 6 == 0:
            data[at + 512 : at + 1024] = chosen.choice((bytes(512), b"\xff" * 512, chosen.randbytes(512)))
        else:
            for _ in range(1 + turn % 9):
                data[at + chosen.choice((chosen.randrange(4096), chosen.randrange(900)))] = chosen.randrange(
                    256
                )
        image = MemoryImage(data)
        found = find_files(image)
        for file in found.files[::11]:
            if file.kind == "regular" and file.size < 10 * MIB:
                with contextlib.suppress(ManifestError):
                    assert sum(map(len, read_file(image, file))) == file.size
        data[at : at + 4096] = saved


def test_trees_that_go_in_circles_end(small: bytes) -> None:
    """Each pointer of each inner block leads to the block itself, or to its neighbour."""
    places = [start for start, _, _ in named(find_files(MemoryImage(small)), "$btrfs_trees").extents]
    inner = [at for at in places if small[at + 100]]
    assert inner
    for at in inner:
        for pointed in (0, 1):
            data = bytearray(small)
            count = int.from_bytes(data[at + 96 : at + 100], "little")
            first = data[at + 101 + 17 : at + 101 + 25]
            for number in range(count):
                pointer = at + 101 + 33 * number + 17
                data[pointer : pointer + 8] = first if pointed else data[at + 48 : at + 56]
            find_files(MemoryImage(data))


def test_extents_that_claim_too_much_make_it_unreadable(
    small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrestorekit.backup.btrfs._COPIES", 0)
    assert find_files(MemoryImage(small)).readable == frozenset()


def test_no_superblock_of_this_kind(small: bytes) -> None:
    for at, value in ((80, bytes(8)), (112, b"\xff" * 8), (136, b"\2"), (148, b"\0\0\0\1")):
        data = bytearray(small)
        data[65_536 + at : 65_536 + at + len(value)] = value
        found = find_files(MemoryImage(data))
        assert (found.files, found.readable) == ([], frozenset())
        assert [row["file_system"] for row in found.partitions] == ["btrfs"]


def test_small_files_among_the_metadata_tell_what_they_tell_on_ext4(tmp_path: Path) -> None:
    """Units, scripts and package lists of less than 2 KiB have no blocks of their own on btrfs."""
    files: dict[str, str | bytes] = {
        "/usr/sbin/server": elf(["libown.so.1"]),
        "/usr/lib/libown.so.1": elf([]),
        "/usr/sbin/prepare": "#!/usr/bin/dash\n",
        "/usr/bin/dash": elf([]),
        "/usr/lib/systemd/system/server.service": (
            "[Service]\nExecStartPre=/usr/sbin/prepare\nExecStart=/usr/sbin/server\n"
        ),
        "/var/lib/dpkg/info/server.list": "/.\n/usr/sbin/server\n/usr/lib/large\n",
        "/usr/lib/large": bytes(range(256)) * 64,
    }
    links = {
        "/etc/systemd/system/multi-user.target.wants/server.service": "/lib/systemd/system/server.service"
    }
    root = write_tree(merged_usr(tmp_path / "root"), files, links)
    on_ext4 = build_manifest(image_of(root, tmp_path / "ext4.img"))
    on_btrfs = build_manifest(make_btrfs(tmp_path / "btrfs.img", "--rootdir", str(root)))
    assert on_btrfs.references.equals(on_ext4.references)
    assert references_of(on_btrfs, "starts")["/usr/lib/systemd/system/server.service"] == {
        "/usr/sbin/prepare",
        "/usr/sbin/server",
    }
    owned = dict(on_btrfs.files.drop_nulls("package").select("path", "package").iter_rows())
    assert owned == {"/usr/lib/large": "server"}  # a file without blocks is none of a manifest's
