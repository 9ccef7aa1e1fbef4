"""The command line, ``vmrestorekit …``: thin, each command calls one function of a room."""

from __future__ import annotations

import sys

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


# --- lab ----------------------------------------------------------------------------------------------


# --- simulate -----------------------------------------------------------------------------------------


def main() -> None:
    """Run the command line; bad input ends with one sentence on stderr and exit status 2."""
    try:
        app(standalone_mode=True)
    except (ValueError, OSError) as error:
        print(f"vmrestorekit: {error}", file=sys.stderr)
        raise SystemExit(2) from None
