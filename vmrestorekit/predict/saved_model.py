"""Models as files: a learned predictor with what it was learned from, in a format that executes nothing.

A file is an ``.npz`` of a few arrays of bytes: ``record`` is JSON for people and programs (`read_record`),
the others hold what was learned (`vmrestorekit.predict.packed`). Nothing is pickled. Who loads a file need
not trust it: what it says is checked, so that the worst it can do is to predict nonsense. The same model
makes the same bytes.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from vmrestorekit import __version__
from vmrestorekit.predict.block_features import FEATURES
from vmrestorekit.predict.description import KEYS, describe_disk
from vmrestorekit.predict.evidence import Evidence
from vmrestorekit.predict.file_reads import FILE_READ_FEATURES, FileReads
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.model_checks import CHECKS, check_together
from vmrestorekit.predict.observations import boots_by_machine
from vmrestorekit.predict.observed import PredictError, as_boots
from vmrestorekit.predict.packed import Packer, Unpacker, expect, fields_of
from vmrestorekit.predict.past_reads import PastReads
from vmrestorekit.predict.relatives import PAST_FEATURES, Past
from vmrestorekit.predict.trees import Trees
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, FILES_SCHEMA, PARTITIONS_SCHEMA, Manifest
from vmrestorekit.traces.storage import state_digest, stored_digest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM

__all__ = ["FORMAT", "fingerprint_of", "load_model", "read_record", "save_model"]

FORMAT = 3

RECORD = "record"
VERSIONS_OF = ("numpy", "polars", "scikit-learn", "numba")
# what was learned, and what it is
FITTED: Mapping[str, Any] = {
    "evidence_": Evidence,
    "file_reads_": FileReads,
    "classifier_": Trees,
    "time_regressor_": Trees,
    "after_classifier_": Trees | None,
    "past_reads_": PastReads,
    "pasts_": tuple[Past, ...],
    "clock_": npt.NDArray[np.float64],
    "clocks_": tuple[npt.NDArray[np.float64], ...],
}
# a model takes a few times the room of its file; what would take far more was made to fill the memory
MOST_EXPANDED, ALWAYS_ALLOWED = 100, 1 << 20


def save_model(
    predictor: LearnedPredictor,
    path: str | os.PathLike[str],
    *,
    trained_on: Corpus | RecordedVM | Boot | Iterable[Boot] | dict[str, Any],
    scores: Mapping[str, Any] | None = None,
) -> None:
    """Write a fitted predictor as one file, whole or not at all.

    Parameters
    ----------
    predictor : LearnedPredictor
        Fitted.
    path : path-like
        Such as ``model.npz``.
    trained_on : Corpus, RecordedVM, Boot, iterable of Boot, or dict
        What `fit` was given; or what `fingerprint_of` made of it.
    scores : mapping, optional
        How well the predictor did, as JSON can hold it: such as the record of an evaluation's report.

    Raises
    ------
    PredictError
        If the predictor is not fitted, is of another kind, or the scores are not plain.
    """
    if not isinstance(predictor, LearnedPredictor):
        raise PredictError(f"model: expected a LearnedPredictor to save, got {type(predictor).__name__}")
    try:
        check_is_fitted(predictor)
    except NotFittedError:
        raise PredictError("model: expected a predictor that was fitted, got one that was not") from None
    learned_from = trained_on if isinstance(trained_on, dict) else fingerprint_of(trained_on)
    expect(_is_fingerprint(learned_from), "trained_on", "boots, or what fingerprint_of made of them")
    packer = Packer(CHECKS)
    attributes = {name for name in vars(predictor) if name.endswith("_") and not name.startswith("_")}
    expect(attributes == FITTED.keys(), "model", f"{', '.join(FITTED)} to save, got {', '.join(attributes)}")
    fitted = {name: packer.take_apart(getattr(predictor, name), kind, name) for name, kind in FITTED.items()}
    check_together(predictor)
    parameters = {
        name: packer.take_apart(getattr(predictor, name), kind, name)
        for name, kind in fields_of(LearnedPredictor).items()
    }
    record = {
        "format": FORMAT,
        "package": __version__,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        "features": _features(),
        "description": _description_digest(),
        "parameters": parameters,
        "trained_on": learned_from,
        "scores": None if scores is None else dict(scores),
        "fitted": fitted,
    }
    try:
        text = json.dumps(record)
    except (TypeError, ValueError) as error:
        raise PredictError(f"model: expected scores that JSON can hold: {error}") from error
    members = {RECORD: np.frombuffer(text.encode(), np.uint8), **packer.members()}
    _write_atomically(members, Path(path))


def _write_atomically(members: Mapping[str, npt.NDArray[np.uint8]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **members)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_model(path: str | os.PathLike[str]) -> LearnedPredictor:
    """Read a predictor that `save_model` wrote; it answers as that one did, to the bit.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    LearnedPredictor

    Raises
    ------
    PredictError
        If there is no such file, or it is truncated, damaged, no model, of another format, or of a version
        that described blocks in another way.
    """
    path = Path(path)
    record, members = _read(path)
    _expect_same_description(record, path)
    try:
        unpacker = Unpacker(members, CHECKS)
        fitted, parameters = record["fitted"], record["parameters"]
        known = fields_of(LearnedPredictor)
        expect(fitted.keys() == FITTED.keys(), "model", ", ".join(FITTED))
        expect(parameters.keys() == known.keys(), "parameters", ", ".join(known))
        found = {name: unpacker.put_together(fitted[name], kind, name) for name, kind in FITTED.items()}
        given = {name: unpacker.put_together(parameters[name], kind, name) for name, kind in known.items()}
        unpacker.expect_nothing_left()
        predictor = LearnedPredictor(**given)
        # as of a copy: answers that were given to others are not its own
        predictor.__setstate__({**found, "_scored": None})
        check_together(predictor)
    except Exception as error:  # what comes from elsewhere may be wrong in any way
        raise _no_model(path, error) from error
    return predictor


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a file says of a model, without the model.

    Returns
    -------
    dict
        ``format``, ``package``, ``versions``, ``features``, ``parameters``, ``trained_on`` (see
        `fingerprint_of`), ``scores`` and more, as JSON can hold it.

    Raises
    ------
    PredictError
        If there is no such file, or it is truncated, no model, or of another format. What was learned is not
        looked at.
    """
    record, _ = _read(Path(path), only_record=True)
    return {name: value for name, value in record.items() if name != "fitted"}


def _read(path: Path, only_record: bool = False) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    if not path.is_file():
        raise PredictError(f"expected a saved model at {path}, found no such file")
    try:
        members = _members(path, only_record)
        record = json.loads(members.pop(RECORD).tobytes())
        made_by, number = str(record["package"]), record["format"]
        expect(isinstance(number, int), "format", f"a number, got {number!r:.60}")
    except Exception as error:  # zipfile, zlib, numpy and json raise whatever they stumble over
        raise _no_model(path, error) from error
    if number != FORMAT:
        age = "a newer" if number > FORMAT else "an older"
        raise PredictError(
            f"{path}: expected a model of format {FORMAT}, got format {number} of {age} vmrestorekit "
            f"({made_by}): train it anew with this one ({__version__})"
        )
    if not _is_fingerprint(record.get("trained_on")):
        raise PredictError(f"{path}: expected a model that says what it was learned from, got none")
    return record, members


def _members(path: Path, only_record: bool) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(path) as file:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in file.infolist()}
        most = MOST_EXPANDED * path.stat().st_size + ALWAYS_ALLOWED
        size = sum(entry.file_size for entry in entries.values())
        expect(size <= most, "arrays", f"at most {most} bytes when expanded, got {size}")
        wanted = [RECORD] if only_record else list(entries)
        return {name: _array(file.read(entries[name]), name) for name in wanted}


def _array(content: bytes, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    expect(array.dtype == np.uint8, name, f"bytes, got {array.dtype}")
    return array


def _no_model(path: Path, error: Exception) -> PredictError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return PredictError(f"{path}: expected a whole saved model: {reason}")


def fingerprint_of(boots: Corpus | RecordedVM | Boot | Iterable[Boot]) -> dict[str, Any]:
    """Say which boots these are, so that others can tell whether theirs are the same.

    Returns
    -------
    dict
        ``machines``: of each ``vm``, ``lineage``, ``release``, ``roles`` and the names of its ``boots``;
        ``digest``: of all traces and states of disks, wherever and however they are stored.

    Raises
    ------
    PredictError
        If there are none.
    """
    digest = xxhash.xxh3_64()
    machines = []
    for own in boots_by_machine(as_boots(boots)):
        last = own[-1]
        about = {"vm": last.vm, "lineage": last.lineage, "release": last.release, "roles": list(last.roles)}
        machines.append({**about, "boots": [boot.boot for boot in own]})
        digest.update(json.dumps(machines[-1]).encode())
        for boot in own:
            digest.update(boot.metadata.to_json().encode())
            for column in boot.trace.frame:
                digest.update(np.ascontiguousarray(column.to_physical().to_numpy()).data)
            digest.update(json.dumps(_states_of(boot)).encode())
    return {"machines": machines, "digest": digest.hexdigest()}


def _is_fingerprint(value: Any) -> bool:
    machines = value.get("machines") if isinstance(value, dict) else None
    names = ("vm", "lineage", "release")
    return isinstance(machines, list) and all(
        isinstance(machine, dict)
        and all(isinstance(machine.get(name), str) for name in names)
        and all(isinstance(machine.get(name), list) for name in ("roles", "boots"))
        for machine in machines
    )


def _states_of(boot: Boot) -> list[str]:
    if boot.path is None:
        return [state_digest(manifest) for manifest in boot.manifests]
    return [stored_digest(boot.path / f"disk{disk}") for disk in range(len(boot.disk_bytes))]


def _features() -> dict[str, list[str]]:
    return {"block": list(FEATURES), "file": list(FILE_READ_FEATURES), "past": list(PAST_FEATURES)}


# a few paths of a kind each: what is overlooked of them (releases, versions) decides under which keys
# evidence is found, and no feature list tells
_PROBE = (
    "/usr/lib/x86_64-linux-gnu/libssl.so.3",
    "/usr/lib/postgresql/15/bin/postgres",
    "/boot/vmlinuz-6.1.0-13-cloud-amd64",
    "/usr/lib/modules/6.1.0-13-cloud-amd64/kernel/fs/ext4/ext4.ko",
    "/usr/lib/python3.11/__pycache__/os.cpython-311.pyc",
    "/var/lib/dpkg/info/libc6:amd64.list",
    "/var/log/journal/0123456789abcdef0123456789abcdef/system.journal",
    "$metadata/superblock",
)


def _description_digest() -> str:
    """Return a fingerprint of the keys under which this version of the code finds evidence."""
    numbers = range(len(_PROBE))
    blocks = pl.DataFrame(
        {"content": [number + 1 for number in numbers], "file": numbers, "file_block": 0},
        schema=BLOCKS_SCHEMA,
    )
    rows = [(path, 4096, "regular", "linux-image-6.1.0-13-cloud-amd64") for path in _PROBE]
    files = pl.DataFrame(rows, schema=FILES_SCHEMA, orient="row")
    described = describe_disk(Manifest(4096 * len(_PROBE), blocks, files, PARTITIONS_SCHEMA.to_frame()))
    digest = xxhash.xxh3_64()
    for key in KEYS:
        digest.update(np.ascontiguousarray(described.keys[key]).data)
    return digest.hexdigest()


def _expect_same_description(record: Mapping[str, Any], path: Path) -> None:
    expected = f"{path}: expected a model of what vmrestorekit {__version__} tells of blocks"
    theirs, ours = record.get("features"), _features()
    for what, names in ours.items():
        their_names = theirs.get(what) if isinstance(theirs, dict) else None
        if not isinstance(their_names, list):
            raise PredictError(f"{expected}, got one without the features of a {what}")
        if their_names != names:
            lacking = ", ".join(name for name in names if name not in their_names) or "none"
            more = ", ".join(str(name) for name in their_names if name not in names) or "none"
            raise PredictError(
                f"{expected}, got one of {record['package']} with other {what} features (lacking: {lacking}; "
                f"unknown: {more}): train it anew"
            )
    if record.get("description") != _description_digest():
        raise PredictError(
            f"{expected}, got one of {record['package']} that names files in another way: train it anew"
        )
