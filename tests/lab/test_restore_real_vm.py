"""A real virtual machine runs while it is restored from a store, and loses nothing when parts are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import tiny_guest
from lab_helpers import need
from restore_helpers import Told, until
from tiny_guest import MARK, TinyGuest, build_tiny_guest

from vmrestorekit.backup import BackupStore, create_copy, verify_store
from vmrestorekit.lab.media.event_log import load_timeline
from vmrestorekit.lab.programs import LabError, run
from vmrestorekit.lab.restore.carry_out import carry_out
from vmrestorekit.lab.restore.data_agent import DataAgent, RestoreOptions
from vmrestorekit.lab.restore.folder import RestoreFolder
from vmrestorekit.plan import LaunchRule, RelocationStart, RestorePlan
from vmrestorekit.restore.hardware import resolve_hardware

pytestmark = pytest.mark.realvm

MIB = 1 << 20
SECOND = 1_000_000_000
TICK = "tiny guest: tick"
# the guest writes every second, says so, and switches itself off at the end
TICKING = tiny_guest.INIT.replace(
    "sleep 2\n",
    """tick=0
while [ $tick -lt %d ]; do
    tick=$((tick + 1))
    echo $tick >> /mnt/ticks && sync && echo "tiny guest: tick" $tick > /dev/ttyS0
    sleep 1
done
""",
)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> TinyGuest:
    need("qemu-system-x86_64", "qemu-img", "mke2fs", "busybox", "dpkg-deb", "apt-get", "setpriv")
    folder = tmp_path_factory.mktemp("ticking")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_guest, "INIT", TICKING % 20)
        try:
            return build_tiny_guest(folder, request.config.cache.mkdir("kernel-packages"))
        except (LabError, StopIteration, subprocess.SubprocessError) as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"this machine's apt has no kernel package linux-image-cloud-amd64: {error}")


@pytest.fixture(scope="module")
def store(guest: TinyGuest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backup")
    configuration = folder / "tiny.xml"
    configuration.write_text("<domain/>\n")
    with BackupStore.create(folder / "store") as store:
        create_copy(store, "tiny", [guest.image], configuration=[configuration])
    return folder / "store"


class Scene:
    def __init__(self, guest: TinyGuest, store: Path, folder: Path, **plan: Any) -> None:
        self.guest, self.store, self.path, self.told = guest, store, folder, Told()
        wanted = RestorePlan(
            (guest.image.stat().st_size,),
            launch=LaunchRule("immediately"),
            cache_bytes=16 * MIB,
            **({"relocation_start": RelocationStart(delay_ns=3 * SECOND)} | plan),
        )
        serve = {"source": [str(store)], "copy": 1, "media": "flash", "block_bytes": wanted.block_bytes}
        machine = {"memory_mib": 512, "reconnect_s": 1, "extra": guest.qemu_options}
        RestoreFolder.create(folder / "restore", wanted, serve=serve, machine=machine)

    @contextlib.asynccontextmanager
    async def restore(self, speed: int = 0) -> AsyncIterator[DataAgent]:
        options = RestoreOptions(resolve_hardware("flash").backup_device, speed=speed, boot_done_line=MARK)
        folder = RestoreFolder(self.path / "restore")
        async with carry_out(folder, options, report=self.told) as agent:
            yield agent

    def expect_a_sound_machine(self, last_tick: int) -> None:
        """Check what the guest read while it ran, its file system, its files, and what it wrote."""
        console = (self.path / "restore" / "console.log").read_text(errors="replace")
        for name, digest in self.guest.sums.items():
            assert set(re.findall(rf"([0-9a-f]{{32}})  {name}\b", console)) == {digest}
        raw = self.path / "after.img"
        run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.path / "restore" / "dest0.qcow2", raw])
        run(["e2fsck", "-f", "-n", raw])  # fails, and with it the test, if it is not clean
        for name, digest in self.guest.sums.items():
            copy = self.path / name
            run(["debugfs", "-R", f"dump /{name} {copy}", raw])
            assert digest in run(["md5sum", copy])
        ticks = run(["debugfs", "-R", "cat /ticks", raw]).split()
        assert f"{last_tick}" in ticks

    def expect_an_unharmed_copy(self) -> None:
        with BackupStore(self.store) as store:
            assert verify_store(store) == []
            assert store.associations(1) == []


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(400):
            await story()

    asyncio.run(limited())


def ticks_of(console: Path) -> int:
    found = re.findall(rf"{TICK} (\d+)", console.read_text(errors="replace"))
    return int(found[-1]) if found else 0


def test_a_machine_runs_from_its_backup_while_it_is_restored(
    guest: TinyGuest, store: Path, tmp_path: Path
) -> None:
    scene = Scene(guest, store, tmp_path)
    console = tmp_path / "restore" / "console.log"

    async def story() -> None:
        async with scene.restore() as restore:
            await restore.booted.wait()
            with BackupStore(store) as backup:
                assert backup.associations(1) or restore.released.is_set()
            await restore.released.wait()
            ticks = ticks_of(console)
            await restore.host.guest.wait_for(f"{TICK} {ticks + 1}", 60)  # it is alive, on its destination
            await restore.powered_off.wait()

    play(story)
    scene.expect_a_sound_machine(20)
    scene.expect_an_unharmed_copy()
    assert (tmp_path / "restore" / "configuration" / "tiny.xml").read_text() == "<domain/>\n"
    kinds = (
        load_timeline(tmp_path / "restore" / "recording").events["kind"].unique(maintain_order=True).to_list()
    )
    told = [
        *("export_file_system", "indicate_vm_profile", "launch_vm", "boot_done", "start_relocation"),
        *("finish_relocation", "apply_writes", "use_destination", "unmount_file_system", "de_associate"),
    ]
    assert set(told) <= set(kinds)
    in_order = [kind for kind in kinds if kind in told and kind != "boot_done"]
    assert in_order == [kind for kind in told if kind != "boot_done"]


def test_a_media_agent_killed_while_the_machine_boots_and_is_relocated_costs_nothing(
    guest: TinyGuest, store: Path, tmp_path: Path
) -> None:
    scene = Scene(guest, store, tmp_path, relocation_start=RelocationStart("at_once"))

    async def story() -> None:
        async with scene.restore(speed=4 * MIB) as restore:
            assert restore.link.process is not None
            await restore.launched.wait()
            await until(lambda: restore.relocation is not None and restore.relocation.share > 0.2)
            os.kill(restore.link.process.pid, signal.SIGKILL)
            await restore.released.wait()
            await restore.powered_off.wait()
        assert restore.link.losses == 1

    play(story)
    scene.expect_a_sound_machine(20)
    console = (tmp_path / "restore" / "console.log").read_text(errors="replace")
    assert console.count("Linux version") == 1  # a machine that has read nonsense begins anew
    scene.expect_an_unharmed_copy()


def test_a_host_killed_while_it_relocates_has_lost_only_what_was_not_flushed(
    guest: TinyGuest, store: Path, tmp_path: Path
) -> None:
    scene = Scene(guest, store, tmp_path)
    console = tmp_path / "restore" / "console.log"
    flushed = 0

    async def kill_while_relocating() -> None:
        nonlocal flushed
        async with scene.restore(speed=MIB) as restore:
            await restore.booted.wait()
            await until(lambda: restore.relocation is not None and ticks_of(console) >= 3, 120)
            flushed = ticks_of(console)
            os.kill(restore.host.guest.pid, signal.SIGKILL)
            await asyncio.Event().wait()

    async def go_on() -> None:
        async with scene.restore() as restore:
            await restore.released.wait()
            await restore.powered_off.wait()

    with pytest.raises(LabError, match="goes on with the restore"):
        play(kill_while_relocating)
    play(go_on)
    scene.expect_a_sound_machine(flushed)
    scene.expect_an_unharmed_copy()
