"""Tables of an evaluation for people: what was found, who was better, and what was aimed at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from vmrestorekit.predict.evaluation import BOOT_BEFORE, REFERENCES
from vmrestorekit.predict.evaluation_loop import LAZY, ORACLE
from vmrestorekit.predict.intervals import mean_of_machines, paired_differences
from vmrestorekit.traces.schema import write_parquet_atomically

__all__ = ["HEADLINES", "TARGETS", "Report", "Target", "markdown", "summarise", "write_report"]

Row = dict[str, Any]

MAIN_CONDITION = "25MB/s,4s"
MAIN_GAP = f"gap_closed@{MAIN_CONDITION}"
UNSEEN = ("lineage", "release", "role", "transfer")
HEADLINES = ("average_precision", "recall@1.25", "fetched_recall")  # compared in pairs, and all gaps closed
BOUNDS = ("oracle_order", "oracle_set", "oracle_all")

# column -> (metric, divisor); what there is in four digits
_ACCURACY = {
    "average precision": ("average_precision", 1),
    "recall 1×": ("recall@1", 1),
    "recall 1.25×": ("recall@1.25", 1),
    "recall 2×": ("recall@2", 1),
    "precision 1.25×": ("precision@1.25", 1),
    "Brier": ("brier", 1),
    "fetched MB": ("fetched_bytes", 1e6),
    "of reads fetched": ("fetched_recall", 1),
    "fetched unread": ("unread_share", 1),
    "service recall 1.25×": ("service_recall@1.25", 1),
    "fit s": ("fit_s", 1),
    "disk s": ("score_s", 1),
}
_TIMES = {
    "time to boot s": ("time_to_boot_s", 1),
    "stall s": ("stall_s", 1),
    "read MB": ("media_bytes", 1e6),
    "wasted MB": ("wasted_bytes", 1e6),
    "late": ("late_share", 1),
    "wait P50 ms": ("wait_p50_s", 1e-3),
    "wait P99 ms": ("wait_p99_s", 1e-3),
    "wait max ms": ("wait_max_s", 1e-3),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """What was aimed at: a statistic of a predictor's metric in a split, at least or at most so much."""

    split: str
    metric: str
    statistic: str
    least: float
    predictor: str = "learned"


TARGETS = (
    Target("lineage", "average_precision", "mean", 0.95),
    Target("lineage", "recall@1.25", "mean", 0.95),
    Target("lineage", "recall@1.25", "least", 0.85),
    Target("release", "recall@1.25", "mean", 0.92),
    Target("role", "recall@1.25", "mean", 0.90),
    Target("lineage", MAIN_GAP, "mean", 0.90),
    Target("later_with_others", MAIN_GAP, "mean", 0.98),
)
NOT_WORSE_BY = 0.01  # than the replay of the last boot, where there is one


@dataclasses.dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes
    ----------
    means : polars.DataFrame
        `MEANS_SCHEMA`.
    differences : polars.DataFrame
        `DIFFERENCES_SCHEMA`, of average precision, recall, and all gaps closed.
    tables : dict of str to list
        For people, by their titles; the rows of each have equal keys.
    """

    means: pl.DataFrame
    differences: pl.DataFrame
    tables: dict[str, list[Row]]

    def as_record(self) -> Row:
        """Return it as plain data."""
        return {
            "means": self.means.to_dicts(),
            "differences": self.differences.to_dicts(),
            "targets": self.tables.get("targets", []),
        }


def summarise(scores: pl.DataFrame, main: str | None = None, seed: int = 0) -> Report:
    """Return means over machines, differences between predictors, and tables for people.

    Parameters
    ----------
    scores : polars.DataFrame
        What `evaluate` returned.
    main : str, optional
        The predictor that a table compares with all others; default: ``learned``, or the best by recall.
    seed : int
        Of the bootstrap.
    """
    means = mean_of_machines(scores, seed)
    gaps = means.filter(pl.col("metric").str.starts_with("gap_closed@"))["metric"].unique(maintain_order=True)
    differences = paired_differences(scores, [*HEADLINES, *gaps], seed)
    if main is None and "learned" in means["predictor"]:
        main = "learned"
    return Report(means, differences, _tables(means, differences, main))


def write_report(scores: pl.DataFrame, report: Report, directory: Path, command: str) -> None:
    """Write ``scores.parquet``, ``means.parquet``, ``differences.parquet``, and ``report.md`` for people."""
    directory.mkdir(parents=True, exist_ok=True)
    frames = {"scores": scores, "means": report.means, "differences": report.differences}
    for name, frame in frames.items():
        write_parquet_atomically(frame, directory / f"{name}.parquet")
    (directory / "report.md").write_text(markdown(report.tables, command), encoding="utf-8")


def _tables(means: pl.DataFrame, differences: pl.DataFrame, main: str | None) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for split in means["split"].unique(maintain_order=True):
        of_split = means.filter(pl.col("split") == split)
        value = {(row["predictor"], row["metric"]): row for row in of_split.iter_rows(named=True)}
        names = _in_order(of_split)
        machines = int(of_split["vms"].to_numpy().max())
        found[f"{split}: blocks, mean of {machines} machines"] = _accuracy(value, names)
        found[f"{split}: share of the gap from lazy to {ORACLE} closed, by bandwidth and head start"] = _gaps(
            value, names
        )
        condition = _main_condition(of_split)
        if condition:
            found[f"{split}: restores at {condition}"] = [
                {"predictor": name} | _cells(value, name, _TIMES, f"@{condition}")
                for name in names
                if name != BOOT_BEFORE
            ]
        chosen = main or next((name for name in names if name not in (*REFERENCES, BOOT_BEFORE)), "")
        found[f"{split}: {chosen} minus others, 95 % interval"] = _compared(differences, split, chosen)
    found["targets"] = _target_rows(means, differences)
    return {title: rows for title, rows in found.items() if rows}


def _in_order(means: pl.DataFrame) -> list[str]:
    """Return predictors first, by their recall, then what needs none."""
    there = means["predictor"].unique(maintain_order=True).to_list()
    recalls = means.filter(pl.col("metric") == "recall@1.25").sort("mean", descending=True)
    predictors = [*recalls["predictor"], *there]
    bounds = (*REFERENCES, BOOT_BEFORE)
    first = [name for name in dict.fromkeys(predictors) if name not in bounds]
    return first + [name for name in bounds if name in there]


_Values = Mapping[tuple[str, str], Row]


def _number(row: Row | None, divisor: float, statistic: str = "mean") -> float | None:
    return None if row is None else float(f"{row[statistic] / divisor:.4g}")


def _cells(value: _Values, name: str, columns: Mapping[str, tuple[str, float]], suffix: str = "") -> Row:
    return {
        title: _number(value.get((name, metric + suffix)), divisor)
        for title, (metric, divisor) in columns.items()
    }


def _accuracy(value: _Values, names: Iterable[str]) -> list[Row]:
    rows = []
    for name in names:
        if (name, "average_precision") in value:
            row = {"predictor": name} | _cells(value, name, _ACCURACY)
            rows.append(row | {"recall 1.25×, lowest": _number(value.get((name, "recall@1.25")), 1, "least")})
    before = value.get((BOOT_BEFORE, "recall"))
    if before is not None and rows:
        empty: Row = dict.fromkeys(rows[0])
        ceiling = {"predictor": "the boot before", "recall 1×": _number(before, 1)}
        rows.append(empty | ceiling)
    # columns that nobody has are left out
    return [{key: row[key] for key in row if any(other[key] is not None for other in rows)} for row in rows]


def _gaps(value: _Values, names: Iterable[str]) -> list[Row]:
    """Return who closes how much; first the gap itself, as a share of the lazy time to boot."""
    shares = [metric for name, metric in value if metric.startswith("gap_share@")]
    conditions = sorted((metric.removeprefix("gap_share@") for metric in shares), key=_by_size)
    gap: Row = {"predictor": f"(gap, of {LAZY})"}
    gap |= {each: _number(value.get((ORACLE, f"gap_share@{each}")), 1) for each in conditions}
    rows = [gap] if conditions else []
    for name in names:
        if name not in (LAZY, BOOT_BEFORE, ORACLE):
            closed = {each: value.get((name, f"gap_closed@{each}")) for each in conditions}
            rows.append({"predictor": name} | {each: _with_interval(row) for each, row in closed.items()})
    return rows


def _by_size(condition: str) -> tuple[float, float]:
    bandwidth, _, head_start = condition.partition("MB/s,")
    return float(bandwidth), float(head_start.removesuffix("s"))


def _with_interval(row: Row | None) -> str | None:
    return None if row is None else f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _main_condition(means: pl.DataFrame) -> str | None:
    prefix = "time_to_boot_s@"
    metrics = means.filter(pl.col("metric").str.starts_with(prefix))["metric"].unique(maintain_order=True)
    conditions = sorted((metric.removeprefix(prefix) for metric in metrics), key=_by_size)
    return MAIN_CONDITION if MAIN_CONDITION in conditions else next(iter(conditions), None)


def _compared(differences: pl.DataFrame, split: str, main: str) -> list[Row]:
    chosen = differences.filter(pl.col("split") == split, pl.col("predictor") == main)
    metrics = [metric for metric in (*HEADLINES, MAIN_GAP) if metric in set(chosen["metric"])]
    return [
        {"against": against}
        | {
            metric: _with_interval(
                next(iter(of_pair.filter(pl.col("metric") == metric).iter_rows(named=True)), None)
            )
            for metric in metrics
        }
        for (against,), of_pair in chosen.group_by("against", maintain_order=True)
    ]


def _target_rows(means: pl.DataFrame, differences: pl.DataFrame) -> list[Row]:
    """Return what was aimed at and what was measured; only of what was evaluated."""
    rows = []
    for target in TARGETS:
        found = means.filter(
            pl.col("split") == target.split,
            pl.col("metric") == target.metric,
            pl.col("predictor") == target.predictor,
        )
        if found.height:
            what = f"{target.metric}, {target.statistic}"
            rows.append(_target(target.split, what, target.least, float(found[target.statistic][0])))
    ours = differences.filter(pl.col("predictor") == "learned", pl.col("metric") == MAIN_GAP)
    last = ours.filter(pl.col("split") == "later_with_others", pl.col("against") == "last_boot")
    if last.height:
        rows.append(
            _target("later_with_others", f"{MAIN_GAP}, minus last_boot", -NOT_WORSE_BY, last["mean"][0])
        )
    for split in UNSEEN:
        rivals = ours.filter(
            pl.col("split") == split, ~pl.col("against").is_in([*BOUNDS, LAZY, BOOT_BEFORE])
        ).sort("low")
        if rivals.height:
            what = f"{MAIN_GAP}, minus {rivals['against'][0]} (its strongest rival), low end of the interval"
            rows.append(_target(split, what, 0.0, rivals["low"][0], strictly=True))
    return rows


def _target(split: str, what: str, least: float, measured: float, strictly: bool = False) -> Row:
    met = measured > least if strictly else measured >= least
    sign = ">" if strictly else "≥"
    return {
        "split": split,
        "of the learned predictor": what,
        "target": f"{sign} {least:g}",
        "measured": round(measured, 4),
        "met": "yes" if met else "no",
    }


def markdown(titled: Mapping[str, list[Row]], command: str) -> str:
    """Return the tables as Markdown, with the command that made them."""
    lines = ["# Evaluation of predictors", "", f"    {command}", ""]
    for title, rows in titled.items():
        columns = list(rows[0])
        lines += [
            f"## {title}",
            "",
            f"| {' | '.join(columns)} |",
            f"| {' | '.join('---' for _ in columns)} |",
        ]
        for row in rows:
            cells = ("" if value is None else str(value) for value in row.values())
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
