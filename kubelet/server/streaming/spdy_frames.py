"""SPDY/3.1 frames: from bytes to frames and back. Nothing here waits or reads.

Data frames may be 16 MiB long and are passed on in the pieces they come in; only control frames are
gathered, and those are short.

Source: SPDY draft 3.1, 2.2; moby/spdystream, spdy/read.go.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from hpk.model.errors import ParseError
from kubelet.server.streaming.spdy_headers import HeaderUnpacker

VERSION = 0x8003
FIN = 0x01
MAX_CONTROL_BYTES = 32 * 1024
MAX_STREAM = 0x7FFFFFFF
_HEAD = struct.Struct(">II")


class Kind(IntEnum):
    """Of control frames."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ResetStatus(IntEnum):
    """Why a stream is reset."""

    PROTOCOL_ERROR = 1
    REFUSED_STREAM = 3
    CANCEL = 5


@dataclass(frozen=True, slots=True)
class SynStream:
    """The client opens a stream.

    :param fin: and sends nothing on it.
    """

    stream: int
    headers: Mapping[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream, perhaps a piece of a frame.

    :param fin: nothing follows.
    """

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class RstStream:
    """The client is done with a stream, both ways."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back, if its id is odd."""

    id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The client opens no more streams."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A frame that means nothing to a server of this kind, well-formed.

    SETTINGS and WINDOW_UPDATE are among them: Kubernetes' clients neither send nor heed windows
    (moby/spdystream has none), so one who waited for them would wait for ever.
    """

    kind: Kind


Frame = SynStream | Data | RstStream | Ping | GoAway | Ignored


class FrameReader:
    """Finds the frames in bytes that come in pieces of any size."""

    def __init__(self) -> None:
        self._headers = HeaderUnpacker()
        self._received = bytearray()
        self._stream = 0
        self._fin = False
        self._left = 0
        """Of the data frame under way: its stream, whether it is the last, bytes to come."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that these further bytes complete. To be exhausted before the next call.

        :raises ParseError: this is no SPDY, or too large; nothing can be read any more.
        """
        self._received += data
        at = 0
        while True:
            if self._left:
                piece = bytes(self._received[at : at + self._left])
                if not piece:
                    break
                at += len(piece)
                self._left -= len(piece)
                yield Data(self._stream, piece, self._fin and not self._left)
                continue
            if len(self._received) - at < _HEAD.size:
                break
            first, second = _HEAD.unpack_from(self._received, at)
            length, flags = second & 0xFFFFFF, second >> 24
            if not first >> 31:
                at += _HEAD.size
                if not first:
                    raise ParseError("a data frame of stream 0")
                self._stream, self._fin, self._left = first, bool(flags & FIN), length
                if not length:
                    yield Data(first, b"", self._fin)
                continue
            kind = _control_kind(first, length)
            if len(self._received) - at < _HEAD.size + length:
                break
            at += _HEAD.size
            payload = bytes(self._received[at : at + length])
            at += length
            yield self._control(kind, flags, payload)
        del self._received[:at]

    def _control(self, kind: Kind, flags: int, payload: bytes) -> Frame:
        if kind in (Kind.SYN_STREAM, Kind.SYN_REPLY, Kind.HEADERS):
            # Blocks of all kinds go through one decompressor, so each must be unpacked.
            fixed = 10 if kind is Kind.SYN_STREAM else 4
            if len(payload) < fixed:
                raise ParseError(f"a {kind.name} frame of {len(payload)} bytes")
            headers = self._headers.unpack(payload[fixed:])
            stream = _stream_of(kind, payload)
            if kind is not Kind.SYN_STREAM:
                return Ignored(kind)
            return SynStream(stream, headers, bool(flags & FIN))
        if kind is Kind.SETTINGS:
            if len(payload) < 4 or len(payload) != 4 + 8 * struct.unpack_from(">I", payload)[0]:
                raise ParseError(f"a SETTINGS frame of {len(payload)} bytes")
            return Ignored(kind)
        if len(payload) != (4 if kind is Kind.PING else 8):
            raise ParseError(f"a {kind.name} frame of {len(payload)} bytes")
        if kind is Kind.PING:
            return Ping(struct.unpack(">I", payload)[0])
        if kind is Kind.GOAWAY:
            return GoAway()
        if kind is Kind.RST_STREAM:
            return RstStream(_stream_of(kind, payload), struct.unpack_from(">I", payload, 4)[0])
        return Ignored(kind)


def _control_kind(first: int, length: int) -> Kind:
    if first >> 16 != VERSION:
        raise ParseError(f"a frame that begins with {first:#010x} is no SPDY/3")
    try:
        kind = Kind(first & 0xFFFF)
    except ValueError as error:
        raise ParseError(f"a control frame of kind {first & 0xFFFF}") from error
    if length > MAX_CONTROL_BYTES:
        raise ParseError(f"a {kind.name} frame of {length} bytes")
    return kind


def _stream_of(kind: Kind, payload: bytes) -> int:
    stream: int = struct.unpack_from(">I", payload)[0] & MAX_STREAM
    if not stream:
        raise ParseError(f"a {kind.name} frame of stream 0")
    return stream


def control_frame(kind: Kind, payload: bytes, flags: int = 0) -> bytes:
    """A control frame as it goes on the wire."""
    return struct.pack(">HHI", VERSION, kind, flags << 24 | len(payload)) + payload


def data_frame(stream: int, data: bytes, *, fin: bool = False) -> bytes:
    """A data frame as it goes on the wire."""
    return _HEAD.pack(stream, (FIN if fin else 0) << 24 | len(data)) + data


def reset_frame(stream: int, status: ResetStatus) -> bytes:
    """A RST_STREAM frame as it goes on the wire."""
    return control_frame(Kind.RST_STREAM, struct.pack(">II", stream, status))
