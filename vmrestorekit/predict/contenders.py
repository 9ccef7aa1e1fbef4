"""The predictors that an evaluation compares, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.by_name import ORACLES, PREDICTOR_NAMES, make_predictor
from vmrestorekit.predict.observed import PredictError

__all__ = ["CONTENDERS", "Factory", "chosen_contenders"]

Factory = Callable[[], BlockPredictor]

# oracles and the lazy restore are there in every evaluation, as plans that need no predictor
CONTENDERS: Mapping[str, Factory] = {
    name: functools.partial(make_predictor, name)
    for name in PREDICTOR_NAMES
    if name not in (*ORACLES, "none")
}


def chosen_contenders(
    names: Iterable[str] | None = None, contenders: Mapping[str, Factory] | None = None
) -> dict[str, Factory]:
    """Return the named predictors, in that order; default: all.

    Raises
    ------
    PredictError
        If one is unknown.
    """
    known = CONTENDERS if contenders is None else contenders
    wanted = list(known) if not names else list(names)
    for name in wanted:
        if name not in known:
            raise PredictError(f"predictor: expected one of {', '.join(known)}, got {name!r}")
    return {name: known[name] for name in wanted}
