"""Checking a whole corpus, or one trace file."""

from __future__ import annotations

import os
from pathlib import Path

from vmrestorekit.traces.boots import VM_FILE, RecordedVM, read_vm_file
from vmrestorekit.traces.catalog import CATALOG_FILE, build_catalog, lists, read_catalog
from vmrestorekit.traces.corpus import Corpus, load_corpus, packaged_corpus_directory
from vmrestorekit.traces.schema import ReadTrace
from vmrestorekit.traces.storage import CorpusError

__all__ = ["find_problems"]


def find_problems(path: str | os.PathLike[str] | None = None) -> list[str]:
    """Read everything in a corpus, or one trace file, and return a sentence for each thing that is wrong.

    Parameters
    ----------
    path : path-like, optional
        Directory of a corpus or a trace file; default: the corpus that comes with the package.
    """
    try:
        directory = packaged_corpus_directory() if path is None else Path(path)
        if not directory.is_dir():
            ReadTrace.load(directory)
            return []
        corpus = load_corpus(directory)
    except (ValueError, OSError) as error:
        return [str(error)]
    problems = []
    for machine in corpus.values():
        problems += _problems_of(machine, directory)
        problems += _unlisted(directory / machine.name)
    problems += _catalog_problems(corpus, directory / CATALOG_FILE)
    return list(dict.fromkeys(problems))  # a damaged base breaks all that build on it, in the same words


def _problems_of(machine: RecordedVM, directory: Path) -> list[str]:
    problems = []
    for boot in machine.recordings:
        try:
            _ = boot.trace
            _ = boot.manifests
            if boot.repeats and not boot.has_state_of(machine.boot(boot.repeats)):
                problems.append(
                    f"{boot.path}: expected the state of the disks before {boot.repeats}, of which it is "
                    "another recording, got another state"
                )
        except (ValueError, OSError) as error:
            problems.append(str(error))
    for boot in machine.recordings:
        boot.drop_manifests()  # those of all machines do not fit in memory
    return problems


def _unlisted(folder: Path) -> list[str]:
    listed = {entry.directory for entry in read_vm_file(folder / VM_FILE)[1]}
    return [
        f"{folder / entry}: not listed in {VM_FILE}, perhaps left by a crash"
        for entry in sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        if entry not in listed
    ]


def _catalog_problems(corpus: Corpus, path: Path) -> list[str]:
    """Compare the stored catalogue, if any, with the recordings that can be read."""
    mend = f"build it anew with: vmrestorekit traces catalog --rebuild --corpus {path.parent}"
    try:
        stored = read_catalog(path)
    except FileNotFoundError:
        return []  # as in older corpora
    except CorpusError as error:
        return [f"{error}; {mend}"]
    if not lists(stored, corpus):
        return [f"{path}: expected the recordings of the machines as their {VM_FILE} lists them; {mend}"]
    problems = []
    for number, boot in enumerate(corpus.recordings):
        try:
            right = build_catalog({boot.vm: RecordedVM(boot.vm, corpus[boot.vm].description, (boot,))})
        except (ValueError, OSError):
            continue  # said already
        wrong = [name for name in right.columns if not stored[number][name].equals(right[name])]
        if wrong:
            problems.append(
                f"{path}: row {number} ({boot.vm} {boot.boot}): expected {wrong[0]!r} as in its trace, "
                f"{right[0, wrong[0]]!r}, got {stored[number, wrong[0]]!r}; {mend}"
            )
    return problems
