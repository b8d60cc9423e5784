"""The two kinds of a stream's channels, as the kubelet holds them: bounded by their credits."""

from __future__ import annotations

import asyncio

from hpk.model.credits import Receipt, WideWindows
from hpk.model.stream_frames import (
    FIRST_CREDIT_BYTES,
    MAX_DATA_BYTES,
    STDIN,
    StreamCredit,
    StreamData,
    StreamEnd,
    stream_frame_bytes,
)
from kubelet.link.frame_writer import FrameWriter
from kubelet.link.stream_errors import StreamLostError


class Incoming:
    """Bytes from the supervisor: credits follow what is read, not what has come."""

    def __init__(self, stream: int, channel: int, frames: FrameWriter, wide: WideWindows) -> None:
        self._stream = stream
        self._channel = channel
        self._frames = frames
        self._receipt = Receipt(wide)
        self._is_credit_queued = False
        self._waiting = bytearray()
        self._loss = ""
        self._changed = asyncio.Event()

    def take(self, frame: StreamData | StreamEnd) -> None:
        """What has come.

        :raises ParseError: the supervisor may not send it.
        """
        self._receipt.take(frame)
        if isinstance(frame, StreamData):
            self._waiting += frame.data
        self._changed.set()

    def end(self, loss: str = "") -> None:
        """Nothing more comes.

        :param loss: what a reader is told after the last byte; "": that was the end.
        """
        if not self._receipt.has_ended:
            self._receipt.close()
            self._loss = loss
            self._changed.set()

    async def read(self) -> bytes:
        """See kubelet.server.streams.RemoteStream.read."""
        while not self._waiting:
            if self._loss:
                raise StreamLostError(self._loss)
            if self._receipt.has_ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        with memoryview(self._waiting) as waiting:
            data = bytes(waiting[:MAX_DATA_BYTES])
        del self._waiting[: len(data)]
        self._receipt.read(len(data))
        if self._receipt.is_credit_due and not self._is_credit_queued:
            self._is_credit_queued = True
            self._frames.put_later(self._credit)
        return data

    def discard(self) -> None:
        """Nobody reads any more."""
        self._waiting.clear()

    def _credit(self) -> bytes:
        self._is_credit_queued = False
        return stream_frame_bytes(StreamCredit(self._stream, self._channel, self._receipt.grant()))


class Outgoing:
    """Bytes to the supervisor: at most two frames of them wait here. A Source of the writer."""

    def __init__(self, stream: int, frames: FrameWriter) -> None:
        self._stream = stream
        self._frames = frames
        self._waiting = bytearray()
        self._sent = 0
        self._limit = FIRST_CREDIT_BYTES
        self._is_ending = False
        self._has_ended = False
        self._loss = ""
        self._changed = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """See kubelet.server.streams.RemoteStream.write."""
        with memoryview(data) as rest:
            for start in range(0, len(rest), MAX_DATA_BYTES):
                await self._room()
                self._waiting += rest[start : start + MAX_DATA_BYTES]
                self._frames.ready(self)

    async def _room(self) -> None:
        while not self._loss and len(self._waiting) >= MAX_DATA_BYTES:
            self._changed.clear()
            await self._changed.wait()
        if self._loss:
            raise StreamLostError(self._loss)

    def write_end(self) -> None:
        """Nothing follows what was written."""
        if not self._is_ending:
            self._is_ending = True
            self._frames.ready(self)

    def allow(self, position: int) -> None:
        """The supervisor takes bytes up to here."""
        if position > self._limit:
            self._limit = position
            self._frames.ready(self)

    def end(self, loss: str) -> None:
        """Nobody will read any more; who writes is told so."""
        if not self._loss:
            self._loss = loss
            self._waiting.clear()
            self._changed.set()

    def next_frame(self) -> bytes:
        """See kubelet.link.frame_writer.Source.next_frame."""
        if self._loss or self._has_ended:
            return b""
        size = min(MAX_DATA_BYTES, len(self._waiting), self._limit - self._sent)
        if size > 0:
            with memoryview(self._waiting) as waiting:
                data = bytes(waiting[:size])
            del self._waiting[:size]
            frame = stream_frame_bytes(StreamData(self._stream, STDIN, self._sent, data))
            self._sent += size
            self._changed.set()
            return frame
        if self._is_ending and not self._waiting:
            self._has_ended = True
            return stream_frame_bytes(StreamEnd(self._stream, STDIN, self._sent))
        return b""
