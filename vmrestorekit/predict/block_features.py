"""What a model is told of a block: what it is, and what others did with its like and its neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.description import BLOCK_FEATURES, KEYS, DescribedDisk

__all__ = ["FEATURES", "BlockEvidence", "block_features"]

Floats = npt.NDArray[np.float32]

MANY = 8  # machines: more say no more
WINDOWS = (2, 8, 32)
FEATURES = (
    *BLOCK_FEATURES,
    *(f"{key}_{what}" for key in KEYS for what in ("met", "rate", "when")),
    *(f"rate_within_{width}" for width in WINDOWS),
    "place_rate_within_8",
    *("file_read", "file_used"),
)


# what tells a block itself, from the most to the least specific
IDENTITY = ("content", "place", "name_place", "part")


class BlockEvidence:
    """What sources said of each of n blocks, and of those around it in the same file.

    Parameters
    ----------
    described : DescribedDisk
    rows : mapping of str to ndarray of int32, shape (n,)
        Of each of `KEYS`: the blocks' rows in ``left``.
    left : mapping of str to ndarray of float32, shape (k, 3)
        Of each of `KEYS`: sources, mean rate, mean time; see `vmrestorekit.predict.evidence.Evidence`.
    """

    def __init__(
        self,
        described: DescribedDisk,
        rows: Mapping[str, npt.NDArray[np.int32]],
        left: Mapping[str, Floats],
    ) -> None:
        self._rows, self._left = rows, left
        rates = [left[key][rows[key], 1] for key in IDENTITY]
        identity, place = _first_known(rates), _first_known(rates[1:])
        self.windows = [described.mean_within(identity, width) for width in WINDOWS]
        self.windows.append(described.mean_within(place, 8))

    def of(self, key: str, blocks: npt.NDArray[np.int64] | slice) -> Floats:
        """Return what was said of some of the blocks under a key; neighbours are asked for rates only."""
        return self._left[key][self._rows[key][blocks]]


def _first_known(rates: list[Floats]) -> Floats:
    known = rates[0]
    for rate in rates[1:]:
        known = np.where(np.isnan(known), rate, known)
    return known


def block_features(
    described: DescribedDisk, evidence: BlockEvidence, of_files: Floats, rows: npt.NDArray[np.int64] | slice
) -> Floats:
    """Return `FEATURES` of some rows.

    Parameters
    ----------
    described : DescribedDisk
    evidence : BlockEvidence
    of_files : ndarray of float32, shape (n, 2)
        See `vmrestorekit.predict.file_reads.spread_to_blocks`.
    rows : ndarray of int64, or slice
    """
    columns = [described.features[rows]]
    columns += [np.minimum(evidence.of(key, rows), [MANY, np.inf, np.inf]) for key in KEYS]
    columns += [window[rows] for window in evidence.windows]
    return np.column_stack([*columns, of_files[rows]]).astype(np.float32)
