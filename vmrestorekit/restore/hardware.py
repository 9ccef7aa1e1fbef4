"""What the simulated machines can do: devices, links, and presets with the source of their numbers."""

from __future__ import annotations

import dataclasses

__all__ = ["MEDIA", "BackupDevice", "Hardware", "HardwareError", "Link", "PrimaryStorage", "resolve_hardware"]

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MB = 1_000_000


class HardwareError(ValueError):
    """Hardware that cannot exist; the message says what was expected and what came."""


def _expect_at_least(what: str, part: object, least: dict[str, int]) -> None:
    for name, bound in least.items():
        value = getattr(part, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise HardwareError(f"{what}: expected {name} as a whole number, got {value!r}")
        if value < bound:
            raise HardwareError(f"{what}: expected {name} of at least {bound}, got {value}")


@dataclasses.dataclass(frozen=True)
class BackupDevice:
    """Where the backup copy lies.

    Attributes
    ----------
    channels : int
        Fetches served at the same time.
    positioning_ns : int
        Before each fetch that does not go on where its channel's last one ended.
    bandwidth : int
        Bytes per second of one channel.
    mount_ns : int
        Once, before the first fetch (tape).
    distance_ns_per_gib : int
        Positioning that grows with the distance on the medium (tape).
    """

    channels: int
    positioning_ns: int
    bandwidth: int
    mount_ns: int = 0
    distance_ns_per_gib: int = 0

    def __post_init__(self) -> None:
        _expect_at_least("backup device", self, {"channels": 1, "positioning_ns": 0, "bandwidth": 1})
        _expect_at_least("backup device", self, {"mount_ns": 0, "distance_ns_per_gib": 0})


@dataclasses.dataclass(frozen=True)
class Link:
    """The network from media agent to host: one transmission at a time, arriving `latency_ns` later."""

    latency_ns: int
    bandwidth: int

    def __post_init__(self) -> None:
        _expect_at_least("link", self, {"latency_ns": 0, "bandwidth": 1})


@dataclasses.dataclass(frozen=True)
class PrimaryStorage:
    """A volume of the host: one operation at a time, taking `latency_ns` plus its transfer."""

    latency_ns: int
    bandwidth: int

    def __post_init__(self) -> None:
        _expect_at_least("primary storage", self, {"latency_ns": 0, "bandwidth": 1})


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Everything that takes time besides the virtual machine itself.

    Attributes
    ----------
    name, source : str
        Name of the preset, and where its numbers come from.
    backup_device, link, destination, write_cache
        See the classes of these parts.
    cpu_factor : float
        Think time of the virtual machine relative to the recording: 0.5 is a host twice as fast.
    """

    name: str
    backup_device: BackupDevice
    link: Link = Link(latency_ns=200 * MICROSECOND, bandwidth=125 * MB)
    destination: PrimaryStorage = PrimaryStorage(latency_ns=100 * MICROSECOND, bandwidth=500 * MB)
    write_cache: PrimaryStorage = PrimaryStorage(latency_ns=100 * MICROSECOND, bandwidth=500 * MB)
    cpu_factor: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.cpu_factor < float("inf"):
            raise HardwareError(f"cpu_factor: expected a positive number, got {self.cpu_factor}")

    def replace(self, **changes: object) -> Hardware:
        """Return the hardware with some attributes changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


_COMMON = "link: 1 Gbit/s Ethernet; destination, write cache: a SATA SSD's order of magnitude"

# Numbers are typical values of the class of device, not of a product; `source` says from what they follow.
MEDIA: dict[str, Hardware] = {
    "disk_library": Hardware(
        "disk_library",
        BackupDevice(channels=4, positioning_ns=int(12.7 * MILLISECOND), bandwidth=180 * MB),
        source="four 7,200 rpm drives: 8.5 ms average seek + 4.2 ms half a rotation, 180 MB/s mid-disk; "
        + _COMMON,
    ),
    "object_storage": Hardware(
        "object_storage",
        BackupDevice(channels=16, positioning_ns=30 * MILLISECOND, bandwidth=85 * MB),
        source="first byte of a ranged GET after tens of ms, 85 to 90 MB/s a request, 8 to 16 requests of "
        "8 to 16 MB fill a client: the numbers of Amazon's S3 performance guidelines; " + _COMMON,
    ),
    "tape": Hardware(
        "tape",
        BackupDevice(
            channels=1,
            positioning_ns=2 * SECOND,
            bandwidth=300 * MB,
            mount_ns=60 * SECOND,
            distance_ns_per_gib=9 * MILLISECOND,
        ),
        source="LTO-8: 300 to 360 MB/s native, about 60 s to load and thread, about 100 s end to end over "
        "12 TB, a few seconds to reverse and settle even for a short locate; " + _COMMON,
    ),
    "flash": Hardware(
        "flash",
        BackupDevice(channels=8, positioning_ns=90 * MICROSECOND, bandwidth=400 * MB),
        source="one PCIe 3 NVMe drive: 90 us for a random read, 3.2 GB/s in all, reached by eight reads at a "
        "time; " + _COMMON,
    ),
}


def resolve_hardware(hardware: Hardware | str) -> Hardware:
    """Return the hardware itself, or the preset of that name.

    Raises
    ------
    HardwareError
        If there is no such preset.
    """
    if isinstance(hardware, Hardware):
        return hardware
    if hardware not in MEDIA:
        raise HardwareError(f"hardware: expected a Hardware or one of {', '.join(MEDIA)}, got {hardware!r}")
    return MEDIA[hardware]
