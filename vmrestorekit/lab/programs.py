"""The outside programs of the lab: are they there, run one, and say clearly what went wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["PACKAGES", "LabError", "find_program", "require_programs", "run"]

# program -> the Debian package that brings it
PACKAGES = {
    "apt-get": "apt",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "debootstrap": "debootstrap",
    "fio": "fio",
    "fusermount3": "fuse3",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "nbdcopy": "libnbd-bin",
    "nbdinfo": "libnbd-bin",
    "nbdkit": "nbdkit",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "sfdisk": "fdisk",
    "unshare": "util-linux",
}
# where Debian keeps programs that an ordinary user's PATH leaves out
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class LabError(OSError):
    """Something outside of this package is missing or failed; the message says what, in one sentence."""


def find_program(name: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    return shutil.which(name, path=_SEARCH_PATH)


def require_programs(names: Iterable[str], purpose: str) -> None:
    """Check that all the programs are installed.

    Raises
    ------
    LabError
        One sentence that names the Debian packages to install.
    """
    missing = [name for name in names if find_program(name) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES.get(name, name) for name in missing}))
        names = ", ".join(missing)
        raise LabError(f"{purpose} needs {names}: install with 'sudo apt-get install {packages}'")


def run(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    text_in: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 3600.0,
    good: Collection[int] = (0,),
) -> str:
    """Run a program to its end and return what it printed; ``log`` is appended to.

    Raises
    ------
    LabError
        If it ends with a status that is not ``good``, or takes longer than ``timeout_s``; the message ends
        with its last line of output.
    """
    words = [str(word) for word in command]
    program = find_program(words[0])
    if program is None:
        require_programs([words[0]], "this step")
    try:
        done = subprocess.run(
            [program or words[0], *words[1:]],
            input=text_in,
            stdin=subprocess.DEVNULL if text_in is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            timeout=timeout_s,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{words[0]} did not finish within {timeout_s:.0f} s") from error
    if log is not None:
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"$ {' '.join(words)}\n{done.stdout}\n")
    if done.returncode not in good:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        where = f" (see {log})" if log else ""
        raise LabError(f"{words[0]} ended with status {done.returncode}: {last}{where}")
    return done.stdout
