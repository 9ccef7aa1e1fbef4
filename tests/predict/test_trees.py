"""Our trees answer as scikit-learn's do, which grew them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from vmrestorekit.predict.trees import Trees


@pytest.fixture(scope="module")
def data():
    drawn = np.random.default_rng(1)
    x = drawn.normal(size=(3000, 6)).astype(np.float32)
    x[:, 2] = drawn.integers(0, 4, 3000)
    x[drawn.random(x.shape) < 0.2] = np.nan
    y = np.nan_to_num(x[:, 0]) + 2 * (np.nan_to_num(x[:, 2]) == 3) + np.isnan(x[:, 1])
    return x, y.astype(np.float32), drawn.random(3000).astype(np.float32)


def test_probabilities_are_those_of_scikit_learn(data):
    x, y, weight = data
    read = y > 0.7
    theirs = HistGradientBoostingClassifier(max_iter=20, early_stopping=False, random_state=0)
    theirs.fit(x, read, weight)
    np.testing.assert_allclose(Trees.of(theirs).chances(x), theirs.predict_proba(x)[:, 1], atol=1e-6)


def test_values_are_those_of_scikit_learn(data):
    x, y, weight = data
    theirs = HistGradientBoostingRegressor(max_iter=20, early_stopping=False, random_state=0)
    theirs.fit(x, y, weight)
    np.testing.assert_allclose(Trees.of(theirs).values(x), theirs.predict(x), atol=1e-5)


def test_what_was_grown_tells_both_answers_apart(data):
    x, y, weight = data
    grown = Trees.classify(x, y > 0.7, weight, max_iter=50, random_state=0)
    assert ((grown.chances(x) > 0.5) == (y > 0.7)).mean() > 0.97


def test_no_rows_no_answers(data):
    x, y, weight = data
    assert Trees.regress(x, y, weight, max_iter=2).values(x[:0]).shape == (0,)
