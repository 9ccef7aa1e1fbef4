"""QEMU as the host of one guest: find it, choose its accelerator, run it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient, QMPError

from vmrestorekit.lab.programs import LabError, find_program, require_programs, run
from vmrestorekit.lab.running_guest import Guest, UnexpectedLineError

__all__ = ["QEMU", "Guest", "UnexpectedLineError", "block_node", "qemu_version", "run_guest", "run_qemu"]

QEMU = "qemu-system-x86_64"
_ACCELERATORS = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max"],
}


def qemu_version() -> str:
    """Return QEMU's version, such as ``"10.0.2"``.

    Raises
    ------
    LabError
        If it is not installed; the message names the Debian package.
    """
    require_programs([QEMU], "running a virtual machine")
    match = re.search(r"version (\S+)", run([QEMU, "--version"], timeout_s=30))
    return match[1] if match else "unknown"


@contextlib.asynccontextmanager
async def run_guest(
    nbd_socket: Path,
    exports: Sequence[str],
    *,
    accelerator: str,
    console_log: Path,
    processors: int = 2,
    memory_mib: int = 1024,
    graphics: bool = False,
    extra: Sequence[str] = (),
) -> AsyncIterator[Guest]:
    """Set up a machine whose disks are NBD exports; it stands still until `Guest.start`.

    Every read that the guest's own page cache does not answer reaches the server: QEMU caches nothing. When
    the context ends, so does the machine.

    Parameters
    ----------
    nbd_socket : Path
    exports : sequence of str
        The disks; it boots from the first. The name of each is its serial number, too.
    accelerator, console_log, processors, memory_mib, graphics, extra
        As `run_qemu` has them, but the console's log begins anew.
    """
    console_log.unlink(missing_ok=True)
    async with run_qemu(
        _disk_options(nbd_socket, exports),
        accelerator=accelerator,
        console_log=console_log,
        processors=processors,
        memory_mib=memory_mib,
        graphics=graphics,
        extra=extra,
    ) as guest:
        yield guest


@contextlib.asynccontextmanager
async def run_qemu(
    disks: Sequence[str],
    *,
    accelerator: str,
    console_log: Path,
    processors: int = 2,
    memory_mib: int = 1024,
    graphics: bool = False,
    extra: Sequence[str] = (),
    ends_with_us: bool = False,
) -> AsyncIterator[Guest]:
    """Set up a machine; it stands still until `Guest.start`, and ends when the context does.

    Parameters
    ----------
    disks : sequence of str
        The part of QEMU's command line that describes them.
    accelerator : {"kvm", "tcg"}
    console_log : Path
        What the guest prints on its serial console is appended.
    graphics : bool
        Whether it has a graphics adapter (that nobody looks at).
    extra : sequence of str
        More of QEMU's command line, such as a kernel to boot directly.
    ends_with_us : bool
        Whether the machine loses its power if this process is killed; else it would run on without anybody
        who knows of it.
    """
    require_programs([QEMU, *(["setpriv"] if ends_with_us else [])], "running a virtual machine")
    console_log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    qmp = QMPClient("vmrestorekit")
    with tempfile.TemporaryDirectory(prefix="vmrestorekit-") as folder, theirs:
        control = str(Path(folder, "qmp"))
        await qmp.start_server(control)
        command = [
            *([find_program("setpriv") or "setpriv", "--pdeathsig", "KILL", "--"] if ends_with_us else []),
            *(find_program(QEMU) or QEMU, *_ACCELERATORS[accelerator]),
            *("-smp", str(processors), "-m", str(memory_mib), "-nodefaults", "-no-user-config"),
            *("-display", "none", "-no-reboot", "-S"),
            *disks,
            *(("-device", "VGA") if graphics else ()),
            *("-chardev", f"socket,id=console,fd={theirs.fileno()}", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=control,path={control}", "-mon", "chardev=control,mode=control"),
            *extra,
        ]
        complaints = Path(folder, "stderr")
        with open(complaints, "wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *command,
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )
        theirs.close()
        try:
            await _connect(process, qmp, complaints)
            console, writer = await asyncio.open_unix_connection(sock=ours)
            guest = Guest(process, qmp)
            reading = asyncio.create_task(guest._read_console(console, console_log))
            try:
                yield guest
            finally:
                reading.cancel()
                writer.close()
        finally:
            with contextlib.suppress(QMPError, ConnectionError, EOFError):
                await qmp.disconnect()
            await _end(process)


def block_node(**options: Any) -> list[str]:
    """Return the part of QEMU's command line for a block node; in names, ``_`` stands for ``-``."""
    return ["-blockdev", json.dumps({name.replace("_", "-"): value for name, value in options.items()})]


def _disk_options(nbd_socket: Path, exports: Sequence[str]) -> list[str]:
    options = []
    for number, export in enumerate(exports):
        options += block_node(
            driver="nbd",
            node_name=f"disk{number}",
            server={"type": "unix", "path": str(nbd_socket)},
            export=export,
            cache={"direct": True, "no-flush": False},
            discard="unmap",
            detect_zeroes="off",
        )
        options += ["-device", f"virtio-blk-pci,drive=disk{number},bootindex={number + 1},serial={export}"]
    return options


async def _connect(process: asyncio.subprocess.Process, qmp: QMPClient, complaints: Path) -> None:
    """Wait for QEMU to take up its control connection, or to say why not."""
    accepting, ending = asyncio.ensure_future(qmp.accept()), asyncio.ensure_future(process.wait())
    done, _ = await asyncio.wait({accepting, ending}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    for task in (accepting, ending):
        task.cancel()
    await asyncio.wait({accepting, ending})  # or the library trips over its own cancelled half
    # a QEMU that gives up after it has connected ends the conversation before the first word
    if accepting not in done or accepting.exception() is not None:
        lines = complaints.read_text(errors="replace").split("\n")
        silent = "no answer within 60 s" if not done else "it ended without a word"
        said = [line.strip() for line in lines if line.strip()] or [silent]
        raise LabError(f"QEMU did not start: {said[-1]}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that QEMU is gone; this is the last resort, a guest that shut down has ended already."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
