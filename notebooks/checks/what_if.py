"""Checks of `10_what_if`: an early start of the relocation, a break-even bandwidth, a break-even morning.

What is right is simulated for the student's own seed, which draws the machine, the devices and the limits.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import numbers

import numpy as np

import vmrestorekit as vr
from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart

from . import Verdict, hint, right, your_turn

__all__ = [
    "BandwidthTask",
    "MorningsTask",
    "StartTask",
    "bandwidth_task",
    "check_bandwidth",
    "check_mornings",
    "check_start",
    "data_disk_first",
    "mornings_task",
    "start_task",
]

SECOND = 1_000_000_000
GIB = 2**30
STARTS = range(0, 65, 5)
TOLERANCE = 0.1  # of a bandwidth


def data_disk_first(boot: vr.Boot) -> np.ndarray:
    """Return a relocation sequence: the blocks of the last disk, then those of the others, ascending."""
    empty = vr.RestorePlan(boot.disk_bytes)
    system = vr.RestorePlan(boot.disk_bytes[:-1]).blocks
    return np.roll(np.arange(empty.blocks, dtype=np.int32), -system)


@functools.lru_cache(maxsize=1)
def _corpus() -> vr.Corpus:
    return vr.load_corpus()


def _last_boot_of(name: str) -> tuple[vr.Boot, vr.RestorePlan]:
    """Return the newest boot of a machine, and a plan that expects it to be like the one before."""
    before, boot = _corpus()[name].boots[-2:]
    return boot, vr.make_plan(vr.LastBootReplay().fit([before]), boot)


def _draw(seed: int, what: int) -> tuple[np.random.Generator, str]:
    """Return random numbers for one exercise, and a machine."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"SEED: expected a whole number of at least 0, got {seed!r}")
    rng = np.random.default_rng([seed, what])
    return rng, str(rng.choice(list(_corpus())))


def _number(answer: object) -> float | None:
    """Return an answer as a number, None if it is none."""
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real) or not math.isfinite(answer):
        return None
    return float(answer)


# --- 1 · the earliest start -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StartTask:
    """Relocate this boot's data disk first, as early as the limit of its stall allows."""

    boot: vr.Boot
    plan: vr.RestorePlan
    medium: str
    limit_s: float

    def __str__(self) -> str:
        return (
            f"{self.boot.vm}, {self.boot.boot}, from {self.medium}; its data disk is relocated first. "
            f"Its boot may stall for less than {self.limit_s:g} s."
        )


@functools.lru_cache(maxsize=16)
def start_task(seed: int) -> StartTask:
    """Draw the exercise on the start of the relocation."""
    rng, name = _draw(seed, 1)
    boot, plan = _last_boot_of(name)
    boot = boot.with_data_disk(4 * GIB)
    plan = plan.replace(
        disk_bytes=boot.disk_bytes,
        relocation_sequence=data_disk_first(boot),
        purge=PurgeRule(by_run=False, by_indication=True),
    )
    medium = str(rng.choice(["disk_library", "object_storage", "flash"]))
    return StartTask(boot, plan, medium, float(rng.choice([2.0, 2.5, 3.0])))


@functools.lru_cache(maxsize=256)
def _stall_s(seed: int, start_s: int) -> float:
    task = start_task(seed)
    plan = task.plan.replace(relocation_start=RelocationStart("delay", delay_ns=start_s * SECOND))
    return vr.simulate(task.boot, plan, task.medium, detail="summary").summary()["stall_ns"] / SECOND


def check_start(answer: object, seed: int) -> Verdict:
    """Check the earliest start, in seconds after the launch, a multiple of five."""
    if answer is ... or answer is None:
        return your_turn("Give the start in seconds after the launch, a multiple of 5 from 0 to 60.")
    start = _number(answer)
    if start is None:
        return hint(f"Expected seconds as a number, such as 35; this is {type(answer).__name__}.")
    if start not in STARTS:
        return hint(f"Expected a multiple of 5 from 0 to 60, got {start:g}.")
    limit = start_task(seed).limit_s
    stall = _stall_s(seed, int(start))
    if stall >= limit:
        return hint(f"Started after {start:g} s, it makes the boot stall for {stall:.1f} s: too long.")
    earlier = [each for each in STARTS if each < start and _stall_s(seed, each) < limit]
    if earlier:
        return hint(f"That keeps below {limit:g} s, with {stall:.1f} s; but an earlier start does so, too.")
    before = f", five seconds earlier {_stall_s(seed, int(start) - 5):.1f} s" if start else ""
    return right(f"The boot stalls for {stall:.1f} s then{before}.")


# --- 2 · the bandwidth at which a full restore is as quick ----------------------------------------------


@dataclasses.dataclass(frozen=True)
class BandwidthTask:
    """Find the bandwidth of the link above which a full restore serves users sooner than an instant one."""

    boot: vr.Boot
    plan: vr.RestorePlan
    hardware: vr.Hardware

    def with_link(self, megabytes_a_second: float) -> vr.Hardware:
        """Return the hardware with another bandwidth of the link."""
        link = dataclasses.replace(self.hardware.link, bandwidth=round(megabytes_a_second * 1e6))
        return self.hardware.replace(link=link)

    def __str__(self) -> str:
        return (
            f"{self.boot.vm}, {self.boot.boot}, from {self.hardware.name}; "
            f"the instant restore launches after {self.plan.launch.head_start_ns / SECOND:g} s."
        )


@functools.lru_cache(maxsize=16)
def bandwidth_task(seed: int) -> BandwidthTask:
    """Draw the exercise on the bandwidth."""
    from vmrestorekit.restore.hardware import MEDIA

    rng, name = _draw(seed, 2)
    boot, plan = _last_boot_of(name)
    launch = LaunchRule("head_start", head_start_ns=int(rng.choice([4, 6, 8])) * SECOND)
    plan = plan.replace(launch=launch, relocation_start=RelocationStart("delay", delay_ns=60 * SECOND))
    return BandwidthTask(boot, plan, MEDIA["flash"])


def _full_restore_is_sooner(task: BandwidthTask, megabytes_a_second: float) -> bool:
    hardware = task.with_link(megabytes_a_second)
    ready = {
        mode: vr.simulate(task.boot, task.plan.with_mode(mode), hardware, detail="summary").summary()[
            "time_to_ready_ns"
        ]
        for mode in ("full_restore", "instant_restore")
    }
    return ready["full_restore"] < ready["instant_restore"]


@functools.lru_cache(maxsize=64)
def _break_even(seed: int) -> float:
    """Halve the interval until it is known to one percent."""
    task, low, high = bandwidth_task(seed), 10.0, 4000.0
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _full_restore_is_sooner(task, middle) else (middle, high)
    return math.sqrt(low * high)


def check_bandwidth(answer: object, seed: int) -> Verdict:
    """Check the bandwidth, in megabytes a second."""
    if answer is ... or answer is None:
        return your_turn("Give the bandwidth of the link in MB a second, to about 10 %.")
    bandwidth = _number(answer)
    if bandwidth is None or bandwidth <= 0:
        return hint("Expected megabytes a second as a number above 0, such as 125 for 1 Gbit a second.")
    exact = _break_even(seed)
    if abs(bandwidth - exact) <= TOLERANCE * exact:
        return right(
            f"Simulated: {exact:.0f} MB/s. The copying takes as long there as head start and stall together."
        )
    if bandwidth >= 1e6:
        return hint("Megabytes a second, please: 1 Gbit a second is 125.")
    if bandwidth < exact:
        return hint("With this link the instant restore still serves users sooner: the link may be faster.")
    return hint("With this link the full restore is clearly sooner: they meet at a slower link.")


# --- 3 · how many mornings until the relocation pays ----------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MorningsTask:
    """A machine that is mounted anew each morning, or restored once; all its data count."""

    mornings: tuple[tuple[vr.Boot, vr.RestorePlan], ...]
    data_gib: int

    def __str__(self) -> str:
        return f"{self.mornings[0][0].vm}, {len(self.mornings)} mornings, a data disk of {self.data_gib} GiB."


@functools.lru_cache(maxsize=16)
def mornings_task(seed: int) -> MorningsTask:
    """Draw the exercise on live mounts."""
    rng, name = _draw(seed, 3)
    data_gib, boots = int(rng.choice([1, 2, 3, 4])), _corpus()[name].boots
    mornings = []
    for before, boot in itertools.pairwise(boots):
        plan = vr.make_plan(vr.LastBootReplay().fit([before]), boot)
        boot = boot.with_data_disk(data_gib * GIB)
        mornings.append((boot, plan.replace(disk_bytes=boot.disk_bytes)))
    return MorningsTask(tuple(mornings), data_gib)


@functools.lru_cache(maxsize=64)
def _media_bytes(seed: int) -> tuple[int, float]:
    """Return what the restore of the first morning reads, and a live mount on average."""
    task = mornings_task(seed)
    boot, plan = task.mornings[0]
    restore = vr.simulate(boot, plan, detail="summary").summary()["media_bytes"]
    mounts = [
        vr.simulate(boot, plan.with_mode("live_mount"), detail="summary").summary()["media_bytes"]
        for boot, plan in task.mornings
    ]
    return restore, sum(mounts) / len(mounts)


def check_mornings(answer: object, seed: int) -> Verdict:
    """Check the first morning by which the mounts have read more than the restore."""
    if answer is ... or answer is None:
        return your_turn("Give the number of mornings, a whole number.")
    mornings = _number(answer)
    if mornings is None or mornings != int(mornings) or mornings < 1:
        return hint("Expected a whole number of mornings, at least 1.")
    restore, mount = _media_bytes(seed)
    exact = math.floor(restore / mount) + 1
    if mornings == exact:
        return right(
            f"The restore reads {restore / 1e6:,.0f} MB once, a mount {mount / 1e6:,.0f} MB each morning: "
            f"{exact} mounts read more, {exact - 1} do not."
        )
    if mornings < exact:
        return hint("By then the mounts have not read more than the restore: divide what each reads.")
    return hint("The mounts have read more than the restore even before that morning.")
