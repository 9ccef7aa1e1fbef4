"""A backup device that is emulated: real contents, at the times and with the faults of another device."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Mapping, Sequence

from vmrestorekit.backup.records import StoreError
from vmrestorekit.lab.media.source import Source
from vmrestorekit.lab.programs import LabError
from vmrestorekit.restore.hardware import BackupDevice

__all__ = ["Channels", "Contents", "EmulatedDevice", "Faults", "transfer_ns"]

_SECOND = 1_000_000_000


def transfer_ns(size: int, bandwidth: int) -> int:
    """Return the nanoseconds that so many bytes take, rounded up."""
    return -(-size * _SECOND // bandwidth)


@dataclasses.dataclass(frozen=True)
class Faults:
    """What is wrong with a device, for experiments.

    Attributes
    ----------
    slow : float
        By how much everything takes longer.
    error : frozenset of int
        Blocks that cannot be read.
    corrupt : frozenset of int
        Blocks of which a bit comes wrong, which their signature tells.
    """

    slow: float = 1.0
    error: frozenset[int] = frozenset()
    corrupt: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not 0 < self.slow < float("inf"):
            raise LabError(f"fault slow: expected a positive number, got {self.slow}")


@dataclasses.dataclass(slots=True)
class _Channel:
    end: int = 0  # where it stands
    used: bool = False
    busy: bool = False


class Channels:
    """The channels of a device: which one takes a fetch, and what that costs (rule 6 of the clockwork)."""

    def __init__(self, spec: BackupDevice) -> None:
        self.spec = spec
        self._channels = [_Channel() for _ in range(spec.channels)]

    def take(self, address: int, size: int) -> tuple[int, int]:
        """Occupy a channel; return its number, and the nanoseconds that the fetch takes there."""
        idle = [number for number, channel in enumerate(self._channels) if not channel.busy]
        standing = [n for n in idle if self._channels[n].used and self._channels[n].end == address]
        number = (standing or idle)[0]
        cost = self._positioning(self._channels[number], address) + transfer_ns(size, self.spec.bandwidth)
        self._channels[number] = _Channel(address + size, used=True, busy=True)
        return number, cost

    def release(self, number: int) -> None:
        """Let a channel be idle."""
        self._channels[number].busy = False

    def _positioning(self, channel: _Channel, address: int) -> int:
        if channel.used and channel.end == address:
            return 0
        distance = abs(address - channel.end)
        cost = self.spec.positioning_ns + (distance * self.spec.distance_ns_per_gib >> 30)
        return cost if channel.used else cost + self.spec.mount_ns


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a read brought: contents of blocks, and for those that failed, why."""

    good: Mapping[int, bytes]
    failed: Mapping[int, Exception]


class EmulatedDevice:
    """Reads from a source as if it were on another device.

    The time that the real read takes is contained in the emulated time. Where the real medium is slower, the
    fetch ends when it is there, which is counted.

    Attributes
    ----------
    faults : Faults
    late_fetches, late_ns : int
        Fetches that the real medium could not bring in the emulated time, and how late they were together.
    failed_blocks : int
        How often a block could not be read.
    """

    def __init__(self, spec: BackupDevice, source: Source) -> None:
        self.spec, self.source = spec, source
        self.channels = Channels(spec)
        self.faults = Faults()
        self.late_fetches = self.late_ns = self.failed_blocks = 0

    def set_faults(self, faults: Faults) -> None:
        """Have other faults from now on.

        Raises
        ------
        LabError
            If a corrupt block would go unnoticed, as its source has no signatures.
        """
        if faults.corrupt and not self.source.is_signed:
            raise LabError(f"{self.source.name}: corrupt blocks would be served, as there are no signatures")
        self.faults = faults

    def start(self, address: int, size: int) -> tuple[int, int]:
        """Occupy a channel for a fetch; return its number, and the nanoseconds that it takes."""
        number, cost = self.channels.take(address, size)
        return number, cost if self.faults.slow == 1 else round(cost * self.faults.slow)

    def end(self, channel: int, late_ns: int = 0) -> None:
        """A fetch has ended, maybe later than the emulated device would have."""
        self.channels.release(channel)
        if late_ns > 0:
            self.late_fetches += 1
            self.late_ns += late_ns

    def read(self, blocks: Sequence[int]) -> Contents:
        """Read blocks; one bad block spoils no other.

        It blocks, and may be called by several threads at once.
        """
        faults = self.faults
        try:
            if not faults.error.isdisjoint(blocks) or not faults.corrupt.isdisjoint(blocks):
                return self._one_by_one(blocks, faults)
            return Contents(dict(zip(blocks, self.source.read(blocks), strict=True)), {})
        except (OSError, StoreError):
            return self._one_by_one(blocks, faults)

    def _one_by_one(self, blocks: Sequence[int], faults: Faults) -> Contents:
        good: dict[int, bytes] = {}
        failed: dict[int, Exception] = {}
        for block in blocks:
            try:
                if block in faults.error:
                    raise OSError(errno.EIO, f"{self.source.name}: the device has an error on block {block}")
                content = self.source.read([block])[0]
                if block in faults.corrupt:
                    content = bytes([content[0] ^ 1]) + content[1:]
                    self.source.check(block, content)
                good[block] = content
            except (OSError, StoreError) as error:
                failed[block] = error
        return Contents(good, failed)
