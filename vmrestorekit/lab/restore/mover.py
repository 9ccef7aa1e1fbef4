"""The relocation (O13): by QEMU itself in ascending order, or block by block in the plan's own order.

QEMU's ``block-stream`` copies in ascending order, one request of 512 KiB at a time. For any other sequence,
depth or size of requests the data agent has each block relocated by itself, and QEMU only what is left over:
either it reads through a copy-on-read filter above the destination, or, where the relocation's reads are to
be told from the virtual machine's, it copies from the export for relocation reads.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.restore.agent_link import AgentLink
from vmrestorekit.lab.restore.host import Host
from vmrestorekit.lab.restore.routes import Routes
from vmrestorekit.lab.restore.troubles import Troubles
from vmrestorekit.plan import RestorePlan, first_block_of_disk

__all__ = ["MOVERS", "Mover", "mover_of", "stored_blocks"]

MOVERS = ("stream", "copy_on_read", "relocation_export")
STREAM_REQUEST_BYTES = 512 * 1024
_LOOK_S = 0.25
_AGAIN_S = 2.0

Mask = npt.NDArray[np.bool_]


def mover_of(plan: RestorePlan, wanted: str | None = None, speed: int = 0) -> str:
    """Return how a plan is relocated: one of `MOVERS`.

    Parameters
    ----------
    plan : RestorePlan
    wanted : str, optional
        Default: ``stream`` if it does what the plan says.
    speed : int
        A limit in bytes a second, 0 for none.

    Raises
    ------
    LabError
        If that cannot carry out the plan.
    """
    if wanted not in (None, *MOVERS):
        raise LabError(f"mover: expected one of {', '.join(MOVERS)}, got {wanted!r}")
    why_not = _why_not_stream(plan)
    if wanted == "stream" and why_not:
        raise LabError(f"block-stream relocates in ascending order, 512 KiB at a time, but {why_not}")
    mover = wanted or ("copy_on_read" if why_not else "stream")
    if speed and mover != "stream":
        raise LabError(
            f"a limit of speed is possible with block-stream only, but {why_not or f'{mover} is wanted'}"
        )
    return mover


def _why_not_stream(plan: RestorePlan) -> str:
    if (np.diff(plan.sequence) < 0).any():
        return "the relocation sequence of the plan is not ascending"
    if plan.relocation_depth != 1:
        return f"the plan has {plan.relocation_depth} relocation requests outstanding"
    if plan.relocation_request_bytes != STREAM_REQUEST_BYTES:
        return f"the plan's relocation requests have {plan.relocation_request_bytes} bytes"
    if plan.purge.by_indication:
        return "the plan purges by indication of each relocation request"
    return ""


async def stored_blocks(link: AgentLink, plan: RestorePlan) -> Mask:
    """Return which blocks the logical source holds: those that are no holes.

    Raises
    ------
    LabError
        If ``qemu-img`` fails, and not because the media agent was lost meanwhile.
    """
    while True:
        losses = link.losses
        try:
            return await _stored_blocks(link.sockets.nbd, plan)
        except LabError:
            await link.ensure()
            if link.losses == losses:
                raise


async def _stored_blocks(nbd_socket: Path, plan: RestorePlan) -> Mask:
    stored = np.zeros(plan.blocks, np.bool_)
    for disk, first in enumerate(first_block_of_disk(plan.disk_bytes, plan.block_bytes)):
        # nothing is read; the virtual machine's own export does not tell
        options = f"driver=nbd,server.type=unix,server.path={nbd_socket},export=disk{disk}-relocation"
        process = await asyncio.create_subprocess_exec(
            *("qemu-img", "map", "--output=json", "--image-opts", options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, complaints = await process.communicate()
        if process.returncode:
            last = (complaints.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
            raise LabError(f"qemu-img could not tell where the logical source has holes: {last}")
        for extent in json.loads(told):
            if not extent["zero"]:
                start, end = extent["start"], extent["start"] + extent["length"]
                stored[first + start // plan.block_bytes : first + -(-end // plan.block_bytes)] = True
    return stored


class Mover:
    """Relocates all disks once; what an earlier one has relocated is passed over by the host.

    Parameters
    ----------
    plan : RestorePlan
    mover : str
        One of `MOVERS`.
    stored : ndarray of bool, shape (plan.blocks,)
        What is no hole.
    folder : Path
        A short path for sockets.
    speed : int
        Bytes a second for ``stream``; 0: no limit.
    """

    def __init__(
        self,
        plan: RestorePlan,
        mover: str,
        stored: Mask,
        host: Host,
        link: AgentLink,
        troubles: Troubles,
        folder: Path,
        speed: int = 0,
    ) -> None:
        self._plan, self._mover, self._stored = plan, mover, stored
        self._host, self._link, self._troubles, self._folder = host, link, troubles, folder
        self._speed = speed
        self._first = first_block_of_disk(plan.disk_bytes, plan.block_bytes)
        self._requests = 0
        self.relocated = np.zeros(plan.blocks, np.bool_)

    @property
    def share(self) -> float:
        """The share of the stored blocks that is on the destination."""
        stored = int(self._stored.sum())
        return int((self.relocated & self._stored).sum()) / stored if stored else 1.0

    async def relocate_in_order(self, disks: list[int]) -> None:
        """Relocate the plan's sequence, as far as it is up to us and not to ``block-stream``."""
        if self._mover == "stream":
            return
        in_turn = iter(list(self._in_requests(disks)))
        copy = self._mover == "copy_on_read"
        path = self._folder / "destination"
        async with (
            self._host.relocation_exports(path, disks, copy=copy),
            Routes(self._link.sockets.nbd, path, copy, self._troubles) as routes,
        ):
            async with asyncio.TaskGroup() as outstanding:
                for _ in range(self._plan.relocation_depth):
                    outstanding.create_task(self._one_after_the_other(in_turn, routes))
            if not copy:
                for disk in disks:
                    await self._zero_holes(disk, routes)

    async def relocate_rest(self, disk: int) -> None:
        """Have QEMU relocate what is left of a disk durably, and forget the logical source."""
        telling = asyncio.create_task(self._tell_progress(disk))
        try:
            await self._host.relocate(disk, speed=self._speed)
        except asyncio.CancelledError:
            await self._host.cancel_relocation(disk)
            raise
        finally:
            telling.cancel()
            await asyncio.wait({telling})
        await self._make_durable(disk)
        await self._tell_stream(disk, self._plan.disk_bytes[disk])

    async def _make_durable(self, disk: int) -> None:
        while True:
            try:
                await self._host.make_durable(disk, self._folder / "destination")
                return
            except LabError as error:  # as with every write in vain, nothing is lost by waiting
                self._troubles.report.say(f"{error}; trying again.")
            await self._troubles.missing_is_there()
            await asyncio.sleep(_AGAIN_S)

    # --- in the plan's order --------------------------------------------------------------------------

    def _in_requests(self, disks: list[int]) -> Iterator[list[tuple[int, int]]]:
        """Cut the sequence, without its holes, into requests: ranges of first block and count."""
        sequence = self._plan.sequence
        ends = [*self._first[1:], self._plan.blocks]
        mine = np.zeros(self._plan.blocks, np.bool_)
        for disk in disks:
            mine[self._first[disk] : ends[disk]] = True
        sequence = sequence[(self._stored & mine)[sequence]]
        step = self._plan.relocation_request_bytes // self._plan.block_bytes
        for at in range(0, len(sequence), step):
            blocks = sequence[at : at + step]
            yield _ranges(blocks, np.isin(blocks[1:], self._first))

    async def _one_after_the_other(self, requests: Iterator[list[tuple[int, int]]], routes: Routes) -> None:
        for ranges in requests:
            self._requests += 1
            number = self._requests
            now = time.monotonic_ns()
            if self._mover == "copy_on_read":  # of the other export the media agent sees it
                for first, count in ranges:
                    size = count * self._plan.block_bytes
                    await self._link.note(
                        "relocation_read", block=first, count=count, request=number, detail=size, at_ns=now
                    )
            async with asyncio.TaskGroup() as parts:
                for first, count in ranges:
                    parts.create_task(routes.copy(*self._where(first, count)))
            await self._tell(ranges)

    async def _zero_holes(self, disk: int, routes: Routes) -> None:
        """Relocate the holes, so that ``block-stream`` reads none: its reads look like the machine's."""
        end = [*self._first[1:], self._plan.blocks][disk]
        for first, count in _ranges(np.flatnonzero(~self._stored[self._first[disk] : end])):
            await routes.zero(*self._where(self._first[disk] + first, count))

    def _where(self, first: int, count: int) -> tuple[int, int, int]:
        """Return disk, offset and length of a range of blocks."""
        disk = int(np.searchsorted(self._first, first, side="right")) - 1
        offset = (first - self._first[disk]) * self._plan.block_bytes
        return disk, offset, min(count * self._plan.block_bytes, self._plan.disk_bytes[disk] - offset)

    # --- telling --------------------------------------------------------------------------------------

    async def _tell_progress(self, disk: int) -> None:
        """Look how far ``block-stream`` has come: it sends an event only at its end."""
        while True:
            await asyncio.sleep(_LOOK_S)
            done = await self._host.relocated_bytes(disk)
            if done is not None:
                await self._tell_stream(disk, done)

    async def _tell_stream(self, disk: int, done: int) -> None:
        """Say what is new on the destination when ``block-stream`` has come so far."""
        size = self._plan.block_bytes
        end = self._first[disk] + (-(-done // size) if done >= self._plan.disk_bytes[disk] else done // size)
        mine = slice(self._first[disk], end)
        new = _ranges(np.flatnonzero(self._stored[mine] & ~self.relocated[mine]) + self._first[disk])
        if new:
            await self._tell(new)

    async def _tell(self, ranges: list[tuple[int, int]]) -> None:
        for first, count in ranges:
            self.relocated[first : first + count] = True
        await self._link.relocated(ranges)


def _ranges(blocks: npt.NDArray[Any], breaks: Mask | bool = False) -> list[tuple[int, int]]:
    """Return first block and count of each run of neighbours, cut where the second says so, too."""
    if not len(blocks):
        return []
    edges = [0, *(np.flatnonzero((np.diff(blocks) != 1) | breaks) + 1).tolist(), len(blocks)]
    return [(int(blocks[a]), b - a) for a, b in itertools.pairwise(edges)]
