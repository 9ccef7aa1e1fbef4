"""Record boots of a guest one after the other, each with the state of the disk before it, into a corpus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import vmrestorekit
from vmrestorekit.lab.guest import BOOT_DONE_LINE, describe_image
from vmrestorekit.lab.nbd import Backend, serve
from vmrestorekit.lab.overlay import Overlay
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.qemu import Guest, qemu_version, run_guest
from vmrestorekit.lab.recorder import Recorder
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["BOOT_DONE_MARK", "choose_accelerator", "record_boot", "record_boots"]

BOOT_DONE_MARK = "boot_done_ns"
_KERNEL_LINE = "Linux version"  # the first line a Linux kernel prints
_SIGNATURE_AT, _SIGNATURE = 510, b"\x55\xaa"  # without it no BIOS boots from a disk


def record_boots(
    image: Path,
    count: int,
    out_dir: Path,
    *,
    accelerator: str | None = None,
    work_dir: Path | None = None,
    after_boot_s: float = 10.0,
    timeout_s: float = 900.0,
    report: Report | None = None,
) -> list[str]:
    """Record boots ``boot-1`` to ``boot-<count>``; each starts from the disk as the one before left it.

    A boot that is in the corpus already is kept, so that an interrupted recording can be taken up again.

    Parameters
    ----------
    image : Path
        A raw disk image, never written. What `build_image` left beside it names and describes the machine.
    count : int
    out_dir : Path
        The corpus, created if needed.
    accelerator : {"kvm", "tcg"}, optional
        Without it, `choose_accelerator` decides.
    work_dir : Path, optional
        For the writes of each boot, the disk before it and the console; default ``<image>.boots``.
    after_boot_s : float
        The trace goes on for so many seconds after the end of the boot. What the guest writes later, while it
        shuts down, belongs to the next state and not to the trace.
    timeout_s : float
        Time limit for the boot, and for shutting down.
    report : Report, optional
        Is told what happens.

    Returns
    -------
    list of str
        The names of the boots that were added to the corpus now.

    Raises
    ------
    LabError
        If QEMU is missing, the guest does not boot in time or does not shut down, the image has no boot
        sector, or it has changed since its first boot was recorded.
    ManifestError
        If the image is no raw disk image.
    """
    if count < 1:
        raise ValueError(f"expected at least one boot to record, got {count}")
    if accelerator not in (None, "kvm", "tcg"):
        raise ValueError(f"expected the accelerator kvm or tcg, got {accelerator!r}")
    report = report or Report()
    work_dir = work_dir or image.with_name(image.name + ".boots")
    description = describe_image(image)
    vm = str(description["name"])
    there = _boots_there(out_dir, vm)
    added: list[str] = []
    for number in range(1, count + 1):
        boot = f"boot-{number}"
        if boot in there:
            report.say(f"{vm} {boot}: is in {out_dir} already, kept")
            continue
        state = _state_before(image, number, work_dir, report)
        stored = work_dir / f"{boot}.trace.parquet"
        if stored.exists():
            report.say(f"{vm} {boot}: was recorded already, kept")
        else:
            accelerator = accelerator or choose_accelerator(state, work_dir, report)
            _forget_attempt(work_dir, number)
            with Overlay(state, work_dir / f"{boot}.writes") as disk:
                booting = record_boot(
                    *(disk, vm, boot),
                    accelerator=accelerator,
                    console_log=work_dir / f"{boot}.console.log",
                    versions=_versions(description),
                    after_boot_s=after_boot_s,
                    timeout_s=timeout_s,
                    report=report,
                )
                trace = asyncio.run(booting)
                disk.save()
            # the trace goes last: where it is, the boot is recorded whole
            trace.save(stored)
        _add(stored, state, out_dir, description, report)
        added.append(boot)
    return added


def _add(stored: Path, state: Path, out_dir: Path, description: Mapping[str, object], report: Report) -> None:
    """Add a recorded boot to the corpus, with a manifest of the disk before it."""
    from vmrestorekit.backup.manifest import build_manifest
    from vmrestorekit.traces.recording import add_boot

    trace = ReadTrace.load(stored)
    about = trace.metadata
    report.now(f"{about.vm} {about.boot}: describing the disk before the boot")
    add_boot(out_dir, trace, [build_manifest(state)], _described(description))
    seconds = about.marks[BOOT_DONE_MARK] / 1e9
    report.say(
        f"{about.vm} {about.boot}: {trace.frame.height} requests, {seconds:.1f} s under {about.accelerator}"
    )


async def record_boot(
    disk: Overlay,
    vm: str,
    boot: str,
    *,
    accelerator: str,
    console_log: Path,
    versions: Mapping[str, str],
    boot_done_line: str = BOOT_DONE_LINE,
    after_boot_s: float = 10.0,
    timeout_s: float = 900.0,
    extra: Sequence[str] = (),
    report: Report | None = None,
) -> ReadTrace:
    """Boot a machine from ``disk`` once, record it and shut it down; parameters as of `record_boots`."""
    report = report or Report()
    recorder = Recorder(disk)
    async with _machine(recorder, vm, accelerator, console_log, extra) as guest:
        async with _told_every_second(f"{vm} {boot}: booting under {accelerator}", recorder, report):
            recorder.start()
            await guest.start()
            await guest.wait_for(boot_done_line, timeout_s)
            boot_done_ns = recorder.mark(BOOT_DONE_MARK)
            await asyncio.sleep(after_boot_s)
        report.now(f"{vm} {boot}: shutting down")
        await guest.shut_down(timeout_s)
    end_ns = boot_done_ns + round(after_boot_s * 1e9)
    return recorder.trace(vm, boot, accelerator=accelerator, versions=versions, end_ns=end_ns)


def choose_accelerator(image: Path, work_dir: Path, report: Report, timeout_s: float = 30.0) -> str:
    """Return ``"kvm"`` if the guest's own kernel prints a line under it in time, else ``"tcg"``.

    That /dev/kvm opens, and even that a boot loader runs, proves nothing: under some nested hypervisors a
    guest hangs as soon as its kernel takes over. So the probe is the beginning of a boot, with its writes
    thrown away.
    """
    qemu_version()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    report.now(f"trying KVM, for at most {timeout_s:g} s")
    try:
        asyncio.run(_boots_under_kvm(image, work_dir, timeout_s))
    except LabError as error:
        report.say(f"KVM does not run this guest, so QEMU emulates its processors (TCG, slower): {error}")
        return "tcg"
    return "kvm"


async def _boots_under_kvm(image: Path, work_dir: Path, timeout_s: float) -> None:
    writes = work_dir / "kvm-probe.writes"
    try:
        with Overlay(image, writes) as disk:
            async with _machine(disk, "probe", "kvm", work_dir / "kvm-probe.console.log") as guest:
                await guest.start()
                await guest.wait_for(_KERNEL_LINE, timeout_s)
    finally:
        writes.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def _machine(
    disk: Backend, name: str, accelerator: str, console_log: Path, extra: Sequence[str] = ()
) -> AsyncIterator[Guest]:
    """Serve the disk and set up a machine on it."""
    with tempfile.TemporaryDirectory(prefix="vmrestorekit-") as folder:
        path = Path(folder, "nbd")
        async with (
            serve(path, {name: disk}),
            run_guest(path, name, accelerator=accelerator, console_log=console_log, extra=extra) as guest,
        ):
            yield guest


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


def _state_before(image: Path, number: int, work_dir: Path, report: Report) -> Path:
    """Return the image of the disk as it is before this boot, making it from the boot before if needed."""
    if not image.is_file():
        raise FileNotFoundError(f"expected a disk image at {image}, found no file")
    _expect_bootable(image)
    work_dir.mkdir(parents=True, exist_ok=True)
    _expect_same_image(image, work_dir / "image.json", first=number == 1)
    if number == 1:
        return image
    state = work_dir / f"before-boot-{number}.img"
    if not state.exists():
        writes = work_dir / f"boot-{number - 1}.writes"
        if not writes.exists():
            raise LabError(
                f"boot-{number} has to start from the writes of boot-{number - 1}, and there are none at "
                f"{writes}: record into an empty corpus, from the first boot on"
            )
        report.now(f"{image.name}: making the disk before boot-{number}")
        with Overlay(_state_before(image, number - 1, work_dir, report), writes) as disk:
            disk.apply(state)
    return state


def _expect_bootable(image: Path) -> None:
    """Refuse now what an emulator would wait for in vain."""
    from vmrestorekit.backup.images import RawImage, image_format

    kind = image_format(image)
    if kind != "raw":
        raise LabError(
            f"{image}: expected a raw disk image, got {kind.upper()}; convert it with qemu-img convert -O raw"
        )
    RawImage(image).close()
    with open(image, "rb") as disk:
        disk.seek(_SIGNATURE_AT)
        found = disk.read(len(_SIGNATURE))
    if found != _SIGNATURE:
        raise LabError(
            f"{image}: expected a disk to boot from, whose first sector ends with the signature "
            f"{_SIGNATURE.hex(' ')}, got {found.hex(' ')}"
        )


def _expect_same_image(image: Path, note: Path, *, first: bool) -> None:
    about = json.dumps({"size": image.stat().st_size, "modified_ns": image.stat().st_mtime_ns})
    if note.exists() and note.read_text() == about:
        return
    if not first:
        raise LabError(f"{image} has changed since its first boot was recorded: record into an empty corpus")
    for stale in note.parent.glob("*boot-*"):
        stale.unlink()
    note.write_text(about)


def _forget_attempt(work_dir: Path, number: int) -> None:
    """Remove the writes of a boot whose recording was interrupted."""
    for leftover in (f"boot-{number}.writes", f"boot-{number}.writes.state", f"before-boot-{number + 1}.img"):
        (work_dir / leftover).unlink(missing_ok=True)


def _boots_there(out_dir: Path, vm: str) -> set[str]:
    from vmrestorekit.traces.corpus import load_corpus

    try:
        corpus = load_corpus(out_dir)
    except FileNotFoundError:
        return set()
    return {boot.boot for boot in corpus[vm].boots} if vm in corpus else set()


def _versions(description: Mapping[str, object]) -> dict[str, str]:
    versions = {"qemu": qemu_version(), "vmrestorekit": vmrestorekit.__version__}
    return versions | ({"kernel": str(description["kernel"])} if "kernel" in description else {})


def _described(description: Mapping[str, object]) -> dict[str, object]:
    """Return what the corpus says about the machine: its description, without what is long or a table."""
    kept = ("roles", "packages", "services", "first_use", "kernel", "spec_digest")
    described = {key: description[key] for key in kept if key in description}
    return {"release": str(description.get("system", "")), "built_by": "vmrestorekit lab build", **described}
