"""Predictors by the names that the command line uses, fitted on what may be known before a boot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from vmrestorekit.predict.base import SCORES_SCHEMA, BlockPredictor
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot, Corpus

__all__ = [
    "ORACLES",
    "OWN_HISTORY",
    "PREDICTOR_NAMES",
    "NoPrediction",
    "make_predictor",
    "other_lineages",
    "predictor_by_name",
]

# lists of what other machines read; each by address, content and path
_LISTS = ("nearest", "first_access", "mean_access", "linear_10", "linear_100", "linear_tuned")
_WAYS = ("address", "content", "path")

# those that know one machine only, from its own boots before
OWN_HISTORY = ("last_boot", *(f"last_boot_by_{way}" for way in _WAYS[1:]))
# those that have seen what they are asked of: bounds, no rivals
ORACLES = ("oracle_order", "oracle_set", "oracle_all")
PREDICTOR_NAMES = (
    "learned",
    "content",
    *OWN_HISTORY,
    *(f"{name}_by_{way}" for name in _LISTS for way in _WAYS),
    *ORACLES,
    "none",
)


class NoPrediction(BlockPredictor):
    """Expects nothing to be read: every block is fetched when it is asked for, the lazy baseline."""

    def _fit(self, boots: tuple[Boot, ...]) -> None:
        self.fitted_ = True

    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        return pl.DataFrame(
            {"probability": [0.0] * manifest.blocks.height, "first_read_ns": None}, schema=SCORES_SCHEMA
        )


def make_predictor(name: str) -> BlockPredictor:
    """Return a predictor that is not fitted.

    Parameters
    ----------
    name : str
        One of `PREDICTOR_NAMES`. What ends in ``_by_address``, ``_by_content`` or ``_by_path`` is a baseline
        that tells in this way which blocks of two machines are the same, and ``last_boot`` one by address:
        ``nearest``, the last boot of the machine most alike; ``first_access`` and ``mean_access``, all that
        any machine read, in this order; ``linear_10``, ``linear_100``, ``linear_tuned``, in that of the
        linear score with the weights for 10 MB/s, for 100 MB/s, or found on the machines learned from.

    Raises
    ------
    PredictError
        Lists the names there are.
    """
    if name not in PREDICTOR_NAMES:
        raise PredictError(f"predictor: expected one of {', '.join(PREDICTOR_NAMES)}, got {name!r}")
    family, _, way = name.partition("_by_")
    return _families()[family](way or "address")


def _families() -> Mapping[str, Callable[[str], BlockPredictor]]:
    """Return what makes the predictors, from the way in which a baseline tells what is the same."""
    from vmrestorekit.predict.baselines import NearestReplay, UnionReplay
    from vmrestorekit.predict.learned import LearnedPredictor
    from vmrestorekit.predict.linear_score import LinearScore
    from vmrestorekit.predict.oracles import OracleAll, OracleOrder, OracleSet
    from vmrestorekit.predict.replay import ContentHashReplay, LastBootReplay

    return {
        "learned": lambda _: LearnedPredictor(),
        "content": lambda _: ContentHashReplay(),
        "last_boot": LastBootReplay,
        "nearest": NearestReplay,
        "first_access": lambda way: UnionReplay("first_access", way),
        "mean_access": lambda way: UnionReplay("mean_access", way),
        "linear_10": lambda way: LinearScore("10MB/s", way),
        "linear_100": lambda way: LinearScore("100MB/s", way),
        "linear_tuned": lambda way: LinearScore("tuned", way),
        "oracle_order": lambda _: OracleOrder(),
        "oracle_set": lambda _: OracleSet(),
        "oracle_all": lambda _: OracleAll(),
        "none": lambda _: NoPrediction(),
    }


def predictor_by_name(name: str, boot: Boot, corpus: Corpus) -> BlockPredictor:
    """Return a predictor for a boot, fitted without looking at it, unless it is an oracle.

    Parameters
    ----------
    name : str
        See `make_predictor`. Those of `OWN_HISTORY` learn from the boots of the machine before this one, the
        `ORACLES` from this very one, and all others from the machines of other lineages: a clone of the
        machine, or what it was cloned from, would tell what a machine never seen does not.
    boot : Boot
        One of the corpus.
    corpus : Corpus

    Raises
    ------
    PredictError
        If there is no such predictor, or nothing in the corpus that it could learn from.
    """
    predictor = make_predictor(name)
    if name in ORACLES:
        return predictor.fit(boot)
    if name in OWN_HISTORY:
        return predictor.fit(_boots_before(boot, corpus, name))
    return predictor.fit(corpus if name == "none" else other_lineages(boot, corpus, name))


def _boots_before(boot: Boot, corpus: Corpus, name: str) -> tuple[Boot, ...]:
    boots = corpus[boot.vm].boots
    # another recording of a boot knows no more than the boot it repeats
    place = [earlier.boot for earlier in boots].index(boot.repeats or boot.boot)
    if not place:
        raise PredictError(f"{name}: expected a boot of {boot.vm} before {boot.boot}, found none")
    return boots[:place]


def other_lineages(boot: Boot, corpus: Corpus, name: str) -> Corpus:
    """Return the machines that a predictor may learn from if it is to know nothing of the boot's own.

    Raises
    ------
    PredictError
        If there are none.
    """
    lineage = corpus[boot.vm].lineage
    others = corpus.without(*(vm for vm in corpus.values() if vm.lineage == lineage))
    if not others:
        raise PredictError(f"{name}: expected machines that are not of the lineage {lineage}, found none")
    return others
