"""``vmrestorekit train`` and ``predict``: what they print and write, and one sentence for bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from synthetic_boots import small_machine
from typer.testing import CliRunner

from vmrestorekit.cli import app, main
from vmrestorekit.plan import RestorePlan
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.ordering import StagingDevice
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.saved_model import read_record, save_model
from vmrestorekit.restore.hardware import MEDIA
from vmrestorekit.traces.corpus import add_boot, load_corpus


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    lineages = {"alpha": "first", "beta": "second", "clone": "second", "delta": "third"}
    for seed, (vm, lineage) in enumerate(lineages.items(), 1):
        for boot in small_machine(vm, seed):
            description = {"lineage": lineage, "release": "Debian 12", "roles": ["web", "db"]}
            add_boot(directory, boot.trace, boot.manifests, description)
    return directory


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("trained") / "models" / "model.npz"
    words = ["--without", "delta", "--without", "clone", "-o", path, "--json"]
    return path, json.loads(run("train", "--corpus", corpus, *words))


@pytest.fixture(scope="module")
def fitted(corpus) -> LearnedPredictor:
    """What the command is to learn."""
    return LearnedPredictor().fit(load_corpus(corpus).only("alpha", "beta"))


def test_train_says_what_it_learned_from(corpus, trained):
    path, printed = trained
    assert printed["model"] == str(path)
    assert printed["megabytes"] == pytest.approx(path.stat().st_size / 1e6, abs=1e-3)
    assert printed["seconds_to_learn"] >= 0
    assert [row["vm"] for row in printed["learned_from"]] == ["alpha", "beta"]
    about = {"vm": "alpha", "lineage": "first", "release": "Debian 12", "roles": "web, db", "boots": 2}
    assert printed["learned_from"][0] == about
    assert printed["digest"] == read_record(path)["trained_on"]["digest"]


@pytest.mark.parametrize(
    ("vm", "knows"),
    [
        ("delta", "other machines only"),
        ("clone", "machines of its lineage"),
        ("alpha", "this very boot"),
    ],
)
def test_predict_says_what_the_model_knows_of_a_recorded_boot(corpus, trained, fitted, vm, knows, tmp_path):
    words = [trained[0], "--vm", vm, "--corpus", corpus, "-o", tmp_path / "plan"]
    printed = json.loads(run("predict", *words, "--json"))
    assert (printed["vm"], printed["boot"], printed["model_knows"]) == (vm, "boot-2", knows)
    plan = RestorePlan.load(tmp_path / "plan")
    assert plan.equals(make_plan(fitted, load_corpus(corpus)[vm].boots[-1]))
    assert printed["first_set_blocks"] == len(plan.first_set) > 0
    assert printed["first_set_megabytes"] == pytest.approx(len(plan.first_set) * 65536 / 1e6, abs=0.05)
    assert 0 < printed["expected_blocks"] <= printed["first_set_blocks"] <= printed["blocks"] == plan.blocks


def test_a_boot_that_came_after_what_was_learned(corpus, tmp_path):
    first = load_corpus(corpus)["alpha"].boots[:1]
    model = LearnedPredictor(max_iter=4).fit(first)
    save_model(model, tmp_path / "model.npz", trained_on=first)
    words = ["--vm", "alpha", "--corpus", corpus, "--json"]
    printed = json.loads(run("predict", tmp_path / "model.npz", *words))
    assert printed["model_knows"] == "other boots of this machine"
    assert json.loads(run("predict", tmp_path / "model.npz", *words, "--boot", "boot-1"))["boot"] == "boot-1"


def test_predict_from_manifests_of_all_disks(corpus, trained, tmp_path):
    boots = load_corpus(corpus)
    manifests = [boots[vm].boots[0].manifest for vm in ("delta", "alpha")]
    paths = [tmp_path / f"disk{number}.parquet" for number in range(2)]
    for manifest, path in zip(manifests, paths, strict=True):
        manifest.save(path)
    words = ["--mode", "live_mount", "--budget-mib", 1, "-o", tmp_path / "plan"]
    text = run("predict", trained[0], *paths, *words)
    plan = RestorePlan.load(tmp_path / "plan")
    assert plan.mode == "live_mount"
    assert plan.disk_bytes == tuple(manifest.disk_bytes for manifest in manifests)
    assert len(plan.first_set) == 16
    assert "first_set_blocks: 16\n" in text
    assert "expected_blocks: " in text
    assert "model_knows" not in text


@pytest.mark.parametrize(("media", "head_start"), [("tape", 0), ("flash", 60)])
def test_the_order_is_that_for_the_device(corpus, trained, fitted, media, head_start, tmp_path):
    words = ["--media", media, "--head-start", head_start, "-o", tmp_path / "plan"]
    run("predict", trained[0], "--vm", "delta", "--corpus", corpus, *words)
    hardware = MEDIA[media]
    backup_device = hardware.backup_device
    device = StagingDevice(
        min(backup_device.bandwidth * backup_device.channels, hardware.link.bandwidth),
        backup_device.positioning_ns // backup_device.channels,
        head_start * 10**9,
    )
    expected = make_plan(fitted, load_corpus(corpus)["delta"].boots[-1], device=device)
    assert RestorePlan.load(tmp_path / "plan").first_set.tolist() == expected.first_set.tolist()


def test_scores_are_kept_in_the_model(corpus, tmp_path):
    (tmp_path / "scores.json").write_text('{"recall": 0.9}')
    words = ["--without", "alpha", "--scores", tmp_path / "scores.json", "-o", tmp_path / "model.npz"]
    text = run("train", "--corpus", corpus, *words)
    assert "learned_from" in text
    assert "delta" in text
    assert read_record(tmp_path / "model.npz")["scores"] == {"recall": 0.9}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "-o", "MODEL", "--without", "nobody"], "got 'nobody'"),
        (["train", "-o", "MODEL", "--without=alpha", "--without=beta", "--without=clone", "--without=delta"],
         "expected at least one recorded boot"),
        (["train", "-o", "."], "expected the name of a file"),
        (["train", "-o", "MODEL", "--scores", "no.json"], "no.json"),
        (["train", "-o", "MODEL", "--scores", "LIST"], "expected scores as one JSON object, got list"),
        (["train", "-o", "MODEL", "--scores", "TEXT"], "expected scores as JSON"),
        (["predict", "no.npz", "--vm", "alpha"], "expected a saved model at no.npz, found no such file"),
        (["predict", "TEXT", "--vm", "alpha"], "expected a whole saved model"),
        (["predict", "TRAINED"], "expected either manifests"),
        (["predict", "TRAINED", "TEXT", "--vm", "alpha"], "expected either manifests"),
        (["predict", "TRAINED", "TEXT", "--boot", "boot-1"], "expected --vm beside it"),
        (["predict", "TRAINED", "TEXT"], "Parquet"),
        (["predict", "TRAINED", "--vm", "nobody"], "got 'nobody'"),
        (["predict", "TRAINED", "--vm", "alpha", "--boot", "boot-9"], "boot-9"),
        (["predict", "TRAINED", "--vm", "alpha", "--mode", "teleport"], "live_mount"),
        (["predict", "TRAINED", "--vm", "alpha", "--media", "floppy"], "disk_library"),
        (["predict", "TRAINED", "--vm", "alpha", "--media", "tape", "--head-start", "-1"], "head_start_ns"),
    ],
    ids=lambda found: " ".join(found) if isinstance(found, list) else "",
)  # fmt: skip
def test_bad_input_ends_with_one_sentence(corpus, trained, words, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "text").write_text("neither a model nor JSON")
    (tmp_path / "list").write_text("[1]")
    names = {"MODEL": "model.npz", "TRAINED": str(trained[0]), "TEXT": "text", "LIST": "list"}
    words = [names.get(word, word) for word in words]
    if words[0] == "train" or "--vm" in words:
        words += ["--corpus", str(corpus)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vmrestorekit", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("vmrestorekit: ")
    assert says in printed.err
    assert printed.err.count("\n") == 1, printed.err
    assert not (tmp_path / "model.npz").exists()
