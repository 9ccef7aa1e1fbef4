"""The relocation explorer without a browser: choices, what is compared, linked views, waiting, export."""

import dataclasses
import threading
import time

import numpy as np
import polars as pl
import pytest
from test_stepper import every_widget

import vmrestorekit as vr
from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import LaunchRule, PlanError, PurgeRule, RelocationStart
from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.replay import block_accesses
from vmrestorekit.show.course import BINS, SOURCE_NAMES, course
from vmrestorekit.show.relocation import explorer as module
from vmrestorekit.show.relocation.block import block_history, interest
from vmrestorekit.show.relocation.choices import SEQUENCES, Choice, sequences_of
from vmrestorekit.show.relocation.explorer import RelocationExplorer

BLOCK, KIB = 4096, 1024
MS = 1_000_000


@pytest.fixture
def plan(tiny_boot):
    """A restore whose relocation starts with the launch, and whose read cache is small."""
    return vr.RestorePlan(
        tiny_boot.disk_bytes,
        block_bytes=BLOCK,
        first_set=list(dict.fromkeys(block_accesses(tiny_boot.trace, BLOCK).tolist()))[:80],
        launch=LaunchRule("head_start", head_start_ns=500 * MS),
        relocation_start=RelocationStart("delay", delay_ns=0),
        purge=PurgeRule(run_length=4),
        cache_bytes=600 * KIB,
        relocation_request_bytes=32 * KIB,
    )


@pytest.fixture
def patient(monkeypatch):
    """Everything is waited for: what comes does not depend on how busy this machine is."""
    monkeypatch.setattr(module, "PATIENCE_S", 120)


@pytest.fixture
def explorer(patient, tiny_boot, plan):
    return RelocationExplorer(tiny_boot, plan, "disk_library")


def layout_of(boot, block_bytes=BLOCK):
    return BackupLayout.full(boot.manifests, block_bytes)


def texts(widget):
    return [each.value for each in every_widget(widget) if type(each).__name__ == "HTML"]


# --- choices ----------------------------------------------------------------------------------------------


def test_own_choice_changes_nothing(tiny_boot, plan):
    orders = sequences_of(tiny_boot, plan, layout_of(tiny_boot))
    odd = plan.replace(
        relocation_start=RelocationStart("delay", delay_ns=1_234_567_891),
        stage_ahead_bytes=123_456,
        purge=PurgeRule(by_indication=True, by_period=True, run_length=5),
    )
    for each in (plan, odd):
        assert Choice.of(each).applied(each, orders).equals(each)


def test_each_choice_is_applied(tiny_boot, plan):
    orders = sequences_of(tiny_boot, plan, layout_of(tiny_boot))

    def applied(**changes):
        return dataclasses.replace(Choice.of(plan), **changes).applied(plan, orders)

    for name in set(SEQUENCES) - {"planned", "ascending"}:
        assert np.array_equal(applied(sequence=name).sequence, orders[name])
    assert applied(start="at_once").relocation_start.rule == "at_once"
    assert applied(delay_s=7).relocation_start.delay_ns == 7_000_000_000
    load = applied(start="load", load_percent=20).relocation_start
    assert (load.rule, load.load_share) == ("load", 0.2)
    assert applied(priorities="strict").priorities == "strict"
    assert applied(ahead_percent=50).stage_ahead_bytes == plan.cache_bytes // 2
    assert applied(run_length=9).purge == PurgeRule(run_length=9)
    assert applied(purge="off").purge == PurgeRule(by_run=False, run_length=4)
    assert applied(purge="indication").purge == PurgeRule(by_run=False, by_indication=True, run_length=4)


def test_sequences_name_every_stored_block_once(tiny_boot, plan):
    orders = sequences_of(tiny_boot, plan, layout_of(tiny_boot))
    assert "planned" not in orders
    for order in orders.values():
        assert sorted(order) == sorted(orders["ascending"])
    wanted = [block for block in plan.first_set if block in set(orders["ascending"].tolist())]
    assert orders["boot_last"][-len(wanted) :].tolist() == wanted
    assert orders["boot_first"][: len(wanted)].tolist() == wanted
    own = plan.replace(relocation_sequence=orders["backwards"])
    assert np.array_equal(sequences_of(tiny_boot, own, layout_of(tiny_boot))["planned"], orders["backwards"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sequence": "upwards"}, "sequence: expected one of ascending"),
        ({"start": "never"}, "start: expected one of at_once"),
        ({"delay_s": -1}, "delay_s: expected a whole number of at least 0, got -1"),
        ({"delay_s": 1.5}, "delay_s: expected a whole number"),
        ({"load_percent": 101}, "load_percent: expected a whole number from 1 to 100"),
        ({"run_length": 1}, "run_length: expected a whole number of at least 2"),
        ({"ahead_percent": True}, "ahead_percent: expected a whole number"),
    ],
)
def test_choices_that_are_none(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Choice(**changes)


# --- what it is given -------------------------------------------------------------------------------------


def test_what_does_not_belong_together(tiny_boot, plan):
    other = vr.RestorePlan((8192,), block_bytes=4096)
    for arguments, sentence in [
        (("boot", plan), "boot: expected a Boot, got str"),
        ((tiny_boot, 3), "plan: expected a RestorePlan, got int"),
        ((tiny_boot, plan.with_mode("live_mount")), "plan: expected an instant restore.*got live_mount"),
        ((tiny_boot, other), "plan: expected one for disks of"),
    ]:
        with pytest.raises(PlanError, match=sentence):
            RelocationExplorer(*arguments)
    with pytest.raises(ValueError, match=r"layout: expected disks of .* in blocks of 4096"):
        RelocationExplorer(tiny_boot, plan, layout=layout_of(tiny_boot, 8192))
    with pytest.raises(ValueError, match="choice: expected a Choice, got dict"):
        RelocationExplorer(tiny_boot, plan, choice={})
    with pytest.raises(ValueError, match="hardware: expected"):
        RelocationExplorer(tiny_boot, plan, "floppy")


def test_begins_with_the_plan_or_with_a_choice(patient, tiny_boot, plan):
    explorer = RelocationExplorer(tiny_boot, plan)
    assert explorer.timeline is explorer.reference
    assert explorer.sentence.startswith("This is the reference itself.")
    started = explorer.timeline.next_of_kind("start_relocation", -1)
    assert explorer.time_ns == explorer.timeline.times[started]
    chosen = RelocationExplorer(tiny_boot, plan, choice=Choice.of(plan.replace(priorities="equal")))
    assert chosen.choice.priorities == "equal"
    assert chosen.timeline.plan.priorities == "equal"
    assert chosen.reference.plan.equals(plan)


def test_is_what_the_engine_says(explorer, tiny_boot, plan):
    for changes in ({"sequence": "boot_last"}, {"purge": "off"}, {"ahead_percent": 100, "delay_s": 1}):
        explorer.choose(**changes)
        orders = sequences_of(tiny_boot, plan, layout_of(tiny_boot))
        expected = vr.simulate(tiny_boot, explorer.choice.applied(plan, orders), "disk_library")
        assert explorer.timeline.events.equals(expected.events)
        assert explorer.timeline.summary() == expected.summary()


def test_a_control_does_the_same_as_choose(explorer):
    explorer.controls.of["sequence"].value = "backwards"
    assert explorer.timeline.plan.sequence[0] > explorer.timeline.plan.sequence[-1]
    by_control = explorer.timeline
    explorer.choose(sequence="ascending")
    explorer.choose(sequence="backwards")
    assert explorer.timeline is by_control  # each is simulated once
    with pytest.raises(ValueError, match=r"sequence: expected one of .*got 'planned'"):
        explorer.choose(sequence="planned")
    with pytest.raises(ValueError, match=r"expected one of sequence.*got 'order'"):
        explorer.choose(order="backwards")


def test_what_changes_nothing_cannot_be_changed(explorer):
    of = explorer.controls.of
    assert not of["delay_s"].disabled
    assert of["load_percent"].disabled
    explorer.choose(start="load", purge="indication")
    assert of["delay_s"].disabled
    assert not of["load_percent"].disabled
    assert of["run_length"].disabled


# --- what it is compared with -----------------------------------------------------------------------------


def test_reference(explorer):
    given = explorer.timeline
    explorer.choose(sequence="backwards")
    backwards = explorer.timeline
    assert explorer.reference is given
    explorer.choose(priorities="strict")
    strict = explorer.timeline
    explorer.controls.compare_with.value = "before"
    assert (explorer.reference, explorer.timeline) == (backwards, strict)
    explorer.choose(priorities="equal")
    assert explorer.reference is strict
    explorer.controls.pin_button.click()
    assert explorer.controls.compare_with.value == "pinned"
    assert explorer.reference is explorer.timeline
    explorer.choose(sequence="ascending")
    assert explorer.reference.plan.priorities == "equal"
    assert explorer.reference is not explorer.timeline


def test_sentence_and_figures_are_those_of_the_timelines(explorer):
    explorer.choose(sequence="backwards")
    one, other = explorer.reference.summary(), explorer.timeline.summary()
    told = dict(explorer.figures.select("figure", "this").iter_rows())
    assert told["in so many fetches"] == f"{other['media_fetches']:,}"
    sizes = [each["media_bytes"] / each["media_fetches"] for each in (one, other)]
    assert ("jumps about on" in " ".join(explorer.reasons)) == (sizes[1] <= 0.75 * sizes[0])
    assert explorer.sentence in "".join(texts(explorer)).replace("&#x27;", "'")
    explorer.choose(purge="off", sequence="ascending")
    assert explorer.timeline.summary()["purged_bytes"] == 0
    assert explorer.figures.filter(figure="Purged from it")["this"].item() == "0 bytes"


def test_a_run_of_the_vm_is_named_as_a_reason(explorer):
    explorer.choose(purge="indication")
    explorer.pin()
    explorer.choose(purge="run", run_length=2)
    again = explorer.timeline.summary()["refetches_after_purge"]
    assert again > explorer.reference.summary()["refetches_after_purge"]
    why = " ".join(explorer.reasons)
    assert f"{again:,} blocks" in why
    assert "purged before they were on the destination" in why
    assert "<details>" in explorer._why.value
    assert explorer.sentence.count(". ") <= 1


# --- linked views -----------------------------------------------------------------------------------------


def test_time_moves_everything(explorer):
    explorer.choose(sequence="boot_last")
    end_s = explorer.slider.max
    explorer.slider.value = end_s / 2
    assert explorer.time_ns == round(end_s / 2 * 1e9)
    before = [each.svg for each in (*explorer._moment.maps, explorer._time_chart.map)]
    explorer.slider.value = 0.55
    after = [each.svg for each in (*explorer._moment.maps, explorer._time_chart.map)]
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert "At 0.550 s." in explorer._where.value
    assert 'role="status" aria-live="polite"' in explorer._where.value


def test_a_click_into_the_time_chart_goes_there(explorer):
    explorer._time_chart.map.cell = 3 * BINS + 10
    end_ns = max(explorer.timeline.end_ns, explorer.reference.end_ns)
    assert explorer.time_ns == int(10.5 / BINS * end_ns)
    assert explorer.slider.value == pytest.approx(explorer.time_ns / 1e9)
    assert explorer._time_chart.map.cell == 3 * BINS + 10


def test_a_click_on_a_map_shows_a_block_of_the_cell(explorer):
    moment = explorer._moment
    for cell in (0, 5, moment.maps[0].cells - 1):
        moment.maps[1].cell = cell
        assert explorer.block // moment.per_cell == cell
        assert moment.number.value == explorer.block
        assert moment.maps[0].cell == cell
    first = explorer.block // moment.per_cell * moment.per_cell
    busy = interest(explorer.timeline) + interest(explorer.reference)
    assert busy[explorer.block] == busy[first : first + moment.per_cell].max()


def test_history_is_that_of_the_events(explorer):
    explorer.choose(run_length=2)
    assert explorer.next("refetch_after_purge")
    told = [text for _, text in block_history(explorer.timeline, explorer.block)]
    assert "was purged, and is fetched again" in told
    assert "is on the destination now" in told
    for row, _ in block_history(explorer.timeline, explorer.block):
        block, count = explorer.timeline.events.select("block", "count").row(row)
        assert block <= explorer.block < block + count
    history = explorer._moment.histories[1]
    label, row = history.options[0]
    history.value = row
    assert explorer.time_ns == explorer.timeline.times[row]
    assert f"{explorer.time_ns / 1e9:,.3f} s" in label


def test_next_goes_on_and_begins_again(explorer):
    assert explorer.next("boot_done")
    at = explorer.time_ns
    assert explorer.next("boot_done")
    assert explorer.time_ns == at
    assert not explorer.next("expire")
    assert "No such event" in explorer._where.value
    with pytest.raises(ValueError, match="kind: expected one of"):
        explorer.next("lunch")
    explorer.kind.value = "purge"
    explorer.next_button.click()
    assert explorer.timeline.kinds[explorer.timeline.index_at(explorer.time_ns)] in range(len(KINDS))
    purged = explorer.timeline.events.filter(kind="purge", time_ns=explorer.time_ns)["block"]
    assert explorer.block in purged


def test_time_stays_where_it_is_if_there_is_such_a_time(explorer):
    explorer.choose(start="load")  # the relocation starts after a minute
    explorer.slider.value = explorer.slider.max
    late = explorer.time_ns
    explorer.choose(start="delay")
    explorer.controls.compare_with.value = "pinned"
    assert explorer.time_ns <= max(explorer.timeline.end_ns, explorer.reference.end_ns) < late


# --- the time chart ---------------------------------------------------------------------------------------


def test_course_loses_nothing(explorer):
    timeline = explorer.timeline
    frame = course(timeline, timeline.end_ns)
    assert frame.height == BINS
    read = timeline.events.filter(kind="vm_read")["detail"].sum()
    assert frame.select(pl.sum_horizontal(SOURCE_NAMES).sum()).item() == read
    assert frame["relocated"][-1] == pytest.approx(100)
    assert frame["purged"][-1] == pytest.approx(
        100 * timeline.summary()["purged_bytes"] / BLOCK / timeline.stored.sum()
    )
    assert frame["held"][-1] == pytest.approx(0)
    middle = timeline.end_ns // 2
    held = timeline.state_at(time_ns=middle).count(4) / timeline.plan.cache_slots
    assert course(timeline, middle)["held"][-1] == pytest.approx(100 * held)


# --- waiting ----------------------------------------------------------------------------------------------


def until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


@pytest.fixture
def gate(monkeypatch):
    """Simulations that wait until they may go on."""
    opened, simulate = threading.Event(), module.simulate

    def waiting(*arguments, **settings):
        opened.wait(60)
        return simulate(*arguments, **settings)

    monkeypatch.setattr(module, "simulate", waiting)
    yield opened
    opened.set()


def test_what_takes_long_shows_its_progress(tiny_boot, plan, gate):
    gate.set()
    explorer = RelocationExplorer(tiny_boot, plan)
    given = explorer.timeline
    gate.clear()
    explorer.choose(priorities="equal")
    assert explorer.is_working
    assert explorer.controls.waiting.layout.display == "flex"
    assert "Simulating" in explorer._status.value
    assert explorer.timeline is given
    gate.set()
    until(lambda: not explorer.is_working)
    until(lambda: explorer.timeline.plan.priorities == "equal")
    assert explorer.controls.waiting.layout.display == "none"


def test_stop_keeps_what_is_shown(tiny_boot, plan, gate):
    gate.set()
    explorer = RelocationExplorer(tiny_boot, plan)
    given = explorer.timeline
    gate.clear()
    explorer.choose(priorities="equal")
    explorer.controls.stop_button.click()
    assert not explorer.is_working
    assert explorer.choice.priorities == "as_claimed"
    assert explorer._status.value.count("Stopped") == 1
    gate.set()
    time.sleep(0.3)
    assert explorer.timeline is given


def test_only_the_last_of_hasty_choices_is_shown(tiny_boot, plan, gate):
    gate.set()
    explorer = RelocationExplorer(tiny_boot, plan)
    gate.clear()
    for priorities in ("equal", "strict", "weighted"):
        explorer.choose(priorities=priorities)
    gate.set()
    until(lambda: explorer.timeline.plan.priorities == "weighted")
    time.sleep(0.2)
    assert explorer.timeline.plan.priorities == "weighted"


def test_a_simulation_that_fails_is_told(explorer, monkeypatch):
    def fails(*_, **__):
        raise PlanError("no such disk")

    given = explorer.timeline
    monkeypatch.setattr(module, "simulate", fails)
    explorer.choose(priorities="equal")
    assert "Not simulated: no such disk" in explorer._status.value
    assert explorer.timeline is given


# --- for everybody ----------------------------------------------------------------------------------------


def test_every_control_has_a_label_and_a_tooltip(explorer):
    controls = [
        each for each in every_widget(explorer) if hasattr(each, "disabled") and each.disabled is not None
    ]
    assert len(controls) > 15
    for control in controls:
        assert control.description, control
        assert control.tooltip, control.description


def test_is_shown_as_text_too(explorer):
    assert repr(explorer).startswith("RelocationExplorer(")
    assert explorer._status.value.count('role="status"') == 1


def test_export(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explorer.choose(sequence="boot_last")
    for ending in (".svg", ".parquet"):
        explorer.export.format.value = ending
        assert explorer.export.save() is not None
    (table,) = tmp_path.glob("*.parquet")
    frame = pl.read_parquet(table)
    assert frame["run"].unique().sort().to_list() == ["reference", "this"]
    assert frame.height == 2 * BINS


def test_slider_answers_within_100_ms(tiny_boot, explorer):
    times = []
    for second in np.linspace(0, explorer.slider.max, 21)[1:]:
        start = time.process_time()  # others on this machine do not count
        explorer.slider.value = second
        times.append(time.process_time() - start)
    assert sorted(times)[10] < 0.1
