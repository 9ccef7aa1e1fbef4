"""What to do when the host reads or writes in vain: the virtual machine stands still, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.restore.agent_link import AgentLink
from vmrestorekit.lab.restore.host import Host

__all__ = ["Troubles"]

ROOM_BYTES = 4 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_PROVED_S = 1.0


class Troubles:
    """Waits for what is missing - a media agent, room for the disks - then lets the host try again.

    Attributes
    ----------
    pauses : list of (str, float)
        What was missing, and for how many seconds.
    """

    def __init__(self, host: Host, link: AgentLink, folder: Path, report: Report) -> None:
        self.pauses: list[tuple[str, float]] = []
        self._host, self._link, self._folder, self.report = host, link, folder, report
        self._losses = link.losses

    async def watch(self) -> None:
        """Take care of every trouble, for as long as the host runs."""
        with self._host.troubles() as events:
            while True:
                event = await events.get()
                await self._take_care(event, events)

    async def _take_care(self, event: Any, events: Any) -> None:
        began = time.monotonic()
        missing = await self._what_is_missing(event)
        self.report.say(f"{missing}; what needs it is paused, and goes on when it is there.")
        pause = _FIRST_PAUSE_S
        while True:
            await self.missing_is_there()
            await asyncio.sleep(pause)
            events.clear()
            await self._host.go_on()
            # the machine stands still only some time after its event
            await asyncio.sleep(_PROVED_S)
            if events.empty() and not await self._host.is_stuck():
                break
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        self.pauses.append((missing, time.monotonic() - began))
        self.report.say(f"Going on after {self.pauses[-1][1]:.1f} s.")

    async def _what_is_missing(self, event: Any) -> str:
        data = event["data"]
        if data.get("nospace") or self._room() < ROOM_BYTES:
            return f"There is no room left in {self._folder}"
        losses, self._losses = self._losses, self._link.losses
        if self._link.losses > losses or not await self._link.status():
            return "The media agent is gone"
        reason = data.get("reason", "input/output error")
        return f"The host could not {data['operation']} ({reason})"

    async def missing_is_there(self) -> None:
        """Return when there are a media agent and some room."""
        await self._link.ensure()
        while self._room() < ROOM_BYTES:
            await asyncio.sleep(0.5)  # nobody tells when files are removed

    def _room(self) -> int:
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize
