"""How much boots and machines have in common, on tiny SYNTHETIC ones and on the recorded ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from vmrestorekit.cli import app
from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.corpus import Corpus, add_boot
from vmrestorekit.traces.in_common import WAYS, overlaps, read_again, repeatability
from vmrestorekit.traces.manifest import (
    BLOCKS_SCHEMA,
    FILES_SCHEMA,
    PARTITIONS_SCHEMA,
    Manifest,
)
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata
from vmrestorekit.traces.working_set import boot_blocks

BLOCKS = 64


def boot_of(
    vm: str, boot: str, reads: Sequence[int], path: str = "/f", first_content: int = 1, **about: object
) -> Boot:
    """A disk of 64 blocks, all of one file, of which these are read one after the other."""
    blocks = {"content": range(first_content, first_content + BLOCKS), "file": 0, "file_block": range(BLOCKS)}
    file = {"path": [path], "size": [BLOCKS * 4096], "kind": ["regular"]}
    manifest = Manifest(
        BLOCKS * 4096,
        pl.DataFrame(blocks, schema=BLOCKS_SCHEMA),
        pl.DataFrame({**dict.fromkeys(FILES_SCHEMA), **file}, schema=FILES_SCHEMA),
        PARTITIONS_SCHEMA.to_frame(),
    )
    rows = [(at, at + 1, 0, "read", block * 4096, 4096) for at, block in enumerate(reads)]
    frame = pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row")
    marks = {"boot_done_ns": 1000}
    metadata = TraceMetadata(vm, boot, (BLOCKS * 4096,), marks, "SYNTHETIC", "none", {}, **about)  # type: ignore[arg-type]
    return Boot.from_parts(ReadTrace(frame, metadata), [manifest])


def machine(*boots: Boot, **description: str) -> RecordedVM:
    return RecordedVM(boots[0].vm, description, boots)


def share_by_a_plain_loop(boot: Boot, other: Boot, columns: list[str]) -> float:
    there = set(boot_blocks(other).select(columns).rows())
    rows = boot_blocks(boot).select(columns).rows()
    return round(100 * sum(row in there and None not in row for row in rows) / len(rows), 1)


def test_machines_in_common(make_tiny_boot: Callable[[str, str], Boot]) -> None:
    one, later = make_tiny_boot("one", "boot-1"), make_tiny_boot("one", "boot-2")
    other = make_tiny_boot("other", "boot-1")
    disk = other.manifest
    # other contents in the first half, some of them twice; other names in the second; some of no file
    half, row = disk.blocks.height // 2, pl.int_range(pl.len())
    content = pl.when((row < half) & (pl.col("content") != 0)).then(pl.col("content") // 2 + 2**40)
    no_file = pl.when(row.is_between(300, 310)).then(None)
    blocks = disk.blocks.with_columns(
        content=content.otherwise("content"),
        file=no_file.otherwise("file"),
        file_block=no_file.otherwise("file_block"),
    )
    names = disk.files.with_columns(path=pl.col("path").str.replace("^/var", "/srv"))
    changed = dataclasses.replace(disk, blocks=blocks, files=names)
    other = Boot.from_parts(other.trace, [changed])
    found = overlaps({"one": machine(one, later), "other": machine(other)})
    same = {"address": ["disk", "block"], "content": ["content"], "path": ["path", "file_block"]}
    for row_of, boot, another in ((0, later, one), (1, later, other), (2, other, later)):
        shares = [share_by_a_plain_loop(boot, another, columns) for columns in same.values()]
        assert found.row(row_of) == (boot.vm, f"{another.vm} {another.boot}", *shares)
    assert found.row(0)[2:] == (100.0, 100.0, 100.0)
    assert 0 < found.row(1)[3] < 100 != found.row(1)[4]
    assert found.height == 3


def test_read_again_by_machines_of_the_same_and_of_other_lineages_and_releases() -> None:
    alone = {"release": "12", "lineage": "a"}
    machines = {
        # the last boot reads blocks 0 to 39; the others some of them, at other contents or paths
        "a": machine(boot_of("a", "b1", range(20)), boot_of("a", "b2", range(40)), **alone),
        "clone": machine(boot_of("clone", "b1", range(38)), **alone),
        "near": machine(boot_of("near", "b1", range(10), first_content=1001), release="12", lineage="n"),
        "far": machine(boot_of("far", "b1", range(30), path="/g"), release="13", lineage="f"),
        "further": machine(boot_of("further", "b1", range(4)), release="13", lineage="f"),
    }
    row = read_again(machines).row(0, named=True)
    assert row["vm"] == "a"
    assert row["nearest"] == "near"  # the clone is nearer, but of the same lineage

    def shares(other: str) -> list[float]:
        return [row[f"{other}_{way}"] for way in WAYS]

    assert shares("before") == [50.0, 50.0, 50.0]
    assert shares("nearest") == [25.0, 0.0, 25.0]
    assert shares("release") == [60.0, 47.5, 60.0]  # medians of the clone's 95 and the near one's
    assert shares("elsewhere") == [42.5, 42.5, 5.0]
    assert read_again(machines).height == 5


def test_where_there_is_nobody_to_compare_with_nothing_is_said() -> None:
    row = read_again({"a": machine(boot_of("a", "b1", range(20)))}).row(0, named=True)
    assert row.pop("vm") == "a"
    assert set(row.values()) == {None}
    assert overlaps({"a": machine(boot_of("a", "b1", range(20)))}).height == 0


def test_repeatability_of_a_boot_recorded_twice_and_of_boots_after_shutdowns() -> None:
    orders = {
        "b1": (range(10), "build", ""),
        "b2": (range(20), "shutdown", ""),
        "b2x": (reversed(range(10, 30)), "shutdown", "b2"),
        "b3": (range(5, 25), "shutdown", ""),
        "b4": (range(15, 25), "shutdown", ""),
        "b5": (range(20), "crash", ""),
        "b6": (range(20), "shutdown", ""),
    }
    boots = [
        boot_of("vm", name, list(order), follows=follows, repeats=repeats)
        for name, (order, follows, repeats) in orders.items()
    ]
    found = repeatability({"vm": machine(*boots)}, all_pairs=True)
    assert found.row(0, named=True) == {
        "vm": "vm",
        "boot": "b2",
        "other": "b2x",
        "kind": "recorded twice",
        "same_blocks": 33.3,  # 10 of 30
        "rank_correlation": -1.0,
        "requests": 20,
        "other_requests": 20,
        "boot_s": 0.0,
        "other_boot_s": 0.0,
    }
    # boots that follow each other; the recording between them is none
    assert found.row(1)[:6] == ("vm", "b2", "b3", "after shutdowns", 60.0, 1.0)
    assert found.row(2)[:6] == ("vm", "b3", "b4", "after shutdowns", 50.0, 1.0)
    assert found.height == 3
    assert repeatability({"vm": machine(*boots)}).equals(found[[0, 2]])


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(3)
    one, other = random.permutation(BLOCKS)[:50], random.permutation(BLOCKS)[:50]
    boots = [boot_of("vm", "b1", one.tolist()), boot_of("vm", "b1x", other.tolist(), repeats="b1")]
    common = sorted(set(one.tolist()) & set(other.tolist()))
    ranks = [np.argsort(np.argsort([list(order).index(block) for block in common])) for order in (one, other)]
    count = len(common)
    expected = 1 - 6 * int(((ranks[0] - ranks[1]) ** 2).sum()) / (count * (count**2 - 1))
    row = repeatability({"vm": machine(*boots)}).row(0, named=True)
    assert row["rank_correlation"] == pytest.approx(expected, abs=0.001)
    nothing = [boot_of("vm", "b1", [1, 2]), boot_of("vm", "b1x", [2, 3], repeats="b1")]
    assert repeatability({"vm": machine(*nothing)})["rank_correlation"].to_list() == [None]


def test_the_recorded_machines(packaged_corpus: Corpus) -> None:
    common = overlaps(packaged_corpus)
    own = common.filter(pl.col("other").str.starts_with(pl.col("vm") + " "))
    assert (own.select(WAYS).min_horizontal() > 90).all()
    releases = {name: vm.release for name, vm in packaged_corpus.items()}
    across = common.filter(
        pl.col("vm").replace(releases) != pl.col("other").str.split(" ").list.first().replace(releases)
    )
    # what differs between releases is the contents, not the names
    assert across.height > 0
    assert (across["content"] < across["path"]).all()
    again = read_again(packaged_corpus)
    assert again["before_path"].to_list() == own["path"].to_list()
    assert not any("manifests" in vars(boot) for boot in packaged_corpus.recordings)


def test_the_command(tmp_path: Path, make_tiny_boot: Callable[[str, str], Boot]) -> None:
    for vm, boot, repeats in (("one", "b1", ""), ("one", "b1x", "b1"), ("two", "b1", "")):
        tiny = make_tiny_boot(vm, boot)
        trace = ReadTrace(tiny.trace.frame, dataclasses.replace(tiny.metadata, repeats=repeats))
        add_boot(tmp_path, trace, tiny.manifests, {"release": "none"})

    def run(*words: str) -> str:
        arguments = ["traces", "summary", "--corpus", str(tmp_path), *words]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    sets, again, alike = json.loads(run("--json")).values()
    assert [row["vm"] for row in sets] == [row["vm"] for row in again] == ["one", "two"]
    assert again[0]["nearest"] == "two"
    assert [(row["boot"], row["other"], row["same_blocks"]) for row in alike] == [("b1", "b1x", 100.0)]
    *_, pairs = json.loads(run("--json", "--pairs")).values()
    assert {(row["vm"], row["other"]) for row in pairs} == {("one", "two b1"), ("two", "one b1")}
    text = run()
    assert "100.0 / 100.0 / 100.0" in text
    assert "recorded twice" in text
    assert "two b1" not in text
    assert "two b1" in run("--pairs")
