"""The interface of all predictors."""

from __future__ import annotations

import abc
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from vmrestorekit.predict.cache_blocks import cache_block_scores, staging_order
from vmrestorekit.predict.observed import PredictError, as_boots
from vmrestorekit.traces.large_manifest import LargeManifest
from vmrestorekit.traces.manifest import Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM

__all__ = ["SCORES_SCHEMA", "BlockPredictor", "expect_fitted"]

SCORES_SCHEMA = pl.Schema(
    {
        "probability": pl.Float64(),  # of being read before the boot ends
        "first_read_ns": pl.Float64(),  # expected, on the recording's clock since launch; null where unknown
    }
)


class BlockPredictor(BaseEstimator, abc.ABC):  # type: ignore[misc]
    """Learns from recorded boots which blocks of a disk a virtual machine will read before its boot ends.

    A scikit-learn estimator: the constructor stores parameters, `fit` learns, what was learned is in
    attributes that end in ``_``. A boot ends at its mark ``boot_done_ns``; later reads count as not read.

    Attributes
    ----------
    calibrated : bool
        Whether its probabilities are such, so that an order can be derived from them; else they are ranks,
        and the order is the predictor's own.
    """

    calibrated = False

    def fit(self, boots: Corpus | RecordedVM | Boot | Iterable[Boot], y: None = None) -> Self:
        """Learn from recorded boots.

        Parameters
        ----------
        boots : Corpus, RecordedVM, Boot or iterable of Boot
            The boots of a machine in the order in which they happened.
        y : None
            Ignored: what is to be predicted is in the boots.

        Returns
        -------
        self

        Raises
        ------
        PredictError
            If there are no boots, or a boot never ended.
        """
        found = as_boots(boots)
        self._scored: weakref.WeakKeyDictionary[Manifest, dict[int, pl.DataFrame]] = (
            weakref.WeakKeyDictionary()
        )
        self._fit(found)
        return self

    def score_blocks(self, manifest: Manifest, disk: int = 0) -> pl.DataFrame:
        """Say of each 4 KiB block of a disk how probable it is to be read, and when.

        Parameters
        ----------
        manifest : Manifest
            State of the disk before the boot that is to be predicted.
        disk : int
            Which disk of its machine this is.

        Returns
        -------
        polars.DataFrame
            `SCORES_SCHEMA`, one row a 4 KiB block. Kept as long as the manifest is.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        PredictError
            If the predictor cannot say anything of such a disk.
        """
        check_is_fitted(self)
        scored = self._scored.setdefault(manifest, {})
        if disk not in scored:
            scored[disk] = self._score_blocks(manifest, disk)
        return scored[disk]

    def score_pieces(self, manifest: LargeManifest, disk: int = 0) -> Iterator[pl.DataFrame]:
        """Say the same of a disk too large to be held in memory, piece by piece.

        Parameters
        ----------
        manifest : LargeManifest
        disk : int

        Yields
        ------
        polars.DataFrame
            `SCORES_SCHEMA`, of each piece in turn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        PredictError
            If the predictor cannot say anything of such a disk.
        """
        check_is_fitted(self)
        return self._score_pieces(manifest, disk)

    def rank(
        self, manifest: Manifest, block_bytes: int = 64 * 1024, budget_bytes: int | None = None, disk: int = 0
    ) -> npt.NDArray[np.int32]:
        """Return the cache blocks of a disk in the order in which they are to be staged.

        Parameters
        ----------
        manifest : Manifest
        block_bytes : int
            Size of a cache block.
        budget_bytes : int, optional
            Stop before this is exceeded; default: go on as long as a block has any chance of being read.
        disk : int
            Which disk of its machine this is.

        Returns
        -------
        ndarray of int32, shape (n,)
            Numbers of cache blocks on this disk, none twice, no holes. See `staging_order` for the rule.
        """
        scores = cache_block_scores(self.score_blocks(manifest, disk), manifest.blocks, block_bytes)
        return staging_order(scores, None if budget_bytes is None else budget_bytes // block_bytes)

    @abc.abstractmethod
    def _fit(self, boots: tuple[Boot, ...]) -> None:
        """Set the fitted attributes."""

    @abc.abstractmethod
    def _score_blocks(self, manifest: Manifest, disk: int) -> pl.DataFrame:
        """Return what `score_blocks` promises."""

    def _score_pieces(self, manifest: LargeManifest, disk: int) -> Iterator[pl.DataFrame]:
        """Return what `score_pieces` promises."""
        raise PredictError(
            f"manifest: expected a Manifest, for {type(self).__name__} looks at whole disks; "
            f"got a disk of {manifest.disk_bytes} bytes in pieces"
        )

    def __getstate__(self) -> dict[str, Any]:
        # answers hang on the identity of manifests, which a copy does not share
        state: dict[str, Any] = dict(super().__getstate__())
        if "_scored" in state:
            state["_scored"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_scored" in state:
            self._scored = weakref.WeakKeyDictionary()


def expect_fitted(predictor: Any) -> None:
    """Check that something is a predictor, and that it was fitted.

    Raises
    ------
    PredictError
        If it is not.
    """
    if not isinstance(predictor, BlockPredictor):
        raise PredictError(f"predictor: expected a fitted predictor, got {type(predictor).__name__}")
    try:
        check_is_fitted(predictor)
    except NotFittedError:
        raise PredictError(
            f"predictor: expected a fitted one; this {type(predictor).__name__} has not learned yet: call fit"
        ) from None
