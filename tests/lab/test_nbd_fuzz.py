"""Clients that talk nonsense, promise too much, or take nothing: the agent stays up, small and right."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_helpers import BLOCK_STATUS, EPERM, READ, WRITE, RawClient
from serving_helpers import (
    BLOCK,
    MIB,
    QUICK,
    Served,
    image_source,
    plan_for,
    resident_bytes,
    serving_agent,
    write_image,
)

from vmrestorekit.lab.nbd.server import Limits
from vmrestorekit.restore.hardware import BackupDevice

LIMITS = Limits(
    connections=24,
    memory_bytes=32 * MIB,
    connection_bytes=8 * MIB,
    request_bytes=4 * MIB,
    handshake_seconds=2.0,
    stall_seconds=0.5,
    farewell_seconds=1.0,
)
# what the interpreter, the read cache and the sockets' own buffers may take besides
SLACK = 40 * MIB


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("fuzz") / "image")


@pytest.fixture(scope="module")
def content(image: Path) -> bytes:
    return image.read_bytes()


@pytest.fixture
def served(image: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Served]:
    """A media agent whose cache is much smaller than its disk; nothing it logs may be an error."""
    source = image_source(image)
    with caplog.at_level(logging.INFO), serving_agent(source, plan=plan_for(source), limits=LIMITS) as served:
        yield served
        gc.collect()  # an exception that nobody took is told then
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert not errors, errors[0]


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def connect(served: Served) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(served.socket))
    return client


class Witness(RawClient):
    """An orderly client that has been there all along; it takes this server's own bound on requests."""

    def __init__(self, served: Served, content: bytes, export: str = "disk0") -> None:
        super().__init__(served.socket)
        self.content = content
        self.option(8)
        self.structured = True
        name = struct.pack(">I", len(export)) + export.encode()
        query = struct.pack(">I", 1) + struct.pack(">I", 15) + b"base:allocation"
        assert self.option(10, name + query)[-1] == (1, b"")
        assert self.option(7, name + b"\0\0")[-1] == (1, b"")

    def look(self, numbers: random.Random) -> None:
        """Read somewhere and find what is in the image."""
        offset = numbers.randrange(len(self.content) - 1)
        length = min(numbers.choice([1, 4096, BLOCK + 1, 300_000]), len(self.content) - offset)
        assert self.ask(READ, offset, length) == (0, self.content[offset : offset + length])


# --- nonsense -------------------------------------------------------------------------------------


def option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def request(kind: int, offset: int, length: int, flags: int = 0) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, 99, offset, length)


def orderly_conversation() -> list[bytes]:
    """What a good client sends, message by message."""
    name = struct.pack(">I", 5) + b"disk0"
    query = struct.pack(">I", 1) + struct.pack(">I", 15) + b"base:allocation"
    return [
        struct.pack(">I", 3),
        option(3),
        option(8),
        option(6, name + b"\0\1\0\3"),
        option(9, name + bytes(4)),
        option(10, name + query),
        option(7, name + b"\0\0"),
        request(READ, 0, 4096),
        request(BLOCK_STATUS, 0, 20 * MIB),
        request(READ, 3 * MIB - 7, 200_000),
        request(WRITE, 4096, 300) + bytes(300),
        request(3, 0, 0),
        request(READ, 10 * MIB, 2 * MIB),
        request(2, 0, 0),
    ]


EXTREMES = [b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 8, b"\xff" * 8, struct.pack(">I", 1 << 25)]


def mutated(numbers: random.Random) -> bytes:
    """An orderly conversation after a few accidents."""
    messages = orderly_conversation()
    for _ in range(numbers.randrange(3)):
        match numbers.randrange(4):
            case 0:
                del messages[numbers.randrange(len(messages))]
            case 1:
                messages.insert(numbers.randrange(len(messages)), numbers.choice(messages))
            case 2:
                at = numbers.randrange(1, len(messages))
                messages[at - 1], messages[at] = messages[at], messages[at - 1]
            case _:
                messages.insert(numbers.randrange(len(messages)), numbers.randbytes(numbers.randrange(80)))
    data = bytearray(b"".join(messages))
    for _ in range(numbers.randrange(4)):
        at = numbers.randrange(len(data))
        match numbers.randrange(3):
            case 0:
                data[at] ^= 1 << numbers.randrange(8)
            case 1:
                extreme = numbers.choice(EXTREMES)
                data[at : at + len(extreme)] = extreme
            case _:
                del data[at:]
                break
    return bytes(data) or b"\0"


@pytest.mark.parametrize("seed", range(4))
def test_damaged_conversations_cost_only_their_own_connection(
    served: Served, content: bytes, seed: int
) -> None:
    numbers = random.Random(seed)
    with contextlib.ExitStack() as stack:
        witness = stack.enter_context(Witness(served, content))
        before = resident_bytes()
        for _ in range(80):
            with contextlib.closing(connect(served)) as client, contextlib.suppress(OSError):
                client.sendall(mutated(numbers))
                match numbers.randrange(3):
                    case 0:  # half open: says no more, and takes what comes
                        client.shutdown(socket.SHUT_WR)
                        while client.recv(1 << 16):
                            pass
                    case 1:
                        client.recv(numbers.randrange(1, 5000))
                    case _:
                        pass  # gone at once
            witness.look(numbers)
        wait_until(lambda: served.nbd.connections == 1)
        wait_until(lambda: served.nbd.memory.in_use == 0)
        assert served.nbd.memory.peak <= LIMITS.memory_bytes
        assert resident_bytes() - before < LIMITS.memory_bytes + SLACK


def test_noise_from_the_first_byte(served: Served, content: bytes) -> None:
    numbers = random.Random(11)
    with Witness(served, content) as witness:
        for _ in range(100):
            with contextlib.closing(connect(served)) as client, contextlib.suppress(OSError):
                client.sendall(numbers.randbytes(numbers.choice([1, 3, 17, 4096, 200_000])))
        witness.look(numbers)
        wait_until(lambda: served.nbd.connections == 1)


def test_a_flood_of_options_ends_with_the_connection(
    served: Served, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = resident_bytes()
    with Witness(served, content) as witness:
        floods = [option(3), option(99, bytes(60_000)), option(10, bytes(4)), option(6, b"\xff" * 30)]
        for flood in floods:
            # one reads no answer at all
            with contextlib.closing(connect(served)) as client, contextlib.suppress(OSError):
                client.settimeout(5)
                client.sendall(struct.pack(">I", 3))
                for _ in range(5000):
                    client.sendall(flood)
            witness.look(random.Random(1))
        wait_until(lambda: served.nbd.connections == 1)
    assert resident_bytes() - before < SLACK
    assert "closed an NBD connection" in caplog.text


# --- promises that are not kept -------------------------------------------------------------------


def test_half_a_handshake_is_waited_for_only_so_long(
    served: Served, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Witness(served, content) as witness, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(connect(served))) for _ in range(10)]
        for number, client in enumerate(clients):
            client.sendall((struct.pack(">I", 3) + option(3) + option(7, bytes(40)))[: number * 8])
        witness.look(random.Random(2))
        wait_until(lambda: served.nbd.connections == 1)
        witness.look(random.Random(3))
    assert "closed an NBD connection: no handshake within 2 s" in caplog.text


def test_half_a_request_costs_nothing(served: Served, content: bytes) -> None:
    before = resident_bytes()
    with contextlib.ExitStack() as stack:
        witnesses = [stack.enter_context(Witness(served, content)) for _ in range(10)]
        for number, client in enumerate(witnesses[1:]):
            client.socket.sendall(request(READ, 0, 4 * MIB)[: 3 * number + 1])
        witnesses[0].look(random.Random(4))
        wait_until(lambda: served.nbd.memory.in_use == 0)
        for number, client in enumerate(witnesses[1:]):  # and the rest of it is still good
            client.socket.sendall(request(READ, 0, 4 * MIB)[3 * number + 1 :])
            assert client.receive()[2] == content[: 4 * MIB]
    assert resident_bytes() - before < LIMITS.memory_bytes + SLACK


def test_what_is_written_to_a_backup_copy_is_refused_and_not_kept_in_memory(
    served: Served, content: bytes
) -> None:
    before = resident_bytes()
    with Witness(served, content) as client, Witness(served, content) as witness:
        for _ in range(30):
            assert client.ask(WRITE, 0, 4 * MIB, data=bytes(4 * MIB)) == (EPERM, b"")
        client.socket.sendall(request(WRITE, 0, 4 * MIB) + bytes(MIB))  # and never the rest
        witness.look(random.Random(5))
        wait_until(lambda: served.nbd.memory.in_use == 0)
        with Witness(served, content) as huge:
            huge.send(WRITE, 0, (1 << 32) - 1)
            assert huge.closed()
    assert resident_bytes() - before < SLACK


# --- clients that take nothing --------------------------------------------------------------------


def test_who_never_takes_replies_holds_a_bounded_share_and_is_dropped_when_others_need_it(
    served: Served, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = most = resident_bytes()
    numbers = random.Random(6)
    with Witness(served, content) as witness, contextlib.ExitStack() as stack:
        for _ in range(12):
            greedy = stack.enter_context(Witness(served, content))
            for number in range(100):
                greedy.send(READ, 0, 4 * MIB, cookie=number)
        for _ in range(60):
            witness.look(numbers)
            most = max(most, resident_bytes())
        assert 8 * MIB <= served.nbd.memory.peak <= LIMITS.memory_bytes
        assert most - before < LIMITS.memory_bytes + SLACK
        wait_until(lambda: "took no replies for 0.5 s" in caplog.text)
        witness.look(numbers)
    wait_until(lambda: served.nbd.connections == 0 and served.nbd.memory.in_use == 0)


def test_a_client_that_reads_slowly_is_not_dropped(
    served: Served, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Witness(served, content) as slow, contextlib.ExitStack() as stack:
        for _ in range(8):  # so that memory is short
            greedy = stack.enter_context(Witness(served, content))
            for number in range(100):
                greedy.send(READ, 0, 4 * MIB, cookie=number)
        slow.send(READ, 0, 4 * MIB)
        slow.send(READ, 4 * MIB, 4 * MIB)
        taken = b""
        while len(taken) < 2 * (4 * MIB + 28):
            piece = slow.socket.recv(256 * 1024)
            assert piece, "the server hung up"
            taken += piece
            time.sleep(0.05)
    # each reply: a header of 20 bytes, where it starts, its content
    assert taken[28 : 28 + 4 * MIB] in (content[: 4 * MIB], content[4 * MIB : 8 * MIB])


def test_who_leaves_without_its_replies_gives_the_memory_back(served: Served, content: bytes) -> None:
    for how in (socket.SHUT_WR, socket.SHUT_RDWR):
        with Witness(served, content) as client:
            for number in range(4):
                client.send(READ, 0, 4 * MIB, cookie=number)
            client.socket.shutdown(how)
            wait_until(lambda: served.nbd.memory.in_use == 0 and served.nbd.connections == 0)


def test_work_for_a_client_that_was_dropped_is_given_up(image: Path, content: bytes) -> None:
    source = image_source(image)
    device = BackupDevice(channels=1, positioning_ns=600_000_000_000, bandwidth=1_000_000_000)
    with serving_agent(source, hardware=QUICK.replace(backup_device=device), limits=LIMITS) as served:
        with Witness(served, content) as client:
            for number in range(LIMITS.in_flight + 1):  # nothing of it comes within ten minutes
                client.send(READ, number * BLOCK, 10, cookie=number)
            wait_until(lambda: served.call(served.agent.status)["open_reads"] == LIMITS.in_flight)
        wait_until(lambda: served.nbd.memory.in_use == 0 and served.nbd.connections == 0)
        assert served.call(served.agent.status)["open_reads"] == 0


def test_the_end_does_not_wait_for_who_takes_nothing(image: Path, content: bytes) -> None:
    source = image_source(image)
    with serving_agent(source, limits=LIMITS) as served:
        stuck = [Witness(served, content) for _ in range(3)]
        for client in stuck:
            for number in range(10):
                client.send(READ, 0, 4 * MIB, cookie=number)
        wait_until(lambda: served.nbd.memory.in_use > 0)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert not served.socket.exists()
    for client in stuck:
        client.socket.close()


# --- too many -------------------------------------------------------------------------------------


def test_one_connection_too_many_is_refused_and_the_others_go_on(
    served: Served, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Witness(served, content)) for _ in range(LIMITS.connections)]
        with contextlib.closing(connect(served)) as newcomer:
            with contextlib.suppress(ConnectionError):
                assert newcomer.recv(18) == b""
            assert "refused an NBD connection: 24 are open, no more are allowed" in caplog.text
        for client in clients:
            client.look(random.Random(8))
        clients[0].socket.close()
        wait_until(lambda: served.nbd.connections == LIMITS.connections - 1)
        with Witness(served, content) as newcomer_again:
            newcomer_again.look(random.Random(9))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"connections": 0}, "connections: expected at least 1, got 0"),
        ({"memory_bytes": MIB}, "to ascend, got 33554432, 67108864 and 1048576"),
        ({"request_bytes": 5000}, "request_bytes: expected a multiple of 4096, got 5000"),
    ],
)
def test_limits_that_make_no_sense(changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Limits(**changes)
