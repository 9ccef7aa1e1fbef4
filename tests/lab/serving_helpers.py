"""Help for tests of what `lab serve` does: a media agent served from a thread, or by a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from lacking import missing

from vmrestorekit.lab.media import shared_files
from vmrestorekit.lab.media.serve import Places, Serving, serve_copy
from vmrestorekit.lab.media.source import ImageSource, Source
from vmrestorekit.lab.nbd.server import Limits
from vmrestorekit.lab.programs import LabError
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link

_MAIN = "from vmrestorekit.cli import main; main()"
KIB, MIB = 1 << 10, 1 << 20
BLOCK = 64 * KIB
# quick enough for tests, slow enough that reads overlap
QUICK = Hardware(
    "quick",
    BackupDevice(channels=4, positioning_ns=200_000, bandwidth=1_000_000_000),
    link=Link(latency_ns=10_000, bandwidth=2_000_000_000),
)


def write_image(path: Path, mib: int = 24, seed: int = 7) -> Path:
    """A sparse image of 14 MiB or more: noise, a hole, noise at 10 MiB, a hole, a ragged end."""
    with open(path, "wb") as stream:
        stream.truncate(mib * MIB - 1536)
        stream.write(random.Random(seed).randbytes(3 * MIB))
        stream.seek(10 * MIB)
        stream.write(random.Random(seed + 1).randbytes(mib * MIB // 4))
        stream.seek(mib * MIB - 1536 - 100)
        stream.write(b"the end" * 14)
    return path


def plan_for(source: Source, **changes: Any) -> RestorePlan:
    """A plan with a first set of every third block, and a cache that is much smaller than the disk."""
    stored = [int(block) for block in range(len(source.layout.address)) if source.layout.address[block] >= 0]
    settings = {"first_set": stored[::3], "cache_bytes": 2 * MIB} | changes
    return RestorePlan(source.disk_bytes, block_bytes=source.block_bytes, **settings)


class Served:
    """A media agent in a thread; `call` runs what touches it in its event loop."""

    def __init__(self, serving: Serving, places: Places, loop: asyncio.AbstractEventLoop) -> None:
        self.agent, self.nbd = serving.agent, serving.nbd
        self.socket, self.control, self.mount = places.socket, places.control, places.mount
        self._loop = loop

    def call(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Return what a function or coroutine function returns in the loop."""

        async def in_loop() -> Any:
            result = function(*arguments, **more)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(in_loop(), self._loop).result(30)

    def uri(self, export: str = "disk0") -> str:
        return f"nbd+unix:///{export}?socket={self.socket}"


@contextlib.contextmanager
def serving_agent(
    source: Source,
    *,
    plan: RestorePlan | None = None,
    hardware: Hardware = QUICK,
    limits: Limits | None = None,
    mount: bool = False,
) -> Iterator[Served]:
    """Serve from a thread, so that blocking clients can be used; whatever goes wrong there is raised here."""
    ready: Future[Served] = Future()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def main(folder: Path) -> None:
        places = Places(folder / "nbd", folder / "control", folder / "mount" if mount else None, "machine")
        async with serve_copy(source, hardware, places, plan=plan, limits=limits) as serving:
            ready.set_result(Served(serving, places, loop))
            await stop.wait()

    def run(folder: Path) -> None:
        try:
            loop.run_until_complete(main(folder))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    with tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(target=run, args=[Path(folder)])
        thread.start()
        try:
            yield ready.result(30)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            assert not thread.is_alive()
            loop.close()


def need_fuse() -> None:
    """Skip where nothing can be mounted; fail where everything has to be there."""
    try:
        shared_files._fuse_class()
    except LabError as error:
        missing(str(error))


def image_source(*paths: Path, block_bytes: int = BLOCK) -> ImageSource:
    return ImageSource(paths, block_bytes)


def ask(*command: str | Path, timeout: float = 120) -> str:
    """Run a program and return what it printed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class LabServe:
    """``vmrestorekit lab serve`` in a process of its own."""

    def __init__(self, *arguments: str | Path, cwd: Path) -> None:
        self.control = cwd / "control.sock"
        self.socket = cwd / "nbd.sock"
        places = ["--socket", self.socket, "--control", self.control]
        command = [sys.executable, "-c", _MAIN, "lab", "serve", *places, *arguments]
        self.process = subprocess.Popen(
            [*map(str, command)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while not self.control.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return exit status, stdout and stderr."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors

    def __enter__(self) -> LabServe:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def resident_bytes(pid: int | None = None) -> int:
    """What a process has in memory now."""
    with open(f"/proc/{pid or os.getpid()}/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
