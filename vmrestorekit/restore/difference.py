"""What made the difference: two restores of one trace, request by request."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.restore.explain import WAITED_FOR, WAITS_SCHEMA, critical_path, waits
from vmrestorekit.restore.timeline import Timeline, TimelineError

__all__ = ["Difference", "difference"]

IntArray = npt.NDArray[np.int64]

_NS_OF_PART = [f"{name}_ns" for name in WAITED_FOR]
# for sentences: more or less time …
_SPENT = {
    "queue": "waiting for a free channel of the backup device or a slot of the read cache",
    "device": "waiting for the backup device to deliver",
    "link_queue": "waiting behind other transmissions on the link",
    "link": "in transmission over the link",
    "destination": "waiting for the destination",
    "write_cache": "waiting for the write cache",
    "media_agent": "waiting for another media agent",
    "think": "computing between the requests",
}
# a part below this share of the difference is not worth a clause
_WORTH_TELLING = 0.02
_RANGES_TOLD = 3

_COMMON = ("request", "kind", "block", "count", "bytes")
_OF_EACH = ("wait_ns", "waited_for", "hits", "waits", "misses")
_REQUESTS_SCHEMA = pl.Schema(
    {
        **{name: WAITS_SCHEMA[name] for name in _COMMON},
        "compared": pl.Boolean(),
        **{
            f"{side}_{name}": WAITS_SCHEMA.get(name, pl.Enum(WAITED_FOR))
            for side in "ab"
            for name in _OF_EACH
        },
        "difference_ns": pl.Int64(),
        **{name: pl.Int64() for name in _NS_OF_PART},
    }
)


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    """What made restore `b` slower or faster than restore `a`.

    If the boot ended in both, the times to boot are compared: the requests that the end of the boot waited
    for one after the other, which are the same in both, and the think times between them. Else the waits of
    all requests that completed in both are compared, though many of them overlap.

    Attributes
    ----------
    booted : bool
        Whether the boot ended in both.
    a_ns, b_ns : int
        Time to boot of each; or the sum of the waits that are compared.
    totals : polars.DataFrame
        `waited_for` (a name of `WAITED_FOR`, or ``"think"``), `a_ns`, `b_ns`, `difference_ns`. The columns
        add up to `a_ns`, `b_ns`, and their difference.
    requests : polars.DataFrame
        One row a request that completed in both, in the order of the trace: `request`, `kind`, `block` and
        `count` (in blocks of `a`), `bytes`; `compared`: whether it counts in the totals; of each restore,
        such as `a`, its `a_wait_ns`, `a_waited_for` (the longest part, null if it did not wait), and how its
        blocks were found, `a_hits`, `a_waits` and `a_misses`; `difference_ns`, and its parts, such as
        `queue_ns`.
    """

    booted: bool
    a_ns: int
    b_ns: int
    totals: pl.DataFrame
    requests: pl.DataFrame

    @property
    def difference_ns(self) -> int:
        """How much longer `b` took; negative if it was faster."""
        return self.b_ns - self.a_ns

    def largest(self, count: int = 10) -> pl.DataFrame:
        """Return the compared requests that contribute most to the difference, in its direction."""
        direction = -1 if self.difference_ns < 0 else 1
        signed = direction * pl.col("difference_ns")
        return self.requests.filter("compared", signed > 0).sort(signed, descending=True).head(count)

    def sentence(self) -> str:
        """Return the difference in a few words."""
        clauses = [self._clause(name, ns) for name, ns in self._parts_worth_telling()]
        told = f": {'; '.join(clauses)}" if clauses else ""
        return f"{self._opening()}{told}.{self._found()}"

    def __str__(self) -> str:
        return self.sentence()

    def _opening(self) -> str:
        both = f"{_seconds(self.b_ns)} instead of {_seconds(self.a_ns)}"
        gap = _seconds(abs(self.difference_ns))
        if self.booted and self.difference_ns == 0:
            return f"a and b take the same time to boot, {_seconds(self.a_ns)}"
        if self.booted:
            return f"b boots {gap} {'later' if self.difference_ns > 0 else 'sooner'} than a ({both})"
        compared = f"The boot did not end in both; their {self.requests.height} common requests"
        if self.difference_ns == 0:
            return f"{compared} waited {_seconds(self.a_ns)} in all in each"
        more = "more" if self.difference_ns > 0 else "less"
        return f"{compared} waited {gap} {more} in b than in a ({both}, added up)"

    def _parts_worth_telling(self) -> list[tuple[str, int]]:
        """Return the parts that differ by much, the largest first."""
        parts = self.totals.select("waited_for", "difference_ns").rows()
        largest = max(abs(ns) for _, ns in parts)
        least = max(1, _WORTH_TELLING * largest)
        return sorted((part for part in parts if abs(part[1]) >= least), key=lambda part: -abs(part[1]))

    def _clause(self, name: str, ns: int) -> str:
        clause = f"{_seconds(abs(ns))} {'more' if ns > 0 else 'less'} {_SPENT[name]}"
        if name == "think":
            return clause
        signed = (1 if ns > 0 else -1) * pl.col(f"{name}_ns")
        ordered = self.requests.filter("compared", signed > 0).sort(signed, descending=True)
        reached = ordered.select(signed.cum_sum() * 2 >= abs(ns)).to_series()
        half = ordered.head(int(reached.arg_max() or 0) + 1)
        share = "all" if half.height == ordered.height else "half"
        return f"{clause}, {share} of it in {_name(half)}"

    def _found(self) -> str:
        """Return how many blocks were in the read cache when these requests asked for them."""
        names = [f"{side}_{found}" for side in "ab" for found in ("hits", "waits", "misses")]
        sums = self.requests.filter("compared").select(pl.col(names).sum()).row(0, named=True)
        asked = {side: sum(sums[name] for name in names if name.startswith(side)) for side in "ab"}
        if not any(asked.values()):
            return ""
        shares = [f"{sums[f'{side}_hits']} of {asked[side]} in {side}" for side in "ab"]
        return f" Of the blocks that these requests asked for, {' and '.join(shares)} were in the read cache."


def difference(a: Timeline, b: Timeline) -> Difference:
    """Return what made the difference between two restores of one trace.

    Parameters
    ----------
    a, b : Timeline
        Of the same recorded boot, with any plans and hardware.

    Raises
    ------
    TimelineError
        If they are not of the same trace, no request completed in both, or events do not name their causes.
    """
    _check_that_comparable(a, b)
    of_each = [waits(timeline) for timeline in (a, b)]
    _check_requests(*of_each)
    of_a, of_b = (
        frame.drop_nulls("wait_ns").join(other.drop_nulls("wait_ns"), on="request", how="semi")
        for frame, other in (of_each, of_each[::-1])
    )
    path = _common_path(a, b)
    compared = np.ones(of_a.height, np.bool_) if path is None else np.isin(of_a["request"].to_numpy(), path)
    sums = [[int(frame[name].filter(compared).sum()) for name in _NS_OF_PART] for frame in (of_a, of_b)]
    ends = (
        [sum(parts) for parts in sums] if path is None else [_time_to_boot(timeline) for timeline in (a, b)]
    )
    return Difference(
        booted=path is not None,
        a_ns=ends[0],
        b_ns=ends[1],
        totals=_totals(sums, ends),
        requests=_requests(of_a, of_b, compared),
    )


def _common_path(a: Timeline, b: Timeline) -> IntArray | None:
    """Return the requests that the ends of both boots waited for, None if one of them did not end."""
    path, other = critical_path(a), critical_path(b)
    if path is None or other is None:
        return None
    if not np.array_equal(path, other):
        raise TimelineError(
            "difference: expected ends of the boot that wait for the same requests, "
            f"got {path.size} in a and {other.size} others in b"
        )
    return path


def _check_that_comparable(a: Timeline, b: Timeline) -> None:
    of_a, of_b = ((t.vm, t.boot, t.plan.disk_bytes) for t in (a, b))
    if of_a != of_b:
        raise TimelineError(f"difference: expected two restores of the same trace, got {a!r} and {b!r}")


def _check_requests(of_a: pl.DataFrame, of_b: pl.DataFrame) -> None:
    """Complain unless what was issued in both is the same, and something was."""
    both = of_a.join(of_b, on="request", suffix="_b")
    other = both.filter((pl.col("kind") != pl.col("kind_b")) | (pl.col("bytes") != pl.col("bytes_b")))
    if other.height:
        row = other.row(0, named=True)
        raise TimelineError(
            f"difference: expected two restores of the same trace, but request {row['request']} is "
            f"{row['kind']} of {row['bytes']} bytes in a, {row['kind_b']} of {row['bytes_b']} bytes in b"
        )
    if not both.drop_nulls(["wait_ns", "wait_ns_b"]).height:
        raise TimelineError("difference: expected requests that completed in both restores, got none")


def _time_to_boot(timeline: Timeline) -> int:
    launched, ended = (timeline.next_of_kind(kind, -1) for kind in ("launch_vm", "boot_done"))
    assert launched is not None
    assert ended is not None
    return int(timeline.times[ended] - timeline.times[launched])


def _totals(parts: Sequence[Sequence[int]], ends: Sequence[int]) -> pl.DataFrame:
    """Return the sums by part in each restore; what is no wait is think time."""
    of_a, of_b = ([*sums, end - sum(sums)] for sums, end in zip(parts, ends, strict=True))
    return pl.DataFrame(
        {"waited_for": [*WAITED_FOR, "think"], "a_ns": of_a, "b_ns": of_b},
        schema_overrides={"waited_for": pl.Enum([*WAITED_FOR, "think"])},
    ).with_columns(difference_ns=pl.col("b_ns") - pl.col("a_ns"))


def _requests(of_a: pl.DataFrame, of_b: pl.DataFrame, compared: npt.NDArray[np.bool_]) -> pl.DataFrame:
    columns: dict[str, pl.Series | npt.NDArray[np.bool_]] = {name: of_a[name] for name in _COMMON}
    columns["compared"] = compared
    for side, frame in (("a", of_a), ("b", of_b)):
        with_longest = frame.with_columns(waited_for=_longest_part(frame))
        columns |= {f"{side}_{name}": with_longest[name] for name in _OF_EACH}
    columns["difference_ns"] = of_b["wait_ns"] - of_a["wait_ns"]
    columns |= {name: of_b[name] - of_a[name] for name in _NS_OF_PART}
    return pl.DataFrame(columns, schema=_REQUESTS_SCHEMA)


def _longest_part(waits: pl.DataFrame) -> pl.Series:
    parts = waits.select(_NS_OF_PART).to_numpy()
    names = pl.Series(WAITED_FOR, dtype=pl.Enum(WAITED_FOR)).gather(parts.argmax(axis=1))
    return waits.select(pl.when(pl.col("wait_ns") > 0).then(names)).to_series()


def _seconds(ns: int) -> str:
    """Return a time with three digits that matter, in the unit that suits it."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if ns >= size:
            # three digits of more than 999.5 would be written with an exponent
            number = f"{ns / size:#.3g}" if ns < 999.5 * size else f"{ns / size:.0f}"
            return f"{number.rstrip('.')} {unit}"
    return f"{ns} ns"


def _name(requests: pl.DataFrame) -> str:
    """Return what requests these are, and the blocks of the first of them."""
    kinds = requests["kind"].cast(pl.String).unique().to_list()
    noun = kinds[0].removeprefix("vm_") if len(kinds) == 1 else "request"
    if requests.height > 1:
        noun += "es" if noun == "flush" else "s"
    ranges = requests.filter(pl.col("count") > 0).select("block", "count").unique(maintain_order=True).rows()
    told = ", ".join(_range(block, count) for block, count in ranges[:_RANGES_TOLD])
    such_as = ", such as" if len(ranges) > _RANGES_TOLD else ""
    blocks = f"{such_as} of {'block' if told.isdigit() else 'blocks'} {told}" if told else ""
    return f"{requests.height} {noun}{blocks}"


def _range(block: int, count: int) -> str:
    return f"{block}" if count == 1 else f"{block}–{block + count - 1}"
