"""Browser tests take minutes and need Chromium: they run only when asked for, with ``-m browser``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab_in_chromium import CHROMIUM, chromium, jupyterlab_with

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


@pytest.fixture
def lab_page(tmp_path: Path) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Return a function from a folder of notebooks to (page, server); all ends with the test."""
    expect_chromium()
    with ExitStack() as stack:

        def start(
            notebooks: Path, *, width: int = 1280, height: int = 1000, dark: bool = False
        ) -> tuple[Any, Any]:
            server = stack.enter_context(jupyterlab_with(notebooks, tmp_path, dark=dark))
            return stack.enter_context(chromium(width, height)), server

        yield start
