"""The checks of `08_train_a_predictor`: right answers are accepted for every seed, wrong ones never are."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

sys.path.append(str(Path(__file__).parents[2] / "notebooks"))
from checks import train

# what a small explorer shows, so that no test has to train one
STEPS = [5.0 * step for step in range(41)]
RECALLS = [min(1.0, (step / 28) ** 0.5) for step in range(41)]
PATHS = ["/usr/lib/big.so", "/usr/lib/small.so", "/etc/odd", None]


class Explorer:
    """Stands for a PredictorExplorer: the same curves and tables, by hand."""

    def __init__(self, why="others have it and read it", steps=STEPS, recalls=RECALLS):
        self._why = why
        rows = {"budget_mb": steps, "recall": recalls, "waste_mb": [step / 4 for step in steps]}
        self.curves = pl.concat(
            [
                pl.DataFrame({"predictor": ["learned"] * len(steps), **rows}),
                pl.DataFrame({"predictor": ["oracle"] * len(steps), **rows, "recall": [1.0] * len(steps)}),
            ]
        )

    def files_at(self, predictor, step):
        assert predictor == "learned"
        whys = [self._why, "others have it, none reads it", self._why, ""]
        wasted = [40 * step, 40, 0, 9999]
        return pl.DataFrame({"path": PATHS, "wasted_kib": wasted, "why": whys})


@pytest.fixture
def made_up_recalls(monkeypatch):
    """Recalls by the length of the names: what is right is known without reading a recording."""
    monkeypatch.setattr(train, "recall_from", lambda teacher, target: (hash_of(teacher) % 89) / 100)


def hash_of(name: str) -> int:
    return sum(ord(letter) * (at + 1) for at, letter in enumerate(name))


@pytest.mark.parametrize("seed", range(12))
def test_tasks_are_of_other_machines(packaged_corpus, seed):
    task = train.task(seed)
    lineages = {packaged_corpus[name].lineage for name in (task.target, *task.candidates)}
    assert len(lineages) == 5
    releases = [
        packaged_corpus[name].release == packaged_corpus[task.target].release for name in task.candidates
    ]
    assert sum(releases) == 2
    assert str(task) == str(train.task(seed))
    assert all(name in str(task) for name in (task.target, *task.candidates))


def test_seeds_ask_different_things():
    assert len({str(train.task(seed)) for seed in range(12)}) > 9


@pytest.mark.parametrize("seed", range(6))
def test_teacher(made_up_recalls, seed):
    candidates = train.task(seed).candidates
    recalls = {name: train.recall_from(name, "") for name in candidates}
    for name in candidates:
        verdict = train.check_teacher(name, seed)
        assert verdict.is_right == (recalls[name] >= max(recalls.values()) - 0.01)
        best = max(recalls, key=recalls.get)
        assert verdict.is_right or best not in verdict.text  # a hint is not the answer
    for nothing in (None, ...):
        assert train.check_teacher(nothing, seed).is_right is None
    for wrong in (3, "nobody", ["bookworm-web"], train.task(seed).target):
        assert train.check_teacher(wrong, seed).is_right is False


def test_teacher_on_recorded_machines(packaged_corpus):
    task = train.task(1)
    recalls = {name: train.recall_from(name, task.target) for name in task.candidates}
    assert all(0 < recall < 1 for recall in recalls.values())
    assert train.check_teacher(max(recalls, key=recalls.get), 1).is_right
    assert not train.check_teacher(min(recalls, key=recalls.get), 1).is_right


@pytest.mark.parametrize("seed", range(8))
def test_budget(seed):
    explorer, wanted = Explorer(), train.task(seed).recall
    least = next(step for step, recall in zip(STEPS, RECALLS, strict=True) if recall >= wanted)
    assert train.check_budget(least, seed, explorer).is_right
    assert train.check_budget(least + 1, seed, explorer).is_right
    for wrong, side in ((least - 5, "to the right"), (least + 5, "to the left"), (0, "to the right")):
        verdict = train.check_budget(wrong, seed, explorer)
        assert verdict.is_right is False
        assert side in verdict.text
        assert f"{least:.1f}" not in verdict.text
    for nothing in (None, ...):
        assert train.check_budget(nothing, seed, explorer).is_right is None
    for wrong in ("50", [50], True):
        assert train.check_budget(wrong, seed, explorer).is_right is False


def test_budget_that_no_slider_has():
    poor = Explorer(recalls=[0.1] * 41)
    assert "another seed" in train.check_budget(50, 1, poor).text


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("why", list(train.REASONS))
def test_waste(seed, why):
    explorer, reason = Explorer(why), train.REASONS[why]
    assert train.check_waste("/usr/lib/big.so", reason, seed, explorer).is_right
    for other in set(train.REASONS.values()) - {reason}:
        verdict = train.check_waste("/usr/lib/big.so", other, seed, explorer)
        assert verdict.is_right is False
        assert reason not in verdict.text
    less = train.check_waste("/usr/lib/small.so", "read nowhere", seed, explorer)
    assert less.is_right is False
    assert "/usr/lib/big.so" not in less.text
    assert train.check_waste("/etc/odd", reason, seed, explorer).is_right is False
    for nothing in ((None, reason), ("/etc/odd", ...), (..., ...)):
        assert train.check_waste(*nothing, seed, explorer).is_right is None
    for wrong in ((3, reason), ("/etc/odd", "because"), ("/etc/odd", 7)):
        assert train.check_waste(*wrong, seed, explorer).is_right is False
