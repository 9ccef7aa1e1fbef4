"""Browser tests take minutes and need Chromium: they run only when asked for, with ``-m browser``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_in_chromium import CHROMIUM, JupyterLab, chromium_browser, copy_notebooks

REPOSITORY = Path(__file__).parents[2]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "browser" in (config.getoption("markexpr") or ""):
        return
    asked_later = [item for item in items if item.get_closest_marker("browser")]
    if asked_later:
        config.hook.pytest_deselected(items=asked_later)
        items[:] = [item for item in items if not item.get_closest_marker("browser")]


@pytest.fixture
def artifacts() -> Path:
    """Where screenshots are kept."""
    return Path(os.environ.get("VMRESTOREKIT_ARTIFACTS", REPOSITORY / "artifacts"))


def expect_chromium() -> None:
    """Skip a test where there is no Chromium; in CI, fail it."""
    if Path(CHROMIUM).exists():
        return
    reason = f"expected Chromium at {CHROMIUM}; install it, or set VMRESTOREKIT_CHROMIUM to its path"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    """One JupyterLab for all tests of a worker: starting it takes longer than most of them."""
    expect_chromium()
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    folder.mkdir()
    with JupyterLab(folder) as server:
        yield server


@pytest.fixture(scope="session")
def window() -> Iterator[Any]:
    """One Chromium for all tests of a worker: it keeps the programs of JupyterLab, all else is told anew."""
    expect_chromium()
    with chromium_browser() as browser:
        yield browser.new_context()


class Opened:
    """A folder of notebooks in a server that serves others, too."""

    def __init__(self, lab: JupyterLab, folder: str) -> None:
        self._lab, self._folder = lab, folder

    def address(self, notebook: str) -> str:
        """Return where to open a notebook of the folder."""
        return self._lab.address(f"{self._folder}/{notebook}")


@pytest.fixture
def lab_page(lab: JupyterLab, window: Any) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Return a function from a folder of notebooks to (page, server); page and kernels end with the test."""
    pages = []

    def start(
        notebooks: Path, *, width: int = 1280, height: int = 1000, dark: bool = False
    ) -> tuple[Any, Opened]:
        folder = secrets.token_hex(4)  # nothing of another test is found there
        copy_notebooks(notebooks, lab.folder / folder)
        lab.show_dark(dark)
        page = window.new_page()
        page.set_viewport_size({"width": width, "height": height})
        pages.append(page)
        return page, Opened(lab, folder)

    try:
        yield start
    finally:
        for page in pages:
            page.close()
        lab.end_kernels()
