"""Many guests from one command: what is there is kept, what fails is told, the others are recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vmrestorekit.backup.copy_layout import LAYOUTS_FILE
from vmrestorekit.cli import app
from vmrestorekit.lab.guests.spec import GuestSpec
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.recording import corpus as lab_corpus
from vmrestorekit.lab.recording.history import steps_of
from vmrestorekit.traces.corpus import Boot, add_boot, load_corpus

SPEC = """name = "{}"
release = "bookworm"
size = "1 GiB"
roles = ["{}"]
history = ["build", "shutdown"]
"""
CLONE = """name = "{}"
base = "{}"
history = ["change"]
[[changes]]
script = ["true"]
"""


class Lab:
    """Stands for debootstrap and QEMU; boots are those of a tiny SYNTHETIC machine."""

    def __init__(self, make_boot: Callable[[str, str], Boot]) -> None:
        self.make_boot, self.built, self.cannot_boot = make_boot, list[str](), set[str]()

    def build_image(self, spec: GuestSpec, image: Path, work_dir: Path, report: object) -> None:
        self.built.append(spec.name)
        self.describe(spec, image)

    def clone_image(self, spec: GuestSpec, golden: Path, image: Path, report: object) -> None:
        assert golden.exists()
        self.built.append(f"{spec.name} from {golden.stem}")
        self.describe(spec, image)

    def describe(self, spec: GuestSpec, image: Path) -> None:
        image.parent.mkdir(exist_ok=True)
        image.touch()
        about = {"name": spec.name, "spec_digest": spec.digest(), "history": spec.history}
        image.with_name(image.name + ".json").write_text(json.dumps(about))

    def record_boots(self, image: Path, count: None, out: Path, **_: object) -> list[str]:
        about = json.loads(image.with_name(image.name + ".json").read_text())
        name = about["name"]
        there = load_corpus(out)[name].recordings if (out / name).exists() else ()
        lacking = [step.boot for step in steps_of(about["history"])][len(there) :]
        for boot in lacking:
            if f"{name} {boot}" in self.cannot_boot:
                raise LabError(f"{name}: the guest does not boot")
            made = self.make_boot(name, boot)
            add_boot(out, made.trace, made.manifests, {"spec_digest": about["spec_digest"]})
        return lacking


@pytest.fixture
def lab(make_tiny_boot: Callable[[str, str], Boot], monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(make_tiny_boot)
    monkeypatch.setattr(lab_corpus, "build_image", lab.build_image)
    monkeypatch.setattr(lab_corpus, "clone_image", lab.clone_image)
    monkeypatch.setattr(lab_corpus, "record_boots", lab.record_boots)
    return lab


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    for name in ("web", "mail", "files"):
        (folder / f"{name}.toml").write_text(SPEC.format(name, name))
    return folder


def run(specs: Path, *more: str) -> tuple[int, list[dict[str, str]]]:
    folder = specs.parent
    words = ["lab", "corpus", str(specs), "-o", str(folder / "corpus"), "--work", str(folder / "work")]
    done = CliRunner().invoke(app, [*words, "--json", *more], catch_exceptions=False)
    return done.exit_code, json.loads(done.stdout)


def test_all_guests_of_a_folder_are_recorded_and_then_kept(lab: Lab, specs: Path) -> None:
    code, rows = run(specs)
    assert code == 0
    assert rows == [
        {"guest": name, "recorded": "boot-1, boot-2", "problem": ""} for name in ("files", "mail", "web")
    ]
    assert len(load_corpus(specs.parent / "corpus").boots) == 6
    assert run(specs) == (0, [row | {"recorded": ""} for row in rows])
    assert lab.built == ["files", "mail", "web"]


def test_one_that_fails_is_told_and_taken_up_again(lab: Lab, specs: Path) -> None:
    lab.cannot_boot.add("mail boot-2")
    (specs / "zero.toml").write_text("name = 3\n")
    code, rows = run(specs)
    assert code == 1
    problems = {row["guest"]: row["problem"] for row in rows}
    assert problems["mail"] == "mail: the guest does not boot"
    assert [row["recorded"] for row in rows] == ["boot-1, boot-2", "boot-1", "boot-1, boot-2", ""]
    assert "zero.toml: expected a value for 'release', got none" in problems["zero.toml"]
    assert problems["files"] == problems["web"] == ""
    lab.cannot_boot.clear()
    (specs / "zero.toml").unlink()
    code, rows = run(specs)
    assert code == 0
    assert [row["recorded"] for row in rows] == ["", "boot-2", ""]
    assert lab.built == ["files", "mail", "web"]  # none of them twice


def test_a_description_that_changed_is_not_mixed_with_what_was_recorded(lab: Lab, specs: Path) -> None:
    run(specs)
    (specs / "web.toml").write_text(SPEC.format("web", "shop"))
    code, rows = run(specs)
    assert code == 1
    assert "has boots of web from another description" in rows[-1]["problem"]
    assert all(row["problem"] == "" for row in rows[:-1])


def test_the_chain_is_made_of_those_that_are_named_and_once(
    lab: Lab, specs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains: list[str] = []

    def back_up(image: Path, corpus: Path, **_: object) -> None:
        chains.append(image.stem)
        (corpus / image.stem / LAYOUTS_FILE).touch()

    monkeypatch.setattr(lab_corpus, "back_up_chain", back_up)
    for _ in range(2):
        assert run(specs, "--chain", "web", "--chain", "mail")[0] == 0
        assert chains == ["mail", "web"]


def test_a_clone_comes_after_its_golden_image_which_stays_so_long(lab: Lab, specs: Path) -> None:
    (specs / "a-clone.toml").write_text(CLONE.format("a-clone", "web"))
    (specs / "b-clone.toml").write_text(CLONE.format("b-clone", "web"))
    code, rows = run(specs)
    assert code == 0
    assert [row["guest"] for row in rows] == ["files", "mail", "web", "a-clone", "b-clone"]
    assert lab.built == ["files", "mail", "web", "a-clone from web", "b-clone from web"]
    assert not list((specs.parent / "work").glob("*.img*"))


def test_images_are_kept_on_demand(lab: Lab, specs: Path) -> None:
    run(specs, "--keep")
    assert {path.name for path in (specs.parent / "work").glob("*.img")} == {
        "files.img",
        "mail.img",
        "web.img",
    }


def test_the_image_of_one_that_failed_is_kept(lab: Lab, specs: Path) -> None:
    lab.cannot_boot.add("mail boot-2")
    run(specs)
    assert [path.name for path in (specs.parent / "work").glob("*.img")] == ["mail.img"]


def test_a_folder_without_descriptions(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"expected descriptions of guests, \*\.toml, in"):
        lab_corpus.specs_in([tmp_path])
