"""The streams of one session: exec, attach and port-forward, as the kubelet API reads and writes
them. Who sends what it may not ends the session, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from hpk.model import codec
from hpk.model.credits import WideWindows
from hpk.model.errors import ParseError
from hpk.model.frames import (
    AttachOpen,
    DialOpen,
    ExecOpen,
    StreamClose,
    StreamClosed,
    StreamOpened,
    StreamResize,
    TerminalSize,
)
from hpk.model.stream_frames import (
    MAX_STREAMS,
    STDERR,
    STDIN,
    STDOUT,
    StreamCredit,
    StreamFrame,
)
from kubelet.link.frame_writer import FrameWriter
from kubelet.link.stream_channels import Incoming, Outgoing
from kubelet.link.stream_errors import StreamLostError, StreamRefusedError

_HUNG_UP = "the pod's supervisor hung up"

StreamOpen = ExecOpen | AttachOpen | DialOpen


class Stream:
    """Fulfils kubelet.server.streams.RemoteStream."""

    def __init__(self, number: int, frames: FrameWriter, wide: WideWindows) -> None:
        self._number = number
        self._frames = frames
        self._incoming = {
            channel: Incoming(number, channel, frames, wide) for channel in (STDOUT, STDERR)
        }
        self._outgoing = Outgoing(number, frames)
        self._is_let_go = False
        self._is_open = False
        self._last_word: StreamClosed | None = None
        self._loss = ""
        self._is_decided = asyncio.Event()
        """Whether it was opened is known."""
        self._is_over = asyncio.Event()
        """There was a last word, or there will be none."""

    async def read(self, channel: int) -> bytes:
        """See RemoteStream.read."""
        return await self._incoming[channel].read()

    async def write(self, data: bytes) -> None:
        """See RemoteStream.write."""
        await self._outgoing.write(data)

    async def write_end(self) -> None:
        """See RemoteStream.write_end."""
        self._outgoing.write_end()

    async def resize(self, size: TerminalSize) -> None:
        """See RemoteStream.resize."""
        if not self._is_over.is_set():
            with contextlib.suppress(ConnectionError):  # of which the others are told
                await self._frames.room()
                self._frames.put(codec.frame_bytes(StreamResize(self._number, size)))

    async def closed(self) -> StreamClosed:
        """See RemoteStream.closed."""
        await self._is_over.wait()
        if self._last_word is None:
            raise StreamLostError(self._loss)
        return self._last_word

    def close(self) -> None:
        """See RemoteStream.close."""
        if not self._is_let_go and not self._is_over.is_set():
            self._frames.put(codec.frame_bytes(StreamClose(self._number)))
        self._is_let_go = True
        self._end("the stream was closed")
        for channel in self._incoming.values():
            channel.discard()

    async def wait_opened(self) -> None:
        """Until it is.

        :raises StreamRefusedError: it will not be.
        :raises StreamLostError: the supervisor hung up.
        """
        await self._is_decided.wait()
        if not self._is_open and self._last_word is not None:
            raise StreamRefusedError(self._last_word.message)
        if not self._is_open:
            raise StreamLostError(self._loss)

    # What follows is called by the session.

    def take(self, frame: StreamFrame) -> None:
        """A binary frame.

        :raises ParseError: the supervisor may not send it.
        """
        if not self._is_open:
            raise ParseError(f"stream {frame.stream} is not open")
        if self._is_let_go:
            return  # it crossed our StreamClose
        if isinstance(frame, StreamCredit):
            if frame.channel != STDIN:
                raise ParseError(f"stream {frame.stream}: credit for channel {frame.channel}")
            self._outgoing.allow(frame.position)
            return
        channel = self._incoming.get(frame.channel)
        if channel is None:
            raise ParseError(f"stream {frame.stream}: bytes on channel {frame.channel}")
        channel.take(frame)

    def take_opened(self) -> None:
        """It runs, it is connected.

        :raises ParseError: that was said before.
        """
        if self._is_open:
            raise ParseError(f"stream {self._number} was opened twice")
        self._is_open = True
        self._is_decided.set()

    def take_closed(self, frame: StreamClosed) -> None:
        """The supervisor's last word."""
        self._last_word = frame
        self._end("")

    def lose(self, loss: str) -> None:
        """There will be no last word."""
        self._loss = loss
        self._end(loss)

    def _end(self, loss: str) -> None:
        for channel in self._incoming.values():
            channel.end(loss)
        self._outgoing.end(loss or "the stream has ended")
        self._loss = self._loss or loss
        self._is_decided.set()
        self._is_over.set()


class SessionStreams:
    """All that one session has open.

    :param numbers: of this session's requests; each is used once.
    """

    def __init__(self, frames: FrameWriter, numbers: Iterator[int]) -> None:
        self._frames = frames
        self._numbers = numbers
        self._streams: dict[int, Stream] = {}
        self._wide = WideWindows()
        self._is_lost = False

    async def open(self, make: Callable[[int], StreamOpen]) -> Stream:
        """Open a stream, and wait until it is.

        :param make: the frame, of the stream's number.
        :raises StreamRefusedError: the supervisor says why not.
        :raises StreamLostError: it hung up.
        """
        with contextlib.suppress(ConnectionError):
            await self._frames.room()
        if self._is_lost:
            raise StreamLostError(_HUNG_UP)
        if len(self._streams) >= MAX_STREAMS:
            raise StreamRefusedError(f"too many streams of this pod are open: {MAX_STREAMS}")
        # Frames are queued in the order of their numbers: from here on nothing may wait.
        number = next(self._numbers)
        try:
            frame = codec.frame_bytes(make(number))
        except ParseError as error:
            raise StreamRefusedError(str(error)) from error
        stream = self._streams[number] = Stream(number, self._frames, self._wide)
        self._frames.put(frame)
        try:
            await stream.wait_opened()
        except BaseException:
            stream.close()
            raise
        return stream

    def take(self, frame: StreamFrame) -> None:
        """A binary frame of the supervisor's.

        :raises ParseError: it may not send it.
        """
        self._find(frame.stream).take(frame)

    def take_word(self, frame: StreamOpened | StreamClosed) -> None:
        """What becomes of a stream.

        :raises ParseError: there is no such stream, or it had become that before.
        """
        stream = self._find(frame.id)
        if isinstance(frame, StreamOpened):
            stream.take_opened()
        else:
            del self._streams[frame.id]
            stream.take_closed(frame)

    def lose(self) -> None:
        """The session has ended."""
        self._is_lost = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lose(_HUNG_UP)

    def _find(self, number: int) -> Stream:
        stream = self._streams.get(number)
        if stream is None:
            raise ParseError(f"there is no stream {number}")
        return stream
