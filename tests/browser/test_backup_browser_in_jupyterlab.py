"""The file manager in real JupyterLab: light and dark, narrow and wide, by keyboard, by mouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab_in_chromium import (
    complaints_of,
    errors,
    keep_screenshot,
    notebook_of,
    open_notebook,
    run_all,
    sentences,
    too_wide,
    wait_for_other_sentences,
)

pytestmark = pytest.mark.browser

CELLS = [
    "import vmrestorekit as vr\nfrom vmrestorekit.show.backups.browser import BackupBrowser\n"
    "browser = BackupBrowser(vr.load_corpus())",
    "browser.go_to('trixie-files', 'before boot-1', 1, '/srv/3')\nbrowser",
]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return notebook_of(tmp_path, CELLS)


ROW_WITH_FOCUS = "() => document.activeElement.closest('.vmrk-files tr')?.getAttribute('aria-label') ?? ''"


def press_and_wait(page: Any, key: str) -> str:
    """Press a key that says something, and return what it says."""
    before = sentences(page)
    page.keyboard.press(key)
    wait_for_other_sentences(page, before)
    return str(sentences(page)[-1])


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1920)], ids=["light", "dark"])
def test_looks_and_works_by_keyboard(scratch, lab_page, artifacts, dark, width):
    page, server = lab_page(scratch, width=width, height=1300, dark=dark)
    said = complaints_of(page)
    open_notebook(page, server, "scratch.ipynb")
    run_all(page, 240)
    page.wait_for_selector(".vmrk-files tbody tr")
    assert errors(page) == []
    page.locator(".vmrk-files tbody tr[tabindex='0']").focus()
    assert "1.txt" in page.evaluate(ROW_WITH_FOCUS)
    page.keyboard.press("ArrowDown")
    page.wait_for_function(f"() => ({ROW_WITH_FOCUS})().includes('10.txt')")
    assert "Chosen: 10.txt" in press_and_wait(page, "Space")
    page.wait_for_function(f"() => ({ROW_WITH_FOCUS})().includes('10.txt, chosen')")
    assert "Page 2" in press_and_wait(page, "PageDown")
    assert "entries" in press_and_wait(page, "Backspace")
    page.wait_for_function(f"() => ({ROW_WITH_FOCUS})().includes('folder 3, partly chosen')")
    keep_screenshot(page, f"backup_browser_{'dark' if dark else 'light'}_{width}", artifacts)
    assert too_wide(page) == []
    assert "60 entries" in press_and_wait(page, "Enter")
    page.locator(".vmrk-map").focus()
    assert "file" in press_and_wait(page, "ArrowRight")
    button = page.get_by_role("button", name="Make a plan", exact=True)
    button.focus()
    assert "The plan is in .plan" in press_and_wait(page, "Enter")
    assert [text for text in said if "favicon" not in text] == []


def test_works_by_mouse(scratch, lab_page, artifacts):
    page, server = lab_page(scratch)
    open_notebook(page, server, "scratch.ipynb")
    run_all(page, 240)
    page.get_by_label("Choose 11.txt", exact=True).click()
    page.get_by_text("Chosen: 11.txt").wait_for()
    page.get_by_role("navigation", name="The way here").get_by_role("button", name="srv", exact=True).click()
    page.get_by_role("button", name="7", exact=True).click()
    page.get_by_text("› srv › 7: 60 entries").wait_for()
    page.locator(".vmrk-map").click(position={"x": 40, "y": 6})
    page.get_by_text("most of it of").wait_for()
    page.get_by_placeholder("such as *.conf").fill("5*.txt")
    page.keyboard.press("Enter")
    page.get_by_text("search for 5*.txt: 11 entries").wait_for()
    keep_screenshot(page, "backup_browser_search", artifacts)
    assert errors(page) == []
