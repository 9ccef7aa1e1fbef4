"""What machines read, under keys that mean the same on all of them; each machine can be left out again.

A model that learns from a machine must not find that machine in its own evidence, nor one of its lineage.
So sums over all machines are kept, and each machine's part of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["Evidence", "EvidenceTable", "Part"]

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """What one source, such as a machine, says of blocks or files.

    Attributes
    ----------
    source : str
    keys : mapping of str to ndarray of uint64, shape (n,)
        0 is no key.
    rate, when : ndarray of float32, shape (n,)
        As in `vmrestorekit.predict.observations.Observation`.
    """

    source: str
    keys: Mapping[str, Keys]
    rate: Floats
    when: Floats


class EvidenceTable:
    """What sources say under one kind of key.

    Attributes
    ----------
    known : ndarray of uint64, shape (k,)
        Ascending.
    parts : dict of str to tuple of ndarray
        Of each source the rows that it has, and under each the mean rate and the mean time (NaN: never read).
    """

    def __init__(self, known: Keys, parts: dict[str, tuple[npt.NDArray[np.int32], Floats, Floats]]) -> None:
        self.known, self.parts = known, parts
        # sources, sum of rates, sources that read it, sum of times; the last row is of the unknown
        self.totals = np.zeros((known.size + 1, 4))
        for source in parts:
            self._add(self.totals, source, 1)

    @classmethod
    def of(cls, pieces: Iterable[tuple[str, Keys, Floats, Floats]]) -> EvidenceTable:
        """Sum up pieces of sources: keys, rates and times; a source may come in several pieces."""
        pieces = list(pieces)
        found = np.unique(np.concatenate([keys for _, keys, _, _ in pieces] or [np.zeros(0, np.uint64)]))
        table = cls(found[found != 0], {})
        sources: dict[str, list[tuple[Keys, Floats, Floats]]] = {}
        for source, *piece in pieces:
            sources.setdefault(source, []).append(tuple(piece))  # type: ignore[arg-type]
        for source, own in sources.items():
            table.parts[source] = table._mean(*(np.concatenate(column) for column in zip(*own, strict=True)))
            table._add(table.totals, source, 1)
        return table

    def _mean(self, keys: Keys, rate: Floats, when: Floats) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
        row = self.rows(keys)
        known = row < self.known.size
        row, rate, when = row[known], rate[known], when[known]
        timed, size = ~np.isnan(when), self.known.size
        count, rates = np.bincount(row, minlength=size), np.bincount(row, rate, size)
        times, times_count = (
            np.bincount(row[timed], when[timed], size),
            np.bincount(row[timed], minlength=size),
        )
        found = np.flatnonzero(count)
        with np.errstate(invalid="ignore"):
            mean_time = times[found] / times_count[found]
        return (
            found.astype(np.int32),
            (rates[found] / count[found]).astype(np.float32),
            mean_time.astype(np.float32),
        )

    def _add(self, totals: npt.NDArray[np.float64], source: str, sign: int) -> None:
        _add_part(totals, *self.parts[source], sign)

    def rows(self, keys: Keys) -> npt.NDArray[np.int32]:
        """Return the row of each key; one past the last where a key is unknown."""
        if not self.known.size:
            return np.zeros(keys.size, np.int32)
        row = np.minimum(np.searchsorted(self.known, keys), self.known.size - 1)
        return np.where(self.known[row] == keys, row, self.known.size).astype(np.int32)

    def without(self, sources: Collection[str] = ()) -> Floats:
        """Return a row a key, and one of the unknown: number of sources, mean rate, mean time.

        Returns
        -------
        ndarray of float32, shape (k + 1, 3)
            NaN where no source, or none that read it, is left.
        """
        totals = self.totals
        left_out = [source for source in self.parts if source in sources]
        if left_out:
            totals = totals.copy()
            for source in left_out:
                self._add(totals, source, -1)
        found = np.empty((totals.shape[0], 3), np.float32)
        count, timed = totals[:, 0], totals[:, 2]
        found[:, 0] = count
        with np.errstate(invalid="ignore", divide="ignore"):
            # what was taken out again leaves a trace of rounding
            found[:, 1] = np.where(count > 0, np.maximum(totals[:, 1].round(9), 0) / count, np.nan)
            found[:, 2] = np.where(timed > 0, np.maximum(totals[:, 3].round(9), 0) / timed, np.nan)
        return found


@numba.njit(cache=True, nogil=True)
def _add_part(totals, rows, rate, when, sign):  # type: ignore[no-untyped-def]
    for at in range(rows.size):
        row = rows[at]
        totals[row, 0] += sign
        totals[row, 1] += sign * np.float64(rate[at])
        if not np.isnan(when[at]):
            totals[row, 2] += sign
            totals[row, 3] += sign * np.float64(when[at])


class Evidence:
    """What sources say under each kind of key.

    Parameters
    ----------
    tables : mapping of str to EvidenceTable
    """

    def __init__(self, tables: Mapping[str, EvidenceTable]) -> None:
        self.tables = dict(tables)

    @classmethod
    def of(cls, parts: Iterable[Part], keys: Iterable[str]) -> Evidence:
        """Sum up what sources say."""
        parts = list(parts)
        return cls(
            {
                key: EvidenceTable.of((part.source, part.keys[key], part.rate, part.when) for part in parts)
                for key in keys
            }
        )

    def rows(self, keys: Mapping[str, Keys]) -> dict[str, npt.NDArray[np.int32]]:
        """Return the rows of keys in each table."""
        return {kind: table.rows(keys[kind]) for kind, table in self.tables.items()}

    def without(self, sources: Collection[str] = ()) -> dict[str, Floats]:
        """Return what is left of each table without some sources, see `EvidenceTable.without`."""
        return {kind: table.without(sources) for kind, table in self.tables.items()}
