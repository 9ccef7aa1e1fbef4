"""What the references of a manifest tell of a machine's boot."""

from __future__ import annotations

import re
from collections import defaultdict

import polars as pl

from vmrestorekit.traces.manifest import Manifest

__all__ = ["enabled_units"]

# the root may be a marked file system of the disk
_DEFAULT_TARGET = re.compile(r"(@[^/]*)?/etc/systemd/system/default\.target")


def enabled_units(manifest: Manifest) -> list[str]:
    """Return the names of the units that a boot pulls in, as far as files on the disk say.

    Followed are the references "enables" from the default target on. What sockets, timers, devices and
    generators start is not among them. An instance counts as its template (``getty@.service``).

    Parameters
    ----------
    manifest : Manifest
        One without references, and one whose paths were replaced, has no such units.

    Returns
    -------
    list of str
        Sorted; the default target itself is among them under its own name, such as ``graphical.target``.
    """
    pulled_in: dict[str, list[str]] = defaultdict(list)
    rows = manifest.references.filter(pl.col("kind") == "enables").select("source", "target")
    for source, target in rows.iter_rows():
        pulled_in[source].append(target)
    reached = {source for source in pulled_in if _DEFAULT_TARGET.fullmatch(source)}
    start, pending = set(reached), list(reached)
    while pending:
        for target in pulled_in.get(pending.pop(), ()):
            if target not in reached:
                reached.add(target)
                pending.append(target)
    return sorted({path.rpartition("/")[2] for path in reached - start})
