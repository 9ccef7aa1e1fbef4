"""Build a guest's disk image from its description: Debian, partition table and boot loader, no loop device.

The image holds what a small server has: a partition table, GRUB in front of the first partition, one ext4
file system. A unit of ours tells the end of boot on the serial console.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import uuid
import zlib
from pathlib import Path

from vmrestorekit.lab.programs import LabError, find_program, require_programs, run
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.spec import GuestSpec

__all__ = ["BASE_PACKAGES", "BOOT_DONE_LINE", "build_image", "describe_image"]

BOOT_DONE_LINE = "vmrestorekit: boot done"
BASE_PACKAGES = (
    *("systemd-sysv", "linux-image-cloud-amd64", "initramfs-tools", "udev", "dbus", "ifupdown", "zstd"),
    *("grub-pc-bin", "grub2-common", "openssh-server", "cron", "rsyslog"),
)
_PLAIN_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
_PARTITION_START = 1 << 20
_SECTOR = 512
_GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile")
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
_UNITS = {
    # the shell's own command line must not be what is found on the console, hence the file
    "vmrestorekit-boot-done.service": """[Unit]
Description=Tell the recorder that the boot is over
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /etc/vmrestorekit-boot-done > /dev/ttyS0'
[Install]
WantedBy=multi-user.target
""",
    "vmrestorekit-first-use.service": """[Unit]
Description=The first client comes
After=multi-user.target vmrestorekit-boot-done.service
[Service]
Type=oneshot
ExecStartPre=/bin/sleep 1
ExecStart=/bin/sh /etc/vmrestorekit-first-use
[Install]
WantedBy=multi-user.target
""",
}
# changes with everything above that ends up in a root directory, so that an older one is not used again
_RECIPE = f"{zlib.crc32(repr((BASE_PACKAGES, _UNITS, _GRUB_MODULES)).encode()):08x}"


def build_image(spec: GuestSpec, image: Path, work_dir: Path, report: Report | None = None) -> None:
    """Build ``image`` (a raw, sparse disk) and beside it ``image`` + ``.json``, its description.

    What is already in ``work_dir`` is used again: the base system of a release, and the root directory of
    this very description.

    Raises
    ------
    LabError
        If root rights or a program are missing, or a step fails.
    """
    report = report or Report()
    require_programs(["debootstrap", "mke2fs", "sfdisk", "unshare"], "building a guest image")
    if os.geteuid() != 0:
        raise LabError("building a guest image needs root rights (debootstrap sets owners): run it with sudo")
    for folder in (work_dir, image.parent):
        folder.mkdir(parents=True, exist_ok=True)
    log = work_dir / f"{spec.name}.log"
    base = _base_root(spec.release, work_dir, log, report)
    root = _guest_root(spec, base, work_dir, log, report)
    report.now(f"{spec.name}: writing {image}")
    partial = image.with_name(image.name + ".partial")
    try:
        _write_disk(spec, root, partial, work_dir, log)
        description = json.dumps(_description(spec, root), indent=1) + "\n"
        _write_text(image.with_name(image.name + ".json"), description)
        os.replace(partial, image)
        report.say(f"{spec.name}: built {image}")
    finally:
        partial.unlink(missing_ok=True)


def describe_image(image: Path) -> dict[str, object]:
    """Return the description `build_image` left beside the image; of a foreign image, only its name."""
    beside = image.with_name(image.name + ".json")
    if not beside.exists():
        return {"name": image.stem}
    try:
        description = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabError(f"{beside}: expected the description of a guest image as JSON: {error}") from error
    if not isinstance(description, dict):
        raise LabError(
            f"{beside}: expected the description of a guest image as a JSON object, "
            f"got a {type(description).__name__}"
        )
    return {"name": image.stem} | {str(key): value for key, value in description.items()}


def _base_root(release: str, work_dir: Path, log: Path, report: Report) -> Path:
    """Return the root directory of a minimal Debian, shared by all guests of one release."""
    base = work_dir / f"{release}-{_RECIPE}.base"
    if base.exists():
        report.say(f"{release}: base system is there already")
        return base
    partial = base.with_name(base.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    report.now(f"{release}: installing the base system (minutes)")
    include = "--include=" + ",".join(BASE_PACKAGES)
    run(["debootstrap", "--variant=minbase", include, release, partial, *_mirror(release)], log=log)
    partial.rename(base)
    return base


def _mirror(release: str) -> list[str]:
    """Return the mirror this machine's apt uses for the release, or nothing: debootstrap has a default."""
    if find_program("apt-get") is None:
        return []
    wanted = ["Created-By: Packages", "Origin: Debian", f"Codename: {release}", "Component: main"]
    return run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]).split()[:1]


def _guest_root(spec: GuestSpec, base: Path, work_dir: Path, log: Path, report: Report) -> Path:
    root = work_dir / f"{spec.name}-{spec.digest()}-{_RECIPE}.root"
    if root.exists():
        report.say(f"{spec.name}: root directory is there already")
        return root
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    run(["cp", "-a", "--reflink=auto", base, partial], log=log)
    report.now(f"{spec.name}: installing {' '.join(spec.packages) or 'nothing more'}")
    _configure(spec, partial)
    # services must not start while their packages are installed
    policy = partial / "usr/sbin/policy-rc.d"
    _write_text(policy, "#!/bin/sh\nexit 101\n", mode=0o755)
    if spec.packages:
        _in_root(partial, "apt-get -q update", log)
        _in_root(partial, f"apt-get -q -y --no-install-recommends install {' '.join(spec.packages)}", log)
    policy.unlink()
    _in_root(partial, "\n".join(["set -e", *spec.setup]), log)
    units = [*spec.services, "vmrestorekit-boot-done.service"]
    if spec.first_use:
        units.append("vmrestorekit-first-use.service")
    _in_root(partial, f"systemctl enable {' '.join(units)}", log)
    _in_root(partial, "apt-get clean; rm -rf /var/lib/apt/lists/*; systemd-machine-id-setup", log)
    _install_grub(partial, log)
    partial.rename(root)
    return root


def _in_root(root: Path, script: str, log: Path) -> None:
    """Run a shell script inside the root; a process it leaves behind ends with it, a mount too."""
    plain = _PLAIN_ENVIRONMENT | {"DEBIAN_FRONTEND": "noninteractive"}
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root / 'proc'}"]
    run([*own, "chroot", root, "/bin/sh", "-c", script], log=log, environment=plain)


def _configure(spec: GuestSpec, root: Path) -> None:
    _write_text(root / "etc/hostname", f"{spec.name}\n")
    _write_text(root / "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {spec.name}\n")
    _write_text(root / "etc/fstab", "/dev/vda1 / ext4 errors=remount-ro 0 1\n")
    _write_text(root / "etc/network/interfaces", "auto lo\niface lo inet loopback\n")
    _write_text(root / "etc/vmrestorekit-boot-done", f"\n{BOOT_DONE_LINE}\n")
    _write_text(root / "etc/vmrestorekit-first-use", f"{spec.first_use}\n")
    for unit, text in _UNITS.items():
        _write_text(root / "etc/systemd/system" / unit, text)


def _install_grub(root: Path, log: Path) -> None:
    kernels = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise LabError(f"expected a kernel in {root / 'boot'}, found none")
    modules = root / "boot/grub/i386-pc"
    shutil.copytree(root / "usr/lib/grub/i386-pc", modules, dirs_exist_ok=True)
    core = "/boot/grub/i386-pc/core.img"
    command = f"grub-mkimage -O i386-pc -o {core} -p '(hd0,msdos1)/boot/grub' {' '.join(_GRUB_MODULES)}"
    _in_root(root, command, log)
    _write_text(
        root / "boot/grub/grub.cfg",
        "set timeout=0\nmenuentry 'Debian GNU/Linux' {\n"
        f"  linux /boot/vmlinuz-{kernels[-1]} root=/dev/vda1 ro console=ttyS0\n"
        f"  initrd /boot/initrd.img-{kernels[-1]}\n}}\n",
    )


def _write_disk(spec: GuestSpec, root: Path, image: Path, work_dir: Path, log: Path) -> None:
    config = work_dir / "mke2fs.conf"
    _write_text(config, _MKE2FS_CONF)
    with open(image, "wb") as disk:
        disk.truncate(spec.size_bytes)
    # one identity a description: two images of it have the same UUIDs
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{spec.name}.{spec.digest()}")
    partition = f"start={_PARTITION_START // _SECTOR}, type=83, bootable"
    table = f"label: dos\nlabel-id: {identity.fields[0]:#x}\n{partition}\n"
    run(["sfdisk", "--quiet", image], text_in=table, log=log)
    extended = f"offset={_PARTITION_START},lazy_itable_init=0,lazy_journal_init=0,hash_seed={identity}"
    blocks = (spec.size_bytes - _PARTITION_START) // 4096
    run(
        [
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-U",
            str(identity),
            "-E",
            extended,
            "-d",
            root,
            image,
            f"{blocks * 4}k",
        ],
        log=log,
        environment=os.environ | {"MKE2FS_CONFIG": str(config)},
    )
    core = (root / "boot/grub/i386-pc/core.img").read_bytes()
    if len(core) > _PARTITION_START - _SECTOR:
        raise LabError(f"expected GRUB's core to fit in front of the partition, got {len(core)} bytes")
    with open(image, "r+b") as disk:
        # the rest of the first sector is the partition table
        disk.write((root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
        disk.seek(_SECTOR)
        disk.write(core)
        disk.flush()
        os.fsync(disk.fileno())


def _description(spec: GuestSpec, root: Path) -> dict[str, object]:
    status = run(["chroot", root, "dpkg-query", "-W", "-f", "${Package} ${Version}\\n"])
    kernel = max(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    release = dict(line.split("=", 1) for line in lines if "=" in line)
    return dataclasses.asdict(spec) | {
        "system": f"{release['ID'].title()} {release['VERSION_ID'].strip(chr(34))}",
        "spec_digest": spec.digest(),
        "kernel": kernel,
        "installed": dict(line.split(" ", 1) for line in status.splitlines()),
    }


def _write_text(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
