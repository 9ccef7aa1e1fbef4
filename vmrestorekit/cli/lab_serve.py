"""``vmrestorekit lab serve``: a media agent, to be reached by NBD, by its control socket, and as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrestorekit.lab.media.serve import Serving
    from vmrestorekit.lab.media.source import Source
    from vmrestorekit.restore.hardware import Hardware

__all__ = ["register"]

MIB = 1 << 20


def register(lab_app: typer.Typer) -> None:
    """Add the command to the lab's."""
    lab_app.command("serve")(lab_serve)


def lab_serve(
    socket: Annotated[
        Path, typer.Option(help="The Unix socket for NBD clients; only this user may open it.")
    ],
    control: Annotated[Path, typer.Option(help="The Unix socket for the data agent's messages.")],
    store: Annotated[Path | None, typer.Argument(help="A backup store.")] = None,
    copy: Annotated[int | None, typer.Option(help="The number of a copy in the store.")] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Who runs from the copy, as the store notes it; default: the copy's VM."),
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="A raw disk image instead of a store; again for each disk.")
    ] = None,
    block_kib: Annotated[int, typer.Option(help="Block size for images; a store has its own.")] = 64,
    plan: Annotated[
        Path | None, typer.Option(help="A saved plan: staging begins at once, not when the data agent says.")
    ] = None,
    media: Annotated[
        str, typer.Option(help="The backup device to emulate: disk_library, object_storage, tape or flash.")
    ] = "object_storage",
    latency_ms: Annotated[float | None, typer.Option(help="Its positioning time, before each read.")] = None,
    bandwidth_mb: Annotated[float | None, typer.Option(help="Its MB/s, of each channel.")] = None,
    channels: Annotated[int | None, typer.Option(help="How many reads it serves at the same time.")] = None,
    link_latency_ms: Annotated[float | None, typer.Option(help="Of the network to the host.")] = None,
    link_bandwidth_mb: Annotated[float | None, typer.Option(help="Its MB/s.")] = None,
    mount: Annotated[
        Path | None, typer.Option(help="An empty folder, to show the disks and configuration in as files.")
    ] = None,
    vm: Annotated[str | None, typer.Option(help="The folder below --mount; default: the copy's VM.")] = None,
    log: Annotated[Path | None, typer.Option(help="Append the log (JSON lines); default: stderr.")] = None,
    connections: Annotated[int, typer.Option(min=1, help="NBD clients at a time.")] = 64,
    memory_mib: Annotated[
        int, typer.Option(min=64, help="Contents in memory for NBD clients; the read cache is apart.")
    ] = 256,
) -> None:
    """Serve a backup copy through a media agent, read-only, until SIGINT or SIGTERM."""
    import asyncio

    from vmrestorekit.lab.media.serve import Places, serve_until_stopped
    from vmrestorekit.lab.media.structured_log import structured_log
    from vmrestorekit.lab.nbd.server import Limits
    from vmrestorekit.plan import RestorePlan

    # FUSE changes the working folder for a moment
    images = [path.absolute() for path in image or ()]
    open_source, name = _source_of(store and store.absolute(), copy, user, images, block_kib)
    hardware = _hardware_of(media, latency_ms, bandwidth_mb, channels, link_latency_ms, link_bandwidth_mb)
    loaded = RestorePlan.load(plan) if plan else None
    with structured_log(log):
        asyncio.run(
            serve_until_stopped(
                open_source,
                hardware,
                Places(socket, control, mount, vm or name),
                plan=loaded,
                limits=Limits(connections=connections, memory_bytes=memory_mib * MIB),
                ready=_say_where(socket, mount),
            )
        )


def _source_of(
    store: Path | None, copy: int | None, user: str | None, images: list[Path], block_kib: int
) -> tuple[Callable[[], Source], str]:
    """Return what opens the source, and the virtual machine's name."""
    from vmrestorekit.backup.store import BackupStore
    from vmrestorekit.lab.media.source import CopySource, ImageSource

    if images:
        if store or copy is not None:
            raise ValueError("lab serve: expected a backup store or --image, got both")
        if user is not None:
            raise ValueError("lab serve: --user: expected a copy in a backup store, got --image")
        description = images[0].with_name(images[0].name + ".json")  # as 'backup create' looks for it
        files = {description.name: description} if description.exists() else {}
        return lambda: ImageSource(images, block_kib * 1024, files), images[0].stem
    if store is None or copy is None:
        raise ValueError("lab serve: expected a backup store and --copy, or --image, got neither")
    with BackupStore(store) as opened:
        name = opened.copy(copy).vm
    return lambda: CopySource(store, copy, user), name


def _hardware_of(
    media: str,
    latency_ms: float | None,
    bandwidth_mb: float | None,
    channels: int | None,
    link_latency_ms: float | None,
    link_bandwidth_mb: float | None,
) -> Hardware:
    """Return a preset with some of it changed."""
    import dataclasses

    from vmrestorekit.restore.hardware import resolve_hardware

    hardware = resolve_hardware(media)
    device = {
        "positioning_ns": _whole("--latency-ms", latency_ms, 1e6),
        "bandwidth": _whole("--bandwidth-mb", bandwidth_mb, 1e6),
        "channels": channels,
    }
    link = {
        "latency_ns": _whole("--link-latency-ms", link_latency_ms, 1e6),
        "bandwidth": _whole("--link-bandwidth-mb", link_bandwidth_mb, 1e6),
    }
    return dataclasses.replace(
        hardware,
        backup_device=dataclasses.replace(hardware.backup_device, **_given(device)),
        link=dataclasses.replace(hardware.link, **_given(link)),
    )


def _whole(option: str, value: float | None, scale: float) -> int | None:
    import math

    if value is None:
        return None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{option}: expected a number of at least 0, got {value}")
    return round(value * scale)


def _given(changes: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in changes.items() if value is not None}


def _say_where(socket: Path, mount: Path | None) -> Callable[[Serving], None]:
    def say(serving: Serving) -> None:
        for name, size in serving.exports.items():
            print(f"{name}: {size} bytes, nbd+unix:///{name}?socket={socket}", flush=True)
        if mount is not None:
            print(f"files: {mount}", flush=True)

    return say
