"""How long learning and planning take: on the recorded corpus, one thread, against our own limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from runner import Row, compare

# processor time, which is that of the one thread, so that a busy machine spoils nothing
LEARN_AND_PLAN = """
import dataclasses, json, statistics, time
import vmrestorekit as vr
corpus = vr.load_corpus()
begin = time.process_time()
predictor = vr.LearnedPredictor().fit(corpus.without("bookworm-db"))
learned = time.process_time() - begin
first, *again = corpus["bookworm-db"].boots[-4:]
vr.make_plan(predictor, first)  # compiles
plans = []
for boot in again:
    manifests = boot.manifests  # reading them is no part of planning
    begin = time.process_time()
    vr.make_plan(predictor, manifests)
    plans.append(time.process_time() - begin)
    boot.drop_manifests()
print(json.dumps([learned, statistics.median(plans)]))
"""

# SYNTHETIC: a disk of 3 GiB, all of it stored, a twentieth of it with some chance; 5,000 reads so far
RERANK = """
import json, statistics, time
import numpy as np
import polars as pl
import vmrestorekit as vr
from vmrestorekit.predict.online import BootSoFar
manifest = vr.Manifest.synthetic(3 << 30)
drawn = np.random.default_rng(0)
blocks = manifest.blocks.height
chance = np.where(drawn.random(blocks) < 0.05, drawn.random(blocks), 0)
scores = pl.DataFrame({"probability": chance, "first_read_ns": drawn.random(blocks) * 3e10})
boot = BootSoFar([manifest], [scores])
at = np.sort(drawn.integers(0, 10**10, 5000))
boot.see(at, np.zeros_like(at), drawn.integers(0, blocks, at.size) * 4096, np.full_like(at, 4096))
took = []
for _ in range(7):
    begin = time.process_time()
    boot.rerank()
    took.append(time.process_time() - begin)
print(json.dumps(statistics.median(took)))
"""


def bench_predict() -> list[Row]:
    """Seconds to learn from all machines but one, and to plan a restore of that one, with a disk of 3 GiB."""
    learned, planned = measured(LEARN_AND_PLAN)
    return [
        compare("learning from the whole corpus, s: the limit", learned, 120, "<= 1"),
        compare("a plan for a disk of 3 GiB, s: the limit", planned, 2, "<= 1"),
    ]


def bench_rerank() -> list[Row]:
    """Seconds to put what is left of a disk of 3 GiB in a new order, in the middle of a boot."""
    return [compare("a new order while booting, 3 GiB, s: the limit", measured(RERANK), 0.1, "<= 1")]


def measured(program: str) -> Any:
    """Return what a program prints as JSON, run on one thread."""
    threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=os.environ | threads, capture_output=True, check=True, text=True)
    return json.loads(run.stdout)
