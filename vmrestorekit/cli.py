"""The command line, ``vmrestorekit …``: thin, each command calls one function of a room."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Instant VM restore and live mount: simulate, record and carry out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
traces_app = typer.Typer(help="Recorded boots.", no_args_is_help=True)
lab_app = typer.Typer(help="Real virtual machines: build guests, record boots.", no_args_is_help=True)
app.add_typer(traces_app, name="traces")
app.add_typer(lab_app, name="lab")


# --- traces -------------------------------------------------------------------------------------------

CorpusOption = Annotated[
    Path | None, typer.Option("--corpus", help="Directory of a corpus; default: the one of the package.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@traces_app.command("list")
def traces_list(corpus: CorpusOption = None, as_json: JsonOption = False) -> None:
    """List the recorded boots, one row a boot."""
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


@app.command("manifest")
def manifest(
    image: Path,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save the manifest here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what lies where on a raw disk image: partitions, files, contents of its 4 KiB blocks."""
    from vmrestorekit.backup.manifest import build_manifest, describe_manifest

    built = build_manifest(image)
    if output:
        built.save(output)
    print_record(describe_manifest(built), as_json)


# --- lab ----------------------------------------------------------------------------------------------


@lab_app.command("build")
def lab_build(
    spec: Annotated[Path, typer.Argument(help="Description of a guest, such as specs/bookworm-web.toml.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The image; default: NAME.img, here.")
    ] = None,
    work_dir: Annotated[
        Path, typer.Option("--work", help="Where packages are unpacked; kept for the next time.")
    ] = Path("lab-work"),
) -> None:
    """Build a guest's disk image from its description. Needs root rights."""
    from vmrestorekit.lab.guest import build_image
    from vmrestorekit.lab.progress import live_report
    from vmrestorekit.lab.spec import GuestSpec

    guest = GuestSpec.load(spec)
    with live_report() as report:
        build_image(guest, output or Path(f"{guest.name}.img"), work_dir, report)


@lab_app.command("record")
def lab_record(
    image: Annotated[Path, typer.Argument(help="A raw disk image, as built by 'lab build'; never written.")],
    corpus: Annotated[Path, typer.Option("--output", "-o", help="The corpus to add the boots to.")],
    boots: Annotated[int, typer.Option("--boots", "-n", min=1, help="Record up to boot-N.")] = 2,
    accelerator: Annotated[
        str | None, typer.Option(help="kvm or tcg; default: kvm if a probe says it works.")
    ] = None,
) -> None:
    """Boot an image so often, each time from the disk the boot before left, and record every request."""
    from vmrestorekit.lab.progress import live_report
    from vmrestorekit.lab.record import record_boots

    with live_report() as report:
        record_boots(image, boots, corpus, accelerator=accelerator, report=report)


# --- simulate -----------------------------------------------------------------------------------------


# --- printing -----------------------------------------------------------------------------------------


def print_table(
    rows: list[dict[str, Any]], as_json: bool, title: str | None = None, empty: str = "none"
) -> None:
    """Print rows with equal keys, as JSON or as a table."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # into a pipe or file: wide enough to cut nothing
    console = Console() if sys.stdout.isatty() else Console(width=1000)
    if not rows:
        console.print(f"{title}: none" if title else "none")
        return
    table = Table(title=title, title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int | float) else "left")
    for row in rows:
        table.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
    console.print(table)


def print_record(record: dict[str, Any], as_json: bool) -> None:
    """Print a record as JSON, or its plain values as lines and what is nested in it as tables."""
    if as_json:
        print(json.dumps(record, indent=2))
        return
    for name, value in record.items():
        if isinstance(value, list) and (not value or isinstance(value[0], dict)):
            print_table(value, as_json, title=name)
        elif isinstance(value, dict):
            print_table([{"name": key, "value": entry} for key, entry in value.items()], as_json, title=name)
        else:
            print(f"{name}: {value}")


def main() -> None:
    """Run the command line; bad input ends with one sentence on stderr and exit status 2."""
    try:
        app(standalone_mode=True)
    except (ValueError, OSError) as error:
        print(f"vmrestorekit: {error}", file=sys.stderr)
        raise SystemExit(2) from None
