"""The command ``vmrestorekit sweep``: thousands of restores, as a file describes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmrestorekit.cli.shared import CorpusOption, JsonOption, print_table, progress_of

if TYPE_CHECKING:
    from vmrestorekit.analysis.cases import PlanSource
    from vmrestorekit.plan import RestorePlan
    from vmrestorekit.traces.corpus import Boot, Corpus


def sweep_command(
    file: Annotated[Path, typer.Argument(help="What to simulate, as TOML; see docs/sweep.md.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The table, as Parquet; default: beside the file. Goes on after a cut."
        ),
    ] = None,
    corpus: CorpusOption = None,
    jobs: Annotated[int, typer.Option(help="Workers; -1: one for each processor.")] = 1,
    workers: Annotated[str, typer.Option(help="threads or processes.")] = "threads",
    cluster: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to run it on.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate every combination that a file describes, and write one row a restore."""
    from vmrestorekit.analysis.sweep import sweep
    from vmrestorekit.analysis.sweep_file import boots_named, read_sweep_file
    from vmrestorekit.traces.corpus import load_corpus

    wanted = read_sweep_file(file)
    recorded = load_corpus(corpus)
    out = output or file.with_suffix(".parquet")
    with progress_of("simulating", bytes_of=False) as progress:
        table = sweep(
            boots_named(wanted.boots, recorded),
            {name: plan_source(name, recorded) for name in wanted.plans},
            wanted.hardware,
            wanted.settings,
            block_bytes=wanted.block_bytes,
            copies=wanted.copies,
            sample=wanted.sample,
            seed=wanted.seed,
            out=out,
            n_jobs=jobs,
            workers=workers,
            cluster=cluster,
            progress=progress,
        )
    failed = table.filter(table["error"].is_not_null())
    print_table([{"rows": table.height, "with an error": failed.height, "written to": str(out)}], as_json)
    if failed.height and not as_json:
        reasons = failed.group_by("error").len("rows").sort("rows", "error", descending=[True, False]).head(5)
        print_table(reasons.select("rows", "error").to_dicts(), as_json, title="most frequent errors")


def plan_source(name: str, corpus: Corpus) -> PlanSource:
    """Return what makes the plans of a predictor, by its name or from a saved model."""
    if name.endswith(".npz"):
        from vmrestorekit.predict.saved_model import load_model

        return load_model(name)
    if name == "none":
        return None
    from vmrestorekit.predict.by_name import make_predictor

    make_predictor(name)  # a wrong name is no row of each boot

    def made(boot: Boot, block_bytes: int) -> RestorePlan:
        from vmrestorekit.cli.kept_models import kept_predictor
        from vmrestorekit.predict.planning import make_plan

        return make_plan(kept_predictor(name, boot, corpus), boot, block_bytes=block_bytes)

    return made
