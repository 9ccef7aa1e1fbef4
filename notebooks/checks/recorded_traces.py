"""Notebook 07: how much a boot asks for, and how much of it in a row."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import numpy as np
import polars as pl

import vmrestorekit as vr
from checks import Verdict, hint, right, your_turn

_CLOSE_MB, _CLOSE_PERCENT = 0.06, 0.06  # what rounding to a tenth may do


@functools.lru_cache(maxsize=4)
def requests(seed: int = 1) -> tuple[pl.DataFrame, int]:
    """Return the requests of a recorded boot, and when it was done, in nanoseconds."""
    corpus = vr.load_corpus()
    boot = corpus[str(np.random.default_rng(seed).choice(list(corpus)))].boots[-1]
    return boot.trace.frame.with_columns(pl.col("op").cast(pl.String)), boot.metadata.marks["boot_done_ns"]


def check_reads(megabytes: Any, sequential_percent: Any, seed: int = 1) -> Verdict:
    """Check how many MB the reads of the boot ask for, and which share of them is sequential."""
    answers = {"MB": megabytes, "percent": sequential_percent}
    if any(answer is None or answer is ... for answer in answers.values()):
        return your_turn("Put two numbers in place of the dots: the MB, and the percentage.")
    for what, answer in answers.items():
        if isinstance(answer, bool) or not isinstance(answer, numbers.Real) or math.isnan(answer):
            return hint(f"A number of {what} is asked for, such as 12.3; this is {answer!r:.60}.")
    frame, done = requests(seed)
    right_mb, right_percent = _figures(frame, done)
    if abs(megabytes - right_mb) > _CLOSE_MB:
        return hint(f"The MB are not right: {_why_mb(frame, done, float(megabytes))}")
    if abs(sequential_percent - right_percent) > _CLOSE_PERCENT:
        return hint(
            f"The MB are right. The share is not: {_why_percent(frame, done, float(sequential_percent))}"
        )
    return right(
        f"{right_mb:.1f} MB, and {right_percent:.1f} % of the reads go on where the one before ended. The "
        "others are jumps, and on a tape or in object storage each is paid for."
    )


def _figures(frame: pl.DataFrame, until: float) -> tuple[float, float]:
    reads = frame.filter(pl.col("op") == "read", pl.col("issued_ns") <= until)
    return reads["length"].sum() / 1e6, 100 * _sequential(reads)


def _sequential(reads: pl.DataFrame, *, disk: bool = True) -> float:
    goes_on = pl.col("offset") == (pl.col("offset") + pl.col("length")).shift()
    if disk:
        goes_on &= pl.col("disk") == pl.col("disk").shift()
    return float(reads.select(goes_on.fill_null(False).mean()).item())


def _why_mb(frame: pl.DataFrame, done: int, given: float) -> str:
    all_until = frame.filter(pl.col("issued_ns") <= done)["length"].sum() / 1e6
    for wrong, why in {
        _figures(frame, math.inf)[0]: "these are all reads, also those after the boot was done.",
        all_until: "these are all requests, also writes.",
        _figures(frame, done)[0] * 1e6 / 2**20: "these are MiB of 2²⁰ bytes; here a MB has 10⁶.",
        _figures(frame, done)[0] * 1e6: "these are bytes.",
    }.items():
        if abs(given - wrong) <= _CLOSE_MB:
            return why
    return "filter the reads that were issued until `boot_done_ns`, and add up `length`."


def _why_percent(frame: pl.DataFrame, done: int, given: float) -> str:
    reads = frame.filter(pl.col("op") == "read", pl.col("issued_ns") <= done)
    until = frame.filter(pl.col("issued_ns") <= done)
    for wrong, why in {
        _sequential(reads): "this is a share between 0 and 1; percent are asked for.",
        100 - 100 * _sequential(reads): "these are the jumps; the others are asked for.",
        100 * _sequential(until): "among the requests there are writes, too; take only the reads.",
    }.items():
        if abs(given - wrong) <= _CLOSE_PERCENT:
            return why
    return (
        "compare `offset` with `offset + length` of the row before (`shift`), among the reads until the boot "
        "was done. (A null is not sequential.)"
    )
