"""A change to a running guest between two recorded boots: packages are fetched here, and installed there.

The guest has no network. What it needs comes as a tar archive on a disk of its own, which a unit in it
unpacks and carries out.
"""

from __future__ import annotations

import contextlib
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from vmrestorekit.backup.file_tree import FileTree
from vmrestorekit.backup.files import find_files
from vmrestorekit.backup.images import open_image
from vmrestorekit.lab.guests.spec import Change
from vmrestorekit.lab.programs import LabError, require_programs, run
from vmrestorekit.lab.progress import Report

__all__ = ["pack_change"]

_STATUS = "/var/lib/dpkg/status"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_BLOCK = 512


def pack_change(
    change: Change,
    release: str,
    disks: Sequence[Path],
    work_dir: Path,
    log: Path,
    report: Report | None = None,
) -> Path:
    """Return a disk image: a tar archive with the script of the change and the packages it needs.

    Parameters
    ----------
    change : Change
    release : str
    disks : sequence of Path
        The guest's disks as they are; what is installed is read from them.
    work_dir, log : Path
    report : Report, optional
        Is told of upgrades that could not be fetched.

    Raises
    ------
    LabError
        If no list of installed packages is found on the disks, or packages cannot be fetched.
    """
    report = report or Report()
    folder = work_dir / "change"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    image = work_dir / "change.tar"
    packages = []
    if change.packages:
        status = folder / "status"
        status.write_bytes(_read_status(disks))
        packages = _fetch(change, release, status, folder, log, report)
    lines = ["cd /var/tmp/vmrestorekit-change"]
    if packages:
        lines += [
            "export DEBIAN_FRONTEND=noninteractive",
            # not --no-download: apt fetches files, too, and else does not know where they are
            "apt-get -q -y -o Dpkg::Options::=--force-confold install ./*.deb",
        ]
    script = folder / "script"
    script.write_text("\n".join([*lines, *change.script]) + "\n", encoding="utf-8")
    with tarfile.open(image, "w") as archive:
        archive.add(script, "change")
        for package in packages:
            archive.add(package, package.name)
    with open(image, "r+b") as stream:  # a disk of whole sectors
        stream.truncate(-(-image.stat().st_size // _BLOCK) * _BLOCK)
    shutil.rmtree(folder)
    return image


def _read_status(disks: Sequence[Path]) -> bytes:
    with contextlib.ExitStack() as stack:
        images = [stack.enter_context(open_image(path)) for path in disks]
        status = FileTree([(image, find_files(image)) for image in images]).read(_STATUS)
    if not status:
        raise LabError(f"{disks[0]}: expected a guest with {_STATUS}, found none that can be read")
    return status


def _fetch(change: Change, release: str, status: Path, folder: Path, log: Path, report: Report) -> list[Path]:
    """Let apt download what it would install on a machine with this status, into folders of its own."""
    require_programs(["apt-get"], "fetching packages for a change")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    entries = {
        release: "Debian",
        change.suite: "Debian-Security" if "-security" in change.suite else "Debian",
    }
    sources = folder / "sources.list"
    sources.write_text(
        "".join(
            f"deb [signed-by={_KEYRING}] {_archive(label)} {suite} main\n" for suite, label in entries.items()
        )
    )
    options = {
        "APT::Architecture": "amd64",
        "APT::Install-Recommends": "false",
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": folder / "state",
        "Dir::State::status": status,
    }
    apt = ["apt-get", "-q", "-y", *(f"-o{key}={value}" for key, value in options.items())]
    run([*apt, "update"], log=log)
    download = [*apt, "--download-only"]
    if change.packages != ("*",):
        run([*download, "-t", change.suite, "install", *change.packages], log=log)
    else:
        try:
            run([*download, "--fix-missing", "dist-upgrade"], log=log)
        except LabError as error:  # what the mirror lists and lacks cannot be upgraded; the rest was fetched
            report.say(f"not all upgrades from {change.suite} could be fetched: {error}")
    packages = sorted((folder / "cache/archives").glob("*.deb"))
    if not packages:
        raise LabError(f"expected something to upgrade from {change.suite}, found nothing")
    return packages


def _archive(label: str) -> str:
    """Return where this machine's apt has an archive from."""
    wanted = ["Created-By: Packages", "Origin: Debian", f"Label: {label}", "Component: main"]
    known = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]).split()
    if not known:
        raise LabError(f"expected an archive with the label {label!r} among those of this machine's apt")
    return known[0]
