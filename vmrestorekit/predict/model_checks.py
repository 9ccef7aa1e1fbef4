"""What the parts of a learned predictor have to be before anybody may ask it: models come from elsewhere.

Each check looks at the fields of an object before it is made, and raises a `PredictError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.block_features import FEATURES
from vmrestorekit.predict.description import FILE_KEYS, KEYS
from vmrestorekit.predict.evidence import EvidenceTable
from vmrestorekit.predict.file_reads import FILE_READ_FEATURES, FIRST_ROUND
from vmrestorekit.predict.observations import CLOCK_POINTS
from vmrestorekit.predict.packed import expect
from vmrestorekit.predict.relatives import PAST_FEATURES, PAST_KEYS, Past, PastOfDisk
from vmrestorekit.predict.trees import Trees

if TYPE_CHECKING:
    from vmrestorekit.predict.learned import LearnedPredictor

__all__ = ["CHECKS", "check_together"]

LARGEST = 1e6  # of what a tree adds to a logit or a share, which is never more than a few: no sum overflows


def _ascending(values: npt.NDArray[Any]) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _share(values: npt.NDArray[np.float32], or_nan: bool = False) -> bool:
    return bool((((values >= 0) & (values <= 1)) | (or_nan & np.isnan(values))).all())


def _check_trees(trees: Any, where: str) -> None:
    """Make sure that the kernel which asks the trees reads no node outside them, and comes to an end."""
    nodes = trees.feature.size
    each = (trees.threshold, trees.left, trees.right, trees.missing_left)
    expect(all(values.size == nodes for values in each), where, f"{nodes} nodes in each array")
    expect(((trees.roots >= 0) & (trees.roots < nodes)).all(), where, "trees that begin at one of the nodes")
    expect((trees.feature >= -1).all(), where, "features from 0, or -1 for a leaf")
    inner = np.flatnonzero(trees.feature >= 0)
    for children in (trees.left[inner], trees.right[inner]):
        later = (children > inner) & (children < nodes)
        expect(later.all(), where, "children that come after their parent")
    # the last split of a feature may be at infinity: it parts what is missing from all else
    expect(not np.isnan(trees.threshold).any(), where, "thresholds that are numbers")
    values = np.append(trees.threshold[trees.feature < 0], trees.baseline)
    expect((np.abs(values) <= LARGEST).all(), where, f"leaves that add at most {LARGEST}")


def _check_table(table: Any, where: str) -> None:
    expect(_ascending(table.known) and (table.known > 0).all(), where, "ascending keys")
    for source, (rows, rate, when) in table.parts.items():
        expect(rows.size == rate.size == when.size, f"{where}, {source}", "a rate and a time for each key")
        inside = _ascending(rows) and ((rows >= 0) & (rows < table.known.size)).all()
        expect(inside, f"{where}, {source}", f"ascending rows of {table.known.size} keys")
        # a time above 1 is one in the minute after a boot
        shares = _share(rate) and _share(when / 2, or_nan=True)
        expect(shares, f"{where}, {source}", "rates from 0 to 1 and times from 0 to 2")
    expect(table.weights.keys() == table.parts.keys(), where, "weights of each source")
    for source, (rows, _, when) in table.parts.items():
        weight, timed = table.weights[source]
        expect(weight.size == timed.size == rows.size, f"{where}, {source}", "a weight for each number")
        finite = np.isfinite(weight).all() and np.isfinite(timed).all()
        expect(finite and (weight > 0).all(), f"{where}, {source}", "weights above 0")
        expect(((timed > 0) == ~np.isnan(when)).all(), f"{where}, {source}", "weights of the times there are")


def _check_past_of_disk(past: Any, where: str) -> None:
    each = (past.content, past.rate, past.last, past.when, past.after)
    expect(all(values.size == past.block.size for values in each), where, "a value for each block")
    expect(_ascending(past.block) and (past.block >= 0).all(), where, "ascending numbers of blocks")
    shares = all(map(_share, (past.rate, past.last)))
    shares &= all(_share(values, or_nan=True) for values in (past.when, past.after))
    expect(shares, where, "rates and times from 0 to 1")
    expect(past.tables.keys() == set(PAST_KEYS), where, f"tables of {', '.join(PAST_KEYS)}")


def _check_past(past: Any, where: str) -> None:
    expect(past.boots >= 1, where, f"at least one boot, got {past.boots}")
    _check_clock(past.clock, where)


def _check_clock(clock: npt.NDArray[np.float64], where: str) -> None:
    rises = clock.size == CLOCK_POINTS and np.isfinite(clock).all() and (np.diff(clock, prepend=0) >= 0).all()
    expect(rises, where, f"{CLOCK_POINTS} times that do not fall")


CHECKS: Mapping[Any, Any] = {
    Trees: _check_trees,
    EvidenceTable: _check_table,
    PastOfDisk: _check_past_of_disk,
    Past: _check_past,
}


def check_together(predictor: LearnedPredictor) -> None:
    """Make sure that the parts of a model fit each other and the code."""
    files, past = predictor.file_reads_, predictor.past_reads_.classifier
    asked = {
        "classifier_": (predictor.classifier_, FEATURES),
        "time_regressor_": (predictor.time_regressor_, FEATURES),
        "after_classifier_": (predictor.after_classifier_, FEATURES),
        "file_reads_.first": (files.first, FIRST_ROUND),
        "file_reads_.second": (files.second, FILE_READ_FEATURES),
        "past_reads_.classifier": (past, PAST_FEATURES),
    }
    for where, (trees, features) in asked.items():
        if trees is not None:
            known = (trees.feature < len(features)).all()
            expect(known, where, f"trees that ask for {len(features)} features")
    for where, evidence, keys in (
        ("evidence_", predictor.evidence_, KEYS),
        ("file_reads_.evidence", files.evidence, FILE_KEYS),
    ):
        expect(tuple(evidence.tables) == keys, where, f"tables of {', '.join(keys)}")
    for where, clocks in (("clock_", (predictor.clock_,)), ("clocks_", predictor.clocks_)):
        for clock in clocks:
            _check_clock(clock, where)
