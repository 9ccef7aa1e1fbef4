"""Find the benchmarks beside this file, run them, and keep the table in the README.

A module ``bench_*.py`` has functions ``bench_*`` without parameters, each of which returns rows made by
`compare`.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
BEGIN, END = "<!-- table: written by `vmrestorekit bench --write` -->", "<!-- end of table -->"

Row = dict[str, Any]


def benchmarks() -> dict[str, Callable[[], list[Row]]]:
    """Every benchmark by its name, which is that of its function without ``bench_``."""
    found = {}
    for path in sorted(HERE.glob("bench_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            if name.startswith("bench_") and callable(function) and function.__module__ == path.stem:
                found[name.removeprefix("bench_")] = function
    return found


def run(names: Sequence[str] = (), write: bool = False) -> list[Row]:
    """Run the benchmarks of these names, default all; on request put their rows into the README's table."""
    known = benchmarks()
    for name in names:
        if name not in known:
            raise ValueError(f"benchmark: expected one of {', '.join(known)}, got {name!r}")
    rows = [row for name in names or known for row in known[name]()]
    if write:
        write_table(rows)
    return rows


def compare(name: str, ours: float, peer: float, target: str) -> Row:
    """One row: two figures of one run, their ratio, and whether it meets a target such as ``>= 12``."""
    sign, _, limit = target.partition(" ")
    ratio = ours / peer
    met = {">=": ratio >= float(limit), "<=": ratio <= float(limit)}[sign]
    return {
        "name": name,
        "ours": float(f"{ours:.3g}"),
        "peer": float(f"{peer:.3g}"),
        "ratio": float(f"{ratio:.3g}"),
        "target": target,
        "met": met,
    }


def median_seconds(
    actions: dict[str, Callable[[], Callable[[], Any]]], repetitions: int = 5
) -> dict[str, float]:
    """Median time of each action; all are done once a repetition, so that what disturbs disturbs them alike.

    An action is prepared without being timed and returns what is timed.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repetitions):
        for name, prepare in actions.items():
            timed = prepare()
            begin = time.perf_counter()
            timed()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in times.items()}


def write_table(rows: list[Row]) -> None:
    """Put rows into the README's table, in place of those of the same name."""
    text = README.read_text("utf-8")
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    lines = {line.split("|")[1].strip(): line for line in table.strip().splitlines()[2:]}
    for row in rows:
        met = "yes" if row["met"] else "**no**"
        cells = [row["name"], row["ours"], row["peer"], row["ratio"], row["target"], met]
        lines[row["name"]] = f"| {' | '.join(str(cell) for cell in cells)} |"
    head = ["| name | ours | peer | ratio | target | met |", "| --- | --: | --: | --: | --: | --- |"]
    written = "\n".join([*head, *lines.values()])
    partial = README.with_name(README.name + ".partial")
    partial.write_text(f"{before}{BEGIN}\n\n{written}\n\n{END}{after}", "utf-8")
    os.replace(partial, README)
