"""When the virtual machine is launched (O6) and when its relocation starts (O10), by this machine's clock."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable
from typing import Any

from vmrestorekit.plan import LaunchRule, RelocationStart
from vmrestorekit.restore.hardware import BackupDevice

__all__ = ["Status", "sleep_until", "wait_for_launch", "wait_for_relocation"]

Status = Callable[[], Awaitable[dict[str, Any]]]
_LOOK_S = 0.05
_STUCK_S = 0.5
_WINDOW = 60  # checks that a load condition looks back


async def sleep_until(at_ns: int) -> None:
    """Sleep until that time of CLOCK_MONOTONIC."""
    while (left := at_ns - time.monotonic_ns()) > 0:
        await asyncio.sleep(left / 1e9)


async def wait_for_launch(rule: LaunchRule, asked_ns: int, status: Status) -> None:
    """Return when the virtual machine is to be launched.

    Parameters
    ----------
    rule : LaunchRule
    asked_ns : int
        When the restore was asked for.
    status : callable
        Asks the media agent.
    """
    if rule.rule == "head_start":
        await sleep_until(asked_ns + rule.head_start_ns)
    if rule.rule != "share":
        return
    staged, still_since = -1, time.monotonic()
    while True:
        told = await status()
        if told:
            first_set = told["first_set"]
            if told["launch"]["has_staged_enough"]:
                return
            if first_set["staged"] != staged or told["queue"] or told["in_flight"]:
                staged, still_since = first_set["staged"], time.monotonic()
            elif time.monotonic() - still_since > _STUCK_S:
                return  # the read cache is full
        await asyncio.sleep(_LOOK_S)


async def wait_for_relocation(
    rule: RelocationStart, asked_ns: int, launch_ns: int, status: Status, device: BackupDevice
) -> None:
    """Return when the relocation is to start.

    Parameters
    ----------
    rule : RelocationStart
    asked_ns, launch_ns : int
        When the restore was asked for, and when the virtual machine was launched.
    status : callable
    device : BackupDevice
        What a load condition is measured against.
    """
    latest = asked_ns + rule.at_ns(launch_ns - asked_ns)
    if rule.rule != "load":
        await sleep_until(latest)
        return
    seconds = _WINDOW * rule.check_ns / 1e9
    bound = rule.load_share * device.channels * device.bandwidth * seconds
    sent: collections.deque[int] = collections.deque(maxlen=_WINDOW + 1)
    check = launch_ns
    while time.monotonic_ns() < latest:
        told = await status()
        if told:
            sent.append(told["read_bytes"]["vm"])
        if len(sent) > _WINDOW and sent[-1] - sent[0] < bound:
            return
        check += rule.check_ns
        await sleep_until(min(check, latest))
