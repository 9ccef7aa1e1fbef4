"""Disk images that qemu-img makes, against the raw image that they were made from."""

from __future__ import annotations

import itertools
import random
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from store_helpers import need, run

from vmrestorekit.backup import BackupStore, create_copy, export_copy
from vmrestorekit.backup.images import DiskImage, ImageError, open_image

KIB = 1024
GRAIN = 64 * KIB

# format, options of qemu-img convert, and the size of what it allocates at once; None: as the raw file does
FORMATS: dict[str, tuple[str, list[str], int | None]] = {
    "qcow2 version 2": ("qcow2", ["-o", "compat=0.10"], 64 * KIB),
    "qcow2 version 2, clusters of 512": ("qcow2", ["-o", "compat=0.10,cluster_size=512"], 512),
    "qcow2 version 2, compressed": ("qcow2", ["-c", "-o", "compat=0.10"], 64 * KIB),
    "qcow2 version 3": ("qcow2", ["-o", "compat=1.1"], 64 * KIB),
    "qcow2 version 3, clusters of 4 KiB": ("qcow2", ["-o", "compat=1.1,cluster_size=4k"], 4 * KIB),
    "qcow2 version 3, clusters of 2 MiB": ("qcow2", ["-o", "compat=1.1,cluster_size=2M"], 2048 * KIB),
    "qcow2 version 3, compressed": ("qcow2", ["-c", "-o", "compat=1.1"], 64 * KIB),
    "qcow2, compressed clusters of 512": ("qcow2", ["-c", "-o", "compat=1.1,cluster_size=512"], 512),
    "qcow2, compressed clusters of 2 MiB": ("qcow2", ["-c", "-o", "cluster_size=2M"], 2048 * KIB),
    "vmdk monolithicSparse": ("vmdk", ["-o", "subformat=monolithicSparse"], GRAIN),
    "vmdk streamOptimized": ("vmdk", ["-o", "subformat=streamOptimized"], GRAIN),
    "vmdk twoGbMaxExtentSparse": ("vmdk", ["-o", "subformat=twoGbMaxExtentSparse"], GRAIN),
    "vmdk monolithicFlat": ("vmdk", ["-o", "subformat=monolithicFlat"], None),
    "vmdk twoGbMaxExtentFlat": ("vmdk", ["-o", "subformat=twoGbMaxExtentFlat"], None),
}
every_format = pytest.mark.parametrize("name", FORMATS)
some_formats = pytest.mark.parametrize(
    "name", [name for name in FORMATS if "of" not in name and "2," not in name]
)


@pytest.fixture(autouse=True)
def _programs() -> None:
    need("qemu-img", "qemu-io", modules=["pyqcow", "pyvmdk"])


def sparse_raw(path: Path, seed: int, sectors: int | None = None) -> Path:
    """Write runs of random bytes and of text that can be compressed, and nothing in between."""
    chance = random.Random(seed)
    size = (sectors or chance.randrange(4000, 20000)) * 512
    with open(path, "wb") as file:
        file.truncate(size)
        for _ in range(chance.randrange(3, 10)):
            start = chance.randrange(size // 512) * 512
            length = min(chance.choice([512, 4096, 65536, 150_000, 196_608]), size - start)
            text = b"%9d" % chance.randrange(10**9) * (length // 9 + 1)
            file.seek(start)
            file.write(chance.choice([chance.randbytes(length), text[:length]]))
        file.seek(size - 512)
        file.write(chance.randbytes(512))  # within the last cluster, which is not whole
    return path


def convert(raw: Path, name: str, file_name: str = "disk") -> Path:
    form, options, _ = FORMATS[name]
    image = raw.with_name(f"{file_name}.{form}")
    run("qemu-img", "convert", "-f", "raw", "-O", form, *options, raw, image)
    return image


def read_in_pieces(image: DiskImage, seed: int) -> bytes:
    """The whole disk, in reads of all lengths."""
    chance, data = random.Random(seed), bytearray()
    while len(data) < image.size:
        wanted = chance.choice([1, 511, 4096, 70_000, 1_000_000, 3_000_000])
        part = bytes(image.read(len(data), wanted))
        assert len(part) == min(wanted, image.size - len(data))
        data += part
    return bytes(data)


def covered(extents: Sequence[tuple[int, int]]) -> int:
    """How many bytes extents have, which must ascend without touching."""
    for (_, end), (start, _) in itertools.pairwise(extents):
        assert end < start
    assert all(start < end for start, end in extents)
    return sum(end - start for start, end in extents)


def allocated(data: bytes, unit: int) -> int:
    """How many bytes of the disk lie in units that are not all zeros."""
    return sum(
        min(unit, len(data) - start) for start in range(0, len(data), unit) if any(data[start : start + unit])
    )


@every_format
@pytest.mark.parametrize("seed", [1, 2])
def test_an_image_gives_the_bytes_of_the_raw_image_and_leaves_holes_out(
    tmp_path: Path, name: str, seed: int
) -> None:
    raw = sparse_raw(tmp_path / "raw.img", seed)
    data = raw.read_bytes()
    with open_image(convert(raw, name)) as image:
        assert image.size == len(data)
        assert read_in_pieces(image, seed) == data
        assert image.read(len(data), 512) == b""
        extents = list(image.extents())
    outside = bytearray(data)
    for start, end in extents:
        outside[start:end] = bytes(end - start)
    assert not any(outside)
    unit = FORMATS[name][2]
    if unit:
        # qemu-img looks for zeros by 4 KiB
        assert allocated(data, unit) <= covered(extents) <= allocated(data, max(unit, 4096))
    else:
        with open_image(raw) as image:
            assert covered(extents) <= covered(list(image.extents())) + len(extents) * 64 * KIB < len(data)


def test_a_raw_image_leaves_its_holes_out(tmp_path: Path) -> None:
    raw = tmp_path / "raw.img"
    with open(raw, "wb") as file:
        for start in (0, 10 * GRAIN, 20 * GRAIN):
            file.seek(start)
            file.write(b"data")
        file.truncate(40 * GRAIN)
    with open_image(raw) as image:
        extents = list(image.extents())
        assert [start for start, _ in extents] == [0, 10 * GRAIN, 20 * GRAIN]
        assert covered(extents) <= 3 * GRAIN
        assert image.read(0, image.size) == raw.read_bytes()


@some_formats
def test_a_backup_reads_no_holes_and_exports_the_raw_image(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = sparse_raw(tmp_path / "raw.img", 5, 30_000)
    image = convert(raw, name)
    read: list[tuple[int, int]] = []
    lock = threading.Lock()

    def watched(path: Path) -> DiskImage:
        opened = open_image(path)
        original = opened.read

        def count(offset: int, length: int) -> bytes | bytearray | memoryview:
            with lock:
                read.append((offset, length))
            return original(offset, length)

        monkeypatch.setattr(opened, "read", count)
        return opened

    monkeypatch.setattr("vmrestorekit.backup.create.open_image", watched)
    with BackupStore.create(tmp_path / "store", 4096) as store:
        create_copy(store, "web", [image])
        export_copy(store, 1, tmp_path / "exported.img")
    with open_image(image) as opened:
        needed = [(start // 4096 * 4096, -(-end // 4096) * 4096) for start, end in opened.extents()]
    assert sum(length for _, length in read) <= sum(end - start for start, end in needed)
    assert all(any(start <= at and at + size <= end for start, end in needed) for at, size in read)
    assert (tmp_path / "exported.img").read_bytes() == raw.read_bytes()
    told = run("qemu-img", "compare", "-f", "raw", "-F", image.suffix[1:], tmp_path / "exported.img", image)
    assert "Images are identical" in told


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_clusters_that_became_zeros_or_were_written_over_after_compression(
    tmp_path: Path, compat: str
) -> None:
    raw, image, after = tmp_path / "raw.img", tmp_path / "disk.qcow2", tmp_path / "after.img"
    raw.write_bytes(b"text " * (800 * KIB // 5) + bytes(1024 * KIB))
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", f"compat={compat}", raw, image)
    for request in ("write -P 7 100k 30k", "write -z 256k 128k", "write -P 9 1200k 1k", "write -z 1200k 64k"):
        run("qemu-io", "-f", "qcow2", "-c", request, image)
    run("qemu-img", "convert", "-O", "raw", image, after)
    data = after.read_bytes()
    assert data != raw.read_bytes()
    with open_image(image) as opened:
        assert read_in_pieces(opened, 3) == data
        outside = bytearray(data)
        for start, end in opened.extents():
            outside[start:end] = bytes(end - start)
        assert not any(outside)


@pytest.mark.parametrize("name", ["vmdk monolithicSparse", "vmdk streamOptimized"])
def test_a_renamed_vmdk_is_read_itself_and_not_what_has_its_old_name(tmp_path: Path, name: str) -> None:
    raw, other = sparse_raw(tmp_path / "raw.img", 1, 8000), sparse_raw(tmp_path / "other.img", 2, 8000)
    renamed = convert(raw, name).rename(tmp_path / "renamed.vmdk")
    for _ in range(2):
        with open_image(renamed) as image:
            assert image.read(0, image.size) == raw.read_bytes()
        convert(other, name)


def test_a_disk_in_several_files_that_is_larger_than_one_of_them(tmp_path: Path) -> None:
    image = tmp_path / "disk.vmdk"
    run("qemu-img", "create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", image, "5G")
    places = {1 << 20: 11, (2 << 30) + (3 << 20): 22, (5 << 30) - 65536: 33}
    for place, pattern in places.items():
        run("qemu-io", "-f", "vmdk", "-c", f"write -P {pattern} {place} 64k", image)
    with open_image(image) as opened:
        assert opened.size == 5 << 30
        assert list(opened.extents()) == [(place, place + 65536) for place in places]
        for place, pattern in places.items():
            assert bytes(opened.read(place, 65536)) == bytes([pattern]) * 65536


def read_what_is_there(path: Path) -> bytes:
    """The disk, read where its extents are."""
    with open_image(path) as opened:
        found = bytearray(opened.size)
        for start, end in opened.extents():
            found[start:end] = opened.read(start, end - start)
    return bytes(found)


def expect_one_error(path: Path, says: str) -> None:
    """The image cannot be opened or cannot be read, and a single sentence tells so."""
    with pytest.raises(ImageError, match=says) as told:
        read_what_is_there(path)
    assert str(path.with_suffix("")) in str(told.value)
    assert "\n" not in str(told.value)


def test_images_that_do_not_stand_alone(tmp_path: Path) -> None:
    create = ("qemu-img", "create", "-q", "-f")
    for form in ("qcow2", "vmdk"):
        run(*create, form, tmp_path / f"base.{form}", "1M")
        run(*create, form, "-b", tmp_path / f"base.{form}", "-F", form, tmp_path / f"top.{form}")
    expect_one_error(tmp_path / "top.qcow2", "expected a QCOW2 image that stands alone.* a backing file")
    expect_one_error(tmp_path / "top.vmdk", "expected a VMDK image that stands alone.* the parent .*base")
    secret = ("--object", "secret,id=key,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=key")
    run(*create, "qcow2", *secret, tmp_path / "secret.qcow2", "1M")
    expect_one_error(tmp_path / "secret.qcow2", "stands alone, got one with encryption")
    for number, options in enumerate(("compression_type=zstd", "extended_l2=on", "data_file=raw.img")):
        image = tmp_path / f"{number}.qcow2"
        run(*create, "qcow2", "-o", options.replace("raw.img", str(tmp_path / "raw.img")), image, "1M")
        expect_one_error(image, "an external data file, zstd clusters or subclusters")


@pytest.mark.parametrize(
    ("form", "name"),
    [("vhdx", "VHDX"), ("vpc", "VHD"), ("vpc -o subformat=fixed", "VHD"), ("vdi", "VDI"), ("qed", "QED")],
)
def test_other_formats_are_named(tmp_path: Path, form: str, name: str) -> None:
    run("qemu-img", "create", "-q", "-f", *form.split(), tmp_path / "disk.img", "1M")
    expect_one_error(tmp_path / "disk.img", f"expected a raw, QCOW2 or VMDK image, got {name}; convert it")


@some_formats
def test_a_truncated_image_never_gives_other_bytes(tmp_path: Path, name: str) -> None:
    raw = sparse_raw(tmp_path / "raw.img", 8, 6000)
    image = convert(raw, name)
    files = [path for path in tmp_path.iterdir() if path not in (raw, image)] or [image]
    whole, data = files[0].read_bytes(), raw.read_bytes()
    refused = 0
    for length in (10, 90, 600, 66_000, len(whole) // 2, len(whole) * 9 // 10, len(whole) - 100):
        files[0].write_bytes(whole[:length])
        told = ""
        try:
            assert read_what_is_there(image) == data
        except ImageError as error:
            told = str(error)
            refused += 1
        assert "\n" not in told
        assert not told or str(tmp_path) in told
    assert refused >= 5
    files[0].unlink()
    with pytest.raises((ImageError, FileNotFoundError), match=r"disk|raw") as told:
        open_image(image)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("at", "damage", "says"),
    [
        (4, b"\0\0\0\x09", "version 9"),
        (20, b"\0\0\0\x3f", "an impossible cluster size"),
        (24, bytes(8), "whole sectors"),
        (24, b"\0\0\xff\xff\xff\xff\xfe\0", "cannot be opened|a table of"),
        (36, b"\0\0\0\0", "cannot be opened|a table of"),
        (40, b"\0\xff\xff\xff\xff\xff\0\0", "cannot be opened|ends before"),
        (3 * 65536, b"\x80\xff\xff\xff\xff\xff\0\0", "cannot be opened|ends before"),
        (4 * 65536, b"\x80\xff\xff\xff\xff\xff\0\0", "damaged at byte|got none|cannot be opened"),
        (4 * 65536, b"\x7f\xff\xff\xff\xff\xff\0\0", "damaged at byte 0 of the disk"),
    ],
)
def test_a_corrupt_qcow2_image(tmp_path: Path, at: int, damage: bytes, says: str) -> None:
    raw = tmp_path / "raw.img"
    raw.write_bytes(random.Random(1).randbytes(512 * KIB))
    image = convert(raw, "qcow2 version 3")
    with open(image, "r+b") as file:
        file.seek(at)
        file.write(damage)
    expect_one_error(image, says)


def test_a_damaged_compressed_grain(tmp_path: Path) -> None:
    raw = tmp_path / "raw.img"
    raw.write_bytes(b"some text " * (512 * KIB // 10) + bytes(8))
    image = convert(raw, "vmdk streamOptimized")
    data = bytearray(image.read_bytes())
    with open_image(image) as opened:
        assert opened.read(0, 512 * KIB) == raw.read_bytes()
    place = data.index(b"\x78", 65536)  # how zlib begins
    data[place : place + 60] = bytes(60)
    image.write_bytes(data)
    expect_one_error(image, "damaged at byte 0 of the disk")


def test_without_the_libraries_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = sparse_raw(tmp_path / "raw.img", 1, 4000)
    monkeypatch.setitem(sys.modules, "pyqcow", None)
    with pytest.raises(ImageError, match=r"needs libqcow and libvmdk: pip install 'vmrestorekit\[images\]'"):
        open_image(convert(raw, "qcow2 version 3"))
