"""The recorded machines that come with the package: what is promised of them, and that they are whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.catalog import CATALOG_FILE, build_catalog, read_catalog
from vmrestorekit.traces.checks import find_problems
from vmrestorekit.traces.corpus import Corpus, packaged_corpus_directory
from vmrestorekit.traces.working_set import boot_blocks, find_blocks, kernel_read, service_blocks

MIB = 1 << 20
MINUTE_NS = 50_000_000_000  # nearly


@pytest.fixture(scope="module")
def directory(packaged_corpus: Corpus) -> Path:
    return packaged_corpus_directory()


@pytest.fixture(scope="module")
def known(packaged_corpus: Corpus) -> Corpus:
    """The blocks that each boot read are known; nobody has to look for them again."""
    find_blocks(packaged_corpus)
    return packaged_corpus


def kinds(boot: Boot) -> set[str]:
    """The file systems that were found on the disks."""
    found = {kind for manifest in boot.manifests for kind in manifest.partitions["file_system"]}
    boot.drop_manifests()
    return found


def test_it_is_whole(directory: Path) -> None:
    assert find_problems(directory) == []


def test_it_is_small(directory: Path) -> None:
    # it is in every checkout and in the package; at most 80 MB were allowed
    assert sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) < 30_000_000


def test_the_stored_catalogue_is_what_the_recordings_say(directory: Path, packaged_corpus: Corpus) -> None:
    stored = read_catalog(directory / CATALOG_FILE)
    assert stored.equals(build_catalog(packaged_corpus))
    assert stored.equals(packaged_corpus.catalog())
    assert stored.select("vm", "boot").rows() == [(b.vm, b.boot) for b in packaged_corpus.recordings]


def test_there_are_many_kinds_of_machines(packaged_corpus: Corpus) -> None:
    machines = packaged_corpus.values()
    assert len(machines) >= 16
    assert {vm.release for vm in machines} == {"Debian 11", "Debian 12", "Debian 13"}
    assert len({role for vm in machines for role in vm.roles}) >= 6
    # of each release several roles, and of several roles more than one release: either can be left out
    for release in ("Debian 11", "Debian 12", "Debian 13"):
        assert len({role for vm in machines if vm.release == release for role in vm.roles}) >= 3
    releases = Counter(role for role, _ in {(role, vm.release) for vm in machines for role in vm.roles})
    assert sum(count > 1 for count in releases.values()) >= 4


def test_two_golden_images_have_clones(packaged_corpus: Corpus) -> None:
    clones = Counter(vm.lineage for vm in packaged_corpus.values() if vm.lineage != vm.name)
    assert len(clones) >= 2
    assert min(clones.values()) >= 2
    assert set(clones) <= set(packaged_corpus)
    for name, vm in packaged_corpus.items():
        if vm.lineage != name:
            assert packaged_corpus[vm.lineage].lineage == vm.lineage
            assert packaged_corpus[vm.lineage].release == vm.release
            # changed from inside after it had been cloned
            assert [boot.follows for boot in vm.boots].count("change") >= 2


def test_every_machine_was_shut_down_and_crashed(packaged_corpus: Corpus) -> None:
    for name, vm in packaged_corpus.items():
        follows = [boot.follows for boot in vm.boots]
        assert len(follows) >= 3, name
        assert set(follows) <= {"build", "shutdown", "change", "crash"}, name
        assert "crash" in follows[1:], name
        assert sum(kind in ("shutdown", "change") for kind in follows) >= 2, name


def test_some_boots_were_recorded_twice(packaged_corpus: Corpus) -> None:
    repeats = [boot for boot in packaged_corpus.recordings if boot.repeats]
    assert len({packaged_corpus[boot.vm].release for boot in repeats}) == 3
    assert all(boot.follows == packaged_corpus[boot.vm].boot(boot.repeats).follows for boot in repeats)
    # `find_problems` compares the states of the disks


def test_boots_are_done_and_the_service_used(known: Corpus) -> None:
    for boot in known.recordings:
        marks = boot.metadata.marks
        assert 0 < marks["boot_done_ns"] < marks["service_start_ns"] < marks["service_end_ns"]
        assert service_blocks(boot).height > 0
    lasted = [
        min(boot.metadata.marks["service_end_ns"] - boot.metadata.marks["service_start_ns"] for boot in boots)
        for boots in (vm.recordings for vm in known.values())
    ]
    assert sum(each >= MINUTE_NS for each in lasted) >= 6


def test_file_systems_and_disks(known: Corpus) -> None:
    described = {name: vm.description["file_systems"] for name, vm in known.items()}
    found = {name: kinds(vm.boots[0]) for name, vm in known.items()}
    for kind, of_root in (("xfs", "/ xfs"), ("btrfs", "/ btrfs"), ("lvm2", "/ ext4 on LVM")):
        assert any(kind in each for each in found.values())
        assert any(of_root in each for each in described.values())
    assert any("swap" in each for each in found.values())
    for name, vm in known.items():
        told = {each.split()[1] for each in described[name] if not each.endswith(" on LVM")}
        assert told == found[name] - {"lvm2"}
        assert any(each.endswith(" on LVM") for each in described[name]) == ("lvm2" in found[name])
        assert len({boot.disk_bytes for boot in vm.recordings}) == 1
    several = [vm for vm in known.values() if len(vm.boots[0].disk_bytes) > 1]
    assert len(several) >= 3
    for vm in several:
        for boot in vm.recordings:
            read = boot.trace.frame.filter(pl.col("op") == "read")["disk"].unique().to_list()
            assert sorted(read) == list(range(len(boot.disk_bytes)))


def test_what_was_read_belongs_to_files(known: Corpus) -> None:
    """On ext4, XFS, btrfs and logical volumes; the predictors learn from paths."""
    for boot in known.recordings:
        blocks = boot_blocks(boot)
        assert blocks["path"].is_not_null().mean() > 0.98, (boot.vm, boot.boot)
        files = blocks.filter(~pl.col("path").str.starts_with("$"))
        assert files.height > 10_000
        assert files.height > 0.8 * blocks.height, (boot.vm, boot.boot)


def test_the_kernel_of_each_recording_is_the_one_that_was_read(known: Corpus) -> None:
    catalog = known.catalog()
    assert catalog["kernel"].to_list() == [kernel_read(boot) for boot in known.recordings]
    full = catalog.filter(~pl.col("kernel").str.contains("-cloud-", literal=True))
    assert set(full["release"]) == {"Debian 11", "Debian 12", "Debian 13"}
    # a later kernel was installed in a guest, and boots from then on
    kernels = catalog.group_by("vm").agg(pl.col("kernel").rle())
    assert sum(runs.len() == 2 for runs in kernels["kernel"]) >= 2
    assert all(runs.len() <= 2 for runs in kernels["kernel"])
