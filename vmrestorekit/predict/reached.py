"""What a machine's units, programs and libraries refer to: what a boot is bound to come to.

Files refer to each other (`vmrestorekit.traces.manifest.REFERENCE_KINDS`). From the default target the
enabled units are reached, from these the programs that they start, from these the libraries that they load.
"""

from __future__ import annotations

import collections
import enum
import re

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.traces.large_manifest import LargeManifest
from vmrestorekit.traces.manifest import REFERENCE_KINDS, Manifest

__all__ = ["FAR", "Reached", "edges_between_files", "enabled_services", "likelihood_of_use", "reached_files"]

FAR = 99  # steps to what is not reached
_USE = tuple(REFERENCE_KINDS.index(kind) for kind in ("starts", "loads"))
# what a boot starts without a unit that says so
_STARTED_FIRST = (
    *("systemd/systemd", "systemd/systemd-udevd"),
    *("bash", "dash", "sh", "udevadm"),
)
_FIRST = re.compile(
    rf"(/usr)?/(lib|bin)/({'|'.join(_STARTED_FIRST)})|(/usr)?/lib/systemd/system-generators/[^/]+"
)
_DEFAULT_TARGET = re.compile(r"(@[^/]*)?/etc/systemd/system/default\.target")
# services that every machine has tell nothing
_EVERYWHERE = ("systemd", "dbus", "user", "getty", "vmrestorekit", "rc-")
# how far a file is sure to be read if what refers to it is; a bit less than certain, so that chains fade
_FADE = 0.98
_LONGEST_CHAIN = 16


class Reached(enum.IntEnum):
    """How a file is reached: by which kind of reference."""

    ENABLED = 1
    STARTED = 2
    LOADED = 3
    LINKED = 4


_BY_KIND = {"enables": Reached.ENABLED, "starts": Reached.STARTED, "loads": Reached.LOADED}


def reached_files(manifest: Manifest | LargeManifest) -> dict[str, tuple[Reached, int]]:
    """Return how each path is reached from the default target (see `Reached`), and in how many steps."""
    targets = collections.defaultdict(list)
    for source, kind, target in manifest.references.iter_rows():
        if kind != "needs_module":  # an index of all modules names what no boot loads
            targets[source].append((kind, target))
    found = {source: (Reached.ENABLED, 0) for source in targets if _DEFAULT_TARGET.fullmatch(source)}
    if found:
        found |= {source: (Reached.STARTED, 0) for source in targets if _FIRST.fullmatch(source)}
    waiting = collections.deque(found)
    while waiting:
        source = waiting.popleft()
        how, steps = found[source]
        named = [(_BY_KIND.get(kind, how), target) for kind, target in targets[source]]
        template = source.removesuffix(".service") + "@.service"
        if how == Reached.ENABLED and template in targets:
            # which instances run is decided while booting, such as postgresql@15-main.service
            named.append((Reached.ENABLED, template))
        for way, target in named:
            if target not in found:
                found[target] = (way, steps + 1)
                waiting.append(target)
    return found


def enabled_services(reached: dict[str, tuple[Reached, int]]) -> list[str]:
    """Return the names of the services that a machine has and not every one does, without numbers, sorted."""
    units = (
        path.rsplit("/", 1)[1].removesuffix(".service").rstrip("@")
        for path, (how, _) in reached.items()
        if how == Reached.ENABLED and path.endswith(".service")
    )
    names = {re.sub(r"[0-9]+$", "", unit) for unit in units}
    return sorted(name for name in names if len(name) > 2 and not name.startswith(_EVERYWHERE))


def edges_between_files(manifest: Manifest | LargeManifest) -> npt.NDArray[np.int32]:
    """Return the references that say what is used, ``(source, target)`` as rows of the table of files."""
    files = manifest.files.select("path", row=pl.int_range(pl.len(), dtype=pl.Int32)).unique(
        "path", keep="first"
    )
    used = [REFERENCE_KINDS[kind] for kind in _USE]
    edges = (
        manifest.references.filter(pl.col("kind").is_in(used))
        .join(files.rename({"path": "source", "row": "from"}), on="source")
        .join(files.rename({"path": "target", "row": "to"}), on="target")
        .select("from", "to")
        .sort("from", "to")
    )
    return edges.to_numpy().astype(np.int32).reshape(-1, 2)


def likelihood_of_use(
    edges: npt.NDArray[np.int32], probability: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return what the probabilities that files are read say of the files that they use.

    Parameters
    ----------
    edges : ndarray of int32, shape (e, 2)
        See `edges_between_files`.
    probability : ndarray of float32, shape (files,)

    Returns
    -------
    ndarray of float32, shape (files, 5)
        The highest probability of what uses a file, over any chain; of what uses it at once; their sum;
        their count; and the highest probability of what the file itself uses.
    """
    count = probability.size
    source, target = edges[:, 0], edges[:, 1]
    chain = np.zeros(count, np.float32)
    for _ in range(_LONGEST_CHAIN):
        longer = chain.copy()
        np.maximum.at(longer, target, np.float32(_FADE) * np.maximum(probability, chain)[source])
        if np.array_equal(longer, chain):
            break
        chain = longer
    user, used = np.zeros(count, np.float32), np.zeros(count, np.float32)
    np.maximum.at(user, target, probability[source])
    np.maximum.at(used, source, probability[target])
    total = np.bincount(target, probability[source], count)
    users = np.bincount(target, minlength=count)
    columns = (chain, user, np.minimum(total, 20), np.minimum(users, 50), used)
    return np.column_stack(columns).astype(np.float32)
