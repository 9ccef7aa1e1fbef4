"""Run a recorded machine once: boot it and log its requests, or boot it to be changed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from vmrestorekit.lab.guests.units import (
    BOOT_DONE_LINE,
    CHANGE_DONE_LINE,
    CHANGE_SERIAL,
    FAILED_LINE,
    USE_BEGINS_LINE,
    USE_DONE_LINE,
)
from vmrestorekit.lab.nbd.server import Backend, serve
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.qemu import Guest, UnexpectedLineError, run_guest
from vmrestorekit.lab.recording.history import Step
from vmrestorekit.lab.recording.overlay import Overlay
from vmrestorekit.lab.recording.recorder import Recorder
from vmrestorekit.traces.schema import ReadTrace

__all__ = [
    "BOOT_DONE_MARK",
    "SERVICE_MARKS",
    "LostLineError",
    "boot_machine",
    "change_machine",
    "raised_priority",
    "record_boot",
]

BOOT_DONE_MARK = "boot_done_ns"
SERVICE_MARKS = ("service_start_ns", "service_end_ns")
_AFTER_SERVICE_S = 2.0
_CHANGE_TIMEOUT_S = 3600.0
_LEAST_NICE = -20


class LostLineError(LabError):
    """The guest booted, and the line that tells when did not get through; another boot will tell."""


async def record_boot(
    disks: Sequence[Overlay],
    vm: str,
    boot: str,
    *,
    accelerator: str,
    console_log: Path,
    versions: Mapping[str, str],
    step: Step | None = None,
    has_client: bool = False,
    graphics: bool = False,
    boot_done_line: str = BOOT_DONE_LINE,
    after_boot_s: float = 10.0,
    timeout_s: float = 900.0,
    extra: Sequence[str] = (),
    report: Report | None = None,
) -> ReadTrace:
    """Boot a machine from its disks once, record it and end it as the step says; see `record_boots`.

    Parameters
    ----------
    has_client : bool
        Whether a client comes after the boot; its beginning and end are marked, and waited for.
    """
    report = report or Report()
    step = step or Step(boot, 1, "")
    recorder = Recorder(*disks)
    exports: dict[str, Backend] = {f"disk{number}": disk for number, disk in enumerate(recorder.disks)}
    async with boot_machine(exports, accelerator, console_log, graphics, extra) as guest:
        report.now(f"{vm} {boot}: waiting until no other machine boots")
        async with (
            _booting_alone(),
            _told_every_second(f"{vm} {boot}: booting under {accelerator}", recorder, report),
        ):
            recorder.start()
            await guest.start()
            await _wait_for_the_end_of_the_boot(guest, boot_done_line, has_client, timeout_s)
            end_ns = recorder.mark(BOOT_DONE_MARK) + round(after_boot_s * 1e9)
        if has_client:
            async with _told_every_second(f"{vm} {boot}: a client", recorder, report):
                for line, mark in zip((USE_BEGINS_LINE, USE_DONE_LINE), SERVICE_MARKS, strict=True):
                    await guest.wait_for(line, timeout_s, failing=FAILED_LINE)
                    end_ns = max(end_ns, recorder.mark(mark) + round(_AFTER_SERVICE_S * 1e9))
        await asyncio.sleep(max(0, (end_ns - recorder.now()) / 1e9))
        if step.ends == "crash":
            guest.lose_power()
        else:
            report.now(f"{vm} {boot}: shutting down")
            await guest.shut_down(timeout_s)
    return recorder.trace(
        *(vm, boot),
        accelerator=accelerator,
        versions=versions,
        end_ns=end_ns,
        follows=step.follows,
        repeats=step.repeats,
    )


async def _wait_for_the_end_of_the_boot(guest: Guest, line: str, has_client: bool, timeout_s: float) -> None:
    try:
        await guest.wait_for(line, timeout_s, failing=USE_BEGINS_LINE if has_client else "")
    except UnexpectedLineError as error:
        raise LostLineError(
            f"the guest's line {line!r} was lost: a login prompt that opens the console at the same instant "
            "empties it"
        ) from error


async def change_machine(
    disks: Sequence[Overlay],
    archive: Overlay,
    accelerator: str,
    console: Path,
    timeout_s: float,
    report: Report,
    name: str,
) -> None:
    """Boot a machine, wait until it has carried out the change it was sent, and shut it down.

    Raises
    ------
    LabError
        If it does not boot in time, the change fails, or it does not shut down.
    """
    exports: dict[str, Backend] = {f"disk{number}": disk for number, disk in enumerate(disks)}
    async with boot_machine(exports | {CHANGE_SERIAL: archive}, accelerator, console) as guest:
        report.now(f"{name}: booting, to be changed")
        await guest.start()
        await guest.wait_for(BOOT_DONE_LINE, timeout_s)
        report.now(f"{name}: being changed (minutes)")
        await guest.wait_for(CHANGE_DONE_LINE, _CHANGE_TIMEOUT_S, failing=FAILED_LINE)
        await guest.shut_down(timeout_s)


@contextlib.contextmanager
def raised_priority() -> Iterator[None]:
    """Let this process, and the emulator it starts, run before others where that is permitted.

    The pauses between requests are part of a trace; other programs must not make them longer. Linux weighs
    sessions against each other (autogroup, sched(7)) before it looks at the niceness of processes. Real-time
    priority would not do: threads of the emulator wait for each other in loops, and one that waits so would
    keep the processor from the one it waits for.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    _set_niceness(_LEAST_NICE)
    try:
        yield
    finally:
        _set_niceness(usual)


def _set_niceness(niceness: int) -> None:
    with contextlib.suppress(OSError):  # needs rights that a user may not have
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        Path("/proc/self/autogroup").write_text(str(niceness))


@contextlib.asynccontextmanager
async def boot_machine(
    exports: Mapping[str, Backend],
    accelerator: str,
    console_log: Path,
    graphics: bool = False,
    extra: Sequence[str] = (),
) -> AsyncIterator[Guest]:
    """Serve the disks and set up a machine on them."""
    with tempfile.TemporaryDirectory(prefix="vmrestorekit-") as folder:
        path = Path(folder, "nbd")
        async with (
            serve(path, exports),
            run_guest(
                *(path, list(exports)),
                accelerator=accelerator,
                console_log=console_log,
                graphics=graphics,
                extra=extra,
            ) as guest,
        ):
            yield guest


@contextlib.asynccontextmanager
async def _booting_alone() -> AsyncIterator[None]:
    """Let no other recording boot a machine at the same time: they would make each other's pauses longer."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(Path(tempfile.gettempdir(), "vmrestorekit-boot.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def _told_every_second(what: str, recorder: Recorder, report: Report) -> AsyncIterator[None]:
    async def tell() -> None:
        seconds = 0
        while True:
            report.now(f"{what}, {seconds} s, {recorder.requests} requests")
            await asyncio.sleep(1)
            seconds += 1

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
