"""Analysis at scale: a sweep of ten thousand restores, from one worker to two."""

from __future__ import annotations

import time

from runner import Row, compare

import vmrestorekit as vr
from vmrestorekit.restore.simulate import warmup

SETTINGS = {
    "plan.mode": ["instant_restore", "live_mount"],
    "plan.cache_bytes": ["32 MiB", "64 MiB", "128 MiB", "256 MiB"],
    "plan.relocation_start.delay_ns": ["0 s", "30 s"],
    "hardware.link.bandwidth": ["50 MB/s", "125 MB/s", "250 MB/s", "500 MB/s", "1000 MB/s"],
}
MEDIA = ["object_storage", "disk_library", "flash"]
LIMIT_S, LEAST_RESTORES = 300, 10_000


def bench_sweep() -> list[Row]:
    """Ten thousand restores of recorded boots; and a part of them with one thread and with two."""
    corpus = vr.load_corpus()

    def as_at_the_last_boot(boot: vr.Boot, block_bytes: int) -> vr.RestorePlan:
        before = corpus[boot.vm].boots[-2]
        return vr.make_plan(vr.LastBootReplay().fit([before]), boot, block_bytes=block_bytes)

    plans = {"none": None, "last_boot": as_at_the_last_boot}
    boots = [machine.boots[-1] for machine in corpus.values()]
    warmup()
    whole, restores = _seconds(boots, plans, n_jobs=2)
    assert restores >= LEAST_RESTORES
    some = boots[:4]
    _seconds(some, plans, n_jobs=1)  # what is read from files once does not count
    (one, _), (two, _) = (_seconds(some, plans, n_jobs=jobs) for jobs in (1, 2))
    return [
        compare(f"sweep of {restores:,} restores, two threads, s: the limit", whole, LIMIT_S, "<= 1"),
        compare("sweep, efficiency of two threads: of one", one / 2, two, ">= 0.5"),
    ]


def _seconds(boots: list[vr.Boot], plans: dict[str, object], n_jobs: int) -> tuple[float, int]:
    begin = time.perf_counter()
    table = vr.sweep(boots, plans, MEDIA, SETTINGS, n_jobs=n_jobs)
    assert not table["error"].count()
    return time.perf_counter() - begin, table.height
