"""What every guest has of ours, run here with files in place of the console and of the disk."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
from lab_helpers import need

from vmrestorekit.lab.guests import units
from vmrestorekit.lab.guests.spec import GuestSpec
from vmrestorekit.lab.guests.units import CHANGE_SERIAL, guest_files, guest_units

GOOD = {"name": "a-guest", "release": "bookworm", "size": "3 GiB"}
CHANGE_DISK = f"/dev/disk/by-id/virtio-{CHANGE_SERIAL}"


@pytest.fixture
def run_script(tmp_path: Path):
    """Run one of the scripts; return its status and the lines on the console."""

    def run(spec: GuestSpec, name: str) -> tuple[int, list[str]]:
        console, folder = tmp_path / "console", tmp_path / "vmrestorekit"
        console.write_text("")
        folder.mkdir(exist_ok=True)
        (tmp_path / "run").mkdir(exist_ok=True)
        places = {
            "> /dev/ttyS0": f">> {console}",
            "/etc/vmrestorekit": str(folder),
            "/var/tmp": str(tmp_path),
            "/run/": f"{tmp_path}/run/",
            "/boot": str(tmp_path / "boot"),
            CHANGE_DISK: str(tmp_path / "change.tar"),
        }
        for path, text in guest_files(spec).items():
            if path.startswith("etc/vmrestorekit/"):
                for there, here in places.items():
                    text = text.replace(there, here)
                (folder / Path(path).name).write_text(text)
        done = subprocess.run(["sh", folder / name], capture_output=True, check=False, timeout=60)
        return done.returncode, [line for line in console.read_text().splitlines() if line]

    return run


def spec(**more: object) -> GuestSpec:
    return GuestSpec.from_table(GOOD | more)


def test_a_first_client_comes_once(run_script, tmp_path: Path) -> None:
    status, lines = run_script(spec(first_use=f"echo came >> {tmp_path}/came"), "use")
    assert (status, lines) == (0, [units.USE_BEGINS_LINE, units.USE_DONE_LINE])
    assert (tmp_path / "came").read_text() == "came\n"


def test_an_exercise_goes_on_for_its_time(run_script, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(units, "EXERCISE_SECONDS", 2)
    status, lines = run_script(spec(exercise=f"echo came >> {tmp_path}/came; sleep 0.2"), "use")
    assert (status, lines) == (0, [units.USE_BEGINS_LINE, units.USE_DONE_LINE])
    assert len((tmp_path / "came").read_text().splitlines()) >= 3


def test_a_client_that_fails_is_told_with_its_complaint(run_script) -> None:
    status, lines = run_script(spec(first_use="ls /no-such-place\ntrue"), "use")
    assert status
    assert "no-such-place" in lines[-2]
    assert lines[-1] == units.FAILED_LINE
    assert units.USE_DONE_LINE not in lines


def sent_in(tmp_path: Path, script: str) -> None:
    (tmp_path / "boot/grub").mkdir(parents=True)
    for version in ("6.1.0-9", "6.1.0-10"):
        (tmp_path / f"boot/vmlinuz-{version}").touch()
    (tmp_path / "boot/grub/grub.cfg").write_text(
        "  linux /boot/vmlinuz-6.1.0-9 root=/dev/vda1 ro\n  initrd /boot/initrd.img-6.1.0-9\n"
    )
    (tmp_path / "script").write_text(script)
    with tarfile.open(tmp_path / "change.tar", "w") as archive:
        archive.add(tmp_path / "script", "change")


def test_a_change_is_carried_out_and_the_newest_kernel_boots_next(run_script, tmp_path: Path) -> None:
    sent_in(tmp_path, f"echo made > {tmp_path}/made\n")
    status, lines = run_script(spec(), "change")
    assert (status, lines) == (0, [units.CHANGE_DONE_LINE])
    assert (tmp_path / "made").read_text() == "made\n"
    assert (tmp_path / "boot/grub/grub.cfg").read_text() == (
        "  linux /boot/vmlinuz-6.1.0-10 root=/dev/vda1 ro\n  initrd /boot/initrd.img-6.1.0-10\n"
    )
    assert not (tmp_path / "vmrestorekit-change").exists()  # nothing of it stays on the disk


def test_a_change_that_fails_is_told(run_script, tmp_path: Path) -> None:
    sent_in(tmp_path, "ls /no-such-place\ntouch reached\n")
    status, lines = run_script(spec(), "change")
    assert status
    assert "no-such-place" in lines[-2]
    assert lines[-1] == units.FAILED_LINE


def test_a_client_and_a_change_never_come_in_the_same_boot() -> None:
    files = guest_files(spec(first_use="true"))
    use, change = (files[f"etc/systemd/system/vmrestorekit-{name}.service"] for name in ("use", "change"))
    assert f"ConditionPathExists=!{CHANGE_DISK}\n" in use
    assert f"ConditionPathExists={CHANGE_DISK}\n" in change
    assert len(CHANGE_SERIAL) <= 20  # what a virtio disk can have


def test_a_guest_without_a_client_has_no_unit_for_one() -> None:
    assert guest_units(spec()) == ["vmrestorekit-boot-done", "vmrestorekit-change"]
    assert guest_units(spec(exercise="true")) == [
        f"vmrestorekit-{name}" for name in ("boot-done", "use", "change")
    ]


@pytest.mark.parametrize("graphics", [False, True])
def test_systemd_finds_nothing_wrong_and_no_circle(tmp_path: Path, graphics: bool) -> None:
    need("systemd-analyze")
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    files = guest_files(spec(first_use="true", graphics=graphics))
    target = "graphical.target" if graphics else "multi-user.target"
    wants = folder / f"{target}.wants"
    wants.mkdir()
    for path, text in files.items():
        if path.endswith(".service"):
            (tmp_path / path).write_text(text)
            (wants / Path(path).name).symlink_to(f"../{Path(path).name}")
            assert f"WantedBy={target}" in text
    environment = {
        "SYSTEMD_UNIT_PATH": f"{folder}:/usr/lib/systemd/system:/lib/systemd/system",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", target],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "vmrestorekit" in line or "cycle" in line]
    assert complaints == []
