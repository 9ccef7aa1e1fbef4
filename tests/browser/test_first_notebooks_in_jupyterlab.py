"""The first notebooks of the course in real JupyterLab: they run, and their widgets work by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_in_chromium import errors, keep_screenshot, open_notebook, press, run_all

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

pytestmark = pytest.mark.browser


def announced(page: Any, text: str) -> Any:
    """Return the announcement that has this text, once it is there."""
    found = page.locator("p[role=status]", has_text=text).first
    found.wait_for(state="visible", timeout=20_000)
    return found


def opened(
    lab_page: Callable[..., tuple[Any, Any]], notebook: str, **look: Any
) -> tuple[Any, Callable[[], None]]:
    page, server = lab_page(NOTEBOOKS, **look)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    open_notebook(page, server, notebook)
    run_all(page, 300)
    assert errors(page) == []
    return page, lambda: _expect_quiet(said)


def _expect_quiet(said: list[str]) -> None:
    ours = [text for text in said if "vmrk" in text or "Uncaught" in text]
    assert ours == []


@pytest.mark.parametrize(("dark", "width"), [(False, 1280)])
def test_the_seven_scenes(
    lab_page: Callable[..., tuple[Any, Any]], artifacts: Path, dark: bool, width: int
) -> None:
    page, expect_quiet = opened(lab_page, "00_start_here.ipynb", dark=dark, width=width)
    announced(page, "1 · The disk is lost").scroll_into_view_if_needed()
    for scene in ("2 · Pre-stage", "3 · Launch"):
        press(page, "Next", "Enter")
        announced(page, scene)
    assert page.locator("path.vmrk-dots").count() == 2
    press(page, "Back", "Space")
    announced(page, "2 · Pre-stage")
    keep_screenshot(page, f"00_scenes_{'dark' if dark else 'light'}_{width}", artifacts)
    expect_quiet()


def test_a_question_is_answered_by_keyboard(
    lab_page: Callable[..., tuple[Any, Any]], artifacts: Path
) -> None:
    page, expect_quiet = opened(lab_page, "01_instant_restore_versus_live_mount.ipynb")
    announced(page, "Question 1 of 3").scroll_into_view_if_needed()
    page.get_by_role("radio", name="miss").or_(page.get_by_role("radio", name="media agent")).first.focus()
    page.keyboard.press("Space")
    press(page, "Guess", "Enter")
    page.locator("p[role=status]").filter(has_text="Right.").or_(
        page.locator("p[role=status]").filter(has_text="Wrong")
    ).first.wait_for(state="visible", timeout=20_000)
    keep_screenshot(page, "01_guess", artifacts)
    expect_quiet()


@pytest.mark.parametrize(("dark", "width"), [(True, 1920)])
def test_a_first_set_is_picked_by_keyboard(
    lab_page: Callable[..., tuple[Any, Any]], artifacts: Path, dark: bool, width: int
) -> None:
    page, expect_quiet = opened(lab_page, "04_choose_the_first_set.ipynb", dark=dark, width=width)
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
    name = f"04_{'dark' if dark else 'light'}_{width}"
    page.locator("h4", has_text="First set for").first.scroll_into_view_if_needed()
    page.get_by_label("Map", exact=True).first.select_option(label="what came of try 1")
    page.wait_for_timeout(1000)
    keep_screenshot(page, name, artifacts)
    page.locator("caption", has_text="Your tries").first.scroll_into_view_if_needed()
    keep_screenshot(page, f"{name}_tries", artifacts)
    expect_quiet()
