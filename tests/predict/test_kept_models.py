"""What was learned once is kept, and found again only if nothing has changed; SYNTHETIC machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_boots import small_machine

from vmrestorekit.cli.kept_models import kept_predictor, models_folder
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.traces.corpus import Corpus, RecordedVM


def machines(*names: str) -> Corpus:
    found = {name: RecordedVM(name, {}, small_machine(name, seed)) for seed, name in enumerate(names, 1)}
    return Corpus(found)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """The names of the machines of each fit."""
    monkeypatch.setenv("VMRESTOREKIT_CACHE", str(tmp_path))
    seen: list[tuple[str, ...]] = []
    fit = LearnedPredictor.fit
    monkeypatch.setattr(
        LearnedPredictor, "fit", lambda self, boots, y=None: seen.append(tuple(boots)) or fit(self, boots)
    )
    return seen


def test_learned_once(fits):
    corpus = machines("alpha", "beta", "gamma")
    boot = corpus["alpha"].boots[0]
    first, again = (kept_predictor("learned", boot, corpus) for _ in range(2))
    assert fits == [("beta", "gamma")]
    assert again.score_blocks(boot.manifest).equals(first.score_blocks(boot.manifest))


def test_other_machines_are_learned_anew(fits):
    corpus = machines("alpha", "beta", "gamma")
    kept_predictor("learned", corpus["alpha"].boots[0], corpus)
    kept_predictor("learned", corpus["beta"].boots[0], corpus)
    kept_predictor("learned", corpus["alpha"].boots[0], corpus.without("gamma"))
    assert fits == [("beta", "gamma"), ("alpha", "gamma"), ("beta",)]


def test_a_damaged_one_is_learned_again(fits, capsys):
    corpus = machines("alpha", "beta")
    boot = corpus["alpha"].boots[0]
    kept_predictor("learned", boot, corpus)
    [kept] = models_folder().iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    for _ in range(2):
        kept_predictor("learned", boot, corpus)
    assert len(fits) == 2
    assert "learning again, because the kept model cannot be used" in capsys.readouterr().err


def test_other_predictors_are_not_kept(fits):
    corpus = machines("alpha", "beta")
    kept_predictor("first_access_by_path", corpus["alpha"].boots[0], corpus)
    assert not fits
    assert not models_folder().exists()
