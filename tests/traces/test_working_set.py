"""What boots read, and what machines have in common, on tiny SYNTHETIC ones and on the recorded ones."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from tiny_boots import TINY_FILES

from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.corpus import Corpus
from vmrestorekit.traces.manifest import Manifest
from vmrestorekit.traces.schema import ReadTrace
from vmrestorekit.traces.working_set import boot_blocks, overlaps, working_sets


def test_blocks_of_a_boot_by_a_plain_loop(tiny_boot: Boot) -> None:
    content = tiny_boot.manifest.blocks["content"].to_list()
    where = {
        block: (path, block - first)
        for path, _, first, count in TINY_FILES
        for block in range(first, first + count)
    }
    read = {
        block
        for _, _, _, op, offset, length in tiny_boot.trace.frame.iter_rows()
        for block in range(offset // 4096, -(-(offset + length) // 4096))
        if op == "read" and content[block]
    }
    rows = boot_blocks(tiny_boot).rows()
    assert rows == [(0, block, content[block], *where[block]) for block in sorted(read)]


def test_reads_after_the_boot_was_done_do_not_count(tiny_boot: Boot) -> None:
    late = tiny_boot.trace.frame.with_columns(pl.col("issued_ns", "completed_ns") + 100_000_000)
    trace = ReadTrace(late, tiny_boot.metadata)
    moved = Boot.from_parts(trace, tiny_boot.manifests)
    assert 0 < boot_blocks(moved).height < boot_blocks(tiny_boot).height


def machine(*boots: Boot) -> RecordedVM:
    return RecordedVM(boots[0].vm, {}, boots)


def test_machines_in_common(make_tiny_boot: Callable[[str, str], Boot]) -> None:
    one, later = make_tiny_boot("one", "boot-1"), make_tiny_boot("one", "boot-2")
    other = make_tiny_boot("other", "boot-1")
    disk = other.manifest
    # other contents in the first half, other names in the second
    half = disk.blocks.height // 2
    row = pl.int_range(pl.len())
    blocks = disk.blocks.with_columns(
        content=pl.when((row < half) & (pl.col("content") != 0))
        .then(pl.col("content") + 2**40)
        .otherwise(pl.col("content"))
    )
    names = disk.files.with_columns(path=pl.col("path").str.replace("^/var", "/srv"))
    other = Boot.from_parts(other.trace, [Manifest(disk.disk_bytes, blocks, names, disk.partitions)])
    found = overlaps({"one": machine(one, later), "other": machine(other)})
    assert found.row(0) == ("one", "one boot-1", 100.0, 100.0, 100.0)
    read = boot_blocks(one)
    same_content = read.filter(pl.col("block") >= half).height / read.height
    same_path = read.filter(~pl.col("path").str.starts_with("/var")).height / read.height
    assert 0 < same_content < 1 != same_path
    assert found.row(1) == (
        *("one", "other boot-1", 100.0),
        *(round(100 * same_content, 1), round(100 * same_path, 1)),
    )
    assert found.row(2)[:2] == ("other", "one boot-2")
    assert found.height == 3


def test_the_recorded_machines(packaged_corpus: Corpus) -> None:
    sets = working_sets(packaged_corpus)
    assert sets.height == len(packaged_corpus.boots)
    assert sets["share"].is_between(1, 60).all()
    common = overlaps(packaged_corpus)
    own = common.filter(pl.col("other").str.starts_with(pl.col("vm") + " "))
    assert (own.select("address", "content", "path").min_horizontal() > 90).all()
    releases = {name: vm.release for name, vm in packaged_corpus.items()}
    across = common.filter(
        pl.col("vm").replace(releases) != pl.col("other").str.split(" ").list.first().replace(releases)
    )
    # what differs between releases is the contents, not the names
    assert across.height > 0
    assert (across["content"] < across["path"]).all()
