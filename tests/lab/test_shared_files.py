"""The logical source as files: the same contents as the image, through the same agent, gone afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab_helpers import need
from lacking import missing
from serving_helpers import (
    BLOCK,
    MIB,
    LabServe,
    Served,
    ask,
    image_source,
    need_fuse,
    plan_for,
    serving_agent,
    write_image,
)

from vmrestorekit.backup import BackupStore, create_copy
from vmrestorekit.lab.media import shared_files as module
from vmrestorekit.lab.media.file_tree import FileTree
from vmrestorekit.lab.media.media_agent import MediaAgent
from vmrestorekit.lab.media.shared_files import shared_files
from vmrestorekit.lab.media.source import CopySource, ImageSource
from vmrestorekit.lab.programs import LabError
from vmrestorekit.restore.hardware import MEDIA

RAW = ("-f", "raw", "-F", "raw")
CONFIGURATION = b'{"memory_mib": 512}\n' * 1000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("files") / "image")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("files") / "second", mib=15, seed=99)


@pytest.fixture(scope="module")
def store(image: Path, second: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "machine.json").write_bytes(CONFIGURATION)
    with BackupStore.create(folder / "store", block_bytes=BLOCK) as store:
        create_copy(store, "web/1", [image, second], configuration=[folder / "machine.json"])
    return folder / "store"


@pytest.fixture
def served(store: Path) -> Iterator[Served]:
    need_fuse()
    source = CopySource(store, 1)
    with serving_agent(source, plan=plan_for(source), mount=True) as served:
        served.call(served.agent.launched)
        served.call(served.agent.pre_relocation)
        yield served
    assert served.mount is not None
    assert not served.mount.exists()  # it was made for the mount


def folder_of(served: Served) -> Path:
    assert served.mount is not None
    return served.mount / "machine"


def test_disks_and_configuration_are_there_as_files(served: Served, image: Path, second: Path) -> None:
    folder = folder_of(served)
    assert sorted(os.listdir(folder)) == ["disk0.raw", "disk1.raw", "machine.json"]
    assert (folder / "machine.json").read_bytes() == CONFIGURATION
    for name, original in (("disk0.raw", image), ("disk1.raw", second)):
        assert (folder / name).stat().st_size == original.stat().st_size
        assert (folder / name).read_bytes() == original.read_bytes()
    assert (folder / "disk0.raw").stat().st_blocks * 512 < original.stat().st_size
    with pytest.raises(FileNotFoundError):
        (folder / "disk2.raw").stat()


def test_nothing_can_be_changed(served: Served) -> None:
    folder = folder_of(served)
    for attempt in (
        lambda: (folder / "disk0.raw").write_bytes(b"x"),
        lambda: (folder / "new").touch(),
        lambda: os.truncate(folder / "disk0.raw", 5),
        lambda: os.unlink(folder / "machine.json"),
        lambda: os.rename(folder / "disk0.raw", folder / "other"),
        lambda: os.mkdir(folder / "folder"),
        lambda: os.chmod(folder / "disk0.raw", 0o777),
    ):
        with pytest.raises(OSError, match="Read-only file system") as refused:
            attempt()
        assert refused.value.errno == errno.EROFS


def test_holes_are_holes(served: Served, image: Path) -> None:
    with open(folder_of(served) / "disk0.raw", "rb") as file:
        try:
            first_hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
        except OSError:
            missing("this libfuse cannot tell holes")
        if first_hole == image.stat().st_size:
            missing("this libfuse cannot tell holes")
        assert first_hole == 3 * MIB
        assert os.lseek(file.fileno(), 5 * MIB, os.SEEK_DATA) == 10 * MIB
        assert os.lseek(file.fileno(), 5 * MIB, os.SEEK_HOLE) == 5 * MIB
        last = image.stat().st_size // BLOCK * BLOCK
        assert os.lseek(file.fileno(), 17 * MIB, os.SEEK_DATA) == last
        assert os.lseek(file.fileno(), last, os.SEEK_HOLE) == image.stat().st_size


def test_qemu_img_finds_no_difference_while_an_nbd_client_reads(
    served: Served, image: Path, second: Path
) -> None:
    need("qemu-img", "nbdcopy")
    folder = folder_of(served)
    commands: list[list[str | Path]] = [
        ["qemu-img", "compare", *RAW, image, folder / "disk0.raw"],
        ["qemu-img", "compare", *RAW, second, folder / "disk1.raw"],
        ["qemu-img", "compare", *RAW, image, served.uri("disk0-relocation")],
        ["nbdcopy", served.uri("disk1"), "null:"],
    ]
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda command: ask(*command), commands))
    assert all("Images are identical" in output for output in outputs[:3])


def test_each_read_reaches_the_agent_as_it_was_asked_for(image: Path) -> None:
    need_fuse()
    content = image.read_bytes()
    with serving_agent(image_source(image), mount=True) as served:
        with open(folder_of(served) / "disk0.raw", "rb", buffering=0) as file:
            for _ in range(3):
                assert os.pread(file.fileno(), 5000, MIB + 7) == content[MIB + 7 : MIB + 5007]
        status = served.call(served.agent.status)
    # no read-ahead, no other cache
    assert (status["reads"]["vm"], status["read_bytes"]["vm"]) == (3, 15_000)
    assert (status["misses"], status["hits"]) == (1, 2)


def test_many_threads_read_at_once(served: Served, image: Path) -> None:
    content, numbers = image.read_bytes(), random.Random(3)
    path = folder_of(served) / "disk0.raw"
    places = [(numbers.randrange(len(content)), numbers.choice([1, 4096, 200_000])) for _ in range(300)]

    def read(place: tuple[int, int]) -> bool:
        offset, length = place
        with open(path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset) == content[offset : offset + length]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, places, timeout=60))


def test_a_read_that_fails_is_an_error_and_the_next_one_is_served(served: Served, image: Path) -> None:
    path = folder_of(served) / "disk0.raw"
    served.call(served.agent.fault, error=[170])
    with open(path, "rb", buffering=0) as file:
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(file.fileno(), 10, 170 * BLOCK)
        served.call(served.agent.fault, error=[])
        assert os.pread(file.fileno(), 10, 170 * BLOCK) == image.read_bytes()[170 * BLOCK :][:10]


def test_after_the_agent_let_go_reads_are_errors(served: Served) -> None:
    served.call(served.agent.expire)
    with (
        open(folder_of(served) / "disk0.raw", "rb", buffering=0) as file,
        pytest.raises(OSError, match="endpoint shutdown"),
    ):
        os.pread(file.fileno(), 10, 0)


# --- a process that ends --------------------------------------------------------------------------


def is_mounted(path: Path) -> bool:
    return any(line.split()[1] == str(path) for line in Path("/proc/mounts").read_text().splitlines())


def test_sigterm_unmounts(image: Path, tmp_path: Path) -> None:
    need_fuse()
    with LabServe("--image", image, "--mount", "shown", cwd=tmp_path) as lab:
        lab.wait_until_ready()
        assert (tmp_path / "shown" / "image" / "disk0.raw").read_bytes() == image.read_bytes()
        status, _, errors = lab.end()
    assert status == 0, errors
    assert not is_mounted(tmp_path / "shown")
    assert sorted(os.listdir(tmp_path)) == []


def test_sigterm_unmounts_even_under_a_reader(image: Path, tmp_path: Path) -> None:
    need_fuse()
    mount = tmp_path / "shown"
    mount.mkdir()
    # so slow that a read is under way when the end comes
    slow = ("--media", "object_storage", "--latency-ms", "60000")
    with LabServe("--image", image, "--mount", mount, *slow, cwd=tmp_path) as lab:
        lab.wait_until_ready()
        reader = subprocess.Popen(
            [sys.executable, "-c", f"open({str(mount / 'image' / 'disk0.raw')!r}, 'rb').read(10)"],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(1)
        started = time.monotonic()
        status, _, errors = lab.end()
        assert status == 0, errors
        assert time.monotonic() - started < 20
        assert reader.wait(20) != 0
    assert not is_mounted(mount)
    assert list(mount.iterdir()) == []


def test_what_a_killed_agent_left_mounted_is_cleaned_up(image: Path, tmp_path: Path) -> None:
    need_fuse()
    arguments = ("--image", image, "--mount", tmp_path / "shown")
    with LabServe(*arguments, cwd=tmp_path) as lab:
        lab.wait_until_ready()
        lab.process.kill()
        lab.process.wait()
    assert is_mounted(tmp_path / "shown")
    with pytest.raises(OSError, match="not connected"):
        os.listdir(tmp_path / "shown")
    lab.control.unlink()  # so that its being there says that the next one is ready
    with LabServe(*arguments, cwd=tmp_path) as lab:
        lab.wait_until_ready()
        assert (tmp_path / "shown" / "image" / "disk0.raw").read_bytes() == image.read_bytes()
        status, _, errors = lab.end()
    assert status == 0, errors
    assert not is_mounted(tmp_path / "shown")


# --- where it cannot be ---------------------------------------------------------------------------


def mount_error(image: Path, mount: Path) -> str:
    async def main() -> None:
        async with MediaAgent(image_source(image), MEDIA["flash"]) as agent, shared_files(agent, "vm", mount):
            pytest.fail("mounted")

    with pytest.raises(LabError) as problem:
        asyncio.run(main())
    return str(problem.value)


def test_a_mount_point_has_to_be_an_empty_folder(image: Path, tmp_path: Path) -> None:
    need_fuse()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    assert mount_error(image, tmp_path / "full").endswith("there is mine in it")
    assert "expected an empty folder as mount point: Not a directory" in mount_error(
        image, tmp_path / "full" / "mine"
    )
    assert "in a folder that is there" in mount_error(image, tmp_path / "no" / "where")
    assert sorted(os.listdir(tmp_path)) == ["full"]


def test_a_machine_without_fuse_is_told_so(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_program", lambda name: None)
    expected = "mounting needs FUSE: install with 'sudo apt-get install fuse3'; there is no fusermount3"
    assert mount_error(image, tmp_path / "mount") == expected
    monkeypatch.setattr(module, "find_program", lambda name: f"/bin/{name}")
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/dev/fuse")
    assert "/dev/fuse is missing" in mount_error(image, tmp_path / "mount")
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    assert "mounting needs mfusepy: install with pip install" in mount_error(image, tmp_path / "mount")
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["../outside"], "expected a name of its own within its folder, got '../outside'"),
        (["disk0.raw"], "expected a name of its own within its folder, got 'disk0.raw'"),
        (["a", "a/b"], "lies in what is itself a file"),
        (["a/b", "a"], "expected a name of its own"),
        (["."], "expected a name of its own"),
    ],
)
def test_configuration_files_cannot_get_in_the_way(
    image: Path, tmp_path: Path, names: list[str], problem: str
) -> None:
    (tmp_path / "file").touch()
    source = ImageSource([image], files=dict.fromkeys(names, tmp_path / "file"))
    try:
        with pytest.raises(LabError) as refused:
            FileTree(source, "vm")
    finally:
        source.close()
    assert problem in str(refused.value)


def test_folders_of_configuration_files_and_odd_names_of_machines(image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    source = ImageSource([image], files={"etc/libvirt/web.xml": tmp_path / "file"})
    try:
        tree = FileTree(source, "../a/b")
        assert FileTree(source, "..").names("/") == ["vm"]
    finally:
        source.close()
    assert tree.names("/") == [".._a_b"]
    assert tree.names("/.._a_b") == ["disk0.raw", "etc"]
    assert tree.attributes("/.._a_b/etc/libvirt/web.xml")["st_size"] == 3
    for path in ("/.._a_b/disk0.raw", "/nowhere"):
        with pytest.raises(NotADirectoryError):
            tree.names(path)
    with pytest.raises(IsADirectoryError):
        tree.file("/.._a_b/etc")
