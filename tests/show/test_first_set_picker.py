"""Picking a first set without a browser: what is picked, what comes of it, and what is shown."""

import re
import time

import numpy as np
import polars as pl
import pytest
from test_stepper import every_widget
from tiny_boots import tiny_manifest, tiny_trace

from vmrestorekit.show.export import save
from vmrestorekit.show.first_set.disk_contents import WAYS_TO_PICK, DiskContents
from vmrestorekit.show.first_set.picker import FirstSetPicker
from vmrestorekit.show.first_set.picks import ORDERS, Picks
from vmrestorekit.show.first_set.tries import HIT, LEFT, MISSED, UNREAD, WAITED
from vmrestorekit.traces.corpus import Boot


def tiny(boot, vm="SYNTHETIC"):
    return Boot.from_parts(tiny_trace(vm, boot), [tiny_manifest()])


@pytest.fixture
def picker():
    return FirstSetPicker(tiny("boot-2"), tiny("boot-1"))


def said(picker):
    return re.sub("<[^>]+>", "", picker._status.value)


# --- what lies where ------------------------------------------------------------------------------------


def test_contents_are_those_of_the_manifest():
    boot = tiny("boot-1")
    contents = DiskContents(boot)
    content = boot.manifests[0].blocks["content"].to_numpy()
    assert contents.stored.tolist() == np.unique(np.flatnonzero(content) // 16).tolist()
    assert contents.pieces["count"].sum() == np.count_nonzero(content)
    kernel = range(300 // 16, (300 + 96 - 1) // 16 + 1)
    assert contents.blocks("file", "/boot/vmlinuz").tolist() == list(kernel)
    assert contents.names("kind of file")["kernel, initial RAM disk"] == len(kernel)
    assert "/boot" in contents.names("folder")
    assert contents.kinds()["block"].to_list() == contents.stored.tolist()
    assert "/boot/vmlinuz" in contents.tell(np.array(kernel[1:3], np.int32))
    assert contents.tell(np.array([], np.int32)) == "nothing stored"


def test_every_stored_block_can_be_picked_in_every_way():
    contents = DiskContents(tiny("boot-1"))
    for way in WAYS_TO_PICK:
        all_of_them = np.concatenate([contents.blocks(way, name) for name in contents.names(way)])
        assert np.unique(all_of_them).tolist() == contents.stored.tolist()


def test_a_second_disk_has_its_own_blocks_and_names(make_tiny_boot):
    boot = make_tiny_boot("vm", "boot-1").with_data_disk(1 << 20)
    contents = DiskContents(boot)
    first = boot.disk_bytes[0] // 65536
    assert contents.stored[-1] == first + 15


# --- the list -------------------------------------------------------------------------------------------


def test_picks_keep_their_order_and_count_a_block_once():
    picks = Picks()
    assert picks.add("a", np.array([5, 6], np.int32))
    assert picks.add("b", np.array([1, 5], np.int32))
    assert not picks.add("b", np.array([9], np.int32))
    assert picks.blocks().tolist() == [5, 6, 1]
    picks.earlier(1)
    assert (picks.names, picks.blocks().tolist()) == (["b", "a"], [1, 5, 6])
    assert picks.blocks(ORDERS[1]).tolist() == [1, 5, 6]
    assert picks.blocks(ORDERS[2]).tolist() == [6, 5, 1]
    picks.remove(0)
    assert (len(picks), picks.blocks().tolist()) == (1, [5, 6])
    picks.clear()
    assert picks.blocks().tolist() == []


def test_something_can_be_added_at_once(picker):
    picker.add_button.click()
    picker.way.value = "folder"
    picker.add_button.click()
    assert len(picker._picks) == 2


def test_buttons_change_the_list(picker):
    picker.way.value = "file"
    picker.name.value = "/boot/vmlinuz"
    picker.add_button.click()
    picker.name.value = "/sbin/init"
    picker.add_button.click()
    assert [option.split(" · ")[0] for option in picker.picks.options] == ["/boot/vmlinuz", "/sbin/init"]
    assert picker.picks.index == 1
    picker.add_button.click()
    assert "picked already" in said(picker)
    picker.earlier_button.click()
    assert picker._picks.names == ["/sbin/init", "/boot/vmlinuz"]
    picker.remove_button.click()
    assert picker._picks.names == ["/boot/vmlinuz"]
    picker.clear_button.click()
    assert picker.picks.options == ()
    assert picker.first_set.size == 0
    picker.remove_button.click()
    assert "Choose one" in said(picker)


def test_regions_of_the_map_can_be_picked(picker):
    picker.region_button.click()
    assert "Choose a cell" in said(picker)
    picker.map.cell = 3
    assert "Cell 4" in picker.map.text
    picker.span.value = "5 cells from here"
    picker.region_button.click()
    assert picker.first_set.tolist() == picker.contents.stored[3:8].tolist()
    with pytest.raises(ValueError, match=r"add_cells: expected a cell from 0 to \d+, got 9999"):
        picker.add_cells(9999)


def test_budget_and_order_rule_what_is_staged(picker):
    picker.add("kind of file", "data and logs")
    picker.add("kind of file", "kernel, initial RAM disk")
    everything = picker.first_set
    picker.budget.value = 1
    assert picker.first_set.tolist() == everything[: 1_000_000 // 65536].tolist()
    assert "are left out" in said(picker)
    tried = picker.restore()
    assert tried.left_out == everything.size - tried.first_set.size > 0
    assert "more did not fit into the budget" in said(picker)
    assert "left out (MB)" in picker._history.value
    picker.order.value = ORDERS[2]
    assert picker.first_set.tolist() == sorted(everything.tolist(), reverse=True)[: 1_000_000 // 65536]


# --- restoring ------------------------------------------------------------------------------------------


def test_more_that_is_right_makes_less_stall(picker):
    nothing = picker.restore()
    picker.add("kind of file", "kernel, initial RAM disk")
    picker.add("folder", "/lib")
    some = picker.restore()
    assert some.stall_s < nothing.stall_s
    assert some.count(HIT) > 0 == nothing.count(HIT)
    assert len(picker.tries) == 2
    stalls = picker.bench.stalls_of_others(picker.rules)
    assert stalls["nothing pre-staged"] == nothing.stall_s
    assert stalls["oracle: what this boot will read"] <= some.stall_s


def test_each_block_comes_to_one_thing(picker):
    picker.add("kind of file", "data and logs")
    tried = picker.restore()
    assert sum(map(tried.count, (LEFT, UNREAD, HIT, WAITED, MISSED))) == picker.bench.blocks
    in_set = np.zeros(picker.bench.blocks, bool)
    in_set[tried.first_set] = True
    assert not np.any(in_set[tried.outcome == LEFT])
    assert np.all(in_set[tried.outcome == UNREAD])


def test_views_follow_the_try_that_is_looked_at(picker):
    assert picker.export.layout.display == "none"
    picker.restore()
    missed_all, first = picker.map.svg, said(picker)
    assert first.startswith("Try 1: 0 MB")
    picker.add("kind of file", "kernel, initial RAM disk")
    assert picker.look_at.value == "what is picked"
    picker.restore_button.click()
    assert said(picker).startswith("Try 2")
    assert picker.map.svg != missed_all
    assert "▶ 2" in picker._history.value
    picker.look_at.value = "what came of try 1"
    assert picker.map.svg == missed_all
    assert said(picker) == first
    assert "▶ 1" in picker._history.value
    assert "What came of try 1" in picker._kinds.value
    assert picker.export.layout.display == "flex"


def test_tries_can_be_saved(picker, tmp_path):
    picker.add("file", "/sbin/init")
    picker.restore()
    path = save(tmp_path / "tries.parquet", picker._chart.chart, picker.export._table())
    row = pl.read_parquet(path).row(0, named=True)
    assert (row["try"], row["picked"], row["budget (MB)"]) == (1, "/sbin/init", 120)


def test_every_control_has_a_label_and_a_tooltip(picker):
    for widget in every_widget(picker):
        if hasattr(widget, "description") and type(widget).__name__ != "HTML":
            assert widget.description, widget
            assert widget.tooltip, widget


# --- what cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boot": "boot-2"}, "boot: expected a recorded Boot"),
        ({"last_boot": tiny("boot-1", "other")}, "last_boot: expected a boot of SYNTHETIC, got one of other"),
        ({"hardware": "floppy"}, "hardware: expected"),
        ({"budget_mb": 0}, "budget_mb: expected a whole number from 1"),
        ({"budget_mb": 10_000}, "budget_mb: expected a whole number from 1"),
        ({"head_start_s": 21}, "head_start_s: expected a whole number from 0 to 20, got 21"),
        ({"head_start_s": 1.5}, "head_start_s"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    given = {"boot": tiny("boot-2"), "last_boot": tiny("boot-1")} | arguments
    with pytest.raises(ValueError, match=message):
        FirstSetPicker(**given)


def test_unknown_names_are_refused(picker):
    with pytest.raises(ValueError, match="add: expected one of kind of file, folder, file, got 'colour'"):
        picker.add("colour", "red")
    with pytest.raises(ValueError, match=r"add: expected a file on this disk, such as .*, got '/nowhere'"):
        picker.add("file", "/nowhere")


# --- real machines --------------------------------------------------------------------------------------


def test_a_real_machine_answers_quickly(packaged_corpus):
    machine = packaged_corpus["bullseye-web"]
    picker = FirstSetPicker(machine.boots[-1], machine.boots[-2])
    picker.add("kind of file", "libraries")
    picker.restore()
    times = []
    for budget in range(90, 100):
        start = time.process_time()
        picker.budget.value = budget
        times.append(time.process_time() - start)
        start = time.process_time()
        picker.restore()
        times.append(time.process_time() - start)
    assert np.median(times) < 0.1
