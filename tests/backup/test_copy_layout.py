"""Where the blocks of a copy lie, against the bytes that are really there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_helpers import BLOCK, SETTINGS, write_image

from vmrestorekit.backup import (
    BackupLayout,
    BackupStore,
    CopySettings,
    create_copy,
    load_layouts,
    save_layouts,
    stored_layout,
    synthesise_full,
)
from vmrestorekit.backup.chunk import container_path
from vmrestorekit.backup.layout import LayoutError
from vmrestorekit.backup.manifest import build_manifest

images = st.lists(st.integers(0, 12), min_size=6, max_size=24)


def payload(store: BackupStore) -> bytes:
    """What the medium holds: frame after frame, as before compression."""
    parts = []
    for chunk in store.chunks_there():
        header = store.header_on_disk(chunk)
        for container in range(len(header.container_bytes)):
            data = container_path(store.chunk_folder(chunk), container).read_bytes()
            rows = header.stored[header.stored["container"] == container]
            for offset in np.unique(rows["offset"]):
                row = rows[rows["offset"] == offset][0]
                frame = data[offset : offset + row["frame_bytes"]]
                parts.append(zstandard.ZstdDecompressor().decompress(frame) if row["codec"] else frame)
    return b"".join(parts)


def check(layout: BackupLayout, image: bytes, medium: bytes) -> None:
    for block, address in enumerate(layout.address.tolist()):
        content = image[block * BLOCK : (block + 1) * BLOCK]
        if address < 0:
            assert not any(content)
            continue
        assert medium[address : address + len(content)] == content
        if layout.frame_start is not None and layout.frame_end is not None:
            assert layout.frame_start[block] <= address
            assert address + len(content) <= layout.frame_end[block] <= len(medium)


@pytest.mark.parametrize("copy_settings", SETTINGS, ids=["plain", "zstd", "zstd in frames"])
def test_each_block_lies_where_the_layout_says(copy_settings: CopySettings) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(states=st.lists(images, min_size=1, max_size=4), tail=st.sampled_from([0, 512]))
    def lies_there(states: list[list[int]], tail: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = BackupStore.create(Path(folder) / "store", BLOCK)
            sources = []
            for state in states:
                image = write_image(Path(folder) / "web.img", state, tail)
                sources.append(image.read_bytes())
                create_copy(
                    *(store, "web", [image]),
                    kind="incremental" if len(sources) > 1 else "full",
                    settings=copy_settings,
                )
            synthesise_full(store, len(states), rewrite=True, settings=copy_settings)
            medium = payload(store)
            for number, source in enumerate([*sources, sources[-1]], 1):
                layout = stored_layout(store, number)
                check(layout, source, medium)
                path = Path(folder) / "layouts.parquet"
                save_layouts(path, {"a": layout})
                assert_equal(load_layouts(path)["a"], layout)
            store.close()

    lies_there()


def assert_equal(ours: BackupLayout, other: BackupLayout) -> None:
    assert (ours.block_bytes, ours.disk_bytes) == (other.block_bytes, other.disk_bytes)
    for name in ("address", "container", "chunk", "frame_start", "frame_end"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(other, name), name)


@pytest.mark.parametrize("frame_blocks", [None, 2, 3])
def test_a_full_copy_without_anything_shared_lies_as_the_model_lays_it_out(
    tmp_path: Path, frame_blocks: int | None
) -> None:
    image = write_image(tmp_path / "web.img", [*range(1, 9), 0, 0, *range(9, 30)], tail=512)
    frames = {"zstd_level": 1, "frame_bytes": frame_blocks * BLOCK} if frame_blocks else {}
    copy_settings = CopySettings(container_blocks=4, chunk_bytes=9 * BLOCK, **frames)
    with BackupStore.create(tmp_path / "store", BLOCK) as store:
        create_copy(store, "web", [image], settings=copy_settings)
        assert_equal(
            stored_layout(store, 1), BackupLayout.full([build_manifest(image)], BLOCK, copy_settings)
        )


def test_a_chain_is_spread_over_more_chunks_and_a_synthetic_full_copy_over_fewer(tmp_path: Path) -> None:
    with BackupStore.create(tmp_path / "store", BLOCK) as store:
        state = list(range(1, 40))
        for day in range(4):
            state[day * 9] = 100 + day
            image = write_image(tmp_path / "web.img", state)
            create_copy(store, "web", [image], kind="incremental" if day else "full")
        synthesise_full(store, 4, rewrite=True)
        chain, synthetic = stored_layout(store, 4), stored_layout(store, 5)
        assert len(np.unique(chain.chunk)) == 4
        assert len(np.unique(synthetic.chunk)) == 1
        # every changed block interrupts what was contiguous
        assert np.count_nonzero(np.diff(chain.address) != BLOCK) == 6
        assert np.count_nonzero(np.diff(synthetic.address) != BLOCK) == 0


def test_files_that_are_no_layouts(tmp_path: Path) -> None:
    path = tmp_path / "layouts.parquet"
    with pytest.raises(FileNotFoundError, match="expected layouts of backup copies at"):
        load_layouts(path)
    path.write_bytes(b"something else")
    with pytest.raises(LayoutError, match="layouts of backup copies"):
        load_layouts(path)
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(LayoutError, match="expected layouts of backup copies, got another file"):
        load_layouts(path)
    layout = BackupLayout(BLOCK, (BLOCK,), np.array([0]), np.array([0]), np.array([0]))
    other = BackupLayout(BLOCK, (2 * BLOCK,), np.array([0, -1]), np.array([0, -1]), np.array([0, -1]))
    with pytest.raises(LayoutError, match="expected layouts of the same disks and blocks"):
        save_layouts(path, {"a": layout, "b": other})
    save_layouts(path, {"a": layout})
    frame, metadata = pl.read_parquet(path), pl.read_parquet_metadata(path)
    kept = {"vmrestorekit.layouts": metadata["vmrestorekit.layouts"]}
    frame.with_columns(count=pl.lit(2, pl.Int32)).write_parquet(path, metadata=kept)
    with pytest.raises(LayoutError, match="copy 'a': expected runs within 1 blocks"):
        load_layouts(path)
    pl.concat([frame, frame]).write_parquet(path, metadata=kept)
    with pytest.raises(LayoutError, match="copy 'a': expected each block once"):
        load_layouts(path)


def test_a_frame_that_its_block_is_not_in() -> None:
    one = np.array([0])
    with pytest.raises(LayoutError, match="expected both frame_start and frame_end"):
        BackupLayout(BLOCK, (BLOCK,), one, one, one, one)
    with pytest.raises(LayoutError, match="block 0: expected an address within its frame"):
        BackupLayout(BLOCK, (BLOCK,), one, one, one, one + 1, one + BLOCK)
