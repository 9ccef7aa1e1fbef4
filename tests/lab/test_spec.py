"""Descriptions of guests: those that come along, and what is said about wrong ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vmrestorekit import cli
from vmrestorekit.lab.guests.placement import place_volumes
from vmrestorekit.lab.guests.spec import GuestSpec, SpecError

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.toml"))
GOOD = {"name": "a-guest", "release": "bookworm", "size": "3 GiB"}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_those_that_come_along_load_and_are_named_like_their_file(path: Path) -> None:
    spec = GuestSpec.load(path)
    assert spec.name == path.stem
    assert spec.size_bytes >= 3 << 30
    assert spec.roles
    assert place_volumes(spec)
    assert spec.history.count("shutdown") >= 2
    assert spec.history.count("crash") == 1
    assert spec.first_use or spec.exercise
    assert spec.services


def test_together_they_are_the_variety_that_the_data_sheet_claims() -> None:
    specs = [GuestSpec.load(path) for path in SPECS]
    releases = {spec.release for spec in specs}
    assert releases == {"bullseye", "bookworm", "trixie"}
    assert len({role for spec in specs for role in spec.roles}) >= 8
    assert {spec.release for spec in specs if spec.kernel == "full"} == releases
    assert {volume.file_system for spec in specs for volume in spec.volumes} == {
        "ext4",
        "xfs",
        "btrfs",
        "swap",
    }
    assert any(volume.group for spec in specs for volume in spec.volumes)
    assert sum(len(spec.disk_bytes) > 1 for spec in specs) >= 3
    assert sum(bool(spec.exercise) for spec in specs) >= 6
    assert sum("again" in spec.history for spec in specs) >= 4
    clones = [spec for spec in specs if spec.base]
    assert len({spec.lineage for spec in clones}) == 2
    assert all(spec.history.count("change") == 2 for spec in clones)
    assert len(specs) - len(clones) >= 16


def test_the_digest_changes_with_anything() -> None:
    digests = {
        GuestSpec.from_table(GOOD | change).digest()
        for change in ({}, {"size": "4 GiB"}, {"setup": ["true"]}, {"first_use": "true"}, {"roles": ["web"]})
    }
    assert len(digests) == 5
    assert GuestSpec.from_table(GOOD).digest() == GuestSpec.from_table(dict(reversed(GOOD.items()))).digest()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pakages": []}, "expected only the keys name, release, size, .*history, got 'pakages'"),
        ({"name": None}, "expected 'name' to match .*, got None"),
        ({"name": "../etc"}, "expected 'name' to match .*, got '../etc'"),
        ({"release": "12"}, "expected 'release' to match .*, got '12'"),
        ({"size": 3}, "expected 'size' such as '3 GiB', .*, got 3"),
        ({"size": "3 GB"}, "expected 'size' such as '3 GiB', .*, got '3 GB'"),
        ({"size": "1 MiB"}, "expected 'size' .* from 64 MiB to 1024 GiB, got '1 MiB'"),
        ({"packages": "nginx"}, "expected 'packages' to be a list of strings, got 'nginx'"),
        ({"setup": [1]}, r"expected 'setup' to be a list of strings, got \[1\]"),
        ({"first_use": ["a"]}, "expected 'first_use' to be a string"),
        ({"kernel": "tiny"}, "expected 'kernel' to be one of cloud, full, got 'tiny'"),
        ({"graphics": 1}, "expected 'graphics' to be true or false, got 1"),
        ({"data_disks": "1 GiB"}, "expected 'data_disks' to be a list, got '1 GiB'"),
        ({"data_disks": ["x"]}, "expected 'data_disks' such as '3 GiB', .*, got 'x'"),
        ({"volumes": [1]}, "expected 'volumes' to be tables, got 1"),
        ({"volumes": [{"mount": "/", "sise": 1}]}, "volumes: expected only the keys mount, .*, got 'sise'"),
        ({"volumes": [{"disk": 0}]}, "volumes: expected a value for 'mount', got none"),
        ({"volumes": [{"mount": "srv"}]}, "expected 'mount' to be swap or an absolute path, got 'srv'"),
        ({"volumes": [{"mount": "/srv"}]}, "expected volumes for '/' and other places, each once"),
        ({"volumes": [{"mount": "/", "disk": 1}]}, "expected '/boot', or '/' without it, to be ext4 in a"),
        (
            {"volumes": [{"mount": "/", "file_system": "xfs"}]},
            "expected '/boot', or '/' without it, to be ext4 in a partition of disk 0",
        ),
        (
            {"volumes": [{"mount": "/"}, {"mount": "/srv", "disk": 1}]},
            "expected 'disk' below 1, got 1",
        ),
        (
            {"volumes": [{"mount": "/", "size": "2 GiB"}, {"mount": "/srv", "size": "1 GiB"}]},
            "expected volumes smaller than disk 0 of 3221225472 bytes, got 3221225472",
        ),
        (
            {"volumes": [{"mount": "/"}, {"mount": "swap", "file_system": "ext4"}]},
            "expected swap space to be",
        ),
        ({"history": ["shutdown"]}, "expected a history that starts with 'build' or 'change'"),
        ({"history": ["build", "build"]}, "expected a history that starts with .* no other 'build'"),
        ({"history": ["build", "reset"]}, "expected 'history' to be one of build, .*, got 'reset'"),
        ({"history": ["build", "change"]}, "expected as many changes as the history has, 1, got 0"),
        ({"changes": [{"packages": ["a"]}]}, "expected a change to have both 'suite' and 'packages'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecError, match=f"^a.toml: {sentence}") as caught:
        GuestSpec.from_table(GOOD | change, source="a.toml")
    assert "\n" not in str(caught.value)


def test_a_clone_takes_everything_from_its_base_but_its_history(tmp_path: Path) -> None:
    (tmp_path / "golden.toml").write_text(
        'name = "golden"\nrelease = "bookworm"\nsize = "2 GiB"\npackages = ["nginx"]\n'
        'history = ["build", "again"]\n'
    )
    (tmp_path / "clone.toml").write_text('name = "clone"\nbase = "golden"\nroles = ["web"]\n')
    clone = GuestSpec.load(tmp_path / "clone.toml")
    assert (clone.name, clone.lineage, clone.packages) == ("clone", "golden", ("nginx",))
    assert clone.history == GuestSpec.from_table(GOOD).history
    assert GuestSpec.load(tmp_path / "golden.toml").lineage == "golden"
    before = clone.digest()
    (tmp_path / "golden.toml").write_text('name = "golden"\nrelease = "trixie"\nsize = "2 GiB"\n')
    assert GuestSpec.load(tmp_path / "clone.toml").digest() != before
    (tmp_path / "clone.toml").write_text('name = "clone"\nbase = "golden"\nexercise = "true"\n')
    with pytest.raises(SpecError, match=r"clone.toml: expected of a clone only the keys .*, got 'exercise'"):
        GuestSpec.load(tmp_path / "clone.toml")
    (tmp_path / "third.toml").write_text('name = "third"\nbase = "clone"\n')
    with pytest.raises(SpecError, match="expected a base that is no clone itself, got 'clone'"):
        GuestSpec.load(tmp_path / "third.toml")


def test_a_key_that_is_missing_is_named() -> None:
    with pytest.raises(SpecError, match=r"expected a value for 'release', got none"):
        GuestSpec.from_table({"name": "a", "size": "3 GiB"})


def test_a_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a guest description at .*nowhere.toml"):
        GuestSpec.load(tmp_path / "nowhere.toml")
    path = tmp_path / "a.toml"
    path.write_text("name = ")
    with pytest.raises(SpecError, match=r"a.toml: expected a guest description in TOML"):
        GuestSpec.load(path)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ["build", "nowhere.toml"],
            "vmrestorekit: expected a guest description at nowhere.toml, found no file",
        ),
        (
            ["record", "no.img", "-o", "corpus"],
            "vmrestorekit: expected a disk image at no.img, found no file",
        ),
    ],
)
def test_on_the_command_line_it_is_one_sentence(
    command: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vmrestorekit", "lab", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == sentence
    assert not list(tmp_path.iterdir())
