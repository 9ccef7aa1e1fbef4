"""What the predictor explorer is given: one clear sentence for what it cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmrestorekit.predict.base import BlockPredictor, expect_fitted
from vmrestorekit.show.prediction.charts import NO_PREDICTION, ORACLE

__all__ = ["PredictorExplorerError", "expect_predictors"]


class PredictorExplorerError(ValueError):
    """What the explorer was given is not as expected."""


def expect_predictors(predictor: Any) -> dict[str, BlockPredictor]:
    """Return predictors by name; one that comes alone gets a name.

    Raises
    ------
    ValueError
        If there is none, a name is none or taken by the bounds, or a predictor has not learned yet.
    """
    named = dict(predictor) if isinstance(predictor, Mapping) else {_name_of(predictor): predictor}
    if not named:
        raise PredictorExplorerError("predictor: expected at least one predictor, got an empty mapping")
    for name, each in named.items():
        if not isinstance(name, str) or not name or name in (ORACLE, NO_PREDICTION):
            raise PredictorExplorerError(
                f"predictor: expected names other than {ORACLE!r} and {NO_PREDICTION!r}, got {name!r}"
            )
        expect_fitted(each)
    return named


def _name_of(predictor: Any) -> str:
    by = getattr(predictor, "by", None)
    return f"by {by}" if isinstance(by, str) else type(predictor).__name__
