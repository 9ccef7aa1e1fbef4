"""Charts of a corpus are Vega-Lite 5; what they draw is right on small hand-made boots; none is no error."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest
from tiny_boots import MS

from vmrestorekit.show import renderer
from vmrestorekit.show.corpus_charts import (
    after_changes_dots,
    bytes_read_so_far,
    machines_by_release,
    overlap_matrix,
    reading_curves,
    repeatability_dots,
    working_set_bars,
)
from vmrestorekit.show.first_set.first_touch_map import KINDS_READ, first_touch_map, touches_by_kind
from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.in_common import WAYS, after_changes, overlaps, repeatability
from vmrestorekit.traces.manifest import FILES_SCHEMA, Manifest
from vmrestorekit.traces.schema import ReadTrace
from vmrestorekit.traces.working_set import boot_blocks, service_blocks, working_sets

MakeBoot = Callable[[str, str], Boot]


def draw(chart: Any) -> dict[str, Any]:
    vl_convert = pytest.importorskip("vl_convert")
    specification = renderer.vega_lite_5(chart)
    assert specification["$schema"] == renderer.VEGA_LITE_5
    assert vl_convert.vegalite_to_svg(specification, vl_version="5.20").startswith("<svg")
    assert specification["description"]
    return specification


def said_of_nothing(chart: Any) -> str:
    specification = draw(chart)
    assert list(itertools.chain(*specification["datasets"].values())) == [{"x": 0}]
    return str(specification["title"]["subtitle"])


def changed(original: Boot, *, without: int = 0, files: Sequence[str] | None = None, **about: Any) -> Boot:
    """The same boot without its last requests, with other paths, or with other metadata."""
    frame = original.trace.frame.head(original.trace.frame.height - without)
    trace = ReadTrace(frame, dataclasses.replace(original.metadata, **about))
    manifest = original.manifest
    if files is not None:
        paths = manifest.files.with_columns(path=pl.Series(files))
        manifest = dataclasses.replace(manifest, files=paths)
    return Boot.from_parts(trace, [manifest])


def machine(*boots: Boot, **description: str) -> RecordedVM:
    return RecordedVM(boots[0].vm, description, boots)


@pytest.fixture
def machines(make_tiny_boot: MakeBoot) -> dict[str, RecordedVM]:
    """A golden image, a clone that was changed, and a stranger whose service was used."""
    clone = make_tiny_boot("a-clone", "boot-1")
    golden = make_tiny_boot("golden", "boot-1")
    stranger = changed(make_tiny_boot("stranger", "boot-1"), marks={"boot_done_ns": 60 * MS,
        "service_start_ns": 90 * MS, "service_end_ns": 120 * MS})  # fmt: skip
    renamed = [f"/new{path}" for path in clone.manifest.files["path"]]
    return {
        "a-clone": machine(
            changed(clone, follows="change"),
            changed(clone, boot="boot-2", without=2, follows="shutdown"),
            changed(clone, boot="boot-3", files=renamed, follows="change"),
            changed(clone, boot="boot-4", files=renamed, without=3, follows="shutdown"),
            release="Debian 12",
            lineage="golden",
        ),
        "golden": machine(
            golden,
            changed(golden, boot="boot-1-again", without=2, repeats="boot-1"),
            release="Debian 12",
        ),
        "stranger": machine(stranger, release="Debian 11"),
    }


def test_machines_are_listed_by_release_then_lineage(machines: dict[str, RecordedVM]) -> None:
    machines["free"] = machine(*machines["golden"].recordings, lineage="z")
    assert machines_by_release(machines).rows() == [
        ("stranger", "Debian 11", "stranger"),
        ("a-clone", "Debian 12", "golden"),
        ("golden", "Debian 12", "golden"),
        ("free", "release unknown", "z"),
    ]


def test_bars_of_working_sets(machines: dict[str, RecordedVM]) -> None:
    sets = working_sets(machines)
    text = json.dumps(draw(working_set_bars(sets, machines)))
    boot, service = sets.row(2, named=True)["distinct_mb"], sets.row(2, named=True)["service_mb"]
    assert service > 0
    for expected in (f"{boot} + {service}", f"{sets['share'][0]} %", "first read while used"):
        assert expected in text
    del machines["stranger"]
    assert "service" not in json.dumps(draw(working_set_bars(working_sets(machines), machines)))


def test_a_matrix_for_each_way_by_release(machines: dict[str, RecordedVM]) -> None:
    pairs = overlaps(machines)
    specification = draw(overlap_matrix(pairs, machines))
    (rows,) = specification["datasets"].values()
    assert {(row["vm"], row["other"]): row["path"] for row in rows} == {
        (vm, other.split()[0]): path for vm, other, path in pairs.select("vm", "other", "path").iter_rows()
    }
    assert len(specification["hconcat"]) == len(WAYS)
    encoding = specification["hconcat"][0]["encoding"]
    domain = ["Debian 11", "stranger", "Debian 12", "a-clone", "golden"]
    assert encoding["x"]["scale"]["domain"] == encoding["y"]["scale"]["domain"] == domain
    assert "text" in json.dumps(specification["hconcat"][0]["layer"])
    cramped = draw(overlap_matrix(pairs, machines, ["content"], width=100))
    assert [len(matrix["layer"]) for matrix in cramped["hconcat"]] == [1]  # no room for numbers
    with pytest.raises(ValueError, match="ways: expected some of address, content, path, got \\['name'\\]"):
        overlap_matrix(pairs, machines, ["name"])


def test_first_touches_are_the_blocks_of_the_boot_and_its_service(machines: dict[str, RecordedVM]) -> None:
    boot = machines["stranger"].boots[0]
    touches = touches_by_kind(boot)
    assert touches.select("disk", "block").is_unique().all()
    assert touches["second"].is_sorted()
    until_done = touches.filter(pl.col("second") < 0.061).sort("block")
    assert until_done["block"].equals(boot_blocks(boot)["block"])
    assert until_done["path"].equals(boot_blocks(boot)["path"])
    serving = touches.filter(pl.col("second").is_between(0.090, 0.120)).sort("block")
    assert serving["block"].equals(service_blocks(boot)["block"])
    # the first request, the second, and the sixth of the kernel, in front of which lie 29 and 40 blocks
    first = touches.filter(pl.col("block").is_in([0, 1, 340])).sort("block")
    assert first.select("place", "second").rows() == [(0, 0.0), (1, 0.002), (29 + 40, 0.035)]


def kinds_of(files: dict[str, str], tiny_boot: Boot) -> list[str]:
    """What the files of a disk are when each of them is read."""
    rows = {"path": list(files), "kind": "regular", "size": 4096, "package": None}
    manifest = tiny_boot.manifest
    blocks = manifest.blocks.head(len(files)).with_columns(
        content=pl.int_range(1, len(files) + 1, dtype=pl.UInt64),
        file=pl.int_range(len(files), dtype=pl.Int32),
        file_block=pl.lit(0, pl.Int32),
    )
    table = pl.DataFrame(rows).select(*FILES_SCHEMA).cast(dict(FILES_SCHEMA))
    small = Manifest(4096 * len(files), blocks, table, manifest.partitions.clear())
    frame = tiny_boot.trace.frame.head(1).with_columns(offset=0, length=4096 * len(files)).cast(
        dict(tiny_boot.trace.frame.schema)
    )  # fmt: skip
    metadata = dataclasses.replace(tiny_boot.metadata, disk_bytes=(4096 * len(files),))
    return touches_by_kind(Boot.from_parts(ReadTrace(frame, metadata), [small]))["what"].to_list()


def test_what_a_file_is(tiny_boot: Boot) -> None:
    files = {
        "$boot": "boot loader",
        "/boot/grub/grub.cfg": "boot loader",
        "/boot/vmlinuz-6.1": "kernel, initial RAM disk",
        "/usr/lib/modules/6.1/kernel/fs/ext4.ko": "kernel modules",
        "/lib/modules/6.1/modules.dep": "kernel modules",
        "/usr/lib/x86_64-linux-gnu/libc.so.6": "libraries",
        "/lib/systemd/systemd": "programs and their files",
        "/usr/lib/systemd/system/ssh.service": "configuration",
        "/etc/passwd": "configuration",
        "/var/log/syslog": "data and logs",
        "$inode_table": "file system's own",
        "/unheard-of": "other",
    }
    assert kinds_of(files, tiny_boot) == list(files.values())
    assert set(files.values()) <= set(KINDS_READ)


def test_what_a_file_of_one_of_several_file_systems_is(tiny_boot: Boot) -> None:
    files = {
        "@2/usr/sbin/nginx": "programs and their files",
        "@2/var/log/syslog": "data and logs",
        "@1/vmlinuz-6.1": "kernel, initial RAM disk",
        "@1/grub/grub.cfg": "boot loader",
        "$superblock@1": "file system's own",
        "@3-data/lib/dpkg/status": "data and logs",  # where /var is a file system of its own
    }
    assert kinds_of(files, tiny_boot) == list(files.values())


def test_map_of_first_touches(machines: dict[str, RecordedVM], make_tiny_boot: MakeBoot) -> None:
    text = json.dumps(draw(first_touch_map(machines["stranger"].boots[0])))
    for expected in ("boot done", "service ends", "disk 0 (MB)", "libraries  0.", "stranger, boot-1"):
        assert expected in text
    larger = make_tiny_boot("two", "boot-1").with_data_disk(1 << 20)
    last = larger.trace.frame["issued_ns"][-1]
    again = larger.trace.frame.head(1).with_columns(disk=1, issued_ns=last, completed_ns=last + 1)
    again = again.cast(dict(larger.trace.frame.schema))
    trace = ReadTrace(pl.concat([larger.trace.frame, again]), larger.metadata)
    specification = draw(first_touch_map(Boot.from_parts(trace, larger.manifests)))
    assert len(specification["vconcat"]) == 3
    assert "disk 1 (MB)" in json.dumps(specification["vconcat"][1])


def test_dots_of_boots_recorded_twice(machines: dict[str, RecordedVM]) -> None:
    pairs = repeatability(machines, all_pairs=True)
    assert pairs["kind"].to_list() == ["recorded twice"]
    specification = draw(repeatability_dots(pairs, machines))
    (rows,) = specification["datasets"].values()
    assert rows == pairs.to_dicts()
    blocks, order = (small["encoding"]["x"]["scale"]["domain"] for small in specification["hconcat"])
    least = pairs["same_blocks"][0]
    assert least < 100
    assert blocks == [pytest.approx(least - 0.05 * (100 - least)), 100]
    assert order == [0.99, 1]  # all equal 1
    unknown = pairs.with_columns(rank_correlation=pl.lit(None, pl.Float64))
    assert draw(repeatability_dots(unknown, machines))["hconcat"][1]["encoding"]["x"]["scale"]["domain"] == [
        0,
        1,
    ]
    domain = specification["hconcat"][0]["encoding"]["y"]["scale"]["domain"]
    assert domain == ["Debian 12", "golden"]


def test_a_boot_after_a_change_and_its_neighbours(machines: dict[str, RecordedVM]) -> None:
    found = after_changes(machines)
    assert found.select("vm", "boot", "before", "follows").rows() == [
        ("a-clone", "boot-2", "boot-1", "shutdown"),
        ("a-clone", "boot-3", "boot-2", "change"),
        ("a-clone", "boot-4", "boot-3", "shutdown"),
    ]
    boots = machines["a-clone"].boots
    one_less = 100 * boot_blocks(boots[1]).height / boot_blocks(boots[2]).height
    assert found["address"].to_list() == [100.0, pytest.approx(one_less, abs=0.1), 100.0]
    assert found["content"].equals(found["address"].rename("content"))
    assert found["path"].to_list() == [100.0, 0.0, 100.0]  # of the renamed files
    (rows,) = draw(after_changes_dots(found, machines))["datasets"].values()
    assert rows == found.to_dicts()
    assert after_changes({"golden": machines["golden"]}).height == 0


def test_what_had_been_read_so_far(machines: dict[str, RecordedVM]) -> None:
    curves = bytes_read_so_far(machines)
    golden = curves.filter(pl.col("vm") == "golden")
    frame = machines["golden"].boots[-1].trace.frame.filter(pl.col("op") == "read")
    assert golden["second"][0] == 0
    assert golden["second"][-1] == 0.165
    assert golden["mb"][-1] == round(int(frame["length"].sum()) / 1e6, 2)
    assert golden["mb"].is_sorted()
    middle = golden.row(30, named=True)
    by_then = frame.filter(pl.col("issued_ns") <= 165 * MS * 30 / 59)["length"].sum()
    assert middle["mb"] == round(int(by_then) / 1e6, 2)
    text = json.dumps(draw(reading_curves(curves, machines)))
    assert f'\\"golden\\", \\"{golden["mb"][-1]:.0f} MB in 0 s\\"' in text


def test_nothing_to_draw_is_said(tiny_boot: Boot) -> None:
    alone = {"one": machine(tiny_boot)}
    assert said_of_nothing(overlap_matrix(overlaps(alone), alone)) == "There are no two boots to compare."
    assert "recorded twice" in said_of_nothing(repeatability_dots(repeatability(alone), alone))
    assert "was changed" in said_of_nothing(after_changes_dots(after_changes(alone), alone))
    assert said_of_nothing(working_set_bars(working_sets({}), {})) == "No machine was recorded."
    assert said_of_nothing(reading_curves(bytes_read_so_far({}), {})) == "No machine was recorded."
    nothing = Boot.from_parts(
        ReadTrace(tiny_boot.trace.frame.clear(), tiny_boot.metadata), tiny_boot.manifests
    )
    assert "reads no block with contents" in said_of_nothing(first_touch_map(nothing))
    assert bytes_read_so_far({"one": machine(nothing)})["mb"].sum() == 0
    # what a chart needs of one boot alone
    draw(working_set_bars(working_sets(alone), alone))
    draw(first_touch_map(changed(tiny_boot, marks={})))
