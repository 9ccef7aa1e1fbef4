"""One NBD client: what its stream, its handshake and its requests have in common."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterable, Mapping

from vmrestorekit.lab.nbd.backend import Backend
from vmrestorekit.lab.nbd.limits import Limits

__all__ = ["Broken", "ClientReader", "Closed", "Connection"]

# more than this is given to the socket in pieces: what waits there is not to be a second copy of a long reply
_PIECE_BYTES = 1 << 20
_SEND_BUFFER_BYTES = 1 << 20


class Closed(Exception):  # noqa: N818 - not an error: the client said goodbye
    """The client left in an orderly way."""


class Broken(Exception):  # noqa: N818
    """The client does not speak the protocol."""


class ClientReader(asyncio.StreamReader):
    """A client's stream that says when it has ended, also while there is something left to read in it."""

    def __init__(self) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        """As of `StreamReader`."""
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        """As of `StreamReader`."""
        super().set_exception(exc)
        self.ended.set()


class Connection:
    """A client's stream, and what was agreed on with it.

    Attributes
    ----------
    structured : bool
        Whether replies are structured.
    block_status : bool
        Whether the client may ask for block status.
    owed : bool
        Whether the client has begun a request and owes us the rest of it.
    answering : set of Task
        Requests that are carried out.
    """

    def __init__(
        self,
        exports: Mapping[str, Backend],
        limits: Limits,
        reader: ClientReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.exports = exports
        self.limits = limits
        self.reader = reader
        self.writer = writer
        self.structured = False
        self.block_status = False
        self.owed = False
        self.answering: set[asyncio.Task[None]] = set()
        self._socket = writer.get_extra_info("socket")
        # a reply of the usual 256 KiB is to go in at once; the system gives what it allows
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._steps = 0  # grows whenever the client took or gave something
        self._sending = asyncio.Lock()
        self._seen: tuple[tuple[int, int], float] = ((-1, -1), 0.0)

    async def take(self, count: int) -> bytes:
        """Return the next bytes of the client; ConnectionError if it is gone, whatever it said before."""
        self.expect_open()
        pieces = []
        for at in range(0, count, _PIECE_BYTES):
            pieces.append(await self.reader.readexactly(min(_PIECE_BYTES, count - at)))
            self._steps += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def send(self, *parts: bytes) -> None:
        """Send parts of one reply; a client that is slow to take them holds up its own replies only."""
        async with self._sending:  # a reply must go out in one piece
            self.expect_open()
            for part in self._not_at_once(parts):
                for at in range(0, len(part), _PIECE_BYTES):
                    self.writer.write(part[at : at + _PIECE_BYTES])
                    await self.writer.drain()
                    self._steps += 1
            self._steps += 1

    def _not_at_once(self, parts: Iterable[bytes]) -> list[memoryview]:
        """Give the socket what it takes now, without a copy on the way; return the rest."""
        rest = [memoryview(part) for part in parts if part]
        if self.writer.transport.get_write_buffer_size():
            return rest  # not its turn yet
        try:
            taken = os.writev(self._socket.fileno(), rest)
        except BlockingIOError:
            return rest
        while rest and taken >= len(rest[0]):
            taken -= len(rest.pop(0))
        if taken:
            rest[0] = rest[0][taken:]
        return rest

    @property
    def is_gone(self) -> bool:
        """Whether nothing can be sent to the client any more."""
        return self.writer.transport.is_closing()

    async def see_off(self) -> None:
        """Wait until the client has said its last, and then only so long until it has taken its replies.

        Who left without them must not hold their memory for ever, nor have work done for it.
        """
        await self.reader.ended.wait()
        if not self.is_gone and not self._has_hung_up():
            await asyncio.sleep(self.limits.farewell_seconds)
        self.abort()

    def _has_hung_up(self) -> bool:
        """Whether nobody is there to take anything, as opposed to one who only says no more."""
        poll = select.poll()
        poll.register(self._socket.fileno(), 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def expect_open(self) -> None:
        """Raise ConnectionError if the client is gone: what it still wants would be work for nobody."""
        if self.is_gone:
            raise ConnectionResetError("the client is gone")

    def is_stalled(self, now: float) -> bool:
        """Tell whether we have waited for the client long enough; has to be asked now and then."""
        unsent = self.writer.transport.get_write_buffer_size()
        progress = (self._steps, unsent)
        if progress != self._seen[0] or not (unsent or self.owed):
            self._seen = (progress, now)
            return False
        return now - self._seen[1] >= self.limits.stall_seconds

    def abort(self) -> None:
        """Drop the client, what it has not taken, and the work that is done for it."""
        if self._socket.fileno() >= 0:  # asyncio trips over a transport that has sent its last and closed
            self.writer.transport.abort()
        for task in list(self.answering):
            task.cancel()
