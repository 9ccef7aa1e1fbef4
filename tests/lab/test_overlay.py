"""The overlay against a bytearray that does the same; its files against crashes and mix-ups."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.recording.overlay import UNIT_BYTES, Overlay

UNITS = 9
ragged = st.sampled_from([UNITS * UNIT_BYTES, UNITS * UNIT_BYTES - 512, UNITS * UNIT_BYTES - 4095])
places = st.integers(0, UNITS * UNIT_BYTES) | st.integers(0, UNITS).map(lambda unit: unit * UNIT_BYTES)
steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "zero", "discard", "reopen", "fresh"]), places, places, st.integers(1, 255)
    ),
    max_size=12,
)


def make_image(path: Path, size: int) -> bytes:
    """Units 0 to 2 and 6 hold data, the rest are holes."""
    content = bytearray(size)
    with open(path, "wb") as image:
        image.truncate(size)
        for unit in (0, 1, 2, 6):
            content[unit * UNIT_BYTES : (unit + 1) * UNIT_BYTES] = bytes([unit + 1]) * UNIT_BYTES
            image.seek(unit * UNIT_BYTES)
            image.write(bytes([unit + 1]) * UNIT_BYTES)
    return bytes(content)


@settings(max_examples=80, deadline=None)
@given(size=ragged, steps=steps)
def test_the_disk_is_what_a_bytearray_would_be(size: int, steps: list[tuple[str, int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        image, writes, target = Path(folder, "image"), Path(folder, "writes"), Path(folder, "target")
        original = make_image(image, size)
        model, disk = bytearray(original), Overlay(image, writes)
        for op, one, other, value in steps:
            start, end = sorted((min(one, size), min(other, size)))
            if op == "reopen":  # as between two boots
                disk.save()
                disk.close()
                disk = Overlay(image, writes)
            elif op == "fresh":  # what is applied to a copy is the next disk's image
                disk.apply(target)
                disk.close()
                target.rename(image)
                writes.with_name("writes.state").unlink(missing_ok=True)
                disk, original = Overlay(image, writes), bytes(model)
            elif start < end:
                model[start:end] = (bytes([value]) if op == "write" else b"\0") * (end - start)
                if op == "write":
                    asyncio.run(disk.write(start, bytes(model[start:end])))
                else:
                    asyncio.run(disk.zero(start, end - start, discard=op == "discard"))
            assert asyncio.run(disk.read(0, size)) == model
        check_reads_and_extents(disk, model)
        assert image.read_bytes() == original
        disk.apply(target)
        assert target.read_bytes() == model
        disk.close()


def check_reads_and_extents(disk: Overlay, model: bytearray) -> None:
    size = len(model)
    for start, length in itertools.product(
        (0, 1, UNIT_BYTES - 1, 3 * UNIT_BYTES), (1, 511, 2 * UNIT_BYTES + 1, size)
    ):
        end = min(start + length, size)
        assert asyncio.run(disk.read(start, end - start)) == model[start:end]
        extents = asyncio.run(disk.extents(start, end - start))
        assert sum(length for length, _ in extents) == end - start
        at = start
        for extent, zero in extents:
            assert extent > 0
            assert not zero or not any(model[at : at + extent])
            at += extent


def test_holes_and_discarded_units_are_known_to_be_zero(tmp_path: Path) -> None:
    make_image(tmp_path / "image", UNITS * UNIT_BYTES)
    with Overlay(tmp_path / "image", tmp_path / "writes") as disk:
        asyncio.run(disk.zero(UNIT_BYTES, UNIT_BYTES, discard=True))
        asyncio.run(disk.write(4 * UNIT_BYTES, b"x"))
        extents = asyncio.run(disk.extents(0, UNITS * UNIT_BYTES))
        zero = [flag for length, flag in extents for _ in range(length // UNIT_BYTES)]
        assert zero == [False, True, False, True, False, True, False, True, True]
        assert disk.written_bytes == 2 * UNIT_BYTES


def test_what_was_not_saved_is_not_found_again(tmp_path: Path) -> None:
    original = make_image(tmp_path / "image", UNITS * UNIT_BYTES)
    with Overlay(tmp_path / "image", tmp_path / "writes") as disk:
        asyncio.run(disk.write(0, b"lost"))
    with Overlay(tmp_path / "image", tmp_path / "writes") as disk:
        assert asyncio.run(disk.read(0, 4)) == original[:4]


def test_writes_of_another_disk_are_refused(tmp_path: Path) -> None:
    make_image(tmp_path / "image", UNITS * UNIT_BYTES)
    with Overlay(tmp_path / "image", tmp_path / "writes") as disk:
        disk.save()
    (tmp_path / "larger").write_bytes(bytes(20 * UNIT_BYTES))
    with pytest.raises(
        LabError, match=r"writes.state: expected writes to a disk of 20 units of 4 KiB, got \(9,\)"
    ):
        Overlay(tmp_path / "larger", tmp_path / "writes")
    (tmp_path / "writes.state").write_bytes(b"truncated")
    with pytest.raises(LabError, match=r"writes.state: expected the state of a disk's writes"):
        Overlay(tmp_path / "image", tmp_path / "writes")


def test_an_image_that_is_missing_empty_or_shrinks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a disk image at .*nowhere"):
        Overlay(tmp_path / "nowhere", tmp_path / "writes")
    image = tmp_path / "image"
    image.touch()
    with pytest.raises(LabError, match="image: expected a disk image, got an empty file"):
        Overlay(image, tmp_path / "writes")
    image.write_bytes(bytes(2 * UNIT_BYTES))
    with Overlay(image, tmp_path / "writes") as disk:
        image.write_bytes(bytes(UNIT_BYTES))
        with pytest.raises(LabError, match="expected 4096 more bytes at 4096, the file ends there"):
            asyncio.run(disk.read(0, 2 * UNIT_BYTES))
