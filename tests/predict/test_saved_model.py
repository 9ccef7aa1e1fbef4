"""A saved model answers as the one that was saved, executes nothing, and harms nobody, however damaged."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from synthetic_boots import small_machine

from vmrestorekit.predict import saved_model
from vmrestorekit.predict.evidence import EvidenceTable
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.packed import fields_of
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.replay import LastBootReplay
from vmrestorekit.predict.saved_model import fingerprint_of, load_model, read_record, save_model
from vmrestorekit.traces.corpus import add_boot, load_corpus

OTHERS = tuple(
    boot for seed, vm in enumerate(("alpha", "beta", "gamma"), 1) for boot in small_machine(vm, seed)
)
STRANGER = small_machine("delta", 4)[0].manifest
KNOWN = OTHERS[-1].manifest
FEW_TREES = {"max_iter": 8, "max_leaf_nodes": 7, "learning_rate": 0.3}

# several machines of several lineages; one machine alone; machines without a second boot
LEARNED_FROM = {"several": OTHERS, "one": OTHERS[:2], "no past": OTHERS[::2]}


@pytest.fixture(scope="module")
def models():
    return {name: LearnedPredictor(**FEW_TREES).fit(boots) for name, boots in LEARNED_FROM.items()}


@pytest.fixture(scope="module")
def model(models):
    return models["several"]


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.npz"
    save_model(model, path, trained_on=OTHERS, scores={"recall": 0.9})
    return path


@pytest.fixture(scope="module")
def fingerprint():
    return fingerprint_of(OTHERS)


def again(path: Path, to: Path) -> bytes:
    """What a loaded model is when it is saved: equal models are equal files."""
    record = read_record(path)
    save_model(load_model(path), to, trained_on=record["trained_on"], scores=record["scores"])
    return to.read_bytes()


def members_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def rewritten(path: Path, to: Path, members=None, **changes) -> Path:
    """The file with other arrays, or other entries in its record."""
    found = members_of(path) | (members or {})
    record = json.loads(found["record"].tobytes()) | changes
    found["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    np.savez_compressed(to, **found)
    return to


def assert_one_sentence(error: pytest.ExceptionInfo[PredictError], path: Path) -> None:
    text = str(error.value)
    assert "expected" in text
    assert str(path) in text
    assert "\n" not in text


@pytest.mark.parametrize("name", LEARNED_FROM)
def test_a_loaded_model_answers_to_the_bit(models, name, tmp_path):
    model, path = models[name], tmp_path / "model.npz"
    save_model(model, path, trained_on=LEARNED_FROM[name])
    loaded = load_model(path)
    for manifest in (STRANGER, KNOWN, OTHERS[0].manifest):
        assert loaded.score_blocks(manifest).equals(model.score_blocks(manifest))
    assert make_plan(loaded, STRANGER).equals(make_plan(model, STRANGER))
    assert loaded.get_params() == model.get_params()
    assert vars(loaded).keys() == vars(model).keys()
    assert again(path, tmp_path / "again.npz") == path.read_bytes()


def test_the_models_of_these_tests_have_a_past_and_have_none(models):
    assert models["several"].past_reads_.classifier is not None
    assert models["no past"].past_reads_.classifier is None
    assert any("#" in source for source in models["one"].evidence_.tables["file"].parts)


def test_everything_that_was_learned_is_saved(model):
    """Fails where the predictor or a part of it was given what `FITTED` and its classes do not declare."""
    assert {name for name in vars(model) if name.endswith("_")} == saved_model.FITTED.keys()
    derived = {EvidenceTable: {"totals"}}  # summed up anew
    for part in (
        model.evidence_,
        model.evidence_.tables["file"],
        model.file_reads_,
        model.classifier_,
        model.past_reads_,
        model.pasts_[0],
        model.pasts_[0].disks[0],
    ):
        assert vars(part).keys() - derived.get(type(part), set()) == fields_of(type(part)).keys()


def test_a_loaded_model_can_do_what_others_can(saved, model):
    loaded = load_model(saved)
    assert clone(loaded).get_params() == model.get_params()
    copied = pickle.loads(pickle.dumps(loaded))
    assert copied.score_blocks(STRANGER).equals(model.score_blocks(STRANGER))
    again_fitted = loaded.fit(OTHERS)
    assert again_fitted.score_blocks(STRANGER).equals(model.score_blocks(STRANGER))


def test_it_is_asked_without_the_ensembles_of_scikit_learn(saved):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from synthetic_boots import small_machine
from vmrestorekit.predict.saved_model import load_model
load_model({str(saved)!r}).score_blocks(small_machine("delta", 4)[0].manifest)
print([name for name in sys.modules if name.startswith("sklearn.ensemble")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_record_says_what_it_was_learned_from(saved, model):
    record = read_record(saved)
    assert record["trained_on"] == fingerprint_of(OTHERS)
    assert [machine["vm"] for machine in record["trained_on"]["machines"]] == ["alpha", "beta", "gamma"]
    assert [machine["boots"] for machine in record["trained_on"]["machines"]] == [["boot-1", "boot-2"]] * 3
    assert record["scores"] == {"recall": 0.9}
    assert record["parameters"] == model.get_params()
    assert record["versions"]["numpy"] == np.__version__
    assert "fitted" not in record


def test_parameters_of_numpy_are_saved_as_numbers(model, tmp_path):
    found = copy.copy(model).set_params(max_iter=np.int64(8), learning_rate=1)
    save_model(found, tmp_path / "model.npz", trained_on=OTHERS)
    assert load_model(tmp_path / "model.npz").get_params() == found.get_params()


def test_names_of_any_letters(model, tmp_path):
    table = model.evidence_.tables["file"]
    parts = {"Bücher – 本\n": table.parts["alpha"]}
    tables = model.evidence_.tables | {"file": EvidenceTable(table.known, parts)}
    changed = copy.copy(model)
    changed.evidence_ = type(model.evidence_)(tables)
    save_model(changed, tmp_path / "model.npz", trained_on=OTHERS)
    assert load_model(tmp_path / "model.npz").evidence_.tables["file"].parts.keys() == parts.keys()


def test_a_fingerprint_is_of_what_was_recorded_not_of_where_it_is(tmp_path):
    for boot in OTHERS:
        add_boot(tmp_path, boot.trace, boot.manifests, {})
    stored = load_corpus(tmp_path)
    assert fingerprint_of(stored) == fingerprint_of(OTHERS)
    assert fingerprint_of(stored.without("beta"))["digest"] != fingerprint_of(OTHERS)["digest"]
    # the same names and other disks, or other reads
    moved = (*OTHERS[:4], *small_machine("gamma", 5))
    assert fingerprint_of(moved)["digest"] != fingerprint_of(OTHERS)["digest"]
    assert fingerprint_of(moved)["machines"] == fingerprint_of(OTHERS)["machines"]
    other_reads = type(OTHERS[0]).from_parts(
        dataclasses.replace(OTHERS[1].trace, metadata=OTHERS[0].metadata), OTHERS[0].manifests
    )
    assert fingerprint_of(other_reads)["digest"] != fingerprint_of(OTHERS[0])["digest"]


def test_what_cannot_be_saved(model, tmp_path):
    path = tmp_path / "model.npz"
    wrong = [
        (LearnedPredictor(), {}, "expected a predictor that was fitted"),
        (LastBootReplay().fit(OTHERS[0]), {}, "expected a LearnedPredictor to save, got LastBootReplay"),
        (model, {"scores": {"x": object()}}, "expected scores that JSON can hold"),
        (model, {"trained_on": {"machines": "many"}}, "trained_on: expected boots"),
        (model, {"trained_on": ()}, "expected at least one recorded boot"),
    ]
    for predictor, more, says in wrong:
        with pytest.raises(PredictError, match=says):
            save_model(predictor, path, **{"trained_on": OTHERS, **more})
    grown = copy.copy(model)
    grown.opinion_ = 3
    with pytest.raises(PredictError, match="opinion_"):
        save_model(grown, path, trained_on=OTHERS)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_save_leaves_the_old_model(saved, model, tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    path.write_bytes(saved.read_bytes())

    def interrupted(file, **members):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, path, trained_on=OTHERS)
    assert path.read_bytes() == saved.read_bytes()
    assert [each.name for each in tmp_path.iterdir()] == ["model.npz"]


class Executed:
    """Pickled, it would be carried out by who loads it."""

    def __reduce__(self):
        return (pytest.fail, ("a file was executed",))


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("record.npy", bytes(300_000_000))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model",
        b"PK\x05\x06" + bytes(18),
        pickle.dumps(Executed()),
        zip_bomb(),
    ],
    ids=["empty", "text", "empty zip", "pickle", "bomb"],
)
@pytest.mark.parametrize("read", [load_model, read_record])
def test_what_is_no_model(content, read, tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(PredictError) as error:
        read(path)
    assert_one_sentence(error, path)


def test_arrays_of_objects_are_not_executed(saved, tmp_path):
    for name in ("record", "int32"):
        path = tmp_path / f"{name}.npz"
        np.savez_compressed(
            path, allow_pickle=True, **members_of(saved) | {name: np.array([Executed()], dtype=object)}
        )
        with pytest.raises(PredictError, match="allow_pickle"):
            load_model(path)


@pytest.mark.parametrize("read", [load_model, read_record])
def test_no_file_and_a_directory(read, tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(PredictError, match=r"expected a saved model at .*, found no such file"):
            read(path)


@pytest.mark.parametrize(("number", "age"), [(2, "an older"), (4, "a newer")])
def test_another_format(saved, number, age, tmp_path):
    path = rewritten(saved, tmp_path / "model.npz", format=number, package="9.9")
    with pytest.raises(PredictError, match=rf"format 3, got format {number} of {age} vmrestorekit \(9.9\)"):
        load_model(path)


@pytest.mark.parametrize("what", ["block", "file", "past"])
def test_other_features(saved, what, tmp_path):
    names = read_record(saved)["features"][what]
    features = read_record(saved)["features"] | {what: [*names[1:], "taste"]}
    path = rewritten(saved, tmp_path / "model.npz", features=features)
    with pytest.raises(PredictError, match=rf"other {what} features \(lacking: {names[0]}; unknown: taste\)"):
        load_model(path)
    in_another_order = features | {what: names[::-1]}
    with pytest.raises(PredictError, match=f"{what} features"):
        load_model(rewritten(saved, path, features=in_another_order))
    for missing in (None, {}, {**features, what: "all"}):
        with pytest.raises(PredictError, match="without the features of a"):
            load_model(rewritten(saved, path, features=missing))


def test_files_that_are_named_in_another_way(saved, tmp_path):
    path = rewritten(saved, tmp_path / "model.npz", description="0123456789abcdef")
    with pytest.raises(PredictError, match="names files in another way: train it anew"):
        load_model(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"fitted": None},
        {"fitted": {}},
        {"parameters": {"max_iter": 3}},
        {"parameters": {**LearnedPredictor().get_params(), "max_iter": "many"}},
        {"parameters": {**LearnedPredictor().get_params(), "learning_rate": float("nan")}},
        {"parameters": {**LearnedPredictor().get_params(), "learning_rate": 10**400}},
        {"trained_on": None},
        {"trained_on": {"machines": [{"vm": "alpha"}]}},
        {"format": "one"},
    ],
)
def test_a_record_that_makes_no_sense(saved, changes, tmp_path):
    path = rewritten(saved, tmp_path / "model.npz", **changes)
    with pytest.raises(PredictError) as error:
        load_model(path)
    assert_one_sentence(error, path)


def first_inner(trees) -> int:
    return int(np.flatnonzero(trees.feature >= 0)[0])


def put(trees, name, value, at=None):
    values = getattr(trees, name).copy()
    values[first_inner(trees) if at is None else at] = value
    return dataclasses.replace(trees, **{name: values})


HOSTILE_TREES = {
    "loops": lambda trees: put(trees, "left", first_inner(trees)),
    "leads back": lambda trees: put(trees, "right", 0),
    "leads outside": lambda trees: put(trees, "right", trees.feature.size),
    "leads below": lambda trees: put(trees, "left", -1),
    "begins outside": lambda trees: put(trees, "roots", trees.feature.size, 0),
    "begins below": lambda trees: put(trees, "roots", -1, 0),
    "asks for what is not there": lambda trees: put(trees, "feature", 10_000),
    "asks below": lambda trees: put(trees, "feature", -2),
    "has short arrays": lambda trees: dataclasses.replace(trees, left=trees.left[:-1]),
    "no threshold": lambda trees: put(trees, "threshold", np.nan),
    "an endless leaf": lambda trees: put(
        trees, "threshold", np.inf, int(np.flatnonzero(trees.feature < 0)[0])
    ),
    "has a huge baseline": lambda trees: dataclasses.replace(trees, baseline=-1e300),
    "no nodes": lambda trees: dataclasses.replace(
        trees, **{field.name: getattr(trees, field.name)[:0] for field in dataclasses.fields(trees)[2:]}
    ),
}


def with_table(model, change):
    """The model with one of its tables of evidence changed."""
    table = model.evidence_.tables["place"]
    broken = EvidenceTable(table.known.copy(), {})
    broken.parts = {source: [values.copy() for values in part] for source, part in table.parts.items()}
    broken.weights = {source: [values.copy() for values in part] for source, part in table.weights.items()}
    change(broken)
    broken.parts = {source: tuple(part) for source, part in broken.parts.items()}
    broken.weights = {source: tuple(part) for source, part in broken.weights.items()}
    return {"evidence_": type(model.evidence_)(model.evidence_.tables | {"place": broken})}


def with_past(model, **changes):
    past = model.pasts_[0]
    disk = {name: change(getattr(past.disks[0], name).copy()) for name, change in changes.items()}
    return {"pasts_": (dataclasses.replace(past, disks=(dataclasses.replace(past.disks[0], **disk),)),)}


def swap(values):
    values[:2] = values[1::-1]
    return values


HOSTILE = {
    "a row below": lambda model: with_table(model, lambda table: table.parts["alpha"][0].__setitem__(0, -1)),
    "a row outside": lambda model: with_table(
        model, lambda table: table.parts["alpha"][0].__setitem__(-1, table.known.size)
    ),
    "a row twice": lambda model: with_table(
        model, lambda table: table.parts["alpha"][0].__setitem__(1, table.parts["alpha"][0][0])
    ),
    "keys in disorder": lambda model: with_table(model, lambda table: swap(table.known)),
    "a rate above 1": lambda model: with_table(
        model, lambda table: table.parts["alpha"][1].__setitem__(0, 2)
    ),
    "a part too short": lambda model: with_table(
        model, lambda table: table.parts["alpha"].__setitem__(2, table.parts["alpha"][2][1:])
    ),
    "a weight of nothing": lambda model: with_table(
        model, lambda table: table.weights["alpha"][0].__setitem__(0, 0)
    ),
    "an endless weight": lambda model: with_table(
        model, lambda table: table.weights["alpha"][0].__setitem__(0, np.inf)
    ),
    "a time without weight": lambda model: with_table(
        model, lambda table: table.weights["alpha"][1].__setitem__(slice(None), 0)
    ),
    "too few weights": lambda model: with_table(
        model, lambda table: table.weights["alpha"].__setitem__(0, table.weights["alpha"][0][1:])
    ),
    "a source without weights": lambda model: with_table(model, lambda table: table.weights.pop("alpha")),
    "one of the clocks falls": lambda model: {"clocks_": (*model.clocks_, model.clock_[::-1].copy() + 1)},
    "blocks in disorder": lambda model: with_past(model, block=swap),
    "too few contents": lambda model: with_past(model, content=lambda values: values[1:]),
    "a rate that is none": lambda model: with_past(model, rate=lambda values: values * np.float32(np.nan)),
    "no clock": lambda model: {"clock_": model.clock_[1:]},
    "a clock that falls": lambda model: {"clock_": model.clock_[::-1].copy() + 1},
    "no boots": lambda model: {"pasts_": (dataclasses.replace(model.pasts_[0], boots=0),)},
    "a table is missing": lambda model: {
        "evidence_": type(model.evidence_)(dict(list(model.evidence_.tables.items())[1:]))
    },
}
HOSTILE |= {
    f"a tree {how}": lambda model, change=change: {"classifier_": change(model.classifier_)}
    for how, change in HOSTILE_TREES.items()
}
HOSTILE |= {
    "files: a tree asks for the answer of the next question": lambda model: {
        "file_reads_": dataclasses.replace(
            model.file_reads_,
            first=put(model.file_reads_.first, "feature", len(saved_model.PAST_FEATURES) * 9),
        )
    },
    "times: a tree leads outside": lambda model: {
        "time_regressor_": HOSTILE_TREES["leads outside"](model.time_regressor_)
    },
    "past: a tree loops": lambda model: {
        "past_reads_": type(model.past_reads_)(HOSTILE_TREES["loops"](model.past_reads_.classifier))
    },
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_arrays(model, fingerprint, how, tmp_path, monkeypatch):
    path, hostile = tmp_path / "model.npz", copy.copy(model)
    vars(hostile).update(HOSTILE[how](model))
    with pytest.raises(PredictError, match="expected"):
        save_model(hostile, path, trained_on=fingerprint)
    with monkeypatch.context() as unchecked:
        unchecked.setattr(saved_model, "CHECKS", {})
        unchecked.setattr(saved_model, "check_together", lambda _: None)
        save_model(hostile, path, trained_on=fingerprint)
    with pytest.raises(PredictError) as error:
        load_model(path)
    assert_one_sentence(error, path)


def test_numbers_that_belong_to_nothing(saved, tmp_path):
    more = np.pad(members_of(saved)["float32"], ((0, 0), (0, 1)))
    with pytest.raises(PredictError, match="belong to nothing, got some of float32"):
        load_model(rewritten(saved, tmp_path / "model.npz", {"float32": more}))


def run(examples: int):
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


def loaded_or_none(path: Path) -> LearnedPredictor | None:
    """What a file holds, None if it is refused; any other exception fails the test."""
    try:
        return load_model(path)
    except PredictError:
        return None


@run(60)
@given(data=st.data())
def test_a_damaged_file_is_the_same_model_or_none(saved, data, tmp_path):
    content = bytearray(saved.read_bytes())
    # the ends of a zip file say where everything is: damage there is told from damage in between
    near = st.one_of(
        st.integers(0, len(content) - 1),
        st.integers(0, 600),
        st.integers(len(content) - 900, len(content) - 1),
    )
    if data.draw(st.booleans(), label="truncated"):
        content = content[: data.draw(near, label="bytes")]
    for at in data.draw(st.lists(near, max_size=3, min_size=1), label="flipped"):
        if at < len(content):
            content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    if loaded_or_none(path) is not None:
        assert again(path, tmp_path / "again.npz") == saved.read_bytes()


@run(20)
@given(data=st.data())
def test_a_hostile_file_is_refused_or_asked_without_harm(saved, data, tmp_path):
    """Damage that no checksum finds: the arrays are changed, then stored as if they were right."""
    members = members_of(saved)
    name = data.draw(st.sampled_from(sorted(members.keys() - {"record"})))
    values = members[name].copy()
    for _ in range(data.draw(st.integers(1, 3))):
        row, column = (data.draw(st.integers(0, size - 1)) for size in values.shape)
        values[row, column] ^= data.draw(st.integers(1, 255))
    path = rewritten(saved, tmp_path / "hostile.npz", {name: values})
    loaded = loaded_or_none(path)
    if loaded is not None:
        assert loaded.score_blocks(STRANGER)["probability"].is_between(0, 1).all()
        assert loaded.score_blocks(KNOWN).height == KNOWN.blocks.height
