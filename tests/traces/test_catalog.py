"""The catalogue: what it says of each recording, and that a crash cannot make it wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.traces import recording
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.catalog import CATALOG_SCHEMA, build_catalog
from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import add_boot, load_corpus, rebuild_catalog
from vmrestorekit.traces.schema import ReadTrace

ABOUT = {
    "release": "Debian 13",
    "roles": ["web", "cache"],
    "lineage": "golden",
    "kernel": "6.1",
    "services": ["nginx.service"],
    "file_systems": ["/ ext4", "/srv xfs"],
}


def add(corpus: Path, boot: Boot, about: dict[str, object], replace: bool = False, **more: object) -> None:
    metadata = dataclasses.replace(boot.metadata, **more)  # type: ignore[arg-type]
    add_boot(corpus, ReadTrace(boot.trace.frame, metadata), boot.manifests, about, replace=replace)


@pytest.fixture
def corpus_dir(tmp_path: Path, make_tiny_boot: Callable[[str, str], Boot]) -> Path:
    folder = tmp_path / "corpus"
    add(
        folder, make_tiny_boot("web", "b1"), ABOUT, follows="build", versions={"qemu": "10", "kernel": "6.12"}
    )
    add(folder, make_tiny_boot("db", "b1"), {"release": "Debian 12", "roles": ["database"]})
    marks = {"service_start_ns": 7, "boot_done_ns": 5}
    add(folder, make_tiny_boot("web", "b2"), {}, follows="shutdown", marks=marks)
    add(folder, make_tiny_boot("web", "b2x"), {}, follows="shutdown", repeats="b2")
    return folder


def stored(corpus: Path) -> pl.DataFrame:
    return pl.read_parquet(corpus / "catalog.parquet")


def test_one_row_a_recording(corpus_dir: Path, tiny_boot: Boot) -> None:
    catalog = load_corpus(corpus_dir).catalog()
    assert catalog.schema == CATALOG_SCHEMA
    assert catalog.select("vm", "boot", "follows", "repeats").rows() == [
        ("db", "b1", "", ""),
        ("web", "b1", "build", ""),
        ("web", "b2", "shutdown", ""),
        ("web", "b2x", "shutdown", "b2"),
    ]
    reads = tiny_boot.trace.frame.filter(pl.col("op") == "read")
    assert catalog.row(1, named=True) == {
        "vm": "web",
        "boot": "b1",
        "follows": "build",
        "repeats": "",
        "lineage": "golden",
        "release": "Debian 13",
        "roles": ["web", "cache"],
        "kernel": "6.12",  # that of the recording
        "file_systems": ["/ ext4", "/srv xfs"],
        "disk_bytes": list(tiny_boot.disk_bytes),
        "services": ["nginx.service"],
        "accelerator": "none",
        "recorder": "SYNTHETIC",
        "versions": [{"name": "kernel", "value": "6.12"}, {"name": "qemu", "value": "10"}],
        "marks": [{"name": "boot_done_ns", "value": 165_000_000}],
        "requests": tiny_boot.trace.frame.height,
        "reads": reads.height,
        "read_bytes": reads["length"].sum(),
        "boot_done_ns": 165_000_000,
    }
    assert catalog.row(2, named=True)["kernel"] == "6.1"  # noted for the machine only
    assert catalog.row(2, named=True)["marks"] == [
        {"name": "boot_done_ns", "value": 5},
        {"name": "service_start_ns", "value": 7},
    ]
    bare = catalog.row(0, named=True)
    assert (bare["lineage"], bare["file_systems"], bare["services"], bare["kernel"]) == ("db", [], [], "")


def test_adding_keeps_the_stored_catalogue_right(
    corpus_dir: Path, make_tiny_boot: Callable[[str, str], Boot]
) -> None:
    assert stored(corpus_dir).equals(build_catalog(load_corpus(corpus_dir)))
    add(corpus_dir, make_tiny_boot("web", "b1"), ABOUT | {"lineage": "other"}, True, follows="change")
    catalog = stored(corpus_dir)
    assert catalog.equals(build_catalog(load_corpus(corpus_dir)))
    assert catalog["lineage"].to_list() == ["db", "other", "other", "other"]
    assert find_problems(corpus_dir) == []


def test_machines_left_out_are_left_out(corpus_dir: Path) -> None:
    corpus = load_corpus(corpus_dir)
    assert corpus.without("web").catalog().equals(corpus.catalog().head(1))
    assert corpus.only("web").catalog().equals(corpus.catalog().tail(3))
    assert corpus.only().catalog().schema == CATALOG_SCHEMA


def test_it_is_read_without_the_traces_and_built_from_them_where_it_is_missing(corpus_dir: Path) -> None:
    catalog = load_corpus(corpus_dir).catalog()
    traces = {file: file.read_bytes() for file in corpus_dir.rglob("trace.parquet")}
    for file in traces:
        file.write_bytes(b"garbage")
    assert load_corpus(corpus_dir).catalog().equals(catalog)
    (corpus_dir / "catalog.parquet").unlink()
    with pytest.raises(ValueError, match=r"trace\.parquet: expected a whole Parquet file"):
        load_corpus(corpus_dir).catalog()
    for file, content in traces.items():
        file.write_bytes(content)
    assert load_corpus(corpus_dir).catalog().equals(catalog)
    assert find_problems(corpus_dir) == []


class KilledError(Exception):
    pass


@pytest.mark.parametrize("replace", [False, True], ids=["add", "replace"])
@pytest.mark.parametrize("before", [True, False], ids=["before vm.toml", "behind vm.toml"])
def test_killed_beside_the_list_of_boots_it_is_right_or_missing(
    corpus_dir: Path,
    make_tiny_boot: Callable[[str, str], Boot],
    monkeypatch: pytest.MonkeyPatch,
    replace: bool,
    before: bool,
) -> None:
    tiny = make_tiny_boot("web", "b1" if replace else "b9")
    write = recording._write_text_atomically

    def killed(path: Path, text: str) -> None:
        if not before:
            write(path, text)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(recording, "_write_text_atomically", killed)
        with pytest.raises(KilledError):
            add(corpus_dir, tiny, {}, replace, recorder="new")
    catalog = load_corpus(corpus_dir).catalog()
    assert catalog.equals(build_catalog(load_corpus(corpus_dir)))
    assert ("new" in catalog["recorder"]) == (not before)
    assert not [problem for problem in find_problems(corpus_dir) if "catalog" in problem]
    # the next one that is added writes it anew
    add(corpus_dir, make_tiny_boot("db", "b2"), {})
    assert stored(corpus_dir).equals(build_catalog(load_corpus(corpus_dir)))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def _of_another_kind(file: Path) -> None:
    pl.DataFrame({"vm": ["web"]}).write_parquet(file)


def _lacks_a_row(file: Path) -> None:
    pl.read_parquet(file).head(3).write_parquet(file)


def _other_count(file: Path) -> None:
    pl.read_parquet(file).with_columns(pl.col("reads") + 1).write_parquet(file)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "expected a whole Parquet file with the catalogue"),
        (_of_another_kind, "expected a catalogue with columns"),
        (_lacks_a_row, "expected the recordings of the machines as their vm.toml lists them"),
        (_other_count, "row 0 (db b1): expected 'reads' as in its trace, "),
    ],
)
def test_a_wrong_catalogue_is_told_with_what_mends_it(
    corpus_dir: Path, damage: Callable[[Path], None], reason: str
) -> None:
    right = stored(corpus_dir)
    damage(corpus_dir / "catalog.parquet")
    if damage is not _other_count:  # that one cannot be seen without the traces
        assert load_corpus(corpus_dir).catalog().equals(right)
    problem = find_problems(corpus_dir)[0]
    assert problem.startswith(str(corpus_dir / "catalog.parquet"))
    assert reason in problem
    command = f"vmrestorekit traces catalog --rebuild --corpus {corpus_dir}"
    assert problem.endswith(command)
    assert CliRunner().invoke(app, command.split()[1:], catch_exceptions=False).exit_code == 0
    assert stored(corpus_dir).equals(right)
    assert find_problems(corpus_dir) == []


def test_a_damaged_trace_elsewhere_does_not_keep_a_boot_out(
    corpus_dir: Path, make_tiny_boot: Callable[[str, str], Boot]
) -> None:
    (corpus_dir / "catalog.parquet").unlink()
    trace = corpus_dir / "db" / "b1" / "trace.parquet"
    whole = trace.read_bytes()
    trace.write_bytes(b"garbage")
    add(corpus_dir, make_tiny_boot("web", "b3"), {})
    assert load_corpus(corpus_dir)["web"].boots[-1].boot == "b3"
    assert len(find_problems(corpus_dir)) == 1
    trace.write_bytes(whole)
    assert load_corpus(corpus_dir).catalog().height == 5


def test_the_command(corpus_dir: Path) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(
            app, ["traces", "catalog", "--corpus", str(corpus_dir), *words], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    assert json.loads(run("--json")) == load_corpus(corpus_dir).catalog().to_dicts()
    assert "web, cache" in run()
    (corpus_dir / "catalog.parquet").unlink()
    assert "web, cache" in run()
    assert not (corpus_dir / "catalog.parquet").exists()  # looking changes nothing
    assert "web, cache" in run("--rebuild")
    assert find_problems(corpus_dir) == []
    with pytest.raises(FileNotFoundError, match="found no directory"):
        rebuild_catalog(corpus_dir / "nothing")
    with pytest.raises(FileNotFoundError, match="found none there"):
        rebuild_catalog(corpus_dir / "web")
    assert not (corpus_dir / "web" / "catalog.parquet").exists()
