"""`lab serve` as a process: what it offers, how it ends, and what it says of arguments that cannot be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from lab_helpers import READ, RawClient, need
from serving_helpers import BLOCK, LabServe, ask, need_fuse, plan_for, write_image
from typer.testing import CliRunner

from vmrestorekit.backup import BackupStore, create_copy
from vmrestorekit.cli import app
from vmrestorekit.cli.lab_serve import _hardware_of
from vmrestorekit.lab.media.control import ControlClient
from vmrestorekit.lab.media.source import CopySource
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import MEDIA


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("serve") / "image", mib=16)


@pytest.fixture
def store(image: Path, tmp_path: Path) -> Path:
    with BackupStore.create(tmp_path / "store", block_bytes=BLOCK) as store:
        create_copy(store, "web", [image])
    return tmp_path / "store"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where sockets go: whatever is left in it was left behind."""
    path = tmp_path / "here"
    path.mkdir()
    return path


def associations(store: Path) -> list[str]:
    with BackupStore(store) as opened:
        return opened.associations(1)


# --- a run from beginning to end ------------------------------------------------------------------


def test_a_copy_is_served_from_its_plan_until_sigterm(
    store: Path, image: Path, folder: Path, tmp_path: Path
) -> None:
    source = CopySource(store, 1)
    plan_for(source).save(tmp_path / "plan")
    source.release()
    source.close()
    log = tmp_path / "log.jsonl"
    arguments = (store, "--copy", "1", "--plan", tmp_path / "plan", "--media", "flash", "--log", log)
    with LabServe(*arguments, cwd=folder) as lab:
        lab.wait_until_ready()
        assert associations(store) == ["web"]
        for path in (lab.socket, lab.control):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with RawClient(lab.socket) as client:
            client.go("disk0")
            assert client.ask(READ, 5, 300_000) == (0, image.read_bytes()[5:300_005])
        status = asyncio.run(status_of(lab))
        assert status["first_set"]["blocks"] == len(RestorePlan.load(tmp_path / "plan").first_set)
        assert not tcp_sockets_of(lab.process.pid)
        code, output, errors = lab.end()
    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        f"disk0: {image.stat().st_size} bytes, nbd+unix:///disk0?socket={lab.socket}",
        f"disk0-relocation: {image.stat().st_size} bytes, nbd+unix:///disk0-relocation?socket={lab.socket}",
    ]
    assert os.listdir(folder) == []
    assert associations(store) == []  # nothing runs from it
    check_log(log)


def check_log(log: Path) -> None:
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        assert {"time", "level", "where", "message"} <= line.keys()
        assert line["level"] == "info"
    opened = next(line for line in lines if line["message"] == "an NBD client opened disk0")
    left = next(line for line in lines if line["message"] == "an NBD client left disk0")
    assert (opened["export"], opened["connections"]) == ("disk0", 1)
    assert (left["requests"], left["bytes"]) == (1, 300_000)
    assert lines[-1]["message"] == "the media agent ends"
    assert lines[-1]["status"]["reads"]["vm"] == 1


async def status_of(lab: LabServe) -> dict[str, dict[str, int]]:
    async with await ControlClient.connect(lab.control) as client:
        return await client.status()


def tcp_sockets_of(pid: int) -> set[str]:
    """The process's sockets that are in the kernel's tables of TCP sockets."""
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return own & {row[9] for row in rows}


def test_a_copy_that_a_machine_runs_from_stays_associated(store: Path, folder: Path) -> None:
    async def launch(lab: LabServe) -> None:
        async with await ControlClient.connect(lab.control) as client:
            await client.launched()

    with LabServe(store, "--copy", "1", "--media", "flash", cwd=folder) as lab:
        lab.wait_until_ready()
        asyncio.run(launch(lab))
        assert lab.end()[0] == 0
    assert associations(store) == ["web"]


def test_sigint_under_load_ends_it_cleanly(image: Path, folder: Path) -> None:
    need("qemu-img")
    with LabServe("--image", image, "--media", "flash", "--latency-ms", "30", cwd=folder) as lab:
        lab.wait_until_ready()
        # it hangs up on this one in the middle
        command = [
            "qemu-img",
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            image,
            f"nbd+unix:///disk0?socket={lab.socket}",
        ]
        with subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as client:
            asyncio.run(reads_have_begun(lab))
            code, _, errors = lab.end(signal.SIGINT)
            client.communicate(timeout=60)
    assert code == 0, errors
    assert os.listdir(folder) == []
    assert {json.loads(line)["level"] for line in errors.splitlines()} == {"info"}


async def reads_have_begun(lab: LabServe) -> None:
    async with await ControlClient.connect(lab.control) as client:
        while (await client.status())["reads"]["vm"] == 0:
            await asyncio.sleep(0.02)


def test_an_agent_that_was_killed_is_started_again_at_the_same_sockets(
    store: Path, image: Path, folder: Path
) -> None:
    need("nbdcopy")
    arguments = (store, "--copy", "1", "--media", "flash")
    with LabServe(*arguments, cwd=folder) as lab:
        lab.wait_until_ready()
        lab.end(signal.SIGKILL)
    assert sorted(os.listdir(folder)) == ["control.sock", "nbd.sock"]
    assert associations(store) == ["web"]
    lab.control.rename(folder / "other")  # so that its being there says that the next one is ready
    with LabServe(*arguments, cwd=folder) as lab:
        lab.wait_until_ready()
        ask("nbdcopy", f"nbd+unix:///disk0?socket={lab.socket}", folder / "copied")
        assert lab.end()[0] == 0
    assert (folder / "copied").read_bytes() == image.read_bytes()
    assert sorted(os.listdir(folder)) == ["copied", "other"]
    assert associations(store) == []


def test_two_users_of_one_copy_do_not_release_each_other_s(store: Path, folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    with (
        LabServe(store, "--copy", "1", "--media", "flash", "--user", "first", cwd=folder) as first,
        LabServe(store, "--copy", "1", "--media", "flash", "--user", "second", cwd=other) as second,
    ):
        first.wait_until_ready()
        second.wait_until_ready()
        assert associations(store) == ["first", "second"]
        assert first.end()[0] == 0
        assert associations(store) == ["second"]
        assert second.end()[0] == 0
    assert associations(store) == []


# --- arguments that cannot be ---------------------------------------------------------------------


def complaint(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["lab", "serve", *map(str, arguments)])
    assert isinstance(result.exception, ValueError | OSError), result.output
    return str(result.exception)


def places(folder: Path) -> list[str | Path]:
    return ["--socket", folder / "nbd.sock", "--control", folder / "control.sock"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "lab serve: expected a backup store and --copy, or --image, got neither"),
        (["STORE"], "lab serve: expected a backup store and --copy"),
        (["STORE", "--image", "IMAGE"], "lab serve: expected a backup store or --image, got both"),
        (["--image", "IMAGE", "--user", "me"], "--user: expected a copy in a backup store, got --image"),
        (["STORE", "--copy", "7"], "7"),
        (["nowhere", "--copy", "1"], "nowhere"),
        (["--image", "nowhere"], "nowhere"),
        (["--image", "IMAGE", "--block-kib", "3"], "3072"),
        (["--image", "IMAGE", "--media", "paper"], "expected a Hardware or one of disk_library"),
        (
            ["--image", "IMAGE", "--latency-ms", "-1"],
            "--latency-ms: expected a number of at least 0, got -1.0",
        ),
        (["--image", "IMAGE", "--latency-ms", "nan"], "--latency-ms: expected a number"),
        (["--image", "IMAGE", "--bandwidth-mb", "0"], "expected bandwidth of at least 1, got 0"),
        (["--image", "IMAGE", "--channels", "0"], "expected channels of at least 1, got 0"),
        (["--image", "IMAGE", "--plan", "nowhere"], "nowhere: expected a saved plan"),
        (["--image", "IMAGE", "--log", "no/where"], "expected to write a log at no/where: No such file"),
        (["--image", "IMAGE", "--mount", "FULL"], "expected an empty folder as mount point"),
    ],
)
def test_one_sentence_and_nothing_left(
    store: Path, image: Path, folder: Path, tmp_path: Path, arguments: Sequence[str], sentence: str
) -> None:
    if "FULL" in arguments:
        need_fuse()
    names = {"STORE": str(store), "IMAGE": str(image), "FULL": str(tmp_path)}
    message = complaint(*places(folder), *(names.get(word, word) for word in arguments))
    assert sentence in message
    assert "\n" not in message
    assert os.listdir(folder) == []
    assert associations(store) == []


def test_a_plan_for_other_disks(store: Path, folder: Path, tmp_path: Path) -> None:
    RestorePlan((3 << 20,), block_bytes=BLOCK).save(tmp_path / "plan")
    message = complaint(*places(folder), store, "--copy", "1", "--plan", tmp_path / "plan")
    assert "disk" in message
    assert "3145728" in message
    assert os.listdir(folder) == []
    assert associations(store) == []


def test_sockets_that_cannot_be(image: Path, folder: Path) -> None:
    taken = folder / "taken"
    taken.write_text("mine")
    source = ["--image", image]
    for socket, control in ((taken, folder / "control"), (folder / "nbd", taken)):
        message = complaint(*source, "--socket", socket, "--control", control)
        assert message == f"expected to create a socket at {taken}: Address already in use"
    long = folder / ("x" * 120)
    message = complaint(*source, "--socket", long, "--control", folder / "control")
    assert message == f"{long}: expected the path of a socket to have at most 107 bytes, got more"
    message = complaint(*source, "--socket", folder / "no" / "where", "--control", folder / "control")
    assert message == f"expected to create a socket at {folder / 'no' / 'where'}: No such file or directory"
    same = complaint(*source, "--socket", folder / "one", "--control", folder / "one")
    assert same == f"expected to create a socket at {folder / 'one'}: Address already in use"
    assert [path.name for path in folder.iterdir()] == ["taken"]
    assert taken.read_text() == "mine"


def test_a_socket_that_somebody_listens_at_is_left_alone(image: Path, folder: Path) -> None:
    with LabServe("--image", image, "--media", "flash", cwd=folder) as lab:
        lab.wait_until_ready()
        assert complaint(*places(folder), "--image", image).endswith("nbd.sock: Address already in use")
        with RawClient(lab.socket) as client:
            assert client.go("disk0")[0] == image.stat().st_size
        assert lab.end()[0] == 0


# --- hardware -------------------------------------------------------------------------------------


def test_a_preset_with_some_of_it_changed() -> None:
    nothing = (None,) * 5
    assert _hardware_of("tape", *nothing) == MEDIA["tape"]
    # 20 ms a read, eight in parallel
    changed = _hardware_of("object_storage", 20, None, 8, None, None)
    assert (changed.backup_device.positioning_ns, changed.backup_device.channels) == (20_000_000, 8)
    assert changed.backup_device.bandwidth == MEDIA["object_storage"].backup_device.bandwidth
    assert changed.link == MEDIA["object_storage"].link
    slow = _hardware_of("flash", None, 2.5, None, 1, 100)
    assert slow.backup_device.bandwidth == 2_500_000
    assert (slow.link.latency_ns, slow.link.bandwidth) == (1_000_000, 100_000_000)


def test_what_the_options_say_is_what_reads_cost(image: Path, folder: Path) -> None:
    hardware = ("--media", "flash", "--latency-ms", "200", "--channels", "2")
    with LabServe("--image", image, *hardware, cwd=folder) as lab:
        lab.wait_until_ready()
        with RawClient(lab.socket) as client:
            client.go("disk0")
            started = time.monotonic()
            for number in range(6):  # apart from each other, so that each is a fetch of its own
                client.send(READ, (number * 7) * BLOCK, 100, cookie=number)
            assert {client.receive(100)[0] for _ in range(6)} == set(range(6))
            took = time.monotonic() - started
        lab.end()
    assert took >= 3 * 0.2  # two at a time
