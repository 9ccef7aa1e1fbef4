"""Which files lead to which others: what a boot that reads the one may read next.

Of Python that is, for a script or a module, what it imports.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import polars as pl

from vmrestorekit.backup.file_tree import FileTree, Reference
from vmrestorekit.backup.imports import python_references
from vmrestorekit.backup.loads import find_programs, load_references
from vmrestorekit.backup.units import Units, unit_commands, unit_references
from vmrestorekit.traces.manifest import REFERENCES_SCHEMA, sorted_references

__all__ = ["find_references"]

_MODULES = "/lib/modules"


def find_references(tree: FileTree) -> pl.DataFrame:
    """Return what the files of a system say of each other.

    What cannot be resolved is left out, and so is what a damaged file says; only what reading the disk
    raises comes through.

    Returns
    -------
    polars.DataFrame
        `REFERENCES_SCHEMA`, sorted and unique, with paths as in the files of a manifest.
    """
    # read once for all that asks for them: of a backup copy it costs decompression
    programs, units = find_programs(tree), Units(tree)
    found = itertools.chain(
        unit_references(tree, units),
        load_references(tree, programs),
        python_references(tree, programs, unit_commands(units)),
        _module_references(tree),
        _link_references(tree),
    )
    named = {(tree.name(source), kind, tree.name(target)) for source, kind, target in found}
    return sorted_references(pl.DataFrame(sorted(named), schema=REFERENCES_SCHEMA, orient="row"))


def _module_references(tree: FileTree) -> Iterator[Reference]:
    """Give what depmod wrote: each kernel module and those that have to be loaded before it."""
    top = tree.resolve(_MODULES)
    for version in tree.names_in(top) if top else ():
        folder = f"{top}/{version}"
        for line in tree.lines(f"{folder}/modules.dep"):
            module, _, needed = line.partition(":")
            source = tree.resolve(module, folder)
            for name in needed.split():
                target = tree.resolve(name, folder)
                if source and target:
                    yield source, "needs_module", target


def _link_references(tree: FileTree) -> Iterator[Reference]:
    for path, file in tree.files.items():
        if file.kind == "symlink" and (target := tree.resolve(path)):
            yield path, "links", target
