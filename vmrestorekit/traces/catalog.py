"""The catalogue of a corpus: one row a recording, so that recordings can be chosen without reading them.

It is derived from the machines' descriptions and the traces, and can be built anew at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.schema import read_parquet_with_metadata
from vmrestorekit.traces.storage import CorpusError

__all__ = ["CATALOG_FILE", "CATALOG_SCHEMA", "build_catalog", "lists", "read_catalog"]

CATALOG_FILE = "catalog.parquet"

CATALOG_SCHEMA = pl.Schema(
    {
        "vm": pl.String(),
        "boot": pl.String(),
        "follows": pl.String(),
        "repeats": pl.String(),
        "lineage": pl.String(),
        "release": pl.String(),
        "roles": pl.List(pl.String()),
        "kernel": pl.String(),
        "file_systems": pl.List(pl.String()),  # such as "/ ext4"
        "disk_bytes": pl.List(pl.Int64()),
        "services": pl.List(pl.String()),  # that were enabled
        "accelerator": pl.String(),
        "recorder": pl.String(),
        "versions": pl.List(pl.Struct({"name": pl.String(), "value": pl.String()})),
        "marks": pl.List(pl.Struct({"name": pl.String(), "value": pl.Int64()})),
        "requests": pl.Int64(),
        "reads": pl.Int64(),
        "read_bytes": pl.Int64(),
        "boot_done_ns": pl.Int64(),  # null: not marked
    }
)
# what the description of a machine says, known without reading a trace
_LISTED = ("vm", "boot", "follows", "repeats", "lineage", "release", "roles", "file_systems", "services")


def build_catalog(machines: Mapping[str, RecordedVM]) -> pl.DataFrame:
    """Return one row a recording, in the order of the machines, reading every trace.

    Returns
    -------
    polars.DataFrame
        `CATALOG_SCHEMA`. ``requests``, ``reads`` and ``read_bytes`` count the whole trace; ``kernel`` is that
        of the recording, or that of the description where the recorder did not note it.
    """
    rows = [
        _listed(machine, boot) | _recorded(machine, boot)
        for machine in machines.values()
        for boot in machine.recordings
    ]
    return pl.DataFrame(rows, schema=CATALOG_SCHEMA)


def lists(catalog: pl.DataFrame, machines: Mapping[str, RecordedVM]) -> bool:
    """Tell whether a catalogue has just the recordings of these machines, as described; reads no trace."""
    rows = [_listed(machine, boot) for machine in machines.values() for boot in machine.recordings]
    schema = {name: CATALOG_SCHEMA[name] for name in _LISTED}
    return catalog.select(*_LISTED).equals(pl.DataFrame(rows, schema=schema))


def read_catalog(path: Path) -> pl.DataFrame:
    """Read a stored catalogue.

    Raises
    ------
    FileNotFoundError
        If there is none.
    CorpusError
        If it is no whole catalogue.
    """
    catalog, _ = read_parquet_with_metadata(path, "the catalogue of a corpus", CorpusError)
    if dict(catalog.schema) != dict(CATALOG_SCHEMA):
        raise CorpusError(
            f"{path}: expected a catalogue with columns {dict(CATALOG_SCHEMA)}, got {dict(catalog.schema)}"
        )
    return catalog


def _listed(machine: RecordedVM, boot: Boot) -> dict[str, Any]:
    return {
        "vm": machine.name,
        "boot": boot.boot,
        "follows": boot.follows,
        "repeats": boot.repeats,
        "lineage": machine.lineage,
        "release": machine.release,
        "roles": _texts(machine.roles),
        "file_systems": _texts(machine.description.get("file_systems", ())),
        "services": _texts(machine.description.get("services", ())),
    }


def _recorded(machine: RecordedVM, boot: Boot) -> dict[str, Any]:
    about = boot.metadata
    reads = boot.trace.frame.filter(pl.col("op") == "read")
    return {
        "kernel": str(about.versions.get("kernel") or machine.description.get("kernel", "")),
        "disk_bytes": list(about.disk_bytes),
        "accelerator": about.accelerator,
        "recorder": about.recorder,
        "versions": _named(about.versions),
        "marks": _named(about.marks),
        "requests": boot.trace.frame.height,
        "reads": reads.height,
        "read_bytes": int(reads["length"].sum()),
        "boot_done_ns": about.marks.get("boot_done_ns"),
    }


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list | tuple) else [str(value)]


def _named(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    # traces keep no order of marks and versions
    return [{"name": name, "value": values[name]} for name in sorted(values)]
