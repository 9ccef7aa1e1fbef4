"""Gradient-boosted trees: grown by scikit-learn, kept as plain arrays, asked by a kernel of our own.

As arrays they can be saved without pickle and asked without importing scikit-learn's ensembles, which takes
seconds. The answers are those of scikit-learn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["SMALL", "Trees"]

Floats = npt.NDArray[np.float32]

# most features have few values; to find 255 weighted quantiles of each takes longer than to grow the trees
BINS = 63
# settings for questions that few examples answer
SMALL: Mapping[str, Any] = {
    "max_iter": 60,
    "max_leaf_nodes": 15,
    "learning_rate": 0.15,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Trees:
    """An ensemble of trees whose values add up.

    Attributes
    ----------
    baseline : float
    roots : ndarray of int32, shape (trees,)
        The node where each tree begins.
    feature : ndarray of int32, shape (nodes,)
        What a node asks for; -1: it is a leaf.
    threshold : ndarray of float64, shape (nodes,)
        A value up to it goes left. Of a leaf: what the leaf adds.
    left, right : ndarray of int32, shape (nodes,)
    missing_left : ndarray of bool, shape (nodes,)
        Where NaN goes.
    """

    baseline: float
    roots: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    missing_left: npt.NDArray[np.bool_]

    @classmethod
    def classify(cls, x: Floats, read: npt.NDArray[np.bool_], weight: Floats, **settings: Any) -> Trees:
        """Grow trees whose values add up to the logit of a probability.

        Parameters
        ----------
        x : ndarray of float32, shape (n, features)
            NaN where a value is missing.
        read : ndarray of bool, shape (n,)
            With both answers in it.
        weight : ndarray of float32, shape (n,)
        **settings
            Of `sklearn.ensemble.HistGradientBoostingClassifier`.
        """
        # importing it takes seconds: only who learns pays
        from sklearn.ensemble import HistGradientBoostingClassifier

        return cls._grown(HistGradientBoostingClassifier, x, read, weight, settings)

    @classmethod
    def regress(cls, x: Floats, y: Floats, weight: Floats, **settings: Any) -> Trees:
        """Grow trees whose values add up to a number, by least squares."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        return cls._grown(HistGradientBoostingRegressor, x, y, weight, settings)

    @classmethod
    def _grown(
        cls, kind: Any, x: Floats, y: npt.NDArray[Any], weight: Floats, settings: dict[str, Any]
    ) -> Trees:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        empty = np.isnan(x).all(axis=0)
        if empty.any():  # scikit-learn finds no bins there; a constant is as silent
            x = np.where(empty, np.float32(0), x)
        # several OpenMP threads on a busy machine are slower than one
        with threadpool_limits(limits=1, user_api="openmp"):
            model = kind(early_stopping=False, max_bins=BINS, **settings).fit(x, y, weight)
        return cls.of(model)

    @classmethod
    def of(cls, model: Any) -> Trees:
        """Take the trees out of a fitted model of scikit-learn with one output and no categories."""
        nodes = [trees[0].nodes for trees in model._predictors]
        roots = np.cumsum([0, *map(len, nodes)])[:-1]
        shift = np.repeat(roots, list(map(len, nodes)))
        together = np.concatenate(nodes)
        leaf = together["is_leaf"] != 0
        return cls(
            baseline=float(np.ravel(model._baseline_prediction)[0]),
            roots=roots.astype(np.int32),
            feature=np.where(leaf, -1, together["feature_idx"]).astype(np.int32),
            threshold=np.where(leaf, together["value"], together["num_threshold"]),
            left=(together["left"] + shift).astype(np.int32),
            right=(together["right"] + shift).astype(np.int32),
            missing_left=together["missing_go_to_left"] != 0,
        )

    def values(self, x: Floats) -> Floats:
        """Return the sum of each row, float32 of shape (n,)."""
        found: Floats = _sums(
            np.ascontiguousarray(x, np.float32), self.baseline, self.roots, self.feature, self.threshold,
            self.left, self.right, self.missing_left,
        ).astype(np.float32)  # fmt: skip
        return found

    def chances(self, x: Floats) -> Floats:
        """Return the probability of each row, float32 of shape (n,)."""
        return (1 / (1 + np.exp(-self.values(x)))).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _sums(x, baseline, roots, feature, threshold, left, right, missing_left):  # type: ignore[no-untyped-def]
    sums = np.full(x.shape[0], baseline)
    # row by row: the trees of an ensemble fit into the processor's cache, the rows of a disk do not
    for row in range(x.shape[0]):
        total = baseline
        for root in roots:
            node = root
            while feature[node] >= 0:
                value = x[row, feature[node]]
                if np.isnan(value):
                    node = left[node] if missing_left[node] else right[node]
                elif value <= threshold[node]:
                    node = left[node]
                else:
                    node = right[node]
            total += threshold[node]
        sums[row] = total
    return sums
