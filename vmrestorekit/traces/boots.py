"""Recorded machines and their boots, read from their files when first needed."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmrestorekit.traces.manifest import Manifest
from vmrestorekit.traces.schema import ReadTrace, TraceMetadata
from vmrestorekit.traces.storage import ContentTable, CorpusError, load_state

__all__ = ["Boot", "RecordedVM", "SharedContents", "expect_manifests_of", "load_machine", "read_vm_file"]

CONTENTS_FILE = "contents.parquet"
VM_FILE = "vm.toml"
TRACE_FILE = "trace.parquet"


class SharedContents:
    """The shared table, read when it is first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @functools.cached_property
    def table(self) -> ContentTable:
        """The table."""
        return ContentTable.load(self.path)


@dataclasses.dataclass(frozen=True, eq=False)
class Boot:
    """One recorded boot of a virtual machine. Files are read when first needed, and then kept.

    Two boots are equal if they are the same recording in the same place; one made by `from_parts` equals only
    itself.

    Attributes
    ----------
    vm, boot : str
        Such as ``"bookworm-db"`` and ``"boot-1"``.
    path : Path or None
        Directory of the recording, None for a boot made by `from_parts`.
    """

    vm: str
    boot: str
    path: Path | None = None
    _previous: Boot | None = dataclasses.field(default=None, repr=False)
    _contents: SharedContents | None = dataclasses.field(default=None, repr=False)
    _parts: tuple[ReadTrace, tuple[Manifest, ...]] | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def from_parts(cls, trace: ReadTrace, manifests: Sequence[Manifest]) -> Boot:
        """Make a boot from a trace and the state of each disk before it, without files.

        Raises
        ------
        CorpusError
            If the manifests are not those of the trace's disks.
        """
        expect_manifests_of(trace, manifests)
        return cls(trace.metadata.vm, trace.metadata.boot, _parts=(trace, tuple(manifests)))

    def with_data_disk(self, disk_bytes: int) -> Boot:
        """Return the same boot of a machine that has one more disk, full of data, that no boot reads.

        What is on that disk is SYNTHETIC: blocks that all differ, without files.
        """
        metadata = self.metadata
        disks = (*metadata.disk_bytes, disk_bytes)
        trace = ReadTrace(self.trace.frame, dataclasses.replace(metadata, disk_bytes=disks))
        return Boot.from_parts(trace, (*self.manifests, Manifest.synthetic(disk_bytes)))

    @functools.cached_property
    def trace(self) -> ReadTrace:
        """The recorded requests."""
        if self._parts:
            return self._parts[0]
        assert self.path is not None
        trace = ReadTrace.load(self.path / TRACE_FILE)
        if (trace.metadata.vm, trace.metadata.boot) != (self.vm, self.boot):
            raise CorpusError(
                f"{self.path / TRACE_FILE}: expected boot {self.boot!r} of {self.vm!r}, "
                f"got {trace.metadata.boot!r} of {trace.metadata.vm!r}"
            )
        return trace

    @functools.cached_property
    def manifests(self) -> tuple[Manifest, ...]:
        """The state of each disk before this boot."""
        if self._parts:
            return self._parts[1]
        assert self.path is not None
        assert self._contents is not None
        bases = self._previous.manifests if self._previous else ()
        base_boot = self._previous.boot if self._previous else None
        manifests = []
        for disk in range(len(self.disk_bytes)):
            base = bases[disk] if disk < len(bases) else None
            manifests.append(load_state(self.path / f"disk{disk}", base, base_boot, self._contents.table))
        expect_manifests_of(self.trace, manifests, source=str(self.path))
        return tuple(manifests)

    @property
    def manifest(self) -> Manifest:
        """The state of the first disk before this boot."""
        return self.manifests[0]

    @property
    def metadata(self) -> TraceMetadata:
        """What is known about the recording besides its rows."""
        return self.trace.metadata

    @property
    def disk_bytes(self) -> tuple[int, ...]:
        """Size of each disk."""
        return self.metadata.disk_bytes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Boot) or self.path is None:
            return self is other
        return (self.path, self.vm, self.boot) == (other.path, other.vm, other.boot)

    def __hash__(self) -> int:
        return hash((self.path, self.vm, self.boot))


@dataclasses.dataclass(frozen=True)
class RecordedVM:
    """A virtual machine and its recorded boots, in the order in which they happened.

    Attributes
    ----------
    name : str
    description : mapping
        What the recorder knows of the machine: ``release``, ``roles`` and whatever else it noted.
    boots : tuple of Boot
    """

    name: str
    description: Mapping[str, Any] = dataclasses.field(compare=False)
    boots: tuple[Boot, ...]

    @property
    def release(self) -> str:
        """The guest's operating system, such as ``"Debian 12"``; empty if unknown."""
        return str(self.description.get("release", ""))

    @property
    def roles(self) -> tuple[str, ...]:
        """What the machine is for, such as ``("database",)``."""
        return tuple(self.description.get("roles", ()))

    def boot(self, name: str) -> Boot:
        """Return the boot of this name.

        Raises
        ------
        CorpusError
            Lists the boots there are.
        """
        for boot in self.boots:
            if boot.boot == name:
                return boot
        known = ", ".join(boot.boot for boot in self.boots)
        raise CorpusError(f"{self.name}: expected one of its boots {known}, got {name!r}")


def read_vm_file(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a machine's description, and the directory of each of its boots in order.

    Raises
    ------
    CorpusError
        If the file is no such description.
    """
    try:
        fields = tomllib.loads(file.read_text(encoding="utf-8"))
        boots = {str(entry["boot"]): str(entry["directory"]) for entry in fields["boots"]}
        return dict(fields["description"]), boots
    except (ValueError, TypeError, KeyError) as error:
        raise CorpusError(f"{file}: expected the description of a recorded machine: {error}") from error


def load_machine(directory: Path, shared: SharedContents) -> RecordedVM:
    """Return the machine recorded in a directory of a corpus.

    Raises
    ------
    CorpusError
        If its description cannot be read.
    """
    description, boots = read_vm_file(directory / VM_FILE)
    chain: list[Boot] = []
    for boot, name in boots.items():
        chain.append(Boot(directory.name, boot, directory / name, chain[-1] if chain else None, shared))
    return RecordedVM(directory.name, description, tuple(chain))


def expect_manifests_of(trace: ReadTrace, manifests: Sequence[Manifest], source: str = "boot") -> None:
    """Check that there is one manifest for each disk of the trace, of that disk's size.

    Raises
    ------
    CorpusError
        Names what differs.
    """
    sizes = tuple(manifest.disk_bytes for manifest in manifests)
    if sizes != trace.metadata.disk_bytes:
        raise CorpusError(
            f"{source}: expected one manifest for each disk of the trace, of {trace.metadata.disk_bytes} "
            f"bytes, got manifests of {sizes} bytes"
        )
