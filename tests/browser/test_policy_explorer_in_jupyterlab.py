"""The policy explorer in real JupyterLab: light and dark, narrow and wide, by keyboard and by click."""

import re

import pytest
from lab_in_chromium import (
    errors,
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
    "from vmrestorekit.show.policy.explorer import PolicyExplorer\n"
    "from vmrestorekit.show.policy.steps import draw_accesses\n"
    "accesses = draw_accesses(3, 60, 9)",
    "PolicyExplorer(accesses, 4, ('lru', 's3fifo'), start=20)",
    "PolicyExplorer(accesses, 4, ('clock',), guess=True, start=8)",
]


@pytest.fixture
def scratch(tmp_path):
    return notebook_of(tmp_path, CELLS)


def opened(scratch, lab_page, artifacts, *, dark, width):
    """Open and run it, and look whether all of it is there."""
    page, server = lab_page(scratch, width=width, height=1800, dark=dark)
    open_notebook(page, server, "scratch.ipynb")
    run_all(page)
    page.locator(".vmrk-map svg").last.wait_for()
    keep_screenshot(page, f"policy_explorer_{'dark' if dark else 'light'}_{width}", artifacts)
    assert errors(page) == []
    assert too_wide(page) == []
    return page


def test_dark_and_wide(scratch, lab_page, artifacts):
    opened(scratch, lab_page, artifacts, dark=True, width=1920)


def place(page, number):
    page.get_by_text(re.compile(rf"^access {number} of 60")).first.wait_for(timeout=10_000)


def test_light_and_narrow_by_keyboard_click_and_guess(scratch, lab_page, artifacts):
    page = opened(scratch, lab_page, artifacts, dark=False, width=1280)
    place(page, 21)
    for control, key, number in [("Step", "Enter", 22), ("Step", "Space", 23), ("Back", "Enter", 22)]:
        press(page, control, key)
        place(page, number)
    cells = page.locator(".vmrk-map").first
    cells.focus()
    page.keyboard.press("ArrowRight")
    place(page, 23)
    page.keyboard.press("Home")
    place(page, 1)
    page.wait_for_timeout(1000)  # the map is drawn anew with each step, a little after the place
    box = cells.locator("svg").bounding_box()
    cell = box["width"] / (40 + 54 / 12)
    cells.click(position={"x": cell * (54 / 12 + 10.5), "y": cell * 1.5})  # LRU's row
    place(page, 11)
    handle = page.locator(".noUi-handle[role=slider]").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    place(page, 12)
    press(page, "Play", "Space")
    place(page, 14)
    press(page, "Pause", "Enter")
    before = sentences(page)
    guessing = page.locator(".jp-CodeCell").last
    guessing.get_by_role("button", name="Step", exact=True).press("Enter")
    wait_for_other_sentences(page, before)
    assert any("Which block goes?" in sentence for sentence in sentences(page))
    choice = guessing.get_by_label("Who goes?")
    choice.select_option(index=1)
    before = sentences(page)
    guessing.get_by_role("button", name="Guess", exact=True).press("Enter")
    wait_for_other_sentences(page, before)
    assert re.match("✓ Right.|✗ Not block", sentences(page)[-1])
    guessing.get_by_label("S3-FIFO").press("Space")
    guessing.get_by_text("small queue").first.wait_for()
    assert errors(page) == []
    keep_screenshot(page, "policy_explorer_keyboard", artifacts)
