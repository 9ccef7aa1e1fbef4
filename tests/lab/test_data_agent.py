"""The data agent carries out a plan: with QEMU, a stand-in for the media agent, and no guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab_helpers import need
from restore_helpers import (
    BLOCK,
    MIB,
    StandIn,
    Told,
    content_of,
    content_of_image,
    forget_qemus,
    hear_qemu,
    plan_for,
    qemu_io,
    until,
    write,
)

from vmrestorekit.lab.media.event_log import load_timeline
from vmrestorekit.lab.programs import LabError, run
from vmrestorekit.lab.restore.agent_link import AgentSockets
from vmrestorekit.lab.restore.carry_out import carry_out, serve_arguments
from vmrestorekit.lab.restore.data_agent import DataAgent, RestoreOptions
from vmrestorekit.lab.restore.folder import RestoreFolder
from vmrestorekit.lab.restore.mover import mover_of
from vmrestorekit.lab.restore.requests import ask_restore
from vmrestorekit.lab.restore.start import wait_for_relocation
from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart
from vmrestorekit.restore.hardware import BackupDevice

SIZES = (5 * MIB, 2 * MIB + 4096 * 3)
SLOW = 2 * MIB
SECOND = 1_000_000_000
DEVICE = BackupDevice(channels=1, positioning_ns=0, bandwidth=100_000_000)
AT_ONCE: dict[str, Any] = {
    "launch": LaunchRule("immediately"),
    "relocation_start": RelocationStart("at_once"),
}


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    need("qemu-system-x86_64", "qemu-img", "setpriv")
    hear_qemu(monkeypatch)
    yield
    forget_qemus()


class Scene:
    def __init__(self, folder: Path, **plan: Any) -> None:
        self.path = folder
        contents = [content_of(size, seed, zeros=[(3, 6)]) for seed, size in enumerate(SIZES)]
        self.model = [bytearray(content) for content in contents]
        self.agent = StandIn(folder, contents)
        machine = {"memory_mib": 64, "processors": 1, "reconnect_s": 1}
        self.folder = RestoreFolder.create(
            folder / "restore", plan_for(*SIZES, **(AT_ONCE | plan)), serve={}, machine=machine
        )
        self.told = Told()

    @contextlib.asynccontextmanager
    async def restore(self, **options: Any) -> AsyncIterator[DataAgent]:
        """Carry the restore out, from where the folder says."""
        self.folder = RestoreFolder(self.folder.path)
        wanted = RestoreOptions(DEVICE, **options)
        async with carry_out(self.folder, wanted, report=self.told, sockets=self.agent.sockets) as agent:
            yield agent

    def expect_destinations(self) -> None:
        for disk, size in enumerate(SIZES):
            assert content_of_image(self.folder.destination(disk), size, self.path) == self.model[disk]

    def expect_released(self) -> None:
        assert RestoreFolder(self.folder.path).state.phase == "released"
        assert not self.folder.write_cache(0).exists()
        self.expect_destinations()


def play(story: Callable[[], Coroutine[Any, Any, None]], seconds: float = 60.0) -> None:
    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await story()

    asyncio.run(limited())


def test_a_restore_goes_through_all_its_phases(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def story() -> None:
        async with scene.agent.running(), scene.restore() as restore:
            await restore.launched.wait()
            await write(restore.host, scene.model, 0, MIB, 8192, 0xA1)
            await restore.released.wait()
            await write(restore.host, scene.model, 1, MIB, 4096, 0xA2)  # the machine runs on
        assert scene.agent.said == [
            *("vm_profile", "launched", "pre_relocation", "relocation_in_progress"),
            *(["relocated"] * scene.agent.said.count("relocated")),
            "relocation_completed",
        ]
        kinds = [kind for kind in scene.agent.noted if kind != "applied"]
        assert kinds == [
            *("export_file_system", "mount_file_system", "set_up_data_flow", "start_relocation"),
            *("finish_relocation", "apply_writes", "use_destination", "unmount_file_system"),
        ]
        scene.expect_released()
        ranges = [r for each in scene.agent.messages if each["do"] == "relocated" for r in each["ranges"]]
        told = np.zeros(scene.folder.plan.blocks, int)
        for first, count in ranges:
            told[first : first + count] += 1
        holes = [*range(3, 9), *range(80 + 3, 80 + 9)]
        assert (np.delete(told, holes) == 1).all()
        assert (told[holes] == 0).all()

    play(story)


def test_what_block_stream_cannot_do_is_done_request_by_request_or_refused() -> None:
    ascending = plan_for(*SIZES)
    assert mover_of(ascending) == "stream"
    backwards = ascending.replace(relocation_sequence=np.arange(ascending.blocks)[::-1])
    assert mover_of(backwards) == "copy_on_read"
    assert mover_of(ascending.replace(relocation_depth=2)) == "copy_on_read"
    assert mover_of(ascending.replace(purge=PurgeRule(by_indication=True))) == "copy_on_read"
    with pytest.raises(
        LabError,
        match="block-stream relocates in ascending order, 512 KiB at a time, but the relocation sequence",
    ):
        mover_of(backwards, "stream")
    with pytest.raises(LabError, match="limit of speed"):
        mover_of(backwards, None, speed=1000)
    with pytest.raises(LabError, match="expected one of stream"):
        mover_of(ascending, "magic")


@pytest.mark.parametrize("mover", ["copy_on_read", "relocation_export"])
def test_the_relocation_follows_the_plan_s_sequence(tmp_path: Path, mover: str) -> None:
    blocks = plan_for(*SIZES).blocks
    sequence = np.random.default_rng(3).permutation(blocks)
    scene = Scene(tmp_path, relocation_sequence=sequence, relocation_request_bytes=BLOCK, relocation_depth=1)

    async def story() -> None:
        async with scene.agent.running(), scene.restore(mover=mover) as restore:
            await restore.launched.wait()
            await write(restore.host, scene.model, 0, MIB, 4096, 0xB1)
            await restore.released.wait()
        scene.expect_released()

    play(story)
    read = scene.agent.disks if mover == "copy_on_read" else scene.agent.for_relocation
    wanted = [int(block) for block in sequence if block < SIZES[0] // BLOCK and not 3 <= block < 9]
    # the machine's firmware reads some sectors, QEMU larger pieces in the end
    order = [offset // BLOCK for offset, length in read[0].reads if length == BLOCK]
    assert [block for block in order if block in wanted] == wanted
    if mover == "relocation_export":  # and nothing else reads as if it were the machine
        assert not any(offset for offset, _ in scene.agent.disks[0].reads)
        assert not any(offset for offset, _ in scene.agent.disks[1].reads)


def test_a_relocation_can_be_cancelled_and_started_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def story() -> None:
        async with scene.agent.running(), scene.restore(speed=MIB) as restore:
            await restore.launched.wait()
            await until(lambda: len(scene.agent.disks[0].reads) > 3)
            said = await ask_restore(scene.folder.path, "cancel_relocation")
            assert "runs on from the logical source" in said
            await until(lambda: scene.agent.said[-1] == "relocation_cancelled")
            assert scene.folder.state.phase == "running"
            with pytest.raises(LabError, match="no relocation is running: the restore is running"):
                await ask_restore(scene.folder.path, "cancel_relocation")
            with pytest.raises(LabError, match="only a live mount"):
                await ask_restore(scene.folder.path, "extend", by_ns=1)
            with pytest.raises(LabError, match="no request 'dance'"):
                await ask_restore(scene.folder.path, "dance")
            await write(restore.host, scene.model, 0, 4 * MIB, 4096, 0xC1)
            restore.options = RestoreOptions(DEVICE)
            await ask_restore(scene.folder.path, "start_relocation")
            await restore.released.wait()
        scene.expect_released()
        assert scene.agent.said.count("relocation_in_progress") == 2

    play(story)


async def kill_host(scene: Scene, phase: str = "running", **options: Any) -> None:
    """Carry a restore out until it has come so far, then kill its host."""
    async with scene.restore(**options) as restore:
        await restore.launched.wait()
        await write(restore.host, scene.model, 0, MIB, 4096, 0xD1)
        await qemu_io(restore.host, 0, "flush")
        await until(lambda: scene.folder.state.phase == phase)
        if phase == "released":
            await restore.released.wait()
        os.kill(restore.host.guest.pid, signal.SIGKILL)
        await asyncio.Event().wait()


@pytest.mark.parametrize("phase", ["running", "relocating", "applying", "released"])
def test_a_restore_whose_host_was_killed_goes_on(tmp_path: Path, phase: str) -> None:
    later = RelocationStart(delay_ns=5 * SECOND)
    scene = Scene(tmp_path, **({"relocation_start": later} if phase == "running" else {}))

    async def story() -> None:
        async with scene.agent.running():
            with pytest.raises(LabError, match="'vmrestorekit lab resume' goes on with the restore"):
                await kill_host(scene, phase, speed=MIB if phase == "relocating" else 0)
            assert RestoreFolder(scene.folder.path).state.phase == phase
            async with scene.restore() as restore:
                if phase != "released":
                    await ask_to_start(scene)
                await restore.released.wait()
                await write(restore.host, scene.model, 0, 2 * MIB, 4096, 0xD2)
        scene.expect_released()

    play(story)


async def ask_to_start(scene: Scene) -> None:
    with contextlib.suppress(LabError):  # it may have started by itself
        await ask_restore(scene.folder.path, "start_relocation")


def test_a_lost_media_agent_is_told_everything_again_and_nothing_is_lost(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def story() -> None:
        async with contextlib.AsyncExitStack() as first:
            await first.enter_async_context(scene.agent.running())
            async with scene.restore(speed=MIB) as restore:
                await restore.launched.wait()
                await write(restore.host, scene.model, 0, MIB, 4096, 0xE1)
                await until(lambda: len(scene.agent.disks[0].reads) > 3)
                await first.aclose()
                await until(lambda: any("gone" in line for line in scene.told.lines))
                scene.agent.messages.clear()
                async with scene.agent.running():
                    await restore.released.wait()
                assert [kind for kind in scene.agent.said if kind != "relocated"] == [
                    *("vm_profile", "launched", "pre_relocation", "relocation_in_progress"),
                    "relocation_completed",
                ]
                assert {"lose_media_agent", "take_over"} <= set(scene.agent.noted)
                await until(lambda: bool(restore.troubles.pauses))
        scene.expect_released()

    play(story)


def test_the_launch_waits_for_a_share_of_the_first_set(tmp_path: Path) -> None:
    scene = Scene(tmp_path, launch=LaunchRule("share", 0.5), first_set=np.arange(10))

    async def story() -> None:
        scene.agent.status |= {"first_set": {"blocks": 10, "staged": 0}, "in_flight": 1}
        async with scene.agent.running(), scene.restore() as restore:
            await asyncio.sleep(0.3)
            assert not restore.launched.is_set()
            scene.agent.status |= {"launch": {"has_staged_enough": True}}
            await restore.launched.wait()
            await restore.released.wait()

    play(story)


def test_a_full_restore_launches_from_the_destination(tmp_path: Path) -> None:
    scene = Scene(tmp_path, mode="full_restore")

    async def story() -> None:
        async with scene.agent.running(), scene.restore() as restore:
            await restore.launched.wait()
            assert restore.released.is_set()
            await write(restore.host, scene.model, 0, 2 * MIB, 4096, 0xF1)
        scene.expect_released()
        assert "launched" not in scene.agent.said

    play(story)


def test_a_live_mount_warns_is_extended_and_leaves_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, mode="live_mount", expiry_ns=3 * SECOND, warning_ns=2 * SECOND)
    before = [bytes(disk.content) for disk in scene.agent.disks]

    async def story() -> None:
        async with scene.agent.running(), scene.restore() as restore:
            await restore.launched.wait()
            await write(restore.host, scene.model, 0, MIB, 4096, 0x77)
            await until(lambda: "warn_of_expiry" in scene.agent.noted)
            said = await ask_restore(scene.folder.path, "extend", by_ns=2 * SECOND)
            assert "expires in" in said
            await asyncio.sleep(2.2)
            assert not restore.released.is_set()
            await restore.released.wait()
        taken = (restore.times["released"] - restore.times["asked"]) / 1e9
        assert 5 <= taken < 8
        assert scene.agent.noted.count("warn_of_expiry") == 2
        assert scene.agent.noted[-3:] == ["warn_of_expiry", "power_down", "unmount_file_system"]
        assert scene.agent.said == ["vm_profile", "launched", "expire"]
        assert not scene.folder.write_cache(0).exists()
        assert [bytes(disk.content) for disk in scene.agent.disks] == before
        with pytest.raises(LabError, match="this live mount has ended"):
            async with scene.restore():
                pass

    play(story)


def test_a_crashed_live_mount_has_lost_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    scene = Scene(tmp_path, mode="live_mount")

    async def story() -> None:
        async with scene.agent.running():
            with pytest.raises(LabError, match="has ended"):
                await kill_host(scene)
            with pytest.raises(LabError, match="what it wrote is discarded"):
                await kill_host(scene)
        assert not scene.folder.write_cache(0).exists()

    play(story)


def test_two_processes_cannot_carry_out_the_same_restore(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def story() -> None:
        async with scene.agent.running(), scene.restore(speed=MIB) as restore:
            await restore.launched.wait()
            with pytest.raises(LabError, match="carried out by another process"):
                async with scene.restore():
                    pass
        with pytest.raises(LabError, match="nobody is carrying out"):
            await ask_restore(scene.folder.path, "status")

    play(story)


def test_a_full_disk_pauses_the_restore_until_there_is_room(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    try:
        run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", room])
    except LabError as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    try:
        scene = Scene(room)
        ballast = room / "ballast"
        ballast.write_bytes(bytes(7 * MIB))

        async def story() -> None:
            async with scene.agent.running(), scene.restore() as restore:
                await restore.launched.wait()
                await until(lambda: any("no room left" in line for line in scene.told.lines))
                await asyncio.sleep(1)
                assert not restore.released.is_set()
                ballast.unlink()
                await restore.released.wait()
                await until(lambda: bool(restore.troubles.pauses))
            scene.path = tmp_path
            scene.expect_released()

        play(story)
    finally:
        run(["umount", "-l", room])


def test_a_real_media_agent_of_ours_is_started_and_started_again_when_it_is_killed(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    image, second = tmp_path / "one.img", tmp_path / "two.img"
    image.write_bytes(scene.model[0])
    second.write_bytes(scene.model[1])
    scene.folder.update(
        serve={"source": [str(image), str(second)], "copy": None, "media": "flash", "block_bytes": BLOCK}
    )
    folder = RestoreFolder(scene.folder.path)

    async def story() -> None:
        async with carry_out(folder, RestoreOptions(DEVICE, speed=MIB), report=scene.told) as restore:
            await restore.launched.wait()
            await write(restore.host, scene.model, 0, MIB, 4096, 0x61)
            await until(lambda: restore.relocation is not None and restore.relocation.share > 0.1)
            assert restore.link.process is not None
            os.kill(restore.link.process.pid, signal.SIGKILL)
            await restore.released.wait()
        assert restore.link.losses == 1
        scene.expect_released()
        kinds = load_timeline(folder.path / "recording").events["kind"].to_list()
        assert {"lose_media_agent", "take_over", "finish_relocation", "de_associate"} <= set(kinds)

    play(story, 120)


def test_a_media_agent_that_does_not_start_is_one_sentence(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    nowhere = str(tmp_path / "nowhere.img")
    scene.folder.update(serve={"source": [nowhere], "copy": None, "media": "flash", "block_bytes": BLOCK})

    async def story() -> None:
        with pytest.raises(LabError, match=r"the media agent did not start: .*nowhere.img"):
            async with carry_out(scene.folder, RestoreOptions(DEVICE), report=scene.told):
                pass

    play(story)


def test_a_plan_for_other_disks_is_one_sentence(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    image = tmp_path / "one.img"
    image.write_bytes(scene.model[0])
    scene.folder.update(serve={"source": [str(image)], "copy": None, "media": "flash", "block_bytes": BLOCK})

    async def story() -> None:
        with pytest.raises(LabError, match="expected a backup of disks of"):
            async with carry_out(scene.folder, RestoreOptions(DEVICE), report=scene.told) as restore:
                await restore.launched.wait()

    play(story)


# --- when ---------------------------------------------------------------------------------------------


def due_after(rule: RelocationStart, status: dict[str, Any], seconds: float) -> float | None:
    """Return after how long the relocation starts of a machine launched 1 s after it was asked for."""

    async def ask() -> dict[str, Any]:
        return status

    async def wait() -> float | None:
        now = time.monotonic_ns()
        waiting = wait_for_relocation(rule, now - SECOND, now, ask, DEVICE)
        try:
            await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            return None
        return (time.monotonic_ns() - now) / 1e9

    return asyncio.run(wait())


def test_the_relocation_starts_by_its_rule() -> None:
    assert (due_after(RelocationStart("at_once"), {}, 5) or 0) < 1
    assert 0.5 <= (due_after(RelocationStart(delay_ns=SECOND // 2), {}, 5) or 0) < 3
    later = RelocationStart("time_of_day", time_of_day="18:00", wall_clock="17:59")
    assert due_after(later, {}, 0.5) is None
    assert later.at_ns(SECOND) == 60 * SECOND


def test_a_load_condition_looks_at_what_the_machine_read_or_gives_up_at_the_deadline() -> None:
    quick = RelocationStart("load", check_ns=SECOND // 200, deadline_ns=3 * SECOND, load_share=0.01)
    assert 0.3 <= (due_after(quick, {"read_bytes": {"vm": 0}}, 10) or 0) < 2.9

    class Busy(dict[str, Any]):
        """Every look finds more bytes read."""

        total = 0

        def __getitem__(self, name: str) -> dict[str, int]:
            self.total += 10 * MIB
            return {"vm": self.total}

    assert 3 <= (due_after(quick, Busy(read_bytes=0), 10) or 0) < 6


# --- the folder ---------------------------------------------------------------------------------------


def test_a_folder_is_made_whole_and_keeps_names_inside(tmp_path: Path) -> None:
    folder = RestoreFolder.create(tmp_path / "restore", plan_for(MIB), serve={})
    assert {path.name for path in folder.path.iterdir()} == {
        *("plan", "state", "dest0.qcow2", "writecache0.qcow2")
    }
    folder.keep_configuration("etc/vm.xml", b"<domain/>")
    assert (folder.path / "configuration" / "etc" / "vm.xml").read_bytes() == b"<domain/>"
    with pytest.raises(LabError, match="a name within its folder"):
        folder.keep_configuration("../vm.xml", b"")
    with pytest.raises(LabError, match="empty folder for a new restore"):
        RestoreFolder.create(folder.path, plan_for(MIB), serve={})
    with pytest.raises(LabError, match="found no state"):
        RestoreFolder(tmp_path)
    state = folder.path / "state"
    state.write_bytes(state.read_bytes().replace(b"prepared", b"released"))
    with pytest.raises(LabError, match="damaged"):
        RestoreFolder(folder.path)


def test_each_restore_runs_from_its_copy_under_a_name_of_its_own(tmp_path: Path) -> None:
    serve = {"source": ["store"], "copy": 1, "media": "flash", "block_bytes": BLOCK}
    sockets = AgentSockets(tmp_path / "nbd", tmp_path / "control")
    users = []
    for name in ("one", "two", "two-again/two"):
        folder = RestoreFolder.create(tmp_path / name, plan_for(MIB), serve=serve)
        arguments = serve_arguments(RestoreFolder(folder.path).state.serve, sockets)
        users.append(arguments[arguments.index("--user") + 1])
    assert len(set(users)) == 3
    assert users[0].startswith("one-")
    folder = RestoreFolder.create(tmp_path / "image", plan_for(MIB), serve=serve | {"copy": None})
    assert "--user" not in serve_arguments(folder.state.serve, sockets)
