"""Disks with ext4, NTFS, FAT, swap and nothing, made without mounting anything, for the tests of browsing."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import random
import stat
from pathlib import Path

from store_helpers import MIB, need, run

PROGRAMS = ("sfdisk", "mke2fs", "debugfs", "mkntfs", "ntfscp", "mkfs.vfat", "mcopy", "mmd", "mkswap")
# number: first byte, size, and the mark of its paths; the largest that can be read has none
PARTITIONS = {
    1: ("ext4", 1 * MIB, 20 * MIB, ""),
    2: ("ntfs", 21 * MIB, 9 * MIB, "@2"),
    3: ("fat16", 30 * MIB, 9 * MIB, "@3"),
    4: ("swap", 39 * MIB, 16 * MIB, None),
    5: ("unknown", 55 * MIB, 3 * MIB, None),
}
DISK_BYTES = 59 * MIB


def contents(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


# of every file system; of two with the same start of the name, the first grows around the second
FILES = {
    "/readme.txt": b"a short text\n",
    "/empty": b"",
    "/data/base/16384/1247": contents(1, 150_001),
    "/data/base/16384/1249": contents(2, 70_000),
    "/data/base/ünïcode näme €.txt": contents(3, 9_000),
    "/data/$money": contents(4, 5_000),
    "/$top": contents(5, 6_000),
    **{f"/data/many/file {number:03}": contents(100 + number, 300 + 77 * number) for number in range(60)},
}
CHANGED = {
    "/data/base/16384/1247": contents(11, 400_000),
    "/data/new/later": contents(12, 40_000),
    "/readme.txt": b"another text, a little longer\n",
}
EXT_SPARSE = bytearray(3 * MIB)
for _part in range(12):  # more extents than an inode holds
    EXT_SPARSE[_part * 131_072 : _part * 131_072 + 5_000] = contents(200 + _part, 5_000)


def folders(paths: dict[str, bytes]) -> list[str]:
    found = {str(parent) for path in paths for parent in Path(path).parents} - {"/"}
    return sorted(found)


class Disk:
    """A disk image, and each of its partitions as a file of its own."""

    def __init__(self, folder: Path) -> None:
        need(*PROGRAMS)
        self.folder, self.image = folder, folder / "disk.img"
        with open(self.image, "wb") as file:
            file.truncate(DISK_BYTES)
        lines = [f"start={start // 512}, size={size // 512}\n" for _, start, size, _ in PARTITIONS.values()]
        run("sfdisk", "-q", self.image, stdin="label: gpt\n" + "".join(lines))
        self._fat_folders: set[str] = set()
        self._make_ext()
        self._make_ntfs()
        self._make_fat()
        run("mkswap", self._empty(4))
        self.put_together()

    def part(self, number: int) -> Path:
        return self.folder / f"part{number}"

    def put_together(self) -> None:
        """Write the partitions into the disk."""
        with open(self.image, "r+b") as disk:
            for number, (_, start, _, _) in PARTITIONS.items():
                if self.part(number).exists():
                    disk.seek(start)
                    disk.write(self.part(number).read_bytes())

    def take_apart(self, image: Path, number: int) -> Path:
        """Write a partition of some image of the disk into a file of its own."""
        _, start, size, _ = PARTITIONS[number]
        out = image.with_name(f"{image.name}.{number}")
        with open(image, "rb") as file:
            file.seek(start)
            out.write_bytes(file.read(size))
        return out

    def _empty(self, number: int) -> Path:
        with open(self.part(number), "wb") as file:
            file.truncate(PARTITIONS[number][2])
        return self.part(number)

    def _make_ext(self) -> None:
        root = self.folder / "root"
        for path, data in {**FILES, "/sparse": bytes(EXT_SPARSE)}.items():
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / path[1:]).write_bytes(data)
        with open(root / "sparse", "wb") as file:
            file.truncate(len(EXT_SPARSE))
            for part in range(12):
                file.seek(part * 131_072)
                file.write(EXT_SPARSE[part * 131_072 : part * 131_072 + 5_000])
        os.link(root / "data/base/16384/1249", root / "data/another name")
        os.link(root / "data/base/16384/1249", root / "zz")
        (root / "link").symlink_to("data/base")
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", root, self._empty(1))

    def _make_ntfs(self) -> None:
        part = self._empty(2)
        run("mkntfs", "-F", "-q", "-c", "4096", part)
        self._copy_to_ntfs({**FILES, "/data/base/16384/1247": FILES["/data/base/16384/1247"][:50_000]})
        self._copy_to_ntfs({"/data/base/16384/1247": FILES["/data/base/16384/1247"]})  # it grows
        stream = self.folder / "stream"
        stream.write_bytes(contents(6, 30_000))
        run("ntfscp", "-q", "-f", "-N", "stream", part, stream, "/data/base/16384/1249")
        with NtfsVolume(part) as volume:
            volume.link("/data/base/16384/1249", "/data", "another name")

    def _copy_to_ntfs(self, files: dict[str, bytes]) -> None:
        with NtfsVolume(self.part(2)) as volume:
            for folder in folders(files):
                volume.folder(folder)
        for path, data in files.items():
            source = self.folder / "source"
            source.write_bytes(data)
            run("ntfscp", "-q", "-f", self.part(2), source, path, LC_ALL="C.UTF-8")

    def _make_fat(self) -> None:
        run("mkfs.vfat", "-F", "16", "-n", "SMALL", self._empty(3))
        self._copy_to_fat({**FILES, "/data/base/16384/1247": contents(9, 50_000)})
        self._copy_to_fat({"/data/base/16384/1247": FILES["/data/base/16384/1247"]})

    def _copy_to_fat(self, files: dict[str, bytes]) -> None:
        part = self.part(3)
        for folder in folders(files):
            if folder not in self._fat_folders:
                run("mmd", "-i", part, f"::{folder}", LC_ALL="C.UTF-8")
                self._fat_folders.add(folder)
        source = self.folder / "source"
        by_folder: dict[str, list[Path]] = {}
        for path, data in files.items():
            each = source.with_name("sources") / path[1:]
            each.parent.mkdir(parents=True, exist_ok=True)
            each.write_bytes(data)
            by_folder.setdefault(str(Path(path).parent), []).append(each)
        for folder, sources in by_folder.items():
            run("mcopy", "-o", "-i", part, *sources, f"::{folder}/", LC_ALL="C.UTF-8")

    def change(self) -> None:
        """Change some files in each file system."""
        source = self.folder / "source"
        run("debugfs", "-w", "-R", "mkdir /data/new", self.part(1))
        for path, data in CHANGED.items():
            source.write_bytes(data)
            if path in FILES:
                run("debugfs", "-w", "-R", f"rm {path}", self.part(1))
            run("debugfs", "-w", "-R", f"write {source} {path}", self.part(1))
        self._copy_to_ntfs(CHANGED)
        self._copy_to_fat(CHANGED)
        self.put_together()


class NtfsVolume:
    """The few calls of libntfs-3g that no program of ntfs-3g makes without a mount."""

    def __init__(self, path: Path) -> None:
        name = ctypes.util.find_library("ntfs-3g")
        assert name, "ntfs-3g brings its library"
        self._library = ctypes.CDLL(name, use_errno=True)
        for function in ("ntfs_mount", "ntfs_pathname_to_inode", "ntfs_create"):
            getattr(self._library, function).restype = ctypes.c_void_p
        self._library.ntfs_set_char_encoding(b"C.UTF-8")
        self._volume = ctypes.c_void_p(self._library.ntfs_mount(os.fsencode(path), ctypes.c_ulong(0)))
        assert self._volume, os.strerror(ctypes.get_errno())

    def __enter__(self) -> NtfsVolume:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._library.ntfs_umount(self._volume, 0) == 0

    def _inode(self, path: str) -> ctypes.c_void_p:
        found = self._library.ntfs_pathname_to_inode(self._volume, None, path.encode())
        return ctypes.c_void_p(found)

    def folder(self, path: str) -> None:
        """Make a folder where there is none."""
        there = self._inode(path)
        if there:
            self._library.ntfs_inode_close(there)
            return
        above, name = self._inode(str(Path(path).parent)), Path(path).name
        made = self._library.ntfs_create(
            above, ctypes.c_uint32(0), name.encode("utf-16-le"), ctypes.c_uint8(len(name)), stat.S_IFDIR
        )
        assert made, os.strerror(ctypes.get_errno())
        assert self._library.ntfs_inode_close(ctypes.c_void_p(made)) == 0
        assert self._library.ntfs_inode_close(above) == 0

    def link(self, path: str, folder: str, name: str) -> None:
        """Make a hard link."""
        file, above = self._inode(path), self._inode(folder)
        done = self._library.ntfs_link(file, above, name.encode("utf-16-le"), ctypes.c_uint8(len(name)))
        assert done == 0, os.strerror(ctypes.get_errno())
        assert self._library.ntfs_inode_close(above) == 0
        assert self._library.ntfs_inode_close(file) == 0
