"""What a store does not rely on: an index that is wrong, a number, a header that can be had elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_helpers import BLOCK, stored_files, write_image

from vmrestorekit.backup import (
    BackupStore,
    StoreError,
    create_copy,
    expire_copies,
    export_copy,
    verify_store,
)
from vmrestorekit.backup import store as store_module
from vmrestorekit.backup.chunk import ChunkId

STATE = [1, 2, 3, 0, 4, 5, 6, 7]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BackupStore]:
    """Copies 1 and 2, of two machines with the same contents."""
    with BackupStore.create(tmp_path / "store", BLOCK) as store:
        for vm in ("web", "clone"):
            create_copy(store, vm, [write_image(tmp_path / f"{vm}.img", STATE)])
        yield store


@contextlib.contextmanager
def index_of(store: BackupStore) -> Iterator[sqlite3.Connection]:
    store.close()
    with contextlib.closing(sqlite3.connect(store.path / "index.sqlite")) as index:
        yield index
        index.commit()


def source(store: BackupStore, name: str) -> bytes:
    return (store.path.parent / name).read_bytes()


def test_expiry_counts_links_itself(store: BackupStore) -> None:
    with index_of(store) as index:
        assert index.execute("UPDATE stored SET links = 1").rowcount == 7
    expire_copies(store, [1])
    assert stored_files(store, 2) == [source(store, "clone.img")]


def test_a_backup_does_not_believe_where_a_content_is_said_to_be(store: BackupStore, tmp_path: Path) -> None:
    with index_of(store) as index:
        index.execute("UPDATE stored SET slot = slot + 100 WHERE slot = 2")
        index.execute("UPDATE stored SET slot = 90 WHERE slot = 3")
        index.execute("UPDATE stored SET slot = 3 WHERE slot = 4")
    third = create_copy(store, "third", [write_image(tmp_path / "third.img", STATE)])
    assert third.counts["new_blocks"] == 3
    assert stored_files(store, third.number) == [source(store, "third.img")]


def test_an_index_with_other_headers_is_made_again(store: BackupStore) -> None:
    chunk = ChunkId(1, 0)
    header = store.header_on_disk(chunk)
    other = dataclasses.replace(header, vm="another")
    with index_of(store) as index:
        index.execute("UPDATE chunk SET header = ? WHERE copy = 1", [other.to_bytes()])
    with store.writing():
        assert store.index.header(chunk).vm == "web"


def test_a_header_that_is_damaged_is_had_from_the_index(store: BackupStore) -> None:
    path = store.chunk_folder(ChunkId(1, 0)) / "header"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert any("header" in damage.what for damage in verify_store(store))
    expire_copies(store, [1])
    assert stored_files(store, 2) == [source(store, "clone.img")]


def test_no_number_is_given_twice(store: BackupStore, tmp_path: Path) -> None:
    with BackupStore(store.path) as reader:
        before = stored_files(reader, 2)
        expire_copies(store, [2])
        image = write_image(tmp_path / "new.img", [21, 22])
        assert create_copy(store, "new", [image]).number == 3
        with pytest.raises(StoreError, match=r"expected the number of a copy \(1, 3\), got 2"):
            export_copy(reader, 2, tmp_path / "out.img")
        assert stored_files(reader, 3) == [image.read_bytes()] != before


def test_a_copy_that_expires_while_it_is_associated(
    store: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store_module.write_record

    def expire_first(path: Path, record: dict[str, object]) -> None:
        if "user" in record:
            with BackupStore(store.path) as other:
                expire_copies(other, [2])
        write(path, record)

    monkeypatch.setattr(store_module, "write_record", expire_first)
    with pytest.raises(StoreError, match="expected the number of a copy"):
        store.associate(2, "mount-1")
    assert list((store.path / "associations").iterdir()) == []


def test_a_copy_that_is_associated_while_it_expires(
    store: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    retire = BackupStore.retire_number

    def associate_first(self: BackupStore, number: int) -> None:
        self.associate(number, "mount-1")
        retire(self, number)

    monkeypatch.setattr(BackupStore, "retire_number", associate_first)
    with pytest.raises(StoreError, match="copy 2 has just been associated and stays"):
        expire_copies(store, [2])
    assert store.associations(2) == ["mount-1"]
    assert stored_files(store, 2) == [source(store, "clone.img")]
    assert verify_store(store) == []


def test_a_backup_that_ends_while_the_store_is_checked_is_no_damage(
    store: BackupStore, tmp_path: Path
) -> None:
    def progress(done: int, total: int) -> None:
        if store.copy_path(1).exists():  # once
            with BackupStore(store.path) as other:
                create_copy(other, "third", [write_image(tmp_path / "third.img", [31, 32])])
                expire_copies(other, [1])

    assert verify_store(store, progress) == []
    assert [copy.number for copy in store.copies()] == [2, 3]


def test_files_of_the_same_name_stay_apart(store: BackupStore, tmp_path: Path) -> None:
    disks = []
    for number, name in enumerate(("x/disk.img", "y/2-disk.img", "z/disk.img")):
        (tmp_path / name).parent.mkdir()
        disks.append(write_image(tmp_path / name, [41 + number]))
    copy = create_copy(store, "many", disks)
    out = tmp_path / "out"
    out.mkdir()
    written = export_copy(store, copy.number, out)
    assert [path.read_bytes() for path in written] == [disk.read_bytes() for disk in disks]
    assert len(set(written)) == 3
