"""Record boots of a guest one after the other, each with the state of its disks before it, into a corpus."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vmrestorekit
from vmrestorekit.lab.guests.disks import disk_paths
from vmrestorekit.lab.guests.guest import describe_image
from vmrestorekit.lab.guests.spec import Change
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.qemu import qemu_version
from vmrestorekit.lab.recording.change import pack_change
from vmrestorekit.lab.recording.history import DiskStates, Step, steps_of
from vmrestorekit.lab.recording.machine import (
    BOOT_DONE_MARK,
    LostLineError,
    boot_machine,
    change_machine,
    raised_priority,
    record_boot,
)
from vmrestorekit.lab.recording.overlay import Overlay
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["choose_accelerator", "record_boots", "states_before"]

_ATTEMPTS = 3
_KERNEL_LINE = "Linux version"  # the first line a Linux kernel prints
_SIGNATURE_AT, _SIGNATURE = 510, b"\x55\xaa"  # without it no BIOS boots from a disk


def record_boots(
    image: Path,
    count: int | None,
    out_dir: Path,
    *,
    accelerator: str | None = None,
    work_dir: Path | None = None,
    after_boot_s: float = 10.0,
    timeout_s: float = 900.0,
    keep_states: bool = False,
    report: Report | None = None,
) -> list[str]:
    """Record boots ``boot-1``, ``boot-2`` …; each starts from the disks as the one before left them.

    A boot that is in the corpus already is kept, so that an interrupted recording can be taken up again.

    Parameters
    ----------
    image : Path
        A raw disk image, never written. What `build_image` left beside it names and describes the machine and
        its history, and further disks are beside it, too.
    count : int or None
        So many boots, each after a clean shutdown of the one before; None = as the history says, and two
        boots of an image without one.
    out_dir : Path
        The corpus, created if needed.
    accelerator : {"kvm", "tcg"}, optional
        Without it, `choose_accelerator` decides.
    work_dir : Path, optional
        For the writes of each boot, the disks before it and the console; default ``<image>.boots``.
    after_boot_s : float
        The trace goes on for so many seconds after the end of the boot, and until a client that comes has
        gone. What the guest writes later, while it shuts down, belongs to the next state, not to the trace.
    timeout_s : float
        Time limit for the boot, for the client, and for shutting down.
    keep_states : bool
        Whether the images of the disks before each boot are kept in the end; they can be made anew.
    report : Report, optional
        Is told what happens.

    Returns
    -------
    list of str
        The names of the boots that were added to the corpus now.

    Raises
    ------
    LabError
        If QEMU is missing, the guest does not boot in time or does not shut down, a client or a change
        fails, the image has no boot sector, or it has changed since its first boot was recorded.
    ManifestError
        If the image is no raw disk image.
    """
    if count is not None and count < 1:
        raise ValueError(f"expected at least one boot to record, got {count}")
    if accelerator not in (None, "kvm", "tcg"):
        raise ValueError(f"expected the accelerator kvm or tcg, got {accelerator!r}")
    report = report or Report()
    work_dir = work_dir or image.with_name(image.name + ".boots")
    machine = _Recording.of(image, count, work_dir)
    there = _boots_there(out_dir, machine.name)
    added: list[str] = []
    for step in machine.steps:
        if step.boot in there:
            report.say(f"{machine.name} {step.boot}: is in {out_dir} already, kept")
            continue
        _expect_recordable(machine, step)
        stored = work_dir / f"{step.boot}.trace.parquet"
        if stored.exists():
            report.say(f"{machine.name} {step.boot}: was recorded already, kept")
        else:
            accelerator = accelerator or choose_accelerator(image, work_dir, report)
            _make_change_before(machine, step, accelerator, timeout_s, report)
            report.now(f"{machine.name} {step.boot}: making the disks before it")
            before = machine.states.before_boot(step.number)
            trace = _recorded(machine, step, before, accelerator, after_boot_s, timeout_s, report)
            # the trace goes last: where it is, the boot is recorded whole
            trace.save(stored)
        _add(stored, machine.states.before_boot(step.number), out_dir, machine.description, report)
        added.append(step.boot)
    if not keep_states:
        machine.states.discard_states()
    return added


@dataclasses.dataclass(frozen=True)
class _Recording:
    """What is to be recorded, and of what."""

    name: str
    image: Path
    description: Mapping[str, Any]
    steps: Sequence[Step]
    changes: Mapping[int, Change]  # by the number of the boot they come before
    states: DiskStates

    @classmethod
    def of(cls, image: Path, count: int | None, work_dir: Path) -> _Recording:
        description: Mapping[str, Any] = describe_image(image)
        history = ["build", *["shutdown"] * ((count or 2) - 1)]
        if count is None:
            history = list(description.get("history", history))
        steps = steps_of(history)
        changed = [step.number for step in steps if step.follows == "change" and not step.repeats]
        changes = [
            Change(each["suite"], tuple(each["packages"]), tuple(each["script"]))
            for each in description.get("changes", ())
        ]
        disks = 1 + len(description.get("data_disks_bytes", ()))
        states = DiskStates(image, disks, work_dir, changed)
        return cls(
            str(description["name"]),
            image,
            description,
            steps,
            dict(zip(changed, changes, strict=False)),
            states,
        )

    @property
    def has_client(self) -> bool:
        return bool(self.description.get("first_use") or self.description.get("exercise"))


def states_before(image: Path, boots: int, work_dir: Path | None = None) -> list[Path]:
    """Return the first disk as it was before each of so many recorded boots; errors as of `record_boots`."""
    work_dir = work_dir or image.with_name(image.name + ".boots")
    described = describe_image(image).get("history")
    states = _Recording.of(image, None if described else boots, work_dir).states
    return [states.before_boot(number)[0] for number in range(1, boots + 1)]


def _recorded(
    machine: _Recording,
    step: Step,
    before: Sequence[Path],
    accelerator: str,
    after_boot_s: float,
    timeout_s: float,
    report: Report,
) -> ReadTrace:
    """Record one boot and save its writes; one whose end was lost on the console is booted once more."""
    for attempt in range(1, _ATTEMPTS + 1):
        with machine.states.overlays(before, step.boot) as disks:
            booting = record_boot(
                *(disks, machine.name, step.boot),
                accelerator=accelerator,
                console_log=machine.states.work_dir / f"{step.boot}.console.log",
                versions=_versions(machine.description),
                step=step,
                has_client=machine.has_client,
                graphics=bool(machine.description.get("graphics")),
                after_boot_s=after_boot_s,
                timeout_s=timeout_s,
                report=report,
            )
            try:
                with raised_priority():
                    trace = asyncio.run(booting)
            except LostLineError as error:
                if attempt == _ATTEMPTS:
                    raise
                report.say(f"{machine.name} {step.boot}: {error}; recorded once more")
                continue
            for disk in disks:
                disk.save()
            return trace
    raise AssertionError("every attempt returns or raises")


def _make_change_before(
    machine: _Recording, step: Step, accelerator: str, timeout_s: float, report: Report
) -> None:
    """Boot the machine and let it carry out the change that comes before this boot, unless it has."""
    change, writes = machine.changes.get(step.number), f"change-{step.number}"
    if change is None or machine.states.has(writes):
        return
    before = machine.states.before_change(step.number)
    work_dir = machine.states.work_dir
    log = work_dir / f"{writes}.log"
    report.now(f"{machine.name}: fetching what is to change before {step.boot}")
    archive = pack_change(change, str(machine.description["release"]), before, work_dir, log, report)
    try:
        with (
            machine.states.overlays(before, writes) as disks,
            Overlay(archive, work_dir / "change.writes") as changing,
        ):
            console = work_dir / f"{writes}.console.log"
            asyncio.run(
                change_machine(disks, changing, accelerator, console, timeout_s, report, machine.name)
            )
            for disk in disks:
                disk.save()
    finally:
        for leftover in (archive, work_dir / "change.writes"):
            leftover.unlink(missing_ok=True)
    report.say(f"{machine.name}: changed before {step.boot}")


def _add(
    stored: Path, states: Sequence[Path], out_dir: Path, description: Mapping[str, Any], report: Report
) -> None:
    """Add a recorded boot to the corpus, with a manifest of each disk before it."""
    from vmrestorekit.backup.manifest import build_manifests
    from vmrestorekit.traces.boots import Boot
    from vmrestorekit.traces.recording import add_boot
    from vmrestorekit.traces.working_set import kernel_read

    trace = ReadTrace.load(stored)
    report.now(f"{trace.metadata.vm} {trace.metadata.boot}: describing the disks before the boot")
    boot = Boot.from_parts(trace, build_manifests(states))
    kernel = kernel_read(boot)
    if kernel:  # that of the description may have been upgraded since
        versions = {**trace.metadata.versions, "kernel": kernel}
        trace = ReadTrace(trace.frame, dataclasses.replace(trace.metadata, versions=versions))
    about = trace.metadata
    add_boot(out_dir, trace, boot.manifests, _described(description))
    seconds = about.marks[BOOT_DONE_MARK] / 1e9
    report.say(
        f"{about.vm} {about.boot}: {trace.frame.height} requests, {seconds:.1f} s under {about.accelerator}"
    )


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
            async with boot_machine({"probe": disk}, "kvm", work_dir / "kvm-probe.console.log") as guest:
                await guest.start()
                await guest.wait_for(_KERNEL_LINE, timeout_s)
    finally:
        writes.unlink(missing_ok=True)


def _expect_recordable(machine: _Recording, step: Step) -> None:
    """Refuse now what an emulator would wait for in vain, or what does not follow from the boots before."""
    for disk in disk_paths(machine.image, 1 + len(machine.description.get("data_disks_bytes", ()))):
        if not disk.is_file():
            raise FileNotFoundError(f"expected a disk image at {disk}, found no file")
    _expect_bootable(machine.image)
    machine.states.work_dir.mkdir(parents=True, exist_ok=True)
    machine.states.expect_same_image(first=step.number == 1 and not step.repeats)


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


def _boots_there(out_dir: Path, vm: str) -> set[str]:
    from vmrestorekit.traces.corpus import load_corpus

    try:
        corpus = load_corpus(out_dir)
    except FileNotFoundError:
        return set()
    return {boot.boot for boot in corpus[vm].recordings} if vm in corpus else set()


def _versions(description: Mapping[str, Any]) -> dict[str, str]:
    versions = {"qemu": qemu_version(), "vmrestorekit": vmrestorekit.__version__}
    return versions | ({"kernel": str(description["kernel"])} if "kernel" in description else {})


def _described(description: Mapping[str, Any]) -> dict[str, object]:
    """Return what the corpus says about the machine: its description, without what is long or a table."""
    kept = (
        *("lineage", "roles", "packages", "services", "first_use", "exercise"),
        *("kernel", "file_systems", "spec_digest"),
    )
    described = {key: description[key] for key in kept if key in description}
    return {"release": str(description.get("system", "")), "built_by": "vmrestorekit lab build", **described}
