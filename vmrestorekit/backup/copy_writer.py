"""Cutting a copy into chunks, containers and frames, and dealing them out to the data streams.

One thread decides what is written where, in the order of the disk: the same input gives the same chunks,
however fast the streams are. Container files are dealt out to the streams in turn, and each stream has one
chunk open.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import queue
from pathlib import Path
from types import TracebackType

from vmrestorekit.backup.chunk import ZEROS, ChunkHeader, ChunkId
from vmrestorekit.backup.index import Slot
from vmrestorekit.backup.layout import ROWS_PER_CHUNK, CopySettings
from vmrestorekit.backup.streams import OpenChunk, Stream, encode_frame

__all__ = ["CopyWriter"]

_QUEUED_BYTES = 32 << 20  # for each stream; bounds the memory


@dataclasses.dataclass
class _Filling:
    """How full a stream's chunk, its container and its frame are."""

    chunk: OpenChunk
    payload_bytes: int = 0
    container: int = -1
    container_blocks: int = 0
    container_bytes: int = 0
    frames: int = 0
    frame: list[bytes] = dataclasses.field(default_factory=list)
    frame_bytes: int = 0


class CopyWriter:
    """Takes the blocks of a copy, file after file and in ascending order, and writes them as chunks.

    Used as a context manager: an exception within stops the streams; chunks that are not sealed by then are
    left to the next process that writes to the store.

    Parameters
    ----------
    chunks : Path
        The store's folder of chunks.
    copy, sequence : int
        Number of the copy, and of its first chunk.
    vm : str
    file_names : list of str
    block_bytes : int
    settings : CopySettings
    streams : int
    """

    def __init__(
        self,
        chunks: Path,
        copy: int,
        sequence: int,
        vm: str,
        file_names: list[str],
        block_bytes: int,
        settings: CopySettings,
        streams: int = 1,
    ) -> None:
        self.next_sequence = sequence
        self._copy, self._vm, self._file_names, self._block_bytes = copy, vm, file_names, block_bytes
        self._settings = settings
        self._frame_bytes = max(settings.frame_bytes or 0, block_bytes)
        self._open: list[_Filling | None] = [None] * streams
        self._turn = 0
        self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)
        self._sealed: queue.SimpleQueue[ChunkHeader] = queue.SimpleQueue()
        waiting = max(2, _QUEUED_BYTES // self._frame_bytes)
        self._streams = [Stream(chunks, self._sealed, waiting) for _ in range(streams)]

    def __enter__(self) -> CopyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for stream in self._streams:
                stream.abort()
        self._pool.shutdown(cancel_futures=kind is not None)

    def add(self, file: int, block: int, signature: bytes, data: bytes) -> Slot:
        """Write a content that the store does not have; return where it will be."""
        filling = self._room_for(file, len(data))
        chunk = filling.chunk
        slot = len(chunk.stored)
        chunk.stored.append((signature, filling.frames, filling.frame_bytes, len(data)))
        chunk.blocks.append((block, *chunk.id, slot, signature))
        filling.frame.append(data)
        filling.frame_bytes += len(data)
        filling.payload_bytes += len(data)
        filling.container_blocks += 1
        filling.container_bytes += len(data)
        if filling.frame_bytes + self._block_bytes > self._frame_bytes:
            self._end_frame(self._turn)
        return (*chunk.id, slot)

    def link(self, file: int, block: int, signature: bytes, to: Slot) -> None:
        """Note that a block is a link to a content stored before."""
        self._row(file).chunk.blocks.append((block, *to, signature))

    def zero(self, file: int, block: int) -> None:
        """Note that a block became zeros."""
        self._row(file).chunk.blocks.append((block, self._copy, 0, ZEROS, bytes(32)))

    def sealed(self) -> list[ChunkHeader]:
        """Return the chunks that became durable since the last call; raise what stopped a stream."""
        for stream in self._streams:
            stream.check()
        return [self._sealed.get_nowait() for _ in range(self._sealed.qsize())]

    def finish(self) -> list[ChunkHeader]:
        """Seal all chunks, wait for the streams, and return what `sealed` has not given yet."""
        self._close_all()
        for stream in self._streams:
            stream.finish()
        return self.sealed()

    def _row(self, file: int) -> _Filling:
        """Return the chunk whose turn it is, with room for one more row."""
        filling = self._open[self._turn]
        if filling is not None and filling.chunk.file != file:
            self._close_all()
            filling = None
        if filling is not None and len(filling.chunk.blocks) >= ROWS_PER_CHUNK:
            self._close(self._turn)
            filling = None
        return filling or self._begin(file)

    def _room_for(self, file: int, length: int) -> _Filling:
        """Return the chunk whose turn it is, with room for so many bytes in its container."""
        filling = self._row(file)
        if filling.container >= 0 and self._container_full(filling, length):
            self._end_frame(self._turn)
            self._turn = (self._turn + 1) % len(self._open)
            filling = self._row(file)
        if filling.payload_bytes and filling.payload_bytes + length > self._settings.chunk_bytes:
            self._close(self._turn)
            filling = self._begin(file)
        if filling.container < 0 or self._container_full(filling, length):
            filling.container += 1
            filling.container_blocks = filling.container_bytes = 0
        return filling

    def _container_full(self, filling: _Filling, length: int) -> bool:
        limits = self._settings
        return filling.container_blocks >= limits.container_blocks or (
            filling.container_bytes > 0 and filling.container_bytes + length > limits.container_bytes
        )

    def _begin(self, file: int) -> _Filling:
        chunk = OpenChunk(
            ChunkId(self._copy, self.next_sequence), self._vm, file, self._file_names[file], self._block_bytes
        )
        self.next_sequence += 1
        filling = self._open[self._turn] = _Filling(chunk)
        return filling

    def _end_frame(self, turn: int) -> None:
        filling = self._open[turn]
        if filling is not None and filling.frame:
            frame = self._pool.submit(encode_frame, filling.frame, self._settings.zstd_level)
            self._streams[turn].write(filling.chunk, filling.container, frame)
            filling.frame, filling.frame_bytes = [], 0
            filling.frames += 1

    def _close(self, turn: int) -> None:
        filling = self._open[turn]
        if filling is not None:
            self._end_frame(turn)
            self._streams[turn].seal(filling.chunk)
            self._open[turn] = None

    def _close_all(self) -> None:
        for turn in range(len(self._open)):
            self._close(turn)
        self._turn = 0
