"""Independent clients read from a media agent what is in the backup, whatever else it is doing."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab_helpers import need
from serving_helpers import BLOCK, MIB, Served, ask, image_source, plan_for, serving_agent, write_image

from vmrestorekit.backup import BackupStore, CopySettings, create_copy
from vmrestorekit.lab.media.source import CopySource

RAW = ("-f", "raw", "-F", "raw")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("clients") / "image", mib=32)


@pytest.fixture(scope="module")
def store(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store"
    with BackupStore.create(path, block_bytes=BLOCK) as store:
        settings = CopySettings(zstd_level=1, frame_bytes=4 * BLOCK)  # has to be read by several blocks
        create_copy(store, "machine", [image], settings=settings)
    return path


@pytest.fixture(params=["copy", "image"])
def served(request: pytest.FixtureRequest, image: Path, store: Path) -> Iterator[Served]:
    """A media agent with a cache much smaller than its disk, that stages and relocates meanwhile."""
    source = CopySource(store, 1) if request.param == "copy" else image_source(image)
    with serving_agent(source, plan=plan_for(source)) as served:
        served.call(served.agent.launched)
        served.call(served.agent.pre_relocation)
        served.call(served.agent.relocation_in_progress)
        yield served


def test_nbdinfo_tells_the_exports_and_the_holes_of_the_copy(served: Served, image: Path) -> None:
    need("nbdinfo")
    listed = json.loads(ask("nbdinfo", "--json", "--list", served.uri("")))["exports"]
    holes = json.loads(ask("nbdinfo", "--json", "--map", served.uri("disk0-relocation")))
    assert [export["export-name"] for export in listed] == ["disk0", "disk0-relocation"]
    for export in listed:
        assert export["export-size"] == image.stat().st_size
        assert export["is_read_only"]
        assert export["can_multi_conn"]
        assert export["can_df"]
        assert export["block_size_maximum"] == 32 * MIB
    # QEMU would make a wrong use of it, see AgentExport
    assert [export["contexts"] for export in listed] == [[], ["base:allocation"]]
    end = image.stat().st_size
    last = end // BLOCK * BLOCK
    assert [(extent["offset"], extent["length"], extent["type"]) for extent in holes] == [
        (0, 3 * MIB, 0),
        (3 * MIB, 7 * MIB, 3),
        (10 * MIB, 8 * MIB, 0),
        (18 * MIB, last - 18 * MIB, 3),
        (last, end - last, 0),
    ]


@pytest.mark.parametrize("connections", [1, 4])
def test_nbdcopy(served: Served, image: Path, tmp_path: Path, connections: int) -> None:
    need("nbdcopy")
    for export in ("disk0", "disk0-relocation"):
        ask("nbdcopy", f"--connections={connections}", served.uri(export), tmp_path / "copied")
        assert (tmp_path / "copied").read_bytes() == image.read_bytes()


def test_qemu_img_finds_no_difference_and_converts(served: Served, image: Path, tmp_path: Path) -> None:
    need("qemu-img")
    assert "Images are identical" in ask("qemu-img", "compare", *RAW, image, served.uri())
    ask("qemu-img", "convert", "-f", "raw", "-O", "qcow2", served.uri(), tmp_path / "converted")
    compared = ask("qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, tmp_path / "converted")
    assert "Images are identical" in compared


def test_several_clients_at_once(served: Served, image: Path, tmp_path: Path) -> None:
    need("qemu-img", "nbdcopy")
    commands: list[list[str | Path]] = [
        ["qemu-img", "compare", *RAW, image, served.uri()],
        ["qemu-img", "compare", *RAW, image, served.uri("disk0-relocation")],
        ["nbdcopy", served.uri(), tmp_path / "one"],
        ["nbdcopy", "--connections=3", served.uri("disk0-relocation"), tmp_path / "two"],
    ]
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda command: ask(*command), commands))
    assert all("Images are identical" in output for output in outputs[:2])
    content = image.read_bytes()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == content
    status = served.call(served.agent.status)
    assert status["reads"]["vm"] > 0
    assert status["reads"]["relocation"] > 0


def test_qemu_io_finds_every_pattern_and_cannot_write(tmp_path: Path) -> None:
    need("qemu-io")
    stripe, numbers, checks = 24 * 1024, random.Random(5), []  # blocks hold several, and borders
    patterns = [number * 37 % 251 for number in range(400)]
    image = tmp_path / "image"
    image.write_bytes(b"".join(bytes([pattern]) * stripe for pattern in patterns))
    for _ in range(80):
        number = numbers.randrange(len(patterns))
        start, end = sorted(numbers.sample(range(stripe + 1), 2))
        checks += ["-c", f"read -P {patterns[number]} {number * stripe + start} {end - start}"]
    source = image_source(image)
    with serving_agent(source, plan=plan_for(source)) as served:
        found = ask("qemu-io", "-r", "-f", "raw", *checks, served.uri())
        assert found.count("bytes at offset") == 80
        assert "Pattern verification failed" not in found
        command = ["qemu-io", "-f", "raw", "-c", "write 0 4k", served.uri()]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert any(words in refused.stderr for words in ("Permission denied", "read-only"))


def test_fio_reads_at_random_with_a_deep_queue(served: Served) -> None:
    need("fio")
    if "nbd" not in ask("fio", "--enghelp").split():
        pytest.skip("this fio was built without its nbd engine")
    report = ask(
        *["fio", "--name=random", "--ioengine=nbd", f"--uri={served.uri()}", "--rw=randread"],
        *[
            "--bsrange=1k-256k",
            "--iodepth=16",
            "--numjobs=3",
            "--thread",
            "--size=24M",
            "--output-format=json",
        ],
    )
    jobs = json.loads(report[report.index("{") :])["jobs"]
    assert len(jobs) == 3
    assert all(job["error"] == 0 and job["read"]["total_ios"] > 100 for job in jobs)


def test_fio_finds_what_it_once_wrote(tmp_path: Path) -> None:
    """Fio's own checksums, made on the image and verified through the agent."""
    need("fio")
    image = tmp_path / "image"
    job = ["--name=pattern", "--size=16M", "--bs=16k", "--verify=crc32c", "--output-format=terse"]
    job.append("--verify_state_save=0")  # it would be left in the working folder
    ask("fio", *job, "--rw=write", "--do_verify=0", f"--filename={image}", "--ioengine=psync")
    source = image_source(image)
    with serving_agent(source, plan=plan_for(source)) as served:
        ask("fio", *job, "--rw=read", "--ioengine=nbd", f"--uri={served.uri()}", "--iodepth=8")


def test_two_disks_are_two_exports_each(tmp_path: Path) -> None:
    need("nbdcopy")
    images = [write_image(tmp_path / "one", mib=14, seed=20), write_image(tmp_path / "two", mib=16, seed=30)]
    source = image_source(*images)
    with serving_agent(source, plan=plan_for(source)) as served:
        listed = json.loads(ask("nbdinfo", "--json", "--list", served.uri("")))["exports"]
        names = ["disk0", "disk0-relocation", "disk1", "disk1-relocation"]
        assert [export["export-name"] for export in listed] == names
        for disk, image in enumerate(images):
            ask("nbdcopy", served.uri(f"disk{disk}"), tmp_path / "copied")
            assert (tmp_path / "copied").read_bytes() == image.read_bytes()


def test_more_holes_than_fit_into_one_answer(tmp_path: Path) -> None:
    need("nbdinfo")
    image, unit, pairs = tmp_path / "image", 4096, 9000  # an answer has 8192 entries at most
    image.write_bytes((b"x" + bytes(2 * unit - 1)) * pairs)
    with serving_agent(image_source(image, block_bytes=unit)) as served:
        holes = json.loads(ask("nbdinfo", "--json", "--map", served.uri("disk0-relocation")))
    assert [extent["type"] for extent in holes] == [0, 3] * pairs
    assert {extent["length"] for extent in holes} == {unit}
    assert [extent["offset"] for extent in holes] == list(range(0, 2 * unit * pairs, unit))


def test_after_the_agent_let_go_clients_get_errors_and_nothing_else(served: Served, image: Path) -> None:
    need("nbdcopy")
    served.call(served.agent.relocation_completed)
    refused = subprocess.run(
        ["nbdcopy", served.uri(), "null:"], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode != 0
    assert "shutdown" in refused.stderr.lower()
