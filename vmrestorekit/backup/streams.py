"""A data stream: a thread that writes chunks, one after the other, and makes each durable."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import queue
import threading
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import xxhash
import zstandard

from vmrestorekit.backup.chunk import (
    BLOCKS,
    CODECS,
    CONTAINER_HEADER_BYTES,
    STORED,
    ChunkHeader,
    ChunkId,
    container_header,
    container_path,
)
from vmrestorekit.backup.records import flush_folder

__all__ = ["Frame", "OpenChunk", "Stream", "encode_frame"]

_compressors = threading.local()


class Frame(NamedTuple):
    """Blocks as they are stored together."""

    data: bytes
    raw_bytes: int
    codec: int
    checksum: int


def encode_frame(blocks: list[bytes], zstd_level: int | None) -> Frame:
    """Return blocks as one frame; compressed if a level is given and it makes them smaller."""
    raw = blocks[0] if len(blocks) == 1 else b"".join(blocks)
    data, codec = raw, "none"
    if zstd_level is not None:
        if getattr(_compressors, "level", None) != zstd_level:
            _compressors.zstd = zstandard.ZstdCompressor(level=zstd_level)
            _compressors.level = zstd_level
        compressed = _compressors.zstd.compress(raw)
        if len(compressed) < len(raw):
            data, codec = compressed, "zstd"
    return Frame(data, len(raw), CODECS.index(codec), xxhash.xxh3_64_intdigest(data))


@dataclasses.dataclass
class OpenChunk:
    """A chunk that is being written.

    Attributes
    ----------
    id, vm, file, file_name, block_bytes
        As of `ChunkHeader`.
    stored : list of (bytes, int, int, int)
        For each slot: signature, frame, position in the frame, bytes.
    blocks : list of (int, int, int, int, bytes)
        The rows of `BLOCKS`.
    places : list of (int, int, int, int, int, int)
        For each frame, from the stream: container, offset, bytes, bytes before, codec, checksum.
    container_bytes : list of int
        From the stream.
    """

    id: ChunkId
    vm: str
    file: int
    file_name: str
    block_bytes: int
    stored: list[tuple[bytes, int, int, int]] = dataclasses.field(default_factory=list)
    blocks: list[tuple[int, int, int, int, bytes]] = dataclasses.field(default_factory=list)
    places: list[tuple[int, int, int, int, int, int]] = dataclasses.field(default_factory=list)
    container_bytes: list[int] = dataclasses.field(default_factory=list)

    def header(self) -> ChunkHeader:
        """Return the header of the chunk, all of whose frames are written."""
        places = (self.places[frame] for _, frame, _, _ in self.stored)
        stored = [
            (signature, container, offset, length, raw, position, block, codec, checksum)
            for (signature, _, position, block), (container, offset, length, raw, codec, checksum) in zip(
                self.stored, places, strict=True
            )
        ]
        blocks = np.array(self.blocks, BLOCKS)
        return ChunkHeader(
            *(self.id, self.vm, self.file, self.file_name),
            int(blocks["block"][0]) * self.block_bytes,
            (int(blocks["block"][-1]) + 1) * self.block_bytes,
            *(self.block_bytes, tuple(self.container_bytes)),
            np.array(stored, STORED),
            blocks,
        )


class Stream:
    """Writes chunks in the background, in the order they are given; the first error ends it.

    Parameters
    ----------
    chunks : Path
        The store's folder of chunks.
    sealed : queue
        Takes the header of each chunk that has become durable.
    waiting : int
        How many frames may wait; more make the giver wait.
    """

    def __init__(self, chunks: Path, sealed: queue.SimpleQueue[ChunkHeader], waiting: int) -> None:
        self._chunks, self._sealed = chunks, sealed
        self._work: queue.Queue[_Work | None] = queue.Queue(waiting)
        self._container: BinaryIO | None = None
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backup stream", daemon=True)
        self._thread.start()

    def write(self, chunk: OpenChunk, container: int, frame: concurrent.futures.Future[Frame]) -> None:
        """Write a frame to a container of a chunk, once it is encoded."""
        self._put(_Work(chunk, container, frame))

    def seal(self, chunk: OpenChunk) -> None:
        """Make a chunk durable: its containers, its header, then the name of its folder."""
        self._put(_Work(chunk, -1, None))

    def check(self) -> None:
        """Raise what stopped the stream."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until all is written; raise what stopped the stream."""
        self._put(None)
        self._thread.join()
        self.check()

    def abort(self) -> None:
        """Stop as soon as possible."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._work.put(None, timeout=0.1)
            except queue.Full:
                continue
            self._thread.join(0.1)

    def _put(self, work: _Work | None) -> None:
        while True:
            self.check()
            try:
                self._work.put(work, timeout=1)
            except queue.Full:
                continue
            return

    def _run(self) -> None:
        try:
            while (work := self._work.get()) is not None and not self._stopped.is_set():
                if work.frame is None:
                    self._seal(work.chunk)
                else:
                    self._write(work.chunk, work.container, work.frame.result())
        except BaseException as error:
            self._error = error
        finally:
            if self._container is not None:
                self._container.close()

    def _write(self, chunk: OpenChunk, container: int, frame: Frame) -> None:
        if container == len(chunk.container_bytes):
            self._begin_container(chunk, container)
        assert self._container is not None
        self._container.write(frame.data)
        offset = chunk.container_bytes[container]
        chunk.places.append((container, offset, len(frame.data), *frame[1:]))
        chunk.container_bytes[container] += len(frame.data)

    def _begin_container(self, chunk: OpenChunk, container: int) -> None:
        folder = self._folder(chunk)
        folder.mkdir(exist_ok=True)
        self._end_container()
        self._container = open(container_path(folder, container), "wb")  # noqa: SIM115 - until it is full
        self._container.write(container_header(chunk.id, container))
        chunk.container_bytes.append(CONTAINER_HEADER_BYTES)

    def _end_container(self) -> None:
        if self._container is not None:
            self._container.flush()
            os.fsync(self._container.fileno())
            self._container.close()
            self._container = None

    def _seal(self, chunk: OpenChunk) -> None:
        self._end_container()
        folder = self._folder(chunk)
        folder.mkdir(exist_ok=True)
        header = chunk.header()
        with open(folder / "header", "wb") as file:
            file.write(header.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        flush_folder(folder)
        os.replace(folder, self._chunks / chunk.id.folder)
        flush_folder(self._chunks)
        self._sealed.put(header)

    def _folder(self, chunk: OpenChunk) -> Path:
        return self._chunks / f".{chunk.id.folder}.partial"


class _Work(NamedTuple):
    chunk: OpenChunk
    container: int
    frame: concurrent.futures.Future[Frame] | None
