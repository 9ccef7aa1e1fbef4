"""The predictor explorer in real JupyterLab: light and dark, narrow and wide, by keyboard."""

from pathlib import Path

import pytest
from lab_in_chromium import (
    complaints_of,
    errors,
    is_dark,
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
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'predict')!r})\n"
    "from synthetic_boots import small_machine\n"
    "from vmrestorekit import LearnedPredictor\n"
    "from vmrestorekit.predict.baselines import UnionReplay\n"
    "from vmrestorekit.show.prediction.explorer import PredictorExplorer\n"
    "machines = [small_machine(name, seed) for seed, name in enumerate(('a', 'b', 'c', 'd'), 1)]\n"
    "boots = [boot for machine in machines[:3] for boot in machine]\n"
    "predictors = {'learned': LearnedPredictor().fit(boots), 'by path': UnionReplay(by='path').fit(boots)}",
    "PredictorExplorer(predictors, machines[3][-1], block_bytes=8192)",
]


@pytest.fixture
def scratch(tmp_path):
    return notebook_of(tmp_path, CELLS)


def wait_until_simulated(page):
    page.wait_for_function(
        """() => ['Simulate', 'Stop'].every(text => [...document.querySelectorAll('button')]
            .some(each => each.innerText.trim() === text && each.disabled))""",
        timeout=120_000,
    )


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1920)], ids=["light", "dark"])
def test_looks_and_works_by_keyboard(scratch, lab_page, artifacts, dark, width):
    page, server = lab_page(scratch, width=width, height=1900, dark=dark)
    name = f"predictor_explorer_{'dark' if dark else 'light'}_{width}"
    complaints = complaints_of(page)
    open_notebook(page, server, "scratch.ipynb")
    run_all(page, 240)
    wait_until_simulated(page)
    page.wait_for_selector(".jp-RenderedVegaCommon5 canvas, .jp-RenderedVegaCommon5 svg", timeout=30_000)
    assert "held up for" in sentences(page)[0]

    before = sentences(page)
    page.locator("[role=slider].noUi-handle").first.focus()
    page.keyboard.press("ArrowLeft")
    wait_for_other_sentences(page, before)

    before = sentences(page)
    page.locator(".vmrk-map").focus()
    page.keyboard.press("Home")
    wait_for_other_sentences(page, before)
    before = sentences(page)
    page.keyboard.press("ArrowRight")
    wait_for_other_sentences(page, before)

    before = sentences(page)
    page.get_by_role("button", name="Why?", exact=True).focus()
    page.keyboard.press("Enter")
    wait_for_other_sentences(page, before, 60)
    page.get_by_text("logarithm of the odds").first.wait_for()

    before = sentences(page)
    page.get_by_label("Predictor").select_option(label="by path")
    wait_for_other_sentences(page, before)
    assert sentences(page)[0].startswith("by path")
    page.wait_for_timeout(1000)
    keep_screenshot(page, name, artifacts)
    assert errors(page) == []
    assert complaints == []
    assert is_dark(page) == dark
    assert too_wide(page) == []
