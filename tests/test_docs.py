"""The documentation site builds without a warning, has all that is public in it, and needs no network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lacking import missing

import vmrestorekit

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 600  # some ten on an idle machine
ANIMATION_BYTES = 1_500_000
# what a page may load: a link to click on is no such thing
LOADED = re.compile(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?P<src>[^"]+)"|<link\b(?P<link>[^>]*)>')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, warnings as errors."""
    for module in ("material", "mkdocstrings", "vl_convert"):
        if importlib.util.find_spec(module) is None:
            missing(f"expected the extra 'docs' ({module} is not there): pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    return folder


def page(site: Path, place: str) -> str:
    return (site / place).read_text("utf-8")


def test_every_public_name_has_its_place_in_the_api(site: Path) -> None:
    pages = {path.stem: path.read_text("utf-8") for path in (site / "api").glob("*.html")}
    for name, module in vmrestorekit._PUBLIC.items():
        room = module.split(".")[1]
        assert f'id="{module}.{name}"' in pages[room], name


def test_docstrings_are_read_as_such(site: Path) -> None:
    simulate = page(site, "api/restore.html")
    assert re.search(r"Parameters|Returns", simulate)
    assert "----------" not in simulate, "a heading of a NumPy docstring was not understood"


@pytest.mark.parametrize(
    "widget", ["restore.stepper.Stepper", "guessing.guess.Guess", "export.Export", "live_chart.LiveChart"]
)
def test_widgets_are_described_whether_exported_or_not(site: Path, widget: str) -> None:
    assert f'id="vmrestorekit.show.{widget}"' in page(site, "api/show.html")


def test_every_notebook_is_a_page_with_its_results(site: Path) -> None:
    listed = page(site, "course/index.html")
    notebooks = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert notebooks
    for path in notebooks:
        assert f"{path.stem}.html" in listed
        assert "NBVAL" not in page(site, f"course/{path.stem}.html")
    first = page(site, "course/01_instant_restore_versus_live_mount.html")
    assert "vmrk-output" in first
    assert "To be used in JupyterLab." in first
    pictures = re.findall(r'<img class="vmrk-chart" src="([^"]+)"', first)
    assert pictures
    for picture in pictures:
        assert (site / "course" / picture).read_bytes().startswith(b"\x89PNG")


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    pages = [path for path in site.rglob("*.html") if path.name != "404.html"]
    assert len(pages) > 10
    for path in pages:
        for found in LOADED.finditer(path.read_text("utf-8")):
            source = found["src"] or found["link"]
            is_fetched = found["src"] or re.search(r'rel="(stylesheet|icon|preconnect|preload)"', source)
            assert not (is_fetched and "//" in source), f"{path.name}: {found[0]}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:", style.read_text("utf-8")), style.name


def test_the_animation_is_short_and_small() -> None:
    if importlib.util.find_spec("PIL") is None:
        missing("expected Pillow: pip install '.[docs]'")
    from PIL import Image

    path = ROOT / "docs" / "restore.gif"
    assert path.stat().st_size < ANIMATION_BYTES
    with Image.open(path) as animation:
        assert 10 < animation.n_frames < 60
        milliseconds = 0
        for frame in range(animation.n_frames):
            animation.seek(frame)
            milliseconds += animation.info["duration"]
    assert 10_000 < milliseconds < 40_000
    assert "docs/restore.gif" in (ROOT / "README.md").read_text("utf-8")


def test_sources_of_the_glossary_are_all_cited_and_listed() -> None:
    text, sources = (ROOT / "notebooks" / "glossary.md").read_text("utf-8").split("## Sources")
    listed = {int(number) for number in re.findall(r"^(\d+)\. .*https://", sources, re.MULTILINE)}
    cited = {
        int(number)
        for group in re.findall(r"\[(\d+(?:, \d+)*)\](?!\()", text)
        for number in group.split(", ")
    }
    assert cited == listed
    assert listed == set(range(1, len(listed) + 1))


def test_teachers_are_told_of_every_notebook() -> None:
    text = (ROOT / "docs" / "teachers.md").read_text("utf-8")
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        assert re.search(rf"^### {path.stem[:2]} ", text, re.MULTILINE), path.name
