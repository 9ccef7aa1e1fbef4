"""What was recorded of a machine: boots, recordings that repeat one, what came before, without reading."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import Corpus, CorpusError, RecordedVM, add_boot, load_corpus
from vmrestorekit.traces.schema import FOLLOWS, TRACE_SCHEMA, ReadTrace, TraceError, TraceMetadata


def recorded(trace, follows="", repeats=""):
    """The same trace with what came before its boot, or whose recording it repeats."""
    about = dataclasses.replace(trace.metadata, follows=follows, repeats=repeats)
    return ReadTrace(trace.frame, about)


@pytest.fixture
def repeated(tmp_path, make_tiny_boot):
    """A machine with three boots; the second was recorded once more, and again after the third."""
    boots = {
        "b1": ("build", ""),
        "b2": ("shutdown", ""),
        "b2-again": ("shutdown", "b2"),
        "b3": ("crash", ""),
        "b2-late": ("", "b2"),
    }
    for boot, (follows, repeats) in boots.items():
        tiny = make_tiny_boot("vm", boot)
        add_boot(tmp_path, recorded(tiny.trace, follows, repeats), tiny.manifests, {"release": "none"})
    return tmp_path


def test_recordings_that_repeat_a_boot_are_no_boots(repeated):
    corpus = load_corpus(repeated)
    machine = corpus["vm"]
    assert [boot.boot for boot in machine.boots] == ["b1", "b2", "b3"]
    assert [boot.boot for boot in machine.repeats] == ["b2-again", "b2-late"]
    assert [boot.boot for boot in machine.recordings] == ["b1", "b2", "b2-again", "b3", "b2-late"]
    assert corpus.boots == machine.boots
    assert corpus.recordings == machine.recordings
    assert [boot.follows for boot in machine.boots] == ["build", "shutdown", "crash"]
    again = machine.boot("b2-late")
    assert again.repeats == "b2"
    assert again.metadata.repeats == "b2"
    assert again.manifest.equals(machine.boot("b2").manifest)
    assert find_problems(repeated) == []
    assert corpus.summary().select("boot", "follows", "repeats").rows() == [
        (boot.boot, boot.follows, boot.repeats) for boot in machine.recordings
    ]


def test_the_learners_see_distinct_boots_only(repeated):
    from vmrestorekit.predict.by_name import predictor_by_name
    from vmrestorekit.predict.observed import PredictError, as_boots

    corpus = load_corpus(repeated)
    assert [boot.boot for boot in as_boots(corpus)] == ["b1", "b2", "b3"]
    assert [boot.boot for boot in as_boots(corpus["vm"])] == ["b1", "b2", "b3"]
    # another recording of the second boot may know the first, and not the second
    predictor_by_name("last_boot", corpus["vm"].boot("b2-late"), corpus)
    with pytest.raises(PredictError, match="before b1, found none"):
        predictor_by_name("last_boot", corpus["vm"].boot("b1"), corpus)


def test_a_repeat_needs_its_boot_and_its_state(repeated, make_tiny_boot):
    tiny = make_tiny_boot("vm", "b4")
    for repeats in ("b9", "b2-again"):
        with pytest.raises(
            CorpusError,
            match=rf"vm\.toml: expected 'b4' to repeat a boot above it \(b1, b2, b3\), got '{repeats}'",
        ):
            add_boot(repeated, recorded(tiny.trace, repeats=repeats), tiny.manifests, {})
    content = pl.Series(np.arange(1, 1025, dtype=np.uint64))
    other = dataclasses.replace(tiny.manifest, blocks=tiny.manifest.blocks.with_columns(content=content))
    with pytest.raises(CorpusError, match="vm b4: expected the state of the disks before b2"):
        add_boot(repeated, recorded(tiny.trace, repeats="b2"), [other], {})
    # a boot that others repeat does not become a repeat itself
    second = make_tiny_boot("vm", "b2")
    with pytest.raises(CorpusError, match="expected 'b2-again' to repeat a boot above it"):
        add_boot(repeated, recorded(second.trace, repeats="b1"), second.manifests, {}, replace=True)
    assert find_problems(repeated) == []
    # replaced with another state it is told, until its repeats are recorded anew, too
    add_boot(repeated, recorded(second.trace, "shutdown"), [other], {}, replace=True)
    problems = find_problems(repeated)
    assert len(problems) == 2
    assert "b2-again+2: expected the state of the disks before b2" in problems[0]
    for boot in ("b2-again", "b2-late"):
        again = make_tiny_boot("vm", boot)
        add_boot(repeated, recorded(again.trace, repeats="b2"), [other], {}, replace=True)
    assert find_problems(repeated) == []


def test_the_list_of_boots_and_the_traces_say_the_same(repeated):
    file = repeated / "vm" / "vm.toml"
    text = file.read_text()
    file.write_text(text.replace('follows = "crash"', 'follows = "shutdown"'))
    with pytest.raises(CorpusError, match=r"trace\.parquet: expected a boot that follows 'shutdown'"):
        _ = load_corpus(repeated)["vm"].boot("b3").trace
    assert any("b3" in problem for problem in find_problems(repeated))
    file.write_text(text.replace('repeats = "b2"', 'repeats = "b3"', 1))
    with pytest.raises(CorpusError, match=r"vm\.toml: expected 'b2-again' to repeat a boot above it"):
        load_corpus(repeated)


@settings(deadline=None, max_examples=50)
@given(follows=st.sampled_from(FOLLOWS), repeats=st.sampled_from(["", "boot-1", "Übung"]))
def test_metadata_comes_back_and_older_metadata_loads(follows, repeats):
    about = TraceMetadata("vm", "b", (1,), {"boot_done_ns": 9}, "t", "tcg", {}, follows, repeats)
    assert TraceMetadata.from_json(about.to_json()) == about
    older = {
        name: value
        for name, value in json.loads(about.to_json()).items()
        if name not in ("follows", "repeats")
    }
    assert TraceMetadata.from_json(json.dumps(older)) == dataclasses.replace(about, follows="", repeats="")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"follows": "reboot"}, r"vm b: expected 'follows' to be one of .*'crash'.*, got 'reboot'"),
        ({"follows": None}, "got None"),
        ({"repeats": "b"}, r"vm b: expected 'repeats' to be the name of another boot, got 'b'"),
        ({"repeats": 3}, "got 3"),
    ],
)
def test_metadata_with_wrong_values(wrong, reason):
    about = TraceMetadata("vm", "b", (1,), {}, "t", "tcg", {})
    with pytest.raises(TraceError, match=reason):
        dataclasses.replace(about, **wrong)
    with pytest.raises(TraceError, match=reason):
        TraceMetadata.from_json(json.dumps(json.loads(about.to_json()) | wrong))


def test_lineage_is_the_machines_own_name_if_unknown():
    assert RecordedVM("web", {}, ()).lineage == "web"
    assert RecordedVM("web", {"lineage": "golden"}, ()).lineage == "golden"


def test_loading_a_corpus_reads_no_trace_and_no_contents(repeated, monkeypatch):
    """All tables are garbage: what does not look at them does not notice."""
    for file in repeated.rglob("*.parquet"):
        file.write_bytes(b"garbage")
    corpus = load_corpus(repeated)
    assert [boot.boot for boot in corpus.without().boots] == ["b1", "b2", "b3"]
    assert corpus["vm"].boots[-1].follows == "crash"
    query = corpus.scan().filter(pl.col("op") == "read")
    with pytest.raises(pl.exceptions.PolarsError):
        query.collect()
    with pytest.raises(TraceError):
        _ = corpus["vm"].boots[0].trace


def test_a_scan_has_the_requests_of_all_recordings(repeated, make_tiny_boot, tiny_boot):
    other = make_tiny_boot("other", "b1")
    add_boot(repeated, other.trace, other.manifests, {})
    loaded = load_corpus(repeated)
    for corpus in (loaded, loaded.without("vm")):
        rows = corpus.scan().collect()
        expected = [
            boot.trace.frame.select(
                pl.lit(boot.vm).alias("vm"), pl.lit(boot.boot).alias("boot"), *TRACE_SCHEMA
            )
            for boot in corpus.recordings
        ]
        assert rows.equals(pl.concat(expected))
        counted = corpus.scan().group_by("vm", "boot").agg(pl.len()).collect()
        assert counted.height == len(corpus.recordings)
        assert (counted["len"] == tiny_boot.trace.frame.height).all()
        assert corpus.scan().select("vm").collect().height == rows.height
    assert loaded.only().scan().collect().schema == rows.schema
    in_memory = Corpus({"SYNTHETIC": RecordedVM("SYNTHETIC", {}, (tiny_boot,))})
    assert in_memory.scan().drop("vm", "boot").collect().equals(tiny_boot.trace.frame)


def test_a_scan_reads_the_rows_and_columns_that_it_needs(repeated):
    query = load_corpus(repeated).scan().filter(pl.col("op") == "read").select("boot", "length")
    plan = query.explain()
    assert plan.count("Parquet SCAN") == plan.count("PROJECT 2/6 COLUMNS") == 5
    assert plan.count('SELECTION: col("op")') == 5
