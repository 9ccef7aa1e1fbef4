"""Which package owns a file, against dpkg-query on the folder that the image was made from."""

from __future__ import annotations

import os

import polars as pl
import pytest
from linux_disks import elf, image_of, merged_usr, write_tree
from store_helpers import MIB, need, run

from vmrestorekit.backup.manifest import build_manifest, build_manifests, describe_manifest

INFO = "/var/lib/dpkg/info"
LISTS = {
    "alpha.list": "/.\n/usr\n/usr/bin\n/usr/bin/alpha\n/usr/share\n/usr/share/doc\n/usr/share/doc/a\n",
    "alpha-data.list": "/.\n/usr\n/usr/share\n/usr/share/doc\n/usr/share/doc/b\n/usr/bin/given-away\n",
    "beta:amd64.list": "/.\n/lib\n/lib/beta\n/lib/beta/so\n/bin\n/bin/beta\n/etc\n/etc/beta.conf\n",
    "beta-tools.list": "/usr/bin/given-away\n/usr/bin/beta-tool\n/usr/bin/is not there\n",
    "alpha.md5sums": "0123  usr/bin/nobody\n",
}
FILES = {
    "/usr/bin/alpha": "alpha",
    "/usr/bin/nobody": "nobody's",
    "/usr/bin/given-away": "by beta-tools",
    "/usr/bin/given-away.alpha": "by alpha-data",
    "/usr/bin/beta-tool": "tool",
    "/usr/share/doc/a": "a",
    "/usr/share/doc/b": "b",
    "/usr/bin/beta": "beta",
    "/usr/lib/beta/so": "so",
    "/etc/beta.conf": "conf",
}
DIVERSIONS = "/usr/bin/given-away\n/usr/bin/given-away.alpha\nbeta-tools\n"


def owners_of(image):
    return dict(build_manifest(image).files.select("path", "package").iter_rows())


@pytest.fixture
def root(tmp_path):
    status = "".join(
        f"Package: {name.split('.')[0].split(':')[0]}\nStatus: install ok installed\nArchitecture: amd64\n"
        f"Version: 1\nMaintainer: x\nDescription: x\n{'Multi-Arch: same' if ':' in name else 'Tag: x'}\n\n"
        for name in LISTS
        if name.endswith(".list")
    )
    root = merged_usr(tmp_path / "root")
    dpkg = {"/var/lib/dpkg/status": status, "/var/lib/dpkg/diversions": DIVERSIONS, f"{INFO}/format": "1\n"}
    return write_tree(root, FILES | dpkg | {f"{INFO}/{name}": text for name, text in LISTS.items()})


def test_owners_are_those_that_dpkg_tells(root, tmp_path):
    need("dpkg-query", "dpkg-divert")
    found = owners_of(image_of(root, tmp_path / "disk.img"))
    checked = 0
    for path, owner in found.items():
        if "given-away" in path:  # dpkg-query names all of its packages, and the diversion beside them
            continue
        # dpkg knows a file under the path of the list only
        names = [path, path.removeprefix("/usr")] if path.startswith(("/usr/bin/b", "/usr/lib/b")) else [path]
        told = [line for name in names for line in dpkg_search(root, name)]
        if not told:
            assert owner is None or path == "/", path
            continue
        assert owner == min(package for line in told for package in packages_in(line)), path
        checked += 1
    assert checked >= 12
    truename = run("dpkg-divert", f"--admindir={root}/var/lib/dpkg", "--truename", "/usr/bin/given-away")
    assert found[truename.strip()] == "alpha-data"
    assert found["/usr/bin/given-away"] == "beta-tools"
    assert found["/usr/lib/beta/so"] == found["/usr/bin/beta"] == "beta"  # not beta:amd64
    assert found["/usr/share/doc"] == "alpha"  # of two the first
    assert found["/usr/bin/nobody"] is None


def dpkg_search(root, path):
    try:
        text = run("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-S", path)
    except Exception:  # dpkg-query fails where it finds none
        return []
    return [line for line in text.splitlines() if line.endswith(f": {path}") and "diversion by" not in line]


def packages_in(line):
    return [package.split(":")[0] for package in line.rpartition(": ")[0].split(", ")]


def test_a_file_with_several_names_has_an_owner_by_any(root, tmp_path):
    os.link(root / "usr/bin/beta-tool", root / "usr/bin/another-name")
    assert owners_of(image_of(root, tmp_path / "disk.img"))["/usr/bin/another-name"] == "beta-tools"


def test_the_description_counts_files_and_packages(root, tmp_path):
    manifest = build_manifest(image_of(root, tmp_path / "disk.img"))
    told = describe_manifest(manifest)
    assert told["packages"] == 4
    assert told["files_of_packages"] == manifest.files["package"].is_not_null().sum() > 12


def test_a_disk_without_dpkg_and_one_with_strange_lists(tmp_path):
    plain = merged_usr(tmp_path / "plain")
    write_tree(plain, {"/usr/bin/tool": "tool"})
    assert set(owners_of(image_of(plain, tmp_path / "plain.img")).values()) == {None}
    strange = {
        f"{INFO}/noise.list": bytes(range(256)) * 40,
        f"{INFO}/relative.list": "usr/bin/tool\n../tool\n\n",
        f"{INFO}/dots.list": "/..\n/usr/../usr/bin/./tool\n/usr/bin/tool/more\n//usr//bin//tool\n",
        "/var/lib/dpkg/diversions": "/a\n/b\n",
    }
    (tmp_path / "again").mkdir()
    again = write_tree(merged_usr(tmp_path / "again"), strange | {"/usr/bin/tool": "tool"})
    found = owners_of(image_of(again, tmp_path / "again.img"))
    assert found["/usr/bin/tool"] == "dots"


def test_what_a_second_partition_holds_belongs_to_where_it_is_mounted(tmp_path):
    """/boot by its UUID and /srv by its device; a file under a mount point cannot be seen."""
    need("sfdisk", "mke2fs")
    identifier = "01234567-89ab-cdef-0123-456789abcdef"
    boot = write_tree(tmp_path / "boot", {"/vmlinuz": "kernel", "/grub/grub.cfg": "menu"})
    data = write_tree(
        tmp_path / "data",
        {"/page": "text", "/load": elf(["/srv/lib.so"]), "/lib.so": elf([])},
        {"/tool": "/usr/bin/alpha"},
    )
    root = merged_usr(tmp_path / "root")
    lines = "/.\n/boot\n/boot/vmlinuz\n/boot/hidden\n/srv/page\n/usr/bin/alpha\n"
    fstab = (
        f"# <file system>\nUUID={identifier.upper()} /boot ext4 defaults 0 2\n/dev/vda3 /srv ext4 rw 0 2\n"
    )
    fstab += "UUID=\nnone\n/dev/sda9 /nothing ext4\n/dev/vda2 / ext4\n/dev/vda3 / ext4\n"
    own = {"/etc/fstab": fstab, f"{INFO}/alpha.list": lines, "/usr/bin/alpha": "a", "/boot/hidden": "h"}
    write_tree(root, own)
    image = tmp_path / "three.img"
    with open(image, "wb") as file:
        file.truncate(80 * MIB)
    layout = "label: gpt\nstart=2048, size=20480\nstart=22528, size=81920\nstart=104448, size=20480\n"
    run("sfdisk", "-q", str(image), stdin=layout)
    for start, size, tree, options in (
        (1, 10, boot, ("-U", identifier)),
        (11, 40, root, ()),
        (51, 10, data, ()),
    ):
        place = (*options, "-E", f"offset={start * MIB}", "-d", str(tree), str(image), f"{size}M")
        run("mke2fs", "-q", "-F", "-t", "ext4", *place)
    manifest = build_manifest(image)
    found = dict(manifest.files.select("path", "package").iter_rows())
    assert (
        found["/boot/vmlinuz"] == found["/boot"] == found["/srv/page"] == found["/usr/bin/alpha"] == "alpha"
    )
    assert found["/boot/grub/grub.cfg"] is found["/boot/hidden"] is None
    assert "@2/boot" in found  # the folder of the root that /boot is mounted on
    references = manifest.references.filter(pl.col("source").str.starts_with("/srv")).rows()
    assert references == [("/srv/load", "loads", "/srv/lib.so"), ("/srv/tool", "links", "/usr/bin/alpha")]


def test_what_a_second_disk_holds_is_named_as_the_system_knows_it(tmp_path):
    """A whole disk mounted by its device; alone, without the root, it can only be named by itself."""
    need("mke2fs")
    data = write_tree(tmp_path / "data", {"/page": "text", "/load": elf(["/srv/lib.so"]), "/lib.so": elf([])})
    fstab = "/dev/vda / ext4 rw 0 1\n/dev/vdb /srv ext4 rw 0 2\n"
    own = {"/etc/fstab": fstab, f"{INFO}/alpha.list": "/srv/page\n", "/usr/bin/a": elf(["/srv/lib.so"])}
    root = write_tree(merged_usr(tmp_path / "root"), own)
    (tmp_path / "srv").mkdir()
    disks = [image_of(root, tmp_path / "root.img"), image_of(data, tmp_path / "data.img")]
    first, second = build_manifests(disks)
    assert set(second.files["path"]) >= {"/srv", "/srv/page", "/srv/load"}
    assert dict(second.files.select("path", "package").iter_rows())["/srv/page"] == "alpha"
    assert second.references.rows() == [("/srv/load", "loads", "/srv/lib.so")]
    assert ("/usr/bin/a", "loads", "/srv/lib.so") in first.references.rows()
    assert "/page" in build_manifest(disks[1]).files["path"]
    # the other way round /dev/vdb is the root itself, and the data are mounted nowhere
    assert "/page" in build_manifests(disks[::-1])[0].files["path"]
