"""The control socket: what is said to it reaches the agent, and what cannot be gets one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_helpers import Served, image_source, plan_for, serving_agent, write_image

from vmrestorekit.lab.media.control import ControlClient, ControlError
from vmrestorekit.lab.media.control_messages import LINE_BYTES, AgentControl
from vmrestorekit.lab.media.event_log import load_timeline


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("control") / "image", mib=16)


@pytest.fixture
def served(image: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Served]:
    with caplog.at_level(logging.INFO), serving_agent(image_source(image)) as served:
        yield served
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


class Talker:
    """Says whole lines, and whatever else."""

    def __init__(self, served: Served) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(served.control))
        self.answers = self.socket.makefile("rb")

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.close()
        self.socket.close()

    def say(self, line: bytes | dict[str, Any]) -> dict[str, Any]:
        data = line if isinstance(line, bytes) else json.dumps(line).encode()
        self.socket.sendall(data + b"\n")
        answer: dict[str, Any] = json.loads(self.answers.readline())
        return answer


def plan_folder(served: Served, folder: Path, **changes: Any) -> Path:
    plan_for(served.agent.source, **changes).save(folder)
    return folder


def test_only_this_user_may_open_the_socket(served: Served) -> None:
    mode = served.control.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_restore_from_its_profile_to_its_end(served: Served, tmp_path: Path) -> None:
    plan = plan_folder(served, tmp_path / "plan")
    recording = tmp_path / "recording"

    async def restore() -> list[dict[str, Any]]:
        async with await ControlClient.connect(served.control) as client:
            statuses = [await client.status()]
            await client.note("select_vm", at_ns=time.monotonic_ns())
            await client.vm_profile(plan)
            statuses.append(await client.status())
            await client.launched()
            statuses.append(await client.status())
            await client.pre_relocation()
            await client.relocation_in_progress()
            await client.note("relocated", block=0, count=3, request=7, detail=3 * 65536)
            await client.relocated([(0, 3), (5, 2)])
            statuses.append(await client.status())
            await client.relocation_cancelled()
            await client.relocation_in_progress()
            await client.note("finish_relocation")
            await client.relocation_completed()
            statuses.append(await client.status())
            assert await client.timeline(recording) == recording
            return statuses

    preparing, profiled, running, relocating, completed = asyncio.run(restore())
    assert preparing["phase"] == profiled["phase"] == "preparing"
    assert preparing["first_set"]["blocks"] == 0
    assert profiled["first_set"]["blocks"] > 0
    assert running["phase"] == "running from the backup"
    assert relocating["phase"] == "relocating"
    assert relocating["relocated"] == 5
    assert completed["phase"] == "completed"
    timeline = load_timeline(recording)
    kinds = timeline.events["kind"].to_list()
    for kind in ("select_vm", "indicate_vm_profile", "launch_vm", "indicate_pre_relocation", "de_associate"):
        assert kinds.count(kind) == 1
    told = timeline.events.row(kinds.index("relocated"), named=True)
    assert (told["block"], told["count"], told["request"], told["detail"]) == (0, 3, 7, 3 * 65536)
    assert told["actor"] == "relocation"


def test_a_live_mount_expires(served: Served, tmp_path: Path) -> None:
    plan = plan_folder(served, tmp_path / "plan", mode="live_mount", expiry_ns=10**12)

    async def mount() -> str:
        async with await ControlClient.connect(served.control) as client:
            await client.vm_profile(plan)
            await client.launched()
            await client.expire()
            return str((await client.status())["phase"])

    assert asyncio.run(mount()) == "expired"
    with pytest.raises(OSError, match="not served any more"):
        served.call(served.agent.read, 0, 0, 4096)


def test_many_ranges_take_several_lines(served: Served, tmp_path: Path) -> None:
    plan = plan_folder(served, tmp_path / "plan")

    async def restore() -> int:
        async with await ControlClient.connect(served.control) as client:
            await client.vm_profile(plan)
            await client.launched()
            await client.relocation_in_progress()
            await client.relocated([(block % 100, 1) for block in range(25_000)])
            return int((await client.status())["relocated"])

    assert asyncio.run(restore()) == 100


def test_faults_of_the_device(served: Served) -> None:
    async def break_it() -> None:
        async with await ControlClient.connect(served.control) as client:
            await client.fault(slow=2.5, error=[3])
            with pytest.raises(OSError, match=r"\[Errno 5\]"):
                await asyncio.to_thread(served.call, served.agent.read, 0, 3 * 65536, 10)
            await client.fault(slow=1, error=[])
            assert len(await asyncio.to_thread(served.call, served.agent.read, 0, 3 * 65536, 10)) == 10

    asyncio.run(break_it())


def test_clients_do_not_wait_for_each_other(served: Served) -> None:
    with Talker(served) as one, Talker(served) as other:
        one.socket.sendall(b'{"do": "stat')  # and no more for now
        assert other.say({"do": "status"})["ok"]
        one.socket.sendall(b'us"}\n')
        assert json.loads(one.answers.readline())["ok"]


def test_several_messages_at_once_are_answered_in_order(served: Served) -> None:
    with Talker(served) as talker:
        talker.socket.sendall(b'{"do": "status"}\n{"do": "nonsense"}\n{"do": "note", "kind": "power_down"}')
        talker.socket.shutdown(socket.SHUT_WR)  # the last line ends with what we have to say
        assert [json.loads(line)["ok"] for line in talker.answers] == [True, False, True]


BAD = [
    (b"", "message: expected a JSON object on a line, got b''"),
    (b"hello", "message: expected a JSON object on a line, got b'hello"),
    (b"\xff\xfe{}", "message: expected a JSON object on a line"),
    (b"[" * 50_000, "message: expected a JSON object on a line, got b'\\[\\[\\["),
    (b"[1]", "message: expected a JSON object on a line, got \\[1\\]"),
    (b"{}", "message: expected an entry 'do', got none"),
    ({"do": 3}, "do: expected a text, got 3"),
    ({"do": "fly"}, "do: expected one of vm_profile, launched, .*, got 'fly'"),
    ({"do": "launched", "now": True}, "message: expected nothing more, got 'now'"),
    ({"do": "vm_profile"}, "message: expected an entry 'plan', got none"),
    ({"do": "vm_profile", "plan": "/nowhere"}, "/nowhere: expected a saved plan"),
    ({"do": "vm_profile", "plan": "a\0b"}, "."),
    ({"do": "relocated", "ranges": 3}, "ranges: expected a list, got 3"),
    ({"do": "relocated", "ranges": [[1]]}, "ranges: expected pairs of a first block and a count"),
    ({"do": "relocated", "ranges": [[0, 0]]}, "ranges: expected pairs .* got \\[0, 0\\]"),
    ({"do": "relocated", "ranges": [[1 << 40, 1]]}, "ranges: expected pairs"),
    ({"do": "relocated", "ranges": [[True, 1]]}, "ranges: expected pairs"),
    ({"do": "relocated", "ranges": [[1 << 30, 1]]}, "."),
    ({"do": "note"}, "message: expected an entry 'kind', got none"),
    ({"do": "note", "kind": "party"}, "kind: expected a kind of event .*, got 'party'"),
    ({"do": "note", "kind": "strand", "block": 1.5}, "block: expected a whole number .*, got 1.5"),
    ({"do": "note", "kind": "strand", "detail": 1 << 80}, "detail: expected a whole number"),
    ({"do": "note", "kind": "strand", "at_ns": "now"}, "at_ns: expected a whole number"),
    ({"do": "timeline", "path": "/dev/null/x"}, "."),
    ({"do": "fault"}, "fault: expected slow .*, error or corrupt .*, got none"),
    ({"do": "fault", "slow": 0}, "slow: expected a factor from 1"),
    ({"do": "fault", "slow": float("nan")}, "slow: expected a factor"),
    ({"do": "fault", "error": [10**6]}, "error: expected blocks from 0 to 255, got 1000000"),
    ({"do": "pre_relocation"}, "."),  # of a plan that never relocates
]


@pytest.mark.parametrize(("line", "sentence"), BAD)
def test_what_cannot_be_gets_one_sentence_and_the_talk_goes_on(
    served: Served, line: bytes | dict[str, Any], sentence: str
) -> None:
    with Talker(served) as talker:
        answer = talker.say(line)
        assert answer["ok"] is False
        assert re.search(sentence, answer["error"])
        assert "\n" not in answer["error"]
        assert len(answer["error"]) < 400
        assert talker.say({"do": "status"})["ok"]


def test_a_plan_for_other_disks_is_refused(served: Served, tmp_path: Path) -> None:
    plan = plan_for(served.agent.source).replace(disk_bytes=(20 << 20, 4096))
    plan.save(tmp_path / "plan")
    with Talker(served) as talker:
        answer = talker.say({"do": "vm_profile", "plan": str(tmp_path / "plan")})
        assert not answer["ok"]
        assert "disk" in answer["error"]
        assert talker.say({"do": "status"})["status"]["first_set"]["blocks"] == 0


def test_a_line_without_an_end_is_cut_off(served: Served) -> None:
    with Talker(served) as talker, Talker(served) as other:
        try:
            for _ in range(LINE_BYTES // 65536 + 40):
                talker.socket.sendall(b"x" * 65536)
        except ConnectionError:
            pass  # cut off before we were through
        else:
            answer = json.loads(talker.answers.readline())
            assert (
                answer["error"] == f"message: expected a line of at most {LINE_BYTES} bytes, got a longer one"
            )
        assert other.say({"do": "status"})["ok"]


def test_who_takes_no_answers_is_no_hindrance(served: Served) -> None:
    with Talker(served) as silent, Talker(served) as other:
        silent.socket.settimeout(0.5)
        try:
            while True:
                silent.socket.sendall(b'{"do": "status"}\n' * 100)
        except TimeoutError:
            pass  # the server takes no more from who takes nothing
        assert other.say({"do": "status"})["ok"]
        started = time.monotonic()
        # the end of `served` must not wait for it either
    assert time.monotonic() - started < 5


def test_one_client_too_many_is_refused(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    talkers = [Talker(served) for _ in range(16)]
    assert all(talker.say({"do": "status"})["ok"] for talker in talkers)
    with Talker(served) as newcomer, contextlib.suppress(ConnectionError):
        assert newcomer.answers.readline() == b""
    assert "refused a client of the control socket: 16 are connected, no more are allowed" in caplog.text
    assert talkers[0].say({"do": "status"})["ok"]
    for talker in talkers:
        talker.__exit__()


def test_messages_of_tasks_on_one_client_do_not_mix(served: Served) -> None:
    async def talk() -> list[Any]:
        async with await ControlClient.connect(served.control) as client:
            notes = [client.note("vm_flush", request=number) for number in range(50)]
            return await asyncio.gather(client.status(), *notes, client.status())

    first, *_, last = asyncio.run(talk())
    assert last["events"] >= first["events"] + 50


def test_who_stops_waiting_for_an_answer_does_not_leave_it_to_the_next(
    served: Served, tmp_path: Path
) -> None:
    async def talk() -> list[Any]:
        async with await ControlClient.connect(served.control) as client:
            found = []
            for patience in (0.0001, 0.001, 0.01):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(client.timeline(tmp_path / "recording"), patience)
                found.append(await client.status())
            return found

    assert [status["phase"] for status in asyncio.run(talk())] == ["preparing"] * 3


def test_a_mistake_of_ours_is_an_answer_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def status(self) -> dict[str, Any]:
            raise ZeroDivisionError("oh\nno")

    control = AgentControl(Broken())  # type: ignore[arg-type]
    answer = asyncio.run(control.answer(b'{"do": "status"}'))
    assert answer == {"ok": False, "error": "the media agent failed: oh no"}
    assert "ZeroDivisionError" in caplog.text


def test_nobody_at_the_socket(tmp_path: Path) -> None:
    async def connect() -> None:
        started = time.monotonic()
        with pytest.raises(
            ControlError, match=r"expected a media agent's control socket at .*nobody: No such"
        ):
            await ControlClient.connect(tmp_path / "nobody", wait_s=0.3)
        assert time.monotonic() - started >= 0.3

    asyncio.run(connect())


def test_an_agent_that_ends_is_a_connection_error(image: Path) -> None:
    async def talk(served: Served, ended: asyncio.Event) -> None:
        client = await ControlClient.connect(served.control)
        await client.status()
        await ended.wait()
        with pytest.raises(ConnectionError):
            await client.status()
        await client.close()

    async def main() -> None:
        ended = asyncio.Event()
        context = serving_agent(image_source(image))
        served = await asyncio.to_thread(context.__enter__)
        talking = asyncio.create_task(talk(served, ended))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(context.__exit__, None, None, None)
        ended.set()
        await talking

    asyncio.run(main())
