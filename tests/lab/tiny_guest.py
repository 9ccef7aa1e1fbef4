"""A guest that boots in seconds even when emulated: Debian's cloud kernel, busybox, one small ext4 disk."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
import subprocess
from pathlib import Path

from vmrestorekit.lab.programs import find_program, run

MIB = 1 << 20
DISK_BYTES = 24 * MIB
MARK = "tiny guest: boot done"
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
modprobe virtio_pci
modprobe virtio_blk
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /mnt
cd /mnt && md5sum file-* > /dev/ttyS0
echo written by the guest > /mnt/note && sync
echo "tiny guest: boot" "done" > /dev/ttyS0
sleep 2
cd / && umount /mnt
poweroff -f
"""


@dataclasses.dataclass(frozen=True)
class TinyGuest:
    image: Path
    kernel: Path
    initramfs: Path
    kernel_version: str
    sums: dict[str, str]  # file on the disk -> MD5 of its content

    @property
    def qemu_options(self) -> list[str]:
        direct = ["-kernel", str(self.kernel), "-initrd", str(self.initramfs)]
        return [*direct, "-append", "console=ttyS0 panic=-1"]


def build_tiny_guest(folder: Path, cache: Path) -> TinyGuest:
    """Build it in ``folder``; the kernel package is fetched once into ``cache``. No root rights needed."""
    unpacked = _kernel_package(cache)
    kernel = next(unpacked.glob("boot/vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    image, sums = _disk(folder)
    return TinyGuest(image, kernel, _initramfs(folder, unpacked, version), version, sums)


def _kernel_package(cache: Path) -> Path:
    lines = run(["apt-cache", "depends", "linux-image-cloud-amd64"], timeout_s=60).splitlines()
    package = next(line.split()[-1] for line in lines if "Depends: linux-image-" in line)
    unpacked = cache / package
    if not unpacked.exists():
        partial = cache / f"{package}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        subprocess.run(
            ["apt-get", "download", package], cwd=partial, check=True, capture_output=True, timeout=300
        )
        run(["dpkg-deb", "-x", next(partial.glob("*.deb")), partial])
        partial.rename(unpacked)
    return unpacked


def _initramfs(folder: Path, unpacked: Path, version: str) -> Path:
    busybox = find_program("busybox")
    assert busybox
    root, modules = folder / "root", f"lib/modules/{version}"
    for directory in ("bin", "proc", "sys", "dev", "mnt"):
        (root / directory).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for part in ("kernel/drivers/virtio", "kernel/drivers/block/virtio_blk.ko"):
        source, target = unpacked / modules / part, root / modules / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    run([busybox, "depmod", "-b", root, version])
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with open(folder / "initramfs", "wb") as archive:
        command = [busybox, "cpio", "-o", "-H", "newc"]
        subprocess.run(
            command, cwd=root, input=names.encode(), stdout=archive, stderr=subprocess.DEVNULL, check=True
        )
    return folder / "initramfs"


def _disk(folder: Path) -> tuple[Path, dict[str, str]]:
    content, image, sums = folder / "content", folder / "tiny.img", {}
    content.mkdir()
    numbers = random.Random(5)
    for number, size in enumerate((10_000, 300_000, 2_500_000, 4096, 700_001)):
        data = numbers.randbytes(size)
        (content / f"file-{number}").write_bytes(data)
        sums[f"file-{number}"] = hashlib.md5(data).hexdigest()
    with open(image, "wb") as stream:
        stream.truncate(DISK_BYTES)
    run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", content, image])
    return image, sums
