"""A corpus that can be shared: names and contents replaced by keyed hashes."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from vmrestorekit.traces.boots import Boot
from vmrestorekit.traces.corpus import load_corpus
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, FILES_SCHEMA, Manifest, sorted_references
from vmrestorekit.traces.recording import add_boot
from vmrestorekit.traces.schema import ReadTrace
from vmrestorekit.traces.storage import CorpusError

__all__ = ["Anonymiser", "anonymise_corpus"]

_LEAST_KEY_BYTES = 16
_NAME_DIGITS = 16  # hexadecimal: 64 bits
_KEPT = ("release", "roles")


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
        self._name_key = blake3(secret, derive_key_context="vmrestorekit anonymise names").digest()
        self._content_key = blake3(secret, derive_key_context="vmrestorekit anonymise contents").digest()
        self._contents = {0: 0}  # a block of zeros stays one

    def name(self, name: str) -> str:
        """Return the hash that stands for a name."""
        return self._blake3(name.encode(), key=self._name_key).hexdigest()[:_NAME_DIGITS]

    def path(self, path: str) -> str:
        """Return a path with each component replaced; what is not a name (the slashes) stays."""
        return "/".join(self.name(part) if part else "" for part in path.split("/"))

    def contents(self, contents: pl.Series) -> pl.Series:
        """Return the hashes that stand for hashes of block contents.

        Raises
        ------
        CorpusError
            If two contents fall together; another key will not do that.
        """
        for content in contents.unique().to_list():
            if content not in self._contents:
                digest = self._blake3(content.to_bytes(8, "little"), key=self._content_key).digest(8)
                self._contents[content] = int.from_bytes(digest, "little")
        if len(set(self._contents.values())) != len(self._contents):
            raise CorpusError(
                "expected different contents to stay different, got two alike: take another key"
            )
        known = np.array(list(self._contents), np.uint64)
        replaced = np.array(list(self._contents.values()), np.uint64)
        order = np.argsort(known)
        return pl.Series(replaced[order][np.searchsorted(known[order], contents.to_numpy())])

    def manifest(self, manifest: Manifest) -> Manifest:
        """Return the same state of a disk with other contents, paths and packages; ``$`` entries stay."""
        blocks = manifest.blocks.with_columns(content=self.contents(manifest.blocks["content"]))
        hidden = [
            path if kind == "metadata" and path.startswith("$") and "/" not in path else self.path(path)
            for path, kind in manifest.files.select("path", "kind").iter_rows()
        ]
        packages = [None if name is None else self.name(name) for name in manifest.files["package"]]
        files = manifest.files.with_columns(
            path=pl.Series(hidden, dtype=pl.String), package=pl.Series(packages, dtype=pl.String)
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

    def boot(self, boot: Boot) -> Boot:
        """Return the same boot, its machine's name and its manifests replaced."""
        metadata = dataclasses.replace(boot.metadata, vm=self.name(boot.vm))
        trace = ReadTrace(boot.trace.frame, metadata)
        return Boot.from_parts(trace, [self.manifest(manifest) for manifest in boot.manifests])


def anonymise_corpus(
    corpus: str | os.PathLike[str] | None, output: str | os.PathLike[str], key_file: str | os.PathLike[str]
) -> None:
    """Write a copy of a corpus that can be shared: paths, machines' names and contents as keyed hashes.

    Replaced, equal by equal: each component of a path, also in references between files, the names of
    packages and machines, the hash of each block's content (zeros stay zeros). Dropped: what the description
    says beyond ``release`` and ``roles``.

    NOT hidden: sizes of disks, partitions and files, their kinds and file systems; offsets, lengths and times
    of all requests; how deep a file lies, which files share a directory, a name or a package, and which lead
    to which others (a unit to a program, a program to its libraries); which blocks are equal, within the
    corpus and with every corpus made with this key; which entries are a file system's own (named ``$…``);
    names of boots, release, roles, marks, and versions of programs. Who knows a system well may recognise it
    by these (an operating system's packages by their sizes, say).

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
        for machine in load_corpus(corpus).values():
            kept = {name: machine.description[name] for name in _KEPT if name in machine.description}
            for boot in machine.boots:
                hidden = anonymiser.boot(boot)
                add_boot(partial, hidden.trace, hidden.manifests, kept)
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
