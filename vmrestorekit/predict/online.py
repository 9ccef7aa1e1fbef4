"""What is left to be read, while a boot is under way: the prediction, after what was read so far.

All that is seen moves the log-odds of a block that is still to come; what is said of it adds up:

* *The clock.* A boot is at the place up to which as much was expected as has come, of what was likely. In
  these shares of a boot, not in seconds, blocks are early or late: a boot computes for seconds between two
  reads that follow each other. A block that is late by ``d`` becomes less probable,
  ``p' = p·S / (1 - p + p·S)``, or odds times S: Bayes' rule for a lifetime with survival function S, and a
  part 1 - p that never comes (the mixture cure model of Boag, 1949). S(d) is the share of likely blocks that
  come this late or later: of the last `RECENT` ones that this boot read, and as if `PRIOR_READS` more had
  been seen with ``exp(-d / DELAY)``, which is about what recorded boots show.
* *Files.* Of the blocks of a file that ought to have come by now, the share that has come makes the rest of
  the file more or less probable: a Beta prior with the predicted mean and a weight. By as much as the odds of
  the mean move, those of all its blocks do.
* *Groups of files*, the files of a package, or of a folder where none owns them: the same with files in place
  of blocks, for files of which nothing was read. So a service that is in use though nobody expected it is
  found by its first files, and one that is not stops to be waited for.
* *Reading on.* Where what was read of a file was not expected, the blocks near it, and mostly those after it,
  may be next: ``1 - (1 - p)·(1 - NEXT·surprise·2^(-distance / HALVED))``.

The constants were chosen on the last boots of bookworm-mail, bullseye-dns and trixie-files (``data/traces``),
predicted from bookworm-python, bookworm-web and trixie-web, by average precision and recall of what was left
at 10, 25 and 50 % of the boot. There they change little: most of what was not expected lies in files of
services that start late, and nothing tells before. A smaller weight of files (4, 8), or less patience with
what is late, made it worse: in a real boot many things happen at once, and a block that is late mostly comes.
On databases, which were not looked at for this, what is left is told far better from the first reads of the
database on (average precision of three, 0.2 s later: 0.28 instead of 0.16); half-way through the boot, before
that, it is a little worse (by 0.012 at most).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.base import SCORES_SCHEMA
from vmrestorekit.predict.cache_blocks import cache_block_scores, staging_order
from vmrestorekit.predict.observed import PredictError, blocks_covered
from vmrestorekit.predict.ordering import StagingDevice, least_stall_order
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES, Manifest

__all__ = ["READS_SCHEMA", "BootSoFar", "Reranked", "rerank"]

READS_SCHEMA = pl.Schema(
    {
        "time_ns": pl.Int64(),  # since launch, as the times of the scores; none before the one above
        "disk": pl.Int64(),
        "offset": pl.Int64(),  # bytes
        "length": pl.Int64(),
    }
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LIKELY = 0.5
RECENT, PRIOR_READS, DELAY = 500, 1000, 0.1
# shares of a boot: what was expected longer ago than this ought to have come
PATIENCE, DUE_WITHIN = 0.2, 0.1
FILE_WEIGHT, GROUP_WEIGHT, GROUP_TRUST = 32.0, 4.0, 0.5
NEXT, BEFORE, HALVED = 0.2, 0.1, 16.0
SLOWEST, FASTEST = 8.0, 0.125  # boots, in times of the expected one
AT_ONCE_NS = 1e6
SURE = 1e-6  # no probability is taken for nearer to 0 or 1 than this


@dataclasses.dataclass(frozen=True, eq=False)
class Reranked:
    """What is left of a boot.

    Attributes
    ----------
    scores : tuple of polars.DataFrame
        `SCORES_SCHEMA`, of each disk: how probable it is that a 4 KiB block is read yet, and when; 0 of what
        was read.
    order : ndarray of int32, shape (n,)
        Cache blocks of all disks in the order in which they are to be staged from now on; none of which
        anything was read.
    """

    scores: tuple[pl.DataFrame, ...]
    order: npt.NDArray[np.int32]


def rerank(
    manifests: Sequence[Manifest],
    scores: Sequence[pl.DataFrame],
    reads: pl.DataFrame,
    *,
    now_ns: int | None = None,
    block_bytes: int = 64 * 1024,
    most: int | None = None,
    device: StagingDevice | None = None,
) -> Reranked:
    """Rank what is left of a boot, after the reads seen so far.

    Who asks again and again keeps a `BootSoFar`.

    Parameters
    ----------
    manifests, scores
        As of `BootSoFar`.
    reads : polars.DataFrame
        `READS_SCHEMA`, a row a request.
    now_ns, block_bytes, most, device
        As of `BootSoFar.rerank`.

    Raises
    ------
    PredictError
        If the parts do not fit each other.
    """
    lacking = [name for name in READS_SCHEMA if name not in reads.columns]
    if lacking:
        raise PredictError(f"reads: expected columns {', '.join(READS_SCHEMA)}, {', '.join(lacking)} lack")
    boot = BootSoFar(manifests, scores)
    boot.see(*(reads[name].to_numpy() for name in READS_SCHEMA))
    return boot.rerank(now_ns=now_ns, block_bytes=block_bytes, most=most, device=device)


class BootSoFar:
    """A boot under way: what was expected of it, and what it has read.

    Parameters
    ----------
    manifests : sequence of Manifest
        Of all disks of the machine, before the boot.
    scores : sequence of polars.DataFrame
        What a predictor's ``score_blocks`` said of each of them. The probabilities must be such.

    Raises
    ------
    PredictError
        If there is not one frame of scores for each manifest, of its size, with probabilities from 0 to 1.
    """

    def __init__(self, manifests: Sequence[Manifest], scores: Sequence[pl.DataFrame]) -> None:
        self._manifests = tuple(manifests)
        _expect_scores_of(self._manifests, scores)
        heights = np.array([manifest.blocks.height for manifest in self._manifests])
        self._first = np.cumsum(heights) - heights
        self._bytes = np.array([manifest.disk_bytes for manifest in self._manifests])
        self._expected = _Expected.of(self._manifests, scores)
        self._read_ns = np.full(int(heights.sum()), -1, np.int64)
        self._last_ns = 0

    def see(self, time_ns: Any, disk: Any, offset: Any, length: Any) -> None:
        """Take note of reads.

        Parameters
        ----------
        time_ns, disk, offset, length : array-like of int, shape (n,)
            As in `READS_SCHEMA`.

        Raises
        ------
        PredictError
            If a read is outside the disks, or before one that was seen. Then none of them is taken.
        """
        columns = [np.atleast_1d(np.asarray(each)) for each in (time_ns, disk, offset, length)]
        if len({each.shape for each in columns}) != 1 or any(each.ndim != 1 for each in columns):
            raise PredictError("reads: expected as many times as disks, offsets and lengths")
        if columns[0].size and not all(np.issubdtype(each.dtype, np.integer) for each in columns):
            raise PredictError("reads: expected whole numbers of nanoseconds and bytes")
        time, disk, offset, length = (each.astype(np.int64) for each in columns)
        self._expect_reads(time, disk, offset, length)
        request, block = blocks_covered(offset, length, MANIFEST_BLOCK_BYTES)
        at, when = self._first[disk[request]] + block, time[request]
        fresh = self._read_ns[at] < 0
        at, first = np.unique(at[fresh], return_index=True)  # the first of each: times ascend
        self._read_ns[at] = when[fresh][first]
        self._last_ns = int(time[-1]) if time.size else self._last_ns

    def _expect_reads(self, time: Integers, disk: Integers, offset: Integers, length: Integers) -> None:
        backwards = np.flatnonzero(np.diff(time, prepend=self._last_ns) < 0)
        if backwards.size:
            row = int(backwards[0])
            before = int(time[row - 1]) if row else self._last_ns
            raise PredictError(
                f"reads: expected times that do not go backwards, got {time[row]} ns after {before} ns"
            )
        there = (disk >= 0) & (disk < self._bytes.size)
        end = self._bytes[np.where(there, disk, 0)]
        outside = np.flatnonzero(~there | (offset < 0) | (length < 0) | (length > end - offset))
        if outside.size:
            row = int(outside[0])
            raise PredictError(
                f"reads: expected reads inside disks of {self._bytes.tolist()} bytes, got {length[row]} "
                f"bytes at {offset[row]} of disk {disk[row]}"
            )

    def scores(self, now_ns: int | None = None) -> tuple[pl.DataFrame, ...]:
        """Say of each 4 KiB block how probable it is to be read from now on, and when.

        Parameters
        ----------
        now_ns : int, optional
            Since launch; default: when the last read came.

        Returns
        -------
        tuple of polars.DataFrame
            `SCORES_SCHEMA`, of each disk, on the clock of this boot; 0 for what was read.

        Raises
        ------
        PredictError
            If that is before the last read.
        """
        now = self._last_ns if now_ns is None else now_ns
        if now < self._last_ns:
            raise PredictError(f"now_ns: expected at least {self._last_ns}, when a read came, got {now}")
        chance, time = self._expected.after(self._read_ns[self._expected.row], now)
        probability = np.zeros(self._read_ns.size)
        nanoseconds = np.full(self._read_ns.size, np.nan)
        probability[self._expected.row], nanoseconds[self._expected.row] = chance, time
        ends = self._first[1:]
        return tuple(
            pl.DataFrame({"probability": own, "first_read_ns": at}, schema=SCORES_SCHEMA).with_columns(
                pl.col("first_read_ns").fill_nan(None)
            )
            for own, at in zip(np.split(probability, ends), np.split(nanoseconds, ends), strict=True)
        )

    def rerank(
        self,
        *,
        now_ns: int | None = None,
        block_bytes: int = 64 * 1024,
        most: int | None = None,
        device: StagingDevice | None = None,
    ) -> Reranked:
        """Rank what is left.

        Parameters
        ----------
        now_ns : int, optional
            As of `scores`.
        block_bytes : int
            Size of a block of the read cache. One of which anything was read is not left.
        most : int, optional
            How many blocks at most; default: as many as have a chance.
        device : StagingDevice, optional
            Choose the order with the least expected stall on this device; the head start is over.

        Raises
        ------
        PredictError
            If a setting makes no sense.
        """
        now = self._last_ns if now_ns is None else now_ns
        scores = self.scores(now)
        read = np.split(self._read_ns >= 0, self._first[1:])
        left = pl.concat(
            _left(cache_block_scores(own, manifest.blocks, block_bytes), seen, block_bytes)
            for own, manifest, seen in zip(scores, self._manifests, read, strict=True)
        )
        if device is None:
            return Reranked(scores, staging_order(left, most))
        from_now = left.with_columns(pl.col("first_read_ns") - now)
        device = dataclasses.replace(device, head_start_ns=0)
        return Reranked(scores, least_stall_order(from_now, most, block_bytes, device))


def _expect_scores_of(manifests: tuple[Manifest, ...], scores: Sequence[pl.DataFrame]) -> None:
    if not manifests or len(manifests) != len(scores):
        raise PredictError(
            f"scores: expected those of each of the machine's disks, got {len(scores)} for "
            f"{len(manifests)} manifests"
        )
    for disk, (manifest, own) in enumerate(zip(manifests, scores, strict=True)):
        if own.height != manifest.blocks.height or any(name not in own.columns for name in SCORES_SCHEMA):
            raise PredictError(
                f"scores: expected {', '.join(SCORES_SCHEMA)} of {manifest.blocks.height} blocks of disk "
                f"{disk}, got {', '.join(own.columns)} of {own.height}"
            )
        probability = own["probability"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        if not ((probability >= 0) & (probability <= 1)).all():
            raise PredictError(f"scores: expected probabilities from 0 to 1 of all blocks of disk {disk}")


def _left(scores: pl.DataFrame, read: Flags, block_bytes: int) -> pl.DataFrame:
    """Return scores of cache blocks, 0 for those of which something was read."""
    units = block_bytes // MANIFEST_BLOCK_BYTES
    gone = np.pad(read, (0, -read.size % units)).reshape(-1, units).any(axis=1)
    return scores.with_columns(probability=pl.when(pl.Series(gone)).then(0.0).otherwise("probability"))


@dataclasses.dataclass(frozen=True, eq=False)
class _Expected:
    """What was expected of the n stored blocks of all disks, file by file and in the order of the file.

    ``file`` is that of each block, the last one is of blocks of no file; ``group`` that of each file.
    ``place`` is that of a block among all expected reads, from 0 to 1. ``odds`` are logarithms. ``surest``
    are the most probable blocks of each file.
    """

    row: Integers
    probability: Floats
    time: Floats
    place: Floats
    odds: Floats
    file: Integers
    position: Integers
    group: Integers
    surest: Integers

    @classmethod
    def of(cls, manifests: Sequence[Manifest], scores: Sequence[pl.DataFrame]) -> _Expected:
        blocks = pl.concat(manifest.blocks for manifest in manifests)
        counts = [manifest.files.height for manifest in manifests]
        offset = np.repeat(np.cumsum(counts) - counts, [manifest.blocks.height for manifest in manifests])
        owner = blocks["file"].fill_null(-1).to_numpy()
        file = np.where(owner >= 0, owner + offset, sum(counts))
        position = blocks["file_block"].fill_null(0).to_numpy().astype(np.int64)
        row = np.flatnonzero(blocks["content"].to_numpy())
        row = row[np.lexsort((row, position[row], file[row]))]
        every = pl.concat(own.select(pl.col(list(SCORES_SCHEMA)).cast(pl.Float64)) for own in scores)
        probability = every["probability"].to_numpy()[row]
        time = every["first_read_ns"].fill_null(np.nan).to_numpy()[row]
        file = file[row]
        best = np.lexsort((-probability, file))
        surest = best[np.flatnonzero(np.diff(file[best], prepend=-1))]
        return cls(
            *(row, probability, time, _places(probability, time), _logit(probability), file, position[row]),
            group=_groups(manifests),
            surest=surest[file[surest] < sum(counts)],
        )

    def after(self, read_ns: Integers, now: int) -> tuple[Floats, Floats]:
        """Return the probability and the time of each block, given when it was read, if it was (else -1)."""
        seen = read_ns >= 0
        likely = np.flatnonzero(seen & (self.probability >= LIKELY) & np.isfinite(self.time))
        likely = likely[np.argsort(read_ns[likely], kind="stable")]
        come = np.cumsum(self.probability[likely]) / max(float(self.probability.sum()), 1.0)
        here = float(come[-1]) if come.size else 0.0
        late = here - self.place
        delays = (come - self.place[likely])[-RECENT:]
        chance = _sigmoid(self.odds + self._survival(late, delays) + self._shifts(seen, late)[self.file])
        chance = self._read_on(chance, seen)
        left = ~seen & (self.probability > 0)
        time = self._times(likely[-RECENT:], read_ns, late, now)
        return np.where(left, chance, 0.0), np.where(left, time, np.nan)

    def _survival(self, late: Floats, delays: Floats) -> Floats:
        """Return the logarithm of S for each block; 0 for those that are not late, or not likely anyway."""
        found = np.zeros(late.size)
        asked = np.flatnonzero((late > 0) & (self.probability >= LIKELY))
        this_late = late[asked]
        later = delays.size - np.searchsorted(np.sort(delays), this_late, side="left")
        found[asked] = np.log(
            (PRIOR_READS * np.exp(-this_late / DELAY) + later) / (PRIOR_READS + delays.size)
        )
        return found

    def _shifts(self, seen: Flags, late: Floats) -> Floats:
        """Return by how much the logarithm of the odds of each file's blocks changes."""
        files = self.group.size
        due = np.zeros(late.size)
        overdue = np.flatnonzero(late > PATIENCE)
        due[overdue] = 1 - np.exp((PATIENCE - late[overdue]) / DUE_WITHIN)
        due[seen] = np.maximum(due[seen], DUE_WITHIN)  # what came early tells, too, but less
        expected, asked, come = (
            np.bincount(self.file, values, files + 1)[:files]
            for values in (due * self.probability, due, due * seen)
        )
        shift = _shift(expected, asked, come, FILE_WEIGHT)
        touched = np.bincount(self.file[seen], minlength=files + 1)[:files] > 0
        return np.append(shift + np.where(touched, 0, GROUP_TRUST * self._shifts_of_groups(touched, due)), 0)

    def _shifts_of_groups(self, touched: Flags, due: Floats) -> Floats:
        """Return of each file by how much what others in its group did changes the logarithm of its odds."""
        at, owner = self.surest, self.file[self.surest]
        expected, asked = np.zeros(touched.size), np.zeros(touched.size)
        expected[owner], asked[owner] = self.probability[at], due[at]
        asked[touched] = 1
        expected *= asked
        all_expected, all_asked, come = (
            np.bincount(self.group, values)[self.group] for values in (expected, asked, asked * touched)
        )
        return _shift(all_expected - expected, all_asked - asked, come, GROUP_WEIGHT)

    def _read_on(self, chance: Floats, seen: Flags) -> Floats:
        """Raise what lies near blocks of the same file that were read and not expected."""
        files = self.group.size
        count = np.maximum(np.bincount(self.file[seen], minlength=files + 1), 1)
        surprise = np.bincount(self.file[seen], 1 - self.probability[seen], files + 1) / count
        surprise[files] = 0
        rows = np.flatnonzero(surprise[self.file] > 0)
        if not rows.size:
            return chance
        read, file, position = seen[rows], self.file[rows], self.position[rows]
        here = np.arange(rows.size)
        before = np.maximum.accumulate(np.where(read, here, 0))
        after = np.minimum.accumulate(np.where(read, here, rows.size - 1)[::-1])[::-1]
        near = np.zeros(rows.size)
        for other, most in ((before, NEXT), (after, BEFORE)):
            distance = np.abs(position - position[other])
            there = read[other] & (file[other] == file)
            near = np.maximum(near, np.where(there, most * 2.0 ** (-distance / HALVED), 0))
        found = chance.copy()
        found[rows] = 1 - (1 - chance[rows]) * (1 - near * surprise[file])
        return found

    def _times(self, recent: Integers, read_ns: Integers, late: Floats, now: int) -> Floats:
        """Return when each block is expected on the clock of this boot; late ones at once, in their order."""
        wait = self.time - now
        if recent.size:
            ratio = read_ns[recent] / np.maximum(self.time[recent], 1)
            pace = float(np.clip(np.median(ratio), FASTEST, SLOWEST))
            reached = self.time[(late >= 0) & np.isfinite(self.time)].max(initial=0)
            wait = pace * (self.time - reached) + read_ns[recent[-1]] - now
        found: Floats = now + np.where(
            wait > 0, wait + AT_ONCE_NS, AT_ONCE_NS * np.exp(np.minimum(wait, 0) / 1e9)
        )
        return found


def _places(probability: Floats, time: Floats) -> Floats:
    """Return of each block how much of what is expected is expected before it, as a share of all."""
    order = np.lexsort((probability, time))  # NaN come last
    place = np.empty(order.size)
    expected = np.cumsum(probability[order])
    place[order] = (expected - probability[order] / 2) / max(float(expected[-1]) if order.size else 0, 1e-9)
    return np.where(np.isnan(time), 1.0, place)


def _groups(manifests: Sequence[Manifest]) -> Integers:
    """Return which files belong together: by package, else by folder."""
    files = pl.concat(manifest.files.select("path", "package") for manifest in manifests)
    name = files.select(
        pl.when(pl.col("package").is_null())
        .then(pl.concat_str(pl.lit("/"), pl.col("path").str.replace(r"/?[^/]*$", "")))
        .otherwise("package")
    ).to_series()
    return np.unique(name.hash().to_numpy(), return_inverse=True)[1].astype(np.int64)


def _shift(
    expected: npt.NDArray[Any], asked: npt.NDArray[Any], come: npt.NDArray[Any], weight: float
) -> Floats:
    """Return by how much the logarithm of the odds moves from the predicted mean to that of the posterior."""
    mean = np.where(asked > SURE, expected / np.maximum(asked, SURE), 0.5)
    found: Floats = _logit((weight * mean + come) / (weight + asked)) - _logit(mean)
    return found


def _logit(probability: Floats) -> Floats:
    clipped = np.clip(probability, SURE, 1 - SURE)
    found: Floats = np.log(clipped / (1 - clipped))
    return found


def _sigmoid(value: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-value))
    return found
