"""Commands on recorded boots: ``vmrestorekit traces …``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vmrestorekit.cli.shared import CorpusOption, JsonOption, print_record, print_table

traces_app = typer.Typer(help="Recorded boots.", no_args_is_help=True)


@traces_app.command("list")
def traces_list(corpus: CorpusOption = None, as_json: JsonOption = False) -> None:
    """List what was recorded, one row a recording."""
    from vmrestorekit.traces.corpus import load_corpus

    print_table(load_corpus(corpus).summary().to_dicts(), as_json)


@traces_app.command("show")
def traces_show(
    vm: str,
    boot: Annotated[str | None, typer.Argument()] = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one boot (default: the first): how it was recorded, its operations and first requests."""
    from vmrestorekit.traces.corpus import describe_boot, load_corpus

    machine = load_corpus(corpus)[vm]
    print_record(describe_boot(machine.boot(boot) if boot else machine.boots[0]), as_json)


@traces_app.command("summary")
def traces_summary(
    corpus: CorpusOption = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Compare all machines and boots.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what each machine's last boot reads, what others read of that, and how alike boots are.

    In MB and percent of 4 KiB blocks with contents. Three figures beside each other: read at the same
    address / with the same content / at the same place of a file of the same path.
    """
    from vmrestorekit.traces.corpus import load_corpus
    from vmrestorekit.traces.in_common import overlaps, read_again, repeatability
    from vmrestorekit.traces.working_set import working_sets

    machines = load_corpus(corpus)
    again = read_again(machines).to_dicts()
    record = {
        "read by the last boot until it was done": working_sets(machines).to_dicts(),
        "percent of these blocks that were read again": again if as_json else side_by_side(again),
        "boots recorded twice, and boots after shutdowns": repeatability(
            machines, all_pairs=pairs
        ).to_dicts(),
    }
    if pairs:
        record["percent of these blocks that another boot read"] = overlaps(machines).to_dicts()
    print_record(record, as_json)


def side_by_side(read_again: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `read_again` as a person reads them: address / content / path in one cell."""
    from vmrestorekit.traces.in_common import WAYS

    def cell(row: dict[str, Any], other: str) -> str:
        shares = [row[f"{other}_{way}"] for way in WAYS]
        return "" if None in shares else " / ".join(map(str, shares))

    return [
        {
            "vm": row["vm"],
            "own boot before": cell(row, "before"),
            "nearest of another lineage": row["nearest"],
            "by that one": cell(row, "nearest"),
            "same release, median": cell(row, "release"),
            "other releases, median": cell(row, "elsewhere"),
        }
        for row in read_again
    ]


@traces_app.command("catalog")
def traces_catalog(
    corpus: CorpusOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Write it anew from the recordings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the catalogue, one row a recording; as JSON with all that is known of each."""
    from vmrestorekit.traces.corpus import load_corpus, packaged_corpus_directory, rebuild_catalog

    if rebuild:
        rebuild_catalog(corpus or packaged_corpus_directory())
    rows = load_corpus(corpus).catalog().to_dicts()
    if not as_json:
        left_out = {"recorder", "accelerator", "versions", "marks"}
        rows = [{name: _listed(value) for name, value in row.items() if name not in left_out} for row in rows]
    print_table(rows, as_json)


def _listed(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


@traces_app.command("validate")
def traces_validate(
    path: Annotated[Path | None, typer.Argument(help="A corpus or a trace file.")] = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a whole corpus or one trace file; exit status 1 if anything is wrong."""
    from vmrestorekit.traces.checks import find_problems

    problems = find_problems(path or corpus)
    if as_json:
        print(json.dumps([{"problem": problem} for problem in problems], indent=2))
    else:
        print("\n".join(problems) or "no problems found")
    raise typer.Exit(1 if problems else 0)


@traces_app.command("import")
def traces_import(
    format_name: Annotated[
        str, typer.Argument(metavar="FORMAT", help="Such as nbdkit, blkparse, qemu, fio.")
    ],
    file: Path,
    output: Annotated[Path, typer.Option("--output", "-o", help="The trace, as Parquet.")],
) -> None:
    """Read another program's block trace; an unknown FORMAT lists those there are."""
    from vmrestorekit.traces.foreign import import_trace

    trace = import_trace(format_name, file)
    trace.save(output)
    print(f"{output}: {trace.frame.height} requests ({trace.metadata.recorder})")


@traces_app.command("export")
def traces_export(
    trace: Annotated[Path, typer.Argument(help="A trace file.")],
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="oracle-general, fio, fio-2 or csv.")],
    output: Path,
) -> None:
    """Write a trace for another program: oracle-general for cache simulators, fio to carry it out again."""
    from vmrestorekit.traces.foreign import export_trace
    from vmrestorekit.traces.schema import ReadTrace

    export_trace(ReadTrace.load(trace), format_name, output)


@traces_app.command("anonymise")
def traces_anonymise(
    corpus: Annotated[Path, typer.Argument(help="Directory of a corpus.")],
    output: Annotated[Path, typer.Argument(help="Directory that is not there yet.")],
    key_file: Annotated[
        Path, typer.Option("--key-file", help="At least 16 random bytes, to be kept secret.")
    ],
) -> None:
    """Copy a corpus with paths, names and contents as keyed hashes; sizes, offsets and times stay."""
    from vmrestorekit.traces.anonymise import anonymise_corpus

    anonymise_corpus(corpus, output, key_file)
