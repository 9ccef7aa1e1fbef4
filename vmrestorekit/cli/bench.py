"""The command ``vmrestorekit bench``: our speed beside that of peers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vmrestorekit.cli.shared import JsonOption, print_table


def bench_command(
    names: Annotated[list[str] | None, typer.Argument(help="Which benchmarks; default: all.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the rows into benchmarks/README.md.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare our speed with that of peers, both measured in one run. Needs the repository."""
    print_table(_benchmark_runner().run(names or [], write=write), as_json)


def _benchmark_runner() -> Any:
    """Import the runner that stands beside the benchmarks; they are no part of the installed package."""
    directory = Path(__file__).resolve().parents[2] / "benchmarks"
    if not (directory / "runner.py").is_file():
        raise FileNotFoundError(
            f"expected the benchmarks in {directory}, found none there: they come with the repository, "
            "not with the package"
        )
    sys.path.insert(0, str(directory))
    return importlib.import_module("runner")
