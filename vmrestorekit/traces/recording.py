"""Adding a recorded boot to a corpus, so that a crash leaves the old corpus or the new one, never half.

Everything is written under names that nobody reads yet; the machine's ``vm.toml``, which lists its boots, is
replaced last. What a crash left behind is unlisted, and goes when the machine's next boot is added. The
catalogue, which is derived, is taken away before that and written anew after it: it is right, or not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from vmrestorekit.traces.boots import (
    CONTENTS_FILE,
    TRACE_FILE,
    VM_FILE,
    Boot,
    RecordedVM,
    SharedContents,
    StoredBoot,
    expect_known_repeats,
    expect_manifests_of,
    load_machine,
    load_machines,
    read_vm_file,
)
from vmrestorekit.traces.catalog import CATALOG_FILE, build_catalog, read_catalog
from vmrestorekit.traces.manifest import Manifest
from vmrestorekit.traces.schema import ReadTrace, TraceError, validate_trace, write_parquet_atomically
from vmrestorekit.traces.storage import BlockStates, ContentTable, CorpusError, save_state

__all__ = ["add_boot", "rebuild_catalog"]


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
        Its metadata names the machine and the boot, and the boot of which it is another recording, if any.
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


def rebuild_catalog(corpus_dir: str | os.PathLike[str]) -> pl.DataFrame:
    """Write the catalogue of a corpus anew from its machines, and return it.

    Raises
    ------
    FileNotFoundError
        If there is no corpus.
    CorpusError, TraceError
        If a machine's description or a trace cannot be read.
    """
    directory = Path(corpus_dir)
    if not directory.is_dir():
        raise FileNotFoundError(f"expected a corpus of recorded boots at {directory}, found no directory")
    with _locked(directory):
        machines = load_machines(directory)
        if not machines:
            raise FileNotFoundError(f"expected a corpus of recorded boots at {directory}, found none there")
        catalog = build_catalog(machines)
        write_parquet_atomically(catalog, directory / CATALOG_FILE)
    return catalog


def _add(directory: Path, new: Boot, description: Mapping[str, Any], replace: bool) -> None:
    machine = directory / new.vm
    listed: tuple[StoredBoot, ...] = ()
    if (machine / VM_FILE).exists():
        known_description, listed = read_vm_file(machine / VM_FILE)
        description = description or known_description
    entries = {entry.boot: entry for entry in listed}
    if new.boot in entries and not replace:
        raise CorpusError(
            f"{directory}: boot {new.boot!r} of {new.vm!r} is there already; replace it or name it anew"
        )
    used = {entry.directory for entry in listed}
    entries[new.boot] = StoredBoot(new.boot, "", new.follows, new.repeats)
    expect_known_repeats(tuple(entries.values()), machine / VM_FILE)
    _to_toml(description, entries.values())  # says now whether the description can be written
    stored = load_machine(machine, SharedContents(directory / CONTENTS_FILE)).recordings if listed else ()
    boots = [new if boot.boot == new.boot else boot for boot in stored]
    if len(boots) < len(entries):
        boots.append(new)
    _expect_same_state(new, boots)
    place = boots.index(new)
    # the boot after a replaced one stores changes since it, so it is written anew too
    rewritten = range(place, min(place + 2, len(boots)))

    table = _extend_contents(directory / CONTENTS_FILE, new.manifests)
    for number in rewritten:
        name = _unused_name(boots[number].boot, used)
        _write_boot(machine / name, boots[number], boots[number - 1] if number else None, table)
        entries[boots[number].boot] = dataclasses.replace(entries[boots[number].boot], directory=name)
        used.add(name)
    catalog = _take_away_catalog(directory)
    _write_text_atomically(machine / VM_FILE, _to_toml(description, entries.values()))
    _put_back_catalog(directory, catalog, RecordedVM(new.vm, description, tuple(boots)))
    kept = {entry.directory for entry in entries.values()}
    for leftover in machine.iterdir():
        if leftover.is_dir() and leftover.name not in kept:
            shutil.rmtree(leftover)


def _expect_same_state(new: Boot, boots: Sequence[Boot]) -> None:
    for boot in boots:
        if boot.boot == new.repeats and not new.has_state_of(boot):
            raise CorpusError(
                f"{new.vm} {new.boot}: expected the state of the disks before {boot.boot}, of which it is "
                "another recording, got another state"
            )


def _take_away_catalog(directory: Path) -> pl.DataFrame | None:
    """Remove the catalogue, for it is about to be wrong, and return it unless it cannot be read."""
    path = directory / CATALOG_FILE
    try:
        return read_catalog(path)
    except (CorpusError, FileNotFoundError):
        return None
    finally:
        path.unlink(missing_ok=True)
        _sync_directory(directory)


def _put_back_catalog(directory: Path, catalog: pl.DataFrame | None, machine: RecordedVM) -> None:
    # the boot is added by now; damage elsewhere, which `find_problems` names, is no failure of that
    with contextlib.suppress(CorpusError, TraceError, FileNotFoundError):
        if catalog is None:
            catalog = build_catalog(load_machines(directory))
        else:
            others = catalog.filter(pl.col("vm") != machine.name)
            changed = build_catalog({machine.name: machine})
            catalog = pl.concat([others, changed]).sort("vm", maintain_order=True)
        write_parquet_atomically(catalog, directory / CATALOG_FILE)


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


def _unused_name(boot: str, used: set[str]) -> str:
    candidates = [boot, *(f"{boot}+{number}" for number in range(2, len(used) + 3))]
    return next(name for name in candidates if name not in used)


def _to_toml(description: Mapping[str, Any], entries: Iterable[StoredBoot]) -> str:
    lines = ["[description]"]
    lines += [f"{_toml_value(key)} = {_toml_value(value)}" for key, value in description.items()]
    for entry in entries:
        told = {key: value for key, value in dataclasses.asdict(entry).items() if value}
        lines += ["", "[[boots]]", *(f"{key} = {_toml_value(value)}" for key, value in told.items())]
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
