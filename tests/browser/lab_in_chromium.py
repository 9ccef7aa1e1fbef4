"""A real JupyterLab in a headless Chromium: start it, open a notebook, run it, look at it.

The notebooks are copied to a folder of their own, so that nothing that is run here changes the repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("VMRESTOREKIT_CHROMIUM", "/usr/bin/chromium")
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
START_SECONDS = 90


class JupyterLab:
    """A server of its own on a free port of this machine, with a token, serving one folder."""

    def __init__(self, folder: Path, *, dark: bool = False) -> None:
        self.folder, self.token = folder, secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._private = folder.parent / "jupyter"  # settings and run files, so that nobody's own are touched
        self._environment = os.environ | {
            "JUPYTER_CONFIG_DIR": str(self._private / "config"),
            "JUPYTER_DATA_DIR": str(self._private / "data"),
            "JUPYTER_RUNTIME_DIR": str(self._private / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(self._private / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self._private / "workspaces"),
        }
        self.show_dark(dark)
        self._setting("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False})
        # all cells in the page, not only those that are scrolled into view
        self._setting("notebook-extension/tracker", {"windowingMode": "none"})
        self._log = folder.parent / "jupyterlab.log"

    def show_dark(self, dark: bool) -> None:
        """Choose the theme of the pages that are opened from now on."""
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        self._setting("apputils-extension/themes", {"theme": theme})

    def _setting(self, name: str, setting: dict[str, Any]) -> None:
        path = self._private / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setting))

    def __enter__(self) -> JupyterLab:
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={self.port}"),
            *("--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"),
            *(f"--ServerApp.root_dir={self.folder}", "--LabApp.news_url=", "--allow-root"),
        ]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_until_it_answers()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.terminate()
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait(10)

    def address(self, notebook: str) -> str:
        """Return where to open a notebook of the folder."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?token={self.token}&reset"

    def end_kernels(self) -> None:
        """End all kernels, each of which holds up to a GB."""
        for session in json.loads(self._asked("GET", "sessions")):
            self._asked("DELETE", f"sessions/{session['id']}")

    def _asked(self, method: str, what: str) -> bytes:
        address = f"http://127.0.0.1:{self.port}/api/{what}?token={self.token}"
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=20) as answer:
            return bytes(answer.read())

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._server.poll() is None:
            with contextlib.suppress(OSError):
                self._asked("GET", "status")
                return
            time.sleep(0.3)
        self.__exit__()
        raise RuntimeError(
            f"JupyterLab did not answer within {START_SECONDS} s:\n{self._log.read_text()[-3000:]}"
        )


def copy_notebooks(notebooks: Path, folder: Path) -> None:
    """Copy a folder of notebooks, without what was made beside them."""
    shutil.copytree(notebooks, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"))


@contextlib.contextmanager
def jupyterlab_with(notebooks: Path, scratch: Path, *, dark: bool = False) -> Iterator[JupyterLab]:
    """Serve a copy of a folder of notebooks."""
    folder = scratch / "notebooks"
    copy_notebooks(notebooks, folder)
    with JupyterLab(folder, dark=dark) as server:
        yield server


@contextlib.contextmanager
def chromium_browser() -> Iterator[Any]:
    """Start a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def chromium(width: int = 1280, height: int = 1000) -> Iterator[Any]:
    """Open one page of a headless Chromium."""
    with chromium_browser() as browser:
        yield browser.new_page(viewport={"width": width, "height": height})


def notebook_of(scratch: Path, cells: list[str]) -> Path:
    """Write a notebook, ``scratch.ipynb``, of these cells into a folder of its own; return the folder."""
    folder = scratch / "scratch"
    folder.mkdir()
    cell = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    numbered = [cell | {"id": f"c{at}", "source": text} for at, text in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": numbered, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "scratch.ipynb").write_text(json.dumps(notebook))
    return folder


def open_notebook(page: Any, server: JupyterLab, notebook: str, *, side_bar: bool = False) -> None:
    """Open a notebook and wait until its kernel is idle."""
    page.goto(server.address(notebook), timeout=90_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    _wait_until_idle(page, 90)
    if not side_bar and page.locator("#jp-left-stack").is_visible():
        page.keyboard.press("Control+b")
        page.wait_for_selector("#jp-left-stack", state="hidden", timeout=10_000)


def run_all(page: Any, seconds: float = 120) -> None:
    """Run all cells, as a person does from the menu, and wait until the last one is done."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(_ALL_CELLS_RAN, timeout=seconds * 1000)
    _wait_until_idle(page, seconds)


# a prompt is [*] while its cell waits or runs, and [ ] before; a cell whose code is hidden shows none
_ALL_CELLS_RAN = """() => {
    const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
        .filter(cell => cell.querySelector('.cm-content')?.innerText.trim());
    return cells.length > 0 && cells.every(
        cell => /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt')?.innerText ?? ''));
}"""


def _wait_until_idle(page: Any, seconds: float) -> None:
    status = page.locator("#jp-bottom-panel, #jp-main-statusbar").get_by_text("Idle").first
    status.wait_for(state="visible", timeout=seconds * 1000)


_TOO_WIDE = """() => [...document.querySelectorAll('.vmrk, .vmrk svg, .vmrk table, .jp-RenderedVegaCommon5')]
    .filter(each => each.scrollWidth > each.clientWidth + 1 && each.matches('div.vmrk')
        || each.getBoundingClientRect().right > window.innerWidth).map(each => each.outerHTML.slice(0, 80))"""


def too_wide(page: Any) -> list[str]:
    """Return the parts of widgets that are cut off: that scroll sideways, or reach beyond the page."""
    return list(page.evaluate(_TOO_WIDE))


def is_dark(page: Any) -> bool:
    """Tell whether JupyterLab shows its dark theme."""
    return bool(page.evaluate("document.body.dataset.jpThemeLight") == "false")


def resize(page: Any, width: int) -> None:
    """Make the window wider or narrower, and let everything find its place."""
    page.set_viewport_size({"width": width, "height": page.viewport_size["height"]})
    page.wait_for_timeout(700)


def complaints_of(page: Any) -> list[str]:
    """Return a list to which all errors of the page's scripts will be added from now on."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    return said


def errors(page: Any) -> list[str]:
    """Return the text of every error that a cell shows."""
    shown = page.locator('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]')
    return list(shown.all_inner_texts())


def keep_screenshot(page: Any, name: str, artifacts: Path) -> Path:
    """Save what the page shows as a PNG and return where."""
    artifacts.mkdir(parents=True, exist_ok=True)
    path = artifacts / f"{name}.png"
    page.screenshot(path=str(path))
    return path


def sentences(page: Any) -> list[str]:
    """Return what each stepper in the page announces."""
    return list(page.locator("p[role=status]").all_inner_texts())


def press(page: Any, control: str, key: str) -> None:
    """Focus the first button of that name, as Tab does, and press a key."""
    button = page.get_by_role("button", name=control, exact=True).first
    button.focus()
    page.keyboard.press(key)


def wait_for_other_sentences(page: Any, before: list[str], seconds: float = 10) -> None:
    """Wait until what the steppers announce is not what they announced before."""
    page.wait_for_function(_SENTENCES_CHANGED, arg=before, timeout=seconds * 1000)


_SENTENCES_CHANGED = """before => JSON.stringify(before) !== JSON.stringify(
    [...document.querySelectorAll('p[role=status]')].map(each => each.innerText))"""
