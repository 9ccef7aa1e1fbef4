"""Build a guest's disks from its description: Debian with its packages, unpacked and set up in a directory.

No loop device is needed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zlib
from pathlib import Path

from vmrestorekit.lab.guests.disks import disk_paths, require_disk_programs, split_volumes, write_disks
from vmrestorekit.lab.guests.placement import place_volumes
from vmrestorekit.lab.guests.spec import GuestSpec, Volume
from vmrestorekit.lab.guests.units import guest_files, guest_units
from vmrestorekit.lab.programs import LabError, find_program, require_programs, run
from vmrestorekit.lab.progress import Report

__all__ = [
    "BASE_PACKAGES",
    "base_root",
    "build_image",
    "clone_image",
    "describe_image",
    "in_root",
]

BASE_PACKAGES = (
    *("systemd-sysv", "initramfs-tools", "udev", "dbus", "ifupdown", "zstd"),
    *("grub-pc-bin", "grub2-common", "openssh-server", "cron", "rsyslog"),
)
_KERNELS = {"cloud": "linux-image-cloud-amd64", "full": "linux-image-amd64"}
_TOOLS = {"xfs": "xfsprogs", "btrfs": "btrfs-progs"}
_PLAIN_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
_GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile")
# changes with everything above that ends up in a root directory, so that an older one is not used again
_RECIPE = f"{zlib.crc32(repr((BASE_PACKAGES, _KERNELS, _GRUB_MODULES)).encode()):08x}"


def build_image(spec: GuestSpec, image: Path, work_dir: Path, report: Report | None = None) -> None:
    """Build ``image`` and further disks (raw, sparse), and beside it ``image`` + ``.json``, its description.

    The base system of a release that is already in ``work_dir`` is used again. Further disks are named as
    `disk_paths` says.

    Raises
    ------
    LabError
        If root rights or a program are missing, or a step fails.
    """
    report = report or Report()
    require_programs(["debootstrap", "mke2fs", "sfdisk", "unshare"], "building a guest image")
    require_disk_programs(spec)
    if os.geteuid() != 0:
        raise LabError("building a guest image needs root rights (debootstrap sets owners): run it with sudo")
    for folder in (work_dir, image.parent):
        folder.mkdir(parents=True, exist_ok=True)
    log = work_dir / f"{spec.name}.log"
    base = base_root(spec, work_dir, log, report)
    root = work_dir / f"{spec.name}.root"
    mounts = [volume.mount for volume in spec.volumes]
    _forget(root)
    partials = [path.with_name(path.name + ".partial") for path in disk_paths(image, len(spec.disk_bytes))]
    try:
        run(["cp", "-a", "--reflink=auto", base, root], log=log)
        _install(spec, root, log, report)
        boot_code = _install_grub(spec, root, log)
        description = _description(spec, root)
        report.now(f"{spec.name}: writing {image}")
        write_disks(spec, split_volumes(root, mounts), boot_code, partials, work_dir, log)
        _write_text(image.with_name(image.name + ".json"), json.dumps(description, indent=1) + "\n")
        for partial in reversed(partials):  # the image itself last: where it is, everything is
            os.replace(partial, partial.with_suffix(""))
        report.say(f"{spec.name}: built {image}")
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
        _forget(root)


def clone_image(spec: GuestSpec, golden: Path, image: Path, report: Report | None = None) -> None:
    """Make a guest's image by copying that of the guest it is based on, with every disk.

    Raises
    ------
    LabError
        If a disk cannot be copied.
    """
    report = report or Report()
    report.now(f"{spec.name}: copying {golden}")
    paths = zip(*(disk_paths(path, len(spec.disk_bytes)) for path in (golden, image)), strict=True)
    copies = [(source, target, target.with_name(target.name + ".partial")) for source, target in paths]
    try:
        for source, _, partial in copies:
            run(["cp", "--sparse=always", source, partial])
        about = describe_image(golden)
        # the description says which flavour of kernel, the image which one it was
        about |= dataclasses.asdict(spec) | _about(spec) | {"kernel": about["kernel"]}
        _write_text(image.with_name(image.name + ".json"), json.dumps(about, indent=1) + "\n")
        for _, target, partial in reversed(copies):
            os.replace(partial, target)
        report.say(f"{spec.name}: copied {golden}")
    finally:
        for _, _, partial in copies:
            partial.unlink(missing_ok=True)


def _forget(root: Path) -> None:
    """Remove a root directory, and the volumes that were split off."""
    for folder in [root, *root.parent.glob(f"{root.name}.volume*")]:
        shutil.rmtree(folder, ignore_errors=True)


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


def base_root(spec: GuestSpec, work_dir: Path, log: Path, report: Report) -> Path:
    """Return the root directory of a minimal Debian, shared by all guests of a release and kind of kernel."""
    base = work_dir / f"{spec.release}-{spec.kernel}-{_RECIPE}.base"
    if base.exists():
        return base
    partial = base.with_name(base.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    report.now(f"{spec.release}: installing the base system (minutes)")
    include = "--include=" + ",".join((*BASE_PACKAGES, _KERNELS[spec.kernel]))
    mirror = _mirror(spec.release)
    run(["debootstrap", "--variant=minbase", include, spec.release, partial, *mirror], log=log)
    partial.rename(base)
    return base


def _mirror(release: str) -> list[str]:
    """Return the mirror this machine's apt uses for the release, or nothing: debootstrap has a default."""
    if find_program("apt-get") is None:
        return []
    wanted = ["Created-By: Packages", "Origin: Debian", f"Codename: {release}", "Component: main"]
    return run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]).split()[:1]


def _install(spec: GuestSpec, root: Path, log: Path, report: Report) -> None:
    tools = {_TOOLS[volume.file_system] for volume in spec.volumes if volume.file_system in _TOOLS}
    tools |= {"lvm2" for volume in spec.volumes if volume.group}
    packages = [*sorted(tools), *spec.packages]
    report.now(f"{spec.name}: installing {' '.join(packages) or 'nothing more'}")
    _configure(spec, root)
    # services must not start while their packages are installed
    policy = root / "usr/sbin/policy-rc.d"
    _write_text(policy, "#!/bin/sh\nexit 101\n", mode=0o755)
    if packages:
        in_root(root, "apt-get -q update", log)
        in_root(root, f"apt-get -q -y --no-install-recommends install {' '.join(packages)}", log)
    policy.unlink()
    in_root(root, "\n".join(["set -e", *spec.setup]), log)
    units = [*spec.services, *(f"{name}.service" for name in guest_units(spec))]
    in_root(root, f"systemctl enable {' '.join(units)}", log)
    in_root(root, "apt-get clean; rm -rf /var/lib/apt/lists/*; systemd-machine-id-setup", log)


def in_root(root: Path, script: str, log: Path) -> None:
    """Run a shell script inside the root; a process it leaves behind ends with it, a mount too."""
    plain = _PLAIN_ENVIRONMENT | {"DEBIAN_FRONTEND": "noninteractive"}
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root / 'proc'}"]
    run([*own, "chroot", root, "/bin/sh", "-c", script], log=log, environment=plain)


def _configure(spec: GuestSpec, root: Path) -> None:
    _write_text(root / "etc/hostname", f"{spec.name}\n")
    _write_text(root / "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {spec.name}\n")
    _write_text(root / "etc/fstab", "".join(f"{line}\n" for line in _file_system_table(spec)))
    _write_text(root / "etc/network/interfaces", "auto lo\niface lo inet loopback\n")
    for path, text in guest_files(spec).items():
        _write_text(root / path, text)


def _file_system_table(spec: GuestSpec) -> list[str]:
    lines = []
    for placed in place_volumes(spec):
        kind, mount = placed.volume.file_system, placed.volume.mount
        if kind == "swap":
            lines.append(f"{placed.device} none swap sw 0 0")
            continue
        options = "errors=remount-ro" if mount == "/" and kind == "ext4" else "defaults"
        check = 0 if kind != "ext4" else 1 if mount == "/" else 2
        lines.append(f"{placed.device} {mount} {kind} {options} 0 {check}")
    return sorted(lines, key=lambda line: line.split()[1])


def _install_grub(spec: GuestSpec, root: Path, log: Path) -> tuple[bytes, bytes]:
    """Put GRUB's modules and configuration into the root; return its first sector and its core."""
    kernels = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise LabError(f"expected a kernel in {root / 'boot'}, found none")
    own_partition = any(volume.mount == "/boot" for volume in spec.volumes)
    device = {placed.volume.mount: placed.device for placed in place_volumes(spec)}
    number = device["/boot" if own_partition else "/"].removeprefix("/dev/vda")
    folder = "" if own_partition else "/boot"  # as GRUB sees it
    modules = root / "boot/grub/i386-pc"
    shutil.copytree(root / "usr/lib/grub/i386-pc", modules, dirs_exist_ok=True)
    core = "/boot/grub/i386-pc/core.img"
    prefix = f"(hd0,msdos{number}){folder}/grub"
    in_root(root, f"grub-mkimage -O i386-pc -o {core} -p '{prefix}' {' '.join(_GRUB_MODULES)}", log)
    _write_text(
        root / "boot/grub/grub.cfg",
        "set timeout=0\nmenuentry 'Debian GNU/Linux' {\n"
        f"  linux {folder}/vmlinuz-{kernels[-1]} root={device['/']} ro console=ttyS0\n"
        f"  initrd {folder}/initrd.img-{kernels[-1]}\n}}\n",
    )
    return (root / "usr/lib/grub/i386-pc/boot.img").read_bytes(), (root / core.lstrip("/")).read_bytes()


def _description(spec: GuestSpec, root: Path) -> dict[str, object]:
    status = run(["chroot", root, "dpkg-query", "-W", "-f", "${Package} ${Version}\\n"])
    kernel = max(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    release = dict(line.split("=", 1) for line in lines if "=" in line)
    return (
        dataclasses.asdict(spec)
        | _about(spec)
        | {
            "system": f"{release['ID'].title()} {release['VERSION_ID'].strip(chr(34))}",
            "kernel": kernel,
            "installed": dict(line.split(" ", 1) for line in status.splitlines()),
        }
    )


def _about(spec: GuestSpec) -> dict[str, object]:
    """Return what follows from a description and is worth saying of an image."""
    file_systems = [f"{volume.mount} {_described(volume)}" for volume in spec.volumes]
    return {"spec_digest": spec.digest(), "lineage": spec.lineage, "file_systems": file_systems}


def _described(volume: Volume) -> str:
    return f"{volume.file_system} on LVM" if volume.group else volume.file_system


def _write_text(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
