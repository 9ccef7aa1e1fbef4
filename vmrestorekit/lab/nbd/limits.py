"""What the clients of an NBD server may use up together, and how they wait for it."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Hashable

__all__ = ["Limits", "MemoryBudget"]

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of an NBD server.

    Attributes
    ----------
    request_bytes : int
        The longest read or write; clients are told, and obey.
    connections : int
        Open at a time, over all exports.
    memory_bytes : int
        Contents of requests and replies in memory at a time, over all connections.
    connection_bytes : int
        The same of one connection, so that one that takes no replies does not hold all.
    in_flight : int
        Requests of one connection that are carried out at a time.
    handshake_seconds : float
        How long a client may haggle.
    stall_seconds : float
        When others wait for memory, a client that takes none of its replies for so long is dropped.
    farewell_seconds : float
        How long a client that said goodbye may take for the replies that are left.
    """

    request_bytes: int = 32 * MIB
    connections: int = 64
    memory_bytes: int = 256 * MIB
    connection_bytes: int = 64 * MIB
    in_flight: int = 16
    handshake_seconds: float = 30.0
    stall_seconds: float = 2.0
    farewell_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("request_bytes", "connections", "in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.request_bytes <= self.connection_bytes <= self.memory_bytes:
            raise ValueError(
                "expected request_bytes, connection_bytes and memory_bytes to ascend, got "
                f"{self.request_bytes}, {self.connection_bytes} and {self.memory_bytes}"
            )
        if self.request_bytes < 4096 or self.request_bytes % 4096:
            raise ValueError(f"request_bytes: expected a multiple of 4096, got {self.request_bytes}")


class MemoryBudget:
    """Bytes in memory on behalf of clients; who needs more than there is waits, first come first served.

    A client at its own bound does not hold up those behind it. ``relieve`` is called now and then while
    somebody waits for memory that others hold.
    """

    def __init__(self, limits: Limits, relieve: Callable[[], None]) -> None:
        self.in_use = 0
        self.peak = 0
        self._limits = limits
        self._relieve = relieve
        self._held: collections.Counter[Hashable] = collections.Counter()
        self._waiting: collections.deque[tuple[Hashable, int, asyncio.Future[None]]] = collections.deque()

    def held_by(self, client: Hashable) -> int:
        """Return the bytes that a client has now."""
        return self._held[client]

    async def reserve(self, client: Hashable, count: int) -> None:
        """Wait until the client may have so many bytes more; they are its own then."""
        if not self._waiting and self._fits(client, count):
            self._take(client, count)
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((client, count, granted))
        self._grant()
        try:
            while not granted.done():
                await asyncio.wait((granted,), timeout=self._limits.stall_seconds / 2)
                if not granted.done():
                    self._relieve()
        except asyncio.CancelledError:
            if granted.done():  # granted and cancelled in the same turn of the loop
                self.release(client, count)
            granted.cancel()
            self._grant()
            raise

    def release(self, client: Hashable, count: int) -> None:
        """Give back what was reserved."""
        self.in_use -= count
        self._held[client] -= count
        if not self._held[client]:
            del self._held[client]
        self._grant()

    def _fits(self, client: Hashable, count: int) -> bool:
        return self._is_modest(client, count) and self.in_use + count <= self._limits.memory_bytes

    def _is_modest(self, client: Hashable, count: int) -> bool:
        return self._held[client] + count <= self._limits.connection_bytes

    def _take(self, client: Hashable, count: int) -> None:
        self._held[client] += count
        self.in_use += count
        self.peak = max(self.peak, self.in_use)

    def _grant(self) -> None:
        left: list[tuple[Hashable, int, asyncio.Future[None]]] = []
        while self._waiting:
            client, count, granted = self._waiting.popleft()
            if granted.cancelled():
                continue
            if self._fits(client, count):
                self._take(client, count)
                granted.set_result(None)
                continue
            left.append((client, count, granted))
            if self._is_modest(client, count):
                break  # nobody overtakes it, or large requests would starve
        self._waiting.extendleft(reversed(left))
