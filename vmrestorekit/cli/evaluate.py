"""The command ``vmrestorekit evaluate``: predictors side by side."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from vmrestorekit.cli.shared import CorpusOption, JsonOption, nanoseconds_of, print_table, progress_of


def evaluate_command(
    corpus: CorpusOption = None,
    test: Annotated[
        Path | None, typer.Option(help="Learn from the whole corpus, test on the machines of this one.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="later, later_with_others, lineage, release, role, or all; may be repeated."),
    ] = None,
    predictor: Annotated[
        list[str] | None, typer.Option(help="The first is compared with the others; default: all.")
    ] = None,
    bandwidth: Annotated[
        list[float] | None, typer.Option(help="MB/s of the backup device; default: 2, 10, 25, 100, 250.")
    ] = None,
    head_start: Annotated[
        list[float] | None, typer.Option(help="Seconds of pre-staging before the launch; default: 0, 4.")
    ] = None,
    newest: Annotated[
        bool, typer.Option("--newest", help="Test only each machine's last boot after a shutdown, a crash.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write Parquet tables and report.md here.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Keep finished folds here; started again, it goes on with the rest.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; -1: one for each processor.")] = 1,
    cluster: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run it on.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Score predictors on boots that they have not seen: blocks found, time won, bytes wasted."""
    from vmrestorekit.predict.evaluation import SPLITS, Conditions, evaluate
    from vmrestorekit.predict.evaluation_report import summarise, write_report
    from vmrestorekit.traces.corpus import load_corpus

    if test and split:
        raise ValueError("--test: expected no --split beside it, since the test corpus is the split")
    defaults = Conditions()
    conditions = Conditions(
        bandwidths=tuple(_bytes_per_second(each) for each in bandwidth or ()) or defaults.bandwidths,
        head_starts_ns=tuple(nanoseconds_of("--head-start", each) for each in head_start or ())
        or defaults.head_starts_ns,
    )
    splits = SPLITS if not split or "all" in split else split
    with progress_of("evaluating", bytes_of=False) as progress:
        scores = evaluate(
            *(load_corpus(corpus), splits, predictor),
            test=load_corpus(test) if test else None,
            conditions=conditions,
            newest=newest,
            n_jobs=jobs,
            cluster=cluster,
            resume=resume,
            progress=progress,
        )
    report = summarise(scores, main=predictor[0] if predictor else None, seed=seed)
    if out:
        write_report(scores, report, out, command=" ".join(["vmrestorekit", *sys.argv[1:]]))
    if as_json:
        print(json.dumps(report.as_record(), indent=2))
    else:
        for title, rows in report.tables.items():
            print_table(rows, as_json, title=title)


def _bytes_per_second(megabytes: float) -> int:
    if not math.isfinite(megabytes):
        raise ValueError(f"--bandwidth: expected a number of MB/s, got {megabytes}")
    return round(megabytes * 1e6)
