"""Help for the lab's tests: a server in a thread of its own, a raw NBD client that shares no code with it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from vmrestorekit.lab.nbd.server import Backend, serve
from vmrestorekit.lab.programs import LabError, require_programs


def need(*programs: str) -> None:
    """Skip where a program is missing; fail where everything has to be there."""
    try:
        require_programs(programs, "this test")
    except LabError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@contextlib.contextmanager
def serving(exports: Mapping[str, Backend]) -> Iterator[Path]:
    """Serve from a thread, so that blocking clients can be used; yields the socket's path."""
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def main(path: Path) -> None:
        async with serve(path, exports):
            ready.set()
            await stop.wait()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "nbd")
        thread = threading.Thread(target=loop.run_until_complete, args=[main(path)])
        thread.start()
        assert ready.wait(10)
        try:
            yield path
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            assert not thread.is_alive()
            loop.close()


def uri(path: Path, export: str) -> str:
    return f"nbd+unix:///{export}?socket={path}"


class RawClient:
    """Speaks NBD byte by byte; shares no code with the server."""

    def __init__(self, path: Path, flags: int = 3) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        assert self.take(18) == b"NBDMAGICIHAVEOPT\x00\x03"
        self.socket.sendall(struct.pack(">I", flags))
        self.structured = False

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError(f"closed after {len(data)} of {count} bytes")
            data += piece
        return data

    def closed(self) -> bool:
        with contextlib.suppress(ConnectionError):
            return self.socket.recv(1) == b""
        return True

    def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option and return the replies, up to the acknowledgement or the error."""
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        replies = []
        while True:
            magic, echoed, kind, length = struct.unpack(">QIII", self.take(20))
            assert (magic, echoed) == (0x3E889045565A9, number)
            replies.append((kind, self.take(length)))
            if kind == 1 or kind >> 31:
                return replies

    def go(self, export: str, *, structured: bool = False, status: bool = False) -> tuple[int, int]:
        """Open an export; return its size and flags."""
        name = struct.pack(">I", len(export)) + export.encode()
        if structured or status:
            assert self.option(8) == [(1, b"")]
            self.structured = True
        if status:
            query = struct.pack(">I", 15) + b"base:allocation"
            replies = self.option(10, name + struct.pack(">I", 1) + query)
            assert replies == [(4, struct.pack(">I", 1) + b"base:allocation"), (1, b"")]
        replies = self.option(7, name + b"\x00\x00")
        assert replies[-1] == (1, b"")
        information = {struct.unpack_from(">H", data)[0]: data[2:] for kind, data in replies if kind == 3}
        assert information[3] == struct.pack(">III", 1, 4096, 32 << 20)
        size, flags = struct.unpack(">QH", information[0])
        return size, flags

    def send(
        self, kind: int, offset: int, length: int, *, flags: int = 0, cookie: int = 7, data: bytes = b""
    ) -> None:
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, length) + data)

    def receive(self, read_length: int = 0) -> tuple[int, int, bytes]:
        """Return the cookie, the error and the payload of the next reply."""
        magic = struct.unpack(">I", self.take(4))[0]
        if magic == 0x67446698:
            error, cookie = struct.unpack(">IQ", self.take(12))
            return cookie, error, self.take(read_length) if not error else b""
        assert magic == 0x668E33EF
        flags, kind, cookie, length = struct.unpack(">HHQI", self.take(16))
        assert flags == 1  # done: the server answers in one chunk
        payload = self.take(length)
        if kind >> 15:
            error, message = struct.unpack_from(">IH", payload)
            assert len(payload) == 6 + message
            return cookie, error, b""
        return cookie, 0, payload[8:] if kind == 1 else payload

    def ask(
        self, kind: int, offset: int, length: int, *, flags: int = 0, data: bytes = b""
    ) -> tuple[int, bytes]:
        """Send one request and return the error and payload of its answer."""
        self.send(kind, offset, length, flags=flags, cookie=offset + 1, data=data)
        cookie, error, payload = self.receive(length if kind == 0 and not self.structured else 0)
        assert cookie == offset + 1
        return error, payload


READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS = 0, 1, 2, 3, 4, 6, 7
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW = 1, 5, 22, 28, 75


class MemoryDisk:
    """A backend that keeps everything in a bytearray: the model of what a disk does."""

    tells_holes = True

    def __init__(self, content: bytes | bytearray, *, read_only: bool = False) -> None:
        self.content = bytearray(content)
        self.read_only = read_only
        self.size = len(content)

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    async def write(self, offset: int, data: bytes) -> None:
        self.content[offset : offset + len(data)] = data

    async def zero(self, offset: int, length: int, *, discard: bool) -> None:
        self.content[offset : offset + length] = bytes(length)

    async def flush(self) -> None:
        pass

    async def extents(self, offset: int, length: int) -> list[tuple[int, bool]]:
        # one entry a 4 KiB unit, so that the server has to merge
        edges = [offset, *range(offset // 4096 * 4096 + 4096, offset + length, 4096), offset + length]
        return [(b - a, not any(self.content[a:b])) for a, b in itertools.pairwise(edges)]
