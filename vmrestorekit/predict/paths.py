"""Paths as they are comparable between machines: without versions, random names and compression suffixes."""

from __future__ import annotations

import polars as pl

__all__ = ["OVERLOOKED", "PATH_CLASSES", "canonical", "path_class"]

# a machine's own random names, then versions
OVERLOOKED = (r"[0-9a-f]{8}[0-9a-f-]*", r"[0-9]+")

# what Debian's releases call the same thing by different names, in the order of replacement
_SAME_THING = (
    (r"^@[^/]*", ""),  # the partition or volume in front of a path that is not the system's own
    (r"@[^/]*$", ""),
    # a kernel's version and flavour: 6.1.0-50-cloud-amd64, 6.12.117+deb13-amd64
    (r"(/modules/|/vmlinuz-|/initrd\.img-|/config-|/System\.map-)[0-9][^/]*", "${1}#"),
    (r"\.(xz|zst|gz)$", ""),
    (r"^/(lib|bin|sbin|lib64)/", "/usr/$1/"),  # merged since Debian 12
)

# what a path says of its file's purpose: the first pattern that fits counts; what the file system keeps for
# itself is told apart by name
PATH_CLASSES = (
    ("kernel", r"^/boot/vmlinuz"),
    ("initrd", r"^/boot/initrd"),
    ("boot", r"^/boot/"),
    ("module", r"/lib/modules/.*\.ko"),
    ("module_index", r"/lib/modules/"),
    ("library", r"\.so(\.[0-9.]+)?$|/ld-linux"),
    ("program", r"/s?bin/"),
    ("unit", r"/systemd/.*\.(service|target|socket|timer|mount|path|slice)(\.d/.*)?$"),
    ("udev", r"/udev/"),
    ("systemd", r"/lib/systemd/"),
    ("python", r"/lib/python3"),
    ("perl", r"/perl5?/"),
    ("node", r"/nodejs/"),
    ("under_lib", r"^/usr/lib/"),
    ("documentation", r"/locale/|/i18n/|/doc/|/man/|/info/"),
    ("under_share", r"^/usr/share/"),
    ("configuration", r"^/etc/"),
    ("log", r"/var/log/"),
    ("package_lists", r"/var/lib/dpkg|/var/lib/apt|/var/cache"),
    ("state", r"/var/lib/"),
    ("data", r"/srv/|/home/|/var/www|/var/mail"),
    ("boot_loader", r"^\$boot"),
    ("superblock", r"^\$superblock"),
    ("group_descriptors", r"^\$group_descriptors"),
    ("block_bitmap", r"^\$block_bitmap"),
    ("inode_bitmap", r"^\$inode_bitmap"),
    ("inode_table", r"^\$inode_table"),
    ("extents", r"^\$extents"),
    ("journal", r"^\$journal"),
    ("free_space", r"^\$free_space"),
    ("inode_index", r"^\$inode_index"),
    ("attributes", r"^\$attributes"),
    ("btrfs_trees", r"^\$btrfs"),
    ("metadata", r"^\$"),
)


def canonical(path: pl.Expr) -> pl.Expr:
    """Return a path with what differs between releases and machines taken out; numbers become ``#``."""
    for pattern, same in _SAME_THING:
        path = path.str.replace(pattern, same)
    for pattern in OVERLOOKED:
        path = path.str.replace_all(pattern, "#")
    return path


def path_class(path: pl.Expr) -> pl.Expr:
    """Return the number of the first of `PATH_CLASSES` that fits a path, or their count if none does."""
    found = pl.lit(len(PATH_CLASSES), pl.Int16)
    for number in range(len(PATH_CLASSES) - 1, -1, -1):
        found = (
            pl.when(path.str.contains(PATH_CLASSES[number][1]))
            .then(pl.lit(number, pl.Int16))
            .otherwise(found)
        )
    return found
