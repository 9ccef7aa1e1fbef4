"""The corpus as a user sees it: choosing machines, reading boots, states that come back as they went in."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import tempfile

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrestorekit.traces import recording
from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import (
    Boot,
    Corpus,
    CorpusError,
    RecordedVM,
    UnknownVMError,
    add_boot,
    load_corpus,
)
from vmrestorekit.traces.manifest import (
    BLOCKS_SCHEMA,
    FILE_KINDS,
    FILES_SCHEMA,
    PARTITIONS_SCHEMA,
    REFERENCE_KINDS,
    REFERENCES_SCHEMA,
    Manifest,
    ManifestError,
    sorted_references,
)
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

ABOUT = {"release": "Debian 12", "roles": ["web", "cache"], "note": 'a "quoted" \\ line\n\x7fé', "cpus": 2}


def trace_of(vm, boot, *disk_bytes):
    rows = [(0, 3, 0, "read", 0, 512), (1, 9, 0, "read", 0, 512), (2, 4, 0, "write", 0, 512)]
    frame = pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row")
    return ReadTrace(frame, TraceMetadata(vm, boot, disk_bytes, {"boot_done_ns": 9}, "test", "tcg", {}))


@st.composite
def manifests(draw, max_blocks=24):
    """Any valid state of a small disk; few distinct values, so that runs and duplicates occur."""
    blocks = draw(st.integers(1, max_blocks))
    size = blocks * 4096 - draw(st.sampled_from([0, 512, 3584]))
    names = draw(st.lists(st.sampled_from(["/a", "/b", "/c", "/é d", "$boot"]), max_size=4))
    row = st.tuples(
        st.sampled_from([0, 0, 1, 2, 3, 2**64 - 1]), st.integers(-1, len(names) - 1), st.integers(0, 5)
    )
    rows = draw(st.lists(row, min_size=blocks, max_size=blocks))
    columns = [
        (content, file, place) if file >= 0 else (content, None, None) for content, file, place in rows
    ]
    kinds = [draw(st.sampled_from(FILE_KINDS)) for _ in names]
    sizes = [draw(st.sampled_from([0, 4096, 2**40])) for _ in names]
    packages = [draw(st.sampled_from([None, "base", "dash"])) for _ in names]
    path = st.sampled_from(["/a", "/b", "/c", "/not in files"])
    reference = st.tuples(path, st.sampled_from(REFERENCE_KINDS), path)
    references = pl.DataFrame(draw(st.lists(reference, max_size=6)), schema=REFERENCES_SCHEMA, orient="row")
    start = draw(st.integers(0, size))
    partitions = [(1, start, size - start, "ext4")] if draw(st.booleans()) else []
    return Manifest(
        size,
        pl.DataFrame(columns, schema=BLOCKS_SCHEMA, orient="row"),
        pl.DataFrame({"path": names, "size": sizes, "kind": kinds, "package": packages}, schema=FILES_SCHEMA),
        pl.DataFrame(partitions, schema=PARTITIONS_SCHEMA, orient="row"),
        sorted_references(references),
    )


@settings(deadline=None, max_examples=25)
@given(
    machines=st.dictionaries(
        st.sampled_from(["web", "db"]),
        st.lists(st.lists(manifests(), min_size=1, max_size=2), min_size=1, max_size=3),
        min_size=1,
    )
)
def test_states_come_back_as_they_went_in(machines):
    with tempfile.TemporaryDirectory() as directory:
        for vm, boots in machines.items():
            for number, states in enumerate(boots, 1):
                sizes = [state.disk_bytes for state in states]
                add_boot(directory, trace_of(vm, f"boot-{number}", *sizes), states, ABOUT)
        corpus = load_corpus(directory)
        assert list(corpus) == sorted(machines)
        for vm, boots in machines.items():
            assert corpus[vm].description == ABOUT
            assert [boot.boot for boot in corpus[vm].boots] == [f"boot-{n}" for n in range(1, len(boots) + 1)]
            for boot, states in zip(corpus[vm].boots, boots, strict=True):
                assert len(boot.manifests) == len(states)
                assert all(map(Manifest.equals, boot.manifests, states))
        assert find_problems(directory) == []


@settings(deadline=None, max_examples=15)
@given(states=st.lists(manifests(), min_size=1, max_size=4), new=manifests(), data=st.data())
def test_a_replaced_boot_leaves_the_others_as_they_were(states, new, data):
    place = data.draw(st.integers(0, len(states) - 1))
    with tempfile.TemporaryDirectory() as directory:
        for number, state in enumerate(states):
            add_boot(directory, trace_of("vm", f"b{number}", state.disk_bytes), [state], ABOUT)
        for _ in range(2):
            add_boot(directory, trace_of("vm", f"b{place}", new.disk_bytes), [new], {}, replace=True)
        expected = [new if number == place else state for number, state in enumerate(states)]
        machine = load_corpus(directory)["vm"]
        assert machine.description == ABOUT
        assert [boot.boot for boot in machine.boots] == [f"b{number}" for number in range(len(states))]
        assert all(boot.manifest.equals(state) for boot, state in zip(machine.boots, expected, strict=True))
        assert find_problems(directory) == []


@settings(deadline=None, max_examples=30)
@given(manifest=manifests())
def test_a_saved_manifest_loads_equal(manifest):
    with tempfile.TemporaryDirectory() as directory:
        manifest.save(f"{directory}/disk.manifest.parquet")
        assert Manifest.load(f"{directory}/disk.manifest.parquet").equals(manifest)


@pytest.fixture
def three(tmp_path, make_tiny_boot):
    """A corpus of three machines, one with two boots."""
    for vm, boot in (("web", "boot-1"), ("db", "boot-1"), ("db", "boot-2"), ("mail", "boot-1")):
        tiny = make_tiny_boot(vm, boot)
        add_boot(tmp_path, tiny.trace, tiny.manifests, {"release": "none", "roles": [vm]})
    return load_corpus(tmp_path)


def test_a_corpus_is_a_mapping_in_order_of_names(three):
    assert list(three) == ["db", "mail", "web"]
    assert len(three) == 3
    assert "db" in three
    assert "nothing" not in three
    assert [(boot.vm, boot.boot) for boot in three.boots][:2] == [("db", "boot-1"), ("db", "boot-2")]
    assert repr(three) == "<Corpus of 4 boots: db (2), mail (1), web (1)>"
    assert three["web"].roles == ("web",)
    assert three["db"].boot("boot-2") is three["db"].boots[1]


def test_only_and_without_take_names_and_machines(three):
    assert list(three.without("db", three["web"])) == ["mail"]
    assert list(three.only(three["web"], "db")) == ["db", "web"]
    assert list(three.without()) == list(three)
    with pytest.raises(UnknownVMError, match=r"one of db, mail, web; got 'dbs'"):
        three.without("dbs")
    with pytest.raises(KeyError, match=r"one of db, mail, web; got 'dbs'"):
        three["dbs"]
    with pytest.raises(CorpusError, match=r"boots boot-1, boot-2, got 'boot-3'"):
        three["db"].boot("boot-3")


def test_boots_are_equal_if_they_are_the_same_recording(three, tmp_path, make_tiny_boot):
    again = load_corpus(tmp_path)
    assert again["db"].boots == three["db"].boots
    assert hash(again["db"].boots[0]) == hash(three["db"].boots[0])
    assert len({*again.boots, *three.boots}) == 4
    one, other = make_tiny_boot("db", "boot-1"), make_tiny_boot("db", "boot-1")
    assert one != other
    assert one != three["db"].boots[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        three["db"].boots[0].vm = "other"


def test_a_boot_goes_to_another_process(three):
    boot = pickle.loads(pickle.dumps(three["db"].boots[1]))
    assert boot == three["db"].boots[1]
    assert boot.manifest.equals(three["db"].boots[1].manifest)


def test_summary_counts_what_is_in_the_trace(three, tiny_boot):
    row = three.summary().row(1, named=True)
    requests = tiny_boot.trace.frame.rows()
    reads = [(offset, length) for _, _, _, op, offset, length in requests if op == "read"]
    touched = {byte // 4096 for offset, length in reads for byte in range(offset, offset + length, 512)}
    assert row == {
        "vm": "db",
        "boot": "boot-2",
        "follows": "",
        "repeats": "",
        "release": "none",
        "roles": "db",
        "disk_mb": 4.2,
        "requests": len(requests),
        "reads": len(reads),
        "read_mb": round(sum(length for _, length in reads) / 1e6, 1),
        "distinct_read_mb": round(len(touched) * 4096 / 1e6, 1),
        "writes": 2,
        "boot_done_s": 0.165,
        "accelerator": "none",
    }


def test_distinct_reads_count_parts_of_blocks_and_disks():
    rows = [(0, 1, 0, "read", 512, 4096), (1, 2, 0, "read", 4096, 512), (2, 3, 1, "read", 0, 512)]
    frame = pl.DataFrame(rows * 100, schema=TRACE_SCHEMA, orient="row").sort("issued_ns")
    trace = ReadTrace(frame, TraceMetadata("vm", "b", (8192, 8192), {}, "test", "tcg", {}))
    blank = Manifest(
        8192,
        pl.DataFrame(
            {"content": [0, 0], "file": [None, None], "file_block": [None, None]}, schema=BLOCKS_SCHEMA
        ),
        FILES_SCHEMA.to_frame(),
        PARTITIONS_SCHEMA.to_frame(),
    )
    corpus = Corpus({"vm": RecordedVM("vm", {}, (Boot.from_parts(trace, [blank, blank]),))})
    row = corpus.summary().row(0, named=True)
    assert row["distinct_read_mb"] == round(3 * 4096 / 1e6, 1)
    assert row["boot_done_s"] is None


def test_a_boot_that_is_there_is_not_overwritten_by_mistake(three, tmp_path, make_tiny_boot):
    tiny = make_tiny_boot("db", "boot-1")
    with pytest.raises(CorpusError, match=r"boot 'boot-1' of 'db' is there already"):
        add_boot(tmp_path, tiny.trace, tiny.manifests, {})


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a b"])
def test_names_that_are_no_directory_names_are_refused(tmp_path, make_tiny_boot, name):
    for vm, boot in ((name, "boot-1"), ("vm", name)):
        tiny = make_tiny_boot(vm, boot)
        with pytest.raises(CorpusError, match=r"name of letters, digits"):
            add_boot(tmp_path, tiny.trace, tiny.manifests, {})
    assert list(tmp_path.iterdir()) == []


def test_manifests_have_to_be_those_of_the_trace(tmp_path, tiny_boot):
    for wrong in ([], [tiny_boot.manifest] * 2):
        with pytest.raises(CorpusError, match=r"one manifest for each disk"):
            Boot.from_parts(tiny_boot.trace, wrong)
        with pytest.raises(CorpusError, match=r"one manifest for each disk"):
            add_boot(tmp_path, tiny_boot.trace, wrong, {})
    with pytest.raises(CorpusError, match=r"description of text, numbers.*got \{1\}"):
        add_boot(tmp_path, tiny_boot.trace, tiny_boot.manifests, {"set": {1}})


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("replace", [False, True], ids=["add", "replace"])
def test_a_crash_at_any_step_leaves_the_old_corpus_or_the_new_one(
    tmp_path, monkeypatch, make_tiny_boot, replace
):
    """Cut the power before the n-th rename or removal, for every n until nothing is cut any more."""
    old, new = make_tiny_boot("vm", "b1"), make_tiny_boot("vm", "b1" if replace else "b3")
    content = np.arange(1, 1025, dtype=np.uint64) * 77
    changed = Manifest(
        new.disk_bytes[0],
        new.manifest.blocks.with_columns(content=pl.Series(content)),
        new.manifest.files,
        new.manifest.partitions,
    )
    outcomes = []
    for steps in range(100):
        corpus_dir = tmp_path / f"{steps}"
        add_boot(corpus_dir, old.trace, old.manifests, {"note": "old"})
        second = make_tiny_boot("vm", "b2")
        add_boot(corpus_dir, second.trace, second.manifests, {})
        with monkeypatch.context() as patch:
            cut = _cut_power_after(patch, steps)
            with contextlib.suppress(PowerCutError):
                add_boot(corpus_dir, new.trace, [changed], {"note": "new"}, replace=replace)
        machine = load_corpus(corpus_dir)["vm"]
        expected = {"old": ["b1", "b2"], "new": ["b1", "b2"] if replace else ["b1", "b2", "b3"]}
        outcome = machine.description["note"]
        assert [boot.boot for boot in machine.boots] == expected[outcome]
        for boot in machine.boots:
            is_changed = outcome == "new" and boot.boot == new.boot
            assert boot.manifest.equals(changed if is_changed else old.manifest)
            assert boot.trace.frame.equals(old.trace.frame)
        # and the next attempt goes through, and clears away what was left
        add_boot(corpus_dir, new.trace, [changed], {}, replace=True)
        assert find_problems(corpus_dir) == []
        assert not list(corpus_dir.rglob("*.partial"))
        outcomes.append(outcome)
        if not cut:
            break
    assert "old" in outcomes
    assert outcomes[-1] == "new"
    assert len(outcomes) > 5


def _cut_power_after(patch, steps):
    """Let `steps` changes of names through, then raise at every further one; return what was cut."""
    cut: list[str] = []
    remaining = [steps]
    # after a power cut no clean-up code runs either, so unlink is counted too
    for owner, name in ((os, "replace"), (os, "unlink"), (recording.shutil, "rmtree")):
        real = getattr(owner, name)

        def step(*args, _real=real, _name=name, **kwargs):
            if cut or remaining[0] == 0:
                cut.append(_name)
                raise PowerCutError(_name)
            remaining[0] -= 1
            return _real(*args, **kwargs)

        patch.setattr(owner, name, step)
    return cut


def test_states_of_one_machine_and_of_relatives_share_their_contents(tmp_path, make_tiny_boot):
    """A second boot with few changes and a second machine with the same contents cost little."""
    random = np.random.default_rng(1)
    content = random.integers(1, 2**63, 1024, dtype=np.uint64)
    tiny = make_tiny_boot("one", "b1")

    def state(contents):
        blocks = tiny.manifest.blocks.with_columns(content=pl.Series(contents))
        return Manifest(tiny.disk_bytes[0], blocks, tiny.manifest.files, tiny.manifest.partitions)

    add_boot(tmp_path, tiny.trace, [state(content)], {})
    later = content.copy()
    later[100:110] = random.integers(1, 2**63, 10, dtype=np.uint64)
    add_boot(tmp_path, make_tiny_boot("one", "b2").trace, [state(later)], {})
    add_boot(tmp_path, make_tiny_boot("two", "b1").trace, [state(content[::-1].copy())], {})
    assert pl.read_parquet(tmp_path / "contents.parquet").height == 1 + 1024 + 10
    assert pl.read_parquet(tmp_path / "one" / "b2" / "disk0.blocks.parquet")["count"].to_list() == [10]


def test_a_manifest_that_contradicts_itself_is_refused(tiny_boot):
    good = tiny_boot.manifest
    for changes, reason in (
        ({"disk_bytes": 0}, "disk of positive size"),
        ({"disk_bytes": 8192}, "expected 2 blocks"),
        ({"blocks": good.blocks.drop("file")}, "blocks: expected columns"),
        ({"files": good.files.head(2)}, "blocks: row 260: 'file' is not a row of the 2 files"),
        ({"blocks": good.blocks.with_columns(file_block=pl.lit(None, pl.Int32))}, "row 0: one of 'file' and"),
        ({"files": good.files.with_columns(size=pl.lit(-1, pl.Int64))}, "files: row 0: 'size' is negative"),
        (
            {"partitions": good.partitions.with_columns(length=pl.lit(2**30, pl.Int64))},
            "partitions: row 0: the partition ends beyond the disk",
        ),
    ):
        with pytest.raises(ManifestError, match=reason):
            dataclasses.replace(good, **changes)


def test_the_packaged_corpus_is_found_installed_and_in_a_checkout(tmp_path, monkeypatch):
    from vmrestorekit.traces import corpus

    monkeypatch.setattr(corpus, "__file__", str(tmp_path / "vmrestorekit" / "traces" / "corpus.py"))
    with pytest.raises(FileNotFoundError, match=r"_corpus or .*traces, found neither; give the directory"):
        load_corpus()
    (tmp_path / "data" / "traces").mkdir(parents=True)
    assert corpus.packaged_corpus_directory() == tmp_path / "data" / "traces"
    (tmp_path / "vmrestorekit" / "_corpus").mkdir(parents=True)
    assert corpus.packaged_corpus_directory() == tmp_path / "vmrestorekit" / "_corpus"


def test_a_synthetic_data_disk_leaves_the_boot_as_it_was(tiny_boot):
    more = tiny_boot.with_data_disk(10 * 4096 + 1)
    assert more.disk_bytes == (*tiny_boot.disk_bytes, 10 * 4096 + 1)
    assert more.trace.frame.equals(tiny_boot.trace.frame)
    content = more.manifests[1].blocks["content"]
    assert len(content) == content.n_unique() == 11
    assert not content.is_in(tiny_boot.manifest.blocks["content"].implode()).any()
