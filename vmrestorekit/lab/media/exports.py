"""The disks of a media agent as NBD exports: one a disk and reader, all served from the same read cache."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import numpy as np

from vmrestorekit.lab.media.media_agent import MediaAgent
from vmrestorekit.lab.nbd.wire import MAX_EXTENTS
from vmrestorekit.plan import first_block_of_disk
from vmrestorekit.restore.events import READERS

__all__ = ["AgentExport", "exports_of"]


class AgentExport:
    """An NBD backend: a disk of the logical source, which nobody can write to.

    Parameters
    ----------
    agent : MediaAgent
    disk : int
    reader : {"vm", "relocation"}
        Who reads through this export. The agent decides nothing by it; what it infers is checked against it.

    Attributes
    ----------
    tells_holes : bool
        Only to the relocation. While QEMU's ``block-stream`` runs, the virtual machine's reads go through its
        filter ``copy-on-read``, which asks first what the source has there. If that question fails, as it
        does when the media agent is gone for longer than ``reconnect-delay``, the filter takes it for the end
        of the source and reports success without having read anything (seen in QEMU 10.0): the machine finds
        whatever was in its memory. A question that QEMU cannot ask cannot fail; the read does, as it should.
    """

    read_only = True

    def __init__(self, agent: MediaAgent, disk: int, reader: str) -> None:
        self.size = agent.source.disk_bytes[disk]
        self.tells_holes = reader != READERS[0]
        self._agent, self._disk, self._reader = agent, disk, reader
        self._block_bytes = agent.source.block_bytes
        first = first_block_of_disk(agent.source.disk_bytes, self._block_bytes)[disk]
        stored = agent.source.layout.address[first : first - (-self.size // self._block_bytes)] >= 0
        # where holes and what is stored take turns, the end included
        self._edges = np.append(np.flatnonzero(np.diff(stored)) + 1, len(stored))
        self._begins_with_hole = not stored[0]

    async def read(self, offset: int, length: int) -> bytes:
        """Read through the agent's cache."""
        return await self._agent.read(self._disk, offset, length, self._reader)

    async def write(self, offset: int, data: bytes) -> None:
        """Refuse: a backup copy stays byte for byte as it was."""
        raise OSError(errno.EPERM, "a backup copy is never written to")

    async def zero(self, offset: int, length: int, *, discard: bool) -> None:
        """Refuse, as `write`."""
        raise OSError(errno.EPERM, "a backup copy is never written to")

    async def flush(self) -> None:
        """Do nothing: there is nothing to flush."""

    async def extents(self, offset: int, length: int) -> Sequence[tuple[int, bool]]:
        """Return where the copy has holes, for the beginning of the range where that takes many words."""
        at, end = offset, offset + length
        turn = int(np.searchsorted(self._edges, at // self._block_bytes, side="right"))
        found = []
        for edge in self._edges[turn : turn + MAX_EXTENTS].tolist():
            to = min(edge * self._block_bytes, end)
            found.append((to - at, self._begins_with_hole == (turn % 2 == 0)))
            turn, at = turn + 1, to
            if at == end:
                break
        return found


def exports_of(agent: MediaAgent) -> dict[str, AgentExport]:
    """Return ``disk0`` (read by the virtual machine), ``disk0-relocation``, ``disk1``, and so on.

    The same bytes are in both; only those for the relocation tell where they have holes.
    """
    return {
        f"disk{disk}" if reader == READERS[0] else f"disk{disk}-{reader}": AgentExport(agent, disk, reader)
        for disk in range(len(agent.source.disk_bytes))
        for reader in READERS
    }
