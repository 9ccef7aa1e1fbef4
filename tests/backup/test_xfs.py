"""XFS, made by mkfs.xfs and by the kernel, against xfs_db and the files that went in."""

from __future__ import annotations

import contextlib
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from file_system_helpers import MemoryImage, check_against_tree, find, make_tree, mounted, through_extents
from store_helpers import MIB, need, run

from vmrestorekit.backup.files import DiskFiles, find_files, read_file
from vmrestorekit.backup.manifest import build_manifest
from vmrestorekit.traces.manifest import ManifestError

LAYOUTS = {
    "default": (),
    "small blocks, large blocks of folders": ("-b", "size=1024", "-n", "size=8192"),
    "version 4": ("-m", "crc=0", "-i", "size=256"),
    "seven groups with a map of owners": ("-m", "rmapbt=1", "-d", "agcount=7", "-i", "size=1024,sparse=0"),
    "wide counts": ("-i", "nrext64=1"),
}
each_layout = pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)


def make_xfs(image: Path, *options: str, size: int = 128 * MIB) -> Path:
    need("mkfs.xfs", "xfs_db")
    with open(image, "wb") as file:
        file.truncate(size)
    run("mkfs.xfs", "--unsupported", "-q", *options, image)
    return image


def proto_file(root: Path, at: Path) -> Path:
    """Describe a tree to mkfs.xfs, which knows neither spaces nor hard links."""

    def lines(folder: Path) -> list[str]:
        found = []
        for path in sorted(folder.iterdir()):
            if path.is_symlink():
                found.append(f"{path.name} l--777 0 0 {os.readlink(path)}")
            elif path.is_dir():
                found += [f"{path.name} d--755 0 0", *lines(path), "$"]
            else:
                found.append(f"{path.name} ---644 0 0 {path}")
        return found

    at.write_text("\n".join(["/dev/null", "0 0", "d--755 0 0", *lines(root), "$", ""]))
    return at


def tree_without_spaces(root: Path, many: int = 1500) -> Path:
    make_tree(root, many=many)
    for path in sorted(root.rglob("* *"), reverse=True):
        if path.stat(follow_symlinks=False).st_nlink > 1 and not path.is_dir():
            path.unlink()
        else:
            path.rename(path.with_name(path.name.replace(" ", "-")))
    # mkfs.xfs 6.1 writes targets that do not fit into an inode without the header that version 5 wants
    (root / "long-link").unlink()
    (root / "long-link").symlink_to("y/" * 85 + "z")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree_without_spaces(tmp_path_factory.mktemp("xfs") / "root")


def numbers(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+) = (\d+)$", text, re.MULTILINE)}


def runs_by_xfs_db(image: Path, inode: int) -> list[tuple[int, int, int]]:
    """Where a file lies: first byte, number of bytes, first byte in the file; without what is unwritten."""
    geometry = numbers(run("xfs_db", "-r", "-c", "sb 0", "-c", "p blocksize agblocks", image))
    size, group_blocks = geometry["blocksize"], geometry["agblocks"]
    text = run("xfs_db", "-r", "-c", f"inode {inode}", "-c", "bmap -d", image)
    pattern = r"offset (\d+) startblock \d+ \((\d+)/(\d+)\) count (\d+) flag 0"
    return [
        ((int(group) * group_blocks + int(block)) * size, int(count) * size, int(at) * size)
        for at, group, block, count in re.findall(pattern, text)
    ]


def merged(extents: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Extents with neighbours put together: the tools do that, the file system need not."""
    found: list[tuple[int, int, int]] = []
    for start, length, at in extents:
        if found and (found[-1][0] + found[-1][1], found[-1][2] + found[-1][1]) == (start, at):
            found[-1] = (found[-1][0], found[-1][1] + length, found[-1][2])
        else:
            found.append((start, length, at))
    return found


def check_with_xfs_db(image: Path, found: DiskFiles) -> None:
    """All names have the inodes that xfs_db finds, and the extents."""
    told = run("xfs_db", "-r", "-c", "blockget -n", "-c", "ncheck", image)
    expected = {
        ("/" + name.removesuffix("/."), int(number))
        for number, name in re.findall(r"^\s*(\d+) (.+)$", told, re.MULTILINE)
        if name != "/."
    }
    named = [file for file in found.files if file.kind != "metadata" and file.path != "/"]
    # ncheck gives one name of a file
    assert {number for _, number in expected} == {file.inode for file in named}
    pairs = {(path, file.inode) for file in named for path in (file.path, *file.other_paths)}
    assert {pair for pair in expected if pair[0].isascii()} <= pairs
    few = [file for file in named if not file.path.startswith("/many/")][:40]
    for file in few:
        if file.extents or file.kind == "regular":
            assert merged(file.extents) == merged(runs_by_xfs_db(image, file.inode)), file.path


def check_nothing_is_without_a_name(image: Path, found: DiskFiles) -> None:
    sectors = np.fromfile(image, np.uint8).reshape(-1, 512)
    nameless = sectors.any(axis=1)
    for file in found.files:
        for start, length, _ in file.extents:
            nameless[start // 512 : -(-(start + length) // 512)] = False
    assert np.flatnonzero(nameless).tolist() == []


@each_layout
def test_a_file_system_made_by_mkfs(tmp_path: Path, tree: Path, options: tuple[str, ...]) -> None:
    proto = proto_file(tree, tmp_path / "proto")
    image = make_xfs(tmp_path / "xfs.img", *options, "-p", str(proto))
    found = check_against_tree(image, tree)
    assert [row["file_system"] for row in found.partitions] == ["xfs"]
    assert found.readable == {0}
    check_with_xfs_db(image, found)
    check_nothing_is_without_a_name(image, found)
    for path in ("/big", "/deep/er/é-ü.txt", "/sparse"):
        assert through_extents(image, found, path) == (tree / path[1:]).read_bytes()
    structures = {file.path for file in found.files if file.kind == "metadata"}
    assert {"$superblock", "$free_space", "$inode_index", "$inode_table", "$journal"} <= structures


@each_layout
def test_where_inodes_and_journal_lie(tmp_path: Path, tree: Path, options: tuple[str, ...]) -> None:
    proto = proto_file(tree, tmp_path / "proto")
    image = make_xfs(tmp_path / "xfs.img", *options, "-p", str(proto))
    found = find(image)
    text = run("xfs_db", "-r", "-c", "sb 0", "-c", "p", image)
    geometry = numbers(text)
    tables = [(at, at + length) for at, length, _ in named(found, "$inode_table").extents]
    for file in found.files:
        if file.kind != "metadata":
            place, length = file.reached_by[0]
            assert length == geometry["inodesize"]
            assert any(start <= place and place + length <= end for start, end in tables), file.path
    assert sum(end - start for start, end in tables) == geometry["icount"] * geometry["inodesize"]
    number = named(found, "/big").inode
    told = run("xfs_db", "-r", "-c", f"inode {number}", "-c", "daddr", image)
    assert int(re.search(r"daddr is (\d+)", told)[1]) == named(found, "/big").reached_by[0][0] // 512
    assert named(found, "$journal").size == geometry["logblocks"] * geometry["blocksize"]
    assert len(named(found, "$superblock").extents) == geometry["agcount"]


def named(found: DiskFiles, path: str):
    (file,) = (file for file in found.files if file.path == path)
    return file


@pytest.mark.parametrize("options", [LAYOUTS[name] for name in LAYOUTS if name != "version 4"])
def test_what_the_kernel_made_of_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fragments, holes, space that was never written, attributes in blocks of their own, deleted files."""
    root = tmp_path / "root"
    make_tree(root, many=400)
    image = make_xfs(tmp_path / "xfs.img", *options)
    random_bytes = np.random.default_rng(3).bytes
    (root / "fragments").write_bytes(random_bytes(6 * MIB))
    with mounted(image, tmp_path / "mounted") as folder:
        run("cp", "-a", f"{root}/.", folder)
        with open(folder / "fragments", "r+b") as file:  # each second block goes: thousands of extents
            for at in range(4096, 6 * MIB, 8192):
                run_fallocate(file.fileno(), at, 4096)
        with open(folder / "preallocated", "wb") as file:
            file.write(b"x" * 5_000)
            file.flush()
            os.posix_fallocate(file.fileno(), 0, MIB)
        os.setxattr(folder / "small", "user.large", random_bytes(20_000))
        for path in list((folder / "many").iterdir())[::3]:
            path.unlink()
            (root / "many" / path.name).unlink()
        for number in range(20):
            os.link(folder / "empty", folder / f"name {number}")
            os.link(root / "empty", root / f"name {number}")
    content = bytearray((root / "fragments").read_bytes())
    for at in range(4096, 6 * MIB, 8192):
        content[at : at + 4096] = bytes(4096)
    (root / "fragments").write_bytes(content)
    (root / "preallocated").write_bytes((b"x" * 5_000).ljust(MIB, b"\0"))
    found = check_against_tree(image, root)
    check_with_xfs_db(image, found)
    fragments = named(found, "/fragments")
    assert len(fragments.extents) == 768
    assert len(fragments.reached_by) > 1
    assert named(found, "$extents").size >= fragments.reached_by[1][1]
    assert sum(length for _, length, _ in named(found, "/preallocated").extents) < MIB
    assert named(found, "$attributes").size >= 20_000
    assert through_extents(image, found, "/fragments") == bytes(content)


def run_fallocate(descriptor: int, offset: int, length: int) -> None:
    """Punch a hole: Python has no call for it."""
    import ctypes

    done = ctypes.CDLL(None, use_errno=True).fallocate(
        descriptor, 3, ctypes.c_long(offset), ctypes.c_long(length)
    )
    assert done == 0, os.strerror(ctypes.get_errno())


def test_xfs_on_a_partition_behind_ext4(tmp_path: Path, tree: Path) -> None:
    need("sfdisk", "mke2fs")
    make_tree(tmp_path / "boot", many=3)
    part = make_xfs(tmp_path / "xfs.part", "-p", str(proto_file(tree, tmp_path / "proto")), size=100 * MIB)
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(16 * MIB) + part.read_bytes() + bytes(MIB))
    run("sfdisk", "-q", image, stdin=f"label: gpt\nstart=2048, size={15 * 2048}\nstart={16 * 2048}\n")
    options = ("-q", "-F", "-t", "ext4", "-E", f"offset={MIB}", "-d", str(tmp_path / "boot"))
    run("mke2fs", *options, image, "15M")
    found = check_against_tree(image, tree)
    check_against_tree(image, tmp_path / "boot", "@1")
    assert [row["file_system"] for row in found.partitions] == ["ext4", "xfs"]
    plain = find(part)
    by_path = {file.path: file for file in found.files}
    for file in plain.files:
        name = by_path[file.path]
        assert name.extents == [(at + 16 * MIB, length, place) for at, length, place in file.extents]
        assert name.reached_by == [(at + 16 * MIB, length) for at, length in file.reached_by]
    assert {"/big", "@1/another name", "$superblock", "$superblock@1"} <= set(
        build_manifest(image).files["path"].to_list()
    )


# --- damage --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("small")
    root = tree_without_spaces(folder / "root", many=200)
    image = make_xfs(folder / "xfs.img", "-p", str(proto_file(root, folder / "proto")), size=20 * MIB)
    return image.read_bytes()


def structures(data: bytes) -> list[int]:
    """The first bytes of what leads to files: all but their contents and the journal."""
    found = find_files(MemoryImage(data))
    return sorted(
        {
            at // 512 * 512
            for file in found.files
            if file.kind in ("metadata", "directory", "symlink") and file.path != "$journal"
            for start, length, _ in file.extents
            for at in range(start, start + min(length, 65_536), 512)
        }
    )


def test_damage_ends_in_fewer_files_and_never_in_anything_else(small: bytes) -> None:
    chosen = random.Random(5)
    places = [at for at in structures(small) if any(small[at : at + 512])]
    data = bytearray(small)
    for turn in range(150):
        at = chosen.choice(places)
        saved = bytes(data[at : at + 512])
        if turn % 5 == 0:
            data[at : at + 512] = chosen.choice((bytes(512), b"\xff" * 512, chosen.randbytes(512)))
        else:
            for _ in range(1 + turn % 7):
                data[at + chosen.choice((chosen.randrange(512), chosen.randrange(120)))] = chosen.randrange(
                    256
                )
        image = MemoryImage(data)
        found = find_files(image)  # whatever is there: no exception
        for file in found.files[:400:13]:
            if file.kind == "regular" and file.size < 10 * MIB:
                with contextlib.suppress(ManifestError):
                    assert sum(map(len, read_file(image, file))) == file.size
        data[at : at + 512] = saved


def test_folders_that_lead_back_to_the_top_end(small: bytes) -> None:
    found = find_files(MemoryImage(small))
    top = named(found, "/").inode.to_bytes(8, "big")
    data = bytearray(small)
    for file in found.files:
        if file.kind == "regular" and re.match(r"/many/.*0000\d", file.path):
            data = data.replace(file.inode.to_bytes(8, "big") + bytes([len(file.path) - 6]), top + b"\x05", 1)
    again = find_files(MemoryImage(data))
    assert len(again.files) < len(found.files)


def test_no_superblock_of_this_kind(small: bytes) -> None:
    for at, value in (
        (4, b"\0\0\0\1"),
        (84, bytes(4)),
        (88, b"\xff" * 4),
        (104, b"\0\1"),
        (216, b"\xff" * 4),
    ):
        data = bytearray(small)
        data[at : at + len(value)] = value
        found = find_files(MemoryImage(data))
        assert (found.files, found.readable) == ([], frozenset())
        assert [row["file_system"] for row in found.partitions] == ["xfs"]
    assert find_files(MemoryImage(small[: 10 * MIB])).files == []
    assert find_files(MemoryImage(b"XFSB" + bytes(508))).files == []


def test_extents_that_claim_too_much_make_it_unreadable(
    small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrestorekit.backup.xfs_inodes._COPIES", 0)
    assert find_files(MemoryImage(small)).readable == frozenset()


def test_a_file_on_a_realtime_device_is_not_read_as_zeros(small: bytes) -> None:
    file = named(find_files(MemoryImage(small)), "/big")
    data = bytearray(small)
    data[file.reached_by[0][0] + 91] |= 1
    image = MemoryImage(data)
    file = named(find_files(image), "/big")
    assert file.extents == []
    with pytest.raises(ManifestError, match="expected a file on this disk"):
        list(read_file(image, file))
