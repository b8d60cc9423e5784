"""The channel's binary answer to LogRead, since version 3.

After the frame's length (hpk.model.frames), all numbers big-endian:

    kind    1 byte   LOG; hpk.model.stream_frames has the others
    id      4 bytes  LogRead's
    eof     1 byte   0 or 1: the container has ended and nothing follows these bytes
    offset  8 bytes  where they begin in the log
    data             at most LOG_CHUNK_BYTES

Where nothing can be read the answer is LogData with an error, as it was before.
"""

from __future__ import annotations

import struct

from hpk.model.errors import ParseError
from hpk.model.frames import LOG_CHUNK_BYTES
from hpk.model.frozen import dataclass

_LOG = 4
_KIND = bytes((_LOG,))
_HEAD = struct.Struct(">BI?Q")
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class LogBytes:
    """Bytes of a CRI log from ``offset``.

    :param eof: the container has ended and nothing follows them.
    """

    id: int
    offset: int
    data: bytes
    eof: bool


def is_log_frame(payload: bytes) -> bool:
    """Whether a frame's payload is one of these."""
    return payload[:1] == _KIND


def log_frame_bytes(frame: LogBytes) -> bytes:
    """The frame as it goes on the wire, length first."""
    head = _HEAD.pack(_LOG, frame.id, frame.eof, frame.offset)
    return b"".join((_LENGTH.pack(len(head) + len(frame.data)), head, frame.data))


def parse_log_frame(payload: bytes) -> LogBytes:
    """The frame in a payload (without its length).

    :raises ParseError: it is not as it must be.
    """
    size = len(payload) - _HEAD.size
    if not 0 <= size <= LOG_CHUNK_BYTES:
        raise ParseError(f"a log frame of {len(payload)} bytes")
    _, request, eof, offset = _HEAD.unpack_from(payload)
    return LogBytes(request, offset, payload[_HEAD.size :], eof)
