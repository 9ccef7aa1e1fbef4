"""An anonymised corpus has the same structure and times, and none of the names or hashes.

The machines are tiny SYNTHETIC ones whose every name is a name to be hidden, and a recorded one.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_boots import TINY_DISK_BYTES, tiny_manifest, tiny_trace
from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.traces.anonymise import Anonymiser, anonymise_corpus
from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.catalog import CATALOG_FILE, build_catalog, read_catalog
from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import CorpusError, add_boot, load_corpus
from vmrestorekit.traces.in_common import overlaps
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, REFERENCES_SCHEMA, Manifest, sorted_references
from vmrestorekit.traces.schema import ReadTrace

SECRET = b"0123456789abcdef-secret"
KERNEL = "6.1.0-50-acme-amd64"
UNITS = "/lib/systemd/system"

# of payroll: name, what came before, what it repeats
RECORDINGS = (
    ("friday", "build", ""),
    ("saturday", "shutdown", ""),
    ("saturday-copy", "shutdown", "saturday"),
    ("sunday", "change", ""),
    ("saturday-late", "", "saturday"),
)
DESCRIPTION = {
    "release": "Debian 12",
    "roles": ["database"],
    "built_by": "Alice's lab",
    "owner": "Alice",
    "packages": ["ledgerd", "acme-tools"],
    "services": ["ledgerd.service", "audit.service"],
    "first_use": "curl https://payroll.acme.example",
    "kernel": KERNEL,
    "file_systems": ["/ ext4", "/srv/acme xfs on LVM", "swap swap", "Alice's disk"],
    "spec_digest": "ceeed4cf",
}
PACKAGES = {"/sbin/init": "ledgerd", "/lib/libc.so.6": "acme-libc", f"{UNITS}/ledgerd.service": "ledgerd"}
REFERENCES = (
    (f"{UNITS}/multi-user.target", "enables", f"{UNITS}/ledgerd.service"),
    (f"{UNITS}/ledgerd.service", "starts", "/sbin/init"),
    ("/sbin/init", "loads", "/lib/libc.so.6"),
    ("/sbin/start", "links", "/sbin/init"),
    ("@2-customers/srv/orders", "links", "/nowhere"),
)
# everything of which nothing may be left
WORDS = (
    *("alice", "payroll", "ledger", "invoices", "golden", "acme", "audit", "curl", "ceeed4cf", "customers"),
    *("orders", "vmlinuz", "libc", "multi-user", "friday", "saturday", "sunday", "paid", "patched"),
)


def system_disk(first_content: int) -> Manifest:
    """The tiny disk with packages, references, units, and contents of its own if it has another number."""
    tiny = tiny_manifest()
    renamed = {"/var/log/messages": f"{UNITS}/ledgerd.service", "/var/lib/data": f"/lib/modules/{KERNEL}"}
    files = tiny.files.with_columns(pl.col("path").replace(renamed))
    files = files.with_columns(package=pl.col("path").replace_strict(PACKAGES, default=None))
    own = (pl.col("content") != 0) & (pl.int_range(pl.len()) >= 450)  # a kernel and a program are shared
    blocks = tiny.blocks.with_columns(
        content=pl.col("content") + pl.when(own).then(first_content).otherwise(0)
    )
    references = pl.DataFrame(REFERENCES, schema=REFERENCES_SCHEMA, orient="row")
    return dataclasses.replace(
        tiny,
        blocks=blocks.cast(BLOCKS_SCHEMA),
        files=files.cast(dict(tiny.files.schema)),
        references=sorted_references(references),
    )


def data_disk() -> Manifest:
    """The tiny disk as one with a logical volume beside a larger file system."""
    tiny = tiny_manifest()
    names = {
        "$superblock": "$superblock@2-customers",
        "$inode_table": "$inode_table@1",
        "/boot/vmlinuz": "@2-customers/srv/orders",
        "/sbin/init": "@1/srv/orders",
    }
    return dataclasses.replace(tiny, files=tiny.files.with_columns(pl.col("path").replace(names)))


def recorded(vm: str, boot: str, follows: str = "", repeats: str = "", first_content: int = 0) -> Boot:
    trace = tiny_trace(vm, boot)
    metadata = dataclasses.replace(
        trace.metadata,
        follows=follows,
        repeats=repeats,
        disk_bytes=(TINY_DISK_BYTES, TINY_DISK_BYTES),
        marks={**trace.metadata.marks, "alice_paid_ns": 7},
        versions={"kernel": KERNEL, "qemu": "10.0.2-acme1", "vmrestorekit": "0.1.0", "acme-agent": "1.2"},
    )
    return Boot.from_parts(ReadTrace(trace.frame, metadata), [system_disk(first_content), data_disk()])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with a corpus, a key, and what becomes of the corpus with it."""
    folder = tmp_path_factory.mktemp("corpora")
    for boot, follows, repeats in RECORDINGS:
        new = recorded("payroll", boot, follows, repeats)
        add_boot(folder / "corpus", new.trace, new.manifests, DESCRIPTION)
    # a clone of payroll, and two machines from one image that is none of the corpus
    for vm, lineage, first_content in (
        ("payroll-clone", "payroll", 0),
        ("ledger", "golden-image", 5_000_000),
        ("invoices", "golden-image", 5_000_000),
    ):
        new = recorded(vm, "patched", first_content=first_content)
        add_boot(folder / "corpus", new.trace, new.manifests, DESCRIPTION | {"lineage": lineage})
    (folder / "corpus" / "ledger" / "copies.parquet").write_bytes(b"Alice's layouts")
    (folder / "corpus" / "README.md").write_text("Alice's machines")
    (folder / "key").write_bytes(SECRET)
    anonymise_corpus(folder / "corpus", folder / "shared", folder / "key")
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory, packaged_corpus):
    """The same of a recorded machine: two boots, and another recording of the second."""
    folder, machine = tmp_path_factory.mktemp("real"), packaged_corpus["bookworm-web"]
    for boot in machine.recordings[:3]:
        add_boot(folder / "corpus", boot.trace, boot.manifests, machine.description)
    for boot in machine.recordings[:3]:
        boot.drop_manifests()
    (folder / "key").write_bytes(SECRET)
    anonymise_corpus(folder / "corpus", folder / "shared", folder / "key")
    return folder


def pairs(folder: Path) -> Iterator[tuple[Boot, Boot]]:
    """Each recording, and what became of it."""
    before, after, hidden = load_corpus(folder / "corpus"), load_corpus(folder / "shared"), Anonymiser(SECRET)
    assert set(after) == {hidden.machine(vm) for vm in before}
    for vm, machine in before.items():
        yield from zip(machine.recordings, after[hidden.machine(vm)].recordings, strict=True)


# what every corpus has to keep


@pytest.mark.parametrize("which", ["corpus", "real"])
def test_it_is_a_whole_corpus(which, request):
    shared = request.getfixturevalue(which) / "shared"
    assert find_problems(shared) == []
    after = load_corpus(shared)
    assert read_catalog(shared / CATALOG_FILE).equals(build_catalog(after))
    done = CliRunner().invoke(app, ["traces", "summary", "--corpus", str(shared)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("which", ["corpus", "real"])
def test_structure_and_times_stay(which, request):
    for old, new in pairs(request.getfixturevalue(which)):
        assert new.trace.frame.equals(old.trace.frame)
        assert new.disk_bytes == old.disk_bytes
        for name in ("boot_done_ns", "service_start_ns"):
            assert new.metadata.marks.get(name) == old.metadata.marks.get(name)
        assert sorted(new.metadata.marks.values()) == sorted(old.metadata.marks.values())
        for before, after in zip(old.manifests, new.manifests, strict=True):
            expect_same_structure(before, after)


def expect_same_structure(old: Manifest, new: Manifest) -> None:
    assert new.partitions.equals(old.partitions)
    assert new.files.height == old.files.height
    whole = [each.blocks.join(files_of(each), on="file", how="left") for each in (old, new)]
    for name in ("file_block", "size", "kind", "depth"):
        assert whole[0][name].equals(whole[1][name])
    # equal where they were equal
    for name in ("content", "path", "package"):
        both = pl.DataFrame({"old": whole[0][name], "new": whole[1][name]}).unique()
        assert both["old"].n_unique() == both["new"].n_unique() == both.height
    # zeros where there were zeros
    assert set(whole[0]["content"]) & set(whole[1]["content"]) == {0}
    assert (whole[0]["content"] == 0).equals(whole[1]["content"] == 0)


def files_of(manifest: Manifest) -> pl.DataFrame:
    files = manifest.files.with_row_index("file").cast({"file": pl.Int32})
    return files.with_columns(depth=pl.col("path").str.count_matches("/"))


@pytest.mark.parametrize("which", ["corpus", "real"])
def test_machines_have_the_same_in_common(which, request):
    folder, hidden = request.getfixturevalue(which), Anonymiser(SECRET)
    names = {old.boot: new.boot for old, new in pairs(folder)}
    before, after = (overlaps(load_corpus(folder / name)) for name in ("corpus", "shared"))
    assert before.height > 0
    expected = [
        (hidden.machine(vm), f"{hidden.machine(other.split()[0])} {names[other.split()[1]]}", *shares)
        for vm, other, *shares in before.iter_rows()
    ]
    assert sorted(after.rows()) == sorted(expected)


def test_references_packages_and_units_still_join(corpus):
    for old, new in pairs(corpus):
        machines = [load_corpus(corpus / name)[boot.vm] for name, boot in (("corpus", old), ("shared", new))]
        counts = [
            joins(boot, machine.description) for boot, machine in zip((old, new), machines, strict=True)
        ]
        assert counts[0] == counts[1]
        assert min(counts[0].values()) > 0


def joins(boot: Boot, description: dict[str, object]) -> dict[str, int]:
    files, references = boot.manifest.files, boot.manifest.references
    last = files.select(name=pl.col("path").str.extract(r"([^/]*)$"), package="package")
    count = {
        side: references.join(files, left_on=side, right_on="path").height for side in ("source", "target")
    }
    count["chain"] = references.join(references, left_on="target", right_on="source").height
    count["package"] = last["package"].is_in(description["packages"]).sum()
    count["unit"] = last["name"].is_in(description["services"]).sum()
    count["kernel"] = (last["name"] == boot.metadata.versions["kernel"]).sum()
    count["described kernel"] = int(description["kernel"] == boot.metadata.versions["kernel"])
    folders = [each.split()[0] for each in description["file_systems"]]
    count["mount"] = (
        boot.manifests[1].files["path"].str.contains(folders[1].split("/")[1], literal=True).sum()
    )
    return count


def test_repeats_and_what_came_before_stay(corpus):
    after = load_corpus(corpus / "shared")[Anonymiser(SECRET).machine("payroll")]
    assert [(each.boot, each.follows, each.repeats) for each in after.recordings] == [
        ("boot-1", "build", ""),
        ("boot-2", "shutdown", ""),
        ("boot-2-again", "shutdown", "boot-2"),
        ("boot-3", "change", ""),
        ("boot-2-again-again", "", "boot-2"),
    ]
    assert [each.metadata.repeats for each in after.recordings] == [each.repeats for each in after.recordings]
    assert [each.path.name for each in after.recordings] == [each.boot for each in after.recordings]


def test_lineages_stay_apart_and_together(corpus):
    after, hidden = load_corpus(corpus / "shared"), Anonymiser(SECRET)
    lineage = {name: after[hidden.machine(name)].lineage for name in load_corpus(corpus / "corpus")}
    assert lineage["payroll-clone"] == lineage["payroll"] == hidden.machine("payroll")
    assert lineage["ledger"] == lineage["invoices"] == hidden.machine("golden-image")
    listed = read_catalog(corpus / "shared" / CATALOG_FILE)
    assert set(listed["lineage"]) == set(lineage.values())


def test_what_a_description_still_says(corpus):
    hidden = Anonymiser(SECRET)
    after = load_corpus(corpus / "shared")[hidden.machine("ledger")]
    assert dict(after.description) == {
        "release": "Debian 12",
        "roles": ["database"],
        "lineage": hidden.machine("golden-image"),
        "kernel": hidden.name(KERNEL),
        "packages": sorted(map(hidden.package, ["ledgerd", "acme-tools"])),
        "services": sorted(map(hidden.name, ["ledgerd.service", "audit.service"])),
        "file_systems": ["/ ext4", f"{hidden.path('/srv/acme')} xfs on LVM", "swap swap"],
    }
    about = after.boots[0].metadata
    assert about.versions == {"kernel": hidden.name(KERNEL), "qemu": "10.0.2", "vmrestorekit": "0.1.0"}
    assert about.marks == {"boot_done_ns": 165_000_000, hidden.name("alice_paid_ns"): 7}
    assert (about.recorder, about.accelerator) == ("SYNTHETIC", "none")
    assert hidden.description({"roles": "web", "packages": "one", "lineage": "", "file_systems": []}) == {
        "roles": "web",
        "packages": [hidden.package("one")],
        "file_systems": [],
    }


# what no corpus may keep

HASH = re.compile(r"(?<![A-Za-z])[g-v]{16}(?![A-Za-z])")
# what may be left in a text when the hashes are taken out
SHAPES = (
    r"#?(/#?)*",  # a path, or a name
    r"@\d+(-#)?(/#?)*",  # a path on another file system than the largest
    r"\$\w+(@\d+(-#)?)?",  # a file system's own structure
    r"boot-\d+(-again)*",
    r"(swap|/|(/#)+) (ext4|xfs|btrfs|swap)( on LVM)?",
    r"\d+(\.\d+)+",  # versions of QEMU and of this package
    r"[0-9a-f]{16}",  # fingerprints of what is stored
    r"disk\d\.(blocks|files|references)\.parquet|(trace|catalog|contents)\.parquet|vm\.toml",
    r"vmrestorekit\.(trace|manifest_state)",
)
# kept on purpose: operations, kinds, marks, programs, keys of tables, and what is held out in evaluations
KEPT = {
    *("read", "write", "discard", "flush", "regular", "directory", "symlink", "metadata", "other", "enables"),
    *("starts", "loads", "needs_module", "links", "build", "shutdown", "crash", "change", "ext4", "kernel"),
    *(
        "boot_done_ns",
        "service_start_ns",
        "service_end_ns",
        "qemu",
        "vmrestorekit",
        "vm",
        "boot",
        "disk_bytes",
    ),
    *("marks", "recorder", "accelerator", "versions", "follows", "repeats", "format", "partitions"),
    *(
        "base_boot",
        "base_digest",
        "digest",
        "contents_rows",
        "contents_digest",
        "partition",
        "start",
        "length",
    ),
    *("file_system", "description", "boots", "release", "roles", "lineage", "packages"),
    *("services", "file_systems", "name", "value"),
    *("SYNTHETIC", "none", "tcg", "vmrestorekit.lab NBD recorder", "Debian 12", "database", "web"),
}


def texts(value: object) -> Iterator[str]:
    """All text in plain data, also that of keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (*texts(key), *texts(each))
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)


def texts_in(directory: Path) -> set[str]:
    """All text in a folder: names of folders and files, columns, Parquet's metadata, TOML."""
    found: set[str] = set()
    for file in directory.rglob("*"):
        found.add(file.name)
        if file.suffix == ".parquet":
            for column in pl.read_parquet(file):
                if not column.dtype.is_numeric():
                    found.update(texts(column.drop_nulls().to_list()))
            about = pl.read_parquet_metadata(file)
            about.pop("ARROW:schema", None)  # names of columns
            found.update(about)
            for value in about.values():
                found.update(texts(json.loads(value)))
        elif file.is_file():
            assert file.name == "vm.toml"
            found.update(texts(tomllib.loads(file.read_text())))
    return found


@pytest.mark.parametrize("which", ["corpus", "real"])
def test_nothing_but_hashes_and_what_is_kept_on_purpose_is_left(which, request):
    found = texts_in(request.getfixturevalue(which) / "shared")
    assert len(found) > 50
    left = {HASH.sub("#", text) for text in found} - KEPT
    assert [text for text in sorted(left) if not any(re.fullmatch(shape, text) for shape in SHAPES)] == []


def test_no_word_is_left_anywhere(corpus):
    said = " ".join(texts_in(corpus / "shared")).lower()
    assert [word for word in WORDS if word in said] == []
    there = [file for file in (corpus / "shared").rglob("*") if file.is_file()]
    assert [word for word in WORDS for file in there if word.encode() in file.read_bytes().lower()] == []
    # the words were there
    shutil.rmtree(corpus / "words", ignore_errors=True)
    shutil.copytree(
        corpus / "corpus", corpus / "words", ignore=shutil.ignore_patterns("copies.parquet", "*.md")
    )
    said = " ".join(texts_in(corpus / "words")).lower()
    assert [word for word in WORDS if word not in said] == []


def test_no_component_of_a_recorded_machine_is_left(real):
    def parts(directory: Path) -> set[str]:
        return {part for text in texts_in(directory) for part in re.split(r"[/@\s]", text) if part}

    original = {
        part
        for boot in load_corpus(real / "corpus").recordings
        for path in boot.manifest.files["path"]
        for part in path.split("/")
        if path.startswith("/") and part
    }
    assert len(original) > 5000
    # the release, and words of the format and the roles
    assert original & parts(real / "shared") <= {"Debian", "12", *KEPT}
    said = " ".join(parts(real / "shared") - KEPT)
    # KEPT: guests have a folder with the name of this program, which begins the keys of the format
    assert [part for part in original - KEPT if len(part) > 7 and part in said] == []


def test_the_order_of_files_tells_no_names(corpus, real):
    for folder in (corpus, real):
        for _, new in pairs(folder):
            for manifest in new.manifests:
                assert manifest.files["path"].is_sorted()
    description = load_corpus(corpus / "shared")[Anonymiser(SECRET).machine("ledger")].description
    for key in ("packages", "services"):
        assert description[key] == sorted(description[key])


# what the hashes are like


@given(
    paths=st.lists(
        st.lists(st.sampled_from(["lib", "lib64", "x", "x.1", "$x", "@1"]), min_size=1, max_size=4),
        max_size=9,
    )
)
def test_paths_keep_their_depth_and_what_they_share(paths):
    hidden = Anonymiser(SECRET)
    for one in paths:
        for other in paths:
            both = [hidden.path("/" + "/".join(path)).split("/") for path in (one, other)]
            assert [a == b for a, b in zip(one, other, strict=False)] == [
                a == b for a, b in zip(both[0][1:], both[1][1:], strict=False)
            ]
            assert len(both[0]) == len(one) + 1


def test_components_keep_their_equality_and_depend_on_the_key():
    one, same, other = Anonymiser(SECRET), Anonymiser(SECRET), Anonymiser(SECRET + b"!")
    assert one.path("/var/lib/data").split("/")[:3] == same.path("/var/lib/other").split("/")[:3]
    assert one.path("/lib/x").split("/")[1] == one.path("/var/lib").split("/")[2]
    assert one.path("/var/lib/data") != other.path("/var/lib/data")
    contents = pl.Series([0, 7, 7, 2**64 - 1], dtype=pl.UInt64)
    assert one.contents(contents).to_list() != other.contents(contents).to_list()
    assert one.contents(contents).to_list() == same.contents(contents).to_list()
    later = same.contents(pl.Series([9, 7, 8], dtype=pl.UInt64))
    assert later[1] == one.contents(contents)[1]
    assert later.n_unique() == 3


def test_a_machine_a_package_and_a_folder_of_one_name_are_not_seen_to_be():
    hidden = Anonymiser(SECRET)
    assert len({hidden.name("ledger"), hidden.package("ledger"), hidden.machine("ledger")}) == 3


@pytest.mark.parametrize(
    ("path", "kind", "shape"),
    [
        ("$superblock", "metadata", r"\$superblock"),
        ("$superblock@3", "metadata", r"\$superblock@3"),
        ("$superblock@2-customers", "metadata", r"\$superblock@2-H"),
        ("$superblock@customers", "metadata", r"\$superblockH"),
        ("$Extend/$ObjId", "metadata", "H/H"),
        ("$secret", "regular", "H"),
        ("/$secret", "regular", "/H"),
        ("/@1/x", "regular", "/H/H"),
        ("@1/x", "regular", "@1/H"),
        ("@2-customers/x", "regular", "@2-H/H"),
        ("@customers/x", "regular", "H/H"),
        ("/", "directory", "/"),
        ("x//y/", "regular", "H//H/"),
    ],
)
def test_what_stays_of_a_path(path, kind, shape):
    files = tiny_manifest().files
    files = files.with_columns(path=pl.lit(path), kind=pl.lit(kind, files.schema["kind"]))
    hidden = Anonymiser(SECRET).manifest(dataclasses.replace(tiny_manifest(), files=files)).files
    assert re.fullmatch(shape.replace("H", "[g-v]{16}"), hidden["path"][0])


def test_predictors_tell_hidden_paths_apart(real):
    from vmrestorekit.predict.mapped import block_keys

    for old, new in pairs(real):
        before, after = (block_keys(boot.manifest, 0, "path") for boot in (old, new))
        # names that differ in numbers only fall together before
        assert after.n_unique() >= before.n_unique()
        assert after.null_count() == before.null_count()


@pytest.mark.parametrize("name", ["last_boot", "content"])
def test_a_predictor_says_the_same_of_a_hidden_boot(real, name):
    from vmrestorekit.predict.by_name import make_predictor

    scores = []
    for which in ("corpus", "shared"):
        (machine,) = load_corpus(real / which).values()
        first, second = machine.boots
        scores.append(make_predictor(name).fit(first).score_blocks(second.manifest))
    assert (scores[0]["probability"] > 0).sum() > 1000
    assert scores[0].equals(scores[1])


def test_bad_input(tmp_path, make_tiny_boot):
    tiny = make_tiny_boot("web", "boot-1")
    add_boot(tmp_path / "corpus", tiny.trace, tiny.manifests, {"release": "Debian 12"})
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "short").write_bytes(b"secret")
    with pytest.raises(CorpusError, match=r"short: expected a key of at least 16 bytes, got 6"):
        anonymise_corpus(tmp_path / "corpus", tmp_path / "shared", tmp_path / "short")
    with pytest.raises(CorpusError, match="expected a directory that is not there yet"):
        anonymise_corpus(tmp_path / "corpus", tmp_path / "corpus", tmp_path / "key")
    with pytest.raises(FileNotFoundError):
        anonymise_corpus(tmp_path / "corpus", tmp_path / "shared", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        anonymise_corpus(tmp_path / "nothing", tmp_path / "shared", tmp_path / "key")
    (next((tmp_path / "corpus" / "web").rglob("trace.parquet"))).write_bytes(b"broken")
    with pytest.raises(ValueError, match="expected a whole Parquet file"):
        anonymise_corpus(tmp_path / "corpus", tmp_path / "shared", tmp_path / "key")
    assert not (tmp_path / "shared").exists()
    assert not (tmp_path / "shared.partial").exists()


def test_the_command(corpus, tmp_path):
    words = ["traces", "anonymise", corpus / "corpus", tmp_path / "shared", "--key-file", corpus / "key"]
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert texts_in(tmp_path / "shared") == texts_in(corpus / "shared")
