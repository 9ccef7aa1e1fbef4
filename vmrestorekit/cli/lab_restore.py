"""Restores for real: ``vmrestorekit lab restore``, ``mount``, ``resume``, ``extend``, ``cancel``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmrestorekit.cli.shared import JsonOption, nanoseconds_of, print_table

if TYPE_CHECKING:
    from vmrestorekit.lab.progress import Report
    from vmrestorekit.lab.restore.data_agent import DataAgent, RestoreOptions
    from vmrestorekit.lab.restore.folder import RestoreFolder
    from vmrestorekit.plan import RestorePlan

__all__ = ["register"]

SourceArgument = Annotated[
    list[Path], typer.Argument(help="A backup store (with --copy), or raw disk images, one a disk.")
]
FolderArgument = Annotated[Path, typer.Argument(help="The folder of a restore or live mount.")]
ToOption = Annotated[Path, typer.Option("--to", help="A new folder for the virtual machine's disks.")]
CopyOption = Annotated[int | None, typer.Option(help="The number of a copy in the store.")]
PlanOption = Annotated[
    Path | None, typer.Option(help="A saved plan; default: one that stages nothing ahead.")
]
MediaOption = Annotated[
    str, typer.Option(help="The backup device to emulate: disk_library, object_storage, tape or flash.")
]
AcceleratorOption = Annotated[str, typer.Option(help="kvm or tcg.")]
MemoryOption = Annotated[int, typer.Option(min=64, help="The virtual machine's memory in MiB.")]
MoverOption = Annotated[
    str | None,
    typer.Option(help="stream, copy_on_read or relocation_export; default: the first that does it."),
]
SpeedOption = Annotated[float, typer.Option(min=0, help="Limit of the relocation in MB/s; 0: none.")]
ShutDownOption = Annotated[
    bool,
    typer.Option("--then-shut-down", help="Shut it down once it has booted and the restore is complete."),
]


def register(lab_app: typer.Typer) -> None:
    """Add the commands to the lab's."""
    lab_app.command("restore")(lab_restore)
    lab_app.command("mount")(lab_mount)
    lab_app.command("resume")(lab_resume)
    lab_app.command("extend")(lab_extend)
    lab_app.command("cancel")(lab_cancel)
    lab_app.command("start")(lab_start)


def lab_restore(
    source: SourceArgument,
    to: ToOption,
    copy: CopyOption = None,
    plan: PlanOption = None,
    media: MediaOption = "object_storage",
    accelerator: AcceleratorOption = "tcg",
    memory_mib: MemoryOption = 1024,
    mover: MoverOption = None,
    speed_mb: SpeedOption = 0,
    then_shut_down: ShutDownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a virtual machine while it runs, until it is switched off; Ctrl-C: go on with 'lab resume'."""
    wanted = _plan_of(plan, source, copy)
    if wanted.mode == "live_mount":
        wanted = wanted.with_mode("instant_restore")
    machine = {"accelerator": accelerator, "memory_mib": memory_mib}
    folder = _new_folder(to, wanted, source, copy, media, machine)
    _carry_out(folder, mover, speed_mb, then_shut_down, as_json)


def lab_mount(
    source: SourceArgument,
    to: ToOption,
    copy: CopyOption = None,
    plan: PlanOption = None,
    expiry: Annotated[
        float | None, typer.Option(help="Seconds until it expires; default: as the plan says, or never.")
    ] = None,
    warning: Annotated[float, typer.Option(help="Seconds before that to warn.")] = 60.0,
    media: MediaOption = "object_storage",
    accelerator: AcceleratorOption = "tcg",
    memory_mib: MemoryOption = 1024,
    as_json: JsonOption = False,
) -> None:
    """Run a virtual machine from its backup copy for a while; what it writes is discarded."""
    wanted = _plan_of(plan, source, copy).with_mode("live_mount")
    if expiry is not None:
        warning_ns = nanoseconds_of("--warning", warning)
        wanted = wanted.replace(expiry_ns=nanoseconds_of("--expiry", expiry), warning_ns=warning_ns)
    machine = {"accelerator": accelerator, "memory_mib": memory_mib}
    folder = _new_folder(to, wanted, source, copy, media, machine)
    _carry_out(folder, None, 0, False, as_json)


def lab_resume(
    folder: FolderArgument,
    mover: MoverOption = None,
    speed_mb: SpeedOption = 0,
    then_shut_down: ShutDownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a restore whose process was ended or killed."""
    from vmrestorekit.lab.restore.folder import RestoreFolder

    _carry_out(RestoreFolder(folder), mover, speed_mb, then_shut_down, as_json)


def lab_extend(
    folder: FolderArgument, by: Annotated[float, typer.Option(help="Seconds to put the expiry off by.")]
) -> None:
    """Put off the expiry of a live mount."""
    _ask(folder, "extend", by_ns=nanoseconds_of("--by", by))


def lab_cancel(folder: FolderArgument) -> None:
    """Cancel a relocation; the virtual machine runs on from its backup copy."""
    _ask(folder, "cancel_relocation")


def lab_start(folder: FolderArgument) -> None:
    """Start the relocation now, or again after 'lab cancel'."""
    _ask(folder, "start_relocation")


def _ask(folder: Path, do: str, **more: Any) -> None:
    import asyncio

    from vmrestorekit.lab.restore.requests import ask_restore

    print(asyncio.run(ask_restore(folder, do, **more)))


def _plan_of(plan: Path | None, source: list[Path], copy: int | None) -> RestorePlan:
    from vmrestorekit.backup.store import BackupStore
    from vmrestorekit.plan import LaunchRule, RestorePlan

    if plan is not None:
        return RestorePlan.load(plan)
    launch = LaunchRule("immediately")
    if copy is None:
        return RestorePlan(tuple(path.stat().st_size for path in source), launch=launch)
    with BackupStore(source[0]) as store:
        sizes = tuple(disk.bytes for disk in store.copy(copy).disks)
        return RestorePlan(sizes, block_bytes=store.block_bytes, launch=launch)


def _new_folder(
    to: Path, plan: RestorePlan, source: list[Path], copy: int | None, media: str, machine: dict[str, Any]
) -> RestoreFolder:
    from vmrestorekit.lab.restore.folder import RestoreFolder
    from vmrestorekit.restore.hardware import resolve_hardware

    resolve_hardware(media)  # refuses now what does not exist
    if copy is not None and len(source) != 1:
        raise ValueError(f"lab restore: expected one backup store with --copy, got {len(source)} paths")
    serve = {
        "source": [str(path.absolute()) for path in source],
        "copy": copy,
        "media": media,
        "block_bytes": plan.block_bytes,
    }
    return RestoreFolder.create(to, plan, serve=serve, machine=machine)


def _carry_out(
    folder: RestoreFolder, mover: str | None, speed_mb: float, then_shut_down: bool, as_json: bool
) -> None:
    import asyncio

    from vmrestorekit.lab.media.event_log import load_timeline
    from vmrestorekit.lab.progress import live_report
    from vmrestorekit.lab.restore.data_agent import RestoreOptions
    from vmrestorekit.restore.hardware import resolve_hardware
    from vmrestorekit.restore.summary import tabulate

    device = resolve_hardware(folder.state.serve["media"]).backup_device
    options = RestoreOptions(device, mover, round(speed_mb * 1e6))
    launches = folder.state.launches
    recording = folder.path / (f"recording-{launches + 1}" if launches else "recording")
    interrupted = False
    with live_report() as report:
        try:
            asyncio.run(_run(folder, options, recording, then_shut_down, report))
        except (KeyboardInterrupt, asyncio.CancelledError):
            interrupted = True
            if folder.plan.mode != "live_mount":
                report.say(f"Interrupted; go on with 'vmrestorekit lab resume {folder.path}'.")
    if recording.exists():
        figures = load_timeline(recording).summary()
        print_table([dict(figures)] if as_json else tabulate({"measured": figures}), as_json)
    raise typer.Exit(130 if interrupted else 0)


async def _run(
    folder: RestoreFolder, options: RestoreOptions, recording: Path, then_shut_down: bool, report: Report
) -> None:
    import asyncio
    import signal

    from vmrestorekit.lab.restore.carry_out import carry_out

    me = asyncio.current_task()
    assert me is not None
    # whoever ends us ends the virtual machine and its media agent, and nothing is left behind
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    async with carry_out(folder, options, report=report, recording=recording) as agent:
        telling = asyncio.create_task(_tell(agent, report))
        try:
            await agent.released.wait()
            if folder.plan.mode != "live_mount":
                if then_shut_down:
                    await agent.booted.wait()
                    await agent.host.qmp.execute("system_powerdown")
                await agent.powered_off.wait()
        finally:
            telling.cancel()


async def _tell(agent: DataAgent, report: Report) -> None:
    import asyncio

    while True:
        report.now(await _line(agent))
        await asyncio.sleep(1)


async def _line(agent: DataAgent) -> str:
    phase = agent.folder.state.phase
    parts = [phase, "booted" if agent.booted.is_set() else "booting" if agent.launched.is_set() else ""]
    status = {} if agent.released.is_set() else await agent.link.status()
    if status:
        staged, cache = status["first_set"], status["cache"]
        parts += [
            f"{staged['staged']} of {staged['blocks']} blocks of the first set staged",
            f"read cache {cache['used']} of {cache['slots']} blocks",
        ]
    if agent.relocation is not None and phase == "relocating":
        parts.append(f"{agent.relocation.share:.0%} relocated")
    return ", ".join(part for part in parts if part)
