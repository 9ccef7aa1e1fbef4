"""How long a newcomer waits: the package's import, and the first simulation of a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from runner import Row, compare

RUNS = 3
IMPORT = "import time; t = time.perf_counter(); import vmrestorekit; print(time.perf_counter() - t)"
FIRST_SIMULATION = """
import time
import vmrestorekit as vr
boot = vr.load_corpus()["bookworm-db"].boots[-1]
plan = vr.make_plan(vr.LastBootReplay().fit(boot), boot)
begin = time.perf_counter()
vr.simulate(boot, plan)
print(time.perf_counter() - begin)
"""


def seconds(program: str, cache: str) -> float:
    """Run a program in a fresh process, with numba's compiled code in that folder; it prints its seconds."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    return float(done.stdout)


def bench_startup() -> list[Row]:
    """Medians of fresh processes against the limits that the project has set itself, in seconds."""
    with tempfile.TemporaryDirectory() as warm:
        cold = []
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory() as empty:
                cold.append(seconds(FIRST_SIMULATION, empty))
        seconds(IMPORT, warm), seconds(FIRST_SIMULATION, warm)
        imports = sorted(seconds(IMPORT, warm) for _ in range(RUNS))
        first = sorted(seconds(FIRST_SIMULATION, warm) for _ in range(RUNS))
    middle = RUNS // 2
    return [
        compare("import of the package, s: the limit", imports[middle], 0.5, "<= 1"),
        compare("first simulation, nothing compiled yet, s: the limit", sorted(cold)[middle], 10, "<= 1"),
        compare("first simulation, compiled before, s: the limit", first[middle], 1.5, "<= 1"),
    ]
