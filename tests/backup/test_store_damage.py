"""Whatever happens to the files of a store: never wrong bytes, never a traceback, and `verify` finds it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from store_helpers import BLOCK, SETTINGS, content, stored_files, write_image

from vmrestorekit.backup import (
    BackupStore,
    CopyContents,
    StoreError,
    create_copy,
    expire_copies,
    export_copy,
    verify_store,
)
from vmrestorekit.traces.manifest import ManifestError

BLOCKS = {"web": [1, 2, 3, 0, 4, 5, 6, 7, 8, 9, 11, 13], "db": [1, 2, 15, 17, 0, 5, 6, 19, 8, 21, 23, 25]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all settings, a chain, links between two machines, and holes from an expiry."""
    folder = tmp_path_factory.mktemp("damage")
    with BackupStore.create(folder / "store", BLOCK) as store:
        for step, settings in enumerate(SETTINGS):
            for vm, blocks in BLOCKS.items():
                changed = [seed + 31 * step * (number % 4 == step) for number, seed in enumerate(blocks)]
                image = write_image(folder / f"{vm}.img", changed, tail=512)
                (folder / f"{vm}.toml").write_text(f"name = '{vm}' # {step}\n")
                kind = "incremental" if step == 2 else "full"
                create_copy(
                    *(store, vm, [image]),
                    kind=kind,
                    configuration=[folder / f"{vm}.toml"],
                    settings=settings,
                    streams=1 + step % 2,
                )
        expire_copies(store, [1])
        assert verify_store(store) == []
    return folder / "store"


@pytest.fixture(scope="module")
def expected(whole: Path) -> dict[int, list[bytes]]:
    with BackupStore(whole) as store:
        return {copy.number: stored_files(store, copy.number) for copy in store.copies()}


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut_off(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def append(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(1, 100)))


def delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def scribble(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data))
    length = min(chance.randrange(1, 600), len(data) - start)
    data[start : start + length] = bytes(byte ^ 0x5A for byte in data[start : start + length])
    path.write_bytes(data)


def swap(path: Path, chance: random.Random) -> None:
    """With a file of the same name, elsewhere in the store or beside it."""
    store = next(parent for parent in path.parents if (parent / "store.json").exists())
    kin = [
        other
        for other in files_of(store)
        if other.name.split("-")[0] == path.name.split("-")[0] or other.parent == path.parent
    ]
    other = chance.choice([each for each in kin if each != path] or [path])
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def expect_right_bytes_or_one_sentence(store: BackupStore, number: int, files: list[bytes]) -> bool:
    """Whether a copy can still be read; what is read is right in any case."""
    try:
        assert stored_files(store, number) == files
    except StoreError:
        return False
    return True


@pytest.mark.parametrize(
    "harm", [flip, cut_off, append, delete, scribble, swap], ids=lambda each: each.__name__
)
def test_harm_to_any_file_is_found_and_never_gives_wrong_bytes(
    tmp_path: Path,
    whole: Path,
    expected: dict[int, list[bytes]],
    harm: Callable[[Path, random.Random], None],
) -> None:
    chance = random.Random(harm.__name__)
    for number in range(len(files_of(whole))):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        path = files_of(folder)[number]
        before = [each.read_bytes() for each in files_of(folder)]
        harm(path, chance)
        changed = [each.read_bytes() for each in files_of(folder)] != before
        try:
            store = BackupStore(folder)
        except StoreError:
            assert path.name == "store.json" or harm is swap
            continue
        with store:
            readable = {
                each: expect_right_bytes_or_one_sentence(store, each, files)
                for each, files in expected.items()
            }
            damages = verify_store(store)
            if path.name != "index.sqlite":  # which has bytes without a meaning
                assert bool(damages) == changed, (path, damages)
            hurt = {damage.copy for damage in damages if damage.copy is not None}
            assert {each for each, is_readable in readable.items() if not is_readable} <= hurt, path
            assert all("\n" not in damage.what for damage in damages)
        shutil.rmtree(folder)


def test_every_bit_of_a_small_container_counts(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "store")
    container = min(
        (path for path in files_of(tmp_path / "store") if path.name.startswith("container")),
        key=lambda path: path.stat().st_size,
    )
    data = container.read_bytes()
    with BackupStore(tmp_path / "store") as store:
        for place in [*range(0, len(data), 97), *range(40), len(data) - 1]:
            for bit in (0, 7):
                harmed = bytearray(data)
                harmed[place] ^= 1 << bit
                container.write_bytes(harmed)
                assert verify_store(store), (place, bit)
        container.write_bytes(data)
        assert verify_store(store) == []


def test_a_lost_index_is_made_again_from_the_headers(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "store")

    def tables() -> tuple[object, ...]:
        with BackupStore(tmp_path / "store") as store:
            index = store.index
            chunks = index.chunks()
            return chunks, [index.header(chunk).to_bytes() for chunk in chunks], sorted(index.stored())

    before = tables()
    (tmp_path / "store" / "index.sqlite").unlink()
    with BackupStore(tmp_path / "store") as store:
        assert [damage.what for damage in verify_store(store)] == [
            f"{tmp_path}/store/index.sqlite: missing; the next command that writes makes it again"
        ]
        with store.writing():
            pass
        assert verify_store(store) == []
    assert tables() == before


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 1000])
def test_an_index_that_is_none_is_made_again(tmp_path: Path, whole: Path, garbage: bytes) -> None:
    shutil.copytree(whole, tmp_path / "store")
    (tmp_path / "store" / "index.sqlite").write_bytes(garbage)
    with BackupStore(tmp_path / "store") as store:
        assert stored_files(store, 2)
        with store.writing():
            pass
        assert verify_store(store) == []


def test_a_lost_record_of_a_copy_does_not_cost_its_blocks(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "store")
    record = tmp_path / "store/copies/000002.json"
    data = record.read_bytes()
    record.unlink()
    with BackupStore(tmp_path / "store") as store:
        assert {(damage.copy, damage.vm) for damage in verify_store(store)} == {(2, "db")}
        with pytest.raises(StoreError, match=r"000002\.json: missing, though nobody expired copy 2"):
            expire_copies(store, [3])
        record.write_bytes(data)
        assert verify_store(store) == []


def test_verify_names_the_machine_and_the_file(tmp_path: Path) -> None:
    pytest.importorskip("pytsk3")
    image, texts = ext4_image(tmp_path)
    with BackupStore.create(tmp_path / "store", BLOCK) as store:
        create_copy(store, "web", [image])
        with CopyContents(store, 1) as contents:
            file = next(each for each in contents.files().files if each.path == "/srv/page")
            block = file.extents[0][0] // BLOCK
        header = store.header_on_disk(store.chunks_there()[0])
        slot = int(header.blocks["slot"][header.blocks["block"] == block][0])
        container = store.chunk_folder(header.id) / f"container-{int(header.stored['container'][slot]):06d}"
        data = bytearray(container.read_bytes())
        data[int(header.stored["offset"][slot])] ^= 1
        container.write_bytes(data)
        [damage] = verify_store(store)
        assert (damage.copy, damage.vm, damage.files) == (1, "web", ("/srv/page",))
        assert str(container) in damage.what
        with CopyContents(store, 1) as contents:
            # the damaged file cannot be read, its neighbour can
            with pytest.raises((StoreError, ManifestError)):
                b"".join(contents.read("/srv/page"))
            assert b"".join(contents.read("/srv/other")) == texts["other"]
        with pytest.raises(StoreError, match="damaged content"):
            export_copy(store, 1, tmp_path / "out.img")
        assert not list(tmp_path.glob("*out.img*"))


def ext4_image(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """An ext4 file system with two files."""
    if shutil.which("mke2fs") is None:
        pytest.skip("mke2fs is missing: apt install e2fsprogs")
    import subprocess

    texts = {"page": content(33, 6 * BLOCK), "other": content(35, 3 * BLOCK)}
    (folder / "root/srv").mkdir(parents=True)
    for name, data in texts.items():
        (folder / "root/srv" / name).write_bytes(data)
    image = folder / "ext4.img"
    command = ["mke2fs", "-q", "-t", "ext4", "-b", str(BLOCK), "-d", str(folder / "root"), str(image), "8M"]
    subprocess.run(command, check=True, capture_output=True)
    return image, texts
