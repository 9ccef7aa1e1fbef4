"""Predictors by the names that the command line uses, fitted on what may be known before a boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from vmrestorekit.predict.base import SCORES_SCHEMA, BlockPredictor
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot, Corpus

__all__ = ["PREDICTOR_NAMES", "NoPrediction", "predictor_by_name"]

PREDICTOR_NAMES = ("learned", "content", "last_boot", "none")


class NoPrediction(BlockPredictor):
    """Expects nothing to be read: every block is fetched when it is asked for, the lazy baseline."""

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        self.fitted_ = True

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        return pl.DataFrame(
            {"probability": [0.0] * manifest.blocks.height, "first_read_ns": None}, schema=SCORES_SCHEMA
        )


def predictor_by_name(name: str, boot: Boot, corpus: Corpus) -> BlockPredictor:
    """Return a predictor for a boot, fitted without looking at it.

    Parameters
    ----------
    name : {"learned", "content", "last_boot", "none"}
        ``learned`` and ``content`` learn from the other virtual machines of the corpus, ``last_boot`` from
        this one's boot before.

    Raises
    ------
    PredictError
        If there is no such predictor, or nothing in the corpus that it could learn from.
    """
    from vmrestorekit.predict.learned import LearnedPredictor
    from vmrestorekit.predict.replay import ContentHashReplay, LastBootReplay

    if name == "last_boot":
        boots = corpus[boot.vm].boots
        # another recording of a boot knows no more than the boot it repeats
        place = [earlier.boot for earlier in boots].index(boot.repeats or boot.boot)
        earlier = boots[:place]
        if not earlier:
            raise PredictError(f"last_boot: expected a boot of {boot.vm} before {boot.boot}, found none")
        return LastBootReplay().fit(earlier)
    estimators = {"learned": LearnedPredictor, "content": ContentHashReplay, "none": NoPrediction}
    if name not in estimators:
        raise PredictError(f"predictor: expected one of {', '.join(PREDICTOR_NAMES)}, got {name!r}")
    return estimators[name]().fit(corpus if name == "none" else corpus.without(boot.vm))
