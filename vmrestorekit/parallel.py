"""Pieces of work on threads, on processes or on a Dask cluster, all through joblib.

It does not matter where a piece runs, nor how often: so what a killed worker had under way is done again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["WORKERS", "ParallelError", "run_unordered"]

WORKERS = ("threads", "processes")
ATTEMPTS = 4  # of a set of processes of which one was killed

Packed = npt.NDArray[np.uint8]
Task = TypeVar("Task")
Result = TypeVar("Result")


class ParallelError(ValueError):
    """Workers that cannot be had; the message says what was expected and what came."""


def run_unordered(
    function: Callable[..., Result],
    tasks: Mapping[int, Task],
    *,
    n_jobs: int = 1,
    workers: str = "processes",
    cluster: str | None = None,
    shared: Packed | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield the number and the result of each task as it finishes.

    Parameters
    ----------
    function : callable
        Called with a task, and with `shared` if that is given. It has to be importable.
    tasks : mapping of int to object
    n_jobs : int
        How many workers, -1 for one on each processor. With one, and no cluster, everything runs here.
    workers : {"processes", "threads"}
    cluster : str, optional
        Address of a Dask scheduler; its workers run the tasks, however many they are.
    shared : ndarray of uint8, optional
        What all tasks need. It travels once a worker, not once a task: processes of this machine map the
        same memory, the workers of a cluster get it before the first task.

    Raises
    ------
    ParallelError
        If there are to be no workers, or Dask is wanted and not installed, or not reached; or workers are
        lost again and again. What was yielded before is good.
    """
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0:
        raise ParallelError(f"jobs: expected a number of workers, or -1 for all processors, got {n_jobs!r}")
    if workers not in WORKERS:
        raise ParallelError(f"workers: expected one of {', '.join(WORKERS)}, got {workers!r}")
    given = () if shared is None else (shared,)
    if n_jobs == 1 and cluster is None:
        yield from ((number, function(task, *given)) for number, task in tasks.items())
        return
    left, attempts = dict(tasks), ATTEMPTS
    while left:
        try:
            for number, result in _results(function, dict(left), n_jobs, workers, cluster, given):
                del left[number]
                yield number, result
        except _lost(cluster) as error:  # the rest is tried again
            attempts -= 1
            if not attempts:
                where = f"the cluster at {cluster}" if cluster else "processes of this machine"
                raise ParallelError(
                    f"workers: lost {where} {ATTEMPTS} times; the last time: {error or type(error).__name__}"
                ) from error


def _results(
    function: Callable[..., Any],
    tasks: Mapping[int, Any],
    n_jobs: int,
    workers: str,
    cluster: str | None,
    given: tuple[Packed, ...],
) -> Iterator[tuple[int, Any]]:
    import joblib

    with _backend(n_jobs, workers, cluster, given):
        # one at a time: a task takes a while, and its result is to be kept as soon as it is there
        parallel = joblib.Parallel(
            return_as="generator_unordered", batch_size=1, pre_dispatch="all", max_nbytes="1K"
        )
        calls = (joblib.delayed(_numbered)(function, number, task, *given) for number, task in tasks.items())
        results = parallel(calls)
        try:
            yield from results
        finally:
            # an interruption ends what is under way, too
            results.close()


def _numbered(function: Callable[..., Any], number: int, *arguments: Any) -> tuple[int, Any]:
    return number, function(*arguments)


@contextlib.contextmanager
def _backend(n_jobs: int, workers: str, cluster: str | None, given: tuple[Packed, ...]) -> Iterator[None]:
    import joblib

    if cluster is None:
        backend = {"threads": "threading", "processes": "loky"}[workers]
        with joblib.parallel_config(backend=backend, n_jobs=n_jobs):
            yield
        return
    try:
        from distributed import Client
    except ImportError:
        raise ParallelError(
            "cluster: expected the package 'distributed', found none; pip install 'vmrestorekit[cluster]'"
        ) from None
    try:
        client = Client(cluster, timeout=30, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ParallelError(f"cluster: expected a Dask scheduler at {cluster!r}: {error}") from error
    scattered = {"scatter": list(given)} if given else {}
    with client, joblib.parallel_config(backend="dask", client=client, n_jobs=-1, **scattered):
        yield


def _lost(cluster: str | None) -> tuple[type[BaseException], ...]:
    """Return what says that workers went away, as opposed to that a task failed."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    if cluster is None:
        return (TerminatedWorkerError,)
    from concurrent.futures import CancelledError

    try:
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError
    except ImportError:  # said by `_backend`
        return ()
    return CancelledError, KilledWorker, CommClosedError
