"""A virtual machine under QEMU: start it, watch its console, shut it down."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from qemu.qmp import QMPClient

from vmrestorekit.lab.programs import LabError

__all__ = ["Guest", "UnexpectedLineError"]


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

    @property
    def qmp(self) -> QMPClient:
        """The control connection."""
        return self._qmp

    @property
    def pid(self) -> int:
        """The number of QEMU's process."""
        return self._process.pid

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

    async def wait_for_end(self, timeout_s: float | None) -> None:
        """Wait until the guest has switched itself off; without a limit, however long it takes.

        Raises
        ------
        LabError
            If it does not in time, or QEMU failed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                status = await self._process.wait()
        except TimeoutError as error:
            raise LabError(
                f"the guest did not shut down within {timeout_s} s; {self._last_line()}"
            ) from error
        if status:
            raise LabError(f"QEMU ended with status {status}; {self._last_line()}")

    def _last_line(self) -> str:
        lines = self._console[-4096:].decode(errors="replace").splitlines()
        return f"its last line was {next((line.strip() for line in reversed(lines) if line.strip()), '')!r}"

    async def _read_console(self, reader: asyncio.StreamReader, log: Path) -> None:
        """Take what the guest prints as it comes; a console nobody reads would hold the guest up."""
        with open(log, "ab", buffering=0) as kept, contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                kept.write(piece)
                async with self._news:
                    self._console += piece
                    self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()
