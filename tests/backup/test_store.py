"""What a backup store holds after each operation, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_helpers import BLOCK, SETTINGS, allocated_bytes, content, stored_files, write_image

from vmrestorekit.backup import (
    BackupStore,
    CopySettings,
    StoreError,
    create_copy,
    expire_copies,
    export_copy,
    open_copy,
    synthesise_full,
    verify_store,
)
from vmrestorekit.backup.layout import LayoutError

BLOCKS = [1, 3, 5, 0, 7, 9, 11, 0]


@pytest.fixture
def store(tmp_path: Path) -> BackupStore:
    return BackupStore.create(tmp_path / "store", BLOCK)


def image_of(tmp_path: Path, blocks: list[int], name: str = "web", tail: int = 0) -> Path:
    return write_image(tmp_path / f"{name}.img", blocks, tail)


def own_blocks(store: BackupStore, number: int) -> list[int]:
    """The blocks that a copy lists."""
    headers = [store.header(chunk) for chunk in store.copy(number).chunk_ids]
    return sorted(block for header in headers for block in header.blocks["block"].tolist())


def test_a_full_copy_stores_each_content_once_and_no_zeros(store: BackupStore, tmp_path: Path) -> None:
    image = image_of(tmp_path, [1, 3, 1, 0, 3, 5, 1])
    copy = create_copy(store, "web", [image])
    assert copy.counts == {
        "new_blocks": 3,
        "linked_blocks": 3,
        "zero_blocks": 0,
        "new_bytes": 3 * BLOCK,
        "stored_bytes": 3 * BLOCK + 4096,  # and the head of the container
    }
    assert own_blocks(store, 1) == [0, 1, 2, 4, 5, 6]
    assert stored_files(store, 1) == [image.read_bytes()]


def test_contents_are_shared_by_all_copies_of_all_machines(store: BackupStore, tmp_path: Path) -> None:
    for vm in ("web", "db", "mail"):
        create_copy(store, vm, [image_of(tmp_path, BLOCKS)])
    assert [copy.counts["new_blocks"] for copy in store.copies()] == [6, 0, 0]
    assert {links for _, _, links in store.index.stored()} == {3}
    expire_copies(store, [1])
    assert {links for _, _, links in store.index.stored()} == {2}
    assert stored_files(store, 3) == [(tmp_path / "web.img").read_bytes()]


def test_an_incremental_copy_lists_what_changed_since_the_last_a_differential_since_the_full(
    store: BackupStore, tmp_path: Path
) -> None:
    states = [[1, 3, 5, 7], [1, 13, 5, 7], [1, 13, 15, 0], [1, 3, 15, 0]]
    kinds = ["full", "incremental", "incremental", "differential"]
    for blocks, kind in zip(states, kinds, strict=True):
        create_copy(store, "web", [image_of(tmp_path, blocks)], kind=kind)
    assert [own_blocks(store, number) for number in (1, 2, 3, 4)] == [[0, 1, 2, 3], [1], [2, 3], [2, 3]]
    assert [copy.parent for copy in store.copies()] == [None, 1, 2, 1]
    assert store.copy(3).counts["zero_blocks"] == 1
    # content 15 is there already, so nothing is stored by the last one
    assert store.copy(4).counts["new_blocks"] == 0
    assert [stored_files(store, number)[0] for number in (1, 2, 3, 4)] == [
        b"".join(map(content, blocks)) for blocks in states
    ]


def test_blocks_that_became_zeros_at_the_end_and_between_are_noted(
    store: BackupStore, tmp_path: Path
) -> None:
    for blocks in ([1, 3, 5, 7], [1, 0, 5, 0]):
        image = image_of(tmp_path, blocks)
        create_copy(store, "web", [image], kind="incremental" if store.copies() else "full")
    assert own_blocks(store, 2) == [1, 3]
    assert stored_files(store, 2) == [image.read_bytes()]


def test_a_disk_that_grew_and_shrank(store: BackupStore, tmp_path: Path) -> None:
    states = [([1, 3, 5], 512), ([1, 3, 5, 7, 9], 0), ([1, 3], 1024)]
    expected = []
    for blocks, tail in states:
        image = image_of(tmp_path, blocks, tail=tail)
        create_copy(store, "web", [image], kind="incremental" if expected else "full")
        expected.append([image.read_bytes()])
    assert [stored_files(store, number) for number in (1, 2, 3)] == expected


@pytest.mark.parametrize("rewrite", [False, True])
def test_a_synthetic_full_copy_stands_alone_and_does_not_read_the_source(
    store: BackupStore, tmp_path: Path, rewrite: bool
) -> None:
    for blocks in (BLOCKS, [1, 13, 5, 15, 7, 9, 0, 0]):
        image = image_of(tmp_path, blocks)
        create_copy(store, "web", [image], kind="incremental" if store.copies() else "full")
    wanted = image.read_bytes()
    image.unlink()
    copy = synthesise_full(store, 2, rewrite=rewrite, settings=SETTINGS[0])
    assert (copy.kind, copy.parent, copy.created) == ("synthetic_full", None, store.copy(2).created)
    assert copy.counts["new_blocks"] == (6 if rewrite else 0)
    assert stored_files(store, copy.number) == [wanted]
    expire_copies(store, [1, 2])
    assert stored_files(store, copy.number) == [wanted]
    assert verify_store(store) == []


def test_a_rewritten_copy_lies_in_the_order_of_the_disk(store: BackupStore, tmp_path: Path) -> None:
    for blocks in (BLOCKS, [1, 13, 5, 15, 7, 9, 0, 0], [17, 13, 5, 15, 7, 19, 0, 0]):
        image = image_of(tmp_path, blocks)
        create_copy(store, "web", [image], kind="incremental" if store.copies() else "full")
    synthesise_full(store, 3, rewrite=True)
    [blocks] = store.maps(store.copy(4))
    assert set(blocks.copy.tolist()) == {4}
    assert blocks.slot.tolist() == list(range(6))
    [scattered] = store.maps(store.copy(3))
    assert set(scattered.copy.tolist()) == {1, 2, 3}


def test_expiry_punches_holes_for_what_nobody_links_to_and_only_there(
    store: BackupStore, tmp_path: Path
) -> None:
    create_copy(store, "web", [image_of(tmp_path, [1, 3, 5, 7, 9, 11])])
    create_copy(store, "db", [image_of(tmp_path, [1, 13, 5, 15, 9, 17], "db")])
    before = allocated_bytes(store)
    assert expire_copies(store, [1]) == 3 * BLOCK
    assert before - allocated_bytes(store) == 3 * BLOCK
    assert stored_files(store, 2) == [(tmp_path / "db.img").read_bytes()]
    assert verify_store(store) == []
    expire_copies(store, [2])
    assert store.chunks_there() == []
    assert allocated_bytes(store) == 0


def test_a_frame_is_kept_as_long_as_one_of_its_blocks_is_linked_to(
    store: BackupStore, tmp_path: Path
) -> None:
    create_copy(store, "web", [image_of(tmp_path, [2, 4, 6, 8, 10, 12])], settings=SETTINGS[2])
    create_copy(store, "db", [image_of(tmp_path, [4], "db")], settings=SETTINGS[2])
    expire_copies(store, [1])
    assert stored_files(store, 2) == [content(4)]
    assert verify_store(store) == []


def test_what_others_build_on_or_run_from_does_not_expire(store: BackupStore, tmp_path: Path) -> None:
    create_copy(store, "web", [image_of(tmp_path, BLOCKS)])
    create_copy(store, "web", [image_of(tmp_path, [1, 1, 1])], kind="incremental")
    with pytest.raises(StoreError, match="copy 1 is the parent of copy 2"):
        expire_copies(store, [1])
    store.associate(2, "web-restored")
    assert store.associations(2) == ["web-restored"]
    with pytest.raises(StoreError, match="copy 2 is associated with 'web-restored'"):
        expire_copies(store, [1, 2])
    assert len(store.copies()) == 2
    store.dissociate(2, "web-restored")
    expire_copies(store, [1, 2])
    assert store.copies() == []


def test_a_container_ends_after_so_many_blocks_and_a_chunk_after_so_many_bytes(
    store: BackupStore, tmp_path: Path
) -> None:
    settings = CopySettings(container_blocks=3, chunk_bytes=8 * BLOCK)
    create_copy(store, "web", [image_of(tmp_path, list(range(1, 41, 2)))], settings=settings)
    headers = [store.header_on_disk(chunk) for chunk in store.chunks_there()]
    assert [np.bincount(header.stored["container"]).tolist() for header in headers] == [
        [3, 3, 2],
        [3, 3, 2],
        [3, 1],
    ]
    assert headers[0].container_bytes == (4 * BLOCK, 4 * BLOCK, 3 * BLOCK)
    assert [(header.offset // BLOCK, header.end // BLOCK) for header in headers] == [
        (0, 8),
        (8, 16),
        (16, 20),
    ]


def test_several_streams_write_the_same_contents(tmp_path: Path) -> None:
    image = image_of(tmp_path, [seed % 37 for seed in range(200)])
    layouts = []
    for streams in (1, 2, 5):
        with BackupStore.create(tmp_path / f"store-{streams}", BLOCK) as store:
            for _ in range(2):
                create_copy(store, "web", [image], settings=SETTINGS[1], streams=streams)
            assert stored_files(store, 2) == [image.read_bytes()]
            layouts.append([store.header_on_disk(chunk).to_bytes() for chunk in store.chunks_there()])
        with BackupStore.create(tmp_path / f"again-{streams}", BLOCK) as store:
            for _ in range(2):
                create_copy(store, "web", [image], settings=SETTINGS[1], streams=streams)
            # the same chunks, however the threads took turns
            assert [store.header_on_disk(chunk).to_bytes() for chunk in store.chunks_there()] == layouts[-1]


@pytest.mark.parametrize("block_bytes", [4096, 64 * 1024, 4 * 1024 * 1024])
def test_blocks_of_any_size(tmp_path: Path, block_bytes: int) -> None:
    image = image_of(tmp_path, [seed % 11 for seed in range(1500)], tail=1536)
    with BackupStore.create(tmp_path / "store", block_bytes) as store:
        create_copy(store, "web", [image], settings=CopySettings(zstd_level=3))
        assert stored_files(store, 1) == [image.read_bytes()]
        export_copy(store, 1, tmp_path / "out.img")
    assert (tmp_path / "out.img").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("block_bytes", [0, 2048, 5000, 8 * 1024 * 1024])
def test_blocks_of_other_sizes_are_refused(tmp_path: Path, block_bytes: int) -> None:
    with pytest.raises(LayoutError, match="expected a power of two from 4096"):
        BackupStore.create(tmp_path / "store", block_bytes)
    assert not (tmp_path / "store").exists()


def test_an_export_is_as_sparse_as_the_image_and_can_go_to_a_folder(
    store: BackupStore, tmp_path: Path
) -> None:
    image = image_of(tmp_path, [1, *[0] * 5000, 3])
    second = image_of(tmp_path, [5, 7], "data")
    (tmp_path / "web.toml").write_text("memory = '1 GiB'\n")
    create_copy(store, "web", [image, second], configuration=[tmp_path / "web.toml"])
    (tmp_path / "out").mkdir()
    written = export_copy(store, 1, tmp_path / "out")
    assert [path.name for path in written] == ["web.img", "data.img", "web.toml"]
    for path in written:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    assert written[0].stat().st_blocks * 512 <= 4 * BLOCK
    with pytest.raises(StoreError, match="expected no such file, or it would be lost"):
        export_copy(store, 1, tmp_path / "out")
    with pytest.raises(StoreError, match="expected a folder for the 2 disks"):
        export_copy(store, 1, tmp_path / "one.img")


def test_an_interrupted_export_leaves_nothing(store: BackupStore, tmp_path: Path) -> None:
    create_copy(store, "web", [image_of(tmp_path, list(range(1, 4001, 2)))])

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_copy(store, 1, tmp_path / "out.img", stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "web.img"]


def test_random_reads_give_what_the_image_has(store: BackupStore, tmp_path: Path) -> None:
    image = image_of(tmp_path, [seed % 13 for seed in range(60)], tail=512)
    create_copy(store, "web", [image], settings=SETTINGS[2])
    whole = image.read_bytes()
    chance = np.random.default_rng(1)
    [disk] = open_copy(store, store.copy(1))
    for start, length in zip(
        chance.integers(0, len(whole), 300), chance.integers(0, 50_000, 300), strict=True
    ):
        assert bytes(disk.read(start, length)) == whole[start : start + length]
    disk.close()


def test_one_process_writes_at_a_time(store: BackupStore, tmp_path: Path) -> None:
    image = image_of(tmp_path, BLOCKS)
    with (
        store.writing(),
        BackupStore(store.path) as other,
        pytest.raises(StoreError, match="another process writes to this backup store"),
    ):
        create_copy(other, "web", [image])
    create_copy(store, "web", [image])


def test_a_full_disk_stops_a_copy_with_its_own_error(
    store: BackupStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    image = image_of(tmp_path, BLOCKS)
    with monkeypatch.context() as patched:
        patched.setattr("vmrestorekit.backup.streams.os.fsync", no_space)
        with pytest.raises(OSError, match="No space left on device"):
            create_copy(store, "web", [image])
    assert store.copies() == []
    assert verify_store(store) == []
    create_copy(store, "web", [image])
    assert stored_files(store, 1) == [image.read_bytes()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "monthly"}, "expected full, incremental or differential, got 'monthly'"),
        ({"kind": "incremental"}, "expected a full copy of 'web' for the incremental one to build on"),
        ({"vm": " "}, "expected a name for the virtual machine, got ' '"),
        ({"disks": []}, "expected at least one disk image, got none"),
        ({"streams": 0}, "expected at least one data stream, got 0"),
    ],
)
def test_impossible_copies_are_refused(
    store: BackupStore, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    given = {"vm": "web", "disks": [image_of(tmp_path, BLOCKS)], **arguments}
    with pytest.raises(StoreError, match=message):
        create_copy(store, **given)  # type: ignore[arg-type]
    assert store.copies() == store.attempts() == []


def test_copies_and_stores_that_are_not_there(store: BackupStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"expected the number of a copy \(none yet\), got 1"):
        store.copy(1)
    create_copy(store, "web", [image_of(tmp_path, BLOCKS)])
    with pytest.raises(StoreError, match=r"expected the number of a copy \(1\), got 7"):
        export_copy(store, 7, tmp_path / "out.img")
    with pytest.raises(StoreError, match=r"expected a backup store, found no store\.json"):
        BackupStore(tmp_path)
    with pytest.raises(StoreError, match="expected no such path or an empty folder"):
        BackupStore.create(tmp_path)
    with pytest.raises(StoreError, match="the blocks of this store have 4096 bytes, not 65536"):
        BackupStore.open_or_create(store.path, 65536)
    with pytest.raises(FileNotFoundError, match="expected a disk image at"):
        create_copy(store, "web", [tmp_path / "nothing.img"])
