"""An anonymised corpus has the same structure and times, and none of the names or hashes."""

from __future__ import annotations

import polars as pl
import pytest
from tiny_boots import TINY_FILES
from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.traces.anonymise import Anonymiser, anonymise_corpus
from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import CorpusError, add_boot, load_corpus

SECRET = b"0123456789abcdef-secret"


@pytest.fixture
def corpus(tmp_path, make_tiny_boot):
    for vm, boot in [("payroll", "boot-1"), ("payroll", "boot-2"), ("web", "boot-1")]:
        tiny = make_tiny_boot(vm, boot)
        about = {"release": "Debian 12", "roles": ["web"], "owner": "Alice"}
        add_boot(tmp_path / "corpus", tiny.trace, tiny.manifests, about)
    (tmp_path / "key").write_bytes(SECRET)
    return tmp_path


def test_structure_and_times_stay_and_names_go(corpus):
    anonymise_corpus(corpus / "corpus", corpus / "shared", corpus / "key")
    assert find_problems(corpus / "shared") == []
    before, after = load_corpus(corpus / "corpus"), load_corpus(corpus / "shared")
    hidden = Anonymiser(SECRET)
    assert set(after) == {hidden.name("payroll"), hidden.name("web")}
    for vm, machine in before.items():
        other = after[hidden.name(vm)]
        assert dict(other.description) == {"release": "Debian 12", "roles": ["web"]}
        assert [boot.boot for boot in other.boots] == [boot.boot for boot in machine.boots]
        for boot, twin in zip(machine.boots, other.boots, strict=True):
            assert twin.trace.frame.equals(boot.trace.frame)
            assert twin.metadata.marks == boot.metadata.marks
            old, new = boot.manifest, twin.manifest
            assert new.files.drop("path").equals(old.files.drop("path"))
            assert new.blocks.drop("content").equals(old.blocks.drop("content"))
            # equal where they were equal, zeros where there were zeros
            pairs = pl.DataFrame({"old": old.blocks["content"], "new": new.blocks["content"]}).unique()
            assert pairs["old"].n_unique() == pairs["new"].n_unique() == pairs.height
            assert pairs.filter(pl.col("old") == 0)["new"].to_list() == [0]
            assert set(pairs["old"]) & set(pairs["new"]) == {0}


def test_no_name_is_left_in_any_file(corpus):
    anonymise_corpus(corpus / "corpus", corpus / "shared", corpus / "key")
    shared = load_corpus(corpus / "shared")
    paths = "\n".join(path for boot in shared.boots for path in boot.manifest.files["path"])
    names = {part for path, *_ in TINY_FILES if path[0] == "/" for part in path.split("/") if part}
    texts = [file.read_bytes() for file in (corpus / "shared").rglob("*") if file.is_file()]
    places = [str(file.relative_to(corpus / "shared")) for file in (corpus / "shared").rglob("*")]
    for name in names - {"lib"}:
        assert f"/{name}" not in paths
    for name in ("payroll", "Alice", "vmlinuz", "libc.so"):
        assert not any(name.encode() in text for text in texts)
        assert not any(name in place for place in places)


def test_components_keep_their_equality_and_depend_on_the_key():
    one, same, other = Anonymiser(SECRET), Anonymiser(SECRET), Anonymiser(SECRET + b"!")
    assert one.path("/var/lib/data").split("/")[:3] == same.path("/var/lib/other").split("/")[:3]
    assert one.path("/lib/x").split("/")[1] == one.path("/var/lib").split("/")[2]
    assert one.path("/var/lib/data") != other.path("/var/lib/data")
    contents = pl.Series([0, 7, 7, 2**64 - 1], dtype=pl.UInt64)
    assert one.contents(contents).to_list() != other.contents(contents).to_list()
    assert one.contents(contents).to_list() == same.contents(contents).to_list()


def test_bad_input(corpus):
    (corpus / "short").write_bytes(b"secret")
    with pytest.raises(CorpusError, match=r"short: expected a key of at least 16 bytes, got 6"):
        anonymise_corpus(corpus / "corpus", corpus / "shared", corpus / "short")
    with pytest.raises(CorpusError, match="expected a directory that is not there yet"):
        anonymise_corpus(corpus / "corpus", corpus / "corpus", corpus / "key")
    with pytest.raises(FileNotFoundError):
        anonymise_corpus(corpus / "corpus", corpus / "shared", corpus / "nothing")
    with pytest.raises(FileNotFoundError):
        anonymise_corpus(corpus / "nothing", corpus / "shared", corpus / "key")
    (next((corpus / "corpus" / "web").rglob("trace.parquet"))).write_bytes(b"broken")
    with pytest.raises(ValueError, match="expected a whole Parquet file"):
        anonymise_corpus(corpus / "corpus", corpus / "shared", corpus / "key")
    assert not (corpus / "shared").exists()
    assert not (corpus / "shared.partial").exists()


def test_the_command(corpus):
    words = ["traces", "anonymise", corpus / "corpus", corpus / "shared", "--key-file", corpus / "key"]
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert len(load_corpus(corpus / "shared").boots) == 3
