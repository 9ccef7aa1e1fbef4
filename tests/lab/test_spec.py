"""Descriptions of guests: those that come along, and what is said about wrong ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vmrestorekit import cli
from vmrestorekit.lab.spec import GuestSpec, SpecError

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.toml"))
GOOD = {"name": "a-guest", "release": "bookworm", "size": "3 GiB"}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_those_that_come_along_load_and_are_named_like_their_file(path: Path) -> None:
    spec = GuestSpec.load(path)
    assert spec.name == path.stem
    assert spec.size_bytes == 3 << 30
    assert spec.roles
    assert spec.services


def test_there_are_two_to_begin_with() -> None:
    assert {path.stem for path in SPECS} >= {"bookworm-web", "bookworm-db"}


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
        ({"pakages": []}, "expected only the keys name, release, size, .*first_use, got 'pakages'"),
        ({"name": None}, "expected 'name' to match .*, got None"),
        ({"name": "../etc"}, "expected 'name' to match .*, got '../etc'"),
        ({"release": "12"}, "expected 'release' to match .*, got '12'"),
        ({"size": 3}, "expected 'size' such as '3 GiB', .*, got 3"),
        ({"size": "3 GB"}, "expected 'size' such as '3 GiB', .*, got '3 GB'"),
        ({"size": "1 MiB"}, "expected 'size' .* from 64 MiB to 1024 GiB, got '1 MiB'"),
        ({"packages": "nginx"}, "expected 'packages' to be a list of strings, got 'nginx'"),
        ({"setup": [1]}, r"expected 'setup' to be a list of strings, got \[1\]"),
        ({"first_use": ["a"]}, "expected 'first_use' to be a string"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecError, match=f"^a.toml: {sentence}") as caught:
        GuestSpec.from_table(GOOD | change, source="a.toml")
    assert "\n" not in str(caught.value)


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
