"""What the media agent reads: a copy in a store, or images."""

from __future__ import annotations

import concurrent.futures
import random
from pathlib import Path

import numpy as np
import pytest

from vmrestorekit.backup.create import create_copy
from vmrestorekit.backup.layout import CopySettings, LayoutError
from vmrestorekit.backup.records import StoreError
from vmrestorekit.backup.retention import expire_copies
from vmrestorekit.backup.store import BackupStore
from vmrestorekit.lab.media.source import CopySource, ImageSource

BLOCK = 4096
SETTINGS = (
    CopySettings(container_blocks=3, chunk_bytes=5 * BLOCK),
    CopySettings(container_blocks=4, chunk_bytes=9 * BLOCK, zstd_level=3, frame_bytes=3 * BLOCK),
)


def disk_of(seeds: list[int], tail: int = 0) -> bytes:
    """Contents of a disk: a seed a block, 0 for zeros, and a shorter block at the end."""
    blocks = [random.Random(seed).randbytes(BLOCK) if seed else bytes(BLOCK) for seed in seeds]
    return b"".join(blocks) + random.Random(len(seeds)).randbytes(tail)


FIRST = disk_of([1, 0, 2, 3, 3, 0, 4, 5, 6, 7], tail=512)
SECOND = disk_of([0, 8, 1, 9])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one.img", tmp_path / "two.img"]
    for path, data in zip(paths, (FIRST, SECOND), strict=True):
        path.write_bytes(data)
    return paths


@pytest.fixture(params=SETTINGS, ids=["plain", "frames"])
def store(request: pytest.FixtureRequest, tmp_path: Path, images: list[Path]) -> BackupStore:
    store = BackupStore.create(tmp_path / "store", BLOCK)
    machine = tmp_path / "web.xml"
    machine.write_text("<domain/>")
    create_copy(store, "web vm", images, configuration=[machine], settings=request.param)
    return store


def expected(block: int) -> bytes:
    whole = [FIRST[at : at + BLOCK] for at in range(0, len(FIRST), BLOCK)]
    whole += [SECOND[at : at + BLOCK] for at in range(0, len(SECOND), BLOCK)]
    return whole[block]


def test_a_copy_gives_the_blocks_of_all_disks(store: BackupStore) -> None:
    source = CopySource(store.path, 1)
    assert source.disk_bytes == (len(FIRST), len(SECOND))
    stored = np.flatnonzero(~source.layout.hole).tolist()
    assert stored == [0, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14]
    wanted = [12, 13, 0, 2, 3, 4, 9, 10, 14]  # over both disks, in any order, a short one among them
    assert source.read(wanted) == [expected(block) for block in wanted]
    assert all(type(content) is bytes for content in source.read(wanted))
    assert source.is_signed
    source.close()


def test_several_threads_read_a_copy_at_once(store: BackupStore) -> None:
    source = CopySource(store.path, 1)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        wanted = [[block] for block in np.flatnonzero(~source.layout.hole).tolist()] * 5
        assert list(pool.map(source.read, wanted)) == [[expected(block[0])] for block in wanted]
    source.close()


def test_configuration_files_come_with_a_copy(store: BackupStore) -> None:
    source = CopySource(store.path, 1)
    assert {name: bytes(file.read(0, file.size)) for name, file in source.files.items()} == {
        "web.xml": b"<domain/>"
    }
    source.close()


def test_a_hole_cannot_be_read(store: BackupStore) -> None:
    source = CopySource(store.path, 1)
    with pytest.raises(StoreError, match="expected block 1 to be stored, it is a hole"):
        source.read([0, 1])
    source.close()


def test_a_damaged_content_is_not_given(store: BackupStore) -> None:
    source = CopySource(store.path, 1)
    for path in store.path.glob("chunks/*/container-*"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged (content|frame)|as its signature says"):
        source.read(np.flatnonzero(~source.layout.hole).tolist())
    source.close()


def test_a_content_is_checked_by_the_signature_of_its_block(store: BackupStore) -> None:
    source = CopySource(store.path, 1)
    source.check(12, expected(12))
    with pytest.raises(StoreError, match="damaged content of block 12: not as its signature says"):
        source.check(12, expected(13))
    source.close()


def test_a_copy_in_use_is_not_pruned_until_it_is_released(store: BackupStore) -> None:
    source = CopySource(store.path, 1)
    assert store.associations(1) == ["web_vm"]
    source.close()
    with pytest.raises(StoreError, match="associated with 'web_vm'"):  # closing is not releasing
        expire_copies(store, [1])
    again = CopySource(store.path, 1)  # as after a crash
    again.release()
    again.release()
    again.close()
    assert store.associations(1) == []
    assert expire_copies(store, [1]) > 0


def test_a_copy_that_cannot_be_opened_is_not_associated(store: BackupStore) -> None:
    with pytest.raises(StoreError, match="expected the number of a copy"):
        CopySource(store.path, 2)
    for path in store.path.glob("chunks/*/header"):
        path.unlink()
    (store.path / "index.sqlite").unlink()
    with pytest.raises(StoreError, match="expected the header of a chunk"):
        CopySource(store.path, 1)
    assert store.associations(1) == []


def test_an_image_is_laid_out_like_a_full_copy_with_zeros_as_holes(images: list[Path]) -> None:
    source = ImageSource(images, BLOCK)
    hole = [block for block in range(15) if not any(expected(block))]
    assert np.flatnonzero(source.layout.hole).tolist() == hole == [1, 5, 11]
    addresses = source.layout.address[~source.layout.hole]
    # one behind the other; the last block of the first disk is a short one
    assert np.diff(addresses).tolist() == [BLOCK] * 8 + [512] + [BLOCK] * 2
    wanted = [10, 12, 13, 0, 6]
    assert source.read(wanted) == [expected(block) for block in wanted]
    assert not source.is_signed
    source.check(0, b"anything")
    source.close()


def test_files_can_be_given_with_an_image(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "vm.toml").write_text("cpus = 2")
    source = ImageSource(images, BLOCK, files={"vm.toml": tmp_path / "vm.toml"})
    assert source.files["vm.toml"].read(7, 100) == b"2"
    assert source.files["vm.toml"].size == 8
    source.close()


def test_what_is_no_image_is_refused(images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ImageSource([images[0], tmp_path / "none.img"], BLOCK)
    with pytest.raises(LayoutError, match="block_bytes"):
        ImageSource(images, 5000)
