"""A backup device of one's own: its positioning time, bandwidth and channels, fitted to what fio measured.

fio --name=one --rw=randread --bs=4k  --iodepth=1  --direct=1 … --output-format=json
(the same with --bs=64k, --bs=1m, and with --iodepth=16)
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vmrestorekit.restore.hardware import MEDIA, BackupDevice, Hardware, HardwareError

__all__ = ["RandomReads", "fit_device", "hardware_from_fio", "read_fio"]

SECOND = 1_000_000_000
_UNITS = {"": 1, "b": 1, "k": 2**10, "kib": 2**10, "kb": 10**3, "m": 2**20, "mib": 2**20, "mb": 10**6}


@dataclasses.dataclass(frozen=True)
class RandomReads:
    """What fio measured in one job of random reads.

    Attributes
    ----------
    bytes : int
        Size of each read.
    depth : int
        Reads under way at a time, of all processes together.
    latency_ns : float
        Mean, from the submission of a read to its completion.
    per_second : float
        Reads.
    """

    bytes: int
    depth: int
    latency_ns: float
    per_second: float


def hardware_from_fio(path: str | os.PathLike[str], name: str | None = None) -> Hardware:
    """Return hardware whose backup device is as quick as what fio measured; all else is `object_storage`'s.

    Parameters
    ----------
    path : path
        fio's output with ``--output-format=json``: jobs of random reads, one at a time with at least two
        sizes, and at least one with more under way.
    name : str, optional
        Default: the file's.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    HardwareError
        If it is no such output, or has no such jobs.
    """
    path = Path(path)
    device = fit_device(read_fio(path), str(path))
    source = f"fitted to the random reads that fio measured in {path.name}"
    return MEDIA["object_storage"].replace(name=name or path.stem, backup_device=device, source=source)


def read_fio(path: Path) -> list[RandomReads]:
    """Read fio's JSON output; see `hardware_from_fio`."""
    if not path.is_file():
        raise FileNotFoundError(f"expected fio's output at {path}, found no such file")
    text = path.read_text(encoding="utf-8")
    try:
        # fio writes its notes in front of the JSON
        told = json.loads(text[text.index("{") :])
        general = dict(told.get("global options", {}))
        jobs = [(general | dict(job["job options"]), job) for job in told["jobs"]]
        return [_reads(options, job) for options, job in jobs if options.get("rw") == "randread"]
    except (ValueError, KeyError, TypeError) as error:
        raise HardwareError(f"{path}: expected fio's output with --output-format=json: {error!r}") from error


def _reads(options: Mapping[str, Any], job: Mapping[str, Any]) -> RandomReads:
    read = job["read"]
    depth = int(options.get("iodepth", 1)) * int(options.get("numjobs", 1))
    latency = float(read["lat_ns"]["mean"])
    return RandomReads(_size(options.get("bs", "4k")), depth, latency, float(read["iops"]))


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([a-z]*)", str(text).lower())
    if not match or match[2] not in _UNITS:
        raise ValueError(f"a block size such as 64k, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def fit_device(jobs: list[RandomReads], where: str = "fio") -> BackupDevice:
    """Fit the model's device: a read takes `positioning_ns` + bytes / `bandwidth` on one of `channels`.

    Positioning and bandwidth follow from reads one at a time (least squares of latency over size, each job
    weighted by one over its latency, so that small reads count as much as large ones); channels from how many
    such reads the device does at the same time at its best (Little's law).

    Raises
    ------
    HardwareError
        If there are not two sizes read one at a time, or larger reads take no longer.
    """
    alone = [job for job in jobs if job.depth == 1]
    if len({job.bytes for job in alone}) < 2:
        raise HardwareError(
            f"{where}: expected random reads one at a time (iodepth=1) of at least two sizes, got "
            f"{sorted({job.bytes for job in alone})} bytes"
        )
    size = np.array([job.bytes for job in alone], float)
    latency = np.array([job.latency_ns for job in alone], float)
    design = np.stack([np.ones_like(size), size]) / latency
    positioning, per_byte = np.linalg.lstsq(design.T, np.ones_like(size), rcond=None)[0]
    if per_byte <= 0:
        raise HardwareError(f"{where}: expected larger reads to take longer, got no such thing")
    positioning = max(float(positioning), 0.0)
    busy = [job.per_second * (positioning + job.bytes * per_byte) / SECOND for job in jobs]
    return BackupDevice(max(1, round(max(busy))), round(positioning), max(1, round(SECOND / per_byte)))
