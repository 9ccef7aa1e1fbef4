"""A chunk on disk: a header, and container files with the payload.

A chunk is a folder. Its containers hold the contents that were new when the chunk was written; its header
tells whose blocks these are and which other blocks of the copy are links to contents stored before. The
format is described in ``docs/backup-format.md``.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import blake3
import numpy as np
import numpy.typing as npt

from vmrestorekit.backup.records import StoreError

__all__ = [
    "BLOCKS",
    "CONTAINER_HEADER_BYTES",
    "SIGNATURE_BYTES",
    "STORED",
    "ZEROS",
    "ChunkHeader",
    "ChunkId",
    "container_header",
    "container_path",
    "signature_of",
]

SIGNATURE_BYTES = 32
CONTAINER_HEADER_BYTES = 4096  # keeps blocks where the file system can give their space back
CODECS = ("none", "zstd")
ZEROS = 0xFFFF_FFFF  # as the slot of a block: it became zeros, nothing is stored

# a content in a container of this chunk; a row's number is its slot
STORED = np.dtype(
    [
        ("signature", f"V{SIGNATURE_BYTES}"),
        ("container", "<u4"),
        ("offset", "<u8"),  # of the frame, in the container file
        ("frame_bytes", "<u4"),  # as stored
        ("frame_raw_bytes", "<u4"),
        ("position", "<u4"),  # of the block in the frame
        ("raw_bytes", "<u4"),
        ("codec", "u1"),
        ("checksum", "<u8"),  # xxh3_64 of the frame as stored
    ]
)
# a block of the copy, and which content it has: a slot of this chunk or of an earlier one
BLOCKS = np.dtype(
    [
        ("block", "<u8"),
        ("copy", "<u4"),
        ("sequence", "<u4"),
        ("slot", "<u4"),
        ("signature", f"V{SIGNATURE_BYTES}"),
    ]
)

_MAGIC, _VERSION = b"VRKCHUNK", 1
_CONTAINER_MAGIC = b"VRKCONTR"
_START = struct.Struct("<8sHxxI")  # magic, version, bytes of the description


class ChunkId(NamedTuple):
    """The copy that wrote a chunk, and the chunk's number in it from 0."""

    copy: int
    sequence: int

    @property
    def folder(self) -> str:
        """The name of the chunk's folder."""
        return f"{self.copy:06d}-{self.sequence:06d}"

    @classmethod
    def of_folder(cls, name: str) -> ChunkId:
        """Return the chunk whose folder has this name."""
        copy, sequence = name.split("-")
        return cls(int(copy), int(sequence))


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkHeader:
    """What a chunk is about, and where its contents lie.

    Attributes
    ----------
    id : ChunkId
    vm : str
    file, file_name : int, str
        Number and name of the virtual machine's file in the copy: its disks first, then its configuration.
    offset, end : int
        The chunk's blocks lie between these bytes of that file.
    block_bytes : int
    container_bytes : tuple of int
        Size of each container file.
    stored : ndarray of `STORED`
    blocks : ndarray of `BLOCKS`
        In ascending order of the block.
    """

    id: ChunkId
    vm: str
    file: int
    file_name: str
    offset: int
    end: int
    block_bytes: int
    container_bytes: tuple[int, ...]
    stored: npt.NDArray[Any]
    blocks: npt.NDArray[Any]

    def to_bytes(self) -> bytes:
        """Return the header as it is written: description, two tables, checksum."""
        description = {
            "chunk": list(self.id),
            "vm": self.vm,
            "file": self.file,
            "file_name": self.file_name,
            "offset": self.offset,
            "end": self.end,
            "block_bytes": self.block_bytes,
            "container_bytes": list(self.container_bytes),
            "stored": len(self.stored),
            "blocks": len(self.blocks),
        }
        text = json.dumps(description, sort_keys=True).encode()
        body = _START.pack(_MAGIC, _VERSION, len(text)) + text + self.stored.tobytes() + self.blocks.tobytes()
        return body + blake3.blake3(body).digest()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> ChunkHeader:
        """Read a header; ``name`` says where it comes from.

        Raises
        ------
        StoreError
            If one bit of it is not as it was written.
        """
        body, checksum = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        if len(body) < _START.size or blake3.blake3(body).digest() != checksum:
            raise StoreError(f"{name}: damaged chunk header, its checksum does not fit")
        magic, version, length = _START.unpack_from(body)
        if (magic, version) != (_MAGIC, _VERSION):
            raise StoreError(f"{name}: expected a chunk header of version {_VERSION}, got {version}")
        about = json.loads(body[_START.size : _START.size + length])
        at = _START.size + length
        stored = np.frombuffer(body, STORED, about["stored"], at)
        blocks = np.frombuffer(body, BLOCKS, about["blocks"], at + stored.nbytes)
        return cls(
            id=ChunkId(*about["chunk"]),
            **{key: about[key] for key in ("vm", "file", "file_name", "offset", "end", "block_bytes")},
            container_bytes=tuple(about["container_bytes"]),
            stored=stored,
            blocks=blocks,
        )

    def targets(self) -> set[ChunkId]:
        """Return the chunks that hold the contents of the blocks."""
        rows = self.blocks[self.blocks["slot"] != ZEROS]
        return {ChunkId(*pair) for pair in np.unique(rows[["copy", "sequence"]]).tolist()}

    def expect(self, chunk: ChunkId, name: str) -> None:
        """Raise `StoreError` unless this is the header of that chunk."""
        if self.id != chunk:
            raise StoreError(
                f"{name}: expected the header of chunk {chunk.folder}, got that of {self.id.folder}"
            )


def container_path(folder: Path, container: int) -> Path:
    """Return where a chunk's container file is."""
    return folder / f"container-{container:06d}"


def container_header(chunk: ChunkId, container: int) -> bytes:
    """Return the first `CONTAINER_HEADER_BYTES` of a container file: whose it is, a checksum, zeros."""
    text = _CONTAINER_MAGIC + struct.pack("<HxxIII", _VERSION, chunk.copy, chunk.sequence, container)
    return (text + blake3.blake3(text).digest()).ljust(CONTAINER_HEADER_BYTES, b"\0")


def signature_of(data: bytes | bytearray | memoryview) -> bytes:
    """Return a block's signature: blake3, 32 bytes."""
    return blake3.blake3(data).digest()
