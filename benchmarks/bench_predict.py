"""How long learning and planning take: on the recorded corpus, one thread, against our own limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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


def bench_predict() -> list[Row]:
    """Seconds to learn from all machines but one, and to plan a restore of that one, with a disk of 3 GiB."""
    threads = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    program = [sys.executable, "-c", LEARN_AND_PLAN]
    run = subprocess.run(program, env=os.environ | threads, capture_output=True, check=True, text=True)
    learned, planned = json.loads(run.stdout)
    return [
        compare("learning from the whole corpus, s: the limit", learned, 120, "<= 1"),
        compare("a plan for a disk of 3 GiB, s: the limit", planned, 2, "<= 1"),
    ]
