"""Lazy with read-ahead, a baseline that predicts nothing: what lies near a block that was missed comes along.

It is no predictor but a way to read the medium, and goes with `NoPrediction`::

    layout = read_around(BackupLayout.full(boot.manifests, plan.block_bytes), 1 << 20)
    simulate(boot, plan, hardware, layout=layout)

The engine has no read-ahead of its own: a fetch brings the missing blocks of one request that follow each
other, up to ``fetch_bytes``, and nothing beyond the request. It does read compressed frames as a whole and
keeps of them what finds a place in the read cache by the stagers' rule; here the frames are windows of a
fixed size. That differs from the sequential read-ahead of an operating system in three ways: the window lies
around the missed block and not behind it; it is brought on every miss, not only when reads look sequential,
and does not grow; and the missed block waits for the whole window.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.predict.observed import PredictError

__all__ = ["read_around"]


def read_around(layout: BackupLayout, window_bytes: int) -> BackupLayout:
    """Return the same backup copy, read by whole windows of the medium.

    Parameters
    ----------
    layout : BackupLayout
    window_bytes : int
        Size of a window, at least one block. Windows lie side by side on the medium.

    Returns
    -------
    BackupLayout

    Raises
    ------
    PredictError
        If a window is smaller than a block, or the copy has frames that have to be read as a whole anyhow.
    """
    if layout.frame_start is not None:
        raise PredictError("read-ahead: expected a copy whose blocks are read by themselves, got frames")
    if window_bytes < layout.block_bytes:
        raise PredictError(
            f"read-ahead: expected at least one block of {layout.block_bytes} bytes, got {window_bytes}"
        )
    stored = np.flatnonzero(~layout.hole)
    address = layout.address[stored]
    _, window = np.unique(address // window_bytes, return_inverse=True)
    first = np.full(window.max(initial=-1) + 1, np.iinfo(np.int64).max)
    last = np.zeros_like(first)
    np.minimum.at(first, window, address)
    np.maximum.at(last, window, address)
    start, end = (np.full(layout.address.size, -1, np.int64) for _ in range(2))
    start[stored], end[stored] = first[window], last[window] + layout.block_bytes
    return dataclasses.replace(layout, frame_start=start, frame_end=end)
