"""The cache explorer in real JupyterLab: light and dark, narrow and wide, by mouse and by keyboard."""

from pathlib import Path

import pytest
from lab_in_chromium import (
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
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    "from tiny_boots import tiny_manifest, tiny_trace\n"
    "import vmrestorekit as vr\n"
    "from vmrestorekit.restore.replay import block_accesses\n"
    "from vmrestorekit.show.cache.explorer import CacheExplorer\n"
    "boots = [vr.Boot.from_parts(tiny_trace(name), [tiny_manifest()]) for name in ('one', 'two')]\n"
    "first_set = list(dict.fromkeys(block_accesses(boots[0].trace).tolist()))\n"
    "plan = vr.RestorePlan(boots[0].disk_bytes, first_set=first_set)",
    "sizes = [0.125, 0.25, 0.5, 1, 2, 4]\n"
    "explorer = CacheExplorer(boots[0], plan, clones=boots[1:], sizes_mib=sizes)\n"
    "explorer",
    "explorer.wait(), print('all known')",
]


@pytest.fixture
def scratch(tmp_path):
    return notebook_of(tmp_path, CELLS)


def opened(lab_page, scratch, **looks):
    page, server = lab_page(scratch, **looks)
    open_notebook(page, server, "scratch.ipynb")
    run_all(page, 300)
    page.get_by_text("all known").first.wait_for(timeout=120_000)
    page.locator("p[role=status]").filter(has_text="of stall").first.wait_for(timeout=60_000)
    return page


def expect_good_looks(page, artifacts, name):
    page.wait_for_selector(".jp-RenderedVegaCommon5 canvas, .jp-RenderedVegaCommon5 svg", timeout=30_000)
    page.wait_for_timeout(1000)
    keep_screenshot(page, f"cache_explorer_{name}", artifacts)
    assert errors(page) == []
    assert too_wide(page) == []
    assert page.locator(".vmrk-map").inner_text().count("…") == 0


def test_dark_and_wide_by_mouse(scratch, lab_page, artifacts):
    page = opened(lab_page, scratch, width=1920, height=1700, dark=True)
    expect_good_looks(page, artifacts, "dark_1920")
    place = page.locator(".vmrk-map rect").nth(6 * 4 + 1)  # S3-FIFO, the second size
    before = sentences(page)
    place.click(force=True)  # a number lies on the square
    wait_for_other_sentences(page, before, 30)
    assert sentences(page)[0].startswith("S3-FIFO, 256 KiB: ")


def test_light_and_narrow_by_keyboard(scratch, lab_page, artifacts):
    page = opened(lab_page, scratch, width=1280, height=1700)
    expect_good_looks(page, artifacts, "light_1280")
    assert sentences(page)[0].startswith("LRU, 1 MiB: ")
    told = page.locator(".vmrk-map")

    def after(act, begin):
        before = sentences(page)
        act()
        wait_for_other_sentences(page, before, 30)
        assert sentences(page)[0].startswith(begin)
        assert told.get_attribute("aria-valuetext").startswith(begin)

    told.focus()
    after(lambda: page.keyboard.press("ArrowDown"), "CLOCK, 1 MiB: ")
    after(lambda: page.keyboard.press("ArrowRight"), "CLOCK, 2 MiB: ")
    after(lambda: page.keyboard.press("Home"), "FIFO, 128 KiB: ")
    page.locator("[role=slider].noUi-handle").first.focus()
    after(lambda: page.keyboard.press("ArrowRight"), "FIFO, 256 KiB: ")
    after(lambda: page.get_by_label("Policy", exact=True).select_option(label="ARC"), "ARC, 256 KiB: ")
    page.get_by_label("Case", exact=True).select_option(label="Live mounts of 2 clones, one a minute")
    page.get_by_text("one, two: machines made from one image").first.wait_for(timeout=30_000)
    page.wait_for_timeout(3000)
    keep_screenshot(page, "cache_explorer_keyboard", artifacts)
    assert errors(page) == []
