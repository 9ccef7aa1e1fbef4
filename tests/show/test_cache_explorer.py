"""The cache explorer without a browser: its figures against the engine, its controls, what it says."""

import dataclasses
import threading
import time

import altair as alt
import ipywidgets
import numpy as np
import polars as pl
import pytest
from test_stepper import every_widget

from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart, RestorePlan
from vmrestorekit.restore.replay import block_accesses, replay_cache
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.show.cache.charts import FIGURES, POLICIES, curves, heat_map
from vmrestorekit.show.cache.explorer import CacheExplorer
from vmrestorekit.show.cache.sweep import Sweep
from vmrestorekit.show.cache.words import sentence_of, table_at
from vmrestorekit.show.look import Look

MIB = 1 << 20
SIZES = (0.125, 0.25, 0.5, 1, 2)
KEYS = ("live_mount", "bare_mount", "instant_restore", "never_purged")


@pytest.fixture
def plan(tiny_boot):
    return RestorePlan(
        tiny_boot.disk_bytes,
        first_set=list(dict.fromkeys(block_accesses(tiny_boot.trace).tolist())),
        launch=LaunchRule("head_start", head_start_ns=100_000_000),
        relocation_start=RelocationStart("delay", delay_ns=50_000_000),
        relocation_request_bytes=64 << 10,
        fetch_bytes=64 << 10,
        stage_fetch_bytes=64 << 10,
    )


@pytest.fixture
def explorer(tiny_boot, plan):
    explorer = CacheExplorer(tiny_boot, plan, sizes_mib=SIZES)
    assert explorer.wait(60)
    return explorer


def row(explorer, size, policy):
    return explorer.table.filter(cache_bytes=size, policy=policy).row(0, named=True)


# --- what is shown is what the engine says ----------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_figures_are_those_of_the_simulation(explorer, tiny_boot, plan, key):
    explorer.case = key
    assert explorer.wait(60)
    of = {
        "live_mount": plan.with_mode("live_mount"),
        "bare_mount": plan.with_mode("live_mount", first_set=[]),
        "instant_restore": plan,
        "never_purged": plan.replace(purge=PurgeRule(by_run=False)),
    }[key]
    for size in explorer.sizes:
        for policy in explorer.policies:
            run = simulate(tiny_boot, of.replace(cache_bytes=size, eviction=policy)).summary()
            shown = row(explorer, size, policy)
            assert shown["stall_s"] == run["stall_ns"] / 1e9
            assert shown["hit_rate"] == pytest.approx(100 * run["hit_rate"])
            assert shown["misses"] == run["misses"]
            assert shown["evicted_mib"] == run["evicted_bytes"] / MIB
            assert shown["refetches"] == run["refetches_after_purge"]
            assert shown["media_mib"] == run["media_bytes"] / MIB
            assert shown["peak_mib"] == run["peak_cache_bytes"] / MIB


@pytest.mark.parametrize("key", KEYS)
def test_miss_ratios_are_those_of_the_replay(explorer, tiny_boot, key):
    explorer.case = key
    assert explorer.wait(60)
    accesses = explorer.cases[key].accesses
    read, asked = set(block_accesses(tiny_boot.trace).tolist()), set(accesses.tolist())
    if key.endswith("mount"):
        assert read > asked  # but for holes, and what was written before
        assert len(asked) == row(explorer, explorer.sizes[-1], "lru")["media_mib"] * 16 or key == "live_mount"
    else:  # the relocation asks, too
        assert len(asked) == row(explorer, explorer.sizes[-1], "lru")["media_mib"] * 16
    for size in explorer.sizes:
        for policy in POLICIES:
            expected = replay_cache(accesses, size // (64 << 10), policy).miss_ratio
            assert row(explorer, size, policy)["miss_ratio"] == pytest.approx(100 * expected)


def test_clones_find_what_the_first_has_read(make_tiny_boot):
    first, second = make_tiny_boot("one", "boot-1"), make_tiny_boot("two", "boot-1")
    alone, both = (
        CacheExplorer(first, clones=clones, sizes_mib=SIZES, case="clones")
        for clones in ([second], [second] * 2)
    )
    assert alone.wait(60)
    assert both.wait(60)
    large = alone.sizes[-1]
    once = simulate(first, RestorePlan(first.disk_bytes, mode="live_mount", cache_bytes=large)).summary()
    # whoever comes later is served from the cache: nothing is read from the backup again
    assert row(alone, large, "lru")["media_mib"] == once["media_bytes"] / MIB
    assert row(both, large, "lru")["media_mib"] == once["media_bytes"] / MIB
    assert row(both, large, "lru")["misses"] == once["misses"]
    accesses = both.cases["clones"].accesses
    assert 0 < len(accesses) <= 3 * len(block_accesses(first.trace))
    assert np.array_equal(
        accesses[: len(accesses) // 3], accesses[len(accesses) // 3 : 2 * len(accesses) // 3]
    )


def test_without_a_plan_nothing_is_staged(tiny_boot):
    explorer = CacheExplorer(tiny_boot, sizes_mib=SIZES)
    assert list(explorer.cases) == ["bare_mount", "instant_restore", "never_purged"]
    explorer.stop()


# --- controls are linked ----------------------------------------------------------------------------------


def test_slider_policy_and_map_go_together(explorer):
    explorer.size_choice.value = MIB
    explorer.policy_choice.value = "arc"
    assert (explorer.cache_bytes, explorer.policy) == (MIB, "arc")
    assert explorer.map.cell == explorer.policies.index("arc") * len(SIZES) + SIZES.index(1)
    explorer.map.cell = 1  # the first row, the second column
    assert (explorer.policy, explorer.cache_bytes) == (explorer.policies[0], MIB // 4)
    assert (explorer.policy_choice.value, explorer.size_choice.value) == (explorer.policies[0], MIB // 4)
    assert explorer.sentence.startswith("FIFO, 256 KiB: ")


def test_every_change_is_announced_and_drawn(explorer):
    for change in (
        lambda: setattr(explorer, "cache_bytes", MIB // 8),
        lambda: setattr(explorer, "policy", "sieve"),
        lambda: setattr(explorer.case_choice, "value", "bare_mount"),
    ):
        status, drawn, table = explorer._status.value, explorer.chart.outputs, explorer._at_this_size.value
        change()
        assert explorer.wait(60)
        assert explorer._status.value != status
        assert explorer.chart.outputs != drawn
        assert explorer._at_this_size.value != table
        assert explorer._status.value.count('<p role="status" aria-live="polite">') == 1
        assert explorer.map.text == explorer.sentence


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_has_its_chart_and_its_map(explorer, figure):
    explorer.figure_choice.value = figure
    chart = explorer.export._chart()
    assert isinstance(chart, alt.TopLevelMixin)  # Altair has checked it
    assert len(chart.hconcat) == (1 if figure == "miss_ratio" else 2)
    assert FIGURES[figure][0] in explorer.map.label
    assert explorer.map.svg.count("<rect") == len(SIZES) * len(explorer.policies)


def test_every_control_has_a_text(explorer):
    controls = [
        widget
        for widget in every_widget(explorer)
        if not isinstance(widget, (ipywidgets.Box, ipywidgets.HTML, ipywidgets.Output, Look))
        and widget is not explorer.map
    ]
    assert len(controls) == 9
    assert all(control.description and control.tooltip for control in controls)
    assert explorer.map.label


def test_export_saves_chart_and_table(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explorer.export.format.value = ".parquet"
    assert pl.read_parquet(explorer.export.save()).equals(explorer.table)
    explorer.export.format.value = ".svg"
    assert b"<svg" in explorer.export.save().read_bytes()


# --- work in the background -------------------------------------------------------------------------------


def test_stop_keeps_what_is_known_and_go_on_does_the_rest(explorer):
    case = explorer.cases["bare_mount"]
    may_go, simulated = threading.Semaphore(7), []

    def slowly(**cache):
        may_go.acquire()
        simulated.append((cache["cache_bytes"], cache["eviction"]))
        return case.run(**cache)

    explorer.cases["bare_mount"] = dataclasses.replace(case, run=slowly)
    explorer.cache_bytes = MIB
    explorer.case = "bare_mount"
    while len(simulated) < 7:
        time.sleep(0.01)
    assert explorer.running
    assert explorer.stop_button.description == "Stop"
    threading.Timer(0.05, may_go.release).start()  # the one under way is finished
    explorer.stop_button.click()
    assert not explorer.running
    assert explorer.stop_button.description == "Go on"
    assert len(simulated) == 8
    assert {size for size, _ in simulated[:6]} == {MIB}  # the chosen size first
    assert explorer.progress.value == len(POLICIES) + 8
    assert "not simulated yet" in sentence_of(explorer.table, 2 * MIB, "arc")
    may_go.release(100)
    explorer.stop_button.click()
    assert explorer.wait(60)
    assert len(simulated) == len(set(simulated)) == len(SIZES) * 6  # nothing twice
    assert explorer.progress.value == explorer.progress.max
    assert explorer.stop_button.disabled


def test_one_by_one_only_what_is_chosen_is_simulated(tiny_boot, plan):
    explorer = CacheExplorer(tiny_boot, plan, sizes_mib=SIZES, size_mib=2, one_by_one=True)

    def known():
        assert explorer.wait(60)
        return set(explorer.table.drop_nulls("stall_s")["cache_bytes"])

    assert known() == {2 * MIB}
    assert explorer.stop_button.description == "All sizes"
    assert "nothing is evicted" not in explorer.sentence  # that needs all sizes
    explorer.cache_bytes = MIB
    assert known() == {MIB, 2 * MIB}
    explorer.stop_button.click()
    assert known() == set(explorer.sizes)
    assert explorer.stop_button.disabled


def test_what_fails_in_the_background_is_told(explorer):
    def fails(**cache):
        raise RuntimeError("no more paper")

    explorer.cases["bare_mount"] = dataclasses.replace(explorer.cases["bare_mount"], run=fails)
    explorer.case = "bare_mount"
    assert explorer.wait(60)
    assert "Not all could be simulated: RuntimeError: no more paper." in explorer._status.value
    explorer.case = "live_mount"
    assert "no more paper" not in explorer._status.value


def test_a_sweep_that_is_started_anew_leaves_the_old_tasks():
    done = []
    sweep = Sweep(lambda: None)
    sweep.start(
        {number: lambda number=number: (time.sleep(0.02), done.append(number)) for number in range(500)}
    )
    sweep.start({"other": lambda: done.append("other")})
    assert sweep.wait(20)
    assert done[-1] == "other"
    assert len(done) < 400


# --- how quick it answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [False, True], ids=["done", "while simulating"])
def test_slider_answers_within_a_tenth_of_a_second(explorer, busy):
    large = CacheExplorer(np.random.default_rng(1).integers(0, 3000, 8000))  # SYNTHETIC
    large.wait(60)
    if busy:  # as if simulations were under way
        large._sweep.start(
            {number: lambda: np.sort(np.random.default_rng(2).random(200_000)) for number in range(10**4)}
        )
    took = []
    for size in large.sizes:
        start = time.perf_counter()
        large.size_choice.value = size
        took.append(time.perf_counter() - start)
    large.stop()
    assert np.median(took) < 0.1


# --- accesses alone ---------------------------------------------------------------------------------------


def test_block_numbers_are_replayed_only():
    explorer = CacheExplorer([1, 2, 3, 4, 1, 2, 3, 4], sizes_mib=[0.0625, 0.125, 0.25], size_mib=0.25)
    assert explorer.wait(60)
    assert explorer.table.columns == ["cache_bytes", "policy", "miss_ratio"]
    assert row(explorer, MIB // 8, "lru")["miss_ratio"] == 100
    assert row(explorer, MIB // 4, "lru")["miss_ratio"] == 50
    assert explorer.sentence == (
        "LRU, 256 KiB: 50.0 % of the accesses miss; Belady's optimum, which knows the future, misses 50.0 %. "
        "At 50.0 % all curves end: a block's first access always misses."
    )
    assert explorer.figure_choice.options == ((FIGURES["miss_ratio"][0], "miss_ratio"),)
    assert "replay" in explorer._of_map.value


def test_a_trace_is_cut_into_blocks(tiny_boot):
    explorer = CacheExplorer(tiny_boot.trace, sizes_mib=SIZES)
    assert explorer.wait(60)
    expected = replay_cache(tiny_boot.trace, 4, "clock").miss_ratio
    assert row(explorer, MIB // 4, "clock")["miss_ratio"] == pytest.approx(100 * expected)


# --- words ------------------------------------------------------------------------------------------------


def made_up(stalls, evicted=0.0):
    """A SYNTHETIC table: for each policy its stall at 1 and at 2 MiB, where nothing is evicted."""
    rows = [
        {"cache_bytes": size, "policy": policy, "stall_s": stalls[policy] if size == MIB else 1.0}
        | {"evicted_mib": evicted if size == MIB else 0.0, "hit_rate": 50.0, "miss_ratio": 10.0}
        for size in (MIB, 2 * MIB)
        for policy in stalls
    ]
    return pl.DataFrame(rows)


def test_sentence_says_who_is_best_and_what_is_enough():
    table = made_up({"fifo": 9.0, "lru": 5.0, "arc": 2.0}, evicted=3.0)
    assert "Best at this size is ARC with 2.0 s." in sentence_of(table, MIB, "lru")
    assert "None is better at this size; FIFO is the worst with 9.0 s." in sentence_of(table, MIB, "arc")
    assert "All 3 policies do the same at this size." in sentence_of(table, 2 * MIB, "arc")
    assert sentence_of(table, MIB, "lru").endswith(
        "From 2 MiB on nothing is evicted, and the policy does not matter."
    )
    always = made_up({"fifo": 9.0, "lru": 5.0}, evicted=3.0).with_columns(evicted_mib=1.0)
    assert "nothing is evicted" not in sentence_of(always, MIB, "lru")
    part = table.with_columns(stall_s=pl.when(pl.col("policy") == "fifo").then(None).otherwise("stall_s"))
    assert "Best" not in sentence_of(part, MIB, "lru")


def test_table_marks_the_chosen_policy():
    html = table_at(made_up({"fifo": 9.0, "lru": 5.0}), MIB, "lru")
    assert html.count("●") == 1
    assert "● LRU" in html
    assert "<caption>All policies with a read cache of 1 MiB</caption>" in html


def test_map_grades_from_best_to_worst_and_leaves_unknown_cells_open():
    svg = heat_map([[0.0, 10.0], [None, 5.0]], "stall_s", [MIB, 2 * MIB], ["lru", "arc"])
    assert svg.index("#009E73") < svg.index("#D55E00")  # best before worst
    assert svg.count("…") == 1
    better_when_large = heat_map([[0.0, 10.0]], "hit_rate", [MIB, 2 * MIB], ["lru"])
    assert better_when_large.index("#D55E00") < better_when_large.index("#009E73")
    assert heat_map([[None, None]], "misses", [MIB, 2 * MIB], ["lru"]).count("…") == 2


def test_chart_marks_the_chosen_one_and_draws_with_unknown_figures():
    nothing = made_up({"fifo": 9.0, "lru": 5.0}).with_columns(stall_s=pl.lit(None, pl.Float64))
    chart = curves(nothing, "stall_s", MIB, "lru", "SYNTHETIC").to_dict()
    assert chart["hconcat"][1]["layer"][1]["data"]["values"] == []
    assert "datum.policy == 'lru'" in str(chart)
    assert chart["hconcat"][0]["layer"][0]["data"]["values"] == [{"size": 1.0}]


# --- bad arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"boot_or_accesses": "lru"},
            "boot_or_accesses: expected a Boot, a ReadTrace or a list of block numbers",
        ),
        ({"boot_or_accesses": []}, r"got list \(as an array float64 of shape \(0,\)\)"),
        ({"boot_or_accesses": [1.5]}, "boot_or_accesses: expected"),
        (
            {"boot_or_accesses": [1], "plan": RestorePlan((MIB,))},
            "expected a Boot to restore, got accesses alone",
        ),
        ({"plan": 3}, "plan: expected a RestorePlan, got int"),
        ({"plan": RestorePlan((MIB,))}, "plan: expected one for the disks of SYNTHETIC"),
        ({"clones": [3]}, r"clones\[0\]: expected a Boot, got int"),
        ({"sizes_mib": [2, 1]}, "sizes_mib: expected at least two, rising"),
        ({"sizes_mib": [0.01, 1]}, "from a block of 64 KiB on"),
        ({"sizes_mib": ["large"]}, "sizes_mib: expected numbers"),
        ({"case": "tape"}, "case: expected one of bare_mount, instant_restore, never_purged, got 'tape'"),
        ({"policy": "belady"}, "policy: expected one of fifo, lru, .*, got 'belady'"),
        ({"size_mib": 3}, "size_mib: expected one of 1, 2, .*, got 3"),
        ({"hardware": "punched cards"}, "hardware: expected"),
    ],
)
def test_bad_arguments(tiny_boot, arguments, said):
    with pytest.raises(ValueError, match=said):
        CacheExplorer(**({"boot_or_accesses": tiny_boot} | arguments))
