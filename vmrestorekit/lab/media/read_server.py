"""A media agent at work: reads that come in, transfers from the device, parts that go out.

What it does is decided by `vmrestorekit.lab.media.rules`. Here are the clock, the device, the link to the
reader, and the reader's bytes. What is due at an instant is done as of that instant, also if the event loop
comes to it later; so delays of the machine it runs on do not add up.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import functools
import logging
from collections.abc import Callable

from vmrestorekit.lab.media.agenda import Agenda, Alarm
from vmrestorekit.lab.media.device import Contents, EmulatedDevice, transfer_ns
from vmrestorekit.lab.media.event_log import EventLog
from vmrestorekit.lab.media.request import Request
from vmrestorekit.lab.media.rules import AgentRules, Fetch, Medium, Part
from vmrestorekit.lab.media.source import Source
from vmrestorekit.plan import RestorePlan, first_block_of_disk
from vmrestorekit.restore.events import READERS
from vmrestorekit.restore.hardware import Hardware

__all__ = ["ReadServer"]

_logger = logging.getLogger(__name__)
_MOST_THREADS = 8
_AT_ONCE_NS = 1000  # a transmission that takes no longer has arrived
_FETCHED, _ARRIVED = 0, 1  # classes of rule 1 of the clockwork


class ReadServer:
    """The part of a media agent that serves reads, by a plan that others give it.

    Attributes
    ----------
    rules : AgentRules
    device : EmulatedDevice
    refuses_reads : bool
    open : set of Request
        Reads under way.
    reads, read_bytes : list of int
        By reader, in the order of `READERS`.
    failed_reads : int
    read_by_relocation : bytearray
        Of each block, whether it was sent to the relocation.
    """

    def __init__(
        self, source: Source, hardware: Hardware, plan: RestorePlan, clock: Callable[[], int], log: EventLog
    ) -> None:
        self.source, self.hardware, self.clock, self.log = source, hardware, clock, log
        self.disk_bytes, self.block_bytes = source.disk_bytes, source.block_bytes
        self.device = EmulatedDevice(hardware.backup_device, source)
        medium = Medium.of_layout(source.layout)
        self.rules = AgentRules(medium, hardware.backup_device.channels, plan, log)
        self.rules.warm_up()
        self.refuses_reads = False
        self.open: set[Request] = set()
        self.reads, self.read_bytes = [0] * len(READERS), [0] * len(READERS)
        self.failed_reads = 0
        self.read_by_relocation = bytearray(len(medium.stored))
        self._first_block = first_block_of_disk(source.disk_bytes, source.block_bytes)
        self._address = medium.address
        self._stored = medium.stored
        self._agenda = Agenda(self._settle)
        self._link_free_at = 0
        self._requests = 0
        self._in_flight: dict[Fetch, int] = {}  # and on which channel
        self._sending: set[Part] = set()
        self._reading: set[asyncio.Future[Contents]] = set()
        self._changed = asyncio.Event()  # a read or a transfer has ended

    def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._wake, self.clock)
        threads = min(self.hardware.backup_device.channels, _MOST_THREADS)
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "media")
        self._agenda.advance(self.clock())

    def _end(self) -> None:
        self._alarm.close()
        self._pool.shutdown()

    # --- time -----------------------------------------------------------------------------------------

    def _before(self) -> int:
        """Live through all that is due; return the time. To be followed by `_after`."""
        self._agenda.advance(self.clock())
        return self._agenda.now

    def _after(self) -> None:
        """Start what can be started now, and see to it that we are woken in time."""
        self._settle(self._agenda.now)
        self._alarm.set(self._agenda.next_ns)

    def _wake(self) -> None:
        self._before()
        self._alarm.set(self._agenda.next_ns)

    def _settle(self, now: int) -> None:
        """Nothing more is due at this instant: purge, and start what can be started."""
        self.rules.purge_due(now)
        for fetch in self.rules.dispatch(now):
            self._start(fetch, now)

    # --- reads ----------------------------------------------------------------------------------------

    async def read(self, disk: int, offset: int, length: int, reader: str = "vm") -> bytes:
        """Return bytes of a disk.

        Parameters
        ----------
        reader : {"vm", "relocation"}
            For counting and checking only: nothing is decided by it.

        Raises
        ------
        OSError
            ESHUTDOWN after the end of the restore or mount, EIO if the backup device fails or what it has is
            damaged, EINVAL for what is not on the disk.
        """
        if self.refuses_reads:
            raise OSError(errno.ESHUTDOWN, "the backup copy is not served any more")
        if not 0 <= disk < len(self.disk_bytes) or not 0 <= offset < offset + length <= self.disk_bytes[disk]:
            raise OSError(errno.EINVAL, f"expected bytes of a disk, got {length} at {offset} of disk {disk}")
        now = self._before()
        request = self._issue(now, disk, offset, length, READERS.index(reader))
        wanted = request.wanted(self._address)
        request.outstanding = len(wanted)
        if not wanted:
            self._complete_request(request)
        parts, hits = self.rules.arrive(
            now, request.number, request.reader, wanted, request, request.last_event
        )
        for part in hits:
            self._transmit(part)
        self._after()
        if request.outstanding:
            await self._wait_for(request, parts)
        return request.content()

    def _issue(self, now: int, disk: int, offset: int, length: int, reader: int) -> Request:
        size = self.block_bytes
        first, start = divmod(offset, size)
        count = (offset + length - 1) // size - first + 1
        request = Request(
            self._requests, reader, self._first_block[disk] + first, count, start, length, size, now
        )
        self._requests += 1
        self.reads[reader] += 1
        self.read_bytes[reader] += length
        kind = "relocation_read" if reader else "vm_read"
        request.last_event = self.log.append(now, kind, request.block, count, request.number, length)
        return request

    async def _wait_for(self, request: Request, parts: list[Part]) -> None:
        request.done = self._loop.create_future()
        self.open.add(request)
        try:
            await request.done
        finally:
            self.open.discard(request)
            if request.outstanding:  # its client has gone away
                now = self._before()
                for part in parts:
                    self.rules.abandon(now, part)
                self._after()
            self._changed.set()

    def _transmit(self, part: Part) -> None:
        """Hand a part to the link, which carries one after the other."""
        now, link = self._agenda.now, self.hardware.link
        self._link_free_at = max(now, self._link_free_at) + transfer_ns(part.size, link.bandwidth)
        arrival = self._link_free_at + link.latency_ns
        self._sending.add(part)
        if arrival - now <= _AT_ONCE_NS:
            self._arrive(part)
        else:
            key = (_ARRIVED, part.request, part.block)
            self._agenda.add(arrival, key, functools.partial(self._arrive, part))

    def _arrive(self, part: Part) -> None:
        if part not in self._sending:
            return  # it was cut off
        self._sending.remove(part)
        request = part.ticket
        assert isinstance(request, Request)
        if request.reader:
            self.read_by_relocation[part.block] = 1
        request.take(part)
        request.last_event = self.rules.sent(self._agenda.now, part)
        if not request.outstanding:
            self._complete_request(request)

    def _complete_request(self, request: Request) -> None:
        now = self._agenda.now
        if request.error is not None:
            self.failed_reads += 1
        elif not request.reader:
            about = request.block, request.count, request.number, now - request.issued_ns
            self.log.append(now, "vm_done", *about, request.last_event)
        request.finish()

    # --- the device -----------------------------------------------------------------------------------

    def _start(self, fetch: Fetch, now: int) -> None:
        channel, cost = self.device.start(fetch.address, fetch.end - fetch.address)
        self._in_flight[fetch] = channel
        future = self._loop.run_in_executor(self._pool, self.device.read, fetch.brings)
        self._reading.add(future)
        future.add_done_callback(functools.partial(self._have_read, fetch, now + cost))

    def _have_read(self, fetch: Fetch, due_ns: int, future: asyncio.Future[Contents]) -> None:
        self._reading.discard(future)
        self._changed.set()
        now = self._before()
        error = future.exception()
        if error is None:
            contents = future.result()
        else:  # not one of those that a device may have
            _logger.error("reading %s failed", self.source.name, exc_info=error)
            contents = Contents({}, dict.fromkeys(fetch.brings, OSError(errno.EIO, str(error))))
        if now < due_ns:
            key = (_FETCHED, fetch.request, fetch.block)
            self._agenda.add(due_ns, key, functools.partial(self._complete_fetch, fetch, contents, 0))
        else:
            self._complete_fetch(fetch, contents, now - due_ns)
        self._after()

    def _complete_fetch(self, fetch: Fetch, contents: Contents, late_ns: int) -> None:
        if fetch not in self._in_flight:
            return  # it was dropped
        self.device.end(self._in_flight.pop(fetch), late_ns)
        for error in contents.failed.values():
            self.device.failed_blocks += 1
            _logger.warning("not served: %s", error)
        to_send, in_vain = self.rules.completed(self._agenda.now, fetch, contents.good, contents.failed)
        for part in in_vain:
            request = part.ticket
            assert isinstance(request, Request)
            request.fail(OSError(errno.EIO, str(contents.failed[part.block])))
            if not request.outstanding:
                self._complete_request(request)
        for part in to_send:
            self._transmit(part)

    # --- the end --------------------------------------------------------------------------------------

    def _cut_off(self) -> None:
        """Refuse reads, end those under way with an error, and drop transfers."""
        self.refuses_reads = True
        now = self._agenda.now
        self.rules.stop(now)
        for part in self._sending:
            self.rules.lose(now, part)
        self._sending.clear()
        for fetch, channel in self._in_flight.items():
            self.device.end(channel)
            self.rules.drop(now, fetch)
        self._in_flight.clear()
        for request in list(self.open):
            request.cut_off()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until reads or transfers have ended so that a condition holds."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()
