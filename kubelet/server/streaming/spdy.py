"""One SPDY/3.1 connection, the server's end: streams that the client opens.

Neither end of Kubernetes' SPDY has windows (see spdy_frames). What the client sends and nobody
reads is therefore bounded for the whole connection: beyond that it is not read, and the client
waits. What we send waits for the client in the same way.

Source: SPDY draft 3.1; k8s.io/streaming, httpstream/spdy; moby/spdystream.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping

from hpk.model.errors import ParseError
from kubelet.server.streaming.client_stream import ClientGoneError, Inbox, Unread
from kubelet.server.streaming.spdy_frames import (
    Data,
    Frame,
    FrameReader,
    GoAway,
    Kind,
    Ping,
    ResetStatus,
    RstStream,
    SynStream,
    control_frame,
    data_frame,
    reset_frame,
)
from kubelet.server.streaming.spdy_headers import HeaderPacker
from kubelet.server.streaming.wire import IdleWatch, Wire

MAX_STREAMS = 1024
"""Of one connection, open at once: 512 forwarded connections."""
_DATA_BYTES = 32 * 1024


class SpdyStream:
    """Fulfils ClientStream.

    :param headers: by their names in lower case.
    """

    def __init__(self, connection: SpdyConnection, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self.was_reset = asyncio.Event()
        self.sent_all = False
        self.inbox = Inbox(connection.unread)
        self._connection = connection

    async def read(self) -> bytes:
        """See ClientStream."""
        data = await self.inbox.read()
        if not data:
            self._connection.forget_if_over(self)
        return data

    async def write(self, data: bytes) -> None:
        """See ClientStream."""
        view = memoryview(data)
        for at in range(0, len(data), _DATA_BYTES):
            await self._send(bytes(view[at : at + _DATA_BYTES]), fin=False)

    async def write_end(self) -> None:
        """See ClientStream."""
        await self._send(b"", fin=True)

    async def reset(self) -> None:
        """See ClientStream."""
        await self._connection.reset(self)

    async def wait_reset(self) -> None:
        """See ClientStream."""
        await self.was_reset.wait()

    async def _send(self, data: bytes, *, fin: bool) -> None:
        if self.sent_all:
            return
        self.sent_all = fin
        await self._connection.send(data_frame(self.number, data, fin=fin))
        if fin:
            self._connection.forget_if_over(self)


class SpdyConnection:
    """Reads a connection's frames in `serve`; streams are used by other tasks meanwhile.

    :param on_stream: told of each stream that the client opens; False refuses it.
    """

    def __init__(self, wire: Wire, on_stream: Callable[[SpdyStream], bool]) -> None:
        self.unread = Unread()
        self._wire = wire
        self._on_stream = on_stream
        self._packer = HeaderPacker()
        self._streams: dict[int, SpdyStream] = {}
        self._next = 1
        """The lowest number that the client may give to a stream."""
        self._is_over = False
        self._idle = IdleWatch(wire)

    async def serve(self) -> None:
        """Read frames until the client has gone; then all streams have ended.

        :raises ClientGoneError: always: with what ended it.
        """
        reader = FrameReader()
        self._idle.begin()
        try:
            while data := await self._wire.read():
                for frame in reader.feed(data):
                    self._idle.note_life()
                    if isinstance(frame, GoAway):
                        raise ClientGoneError("the client has said goodbye")
                    await self._take(frame)
                    await self.unread.room()
            raise ClientGoneError("the client has hung up")
        except ParseError as error:
            raise ClientGoneError(f"the client breaks the protocol: {error}") from error
        finally:
            self._end()

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the client does not read.

        :raises ClientGoneError: it has gone.
        """
        if self._is_over:
            raise ClientGoneError("the client has gone")
        self._wire.write(frame)
        await self._wire.drain()
        self._idle.note_life()

    async def go_away(self) -> None:
        """Say that all is over: the client will hang up.

        :raises ClientGoneError: it has gone already.
        """
        await self.send(control_frame(Kind.GOAWAY, struct.pack(">II", max(self._next - 2, 0), 0)))

    async def reset(self, stream: SpdyStream) -> None:
        """End a stream both ways."""
        if stream.number in self._streams:
            self._forget(stream)
            await self.send(reset_frame(stream.number, ResetStatus.CANCEL))

    def forget_if_over(self, stream: SpdyStream) -> None:
        """Neither end sends any more, and all was read."""
        if stream.sent_all and stream.inbox.is_read_out:
            self._streams.pop(stream.number, None)

    def _forget(self, stream: SpdyStream) -> None:
        self._streams.pop(stream.number, None)
        stream.sent_all = True
        stream.inbox.drop()
        stream.was_reset.set()

    def _end(self) -> None:
        self._is_over = True
        self._idle.end()
        for stream in tuple(self._streams.values()):
            self._forget(stream)

    async def _take(self, frame: Frame) -> None:
        if isinstance(frame, SynStream):
            await self._open(frame)
        elif isinstance(frame, Data):
            # Of a stream that is not there any more: dropped, as it was under way.
            if stream := self._streams.get(frame.stream):
                stream.inbox.put(frame.data)
                if frame.fin:
                    stream.inbox.end()
                    self.forget_if_over(stream)
        elif isinstance(frame, RstStream):
            if stream := self._streams.get(frame.stream):
                self._forget(stream)
        elif isinstance(frame, Ping) and frame.id % 2:
            await self.send(control_frame(Kind.PING, struct.pack(">I", frame.id)))

    async def _open(self, frame: SynStream) -> None:
        if frame.stream < self._next:
            await self.send(reset_frame(frame.stream, ResetStatus.PROTOCOL_ERROR))
            return
        self._next = frame.stream + 2
        stream = SpdyStream(self, frame.stream, frame.headers)
        if frame.fin:
            stream.inbox.end()
        if len(self._streams) >= MAX_STREAMS or not self._on_stream(stream):
            await self.send(reset_frame(frame.stream, ResetStatus.REFUSED_STREAM))
            return
        self._streams[frame.stream] = stream
        # Written before anything that on_stream's task will write: nothing was awaited between.
        reply = struct.pack(">I", frame.stream) + self._packer.pack({})
        await self.send(control_frame(Kind.SYN_REPLY, reply))
