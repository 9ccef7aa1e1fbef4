"""Recorded machines and their boots, read from their files when first needed.

A *recording* is what was recorded at one time; some repeat another one, from the same state of the disks. The
*boots* of a machine are its recordings without these, so that nobody learns from one recording of a boot and
is asked of the other.
"""

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

__all__ = [
    "Boot",
    "RecordedVM",
    "SharedContents",
    "StoredBoot",
    "expect_known_repeats",
    "expect_manifests_of",
    "load_machine",
    "load_machines",
    "read_vm_file",
]

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


class _Described:
    """What the description of a machine says, for those who have one."""

    description: Mapping[str, Any]

    @property
    def release(self) -> str:
        """The guest's operating system, such as ``"Debian 12"``; empty if unknown."""
        return str(self.description.get("release", ""))

    @property
    def roles(self) -> tuple[str, ...]:
        """What the machine is for, such as ``("database",)``."""
        return tuple(self.description.get("roles", ()))


@dataclasses.dataclass(frozen=True, eq=False)
class Boot(_Described):
    """One recorded boot of a virtual machine. Files are read when first needed, and then kept.

    Two boots are equal if they are the same recording in the same place; one made by `from_parts` equals only
    itself.

    Attributes
    ----------
    vm, boot : str
        Such as ``"bookworm-db"`` and ``"boot-1"``.
    path : Path or None
        Directory of the recording, None for a boot made by `from_parts`.
    follows, repeats : str
        As in `TraceMetadata`, known without reading the trace.
    description : mapping
        Of the machine, as in `RecordedVM`.
    """

    vm: str
    boot: str
    path: Path | None = None
    follows: str = ""
    repeats: str = ""
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    _previous: Boot | None = dataclasses.field(default=None, repr=False)
    _contents: SharedContents | None = dataclasses.field(default=None, repr=False)
    _parts: tuple[ReadTrace, tuple[Manifest, ...]] | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def from_parts(
        cls, trace: ReadTrace, manifests: Sequence[Manifest], description: Mapping[str, Any] | None = None
    ) -> Boot:
        """Make a boot from a trace and the state of each disk before it, without files.

        Raises
        ------
        CorpusError
            If the manifests are not those of the trace's disks.
        """
        expect_manifests_of(trace, manifests)
        about = trace.metadata
        return cls(
            *(about.vm, about.boot),
            follows=about.follows,
            repeats=about.repeats,
            description=dict(description or {}),
            _parts=(trace, tuple(manifests)),
        )

    def with_data_disk(self, disk_bytes: int) -> Boot:
        """Return the same boot of a machine that has one more disk, full of data, that no boot reads.

        What is on that disk is SYNTHETIC: blocks that all differ, without files.
        """
        metadata = self.metadata
        disks = (*metadata.disk_bytes, disk_bytes)
        trace = ReadTrace(self.trace.frame, dataclasses.replace(metadata, disk_bytes=disks))
        return Boot.from_parts(trace, (*self.manifests, Manifest.synthetic(disk_bytes)), self.description)

    @property
    def lineage(self) -> str:
        """As of `RecordedVM`."""
        return str(self.description.get("lineage") or self.vm)

    @functools.cached_property
    def trace(self) -> ReadTrace:
        """The recorded requests."""
        if self._parts:
            return self._parts[0]
        assert self.path is not None
        trace = ReadTrace.load(self.path / TRACE_FILE)
        about = trace.metadata
        if (about.vm, about.boot) != (self.vm, self.boot):
            raise CorpusError(
                f"{self.path / TRACE_FILE}: expected boot {self.boot!r} of {self.vm!r}, "
                f"got {about.boot!r} of {about.vm!r}"
            )
        if (about.follows, about.repeats) != (self.follows, self.repeats):
            raise CorpusError(
                f"{self.path / TRACE_FILE}: expected a boot that follows {self.follows!r} and repeats "
                f"{self.repeats!r}, as {VM_FILE} says, got {about.follows!r} and {about.repeats!r}"
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

    def has_state_of(self, other: Boot) -> bool:
        """Tell whether both boots started from the same state of the disks."""
        return self.disk_bytes == other.disk_bytes and all(
            map(Manifest.equals, self.manifests, other.manifests)
        )

    def drop_manifests(self) -> None:
        """Let go of the states of the disks, which take much memory; they are read again when next needed."""
        vars(self).pop("manifests", None)

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
class RecordedVM(_Described):
    """A virtual machine and what was recorded of it.

    Attributes
    ----------
    name : str
    description : mapping
        What the recorder knows of the machine: ``release``, ``roles`` and whatever else it noted.
    recordings : tuple of Boot
        All, in stored order.
    """

    name: str
    description: Mapping[str, Any] = dataclasses.field(compare=False)
    recordings: tuple[Boot, ...]

    @property
    def boots(self) -> tuple[Boot, ...]:
        """The distinct boots, in the order in which they happened: the recordings that repeat no other."""
        return tuple(boot for boot in self.recordings if not boot.repeats)

    @property
    def repeats(self) -> tuple[Boot, ...]:
        """The recordings that repeat another one."""
        return tuple(boot for boot in self.recordings if boot.repeats)

    @property
    def lineage(self) -> str:
        """The image that this machine and its clones descend from; the machine's own name if unknown."""
        return str(self.description.get("lineage") or self.name)

    def boot(self, name: str) -> Boot:
        """Return the recording of this name.

        Raises
        ------
        CorpusError
            Lists the recordings there are.
        """
        for boot in self.recordings:
            if boot.boot == name:
                return boot
        known = ", ".join(boot.boot for boot in self.recordings)
        raise CorpusError(f"{self.name}: expected one of its boots {known}, got {name!r}")


@dataclasses.dataclass(frozen=True)
class StoredBoot:
    """One entry of a machine's list of recordings: its name, its directory, and as in `TraceMetadata`."""

    boot: str
    directory: str
    follows: str = ""
    repeats: str = ""


def read_vm_file(file: Path) -> tuple[dict[str, Any], tuple[StoredBoot, ...]]:
    """Return a machine's description, and its recordings in stored order.

    Raises
    ------
    CorpusError
        If the file is no such description, or a recording does not repeat a boot above it.
    """
    try:
        fields = tomllib.loads(file.read_text(encoding="utf-8"))
        names = [field.name for field in dataclasses.fields(StoredBoot)]
        entries = tuple(
            StoredBoot(**{name: str(entry[name]) for name in names if name in entry})
            for entry in fields["boots"]
        )
        description = dict(fields["description"])
    except (ValueError, TypeError, KeyError) as error:
        raise CorpusError(f"{file}: expected the description of a recorded machine: {error}") from error
    expect_known_repeats(entries, file)
    return description, entries


def expect_known_repeats(entries: Sequence[StoredBoot], file: Path) -> None:
    """Check that each recording that repeats another one repeats a boot above it.

    Raises
    ------
    CorpusError
        Names the file and the recording.
    """
    boots: set[str] = set()
    for entry in entries:
        if entry.repeats and entry.repeats not in boots:
            known = ", ".join(sorted(boots)) or "none"
            raise CorpusError(
                f"{file}: expected {entry.boot!r} to repeat a boot above it ({known}), got {entry.repeats!r}"
            )
        if not entry.repeats:
            boots.add(entry.boot)


def load_machine(directory: Path, shared: SharedContents) -> RecordedVM:
    """Return the machine recorded in a directory of a corpus.

    Raises
    ------
    CorpusError
        If its description cannot be read.
    """
    description, entries = read_vm_file(directory / VM_FILE)
    chain: list[Boot] = []
    for entry in entries:
        chain.append(
            Boot(
                *(directory.name, entry.boot, directory / entry.directory, entry.follows, entry.repeats),
                description,
                _previous=chain[-1] if chain else None,
                _contents=shared,
            )
        )
    return RecordedVM(directory.name, description, tuple(chain))


def load_machines(directory: Path) -> dict[str, RecordedVM]:
    """Return the machines recorded in a corpus, by name; nothing but their descriptions is read.

    Raises
    ------
    CorpusError
        If a description cannot be read.
    """
    shared = SharedContents(directory / CONTENTS_FILE)
    machines = [load_machine(file.parent, shared) for file in sorted(directory.glob(f"*/{VM_FILE}"))]
    return {machine.name: machine for machine in machines}


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
