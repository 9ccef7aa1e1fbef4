"""While a media agent is gone, the virtual machine's reads fail or wait: they never bring anything else."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from lab_helpers import need
from restore_helpers import (
    BLOCK,
    MIB,
    content_of_image,
    forget_qemus,
    hear_qemu,
    plan_for,
    qemu_io,
    say_to_qemu_io,
)
from serving_helpers import QUICK, image_source

from vmrestorekit.lab.media.serve import Places, Serving, serve_copy
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.restore.agent_link import AgentLink, AgentSockets
from vmrestorekit.lab.restore.folder import RestoreFolder
from vmrestorekit.lab.restore.host import Host, run_host
from vmrestorekit.lab.restore.host_chain import HostSettings
from vmrestorekit.lab.restore.mover import stored_blocks

BLOCKS, ROUNDS = 128, 5
SETTINGS = HostSettings(memory_mib=64, processors=1, reconnect_s=1)
NOT_READ = 0xAB  # what `qemu-io` fills its memory with before it reads


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    need("qemu-system-x86_64", "qemu-img")
    hear_qemu(monkeypatch)
    yield
    forget_qemus()


class Scene:
    """An image of blocks of one byte value each, some of them holes; a media agent; a host."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        numbers = random.Random(3)
        self.values = [number * 37 % 151 if numbers.random() < 0.8 else 0 for number in range(1, BLOCKS + 1)]
        self.content = b"".join(bytes([value]) * BLOCK for value in self.values)
        (folder / "image").write_bytes(self.content)
        self.folder = RestoreFolder.create(folder / "restore", plan_for(len(self.content)), serve={})

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[Serving]:
        places = Places(self.path / "nbd", self.path / "control")
        async with serve_copy(image_source(self.path / "image", block_bytes=BLOCK), QUICK, places) as serving:
            yield serving

    def host(self) -> contextlib.AbstractAsyncContextManager[Host]:
        return run_host(self.folder, self.path / "nbd", SETTINGS)

    async def read(self, host: Host, block: int) -> bool:
        """Read a block as the guest would; return whether that went well, and then it has to be right."""
        said = await say_to_qemu_io(host, 0, f"read -P {self.values[block]} {block * BLOCK} {BLOCK}")
        if "read failed" in said:
            return False
        assert "verification failed" not in said, f"block {block} is wrong: {said}"
        assert " bytes at offset" in said, repr(said)
        return True


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(120):
            await story()

    asyncio.run(limited())


def test_a_read_during_the_relocation_fails_when_the_media_agent_is_gone(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            served = await stack.enter_async_context(contextlib.AsyncExitStack())
            await served.enter_async_context(scene.agent())
            host = await stack.enter_async_context(scene.host())
            with host.troubles() as troubles:
                relocating = asyncio.create_task(host.relocate(0, speed=MIB))
                while await host.relocated_bytes(0) is None:
                    await asyncio.sleep(0.02)
                assert await scene.read(host, BLOCKS - 1)
                await served.aclose()
                assert (await troubles.get())["event"] == "BLOCK_JOB_ERROR"
            missing = range(BLOCKS // 2, BLOCKS - 1)
            assert not any([await scene.read(host, block) for block in missing])
            assert await scene.read(host, BLOCKS - 1)  # it was copied when it was read
            async with scene.agent():
                await until_relocated(host, relocating)
                for block in missing:
                    assert await scene.read(host, block)
            await host.quit()
        assert content_of_image(scene.folder.destination(0), len(scene.content), tmp_path) == scene.content

    play(story)


def test_reads_while_a_media_agent_comes_and_goes_are_right_or_fail(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    numbers = random.Random(4)

    async def read_until(host: Host, outcome: bool) -> None:
        while await scene.read(host, numbers.randrange(BLOCKS)) is not outcome:
            await host.go_on()  # the first try may come before QEMU has connected again

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            served = await stack.enter_async_context(contextlib.AsyncExitStack())
            await served.enter_async_context(scene.agent())
            host = await stack.enter_async_context(scene.host())
            relocating = asyncio.create_task(host.relocate(0, speed=MIB // 2))
            for _ in range(ROUNDS):
                await read_until(host, True)
                await asyncio.gather(served.aclose(), read_until(host, False))
                await served.enter_async_context(scene.agent())
            await until_relocated(host, relocating)
            await host.quit()
        assert content_of_image(scene.folder.destination(0), len(scene.content), tmp_path) == scene.content

    play(story)


async def until_relocated(host: Host, relocating: asyncio.Task[None]) -> None:
    while not relocating.done():  # QEMU connects in the background: the first try may fail
        await host.go_on()
        await asyncio.wait({relocating}, timeout=0.2)
    await relocating


class Link:
    """What is needed of the line to a media agent that is gone, and, if there is one, comes back."""

    def __init__(self, scene: Scene, stack: contextlib.AsyncExitStack | None) -> None:
        self.sockets, self.losses = AgentSockets(scene.path / "nbd", scene.path / "control"), 0
        self._scene, self._stack = scene, stack

    async def ensure(self) -> None:
        if self._stack is not None:
            await self._stack.enter_async_context(self._scene.agent())
            self.losses += 1


def test_looking_for_holes_begins_anew_when_the_media_agent_is_lost(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def story() -> None:
        with pytest.raises(LabError, match="qemu-img could not tell"):
            await stored_blocks(cast(AgentLink, Link(scene, None)), scene.folder.plan)
        async with contextlib.AsyncExitStack() as stack:
            stored = await stored_blocks(cast(AgentLink, Link(scene, stack)), scene.folder.plan)
            assert stored.tolist() == [value != 0 for value in scene.values]

    play(story)


def test_what_qemu_io_finds_wrong_is_heard(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def story() -> None:
        async with scene.agent(), scene.host() as host:
            with pytest.raises(AssertionError, match="verification failed"):
                await qemu_io(host, 0, f"read -P {NOT_READ} 0 {BLOCK}")
            with pytest.raises(AssertionError):
                await qemu_io(host, 0, f"read {len(scene.content)} {BLOCK}")

    play(story)
