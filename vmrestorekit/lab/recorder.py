"""Log every request that reaches a disk: the recorded trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import polars as pl

from vmrestorekit.lab.nbd import Backend
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata, validate_trace

__all__ = ["Recorder"]


class Recorder:
    """A backend in front of another one that logs each request, when it came and when it was done.

    Time zero is `start`; what comes before (an emulator that looks at a disk's geometry before the machine
    runs) is carried out and not logged. A request to write zeros counts as a discard where the client leaves
    the space to us, and as a write where it insists on keeping it allocated. A write that must be durable at
    once (FUA) is a write and a flush. Block status is no request of the machine.

    Parameters
    ----------
    backend : Backend
        The disk; it must be the only one of the trace (its number is 0).
    clock : callable
        Returns nanoseconds that never go back.
    """

    def __init__(self, backend: Backend, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.backend = backend
        self.marks: dict[str, int] = {}
        self._clock = clock
        self._epoch: int | None = None
        self._rows: list[tuple[int, int, int, str, int, int]] = []

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self.backend.size

    @property
    def read_only(self) -> bool:
        """Whether the disk refuses writes."""
        return self.backend.read_only

    @property
    def requests(self) -> int:
        """How many requests were logged so far."""
        return len(self._rows)

    def start(self) -> None:
        """Make this instant time zero: the machine starts."""
        self._epoch = self._clock()

    def mark(self, name: str) -> int:
        """Remember this instant under ``name`` and return it, in nanoseconds since the start.

        Raises
        ------
        ValueError
            If the recorder has not been started.
        """
        if self._epoch is None:
            raise ValueError(f"expected the recorder to be started before the mark {name!r}")
        self.marks[name] = self._clock() - self._epoch
        return self.marks[name]

    async def read(self, offset: int, length: int) -> bytes:
        """Read, and log it."""
        issued = self._clock()
        content = await self.backend.read(offset, length)
        self._log(issued, "read", offset, length)
        return content

    async def write(self, offset: int, data: bytes) -> None:
        """Write, and log it."""
        issued = self._clock()
        await self.backend.write(offset, data)
        self._log(issued, "write", offset, len(data))

    async def zero(self, offset: int, length: int, *, discard: bool) -> None:
        """Write zeros, and log a discard or a write."""
        issued = self._clock()
        await self.backend.zero(offset, length, discard=discard)
        self._log(issued, "discard" if discard else "write", offset, length)

    async def flush(self) -> None:
        """Flush, and log it."""
        issued = self._clock()
        await self.backend.flush()
        self._log(issued, "flush", 0, 0)

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, bool]]:
        """Ask the disk; nothing is logged."""
        return await self.backend.extents(offset, length)

    def _log(self, issued: int, op: str, offset: int, length: int) -> None:
        if self._epoch is not None and issued >= self._epoch:
            self._rows.append((issued - self._epoch, self._clock() - self._epoch, 0, op, offset, length))

    def trace(
        self, vm: str, boot: str, *, accelerator: str, versions: Mapping[str, str], end_ns: int | None = None
    ) -> ReadTrace:
        """Return what was logged, ordered by issue, without what came at ``end_ns`` or later."""
        frame = pl.DataFrame(self._rows, schema=TRACE_SCHEMA, orient="row").sort("issued_ns", "completed_ns")
        if end_ns is not None:
            frame = frame.filter(pl.col("issued_ns") < end_ns)
        metadata = TraceMetadata(
            vm=vm,
            boot=boot,
            disk_bytes=(self.size,),
            marks=dict(self.marks),
            recorder="vmrestorekit.lab NBD recorder",
            accelerator=accelerator,
            versions=dict(versions),
        )
        validate_trace(frame, metadata, source=f"{vm} {boot}")
        return ReadTrace(frame, metadata)
