"""Damaged, foreign and inconsistent files: one sentence each, which names the file and, if any, the row."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import CorpusError, add_boot, load_corpus
from vmrestorekit.traces.manifest import Manifest, ManifestError
from vmrestorekit.traces.schema import (
    TRACE_SCHEMA,
    ReadTrace,
    TraceError,
    TraceMetadata,
    write_parquet_atomically,
)

KEY = "vmrestorekit.trace"


@pytest.fixture
def corpus_dir(tmp_path, make_tiny_boot):
    for boot in ("boot-1", "boot-2"):
        tiny = make_tiny_boot("vm", boot)
        add_boot(tmp_path, tiny.trace, tiny.manifests, {"release": "none", "roles": []})
    return tmp_path


@pytest.fixture
def trace_file(tmp_path, tiny_boot):
    path = tmp_path / "a.trace.parquet"
    tiny_boot.trace.save(path)
    return path


def test_a_saved_trace_loads_equal(trace_file, tiny_boot):
    loaded = ReadTrace.load(trace_file)
    assert loaded.frame.equals(tiny_boot.trace.frame)
    assert loaded.metadata == tiny_boot.metadata


@pytest.mark.parametrize("kept", [0, 1, 4, 100, -1, -8, -400])
def test_a_truncated_trace(trace_file, kept):
    trace_file.write_bytes(trace_file.read_bytes()[:kept])
    with pytest.raises(
        TraceError, match=r"a\.trace\.parquet: expected a whole Parquet file with a recorded trace"
    ):
        ReadTrace.load(trace_file)


def test_foreign_files(trace_file):
    trace_file.write_bytes(b"\x7fELF" + bytes(range(256)) * 20)
    with pytest.raises(TraceError, match=r"expected a whole Parquet file with a recorded trace"):
        ReadTrace.load(trace_file)
    pl.DataFrame({"a": [1]}).write_parquet(trace_file)
    with pytest.raises(TraceError, match=r"a\.trace\.parquet: a Parquet file, but no trace"):
        ReadTrace.load(trace_file)
    with pytest.raises(ManifestError, match=r"a Parquet file, but no saved manifest"):
        Manifest.load(trace_file)
    with pytest.raises(FileNotFoundError, match=r"expected a recorded trace at .*found no such file"):
        ReadTrace.load(trace_file.parent / "nothing")
    with pytest.raises(FileNotFoundError, match=r"expected a recorded trace at"):
        ReadTrace.load(trace_file.parent)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"vm": 1}', '{"disk_bytes": ["4"]}', '{"disk_bytes": 4}', "\\", "DISKS"]
)
def test_metadata_that_is_none(trace_file, tiny_boot, text):
    if text == "DISKS":
        text = json.dumps(json.loads(tiny_boot.metadata.to_json()) | {"marks": {"boot_done_ns": "soon"}})
    write_parquet_atomically(tiny_boot.trace.frame, trace_file, {KEY: text})
    with pytest.raises(TraceError, match=r"a\.trace\.parquet: expected a trace's metadata as JSON"):
        ReadTrace.load(trace_file)


def broken(**columns):
    return lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(value).otherwise(name).cast(TRACE_SCHEMA[name]).alias(name)
        for name, value in columns.items()
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (broken(offset=pl.lit(None)), "row 7: a value is missing"),
        (broken(offset=pl.lit(4 * 1024**2)), "row 7: the request ends beyond the disk"),
        (broken(length=pl.lit(2**62), offset=pl.lit(2**62)), "row 7: the request ends beyond the disk"),
        (broken(disk=pl.lit(1)), "row 7: 'disk' is not below 1"),
        (broken(disk=pl.lit(1), offset=pl.lit(-4)), "row 7: 'disk' is not below 1"),
        (broken(issued_ns=pl.lit(-1)), "row 7: 'issued_ns' is negative"),
        (broken(completed_ns=pl.lit(0)), "row 7: 'completed_ns' is before 'issued_ns'"),
        (broken(issued_ns=pl.lit(0)), "row 7: 'issued_ns' is before that of the row above"),
        (broken(length=pl.lit(0)), "row 7: 'length' is not positive"),
        (broken(offset=pl.lit(-4096)), "row 7: 'offset' is negative"),
        (broken(op=pl.lit("flush")), "row 7: a flush has a range"),
        (lambda frame: frame.drop("op"), "expected columns"),
        (lambda frame: frame.with_columns(extra=1), "expected columns"),
        (lambda frame: frame.with_columns(offset=pl.lit(float("nan"))), "expected columns"),
        (lambda frame: frame.select(reversed(frame.columns)), None),
    ],
)
def test_a_bad_row_or_column(trace_file, tiny_boot, change, reason):
    frame = change(tiny_boot.trace.frame)
    write_parquet_atomically(frame, trace_file, {KEY: tiny_boot.metadata.to_json()})
    if reason is None:
        ReadTrace.load(trace_file)  # the order of columns does not matter
        return
    with pytest.raises(TraceError, match=reason) as caught:
        ReadTrace.load(trace_file)
    assert str(trace_file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert find_problems(trace_file) == [str(caught.value)]


def test_no_disk_of_positive_size(tiny_boot):
    with pytest.raises(TraceError, match=r"at least one disk of positive size"):
        add_boot(
            "unused",
            ReadTrace(tiny_boot.trace.frame, TraceMetadata("vm", "b", (), {}, "t", "tcg", {})),
            [],
            {},
        )


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_corpus_with_a_file_cut_short(tmp_path_factory, data):
    """At whatever byte. (Not flipped: on some flipped bytes polars aborts the process.)"""
    from tiny_boots import tiny_manifest, tiny_trace

    directory = tmp_path_factory.mktemp("cut")
    add_boot(directory, tiny_trace("vm", "b"), [tiny_manifest()], {})
    file = data.draw(st.sampled_from(sorted(directory.rglob("*.parquet"))), label="file")
    content = file.read_bytes()
    file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), label="kept")])
    problems = find_problems(directory)
    assert len(problems) == 1
    assert str(file) in problems[0]
    assert "expected a whole Parquet file" in problems[0]
    assert "\n" not in problems[0]
    shutil.rmtree(directory)


def test_a_corpus_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a corpus .* found no directory"):
        load_corpus(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"expected a corpus .* found none there"):
        load_corpus(tmp_path)


def test_a_corpus_without_its_shared_table(corpus_dir):
    (corpus_dir / "contents.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected the shared table .*contents\.parquet, found none"):
        load_corpus(corpus_dir)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ([0], r"disk0\.blocks\.parquet: expected the shared table .* is another or an older one"),
        (
            [0, *range(1, 2000)],
            r"disk0\.blocks\.parquet: expected the shared table .* is another or an older one",
        ),
        ([1, 2], r"contents\.parquet: expected hashes without gaps and 0 in row 0"),
        ([0, None], r"contents\.parquet: expected hashes without gaps"),
        ([0, 5, 5], r"contents\.parquet: expected unique hashes"),
        ([], r"contents\.parquet: expected hashes without gaps"),
        (["a"], r"contents\.parquet: expected columns"),
    ],
)
def test_a_foreign_shared_table(corpus_dir, table, reason):
    dtype = pl.String if "a" in table else pl.UInt64
    pl.DataFrame({"content": table}, schema={"content": dtype}).write_parquet(corpus_dir / "contents.parquet")
    boot = load_corpus(corpus_dir)["vm"].boots[0]
    with pytest.raises(CorpusError, match=reason):
        _ = boot.manifests
    assert len(find_problems(corpus_dir)) == 1  # said once, though two boots suffer


def rewrite(path, change):
    """Change the rows of a Parquet file and keep its metadata."""
    metadata = {
        key: text for key, text in pl.read_parquet_metadata(path).items() if key.startswith("vmrestore")
    }
    write_parquet_atomically(change(pl.read_parquet(path)), path, metadata)


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("blocks", lambda f: f.with_columns(count=pl.lit(0, pl.Int32)), "row 0: 'count' is not positive"),
        (
            "blocks",
            lambda f: f.with_columns(block=pl.lit(0, pl.Int32)),
            "row 1: the run starts before the one above",
        ),
        (
            "blocks",
            lambda f: f.with_columns(pl.col("block") + 300),
            "the run ends beyond the disk's 1024 blocks",
        ),
        (
            "blocks",
            lambda f: f.with_columns(pl.col("content") + 1),
            "'content' is no row of the shared table",
        ),
        ("blocks", lambda f: f.with_columns(content=pl.lit(None, pl.Int32)), "row 0: a value is missing"),
        (
            "blocks",
            lambda f: f.with_columns(file=pl.lit(9, pl.Int32)),
            "row 0: 'file' is not a row of the 8 files",
        ),
        ("blocks", lambda f: f.head(2), "its fingerprint differs"),
        ("blocks", lambda f: f.drop("count"), "expected columns"),
        (
            "files",
            lambda f: f.with_columns(path=pl.lit(None, pl.String)),
            "row 0: neither a new file nor files of",
        ),
        (
            "files",
            lambda f: f.with_columns(base_row=pl.lit(0, pl.Int32)),
            "row 0: the run is not within the base's 0",
        ),
        ("files", lambda f: f.with_columns(path=pl.lit("/x")), "its fingerprint differs"),
        ("files", lambda f: f.drop("kind"), "expected columns"),
    ],
)
def test_a_stored_state_with_bad_rows(corpus_dir, file, change, reason):
    path = corpus_dir / "vm" / "boot-1" / f"disk0.{file}.parquet"
    rewrite(path, change)
    boot = load_corpus(corpus_dir)["vm"].boots[0]
    with pytest.raises(CorpusError, match=reason) as caught:
        _ = boot.manifests
    assert "boot-1" in str(caught.value)
    assert "disk0" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"partitions": 3}', '{"partitions": [], "disk_bytes": "x"}']
)
def test_a_stored_state_with_foreign_metadata(corpus_dir, text):
    path = corpus_dir / "vm" / "boot-1" / "disk0.blocks.parquet"
    write_parquet_atomically(pl.read_parquet(path), path, {"vmrestorekit.manifest_state": text})
    with pytest.raises(CorpusError, match=r"disk0\.blocks\.parquet: expected what is known of a disk state"):
        _ = load_corpus(corpus_dir)["vm"].boots[0].manifests
    write_parquet_atomically(pl.read_parquet(path), path)
    with pytest.raises(CorpusError, match=r"disk0\.blocks\.parquet: a Parquet file, but no disk state"):
        _ = load_corpus(corpus_dir)["vm"].boots[0].manifests


def test_changes_without_their_base(corpus_dir):
    vm_file = corpus_dir / "vm" / "vm.toml"
    text = vm_file.read_text()
    first, second = text.split("[[boots]]")[1:]
    vm_file.write_text("[description]\n[[boots]]" + second)
    with pytest.raises(
        CorpusError, match=r"boot-2.*stores only changes since boot 'boot-1', which does not come"
    ):
        _ = load_corpus(corpus_dir)["vm"].boots[0].manifests
    assert any("boot-1: not listed in vm.toml" in problem for problem in find_problems(corpus_dir))
    vm_file.write_text("[description]\n[[boots]]" + first + "\n[[boots]")
    with pytest.raises(CorpusError, match=r"vm\.toml: expected the description of a recorded machine"):
        load_corpus(corpus_dir)


def test_a_trace_in_the_wrong_place(corpus_dir, make_tiny_boot):
    make_tiny_boot("other", "boot-1").trace.save(corpus_dir / "vm" / "boot-1" / "trace.parquet")
    with pytest.raises(CorpusError, match=r"expected boot 'boot-1' of 'vm', got 'boot-1' of 'other'"):
        _ = load_corpus(corpus_dir)["vm"].boots[0].trace


def test_the_command_line(corpus_dir, trace_file):
    def run(*arguments, status=0):
        result = CliRunner().invoke(app, ["traces", *map(str, arguments)])
        assert result.exit_code == status, result.output
        return result.output

    rows = json.loads(run("list", "--json", "--corpus", corpus_dir))
    assert [(row["vm"], row["boot"], row["requests"]) for row in rows] == [
        ("vm", "boot-1", 41),
        ("vm", "boot-2", 41),
    ]
    assert "boot-2" in run("list", "--corpus", corpus_dir)

    shown = json.loads(run("show", "vm", "boot-2", "--json", "--corpus", corpus_dir))
    assert shown["metadata"]["marks"] == {"boot_done_ns": 165_000_000}
    assert {row["op"]: row["requests"] for row in shown["operations"]}["write"] == 2
    assert shown["first_requests"][0]["offset"] == 0
    assert "boot_done_ns" in run("show", "vm", "--corpus", corpus_dir)

    assert "no problems" in run("validate", corpus_dir)
    assert run("validate", trace_file) == "no problems found\n"
    trace_file.write_bytes(b"nothing of the kind")
    assert "expected a whole Parquet file" in run("validate", trace_file, status=1)
    (corpus_dir / "vm" / "boot-1" / "trace.parquet").write_bytes(b"PAR1")
    problems = json.loads(run("validate", "--corpus", corpus_dir, "--json", status=1))
    assert "boot-1" in problems[0]["problem"]
