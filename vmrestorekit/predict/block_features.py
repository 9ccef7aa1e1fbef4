"""What a model is told of a block: what it is, and what others did with its like and its neighbours."""

from __future__ import annotations

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


class BlockEvidence:
    """What sources said of each of n blocks, and of those around it in the same file.

    Parameters
    ----------
    described : DescribedDisk
    found : mapping of str to ndarray of float32, shape (n, 3)
        Of each of `KEYS`: sources, mean rate, mean time.
    """

    def __init__(self, described: DescribedDisk, found: dict[str, Floats]) -> None:
        self.found = found
        identity = _first_known([found[key][:, 1] for key in ("content", "place", "name_place", "part")])
        place = _first_known([found[key][:, 1] for key in ("place", "name_place", "part")])
        self.windows = [described.mean_within(identity, width) for width in WINDOWS]
        self.windows.append(described.mean_within(place, 8))


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
    columns += [np.minimum(evidence.found[key][rows], [MANY, np.inf, np.inf]) for key in KEYS]
    columns += [window[rows] for window in evidence.windows]
    return np.column_stack([*columns, of_files[rows]]).astype(np.float32)
