"""The command line, ``vmrestorekit …``: thin, each command calls one function of a room."""

from __future__ import annotations

import sys

import typer

from vmrestorekit.cli.backup import backup_app, manifest
from vmrestorekit.cli.bench import bench_command
from vmrestorekit.cli.evaluate import evaluate_command
from vmrestorekit.cli.lab import lab_app
from vmrestorekit.cli.restore import compare_command, simulate_command
from vmrestorekit.cli.sweep import sweep_command
from vmrestorekit.cli.traces import traces_app
from vmrestorekit.cli.train import predict_command, train_command

__all__ = ["app", "main"]

app = typer.Typer(
    help="Instant VM restore and live mount: simulate, record and carry out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(traces_app, name="traces")
app.add_typer(backup_app, name="backup")
app.add_typer(lab_app, name="lab")
app.command("manifest")(manifest)
app.command("simulate")(simulate_command)
app.command("compare")(compare_command)
app.command("train")(train_command)
app.command("predict")(predict_command)
app.command("evaluate")(evaluate_command)
app.command("sweep")(sweep_command)
app.command("bench")(bench_command)


def main() -> None:
    """Run the command line; bad input ends with one sentence on stderr and exit status 2."""
    try:
        app(standalone_mode=True)
    except (ValueError, OSError) as error:
        print(f"vmrestorekit: {error}", file=sys.stderr)
        raise SystemExit(2) from None
