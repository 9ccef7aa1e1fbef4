"""The corpus of recorded boots: virtual machines by name, to be chosen from and summed up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from vmrestorekit.traces.boots import CONTENTS_FILE, TRACE_FILE, Boot, RecordedVM, load_machines
from vmrestorekit.traces.catalog import CATALOG_FILE, build_catalog, lists, read_catalog
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES
from vmrestorekit.traces.recording import add_boot, rebuild_catalog
from vmrestorekit.traces.schema import TRACE_SCHEMA
from vmrestorekit.traces.storage import CorpusError
from vmrestorekit.traces.working_set import blocks_touched

__all__ = [
    "Boot",
    "Corpus",
    "CorpusError",
    "RecordedVM",
    "UnknownVMError",
    "add_boot",
    "describe_boot",
    "load_corpus",
    "rebuild_catalog",
]


class UnknownVMError(CorpusError, KeyError):
    """A name that the corpus does not have."""

    __str__ = ValueError.__str__  # that of KeyError quotes the sentence


class Corpus(Mapping[str, RecordedVM]):
    """Recorded virtual machines by name, in the order of their names; read-only.

    Parameters
    ----------
    vms : mapping of str to RecordedVM
    directory : Path, optional
        Where they were loaded from.
    """

    def __init__(self, vms: Mapping[str, RecordedVM], directory: Path | None = None) -> None:
        self._vms = {name: vms[name] for name in sorted(vms)}
        self._directory = directory

    def __getitem__(self, name: str) -> RecordedVM:
        if name not in self._vms:
            source = self._directory or "memory"
            raise UnknownVMError(f"{source}: expected one of {', '.join(self._vms)}; got {name!r}")
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
        """All distinct boots of all machines."""
        return tuple(boot for vm in self._vms.values() for boot in vm.boots)

    @property
    def recordings(self) -> tuple[Boot, ...]:
        """All recordings of all machines, also those that repeat a boot."""
        return tuple(boot for vm in self._vms.values() for boot in vm.recordings)

    def only(self, *vms: str | RecordedVM) -> Corpus:
        """Return a corpus of these machines.

        Raises
        ------
        UnknownVMError
            If this corpus lacks one.
        """
        names = {self[vm if isinstance(vm, str) else vm.name].name for vm in vms}
        return Corpus({name: vm for name, vm in self._vms.items() if name in names}, self._directory)

    def without(self, *vms: str | RecordedVM) -> Corpus:
        """Return a corpus of all machines but these.

        Raises
        ------
        UnknownVMError
            If this corpus lacks one.
        """
        excluded = set(self.only(*vms))
        return Corpus({name: vm for name, vm in self._vms.items() if name not in excluded}, self._directory)

    def catalog(self) -> pl.DataFrame:
        """Return one row a recording: what it is of, how and when it was made, how much was read.

        Read from the stored catalogue; built from all traces where that is missing (as in older corpora and
        after a crash), damaged, or another's.

        Returns
        -------
        polars.DataFrame
            `CATALOG_SCHEMA`, in the order of `recordings`.
        """
        if self._directory is not None:
            try:
                stored = read_catalog(self._directory / CATALOG_FILE).filter(pl.col("vm").is_in(list(self)))
            except (CorpusError, FileNotFoundError):
                pass
            else:
                if lists(stored, self):
                    return stored
        return build_catalog(self)

    def scan(self) -> pl.LazyFrame:
        """Return the requests of all recordings as one query, which reads no file before it is collected.

        Of each trace only the columns and rows that the query needs are read, and they are not validated.

        Returns
        -------
        polars.LazyFrame
            ``vm``, ``boot`` and the columns of `TRACE_SCHEMA`, in the order of `recordings`.
        """
        nothing = pl.LazyFrame(schema={"vm": pl.String, "boot": pl.String, **TRACE_SCHEMA})
        return pl.concat([_scan(boot) for boot in self.recordings] or [nothing])

    def summary(self) -> pl.DataFrame:
        """Return one row a recording: what was recorded on what, in MB of 10⁶ bytes and seconds."""
        rows = [_summarise(vm, boot) for vm in self._vms.values() for boot in vm.recordings]
        return pl.DataFrame(rows, schema=_SUMMARY_SCHEMA)


def _scan(boot: Boot) -> pl.LazyFrame:
    requests = boot.trace.frame.lazy() if boot.path is None else pl.scan_parquet(boot.path / TRACE_FILE)
    named = requests.with_columns(vm=pl.lit(boot.vm), boot=pl.lit(boot.boot))
    return named.select("vm", "boot", *TRACE_SCHEMA)


_SUMMARY_SCHEMA = pl.Schema(
    {
        "vm": pl.String(),
        "boot": pl.String(),
        "follows": pl.String(),
        "repeats": pl.String(),
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
        "follows": boot.follows,
        "repeats": boot.repeats,
        "release": vm.release,
        "roles": ", ".join(vm.roles),
        "disk_mb": round(sum(boot.disk_bytes) / 1e6, 1),
        "requests": frame.height,
        "reads": reads.height,
        "read_mb": round(int(reads["length"].sum()) / 1e6, 1),
        "distinct_read_mb": round(blocks_touched(reads).height * MANIFEST_BLOCK_BYTES / 1e6, 1),
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


def load_corpus(path: str | os.PathLike[str] | None = None) -> Corpus:
    """Load a corpus of recorded boots; without a path, the one that comes with the package.

    Parameters
    ----------
    path : path-like, optional
        A directory that `add_boot` wrote.

    Returns
    -------
    Corpus
        Nothing but descriptions is read now; traces, manifests and contents when first needed.

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
    machines = load_machines(directory)
    if not machines:
        raise FileNotFoundError(f"expected a corpus of recorded boots at {directory}, found none there")
    contents = directory / CONTENTS_FILE
    if not contents.is_file():
        raise FileNotFoundError(f"expected the shared table of block contents at {contents}, found none")
    return Corpus(machines, directory)


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
