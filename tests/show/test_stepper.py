"""The stepper without a browser: what its traits, buttons and sliders do."""

import time
from pathlib import Path

import ipywidgets
import numpy as np
import polars as pl
import pytest
from synthetic import instant_restore, live_mount

import vmrestorekit
from vmrestorekit.restore.events import KINDS
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.show import units
from vmrestorekit.show.look import Look
from vmrestorekit.show.restore import progress
from vmrestorekit.show.restore.clock import STEP_OVER
from vmrestorekit.show.restore.event_list import ROWS, EventList
from vmrestorekit.show.restore.run_chart import RunChart
from vmrestorekit.show.restore.stepper import Stepper


def statuses(stepper):
    """The announcement of each column as it is in the page."""
    return [column._status.value for column in stepper.columns]


def every_widget(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from every_widget(child)


def test_is_public():
    assert vmrestorekit.Stepper is Stepper


def test_step_and_back_move_by_one_event_and_tell_it(restore):
    stepper = Stepper(restore)
    assert stepper.index == 0
    first = stepper.sentence
    assert stepper.step()
    assert stepper.index == 1
    assert stepper.sentence != first
    assert stepper.back()
    assert (stepper.index, stepper.sentence) == (0, first)


def test_buttons_do_what_the_methods_do(restore):
    stepper = Stepper(restore, start=10)
    stepper.step_button.click()
    assert stepper.index == 11
    stepper.back_button.click()
    stepper.back_button.click()
    assert stepper.index == 9
    stepper.kind.value = "boot_done"
    stepper.jump_button.click()
    assert KINDS[restore.kinds[stepper.index]] == "boot_done"


def test_index_is_a_row_of_the_timeline_and_time_its_time(restore):
    stepper = Stepper(restore)
    for index in (0, 7, len(restore) - 1):
        stepper.go_to(index=index)
        assert stepper.time_ns == restore.times[index]
        assert f"{restore.times[index] / 1e9:,.3f} s" in stepper.sentence


def test_both_ends(restore):
    stepper = Stepper(restore, start=len(restore) - 1)
    told = stepper.sentence
    assert not stepper.step()
    assert (stepper.index, stepper.sentence) == (len(restore) - 1, told)
    assert "last one" in stepper._place.value
    stepper.go_to(index=-1)
    assert "Nothing has happened yet" in stepper.sentence
    assert not stepper.back()


def test_jump_goes_to_the_next_of_a_kind_and_from_the_last_to_the_first(restore):
    stepper = Stepper(restore)
    rows = np.flatnonzero(restore.kinds == KINDS.index("purge"))
    for row in rows:
        assert stepper.jump("purge")
        assert stepper.index == row
        assert "None later" not in statuses(stepper)[0]
    assert stepper.jump("purge")
    assert stepper.index == rows[0]
    assert "None later, so this is the first: block purged." in statuses(stepper)[0]
    stepper.step()
    assert "None later" not in statuses(stepper)[0]


def test_jump_to_the_only_one_of_a_kind_again_says_so(restore):
    stepper = Stepper(restore)
    assert stepper.jump("launch_vm")
    at = stepper.index
    assert stepper.jump("launch_vm")
    assert stepper.index == at
    assert "None later" in statuses(stepper)[0]


def test_jump_to_what_does_not_happen_stays_and_says_so(restore):
    stepper = Stepper(restore, start=5)
    assert not stepper.jump("expire")
    assert stepper.index == 5
    assert "There is no such event: live mount expires." in statuses(stepper)[0]


def test_jump_back_is_told_beside_the_run_that_it_is_of(restore, mount):
    stepper = Stepper(restore, mount)
    stepper.jump("expire")
    stepper.jump("start_relocation")
    assert ["None later" in status for status in statuses(stepper)] == [True, False]
    stepper.jump("start_relocation")
    stepper.jump("expire")
    assert stepper.jump("expire")
    assert ["None later" in status for status in statuses(stepper)] == [False, True]


def test_the_whole_run_is_shown_only_when_asked_for(restore, mount):
    stepper = Stepper(restore, mount)
    button, table = stepper.whole_run_button, stepper._whole_run
    assert (button.description, table.layout.display) == ("Show the whole run", "none")
    button.value = True
    assert (button.description, table.layout.display) == ("Hide the whole run", "")
    button.value = False
    assert (button.description, table.layout.display) == ("Show the whole run", "none")


@pytest.mark.parametrize("choice", STEP_OVER)
def test_step_over_visits_exactly_the_events_of_these_kinds(restore, choice):
    wanted = [row for row in range(len(restore)) if KINDS[restore.kinds[row]] in STEP_OVER[choice]]
    stepper = Stepper(restore, start=-1)
    stepper.step_over.label = choice
    visited = []
    while stepper.step():
        visited.append(stepper.index)
    assert visited == wanted
    stepper.go_to(index=len(restore) - 1)
    back = [stepper.index] if stepper.index in wanted else []
    while stepper.back():
        back.append(stepper.index)
    assert back == wanted[::-1]


@pytest.mark.parametrize("timelines", [1, 2])
def test_slider_goes_to_an_event_and_follows_it(restore, mount, timelines):
    stepper = Stepper(*(restore, mount)[:timelines])
    stepper.slider.value = 100
    assert stepper.index == 100
    assert f"event 101 of {len(stepper.clock):,} · {stepper.time_ns / 1e9:,.3f} s" in stepper._place.value
    stepper.step()
    assert stepper.slider.value == 101


def test_play_steps_at_each_tick_and_pause_really_stops(restore):
    stepper = Stepper(restore)
    stepper.play_button.value = True
    assert stepper.playing
    assert stepper.play_button.description == "Pause"
    for tick in (1, 2, 3):
        stepper._ticker.value = tick
    assert stepper.index == 3
    stepper.play_button.value = False
    assert not stepper.playing
    assert stepper.play_button.description == "Play"
    stepper._ticker.value = 4  # a tick that was under way
    assert stepper.index == 3


def test_play_ends_with_the_last_event(restore):
    stepper = Stepper(restore, start=len(restore) - 2)
    stepper.play()
    stepper._ticker.value = 1
    assert stepper.playing
    stepper._ticker.value = 2
    assert not stepper.playing
    assert stepper.index == len(restore) - 1


def test_speed_sets_the_interval(restore):
    stepper = Stepper(restore)
    stepper.speed.label = "8 steps a second"
    assert stepper._ticker.interval == 125


# --- two timelines ------------------------------------------------------------------------------------


def test_one_clock_for_both(restore, mount):
    stepper = Stepper(restore, mount)
    assert len(stepper.columns) == 2
    for time_ns in np.linspace(0, max(restore.end_ns, mount.end_ns), 23).astype(int).tolist():
        stepper.go_to(time_ns=time_ns)
        for column, timeline in zip(stepper.columns, (restore, mount), strict=True):
            row = timeline.index_at(time_ns)
            at = timeline.times[row] / 1e9
            assert column.sentence.startswith(f"{at:,.3f} s")


def test_stepping_goes_to_the_next_event_in_either(restore, mount):
    stepper = Stepper(restore, mount, start=-1)
    times = []
    while stepper.step():
        times.append(stepper.time_ns)
    assert times == sorted([*restore.times.tolist(), *mount.times.tolist()])


def test_at_equal_times_they_take_turns_the_restore_first(restore, mount):
    stepper = Stepper(restore, mount, start=-1)
    turns = []
    for _ in range(4):
        stepper.step()
        turns.append(["● now" in column._heading.value for column in stepper.columns])
    assert stepper.time_ns == 0
    assert turns == [[True, False], [False, True]] * 2


def test_a_step_changes_one_column_only(restore, mount):
    stepper = Stepper(restore, mount, start=50)
    for _ in range(60):
        before = statuses(stepper)
        stepper.step()
        changed = [old != new for old, new in zip(before, statuses(stepper), strict=True)]
        assert sum(changed) == 1
        assert ["● now" in column._heading.value for column in stepper.columns] == changed


def test_difference_is_that_of_the_summaries(restore, mount):
    stepper = Stepper(restore, mount)
    table = stepper._whole_run.value
    for name in ("Time to boot", "Stall", "Read from the backup", "Read cache peak", "Independent of"):
        assert name in table
    one, other = (timeline.summary()["media_bytes"] for timeline in (restore, mount))
    cells = [
        units.size(one),
        units.size(other),
        f"{'+' if other > one else '−'}{units.size(abs(other - one))}",
    ]
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    assert f'<th scope="row">Read from the backup</th>{row}' in table
    assert "never: gone at expiry" in table
    assert "after" in table


def test_figures_at_this_instant_follow_the_clock(restore, mount):
    stepper = Stepper(restore, mount)
    assert "not launched" in stepper._figures.value
    stepper.go_to(time_ns=mount.end_ns)
    assert "powered down" in stepper._figures.value
    assert "expired" in stepper._figures.value


def test_the_write_cache_is_empty_after_the_pivot(large):
    stepper = Stepper(large)
    stepper.jump("use_destination")
    stepper.go_to(index=len(large) - 1)
    assert "In the write cache</th><td>0 blocks" in stepper._figures.value
    assert "0 blocks" in stepper.columns[0]._picture.value


def test_totals_end_at_the_summary_and_count_the_vm_only(large):
    summary, last = large.summary(), len(large) - 1
    asked = summary["hits"] + summary["waits"] + summary["misses"]
    assert progress.hits(large, last) == (summary["hits"], asked)
    assert progress.media_bytes(large, last) == summary["media_bytes"]
    half = last // 2
    done = large.events[: half + 1].filter(kind="vm_done")
    assert progress.waited_ns(large, half) == done["detail"].sum()
    assert progress.hits(large, -1) == (0, 0)


# --- linked views: the chart and the table follow, and choose -----------------------------------------


def person(part, **content):
    """Do what the browser does when a person chooses something."""
    part._handle_custom_msg(content, [])


def listed(stepper):
    return [row["index"] for row in stepper.events.rows]


def test_chart_and_table_follow_and_the_picture_is_sent_once(restore, mount):
    stepper = Stepper(restore, mount)
    sent = []
    stepper.chart.observe(lambda change: sent.append(change["name"]), ["svg", "lanes", "second"])
    for index in (5, 100, len(stepper.clock) - 1):
        stepper.slider.value = index
        assert stepper.chart.second == stepper.time_ns / 1e9
        assert stepper.events.current == index
        assert index in listed(stepper)
    assert set(sent) == {"second"}
    assert len(stepper.chart.lanes) == 2
    assert stepper.chart.end_s == max(restore.end_ns, mount.end_ns) / 1e9


def test_a_time_chosen_in_the_chart(restore):
    stepper = Stepper(restore)
    person(stepper.chart, second=2.0)
    assert stepper.index == restore.index_at(2_000_000_000)
    assert stepper.chart.second == stepper.time_ns / 1e9
    for nonsense in ({}, {"second": "2"}, {"second": -1}):
        before = stepper.index
        person(stepper.chart, **nonsense)
        assert stepper.index == before


def test_arrow_keys_in_the_chart_always_go_on(restore):
    stepper, step = Stepper(restore), restore.end_ns / 1e9 / 200
    for direction in (1, -1):
        visited = []
        for _ in range(220):
            asked = stepper.chart.second + direction * step
            person(stepper.chart, second=min(max(asked, 0), stepper.chart.end_s))
            visited.append(stepper.time_ns)
        assert visited == sorted(visited, reverse=direction < 0)
        assert visited[-1] == (restore.times[-1] if direction > 0 else restore.times[0])


def test_an_event_chosen_in_the_table(restore, mount):
    stepper = Stepper(restore, mount, start=50)
    other = listed(stepper)[-2]
    person(stepper.events, index=other)
    assert stepper.index == stepper.events.current == other
    before = listed(stepper)
    person(stepper.events, index=before[2])
    assert listed(stepper) == before  # the rows stay where they are
    person(stepper.events, pages=1)
    assert stepper.index == before[2] + ROWS - 1
    person(stepper.events, pages=-1)
    assert stepper.index == before[2]
    person(stepper.events, index=len(stepper.clock))
    assert stepper.index == before[2]


def test_the_table_lists_what_is_stepped_to_and_the_current_event(restore):
    stepper = Stepper(restore)
    stepper.step_over.label = "relocation"
    stepper.jump("boot_done")
    kinds = [KINDS[restore.kinds[index]] for index in listed(stepper)]
    assert kinds.count("boot_done") == 1
    assert set(kinds) - {"boot_done"} <= set(STEP_OVER["relocation"])
    assert listed(stepper) == sorted(set(listed(stepper)))


@pytest.mark.parametrize("index", [-1, 0, 1, ROWS, -2, -3])
def test_the_table_is_full_at_both_ends(restore, index):
    stepper = Stepper(restore)
    stepper.go_to(index=index if index >= -1 else len(restore) + 1 + index)
    assert len(stepper.events.rows) == ROWS
    assert stepper.index in [-1, *listed(stepper)]


def test_rows_of_the_table_say_when_whose_and_what(restore, mount):
    stepper = Stepper(restore, mount)
    stepper.jump("expire")
    row = next(row for row in stepper.events.rows if row["index"] == stepper.index)
    assert row["cells"] == [units.clock(stepper.time_ns), "mount", "live mount expires", ""]
    assert stepper.events.heads == ["Time", "Run", "Event", "Blocks"]
    assert Stepper(restore).events.heads == ["Time", "Event", "Blocks"]


def test_the_chart_hides_what_comes_until_the_whole_run_is_asked_for(restore):
    stepper = Stepper(restore)
    assert not stepper.chart.whole
    stepper.whole_run_button.value = True
    assert stepper.chart.whole


def test_turning_points_come_first_with_their_operations(restore, mount):
    stepper = Stepper(restore, mount)
    few = list(stepper.kind.options)
    assert len(few) < 17
    assert any(label.startswith("O12 · relocation starts (1)") for label, _ in few)
    numbers = [int(label.split(" ")[0][1:]) for label, _ in few if label.startswith("O")]
    assert numbers == sorted(numbers)
    stepper.kind.value = "expire"
    stepper.every_kind.value = True
    assert list(stepper.kind.options)[: len(few)] == few
    assert {kind for _, kind in stepper.kind.options} == set(stepper.clock.counts())
    assert stepper.kind.value == "expire"
    stepper.kind.value = "serve"
    stepper.every_kind.value = False
    assert list(stepper.kind.options) == few
    assert stepper.kind.value == few[0][1]


# --- accessibility ------------------------------------------------------------------------------------


def test_every_control_has_a_text(restore, mount):
    stepper = Stepper(restore, mount)
    controls = [
        widget
        for widget in every_widget(stepper)
        if not isinstance(
            widget, (ipywidgets.Box, ipywidgets.HTML, ipywidgets.Play, Look, RunChart, EventList)
        )
    ]
    assert len(controls) == 13
    assert all(control.description and control.tooltip for control in controls)


def test_each_step_is_announced(restore, mount):
    stepper = Stepper(restore, mount)
    for status in statuses(stepper):
        assert status.count('<p role="status" aria-live="polite">') == 1


def test_pictures_have_a_role_and_a_label(restore):
    stepper = Stepper(restore, start=30)
    for drawn in (stepper.columns[0]._picture.value, stepper.columns[0]._map.value):
        assert '<svg role="img" aria-label="' in drawn
    assert "Instant restore at" in stepper.columns[0]._picture.value


def test_uses_neither_output_widgets_nor_jslink(restore, mount):
    kinds = {type(widget).__name__ for widget in every_widget(Stepper(restore, mount))}
    assert not kinds & {"Output", "Link", "DirectionalLink"}


# --- bad arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("restore",), r"restore: expected a Timeline, as simulate\(\) returns it, got str"),
        ((None,), "restore: expected a Timeline"),
    ],
)
def test_what_is_no_timeline(arguments, said):
    with pytest.raises(ValueError, match=said):
        Stepper(*arguments)


def test_bad_arguments(restore):
    with pytest.raises(ValueError, match="mount: expected a Timeline"):
        Stepper(restore, 3)
    with pytest.raises(
        ValueError, match=f"start: expected an event from -1 to {len(restore) - 1}, got 100000"
    ):
        Stepper(restore, start=100_000)
    with pytest.raises(ValueError, match=r"kind: expected one of 'select_vm', .*, got 'reboot'"):
        Stepper(restore).jump("reboot")
    with pytest.raises(ValueError, match=r"go_to: expected either index or time_ns"):
        Stepper(restore).go_to()
    with pytest.raises(ValueError, match="go_to: expected an event from -1 to"):
        Stepper(restore).go_to(index=len(restore))


def test_empty_timeline(restore):
    empty = Timeline(restore.events.clear(), {}, restore.plan, None, "vm", "boot", restore.stored)
    with pytest.raises(ValueError, match="at least one event"):
        Stepper(empty)


@pytest.mark.parametrize("width", [900, "900px", "62.5%"])
def test_widths(restore, width):
    assert Stepper(restore, width=width).layout.width == ("900px" if width == 900 else width)


# --- large timelines ----------------------------------------------------------------------------------


def test_scrubbing_anywhere_in_a_long_timeline_is_instant(long):
    stepper = Stepper(long)
    stepper.go_to(index=len(long) // 2)  # the first look makes the snapshots
    places = np.random.default_rng(5).integers(0, len(long), 25).tolist()
    took = []
    for place in places:
        start = time.perf_counter()
        stepper.slider.value = place
        took.append(time.perf_counter() - start)
    assert stepper.index == places[-1]
    assert np.median(took) < 0.1


def test_what_is_sent_to_the_browser_stays_small(large):
    stepper = Stepper(large, start=len(large) // 2)
    column = stepper.columns[0]
    sent = sum(len(part.value) for part in (column._heading, column._status, column._picture, column._map))
    assert sent < 60_000


def test_what_is_shown_can_be_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    restore, mount = instant_restore(64), live_mount(64)
    stepper = Stepper(restore, mount, start=7)
    for ending in (".parquet", ".svg"):
        stepper.export.format.value = ending
        assert stepper.export.save() == Path(f"restore{ending}")
    events = pl.read_parquet("restore.parquet")
    assert events.height == len(restore) + len(mount)
    assert events["time_ns"].is_sorted()
    assert set(events["mode"]) == {"instant_restore", "live_mount"}
    assert "The runs side by side" in Path("restore.svg").read_text()
    assert "start=7" in stepper._place.value
