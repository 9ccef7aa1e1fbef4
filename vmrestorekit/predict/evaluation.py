"""The evaluation of predictors: splits, scores of every test boot, and what share of the possible they reach.

>>> scores = evaluate(load_corpus(), ["lineage"], ["learned", "content"])
>>> mean_of_machines(scores)

A row is a score of one boot. Beside the predictors stand the `REFERENCES`, plans that need none, and the
machine's own boot before, as ``boot_before``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from vmrestorekit.predict.by_name import OWN_HISTORY
from vmrestorekit.predict.contenders import Factory, chosen_contenders
from vmrestorekit.predict.evaluation_jobs import (
    BOOT_BEFORE,
    COSTS,
    Job,
    PredictorJob,
    Progress,
    ReferenceJob,
    run_jobs,
)
from vmrestorekit.predict.evaluation_loop import LAZY, ORACLE, REFERENCES, Conditions, end_of
from vmrestorekit.predict.intervals import SCORES_OF_BOOTS_SCHEMA, mean_of_machines, paired_differences
from vmrestorekit.predict.metrics import BUDGETS, recall_by_budget
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.splits import FOLLOWS, SPLITS, TRANSFER, Fold, split_folds, transfer_folds
from vmrestorekit.traces.corpus import Corpus

__all__ = [
    "BOOT_BEFORE",
    "COSTS",
    "LEAST_GAP",
    "REFERENCES",
    "SCORES_OF_BOOTS_SCHEMA",
    "SPLITS",
    "TRANSFER",
    "Conditions",
    "evaluate",
    "mean_of_machines",
    "paired_differences",
    "recall_by_budget",
    "with_gaps",
]

# a smaller gap, as a share of the lazy time to boot, leaves nothing to win: it is shown, not scored
LEAST_GAP = 0.05


def evaluate(
    corpus: Corpus,
    splits: Iterable[str] = SPLITS,
    predictors: Iterable[str] | None = None,
    *,
    test: Corpus | None = None,
    contenders: Mapping[str, Factory] | None = None,
    conditions: Conditions | None = None,
    budgets: Iterable[float] = BUDGETS,
    follows: Iterable[str] = FOLLOWS,
    newest: bool = False,
    n_jobs: int = 1,
    cluster: str | None = None,
    resume: Path | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Fit predictors on each fold of each split, and score them on every test boot.

    Parameters
    ----------
    corpus : Corpus
    splits : iterable of str
        Names of `SPLITS`; without meaning if `test` is given.
    predictors : iterable of str, optional
        Names; default: all contenders.
    test : Corpus, optional
        Machines of another corpus to test on: predictors learn from the whole of the first one.
    contenders : mapping of str to callable, optional
        What makes a predictor, by name; default: `vmrestorekit.predict.contenders.CONTENDERS`.
    conditions : Conditions, optional
        Of the simulated restores.
    budgets : iterable of float
        Multiples of what was read, for recall and precision.
    follows, newest
        Which boots are tested, see `vmrestorekit.predict.splits.boots_to_test`.
    n_jobs, cluster, resume, progress
        Where it runs and what is kept, see `vmrestorekit.predict.evaluation_jobs.run_jobs`.

    Returns
    -------
    polars.DataFrame
        `SCORES_OF_BOOTS_SCHEMA`, one row a split, fold, boot, predictor and metric, in that order.

    Raises
    ------
    PredictError
        If a predictor or split is unknown, the corpus too small for a split, or a boot without a mark of
        its end.
    """
    chosen = chosen_contenders(predictors, contenders)
    conditions, budgets = conditions or Conditions(), tuple(map(float, budgets))
    if not budgets or min(budgets) <= 0:
        raise PredictError(f"budgets: expected some, all above 0, got {budgets}")
    follows = tuple(follows)
    if test is not None:
        folds = transfer_folds(corpus, test, follows, newest)
    else:
        folds = tuple(
            fold for split in dict.fromkeys(splits) for fold in split_folds(corpus, split, follows, newest)
        )
    for boot in dict.fromkeys(boot for fold in folds for boot in (*fold.train, *fold.test)):
        end_of(boot)  # not after an hour of work
    jobs: list[Job] = [*_references(folds, test or corpus, conditions)]
    bounds = len(jobs)
    for fold in folds:
        for name, factory in chosen.items():
            jobs += [
                PredictorJob(given, name, factory, conditions, budgets) for given in _given_to(name, fold)
            ]
    if len(jobs) == bounds:
        raise PredictError(
            f"predictor: expected one that learns from other machines, got {', '.join(chosen)}, "
            "which know their own only"
        )
    results = run_jobs(jobs, n_jobs=n_jobs, cluster=cluster, resume=resume, progress=progress)
    tested = _tested(folds).join(pl.concat(results[:bounds]).drop("split", "fold"), on=["vm", "boot"])
    scores = pl.concat([*results[bounds:], tested.select(*SCORES_OF_BOOTS_SCHEMA)])
    return with_gaps(scores).sort("split", "fold", "vm", "boot", "predictor", "metric")


def _given_to(name: str, fold: Fold) -> tuple[Fold, ...]:
    """Return a fold as a predictor may have it: one that knows a single machine gets each by itself."""
    if name not in OWN_HISTORY:
        return (fold,)
    if not fold.split.startswith("later"):
        return ()  # nothing to learn from
    return tuple(
        Fold(
            fold.split,
            fold.name,
            *(tuple(boot for boot in boots if boot.vm == vm) for boots in (fold.train, fold.test)),
        )
        for vm in dict.fromkeys(boot.vm for boot in fold.test)
    )


def _references(folds: Iterable[Fold], corpus: Corpus, conditions: Conditions) -> Iterable[ReferenceJob]:
    """Return a piece of work for each test boot, whatever the number of folds it is in."""
    for boot in dict.fromkeys(boot for fold in folds for boot in fold.test):
        boots = corpus[boot.vm].boots
        place = boots.index(boot)
        yield ReferenceJob(boots[place - 1] if place else None, boot, conditions)


def _tested(folds: Iterable[Fold]) -> pl.DataFrame:
    rows = [(fold.split, fold.name, boot.vm, boot.boot) for fold in folds for boot in fold.test]
    schema = {name: pl.String for name in ("split", "fold", "vm", "boot")}
    return pl.DataFrame(rows, schema=schema, orient="row")


def with_gaps(scores: pl.DataFrame) -> pl.DataFrame:
    """Add what share of the gap from lazy to `oracle_order` each plan closes, under each condition.

    Stall and time to boot differ by the same boot from the destination, so that this is the share of both.
    ``gap_share``, a score of `oracle_order`, is the gap as a share of the lazy time to boot; where it is
    below `LEAST_GAP` there is no ``gap_closed``.
    """
    keys = ["split", "fold", "vm", "boot", "condition"]
    times = scores.filter(pl.col("metric").str.starts_with("time_to_boot_s@")).with_columns(
        condition=pl.col("metric").str.strip_prefix("time_to_boot_s@")
    )
    lazy, best = (
        times.filter(pl.col("predictor") == name).select(*keys, pl.col("value").alias(name))
        for name in (LAZY, ORACLE)
    )
    gaps = lazy.join(best, on=keys).with_columns(share=(pl.col(LAZY) - pl.col(ORACLE)) / pl.col(LAZY))
    shown = gaps.with_columns(
        predictor=pl.lit(ORACLE), metric="gap_share@" + pl.col("condition"), value=pl.col("share")
    )
    closed = times.join(gaps.filter(pl.col("share") >= LEAST_GAP), on=keys).with_columns(
        metric="gap_closed@" + pl.col("condition"),
        value=(pl.col(LAZY) - pl.col("value")) / (pl.col(LAZY) - pl.col(ORACLE)),
    )
    names = list(SCORES_OF_BOOTS_SCHEMA)
    return pl.concat([scores.select(names), shown.select(names), closed.select(names)])
