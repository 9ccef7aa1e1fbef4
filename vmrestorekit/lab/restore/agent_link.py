"""The data agent's line to the media agent, which may be killed and started again at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from vmrestorekit.lab.media.control import ControlClient, ControlError
from vmrestorekit.lab.programs import LabError, find_program, require_programs
from vmrestorekit.lab.progress import Report

__all__ = ["AgentLink", "AgentProcess", "AgentSockets", "agent_process", "connect_agent"]

_MAIN = "from vmrestorekit.cli import main; main()"
_START_S = 60.0
_STATUS_S = 30.0
_RESTARTS_IN_A_ROW = 5


@dataclasses.dataclass(frozen=True)
class AgentSockets:
    """Where a media agent listens."""

    nbd: Path
    control: Path


class AgentProcess:
    """A media agent that we started: ``vmrestorekit lab serve`` in a process of its own."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._arguments, self._log = list(arguments), log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, for the first time or again; it ends when this process does."""
        require_programs(["setpriv"], "starting a media agent")
        command = [find_program("setpriv") or "setpriv", "--pdeathsig", "TERM", "--"]
        command += [sys.executable, "-c", _MAIN, "lab", "serve", *self._arguments]
        with open(self._log, "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        """The number of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and did not end."""
        return self._process is not None and self._process.returncode is None

    async def ended(self) -> None:
        """Wait until it ends."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """End it, kindly at first."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def last_line(self) -> str:
        """Return the last line that it said."""
        with contextlib.suppress(FileNotFoundError):
            lines = self._log.read_text(errors="replace").splitlines()
            return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return "nothing"


@contextlib.asynccontextmanager
async def agent_process(arguments: Sequence[str], log: Path) -> AsyncIterator[AgentProcess]:
    """Start a media agent; it is ended afterwards."""
    process = AgentProcess(arguments, log)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


@contextlib.asynccontextmanager
async def connect_agent(
    sockets: AgentSockets, plan: Path, report: Report, process: AgentProcess | None = None
) -> AsyncIterator[AgentLink]:
    """Connect to a media agent.

    Parameters
    ----------
    sockets : AgentSockets
    plan : Path
        The folder of the plan.
    report : Report
    process : AgentProcess, optional
        If it is ours to start again.
    """
    link = AgentLink(sockets, plan, report, process)
    await link.ensure()
    try:
        yield link
    finally:
        await link.close()


class AgentLink:
    """Tells the media agent what goes on; one that was started again is told all that still matters."""

    def __init__(
        self, sockets: AgentSockets, plan: Path, report: Report, process: AgentProcess | None = None
    ) -> None:
        self.sockets = sockets
        self.process = process
        self.losses = 0
        self._plan, self._report = plan, report
        self._client: ControlClient | None = None
        self._said: list[str] = []  # indications, in their order
        self._relocated: list[tuple[int, int]] = []
        self._notes: list[dict[str, Any]] = []  # not sent yet
        self._connecting = asyncio.Lock()
        self._connected_before = False

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            await self._client.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a media agent, as far as we know."""
        return self._client is not None

    async def indicate(self, message: str) -> None:
        """Send an indication, such as ``launched``; if the agent is gone, as soon as it is back."""
        self._said.append(message)
        if not await self._try(self._indicate, message):
            await self.ensure()

    async def relocated(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Say which blocks are on the destination now: first block and count of each range."""
        self._relocated += ranges
        if not await self._try(_client_of(ControlClient.relocated), ranges):
            await self.ensure()

    async def note(
        self,
        kind: str,
        *,
        block: int = -1,
        count: int = 0,
        request: int = -1,
        detail: int = 0,
        at_ns: int | None = None,
    ) -> None:
        """Put an event into the recording, by default as of now; never waits for an agent."""
        at_ns = time.monotonic_ns() if at_ns is None else at_ns
        more = {"block": block, "count": count, "request": request, "detail": detail, "at_ns": at_ns}
        self._notes.append({"kind": kind} | more)
        await self._try(self._send_notes)

    async def status(self) -> dict[str, Any]:
        """Return what the agent knows about itself; nothing if it is gone."""
        found: dict[str, Any] = {}

        async def ask(client: ControlClient) -> None:
            found.update(await client.status())

        await self._try(ask)
        return found

    async def save_recording(self, folder: Path) -> None:
        """Have the recording saved; what a killed agent had recorded is lost with it."""

        async def ask(client: ControlClient) -> None:
            await client.timeline(folder)

        if not await self._try(ask):
            raise LabError("expected a media agent to save the recording, but it is gone")

    async def ensure(self) -> None:
        """Return when the agent is there and knows what it has to; start it again if that is up to us.

        Raises
        ------
        LabError
            If it ends again and again.
        """
        async with self._connecting:
            attempts = 0
            while not await self._is_there():
                if attempts == 1 and self._connected_before:
                    self._report.say("The media agent is gone; waiting for it to come back.")
                await self._start_again(attempts)
                attempts += 1
                await self._connect()

    async def _is_there(self) -> bool:
        try:
            async with asyncio.timeout(_STATUS_S):
                return await self._try(ControlClient.status)
        except TimeoutError:
            self._client = None
            return False

    async def _start_again(self, attempts: int) -> None:
        if self.process is None or self.process.is_running:
            return
        if attempts >= _RESTARTS_IN_A_ROW:
            raise LabError(f"the media agent ended {attempts} times in a row: {self.process.last_line()}")
        await self.process.start()

    async def _connect(self) -> None:
        """Try for a while to connect, and say what the agent has to know."""
        deadline = time.monotonic() + (_START_S if self.process else 1.0)
        while time.monotonic() < deadline:
            if self.process is not None and not self.process.is_running:
                if not self._connected_before:
                    raise LabError(f"the media agent did not start: {self.process.last_line()}")
                return
            try:
                client = await ControlClient.connect(self.sockets.control, wait_s=0.5)
            except ControlError:
                continue
            if self._connected_before:
                self.losses += 1
                now = time.monotonic_ns()
                self._notes += [_event("lose_media_agent", now), _event("take_over", now)]
            try:
                for message in self._said:
                    await self._indicate(client, message)
                if self._relocated:
                    await client.relocated(self._relocated)
                await self._send_notes(client)
            except ConnectionError:
                return
            self._client, self._connected_before = client, True
            return

    async def _try(self, do: Any, *arguments: Any) -> bool:
        """Do something with the client; return False if the agent is gone."""
        client = self._client
        if client is None:
            return False
        # whoever asks may be cancelled; what has to be told is told to the end nevertheless
        asking = asyncio.ensure_future(do(client, *arguments))
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.shield(asking)
        except ConnectionError:
            if self._client is client:
                self._client = None
            return False
        return True

    async def _indicate(self, client: ControlClient, message: str) -> None:
        if message == "vm_profile":
            await client.vm_profile(self._plan)
        else:
            await client.ask(message)

    async def _send_notes(self, client: ControlClient) -> None:
        while self._notes:
            event = self._notes.pop(0)
            try:
                await client.note(**event)
            except ConnectionError:
                self._notes.insert(0, event)
                raise


def _event(kind: str, at_ns: int) -> dict[str, Any]:
    return {"kind": kind, "block": -1, "count": 0, "request": -1, "detail": 0, "at_ns": at_ns}


def _client_of(method: Any) -> Any:
    async def call(client: ControlClient, *arguments: Any) -> None:
        await method(client, *arguments)

    return call
