"""Charts are Vega-Lite 5, small, and say what the timeline says."""

import dataclasses
import json

import altair as alt
import numpy as np
import polars as pl
import pytest

from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import IN_CACHE, SERVED
from vmrestorekit.show import charts, renderer
from vmrestorekit.show.chart_data import MAX_BINS, cache_levels, classify_reads, marks, reads_by_bin
from vmrestorekit.show.theme import SOURCES

CHARTS = {
    "reads_by_source": lambda restore, mount: charts.reads_by_source(restore),
    "reads_by_source of a mount": lambda restore, mount: charts.reads_by_source(mount),
    "cache_over_time": lambda restore, mount: charts.cache_over_time(restore),
    "cache_over_time of a mount": lambda restore, mount: charts.cache_over_time(mount),
    "compare_summaries": lambda restore, mount: charts.compare_summaries([restore, mount]),
}


def parts_of(specification):
    """Every object within a specification."""
    if isinstance(specification, dict):
        yield specification
    values = specification.values() if isinstance(specification, dict) else specification
    for value in values:
        if isinstance(value, (dict, list)):
            yield from parts_of(value)


@pytest.mark.parametrize("name", CHARTS)
def test_draws_as_vega_lite_5(name, restore, mount):
    vl_convert = pytest.importorskip("vl_convert")
    specification = renderer.vega_lite_5(CHARTS[name](restore, mount))
    assert specification["$schema"] == renderer.VEGA_LITE_5
    drawn = vl_convert.vegalite_to_svg(specification, vl_version="5.20")
    assert drawn.startswith("<svg")
    assert specification["description"]


@pytest.mark.parametrize("name", CHARTS)
def test_holds_few_rows_even_of_a_large_run(name, large, mount):
    specification = renderer.vega_lite_5(CHARTS[name](large, mount))
    assert max(len(rows) for rows in specification["datasets"].values()) <= 2000
    assert len(json.dumps(specification)) < 200_000


@pytest.mark.parametrize("name", CHARTS)
def test_axes_have_titles_and_marks_by_colour_have_another_sign(name, restore, mount):
    specification = renderer.vega_lite_5(CHARTS[name](restore, mount))
    for part in parts_of(specification):
        encoding = part.get("encoding", {})
        colour = encoding.get("color", {})
        if "field" not in colour:
            continue
        mark = part["mark"]["type"]
        # points by shape, lines by dash; bars and areas by letter and place in the stack
        if mark == "point":
            assert encoding["shape"]["field"] == colour["field"]
        elif mark == "line":
            assert encoding["strokeDash"]["field"] == colour["field"]
        else:
            assert all(text[1:3] == "  " for text in colour["scale"]["domain"])
        assert encoding["y"]["title"]


def test_renderer_is_enabled_and_emits_what_jupyterlab_draws(restore):
    assert alt.renderers.active == "vmrestorekit"
    bundle = charts.reads_by_source(restore)._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data[renderer.MIME_TYPE]["$schema"].endswith("/v5.20.1.json")
    assert "Where the VM's reads were served" in data["text/plain"]


# --- the data behind -----------------------------------------------------------------------------------


def test_every_completed_read_has_one_source(large):
    reads = classify_reads(large)
    done = large.events.filter(kind="vm_done")["request"].to_list()
    issued = large.events.filter(kind="vm_read")
    assert len(reads) == issued.filter(pl.col("request").is_in(done)).height
    worst = {}
    rank = {"read_destination": 1, "read_write_cache": 2, "cache_hit": 3, "cache_wait": 4, "cache_miss": 5}
    for kind, request, detail in large.events.select("kind", "request", "detail").iter_rows():
        if kind in rank and (not kind.startswith("cache_") or detail == 0):
            worst[request] = max(worst.get(request, 0), rank[kind])
    assert reads["rank"].to_list() == [worst.get(request, 0) for request in issued["request"].to_list()]
    assert set(reads["rank"]) == set(range(len(SOURCES)))


def test_bins_lose_nothing(large):
    reads, bins = classify_reads(large), reads_by_bin(large)
    assert bins["bytes"].sum() == reads["bytes"].sum()
    assert bins["reads"].sum() == reads.height
    assert bins["longest_wait_ms"].max() == pytest.approx(reads["wait_ns"].max() / 1e6)
    assert bins["start"].n_unique() <= MAX_BINS
    assert bins.select("start", "rank").is_duplicated().sum() == 0


@pytest.mark.parametrize("which", ["restore", "mount", "large"])
def test_cache_levels_are_those_of_the_state(which, request):
    timeline = request.getfixturevalue(which)
    levels = cache_levels(timeline, samples=40)
    for second, waiting, served, purged, evicted in levels.iter_rows():
        state = timeline.state_at(time_ns=round(second * 1e9))
        cached = state.flags & IN_CACHE > 0
        assert served == np.count_nonzero(cached & (state.flags & SERVED > 0))
        assert waiting + served == np.count_nonzero(cached)
        so_far = timeline.kinds[: state.index + 1]
        assert purged == np.count_nonzero(so_far == KINDS.index("purge"))
        assert evicted == np.count_nonzero(so_far == KINDS.index("evict"))
    assert levels["second"][-1] == timeline.end_ns / 1e9


def test_marks_name_the_story(restore, mount):
    assert marks(restore)["label"].to_list() == [
        "launch",
        "boot done",
        "relocation starts",
        "relocation ends",
    ]
    assert marks(mount)["label"].to_list() == ["launch", "boot done", "warning", "expiry"]


def test_a_figure_that_a_run_does_not_have_is_called_none_in_its_own_row(restore, mount):
    specification = renderer.vega_lite_5(
        charts.compare_summaries({"live_mount": mount, "instant_restore": restore})
    )
    relocation = next(
        part for part in specification["concat"] if part["title"]["text"].startswith("Relocation")
    )
    texts = [part["labelExpr"] for part in parts_of(relocation) if "labelExpr" in part]
    seconds = f"{restore.summary()['relocation_ns'] / 1e9:,.1f}"
    assert texts == [json.dumps({"Live mount": "none", "Instant restore": seconds}) + "[datum.value]"]
    orders = [part["sort"] for part in parts_of(relocation) if part.get("field") == "run" and "sort" in part]
    assert orders == [["Live mount", "Instant restore"]] * 2


def test_what_was_staged_for_nothing_is_what_the_vm_never_read(restore):
    figures = {"unread_first_set_bytes": 3 * 2**20, "wasted_bytes": 5 * 2**20}
    run = dataclasses.replace(restore, metrics={**restore.metrics, **figures})
    specification = renderer.vega_lite_5(charts.compare_summaries([run]))
    (part,) = (
        each for each in specification["concat"] if "Staged for boot, never read" in each["title"]["text"]
    )
    (row,) = specification["datasets"][part["data"]["name"]]
    assert row["value"] == 3


def test_runs_of_the_same_mode_keep_different_names(restore):
    specification = renderer.vega_lite_5(charts.compare_summaries([restore, restore]))
    assert "Instant restore, Instant restore (2)" in specification["description"]


@pytest.mark.parametrize("chart", [charts.reads_by_source, charts.cache_over_time])
def test_what_is_no_timeline(chart):
    with pytest.raises(ValueError, match="timeline: expected a Timeline"):
        chart([1, 2])


def test_nothing_to_compare(restore):
    with pytest.raises(ValueError, match="expected at least one Timeline, got none"):
        charts.compare_summaries([])
    with pytest.raises(ValueError, match=r"timelines\[1\]: expected a Timeline"):
        charts.compare_summaries([restore, "mount"])
