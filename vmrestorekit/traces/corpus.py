"""The corpus of recorded boots: virtual machines by name, to be chosen from and summed up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vmrestorekit.traces.boots import CONTENTS_FILE, VM_FILE, Boot, RecordedVM, SharedContents, load_machine
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES
from vmrestorekit.traces.recording import add_boot
from vmrestorekit.traces.storage import CorpusError

__all__ = [
    "Boot",
    "Corpus",
    "CorpusError",
    "RecordedVM",
    "UnknownVMError",
    "add_boot",
    "describe_boot",
    "load_corpus",
]


class UnknownVMError(CorpusError, KeyError):
    """A name that the corpus does not have."""

    __str__ = ValueError.__str__  # that of KeyError quotes the sentence


class Corpus(Mapping[str, RecordedVM]):
    """Recorded virtual machines by name, in the order of their names; read-only."""

    def __init__(self, vms: Mapping[str, RecordedVM], source: str = "memory") -> None:
        self._vms = {name: vms[name] for name in sorted(vms)}
        self._source = source

    def __getitem__(self, name: str) -> RecordedVM:
        if name not in self._vms:
            raise UnknownVMError(f"{self._source}: expected one of {', '.join(self._vms)}; got {name!r}")
        return self._vms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._vms)

    def __len__(self) -> int:
        return len(self._vms)

    def __repr__(self) -> str:
        machines = ", ".join(f"{vm.name} ({len(vm.boots)})" for vm in self._vms.values())
        return f"<Corpus of {len(self.boots)} boots: {machines}>"

    @property
    def boots(self) -> tuple[Boot, ...]:
        """All boots of all machines."""
        return tuple(boot for vm in self._vms.values() for boot in vm.boots)

    def only(self, *vms: str | RecordedVM) -> Corpus:
        """Return a corpus of these machines.

        Raises
        ------
        UnknownVMError
            If this corpus lacks one.
        """
        names = {self[vm if isinstance(vm, str) else vm.name].name for vm in vms}
        return Corpus({name: vm for name, vm in self._vms.items() if name in names}, self._source)

    def without(self, *vms: str | RecordedVM) -> Corpus:
        """Return a corpus of all machines but these.

        Raises
        ------
        UnknownVMError
            If this corpus lacks one.
        """
        excluded = set(self.only(*vms))
        return Corpus({name: vm for name, vm in self._vms.items() if name not in excluded}, self._source)

    def summary(self) -> pl.DataFrame:
        """Return one row a boot: what was recorded on what, in MB of 10⁶ bytes and seconds."""
        rows = [_summarise(vm, boot) for vm in self._vms.values() for boot in vm.boots]
        return pl.DataFrame(rows, schema=_SUMMARY_SCHEMA)


_SUMMARY_SCHEMA = pl.Schema(
    {
        "vm": pl.String(),
        "boot": pl.String(),
        "release": pl.String(),
        "roles": pl.String(),
        "disk_mb": pl.Float64(),
        "requests": pl.Int64(),
        "reads": pl.Int64(),
        "read_mb": pl.Float64(),
        "distinct_read_mb": pl.Float64(),
        "writes": pl.Int64(),
        "boot_done_s": pl.Float64(),
        "accelerator": pl.String(),
    }
)


def _summarise(vm: RecordedVM, boot: Boot) -> dict[str, Any]:
    frame = boot.trace.frame
    reads = frame.filter(pl.col("op") == "read")
    boot_done_ns = boot.metadata.marks.get("boot_done_ns")
    return {
        "vm": vm.name,
        "boot": boot.boot,
        "release": vm.release,
        "roles": ", ".join(vm.roles),
        "disk_mb": round(sum(boot.disk_bytes) / 1e6, 1),
        "requests": frame.height,
        "reads": reads.height,
        "read_mb": round(int(reads["length"].sum()) / 1e6, 1),
        "distinct_read_mb": round(_distinct_blocks(reads) * MANIFEST_BLOCK_BYTES / 1e6, 1),
        "writes": frame.filter(pl.col("op") == "write").height,
        "boot_done_s": None if boot_done_ns is None else round(boot_done_ns / 1e9, 3),
        "accelerator": boot.metadata.accelerator,
    }


def describe_boot(boot: Boot, rows: int = 10) -> dict[str, Any]:
    """Return what is known of a boot as plain data: metadata, a count of its operations, first requests."""
    frame = boot.trace.frame
    operations = frame.group_by(pl.col("op").cast(pl.String)).agg(
        requests=pl.len(), mb=(pl.col("length").sum() / 1e6).round(1)
    )
    return {
        "metadata": json.loads(boot.metadata.to_json()),
        "operations": operations.sort("op").to_dicts(),
        "first_requests": frame.head(rows).cast({"op": pl.String}).to_dicts(),
    }


def _distinct_blocks(requests: pl.DataFrame) -> int:
    first = requests["offset"].to_numpy() // MANIFEST_BLOCK_BYTES
    end = -(-(requests["offset"] + requests["length"]).to_numpy() // MANIFEST_BLOCK_BYTES)
    count = end - first
    blocks = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    disks = np.repeat(requests["disk"].to_numpy(), count)
    return pl.DataFrame({"disk": disks, "block": blocks}).n_unique()


def load_corpus(path: str | os.PathLike[str] | None = None) -> Corpus:
    """Load a corpus of recorded boots; without a path, the one that comes with the package.

    Parameters
    ----------
    path : path-like, optional
        A directory that `add_boot` wrote.

    Returns
    -------
    Corpus
        Traces and manifests are read when first needed.

    Raises
    ------
    FileNotFoundError
        If there is no corpus.
    CorpusError
        If a description of a machine cannot be read.
    """
    directory = packaged_corpus_directory() if path is None else Path(path)
    if not directory.is_dir():
        raise FileNotFoundError(f"expected a corpus of recorded boots at {directory}, found no directory")
    shared = SharedContents(directory / CONTENTS_FILE)
    machines = [load_machine(file.parent, shared) for file in sorted(directory.glob(f"*/{VM_FILE}"))]
    if not machines:
        raise FileNotFoundError(f"expected a corpus of recorded boots at {directory}, found none there")
    if not shared.path.is_file():
        raise FileNotFoundError(f"expected the shared table of block contents at {shared.path}, found none")
    return Corpus({vm.name: vm for vm in machines}, str(directory))


def packaged_corpus_directory() -> Path:
    """Return where the corpus of this package is: inside it if installed, else in the source checkout.

    Raises
    ------
    FileNotFoundError
        If it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = (package / "_corpus", package.parent / "data" / "traces")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"expected the recorded boots that come with vmrestorekit in {candidates[0]} or {candidates[1]}, "
        "found neither; give the directory of a corpus"
    )
