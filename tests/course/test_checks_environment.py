"""What notebook 00 says of the computer, of the course, and of a first answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
sys.path.append(str(NOTEBOOKS))

from checks import environment  # noqa: E402

from vmrestorekit.traces.corpus import Corpus  # noqa: E402


def test_a_good_environment_has_only_ticks(packaged_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_free_memory", lambda: 8 << 30)
    monkeypatch.setattr(environment, "_has_widgets", lambda: True)
    report = environment.check_environment()
    assert report.is_fine
    assert repr(report).count("✓") == len(report.lines) == report._repr_html_().count("✓")


def test_what_is_wrong_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Corpus:
        raise FileNotFoundError("somewhere")

    monkeypatch.setattr(environment.vr, "load_corpus", fail)
    monkeypatch.setattr(environment, "_engine_runs", lambda: False)
    monkeypatch.setattr(environment, "_has_widgets", lambda: False)
    monkeypatch.setattr(environment, "_free_memory", lambda: 1 << 20)
    monkeypatch.setattr(environment, "_LEAST_PYTHON", (9, 9))
    report = environment.check_environment()
    assert not report.is_fine
    assert sum(not fine for fine, _, _ in report.lines) == 5
    for todo in ("data/traces", "numba", "restart JupyterLab", "other kernels", "newer Python"):
        assert todo in repr(report)
        assert todo in report._repr_html_()


def test_widgets_are_looked_for_and_may_be_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "labextensions"
    monkeypatch.setattr(environment, "_lab_extensions", lambda: [folder])
    assert not environment._has_widgets()
    for name in ("@jupyter-widgets/jupyterlab-manager", "anywidget"):
        (folder / name).mkdir(parents=True)
        (folder / name / "package.json").write_text("{}")
    assert environment._has_widgets()
    (tmp_path / "labconfig").mkdir()
    page = tmp_path / "labconfig" / "page_config.json"
    page.write_text(json.dumps({"disabledExtensions": {"anywidget": True}}))
    assert not environment._has_widgets()
    page.write_text(json.dumps({"disabledExtensions": {"anywidget": False}}))
    assert environment._has_widgets()


def test_the_course_is_what_is_there() -> None:
    found = environment.course(NOTEBOOKS)
    assert [file for file, *_ in found.notebooks] == sorted(
        path.name for path in NOTEBOOKS.glob("[0-9]*.ipynb")
    )
    for file, title, question, minutes in found.notebooks:
        assert title.startswith(f"{file[:2]} · ")
        assert 5 <= minutes <= 60
        assert question.endswith("?")
        assert f'href="{file}"' in found._repr_html_()


def test_a_notebook_that_is_not_known_is_described_by_its_text(tmp_path: Path) -> None:
    text = "# 77 · New\n\n**Is this\nnew?** It is."
    cells = [{"cell_type": "markdown", "source": [text]}, {"cell_type": "code", "source": ["SEED = 1"]}]
    (tmp_path / "77_new.ipynb").write_text(json.dumps({"cells": cells}), "utf-8")
    assert environment.course(tmp_path).notebooks == (("77_new.ipynb", "77 · New", "Is this new?", 5),)


def test_the_first_exercise(packaged_corpus: Corpus) -> None:
    for seed in range(4):
        boots = len(packaged_corpus[environment.machine(seed)].boots)
        assert environment.check_boots(boots, seed).is_right
        assert environment.check_boots(np.int64(boots), seed).is_right
        assert environment.check_boots(boots + 1, seed).is_right is False
    assert len({environment.machine(seed) for seed in range(9)}) > 3
    for answer in (..., None):
        assert environment.check_boots(answer).is_right is None
    boots_of_one = packaged_corpus[environment.machine(1)].boots
    assert "count what is in it" in environment.check_boots(boots_of_one, 1).text
    assert str(len(boots_of_one)) not in environment.check_boots(len(boots_of_one) + 1, 1).text
    for answer in ("4", 4.0, True, [4]):
        assert "whole number" in environment.check_boots(answer).text
