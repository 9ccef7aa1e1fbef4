"""Notebook 01: from which size of a data disk on an instant restore serves users first."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import numpy as np

import vmrestorekit as vr
from checks import Verdict, hint, right, your_turn
from vmrestorekit.plan import LaunchRule
from vmrestorekit.restore.simulate import simulate

_MACHINES = ("bookworm-web", "bullseye-web", "trixie-web", "bullseye-dns", "trixie-cache")
_MEDIA = ("object_storage", "disk_library")
_MOST_GIB = 64


@functools.lru_cache(maxsize=4)
def scenario(seed: int = 1) -> tuple[vr.Boot, vr.RestorePlan, str]:
    """Return a recorded boot, a plan for it, and the medium that the backup copy lies on."""
    drawn = np.random.default_rng(seed)
    machine = vr.load_corpus()[str(drawn.choice(_MACHINES))]
    boot, medium = machine.boots[-1], str(drawn.choice(_MEDIA))
    # so long that the full restore of the small machine is done before
    head_start = LaunchRule("head_start", head_start_ns=int(drawn.integers(20, 46)) * 10**9)
    plan = vr.make_plan(vr.LastBootReplay().fit(machine.boots[-2]), boot, launch=head_start)
    return boot, plan, medium


def told(seed: int = 1) -> str:
    """Return in two lines what the seed's scenario is, and how its small machine is restored."""
    boot, plan, medium = scenario(seed)
    full = simulate(boot, plan.with_mode("full_restore"), medium, detail="summary").metrics
    stored, copied = float(full["media_bytes"] or 0), float(full["launch_ns"] or 0)
    first, second = (
        _ready_ns(boot, plan, mode, medium) / 1e9 for mode in ("full_restore", "instant_restore")
    )
    return (
        f"{boot.vm}, {boot.boot}, on {medium.replace('_', ' ')}; the instant restore launches it after "
        f"{plan.launch.head_start_ns / 1e9:g} s.\n"
        f"Its {stored / 1e6:,.0f} MB are copied in {copied / 1e9:.1f} s. It serves users "
        f"after {first:.0f} s with the full restore, after {second:.0f} s with the instant one."
    )


def check_size(gib: Any, seed: int = 1) -> Verdict:
    """Check the size of the smallest data disk with which the instant restore serves first, in GiB."""
    if gib is None or gib is ...:
        return your_turn("Put a whole number of GiB in place of the dots: gib = 8, for instance, and look.")
    is_number = isinstance(gib, numbers.Real) and not isinstance(gib, bool)
    if not is_number or not math.isfinite(gib) or gib != int(gib):
        return hint(f"A whole number of GiB is asked for, such as 8; this is {gib!r}.")
    gib = int(gib)
    if not 1 <= gib <= _MOST_GIB:
        return hint(f"The data disk has 1 to {_MOST_GIB} GiB here; think of what is copied in a second.")
    instant, full = _seconds(seed, gib, "instant_restore"), _seconds(seed, gib, "full_restore")
    told = (
        f"With {gib} GiB more the instant restore serves after {instant:.1f} s, "
        f"the full one after {full:.1f} s"
    )
    if instant >= full:
        return hint(f"{told}: the full one is first. How much does it copy in a second?")
    if gib > 1 and _seconds(seed, gib - 1, "instant_restore") < _seconds(seed, gib - 1, "full_restore"):
        return hint(f"{told}. So it is with a smaller disk, too.")
    return right(f"{told}. With a smaller one the head start costs more than the copying.")


@functools.lru_cache(maxsize=64)
def _seconds(seed: int, gib: int, mode: str) -> float:
    boot, plan, medium = scenario(seed)
    larger = boot.with_data_disk(gib * 2**30)
    larger_plan = plan.replace(disk_bytes=larger.disk_bytes)
    return _ready_ns(larger, larger_plan, mode, medium) / 1e9


def _ready_ns(boot: vr.Boot, plan: vr.RestorePlan, mode: str, medium: str) -> float:
    ready = simulate(boot, plan.with_mode(mode), medium, detail="summary").metrics["time_to_ready_ns"]
    return float(ready or 0)
