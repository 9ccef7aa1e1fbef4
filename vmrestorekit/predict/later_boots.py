"""What was learned goes on with later boots: a machine's past, and in whose name evidence is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.description import DescribedDisk
from vmrestorekit.predict.evidence import EvidenceTable
from vmrestorekit.predict.lessons import FOLDS
from vmrestorekit.predict.relatives import PAST_KEYS, Past, PastOfDisk

__all__ = ["continued", "names_of_parts"]

Floats = npt.NDArray[np.float32]


def names_of_parts(lineages: dict[str, str], together: bool) -> dict[str, str]:
    """Return whose the parts are in which the evidence of machines of one lineage is kept.

    Parameters
    ----------
    lineages : dict of str to str
        Of each machine in the evidence.
    together : bool
        Whether these machines stay the only lineage. Then the parts do, too.

    Returns
    -------
    dict of str to str
        Empty where there is nothing to rename.
    """
    if together or len(set(lineages.values())) != 1:
        return {}
    return {f"{vm}#{fold}": vm for vm in lineages for fold in range(FOLDS)}


def continued(past: Past, later: Past, described: Sequence[DescribedDisk]) -> Past:
    """Return the past of a machine after later boots of it.

    Parameters
    ----------
    past : Past
    later : Past
        Of the later boots alone.
    described : sequence of DescribedDisk
        The disks before the last of them.
    """
    boots = past.boots + later.boots
    disks = tuple(
        _continued_disk(past.disks[number], disk, described[number], past.boots, later.boots)
        if number < len(past.disks)
        else disk
        for number, disk in enumerate(later.disks)
    )
    clock = (past.boots * past.clock + later.boots * later.clock) / boots
    return Past(later.vm, later.lineage, boots, disks, clock)


def _continued_disk(
    past: PastOfDisk, later: PastOfDisk, described: DescribedDisk, boots: int, later_boots: int
) -> PastOfDisk:
    at, now = past.at(described), later.at(described)
    # in how many boots each block was read, before and since
    before, since = np.append(past.rate, 0)[at] * boots, later.rate[now] * later_boots
    rate = ((before + since) / (boots + later_boots)).astype(np.float32)
    after = _mean_of_known(np.append(past.after, 0)[at], boots, later.after[now], later_boots)
    times = np.nan_to_num(np.append(past.when, 0)[at]) * before + np.nan_to_num(later.when[now]) * since
    with np.errstate(invalid="ignore"):
        when = (times / (before + since)).astype(np.float32)
    order = np.argsort(described.block)
    return PastOfDisk(
        later.block,
        later.content,
        rate[order],
        later.last,
        when[order],
        after[order],
        {key: EvidenceTable.of([("past", described.keys[key], rate, when)]) for key in PAST_KEYS},
    )


def _mean_of_known(before: Floats, boots: int, since: Floats, later_boots: int) -> Floats:
    """Return the mean of two shares by their boots; what is not known (NaN) does not count."""
    weights = np.array([np.where(np.isnan(before), 0, boots), np.where(np.isnan(since), 0, later_boots)])
    with np.errstate(invalid="ignore"):
        mean = (np.nan_to_num([before, since]) * weights).sum(axis=0) / weights.sum(axis=0)
    known: Floats = mean.astype(np.float32)
    return known
