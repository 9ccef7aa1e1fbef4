"""Manifests of images made with mke2fs, against debugfs, dumpe2fs and the files that went in."""

from __future__ import annotations

import json
import os
import re
import sys

import numpy as np
import polars as pl
import pytest
import xxhash
from store_helpers import MIB, need, run
from typer.testing import CliRunner

from vmrestorekit.backup.images import ImageError
from vmrestorekit.backup.manifest import build_manifest
from vmrestorekit.cli import app
from vmrestorekit.traces.manifest import Manifest, ManifestError


def make_tree(root):
    random = np.random.default_rng(7)
    (root / "bin").mkdir(parents=True)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "many").mkdir()
    (root / "bin" / "tool").write_bytes(random.bytes(300_000))
    (root / "bin" / "small").write_bytes(b"#!/bin/sh\n")
    (root / "empty").touch()
    (root / "deep" / "er" / "é ü.txt").write_bytes(random.bytes(70_001))
    os.link(root / "bin" / "tool", root / "another name")
    (root / "short link").symlink_to("bin/tool")
    (root / "long link").symlink_to("x" * 200)
    with open(root / "sparse", "wb") as file:
        for part in range(12):  # more extents than an inode holds
            file.seek(part * 65_536)
            file.write(random.bytes(5_000))
    for number in range(200):
        (root / "many" / f"file {number:03}").write_bytes(random.bytes(int(random.integers(1, 9000))))


def make_image(directory, *options, start=MIB, size=40 * MIB):
    """A disk with one partition that holds the tree; returns image and tree."""
    need("sfdisk", "mke2fs", "debugfs", "dumpe2fs")
    root, image = directory / "root", directory / "disk.img"
    make_tree(root)
    with open(image, "wb") as file:
        file.truncate(size)
    layout = f"label: dos\nstart={start // 512}, type=83, bootable\n"
    run("sfdisk", "-q", str(image), stdin=layout)
    target = (str(image), f"{(size - start) // 1024}K")
    run("mke2fs", "-q", "-F", *options, "-E", f"offset={start}", "-d", str(root), *target)
    return image, root


@pytest.fixture(scope="module")
def image_and_root(tmp_path_factory):
    return make_image(tmp_path_factory.mktemp("image"), "-t", "ext4", "-b", "4096")


@pytest.fixture(scope="module")
def manifest(image_and_root):
    return build_manifest(image_and_root[0])


def debugfs(image, start, request):
    return run("debugfs", "-R", request, f"{image}?offset={start}")


def extents_by_debugfs(image, start, path):
    """Give (block of the file system, block of the file) for each block of a file with contents."""
    text = debugfs(image, start, f'stat "{path}"')
    runs = re.findall(r"\((\d+)(?:-(\d+))?\):(\d+)", text[re.search("BLOCKS:|EXTENTS:", text).end() :])
    assert runs, text
    for first, last, block in runs:
        for place in range(int(first), int(last or first) + 1):
            yield int(block) + place - int(first), place


def blocks_of(manifest, path):
    """(disk block, block in file) pairs of a path."""
    number = manifest.files["path"].to_list().index(path)
    rows = manifest.blocks.with_row_index().filter(pl.col("file") == number)
    return list(zip(rows["index"].to_list(), rows["file_block"].to_list(), strict=True))


def rebuild(data, manifest, path, size):
    """Put a file together from the bytes of an image by what the manifest says."""
    content = bytearray(-(-size // 4096) * 4096)
    for block, place in blocks_of(manifest, path):
        content[place * 4096 : (place + 1) * 4096] = data[block * 4096 : (block + 1) * 4096]
    return bytes(content[:size])


def test_hashes_are_those_of_a_plain_loop(image_and_root, manifest):
    data = image_and_root[0].read_bytes()
    blocks = [data[offset : offset + 4096] for offset in range(0, len(data), 4096)]
    expected = [xxhash.xxh3_64_intdigest(block) if any(block) else 0 for block in blocks]
    assert manifest.blocks["content"].to_list() == expected


def test_partitions_are_those_of_sfdisk(image_and_root, manifest):
    (partition,) = json.loads(run("sfdisk", "--json", str(image_and_root[0])))["partitiontable"]["partitions"]
    start, length = partition["start"] * 512, partition["size"] * 512
    assert manifest.partitions.rows() == [(1, start, length, "ext4")]


def test_every_file_lies_where_debugfs_says(image_and_root, manifest):
    image, _ = image_and_root
    paths = manifest.files.filter(pl.col("kind") != "metadata")["path"].to_list()
    assert len(paths) > 200
    few = [path for path in paths if not path.startswith("/many/")]
    assert {"/deep/er/é ü.txt", "/sparse", "/long link", "/", "/bin"} <= set(few)
    mapping = {block - MIB // 4096 for block, _ in blocks_of(manifest, "$extents")}
    for path in [*few, "/many/file 000", "/many/file 199"]:
        found = sorted((block - MIB // 4096, place) for block, place in blocks_of(manifest, path))
        assert found == sorted(extents_by_debugfs(image, MIB, path)), path
        # what `blocks` lists besides are the blocks that hold the list
        listed = {int(word) for word in debugfs(image, MIB, f'blocks "{path}"').split()}
        assert listed - mapping == {block for block, _ in found}, path
    assert len(mapping) == 1  # that of /sparse


def test_every_file_can_be_put_together_again(image_and_root, manifest):
    image, root = image_and_root
    data = image.read_bytes()
    kinds = dict(zip(manifest.files["path"], manifest.files["kind"], strict=True))
    sizes = dict(zip(manifest.files["path"], manifest.files["size"], strict=True))
    checked = 0
    for file in sorted(root.rglob("*")):
        path = "/" + str(file.relative_to(root))
        if file.is_symlink() or not file.is_file() or not file.stat().st_size or path == "/bin/tool":
            continue
        assert kinds[path] == "regular"
        assert sizes[path] == file.stat().st_size
        assert rebuild(data, manifest, path, sizes[path]) == file.read_bytes(), path
        checked += 1
    assert checked == 204
    # of two hard links the first in sorted order has the blocks; what has no blocks is not listed
    assert {"/bin/tool", "/empty", "/short link"}.isdisjoint(kinds)
    assert kinds["/long link"] == "symlink"
    assert rebuild(data, manifest, "/long link", 200) == b"x" * 200
    assert kinds["/"] == kinds["/deep/er"] == "directory"


def test_file_system_structures_lie_where_dumpe2fs_says(tmp_path):
    """Small groups, so that there are many of them, with and without copies of the superblock."""
    image, _ = make_image(tmp_path, "-t", "ext4", "-b", "4096", "-g", "1024", "-O", "^flex_bg")
    manifest = build_manifest(image)
    partition = tmp_path / "partition"  # alone, as dumpe2fs takes no offset
    partition.write_bytes(image.read_bytes()[MIB:])
    text = run("dumpe2fs", str(partition))
    patterns = {
        "$superblock": r"(?:Primary|Backup) superblock at (\d+)()",
        "$group_descriptors": r"(?:Group descriptors|Reserved GDT blocks) at (\d+)(?:-(\d+))?",
        "$block_bitmap": r"Block bitmap at (\d+)()",
        "$inode_bitmap": r"Inode bitmap at (\d+)()",
        "$inode_table": r"Inode table at (\d+)-(\d+)",
    }
    for name, pattern in patterns.items():
        expected = [
            block
            for first, last in re.findall(pattern, text)
            for block in range(int(first), int(last or first) + 1)
        ]
        pairs = sorted(blocks_of(manifest, name), key=lambda pair: pair[1])
        assert len(expected) > 1
        assert [block - MIB // 4096 for block, _ in pairs] == expected, name
        assert [place for _, place in pairs] == list(range(len(expected)))
    journal = {block - MIB // 4096 for block, _ in blocks_of(manifest, "$journal")}
    assert journal == {block for block, _ in extents_by_debugfs(image, MIB, "<8>")}
    assert blocks_of(manifest, "$boot") == [(block, block) for block in range(MIB // 4096)]


def test_no_block_in_use_is_without_a_name(image_and_root, manifest):
    nameless = manifest.blocks.with_row_index().filter((pl.col("content") != 0) & pl.col("file").is_null())
    blocks = [block - MIB // 4096 for block in nameless["index"].to_list()]
    if blocks:  # the list of blocks of the inode that keeps room for growth (7) is the only one
        told = debugfs(image_and_root[0], MIB, "icheck " + " ".join(map(str, blocks)))
        assert re.findall(r"^\d+\t(\d+)$", told, re.MULTILINE) == ["7"] * len(blocks)


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (("-t", "ext2", "-b", "1024"), MIB),
        (("-t", "ext3", "-b", "2048"), MIB),
        (("-t", "ext4", "-b", "1024"), 63 * 512),
        (("-t", "ext4", "-b", "4096"), 63 * 512),
    ],
)
def test_small_file_system_blocks_and_crooked_partitions(tmp_path, options, start):
    """Where 4 KiB of the disk are not 4 KiB of one file, the owner of a block's first byte has it."""
    image, _ = make_image(tmp_path, *options, start=start)
    manifest = build_manifest(image)
    block_bytes = int(options[-1])
    for path in ("/another name", "/deep/er/é ü.txt", "/sparse", "/many/file 000", "/many/file 100"):
        file_byte_at = {}  # for each sector of the disk that belongs to the file
        for block, place in extents_by_debugfs(image, start, path):
            for within in range(0, block_bytes, 512):
                file_byte_at[start + block * block_bytes + within] = place * block_bytes + within
        found = dict(blocks_of(manifest, path)) if path in manifest.files["path"] else {}
        touched = {sector // 4096 for sector in file_byte_at}
        expected = {
            block: file_byte_at[block * 4096] // 4096 for block in touched if block * 4096 in file_byte_at
        }
        assert found.keys() <= touched
        assert {block: found.get(block) for block in expected} == expected


def test_a_file_system_without_a_partition_table(tmp_path):
    need("mke2fs")
    make_tree(tmp_path / "root")
    image = tmp_path / "bare.img"
    run("mke2fs", "-q", "-t", "ext4", "-d", str(tmp_path / "root"), str(image), "20M")
    manifest = build_manifest(image)
    assert manifest.partitions.rows() == [(0, 0, 20 * MIB, "ext4")]
    assert "/deep/er" in manifest.files["path"]
    assert "$boot" not in manifest.files["path"]


def test_of_two_file_systems_the_smaller_one_is_marked(tmp_path):
    need("sfdisk", "mke2fs")
    make_tree(tmp_path / "root")
    image = tmp_path / "two.img"
    image.touch()
    os.truncate(image, 40 * MIB)
    run("sfdisk", "-q", str(image), stdin="label: gpt\nstart=2048, size=16384\nstart=18432, size=51200\n")
    for offset, size, tree in ((1, 8, "root/bin"), (9, 25, "root")):
        options = ("-b", "4096", "-E", f"offset={offset * MIB}", "-d", str(tmp_path / tree))
        run("mke2fs", "-q", "-F", "-t", "ext2" if size == 8 else "ext4", *options, str(image), f"{size}M")
    manifest = build_manifest(image)
    paths = manifest.files["path"].to_list()
    assert {"/", "/another name", "@1/", "@1/tool", "$superblock", "$superblock@1"} <= set(paths)
    assert manifest.partitions["file_system"].to_list() == ["ext2", "ext4"]
    tool = (tmp_path / "root" / "bin" / "tool").read_bytes()
    assert rebuild(image.read_bytes(), manifest, "@1/tool", len(tool)) == tool


def test_what_nobody_can_read_still_has_blocks(tmp_path):
    need("sfdisk")
    random = np.random.default_rng(3)
    image = tmp_path / "unknown.img"
    image.write_bytes(bytes(4 * MIB))
    run("sfdisk", "-q", str(image), stdin="label: dos\nstart=2048, type=8e\n")
    with open(image, "r+b") as file:
        file.seek(2 * MIB)
        file.write(random.bytes(10 * 4096))
    manifest = build_manifest(image)
    assert manifest.partitions["file_system"].to_list() == ["unknown"]
    assert manifest.files["path"].to_list() == ["$boot"]
    assert (manifest.blocks["content"] != 0).sum() == 11

    raw = tmp_path / "noise.img"
    raw.write_bytes(random.bytes(4096 + 512))  # the last block is short
    manifest = build_manifest(raw)
    padded = raw.read_bytes()[4096:] + bytes(4096 - 512)
    assert manifest.blocks["content"].to_list()[1] == xxhash.xxh3_64_intdigest(padded)
    assert manifest.files.height == manifest.partitions.height == 0


def test_holes_read_as_zeros_wherever_they_lie(tmp_path):
    need()
    image = tmp_path / "holes.img"
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
        for offset in (0, 5 * MIB + 512, 40 * MIB - 1, 64 * MIB - 4096):
            file.seek(offset)
            file.write(b"data")
    blocks = np.flatnonzero(build_manifest(image).blocks["content"].to_numpy()).tolist()
    assert blocks == [0, 5 * 256, 40 * 256 - 1, 40 * 256, 64 * 256 - 1]
    os.truncate(image, 0)
    os.truncate(image, 64 * MIB)
    assert build_manifest(image).blocks["content"].sum() == 0


def test_no_disk_images(tmp_path, monkeypatch):
    image = tmp_path / "x.img"
    for content, reason in (
        (b"", r"x\.img: expected a raw disk image of whole sectors of 512 bytes, got 0 bytes"),
        (b"x" * 1000, r"x\.img: expected a raw disk image of whole sectors of 512 bytes, got 1000 bytes"),
        (
            b"QFI\xfb" + bytes(508),
            r"x\.img: expected a QCOW2 image that stands alone, got one with version 0",
        ),
    ):
        image.write_bytes(content)
        with pytest.raises(ImageError, match=reason):
            build_manifest(image)
    with pytest.raises(ImageError, match=r"expected a disk image, got a directory"):
        build_manifest(tmp_path)
    with pytest.raises(ImageError, match=r"/dev/null: expected a disk image, got no file"):
        build_manifest("/dev/null")
    with pytest.raises(FileNotFoundError, match=r"expected a disk image at .*nothing, found no such file"):
        build_manifest(tmp_path / "nothing")
    image.write_bytes(bytes(512))
    monkeypatch.setitem(sys.modules, "pytsk3", None)
    with pytest.raises(ManifestError, match=r"needs pytsk3: pip install 'vmrestorekit\[images\]'"):
        build_manifest(image)


def test_the_command_line(image_and_root, manifest, tmp_path):
    image, output = str(image_and_root[0]), tmp_path / "saved.parquet"
    result = CliRunner().invoke(app, ["manifest", image, "--json", "-o", str(output)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["blocks"] == 40 * MIB // 4096
    assert told["zero_blocks"] == manifest.blocks["content"].to_list().count(0)
    assert told["files"] == manifest.files.height
    kinds = {row["kind"]: row for row in told["kinds"]}
    assert kinds["regular"]["files"] == 204
    assert sum(row["blocks"] for row in told["kinds"]) == told["blocks"]
    assert sum(row["files"] for row in told["kinds"]) == told["files"]
    assert Manifest.load(output).equals(manifest)
    assert "ext4" in CliRunner().invoke(app, ["manifest", image]).output
