"""Adding a recorded boot to a corpus, so that a crash leaves the old corpus or the new one, never half.

Everything is written under names that nobody reads yet; the machine's ``vm.toml``, which lists its boots, is
replaced last. What a crash left behind is unlisted, and goes when the machine's next boot is added.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmrestorekit.traces.boots import (
    CONTENTS_FILE,
    TRACE_FILE,
    VM_FILE,
    Boot,
    SharedContents,
    expect_manifests_of,
    load_machine,
    read_vm_file,
)
from vmrestorekit.traces.manifest import Manifest
from vmrestorekit.traces.schema import ReadTrace, validate_trace
from vmrestorekit.traces.storage import BlockStates, ContentTable, CorpusError, save_state

__all__ = ["add_boot"]


def add_boot(
    corpus_dir: str | os.PathLike[str],
    trace: ReadTrace,
    manifests: Sequence[Manifest],
    description: Mapping[str, Any],
    *,
    replace: bool = False,
) -> None:
    """Add a recorded boot to a corpus, which is created if it is not there.

    Parameters
    ----------
    corpus_dir : path-like
        Directory of the corpus.
    trace : ReadTrace
        Its metadata names the machine and the boot.
    manifests : sequence of Manifest
        The state of each disk before this boot.
    description : mapping
        Of the machine: ``release``, ``roles`` and whatever else is worth noting, as text, numbers, truth
        values and lists of these. Replaces an earlier one; an empty one keeps it.
    replace : bool
        Whether a boot of this name that is there already is replaced, in its place in the order.

    Raises
    ------
    CorpusError, TraceError
        If the boot is there already, or something does not fit.
    """
    directory, about = Path(corpus_dir), trace.metadata
    for what, name in (("machine", about.vm), ("boot", about.boot)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise CorpusError(f"expected a {what}'s name of letters, digits, '.', '_' and '-', got {name!r}")
    validate_trace(trace.frame, about, source=f"{about.vm} {about.boot}")
    expect_manifests_of(trace, tuple(manifests), source=f"{about.vm} {about.boot}")
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        _add(directory, Boot.from_parts(trace, tuple(manifests)), description, replace)


def _add(directory: Path, new: Boot, description: Mapping[str, Any], replace: bool) -> None:
    machine = directory / new.vm
    known: dict[str, str] = {}
    if (machine / VM_FILE).exists():
        known_description, known = read_vm_file(machine / VM_FILE)
        description = description or known_description
    if new.boot in known and not replace:
        raise CorpusError(
            f"{directory}: boot {new.boot!r} of {new.vm!r} is there already; replace it or name it anew"
        )
    _to_toml(description, known)  # says now whether the description can be written
    shared = SharedContents(directory / CONTENTS_FILE)
    stored = load_machine(machine, shared).boots if known else ()
    boots = [new if boot.boot == new.boot else boot for boot in stored]
    if new.boot not in known:
        boots.append(new)
    place = boots.index(new)
    # the boot after a replaced one stores changes since it, so it is written anew too
    rewritten = range(place, min(place + 2, len(boots)))

    table = _extend_contents(directory / CONTENTS_FILE, new.manifests)
    for number in rewritten:
        name = _unused_name(machine, boots[number].boot, known)
        _write_boot(machine / name, boots[number], boots[number - 1] if number else None, table)
        known[boots[number].boot] = name
    _write_text_atomically(machine / VM_FILE, _to_toml(description, known))
    for leftover in machine.iterdir():
        if leftover.is_dir() and leftover.name not in known.values():
            shutil.rmtree(leftover)


def _extend_contents(path: Path, manifests: Sequence[Manifest]) -> ContentTable:
    before = ContentTable.load(path) if path.exists() else ContentTable.empty()
    table = before.with_contents(np.concatenate([BlockStates.of(manifest).content for manifest in manifests]))
    if table is not before or not path.exists():
        table.save(path)
    return table


def _write_boot(directory: Path, boot: Boot, previous: Boot | None, table: ContentTable) -> None:
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)  # unlisted: a crash left it
    partial.mkdir(parents=True)
    boot.trace.save(partial / TRACE_FILE)
    bases = previous.manifests if previous else ()
    for disk, manifest in enumerate(boot.manifests):
        base = bases[disk] if disk < len(bases) else None
        base_boot = previous.boot if previous and base else None
        save_state(partial / f"disk{disk}", manifest, base, base_boot, table)
    _sync_directory(partial)
    os.replace(partial, directory)
    _sync_directory(directory.parent)


def _unused_name(machine: Path, boot: str, known: Mapping[str, str]) -> str:
    candidates = [boot, *(f"{boot}+{number}" for number in range(2, len(known) + 3))]
    return next(name for name in candidates if name not in known.values())


def _to_toml(description: Mapping[str, Any], boots: Mapping[str, str]) -> str:
    lines = ["[description]"]
    lines += [f"{_toml_value(key)} = {_toml_value(value)}" for key, value in description.items()]
    for boot, directory in boots.items():
        lines += ["", "[[boots]]", f"boot = {_toml_value(boot)}", f"directory = {_toml_value(directory)}"]
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    """Write text, numbers, truth values and lists of them, for which TOML and JSON agree but for one sign."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if not isinstance(value, str | int | float):
        raise CorpusError(f"expected a description of text, numbers, truth values and lists, got {value!r}")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_text_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time extend the corpus (where the system has flock)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
