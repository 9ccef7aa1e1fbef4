"""Help for tests of restores: a media agent's stand-in, hosts without a guest, and what their disks hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lab_helpers import MemoryDisk

from vmrestorekit.lab.nbd.server import serve
from vmrestorekit.lab.programs import run
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.qemu import QEMU
from vmrestorekit.lab.restore.agent_link import AgentSockets
from vmrestorekit.lab.restore.host import Host
from vmrestorekit.plan import RestorePlan

MIB = 1 << 20
BLOCK = 64 * 1024


class Told(Report):
    """Keeps what is said to the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def now(self, message: str) -> None:
        pass


class LoggedDisk(MemoryDisk):
    """A disk of the logical source that remembers what was read; ``delay_s`` makes it slow."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, read_only=True)
        self.reads: list[tuple[int, int]] = []
        self.delay_s = 0.0

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        await asyncio.sleep(self.delay_s)
        return await super().read(offset, length)

    def was_read(self, block: int) -> int:
        """How often the block's first byte was read."""
        return sum(offset <= block * BLOCK < offset + length for offset, length in self.reads)


class StandIn:
    """What the data agent needs of a media agent: exports, and a control socket that always says yes."""

    def __init__(self, folder: Path, contents: Sequence[bytes]) -> None:
        self.sockets = AgentSockets(folder / "nbd", folder / "control")
        self.disks = [LoggedDisk(content) for content in contents]
        for disk in self.disks:
            disk.tells_holes = False  # see AgentExport
        self.for_relocation = [LoggedDisk(content) for content in contents]
        self.messages: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {
            "phase": "serving",
            "first_set": {"blocks": 0, "staged": 0},
            "queue": 0,
            "in_flight": 0,
            "launch": {"has_staged_enough": False},
            "read_bytes": {"vm": 0},
        }
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def said(self) -> list[str]:
        """The messages but notes and questions, in order."""
        return [each["do"] for each in self.messages if each["do"] not in ("note", "status", "timeline")]

    @property
    def noted(self) -> list[str]:
        """The kinds of events that were noted, by their times."""
        notes = [each for each in self.messages if each["do"] == "note"]
        return [each["kind"] for each in sorted(notes, key=lambda note: note["at_ns"])]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StandIn]:
        exports = {f"disk{number}": disk for number, disk in enumerate(self.disks)}
        more = {f"disk{number}-relocation": disk for number, disk in enumerate(self.for_relocation)}
        self.sockets.control.unlink(missing_ok=True)
        async with serve(self.sockets.nbd, exports | more):
            server = await asyncio.start_unix_server(self._answer, self.sockets.control)
            try:
                yield self
            finally:
                server.close()
                for client in self._clients:
                    client.transport.abort()
                self._clients.clear()
                self.sockets.control.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                message = json.loads(line)
                self.messages.append(message)
                answer: dict[str, Any] = {"ok": True}
                if message["do"] == "status":
                    answer["status"] = self.status
                if message["do"] == "timeline":
                    answer |= {"path": message["path"], "events": 0}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()


def content_of(size: int, seed: int, *, zeros: Sequence[tuple[int, int]] = ()) -> bytes:
    """Return the content of a disk, with ranges of zeros (first block, count)."""
    content = bytearray(random.Random(seed).randbytes(size))
    for first, count in zeros:
        content[first * BLOCK : (first + count) * BLOCK] = bytes(
            min(count * BLOCK, max(0, size - first * BLOCK))
        )
    return bytes(content)


def plan_for(*sizes: int, **changes: Any) -> RestorePlan:
    return RestorePlan(disk_bytes=sizes, block_bytes=BLOCK, **changes)


_PRINTED: dict[int, int] = {}  # a terminal that a QEMU prints on, by process


def hear_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what QEMU prints: there, and not in the monitor's answer, `qemu-io` says what it found."""
    start = asyncio.create_subprocess_exec

    async def start_heard(*command: Any, **more: Any) -> asyncio.subprocess.Process:
        if not any(str(word).endswith(QEMU) for word in command):
            return await start(*command, **more)
        ours, theirs = os.openpty()  # printed to a file, the lines would come with the end of the process
        os.set_blocking(ours, False)
        try:
            process = await start(*command, **(more | {"stdout": theirs}))
        finally:
            os.close(theirs)
        _PRINTED[process.pid] = ours
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_heard)


def forget_qemus() -> None:
    """Close what `hear_qemu` has opened."""
    while _PRINTED:
        os.close(_PRINTED.popitem()[1])


async def say_to_qemu_io(host: Host, disk: int, command: str) -> str:
    """Read or write as the guest would, without one; return what comes of it."""
    device = f"/machine/peripheral/disk{disk}/virtio-backend"
    line = {"command-line": f'qemu-io -d {device} "{command}"'}
    refused = str(await host.qmp.execute("human-monitor-command", line)).strip()
    assert not refused, refused
    said, printed = "", _PRINTED[host.guest.pid]
    deadline = asyncio.get_running_loop().time() + 20
    # a terminal's lines take a moment, one by one; of success a flush says nothing
    while command != "flush" and not re.search(r"(ops/sec\)|failed: .*)\r\n$", said):
        assert asyncio.get_running_loop().time() < deadline, f"qemu-io {command}: {said!r}"
        with contextlib.suppress(BlockingIOError):
            said += os.read(printed, 4096).decode()
        await asyncio.sleep(0)
    return said


async def qemu_io(host: Host, disk: int, command: str) -> str:
    """As `say_to_qemu_io`, where it has to succeed."""
    said = await say_to_qemu_io(host, disk, command)
    assert "failed" not in said, said
    assert "error" not in said.lower(), said
    assert " bytes at offset" in said or command == "flush", said
    return said


async def write(host: Host, model: list[bytearray], disk: int, offset: int, length: int, byte: int) -> None:
    """Write a pattern to a disk and to the model of what it has to hold."""
    await qemu_io(host, disk, f"write -P {byte} {offset} {length}")
    model[disk][offset : offset + length] = bytes([byte]) * length


async def expect_reads(
    host: Host, model: Sequence[bytes | bytearray], disk: int, offset: int, length: int
) -> None:
    """Read what the guest would read and compare: needs a range of one byte value."""
    expected = model[disk][offset : offset + length]
    assert len(set(expected)) == 1, "the range has to be of one byte"
    await qemu_io(host, disk, f"read -P {expected[0]} {offset} {length}")


def content_of_image(image: Path, size: int, folder: Path) -> bytes:
    """Return what a QCOW2 image without a backing file holds."""
    raw = folder / f"{image.stem}.raw"
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw])
    info = json.loads(
        subprocess.run(
            ["qemu-img", "info", "--output=json", str(image)], check=True, capture_output=True, text=True
        ).stdout
    )
    assert "backing-filename" not in info
    run(["qemu-img", "check", image], good=(0, 3))  # 3: leaked clusters, which cost room and nothing else
    content = raw.read_bytes()
    raw.unlink()
    assert not any(content[size:])
    return content[:size]


async def until(condition: Any, timeout_s: float = 30.0) -> None:
    """Wait until something that no event tells has come true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)
