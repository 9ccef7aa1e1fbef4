"""Which Debian package owns a file, by the lists that dpkg keeps."""

from __future__ import annotations

from vmrestorekit.backup.file_tree import FileTree

__all__ = ["package_owners"]

_LISTS = "/var/lib/dpkg/info"
_DIVERSIONS = "/var/lib/dpkg/diversions"


def package_owners(tree: FileTree) -> dict[str, str]:
    """Return the package that owns each file, by the path a manifest has for it; nothing without dpkg.

    A package is named without its architecture; of several that own a path (folders, above all) the first in
    sorted order is taken. A list may say ``/lib/x`` for what lies at ``/usr/lib/x``. A file that a package
    has diverted belongs to the package that brought it, where it lies now.
    """
    diversions = _diversions(tree)
    owners: dict[str, str] = {}
    folder = tree.resolve(_LISTS) or _LISTS
    # names with and without ":amd64" do not sort as those without do
    lists = [(name.removesuffix(".list").split(":")[0], name) for name in tree.names_in(folder)]
    for package, name in sorted(lists):
        if not name.endswith(".list"):
            continue
        for line in tree.lines(f"{folder}/{name}"):
            place = tree.place(line) if line.startswith("/") else None
            if place in diversions and diversions[place][1] != package:
                place = tree.place(diversions[place][0])
            if place in tree.files:
                owners.setdefault(tree.name(place), package)
    return owners


def _diversions(tree: FileTree) -> dict[str | None, tuple[str, str]]:
    """Return where the file of a path lies instead, and the package whose file may lie at the path.

    The file of dpkg has three lines for each: the path, where it was moved, and the package (``:`` for the
    administrator, none of whose files come from a package).
    """
    lines = tree.lines(_DIVERSIONS)
    return {
        tree.place(path): (moved, package)
        for path, moved, package in zip(lines[::3], lines[1::3], lines[2::3], strict=False)
        if path.startswith("/")
    }
