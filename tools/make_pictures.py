"""Make the pictures of the README from what JupyterLab really shows: ``python tools/make_pictures.py``.

Needs Chromium, as the browser tests do.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "browser"))

from lab_in_chromium import (  # noqa: E402  (found through the line above)
    chromium,
    jupyterlab_with,
    open_notebook,
    press,
    run_all,
    sentences,
    wait_for_other_sentences,
)

NOTEBOOK = "01_instant_restore_versus_live_mount.ipynb"
# in the middle of the relocation, when every part of the picture has something to do
SHARE_OF_THE_EVENTS = 0.597
STEPS = 9


def main() -> None:
    """Run the notebook, go to the moment, and keep what the page shows."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        jupyterlab_with(REPOSITORY / "notebooks", Path(scratch)) as server,
        chromium(width=1280, height=1290) as page,
    ):
        open_notebook(page, server, NOTEBOOK)
        run_all(page, 240)
        page.locator("p[role=status]").first.scroll_into_view_if_needed()
        track = page.locator(".noUi-target:visible").last.bounding_box()
        page.mouse.click(track["x"] + track["width"] * SHARE_OF_THE_EVENTS, track["y"] + track["height"] / 2)
        for _ in range(STEPS):
            before = sentences(page)
            press(page, "Step", "Enter")
            wait_for_other_sentences(page, before)
        cell = page.locator(".jp-Cell", has=page.locator("p[role=status]")).first
        cell.locator(".jp-InputArea").first.scroll_into_view_if_needed()
        page.evaluate(
            "cell => { const panel = cell.closest('.jp-WindowedPanel-outer') ?? cell.closest('.jp-Notebook');"
            " panel.scrollBy(0, cell.getBoundingClientRect().top - panel.getBoundingClientRect().top - 8); }",
            cell.element_handle(),
        )
        page.wait_for_timeout(500)
        page.screenshot(path=str(REPOSITORY / "docs" / "stepper.png"))


if __name__ == "__main__":
    main()
