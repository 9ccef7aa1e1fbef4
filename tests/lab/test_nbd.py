"""The NBD server, spoken to by a raw client: what the protocol demands; nonsense hurts nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_helpers import (
    BLOCK_STATUS,
    DISCONNECT,
    EINVAL,
    EIO,
    ENOSPC,
    EOVERFLOW,
    EPERM,
    FLUSH,
    READ,
    TRIM,
    WRITE,
    WRITE_ZEROES,
    MemoryDisk,
    RawClient,
    serving,
)

from vmrestorekit.lab.nbd import server as nbd
from vmrestorekit.lab.nbd.server import serve

KIB = 1024
CONTENT = bytes(range(256)) * 256 + bytes(64 * KIB)  # 64 KiB of data, 64 KiB of zeros


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk(CONTENT)


@pytest.fixture
def path(disk: MemoryDisk) -> Iterator[Path]:
    exports = {"disk": disk, "fixed": MemoryDisk(CONTENT, read_only=True), "große": MemoryDisk(b"x" * 10)}
    with serving(exports) as path:
        yield path


def named(export: str) -> bytes:
    return struct.pack(">I", len(export.encode())) + export.encode()


# --- the socket -----------------------------------------------------------------------------------


def test_only_this_user_may_open_the_socket_and_it_is_gone_afterwards() -> None:
    with serving({"disk": MemoryDisk(CONTENT)}) as path:
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not path.exists()


def test_what_is_at_the_path_already_is_left_alone(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")

    async def main() -> None:
        async with serve(taken, {}):
            pass

    with pytest.raises(OSError, match=r"expected to create a socket at .*taken: Address already in use"):
        asyncio.run(main())
    assert taken.read_text() == "mine"


# --- the handshake --------------------------------------------------------------------------------


def test_go_tells_size_and_what_the_export_can_do(path: Path) -> None:
    with RawClient(path) as client:
        assert client.go("disk", structured=True) == (128 * KIB, 0b1_1110_1101)
    with RawClient(path) as client:
        assert client.go("fixed") == (128 * KIB, 0b1_0000_1111)


@pytest.mark.parametrize(("flags", "zeroes"), [(1, 124), (3, 0)])
def test_the_old_way_to_open_an_export(path: Path, flags: int, zeroes: int) -> None:
    with RawClient(path, flags=flags) as client:
        client.socket.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 4) + b"disk")
        assert client.take(10 + zeroes) == struct.pack(">QH", 128 * KIB, 0b1_0110_1101) + bytes(zeroes)
        assert client.ask(READ, 5, 3) == (0, b"\x05\x06\x07")


def test_an_unknown_export_can_be_refused_the_old_way_only_by_hanging_up(path: Path) -> None:
    with RawClient(path) as client:
        client.socket.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 4) + b"nope")
        assert client.closed()


def test_exports_are_listed(path: Path) -> None:
    with RawClient(path) as client:
        assert client.option(3) == [*((2, named(name)) for name in ("disk", "fixed", "große")), (1, b"")]


def test_what_cannot_be_is_refused_and_the_haggling_goes_on(path: Path) -> None:
    with RawClient(path) as client:
        assert client.option(7, named("nope") + b"\0\0")[0][0] == 0x80000006  # unknown export
        assert client.option(5)[0][0] == 0x80000001  # no TLS on a Unix socket
        assert client.option(99, b"whatever")[0][0] == 0x80000001
        assert client.option(3, b"data")[0][0] == 0x80000003  # LIST takes none
        assert client.option(7, struct.pack(">I", 1000) + b"disk")[0][0] == 0x80000003  # truncated
        assert client.option(7, named("disk") + b"\0\5")[0][0] == 0x80000003  # five kinds promised, none sent
        assert client.option(7, struct.pack(">I", 2) + b"\xff\xfe\0\0")[0][0] == 0x80000003  # no UTF-8
        assert client.option(10, named("disk") + bytes(4))[0][0] == 0x80000003  # before structured replies
        assert client.option(6, named("disk") + b"\0\0")[-1] == (1, b"")  # INFO looks and does not open
        assert client.go("disk")[0] == 128 * KIB


def test_contexts_are_listed_and_an_unknown_one_is_not_set(path: Path) -> None:
    with RawClient(path) as client:
        listed = [(4, bytes(4) + b"base:allocation"), (1, b"")]
        assert client.option(9, named("disk") + bytes(4)) == listed
        assert client.option(9, named("disk") + struct.pack(">I", 1) + named("base:")) == listed
        assert client.option(8) == [(1, b"")]
        assert client.option(10, named("disk") + struct.pack(">I", 1) + named("qemu:dirty")) == [(1, b"")]
        client.structured = True
        client.option(7, named("disk") + b"\0\0")
        assert client.ask(BLOCK_STATUS, 0, 4096) == (EINVAL, b"")


def test_a_context_belongs_to_the_export_it_was_set_for(path: Path) -> None:
    with RawClient(path) as client:
        client.option(8)
        client.option(10, named("fixed") + struct.pack(">I", 1) + named("base:allocation"))
        client.structured = True
        client.option(7, named("disk") + b"\0\0")
        assert client.ask(BLOCK_STATUS, 0, 4096) == (EINVAL, b"")


def test_goodbye_in_the_handshake(path: Path) -> None:
    with RawClient(path) as client:
        assert client.option(2) == [(1, b"")]
        assert client.closed()


@pytest.mark.parametrize("flags", [0, 2, 1 | 1 << 7])
def test_a_client_of_another_kind_is_dropped(path: Path, flags: int) -> None:
    with RawClient(path, flags=flags) as client:
        assert client.closed()


def test_an_option_may_not_be_huge(path: Path) -> None:
    with RawClient(path) as client:
        client.socket.sendall(b"IHAVEOPT" + struct.pack(">II", 7, 1 << 30))
        assert client.closed()


def test_a_client_that_says_nothing_is_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd, "_HANDSHAKE_SECONDS", 0.1)
    with RawClient(path) as client:
        assert client.closed()


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("structured", [False, True])
def test_each_kind_of_request(path: Path, disk: MemoryDisk, structured: bool) -> None:
    with RawClient(path) as client:
        client.go("disk", structured=structured)
        assert client.ask(READ, 1000, 5000) == (0, CONTENT[1000:6000])
        assert client.ask(WRITE, 100, 4, data=b"four") == (0, b"")
        assert client.ask(WRITE, 200, 3, flags=1, data=b"fua") == (0, b"")
        assert client.ask(FLUSH, 0, 0) == (0, b"")
        assert client.ask(TRIM, 4096, 4096) == (0, b"")
        assert client.ask(WRITE_ZEROES, 8192, 100, flags=2) == (0, b"")
        expected = bytearray(CONTENT)
        expected[100:104], expected[200:203] = b"four", b"fua"
        expected[4096:8292] = bytes(4196)
        assert client.ask(READ, 0, 128 * KIB) == (0, bytes(expected))
    assert disk.content == expected


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize(
    ("kind", "offset", "length", "flags", "error"),
    [
        (READ, 128 * KIB - 1, 2, 0, EINVAL),
        (READ, 1 << 63, 1, 0, EINVAL),
        (READ, 0, 0, 0, EINVAL),
        (READ, 0, 4, 1 << 9, EINVAL),  # a flag nobody knows
        (WRITE, 128 * KIB - 1, 2, 0, ENOSPC),
        (WRITE_ZEROES, 0, 1 << 31, 0, ENOSPC),
        (TRIM, 128 * KIB, 1, 0, EINVAL),
        (BLOCK_STATUS, 0, 4096, 0, EINVAL),  # not agreed on
        (55, 0, 4096, 0, EINVAL),
    ],
)
def test_a_bad_request_is_refused_and_the_next_one_served(
    path: Path, structured: bool, kind: int, offset: int, length: int, flags: int, error: int
) -> None:
    with RawClient(path) as client:
        client.go("disk", structured=structured)
        payload = bytes(length) if kind == WRITE else b""
        assert client.ask(kind, offset, length, flags=flags, data=payload) == (error, b"")
        assert client.ask(READ, 7, 2) == (0, b"\x07\x08")


def test_a_read_only_export_refuses_changes(path: Path) -> None:
    with RawClient(path) as client:
        client.go("fixed")
        assert client.ask(WRITE, 0, 1, data=b"x")[0] == EPERM
        assert client.ask(TRIM, 0, 1)[0] == EPERM
        assert client.ask(WRITE_ZEROES, 0, 1)[0] == EPERM
        assert client.ask(READ, 0, 4) == (0, CONTENT[:4])


def test_no_request_is_larger_than_32_mib() -> None:
    with serving({"disk": MemoryDisk(bytes((32 << 20) + 4096))}) as path, RawClient(path) as client:
        client.go("disk")
        assert client.ask(READ, 0, 32 << 20) == (0, bytes(32 << 20))
        assert client.ask(READ, 0, (32 << 20) + 1)[0] == EOVERFLOW
        client.send(WRITE, 0, (32 << 20) + 1)
        assert client.closed()


def test_block_status_covers_the_range_and_merges_neighbours(path: Path) -> None:
    with RawClient(path) as client:
        client.go("disk", status=True)
        where, size = struct.pack(">I", 1), struct.Struct(">II")
        # the first 4 KiB unit is data, the second half of the disk zeros
        expected = where + size.pack(64 * KIB - 10, 0) + size.pack(64 * KIB, 3)
        assert client.ask(BLOCK_STATUS, 10, 128 * KIB - 10) == (0, expected)
        first_only = where + size.pack(64 * KIB - 10, 0)
        assert client.ask(BLOCK_STATUS, 10, 128 * KIB - 10, flags=8) == (0, first_only)


class SlowStart(MemoryDisk):
    """Reads of the first block wait until another block was read; broken beyond 100 KiB."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.other_read: asyncio.Event | None = None

    async def read(self, offset: int, length: int) -> bytes:
        self.other_read = self.other_read or asyncio.Event()
        if offset >= 100 * KIB:
            raise RuntimeError("a mistake in a backend")
        if offset >= 4096:
            self.other_read.set()
        else:
            await asyncio.wait_for(self.other_read.wait(), 5)
        return await super().read(offset, length)


def test_a_slow_request_does_not_hold_up_the_next_one() -> None:
    with serving({"disk": SlowStart(CONTENT)}) as path, RawClient(path) as client:
        client.go("disk")
        client.send(READ, 0, 4, cookie=1)
        client.send(READ, 4096, 4, cookie=2)
        assert client.receive(4)[0] == 2
        assert client.receive(4) == (1, 0, CONTENT[:4])


def test_requests_under_way_are_answered_before_goodbye() -> None:
    with serving({"disk": SlowStart(CONTENT)}) as path, RawClient(path) as client:
        client.go("disk")
        client.send(READ, 0, 4, cookie=1)
        client.send(READ, 4096, 4, cookie=2)
        client.send(DISCONNECT, 0, 0)
        assert {client.receive(4)[0], client.receive(4)[0]} == {1, 2}
        assert client.closed()


class Counting(MemoryDisk):
    """Knows how many reads were under way at once."""

    under_way = most = 0

    async def read(self, offset: int, length: int) -> bytes:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.01)
        self.under_way -= 1
        return await super().read(offset, length)


def test_a_client_cannot_pile_up_requests_without_limit() -> None:
    disk = Counting(CONTENT)
    with serving({"disk": disk}) as path, RawClient(path) as client:
        client.go("disk")
        for cookie in range(50):
            client.send(READ, 0, 4, cookie=cookie)
        assert {client.receive(4)[0] for _ in range(50)} == set(range(50))
    assert 1 < disk.most <= 16


def test_a_backend_that_fails_is_an_io_error_for_the_client(caplog: pytest.LogCaptureFixture) -> None:
    with serving({"disk": SlowStart(CONTENT)}) as path, RawClient(path) as client:
        client.go("disk")
        assert client.ask(READ, 100 * KIB, 4) == (EIO, b"")
        assert client.ask(READ, 4096, 4) == (0, CONTENT[:4])
    assert "a mistake in a backend" in caplog.text


def test_what_one_connection_wrote_another_reads(path: Path) -> None:
    with RawClient(path) as one, RawClient(path) as other:
        one.go("disk")
        other.go("disk", structured=True)
        one.ask(WRITE, 50, 5, data=b"hello")
        assert other.ask(READ, 50, 5) == (0, b"hello")


# --- nonsense -------------------------------------------------------------------------------------

options = st.tuples(
    st.sampled_from([b"IHAVEOPT"] * 6 + [b"IHAVENOT"]),
    st.integers(0, 12) | st.integers(0, 2**32 - 1),
    st.binary(max_size=40) | st.sampled_from([named("disk"), named("disk") + b"\0\0"]),
    st.none() | st.integers(0, 2**32 - 1),  # a length that lies
)


def as_bytes(sent: tuple[bytes, int, bytes, int | None]) -> bytes:
    magic, number, data, lie = sent
    return magic + struct.pack(">II", number, len(data) if lie is None else lie) + data


def requests_as_bytes() -> st.SearchStrategy[bytes]:
    number = st.integers(0, 2**16 - 1) | st.integers(0, 8)
    header = st.tuples(number, number, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
    return header.map(lambda h: struct.pack(">IHHQQI", 0x25609513, h[0], h[1], 1, h[2], h[3]))


@settings(max_examples=100, deadline=None)
@given(
    garbage=st.binary(max_size=100)
    | st.lists(options, max_size=5).map(lambda sent: bytes(4)[:3] + b"\3" + b"".join(map(as_bytes, sent))),
    requests=st.lists(st.binary(max_size=60) | requests_as_bytes(), max_size=4).map(b"".join),
)
def test_nonsense_costs_only_the_connection_it_comes_on(garbage: bytes, requests: bytes) -> None:
    path, witness, open_before = shared_server()
    with contextlib.closing(connect(path)) as client, contextlib.suppress(ConnectionError):
        client.sendall(garbage)
    with RawClient(path) as opened, contextlib.suppress(ConnectionError):
        opened.go("fixed")
        opened.socket.sendall(requests)
    assert witness.ask(READ, 10, 3) == (0, CONTENT[10:13])
    assert len(os.listdir("/proc/self/fd")) < open_before + 40  # connections are not left open
    assert not _complaints.records, _complaints.records[0].getMessage()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.recv(18)
    return client


class _Records(logging.Handler):
    """Keeps what asyncio complains about, such as an exception nobody handled."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


_complaints = _Records()
_shared: list[tuple[Path, RawClient, int]] = []
_shared_stack = contextlib.ExitStack()


def shared_server() -> tuple[Path, RawClient, int]:
    """One server for all examples, with one client that stays connected throughout."""
    if not _shared:
        logging.getLogger().addHandler(_complaints)
        path = _shared_stack.enter_context(serving({"fixed": MemoryDisk(CONTENT, read_only=True)}))
        witness = _shared_stack.enter_context(RawClient(path))
        witness.go("fixed")
        _shared.append((path, witness, len(os.listdir("/proc/self/fd"))))
    return _shared[0]


@pytest.fixture(scope="module", autouse=True)
def _stop_shared_server() -> Iterator[None]:
    yield
    _shared_stack.close()
    logging.getLogger().removeHandler(_complaints)
