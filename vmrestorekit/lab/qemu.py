"""QEMU as the host of one guest: find it, choose its accelerator, run it, watch its console, shut it down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from qemu.qmp import QMPClient, QMPError

from vmrestorekit.lab.programs import LabError, find_program, require_programs, run

__all__ = ["QEMU", "Guest", "UnexpectedLineError", "qemu_version", "run_guest"]

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


class UnexpectedLineError(LabError):
    """The guest printed a line that says that the one waited for will not come."""


class Guest:
    """A virtual machine that has been set up and not yet started."""

    def __init__(self, process: asyncio.subprocess.Process, qmp: QMPClient) -> None:
        self._process = process
        self._qmp = qmp
        self._console = bytearray()
        self._searched = 0
        self._news = asyncio.Condition()
        self._ended = False

    async def start(self) -> None:
        """Let the virtual processors run."""
        await self._qmp.execute("cont")

    async def wait_for(self, line: str, timeout_s: float, *, failing: str = "") -> None:
        """Return when ``line`` appears on the serial console; the next call searches what comes after it.

        Parameters
        ----------
        line : str
        timeout_s : float
        failing : str
            The line that says, should it come first, that the other will not.

        Raises
        ------
        LabError
            If it does not come in time or the machine ends; the message has the last line of the console.
        UnexpectedLineError
            If the failing line comes first; the message has the line before it.
        """
        wanted = line.encode()
        try:
            async with asyncio.timeout(timeout_s), self._news:
                while (at := self._console.find(wanted, self._searched)) < 0:
                    failed = self._console.find(failing.encode(), self._searched) if failing else -1
                    if failed >= 0:
                        said = self._console[self._searched : failed].decode(errors="replace").split("\n")
                        lines = [each.strip() for each in said if each.strip()] or ["nothing"]
                        raise UnexpectedLineError(
                            f"the guest printed {failing!r} instead of {line!r}: {lines[-1]}"
                        )
                    if self._ended:
                        raise LabError(f"the guest ended before it printed {line!r}; {self._last_line()}")
                    await self._news.wait()
        except TimeoutError as error:
            limit = f"within {timeout_s:g} s"
            raise LabError(f"the guest did not print {line!r} {limit}; {self._last_line()}") from error
        self._searched = at + len(wanted)

    async def shut_down(self, timeout_s: float) -> None:
        """Press the power button and wait until the guest has gone by itself.

        Raises
        ------
        LabError
            If it does not go in time; it is still running then.
        """
        await self._qmp.execute("system_powerdown")
        await self.wait_for_end(timeout_s)

    def lose_power(self) -> None:
        """End the machine at this instant; what its system has not written is lost."""
        self._process.kill()

    async def wait_for_end(self, timeout_s: float) -> None:
        """Wait until the guest has switched itself off.

        Raises
        ------
        LabError
            If it does not in time, or QEMU failed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                status = await self._process.wait()
        except TimeoutError as error:
            limit = f"within {timeout_s:g} s"
            raise LabError(f"the guest did not shut down {limit}; {self._last_line()}") from error
        if status:
            raise LabError(f"QEMU ended with status {status}; {self._last_line()}")

    def _last_line(self) -> str:
        lines = self._console[-4096:].decode(errors="replace").splitlines()
        return f"its last line was {next((line.strip() for line in reversed(lines) if line.strip()), '')!r}"

    async def _read_console(self, reader: asyncio.StreamReader, log: Path) -> None:
        """Take what the guest prints as it comes; a console nobody reads would hold the guest up."""
        with open(log, "wb", buffering=0) as kept, contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                kept.write(piece)
                async with self._news:
                    self._console += piece
                    self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()


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
    accelerator : {"kvm", "tcg"}
    console_log : Path
        What the guest prints on its serial console.
    graphics : bool
        Whether it has a graphics adapter (that nobody looks at).
    extra : sequence of str
        More of QEMU's command line, such as a kernel to boot directly.
    """
    require_programs([QEMU], "running a virtual machine")
    console_log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    qmp = QMPClient("vmrestorekit")
    with tempfile.TemporaryDirectory(prefix="vmrestorekit-") as folder, theirs:
        control = str(Path(folder, "qmp"))
        await qmp.start_server(control)
        command = [
            *(find_program(QEMU) or QEMU, *_ACCELERATORS[accelerator]),
            *("-smp", str(processors), "-m", str(memory_mib), "-nodefaults", "-no-user-config"),
            *("-display", "none", "-no-reboot", "-S"),
            *_disk_options(nbd_socket, exports),
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


def _disk_options(nbd_socket: Path, exports: Sequence[str]) -> list[str]:
    options = []
    for number, export in enumerate(exports):
        disk = {
            "driver": "nbd",
            "node-name": f"disk{number}",
            "server": {"type": "unix", "path": str(nbd_socket)},
            "export": export,
            "cache": {"direct": True, "no-flush": False},
            "discard": "unmap",
            "detect-zeroes": "off",
        }
        device = f"virtio-blk-pci,drive=disk{number},bootindex={number + 1},serial={export}"
        options += ["-blockdev", json.dumps(disk), "-device", device]
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
