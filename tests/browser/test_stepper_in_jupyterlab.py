"""The stepper and the charts in real JupyterLab: light and dark, narrow and wide, by keyboard."""

import re
from pathlib import Path

import pytest
from lab_in_chromium import (
    errors,
    keep_screenshot,
    notebook_of,
    open_notebook,
    press,
    run_all,
    sentences,
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


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1920)], ids=["light", "dark"])
def test_looks(scratch, lab_page, artifacts, dark, width):
    page, server = lab_page(scratch, width=width, height=3600, dark=dark)
    name = f"stepper_{'dark' if dark else 'light'}_{width}"
    open_notebook(page, server, "scratch.ipynb")
    run_all(page)
    page.wait_for_selector(".jp-RenderedVegaCommon5 canvas, .jp-RenderedVegaCommon5 svg", timeout=30_000)
    page.wait_for_timeout(1000)
    keep_screenshot(page, name, artifacts)
    assert errors(page) == []
    assert page.locator(".jp-RenderedVegaCommon5").count() == 3
    assert page.evaluate("document.body.dataset.jpThemeLight") == str(not dark).lower()
    # nothing is cut off: no part of a stepper is wider than the page
    assert page.evaluate(TOO_WIDE) == []


TOO_WIDE = """() => [...document.querySelectorAll('.vmrk, .vmrk svg, .vmrk table')]
    .filter(each => each.scrollWidth > each.clientWidth + 1 && each.tagName === 'DIV'
        || each.getBoundingClientRect().right > window.innerWidth).map(each => each.outerHTML.slice(0, 80))"""


def place(page):
    """The number of the event at which the first stepper stands, once it stands still."""
    shown, before = page.get_by_text(re.compile(r"^event [\d,]+ of")).first, ""
    # its parts change one after the other: the sentence may be there before the number
    while (text := shown.inner_text()) != before:
        before = text
        page.wait_for_timeout(500)
    return int(re.match(r"event ([\d,]+)", text).group(1).replace(",", ""))


def test_keyboard_and_pause(scratch, lab_page, artifacts):
    page, server = lab_page(scratch)
    open_notebook(page, server, "scratch.ipynb")
    run_all(page)
    jump_to = page.get_by_label("Jump to").first
    writes = jump_to.locator('option[value^="VM writes"]').get_attribute("value")
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
