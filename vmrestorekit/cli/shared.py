"""What commands share: options, tables and records as text or JSON, and a bar for long work."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vmrestorekit.predict.ordering import StagingDevice
    from vmrestorekit.restore.hardware import Hardware

CorpusOption = Annotated[
    Path | None, typer.Option("--corpus", help="Directory of a corpus; default: the one of the package.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_table(rows: list[dict[str, Any]], as_json: bool, title: str | None = None) -> None:
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


@contextlib.contextmanager
def progress_of(what: str, bytes_of: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr where that is a terminal, of bytes or of pieces of work."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (DownloadColumn(), TransferSpeedColumn()) if bytes_of else (MofNCompleteColumn(),)
    columns = (BarColumn(), *counts, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *(TextColumn("{task.description}"), *columns),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # else it would print an empty line
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def nanoseconds_of(option: str, seconds: float) -> int:
    """Return seconds that were given with an option in nanoseconds; ValueError if they are no number."""
    if not math.isfinite(seconds):
        raise ValueError(f"{option}: expected a number of seconds, got {seconds}")
    return round(seconds * 1e9)


def staging_device_of(hardware: Hardware, head_start_ns: int) -> StagingDevice:
    """Return what ordering needs to know of hardware; no more comes from a device than its link carries."""
    from vmrestorekit.predict.ordering import StagingDevice

    device = hardware.backup_device
    bandwidth = min(device.bandwidth * device.channels, hardware.link.bandwidth)
    # channels position at the same time
    return StagingDevice(bandwidth, device.positioning_ns // device.channels, head_start_ns)
