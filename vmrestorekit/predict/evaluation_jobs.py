"""The work of an evaluation, in pieces that run here, in other processes or on other machines, and are kept.

A piece is one predictor fitted on one fold, or one boot with the plans that bound every prediction. It does
not matter where a piece runs, nor how often: its scores are the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from vmrestorekit.parallel import run_unordered
from vmrestorekit.plan import RestorePlan
from vmrestorekit.predict.contenders import Factory
from vmrestorekit.predict.evaluation_loop import Conditions, loop_scores, reference_scores
from vmrestorekit.predict.intervals import SCORES_OF_BOOTS_SCHEMA
from vmrestorekit.predict.metrics import ceiling_scores, fetched_scores, ranking_scores, service_scores
from vmrestorekit.predict.ordering import StagingDevice
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.source_digest import source_digest
from vmrestorekit.predict.splits import Fold
from vmrestorekit.traces.corpus import Boot, load_corpus
from vmrestorekit.traces.schema import write_parquet_atomically

__all__ = ["BOOT_BEFORE", "COSTS", "Job", "PredictorJob", "ReferenceJob", "run_jobs"]

BOOT_BEFORE = "boot_before"  # "predictor" of the ceiling: the machine's own boot before
COSTS = ("fit_s", "score_s")  # the only scores that are not the same each time

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class PredictorJob:
    """One predictor, fitted on a fold and asked of its test boots.

    Attributes
    ----------
    fold : Fold
    predictor : str
        Its name.
    factory : callable
        Makes one that is not fitted.
    conditions : Conditions
    budgets : tuple of float
    """

    fold: Fold
    predictor: str
    factory: Factory
    conditions: Conditions
    budgets: tuple[float, ...]

    def run(self) -> pl.DataFrame:
        """Return the scores, `SCORES_OF_BOOTS_SCHEMA`."""
        fold = _here(self.fold)
        predictor, started = self.factory(), time.perf_counter()
        predictor.fit(fold.train)
        costs = {"fit_s": time.perf_counter() - started}
        rows: list[tuple[Any, ...]] = []
        for boot in fold.test:
            manifests = boot.manifests  # read before the clock starts
            started = time.perf_counter()
            for disk, manifest in enumerate(manifests):
                predictor.score_blocks(manifest, disk)
            costs["score_s"] = (time.perf_counter() - started) / len(manifests)
            make = functools.partial(
                make_plan, predictor, manifests, mode="live_mount", block_bytes=self.conditions.block_bytes
            )
            plan = make()
            plan_for = (
                functools.partial(_plan_for, make) if predictor.calibrated else lambda _, same=plan: same
            )
            scores = ranking_scores(predictor, boot, self.budgets)
            scores |= service_scores(predictor, boot, self.budgets) | fetched_scores(plan, boot)
            scores |= loop_scores(boot, plan_for, self.conditions) | costs
            name = (fold.split, fold.name, boot.vm, boot.boot, self.predictor)
            rows += [(*name, metric, value) for metric, value in scores.items()]
            boot.drop_manifests()
        return pl.DataFrame(rows, schema=SCORES_OF_BOOTS_SCHEMA, orient="row")

    def label(self) -> str:
        """Return what a person calls it."""
        return f"{self.fold.split} {self.fold.name} {self.predictor}"

    def identity(self) -> str:
        """Return a text that differs if the scores could."""
        made = self.factory()
        return json.dumps(
            [
                *(self.fold.split, self.fold.name, self.predictor, f"{type(made).__module__} {made!r}"),
                sorted((name, repr(value)) for name, value in made.get_params().items()),
                [[_identity_of(boot) for boot in boots] for boots in (self.fold.train, self.fold.test)],
                *(dataclasses.asdict(self.conditions), self.budgets),
                [source_digest(module) for module in (type(made).__module__, __name__)],
            ]
        )


def _plan_for(make: Callable[..., RestorePlan], device: StagingDevice) -> RestorePlan:
    return make(device=device)


@dataclasses.dataclass(frozen=True)
class ReferenceJob:
    """One boot with the plans that need no predictor, and what the boot before tells of it.

    Attributes
    ----------
    before : Boot, optional
        The machine's boot before.
    boot : Boot
    conditions : Conditions
    """

    before: Boot | None
    boot: Boot
    conditions: Conditions

    def run(self) -> pl.DataFrame:
        """Return the scores, `SCORES_OF_BOOTS_SCHEMA`, without a split."""
        boot = _boot_here(self.boot)
        scores = reference_scores(boot, self.conditions)
        if self.before is not None:
            scores[BOOT_BEFORE] = ceiling_scores(_boot_here(self.before), boot)
        rows = [
            ("", "", boot.vm, boot.boot, reference, metric, value)
            for reference, found in scores.items()
            for metric, value in found.items()
        ]
        boot.drop_manifests()
        return pl.DataFrame(rows, schema=SCORES_OF_BOOTS_SCHEMA, orient="row")

    def label(self) -> str:
        """Return what a person calls it."""
        return f"bounds {self.boot.vm} {self.boot.boot}"

    def identity(self) -> str:
        """Return a text that differs if the scores could."""
        boots = [boot and _identity_of(boot) for boot in (self.before, self.boot)]
        return json.dumps([boots, dataclasses.asdict(self.conditions), source_digest(__name__)])


Job = PredictorJob | ReferenceJob

# --- running ------------------------------------------------------------------------------------------


def run_jobs(
    jobs: Sequence[Job],
    *,
    n_jobs: int = 1,
    cluster: str | None = None,
    resume: Path | None = None,
    progress: Progress | None = None,
) -> list[pl.DataFrame]:
    """Run pieces of work, and return their scores in the order of the pieces.

    Parameters
    ----------
    jobs : sequence of Job
    n_jobs : int
        How many processes of this machine, -1 for as many as it has processors.
    cluster : str, optional
        Address of a Dask scheduler; its workers run the pieces. They have to see the corpus under the same
        path.
    resume : Path, optional
        Directory in which the scores of each finished piece are kept; what is there is not computed again, as
        long as boots, settings, the predictor's parameters and the code that it runs are the same.
    progress : callable, optional
        Told how many pieces are finished, and how many there are.

    Raises
    ------
    PredictError
        If a predictor cannot be fitted or asked; or Dask is wanted and not installed, or not reached.
    """
    files = [resume / _file_name(job) if resume else None for job in jobs]
    finished = {number: pl.read_parquet(file) for number, file in enumerate(files) if file and file.is_file()}
    alone = n_jobs == 1 and cluster is None
    left = {
        number: job if alone else _packed(job) for number, job in enumerate(jobs) if number not in finished
    }
    for number, scores in run_unordered(_run, left, n_jobs=n_jobs, cluster=cluster):
        if (file := files[number]) is not None:
            write_parquet_atomically(scores, file)
        finished[number] = scores
        if progress:
            progress(len(finished), len(jobs))
    return [finished[number] for number in range(len(jobs))]


def _run(job: Job) -> pl.DataFrame:
    return job.run()


# --- boots in other processes -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _StoredBoot:
    """A boot by its place, which is little to send; what was read of it is not sent along."""

    corpus: str
    vm: str
    boot: str


def _packed(job: Job) -> Job:
    """Return the same piece without the contents of boots that are stored."""
    if isinstance(job, ReferenceJob):
        before = None if job.before is None else _pack(job.before)
        return dataclasses.replace(job, before=before, boot=_pack(job.boot))
    train, test = (tuple(map(_pack, boots)) for boots in (job.fold.train, job.fold.test))
    return dataclasses.replace(job, fold=dataclasses.replace(job.fold, train=train, test=test))


def _pack(boot: Boot) -> Any:
    if boot.path is None:
        return boot
    return _StoredBoot(str(boot.path.resolve().parents[1]), boot.vm, boot.boot)


def _here(fold: Fold) -> Fold:
    train, test = (tuple(map(_boot_here, boots)) for boots in (fold.train, fold.test))
    return dataclasses.replace(fold, train=train, test=test)


def _boot_here(boot: Any) -> Boot:
    if isinstance(boot, _StoredBoot):
        return _corpus(boot.corpus)[boot.vm].boot(boot.boot)
    assert isinstance(boot, Boot)
    return boot


# each process reads a corpus once
_corpus = functools.lru_cache(maxsize=4)(load_corpus)

# --- what finished pieces are known by ----------------------------------------------------------------


def _file_name(job: Job) -> str:
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", job.label())[:120]
    return f"{label}-{hashlib.blake2b(job.identity().encode(), digest_size=10).hexdigest()}.parquet"


@functools.lru_cache(maxsize=4096)
def _identity_of(boot: Boot) -> str:
    digest = hashlib.blake2b(digest_size=16)
    if boot.path is None:
        frames = [boot.trace.frame, *(manifest.blocks for manifest in boot.manifests)]
        parts: Iterable[bytes] = (frame.hash_rows(seed=0).to_numpy().tobytes() for frame in frames)
        parts = [boot.metadata.to_json().encode(), *parts]
    else:
        parts = (file.read_bytes() for file in sorted(boot.path.glob("*.parquet")))
    for part in parts:
        digest.update(part)
    return f"{boot.vm} {boot.boot} {digest.hexdigest()}"
