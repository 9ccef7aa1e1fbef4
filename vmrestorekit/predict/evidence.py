"""What machines read, under keys that mean the same on all of them; each machine can be left out again.

A model that learns from a machine must not find that machine in its own evidence, nor one of its lineage.
So sums over all machines are kept, and each machine's part of them.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["Evidence", "EvidenceTable", "Part"]

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
# rows, rates, times, weights of the rates, weights of the times
_Piece = tuple[npt.NDArray[Any], Floats, Floats, Floats, Floats]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """What one source, such as a machine, says of blocks or files.

    Attributes
    ----------
    source : str
    keys : mapping of str to ndarray of uint64, shape (n,)
        0 is no key.
    rate, when : ndarray of float32, shape (n,)
        As in `vmrestorekit.predict.observations.Observation`: times are from 0 to 1, and up to 2 of what was
        read only in the minute after a boot.
    boots : int
        How many boots they are means of.
    """

    source: str
    keys: Mapping[str, Keys]
    rate: Floats
    when: Floats
    boots: int = 1


class EvidenceTable:
    """What sources say under one kind of key.

    Attributes
    ----------
    known : ndarray of uint64, shape (k,)
        Ascending.
    parts : dict of str to tuple of ndarray
        Of each source the rows that it has, and under each the mean rate, 0 to 1, and the mean time, 0 to 2
        (NaN: never read; above 1: in the minute after a boot).
    weights : dict of str to tuple of ndarray
        Of each source how many blocks, counted once a boot, each of these rates and times is the mean of:
        what `joined` needs to take later boots in.
    """

    def __init__(
        self,
        known: Keys,
        parts: dict[str, tuple[npt.NDArray[np.int32], Floats, Floats]],
        weights: dict[str, tuple[Floats, Floats]] | None = None,
    ) -> None:
        self.known, self.parts = known, parts
        if weights is None:
            weights = {
                source: (np.ones_like(rate), (~np.isnan(when)).astype(np.float32))
                for source, (_, rate, when) in parts.items()
            }
        self.weights = weights
        # sources, sum of rates, sources that read it, sum of times; the last row is of the unknown
        self.totals = np.zeros((known.size + 1, 4))
        for source in parts:
            self._add(self.totals, source, 1)

    @classmethod
    def of(
        cls, pieces: Iterable[tuple[str, Keys, Floats, Floats]], boots: Mapping[str, int] | None = None
    ) -> EvidenceTable:
        """Sum up pieces of sources: keys, rates and times; a source may come in several pieces.

        Parameters
        ----------
        pieces : iterable of tuple
        boots : mapping of str to int, optional
            Of each source how many boots its rates and times are means of; default: one.
        """
        pieces = list(pieces)
        # `numpy.unique` takes thirty times as long as to sort
        found = np.concatenate([np.zeros(0, np.uint64), *(keys[_begins(keys)] for _, keys, _, _ in pieces)])
        table = cls(_different(np.sort(found)), {})
        own: dict[str, list[_Piece]] = collections.defaultdict(list)
        for source, keys, rate, when in pieces:
            row, each = table.rows(keys), (boots or {}).get(source, 1)
            there = row < table.known.size
            weight = np.full(np.count_nonzero(there), each, np.float32)
            timed = np.where(np.isnan(when[there]), np.float32(0), weight)
            own[source].append((row[there], rate[there], when[there], weight, timed))
        return cls._of_rows(table.known, own)

    @classmethod
    def joined(cls, tables: Iterable[EvidenceTable], names: Mapping[str, str] | None = None) -> EvidenceTable:
        """Return what several tables say; of a source that is in several of them, all its boots count alike.

        Parameters
        ----------
        tables : iterable of EvidenceTable
        names : mapping of str to str, optional
            Sources that are to be taken for others, or for parts of one.
        """
        tables = list(tables)
        own: dict[str, list[_Piece]] = collections.defaultdict(list)
        # what is in order already is only merged
        known = _different(np.sort(np.concatenate([table.known for table in tables]), kind="stable"))
        for table in tables:
            place = np.searchsorted(known, table.known)
            for source, (rows, rate, when) in table.parts.items():
                piece = (place[rows], rate, when, *table.weights[source])
                own[(names or {}).get(source, source)].append(piece)
        return cls._of_rows(known, own)

    @classmethod
    def _of_rows(cls, known: Keys, own: Mapping[str, list[_Piece]]) -> EvidenceTable:
        parts, weights = {}, {}
        for source in sorted(own):
            columns = (np.concatenate(column) for column in zip(*own[source], strict=True))
            parts[source], weights[source] = _means(known.size, *columns)
        return cls(known, parts, weights)

    def _add(self, totals: npt.NDArray[np.float64], source: str, sign: int) -> None:
        _add_part(totals, *self.parts[source], sign)

    def rows(self, keys: Keys) -> npt.NDArray[np.int32]:
        """Return the row of each key; one past the last where a key is unknown."""
        if not self.known.size:
            return np.zeros(keys.size, np.int32)
        begins = _begins(keys)
        # in ascending order a search finds in the processor's cache where the one before it ended
        asked = keys[begins]
        in_order = np.argsort(asked)
        row = np.empty(asked.size, np.int32)
        row[in_order] = np.minimum(np.searchsorted(self.known, asked[in_order]), self.known.size - 1)
        row = np.where(self.known[row] == asked, row, self.known.size).astype(np.int32)
        return np.repeat(row, np.diff(begins, append=keys.size))

    def without(self, sources: Collection[str] = ()) -> Floats:
        """Return a row a key, and one of the unknown: number of sources, mean rate, mean time.

        Returns
        -------
        ndarray of float32, shape (k + 1, 3)
            NaN where no source, or none that read it, is left. Times are from 0 to 2, see `Part`.
        """
        totals = self.totals
        left_out = [source for source in self.parts if source in sources]
        if left_out:
            totals = totals.copy()
            for source in left_out:
                self._add(totals, source, -1)
        found: Floats = _means_of_totals(totals)
        return found


def _begins(keys: Keys) -> npt.NDArray[np.int64]:
    """Return where another key begins; all blocks of a file have the same ones, and lie together."""
    return np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: keys.size])


def _different(keys: Keys) -> Keys:
    """Return each of ascending keys once; 0 is none."""
    found: Keys = keys[np.diff(keys, prepend=np.uint64(0)) != 0]
    return found


@numba.njit(cache=True, nogil=True)
def _means_of_totals(totals):  # type: ignore[no-untyped-def]
    found = np.full((totals.shape[0], 3), np.nan, np.float32)
    for row in range(totals.shape[0]):
        count, rates, timed, times = totals[row]
        found[row, 0] = count
        # what was taken out again leaves a trace of rounding
        if count > 0:
            found[row, 1] = max(np.rint(rates * 1e9) / 1e9, 0.0) / count
        if timed > 0:
            found[row, 2] = max(np.rint(times * 1e9) / 1e9, 0.0) / timed
    return found


def _means(
    size: int, row: npt.NDArray[Any], rate: Floats, when: Floats, weight: Floats, timed: Floats
) -> tuple[tuple[npt.NDArray[np.int32], Floats, Floats], tuple[Floats, Floats]]:
    """Return the means under each row that is there, and what they weigh."""
    count, times_count = np.bincount(row, weight, size), np.bincount(row, timed, size)
    rates = np.bincount(row, rate.astype(np.float64) * weight, size)
    times = np.bincount(row, np.where(timed > 0, when, 0).astype(np.float64) * timed, size)
    found = np.flatnonzero(count)
    with np.errstate(invalid="ignore"):
        mean_time = times[found] / times_count[found]
    return (
        (
            found.astype(np.int32),
            (rates[found] / count[found]).astype(np.float32),
            mean_time.astype(np.float32),
        ),
        (count[found].astype(np.float32), times_count[found].astype(np.float32)),
    )


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
        boots = {part.source: part.boots for part in parts}
        return cls(
            {
                key: EvidenceTable.of(
                    ((part.source, part.keys[key], part.rate, part.when) for part in parts), boots
                )
                for key in keys
            }
        )

    @classmethod
    def joined(cls, several: Iterable[Evidence], names: Mapping[str, str] | None = None) -> Evidence:
        """Return what is said under the same kinds of keys in several places: `EvidenceTable.joined`."""
        several = list(several)
        return cls(
            {
                kind: EvidenceTable.joined([each.tables[kind] for each in several], names)
                for kind in several[0].tables
            }
        )

    def rows(self, keys: Mapping[str, Keys]) -> dict[str, npt.NDArray[np.int32]]:
        """Return the rows of keys in each table."""
        return {kind: table.rows(keys[kind]) for kind, table in self.tables.items()}

    def without(self, sources: Collection[str] = ()) -> dict[str, Floats]:
        """Return what is left of each table without some sources, see `EvidenceTable.without`."""
        return {kind: table.without(sources) for kind, table in self.tables.items()}
