"""What is sent into a guest that is to change: its script, and the packages that apt would install there."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
from lab_helpers import need

from vmrestorekit.lab.guests.disks import write_disks
from vmrestorekit.lab.guests.spec import Change, GuestSpec
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.recording import change as change_module
from vmrestorekit.lab.recording.change import pack_change


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A disk whose /var, and with it the list of installed packages, is a partition of its own."""
    need("mke2fs", "sfdisk")
    spec = GuestSpec.from_table(
        {
            "name": "guest",
            "release": "bookworm",
            "size": "256 MiB",
            "volumes": [{"mount": "/", "size": "128 MiB"}, {"mount": "/var"}],
        }
    )
    root, var = tmp_path / "root", tmp_path / "var"
    (root / "etc").mkdir(parents=True)
    (root / "etc/fstab").write_text("/dev/vda1 / ext4 rw 0 1\n/dev/vda2 /var ext4 rw 0 2\n")
    (var / "lib/dpkg").mkdir(parents=True)
    (var / "lib/dpkg/status").write_text("Package: installed-here\n")
    (root / "var").mkdir()
    image = tmp_path / "guest.img"
    write_disks(spec, {"/": root, "/var": var}, (bytes(512), b""), [image], tmp_path, tmp_path / "log")
    return image


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]


def test_a_script_alone_needs_no_packages_and_stops_at_the_first_failure(tmp_path: Path) -> None:
    archive = pack_change(
        Change(script=("false", "touch reached")), "bookworm", [], tmp_path, tmp_path / "log"
    )
    assert archive.stat().st_size % 512 == 0
    (script,) = members(archive).values()
    text = script.decode().replace("/var/tmp/vmrestorekit-change", str(tmp_path))
    done = subprocess.run(["sh", "-e", "-c", text], check=False)
    assert done.returncode
    assert not (tmp_path / "reached").exists()


@pytest.mark.parametrize(
    ("packages", "asked"),
    [
        (("*",), ["--fix-missing", "dist-upgrade"]),
        (("nginx",), ["-t", "bookworm-backports", "install", "nginx"]),
    ],
)
def test_apt_is_asked_with_what_is_installed_in_the_guest(
    guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], asked: list[str]
) -> None:
    seen: list[list[str]] = []

    def apt(command: list[str], **_: object) -> str:
        words = [str(word) for word in command]
        seen.append(words)
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("-o"))
        if "--download-only" in words:
            assert Path(options["Dir::State::status"]).read_text() == "Package: installed-here\n"
            Path(options["Dir::Cache"], "archives", "new_1_amd64.deb").write_bytes(b"a package")
        return "http://mirror.example/debian\n" if "indextargets" in words else ""

    monkeypatch.setattr(change_module, "run", apt)
    monkeypatch.setattr(change_module, "require_programs", lambda *_: None)
    change = Change("bookworm-backports", packages, ("echo done",))
    sent = members(pack_change(change, "bookworm", [guest], tmp_path / "work", tmp_path / "log"))
    assert sent["new_1_amd64.deb"] == b"a package"
    lines = sent["change"].decode().splitlines()
    assert lines.index("echo done") > next(at for at, line in enumerate(lines) if "install ./*.deb" in line)
    assert seen[-1][-len(asked) :] == asked


@pytest.mark.parametrize("packages", [("*",), ("nginx",)])
def test_a_package_that_the_mirror_lacks(
    guest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    packages: tuple[str, ...],
) -> None:
    """Of all upgrades it is left out, and said so; of those that were asked for by name it is missed."""

    def apt(command: list[str], **_: object) -> str:
        words = [str(word) for word in command]
        if "--download-only" in words:
            options = dict(word[2:].split("=", 1) for word in words if word.startswith("-o"))
            Path(options["Dir::Cache"], "archives", "other_1_amd64.deb").write_bytes(b"a package")
            raise LabError("apt-get ended with status 100: E: 404 Not Found")
        return "http://mirror.example/debian\n" if "indextargets" in words else ""

    monkeypatch.setattr(change_module, "run", apt)
    monkeypatch.setattr(change_module, "require_programs", lambda *_: None)
    change = Change("bookworm-backports", packages)
    place = (tmp_path / "work", tmp_path / "log")
    if packages == ("*",):
        assert set(members(pack_change(change, "bookworm", [guest], *place))) == {
            "change",
            "other_1_amd64.deb",
        }
        assert "could be fetched: apt-get ended with status 100: E: 404 Not Found" in capsys.readouterr().err
    else:
        with pytest.raises(LabError, match="404 Not Found"):
            pack_change(change, "bookworm", [guest], *place)


def test_an_archive_that_this_machine_s_apt_does_not_know(
    guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_module, "run", lambda *_, **__: "")
    monkeypatch.setattr(change_module, "require_programs", lambda *_: None)
    change = Change("bookworm-security", ("nginx",))
    with pytest.raises(
        LabError, match="expected an archive with the label 'Debian' among those of this mach"
    ):
        pack_change(change, "bookworm", [guest], tmp_path / "work", tmp_path / "log")


def test_a_guest_without_a_list_of_packages(tmp_path: Path) -> None:
    disk = tmp_path / "empty.img"
    disk.write_bytes(bytes(1 << 20))
    with pytest.raises(LabError, match=r"empty.img: expected a guest with /var/lib/dpkg/status, found none"):
        pack_change(Change("a", ("b",)), "bookworm", [disk], tmp_path / "work", tmp_path / "log")
