"""Checking a whole corpus, or one trace file."""

from __future__ import annotations

import os
from pathlib import Path

from vmrestorekit.traces.boots import VM_FILE, read_vm_file
from vmrestorekit.traces.corpus import load_corpus, packaged_corpus_directory
from vmrestorekit.traces.schema import ReadTrace

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
    for boot in corpus.boots:
        try:
            _ = boot.trace
            _ = boot.manifests
        except (ValueError, OSError) as error:
            problems.append(str(error))
    for name in corpus:
        listed = set(read_vm_file(directory / name / VM_FILE)[1].values())
        unlisted = sorted(entry.name for entry in (directory / name).iterdir() if entry.is_dir())
        problems += [
            f"{directory / name / entry}: not listed in {VM_FILE}, perhaps left by a crash"
            for entry in unlisted
            if entry not in listed
        ]
    return list(dict.fromkeys(problems))  # a damaged base breaks all that build on it, in the same words
