"""The recorder misses nothing, invents nothing, and keeps the times."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import polars as pl
import pytest
from lab_helpers import FLUSH, READ, TRIM, WRITE, WRITE_ZEROES, MemoryDisk, RawClient, serving

from vmrestorekit.lab.recording.recorder import Recorder
from vmrestorekit.traces.schema import ReadTrace, TraceError

SIZE = 1 << 20
OPS = {READ: "read", WRITE: "write", TRIM: "discard", FLUSH: "flush", WRITE_ZEROES: "discard"}


class Clock:
    """Counts microseconds, one a look."""

    def __init__(self) -> None:
        self.now = 5_000_000

    def __call__(self) -> int:
        self.now += 1000
        return self.now


def finish(recorder: Recorder, end_ns: int | None = None) -> ReadTrace:
    return recorder.trace("vm", "boot-1", accelerator="none", versions={}, end_ns=end_ns)


def test_every_request_of_every_client_is_in_the_trace(tmp_path: Path) -> None:
    recorder = Recorder(MemoryDisk(bytes(SIZE)))
    recorder.start()
    sent = []
    numbers = random.Random(1)
    with serving({"disk": recorder.disks[0]}) as path, RawClient(path) as one, RawClient(path) as other:
        one.go("disk")
        other.go("disk", structured=True, status=True)
        for _ in range(300):
            kind = numbers.choice(list(OPS))
            offset, length = numbers.randrange(SIZE - 8192), numbers.randrange(1, 8192)
            if kind == FLUSH:
                offset, length = 0, 0
            data = bytes(length) if kind == WRITE else b""
            assert numbers.choice([one, other]).ask(kind, offset, length, data=data)[0] == 0
            sent.append((OPS[kind], offset, length))
        other.ask(7, 0, 4096)  # block status is no request of the machine
        other.ask(READ, SIZE, 1)  # nor is one that was refused
    trace = finish(recorder)
    assert trace.frame.select("op", "offset", "length").rows() == sent
    trace.save(tmp_path / "trace.parquet")
    assert ReadTrace.load(tmp_path / "trace.parquet").frame.equals(trace.frame)


def test_what_the_flags_of_a_request_make_of_it() -> None:
    recorder = Recorder(MemoryDisk(bytes(SIZE)))
    recorder.start()
    forced, no_hole = 1, 2
    with serving({"disk": recorder.disks[0]}) as path, RawClient(path) as client:
        client.go("disk")
        client.ask(WRITE_ZEROES, 0, 4096, flags=no_hole)
        client.ask(WRITE_ZEROES, 0, 4096)
        client.ask(WRITE, 0, 1, flags=forced, data=b"x")
    assert finish(recorder).frame["op"].to_list() == ["write", "discard", "write", "flush"]


def test_times_count_from_the_start_and_the_trace_can_be_cut() -> None:
    recorder = Recorder(MemoryDisk(bytes(SIZE)), clock=Clock())
    asyncio.run(recorder.disks[0].read(0, 512))  # an emulator looking at the disk before the machine runs
    recorder.start()
    asyncio.run(recorder.disks[0].read(0, 512))
    asyncio.run(recorder.disks[0].read(512, 512))
    assert recorder.mark("boot_done_ns") == 5000
    asyncio.run(recorder.disks[0].read(1024, 512))
    whole = finish(recorder)
    assert whole.frame["issued_ns"].to_list() == [1000, 3000, 6000]
    assert whole.frame["completed_ns"].to_list() == [2000, 4000, 7000]
    assert whole.metadata.marks == {"boot_done_ns": 5000}
    assert whole.metadata.disk_bytes == (SIZE,)
    assert finish(recorder, end_ns=6000).frame["issued_ns"].to_list() == [1000, 3000]


class Overtaking(MemoryDisk):
    """The first request takes longer than the second."""

    async def read(self, offset: int, length: int) -> bytes:
        await asyncio.sleep(0.05 if offset == 0 else 0)
        return await super().read(offset, length)


def test_rows_are_in_the_order_of_issue_even_if_requests_overtake() -> None:
    async def both(recorder: Recorder) -> None:
        await asyncio.gather(recorder.disks[0].read(0, 512), recorder.disks[0].read(4096, 512))

    recorder = Recorder(Overtaking(bytes(SIZE)))
    recorder.start()
    asyncio.run(both(recorder))
    frame = finish(recorder).frame
    assert frame["offset"].to_list() == [0, 4096]
    assert frame.select(pl.col("completed_ns").is_sorted(descending=True)).item()


def test_a_request_from_before_the_start_that_ends_after_it_is_not_the_machine_s() -> None:
    async def overlapping(recorder: Recorder) -> None:
        early = asyncio.create_task(recorder.disks[0].read(0, 512))
        await asyncio.sleep(0.01)
        recorder.start()
        await early

    recorder = Recorder(Overtaking(bytes(SIZE)))
    asyncio.run(overlapping(recorder))
    assert finish(recorder).frame.is_empty()


def test_a_mark_needs_a_start() -> None:
    with pytest.raises(
        ValueError, match="expected the recorder to be started before it is asked for the time"
    ):
        Recorder(MemoryDisk(bytes(512))).mark("boot_done_ns")


def test_a_truncated_recording_is_refused(tmp_path: Path) -> None:
    recorder = Recorder(MemoryDisk(bytes(SIZE)))
    recorder.start()
    asyncio.run(recorder.disks[0].read(0, 512))
    path = tmp_path / "trace.parquet"
    finish(recorder).save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TraceError, match="expected a whole Parquet file"):
        ReadTrace.load(path)


def test_several_disks_share_one_clock_and_are_told_apart() -> None:
    recorder = Recorder(MemoryDisk(bytes(SIZE)), MemoryDisk(bytes(2 * SIZE)), clock=Clock())
    recorder.start()
    asyncio.run(recorder.disks[1].read(SIZE, 512))
    asyncio.run(recorder.disks[0].write(0, b"a" * 512))
    asyncio.run(recorder.disks[1].zero(4096, 4096, discard=True))
    asyncio.run(recorder.disks[0].flush())
    trace = finish(recorder)
    assert trace.metadata.disk_bytes == (SIZE, 2 * SIZE)
    assert trace.frame.select("disk", "op", "offset", "length").rows() == [
        (1, "read", SIZE, 512),
        (0, "write", 0, 512),
        (1, "discard", 4096, 4096),
        (0, "flush", 0, 0),
    ]
    assert trace.frame["issued_ns"].is_sorted()


def test_what_came_before_and_what_it_repeats_are_kept() -> None:
    recorder = Recorder(MemoryDisk(bytes(SIZE)))
    recorder.start()
    trace = recorder.trace(
        "vm", "boot-2-again", accelerator="none", versions={}, follows="shutdown", repeats="boot-2"
    )
    assert (trace.metadata.follows, trace.metadata.repeats) == ("shutdown", "boot-2")
