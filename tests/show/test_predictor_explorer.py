"""The predictor explorer without a browser: on SYNTHETIC machines; how quick it is, on a recorded one."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

sys.path.append(str(Path(__file__).parents[1] / "predict"))
from synthetic_boots import small_machine

from vmrestorekit.predict.baselines import UnionReplay
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.metrics import fetched_scores, needed_blocks
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.replay import LastBootReplay
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.show.prediction.block_map import FOUND, MISSED, NEITHER, WASTED, StoredCells, block_states
from vmrestorekit.show.prediction.charts import NO_PREDICTION, ORACLE
from vmrestorekit.show.prediction.data import CURVE_SCHEMA, Needs, Prediction, budget_curve, files_of
from vmrestorekit.show.prediction.explorer import PredictorExplorer, PredictorExplorerError
from vmrestorekit.show.prediction.reasons import files_in, what_it_is

BLOCK_BYTES = 8192
MACHINES = {
    name: small_machine(name, seed) for seed, name in enumerate(("alpha", "beta", "gamma", "delta"), 1)
}
DELTA = MACHINES["delta"][-1]


@pytest.fixture(scope="module")
def predictors():
    boots = [boot for name in ("alpha", "beta", "gamma") for boot in MACHINES[name]]
    return {
        "learned": LearnedPredictor().fit(boots),
        "by path": UnionReplay(by="path").fit(boots),
        "by content": UnionReplay(by="content").fit(boots),
    }


@pytest.fixture
def explorer(predictors):
    made = PredictorExplorer(predictors, DELTA, "flash", block_bytes=BLOCK_BYTES, simulate=False)
    yield made
    made.stop()
    made.wait()


@pytest.fixture
def needs():
    return Needs.of(DELTA, BLOCK_BYTES)


# the data


def test_needs_are_those_of_the_boot(needs):
    small = needed_blocks(DELTA)
    read = {int(block) // 2 for block in np.flatnonzero(small.read)}
    assert set(np.flatnonzero(needs.read).tolist()) == read
    assert set(np.flatnonzero(needs.stored).tolist()) == {int(b) // 2 for b in np.flatnonzero(small.stored)}
    assert needs.needed == len(read)
    assert needs.grid[0] == 0
    assert needs.grid[-1] == 2 * needs.needed
    assert list(needs.grid) == sorted(set(needs.grid))


@pytest.mark.parametrize("name", ["learned", "by path", "by content"])
def test_curve_counts_what_is_staged(needs, predictors, name):
    prediction = Prediction.of(name, predictors[name], needs)
    curve = budget_curve(prediction)
    assert curve.schema == CURVE_SCHEMA
    for budget, row in zip(needs.grid, curve.iter_rows(named=True), strict=True):
        staged = set(prediction.first_set(budget).tolist())  # what a plan of this budget stages
        found = {block for block in staged if needs.read[block]}
        assert row["recall"] == pytest.approx(len(found) / needs.needed)
        assert row["precision"] == (pytest.approx(len(found) / len(staged)) if staged else None)
        assert row["waste_mb"] == pytest.approx((len(staged) - len(found)) * BLOCK_BYTES / 1e6)
        assert row["staged_mb"] == pytest.approx(len(staged) * BLOCK_BYTES / 1e6)


def test_first_set_and_waste_are_those_of_a_plan(needs, predictors):
    prediction = Prediction.of("learned", predictors["learned"], needs)
    for budget in needs.grid[::7]:
        plan = make_plan(
            predictors["learned"], DELTA, block_bytes=BLOCK_BYTES, budget_bytes=budget * BLOCK_BYTES
        )
        assert plan.first_set.tolist() == prediction.first_set(budget).tolist()
        assert fetched_scores(plan, DELTA)["unread_bytes"] == prediction.wasted(budget) * BLOCK_BYTES


def test_files_add_up_to_what_is_read_and_wasted(needs, predictors):
    prediction = Prediction.of("by path", predictors["by path"], needs)
    small = needed_blocks(DELTA)
    for budget in needs.grid[::9]:
        table = files_of(prediction, budget)
        assert table["missed_kib"].sum() + table["found_kib"].sum() == 4 * int(small.read.sum())
        states = block_states(prediction, budget)
        wasted = np.isin(needs.small_block, np.flatnonzero(states == WASTED)) & needs.small_stored
        assert table["wasted_kib"].sum() == 4 * int(wasted.sum())


def test_states_say_what_is_staged_and_what_is_read(needs, predictors):
    prediction = Prediction.of("by path", predictors["by path"], needs)
    states = block_states(prediction, needs.usual)
    staged = np.isin(np.arange(needs.read.size), prediction.first_set(needs.usual))
    assert (states == FOUND).tolist() == (staged & needs.read).tolist()
    assert (states == WASTED).tolist() == (staged & ~needs.read).tolist()
    assert (states == MISSED).tolist() == (~staged & needs.read).tolist()
    assert (states == NEITHER).tolist() == (~staged & ~needs.read).tolist()


def test_every_stored_block_has_one_cell(needs):
    cells = StoredCells(needs)
    blocks = np.concatenate([cells.blocks_of(cell) for cell in range(cells.count)])
    assert blocks.tolist() == np.flatnonzero(needs.stored).tolist()
    assert all(block in cells.blocks_of(cells.cell_of(block)) for block in blocks.tolist())


def test_a_block_is_told_by_its_files(needs):
    block = int(np.flatnonzero(needs.read)[3])
    files = files_in(needs, block)
    assert 1 <= sum(stored for stored, _ in files.values()) <= 2
    assert all(path in what_it_is(needs, block) for path in files)


# the widget


def test_begins_with_the_usual_budget(explorer):
    assert explorer.predictor == "learned"
    assert explorer.budget == explorer.needs.usual
    assert explorer.slider.value == explorer.step
    assert "not simulated yet" in explorer._status.value
    assert 'role="status" aria-live="polite"' in explorer._status.value


def test_slider_moves_map_tables_and_charts(explorer):
    before = [explorer.panel.map.svg, explorer._missed.value, explorer._figures.value, explorer._status.value]
    explorer.slider.value = 5
    after = [explorer.panel.map.svg, explorer._missed.value, explorer._figures.value, explorer._status.value]
    assert all(one != other for one, other in zip(before, after, strict=True))
    rules = _values_named(explorer.chart.chart.to_dict(), "now")
    assert rules
    assert all(each == [{"budget_mb": explorer.needs.megabytes(explorer.budget)}] for each in rules)
    assert explorer.chart.outputs[0]["data"]["application/vnd.vegalite.v5+json"]


def _values_named(part, name):
    if isinstance(part, dict):
        mine = [part["values"]] if part.get("name") == name and "values" in part else []
        return mine + [found for each in part.values() for found in _values_named(each, name)]
    return [found for each in part for found in _values_named(each, name)] if isinstance(part, list) else []


def test_each_predictor_and_the_oracle_can_be_chosen(explorer):
    for name in ("by path", "by content", ORACLE):
        explorer.predictor_choice.value = name
        assert explorer.predictor == name
        assert name in explorer._status.value
    assert "Missed files: 0" in explorer._missed.value


def test_simulates_in_the_background_what_a_plan_costs(explorer):
    explorer.simulate_button.click()
    explorer.wait()
    assert not explorer.running
    assert explorer.progress.value == explorer.progress.max
    assert explorer.stop_button.disabled
    assert explorer.simulate_button.disabled
    curves = explorer.curves
    assert curves["stall_s"].null_count() == 0
    for name, step in (("learned", 25), ("by path", 7)):
        budget = explorer.budgets[step]
        plan = make_plan(
            explorer.predictions[name].predictor,
            DELTA,
            mode="live_mount",
            block_bytes=BLOCK_BYTES,
            budget_bytes=budget * BLOCK_BYTES,
        )
        told = curves.filter(predictor=name, budget_mb=explorer.needs.megabytes(budget))["stall_s"].item()
        assert told == simulate(DELTA, plan, "flash").summary()["stall_ns"] / 1e9
    assert curves.filter(predictor=NO_PREDICTION)["stall_s"].n_unique() == 1
    assert "held up for" in explorer._status.value
    assert len(_values_named(explorer.chart.chart.to_dict(), "stall_s")[0]) == curves.height


def test_can_be_stopped_and_goes_on(explorer, monkeypatch):
    stall = type(explorer._stalls)._stall

    def slow(self, name, budget):
        if len(self.seconds) == 2:
            self.stop()
        return stall(self, name, budget)

    monkeypatch.setattr(type(explorer._stalls), "_stall", slow)
    explorer.simulate()
    explorer.wait()
    assert explorer.progress.value == 3
    assert not explorer.simulate_button.disabled
    monkeypatch.setattr(type(explorer._stalls), "_stall", stall)
    explorer.simulate_button.click()
    explorer.wait()
    assert explorer.progress.value == explorer.progress.max


def test_says_what_went_wrong_in_the_background(explorer, monkeypatch):
    def fails(self, name, budget):
        raise RuntimeError("no room left")

    monkeypatch.setattr(type(explorer._stalls), "_stall", fails)
    explorer.simulate()
    explorer.wait()
    assert "no room left" in explorer._status.value


def test_a_cell_leads_to_a_block_and_its_reasons(explorer):
    missed = int(np.flatnonzero(explorer.needs.read)[0])
    explorer.panel.choose(missed)
    assert explorer.block == missed
    assert what_it_is(explorer.needs, missed).split(",")[0] in explorer._status.value
    explorer.panel.why_button.click()
    assert "with probability" in explorer.panel._because.value
    assert "speaks" not in explorer.panel._because.value
    explorer.predictor = "by path"
    explorer.panel.why_button.click()
    assert "the same place of a file of the same path" in explorer.panel._because.value
    explorer.predictor = "learned"  # what was told once is shown again
    assert "with probability" in explorer.panel._because.value


def test_walking_over_the_map_chooses_blocks(explorer):
    explorer.panel.map.cell = 0
    first = explorer.block
    assert explorer.needs.stored[first]
    explorer.panel.map.cell = 1
    assert explorer.block != first
    choice = explorer.panel.block_choice
    choice.value = choice.options[-1][1]
    assert explorer.block == choice.value
    assert explorer.panel.map.text


def test_why_without_a_block_says_what_to_do(explorer):
    explorer.panel.why_button.click()
    assert "Choose a block first" in explorer._status.value
    with pytest.raises(ValueError, match="expected a chosen block"):
        explorer.explain()


def test_files_say_who_has_them(explorer):
    files = explorer.files_at("learned", explorer.step)
    assert set(files["why"]) <= {
        "",
        "others have it and read it",
        "others have it, none reads it",
        "no machine learned from has it",
    }
    assert (files["why"] != "").any()
    assert explorer.files_at("by path", 3)["why"].to_list().count("") > 0


@pytest.mark.parametrize("ending", ["Parquet (table)", "HTML (page)"])
def test_saves_what_it_shows(explorer, tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    explorer.export.format.label = ending
    path = explorer.export.save()
    assert path is not None
    if path.suffix == ".parquet":
        assert pl.read_parquet(path).equals(explorer.curves)


def test_every_control_has_a_label_and_a_tooltip(explorer):
    controls = [
        explorer.predictor_choice,
        explorer.slider,
        explorer.simulate_button,
        explorer.stop_button,
        explorer.progress,
        explorer.panel.block_choice,
        explorer.panel.why_button,
    ]
    assert all(each.description and each.tooltip for each in controls)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"predictor": {}}, "at least one predictor"),
        ({"predictor": "learned"}, "got str"),
        ({"predictor": UnionReplay()}, "has not learned yet"),
        ({"predictor": {ORACLE: UnionReplay()}}, "names other than"),
        ({"boot": "boot-2"}, "expected a recorded Boot, got str"),
        ({"mode": "full_restore"}, "expected one of instant_restore, live_mount"),
        ({"hardware": "floppy"}, "floppy"),
        ({"block_bytes": 5000}, "5000"),
        ({"width": -3.5}, "width"),
    ],
)
def test_says_what_it_cannot_show(predictors, arguments, said):
    usual = {"predictor": predictors["by path"], "boot": DELTA, "simulate": False}
    with pytest.raises(ValueError, match=said):
        PredictorExplorer(**(usual | arguments))


def test_a_wrong_choice_changes_nothing(explorer):
    before = explorer.predictor, explorer.step
    with pytest.raises(PredictorExplorerError, match="expected one of learned, by path"):
        explorer.predictor = "nobody"
    with pytest.raises(PredictorExplorerError, match="expected a budget from 0"):
        explorer.step = 1000
    with pytest.raises(ValueError, match="backup copy stores"):
        explorer.panel.choose(10**7)
    assert (explorer.predictor, explorer.step) == before


def test_a_predictor_alone_gets_a_name(predictors):
    made = PredictorExplorer(predictors["by path"], DELTA, "flash", simulate=False)
    assert made.names == ("by path",)


def test_answers_within_a_tenth_of_a_second(packaged_corpus):
    machine = packaged_corpus["trixie-cache"]
    others = {
        f"by {way}": LastBootReplay(by=way).fit(packaged_corpus["bookworm-web"].boots[0])
        for way in ("content", "path")
    }
    explorer = PredictorExplorer(others, machine.boots[0], simulate=False)
    took = []
    for step in range(len(explorer.budgets)):
        begun = time.process_time()  # what this test takes, not what else runs on the machine
        explorer.slider.value = step
        took.append(time.process_time() - begun)
    assert statistics.median(took) < 0.1
