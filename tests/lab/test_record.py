"""Recording boot after boot: states follow each other, an interruption costs one boot, no mix-ups."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from lab_helpers import MemoryDisk, need, serving
from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.lab import programs
from vmrestorekit.lab.guests.guest import build_image
from vmrestorekit.lab.guests.spec import GuestSpec
from vmrestorekit.lab.programs import LabError, run
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.qemu import UnexpectedLineError, run_guest
from vmrestorekit.lab.recording import record
from vmrestorekit.lab.recording.history import Step
from vmrestorekit.lab.recording.machine import LostLineError
from vmrestorekit.lab.recording.overlay import Overlay
from vmrestorekit.lab.recording.record import record_boots, states_before
from vmrestorekit.lab.recording.recorder import Recorder
from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import load_corpus
from vmrestorekit.traces.schema import ReadTrace

BOOT_SIGNATURE = b"\x55\xaa"  # ends the first sector of a disk that a BIOS boots from
HELLO = 8192  # where the pretended guest counts its boots


class Interrupted(Exception):  # noqa: N818
    pass


@pytest.fixture
def image(tmp_path: Path) -> Path:
    need("mke2fs")
    path = tmp_path / "small.img"
    with open(path, "wb") as stream:
        stream.truncate(4 << 20)
    run(["mke2fs", "-q", "-t", "ext4", "-E", "offset=1048576", path, "3072k"])
    with open(path, "r+b") as stream:
        stream.seek(510)
        stream.write(BOOT_SIGNATURE)
    return path


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of QEMU, a guest that reads a byte of its last disk, adds one and writes it back."""
    names: list[str] = []

    async def pretend(disks: Sequence[Overlay], vm: str, boot: str, *, step: Step, **_: object) -> ReadTrace:
        names.append(f"{boot}, {step.ends}")
        recorder = Recorder(*disks)
        recorder.start()
        disk = recorder.disks[-1]
        count = (await disk.read(HELLO, 1))[0] + 1
        await disk.write(HELLO, bytes([count]))
        if names.count("interrupt"):
            raise Interrupted
        if f"lose {boot}" in names:
            names.remove(f"lose {boot}")
            raise LostLineError("the line was lost")
        recorder.mark("boot_done_ns")
        return recorder.trace(
            vm, boot, accelerator="none", versions={}, follows=step.follows, repeats=step.repeats
        )

    async def change(disks: Sequence[Overlay], archive: Overlay, *_: object) -> None:
        names.append("change")
        await disks[-1].write(HELLO, bytes([100 + (await disks[-1].read(HELLO, 1))[0]]))

    monkeypatch.setattr(record, "record_boot", pretend)
    monkeypatch.setattr(record, "change_machine", change)
    monkeypatch.setattr(record, "qemu_version", lambda: "10")
    return names


def byte_of_state(image: Path, number: int) -> int:
    return states_before(image, number)[-1].read_bytes()[HELLO]


def test_each_boot_starts_from_what_the_one_before_left(
    image: Path, booted: list[str], tmp_path: Path
) -> None:
    before = image.read_bytes()
    assert record_boots(image, 3, tmp_path / "corpus", accelerator="tcg") == ["boot-1", "boot-2", "boot-3"]
    assert image.read_bytes() == before
    assert [byte_of_state(image, number) for number in (1, 2, 3)] == [0, 1, 2]
    corpus = load_corpus(tmp_path / "corpus")
    boots = corpus["small"].boots
    assert [boot.boot for boot in boots] == ["boot-1", "boot-2", "boot-3"]
    block = HELLO // 4096
    contents = [boot.manifest.blocks["content"][block] for boot in boots]
    assert contents[0] == 0  # the manifest is of the disk before the boot
    assert len(set(contents)) == 3
    assert not find_problems(tmp_path / "corpus")


def test_boots_that_are_there_are_kept_and_said_so(
    image: Path, booted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_boots(image, 1, tmp_path / "corpus", accelerator="tcg")
    capsys.readouterr()
    assert record_boots(image, 2, tmp_path / "corpus", accelerator="tcg", report=Report()) == ["boot-2"]
    assert booted == ["boot-1, shutdown", "boot-2, shutdown"]
    assert "small boot-1: is in" in capsys.readouterr().err


def test_an_interrupted_boot_is_recorded_again_from_the_same_state(
    image: Path, booted: list[str], tmp_path: Path
) -> None:
    record_boots(image, 1, tmp_path / "corpus", accelerator="tcg")
    booted.append("interrupt")
    with pytest.raises(Interrupted):
        record_boots(image, 2, tmp_path / "corpus", accelerator="tcg")
    assert len(load_corpus(tmp_path / "corpus")["small"].boots) == 1
    booted.remove("interrupt")
    record_boots(image, 3, tmp_path / "corpus", accelerator="tcg")
    assert [byte_of_state(image, number) for number in (1, 2, 3)] == [0, 1, 2]


def test_an_interruption_before_the_trace_was_stored_leaves_no_writes_behind(
    image: Path, booted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(ReadTrace, "save", fail)
        with pytest.raises(Interrupted):
            record_boots(image, 1, tmp_path / "corpus", accelerator="tcg")
    record_boots(image, 2, tmp_path / "corpus", accelerator="tcg")
    assert byte_of_state(image, 2) == 1


def test_what_was_recorded_is_added_even_if_the_corpus_could_not_be_written_then(
    image: Path, booted: list[str], tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    corpus.touch()  # in the way
    with pytest.raises(OSError, match="corpus"):
        record_boots(image, 1, corpus, accelerator="tcg")
    corpus.unlink()
    assert record_boots(image, 1, corpus, accelerator="tcg") == ["boot-1"]
    assert len(load_corpus(corpus)["small"].boots) == 1


def test_an_image_that_changed_in_between_is_refused(image: Path, booted: list[str], tmp_path: Path) -> None:
    record_boots(image, 1, tmp_path / "corpus", accelerator="tcg")
    os.utime(image, ns=(0, 0))
    with pytest.raises(LabError, match="has changed since its first boot was recorded"):
        record_boots(image, 2, tmp_path / "corpus", accelerator="tcg")
    # a new corpus starts anew
    assert len(record_boots(image, 2, tmp_path / "other", accelerator="tcg")) == 2


def test_writes_of_an_earlier_boot_that_are_gone_are_missed(
    image: Path, booted: list[str], tmp_path: Path
) -> None:
    record_boots(image, 1, tmp_path / "corpus", accelerator="tcg")
    Path(f"{image}.boots", "boot-1.writes.state").unlink()
    with pytest.raises(
        LabError, match=r"disks before boot-2 have to be made from the writes of boot-1, and there are none"
    ):
        record_boots(image, 2, tmp_path / "corpus", accelerator="tcg")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"count": 0}, "expected at least one boot to record, got 0"),
        ({"accelerator": "hax"}, "expected the accelerator kvm or tcg, got 'hax'"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        record_boots(tmp_path / "no.img", out_dir=tmp_path, **({"count": 1} | arguments))  # type: ignore[arg-type]


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a disk image at .*no.img, found no file"):
        record_boots(tmp_path / "no.img", 1, tmp_path / "corpus")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "expected a raw disk image of whole sectors of 512 bytes, got 0 bytes"),
        (b"a line of text\n" * 60, "expected a raw disk image of whole sectors of 512 bytes, got 900 bytes"),
        (
            b"A line of 16 b.\n" * 64,
            "expected a disk to boot from, whose first sector ends with the signature 55 aa, got 2e 0a",
        ),
        (b"QFI\xfb".ljust(65536, b"\0"), "expected a raw disk image, got QCOW2; convert it with qemu-img"),
    ],
    ids=["empty", "text", "a KiB of text", "QCOW2"],
)
def test_a_file_that_is_no_disk_is_refused_before_an_emulator_starts(
    tmp_path: Path, booted: list[str], content: bytes, sentence: str
) -> None:
    path = tmp_path / "no.img"
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["lab", "record", str(path), "-o", str(tmp_path / "corpus")])
    assert isinstance(result.exception, LabError | ValueError)
    assert f"{path}: {sentence}" in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not booted
    assert list(tmp_path.iterdir()) == [path]


def test_a_description_that_is_no_json(image: Path, tmp_path: Path) -> None:
    Path(f"{image}.json").write_text("{")
    with pytest.raises(LabError, match=r"small.img.json: expected the description of a guest image as JSON"):
        record_boots(image, 1, tmp_path / "corpus")


# --- histories ------------------------------------------------------------------------------------


def described(image: Path, **more: object) -> None:
    about = {"name": "small", "release": "bookworm", "data_disks_bytes": []} | more
    Path(f"{image}.json").write_text(json.dumps(about))


def test_a_history_with_a_repetition_a_crash_and_a_change(
    image: Path, booted: list[str], tmp_path: Path
) -> None:
    changes = [{"suite": "", "packages": [], "script": ["true"]}]
    described(image, history=["build", "again", "crash", "change", "shutdown"], changes=changes)
    added = record_boots(image, None, tmp_path / "corpus", accelerator="tcg")
    assert added == ["boot-1", "boot-1-again", "boot-2", "boot-3", "boot-4"]
    assert booted == [
        *("boot-1, crash", "boot-1-again, shutdown", "boot-2, shutdown"),
        *("change", "boot-3, shutdown", "boot-4, shutdown"),
    ]
    # what the repetition wrote is gone, what the change wrote is there
    assert [byte_of_state(image, number) for number in (1, 2, 3, 4)] == [0, 1, 102, 103]
    machine = load_corpus(tmp_path / "corpus")["small"]
    assert [boot.metadata.follows for boot in machine.boots] == ["build", "crash", "change", "shutdown"]
    assert [boot.boot for boot in machine.recordings if boot.metadata.repeats] == ["boot-1-again"]
    assert machine.boot("boot-1-again").manifest.equals(machine.boot("boot-1").manifest)
    assert not find_problems(tmp_path / "corpus")


def test_a_history_that_was_interrupted_goes_on_with_the_change_made_once(
    image: Path, booted: list[str], tmp_path: Path
) -> None:
    described(image, history=["change", "shutdown"], changes=[{"suite": "", "packages": [], "script": []}])
    booted.append("interrupt")
    with pytest.raises(Interrupted):
        record_boots(image, None, tmp_path / "corpus", accelerator="tcg")
    booted.remove("interrupt")
    record_boots(image, None, tmp_path / "corpus", accelerator="tcg")
    assert booted.count("change") == 1
    assert [byte_of_state(image, number) for number in (1, 2)] == [100, 101]


def test_a_second_disk_has_a_state_and_a_manifest_of_its_own(
    image: Path, booted: list[str], tmp_path: Path
) -> None:
    second = Path(f"{image}.disk1")
    second.write_bytes(bytes(1 << 20))
    described(image, data_disks_bytes=[1 << 20], history=["build", "shutdown"])
    record_boots(image, None, tmp_path / "corpus", accelerator="tcg", keep_states=True)
    boots = load_corpus(tmp_path / "corpus")["small"].boots
    assert [boot.disk_bytes for boot in boots] == [(4 << 20, 1 << 20)] * 2
    assert boots[1].manifests[0].equals(boots[0].manifests[0])
    assert boots[1].manifests[1].blocks["content"][HELLO // 4096] != 0
    assert Path(f"{image}.boots", "before-boot-2.img.disk1").read_bytes()[HELLO] == 1
    second.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected a disk image at .*small.img.disk1, found no file"):
        record_boots(image, None, tmp_path / "other", accelerator="tcg")


def test_a_boot_whose_end_was_lost_is_recorded_once_more_and_only_thrice(
    image: Path, booted: list[str], tmp_path: Path
) -> None:
    booted.append("lose boot-2")
    assert record_boots(image, 3, tmp_path / "corpus", accelerator="tcg") == ["boot-1", "boot-2", "boot-3"]
    assert [byte_of_state(image, number) for number in (1, 2, 3)] == [0, 1, 2]
    booted += ["lose boot-4"] * 3
    with pytest.raises(LabError, match="the line was lost"):
        record_boots(image, 4, tmp_path / "corpus", accelerator="tcg")


def test_states_are_made_anew_from_the_writes(image: Path, booted: list[str], tmp_path: Path) -> None:
    record_boots(image, 3, tmp_path / "corpus", accelerator="tcg")
    assert not list(Path(f"{image}.boots").glob("before-*"))
    assert byte_of_state(image, 3) == 2


# --- what is missing on this machine --------------------------------------------------------------


@pytest.fixture
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_SEARCH_PATH", "/nonexistent")


@pytest.mark.usefixtures("_nothing_installed")
def test_without_debootstrap_it_is_said_what_to_install(tmp_path: Path) -> None:
    spec = GuestSpec("a", "bookworm", 1 << 30)
    with pytest.raises(
        LabError, match="sudo apt-get install debootstrap e2fsprogs fdisk util-linux'"
    ) as caught:
        build_image(spec, tmp_path / "a.img", tmp_path / "work")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_nothing_installed")
def test_without_qemu_it_is_said_what_to_install(tmp_path: Path) -> None:
    image = tmp_path / "any.img"
    image.write_bytes(bytes(510) + BOOT_SIGNATURE + bytes(1 << 20))
    with pytest.raises(
        LabError, match=r"needs qemu-system-x86_64: install with 'sudo apt-get install qemu-system-x86'"
    ):
        record_boots(image, 1, tmp_path / "corpus")


def test_without_root_rights_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("debootstrap", "mke2fs", "sfdisk", "unshare")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match=r"building a guest image needs root rights .*: run it with sudo"):
        build_image(GuestSpec("a", "bookworm", 1 << 30), tmp_path / "a.img", tmp_path / "work")


# --- machines that do not do what they should -----------------------------------------------------


def boot(tmp_path: Path, line: str, *extra: str, kill: bool = False) -> None:
    need("qemu-system-x86_64")

    async def main(path: Path) -> None:
        log = tmp_path / "console.log"
        async with run_guest(
            path, ["disk"], accelerator="tcg", console_log=log, memory_mib=64, extra=extra
        ) as guest:
            await guest.start()
            await guest.wait_for(line, 1.5)
            if kill:
                guest._process.kill()
                await guest.wait_for_end(5)
            await guest.shut_down(0.2)

    with serving({"disk": MemoryDisk(PRINTS_HELLO)}) as path:
        asyncio.run(main(path))


# a boot sector: print "hello" on the serial port, then stop (x86: out dx,al for each letter)
PRINTS_HELLO = (
    b"\xba\xf8\x03" + b"".join(b"\xb0" + bytes([letter]) + b"\xee" for letter in b"hello\n") + b"\xfa\xf4"
).ljust(510, b"\0") + b"\x55\xaa".ljust(1 << 20, b"\0")


def test_a_guest_that_never_says_it_is_up(tmp_path: Path) -> None:
    sentence = "the guest did not print 'boot done' within 1.5 s; its last line was 'hello'"
    with pytest.raises(LabError, match=sentence):
        boot(tmp_path, "boot done")
    assert (tmp_path / "console.log").read_bytes().endswith(b"hello\n")
    assert no_qemu_is_left()


def test_a_guest_that_says_that_it_failed(tmp_path: Path) -> None:
    need("qemu-system-x86_64")

    async def main(path: Path) -> None:
        log = tmp_path / "console.log"
        async with run_guest(path, ["disk"], accelerator="tcg", console_log=log, memory_mib=64) as guest:
            await guest.start()
            await guest.wait_for("boot done", 10, failing="hello")

    with (
        serving({"disk": MemoryDisk(PRINTS_HELLO)}) as path,
        pytest.raises(UnexpectedLineError, match="the guest printed 'hello' instead of 'boot done'"),
    ):
        asyncio.run(main(path))
    assert no_qemu_is_left()


def test_a_guest_that_does_not_heed_the_power_button(tmp_path: Path) -> None:
    with pytest.raises(
        LabError, match=r"the guest did not shut down within 0.2 s; its last line was 'hello'"
    ):
        boot(tmp_path, "hello")
    assert no_qemu_is_left()


def test_a_qemu_that_dies(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"QEMU ended with status -9"):
        boot(tmp_path, "hello", kill=True)


def test_a_qemu_that_does_not_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(LabError, match=r"QEMU did not start: .*no-such-option"):
        boot(tmp_path, "hello", "-no-such-option")
    assert no_qemu_is_left()
    gc.collect()  # a task whose failure nobody fetched would complain now
    assert "never retrieved" not in caplog.text


def no_qemu_is_left() -> bool:
    """Whether none of this process's children is still a QEMU."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, rest = status.read_text().rsplit(")", 1)
            if "qemu-system" in name and int(rest.split()[1]) == os.getpid():
                return False
    return True
