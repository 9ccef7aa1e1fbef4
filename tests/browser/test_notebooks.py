"""Every notebook, opened and run in real JupyterLab: no error, nothing grave for screen readers.

The widgets of the first ones are then worked by keyboard.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accessibility import WIDGETS, grave_findings
from lab_in_chromium import complaints_of, errors, keep_screenshot, open_notebook, press, run_all

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

pytestmark = pytest.mark.browser


def announced(page: Any, text: str) -> Any:
    """Return the announcement that has this text, once it is there."""
    found = page.locator("p[role=status]", has_text=text).first
    found.wait_for(state="visible", timeout=20_000)
    return found


def go_through_the_scenes(page: Any, artifacts: Path) -> None:
    announced(page, "1 · The disk is lost").scroll_into_view_if_needed()
    for scene in ("2 · Pre-stage", "3 · Launch"):
        press(page, "Next", "Enter")
        announced(page, scene)
    assert page.locator("path.vmrk-dots").count() == 2
    press(page, "Back", "Space")
    announced(page, "2 · Pre-stage")
    keep_screenshot(page, "00_scenes", artifacts)


def answer_a_question(page: Any, artifacts: Path) -> None:
    announced(page, "Question 1 of 3").scroll_into_view_if_needed()
    page.get_by_role("radio", name="miss").or_(page.get_by_role("radio", name="media agent")).first.focus()
    page.keyboard.press("Space")
    press(page, "Guess", "Enter")
    page.locator("p[role=status]").filter(has_text="Right.").or_(
        page.locator("p[role=status]").filter(has_text="Wrong")
    ).first.wait_for(state="visible", timeout=20_000)
    keep_screenshot(page, "01_guess", artifacts)


def pick_a_first_set(page: Any, artifacts: Path) -> None:
    announced(page, "Add what you expect").scroll_into_view_if_needed()
    press(page, "Add", "Enter")
    announced(page, "Press Restore to try it")
    map_of_disk = page.locator(".vmrk-map").first
    map_of_disk.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    press(page, "Add region", "Enter")
    page.get_by_label("Picked").first.locator("option", has_text="region").wait_for(state="attached")
    press(page, "Restore", "Enter")
    announced(page, "Try 1:")
    page.locator("caption", has_text="Your tries").first.wait_for(state="visible", timeout=20_000)
    page.get_by_label("Map", exact=True).first.select_option(label="what is picked")
    name = "04_dark_1920"
    page.locator("h4", has_text="First set for").first.scroll_into_view_if_needed()
    page.get_by_label("Map", exact=True).first.select_option(label="what came of try 1")
    page.wait_for_timeout(1000)
    keep_screenshot(page, name, artifacts)
    page.locator("caption", has_text="Your tries").first.scroll_into_view_if_needed()
    keep_screenshot(page, f"{name}_tries", artifacts)


WORKED: dict[str, Callable[[Any, Path], None]] = {
    "00_start_here": go_through_the_scenes,
    "01_instant_restore_versus_live_mount": answer_a_question,
    "04_choose_the_first_set": pick_a_first_set,
}
DARK_AND_WIDE = {"04_choose_the_first_set"}


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_runs_in_jupyterlab(name: str, lab_page: Callable[..., tuple[Any, Any]], artifacts: Path) -> None:
    dark = name in DARK_AND_WIDE
    page, server = lab_page(NOTEBOOKS, dark=dark, width=1920 if dark else 1280, height=1400)
    said = complaints_of(page)
    open_notebook(page, server, f"{name}.ipynb")
    before = len(said)  # what JupyterLab itself complains of when it starts
    try:
        run_all(page, 240)
        page.wait_for_timeout(1000)
        assert errors(page) == []
        if page.locator(WIDGETS).count():
            assert grave_findings(page) == []
    finally:
        keep_screenshot(page, f"{name}_ran", artifacts)
    if name in WORKED:
        WORKED[name](page, artifacts)
        assert errors(page) == []
    assert said[before:] == []
