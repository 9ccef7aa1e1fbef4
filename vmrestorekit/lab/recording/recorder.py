"""Log every request that reaches the disks of a machine: the recorded trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import polars as pl

from vmrestorekit.lab.nbd.server import Backend
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata, validate_trace

__all__ = ["RecordedDisk", "Recorder"]


class Recorder:
    """Logs the requests to all disks of a machine on one clock: when each came and when it was done.

    Time zero is `start`; what comes before (an emulator that looks at a disk's geometry before the machine
    runs) is carried out and not logged. A request to write zeros counts as a discard where the client leaves
    the space to us, and as a write where it insists on keeping it allocated. A write that must be durable at
    once (FUA) is a write and a flush. Block status is no request of the machine.

    Parameters
    ----------
    *backends : Backend
        The machine's disks, in the order of their numbers.
    clock : callable
        Returns nanoseconds that never go back.

    Attributes
    ----------
    disks : tuple of RecordedDisk
        Backends to be served in place of those that were given.
    """

    def __init__(self, *backends: Backend, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.disks = tuple(RecordedDisk(self, number, backend) for number, backend in enumerate(backends))
        self.marks: dict[str, int] = {}
        self._clock = clock
        self._epoch: int | None = None
        self._rows: list[tuple[int, int, int, str, int, int]] = []

    @property
    def requests(self) -> int:
        """How many requests were logged so far."""
        return len(self._rows)

    def start(self) -> None:
        """Make this instant time zero: the machine starts."""
        self._epoch = self._clock()

    def now(self) -> int:
        """Return this instant, in nanoseconds since the start.

        Raises
        ------
        ValueError
            If the recorder has not been started.
        """
        if self._epoch is None:
            raise ValueError("expected the recorder to be started before it is asked for the time")
        return self._clock() - self._epoch

    def mark(self, name: str) -> int:
        """Remember this instant under ``name`` and return it; errors as of `now`."""
        self.marks[name] = self.now()
        return self.marks[name]

    def trace(
        self,
        vm: str,
        boot: str,
        *,
        accelerator: str,
        versions: Mapping[str, str],
        end_ns: int | None = None,
        follows: str = "",
        repeats: str = "",
    ) -> ReadTrace:
        """Return what was logged, ordered by issue, without what came at ``end_ns`` or later."""
        frame = pl.DataFrame(self._rows, schema=TRACE_SCHEMA, orient="row").sort("issued_ns", "completed_ns")
        if end_ns is not None:
            frame = frame.filter(pl.col("issued_ns") < end_ns)
        metadata = TraceMetadata(
            vm=vm,
            boot=boot,
            disk_bytes=tuple(disk.size for disk in self.disks),
            marks=dict(self.marks),
            recorder="vmrestorekit.lab NBD recorder",
            accelerator=accelerator,
            versions=dict(versions),
            follows=follows,
            repeats=repeats,
        )
        validate_trace(frame, metadata, source=f"{vm} {boot}")
        return ReadTrace(frame, metadata)

    def _log(self, issued: int, disk: int, op: str, offset: int, length: int) -> None:
        if self._epoch is not None and issued >= self._epoch:
            row = (issued - self._epoch, self._clock() - self._epoch, disk, op, offset, length)
            self._rows.append(row)


class RecordedDisk:
    """A backend in front of another one that tells the `Recorder` of each request."""

    def __init__(self, recorder: Recorder, number: int, backend: Backend) -> None:
        self.backend = backend
        self._recorder = recorder
        self._number = number

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self.backend.size

    @property
    def read_only(self) -> bool:
        """Whether the disk refuses writes."""
        return self.backend.read_only

    @property
    def tells_holes(self) -> bool:
        """Whether the disk tells where it is zero."""
        return self.backend.tells_holes

    async def read(self, offset: int, length: int) -> bytes:
        """Read, and log it."""
        issued = self._recorder._clock()
        content = await self.backend.read(offset, length)
        self._recorder._log(issued, self._number, "read", offset, length)
        return content

    async def write(self, offset: int, data: bytes) -> None:
        """Write, and log it."""
        issued = self._recorder._clock()
        await self.backend.write(offset, data)
        self._recorder._log(issued, self._number, "write", offset, len(data))

    async def zero(self, offset: int, length: int, *, discard: bool) -> None:
        """Write zeros, and log a discard or a write."""
        issued = self._recorder._clock()
        await self.backend.zero(offset, length, discard=discard)
        self._recorder._log(issued, self._number, "discard" if discard else "write", offset, length)

    async def flush(self) -> None:
        """Flush, and log it."""
        issued = self._recorder._clock()
        await self.backend.flush()
        self._recorder._log(issued, self._number, "flush", 0, 0)

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, bool]]:
        """Ask the disk; nothing is logged."""
        return await self.backend.extents(offset, length)
