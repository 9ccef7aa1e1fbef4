"""The folder of a restore or live mount: its plan, its disks on primary storage, and how far it has come.

    plan/                 the plan, as `RestorePlan.save` writes it
    state                 how far it has come, replaced whole after each step
    dest0.qcow2           the destination of disk 0; not for a live mount
    writecache0.qcow2     what the virtual machine has written to disk 0 and is not applied yet
    configuration/        the virtual machine's configuration files, relocated
    console.log, media-agent.log

Whoever was killed, whenever: the folder says what to go on with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmrestorekit.backup.records import StoreError, flush_folder, read_record, write_file, write_record
from vmrestorekit.lab.programs import LabError, run
from vmrestorekit.plan import RestorePlan

__all__ = ["PHASES", "DiskState", "RestoreFolder", "RestoreState"]

PHASES = (
    "prepared",  # the folder is there, the virtual machine was never launched
    "running",  # from the logical source
    "relocating",
    "applying",  # every disk is relocated
    "released",  # the virtual machine needs its destination only
    "expired",  # a live mount that was let go of
)
_WRITE_CACHE_LAYOUT = "cluster_size=128k,extended_l2=on"  # written in units of 4 KiB, as in the model
_LARGEST_CLUSTER = 64 * 1024


@dataclasses.dataclass(frozen=True)
class DiskState:
    """How far one disk has come.

    Attributes
    ----------
    relocated : bool
        The destination needs the logical source no more.
    applied : bool
        Nor the write cache, which must not be used again: later writes go past it.
    """

    relocated: bool = False
    applied: bool = False


@dataclasses.dataclass(frozen=True)
class RestoreState:
    """What a restore has to know to go on.

    Attributes
    ----------
    serve : dict
        How its media agent is started, and who it says to run from the copy.
    machine : dict
        How its virtual machine is started.
    disks : tuple of DiskState
    phase : str
        One of `PHASES`.
    launches : int
        How often the virtual machine was launched: more than once after its host was killed.
    extended_by_ns : int
        By how much the expiry of a live mount was put off.
    """

    serve: dict[str, Any]
    machine: dict[str, Any]
    disks: tuple[DiskState, ...]
    phase: str = "prepared"
    launches: int = 0
    extended_by_ns: int = 0

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> RestoreState:
        """Return the state of plain data, as `dataclasses.asdict` gives it."""
        return cls(**{**record, "disks": tuple(DiskState(**disk) for disk in record["disks"])})


class RestoreFolder:
    """A restore on primary storage; `create` makes one, the constructor opens it.

    Raises
    ------
    LabError
        If there is none, or its state is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self._record.exists():
            raise LabError(f"{self.path}: expected the folder of a restore, found no state in it")
        try:
            self.state = RestoreState.from_record(read_record(self._record))
        except (StoreError, TypeError, KeyError) as error:
            raise LabError(f"{self._record}: expected the state of a restore: {error}") from error
        self.plan = RestorePlan.load(self.plan_path)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        plan: RestorePlan,
        *,
        serve: dict[str, Any],
        machine: dict[str, Any] | None = None,
    ) -> RestoreFolder:
        """Make a new restore with empty disks, whole or not at all.

        Raises
        ------
        LabError
            If there is something at that path already, or `qemu-img` fails.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise LabError(f"{path}: expected no such path or an empty folder for a new restore")
        partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            plan.save(partial / "plan")
            cluster = min(_LARGEST_CLUSTER, plan.block_bytes)
            for disk, size in enumerate(plan.disk_bytes):
                # an image has whole sectors; what is behind the end of the disk reads as zeros
                sectors = str(-(-size // 512) * 512)
                _create_image(partial / _write_cache(disk), _WRITE_CACHE_LAYOUT, sectors)
                if plan.mode != "live_mount":
                    _create_image(partial / _destination(disk), f"cluster_size={cluster}", sectors)
            if serve.get("copy") is not None:  # a name of its own, or another restore might release its copy
                serve = {"user": f"{path.name[:80]}-{uuid.uuid4().hex[:8]}"} | serve
            state = RestoreState(serve, machine or {}, (DiskState(),) * len(plan.disk_bytes))
            write_record(partial / "state", dataclasses.asdict(state))
            os.replace(partial, path)
            flush_folder(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cls(path)

    @property
    def _record(self) -> Path:
        return self.path / "state"

    @property
    def plan_path(self) -> Path:
        """Where the plan is."""
        return self.path / "plan"

    def destination(self, disk: int) -> Path:
        """Return the image that the disk is relocated to."""
        return self.path / _destination(disk)

    def write_cache(self, disk: int) -> Path:
        """Return the image that takes the virtual machine's writes until they are applied."""
        return self.path / _write_cache(disk)

    def update(self, **changes: Any) -> None:
        """Change the state, durably."""
        state = dataclasses.replace(self.state, **changes)
        if state.phase not in PHASES:
            raise ValueError(f"phase: expected one of {', '.join(PHASES)}, got {state.phase!r}")
        write_record(self._record, dataclasses.asdict(state))
        self.state = state

    def update_disk(self, disk: int, **changes: bool) -> None:
        """Change the state of one disk, durably."""
        disks = list(self.state.disks)
        disks[disk] = dataclasses.replace(disks[disk], **changes)
        self.update(disks=tuple(disks))

    def keep_configuration(self, name: str, content: bytes) -> None:
        """Relocate a configuration file of the virtual machine; the folders of its name are kept, below ours.

        Raises
        ------
        LabError
            If the name leads out of the folder.
        """
        parts = [part for part in Path(name).parts if part != "/"]
        if not parts or ".." in parts:
            raise LabError(f"configuration file: expected a name within its folder, got {name!r}")
        target = self.path.joinpath("configuration", *parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, content)

    def discard_write_caches(self) -> None:
        """Remove what the virtual machine wrote: it is applied, or was never to be kept."""
        for disk in range(len(self.state.disks)):
            self.write_cache(disk).unlink(missing_ok=True)
        flush_folder(self.path)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep others from carrying out the same restore at the same time.

        Raises
        ------
        LabError
            If somebody does.
        """
        import fcntl

        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LabError(
                    f"{self.path}: this restore is being carried out by another process"
                ) from error
            yield
        finally:
            os.close(descriptor)


def _destination(disk: int) -> str:
    return f"dest{disk}.qcow2"


def _write_cache(disk: int) -> str:
    return f"writecache{disk}.qcow2"


def _create_image(path: Path, layout: str, size: str) -> None:
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", layout, path, size], timeout_s=60)
