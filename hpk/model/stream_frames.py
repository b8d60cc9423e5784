"""The binary frames of the channel: bytes of streams, and the credits for them.

After the frame's length (hpk.model.frames), all numbers big-endian:

    kind      1 byte   DATA, END or CREDIT; JSON frames begin with "{"
    stream    4 bytes  the id that ExecOpen, AttachOpen or DialOpen gave it
    channel   1 byte   STDIN, STDOUT or STDERR
    position  8 bytes  DATA, END: how many bytes the channel has carried before; CREDIT: up to which
                       position its sender may go
    data               DATA alone: 1 to MAX_DATA_BYTES bytes

A channel goes one way: STDIN to the supervisor, the others to the kubelet. Its sender may send
FIRST_CREDIT_BYTES and then up to the highest position it was allowed, and ends it with END; a
receiver that gets a byte at another position, or more than it allowed, ends the connection. So a
stream that nobody reads costs its window and no more, and stalls nobody else.
"""

from __future__ import annotations

import struct
from typing import Union

from hpk.model.errors import ParseError
from hpk.model.frozen import dataclass

STDIN, STDOUT, STDERR = 0, 1, 2
FIRST_CREDIT_BYTES = 256 * 1024
MAX_DATA_BYTES = 64 * 1024
MAX_STREAMS = 1024
"""Of one connection, open at once."""

_DATA, _END, _CREDIT = 1, 2, 3
_HEAD = struct.Struct(">BIBQ")
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class StreamData:
    """Bytes of a channel."""

    stream: int
    channel: int
    position: int
    data: bytes


@dataclass(frozen=True)
class StreamEnd:
    """Nothing follows on this channel."""

    stream: int
    channel: int
    position: int


@dataclass(frozen=True)
class StreamCredit:
    """The sender may go on up to this position."""

    stream: int
    channel: int
    position: int


StreamFrame = Union[StreamData, StreamEnd, StreamCredit]


def is_stream_frame(payload: bytes) -> bool:
    """Whether a frame's payload is one of these."""
    return payload[:1] != b"{"


def stream_frame_bytes(frame: StreamFrame) -> bytes:
    """The frame as it goes on the wire, length first."""
    if isinstance(frame, StreamData):
        head = _HEAD.pack(_DATA, frame.stream, frame.channel, frame.position)
        return _LENGTH.pack(len(head) + len(frame.data)) + head + frame.data
    kind = _END if isinstance(frame, StreamEnd) else _CREDIT
    head = _HEAD.pack(kind, frame.stream, frame.channel, frame.position)
    return _LENGTH.pack(len(head)) + head


def parse_stream_frame(payload: bytes) -> StreamFrame:
    """The frame in a payload (without its length).

    :raises ParseError: it is none, or not as it must be.
    """
    if len(payload) < _HEAD.size:
        raise ParseError(f"a stream frame of {len(payload)} bytes")
    kind, stream, channel, position = _HEAD.unpack_from(payload)
    if channel not in (STDIN, STDOUT, STDERR):
        raise ParseError(f"a stream frame of channel {channel}")
    size = len(payload) - _HEAD.size
    if kind == _DATA:
        if not 0 < size <= MAX_DATA_BYTES:
            raise ParseError(f"a stream frame with {size} bytes of data")
        return StreamData(stream, channel, position, payload[_HEAD.size :])
    if kind not in (_END, _CREDIT):
        raise ParseError(f"a stream frame of kind {kind}")
    if size:
        raise ParseError(f"a stream frame of kind {kind} with {size} bytes of data")
    cls = StreamEnd if kind == _END else StreamCredit
    return cls(stream, channel, position)
