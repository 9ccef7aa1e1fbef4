"""How much of what boots read is the same: of a machine's boots, of two recordings of one, of machines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.working_set import (
    boot_blocks,
    find_blocks,
    first_touches,
    last_boots,
    until_boot_done,
)

__all__ = ["WAYS", "after_changes", "overlaps", "read_again", "repeatability"]

# what makes two blocks the same
_SAME = {"address": ["disk", "block"], "content": ["content"], "path": ["path", "file_block"]}
WAYS = tuple(_SAME)
_OTHERS = ("before", "nearest", "release", "elsewhere")
_READ_AGAIN_SCHEMA = pl.Schema(
    {
        "vm": pl.String(),
        "nearest": pl.String(),
        **{f"{other}_{way}": pl.Float64() for other in _OTHERS for way in WAYS},
    }
)
_REPEATABILITY_SCHEMA = pl.Schema(
    {
        "vm": pl.String(),
        "boot": pl.String(),
        "other": pl.String(),
        "kind": pl.String(),
        "same_blocks": pl.Float64(),
        "rank_correlation": pl.Float64(),
        "requests": pl.Int64(),
        "other_requests": pl.Int64(),
        "boot_s": pl.Float64(),
        "other_boot_s": pl.Float64(),
    }
)


def overlaps(machines: Mapping[str, RecordedVM]) -> pl.DataFrame:
    """Return how much of what a machine's last boot read another boot read, too.

    Compared with the last boot of each other machine, and with the machine's own boot before.

    Returns
    -------
    polars.DataFrame
        `vm`, `other` (with the name of the boot), and in percent of the blocks of `boot_blocks` those that
        the other boot read at the same `address`, with the same `content`, and at the same place of a file of
        the same `path`.
    """
    find_blocks(machines)
    found = _Shares(machines)
    rows = []
    for number, (name, machine) in enumerate(machines.items()):
        others = [column for column in range(len(machines)) if column != number]
        own = [found.before[name]] if name in found.before else []
        for column in [*own, *others]:
            other = found.boots[column]
            shares = {way: round(found.percent[way][number, column], 1) for way in WAYS}
            rows.append({"vm": machine.name, "other": f"{other.vm} {other.boot}", **shares})
    schema = {"vm": pl.String, "other": pl.String} | dict.fromkeys(WAYS, pl.Float64)
    return pl.DataFrame(rows, schema=schema)


def read_again(machines: Mapping[str, RecordedVM]) -> pl.DataFrame:
    """Return `overlaps` summed up, one row a machine: how much of its last boot's blocks others read, too.

    Returns
    -------
    polars.DataFrame
        `vm`; `nearest`, the machine of another lineage whose last boot read most of them at the same place of
        a file of the same path; and in percent, by ``_address``, ``_content`` and ``_path``: what the
        machine's own boot `before` read, the `nearest` machine, the median of the other machines of the same
        `release`, the median of machines of other releases (`elsewhere`). Null: there is no such machine.
    """
    find_blocks(machines)
    found = _Shares(machines)
    rows = []
    for number, (name, machine) in enumerate(machines.items()):
        others = {other: column for column, other in enumerate(machines) if other != name}
        alike = {other: machines[other].release == machine.release for other in others}
        strangers = [column for other, column in others.items() if machines[other].lineage != machine.lineage]
        nearest = max(strangers, key=lambda column: found.percent["path"][number, column], default=None)
        compared = {
            "before": [found.before[name]] if name in found.before else [],
            "nearest": [] if nearest is None else [nearest],
            "release": [column for other, column in others.items() if alike[other]],
            "elsewhere": [column for other, column in others.items() if not alike[other]],
        }
        medians = {
            f"{other}_{way}": round(float(np.median(found.percent[way][number, columns])), 1)
            for other, columns in compared.items()
            for way in WAYS
            if columns
        }
        rows.append({"vm": name, "nearest": None if nearest is None else found.boots[nearest].vm, **medians})
    return pl.DataFrame(rows, schema=_READ_AGAIN_SCHEMA)


def repeatability(machines: Mapping[str, RecordedVM], *, all_pairs: bool = False) -> pl.DataFrame:
    """Compare each recording that repeats a boot with it, and two boots in a row that both follow a shutdown.

    Everything until the boot was done.

    Parameters
    ----------
    machines : mapping of str to RecordedVM
    all_pairs : bool
        Whether all such pairs of boots are compared, or only the last one of each machine.

    Returns
    -------
    polars.DataFrame
        `vm`, `boot`, `other`, and `kind`: ``"recorded twice"`` or ``"after shutdowns"``; `same_blocks`:
        percent of the blocks (by address) read by either that both read; `rank_correlation`: Spearman's, of
        the order in which the common blocks were first read (null for fewer than two of them); `requests`
        and seconds to boot (`boot_s`, null without a mark) of each.
    """
    find_blocks(machines)
    rows = [
        _compared(boot, other, kind)
        for machine in machines.values()
        for boot, other, kind in _pairs_to_compare(machine, all_pairs)
    ]
    return pl.DataFrame(rows, schema=_REPEATABILITY_SCHEMA)


def _pairs_to_compare(machine: RecordedVM, all_pairs: bool) -> Iterator[tuple[Boot, Boot, str]]:
    for again in machine.repeats:
        yield machine.boot(again.repeats), again, "recorded twice"
    after_shutdowns = [
        (boot, following, "after shutdowns")
        for boot, following in itertools.pairwise(machine.boots)
        if boot.follows == following.follows == "shutdown"
    ]
    yield from after_shutdowns if all_pairs else after_shutdowns[-1:]


def _compared(boot: Boot, other: Boot, kind: str) -> dict[str, Any]:
    one, two = first_touches(boot), first_touches(other)
    both = one.join(two, on=_SAME["address"], suffix="_other")
    either = one.height + two.height - both.height
    return {
        "vm": boot.vm,
        "boot": boot.boot,
        "other": other.boot,
        "kind": kind,
        "same_blocks": round(100 * both.height / max(either, 1), 1),
        "rank_correlation": _spearman(both["touch"], both["touch_other"]),
        "requests": until_boot_done(boot).height,
        "other_requests": until_boot_done(other).height,
        "boot_s": _boot_seconds(boot),
        "other_boot_s": _boot_seconds(other),
    }


def _spearman(one: pl.Series, other: pl.Series) -> float | None:
    # no two blocks are touched at once: there are no ties
    return round(float(np.corrcoef(one.rank(), other.rank())[0, 1]), 3) if len(one) > 1 else None


def _boot_seconds(boot: Boot) -> float | None:
    done = boot.metadata.marks.get("boot_done_ns")
    return None if done is None else round(done / 1e9, 3)


class _Shares:
    """How much of the last boot of each machine each of these boots read, too, in one pass over all blocks.

    Attributes
    ----------
    boots : list of Boot
        The last boot of each machine, then the boot before it where there is one.
    before : dict of str to int
        Where in `boots` the boot before a machine's last one is.
    percent : dict of str to ndarray, shape (machines, boots)
        For each of `WAYS`.
    """

    def __init__(self, machines: Mapping[str, RecordedVM]) -> None:
        self.boots = list(last_boots(machines))
        self.before: dict[str, int] = {}
        for name, machine in machines.items():
            if len(machine.boots) > 1:
                self.before[name] = len(self.boots)
                self.boots.append(machine.boots[-2])
        self.percent = {way: _percent(self.boots, same)[: len(machines)] for way, same in _SAME.items()}


def _percent(boots: Sequence[Boot], same: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return in row i, column j: percent of the blocks of boot i that are among those of boot j."""
    frames = [boot_blocks(boot).select(same) for boot in boots]
    keyed = [frame.with_columns(row=pl.lit(row, pl.Int64)) for row, frame in enumerate(frames)]
    blocks = pl.concat(keyed).drop_nulls()
    numbers = blocks.select(same).unique().with_row_index("key")
    counted = blocks.join(numbers, on=same).group_by("row", "key").len()
    row, key, count = (counted[name].to_numpy() for name in ("row", "key", "len"))
    percent = np.zeros((len(boots), len(boots)))
    for column in range(len(boots)):
        there = np.zeros(numbers.height, bool)
        there[key[row == column]] = True
        percent[:, column] = np.bincount(row, count * there[key], len(boots))
    percent *= 100 / np.array([[max(frame.height, 1)] for frame in frames])
    return percent


def after_changes(machines: Mapping[str, RecordedVM]) -> pl.DataFrame:
    """Compare each boot with the one before, of the machines that were changed between two of them.

    Returns
    -------
    polars.DataFrame
        `vm`, `boot`, the boot `before`, what the boot `follows`, and in percent of its blocks (see
        `boot_blocks`) those that the boot before read, too: at the same `address`, with the same `content`,
        at the same place of a file of the same `path`.
    """
    rows = []
    for machine in machines.values():
        if any(boot.follows == "change" for boot in machine.boots[1:]):
            for before, boot in itertools.pairwise(machine.boots):
                if boot.follows in ("shutdown", "crash", "change"):
                    rows.append((machine.name, boot.boot, before.boot, boot.follows, *_shared(boot, before)))
    schema = dict.fromkeys(("vm", "boot", "before", "follows"), pl.String) | dict.fromkeys(WAYS, pl.Float64)
    return pl.DataFrame(rows, schema, orient="row")


def _shared(boot: Boot, before: Boot) -> list[float]:
    blocks, earlier = boot_blocks(boot), boot_blocks(before)
    return [
        round(100 * blocks.join(earlier, on=same, how="semi").height / max(blocks.height, 1), 1)
        for same in _SAME.values()
    ]
