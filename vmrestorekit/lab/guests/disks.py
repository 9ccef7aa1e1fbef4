"""Write a guest's disks from its unpacked volumes: partition tables, LVM, file systems, the boot loader."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vmrestorekit.lab.guests.lvm import volume_group_header
from vmrestorekit.lab.guests.placement import PARTITION_START, partitions, place_groups, place_volumes
from vmrestorekit.lab.guests.spec import GuestSpec
from vmrestorekit.lab.programs import LabError, require_programs, run

__all__ = ["disk_paths", "require_disk_programs", "write_disks"]

_SECTOR = 512
_PARTITION_TYPES = {"swap": "82", "lvm": "8e"}
_PROGRAMS = {"ext4": "mke2fs", "xfs": "mkfs.xfs", "btrfs": "mkfs.btrfs", "swap": "mkswap"}
# mke2fs's defaults differ between versions, and GRUB 2.06 cannot read the newest features
_MKE2FS_CONF = """[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
default_mntopts = acl,user_xattr
enable_periodic_fsck = 0
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
ext4 = {
 features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
"""
_FILE_TYPES = {
    stat.S_IFREG: "-",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFBLK: "b",
    stat.S_IFCHR: "c",
    stat.S_IFIFO: "p",
}


def disk_paths(image: Path, disks: int) -> list[Path]:
    """Return the paths of a machine's disks: the image, then ``<image>.disk1`` and so on."""
    return [image, *(image.with_name(f"{image.name}.disk{number}") for number in range(1, disks))]


def require_disk_programs(spec: GuestSpec) -> None:
    """Check that what writes the guest's file systems is installed; LabError as of `require_programs`."""
    programs = {_PROGRAMS[volume.file_system] for volume in spec.volumes}
    require_programs(["sfdisk", *sorted(programs)], "building a guest image")


def write_disks(
    spec: GuestSpec,
    trees: Mapping[str, Path],
    boot_code: tuple[bytes, bytes],
    disks: Sequence[Path],
    work_dir: Path,
    log: Path,
) -> None:
    """Write the disks, as sparse raw images.

    Parameters
    ----------
    spec : GuestSpec
    trees : mapping of str to Path
        For each mount point a directory with what is to lie in that volume.
    boot_code : (bytes, bytes)
        For the first sector, and for the sectors from the second one on.
    disks : sequence of Path
        Where to.
    work_dir, log : Path

    Raises
    ------
    LabError
        If a step fails, or the boot loader does not fit in front of the first partition.
    """
    # one identity a description: two images of it have the same UUIDs
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{spec.name}.{spec.digest()}")
    for number, (path, size) in enumerate(zip(disks, spec.disk_bytes, strict=True)):
        with open(path, "wb") as disk:
            disk.truncate(size)
        table = partitions(spec, number)
        if table:
            _write_table(path, table, identity.fields[0] ^ number, log)
    for group in place_groups(spec):
        _write_at(disks[group.disk], group.start_bytes, volume_group_header(group, identity))
    for placed in place_volumes(spec):
        volume = work_dir / f"{spec.name}.volume"
        try:
            with open(volume, "wb") as stream:
                stream.truncate(placed.length_bytes)
            own = uuid.uuid5(identity, placed.volume.mount)
            _make_file_system(placed.volume.file_system, volume, trees.get(placed.volume.mount), own, log)
            _copy_into(volume, disks[placed.volume.disk], placed.start_bytes)
        finally:
            volume.unlink(missing_ok=True)
    first, rest = boot_code
    if len(rest) > PARTITION_START - _SECTOR:
        raise LabError(f"expected GRUB's core to fit in front of the partition, got {len(rest)} bytes")
    _write_at(disks[0], 0, first[:440])  # what follows is the partition table
    _write_at(disks[0], _SECTOR, rest)


def _write_table(disk: Path, table: Sequence[tuple[int, int, str]], label: int, log: Path) -> None:
    lines = [f"label: dos\nlabel-id: {label:#x}"]
    for number, (start, length, kind) in enumerate(table):
        bootable = ", bootable" if number == 0 else ""
        size = f"size={length // _SECTOR}, " if number < len(table) - 1 else ""
        kind = _PARTITION_TYPES.get(kind, "83")
        lines.append(f"start={start // _SECTOR}, {size}type={kind}{bootable}")
    run(["sfdisk", "--quiet", disk], text_in="\n".join(lines) + "\n", log=log)


def _make_file_system(kind: str, volume: Path, tree: Path | None, identity: uuid.UUID, log: Path) -> None:
    work = volume.parent
    if kind == "ext4":
        config = work / "mke2fs.conf"
        config.write_text(_MKE2FS_CONF, encoding="utf-8")
        options = ["-E", f"lazy_itable_init=0,lazy_journal_init=0,hash_seed={identity}"]
        fill = ["-d", str(tree)] if tree else []
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-U", str(identity), *options, *fill, str(volume)]
        run(command, log=log, environment=os.environ | {"MKE2FS_CONFIG": str(config)})
    elif kind == "xfs":
        prototype = volume.with_name(volume.name + ".prototype")
        try:
            prototype.write_text("\n".join(_xfs_prototype(tree)) + "\n", encoding="utf-8")
            run(["mkfs.xfs", "-q", "-f", "-m", f"uuid={identity}", "-p", prototype, volume], log=log)
        finally:
            prototype.unlink(missing_ok=True)
    elif kind == "btrfs":
        fill = ["--rootdir", str(tree)] if tree else []
        run(["mkfs.btrfs", "-q", "-f", "-U", str(identity), *fill, volume], log=log)
    else:
        run(["mkswap", "-U", str(identity), volume], log=log)


def _xfs_prototype(tree: Path | None) -> Iterator[str]:
    """Give the lines that tell mkfs.xfs what to put into the file system; see mkfs.xfs(8), option -p.

    The format knows no names with blanks, no second link of a file and no extended attributes: what has such
    a name is left out, links become copies.
    """
    yield "/dev/null"
    yield "0 0"
    yield "d--755 0 0"
    if tree is not None:
        yield from _xfs_entries(tree)
    yield "$"


def _xfs_entries(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if len(str(path).split()) != 1 or not str(path).isprintable():
            continue
        status = path.lstat()
        kind = _FILE_TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket: made anew by whoever needs it
            continue
        user = "u" if status.st_mode & stat.S_ISUID else "-"
        group = "g" if status.st_mode & stat.S_ISGID else "-"
        mode = f"{kind}{user}{group}{stat.S_IMODE(status.st_mode) & 0o777:03o}"
        entry = f"{path.name} {mode} {status.st_uid} {status.st_gid}"
        if kind == "d":
            yield entry
            yield from _xfs_entries(path)
            yield "$"
        elif kind == "-":
            yield f"{entry} {path}"
        elif kind == "l":
            yield f"{entry} {os.readlink(path)}"
        elif kind == "p":
            yield entry
        else:
            yield f"{entry} {os.major(status.st_rdev)} {os.minor(status.st_rdev)}"


def _copy_into(volume: Path, disk: Path, start: int) -> None:
    """Copy a volume to its place on a disk; what is a hole stays one."""
    with open(volume, "rb") as source, open(disk, "r+b") as target:
        end, at = source.seek(0, os.SEEK_END), 0
        while at < end:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing more but a hole
                break
            hole = os.lseek(source.fileno(), at, os.SEEK_HOLE)
            source.seek(at)
            target.seek(start + at)
            for offset in range(at, hole, 1 << 20):
                target.write(source.read(min(1 << 20, hole - offset)))
            at = hole
        target.flush()
        os.fsync(target.fileno())


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as disk:
        disk.seek(offset)
        disk.write(data)


def split_volumes(root: Path, mounts: Sequence[str]) -> dict[str, Path]:
    """Move what lies below mount points out of a root directory into directories beside it.

    Parameters
    ----------
    root : Path
        Becomes the tree of ``"/"``; what is moved leaves an empty directory.
    mounts : sequence of str

    Returns
    -------
    dict of str to Path
        The tree of each mount point; swap space has none.
    """
    trees = {"/": root}
    for number, mount in enumerate(sorted(mounts, key=len, reverse=True)):  # what lies within another first
        if mount in ("/", "swap"):
            continue
        place, tree = root / mount.lstrip("/"), root.with_name(f"{root.name}.volume{number}")
        shutil.rmtree(tree, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        owner = place.stat()
        place.rename(tree)
        place.mkdir(mode=stat.S_IMODE(owner.st_mode))
        os.chown(place, owner.st_uid, owner.st_gid)
        trees[mount] = tree
    return trees
