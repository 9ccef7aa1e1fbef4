"""Foreign formats: block traces of other programs, read as a `ReadTrace`, and ours written for them."""

from __future__ import annotations

import importlib
import os
from typing import Any

from vmrestorekit.traces.foreign.common import ForeignFormatError
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["EXPORTS", "IMPORTS", "ForeignFormatError", "export_trace", "import_trace"]

# name of a format -> module and function
IMPORTS = {
    "nbdkit": ("nbdkit", "import_nbdkit"),
    "blkparse": ("blkparse", "import_blkparse"),
    "qemu": ("qemu", "import_qemu"),
    "msr-cambridge": ("tables", "import_msr_cambridge"),
    "cloudphysics-csv": ("tables", "import_cloudphysics_csv"),
    "csv": ("tables", "import_csv"),
    "oracle-general": ("cache_traces", "import_oracle_general"),
    "vscsi": ("cache_traces", "import_vscsi"),
    "fio": ("fio", "import_fio"),
}
EXPORTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "oracle-general": ("cache_traces", "export_oracle_general", {}),
    "fio": ("fio", "export_fio", {"version": 3}),
    "fio-2": ("fio", "export_fio", {"version": 2}),
    "csv": ("tables", "export_csv", {}),
}


def import_trace(format_name: str, path: str | os.PathLike[str]) -> ReadTrace:
    """Read a trace of another program.

    Parameters
    ----------
    format_name : str
        One of `IMPORTS`.
    path : path-like

    Returns
    -------
    ReadTrace
        Validated. Where completions are not recorded, ``completed_ns`` equals ``issued_ns`` and the
        metadata's ``recorder`` says so; it is no recorded boot of a machine of ours and has no marks.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ForeignFormatError
        If the format is unknown, or the file is none of it: names the file and the line or record.
    """
    if format_name not in IMPORTS:
        raise ForeignFormatError(f"expected one of the formats {', '.join(IMPORTS)}; got {format_name!r}")
    module, function = IMPORTS[format_name]
    trace: ReadTrace = getattr(importlib.import_module(f"{__name__}.{module}"), function)(path)
    return trace


def export_trace(trace: ReadTrace, format_name: str, path: str | os.PathLike[str]) -> None:
    """Write a trace for another program, whole or not at all.

    Parameters
    ----------
    trace : ReadTrace
    format_name : str
        One of `EXPORTS`.
    path : path-like

    Raises
    ------
    ForeignFormatError
        If the format is unknown, or cannot hold this trace.
    """
    if format_name not in EXPORTS:
        raise ForeignFormatError(f"expected one of the formats {', '.join(EXPORTS)}; got {format_name!r}")
    module, function, options = EXPORTS[format_name]
    getattr(importlib.import_module(f"{__name__}.{module}"), function)(trace, path, **options)
