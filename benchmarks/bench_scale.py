"""How the engine grows: a parameter changed, one large disk, a storm of restores; each against a limit."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time

import numpy as np
from runner import Row, compare

import vmrestorekit as vr
from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import RelocationStart
from vmrestorekit.restore.storm import MediaAgents, Restore, simulate_storm

BLOCK_BYTES = 65536
SIZES_GIB = (1, 16, 256, 1024)
RUNS = 3
MACHINES, AGENTS = 200, 2

# SYNTHETIC: a recorded boot on a disk of another size, all of which is stored, in order
LARGE_DISK = """
import dataclasses, json, resource, sys, time
import numpy as np
import polars as pl
import vmrestorekit as vr
from vmrestorekit.restore.hardware import MEDIA
from vmrestorekit.restore.simulate import simulate_trace, warmup
size = int(sys.argv[1]) << 30
boot = vr.load_corpus()["bookworm-web"].boots[-1]
frame = boot.trace.frame.filter(pl.col("offset") + pl.col("length") <= size)
trace = vr.ReadTrace(frame, dataclasses.replace(boot.trace.metadata, disk_bytes=(size,)))
plan = vr.RestorePlan((size,), relocation_depth=4)
address = np.arange(plan.blocks) * plan.block_bytes
warmup()
begin = time.perf_counter()
summary = simulate_trace(trace, plan, MEDIA["disk_library"], address, detail="runs").summary()
seconds = time.perf_counter() - begin
assert summary["relocated_bytes"] == size and summary["released_ns"]
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9]))
"""


def last_boots() -> list[vr.Boot]:
    """Return the last recorded boot of each machine of the corpus."""
    corpus = vr.load_corpus()
    return [corpus[name].boots[-1] for name in corpus]


def bench_parameter() -> list[Row]:
    """Seconds until a recorded boot with another parameter has a new timeline; the slowest boot counts."""
    taken = []
    for boot in last_boots():
        plan = vr.make_plan(vr.LastBootReplay().fit(boot), boot)
        vr.simulate(boot, plan, "disk_library")
        times = []
        for megabytes in range(20, 240, 20):
            changed = plan.replace(cache_bytes=megabytes << 20, priorities="strict")
            begin = time.perf_counter()
            vr.simulate(boot, changed, "disk_library")
            times.append(time.perf_counter() - begin)
        taken.append(statistics.median(times))
    return [compare("new timeline of a recorded boot after a change, s: the limit", max(taken), 0.1, "<= 1")]


def large_disk(size_gib: int) -> tuple[float, float]:
    """Return the seconds and the gigabytes of one process."""
    program = [sys.executable, "-c", LARGE_DISK, str(size_gib)]
    run = subprocess.run(program, capture_output=True, check=True, text=True)
    seconds, gigabytes = json.loads(run.stdout)
    return seconds, gigabytes


def bench_large_disk() -> list[Row]:
    """Seconds and gigabytes of a restore with every block relocated: medians of fresh processes."""
    rows = []
    for size in SIZES_GIB:
        runs = [large_disk(size) for _ in range(RUNS)]
        seconds, gigabytes = (statistics.median(figures) for figures in zip(*runs, strict=True))
        what = f"disk of {size:,} GiB relocated in full"
        rows.append(compare(f"{what}, s: the limit of a TiB", seconds, 10, "<= 1"))
        rows.append(compare(f"{what}, peak memory in GB: the limit of a TiB", gigabytes, 4, "<= 1"))
    return rows


def bench_storm() -> list[Row]:
    """Seconds for 200 restores of the recorded boots through two media agents and one backup device."""
    boots = last_boots()
    start = RelocationStart("delay", delay_ns=30_000_000_000)
    plans = [vr.make_plan(vr.LastBootReplay().fit(boot), boot, relocation_start=start) for boot in boots]
    plans = [dataclasses.replace(plan, cache_bytes=4 << 30) for plan in plans]
    layouts = [BackupLayout.full(boot.manifests, BLOCK_BYTES) for boot in boots]
    restores, end = [], 0
    for machine in range(MACHINES):
        which = machine % len(boots)
        address = layouts[which].address
        restores.append(Restore(boots[which].trace, plans[which], np.where(address < 0, -1, address + end)))
        end += int(address.max()) + BLOCK_BYTES
    begin = time.perf_counter()
    storm = simulate_storm(restores, MediaAgents(AGENTS), "disk_library")
    seconds = time.perf_counter() - begin
    assert storm.machines["released_ns"].null_count() == 0
    return [
        compare(f"storm of {MACHINES} machines, {AGENTS} media agents, s: the limit", seconds, 30, "<= 1")
    ]
