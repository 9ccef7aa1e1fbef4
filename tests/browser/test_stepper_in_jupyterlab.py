"""The stepper and the charts in real JupyterLab: light and dark, narrow and wide, by keyboard."""

import re
from pathlib import Path

import pytest
from lab_in_chromium import (
    errors,
    is_dark,
    keep_screenshot,
    notebook_of,
    open_notebook,
    press,
    run_all,
    sentences,
    too_wide,
    wait_for_other_sentences,
)

pytestmark = pytest.mark.browser

CELLS = [
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'show')!r})\n"
    "from synthetic import instant_restore, live_mount\n"
    "from vmrestorekit import Stepper\n"
    "from vmrestorekit.show import charts\n"
    "restore, mount = instant_restore(1200), live_mount(1200)",
    "Stepper(restore, mount, start=1500)",
    "Stepper(instant_restore(64), start=60)",
    "charts.reads_by_source(restore)",
    "charts.cache_over_time(restore)",
    "charts.compare_summaries([restore, mount])",
]


@pytest.fixture
def scratch(tmp_path):
    return notebook_of(tmp_path, CELLS)


def opened(scratch, lab_page, artifacts, *, dark, width):
    """Open and run it, and look whether all of it is there."""
    page, server = lab_page(scratch, width=width, height=4300, dark=dark)
    open_notebook(page, server, "scratch.ipynb")
    run_all(page)
    page.wait_for_selector(".jp-RenderedVegaCommon5 canvas, .jp-RenderedVegaCommon5 svg", timeout=30_000)
    page.wait_for_timeout(1000)
    keep_screenshot(page, f"stepper_{'dark' if dark else 'light'}_{width}", artifacts)
    assert errors(page) == []
    assert page.locator(".jp-RenderedVegaCommon5").count() == 3
    assert is_dark(page) == dark
    assert too_wide(page) == []
    return page


def place(page):
    """The number of the event at which the first stepper stands, once it stands still."""
    shown, before = page.get_by_text(re.compile(r"^event [\d,]+ of")).first, ""
    # its parts change one after the other: the sentence may be there before the number
    while (text := shown.inner_text()) != before:
        before = text
        page.wait_for_timeout(500)
    return int(re.match(r"event ([\d,]+)", text).group(1).replace(",", ""))


def chosen_row(page):
    """The text of the row that the first table of events has chosen."""
    return page.locator(".vmrk-events").first.locator("tr[aria-selected=true]").inner_text()


def stands_at(page):
    """Where on the first chart the line stands, in user units."""
    moved = page.locator(".vmrk-runs").first.locator(".vmrk-now").get_attribute("transform")
    return float(re.search(r"[\d.]+", moved).group())


def test_dark_and_wide_chart_and_table_follow_and_choose(scratch, lab_page, artifacts):
    page = opened(scratch, lab_page, artifacts, dark=True, width=1920)
    picture = page.locator(".vmrk-runs > svg").first
    drawn = picture.element_handle()
    # a click in the chart: event, table, line
    before, at = place(page), stands_at(page)
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.3, "y": box["height"] * 0.5})
    page.wait_for_timeout(700)
    clicked = place(page)
    assert clicked != before
    assert stands_at(page) != at
    # a click on another row of the table
    at = stands_at(page)
    row = page.locator(".vmrk-events tbody tr").nth(2)
    text = row.inner_text()
    row.click()
    page.wait_for_function(
        "text => document.querySelector('.vmrk-events tr[aria-selected=true]').innerText === text", arg=text
    )
    assert place(page) != clicked
    # the keys: in the table from row to row, in the chart through time
    page.locator(".vmrk-events tr[tabindex='0']").first.focus()
    here = place(page)
    page.keyboard.press("ArrowDown")
    page.get_by_text(f"event {here + 1:,} of").first.wait_for()
    page.keyboard.press("ArrowUp")
    page.get_by_text(f"event {here:,} of").first.wait_for()
    page.locator(".vmrk-runs").first.focus()
    text = chosen_row(page)
    page.keyboard.press("End")
    page.wait_for_timeout(700)
    assert place(page) > here
    assert chosen_row(page) != text
    assert drawn.evaluate("svg => svg.isConnected")  # only the line has moved
    # how long after a key all of it has followed
    page.locator("[role=slider].noUi-handle").first.focus()
    took = [page.evaluate(TIME_OF_A_STEP) for _ in range(7)]
    print("milliseconds from a key on the slider to chart and table:", sorted(took))
    keep_screenshot(page, "stepper_linked", artifacts)
    assert errors(page) == []


# from a key on the slider until the table of events, which is told after the chart, shows another event
TIME_OF_A_STEP = """() => new Promise((done, failed) => {
    const table = document.querySelector('.vmrk-events table'), handle = document.activeElement;
    const start = performance.now();
    new MutationObserver((_, watch) => { watch.disconnect(); done(Math.round(performance.now() - start)); })
        .observe(table, { childList: true });
    const key = { key: 'PageDown', code: 'PageDown', bubbles: true, cancelable: true };
    handle.dispatchEvent(new KeyboardEvent('keydown', key));
    setTimeout(() => failed(new Error('the table did not change')), 5000);
})"""


def test_light_and_narrow_by_keyboard_and_pause(scratch, lab_page, artifacts):
    page = opened(scratch, lab_page, artifacts, dark=False, width=1280)
    jump_to = page.get_by_label("Jump to").first
    writes = jump_to.locator('option[value*="VM writes"]').get_attribute("value")
    jump_to.select_option(value=writes)
    for control, key in [
        ("Step", "Enter"),
        ("Step", "Space"),
        ("Back", "Enter"),
        ("Jump", "Space"),
        ("Back", "Space"),
    ]:
        before = sentences(page)
        press(page, control, key)
        wait_for_other_sentences(page, before)
    start = place(page)
    for number in range(1, 16):  # many events share a millisecond: none may be skipped, none come twice
        press(page, "Step", "Enter")
        page.get_by_text(f"event {start + number:,} of").first.wait_for()
    page.wait_for_timeout(500)
    assert place(page) == start + 15
    press(page, "Play", "Space")
    for _ in range(2):
        wait_for_other_sentences(page, sentences(page))
    press(page, "Pause", "Enter")
    page.get_by_role("button", name="Play", exact=True).first.wait_for()
    page.wait_for_timeout(800)  # what was under way arrives
    paused = sentences(page)
    page.wait_for_timeout(2500)
    assert sentences(page) == paused
    handle = page.locator("[role=slider]").first
    handle.focus()
    for _ in range(30):
        page.keyboard.press("PageUp")
    wait_for_other_sentences(page, paused)
    keep_screenshot(page, "stepper_keyboard", artifacts)
