"""Every notebook, opened and run in one real JupyterLab: no error, nothing grave for screen readers."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from accessibility import WIDGETS, grave_findings
from conftest import expect_chromium
from lab_in_chromium import chromium, errors, jupyterlab_with, keep_screenshot, open_notebook, run_all

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    expect_chromium()
    with jupyterlab_with(NOTEBOOKS, tmp_path_factory.mktemp("course")) as server:
        yield server


@pytest.fixture
def page(lab):
    with chromium(1280, 1400) as opened:
        yield opened
    _end_kernels(lab)


def _end_kernels(server):
    root = f"http://127.0.0.1:{server.port}/api/sessions"
    token = f"?token={server.token}"
    with urllib.request.urlopen(root + token, timeout=20) as answer:
        sessions = json.load(answer)
    for session in sessions:
        ended = urllib.request.Request(f"{root}/{session['id']}{token}", method="DELETE")
        urllib.request.urlopen(ended, timeout=20).close()


@pytest.mark.parametrize("notebook", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_runs_in_jupyterlab(notebook, page, lab, artifacts):
    said, name = [], Path(notebook).stem
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    open_notebook(page, lab, notebook)
    before = len(said)  # what JupyterLab itself complains of when it starts
    try:
        run_all(page, 240)
        page.wait_for_timeout(1000)
        assert errors(page) == []
        assert said[before:] == []
        if page.locator(WIDGETS).count():
            assert grave_findings(page) == []
    finally:
        keep_screenshot(page, f"{name}_ran", artifacts)
