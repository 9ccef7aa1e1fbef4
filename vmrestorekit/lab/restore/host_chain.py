"""The chain of images behind each disk of a virtual machine that is restored, as QEMU's command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vmrestorekit.lab.qemu import block_node
from vmrestorekit.lab.restore.folder import RestoreFolder

__all__ = ["HostSettings", "chain_options"]

_OPEN_TIMEOUT_S = 30


@dataclasses.dataclass(frozen=True)
class HostSettings:
    """The virtual machine as its host runs it.

    Attributes
    ----------
    accelerator : {"kvm", "tcg"}
    processors, memory_mib : int
    graphics : bool
        Whether it has a graphics adapter (that nobody looks at).
    reconnect_s : int
        How long a read waits for a media agent that is gone, until the virtual machine is paused.
    extra : tuple of str
        More of QEMU's command line.
    """

    accelerator: str = "tcg"
    processors: int = 2
    memory_mib: int = 1024
    graphics: bool = False
    reconnect_s: int = 60
    extra: tuple[str, ...] = ()


def chain_options(folder: RestoreFolder, nbd_socket: Path, settings: HostSettings) -> list[str]:
    """Return QEMU's command line for the chain of each disk."""
    options: list[str] = []
    mounted = folder.plan.mode == "live_mount"
    for number, disk in enumerate(folder.state.disks):
        top = None if disk.relocated else f"source{number}"
        if top is not None:
            options += block_node(
                driver="nbd",
                node_name=top,
                server={"type": "unix", "path": str(nbd_socket)},
                export=f"disk{number}",
                read_only=True,
                reconnect_delay=settings.reconnect_s,
                open_timeout=_OPEN_TIMEOUT_S,
            )
        if not mounted:
            options += _image_node(f"dest{number}", folder.destination(number), top)
            top = f"dest{number}"
        if not disk.applied:
            options += _image_node(f"writecache{number}", folder.write_cache(number), top)
            top = f"writecache{number}"
        # share-rw: or the relocation could not write below the virtual machine's own node; the geometry: or
        # QEMU would read the disk to guess it, before the restore has begun
        device = f"virtio-blk-pci,id=disk{number},drive={top},bootindex={number + 1},serial=disk{number}"
        device += ",rerror=stop,werror=stop,share-rw=on,cyls=16383,heads=16,secs=63"
        options += ["-device", device]
    return options


def _image_node(name: str, path: Path, backing: str | None) -> list[str]:
    file = {"driver": "file", "filename": str(path)}
    return block_node(driver="qcow2", node_name=name, file=file, backing=backing, discard="unmap")
