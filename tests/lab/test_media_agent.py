"""The media agent for real: clock, threads, link and bytes around the rules."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from vmrestorekit.backup.create import create_copy
from vmrestorekit.backup.layout import CopySettings
from vmrestorekit.backup.store import BackupStore
from vmrestorekit.lab.media.event_log import load_timeline, save_timeline
from vmrestorekit.lab.media.media_agent import MediaAgent
from vmrestorekit.lab.media.source import CopySource, ImageSource
from vmrestorekit.lab.programs import LabError
from vmrestorekit.plan import PlanError, PurgeRule, RestorePlan
from vmrestorekit.restore.hardware import BackupDevice, Hardware, Link
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

BLOCK = 4096
BLOCKS = 40
HOLES = (3, 4, 17, 39)
QUICK = Hardware("quick", BackupDevice(4, 0, 10**12), link=Link(0, 10**15))


def disk(blocks: int, holes: Sequence[int], seed: int, tail: int = 0) -> bytes:
    contents = [
        bytes(BLOCK) if block in holes else random.Random(1000 * seed + block).randbytes(BLOCK)
        for block in range(blocks)
    ]
    return b"".join(contents) + random.Random(seed).randbytes(tail)


FIRST, SECOND = disk(BLOCKS, HOLES, 1, tail=1536), disk(8, (), 2)


class SlowSource(ImageSource):
    """Images, of which reading waits until it may go on, and may fail."""

    def __init__(self, paths: Sequence[Path], block_bytes: int) -> None:
        super().__init__(paths, block_bytes)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fails = False
        self.reads: list[list[int]] = []
        self.is_closed = self.is_released = False

    def read(self, blocks: Sequence[int]) -> list[bytes]:
        self.reads.append(list(blocks))
        assert self.may_go_on.wait(20)
        if self.fails:
            raise ZeroDivisionError("a mistake in a source")
        assert not self.is_closed
        return super().read(blocks)

    def release(self) -> None:
        self.is_released = True

    def close(self) -> None:
        self.is_closed = True
        super().close()


@pytest.fixture
def source(tmp_path: Path) -> SlowSource:
    (tmp_path / "one.img").write_bytes(FIRST)
    (tmp_path / "two.img").write_bytes(SECOND)
    return SlowSource([tmp_path / "one.img", tmp_path / "two.img"], BLOCK)


@pytest.fixture
def copy(tmp_path: Path) -> CopySource:
    (tmp_path / "disk.img").write_bytes(FIRST)
    store = BackupStore.create(tmp_path / "store", BLOCK)
    create_copy(store, "web", [tmp_path / "disk.img"], settings=CopySettings(container_blocks=7))
    return CopySource(tmp_path / "store", 1)


def plan_for(source: ImageSource | CopySource, **settings: Any) -> RestorePlan:
    settings.setdefault("cache_bytes", 64 * BLOCK)
    return RestorePlan(source.disk_bytes, block_bytes=BLOCK, **settings)


def run(
    source: ImageSource | CopySource,
    scene: Callable[[MediaAgent], Awaitable[None]],
    hardware: Hardware = QUICK,
    plan: RestorePlan | None = None,
) -> MediaAgent:
    """Play a scene with an agent; it has ended when this returns."""
    agent = MediaAgent(source, hardware, plan=plan)

    async def play() -> None:
        async with asyncio.timeout(60), agent:
            await scene(agent)

    asyncio.run(play())
    return agent


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def is_staged(agent: MediaAgent) -> Callable[[], bool]:
    return lambda: agent.status()["first_set"]["staged"] == agent.status()["first_set"]["blocks"]


def assert_nothing_is_left(agent: MediaAgent) -> None:
    assert not agent.rules.cache.copies
    assert agent.rules.cache.used == 0
    assert not agent.rules.queue.waiting
    assert not agent.rules.queue.in_flight
    assert not agent.open


# --- reads --------------------------------------------------------------------------------------------


def test_any_range_of_any_disk_is_read_as_it_is(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        ranges = random.Random(3)
        for number, data in enumerate((FIRST, SECOND)):
            for _ in range(150):
                offset = ranges.randrange(len(data))
                length = ranges.choice([1, 512, BLOCK, 3 * BLOCK, len(data)])
                length = min(length, len(data) - offset)
                reader = ranges.choice(["vm", "relocation"])
                assert await agent.read(number, offset, length, reader) == data[offset : offset + length]
        assert await agent.read(0, len(FIRST) - 1536, 1536) == FIRST[-1536:]  # the short block at the end

    agent = run(source, scene, plan=plan_for(source, cache_bytes=8 * BLOCK, eviction="sieve"))
    assert agent.status()["cache"]["peak"] <= 8


def test_many_readers_at_once_get_what_they_asked_for(source: SlowSource) -> None:
    async def one(agent: MediaAgent, seed: int) -> None:
        ranges = random.Random(seed)
        for _ in range(20):
            offset = ranges.randrange(len(FIRST) - 1)
            length = ranges.randrange(1, min(9 * BLOCK, len(FIRST) - offset) + 1)
            assert await agent.read(0, offset, length) == FIRST[offset : offset + length]

    async def scene(agent: MediaAgent) -> None:
        await asyncio.gather(*(one(agent, seed) for seed in range(12)))
        assert all(held.pins == 0 for held in agent.rules.cache.copies.values())

    hardware = Hardware("small", BackupDevice(2, 100_000, 10**9), link=Link(50_000, 10**9))
    agent = run(source, scene, hardware, plan_for(source, cache_bytes=5 * BLOCK, first_set=np.arange(20)))
    assert agent.status()["cache"]["peak"] <= 5
    assert_nothing_is_left(agent)


def test_a_hole_is_zeros_without_the_device(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        assert await agent.read(0, 3 * BLOCK, 2 * BLOCK) == bytes(2 * BLOCK)
        assert source.reads == []

    run(source, scene)


@pytest.mark.parametrize(
    ("disk", "offset", "length"), [(2, 0, 1), (-1, 0, 1), (0, -1, 2), (1, 0, 0), (1, 32768, 1)]
)
def test_what_is_not_on_a_disk_is_refused(source: SlowSource, disk: int, offset: int, length: int) -> None:
    async def scene(agent: MediaAgent) -> None:
        with pytest.raises(OSError, match="expected bytes of a disk") as refused:
            await agent.read(disk, offset, length)
        assert refused.value.errno == errno.EINVAL

    run(source, scene)


def test_a_block_in_flight_is_awaited_and_not_read_twice(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        source.may_go_on.clear()
        reads = [asyncio.create_task(agent.read(0, 5 * BLOCK + at, 100)) for at in range(0, 500, 100)]
        await until(lambda: bool(source.reads))
        source.may_go_on.set()
        assert b"".join(await asyncio.gather(*reads)) == FIRST[5 * BLOCK : 5 * BLOCK + 500]
        assert source.reads == [[5]]
        assert (agent.status()["misses"], agent.status()["waits"]) == (1, 4)

    run(source, scene)


def test_a_client_that_goes_away_leaves_nothing_pinned(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        source.may_go_on.clear()
        gone = asyncio.create_task(agent.read(0, 5 * BLOCK, 2 * BLOCK))
        stays = asyncio.create_task(agent.read(0, 6 * BLOCK, BLOCK))
        await until(lambda: bool(source.reads))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        source.may_go_on.set()
        assert await stays == FIRST[6 * BLOCK : 7 * BLOCK]
        assert all(held.pins == 0 for held in agent.rules.cache.copies.values())
        assert agent.rules.cache.used == 2

    run(source, scene)


def test_a_client_may_go_away_while_its_bytes_are_on_the_link(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        await agent.read(0, 0, 1)
        gone = asyncio.create_task(agent.read(0, 0, BLOCK))
        await asyncio.sleep(0)
        assert len(agent.open) == 1
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await agent.read(0, 0, BLOCK) == FIRST[:BLOCK]
        assert all(held.pins == 0 for held in agent.rules.cache.copies.values())

    run(source, scene, QUICK.replace(link=Link(2_000_000, 10**12)))


# --- faults -------------------------------------------------------------------------------------------


def test_an_error_on_one_block_blocks_no_other_and_passes(
    source: SlowSource, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(agent: MediaAgent) -> None:
        agent.fault(error=[6])
        with pytest.raises(OSError, match="the device has an error on block 6") as failed:
            await agent.read(0, 5 * BLOCK, 3 * BLOCK)
        assert failed.value.errno == errno.EIO
        assert await agent.read(0, 5 * BLOCK, BLOCK) == FIRST[5 * BLOCK : 6 * BLOCK]
        assert await agent.read(0, 7 * BLOCK, BLOCK) == FIRST[7 * BLOCK : 8 * BLOCK]
        agent.fault(error=[])
        assert await agent.read(0, 5 * BLOCK, 3 * BLOCK) == FIRST[5 * BLOCK : 8 * BLOCK]
        status = agent.status()
        assert (status["device_failed_blocks"], status["failed_reads"]) == (1, 1)
        assert all(held.pins == 0 for held in agent.rules.cache.copies.values())

    with caplog.at_level(logging.WARNING):
        run(source, scene)
    assert "not served: [Errno 5] " in caplog.text


def test_a_corrupt_block_is_never_served(copy: CopySource, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(agent: MediaAgent) -> None:
        agent.fault(corrupt=[6])
        with pytest.raises(OSError, match="damaged content of block 6") as failed:
            await agent.read(0, 6 * BLOCK, 100)
        assert failed.value.errno == errno.EIO
        assert agent.status()["device_failed_blocks"] == 1
        assert agent.rules.cache.used == 0
        agent.fault(corrupt=())
        assert await agent.read(0, 0, len(FIRST)) == FIRST

    run(copy, scene)
    assert "not served: " in caplog.text


def test_damage_on_the_real_medium_is_never_served(copy: CopySource, tmp_path: Path) -> None:
    for path in (tmp_path / "store").glob("chunks/*/container-*"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    async def scene(agent: MediaAgent) -> None:
        reads = [agent.read(0, block * BLOCK, BLOCK) for block in range(BLOCKS)]
        failed = 0
        for block, content in enumerate(await asyncio.gather(*reads, return_exceptions=True)):
            if isinstance(content, OSError):
                assert content.errno == errno.EIO
                failed += 1
            else:
                assert content == FIRST[block * BLOCK : (block + 1) * BLOCK]
        assert failed == agent.status()["device_failed_blocks"] > 0

    run(copy, scene)


def test_a_mistake_in_a_source_fails_the_read_and_nothing_else(
    source: SlowSource, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(agent: MediaAgent) -> None:
        source.fails = True
        with pytest.raises(OSError, match="a mistake in a source"):
            await agent.read(0, 0, 1)
        source.fails = False
        assert await agent.read(0, 0, 1) == FIRST[:1]

    run(source, scene)
    assert "ZeroDivisionError" in caplog.text


def test_faults_that_cannot_be_are_refused(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        with pytest.raises(LabError, match="fault: expected some of corrupt, error, slow, got fast"):
            agent.fault(fast=2)
        with pytest.raises(LabError, match="no signatures"):
            agent.fault(corrupt=[1])

    run(source, scene)


# --- time ---------------------------------------------------------------------------------------------


def test_the_device_takes_its_time_and_delays_do_not_add_up(source: SlowSource) -> None:
    """One after the other, fetches take exactly what the device takes, plus what the medium was late."""
    device = BackupDevice(channels=1, positioning_ns=5_000_000, bandwidth=1_000_000_000)
    blocks = np.arange(20, -1, -2)  # backwards, so that each has to be positioned; 4 is a hole

    async def scene(agent: MediaAgent) -> None:
        await until(is_staged(agent))
        frame = agent.timeline().events
        fetches = frame.filter(frame["kind"] == "fetch")["time_ns"].to_list()
        staged = frame.filter(frame["kind"] == "staged")["time_ns"].to_list()
        assert len(fetches) == len(staged) == len(blocks) - 1
        assert fetches[1:] == staged[:-1]  # though the event loop came later to it
        assert staged[-1] - fetches[0] == len(fetches) * 5_004_096 + agent.status()["device_late_ns"]

    run(source, scene, QUICK.replace(backup_device=device), plan_for(source, first_set=blocks))


def test_staging_takes_the_same_time_as_simulated(source: SlowSource) -> None:
    """Event for event and to the nanosecond, unless the medium of this machine was late."""
    device = BackupDevice(3, 25_000_000, 2_000_000, mount_ns=10_000_000)
    hardware = QUICK.replace(backup_device=device)
    order = np.random.default_rng(5).permutation(BLOCKS)
    plan = plan_for(
        *(source,), mode="live_mount", first_set=order, cache_bytes=30 * BLOCK, stage_fetch_bytes=2 * BLOCK
    )

    async def scene(agent: MediaAgent) -> None:
        await until(lambda: agent.rules.has_staged_enough)  # the cache is full, and can go no further

    agent = run(source, scene, hardware, plan)
    metadata = TraceMetadata("vm", "boot", source.disk_bytes, {}, "none", "none", {})
    trace = ReadTrace(pl.DataFrame(schema=TRACE_SCHEMA), metadata)
    simulated = simulate_trace(trace, plan, hardware, source.layout.address).events
    of_device = pl.col("kind").is_in(["fetch", "staged"])
    kept = ["block", "count", "kind", "detail"]
    measured = agent.log.frame().filter(of_device)
    assert measured["count"].sum() == 2 * 30
    if agent.device.late_ns == 0:
        kept.append("time_ns")
    assert measured.select(kept).sort(kept).equals(simulated.filter(of_device).select(kept).sort(kept))


def test_what_the_medium_is_slower_than_the_emulated_device_is_counted(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        source.may_go_on.clear()
        read = asyncio.create_task(agent.read(0, 0, 1))
        await until(lambda: bool(source.reads))
        await asyncio.sleep(0.02)
        source.may_go_on.set()
        await read
        assert agent.status()["device_late_fetches"] == 1
        assert agent.status()["device_late_ns"] > 15_000_000

    run(source, scene)


def test_the_event_loop_goes_on_while_the_medium_is_read(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        await agent.read(0, 0, 1)
        source.may_go_on.clear()
        slow = asyncio.create_task(agent.read(0, 5 * BLOCK, 1))
        await until(lambda: len(source.reads) == 2)
        assert await agent.read(0, 0, BLOCK) == FIRST[:BLOCK]
        assert not slow.done()
        source.may_go_on.set()
        await slow

    run(source, scene)


def test_the_link_delays_and_limits(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        await agent.read(0, 0, 3 * BLOCK)
        before = len(agent.log)
        await agent.read(0, 0, 3 * BLOCK)
        rows = agent.log.frame()[before:].rows(named=True)
        hit = next(row for row in rows if row["kind"] == "cache_hit")
        arrived = [row["time_ns"] - hit["time_ns"] for row in rows if row["kind"] == "serve"]
        assert arrived == [5_409_600, 5_819_200, 6_228_800]

    run(source, scene, QUICK.replace(link=Link(5_000_000, 10_000_000)))


def test_a_hit_costs_less_than_fifty_microseconds_of_the_processor(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        await agent.read(0, 0, 3 * BLOCK)
        best = float("inf")
        for _ in range(5):
            started = time.process_time()
            for number in range(1000):
                await agent.read(0, number % 3 * BLOCK, BLOCK)
            best = min(best, (time.process_time() - started) / 1000)
        assert best < 50e-6

    run(source, scene)


# --- the course of a restore --------------------------------------------------------------------------


async def relocate(agent: MediaAgent, data: bytes, first_block: int, number: int) -> None:
    """Read a disk as the relocation does, and say what is on the destination."""
    for offset in range(0, len(data), 4 * BLOCK):
        length = min(4 * BLOCK, len(data) - offset)
        assert await agent.read(number, offset, length, "relocation") == data[offset : offset + length]
        agent.relocated([(first_block + offset // BLOCK, -(-length // BLOCK))])


def test_an_instant_restore_from_the_profile_to_the_release(source: SlowSource) -> None:
    plan = plan_for(source, first_set=np.array([0, 1, 2, 3, 20]), purge=PurgeRule(run_length=4))
    seen: list[str] = []

    async def scene(agent: MediaAgent) -> None:
        seen.append(agent.phase)
        agent.note("export_file_system")
        agent.indicate_vm_profile(plan)
        assert agent.status()["launch"]["needs_staged"] == 4  # one is a hole
        await until(is_staged(agent))
        agent.launched()
        seen.append(agent.phase)
        assert await agent.read(0, 0, BLOCK) == FIRST[:BLOCK]
        assert agent.status()["hits"] == 1
        agent.note("boot_done")
        agent.pre_relocation()
        seen.append(agent.phase)
        agent.note("start_relocation")
        agent.relocation_in_progress()
        seen.append(agent.phase)
        await relocate(agent, FIRST, 0, 0)
        await relocate(agent, SECOND, 41, 1)
        for kind in ("finish_relocation", "apply_writes", "use_destination", "unmount_file_system"):
            agent.note(kind)
        await agent.relocation_completed()
        seen.append(agent.phase)
        assert_nothing_is_left(agent)
        with pytest.raises(OSError, match="not served any more") as refused:
            await agent.read(0, 0, 1)
        assert refused.value.errno == errno.ESHUTDOWN
        with pytest.raises(LabError, match="expected a message before the end"):
            agent.launched()
        json.dumps(agent.status())

    agent = run(source, scene)
    assert seen == [*("preparing", "running from the backup", "pre-relocation", "relocating", "completed")]
    assert source.is_released
    assert source.is_closed
    quality = agent.status()["purge_quality"]
    assert quality["precision"] == 1.0
    assert quality["recall"] >= 0.9
    timeline = agent.timeline(vm="web", boot="real")
    kinds = timeline.events["kind"].to_list()
    assert kinds[:3] == ["export_file_system", "indicate_vm_profile", "determine_first_set"]
    assert kinds[-3:] == ["indicate_relocation_completed", "empty_read_cache", "de_associate"]
    assert kinds.count("infer_run") >= 1
    figures = timeline.summary()
    assert figures["relocated_bytes"] == 49 * BLOCK
    assert figures["media_bytes"] == agent.status()["media_bytes"] >= 45 * BLOCK
    assert figures["released_ns"] == timeline.end_ns
    assert timeline.state_at(len(timeline) - 1).phase == "running on the destination"


def test_a_live_mount_expires(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        agent.launched()
        await agent.read(0, 0, BLOCK)
        source.may_go_on.clear()
        read = asyncio.create_task(agent.read(0, 20 * BLOCK, BLOCK))
        await until(lambda: len(source.reads) == 2)
        expiring = asyncio.create_task(agent.expire())
        with pytest.raises(OSError, match="not served any more") as cut_off:
            await read
        assert cut_off.value.errno == errno.ESHUTDOWN
        assert not source.is_closed  # something still reads from it
        assert not source.is_released
        source.may_go_on.set()
        await expiring
        assert source.is_closed
        assert source.is_released
        assert_nothing_is_left(agent)

    agent = run(source, scene, plan=plan_for(source, mode="live_mount"))
    timeline = agent.timeline()
    assert timeline.summary()["cut_off"] == 1
    assert timeline.events["kind"].to_list()[-3:] == ["expire", "empty_read_cache", "de_associate"]


def test_the_end_waits_for_reads_under_way(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        agent.indicate_vm_profile(plan_for(source))
        source.may_go_on.clear()
        read = asyncio.create_task(agent.read(0, 20 * BLOCK, BLOCK))
        await until(lambda: bool(source.reads))
        completing = asyncio.create_task(agent.relocation_completed())
        await asyncio.sleep(0.01)
        assert not completing.done()
        source.may_go_on.set()
        assert await read == FIRST[20 * BLOCK : 21 * BLOCK]
        await completing

    run(source, scene)


def test_staging_under_way_at_the_end_is_dropped(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        source.may_go_on.clear()
        agent.indicate_vm_profile(plan_for(source, first_set=np.arange(20)))
        await until(lambda: bool(source.reads))
        completing = asyncio.create_task(agent.relocation_completed())
        await asyncio.sleep(0)
        source.may_go_on.set()
        await completing
        reads = len(source.reads)
        await asyncio.sleep(0.01)
        assert len(source.reads) == reads
        assert_nothing_is_left(agent)

    run(source, scene)


def test_an_agent_that_stops_before_the_end_keeps_the_copy_associated(
    copy: CopySource, tmp_path: Path
) -> None:
    store = BackupStore(tmp_path / "store")

    async def scene(agent: MediaAgent) -> None:
        agent.launched()
        await agent.read(0, 0, BLOCK)

    run(copy, scene)
    assert store.associations(1) == ["web"]

    async def expire(agent: MediaAgent) -> None:
        await agent.expire()

    run(CopySource(tmp_path / "store", 1), expire)  # started again
    assert store.associations(1) == []


def test_an_agent_that_nobody_used_releases_the_copy(copy: CopySource, tmp_path: Path) -> None:
    async def scene(agent: MediaAgent) -> None:
        agent.indicate_vm_profile(plan_for(copy))

    run(copy, scene)
    assert BackupStore(tmp_path / "store").associations(1) == []


def test_a_relocation_that_is_cancelled_can_run_again(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        agent.indicate_vm_profile(plan_for(source, purge=PurgeRule(by_period=True, period_ns=1_000_000)))
        agent.relocation_in_progress()
        await agent.read(0, 0, 2 * BLOCK, "relocation")
        await until(lambda: agent.status()["purged"] == 2)
        agent.relocation_cancelled()
        assert agent.phase == "running from the backup"
        assert await agent.read(0, 0, len(FIRST)) == FIRST
        agent.relocation_in_progress()
        await relocate(agent, FIRST, 0, 0)
        await relocate(agent, SECOND, 41, 1)
        await agent.relocation_completed()

    run(source, scene)


def test_messages_that_make_no_sense_are_refused(source: SlowSource) -> None:
    async def scene(agent: MediaAgent) -> None:
        with pytest.raises(LabError, match="a live mount is never relocated"):
            agent.relocation_in_progress()
        with pytest.raises(PlanError, match="expected a plan for disks of"):
            agent.indicate_vm_profile(RestorePlan((4 * BLOCK,), block_bytes=BLOCK))
        with pytest.raises(
            PlanError, match="expected every block that the backup stores, but 42 are missing"
        ):
            agent.indicate_vm_profile(plan_for(source, relocation_sequence=np.arange(5)))
        with pytest.raises(PlanError, match="weighted"):
            agent.indicate_vm_profile(plan_for(source, priorities="weighted"))
        agent.indicate_vm_profile(plan_for(source))
        with pytest.raises(LabError, match=r"relocated: expected ranges of 49 blocks, got 3 from 47 on"):
            agent.relocated([(47, 3)])
        with pytest.raises(LabError, match="event: expected one of"):
            agent.note("nothing of the sort")

    run(source, scene)


# --- the recording ------------------------------------------------------------------------------------


def test_a_recording_can_be_stepped_through_after_loading(source: SlowSource, tmp_path: Path) -> None:
    from vmrestorekit.show.restore.stepper import Stepper

    async def scene(agent: MediaAgent) -> None:
        agent.indicate_vm_profile(plan_for(source, first_set=np.arange(6), cache_bytes=8 * BLOCK))
        await until(is_staged(agent))
        agent.launched()
        await agent.read(0, 0, 30 * BLOCK)
        agent.note("boot_done")
        agent.relocation_in_progress()
        await relocate(agent, FIRST, 0, 0)

    timeline = run(source, scene).timeline(vm="web", boot="real", local_boot_ns=1)
    save_timeline(timeline, tmp_path / "run")
    loaded = load_timeline(tmp_path / "run")
    stepper = Stepper(loaded)
    for index in range(0, len(loaded), max(1, len(loaded) // 10)):
        stepper.index = index
    causes = loaded.causes
    assert (causes < np.arange(len(loaded))).all()  # what led to something came before
    kinds = loaded.events["kind"].to_list()
    led_to = {(kinds[cause], kind) for cause, kind in zip(causes, kinds, strict=True) if cause >= 0}
    assert led_to >= {
        *(("vm_read", "cache_hit"), ("cache_miss", "fetch"), ("fetch", "staged"), ("staged", "serve")),
        *(("cache_hit", "serve"), ("serve", "vm_done"), ("determine_first_set", "fetch")),
    }
    # each fetch that began has ended: nothing is left in flight
    assert loaded.summary()["stall_ns"] is not None
    assert loaded.summary()["hits"] > 0
