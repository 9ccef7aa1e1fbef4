"""Packages and references in a manifest: what is refused, how they are stored, states from before them."""

from __future__ import annotations

import dataclasses
import json

import polars as pl
import pytest

from vmrestorekit.traces.anonymise import Anonymiser
from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import Boot, CorpusError, add_boot, load_corpus
from vmrestorekit.traces.manifest import REFERENCES_SCHEMA, Manifest, ManifestError
from vmrestorekit.traces.references import enabled_units
from vmrestorekit.traces.schema import read_parquet_with_metadata, write_parquet_atomically
from vmrestorekit.traces.storage import state_digest

KEY = "vmrestorekit.manifest_state"
# of the tiny machine, by version 0.1.0, which knew neither packages nor references
DIGEST_BEFORE = "5cbcbc6169832dd6"
UNITS, OWN = "/usr/lib/systemd/system", "/etc/systemd/system"
ROWS = [
    ("/lib/libc.so.6", "links", "/usr/lib/libc.so.6"),
    ("/sbin/init", "loads", "/lib/libc.so.6"),
    ("/sbin/init", "loads", "/lib/libm.so.6"),
]


def references(rows):
    return pl.DataFrame(rows, schema=REFERENCES_SCHEMA, orient="row")


def knowing(manifest, rows=ROWS, packages=("libc6", "base")):
    """The same state with references, and packages for the files that are no metadata."""
    owners = [None, None, None, *packages, *[None] * (manifest.files.height - 3 - len(packages))]
    files = manifest.files.with_columns(package=pl.Series(owners, dtype=pl.String))
    return dataclasses.replace(manifest, files=files, references=references(rows))


@pytest.fixture
def corpus_dir(tmp_path, make_tiny_boot):
    """Two boots, before the second of which a program was replaced."""
    for boot, changed in (("boot-1", ROWS), ("boot-2", [*ROWS[:2], ("/sbin/init", "loads", "/new")])):
        tiny = make_tiny_boot("vm", boot)
        add_boot(tmp_path, tiny.trace, [knowing(tiny.manifest, changed)], {"release": "none"})
    return tmp_path


def test_a_manifest_without_them_is_as_it_was(tiny_boot):
    assert tiny_boot.manifest.references.equals(references([]))
    assert Manifest.synthetic(8192).references.equals(references([]))
    assert state_digest(tiny_boot.manifest) == DIGEST_BEFORE


def test_they_are_part_of_what_a_manifest_says(tiny_boot):
    plain = tiny_boot.manifest
    variants = [
        plain,
        knowing(plain),
        knowing(plain, []),
        knowing(plain, ROWS[:2]),
        knowing(plain, packages=()),
        knowing(plain, packages=("libc6",)),
        knowing(plain, packages=("base", "libc6")),
        knowing(plain, [("/sbin/init", "starts", "/lib/libc.so.6")]),
    ]
    assert len({state_digest(each) for each in variants}) == len(variants)
    for number, one in enumerate(variants):
        assert [one.equals(other) for other in variants] == [at == number for at in range(len(variants))]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([ROWS[1], ROWS[0]], "row 1: not behind the row above, as sorted and unique rows are"),
        ([ROWS[0], ROWS[0]], "row 1: not behind the row above"),
        ([ROWS[0], ROWS[2], ROWS[1]], "row 2: not behind the row above"),
        ([("/a", "links", "/b"), ("/a", "enables", "/b")], "row 1: not behind the row above"),
        ([ROWS[0], ("/x", None, "/y")], "row 1: a value is missing"),
        ([(None, "links", "/y")], "row 0: a value is missing"),
    ],
)
def test_references_that_are_refused(tiny_boot, rows, reason):
    with pytest.raises(ManifestError, match=f"references: {reason}"):
        knowing(tiny_boot.manifest, rows)
    with pytest.raises(ManifestError, match="references: expected columns"):
        dataclasses.replace(tiny_boot.manifest, references=references([]).drop("kind"))


def test_kinds_sort_in_their_order_and_not_by_name(tiny_boot):
    rows = [
        ("/a", "starts", "/b"),
        ("/a", "loads", "/b"),
        ("/a", "needs_module", "/b"),
        ("/a", "links", "/b"),
    ]
    assert knowing(tiny_boot.manifest, rows).references.height == 4


def test_only_what_changed_is_stored(corpus_dir, make_tiny_boot):
    stored = pl.read_parquet(corpus_dir / "vm" / "boot-2" / "disk0.references.parquet")
    assert stored.rows() == [
        ("/sbin/init", "loads", "/lib/libm.so.6", True),
        ("/sbin/init", "loads", "/new", False),
    ]
    assert pl.read_parquet(corpus_dir / "vm" / "boot-2" / "disk0.files.parquet").height == 1
    first, second = load_corpus(corpus_dir)["vm"].boots
    assert first.manifest.equals(knowing(make_tiny_boot("vm", "b").manifest))
    assert second.manifest.references["target"].to_list()[-1] == "/new"
    assert find_problems(corpus_dir) == []


def as_before(corpus_dir, boot):
    """Write the files of a boot as the version before packages and references did."""
    stem = corpus_dir / "vm" / boot
    (stem / "disk0.references.parquet").unlink()
    files = pl.read_parquet(stem / "disk0.files.parquet")
    write_parquet_atomically(files.drop("package"), stem / "disk0.files.parquet")
    runs, metadata = read_parquet_with_metadata(stem / "disk0.blocks.parquet", "runs", ValueError)
    about = json.loads(metadata[KEY])
    del about["format"]
    write_parquet_atomically(runs, stem / "disk0.blocks.parquet", {KEY: json.dumps(about)})
    return about


def test_states_from_before_are_read_and_gone_on_from(tmp_path, make_tiny_boot):
    plain = make_tiny_boot("vm", "boot-1").manifest
    for boot in ("boot-1", "boot-2"):
        tiny = make_tiny_boot("vm", boot)
        add_boot(tmp_path, tiny.trace, tiny.manifests, {})
    about = [as_before(tmp_path, boot) for boot in ("boot-1", "boot-2")]
    assert [each["digest"] for each in about] == [DIGEST_BEFORE, DIGEST_BEFORE]
    assert all(boot.manifest.equals(plain) for boot in load_corpus(tmp_path)["vm"].boots)
    third = make_tiny_boot("vm", "boot-3")
    add_boot(tmp_path, third.trace, [knowing(plain)], {})
    assert load_corpus(tmp_path)["vm"].boot("boot-3").manifest.equals(knowing(plain))
    assert find_problems(tmp_path) == []


def test_a_saved_manifest_from_before_is_read(tmp_path, tiny_boot):
    path = tmp_path / "saved.parquet"
    tiny_boot.manifest.save(path)
    frame, metadata = read_parquet_with_metadata(path, "a manifest", ValueError)
    tables = json.loads(metadata["vmrestorekit.manifest"])
    del tables["references"], tables["files"]["package"]
    write_parquet_atomically(frame, path, {"vmrestorekit.manifest": json.dumps(tables)})
    assert Manifest.load(path).equals(tiny_boot.manifest)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.drop("removed"), "expected columns"),
        (lambda f: f.with_columns(target=pl.lit(None, pl.String)), "row 0: a value is missing"),
        (lambda f: f.with_columns(target=pl.lit("/x")), "row 0: removes a reference that the base has not"),
        (
            lambda f: f.with_columns(target=pl.lit("/lib/libm.so.6"), removed=pl.lit(False)),
            "row 0: adds a reference that the base has",
        ),
        (lambda f: f.head(1), "its fingerprint differs"),
    ],
)
def test_stored_references_with_bad_rows(corpus_dir, change, reason):
    path = corpus_dir / "vm" / "boot-2" / "disk0.references.parquet"
    write_parquet_atomically(change(pl.read_parquet(path)), path)
    with pytest.raises(CorpusError, match=reason):
        _ = load_corpus(corpus_dir)["vm"].boots[1].manifests
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"expected the references of a stored disk state at .*boot-2"
    ):
        _ = load_corpus(corpus_dir)["vm"].boots[1].manifests


def test_a_state_of_a_later_format(corpus_dir):
    path = corpus_dir / "vm" / "boot-1" / "disk0.blocks.parquet"
    runs, metadata = read_parquet_with_metadata(path, "runs", ValueError)
    about = json.loads(metadata[KEY]) | {"format": 3}
    write_parquet_atomically(runs, path, {KEY: json.dumps(about)})
    with pytest.raises(CorpusError, match=r"disk0\.blocks\.parquet: .*format 1 or 2, got 3"):
        _ = load_corpus(corpus_dir)["vm"].boots[0].manifests


def test_anonymised_packages_and_references_still_join(tiny_boot):
    rows = [*ROWS, ("/sbin/init", "loads", "/usr/lib/libc.so.6")]
    manifest = knowing(tiny_boot.manifest, rows, ("libc6", "base", "libc6"))
    anonymiser = Anonymiser(b"0123456789abcdef")
    hidden = anonymiser.manifest(manifest)
    assert set(hidden.references.rows()) == {
        (anonymiser.path(source), kind, anonymiser.path(target)) for source, kind, target in rows
    }
    joined = [
        each.references.join(each.files, left_on="source", right_on="path").height
        for each in (manifest, hidden)
    ]
    assert joined[0] == joined[1] > 2
    owners = [None if name is None else anonymiser.package(name) for name in manifest.files["package"]]
    paths = [anonymiser.path(path) for path in manifest.files["path"]]
    expected = {path: owner for path, owner in zip(paths, owners, strict=True) if owner}
    assert dict(hidden.files.drop_nulls().select("path", "package").rows()) == expected
    assert owners[3] == owners[5] != owners[4]
    text = str(hidden.references.rows()) + str(hidden.files.rows())
    assert not any(name in text for name in ("libc", "init", "base", "sbin"))
    boot = anonymiser.boot(Boot.from_parts(tiny_boot.trace, [manifest]))
    assert boot.manifest.equals(hidden)


def test_enabled_units_are_followed_from_the_default_target(tiny_boot):
    def units(*rows):
        return enabled_units(knowing(tiny_boot.manifest, sorted(rows)))

    graphical, many = f"{UNITS}/graphical.target", f"{UNITS}/multi-user.target"
    default = (f"{OWN}/default.target", "enables", graphical)
    chain = [
        (graphical, "enables", many),
        (many, "enables", f"{UNITS}/getty@.service"),
        (f"{UNITS}/getty@.service", "enables", many),  # a circle
        (f"{UNITS}/rescue.target", "enables", f"{UNITS}/rescue.service"),
        (many, "starts", "/usr/bin/tool"),
    ]
    assert units(default, *chain[:3]) == ["getty@.service", "graphical.target", "multi-user.target"]
    assert "rescue.service" not in units(default, chain[3])
    assert units(*chain[:1]) == units() == []
    assert units(default, (graphical, "starts", "/usr/bin/tool")) == ["graphical.target"]
    assert units(("@2" + default[0], "enables", "@2" + graphical)) == ["graphical.target"]
    assert enabled_units(Manifest.synthetic(4096)) == []


@pytest.mark.parametrize(("name", "value"), [("block_bytes", 512), ("hash", "sha256")])
def test_a_manifest_with_other_blocks_or_another_hash_is_refused(tmp_path, tiny_boot, name, value):
    path = tmp_path / "saved.parquet"
    tiny_boot.manifest.save(path)
    frame, metadata = read_parquet_with_metadata(path, "a manifest", ValueError)
    tables = json.loads(metadata["vmrestorekit.manifest"])
    tables[name] = value
    write_parquet_atomically(frame, path, {"vmrestorekit.manifest": json.dumps(tables)})
    message = (
        rf"saved.parquet: expected a saved manifest: blocks of 4096 bytes by their xxh3_64, got .*{value}"
    )
    with pytest.raises(ManifestError, match=message):
        Manifest.load(path)
