"""The notebooks, opened and used in real JupyterLab."""

from pathlib import Path

import pytest
from lab_in_chromium import (
    errors,
    keep_screenshot,
    open_notebook,
    press,
    run_all,
    sentences,
    wait_for_other_sentences,
)

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("notebook", ["01_instant_restore_versus_live_mount.ipynb"])
def test_runs_and_steps_by_keyboard(notebook, lab_page, artifacts):
    page, server = lab_page(NOTEBOOKS)
    name = Path(notebook).stem
    try:
        open_notebook(page, server, notebook)
        run_all(page, 240)
        assert errors(page) == []
        page.locator("p[role=status]").first.scroll_into_view_if_needed()
        keep_screenshot(page, f"{name}_ran", artifacts)
        for key in ("Enter", "Space"):
            before = sentences(page)
            assert before
            press(page, "Step", key)
            wait_for_other_sentences(page, before)
        keep_screenshot(page, f"{name}_stepped", artifacts)
    except BaseException:
        keep_screenshot(page, f"{name}_failed", artifacts)
        raise


def test_runs_and_draws(lab_page, artifacts):
    page, server = lab_page(NOTEBOOKS)
    open_notebook(page, server, "02_where_the_backup_copy_lies.ipynb")
    run_all(page, 240)
    keep_screenshot(page, "02_ran", artifacts)
    assert errors(page) == []
    drawn = page.locator(".jp-OutputArea canvas, .jp-OutputArea svg.marks")
    drawn.last.scroll_into_view_if_needed()
    assert drawn.count() >= 1
    keep_screenshot(page, "02_charts", artifacts)
