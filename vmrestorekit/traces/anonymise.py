"""A corpus that can be shared: names and contents replaced by keyed hashes.

Hidden, equal by equal, so that whatever was joined by them still joins:

- *names*: each component of a path (of files, in references, of mount points), units, the kernel's version,
  which is a component of paths, names of logical volumes, and names of marks that nobody here knows;
- *packages*, of files and in descriptions;
- *machines* and lineages: a lineage that is another machine's name stays that;
- *contents*: the hash of each block's content (zeros stay zeros).

Each of the four has a key of its own: a machine or a package that is called as a folder is, is not seen to
be. Files are sorted anew, as the alphabet tells much of a name, and so are lists of packages and units.
Recordings are numbered (``boot-2``, ``boot-2-again``), as their names are anybody's choice.

Dropped: commands, digests and whatever else a description says, versions of unknown programs, what follows
the number in a known one's, and files in a corpus that are none of a recording, such as layouts of copies.

NOT hidden: sizes of disks, partitions and files, their kinds and file systems; offsets, lengths and times of
all requests; known marks; where each file lies, and so the order on the disk; how deep a file lies, which
files share a directory, a name or a package, and which lead to which others (a unit to a program, a program
to its libraries); which blocks are equal, within the corpus and with every corpus made with this key; which
machines are of one lineage; what came before a boot and which recording repeats it; which entries are a file
system's own (``$superblock``), and numbers of partitions in their names; what runs on which release
(``release`` and ``roles`` are kept word for word, for evaluations that hold them out, as are the texts
``recorder`` and ``accelerator``, which tell synthetic and converted traces from recorded ones); the numbers
of QEMU's version and ours. Who knows a system well may recognise it by these (an operating system's packages
by their sizes, say).

Lost to predictors: what they tell from the words in a path (programs, libraries, services), and that two
names differ in a number only.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vmrestorekit.traces.boots import Boot, RecordedVM
from vmrestorekit.traces.corpus import load_corpus
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, FILES_SCHEMA, Manifest, sorted_references
from vmrestorekit.traces.recording import add_boot
from vmrestorekit.traces.schema import ReadTrace, TraceMetadata
from vmrestorekit.traces.storage import CorpusError

__all__ = ["Anonymiser", "anonymise_corpus"]

_LEAST_KEY_BYTES = 16
_HASH_BYTES = 8
# predictors overlook numbers and what looks hexadecimal in a path, so hashes are written in other letters
_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")
_KEPT = ("release", "roles")
_MARKS = ("boot_done_ns", "service_start_ns", "service_end_ns")
_PROGRAMS = ("qemu", "vmrestorekit")
# a file system's own structure, and the mark of the partition and the logical volume that it is on
_STRUCTURE = re.compile(r"(\$\w+)(@.*)?")
_MARK = re.compile(r"(@\d+)(?:-(.+))?")
_FILE_SYSTEM = re.compile(r"(/.*|swap) ([a-z0-9]+(?: on LVM)?)")
_NUMBER = re.compile(r"\d+(\.\d+)*")


class Anonymiser:
    """Replaces names and contents by keyed hashes (BLAKE3), equal ones by equal ones.

    Parameters
    ----------
    secret : bytes
        At least 16 bytes that stay with the owner; the same secret gives the same hashes.

    Raises
    ------
    CorpusError
        If the secret is shorter.
    """

    def __init__(self, secret: bytes) -> None:
        from blake3 import blake3

        if len(secret) < _LEAST_KEY_BYTES:
            raise CorpusError(f"expected a key of at least {_LEAST_KEY_BYTES} bytes, got {len(secret)}")
        self._blake3 = blake3
        self._keys = {
            what: blake3(secret, derive_key_context=f"vmrestorekit anonymise {what}").digest()
            for what in ("names", "packages", "machines", "contents")
        }
        self._hashes: dict[tuple[str, str], str] = {}
        # sorted, and what stands for each; a block of zeros stays one
        self._contents = np.zeros(1, np.uint64)
        self._replaced = np.zeros(1, np.uint64)

    def name(self, name: str) -> str:
        """Return the hash that stands for a component of a path, such as a unit's name."""
        return self._hash("names", name)

    def package(self, package: str) -> str:
        """Return the hash that stands for a package."""
        return self._hash("packages", package)

    def machine(self, name: str) -> str:
        """Return the hash that stands for a machine or a lineage."""
        return self._hash("machines", name)

    def path(self, path: str) -> str:
        """Return a path with each component replaced; slashes, and the ``@1`` of a file system, stay."""
        first, *parts = path.split("/")
        return "/".join([self._mark(first), *(self.name(part) if part else "" for part in parts)])

    def contents(self, contents: pl.Series) -> pl.Series:
        """Return the hashes that stand for hashes of block contents.

        Raises
        ------
        CorpusError
            If two contents fall together; another key will not do that.
        """
        values = contents.to_numpy()
        new = np.setdiff1d(values, self._contents)
        if len(new):
            key = self._keys["contents"]
            digests = [
                self._blake3(value.tobytes(), key=key).digest(_HASH_BYTES) for value in new.astype("<u8")
            ]
            known = np.concatenate([self._contents, new])
            replaced = np.concatenate([self._replaced, np.frombuffer(b"".join(digests), "<u8")])
            if len(np.unique(replaced)) != len(replaced):
                raise CorpusError(
                    "expected different contents to stay different, got two alike: take another key"
                )
            order = np.argsort(known)
            self._contents, self._replaced = known[order], replaced[order].astype(np.uint64)
        return pl.Series(self._replaced[np.searchsorted(self._contents, values)], dtype=pl.UInt64)

    def manifest(self, manifest: Manifest) -> Manifest:
        """Return the same state of a disk with other contents, paths and packages, its files sorted anew."""
        entries = manifest.files.select("path", "kind").iter_rows()
        paths = [self._structure(path) if kind == "metadata" else self.path(path) for path, kind in entries]
        packages = [None if name is None else self.package(name) for name in manifest.files["package"]]
        files = manifest.files.with_row_index("row").with_columns(
            path=pl.Series(paths, dtype=pl.String), package=pl.Series(packages, dtype=pl.String)
        )
        files = files.sort("path", maintain_order=True)
        place = pl.Series(np.argsort(files["row"].to_numpy()), dtype=pl.Int32)
        blocks = manifest.blocks.with_columns(
            content=self.contents(manifest.blocks["content"]), file=place.gather(manifest.blocks["file"])
        )
        references = manifest.references.with_columns(
            pl.Series(name, [self.path(path) for path in manifest.references[name]], dtype=pl.String)
            for name in ("source", "target")
        )
        return Manifest(
            manifest.disk_bytes,
            blocks.select(*BLOCKS_SCHEMA),
            files.select(*FILES_SCHEMA),
            manifest.partitions,
            sorted_references(references),
        )

    def boot(self, boot: Boot, recording: str = "boot-1", repeats: str = "") -> Boot:
        """Return the same boot with its machine's name, metadata and manifests replaced.

        Parameters
        ----------
        boot : Boot
        recording, repeats : str
            What the recording, and the one that it repeats, are called from now on.
        """
        about = boot.metadata
        metadata = dataclasses.replace(
            about,
            vm=self.machine(about.vm),
            boot=recording,
            repeats=repeats,
            marks={name if name in _MARKS else self.name(name): at for name, at in about.marks.items()},
            versions=self._versions(about),
        )
        trace = ReadTrace(boot.trace.frame, metadata)
        return Boot.from_parts(trace, [self.manifest(manifest) for manifest in boot.manifests])

    def description(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a shared corpus says of a machine.

        Kept are ``release`` and ``roles``; ``lineage``, ``packages``, ``services``, ``kernel`` and the mount
        points in ``file_systems`` are replaced.
        """
        hidden = {key: description[key] for key in _KEPT if key in description}
        for key, what in (("lineage", "machines"), ("kernel", "names")):
            if description.get(key):
                hidden[key] = self._hash(what, str(description[key]))
        for key, what in (("packages", "packages"), ("services", "names")):
            if key in description:
                hidden[key] = sorted(self._hash(what, text) for text in _texts(description[key]))
        if "file_systems" in description:
            # what is written otherwise may say anything
            told = filter(None, map(_FILE_SYSTEM.fullmatch, _texts(description["file_systems"])))
            hidden["file_systems"] = sorted(f"{self._mount_point(each[1])} {each[2]}" for each in told)
        return hidden

    def _hash(self, what: str, text: str) -> str:
        if (what, text) not in self._hashes:  # a machine's states have most paths in common
            digest = self._blake3(text.encode(), key=self._keys[what]).digest(_HASH_BYTES)
            self._hashes[what, text] = digest.hex().translate(_LETTERS)
        return self._hashes[what, text]

    def _structure(self, path: str) -> str:
        match = _STRUCTURE.fullmatch(path)
        return f"{match[1]}{self._mark(match[2] or '')}" if match else self.path(path)

    def _mark(self, mark: str) -> str:
        match = _MARK.fullmatch(mark)
        if match is None:
            return self.name(mark) if mark else ""
        return f"{match[1]}-{self.name(match[2])}" if match[2] else match[1]

    def _mount_point(self, folder: str) -> str:
        return folder if folder == "swap" else self.path(folder)

    def _versions(self, about: TraceMetadata) -> dict[str, str]:
        numbers = {name: _NUMBER.match(about.versions.get(name, "")) for name in _PROGRAMS}
        versions = {name: number[0] for name, number in numbers.items() if number}
        kernel = about.versions.get("kernel")
        return versions | ({"kernel": self.name(kernel)} if kernel else {})


def anonymise_corpus(
    corpus: str | os.PathLike[str] | None, output: str | os.PathLike[str], key_file: str | os.PathLike[str]
) -> None:
    """Write a copy of a corpus that can be shared: names of all kinds and contents as keyed hashes.

    It has all recordings, and a catalogue. What is hidden, dropped and NOT hidden: see the module.

    Parameters
    ----------
    corpus : path-like or None
        Directory of a corpus; None: the one that comes with the package.
    output : path-like
        Directory that is not there yet; written whole or not at all.
    key_file : path-like
        Holds at least 16 random bytes, to be kept secret.

    Raises
    ------
    FileNotFoundError
        If there is no such key or corpus.
    CorpusError
        If the key is too short, the corpus cannot be read, or the output is there already.
    """
    output = Path(output)
    if output.exists():
        raise CorpusError(f"{output}: expected a directory that is not there yet, found one")
    try:
        anonymiser = Anonymiser(Path(key_file).read_bytes())
    except CorpusError as error:
        raise CorpusError(f"{key_file}: {error}") from error
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        # the shared table of contents grows machine by machine: not in the order of their names
        machines = load_corpus(corpus).values()
        for machine in sorted(machines, key=lambda machine: anonymiser.machine(machine.name)):
            _add_machine(partial, machine, anonymiser)
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _add_machine(corpus_dir: Path, machine: RecordedVM, anonymiser: Anonymiser) -> None:
    names = _numbered(machine.recordings)
    description = anonymiser.description(machine.description)
    for boot in machine.recordings:
        hidden = anonymiser.boot(boot, names[boot.boot], names[boot.repeats] if boot.repeats else "")
        add_boot(corpus_dir, hidden.trace, hidden.manifests, description)
    for boot in machine.recordings:
        boot.drop_manifests()  # those of all machines do not fit in memory


def _numbered(recordings: Sequence[Boot]) -> dict[str, str]:
    """Return what each recording is called from now on: as the lab calls it."""
    names: dict[str, str] = {}
    for recording in recordings:
        boots = sum(not name.endswith("-again") for name in names.values())
        name = names[recording.repeats] if recording.repeats else f"boot-{boots + 1}"
        while name in names.values():
            name += "-again"
        names[recording.boot] = name
    return names


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list | tuple) else [str(value)]
