"""The relocation explorer in real JupyterLab: light and dark, narrow and wide, by mouse and by keyboard."""

from pathlib import Path

import pytest
from lab_in_chromium import (
    errors,
    is_dark,
    keep_screenshot,
    notebook_of,
    open_notebook,
    press,
    resize,
    run_all,
    sentences,
    too_wide,
    wait_for_other_sentences,
)

pytestmark = pytest.mark.browser

CELLS = [
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    "from tiny_boots import tiny_manifest, tiny_trace\n"
    "import vmrestorekit as vr\n"
    "from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart\n"
    "from vmrestorekit.restore.replay import block_accesses\n"
    "from vmrestorekit.show.relocation import explorer as relocation_explorer\n"
    "boot = vr.Boot.from_parts(tiny_trace('one'), [tiny_manifest()])\n"
    "first_set = list(dict.fromkeys(block_accesses(boot.trace, 4096).tolist()))\n"
    "plan = vr.RestorePlan(\n"
    "    boot.disk_bytes, block_bytes=4096, first_set=first_set, cache_bytes=600 * 1024,\n"
    "    launch=LaunchRule('head_start', head_start_ns=500_000_000),\n"
    "    relocation_start=RelocationStart('delay', delay_ns=0), purge=PurgeRule(run_length=4),\n"
    ")",
    "relocation_explorer.RelocationExplorer(boot, plan)",
    # every simulation of this one is done aside, and takes two seconds
    "import time\n"
    "simulate = relocation_explorer.simulate\n"
    "def slow(*arguments, **settings):\n"
    "    time.sleep(slow.seconds)\n"
    "    return simulate(*arguments, **settings)\n"
    "slow.seconds = 0\n"
    "relocation_explorer.simulate = slow\n"
    "print('ready')",
]
SLOW = "slow.seconds = 2; print('slow now')"


@pytest.fixture
def scratch(tmp_path):
    return notebook_of(tmp_path, [*CELLS, SLOW])


def opened(lab_page, scratch, **looks):
    page, server = lab_page(scratch, **looks)
    open_notebook(page, server, "scratch.ipynb")
    run_all(page, 300)
    told = page.locator("p[role=status]").filter(has_text="This is the reference itself")
    told.first.wait_for(timeout=60_000)
    return page


def expect_good_looks(page, artifacts, *, dark):
    assert errors(page) == []
    assert page.locator(".vmrk-map").count() == 3
    assert is_dark(page) == dark
    for width in (1920, 1280):
        resize(page, width)
        keep_screenshot(page, f"relocation_explorer_{'dark' if dark else 'light'}_{width}", artifacts)
        assert too_wide(page) == []


def test_dark(scratch, lab_page, artifacts):
    page = opened(lab_page, scratch, width=1920, height=1900, dark=True)
    expect_good_looks(page, artifacts, dark=True)


def where(page):
    return page.locator("span[role=status]").filter(has_text="At ").first.inner_text()


def wait_for_elsewhere(page, before):
    page.wait_for_function(
        "before => ![...document.querySelectorAll('span[role=status]')]"
        ".some(each => each.innerText === before)",
        arg=before,
        timeout=20_000,
    )
    return where(page)


def test_light_by_mouse_and_keyboard(scratch, lab_page, artifacts):
    page = opened(lab_page, scratch, width=1920, height=1900)
    expect_good_looks(page, artifacts, dark=False)
    # the simulations of this test take two seconds: their progress is shown, and they can be stopped
    given = sentences(page)
    page.get_by_label("Order").select_option(label="backwards")
    page.locator("p[role=status]").filter(has_text="Simulating").first.wait_for(timeout=20_000)
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.wait_for(timeout=20_000)
    stop.focus()
    page.keyboard.press("Enter")
    page.locator("p[role=status]").filter(has_text="Stopped").first.wait_for(timeout=20_000)
    stop.wait_for(state="hidden", timeout=20_000)
    page.get_by_label("Order").select_option(label="backwards")
    page.locator("p[role=status]").filter(has_text="instead of").first.wait_for(timeout=60_000)
    stop.wait_for(state="hidden", timeout=20_000)
    assert sentences(page) != given

    # time: slider, click into the chart, arrow keys
    before = where(page)
    page.locator("[role=slider].noUi-handle").last.focus()
    page.keyboard.press("ArrowRight")
    before = wait_for_elsewhere(page, before)
    chart, *maps = page.locator(".vmrk-map").all()
    chart.click(position={"x": 700, "y": 60})
    before = wait_for_elsewhere(page, before)
    chart.focus()
    page.keyboard.press("ArrowLeft")
    before = wait_for_elsewhere(page, before)
    press(page, "Next", "Enter")
    before = wait_for_elsewhere(page, before)

    # a block: click on a map, arrow keys; its history; an event of that
    maps[1].click(position={"x": 60, "y": 30})
    number = page.get_by_label("Block", exact=True)
    page.wait_for_timeout(700)
    clicked = number.input_value()
    maps[1].focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(700)
    assert number.input_value() != clicked
    assert maps[0].get_attribute("aria-valuenow") == maps[1].get_attribute("aria-valuenow")

    # back to the plan's order, which is known
    known = sentences(page)
    page.get_by_label("Order").select_option(label="ascending")
    wait_for_other_sentences(page, known)
    assert errors(page) == []
    keep_screenshot(page, "relocation_explorer_keyboard", artifacts)
