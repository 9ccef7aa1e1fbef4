"""The emulated backup device: what it costs, what it brings, its faults; and when things are due for real."""

from __future__ import annotations

import asyncio
import errno
import time
import types
from collections.abc import Sequence

import numpy as np
import pytest

from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.backup.records import StoreError
from vmrestorekit.lab.media import agenda as agent_agenda
from vmrestorekit.lab.media.agenda import Agenda, Alarm
from vmrestorekit.lab.media.device import Channels, EmulatedDevice, Faults
from vmrestorekit.lab.programs import LabError
from vmrestorekit.restore.hardware import MEDIA, BackupDevice

BLOCK = 4096
GIB = 1 << 30


class SignedSource:
    """Eight blocks, each of which is its number; a wrong one is noticed."""

    name, disk_bytes, block_bytes = "eight blocks", (8 * BLOCK,), BLOCK
    files: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, is_signed: bool = True, damaged: Sequence[int] = ()) -> None:
        self.is_signed, self.damaged = is_signed, damaged
        nowhere = np.zeros(8, np.int32)
        self.layout = BackupLayout(BLOCK, self.disk_bytes, np.arange(8) * BLOCK, nowhere, nowhere)

    def read(self, blocks: Sequence[int]) -> list[bytes]:
        if set(blocks) & set(self.damaged):
            raise StoreError("damaged content")
        return [bytes([block] * BLOCK) for block in blocks]

    def check(self, block: int, content: bytes) -> None:
        if content != bytes([block] * BLOCK):
            raise StoreError(f"damaged content of block {block}")

    def release(self) -> None: ...
    def close(self) -> None: ...


def device(**source: object) -> EmulatedDevice:
    return EmulatedDevice(MEDIA["flash"].backup_device, SignedSource(**source))  # type: ignore[arg-type]


def test_positioning_is_paid_unless_a_channel_stands_there() -> None:
    channels = Channels(BackupDevice(channels=2, positioning_ns=1000, bandwidth=1_000_000_000))
    assert channels.take(0, 100) == (0, 1100)
    assert channels.take(500, 100) == (1, 1100)
    channels.release(1)
    channels.release(0)
    assert channels.take(600, 50) == (1, 50)  # it stands there; channel 0 would have to go
    assert channels.take(100, 50) == (0, 50)


def test_a_fresh_channel_stands_nowhere_and_is_mounted_first() -> None:
    channels = Channels(BackupDevice(1, 10, 1_000_000_000, mount_ns=5000, distance_ns_per_gib=7))
    assert channels.take(0, 1) == (0, 5011)
    channels.release(0)
    assert channels.take(3 * GIB + 1, 1) == (0, 10 + 21 + 1)
    channels.release(0)
    assert channels.take(2 * GIB, 1) == (0, 10 + 7 + 1)  # backwards costs the same; fractions are cut off


def test_a_transfer_is_rounded_up() -> None:
    assert Channels(BackupDevice(1, 0, 3)).take(0, 1) == (0, 333_333_334)


def test_a_slow_device_takes_longer_by_a_factor() -> None:
    slow = device()
    normal = slow.start(0, BLOCK)[1]
    slow.end(0)
    slow.set_faults(Faults(slow=2.5))
    assert slow.start(BLOCK * 4, BLOCK)[1] == round(2.5 * normal)


def test_one_bad_block_spoils_no_other() -> None:
    faulty = device()
    faulty.set_faults(Faults(error=frozenset({2}), corrupt=frozenset({3})))
    contents = faulty.read([1, 2, 3, 4])
    assert contents.good == {1: b"\1" * BLOCK, 4: b"\4" * BLOCK}
    assert isinstance(contents.failed[2], OSError)
    assert contents.failed[2].errno == errno.EIO
    assert isinstance(contents.failed[3], StoreError)


def test_a_block_that_is_really_damaged_spoils_no_other() -> None:
    contents = device(damaged=[5]).read([4, 5, 6])
    assert set(contents.good) == {4, 6}
    assert set(contents.failed) == {5}


def test_corruption_that_nobody_would_notice_is_refused() -> None:
    with pytest.raises(LabError, match="corrupt blocks would be served, as there are no signatures"):
        device(is_signed=False).set_faults(Faults(corrupt=frozenset({1})))
    with pytest.raises(LabError, match="fault slow: expected a positive number, got 0"):
        Faults(slow=0)


def test_lateness_is_counted() -> None:
    late = device()
    late.end(late.start(0, BLOCK)[0], late_ns=300)
    late.end(late.start(0, BLOCK)[0])
    assert (late.late_fetches, late.late_ns) == (1, 300)


def test_what_is_due_is_done_in_its_order_as_of_its_own_time() -> None:
    done: list[tuple[int, str]] = []
    agenda = Agenda(lambda now: done.append((now, "settled")))

    def act(name: str) -> None:
        done.append((agenda.now, name))
        if name == "first":  # what it makes due at this instant takes its place
            agenda.add(10, (1, 9), lambda: act("between"))

    agenda.add(10, (1, 10), lambda: act("last"))
    agenda.add(20, (0,), lambda: act("later"))
    agenda.add(10, (0, 5), lambda: act("first"))
    agenda.add(99, (0,), lambda: act("not yet"))
    agenda.advance(50)
    assert done == [
        *((10, "first"), (10, "between"), (10, "last"), (10, "settled")),
        *((20, "later"), (20, "settled")),
    ]
    assert (agenda.now, agenda.next_ns) == (50, 99)


@pytest.mark.parametrize("platform", ["linux", "another"])
def test_an_alarm_rings_soon_after_its_time(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_agenda, "sys", types.SimpleNamespace(platform=platform))

    async def ring() -> list[int]:
        loop = asyncio.get_running_loop()
        late: list[int] = []
        for delay in (100_000, 1, 2_500_000, 300_000) * 5:
            rung = loop.create_future()
            alarm = Alarm(lambda rung=rung: rung.set_result(time.monotonic_ns()), time.monotonic_ns)
            at = time.monotonic_ns() + delay
            alarm.set(at + 10_000_000_000)
            alarm.set(at)  # the last word counts
            late.append(await asyncio.wait_for(rung, 10) - at)
            alarm.close()
        return late

    late = asyncio.run(ring())
    assert min(late) >= (0 if platform == "linux" else -1_000_000)
    assert sorted(late)[len(late) // 2] < 50_000_000  # whatever else runs here


def test_an_alarm_that_is_taken_back_does_not_ring() -> None:
    async def wait() -> None:
        alarm = Alarm(lambda: pytest.fail("it rang"), time.monotonic_ns)
        alarm.set(time.monotonic_ns() + 1_000_000)
        alarm.set(None)
        await asyncio.sleep(0.02)
        alarm.close()

    asyncio.run(wait())
