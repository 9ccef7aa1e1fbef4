"""The host routes reads and writes, relocates, applies and lets go: tried with QEMU and without any guest."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lab_helpers import need
from qemu.qmp import QMPError
from restore_helpers import (
    BLOCK,
    MIB,
    StandIn,
    content_of,
    content_of_image,
    expect_reads,
    forget_qemus,
    hear_qemu,
    plan_for,
    until,
    write,
)

from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.restore import host_chain
from vmrestorekit.lab.restore.folder import RestoreFolder
from vmrestorekit.lab.restore.host import Host, JobCancelledError, run_host
from vmrestorekit.lab.restore.host_chain import HostSettings
from vmrestorekit.lab.restore.nbd_client import connect_nbd

SIZES = (6 * MIB, 3 * MIB + 4096 * 5)
SETTINGS = HostSettings(memory_mib=64, processors=1, reconnect_s=1)


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    need("qemu-system-x86_64", "qemu-img")
    hear_qemu(monkeypatch)
    yield
    forget_qemus()


class Scene:
    """A stand-in for the media agent, the folder of a restore, and what its disks have to hold."""

    def __init__(self, folder: Path, **plan: Any) -> None:
        self.path = folder
        contents = [content_of(size, seed, zeros=[(4, 8)]) for seed, size in enumerate(SIZES)]
        self.model = [bytearray(content) for content in contents]
        self.agent = StandIn(folder, contents)
        self.folder = RestoreFolder.create(folder / "restore", plan_for(*SIZES, **plan), serve={})

    @asynccontextmanager
    async def host(self) -> AsyncIterator[Host]:
        async with self.agent.running(), run_host(self.folder, self.agent.sockets.nbd, SETTINGS) as host:
            yield host

    def expect_destinations(self) -> None:
        for disk, size in enumerate(SIZES):
            assert content_of_image(self.folder.destination(disk), size, self.path) == self.model[disk]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(limited())


def test_what_was_written_stays_through_relocation_and_pivot_and_the_source_is_let_go_of(
    scene: Scene,
) -> None:
    async def story() -> None:
        async with scene.host() as host:
            await write(host, scene.model, 0, MIB, 3 * 4096, 0xAB)
            await write(host, scene.model, 1, 3 * MIB, 4096, 0xAC)  # near the end of an odd disk
            await expect_reads(host, scene.model, 0, MIB, 3 * 4096)
            await expect_reads(host, scene.model, 0, 5 * BLOCK, BLOCK)  # zeros of the source
            for disk in range(2):
                await host.relocate(disk)
                await write(host, scene.model, disk, 2 * MIB, 4096, 0xAD)
                await host.make_durable(disk, scene.path / "durable")
            for disk in range(2):
                await host.apply_writes(disk, lambda: None)
                await host.unmount(disk)
            reads = [len(disk.reads) for disk in scene.agent.disks]
            await write(host, scene.model, 0, 5 * MIB, 4096, 0xAE)  # straight to the destination
            await expect_reads(host, scene.model, 0, MIB, 3 * 4096)
            await expect_reads(host, scene.model, 1, 2 * MIB, 4096)
            await expect_reads(host, scene.model, 0, 5 * MIB, 4096)
            assert [len(disk.reads) for disk in scene.agent.disks] == reads
            await host.quit()
        scene.expect_destinations()

    play(story)


def test_a_host_killed_at_the_pivot_has_lost_nothing(scene: Scene) -> None:
    async def story() -> None:
        async with scene.host() as host:
            await write(host, scene.model, 0, MIB, 4096, 0x11)
            await host.relocate(0)
            await host.relocate(1)

            def kill() -> None:
                os.kill(host.guest.pid, signal.SIGKILL)

            applying = asyncio.create_task(host.apply_writes(0, kill))
            await asyncio.wait({applying}, timeout=5)
            applying.cancel()
            with contextlib.suppress(asyncio.CancelledError, QMPError, EOFError):
                await applying
        # at that moment the write cache was declared to be done with
        assert content_of_image(scene.folder.destination(0), SIZES[0], scene.path) == scene.model[0]

    play(story)


def test_a_write_is_held_while_the_write_cache_is_declared_done_with(scene: Scene) -> None:
    async def story() -> None:
        async with scene.host() as host:
            await host.relocate(0)
            held: list[asyncio.Task[None]] = []

            def start_writing() -> None:
                held.append(asyncio.create_task(write(host, scene.model, 0, MIB, 4096, 0x22)))

            await host.apply_writes(0, start_writing)
            await held[0]
            await host.unmount(0)
            await expect_reads(host, scene.model, 0, MIB, 4096)
            await host.quit()
        assert content_of_image(scene.folder.destination(0), SIZES[0], scene.path) == scene.model[0]

    play(story)


def test_a_relocation_that_was_cancelled_goes_on_where_it_was(scene: Scene) -> None:
    async def story() -> None:
        async with scene.host() as host:
            relocating = asyncio.create_task(host.relocate(0, speed=2 * MIB))
            await until(lambda: len(scene.agent.disks[0].reads) > 4)
            await host.cancel_relocation(0)
            with pytest.raises(JobCancelledError):
                await relocating
            before = len(scene.agent.disks[0].reads)
            await write(host, scene.model, 0, 5 * MIB, 4096, 0x33)
            await host.relocate(0)
            assert len(scene.agent.disks[0].reads) > before
            for block in range(20, SIZES[0] // BLOCK):
                assert scene.agent.disks[0].was_read(block) == 1
            await host.cancel_relocation(0)  # nothing to cancel: no harm
            await host.quit()

    play(story)


def test_reads_through_the_copy_on_read_filter_relocate_in_any_order(scene: Scene) -> None:
    async def story() -> None:
        async with scene.host() as host:
            path = scene.path / "destination"
            async with host.relocation_exports(path, [0, 1], copy=True), connect_nbd(path, "dest0") as client:
                await client.copy(40 * BLOCK, 2 * BLOCK)
                await client.copy(7 * BLOCK, BLOCK)
                first = list(scene.agent.disks[0].reads)
                await client.copy(40 * BLOCK, BLOCK)
                assert scene.agent.disks[0].reads == first == [(40 * BLOCK, 2 * BLOCK), (7 * BLOCK, BLOCK)]
            await host.relocate(0)
            assert scene.agent.disks[0].was_read(40) == scene.agent.disks[0].was_read(7) == 1
            await host.quit()
        assert content_of_image(scene.folder.destination(0), SIZES[0], scene.path) == scene.model[0]

    play(story)


def test_a_client_can_write_what_it_relocates_below_the_machine(scene: Scene) -> None:
    async def story() -> None:
        async with scene.host() as host:
            path = scene.path / "destination"
            await write(host, scene.model, 0, 20 * BLOCK, 4096, 0x44)
            async with (
                host.relocation_exports(path, [0], copy=False),
                connect_nbd(path, "dest0") as destination,
                connect_nbd(scene.agent.sockets.nbd, "disk0-relocation") as source,
            ):
                await destination.write(20 * BLOCK, await source.read(20 * BLOCK, BLOCK))
            await expect_reads(host, scene.model, 0, 20 * BLOCK, 4096)
            assert scene.agent.for_relocation[0].reads == [(20 * BLOCK, BLOCK)]
            await host.relocate(0)
            assert scene.agent.disks[0].was_read(20) == 0
            await host.apply_writes(0, lambda: None)
            await host.quit()
        assert content_of_image(scene.folder.destination(0), SIZES[0], scene.path) == scene.model[0]

    play(story)


def test_a_job_waits_for_a_media_agent_that_is_gone(scene: Scene) -> None:
    async def story() -> None:
        async with AsyncExitStack() as before, AsyncExitStack() as stack:
            await before.enter_async_context(scene.agent.running())
            host = await stack.enter_async_context(run_host(scene.folder, scene.agent.sockets.nbd, SETTINGS))
            troubles = stack.enter_context(host.troubles())
            relocating = asyncio.create_task(host.relocate(0, speed=2 * MIB))
            await until(lambda: len(scene.agent.disks[0].reads) > 3)
            await before.aclose()
            event = await troubles.get()
            assert event["event"] == "BLOCK_JOB_ERROR"
            await until_stuck(host)
            async with scene.agent.running():
                while not relocating.done():  # QEMU connects in the background: the first try may fail
                    await host.go_on()
                    await asyncio.wait({relocating}, timeout=0.2)
                await relocating
                assert not await host.is_stuck()
                await host.apply_writes(0, lambda: None)
                await host.quit()
        assert content_of_image(scene.folder.destination(0), SIZES[0], scene.path) == scene.model[0]

    play(story)


async def until_stuck(host: Host) -> None:
    while not await host.is_stuck():
        await asyncio.sleep(0.02)


def test_a_destination_that_cannot_be_flushed_is_not_durable(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_of = host_chain._image_node

    def failing(name: str, path: Path, backing: str | None) -> list[str]:
        option, text = node_of(name, path, backing)
        node = json.loads(text)
        rule = {"event": "flush_to_os", "iotype": "flush", "errno": errno.ENOSPC}
        node["file"] = {"driver": "blkdebug", "image": node["file"], "inject-error": [rule]}
        return [option, json.dumps(node)]

    monkeypatch.setattr(host_chain, "_image_node", failing)

    async def story() -> None:
        async with scene.host() as host:
            await host.relocate(0)
            with pytest.raises(LabError, match="disk 0 durable: No space left on device"):
                await host.make_durable(0, scene.path / "durable")
            await host.quit()

    play(story)


def test_a_live_mount_has_no_destination(tmp_path: Path) -> None:
    scene = Scene(tmp_path, mode="live_mount")

    async def story() -> None:
        async with scene.host() as host:
            await write(host, scene.model, 0, MIB, 4096, 0x55)
            await expect_reads(host, scene.model, 0, MIB, 4096)
            await expect_reads(host, scene.model, 0, 5 * BLOCK, BLOCK)
            await host.quit()
        assert not scene.folder.destination(0).exists()

    play(story)
