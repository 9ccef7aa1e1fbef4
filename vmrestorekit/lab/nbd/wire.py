"""The NBD protocol on the wire: numbers and packed structures (fixed newstyle, structured replies)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag

GREETING_MAGIC = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

HANDSHAKE_FLAGS = 0b11  # fixed newstyle, no zeroes
CLIENT_FIXED_NEWSTYLE, CLIENT_NO_ZEROES = 0b01, 0b10

MAX_OPTION_BYTES = 64 << 10
PREFERRED_BLOCK_BYTES = 4096
BASE_ALLOCATION = "base:allocation"
CONTEXT = 1  # the id we give to base:allocation, the only context there is
MAX_EXTENTS = 8192  # in one answer; a client asks on from where it ends
MAX_EXTENTS_BYTES = 8 * MAX_EXTENTS

GREETING = struct.Struct(">QQH")
OPTION = struct.Struct(">QII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
CHUNK = struct.Struct(">IHHQI")
INFO_EXPORT = struct.Struct(">HQH")
INFO_BLOCK_SIZE = struct.Struct(">HIII")
U16, U32, U64 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")


class Option(IntEnum):
    """What a client may ask for before it opens an export."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    """How an option is answered; errors have the top bit set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUPPORTED = 0x80000001
    ERR_INVALID = 0x80000003
    ERR_UNKNOWN = 0x80000006


class Info(IntEnum):
    """Kinds of information about an export."""

    EXPORT = 0
    BLOCK_SIZE = 3


class ExportFlag(IntFlag):
    """What an export can do."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    SEND_TRIM = 32
    SEND_WRITE_ZEROES = 64
    SEND_DF = 128
    CAN_MULTI_CONN = 256


class Command(IntEnum):
    """Requests in transmission."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """Flags of a request."""

    FUA = 1
    NO_HOLE = 2
    DF = 4
    REQ_ONE = 8


class Chunk(IntEnum):
    """Kinds of structured reply chunks."""

    NONE = 0
    OFFSET_DATA = 1
    BLOCK_STATUS = 5
    ERROR = 0x8001


CHUNK_DONE = 1
STATUS_HOLE_ZERO = 0b11  # block status: a hole, reads as zeros

# the protocol knows these numbers only, and they are Linux's on every platform
_ERRORS = {
    errno.EPERM: 1,
    errno.EIO: 5,
    errno.ENOMEM: 12,
    errno.EINVAL: 22,
    errno.ENOSPC: 28,
    errno.EOVERFLOW: 75,
    errno.ESHUTDOWN: 108,
}


def error_number(number: int | None) -> int:
    """Return the protocol's number of an operating system error; what it does not know is an I/O error."""
    return _ERRORS.get(number or 0, _ERRORS[errno.EIO])


def parse_name(data: bytes, position: int = 0) -> tuple[str, int]:
    """Return a length-prefixed UTF-8 string and the position after it.

    Raises
    ------
    ValueError
        If it is truncated or no UTF-8.
    """
    end_of_length = position + U32.size
    if end_of_length > len(data):
        raise ValueError("truncated option")
    end = end_of_length + U32.unpack_from(data, position)[0]
    if end > len(data):
        raise ValueError("truncated option")
    return data[end_of_length:end].decode(), end


def parse_info_request(data: bytes) -> str:
    """Return the export's name from the data of INFO or GO; what it asks for does not matter."""
    name, position = parse_name(data)
    if position + U16.size > len(data):
        raise ValueError("truncated option")
    if position + U16.size * (1 + U16.unpack_from(data, position)[0]) != len(data):
        raise ValueError("option has the wrong length")
    return name


def parse_context_request(data: bytes) -> tuple[str, list[str]]:
    """Return the export's name and the queries from the data of LIST_META_CONTEXT or SET_META_CONTEXT."""
    name, position = parse_name(data)
    if position + U32.size > len(data):
        raise ValueError("truncated option")
    count = U32.unpack_from(data, position)[0]
    position += U32.size
    queries: list[str] = []
    while len(queries) < count:
        query, position = parse_name(data, position)
        queries.append(query)
    if position != len(data):
        raise ValueError("option has the wrong length")
    return name, queries


def pack_extents(context: int, extents: Iterable[tuple[int, bool]], *, one: bool) -> bytes:
    """Return the payload of a block status chunk from ``(length, zero)`` pairs; equal neighbours are merged.

    With ``one`` only the first is described, as a client may ask; else `MAX_EXTENTS` at most.
    """
    most = 1 if one else MAX_EXTENTS
    merged: list[tuple[int, bool]] = []
    for length, zero in extents:
        if merged and merged[-1][1] == zero:
            merged[-1] = (merged[-1][0] + length, zero)
        elif len(merged) == most:
            break
        else:
            merged.append((length, zero))
    words = b"".join(U32.pack(length) + U32.pack(STATUS_HOLE_ZERO if zero else 0) for length, zero in merged)
    return U32.pack(context) + words
