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

# SYNTHETIC: the disk of a recorded machine, and behind it 300,000 files up to 1 TiB, a quarter of it stored
LARGE_DISK = """
import json, resource, time
import numpy as np
import polars as pl
import vmrestorekit as vr
from vmrestorekit.traces.large_manifest import PIECE_BLOCKS, LargeManifest
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA
corpus = vr.load_corpus()
# what it has learned from does not matter here, how much it is asked does
predictor = vr.LearnedPredictor().fit(corpus.without("bookworm-db"))
machine = corpus["bookworm-db"].boots[-1].manifests[0]
tebibyte, files, a_file = 1 << 40, 300_000, 224
known = machine.files.height
more = pl.DataFrame(
    {
        "path": [f"/srv/share/folder{n // 500}/document{n}.bin" for n in range(files)],
        "size": np.full(files, a_file * 4096),
        "kind": "regular",
        "package": None,
    },
    schema=machine.files.schema,
)

def pieces():
    \"\"\"The recorded disk, filled up with zeros to the end of a piece; then pieces a quarter full.\"\"\"
    zeros = np.zeros(PIECE_BLOCKS - machine.blocks.height, np.uint64)
    rest = pl.DataFrame({"content": zeros, "file": None, "file_block": None}, schema=BLOCKS_SCHEMA)
    yield pl.concat([machine.blocks, rest])
    block = np.arange(PIECE_BLOCKS)
    for number in range(1, tebibyte // 4096 // PIECE_BLOCKS):
        used = block < PIECE_BLOCKS // 4
        at = (number - 1) * (PIECE_BLOCKS // 4) + block
        owned = used & (at < files * a_file)
        yield pl.DataFrame(
            {
                "content": np.where(used, at + (1 << 60), 0).astype(np.uint64),
                "file": (known + at // a_file).astype(np.int32),
                "file_block": (at % a_file).astype(np.int32),
            },
            schema=BLOCKS_SCHEMA,
        ).with_columns(pl.when(pl.Series(owned)).then(pl.col("file", "file_block")))

disk = LargeManifest(
    tebibyte, pl.concat([machine.files, more]), machine.partitions, pieces, machine.references
)
vr.make_plan(predictor, machine)  # compiles
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.process_time()
plan = vr.make_plan(predictor, disk)
took = time.process_time() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
assert plan.first_set.size
print(json.dumps([took, peak / 1e9]))
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


def bench_predict_large() -> list[Row]:
    """Seconds and memory to plan a restore of a machine with a disk of 1 TiB, memory that of all."""
    planned, gigabytes = measured(LARGE_DISK)
    return [
        compare("a plan for a disk of 1 TiB, s: the limit", planned, 60, "<= 1"),
        compare("a plan for a disk of 1 TiB, most memory, GB: the limit", gigabytes, 4, "<= 1"),
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
