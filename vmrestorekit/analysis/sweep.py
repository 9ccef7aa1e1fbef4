"""Thousands of restores with one call: boots, plans, hardware and settings in every combination."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

import vmrestorekit
from vmrestorekit.analysis.cases import PlanSource, study_of
from vmrestorekit.analysis.rows import Rows, SweepError
from vmrestorekit.analysis.settings import known_setting, with_settings
from vmrestorekit.analysis.space import Between, Space
from vmrestorekit.analysis.study import Case, Study, row_schema, rows_of
from vmrestorekit.parallel import run_unordered
from vmrestorekit.plan import DEFAULT_BLOCK_BYTES
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.traces.corpus import Boot

__all__ = ["SweepError", "sweep"]

Progress = Callable[[int, int], None]
_MOST_CHECKED = 20_000  # combinations of settings
_MOST_AT_ONCE = 100  # rows of a piece of work: a second or three


def sweep(
    boots: Boot | Iterable[Boot],
    plans: PlanSource | Mapping[str, PlanSource] = None,
    hardware: Hardware | str | Sequence[Hardware | str] = "object_storage",
    settings: Mapping[str, Sequence[Any] | Between] | None = None,
    *,
    block_bytes: Sequence[int] = (DEFAULT_BLOCK_BYTES,),
    copies: Sequence[str] = ("full",),
    sample: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    n_jobs: int = 1,
    workers: str = "threads",
    cluster: str | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Simulate a restore for every combination of what is given, or for a sample of them.

    Parameters
    ----------
    boots : Boot or iterable of Boot
        Such as a machine's `boots`, or all of a corpus.
    plans : None, RestorePlan, BlockPredictor or callable, or a mapping of str to these
        None stages nothing. A fitted predictor makes a plan for each boot. A callable is given a boot and
        `block_bytes`, and returns a plan. A mapping gives them names, which the table shows.
    hardware : Hardware or str, or a sequence of these
        Or names of presets.
    settings : mapping of str to sequence or Between, optional
        What else is varied: names as in `vmrestorekit.analysis.settings.SETTINGS`, such as
        ``"plan.cache_bytes"`` or ``"hardware.backup_device.bandwidth"``; values as numbers, or as texts with
        a unit such as ``"64 MiB"``. They change each plan and hardware.
    block_bytes : sequence of int
        Sizes of a block of the read cache.
    copies : sequence of str
        Which backup copy of the machine is restored: ``"full"``, written in the order of the disks, or a
        recorded one (`vmrestorekit.backup.copy_layout.recorded_layouts`).
    sample : int, optional
        So many points of the space by Latin hypercube sampling; default: all combinations.
    seed : int
        Of the sample.
    out : path, optional
        A Parquet file. Rows are kept on the way, beside it; the same call goes on after an interruption and
        computes no row again as long as its boot, plan, settings and the code are the same.
    n_jobs : int
        How many workers, -1 for one on each processor.
    workers : {"threads", "processes"}
        Simulations run side by side on threads, since compiled code does not hold them up.
    cluster : str, optional
        Address of a Dask scheduler, whose workers then run the sweep. They need no files.
    progress : callable, optional
        Told how many rows are there, and how many there are to be. What it raises ends the sweep.

    Returns
    -------
    polars.DataFrame
        One row a restore, in the order of the space (the last axis changes fastest): `point`, what was
        varied, the figures of `vmrestorekit.restore.summary.SUMMARY_MEANING`, `error` (why there are none,
        null if there are), and where the row is from: `version`, `seed`, `data` (fingerprint of boot, plan
        and backup copy), `key`.

    Raises
    ------
    SweepError, SettingError
        If there is nothing to simulate, or a name or value is unknown.
    OSError
        If rows cannot be written; those before are kept.
    """
    varied = _known(settings or {})
    study, axes = study_of(
        *(boots, plans, hardware, block_bytes, copies), seed=seed, version=vmrestorekit.__version__
    )
    space = Space(axes | varied, sample, seed)
    _expect_possible({name: at for name, at in varied.items() if not isinstance(at, Between)}, study)
    schema = row_schema(list(space.axes))
    rows = Rows(Path(out) if out is not None else None, schema)
    points = [(number, space.point(number)) for number in range(len(space))]
    keys = [study.key(point) for _, point in points]
    todo = [each for each, key in zip(points, keys, strict=True) if key not in rows.keys]
    done = len(points) - len(todo)
    if progress:
        progress(done, len(points))
    results = run_unordered(
        rows_of,
        dict(enumerate(_pieces(todo, study))),
        n_jobs=n_jobs,
        workers=workers,
        cluster=cluster,
        shared=study.packed(),
    )
    for _, frame in results:
        rows.add(frame)
        done += frame.height
        if progress:
            progress(done, len(points))
    table = rows.joined(keys)
    rows.finish(table)
    return table


def _known(settings: Mapping[str, Sequence[Any] | Between]) -> dict[str, Sequence[Any] | Between]:
    """Return the axes of settings with their values as numbers."""
    known: dict[str, Sequence[Any] | Between] = {}
    for name, values in settings.items():
        if isinstance(values, Between):
            known_setting(name, values.at(0))
            known[name] = values
        elif isinstance(values, str) or not isinstance(values, Sequence):
            raise SweepError(f"{name}: expected a list of values, got {values!r}")
        else:
            known[name] = [known_setting(name, value) for value in values]
    return known


def _expect_possible(axes: Mapping[str, Sequence[Any]], study: Study) -> None:
    """Refuse a value that no plan and hardware could have, whatever else is set with it.

    Values that only do not go with some others are rows that say so.
    """
    case = next((case for case in study.cases.values() if isinstance(case, Case)), None)
    settings = Space(axes)
    if case is None or len(settings) > _MOST_CHECKED:
        return
    hardware = next(iter(study.hardware.values()))
    impossible = {(name, value): "" for name, values in axes.items() for value in values}
    for number in range(len(settings)):
        point = settings.point(number)
        try:
            with_settings(case.plan, hardware, point)
        except ValueError as error:
            for each in impossible.keys() & point.items():
                impossible[each] = str(error)
        else:
            for each in point.items():
                impossible.pop(each, None)
    for (name, value), reason in impossible.items():
        raise SweepError(f"{name} = {value!r}: {reason}")


def _pieces(
    todo: Sequence[tuple[int, Mapping[str, Any]]], study: Study
) -> Iterator[list[tuple[int, Mapping[str, Any]]]]:
    """Yield points in pieces, those of a case together: what the engine prepares of a boot is used again."""
    for _, same in itertools.groupby(todo, key=lambda each: id(study.case(each[1]))):
        left = list(same)
        for first in range(0, len(left), _MOST_AT_ONCE):
            yield left[first : first + _MOST_AT_ONCE]
