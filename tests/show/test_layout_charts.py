"""Charts of backup copies are small Vega-Lite 5, and say what the functions behind them say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tiny_boots import TINY_DISK_BYTES

from vmrestorekit.backup.layout import BackupLayout, CopySettings
from vmrestorekit.backup.touched import containers_touched, read_amplification
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import renderer
from vmrestorekit.show.layout_charts import amplification_by_frame, boot_in_containers, time_by_chain_length
from vmrestorekit.traces.boots import Boot

BLOCK = 16 * 1024


def layout_of(boot: Boot, frame_bytes: int | None = None) -> BackupLayout:
    copy_settings = CopySettings(container_blocks=8, zstd_level=frame_bytes and 1, frame_bytes=frame_bytes)
    return BackupLayout.full(boot.manifests, BLOCK, copy_settings)


def restore(boot: Boot, hardware: str) -> Timeline:
    plan = RestorePlan((TINY_DISK_BYTES,), block_bytes=BLOCK)
    return simulate(boot, plan, hardware, detail="summary")


def data_of(specification: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for rows in specification["datasets"].values() for row in rows]


def draw(chart: Any) -> dict[str, Any]:
    vl_convert = pytest.importorskip("vl_convert")
    specification = renderer.vega_lite_5(chart)
    assert specification["$schema"] == renderer.VEGA_LITE_5
    assert vl_convert.vegalite_to_svg(specification, vl_version="5.20").startswith("<svg")
    assert specification["description"]
    return specification


def test_a_cell_for_each_container(tiny_boot: Boot) -> None:
    layouts = {"full": layout_of(tiny_boot), "again": layout_of(tiny_boot)}
    specification = draw(boot_in_containers(tiny_boot, layouts))
    touched = containers_touched(tiny_boot.trace, layouts["full"])
    rows = data_of(specification)
    # equal data of the two is held once
    assert [row["read"] for row in rows] == touched["read"].to_list()
    assert [row["chunk_begins"] for row in rows] == ["0", *[""] * (len(rows) - 1)]
    assert f"in {(touched['read'] > 0).sum()} of {len(rows)} containers" in json.dumps(specification)


def test_a_bar_for_each_frame_size(tiny_boot: Boot) -> None:
    layouts = {size: layout_of(tiny_boot, size) for size in (4 * BLOCK, BLOCK)}
    rows = data_of(draw(amplification_by_frame(tiny_boot, layouts)))
    assert [row["together"] for row in rows] == ["16 KiB", "64 KiB"]
    expected = [read_amplification(tiny_boot.trace, layouts[size]) for size in (BLOCK, 4 * BLOCK)]
    assert [row["times"] for row in rows] == expected
    assert expected[0] < expected[1]


def test_a_point_for_each_chain_relative_to_the_shortest(tiny_boot: Boot) -> None:
    runs = {"tape": {1: restore(tiny_boot, "tape"), 0: restore(tiny_boot, "flash")}}
    specification = draw(time_by_chain_length(runs, ("stall_ns", "media_fetches")))
    rows = data_of(specification)
    assert [row["length"] for row in rows] == [0, 1]
    assert rows[0]["relative_stall_ns"] == 1
    stalls = [runs["tape"][length].summary()["stall_ns"] / 1e9 for length in (0, 1)]
    assert [row["stall_ns"] for row in rows] == stalls
    assert rows[1]["relative_stall_ns"] == stalls[1] / stalls[0]


def test_nothing_to_draw_and_figures_that_are_none(tiny_boot: Boot) -> None:
    with pytest.raises(ValueError, match="layouts: expected at least one BackupLayout"):
        boot_in_containers(tiny_boot, {})
    with pytest.raises(ValueError, match="layouts: expected at least one BackupLayout"):
        amplification_by_frame(tiny_boot, {})
    with pytest.raises(ValueError, match="runs: expected at least one restore under each name"):
        time_by_chain_length({"tape": {}})
    with pytest.raises(ValueError, match="figures: expected some of stall_ns"):
        time_by_chain_length({"tape": {0: restore(tiny_boot, "flash")}}, ("speed",))
    with pytest.raises(TypeError, match="runs: expected Timelines"):
        time_by_chain_length({"tape": {0: "soon"}})  # type: ignore[dict-item]
